"""The laws of an account's life: over the whole product of states and events, and at random."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import count, product

import pytest
from account_states import (
    EVENTS,
    FOREIGN,
    GENERATION,
    INCIDENT,
    MINE,
    NOW,
    POLICIES,
    REASON,
    ROTATED,
    STATES,
    STORED,
    WALL,
    access,
    attempt,
    grant,
    make,
    outcomes,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from spotokend.rules import renewal, schedule
from spotokend.rules.account import (
    Access,
    Answered,
    Blocked,
    ChangedElsewhere,
    ClientRefused,
    ClocksMoved,
    Elsewhere,
    EndpointBack,
    Failed,
    Fresh,
    GrantRefused,
    Held,
    Holding,
    InDoubt,
    Loaded,
    Locked,
    LoggedIn,
    LoggedOut,
    NeedsLogin,
    NotSent,
    Outcome,
    Policy,
    ProbeTaken,
    Quarantined,
    Reconfigured,
    Refreshing,
    RefreshStarted,
    Rotation,
    Saved,
    SaveFailed,
    Sealed,
    TokenRejected,
    Unsaved,
    Unsealed,
    Waiting,
)
from spotokend.rules.doubt import next_attempt, strictness
from spotokend.rules.lifecycle import CLOCKS_SPREAD, advance
from spotokend.rules.oauth import Issued
from spotokend.rules.saving import NO_ACCESS_TOKEN
from spotokend.rules.schedule import NEVER, Boot, Wall
from spotokend.rules.secret import Secret
from spotokend.rules.transitions import TRANSITIONS, due_at, need, usable


def step(state, event, *, now=NOW, wall=WALL, u=0.5, policy=POLICIES["never"]):
    """One step at :data:`NOW`."""
    return advance(state, event, now=now, wall=wall, u=u, policy=policy)


# ------------------------------------------------------------------------------- the whole product


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_each_step_is_in_the_table(state):
    """With each event, policy and dice: the same object, or a state that the table names."""
    row = TRANSITIONS[type(state)]
    for event, policy, u in product(EVENTS, POLICIES.values(), (0.0, 0.5)):
        after = step(state, event, policy=policy, u=u)
        if type(event) not in row:
            assert after is state, event
        elif after is not state:
            assert type(after) in row[type(event)], event


def test_each_line_of_the_table_is_taken():
    """By some case: a target that nothing reaches is a line too many."""
    taken = defaultdict(set)
    for state, event, policy in product(STATES.values(), EVENTS, POLICIES.values()):
        after = step(state, event, policy=policy)
        if after is not state:
            taken[type(state), type(event)].add(type(after))
    expected = {
        (before, event): set(targets)
        for before, row in TRANSITIONS.items()
        for event, targets in row.items()
    }
    assert taken == expected


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_the_outcome_of_another_attempt_changes_nothing(state):
    """A late answer can't undo a login, a logout, or the attempt after it."""
    for outcome, policy in product(outcomes(FOREIGN), POLICIES.values()):
        assert step(state, outcome, policy=policy) is state


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_generation_and_version_never_fall(state):
    """Also when something older comes in."""
    old = [replace(stored, version=0, generation=0) for stored in STORED]
    older = [*map(Unsealed, old), *map(ChangedElsewhere, old), LoggedOut(0, REASON)]
    older += [LoggedIn(grant(9), access(0), 0), Saved(MINE, 0), Answered(MINE, None, access(0))]
    older += [Loaded(make(Sealed, version=0, generation=0))]
    for event, policy in product([*EVENTS, *older], POLICIES.values()):
        after = step(state, event, policy=policy)
        assert after.generation >= state.generation, event
        assert after.version >= state.version, event


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_no_step_leads_into_a_dead_end(state):
    """Due some time, under way, or something for the user to do; or somebody has to ask."""
    for event, policy in product(EVENTS, POLICIES.values()):
        after = step(state, event, policy=policy)
        if after is state or isinstance(after, Sealed | Refreshing):
            continue
        was_on_demand = getattr(state, "due_at", NOW) == NEVER
        if not isinstance(after, Fresh) or (policy.proactive and not was_on_demand):
            assert due_at(after) < NEVER or need(after), event


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_only_the_user_and_the_store_take_a_grant_away(state):
    """Whatever else happens, each refresh token is still there, in front or behind."""
    if not isinstance(state, Holding) or state.grant is None:
        return
    kept_by = (LoggedIn, LoggedOut, ChangedElsewhere, Unsealed, Loaded, Locked, Answered)
    for event, policy in product(EVENTS, POLICIES.values()):
        if not isinstance(event, kept_by):
            after = step(state, event, policy=policy)
            assert isinstance(after, Holding), event
            assert tokens(after.grant) == tokens(state.grant), event


def tokens(login):
    """The refresh tokens of a grant."""
    return set() if login is None else {login.refresh_token, login.previous} - {None}


LOSES_THE_DOUBT = (LoggedIn, LoggedOut, ChangedElsewhere, Unsealed, Loaded)
"""Another grant is there after them, or what the store says of this one."""


@pytest.mark.parametrize("u", [0.0, 0.9])
@pytest.mark.parametrize("name", ["refreshing", "probing an incident"])
def test_no_way_leads_from_a_lost_answer_to_killing_the_living_token(name, u):
    """On a strict server: all states that can be reached while the access token is of use.

    None of them is a refresh: whatever the others meet, whoever reloads, locks or forces.
    """
    strict = POLICIES["strict"]
    harmless = [e for e in EVENTS if e != TokenRejected(GENERATION)]
    harmless = [e for e in harmless if not isinstance(e, LOSES_THE_DOUBT)]
    lost = InDoubt(MINE, "no answer", Boot(NOW + 4.0), Boot(NOW - 1.0))
    found = {step(STATES[name], lost, u=u, policy=strict)}
    reached = set()
    while found:
        reached |= found
        after = {
            step(state, event, now=Boot(NOW + passed), u=u, policy=strict)
            for state, event, passed in product(found, harmless, (0.0, 5.0, 839.9))
        }
        found = after - reached
    assert {type(state) for state in reached} <= {Waiting, Quarantined, Sealed}


# ---------------------------------------------------------------------------- each law by an example


def test_a_token_is_due_by_the_dice_and_the_policy():
    """Between 70 and 80 % of its life, counted from its issue; never where the user wants so."""
    new = access(9, left=3590.0)
    found = [
        step(make(Refreshing), Answered(MINE, grant(), new), u=u, policy=POLICIES[policy]).due_at
        for u, policy in ((0.0, "auto"), (0.5, "auto"), (0.5, "on demand"))
    ]
    assert found == [NOW - 10 + 2520, NOW - 10 + 2700, NEVER]


def test_an_answer_is_served_before_it_is_saved_and_fresh_after():
    """``Unsaved`` has the token already; the row's version comes with ``Saved``."""
    new = access(9, left=3600.0)
    unsaved = step(make(Refreshing), Answered(MINE, ROTATED, new))
    assert (usable(unsaved, NOW), unsaved.grant, unsaved.retry_at) == (new, ROTATED, NOW)
    saved = step(unsaved, Saved(MINE, 8))
    assert saved == make(
        Fresh, version=8, generation=9, grant=ROTATED, access=new, due_at=unsaved.due_at
    )


def test_what_is_not_saved_is_written_again_soon():
    """From a tenth of a second to five, for as long as it takes."""
    state, waits = make(Unsaved), []
    for _ in range(2000):
        state = step(state, SaveFailed(MINE, "the disk is full"))
        waits.append(state.retry_at - NOW)
    assert waits[:7] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0])
    assert waits[-1] == 5.0
    assert (state.failures, state.reason) == (2000, "the disk is full")


def test_a_refresh_token_that_comes_alone_keeps_the_living_access_token():
    """It is committed as any other answer, and what can be served is served."""
    state = step(make(Refreshing, failures=2), Answered(MINE, ROTATED, None), u=0.5)
    assert (state.grant, usable(state, NOW)) == (ROTATED, access())
    assert (state.fruitless, state.due_at) == (3, NOW + 2.0)
    saved = step(state, Saved(MINE, 4))
    assert saved == make(
        Waiting,
        version=4,
        grant=ROTATED,
        retry_at=NOW + 2.0,
        failures=3,
        reason=NO_ACCESS_TOKEN,
    )


def test_a_server_that_never_sends_an_access_token_is_not_hammered():
    """Each answer counts as a failure: the pauses grow to the cap."""
    now, state, pauses = NOW, make(Fresh, due_at=NOW), []
    for number in range(12):
        state = step(state, RefreshStarted(attempt(f"a{number}")), now=now)
        state = step(state, Answered(f"a{number}", grant(number + 2), None), now=now, u=0.5)
        state = step(state, Saved(f"a{number}", number), now=now)
        pauses.append(due_at(state) - now)
        now = due_at(state)
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30]


def test_a_token_that_was_reported_before_it_was_saved_is_renewed_at_once():
    """It was good for nothing; the grant is saved all the same."""
    state = step(make(Unsaved), TokenRejected(GENERATION))
    assert step(state, Saved(MINE, 4)) == make(
        Waiting, version=4, access=None, retry_at=NOW, reason=None, since=None
    )


def test_a_reported_generation_is_not_usable_any_more():
    """From no state that holds it; a report of another one changes nothing."""
    for state in STATES.values():
        after = step(state, TokenRejected(GENERATION))
        assert usable(after, NOW) is None
        assert step(state, TokenRejected(GENERATION - 1)) is state


def test_after_a_report_nothing_is_worth_waiting_for():
    """Also in doubt: there is no living token left that a second try could kill."""
    strict = POLICIES["strict"]
    doubt = step(make(Refreshing), InDoubt(MINE, REASON, NOW, NOW), policy=strict)
    assert doubt.retry_at == NOW + 840.0
    reported = step(doubt, TokenRejected(GENERATION), policy=strict)
    assert (reported.retry_at, reported.in_doubt, reported.tries) == (NOW, True, 1)


@pytest.mark.parametrize("name", ["waiting", "elsewhere", "quarantined in an incident"])
def test_nothing_is_presented_before_its_moment(name):
    """Whoever starts a refresh too early gets nowhere: the rule is here, not only in the keeper."""
    state = STATES[name]
    early = step(state, RefreshStarted(attempt("a")), now=Boot(due_at(state) - 0.001))
    assert early is state
    assert isinstance(step(state, RefreshStarted(attempt("a")), now=due_at(state)), Refreshing)


def test_a_refused_grant_is_never_presented_by_itself():
    """Without a probe there is no moment at which it may be."""
    state = STATES["quarantined"]
    assert step(state, RefreshStarted(attempt("a")), now=Boot(1e300)) is state


def test_a_fresh_token_may_be_renewed_ahead_of_time():
    """Somebody forced it."""
    state = step(make(Fresh), RefreshStarted(attempt("a")))
    assert state == make(Refreshing, attempt=attempt("a"), reason=None, since=None)


def test_an_attempt_remembers_what_came_before_it():
    """Failures, their reason and beginning, the grace; and the refusal that it probes."""
    before = make(Waiting, failures=4, retry_at=NOW, grace_until=Boot(NOW + 5.0))
    started = step(before, RefreshStarted(attempt("a")))
    assert (started.failures, started.reason, started.since) == (4, REASON, before.since)
    assert started.grace_until == before.grace_until
    probe = step(STATES["quarantined, and due"], RefreshStarted(attempt("a")))
    assert probe.quarantine is STATES["quarantined, and due"]


@pytest.mark.parametrize("kind", [NotSent, Failed])
def test_a_failure_waits_for_the_gate_and_says_since_when(kind):
    """Counted, with its reason; the first one's time stays."""
    first = step(make(Refreshing, since=None), kind(MINE, "no route", Boot(NOW + 4.0)))
    assert first == make(
        Waiting, retry_at=NOW + 4.0, failures=1, reason="no route", since=WALL, access=access()
    )
    later = make(Refreshing, failures=1, since=Wall(WALL - 60.0))
    second = step(later, kind(MINE, "no route", Boot(NOW + 4.0)))
    assert (second.failures, second.since) == (2, WALL - 60.0)


@pytest.mark.parametrize("kind", [NotSent, Failed, Held])
def test_what_was_not_served_takes_no_doubt_away(kind):
    """A 429 to the second try says nothing of the first."""
    before = make(Refreshing, attempt=attempt(tries=3), grace_until=Boot(NOW + 5.0), failures=2)
    event = Held(MINE, Boot(NOW + 4.0)) if kind is Held else kind(MINE, "busy", Boot(NOW + 4.0))
    state = step(before, event)
    assert (state.in_doubt, state.tries, state.retry_at) == (True, 2, NOW + 4.0)
    assert state.grace_until == NOW + 5.0
    assert next_attempt(state, "a", NOW).tries == 3


def test_another_host_has_the_lease():
    """Looked at again when it ends; the token is served meanwhile."""
    state = step(make(Refreshing), Held(MINE, Boot(NOW + 30.0)))
    assert state == make(Elsewhere, until=Boot(NOW + 30.0))


@pytest.mark.parametrize(
    ("policy", "retry_in", "grace_until"),
    [("never", 2.0, None), ("grace", 2.0, NOW + 9.0), ("strict", 840.0, None)],
)
def test_a_lost_answer_waits_as_its_server_demands(policy, retry_in, grace_until):
    """The tables are in test_doubt; here it is that they are asked, and what is remembered."""
    event = InDoubt(MINE, "no answer", Boot(NOW + 9.0), Boot(NOW - 1.0))
    state = step(make(Refreshing, since=None), event, policy=POLICIES[policy])
    assert state == make(
        Waiting,
        retry_at=NOW + retry_in,
        tries=1,
        failures=1,
        reason="no answer",
        since=WALL,
        grace_until=grace_until,
    )


def test_without_a_user_nothing_is_in_doubt():
    """Client credentials can't be used up."""
    before = make(Refreshing, grant=None, access=None, since=None)
    event = InDoubt(MINE, "no answer", Boot(NOW + 9.0), Boot(NOW - 1.0))
    state = step(before, event, policy=POLICIES["client credentials"])
    assert (state.in_doubt, state.retry_at, state.reason) == (False, NOW + 9.0, "no answer")


@pytest.mark.parametrize("name", ["refreshing", "refreshing without a user", "probing an incident"])
@pytest.mark.parametrize(
    "event",
    [
        NotSent(MINE, REASON, NEVER),
        Failed(MINE, REASON, NEVER),
        InDoubt(MINE, REASON, NEVER, NOW),
    ],
    ids=lambda event: type(event).__name__,
)
def test_a_gate_that_was_blocked_meanwhile_makes_no_dead_end(name, event):
    """Nobody knows when it opens; whoever waits for that moment would wait for ever."""
    assert NOW <= due_at(step(STATES[name], event)) < NEVER


def test_a_probe_that_met_no_verdict_leaves_the_refusal_as_it_was():
    """Not served, held, or lost: quarantined again; an access token reported meanwhile stays so."""
    before = make(Refreshing, access=None, quarantine=INCIDENT)
    later = Boot(NOW + 4.0)
    again = replace(INCIDENT, access=None, probe_at=later)
    assert step(before, NotSent(MINE, REASON, later)) == again
    assert step(before, Failed(MINE, REASON, later)) == again
    assert step(before, Held(MINE, later)) == again
    lost = step(before, InDoubt(MINE, REASON, later, NOW), u=0.5)
    assert lost == replace(again, probe_at=NOW + 2.0, tries=1)


def test_a_probe_in_doubt_does_not_kill_the_living_token():
    """On a strict server it waits as any other; and no success elsewhere hastens it."""
    before = make(Refreshing, quarantine=INCIDENT)
    strict = POLICIES["strict"]
    state = step(before, InDoubt(MINE, REASON, NOW, NOW), policy=strict)
    assert (state.probe_at, state.tries) == (NOW + 840.0, 1)
    assert step(state, EndpointBack(), policy=strict) is state
    assert next_attempt(state, "a", NOW).tries == 2


def test_one_success_releases_those_that_were_doubtfully_refused():
    """At once; the others stay refused."""
    state = step(INCIDENT, EndpointBack())
    assert state == make(Waiting, retry_at=NOW, failures=1)
    assert step(STATES["quarantined"], EndpointBack()) is STATES["quarantined"]


def test_the_endpoint_is_back_and_those_that_wait_go_on():
    """But a doubt has its own time."""
    assert step(STATES["waiting"], EndpointBack()).retry_at == NOW
    for name in ("waiting and due", "waiting in doubt"):
        assert step(STATES[name], EndpointBack()) is STATES[name]


def test_a_client_that_is_refused_blocks_its_accounts():
    """By their own attempt, or by another account's."""
    own = step(make(Refreshing), ClientRefused(MINE, "unknown client", "mend it"))
    others = step(make(Fresh), ClientRefused("", "unknown client", "mend it"))
    assert own == others == make(Blocked, reason="unknown client", since=WALL)


def test_a_doubt_outlasts_the_refusal_of_the_client():
    """Else blocking and reloading would present in doubt what may kill the living token."""
    state = STATES["waiting in doubt"]
    refusal = ClientRefused("", "unknown client", "mend it")
    assert step(state, refusal) is state
    assert isinstance(step(state, refusal, now=state.retry_at), Blocked)


def test_a_refused_grant_of_a_refused_client_is_probed_later():
    """It stays quarantined: a reload must not present it."""
    refusal = ClientRefused("", "unknown client", "mend it")
    assert step(INCIDENT, refusal) == replace(INCIDENT, probe_at=NOW + 1800.0)
    assert step(STATES["quarantined"], refusal).probe_at is None


def test_a_reload_tries_what_was_blocked():
    """Once, at once; but an envelope that can't be opened no configuration mends."""
    state = step(make(Blocked), Reconfigured())
    assert state == make(Waiting, retry_at=NOW, failures=1)
    unreadable = STATES["blocked and unreadable"]
    assert step(unreadable, Reconfigured()) is unreadable
    client = step(unreadable, Reconfigured(), policy=POLICIES["client credentials"])
    assert isinstance(client, Waiting)


def test_a_login_wins_over_everything():
    """The new grant, the new token, nothing left of any trouble."""
    new = access(7, left=3600.0)
    after = {step(state, LoggedIn(grant(9), new, 8), u=0.5) for state in STATES.values()}
    assert after == {
        Fresh(version=8, generation=7, grant=grant(9), access=new, due_at=Boot(NOW + 2700.0))
    }


def test_a_login_without_an_access_token_asks_for_one():
    """The refresh token that it brought is used at once."""
    after = {step(state, LoggedIn(grant(9), None, 8)) for state in STATES.values()}
    assert after == {
        Waiting(version=8, generation=GENERATION, grant=grant(9), access=None, retry_at=NOW)
    }


@pytest.mark.parametrize("policy", ["never", "client credentials"])
def test_a_logout_leaves_no_secret(policy):
    """A client for itself needs no login, and goes on with its next token."""
    for state in STATES.values():
        after = step(state, LoggedOut(8, "logged out"), policy=POLICIES[policy])
        assert (after.version, after.generation) == (8, GENERATION)
        if policy == "never":
            assert after == NeedsLogin(version=8, generation=GENERATION, reason="logged out")
        else:
            assert (after.grant, after.access, after.retry_at) == (None, None, NOW)


def test_locked_an_account_keeps_its_moments_and_nothing_else():
    """When it is due, when its token ends."""
    assert step(make(Fresh), Locked()) == make(Sealed)
    assert step(make(Waiting, access=None), Locked()) == make(
        Sealed, due_at=NOW + 10.0, expires_at=None
    )


def test_what_is_overdue_when_the_clocks_moved_is_spread():
    """Over five seconds; what is not overdue stays, and what is in its grace can't wait."""
    moved = {
        name: due_at(step(state, ClocksMoved(), u=0.5)) - NOW
        for name, state in STATES.items()
        if step(state, ClocksMoved()) is not state
    }
    assert moved == dict.fromkeys(
        (
            "sealed and due",
            "fresh and due",
            "waiting and due",
            "waiting in doubt, and due",
            "quarantined, and due",
        ),
        CLOCKS_SPREAD / 2,
    )
    over = step(STATES["waiting in grace"], ClocksMoved(), now=Boot(NOW + 6.0), u=0.5)
    assert over.retry_at == NOW + 6.0 + CLOCKS_SPREAD / 2


# ---------------------------------------------------------------------------------------- at random

DICE = st.floats(0, 1, exclude_max=True)
# What stands first is tried most.
KINDS = st.sampled_from(
    ["in doubt", "grant refused", "answered", "held", "failed", "not sent", "client refused"]
)
ROTATIONS = st.sampled_from([Rotation.STRICT, Rotation.AUTO, Rotation.NEVER, Rotation.GRACE])


class Life(RuleBasedStateMachine):
    """One account, whatever happens to it, with clocks that move and dice that fall."""

    @initialize(
        rotation=ROTATIONS,
        grace=st.sampled_from([0.5, 10.0, 60.0]),
        proactive=st.sampled_from([True, True, False]),
        needs_grant=st.sampled_from([True, True, True, True, False]),
        rotated=st.booleans(),
    )
    def begin(self, rotation, grace, proactive, needs_grant, rotated):
        """An account at a server of some kind, logged in or asking for its first token."""
        self.policy = Policy(
            rotation=rotation, rotation_grace=grace, proactive=proactive, needs_grant=needs_grant
        )
        self.now, self.wall, self.u = NOW, WALL, 0.5
        self.serial = count(1)
        self.doubtful: set[Secret] = set()
        self.reported: set[Secret] = set()
        if needs_grant:
            self.state = NeedsLogin(reason="nobody has logged in yet")
            login = ROTATED if rotated else self.new_grant()
            self.happens(LoggedIn(login, self.new_access(), 1))
        else:
            self.state = Waiting(grant=None, access=None, retry_at=self.now)

    # The world.

    @rule(seconds=st.sampled_from([0.01, 1.0, 5.0, 61.0, 1801.0, 3601.0]), u=DICE)
    def time_passes(self, seconds, u):
        """On both clocks, perhaps in a suspend; and the dice fall."""
        self.now, self.wall = Boot(self.now + seconds), Wall(self.wall + seconds)
        self.u = u

    @rule(jump=st.floats(-1e6, 1e6))
    def civil_time_is_set(self, jump):
        """It decides nothing."""
        self.wall = Wall(self.wall + jump)
        self.happens(ClocksMoved())

    def new_access(self, life=3600.0):
        """The next access token that the server would issue."""
        return Access(
            token=Secret(f"access-{next(self.serial)}"),
            issued_at=self.now,
            expires_at=Boot(self.now + life),
            generation=self.state.generation + 1,
        )

    def new_grant(self):
        """A refresh token that never was before."""
        return grant(next(self.serial) + 100) if self.policy.needs_grant else None

    def happens(self, event):
        """The step, and what must hold across any."""
        before, after = self.state, self.advanced(event)
        self.state = after
        if after is before:
            return
        assert type(after) in TRANSITIONS[type(before)][type(event)]
        assert after.generation >= before.generation
        assert after.version >= before.version
        if not isinstance(event, LoggedIn | LoggedOut | ChangedElsewhere | Loaded | Locked):
            self.check_that_nothing_is_lost(before, after)
        if isinstance(after, Refreshing) and not isinstance(before, Refreshing):
            self.check_that_it_may_be_presented(before, after)

    def advanced(self, event):
        return advance(
            self.state, event, now=self.now, wall=self.wall, u=self.u, policy=self.policy
        )

    def check_that_nothing_is_lost(self, before, after):
        """The token that worked last is there until the next one has worked."""
        if isinstance(before, Holding) and before.grant is not None:
            assert isinstance(after, Holding)
            if isinstance(before, Refreshing) and isinstance(after, Unsaved):
                assert before.grant.refresh_token in tokens(after.grant)
            else:
                assert tokens(after.grant) == tokens(before.grant)

    def check_that_it_may_be_presented(self, before, after):
        """At its moment; and in doubt to a strict server only after the living token's use."""
        assert isinstance(before, Fresh) or self.now >= due_at(before)
        login, token = after.grant, after.access
        if login is not None and login.refresh_token in self.doubtful and token is not None:
            strict = strictness(self.policy, login) is Rotation.STRICT
            floor = schedule.serving_floor(token.life, self.policy.timing)
            assert not strict or self.now >= token.expires_at - floor

    # What the keeper and the refresh do.

    @rule(patient=st.sampled_from([True, True, False]))
    def refresh_starts(self, patient):
        """At its moment; or at once, also where it must not."""
        if patient and self.now < due_at(self.state) < NEVER:
            self.now = due_at(self.state)
        started = next_attempt(self.state, f"attempt-{next(self.serial)}", self.now)
        self.happens(RefreshStarted(started))

    def outcome(self, kind, id_, wait, rotates, incident, whole):
        """What came of that attempt."""
        opens_at = Boot(self.now + wait)
        if kind == "in doubt":
            sent_at = self.state.attempt.started_at if isinstance(self.state, Refreshing) else NOW
            return InDoubt(id_, "no answer", opens_at, sent_at)
        if kind == "answered":
            login = self.state.grant if isinstance(self.state, Holding) else None
            if login is not None:
                issued = Issued(
                    access_token=None,
                    token_type="Bearer",
                    life=3600.0,
                    scopes=None,
                    refresh_token=self.new_grant().refresh_token if rotates else None,
                )
                login = renewal.renewed(login, issued)
            return Answered(id_, login, self.new_access() if whole or not rotates else None)
        return {
            "not sent": NotSent(id_, "no route", opens_at),
            "failed": Failed(id_, "busy", opens_at),
            "grant refused": GrantRefused(id_, "revoked", incident),
            "client refused": ClientRefused(id_, "unknown client", "mend it"),
            "held": Held(id_, Boot(self.now + min(wait, 60.0))),
        }[kind]

    @rule(
        patient=st.sampled_from([True, True, False]),
        kind=KINDS,
        wait=st.sampled_from([4.0, 0.0, 3600.0, NEVER]),
        rotates=st.booleans(),
        incident=st.booleans(),
        whole=st.sampled_from([True, True, False]),
    )
    def attempt_ends(self, patient, kind, wait, rotates, incident, whole):
        """In any of the ways; the one under way, or one that starts for it."""
        if not isinstance(self.state, Refreshing):
            self.refresh_starts(patient)
        if not isinstance(self.state, Refreshing):
            return
        login = self.state.grant
        self.happens(self.outcome(kind, self.state.attempt.id, wait, rotates, incident, whole))
        if login is not None:
            if kind == "in doubt":
                self.doubtful.add(login.refresh_token)
            elif kind in {"answered", "grant refused"}:
                self.doubtful.discard(login.refresh_token)

    @precondition(lambda self: isinstance(self.state, Unsaved))
    @rule(works=st.booleans())
    def answer_is_written(self, works):
        """Or the disk is full."""
        id_ = self.state.attempt.id
        version = self.state.version + 1
        self.happens(Saved(id_, version) if works else SaveFailed(id_, "the disk is full"))

    @rule(kind=KINDS, id_=st.sampled_from(["attempt-of-old", ""]), incident=st.booleans())
    def another_attempt_ends(self, kind, id_, incident):
        """A late answer, or the refusal of the client that another account met."""
        event = self.outcome(kind, id_, 4.0, True, incident, True)
        if id_ or not isinstance(event, ClientRefused):
            for late in (event, Saved(id_, 99), SaveFailed(id_, REASON)):
                assert isinstance(late, Outcome)
                assert self.advanced(late) is self.state
        else:
            self.happens(event)

    # What others do.

    @rule(
        what=st.sampled_from(["reload", "lock", "lock", "login", "logout", "store"]),
        whole=st.booleans(),
    )
    def somebody_interferes(self, what, whole):
        """The user, the key, or another process; one rule, so that refreshes are the most."""
        getattr(self, what)(whole)

    def login(self, whole):
        """With or without an access token in the answer."""
        if self.policy.needs_grant:
            new = self.new_access() if whole else None
            self.happens(LoggedIn(self.new_grant(), new, self.state.version + 1))
            assert type(self.state) is (Fresh if whole else Waiting)

    def logout(self, back):
        """It always wins; and mostly a login follows."""
        self.happens(LoggedOut(self.state.version + 1, "logged out"))
        assert not isinstance(self.state, Holding) or not self.policy.needs_grant
        if back:
            self.login(True)

    def reload(self, _whole):
        """The client is the same; perhaps it was refused for another account just before."""
        self.happens(ClientRefused("", "unknown client", "mend it"))
        self.happens(Reconfigured())

    def lock(self, _whole):
        """The key goes away, and comes back with what the store says."""
        before = self.state
        self.happens(Locked())
        if self.state is not before:
            self.happens(Unsealed(self.row() if isinstance(before, Elsewhere) else before))

    def store(self, _whole):
        """Another process was there."""
        self.happens(ChangedElsewhere(self.row()))
        assert isinstance(self.state, Fresh)

    def row(self):
        """What another process may have stored: all is well."""
        new = self.new_access()
        return Fresh(
            version=self.state.version + 1,
            generation=new.generation,
            grant=self.new_grant(),
            access=new,
            due_at=Boot(self.now + 2700.0) if self.policy.proactive else NEVER,
        )

    @rule(event=st.sampled_from([EndpointBack(), ProbeTaken(), TokenRejected(-1)]))
    def others_meet_something(self, event):
        """Success, or a refusal in this one's place; or an API refuses a token of long ago."""
        self.happens(event)

    @precondition(lambda self: isinstance(self.state, Holding) and self.state.access is not None)
    @rule()
    def api_refuses_the_token(self):
        """The present one."""
        self.reported.add(self.state.access.token)
        self.happens(TokenRejected(self.state.access.generation))

    # What must hold at any moment.

    @invariant()
    def nothing_dead_is_usable(self):
        """Never less than the asked-for life, never what an API refused."""
        if not hasattr(self, "state"):
            return
        for min_ttl in (0.0, 60.0, 1800.0, 3600.0):
            found = usable(self.state, self.now, min_ttl)
            if found is not None:
                assert found.expires_at - self.now >= min_ttl
                assert found.expires_at > self.now
                assert found.token not in self.reported

    @invariant()
    def it_goes_on(self):
        """By itself, by the user, or by whoever asks for a token."""
        if not hasattr(self, "state"):
            return
        state = self.state
        on_demand = isinstance(state, Fresh) and not self.policy.proactive
        under_way = isinstance(state, Refreshing | Sealed)
        assert due_at(state) < NEVER or need(state) or under_way or on_demand

    @invariant()
    def doubt_is_counted(self):
        """In doubt is what has tries whose fate isn't known."""
        if hasattr(self, "state") and isinstance(self.state, Waiting):
            assert self.state.in_doubt == (self.state.tries > 0)

    @invariant()
    def probes_come_to_an_end(self):
        """Four, whatever they meet."""
        if hasattr(self, "state") and isinstance(self.state, Quarantined):
            assert self.state.probes <= 4


TestLife = Life.TestCase
TestLife.__doc__ = "The machine, run."
TestLife.settings = settings(max_examples=120, stateful_step_count=50)


def test_another_schedule_counts_from_the_reload_on():
    """on_demand to proactive gives a fresh account its moment, the way back takes it away."""
    resting = replace(STATES["fresh"], due_at=NEVER)
    woken = step(resting, Reconfigured())
    assert resting.access is not None
    share = (woken.due_at - resting.access.issued_at) / resting.access.life
    assert 0.7 <= share <= 0.8
    assert step(woken, Reconfigured()) is woken
    on_demand = Policy(proactive=False)
    assert step(woken, Reconfigured(), policy=on_demand).due_at == NEVER


def test_an_account_says_what_it_waits_for():
    """Whoever looks at it finds that another host has it, or that its token was reported."""
    held = step(STATES["refreshing in doubt"], Held(MINE, Boot(NOW + 30.0)))
    assert (held.reason, held.since) == ("another host is refreshing it", WALL - 60.0)
    reported = step(STATES["fresh"], TokenRejected(GENERATION))
    assert reported.reason == "the API refused the access token"


def test_a_probe_that_another_host_is_about_to_make_comes_later():
    """The refusal stays, and so does its access token."""
    probing = STATES["probing an incident"]
    after = step(probing, Held(MINE, Boot(NOW + 30.0)))
    assert after == replace(INCIDENT, probe_at=NOW + 30.0)
    assert after.access == probing.access is not None


def test_a_refused_client_puts_the_probe_of_a_refused_grant_off():
    """By half an hour: before the client is mended no probe can tell anything."""
    after = step(replace(INCIDENT, probe_at=NOW), ClientRefused("", REASON, "mend it"))
    assert after == replace(INCIDENT, probe_at=NOW + 1800.0)
    kept = step(make(Quarantined), ClientRefused("", REASON, "mend it"))
    assert kept.probe_at is None


def test_a_server_that_sends_no_access_token_is_known_since_when():
    """By the clock of the user."""
    begun = step(STATES["refreshing"], Answered(MINE, grant(3), None))
    assert begun.since == WALL
    going_on = step(STATES["refreshing after failures"], Answered(MINE, grant(3), None))
    assert going_on.since == WALL - 60.0


def test_a_lease_in_the_way_of_a_doubt_is_a_trouble_from_now_on():
    """Nothing was wrong so far: this is its beginning."""
    before = make(Refreshing, attempt=attempt(tries=2), since=None)
    assert step(before, Held(MINE, Boot(NOW + 30.0))).since == WALL


def test_a_grace_that_ends_now_is_over():
    """What is overdue then is spread as any other when the clocks moved."""
    end = STATES["waiting in grace"].grace_until
    after = step(STATES["waiting in grace"], ClocksMoved(), now=end, u=0.5)
    assert after.retry_at == end + CLOCKS_SPREAD / 2
