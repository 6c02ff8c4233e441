"""States as rows and back: nothing is lost, nothing lies open, no clock is believed too much."""

from __future__ import annotations

import math
from dataclasses import astuple, fields, replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotokend.adapters.store.base import Intent
from spotokend.rules.account import (
    Access,
    Attempt,
    Blocked,
    Fresh,
    Grant,
    NeedsLogin,
    Policy,
    Quarantined,
    Refreshing,
    Rotation,
    Waiting,
)
from spotokend.rules.schedule import DAY, NEVER, Boot, Wall
from spotokend.rules.sealing import KeyRing, SealingKey
from spotokend.rules.secret import Secret
from spotokend.service.clock import Clock
from spotokend.service.rows import Owner, Rows
from spotokend.service.traces import CUT_OFF

OWNER = Owner("main", "spotify", "fingerprint-1")
POLICY = Policy()
ON_DEMAND = Policy(proactive=False)
NOW, WALL = 5000.0, 1_790_000_000.0


def rows(now=NOW, wall=WALL, boot_id="boot-1", u=0.5, key=bytes(32)) -> Rows:
    """A daemon's view at a moment; the nonces are no secret here."""
    clock = Clock(lambda: Boot(now), lambda: Wall(wall), lambda: u, boot_id)
    return Rows(KeyRing(SealingKey(key)), clock, random_bytes=bytes)


def grant(**changes) -> Grant:
    given = {
        "refresh_token": Secret("refresh-1"),
        "scopes": ("a",),
        "user": "user-1",
        "authorized_at": Wall(WALL - 100),
    }
    return Grant(**(given | changes))


def access(generation=3, issued_at=4000.0, life=3600.0) -> Access:
    return Access(
        token=Secret(f"access-{generation}"),
        scopes=("a", "b"),
        issued_at=Boot(issued_at),
        expires_at=Boot(issued_at + life),
        generation=generation,
    )


def fresh(**changes) -> Fresh:
    given = {"version": 7, "generation": 3, "grant": grant(), "access": access(), "due_at": 6700.0}
    return Fresh(**(given | changes))


def waiting(**changes) -> Waiting:
    given = {"version": 7, "generation": 3, "grant": grant(), "access": access(), "retry_at": NOW}
    return Waiting(**(given | changes))


def quarantined(**changes) -> Quarantined:
    given = {
        "version": 7,
        "generation": 3,
        "grant": grant(),
        "access": access(),
        "reason": "refused",
        "since": Wall(WALL - 10),
    }
    return Quarantined(**(given | changes))


def stored(state, intent=None, **changes):
    """The row of ``state``, sealed for its own version."""
    return replace(rows().to_row(OWNER, state, state.version), intent=intent, **changes)


# --- there and back

# Halves of seconds: sums of them are exact in floating point, also beside civil time.
moments = st.integers(0, 10**7).map(lambda n: n / 2)
texts = st.text(max_size=20)
secrets = st.text(min_size=1, max_size=40).map(Secret)
scopes = st.lists(texts, max_size=4).map(tuple)
grants = st.builds(
    Grant,
    refresh_token=secrets,
    previous=st.none() | secrets,
    scopes=scopes,
    user=st.none() | texts,
    display_name=st.none() | texts,
    authorized_at=st.none() | moments,
    rotation_seen=st.booleans(),
)


@st.composite
def accesses(draw) -> Access:
    issued_at = draw(moments)
    return Access(
        token=draw(secrets),
        token_type=draw(texts),
        scopes=draw(scopes),
        issued_at=issued_at,
        expires_at=issued_at + draw(moments) + 0.5,
        generation=draw(st.integers(0, 2**40)),
    )


held = {
    "version": st.integers(0, 2**40),
    "generation": st.integers(0, 2**40),
    "grant": st.none() | grants,
    "access": st.none() | accesses(),
}
states = st.one_of(
    st.builds(Fresh, due_at=moments, **(held | {"access": accesses()})),
    st.builds(
        Waiting,
        retry_at=moments,
        failures=st.integers(0, 1000),
        reason=st.none() | texts,
        since=st.none() | moments,
        **held,
    ),
    st.builds(
        Quarantined,
        reason=texts,
        since=moments,
        incident=st.booleans(),
        probe_at=st.none() | moments,
        probes=st.integers(0, 4),
        **held,
    ),
)


@given(state=states, now=moments)
def test_every_state_that_is_stored_comes_back_as_it_was(state, now):
    """In the same boot, to the last bit; also an hour later by a wrong civil clock."""
    row = rows(now).to_row(OWNER, state, state.version)
    assert rows(now, WALL - 1e6).to_state(row, POLICY) == state


@given(state=states, slept=moments)
def test_after_another_boot_what_is_left_is_counted_by_civil_time(state, slept):
    """The two scales begin anew, and the moments stay where they were."""
    row = rows().to_row(OWNER, state, state.version)
    restored = rows(100.0, WALL + slept, "boot-2").to_state(row, POLICY)
    shift = 100.0 - NOW - slept
    if state.access is not None and WALL + slept >= row.issued_at:
        assert restored.access.expires_at == state.access.expires_at + shift
        assert restored.access.life == state.access.life
        assert restored.access.generation == state.access.generation
    else:
        assert restored.access is None
    assert restored.grant == state.grant
    assert restored.generation == state.generation


def test_a_refresh_token_lies_nowhere_in_the_open():
    """Secrets that are easily recognised: in no column but the sealed one, and not readable there."""
    planted = [f"planted-{n}" for n in range(3)]
    state = quarantined(
        grant=grant(refresh_token=Secret(planted[0]), previous=Secret(planted[1])),
        access=replace(access(), token=Secret(planted[2])),
    )
    row = stored(state, Intent(attempt="attempt-1", started_at=WALL))
    for column in fields(row):
        value = getattr(row, column.name)
        shown = repr(astuple(value) if column.name == "intent" else value)
        for secret in planted:
            assert secret not in shown
            assert secret.encode() not in (row.sealed or b"")


@pytest.mark.parametrize("state", [waiting(grant=None, access=None), NeedsLogin(reason="never")])
def test_where_nothing_is_secret_nothing_is_sealed(state):
    """A client's own account before its first token needs no envelope."""
    assert stored(state).sealed is None


def test_what_is_under_way_is_stored_as_due():
    """The row that holds the first intent of a client's own account."""
    state = Refreshing(grant=None, access=None, attempt=Attempt("attempt-1", Boot(NOW)))
    row = stored(state)
    assert (row.state, row.due_at) == ("fresh", None)
    assert rows().to_state(row, POLICY) == Waiting(grant=None, access=None, retry_at=NOW)


def test_what_was_blocked_is_tried_once_after_a_start():
    """A start comes with the configuration read anew; the reason is still told."""
    state = Blocked(
        version=7,
        generation=3,
        grant=grant(),
        access=access(),
        reason="no such client",
        hint="",
        since=Wall(WALL),
    )
    row = stored(state)
    restored = rows().to_state(row, POLICY)
    assert restored == waiting(reason="no such client", since=WALL)
    assert rows().sealed(row, POLICY).due_at == NOW + 15


def test_a_token_keeps_its_generation_where_the_account_is_further():
    """Put aside and brought back: another token has had the numbers between."""
    row = stored(fresh(generation=9))
    restored = rows().to_state(row, POLICY)
    assert (restored.generation, restored.access.generation) == (9, 3)


# --- envelopes and facts that were meddled with


@pytest.mark.parametrize(
    "damage",
    [
        {"account": "other"},
        {"fingerprint": "fingerprint-2"},
        {"version": 8},
        {"sealed": b"rubbish"},
        {"sealed": bytes(200)},
    ],
    ids=lambda damage: next(iter(damage)),
)
def test_an_envelope_that_does_not_open_blocks_the_account(damage):
    """Moved to another row, cut or changed: the words say so, and the generation goes on."""
    row = stored(fresh(), **damage)
    state = rows().to_state(row, POLICY)
    assert isinstance(state, Blocked)
    assert (state.grant, state.access, state.generation) == (None, None, 3)
    assert state.hint == f"spotokend login {row.account}"
    assert "can't be unsealed" in state.reason


def test_another_key_opens_nothing():
    """The words name the key that is needed."""
    state = rows(key=bytes([1] * 32)).to_state(stored(fresh()), POLICY)
    assert isinstance(state, Blocked)
    assert SealingKey(bytes(32)).key_id in state.reason


@pytest.mark.parametrize("facts", [b"", b"\xc1", b"\x93", b"\x91\x00", b"\x81\xa5since\xa3now"])
@pytest.mark.parametrize("state", [waiting(), quarantined()], ids=["waiting", "quarantined"])
def test_damaged_facts_cost_no_grant(state, facts):
    """They lie open and unsealed; what can't be read of them is left out."""
    restored = rows().to_state(stored(state, facts=facts), POLICY)
    assert type(restored) is type(state)
    assert restored.grant == state.grant


@given(
    facts=st.binary(max_size=60) | st.dictionaries(texts, texts | st.floats()).map(msgpack.packb)
)
def test_no_facts_whatever_break_a_start(facts):
    """A flipped bit must not keep all accounts from being served."""
    for state in (waiting(), quarantined()):
        assert rows().to_state(stored(state, facts=facts), POLICY).grant == state.grant


# --- clocks


def test_a_token_from_before_the_clock_went_back_is_not_served():
    """Another boot, and civil time before the issue: nobody can say when the token ends."""
    row = stored(fresh())
    restored = rows(100.0, row.issued_at - 1, "boot-2").to_state(row, POLICY)
    assert isinstance(restored, Waiting)
    assert restored.access is None


@pytest.mark.parametrize("wall", [0.0, WALL - 3600])
@pytest.mark.parametrize("state", [fresh(), waiting(retry_at=NOW + 60)], ids=["fresh", "waiting"])
def test_a_host_that_starts_in_the_past_does_not_wait_for_the_present(state, wall):
    """Without a battery civil time is that of the last stop, or 1970: due now, not in 56 years."""
    row = stored(state)
    view = rows(20.0, wall, "boot-2")
    assert view.to_state(row, POLICY).retry_at == 20.0
    assert view.sealed(row, POLICY).due_at == 20.0 + 15


@pytest.mark.parametrize(
    "state",
    [waiting(access=None, retry_at=NOW + 60), quarantined(probe_at=NOW + 1800)],
    ids=["waiting", "quarantined"],
)
def test_nothing_that_waits_without_a_token_is_put_off_for_more_than_a_day(state):
    """Where nothing tells that civil time is wrong, the longest of all waits is the limit."""
    restored = rows(20.0, 0.0, "boot-2").to_state(stored(state), POLICY)
    due = restored.retry_at if isinstance(restored, Waiting) else restored.probe_at
    assert due == 20.0 + DAY


def test_after_a_start_what_is_due_later_keeps_its_moment_and_what_is_overdue_is_spread():
    """The stored due times keep the spread; the overdue get a new one, over thirty seconds."""
    later, overdue = stored(fresh()), stored(fresh(due_at=NOW - 1))
    assert rows().sealed(later, POLICY).due_at == 6700.0
    assert rows(u=0.0).sealed(overdue, POLICY).due_at == NOW
    assert rows(u=0.9).sealed(overdue, POLICY).due_at == NOW + 27
    assert rows().sealed(later, POLICY).expires_at == 7600.0
    assert rows().sealed(stored(waiting(access=None)), POLICY).expires_at is None


@pytest.mark.parametrize("expires_at", [math.inf, WALL - 1000, WALL + 400 * DAY, -math.inf])
def test_a_life_that_no_answer_has_is_damage_and_not_served(expires_at):
    """The columns lie open: the token is asked for anew, the grant is in the envelope."""
    state = rows().to_state(stored(fresh(), expires_at=expires_at), POLICY)
    assert isinstance(state, Waiting)
    assert (state.grant, state.access) == (grant(), None)


def test_the_schedule_of_the_configuration_counts_not_that_of_the_row():
    """``on_demand`` once, ``proactive`` now: due as if it had been so; and nothing while it is."""
    row = stored(fresh(due_at=NEVER))
    assert rows().sealed(row, ON_DEMAND).due_at == NEVER
    assert rows().to_state(row, ON_DEMAND).due_at == NEVER
    assert rows().sealed(row, POLICY).due_at == NOW + 15
    assert rows().to_state(row, POLICY).due_at == 4000 + 0.75 * 3600


@pytest.mark.parametrize(("wall", "due"), [(0.0, 20.0), (WALL - 61, 20.0), (WALL, 80.0)])
def test_what_has_failed_since_tells_that_civil_time_is_wrong(wall, due):
    """Without a token, too: a host without a battery goes on at once, not in a day."""
    state = waiting(access=None, failures=3, since=Wall(WALL - 60), retry_at=NOW + 60)
    assert rows(20.0, wall, "boot-2").to_state(stored(state), POLICY).retry_at == due


# --- attempts that were cut off


def cut_off(started=WALL - 20, tries=1, not_before=None):
    return Intent(attempt="attempt-1", started_at=started, tries=tries, not_before=not_before)


def test_an_open_intent_is_doubt_and_is_looked_at_first():
    """The program ended in the middle: not spread, since a grace may be running."""
    row = stored(fresh(), cut_off())
    assert rows().sealed(row, POLICY).due_at == NOW
    state = rows().to_state(row, POLICY)
    assert isinstance(state, Waiting)
    assert (state.in_doubt, state.tries, state.failures) == (True, 1, 1)
    assert state.since == WALL - 20
    assert state.retry_at == NOW + 2  # a server that never rotates: once more, soon


def test_a_crash_loop_backs_off_by_what_the_intent_says():
    """Many tries, each ended by a crash: not before the moment that was settled last."""
    row = stored(fresh(), cut_off(tries=4, not_before=WALL + 55))
    state = rows().to_state(row, POLICY)
    assert (state.retry_at, state.tries) == (NOW + 55, 4)


def test_a_strict_server_is_not_asked_again_while_the_token_is_of_use():
    """A rotation was seen: presenting the old one again could kill the living token."""
    row = stored(fresh(grant=grant(rotation_seen=True)), cut_off())
    assert rows().to_state(row, POLICY).retry_at == 7600 - 60


@pytest.mark.parametrize(
    ("started", "tries", "expected"),
    [
        (WALL - 4, 1, (NOW, NOW + 6)),
        (WALL - 11, 1, (7600 - 60, None)),
        (WALL - 4, 2, (7600 - 60, None)),
        # It began in the future: civil time was set, and nobody knows how long ago it was.
        (WALL + 3600, 1, (7600 - 60, None)),
    ],
    ids=["in the grace", "after it", "second try", "in the future"],
)
def test_inside_a_known_grace_it_is_tried_at_once(started, tries, expected):
    """``rotation = "grace"``: each second counts, but only while it lasts."""
    policy = Policy(rotation=Rotation.GRACE, rotation_grace=10.0)
    state = rows().to_state(stored(fresh(), cut_off(started, tries)), policy)
    assert (state.retry_at, state.grace_until) == expected


@pytest.mark.parametrize(
    ("held", "latest"),
    [(None, DAY), (access(), DAY), (access(life=30 * DAY), 30 * DAY - 1000)],
    ids=["no token", "token", "long-lived token"],
)
def test_no_doubt_lasts_for_ever_because_a_clock_was_wrong(held, latest):
    """``not_before`` in some other century: a day, or the end of the token, is the limit."""
    row = stored(fresh(access=held or access()), cut_off(not_before=WALL + 1e9))
    if held is None:
        row = stored(waiting(access=None), cut_off(not_before=WALL + 1e9))
    assert rows().to_state(row, POLICY).retry_at == NOW + latest


def test_a_doubt_that_began_in_the_future_lasts_as_long_as_it_was_to_last():
    """Civil time is in 1970: how much of the pause is over nobody knows, its length is known."""
    row = stored(fresh(grant=grant(rotation_seen=True)), cut_off(not_before=WALL + 2400))
    assert rows(20.0, 0.0, "boot-2").to_state(row, POLICY).retry_at == 20 + 2420


@pytest.mark.parametrize(("started", "retry_at"), [(WALL - 100, NOW), (WALL - 3, NOW + 13)])
def test_an_open_intent_without_a_grant_is_no_doubt_and_backs_off(started, retry_at):
    """Client credentials: nothing can have been used up; a crash loop is one all the same."""
    row = stored(waiting(grant=None), cut_off(started, tries=6))
    assert rows().to_state(row, Policy(needs_grant=False)) == waiting(
        generation=3 + 6,  # each may have been served
        grant=None,
        failures=6,
        reason=CUT_OFF,
        since=started,
        retry_at=retry_at,
    )


@pytest.mark.parametrize(
    ("started", "tries", "wait"),
    [(WALL, 2, 1), (WALL - 1, 5, 7), (WALL - 31, 9, 0), (WALL + 1e6, 9, 30), (0.0, 9, 0)],
    ids=["just now", "many", "long enough", "a wrong clock", "ages ago"],
)
def test_a_crash_loop_that_never_lives_to_settle_backs_off_by_its_tries(started, tries, wait):
    """Each round raised them, and was killed before it could write when to go on."""
    row = stored(fresh(), cut_off(started, tries))
    assert rows().to_state(row, POLICY).retry_at == NOW + wait


def test_a_probe_cut_off_by_a_crash_is_spent():
    """The quarantine survives, and no crash loop repeats the probe."""
    state = quarantined(incident=True, probe_at=NOW - 1, probes=1)
    restored = rows().to_state(stored(state, cut_off()), POLICY)
    assert restored == replace(state, generation=4, probes=2, probe_at=NOW + 21_600 - 7200)


def test_the_one_repetition_of_a_refusal_is_put_off_by_a_crash():
    """It decides whether the previous refresh token gets its chance, which it must not lose."""
    before = grant(previous=Secret("refresh-0"))
    state = quarantined(grant=before, probe_at=NOW - 1)
    restored = rows().to_state(stored(state, cut_off()), POLICY)
    assert restored == replace(state, generation=4, probe_at=NOW + 1800)


def test_an_intent_tells_in_civil_time_when_it_began_and_may_go_on():
    """No moment, no ``not_before``; that it is never due says nothing either."""
    attempt = Attempt("attempt-1", Boot(NOW - 5), tries=2)
    assert rows().intent(attempt) == Intent(attempt="attempt-1", started_at=WALL - 5, tries=2)
    assert rows().intent(attempt, NEVER).not_before is None
    assert rows().intent(attempt, Boot(NOW + 5)).not_before == WALL + 5
