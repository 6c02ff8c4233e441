"""One gate for all accounts of a client: never hammered, never shut for good."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spotokend.rules import schedule
from spotokend.rules.gate import (
    CAUTIOUS,
    INCIDENT_WINDOW,
    LONG_AGO,
    QUIET,
    YOUNG_GRANT,
    Failure,
    Gate,
    Refusals,
    answered,
    block,
    closed_until,
    ended,
    failed,
    hurry,
    incident,
    may_start,
    next_chance,
    note,
    resumed,
    started,
    supplied,
    together,
    unblock,
)
from spotokend.rules.schedule import DAY, DEFAULT_TIMING, NEVER, Boot, Timing

NOW = Boot(1000.0)
DICE = st.floats(0, 1, exclude_max=True)


def fail(gate, account="one", *, now=NOW, u=0.5, waiting=False, retry_after=None):
    """A transient failure."""
    return failed(
        gate,
        account,
        Failure("no answer", retry_after),
        now=now,
        u=u,
        waiting=waiting,
        timing=DEFAULT_TIMING,
    )


def shut(gate=None, **how):
    """A gate whose only attempt has just failed."""
    return ended(fail(started(gate or Gate(), "one"), **how), "one")


def opens(gate, now=NOW, **how):
    """Whether one more may start."""
    return may_start(gate, now, DEFAULT_TIMING, **how)


def proven(now=NOW):
    """A gate whose server has just answered several times."""
    return Gate(answers=5, answered_at=now)


def flying(gate, now=NOW, **how):
    """How many more may be in flight at once."""
    many = 0
    while opens(gate, now, **how):
        gate, many = started(gate, f"account-{many}"), many + 1
    return many


def test_a_proven_gate_lets_eight_through():
    """And the ninth when one of them has ended."""
    gate = proven()
    for number in range(8):
        assert opens(gate)
        gate = started(gate, f"account-{number}")
    assert not opens(gate)
    assert not opens(gate, urgent=True)
    assert next_chance(gate, NOW) == NEVER
    assert opens(ended(gate, "account-3"))


def test_few_find_out_whether_the_server_is_there():
    """All wake up on a train: three requests are lost, not eight. Inside a grace time presses."""
    assert flying(Gate()) == CAUTIOUS == 3
    assert flying(Gate(), urgent=True) == 8


def test_each_answer_lets_one_more_go_at_once():
    """Fifty accounts are served within seven round trips: 3, 6, and eights."""
    gate, round_trips = Gate(), []
    for _ in range(3):
        flying = [f"account-{number}" for number in range(8)]
        flying = [account for account in flying if opens(gate) and (gate := started(gate, account))]
        round_trips.append(len(flying))
        for account in flying:
            gate = ended(answered(gate, NOW), account)
    assert round_trips == [3, 6, 8]


def test_a_failure_makes_it_cautious_again():
    """What was known of the server is no longer so: after the probe's answer it begins anew."""
    closed = shut(proven())
    reopened = answered(started(closed, "two"), Boot(closed.opens_at))
    assert flying(ended(reopened, "two"), Boot(closed.opens_at)) == CAUTIOUS + 1


def test_after_a_quiet_minute_nothing_is_known_any_more():
    """As after a suspend; what came before does not count again either."""
    quiet = Boot(NOW + QUIET)
    assert flying(proven(), Boot(quiet - 0.001)) == 8
    assert flying(proven(), quiet) == CAUTIOUS
    assert flying(answered(proven(), quiet), quiet) == CAUTIOUS + 1


def test_a_smaller_number_is_kept_to():
    """What is configured is the most, however well the server answers."""
    timing = Timing(in_flight=1)
    assert may_start(proven(), NOW, timing)
    assert not may_start(started(proven(), "one"), NOW, timing)
    assert not may_start(started(Gate(), "one"), NOW, timing, urgent=True)


def test_a_failure_closes_it_for_the_back_off_computed():
    """What is stored is what is slept."""
    gate = shut(u=0.5)
    opens_at = NOW + schedule.backoff(1, 0.5, waiting=False)
    assert gate.opens_at == next_chance(gate, NOW) == closed_until(gate) == opens_at
    assert not opens(gate, Boot(opens_at - 0.001))
    assert opens(gate, Boot(opens_at))
    assert gate.reason == "no answer"


@given(st.integers(0, 40), DICE, st.booleans(), st.floats(0, 1e6))
def test_the_sleep_is_the_back_off(before, u, waiting, now):
    """After any number of failures, whatever the dice, whoever waits."""
    gate = shut(Gate(failures=before, probe="one"), now=Boot(now), u=u, waiting=waiting)
    assert gate.failures == before + 1
    assert next_chance(gate, Boot(now)) == now + schedule.backoff(before + 1, u, waiting=waiting)


def test_at_the_cap_clients_still_spread_out():
    """The clamp comes first, then the jitter, so that a long outage ends for few at a time."""
    gates_ = [shut(Gate(failures=20, probe="one"), u=u) for u in (0.25, 0.5, 0.75)]
    assert [gate.opens_at - NOW for gate in gates_] == [15.0, 30.0, 45.0]


def test_one_probe_goes_and_the_others_follow_its_outcome():
    """Nobody else until it has come back."""
    gate = shut()
    later = Boot(gate.opens_at)
    probing = started(gate, "two")
    assert probing.probe == "two"
    assert not opens(probing, Boot(later + 1000.0))
    assert next_chance(probing, later) == NEVER
    assert opens(ended(answered(probing, later), "two"), later)
    again = ended(fail(probing, "two", now=later), "two")
    assert (again.failures, again.probe) == (2, None)
    assert again.opens_at == later + 1.0


def test_a_probe_that_ended_without_a_verdict_makes_way():
    """Nothing was sent, because the disk takes no writes: the next one may try."""
    gate = shut()
    assert opens(ended(started(gate, "two"), "two"), Boot(gate.opens_at))


def test_of_many_that_fail_together_the_first_counts():
    """Eight in flight when the line broke are one failure, not eight."""
    gate = Gate()
    for number in range(8):
        gate = started(gate, f"account-{number}")
    first = fail(gate, "account-0", u=0.5)
    for number in range(1, 8):
        assert fail(first, f"account-{number}", now=Boot(NOW + 9.0), u=0.9) == first


def test_an_urgent_one_passes_what_only_our_own_back_off_closed():
    """Inside a grace each second counts; but what the server asked for counts more."""
    assert opens(shut(), urgent=True)
    assert opens(started(shut(), "two"), urgent=True)
    assert not opens(shut(retry_after=5.0), urgent=True)
    assert not opens(block(Gate(), "unknown", "mend it"), urgent=True)
    assert started(shut(), "urgent").probe == "urgent"


@pytest.mark.parametrize(("asked", "wait"), [(0.1, 1.0), (13_749.0, 13_749.0), (1e9, DAY)])
def test_nothing_goes_before_retry_after(asked, wait):
    """Whoever waits; and after it the hosts that heard the same figure don't return together."""
    gate = hurry(shut(retry_after=asked, u=0.5), now=NOW, u=0.5, timing=DEFAULT_TIMING)
    assert gate.asked_until == NOW + wait
    assert gate.opens_at == NOW + wait + 0.5
    for urgent in (True, False):
        assert not opens(gate, Boot(NOW + wait - 0.001), urgent=urgent)
    assert opens(gate, Boot(gate.opens_at))


def test_the_longest_retry_after_counts():
    """Also of those whose failure itself says nothing new; a shorter one takes nothing back."""
    gate = fail(started(started(Gate(), "one"), "two"), "one", retry_after=60.0)
    assert fail(gate, "two", retry_after=600.0).asked_until == NOW + 600.0
    assert fail(gate, "two", retry_after=6.0) == gate
    assert fail(gate, "two") == gate


def test_an_older_request_that_is_answered_takes_no_retry_after_back():
    """It was sent before the server asked for a pause."""
    both = started(started(Gate(), "one"), "two")
    gate = answered(fail(both, "one", retry_after=60.0), NOW)
    assert gate.failures == 0
    assert not opens(gate, Boot(NOW + 59.0))
    assert next_chance(gate, NOW) == closed_until(gate) == NOW + 60.0
    assert opens(gate, Boot(NOW + 60.0))


def test_an_answer_opens_it():
    """The server serves this client again; nothing is left of the outage."""
    gate = answered(shut(Gate(failures=20, probe="one")), NOW)
    assert gate == Gate(answers=1, answered_at=NOW)


def test_whoever_waits_makes_a_long_back_off_short_once():
    """Were the dice thrown for each caller, the smallest of many throws would be none at all."""
    gate = shut(Gate(failures=20, probe="one"), u=0.9)
    assert gate.opens_at == NOW + 54.0
    short = hurry(gate, now=Boot(NOW + 10.0), u=0.5, timing=DEFAULT_TIMING)
    assert short.opens_at == NOW + 12.5
    assert hurry(short, now=Boot(NOW + 10.0), u=0.0, timing=DEFAULT_TIMING) is short
    assert shut(short, u=0.5).hurried is False


def test_hurry_never_makes_it_longer():
    """What opens sooner anyway stays as it is, and there was one throw."""
    gate = shut(u=0.3)
    assert hurry(gate, now=NOW, u=0.9, timing=DEFAULT_TIMING).opens_at == gate.opens_at


def test_a_back_off_that_began_in_a_hurry_is_not_shortened_again():
    """It has the smaller cap already."""
    gate = shut(waiting=True)
    assert hurry(gate, now=NOW, u=0.0, timing=DEFAULT_TIMING) is gate


def test_nothing_is_hurried_while_it_is_open_or_probed():
    """There is nothing to shorten."""
    for gate in (Gate(), started(shut(), "two")):
        assert hurry(gate, now=NOW, u=0.0, timing=DEFAULT_TIMING) is gate


def test_a_client_that_is_refused_is_blocked_until_the_configuration_changes():
    """Not by time; and what it says is the refusal, whatever those in flight meet."""
    gate = block(started(started(Gate(), "one"), "two"), "unknown client", "mend it")
    assert not opens(gate, Boot(1e12))
    assert next_chance(gate, NOW) == closed_until(gate) == NEVER
    assert hurry(gate, now=NOW, u=0.5, timing=DEFAULT_TIMING) is gate
    after = fail(gate, "two", retry_after=60.0)
    assert (after.reason, after.hint, after.failures) == ("unknown client", "mend it", 0)
    assert after.asked_until == NOW + 60.0


def test_a_reload_opens_what_was_blocked():
    """The refusal was an answer: nothing is left of an outage before it."""
    gate = ended(block(started(shut(), "two"), "unknown client", "mend it"), "two")
    assert unblock(gate) == Gate()
    closed = shut()
    assert unblock(closed) is closed


def test_who_is_served_is_not_blocked():
    """A login that was exchanged shows that the provider knows the client."""
    blocked = block(Gate(), "unknown client", "mend it")
    assert answered(blocked, NOW) == Gate(answers=1, answered_at=NOW)


def lack(gate, account="one"):
    """Its secret is in a keyring that is closed: nothing is sent."""
    failure = Failure("the keyring is locked", lacking=True)
    return failed(gate, account, failure, now=NOW, u=0.5, waiting=False, timing=DEFAULT_TIMING)


def test_what_is_missing_on_this_side_closes_it_until_it_is_there():
    """One account finds out, for all; then they go, as carefully as before: nothing was learnt."""
    closed = ended(lack(started(proven(), "one")), "one")
    assert not opens(closed)
    assert (closed.failures, closed.reason, closed.lacking) == (1, "the keyring is locked", True)
    assert supplied(closed) == proven()

    unknown = ended(lack(started(Gate(), "one")), "one")
    assert supplied(unknown) == Gate()
    assert flying(supplied(unknown)) == CAUTIOUS


def test_what_was_supplied_opens_nothing_that_the_server_closed():
    """A failure that was one stays, and so do a refusal and what was asked for by Retry-After."""
    outage = shut(started(ended(lack(started(Gate(), "one")), "one"), "one"))
    assert supplied(outage) is outage
    refused = block(lack(started(Gate(), "one")), "unknown client", "mend it")
    assert supplied(refused) is refused
    asked = shut(retry_after=600.0)
    lacking = lack(replace(asked, probe="one"))
    assert supplied(lacking).asked_until == asked.asked_until
    assert not opens(supplied(lacking))


# ---------------------------------------------------------------------------------------- at random


class Traffic(RuleBasedStateMachine):
    """Accounts of one client, whatever the server does to them."""

    def __init__(self):
        super().__init__()
        self.gate = Gate()
        self.now = NOW
        self.flying: dict[str, bool] = {}
        """In flight: account → whether it set out as the probe of a closed gate."""
        self.asked_until = LONG_AGO
        self.serial = 0
        self.hurried = False

    @rule(seconds=st.sampled_from([0.001, 0.3, 1.0, 6.0, 61.0, 3600.0]))
    def time_passes(self, seconds):
        """Or a suspend."""
        self.now = Boot(self.now + seconds)

    @precondition(lambda self: next_chance(self.gate, self.now) < NEVER)
    @rule()
    def the_keeper_sleeps(self):
        """Exactly until the moment it was told; not a moment earlier is there anything to do."""
        moment = next_chance(self.gate, self.now)
        assert moment > self.now
        assert not opens(self.gate, Boot((self.now + moment) / 2))
        self.now = moment
        most = DEFAULT_TIMING.in_flight if self.gate.failures else CAUTIOUS
        assert opens(self.gate, self.now) == (self.gate.in_flight < most)

    @rule(urgent=st.sampled_from([False, False, False, True]))
    def one_wants_to_start(self, urgent):
        """It does if it may."""
        if not opens(self.gate, self.now, urgent=urgent):
            return
        assert self.now >= self.asked_until
        assert not self.gate.blocked
        account = f"account-{self.serial}"
        self.serial += 1
        if self.gate.failures and not urgent:
            assert not any(self.flying.values())
            assert self.now >= self.gate.opens_at
        probing = bool(self.gate.failures) and self.gate.probe is None
        self.gate = started(self.gate, account)
        assert (self.gate.probe == account) == probing
        self.flying[account] = probing

    def lands(self, choice):
        """One of those in flight."""
        names = sorted(self.flying)
        return names[choice % len(names)]

    @precondition(lambda self: self.flying)
    @rule(
        choice=st.integers(0, 7),
        u=DICE,
        waiting=st.booleans(),
        retry_after=st.none() | st.sampled_from([0.0, 5.0, 600.0, 1e9]),
    )
    def one_fails(self, choice, u, waiting, retry_after):
        """The first of many counts, and the probe."""
        account, before = self.lands(choice), self.gate
        counts = not before.blocked and (before.failures == 0 or before.probe == account)
        self.gate = fail(
            before, account, now=self.now, u=u, waiting=waiting, retry_after=retry_after
        )
        if retry_after is not None:
            wait = schedule.clamp_retry_after(retry_after)
            self.asked_until = max(self.asked_until, Boot(self.now + wait))
        assert self.gate.asked_until == self.asked_until
        if counts:
            pause = schedule.backoff(before.failures + 1, u, waiting=waiting)
            assert self.gate.opens_at == max(self.now, self.asked_until) + pause
            assert self.gate.failures == before.failures + 1
            self.hurried = waiting
        else:
            assert self.gate.opens_at == before.opens_at
            assert self.gate.failures == before.failures
        self.over(account)
        if counts:
            assert next_chance(self.gate, self.now) == self.gate.opens_at

    @precondition(lambda self: self.flying)
    @rule(choice=st.integers(0, 7))
    def one_is_answered(self, choice):
        """The others go on."""
        account = self.lands(choice)
        self.gate = answered(self.gate, self.now)
        self.over(account)
        self.flying = dict.fromkeys(self.flying, False)
        if len(self.flying) < CAUTIOUS:
            assert opens(self.gate, Boot(max(self.now, self.asked_until)))

    @precondition(lambda self: self.flying)
    @rule(choice=st.integers(0, 7))
    def one_ends_without_a_verdict(self, choice):
        """The store took no writes, or another process was faster."""
        self.over(self.lands(choice))

    @precondition(lambda self: self.flying)
    @rule(choice=st.integers(0, 7))
    def one_is_refused_as_a_client(self, choice):
        """Nothing more goes out."""
        account = self.lands(choice)
        self.gate = block(self.gate, "unknown client", "mend it")
        self.over(account)
        self.flying = dict.fromkeys(self.flying, False)

    def over(self, account):
        """Always called, after the verdict."""
        self.gate = ended(self.gate, account)
        del self.flying[account]

    @rule()
    def the_user_reloads(self):
        """What was blocked is tried again."""
        was = self.gate
        self.gate = unblock(was)
        assert was.blocked or self.gate is was

    @rule(u=DICE)
    def somebody_waits(self, u):
        """The dice fall once for all who do."""
        before = self.gate
        self.gate = hurry(before, now=self.now, u=u, timing=DEFAULT_TIMING)
        if self.gate is before:
            return
        assert not self.hurried
        self.hurried = True
        short = schedule.backoff(before.failures, u, waiting=True)
        soon = max(self.now, self.asked_until) + short
        assert self.gate.opens_at == min(before.opens_at, soon)
        again = hurry(self.gate, now=self.now, u=0.0, timing=DEFAULT_TIMING)
        assert again is self.gate

    @invariant()
    def those_in_flight_are_counted(self):
        """Never fewer than none, never more than eight."""
        assert self.gate.in_flight == len(self.flying)
        assert 0 <= self.gate.in_flight <= DEFAULT_TIMING.in_flight

    @invariant()
    def there_is_one_probe_at_most(self):
        """Of a closed gate; and it is in flight."""
        assert self.gate.probe is None or self.gate.probe in self.flying
        assert sum(self.flying.values()) <= 1

    @invariant()
    def it_is_never_shut_for_good(self):
        """It opens by time, by the end of one in flight, or by a reload."""
        later = Boot(max(self.now, self.gate.opens_at, self.gate.asked_until))
        if not self.gate.blocked and not self.flying:
            assert opens(self.gate, later)


TestTraffic = Traffic.TestCase
TestTraffic.__doc__ = "The machine, run."
TestTraffic.settings = settings(max_examples=100, stateful_step_count=50)


def outage(dice, *, minutes=5.0):
    """The moments of the requests in an outage through which somebody always waits."""
    gate, now, asked = Gate(), NOW, []
    while now < NOW + 60.0 * minutes:
        gate = hurry(gate, now=now, u=dice(), timing=DEFAULT_TIMING)
        if opens(gate, now):
            asked.append(now)
            gate = started(gate, "one")
            gate = ended(fail(gate, "one", now=now, u=dice(), waiting=True), "one")
        now = next_chance(gate, now)
    return asked


@pytest.mark.parametrize("seed", range(40))
def test_an_outage_with_somebody_always_waiting(seed):
    """Five minutes of refused connections: well under 450 requests, under five in any second."""
    asked = outage(random.Random(seed).random)
    assert 60 < len(asked) < 250
    assert all(later - first >= 1.0 for first, later in zip(asked, asked[4:], strict=False))


def test_no_dice_make_a_flood():
    """Also where they always fall on nothing: four requests a second, and the reason is that bound."""
    asked = outage(lambda: 0.0, minutes=0.5)
    assert all(later - first >= 1.0 for first, later in zip(asked, asked[4:], strict=False))


# ---------------------------------------------------------------------------- refusals and incidents


def noted(*met, now=NOW):
    """What was met, each ``(account, refused, seconds ago)``; None for a lost answer."""
    refusals = Refusals()
    for account, refused, ago in met:
        refusals = note(
            refusals,
            account=account,
            refused=bool(refused),
            trouble=refused is None,
            now=Boot(now - ago),
        )
    return refusals


@pytest.mark.parametrize(
    ("met", "grant_age", "doubted"),
    [
        ([("a", True, 0)], 151 * DAY, False),
        ([("a", True, 0)], None, False),
        ([("a", True, 0)], 149 * DAY, True),
        ([("a", True, 9), ("b", True, 0)], None, True),
        ([("a", True, 599), ("b", True, 0)], None, True),
        ([("a", True, 600), ("b", True, 0)], None, False),
        ([("a", True, 9), ("a", True, 0)], None, False),
        ([("a", True, 9), ("b", True, 5), ("c", False, 3), ("d", False, 0)], None, False),
        ([("a", True, 9), ("b", True, 5), ("c", True, 3), ("d", False, 0)], None, True),
        ([("a", True, 9), ("b", True, 5), ("c", False, 3)], None, True),
        ([("a", True, 9), ("a", False, 5), ("b", True, 0)], None, False),
        ([("b", None, 599), ("a", True, 0)], 170 * DAY, True),
        ([("b", None, 600), ("a", True, 0)], 170 * DAY, False),
        ([("a", None, 30), ("a", True, 0)], None, True),
        ([], None, False),
        ([], YOUNG_GRANT, False),
    ],
)
def test_when_a_refusal_is_doubted(met, grant_age, doubted):
    """Two and more than half in ten minutes; within ten minutes of trouble; a young grant."""
    assert incident(noted(*met), now=NOW, grant_age=grant_age) is doubted


def test_what_is_remembered_is_bounded():
    """A thousand accounts, of the last ten minutes; the newest."""
    refusals = Refusals()
    for number in range(1500):
        refusals = note(refusals, account=f"a{number}", refused=True, trouble=False, now=NOW)
    assert len(refusals.tried) == 1000
    assert refusals.tried[-1] == (NOW, "a1499", True)
    later = Boot(NOW + INCIDENT_WINDOW)
    assert note(refusals, account="b", refused=False, trouble=False, now=later).tried == (
        (later, "b", False),
    )


# ------------------------------------------------------------------------------ across a restart


def resume(*told, gate=None, now=NOW):
    """The gate after a start, from what the rows tell."""
    gate = gate or Gate()
    for part in told:
        gate = resumed(gate, part, now=now, timing=DEFAULT_TIMING)
    return gate


def test_a_restart_in_an_outage_goes_on_with_the_back_off():
    """The same failures, the same moment, one probe; and the next failure waits longer."""
    before = Gate()
    for number in range(4):
        before = shut(before, now=Boot(NOW + number * 100))
    now = Boot(NOW + 301)
    after = resume(before, now=now)
    assert (after.failures, after.opens_at, after.reason) == (4, before.opens_at, "no answer")
    assert not opens(after, now)
    assert opens(after, after.opens_at)
    probing = started(after, "two")
    assert not opens(probing, after.opens_at)
    later = ended(fail(probing, "two", now=after.opens_at), "two")
    assert later.opens_at - after.opens_at == 0.5 * 16


def test_what_one_account_was_asked_to_wait_holds_for_all():
    """Retry-After in a single row; the others tell nothing."""
    asked = shut(retry_after=13_749.0)
    gate = resume(Gate(), asked, Gate())
    assert gate.asked_until == NOW + 13_749
    assert gate.opens_at == asked.opens_at > gate.asked_until
    assert not opens(gate, Boot(NOW + 13_748), urgent=True)


def test_of_several_rows_the_most_closed_counts():
    """In whatever order they are read."""
    rows = [
        Gate(failures=1, opens_at=Boot(NOW + 1), reason="first"),
        Gate(failures=5, opens_at=Boot(NOW + 30), reason="last"),
        Gate(failures=2, opens_at=Boot(NOW + 9), reason="second", hurried=True),
        Gate(asked_until=Boot(NOW + 7)),
    ]
    expected = Gate(
        failures=5,
        opens_at=Boot(NOW + 30),
        asked_until=Boot(NOW + 7),
        hurried=True,
        reason="last",
    )
    assert resume(*rows) == resume(*reversed(rows)) == expected


def test_a_back_off_that_is_long_over_is_forgotten():
    """After a day off nobody waits for a probe; a loop of restarts has to."""
    told = Gate(failures=9, opens_at=Boot(NOW - 60.0))
    assert resume(told).failures == 9
    assert resume(told, now=Boot(NOW + 0.1)) == Gate()


@pytest.mark.parametrize("ahead", [1e3, 1e9, math.inf])
def test_no_wrong_clock_closes_it_for_longer_than_a_pause_can_be(ahead):
    """A civil clock that was in another century, then or now: the longest back-off, from now on."""
    gate = resume(Gate(failures=3, opens_at=Boot(NOW + ahead)))
    assert (gate.failures, gate.opens_at) == (3, NOW + 60)
    asked = resume(Gate(asked_until=Boot(NOW + DAY + ahead)))
    assert asked.asked_until == LONG_AGO


def test_what_several_rows_tell_of_an_endpoint_is_put_together():
    """Refused and served, in the order of time; the last trouble, the last probe."""
    parts = [
        Refusals(tried=((Boot(9.0), "b", True),), trouble_at=Boot(3.0)),
        Refusals(tried=((Boot(5.0), "a", False),), probed_at=Boot(4.0)),
        Refusals(trouble_at=Boot(2.0), probed_at=Boot(1.0)),
    ]
    assert together(parts) == Refusals(
        tried=((Boot(5.0), "a", False), (Boot(9.0), "b", True)),
        trouble_at=Boot(3.0),
        probed_at=Boot(4.0),
    )
    assert together([]) == Refusals()


def test_of_very_many_rows_the_latest_are_enough():
    """With a hundred thousand accounts, too."""
    parts = [Refusals(tried=((Boot(float(n)), f"account-{n}", False),)) for n in range(3000)]
    kept = together(parts).tried
    assert (len(kept), kept[-1][0]) == (1000, 2999.0)


def test_what_an_attempt_met_takes_nothing_from_the_turn_of_the_probes():
    """Neither trouble nor an answer."""
    known = Refusals(probed_at=NOW)
    for trouble in (False, True):
        after = note(known, account="a", refused=False, trouble=trouble, now=Boot(NOW + 1))
        assert after.probed_at == NOW


SLOW = Timing(
    backoff_base=100.0, backoff_cap=1000.0, backoff_cap_waiting=400.0, retry_after_cap=5.0
)


def test_the_figures_are_those_of_the_configuration():
    """Back-off, back-off while somebody waits, and what is believed of a Retry-After."""
    once = Failure("no answer")
    closed = failed(Gate(), "one", once, now=NOW, u=0.5, waiting=False, timing=SLOW)
    assert closed.opens_at == NOW + 50
    hurried = hurry(replace(closed, failures=9), now=NOW, u=0.1, timing=SLOW)
    assert hurried.opens_at == NOW + 40
    asked = Failure("slow down", retry_after=60.0)
    told = failed(Gate(), "one", asked, now=NOW, u=0.5, waiting=False, timing=SLOW)
    assert told.asked_until == NOW + 5
    assert resumed(Gate(), told, now=NOW, timing=SLOW).asked_until == NOW + 5


def test_an_answer_forgets_all_of_the_outage():
    """The next one is hurried and probed as if it were the first."""
    closed = Gate(
        failures=3, opens_at=NOW, hurried=True, probe="one", reason="no answer", hint="no"
    )
    assert answered(closed, NOW) == Gate(answers=1, answered_at=NOW)


def test_trouble_is_noted_without_what_is_long_over():
    """Nothing else would ever let go of it while the provider is down."""
    old = Refusals(tried=((Boot(NOW - INCIDENT_WINDOW), "one", False),))
    after = note(old, account="two", refused=False, trouble=True, now=NOW)
    assert after == Refusals(trouble_at=NOW)


def test_a_refusal_of_ten_minutes_ago_is_none_of_ten_minutes():
    """With it there would be two, and an incident."""
    old = ((Boot(NOW - INCIDENT_WINDOW), "one", True), (NOW, "two", True))
    assert not incident(Refusals(tried=old), now=NOW, grant_age=YOUNG_GRANT)


def test_who_was_on_the_way_before_leaves_the_probe_alone():
    """Its end makes no way for a second probe."""
    both = started(started(Gate(), "one"), "three")
    closed = ended(fail(both, "one"), "one")
    probing = started(closed, "two")
    after = ended(probing, "three")
    assert (after.probe, after.in_flight) == ("two", 1)
    assert not opens(after, Boot(closed.opens_at))


def test_when_there_is_a_next_chance():
    """Of a closed gate its moment; none once that is there, while one probes, or while blocked."""
    asked = replace(shut(), asked_until=Boot(NOW + 60.0))
    assert next_chance(asked, NOW) == NOW + 60.0
    assert next_chance(asked, asked.asked_until) == NEVER
    assert next_chance(started(asked, "two"), NOW) == NEVER
    assert next_chance(block(asked, "unknown client", "mend it"), NOW) == NEVER
