"""The values: what they hold, and what they don't show."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, is_dataclass, replace

import pytest
from account_states import EVENTS, NOW, PLANTED, STATES, access, grant, make

from spotokend.rules import account
from spotokend.rules.account import Event, Fresh, Holding, Outcome, Policy, Rotation, State, Waiting

ABSTRACT = {State, Holding, Event, Outcome}


def concrete(base: type) -> set[type]:
    """The kinds of ``base`` that there are."""
    kinds = {kind for kind in vars(account).values() if isinstance(kind, type)}
    return {kind for kind in kinds if issubclass(kind, base)} - ABSTRACT


@pytest.mark.parametrize("value", [*STATES.values(), *EVENTS], ids=lambda v: type(v).__name__)
def test_no_value_shows_a_secret(value):
    """Whatever of them is logged or printed, with all that it holds."""
    assert PLANTED not in f"{value} {value!r}"


@pytest.mark.parametrize("value", [*STATES.values(), *EVENTS], ids=lambda v: type(v).__name__)
def test_no_value_can_be_changed(value):
    """What was published to one reader is what every other one has; and 100,000 of them are small."""
    assert is_dataclass(value)
    assert not hasattr(value, "__dict__")
    for field in fields(value):
        with pytest.raises(FrozenInstanceError):
            setattr(value, field.name, None)


def test_the_cases_of_the_tests_leave_no_class_out():
    """A new state or event gets its cases, or the walks over the product would not see it."""
    assert {type(state) for state in STATES.values()} == concrete(State)
    assert {type(event) for event in EVENTS} == concrete(Event)


def test_the_life_of_a_token_counts_from_the_sending_of_the_request():
    """From issue to end, whatever is left of it."""
    assert access(left=900.0, life=3600.0).life == 3600.0


def test_the_life_has_no_dust_of_floating_point():
    """A figure for people and for limits: 0.1 + 0.2 is 0.3 here."""
    token = replace(access(), issued_at=0.1, expires_at=0.1 + 0.2)
    assert token.life == 0.2


def test_what_a_grant_starts_with():
    """Nothing is claimed to be known of a server that was not met yet."""
    fresh = grant()
    assert (fresh.previous, fresh.rotation_seen) == (None, False)


def test_a_policy_without_configuration_is_that_of_a_user_at_spotify():
    """Renewed ahead of time, with a grant, and nothing known of rotation."""
    policy = Policy()
    assert (policy.rotation, policy.proactive, policy.needs_grant) == (Rotation.AUTO, True, True)
    assert policy.rotation_grace == 10.0


def test_the_rotations_are_named_as_in_the_configuration():
    """The words that a user writes."""
    assert [rotation.value for rotation in Rotation] == ["auto", "never", "grace", "strict"]


def test_states_without_secrets_have_no_place_for_them():
    """Sealed and logged out, nothing is left in memory."""
    without = {kind.__name__ for kind in concrete(State) if not issubclass(kind, Holding)}
    assert without == {"Sealed", "NeedsLogin"}


def test_every_outcome_says_of_which_attempt():
    """So that the outcome of another one can be told apart."""
    assert {kind.__name__ for kind in concrete(Outcome)} == {
        "NotSent",
        "Held",
        "Failed",
        "InDoubt",
        "GrantRefused",
        "ClientRefused",
        "Answered",
        "Saved",
        "SaveFailed",
    }
    assert all(fields(kind)[0].name == "attempt" for kind in concrete(Outcome))


def test_states_are_told_apart_by_value():
    """Two states that say the same are equal; identity tells whether anything happened."""
    assert make(Fresh) == make(Fresh)
    assert make(Fresh) != make(Fresh, due_at=NOW)


def test_a_try_without_an_answer_is_what_makes_doubt():
    """Failures that the server spoke of make none."""
    assert not make(Waiting, failures=3).in_doubt
    assert make(Waiting, failures=1, tries=1).in_doubt


def test_every_value_says_what_it_is():
    """A docstring each: they are the vocabulary of the program."""
    classes = [c for c in vars(account).values() if isinstance(c, type) and is_dataclass(c)]
    own = [c for c in classes if c.__module__ == account.__name__]
    assert [c.__name__ for c in own if (c.__doc__ or "").startswith(f"{c.__name__}(")] == []
