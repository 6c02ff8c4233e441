"""The fences alone; through the stores they are tested in test_store_base.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
from store_rows import intent, lease, row

from spotokend.adapters.store import fences
from spotokend.adapters.store.base import CANDIDATE, Fenced, Outcome

BEGUN = row(intent=intent())


@pytest.mark.parametrize(
    "present",
    [
        None,
        row(),
        row(version=2, intent=intent()),
        row(intent=intent("attempt-2")),
    ],
    ids=["no row", "no intent", "another version", "another attempt"],
)
def test_what_fences_a_result_out(present):
    """Each of the things that can have come between; for an answer as for none."""
    with pytest.raises(Fenced):
        fences.commit(present, lease(), row(version=2))
    with pytest.raises(Fenced):
        fences.settle(present, lease(), Outcome.REFUSED, row(version=2))


def test_a_commit_owns_intent_and_attempt():
    """They say what the store knows, not what the caller passes in."""
    given = row(version=2, intent=intent("x"), last_attempt="x")

    assert fences.commit(BEGUN, lease(), given) == row(version=2, last_attempt="attempt-1")


def test_a_commit_that_was_made_is_not_made_again():
    """Whatever the version is by now."""
    assert fences.commit(row(version=9, last_attempt="attempt-1"), lease(), row(version=2)) is None


def test_settling_keeps_an_intent_only_in_doubt():
    """The row's own, or else the one that is open."""
    later = intent(not_before=5.0)
    settled = {
        (outcome, given): fences.settle(
            BEGUN, lease(), outcome, row(version=2, intent=given)
        ).intent
        for outcome in Outcome
        for given in (None, later)
    }

    assert {key: kept for key, kept in settled.items() if kept is not None} == {
        (Outcome.IN_DOUBT, None): intent(),
        (Outcome.IN_DOUBT, later): later,
    }


def test_begin_wants_the_row_at_its_version():
    """Then it is the row with the intent."""
    assert fences.begin("main", row(), 1, intent()) == BEGUN
    with pytest.raises(Fenced, match="account 'main': version 2 was expected, version 1 is stored"):
        fences.begin("main", row(), 2, intent())
    with pytest.raises(Fenced, match="it isn't stored"):
        fences.begin("main", None, 2, intent())


def test_put_wants_a_new_version_in_the_current_slot_only():
    """And forgets the attempt, so that its commit can't be repeated over a login."""
    given = replace(BEGUN, last_attempt="attempt-0")

    assert fences.put(0, given) == row()
    assert fences.put(1, replace(given, slot=CANDIDATE)) == row(slot=CANDIDATE)
    with pytest.raises(Fenced, match="version 1 can't be written, 1 was reached already"):
        fences.put(1, given)
