"""May it be presented again, and when? The tables of the design, line by line."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from account_states import GENERATION, NOW, ROTATED, STATES, VERSION, WALL, access, grant, make
from hypothesis import given
from hypothesis import strategies as st

from spotokend.rules.account import (
    Attempt,
    GrantRefused,
    Policy,
    Quarantined,
    Refreshing,
    Rotation,
    Waiting,
)
from spotokend.rules.doubt import (
    PROBES,
    TURN,
    next_attempt,
    previous_first,
    probe_after_refusal,
    refused,
    retry_after_doubt,
    strictness,
    turn_passed,
)
from spotokend.rules.schedule import DAY, Boot, Timing, Wall, serving_floor

AUTO, NEVER, GRACE, STRICT = Rotation
MINUTE, HOUR = 60.0, 3600.0


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_an_attempt_counts_the_tries_whose_fate_is_not_known(state):
    """One more than are in doubt; one where nothing is."""
    found = next_attempt(state, "attempt-2", NOW)
    assert found == Attempt("attempt-2", NOW, getattr(state, "tries", 0) + 1)


@pytest.mark.parametrize(
    ("configured", "seen", "resolved"),
    [
        (AUTO, False, NEVER),
        (AUTO, True, STRICT),
        (NEVER, False, NEVER),
        (NEVER, True, NEVER),
        (GRACE, False, GRACE),
        (GRACE, True, GRACE),
        (STRICT, False, STRICT),
        (STRICT, True, STRICT),
    ],
)
def test_auto_is_strict_once_a_rotation_was_seen(configured, seen, resolved):
    """And what is configured is believed, whatever was seen."""
    assert strictness(Policy(rotation=configured), grant(rotation_seen=seen)) is resolved


@pytest.mark.parametrize("configured", Rotation)
def test_client_credentials_are_never_used_up(configured):
    """There is no refresh token that could be."""
    assert strictness(Policy(rotation=configured), None) is NEVER


SOON = NOW + 2.0
"""With dice that fall on one half."""
GATE = NOW + 20.0
LAST = NOW + 840.0
"""A minute before the end of the present access token."""
LIVING, DYING, NONE = access(left=900.0), access(left=30.0), None


@pytest.mark.parametrize(
    ("rotation", "seen", "tries", "sent_ago", "token", "retry_at"),
    [
        # Nothing can be used up: once more soon, then by back-off; the access token is no matter.
        (NEVER, False, 1, 1.0, LIVING, SOON),
        (NEVER, True, 1, 60.0, LIVING, SOON),
        (NEVER, True, 2, 1.0, LIVING, GATE),
        (NEVER, False, 9, 1.0, NONE, GATE),
        (AUTO, False, 1, 1.0, LIVING, SOON),
        (AUTO, False, 2, 1.0, LIVING, GATE),
        # Inside the grace, counted from the sending: soon, and before the middle of what is left.
        (GRACE, False, 1, 1.0, LIVING, SOON),
        (GRACE, False, 1, 7.0, LIVING, NOW + 1.5),
        (GRACE, True, 1, 9.0, NONE, NOW + 0.5),
        (GRACE, False, 1, 10.0, LIVING, LAST),
        (GRACE, False, 1, 60.0, LIVING, LAST),
        (GRACE, False, 2, 1.0, LIVING, LAST),
        (GRACE, False, 1, 60.0, DYING, SOON),
        (GRACE, False, 1, 60.0, NONE, SOON),
        (GRACE, False, 2, 1.0, NONE, GATE),
        # It may kill the present access token: not before that one is of no use.
        (STRICT, False, 1, 1.0, LIVING, LAST),
        (STRICT, False, 2, 1.0, LIVING, LAST),
        (STRICT, False, 1, 1.0, DYING, SOON),
        (STRICT, False, 2, 1.0, DYING, GATE),
        (STRICT, False, 1, 1.0, NONE, SOON),
        (STRICT, False, 2, 1.0, NONE, GATE),
        (AUTO, True, 1, 1.0, LIVING, LAST),
        (AUTO, True, 2, 1.0, LIVING, LAST),
        (AUTO, True, 2, 1.0, DYING, GATE),
    ],
)
def test_when_a_refresh_token_in_doubt_is_presented_again(
    rotation, seen, tries, sent_ago, token, retry_at
):
    """By rotation, what was seen of it, tries, grace and the present access token."""
    found = retry_after_doubt(
        Policy(rotation=rotation),
        grant(rotation_seen=seen),
        token,
        tries=tries,
        sent_at=Boot(NOW - sent_ago),
        now=NOW,
        opens_at=Boot(GATE),
        u=0.5,
    )
    assert found == retry_at


@given(
    rotation=st.sampled_from(Rotation),
    seen=st.booleans(),
    tries=st.integers(1, 5),
    sent_ago=st.floats(0, 100),
    left=st.none() | st.floats(-100, 3600),
    wait=st.floats(0, 100),
    grace=st.floats(0.1, 100),
    u=st.floats(0, 1, exclude_max=True),
)
def test_it_is_never_presented_in_the_past_nor_while_that_may_do_harm(
    rotation, seen, tries, sent_ago, left, wait, grace, u
):
    """Whatever the figures: but for the one repetition inside a grace the living token comes first."""
    policy = Policy(rotation=rotation, rotation_grace=grace)
    token = None if left is None else access(left=left)
    login = grant(rotation_seen=seen)
    found = retry_after_doubt(
        policy,
        login,
        token,
        tries=tries,
        sent_at=Boot(NOW - sent_ago),
        now=NOW,
        opens_at=Boot(NOW + wait),
        u=u,
    )
    assert found >= NOW
    kind = strictness(policy, login)
    saved_by_grace = kind is GRACE and tries == 1 and sent_ago < grace
    if saved_by_grace:
        assert found < NOW - sent_ago + grace
    elif kind is not NEVER and token is not None:
        assert found >= token.expires_at - serving_floor(token.life)
    if tries > 1:
        assert found >= NOW + wait


@pytest.mark.parametrize(
    ("rotation", "login", "may"),
    [
        (NEVER, ROTATED, True),
        (GRACE, ROTATED, True),
        (STRICT, ROTATED, False),
        (AUTO, ROTATED, False),
        (NEVER, grant(), False),
        (NEVER, None, False),
    ],
)
def test_the_previous_refresh_token_is_tried_only_where_it_does_no_harm(rotation, login, may):
    """Not where a server revokes whole families, and only if there is one."""
    older = previous_first(Policy(rotation=rotation), login)
    assert (older is not None) is may
    if older is not None:
        assert (older.refresh_token, older.previous) == (login.previous, login.refresh_token)


@pytest.mark.parametrize(
    ("incident", "probes", "login", "wait"),
    [
        (True, 0, grant(), 30 * MINUTE),
        (True, 1, grant(), 90 * MINUTE),
        (True, 2, grant(), 4 * HOUR),
        (True, 3, grant(), 18 * HOUR),
        (True, 4, grant(), None),
        (True, 5, grant(), None),
        (False, 0, grant(), None),
        (False, 0, ROTATED, 30 * MINUTE),
        (False, 1, ROTATED, None),
        (False, 2, ROTATED, None),
    ],
)
def test_when_a_refused_grant_is_tried_again(incident, probes, login, wait):
    """In an incident four times, within a day; else once, if there is a previous one to turn to."""
    found = probe_after_refusal(
        Policy(rotation=NEVER), login, incident=incident, probes=probes, now=NOW
    )
    assert found == (None if wait is None else NOW + wait)


def refuse(state, *, policy, now=NOW, incident=False):
    """What ``invalid_grant`` makes of an attempt that follows on ``state``, the probe at ``now``."""
    refreshing = make(
        Refreshing,
        grant=state.grant,
        attempt=next_attempt(state, "attempt-2", now),
        quarantine=state if isinstance(state, Quarantined) else None,
    )
    event = GrantRefused("attempt-2", "refused", incident)
    return refused(refreshing, event, policy=policy, now=now, wall=WALL)


def test_an_incident_is_probed_four_times_and_no_more():
    """After half an hour, two hours, six and twenty-four, counted from the refusal."""
    state, moments = refuse(make(Waiting), policy=Policy(), incident=True), []
    while state.probe_at is not None:
        moments.append(state.probe_at - NOW)
        state = refuse(state, policy=Policy(), now=state.probe_at)
    assert moments == [30 * MINUTE, 2 * HOUR, 6 * HOUR, DAY]
    assert (state.probes, state.incident, state.since) == (4, True, WALL)
    assert moments == list(PROBES)


def test_a_refusal_without_doubt_is_final():
    """One answer, no further request; the grant and the access token are kept."""
    state = refuse(make(Waiting), policy=Policy())
    assert (state.probe_at, state.incident, state.probes) == (None, False, 0)
    assert (state.grant, state.access) == (grant(), access())
    assert (state.version, state.generation) == (VERSION, GENERATION)


def test_the_previous_one_is_tried_after_two_refusals_half_an_hour_apart():
    """Then it is in front, the other one is kept; and refused as well it is the end."""
    policy = Policy(rotation=NEVER)
    first = refuse(make(Waiting, grant=ROTATED), policy=policy)
    assert (first.grant, first.probe_at) == (ROTATED, NOW + 30 * MINUTE)

    second = refuse(first, policy=policy, now=first.probe_at)
    assert second.probe_at == first.probe_at
    assert second.grant.refresh_token == ROTATED.previous
    assert second.grant.previous == ROTATED.refresh_token

    third = refuse(second, policy=policy, now=second.probe_at)
    assert (third.grant, third.probe_at) == (second.grant, None)


@pytest.mark.parametrize(
    ("policy", "incident"),
    [
        (Policy(rotation=STRICT), False),
        (Policy(rotation=AUTO), False),
        (Policy(rotation=NEVER), True),
    ],
)
def test_the_previous_one_is_not_tried_in_an_incident_nor_where_it_does_harm(policy, incident):
    """What is refused then says nothing of the present refresh token."""
    repetition = make(Quarantined, grant=ROTATED, probe_at=NOW)
    assert refuse(repetition, policy=policy, incident=incident).grant == ROTATED


def test_an_incident_that_was_stays_one():
    """A probe that meets a plain refusal does not end the probes."""
    before = make(Quarantined, incident=True, probe_at=NOW)
    state = refuse(before, policy=Policy(), incident=False)
    assert (state.incident, state.probe_at) == (True, NOW + 90 * MINUTE)


def test_after_a_lost_answer_the_refusal_says_what_may_have_happened():
    """The one window in which a grant can be lost; its cause is told."""
    lost = refuse(make(Waiting, tries=1), policy=Policy())
    known = refuse(make(Waiting), policy=Policy())
    assert (known.reason, lost.reason) == (
        "refused",
        "refused (an earlier answer was lost; it may have carried the successor)",
    )


def test_the_turn_to_probe_goes_round_the_accounts():
    """Of several that were refused together each probes once before one probes again."""
    accounts = {
        name: make(Quarantined, incident=True, probe_at=Boot(NOW + 1800.0 + number))
        for number, name in enumerate(["one", "two", "three"])
    }
    probers, probed_at = [], -DAY
    while any(state.probe_at is not None for state in accounts.values()):
        name, state = min(
            ((n, s) for n, s in accounts.items() if s.probe_at is not None),
            key=lambda item: item[1].probe_at,
        )
        now = state.probe_at
        if now - probed_at < TURN:
            accounts[name] = turn_passed(state, now)
        else:
            probers.append(name)
            probed_at = now
            accounts[name] = refuse(state, policy=Policy(), now=Boot(now + 5.0))
    assert probers == ["one", "two", "three", "one"]


def test_a_turn_that_passed_counts_as_a_probe():
    """All accounts of an endpoint together ask as often as one would."""
    state = make(Quarantined, incident=True, probe_at=NOW)
    for probes, wait in enumerate((90 * MINUTE, 4 * HOUR, 18 * HOUR), 1):
        state = turn_passed(state, NOW)
        assert (state.probes, state.probe_at) == (probes, NOW + wait - 540.0)
    state = turn_passed(state, NOW)
    assert (state.probes, state.probe_at) == (4, None)
    assert turn_passed(state, NOW) is state


def test_the_repetition_of_a_refusal_only_waits_its_turn():
    """It is no probe of the incident: nobody else can make it."""
    state = make(Quarantined, grant=ROTATED, probe_at=NOW)
    after = turn_passed(state, NOW)
    assert (after.probes, after.probe_at) == (0, NOW + TURN)


OVER = Policy(rotation=NEVER, grant_life=1000.0)
"""The grant of these tests was authorized a thousand seconds ago."""


@pytest.mark.parametrize("incident", [False, True])
def test_at_the_end_of_its_life_a_refusal_is_believed(incident):
    """However many others are refused at that hour, and whatever token came before this one."""
    state = refuse(make(Waiting, grant=ROTATED, tries=1), policy=OVER, incident=incident)
    assert (state.incident, state.probe_at, state.grant) == (False, None, ROTATED)
    assert state.reason == "the login's 0.0116 days are over: refused"
    half_a_year = make(Waiting, grant=replace(grant(), authorized_at=Wall(WALL - 180 * DAY)))
    assert refuse(half_a_year, policy=Policy()).reason == "the login's 180 days are over: refused"


def test_what_was_a_doubtful_refusal_is_over_when_the_grant_is():
    """The probe that comes after its end is the last."""
    before = make(Quarantined, incident=True, probe_at=NOW, probes=2)
    state = refuse(before, policy=OVER)
    assert (state.incident, state.probe_at, state.probes) == (False, None, 3)
    assert state.since == before.since


@pytest.mark.parametrize(
    ("login", "policy"),
    [
        (grant(), replace(OVER, grant_life=1000.5)),
        (grant(authorized_at=None), OVER),
        (grant(), replace(OVER, grant_life=math.inf)),
        (None, OVER),
    ],
    ids=["not yet", "unknown", "never", "no grant"],
)
def test_before_its_end_or_where_nobody_knows_it_a_refusal_is_doubted_as_any(login, policy):
    """The probes are as they are."""
    state = refuse(make(Waiting, grant=login), policy=policy, incident=True)
    assert (state.incident, state.probe_at, state.reason) == (True, NOW + 30 * MINUTE, "refused")


def test_the_last_useful_moment_is_by_the_configured_floor():
    """Up to then the token is served, and a second try might kill it."""
    policy = Policy(rotation=STRICT, timing=Timing(floor=10.0))
    again = retry_after_doubt(
        policy, grant(), access(left=900.0), tries=1, sent_at=NOW, now=NOW, opens_at=NOW, u=0.5
    )
    assert again == NOW + 890
