"""What a row tells of gates and refusals: every pause survives a restart, no wrong clock makes one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from account_states import NOW, WALL, make
from hypothesis import given
from hypothesis import strategies as st
from set_clock import SetClock

from spotokend.adapters.store.base import Intent, Row
from spotokend.rules.account import Blocked, Fresh, Quarantined, Waiting
from spotokend.rules.gate import LONG_AGO, Gate, Refusals, closed_until, resumed
from spotokend.rules.schedule import DAY, DEFAULT_TIMING, Boot, Wall
from spotokend.service.packing import pack_facts
from spotokend.service.traces import CUT_OFF, gate_of, refusals_of, told_of

CLOSED = Gate(
    failures=4,
    opens_at=Boot(NOW + 8),
    asked_until=Boot(NOW + 600),
    reason="503",
)


@pytest.fixture
def host() -> SetClock:
    """A host in its first boot; its dice show one half."""
    return SetClock()


def row(state, host, gate=None, **fields) -> Row:
    """A row as it would have been written."""
    given_ = {
        "account": "main",
        "client": "spotify",
        "fingerprint": "fingerprint-1",
        "state": {Fresh: "fresh", Waiting: "waiting", Blocked: "blocked"}.get(
            type(state), "quarantined"
        ),
        "facts": pack_facts(state, told_of(gate, host.clock), host.wall),
        "boot_id": host.clock.boot_id,
    }
    return Row(**(given_ | fields))


def intent(tries=1, started=-2.0) -> Intent:
    return Intent(attempt="attempt-1", started_at=WALL + started, tries=tries)


def told(stored, host) -> Gate:
    return gate_of(stored, host.clock, DEFAULT_TIMING)


# --- gates


def test_a_gate_that_is_open_leaves_no_trace(host):
    """Nor does one that nobody knows; the rows of a healthy account have no facts at all."""
    for gate in (None, Gate(), Gate(asked_until=NOW)):
        assert told_of(gate, host.clock) is None
    assert told(row(make(Fresh), host), host) == Gate()


@pytest.mark.parametrize(
    "gate",
    [CLOSED, Gate(failures=1, opens_at=NOW), Gate(asked_until=Boot(NOW + 9))],
    ids=["closed", "about to open", "asked"],
)
def test_a_closed_gate_comes_back(host, gate):
    """In the same boot to the last bit, wherever civil time went."""
    stored = row(make(Waiting), host, gate)
    host.wall = Wall(WALL + 1e6)
    assert told(stored, host) == gate


def test_after_another_boot_what_is_left_of_it_counts_by_civil_time(host):
    """Nine minutes later, in a boot of ten seconds."""
    stored = row(make(Waiting), host, CLOSED, boot_id="boot-0")
    host.boot, host.wall = Boot(10.0), Wall(WALL + 540)
    gate = told(stored, host)
    assert (gate.failures, gate.opens_at, gate.asked_until) == (4, 10 + 8 - 540, 70)


def test_a_client_that_was_refused_is_tried_again_but_not_sooner_than_a_back_off_is_long(host):
    """By one account, whoever waits: a crash loop asks once a minute, not at each start."""
    stored = row(make(Blocked, since=Wall(WALL - 20)), host)
    expected = Gate(failures=1, opens_at=Boot(NOW + 40), hurried=True, reason="it went wrong")
    assert told(stored, host) == expected
    host.boot, host.wall = Boot(NOW + 9000), Wall(WALL + 9000)
    assert told(stored, host) == replace(expected, opens_at=host.boot)


def test_an_attempt_that_was_cut_off_closes_it_as_so_many_failures_would(host):
    """Its round of the crash loop has not lived to write how it ended."""
    stored = row(make(Fresh), host, intent=intent(tries=5))
    assert told(stored, host) == Gate(failures=5, opens_at=Boot(NOW + 6), reason=CUT_OFF)
    settled = row(make(Waiting), host, CLOSED, intent=intent(tries=4))
    assert told(settled, host) == CLOSED
    accident = row(make(Fresh), host, intent=intent(tries=1))
    assert told(accident, host) == Gate()


FACTS = ["failures", "reason", "opens_at", "opens_boot", "asked_until", "asked_boot", "since", "at"]


@given(
    st.dictionaries(
        st.sampled_from(FACTS), st.floats() | st.integers(-9, 2**63) | st.text(max_size=3)
    )
)
def test_damage_leaves_an_open_gate_or_a_closed_one(facts):
    """They lie open; whatever is in them, a start goes on."""
    host = SetClock()
    for state in (make(Waiting), make(Blocked), make(Quarantined)):
        stored = row(state, host, facts=pack_facts(state, facts, WALL))
        gate = resumed(Gate(), told(stored, host), now=NOW, timing=DEFAULT_TIMING)
        assert closed_until(gate) <= NOW + DAY + 60
        assert isinstance(refusals_of(stored, host.clock), Refusals)


# --- refusals


def test_a_refusal_is_remembered_with_its_time(host):
    """Of the last ten minutes: by the others it is judged whether one is believed."""
    stored = row(make(Quarantined), host)
    host.boot, host.wall = Boot(NOW + 60), Wall(WALL + 60)
    assert refusals_of(stored, host.clock) == Refusals(tried=((NOW, "main", True),))
    host.boot, host.wall = Boot(NOW + 600), Wall(WALL + 600)
    assert refusals_of(stored, host.clock) == Refusals()


def test_so_is_a_success(host):
    """A token that was issued lately says that the endpoint serves."""
    stored = row(
        make(Fresh),
        host,
        issued_at=WALL - 60,
        expires_at=WALL + 3540,
        expires_boot=NOW + 3540,
    )
    assert refusals_of(stored, host.clock).tried == ((NOW - 60, "main", False),)
    older = row(make(Fresh), host, issued_at=WALL - 900, expires_at=WALL + 2700)
    assert refusals_of(older, host.clock) == Refusals()
    assert refusals_of(row(make(Waiting), host), host.clock) == Refusals()


def test_an_answer_that_was_lost_is_trouble(host):
    """Right after it a refusal is not believed at once."""
    stored = row(make(Waiting), host, intent=intent())
    assert refusals_of(stored, host.clock) == Refusals(trouble_at=Boot(NOW - 2))


@pytest.mark.parametrize(
    ("fields", "cut_off", "probed_at"),
    [
        ({"incident": True, "probes": 1}, None, NOW),
        ({"incident": True, "probes": 0}, None, LONG_AGO),
        ({"incident": False, "probes": 1}, None, LONG_AGO),
        ({"incident": True, "probes": 1}, intent(started=0), NOW),
        ({"incident": True, "probes": 0}, intent(), NOW - 2),
    ],
    ids=["probed", "not yet", "no incident", "and cut off", "cut off"],
)
def test_the_turn_of_the_probes_is_remembered(host, fields, cut_off, probed_at):
    """One account has tried for all: also if the program ended in the midst of it."""
    stored = row(make(Quarantined, **fields), host, intent=cut_off)
    assert refusals_of(stored, host.clock).probed_at == probed_at


def test_what_is_still_to_come_tells_nothing(host):
    """Civil time was ahead when it was written, or is behind now."""
    stored = row(make(Quarantined, incident=True, probes=1), host)
    host.wall = Wall(WALL - 3600)
    assert refusals_of(stored, host.clock) == Refusals()
