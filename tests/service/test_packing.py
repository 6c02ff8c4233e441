"""Secrets, facts and rows as bytes and back; damage costs facts, never a start."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest
from account_states import NOW, PLANTED, ROTATED, WALL, access, grant, make
from hypothesis import given
from hypothesis import strategies as st

from spotokend.adapters.store.base import Intent, Row
from spotokend.rules.account import Blocked, Fresh, Quarantined, Waiting
from spotokend.service.packing import (
    known_facts,
    pack_facts,
    pack_row,
    pack_secrets,
    read_facts,
    unpack_row,
    unpack_secrets,
)

ROW = Row(
    account="main",
    client="spotify",
    fingerprint="fingerprint-1",
    version=4,
    generation=2,
    state="fresh",
    due_at=WALL + 2700,
    expires_at=WALL + 3600,
    issued_at=WALL,
    boot_id="boot-1",
    due_boot=NOW + 2700,
    expires_boot=NOW + 3600,
    facts=b"\x80",
    key_id="key-1",
    sealed=b"\x01sealed",
)


@pytest.mark.parametrize(
    ("state", "facts"),
    [
        (make(Fresh), {}),
        (make(Waiting, failures=3), {"reason": ..., "since": WALL - 60, "failures": 3}),
        (
            make(Quarantined, incident=True, probes=2, tries=1),
            {
                "reason": ...,
                "since": WALL - 60,
                "incident": True,
                "probes": 2,
                "tries": 1,
                "at": WALL,
            },
        ),
        (make(Blocked), {"reason": ..., "since": WALL - 60}),
    ],
    ids=["fresh", "waiting", "quarantined", "blocked"],
)
def test_the_facts_of_each_state_come_back(state, facts):
    """With what was told of the gate beside them."""
    expected = facts | ({"reason": state.reason} if facts else {})
    assert read_facts(pack_facts(state, None, WALL)) == expected
    gate = {"failures": 4, "reason": "503", "opens_at": WALL}
    assert read_facts(pack_facts(state, gate, WALL)) == expected | {"gate": gate}


@given(st.binary(max_size=60) | st.dictionaries(st.text(), st.floats()).map(msgpack.packb))
def test_whatever_lies_there_facts_are_what_they_should_be_or_absent(packed):
    """They lie open: a flipped bit must not end a start."""
    for name, value in read_facts(packed).items():
        assert known_facts({name: value}) == {name: value}


@pytest.mark.parametrize(
    "facts",
    [
        None,
        [],
        "since",
        {"since": "now", "failures": True},
        {"probes": -1, "tries": 2**31, "since": float("nan")},
    ],
)
def test_what_is_no_fact_is_left_out(facts):
    """Also a truth in the place of a number, and a number that counts nothing."""
    assert known_facts(facts) == {}


@pytest.mark.parametrize("login", [None, grant(), replace(ROTATED, stage=7, authorized_at=None)])
@pytest.mark.parametrize("token", [None, access()])
def test_secrets_come_back(login, token):
    """All of a grant, and of a token what is not in the row's columns."""
    found, fields = unpack_secrets(pack_secrets(login, token))
    assert found == login
    assert fields == (
        None
        if token is None
        else {
            "token": token.token.reveal(),
            "token_type": "Bearer",
            "scopes": ["streaming"],
            "generation": token.generation,
        }
    )


def test_a_grant_that_was_stored_without_a_stage_has_none():
    """Rows are older than the reminders."""
    older = msgpack.unpackb(pack_secrets(grant(), None))
    del older["grant"]["stage"]
    assert unpack_secrets(msgpack.packb(older)) == (grant(), None)


def test_a_row_comes_back_as_it_would_be_committed():
    """With its attempt, and without an intent: the answer has closed it."""
    begun = replace(ROW, intent=Intent(attempt="attempt-1", started_at=WALL))
    assert unpack_row(pack_row("attempt-1", begun)) == ("attempt-1", ROW)


@pytest.mark.parametrize(
    "value", [None, [], ["attempt-1"], ["attempt-1", {}], ["attempt-1", {"colour": 1}], "ab"]
)
def test_what_is_no_row_is_a_value_error(value):
    """Of some other program, or some other version."""
    with pytest.raises(ValueError, match=r"."):
        unpack_row(msgpack.packb(value))


@pytest.mark.parametrize(
    "harm",
    [
        {"account": ["main"]},
        {"version": "4"},
        {"due_at": "now"},
        {"facts": None},
        {"sealed": "text"},
        {"intent": {"attempt": "attempt-1"}},
        {"last_attempt": 1},
    ],
    ids=lambda harm: next(iter(harm)),
)
def test_a_row_with_something_else_in_a_column_is_a_value_error(harm):
    """The words name the column; what lies there is not quoted."""
    attempt, fields = msgpack.unpackb(pack_row("attempt-1", ROW))
    with pytest.raises(ValueError, match=f"in the place of {next(iter(harm))}$"):
        unpack_row(msgpack.packb([attempt, fields | harm]))
    with pytest.raises(ValueError, match="names no attempt"):
        unpack_row(msgpack.packb([7, fields]))


def test_what_is_sealed_is_not_packed_into_the_open():
    """The facts know nothing of grants and tokens."""
    for kind in (Fresh, Waiting, Quarantined, Blocked):
        assert PLANTED.encode() not in pack_facts(make(kind), None, WALL)
