"""The table of steps as data, and what a state means."""

from __future__ import annotations

import math

import pytest
from account_states import EVENTS, NOW, STATES, access, make
from hypothesis import given
from hypothesis import strategies as st

from spotokend.rules.account import (
    Blocked,
    ChangedElsewhere,
    Elsewhere,
    Fresh,
    Holding,
    LoggedIn,
    LoggedOut,
    NeedsLogin,
    Outcome,
    Quarantined,
    Refreshing,
    RefreshStarted,
    Sealed,
    Unsaved,
    Waiting,
)
from spotokend.rules.schedule import NEVER, Boot
from spotokend.rules.transitions import TRANSITIONS, due_at, later, need, usable

KINDS = {type(state) for state in STATES.values()}


def test_each_state_has_its_row():
    """None is left out, none is there that doesn't exist."""
    assert TRANSITIONS.keys() == KINDS


def test_each_event_means_something_somewhere():
    """An event that no state heeds would be a mistake."""
    heeded = {event for row in TRANSITIONS.values() for event in row}
    assert heeded == {type(event) for event in EVENTS}


def test_no_step_leads_nowhere():
    """Each event in the table names the states that it leads to, and they are known."""
    targets = [after for row in TRANSITIONS.values() for after in row.values()]
    assert all(targets)
    assert set().union(*targets) == KINDS


@pytest.mark.parametrize(
    "kind", sorted(KINDS, key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__
)
def test_login_logout_and_the_store_always_win(kind):
    """There is no state that a user can't leave."""
    assert {LoggedIn, LoggedOut, ChangedElsewhere} <= TRANSITIONS[kind].keys()


def test_every_state_can_be_reached_from_every_other():
    """No trap, and no state without a way in."""
    for start in KINDS:
        reached, found = set(), {start}
        while found:
            reached |= found
            after = set().union(*(set().union(*TRANSITIONS[kind].values()) for kind in found))
            found = after - reached
        assert reached == KINDS


def test_nothing_is_redeemed_while_an_answer_is_not_on_disk():
    """Nor while a refresh is under way, nor without secrets, nor by a client that is refused."""
    starts = {kind for kind, row in TRANSITIONS.items() if RefreshStarted in row}
    assert starts == {Fresh, Waiting, Elsewhere, Quarantined}


def test_outcomes_concern_attempts():
    """Outside of an attempt and its saving only the refusal of the whole client is heeded."""
    heeded = {
        event.__name__
        for kind, row in TRANSITIONS.items()
        for event in row
        if issubclass(event, Outcome) and kind not in {Refreshing, Unsaved}
    }
    assert heeded == {"ClientRefused"}


@pytest.mark.parametrize(
    ("state", "due"),
    [
        (make(Sealed), NOW + 100.0),
        (make(NeedsLogin), NEVER),
        (make(Fresh), NOW + 100.0),
        (make(Fresh, due_at=NEVER), NEVER),
        (make(Refreshing), NEVER),
        (make(Waiting), NOW + 10.0),
        (make(Unsaved), NOW + 10.0),
        (make(Elsewhere), NOW + 30.0),
        (make(Quarantined), NEVER),
        (make(Quarantined, probe_at=NOW), NOW),
        (make(Blocked), NEVER),
    ],
)
def test_when_something_is_to_be_done(state, due):
    """By the program itself: what only the user can do is never due."""
    assert due_at(state) == due


@pytest.mark.parametrize(
    ("kind", "needed"),
    [
        (Sealed, None),
        (NeedsLogin, "login"),
        (Fresh, None),
        (Refreshing, None),
        (Waiting, None),
        (Unsaved, None),
        (Elsewhere, None),
        (Quarantined, "login"),
        (Blocked, "repair"),
    ],
)
def test_what_only_the_user_can_do(kind, needed):
    """A login, a repair, or nothing."""
    assert need(make(kind)) == needed


@given(
    state=st.sampled_from(list(STATES.values())),
    left=st.floats(-1e4, 1e4),
    min_ttl=st.floats(0, 1e4) | st.just(math.nan),
)
def test_no_token_with_less_than_the_asked_for_life(state, left, min_ttl):
    """Of no state; and none without a secret at hand."""
    now = Boot(NOW + left)
    found = usable(state, now, min_ttl)
    if found is not None:
        assert isinstance(state, Holding)
        assert found is state.access
        assert found.expires_at - now >= min_ttl
        assert found.expires_at > now
    elif isinstance(state, Holding) and state.access is not None:
        remaining = state.access.expires_at - now
        assert remaining <= 0 or not remaining >= min_ttl


def test_a_token_is_served_to_its_end_from_every_state_that_holds_one():
    """Also with the grant refused, the client blocked, the disk full."""
    for kind in KINDS:
        if issubclass(kind, Holding):
            state = make(kind, access=access(left=0.001))
            assert usable(state, NOW) is state.access
            assert usable(state, Boot(NOW + 0.001)) is None


def test_the_last_second_asked_for_is_still_served():
    """Exactly so much is enough."""
    state = make(Fresh, access=access(left=60.0))
    assert usable(state, NOW, 60.0) is state.access
    assert usable(state, NOW, 60.001) is None


def test_what_is_later_is_an_access_token_and_not_a_number():
    """A state may have counted on, over tokens that nobody has any more."""
    fresh = make(Fresh, generation=7, access=access(generation=5))
    assert [later(fresh, generation) for generation in (4, 5, 6)] == [True, False, False]
    assert not later(make(Waiting, generation=7, access=None), 4)
    assert not later(make(NeedsLogin, generation=7), 4)
