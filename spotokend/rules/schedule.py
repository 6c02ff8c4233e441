"""When: every figure of time in the program, and the arithmetic on them.

Pure: the present and the dice (``u``, uniform in [0, 1)) are passed in. Two time scales are kept
apart by type: :data:`Boot` is CLOCK_BOOTTIME, which counts suspend and which nobody can set, and
decides everything; :data:`Wall` is civil time, for people, for other hosts and for storage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NewType

Boot = NewType("Boot", float)
"""Seconds on CLOCK_BOOTTIME of this host."""
Wall = NewType("Wall", float)
"""Seconds since 1970, as the host's civil clock believes."""

NEVER = Boot(math.inf)
DAY = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The figures; all in seconds unless named a share. ``[timing]`` in the configuration.

    Those that concern a token's life are ``min(figure, share of the life)``, so that lives of
    some seconds (tests, other servers) work in proportion.
    """

    due_from: float = 0.70
    """A refresh is due between these two shares of the life after the issue,"""
    due_to: float = 0.80
    """spread evenly, so that accounts that logged in together drift apart."""
    floor: float = 60.0
    """A token with less left than this is renewed before it is served,"""
    floor_share: float = 0.05
    """or less than this share of its life."""
    start_spread: float = 30.0
    """What is overdue at start is spread over this time."""
    quiet_margin: float = 600.0
    """Failures while more than this is left of the token are nobody's business."""
    backoff_base: float = 1.0
    backoff_cap: float = 60.0
    backoff_cap_waiting: float = 5.0
    """The cap while a caller is waiting."""
    retry_after_cap: float = DAY
    """A server that asks for more is wrong; the next answer will tell."""
    in_flight: int = 8
    """Refreshes under way at once, a client."""
    forced_interval: float = 30.0
    """Between two forced refreshes of one account."""
    rejects_per_hour: int = 3
    """Refreshes caused by reports of refused tokens, an account."""
    default_life: float = 3600.0
    """Where ``expires_in`` is missing or absurd: Spotify's own figure."""
    connect_timeout: float = 5.0
    send_timeout: float = 5.0
    answer_timeout: float = 60.0
    """Long on purpose: whoever hangs up early loses the rotated token in the late answer."""
    nap: float = 30.0
    """The longest sleep of the keeper: then the clocks are compared (see :func:`jumped`)."""
    login_timeout: float = 600.0
    """From the authorization URL to the redirect."""


DEFAULT_TIMING = Timing()

ABSURD_LIFE = 366 * DAY
"""An ``expires_in`` beyond this is a bug of the server, not a promise to rely on."""
LEAST_LIFE = 1.0
"""It is a whole number of seconds; less would be renewed as fast as the line allows."""


def clamp_life(expires_in: object, timing: Timing = DEFAULT_TIMING) -> float:
    """The life in seconds that an ``expires_in`` means; the default where it means nothing.

    RFC 6749, section 5.1: RECOMMENDED, a number of seconds. Some servers send it as a string.
    """
    if isinstance(expires_in, str):
        try:
            expires_in = float(expires_in)
        except ValueError:
            return timing.default_life
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float):
        return timing.default_life
    # Compared before any conversion: an int may be too large for a float. NaN fails both.
    if not LEAST_LIFE <= expires_in <= ABSURD_LIFE:
        return timing.default_life
    return float(expires_in)


def due_after(life: float, u: float, timing: Timing = DEFAULT_TIMING) -> float:
    """Seconds from the issue of a token to its refresh."""
    return life * (timing.due_from + (timing.due_to - timing.due_from) * u)


def serving_floor(life: float, timing: Timing = DEFAULT_TIMING) -> float:
    """The least that is left of a token that is served without asking for a newer one."""
    return min(timing.floor, timing.floor_share * life)


def most_min_ttl(life: float) -> float:
    """The largest ``min_ttl`` that can be asked for: half the life.

    A larger one could ask for a refresh at nearly every request.
    """
    return life / 2


def degraded(remaining: float, life: float, timing: Timing = DEFAULT_TIMING) -> bool:
    """True once so little is left of a token that failures to renew it are worth telling."""
    # A sixth of Spotify's 3600 s is the figure of ten minutes.
    return remaining < min(timing.quiet_margin, life / 6)


def backoff_ceiling(failures: int, *, waiting: bool, timing: Timing = DEFAULT_TIMING) -> float:
    """The most to wait after so many failures in a row (≥ 1): doubled each time, then clamped."""
    cap = min(timing.backoff_cap, timing.backoff_cap_waiting) if waiting else timing.backoff_cap
    # The exponent is bounded before it is used: 2.0**2000 is an OverflowError.
    return min(cap, timing.backoff_base * 2.0 ** min(max(failures, 1) - 1, 60))


def backoff(failures: int, u: float, *, waiting: bool, timing: Timing = DEFAULT_TIMING) -> float:
    """Full jitter, applied after the clamp: at the cap, too, clients spread out.

    But never less than a quarter of the base: the dice alone may fall so that ten tries take a
    second.
    """
    ceiling = backoff_ceiling(failures, waiting=waiting, timing=timing)
    return max(u * ceiling, min(timing.backoff_base / 4, ceiling))


def clamp_retry_after(seconds: float, timing: Timing = DEFAULT_TIMING) -> float:
    """What a ``Retry-After`` means here: at least a second, at most a day."""
    if math.isnan(seconds):
        return 1.0
    return min(max(seconds, 1.0), timing.retry_after_cap)


def jumped(
    *, boot_before: Boot, wall_before: Wall, boot: Boot, wall: Wall, tolerance: float = 2.0
) -> float:
    """By how much civil time was set between two looks at both clocks; 0.0 within the tolerance.

    The tolerance covers the slewing of time daemons (at most 0.05 %, 15 ms in a nap) and a
    process that was stopped between reading one clock and the other.
    """
    difference = (wall - wall_before) - (boot - boot_before)
    return difference if abs(difference) > tolerance else 0.0


def spread(u: float, seconds: float) -> float:
    """A share of ``seconds``."""
    return u * seconds


def retry_in_doubt(u: float) -> float:
    """Seconds after which a lost answer is asked for again: soon, most graces are short."""
    return 1.0 + 2.0 * u


GRANT_LIFE = 180 * DAY
"""Spotify: six months from the user's consent, whatever is refreshed (blog 2026-06-18)."""


GRANT_STAGES = (30, 14, 7, 3, 1)
"""Days before the end of a login at which that is told."""


def grant_stage(left: float) -> int | None:
    """The nearest of :data:`GRANT_STAGES` that was reached with ``left`` seconds to go, if one was.

    The nearest alone: what was passed while the program was off is not told any more.
    """
    return min((days for days in GRANT_STAGES if left <= days * DAY), default=None)


def grant_end(authorized_at: Wall | None, grant_life: float) -> Wall | None:
    """When the login itself dies; None where that isn't known or doesn't happen."""
    if authorized_at is None or math.isinf(grant_life):
        return None
    return Wall(authorized_at + grant_life)
