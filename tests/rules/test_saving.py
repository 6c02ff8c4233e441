"""An answer on its way to the disk: what it becomes, and that no copy but a whole one counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from account_states import (
    GENERATION,
    MINE,
    NOW,
    POLICIES,
    ROTATED,
    VERSION,
    WALL,
    access,
    attempt,
    grant,
    make,
)

from spotokend.rules import saving
from spotokend.rules.account import (
    Answered,
    Attempt,
    Fresh,
    Policy,
    Refreshing,
    Saved,
    SaveFailed,
    Unsaved,
    Waiting,
)
from spotokend.rules.schedule import NEVER, Boot, Timing, Wall
from spotokend.rules.transitions import usable

NEW = access(GENERATION + 1, left=3600.0)
FULL = "the disk is full"


def answered(state, event, policy=POLICIES["auto"]) -> Unsaved:
    return saving.answered(state, event, policy=policy, now=NOW, wall=WALL, u=0.5)


def test_a_token_is_renewed_by_itself_unless_the_user_wants_it_on_demand():
    """Between 70 and 80 % of its life."""
    assert saving.next_due(NEW, Policy(), 0.0) == NOW + 2520
    assert saving.next_due(NEW, Policy(), 0.5) == NOW + 2700
    assert saving.next_due(NEW, POLICIES["on demand"], 0.5) == NEVER


def test_an_answer_is_held_with_all_that_it_brought():
    """In memory alone: nothing is in a store or a file yet."""
    assert answered(make(Refreshing), Answered(MINE, ROTATED, NEW)) == Unsaved(
        version=VERSION,
        generation=GENERATION + 1,
        grant=ROTATED,
        access=NEW,
        attempt=attempt(),
        due_at=Boot(NOW + 2700),
        retry_at=NOW,
    )


@pytest.mark.parametrize(("before", "since"), [(None, WALL), (Wall(WALL - 60), WALL - 60)])
def test_a_refresh_token_alone_is_held_beside_the_living_access_token(before, since):
    """Counted as an attempt without fruit, since the first of them."""
    state = answered(make(Refreshing, failures=2, since=before), Answered(MINE, ROTATED, None))
    assert (state.grant, state.access, state.generation) == (ROTATED, access(), GENERATION)
    assert (state.fruitless, state.due_at, state.since) == (3, NOW + 2.0, since)


def test_saved_it_is_what_it_was_going_to_be():
    """Fresh; or waiting, where no access token came with it or an API has refused it."""
    unsaved = make(Unsaved, access=NEW, grant=ROTATED, failures=3, reason=FULL, spilled=True)
    kept = {"version": 9, "generation": GENERATION, "grant": ROTATED}
    assert saving.saved(unsaved, Saved(MINE, 9), NOW) == Fresh(
        **kept, access=NEW, due_at=Boot(NOW + 100)
    )
    rejected = replace(unsaved, access=None)
    assert saving.saved(rejected, Saved(MINE, 9), NOW) == Waiting(**kept, access=None, retry_at=NOW)
    assert saving.saved(replace(unsaved, fruitless=2), Saved(MINE, 9), NOW) == Waiting(
        **kept,
        access=NEW,
        retry_at=Boot(NOW + 100),
        failures=2,
        reason=saving.NO_ACCESS_TOKEN,
        since=unsaved.since,
    )


def test_it_is_written_again_from_a_tenth_of_a_second_to_five_apart():
    """For as long as it takes."""
    state, waits = make(Unsaved, reason=None), []
    for _ in range(2000):
        state = saving.save_failed(state, SaveFailed(MINE, FULL), NOW)
        waits.append(state.retry_at - NOW)
    assert waits[:7] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0])
    assert waits[-1] == 5.0
    assert (state.failures, state.reason, state.spilled) == (2000, FULL, False)


def test_a_copy_beside_the_socket_is_remembered_until_it_is_wrong():
    """A later failure takes nothing from it; a token that an API refused must not come back."""
    state = saving.save_failed(make(Unsaved), SaveFailed(MINE, FULL, spilled=True), NOW)
    state = saving.save_failed(state, SaveFailed(MINE, FULL), NOW)
    assert state.spilled
    after = saving.token_rejected(state)
    assert after == replace(state, access=None, spilled=False)


@pytest.mark.parametrize(
    ("stored", "fruitless", "since", "due_at"),
    [
        (make(Fresh, access=NEW), 0, None, NOW + 100),
        (make(Waiting, access=NEW, failures=3), 3, WALL - 60, NOW + 10),
    ],
    ids=["a token", "a refresh token alone"],
)
def test_what_lay_beside_the_socket_is_served_and_goes_on_being_written(
    stored, fruitless, since, due_at
):
    """It is not on disk yet, it is in a file; and saved, it is what it was going to be."""
    state = saving.taken_up(stored, "attempt-7", version=VERSION, reason=FULL, now=NOW)
    assert state == Unsaved(
        version=VERSION,
        generation=GENERATION,
        grant=grant(),
        access=NEW,
        attempt=Attempt("attempt-7", NOW),
        due_at=Boot(due_at),
        retry_at=NOW,
        failures=1,
        reason=FULL,
        fruitless=fruitless,
        since=since,
        spilled=True,
    )
    assert usable(state, NOW) == NEW
    again = saving.saved(state, Saved("attempt-7", VERSION), NOW)
    reason = saving.NO_ACCESS_TOKEN if fruitless else None
    assert again == (replace(stored, reason=reason) if fruitless else stored)


def test_the_pauses_are_those_of_the_configuration_also_while_somebody_waits():
    """The next refresh of a token, and that of a server which sends none."""
    timing = Timing(due_from=0.1, due_to=0.2, backoff_base=100.0, backoff_cap_waiting=1.0)
    policy = Policy(timing=timing)
    assert saving.next_due(NEW, policy, 0.0) == NOW + 360
    fruitless = answered(make(Refreshing), Answered(MINE, ROTATED, None), policy=policy)
    assert fruitless.due_at == NOW + 30  # half of the longest, which is 60 s
    assert (fruitless.version, fruitless.attempt, fruitless.retry_at) == (VERSION, attempt(), NOW)
