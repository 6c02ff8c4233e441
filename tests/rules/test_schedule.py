"""The arithmetic of time: never absurd, never at once, never together."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotokend.rules import schedule
from spotokend.rules.schedule import (
    ABSURD_LIFE,
    DAY,
    DEFAULT_TIMING,
    GRANT_LIFE,
    NEVER,
    Boot,
    Timing,
    Wall,
)

DICE = st.floats(0, 1, exclude_max=True)
LIVES = st.floats(1, ABSURD_LIFE)
MOMENTS = st.floats(-1e10, 1e10)
NUMBERS = st.one_of(st.integers(), st.floats(), st.integers().map(lambda n: n * 10**400))


@pytest.mark.parametrize(
    ("expires_in", "life"),
    [
        (3600, 3600.0),
        (3599.5, 3599.5),
        ("3600", 3600.0),
        (" 3600 ", 3600.0),
        ("3.6e3", 3600.0),
        (1, 1.0),
        (ABSURD_LIFE, ABSURD_LIFE),
        (0.999, 3600.0),
        (ABSURD_LIFE + 1, 3600.0),
        (0, 3600.0),
        (-1, 3600.0),
        ("", 3600.0),
        ("an hour", 3600.0),
        ("1e999", 3600.0),
        ("nan", 3600.0),
        (math.nan, 3600.0),
        (math.inf, 3600.0),
        (-math.inf, 3600.0),
        (10**400, 3600.0),
        (-(10**400), 3600.0),
        (True, 3600.0),
        (None, 3600.0),
        ([3600], 3600.0),
        ({}, 3600.0),
        (b"3600", 3600.0),
    ],
)
def test_a_life_is_what_is_believable_of_expires_in(expires_in, life):
    """A number of seconds, also as a string; else the default."""
    assert schedule.clamp_life(expires_in) == life


@given(st.one_of(NUMBERS, st.text(), NUMBERS.map(str), st.none(), st.booleans(), st.binary()))
def test_no_expires_in_makes_an_absurd_life(expires_in):
    """Whatever JSON can hold: a second at least, a year at most, and never an exception."""
    timing = Timing(default_life=1234.0)
    life = schedule.clamp_life(expires_in, timing)
    assert type(life) is float
    assert 1 <= life <= ABSURD_LIFE


@given(LIVES, DICE)
def test_due_between_seventy_and_eighty_percent_of_the_life(life, u):
    """Of any life, whatever the dice."""
    assert 0.7 * life <= schedule.due_after(life, u) <= 0.8 * life * (1 + 1e-12)


@given(LIVES, DICE, DICE)
def test_accounts_that_logged_in_together_drift_apart(life, one, other):
    """The dice decide, in proportion to the life."""
    apart = schedule.due_after(life, one) - schedule.due_after(life, other)
    assert apart == pytest.approx(0.1 * life * (one - other), abs=1e-6)


@pytest.mark.parametrize(("life", "floor"), [(3600.0, 60.0), (1200.0, 60.0), (10.0, 0.5)])
def test_the_floor_is_a_minute_or_five_percent(life, floor):
    """Whichever is less: a life of seconds works in proportion."""
    assert schedule.serving_floor(life) == floor


@given(LIVES)
def test_a_token_is_due_long_before_its_floor(life):
    """So that callers seldom wait for a refresh."""
    assert schedule.due_after(life, 1.0) < life - schedule.serving_floor(life)
    assert schedule.serving_floor(life) < schedule.most_min_ttl(life) == life / 2


@pytest.mark.parametrize(
    ("remaining", "life", "degraded"),
    [
        (601.0, 3600.0, False),
        (600.0, 3600.0, False),
        (599.0, 3600.0, True),
        (-1.0, 3600.0, True),
        (2.0, 12.0, False),
        (1.9, 12.0, True),
        (601.0, DAY, False),
        (599.0, DAY, True),
    ],
)
def test_failures_are_quiet_above_the_last_ten_minutes(remaining, life, degraded):
    """Or above a sixth of a shorter life."""
    assert schedule.degraded(remaining, life) is degraded


@pytest.mark.parametrize(
    ("failures", "ceiling", "waiting"),
    [(0, 1, 1), (1, 1, 1), (2, 2, 2), (3, 4, 4), (4, 8, 5), (6, 32, 5), (7, 60, 5), (2000, 60, 5)],
)
def test_the_back_off_doubles_to_its_cap(failures, ceiling, waiting):
    """A second, doubled; at most a minute, and at most five seconds while somebody waits."""
    assert schedule.backoff_ceiling(failures, waiting=False) == ceiling
    assert schedule.backoff_ceiling(failures, waiting=True) == waiting


def test_waiting_never_makes_a_back_off_longer():
    """Where the ordinary cap is the smaller one it counts."""
    timing = Timing(backoff_cap=2.0, backoff_cap_waiting=5.0)
    assert schedule.backoff_ceiling(9, waiting=True, timing=timing) == 2.0


@given(st.integers(0, 10**30), DICE, st.booleans())
def test_a_back_off_is_never_over_its_cap_and_never_nothing(failures, u, waiting):
    """Not even after failures without number, not even with dice that fall on 0."""
    pause = schedule.backoff(failures, u, waiting=waiting)
    assert 0.25 <= pause <= (5.0 if waiting else 60.0)


@given(st.integers(7, 10**6), st.floats(0.1, 0.9), st.floats(0.1, 0.9), st.booleans())
def test_the_dice_are_thrown_after_the_clamp(failures, one, other, waiting):
    """At the cap different dice give different sleeps: clients that failed together spread out."""
    pauses = [schedule.backoff(failures, u, waiting=waiting) for u in (one, other)]
    assert (pauses[0] == pauses[1]) == (one == other)


def test_a_cap_below_the_least_pause_still_is_the_cap():
    """Figures of a test, or of an impatient user."""
    timing = Timing(backoff_base=1.0, backoff_cap=0.01)
    assert schedule.backoff(1, 0.0, waiting=False, timing=timing) == 0.01


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        (0.0, 1.0),
        (-5.0, 1.0),
        (1.0, 1.0),
        (13749.0, 13749.0),
        (DAY, DAY),
        (DAY + 1, DAY),
        (math.inf, DAY),
        (-math.inf, 1.0),
        (math.nan, 1.0),
    ],
)
def test_retry_after_is_between_a_second_and_a_day(asked, meant):
    """What a server can't mean is brought to what it can."""
    assert schedule.clamp_retry_after(asked) == meant


@given(st.floats())
def test_no_retry_after_stops_the_program_for_good(asked):
    """Any float at all."""
    assert 1.0 <= schedule.clamp_retry_after(asked) <= DEFAULT_TIMING.retry_after_cap


@given(MOMENTS, MOMENTS, st.floats(0, 1e6), st.floats(-1e6, 1e6))
def test_a_jump_is_the_difference_of_the_clocks(boot, wall, passed, jump):
    """Time that passes on both clocks is none; a suspend, which both count, is none either."""
    found = schedule.jumped(
        boot_before=Boot(boot),
        wall_before=Wall(wall),
        boot=Boot(boot + passed),
        wall=Wall(wall + passed + jump),
    )
    if abs(jump) < 1.99:
        assert found == 0.0
    elif abs(jump) > 2.01:
        assert found == pytest.approx(jump, abs=0.01)


@given(DICE, st.floats(0, 1e6))
def test_a_spread_stays_inside(u, seconds):
    """From now to the given time."""
    assert 0 <= schedule.spread(u, seconds) <= seconds


@given(DICE)
def test_a_lost_answer_is_asked_for_again_within_one_to_three_seconds(u):
    """Soon, as graces are short; not at once, as the server may be busy with it."""
    assert 1.0 <= schedule.retry_in_doubt(u) <= 3.0


@pytest.mark.parametrize(
    ("authorized_at", "life", "end"),
    [
        (Wall(1000.0), GRANT_LIFE, 1000.0 + 180 * DAY),
        (Wall(1000.0), 30 * DAY, 1000.0 + 30 * DAY),
        (Wall(1000.0), math.inf, None),
        (None, GRANT_LIFE, None),
    ],
)
def test_a_grant_ends_half_a_year_after_the_consent(authorized_at, life, end):
    """If it is known when that was, and if the server's grants end."""
    assert schedule.grant_end(authorized_at, life) == end


@pytest.mark.parametrize(
    ("days", "stage"),
    [
        (180, None),
        (30.01, None),
        (30, 30),
        (14.01, 30),
        (14, 14),
        (7, 7),
        (3, 3),
        (1.01, 3),
        (1, 1),
        (-5, 1),
    ],
)
def test_the_end_of_a_grant_is_told_in_stages(days, stage):
    """The nearest that was reached: those before it are not told any more."""
    assert schedule.grant_stage(days * DAY) == stage


def test_never_is_later_than_anything():
    """It needs no special case in a comparison."""
    assert Boot(1e300) < NEVER


def test_civil_time_may_slew_by_two_seconds_between_two_looks():
    """Exactly so much is none yet, unless another tolerance is asked for."""

    def set_by(seconds: float, **tolerance: float) -> float:
        return schedule.jumped(
            boot_before=Boot(0.0),
            wall_before=Wall(100.0),
            boot=Boot(30.0),
            wall=Wall(130.0 + seconds),
            **tolerance,
        )

    assert (set_by(2.0), set_by(-2.0), set_by(2.5)) == (0.0, 0.0, 2.5)
    assert (set_by(2.5, tolerance=3.0), set_by(3.5, tolerance=3.0)) == (0.0, 3.5)


def test_words_for_a_life_mean_the_default_one_that_is_configured():
    """Also where they can't be read as a number."""
    timing = Timing(default_life=1234.0)
    assert schedule.clamp_life("an hour", timing) == 1234.0
    assert schedule.clamp_life("60", timing) == 60.0
