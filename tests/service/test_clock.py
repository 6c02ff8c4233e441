"""Stored moments: which clock is believed, and how a crash loop backs off."""

from __future__ import annotations

import pytest
from account_states import NOW, WALL
from set_clock import SetClock

from spotokend.adapters.store.base import Intent
from spotokend.rules.gate import LONG_AGO
from spotokend.rules.schedule import DEFAULT_TIMING, Boot, Wall


@pytest.fixture
def host() -> SetClock:
    """A host in its first boot; its dice show one half."""
    return SetClock()


def intent(started, tries=1) -> Intent:
    return Intent(attempt="attempt-1", started_at=WALL + started, tries=tries)


def test_in_the_same_boot_civil_time_does_not_count(host):
    """However far it was set since."""
    host.wall = Wall(WALL + 1e9)
    assert host.clock.moment(WALL + 60, NOW + 60, "boot-1") == NOW + 60


def test_in_another_boot_only_civil_time_can_tell(host):
    """And so where a moment was stored in civil time alone."""
    host.boot = Boot(7.0)
    assert host.clock.moment(WALL + 60, NOW + 60, "boot-0") == 67.0
    assert host.clock.moment(WALL + 60, None, "boot-1") == 67.0


def test_nobody_knows_how_long_ago_a_moment_was_that_is_still_to_come(host):
    """Civil time was set back: no grace is counted from such a moment."""
    assert host.clock.begun_at(intent(-20)) == NOW - 20
    assert host.clock.begun_at(intent(20)) == LONG_AGO


@pytest.mark.parametrize(
    ("started", "tries", "wait"),
    [(0, 1, 0.5), (-1, 1, 0), (-1, 5, 7), (-9, 99, 21), (-31, 99, 0), (1e9, 99, 30)],
    ids=["just now", "long enough", "many", "the cap", "after the cap", "a wrong clock"],
)
def test_after_a_crash_it_waits_as_long_as_after_so_many_failures(host, started, tries, wait):
    """Counted from the attempt; from now where nobody knows when that was."""
    found = host.clock.after_a_crash(intent(started, tries), DEFAULT_TIMING)
    assert found == NOW + wait
