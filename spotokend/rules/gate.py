"""One client's gate: all its accounts share one quota, and so one back-off (spotify.md).

Open, up to ``in_flight`` refreshes run at once; but few as long as nothing shows that the server is
there, and one more for each answer (as RFC 5681, 3.1 and 4.1, has a sender begin): when all wake up
on a train, not all of them find out. A transient failure closes it for a back-off that grows; then
**one** account probes, and the rest follow its outcome. A client that the server does not know is
blocked until the configuration changes.

Pure: each function returns a new :class:`Gate`. The moment it opens is stored in it and is what the
keeper sleeps for: the sleep taken is the back-off computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain

from . import schedule
from .schedule import NEVER, Boot, Timing

LONG_AGO = Boot(-math.inf)

CAUTIOUS = 3
"""At once, while nothing is known of the server."""
QUIET = 60.0
"""Seconds without an answer after which nothing is known of it any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """See the module."""

    failures: int = 0
    """Of probes in a row; 0: open."""
    opens_at: Boot = LONG_AGO
    """When the next probe may go."""
    asked_until: Boot = LONG_AGO
    """What the server asked for by ``Retry-After``: nothing goes before, whoever waits."""
    hurried: bool = False
    """The present back-off was shortened already because somebody waits."""
    probe: str | None = None
    """The account whose attempt decides for all."""
    in_flight: int = 0
    answers: int = 0
    """Since it last failed: each lets one more go at once."""
    answered_at: Boot = LONG_AGO
    reason: str | None = None
    """Why it is closed or blocked."""
    hint: str | None = None
    blocked: bool = False
    lacking: bool = False
    """What closed it is missing on this side; of the server nothing was asked."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A transient failure, as far as the gate is concerned."""

    reason: str
    retry_after: float | None = None
    lacking: bool = False
    """Nothing was sent: something is missing on this side, such as a secret in a closed keyring."""


def may_start(gate: Gate, now: Boot, timing: Timing, *, urgent: bool = False) -> bool:
    """Whether one more refresh may start now.

    An urgent one (inside a known grace, in which a retry still saves the grant) passes a gate that
    only our own back-off closed, and our caution.
    """
    if gate.blocked or gate.in_flight >= timing.in_flight or now < gate.asked_until:
        return False
    if urgent:
        return True
    if gate.failures:
        return gate.probe is None and now >= gate.opens_at
    return gate.in_flight < CAUTIOUS + _answers(gate, now)


def next_chance(gate: Gate, now: Boot) -> Boot:
    """When to look again if nothing ends before; ``NEVER`` where only an end or a reload helps."""
    if gate.blocked or (gate.failures and gate.probe is not None):
        return NEVER
    opens_at = max(gate.opens_at, gate.asked_until)
    return opens_at if opens_at > now else NEVER


def closed_until(gate: Gate) -> Boot:
    """When the gate opens as far as is known; in the past while it is open."""
    return NEVER if gate.blocked else max(gate.opens_at, gate.asked_until)


def started(gate: Gate, account: str) -> Gate:
    """An attempt goes through."""
    probe = account if gate.failures and gate.probe is None else gate.probe
    return replace(gate, in_flight=gate.in_flight + 1, probe=probe)


def ended(gate: Gate, account: str) -> Gate:
    """The attempt is over, whatever came of it; always called, after its verdict."""
    probe = None if gate.probe == account else gate.probe
    return replace(gate, in_flight=gate.in_flight - 1, probe=probe)


def answered(gate: Gate, now: Boot) -> Gate:
    """The server serves this client: also with ``invalid_grant``, which concerns one account.

    What it asked for by ``Retry-After`` stands: this may be an answer to a request that was sent
    before.
    """
    return replace(
        _opened(gate),
        reason=None,
        hint=None,
        blocked=False,
        answers=_answers(gate, now) + 1,
        answered_at=now,
    )


def _answers(gate: Gate, now: Boot) -> int:
    """Those that still tell something of the server."""
    return gate.answers if now < gate.answered_at + QUIET else 0


def _opened(gate: Gate) -> Gate:
    return replace(gate, failures=0, opens_at=LONG_AGO, hurried=False, probe=None, lacking=False)


def failed(
    gate: Gate,
    account: str,
    failure: Failure,
    *,
    now: Boot,
    u: float,
    waiting: bool,
    timing: Timing,
) -> Gate:
    """An attempt met a transient failure.

    Of several in flight when the line broke the first one counts; the others say nothing new.
    """
    asked_until = gate.asked_until
    if failure.retry_after is not None:
        wait = schedule.clamp_retry_after(failure.retry_after, timing)
        asked_until = max(asked_until, Boot(now + wait))
    if gate.blocked or (gate.failures and gate.probe != account):
        return replace(gate, asked_until=asked_until)
    failures = gate.failures + 1
    # Retry-After is a floor, and the jitter comes on top: hosts that heard the same figure
    # must not all return in the same instant.
    begin = max(now, asked_until)
    return replace(
        gate,
        failures=failures,
        opens_at=Boot(begin + schedule.backoff(failures, u, waiting=waiting, timing=timing)),
        asked_until=asked_until,
        hurried=waiting,
        answers=gate.answers if failure.lacking else 0,
        reason=failure.reason,
        lacking=failure.lacking,
    )


def supplied(gate: Gate) -> Gate:
    """What was missing on this side is there. Whether the server is, nobody has asked it."""
    return replace(_opened(gate), reason=None) if gate.lacking else gate


def hurry(gate: Gate, *, now: Boot, u: float, timing: Timing) -> Gate:
    """Somebody waits: a long back-off becomes a short one, once.

    Were the dice thrown for each caller, the smallest of many throws would be no back-off at all.
    """
    if gate.failures == 0 or gate.hurried or gate.probe is not None:
        return gate
    short = schedule.backoff(gate.failures, u, waiting=True, timing=timing)
    opens_at = min(gate.opens_at, Boot(max(now, gate.asked_until) + short))
    return replace(gate, opens_at=opens_at, hurried=True)


def block(gate: Gate, reason: str, hint: str) -> Gate:
    """The server refused the client itself: nothing more goes out. It is there, at least."""
    return replace(_opened(gate), blocked=True, reason=reason, hint=hint)


def unblock(gate: Gate) -> Gate:
    """The configuration was applied anew."""
    return replace(gate, blocked=False, reason=None, hint=None) if gate.blocked else gate


def resumed(gate: Gate, told: Gate, *, now: Boot, timing: Timing) -> Gate:
    """The gate at a start, once more closed by what an account's row tells of it.

    A crash loop, or a restart in an outage, goes on with the back-off and with the one probe; and
    what one account heard by ``Retry-After`` holds for the others. What is further ahead than any
    pause there is was told by a civil clock that was wrong, then or now.
    """
    if told.asked_until <= now + timing.retry_after_cap:
        gate = replace(gate, asked_until=max(gate.asked_until, told.asked_until))
    longest = timing.backoff_cap
    if not told.failures or told.opens_at + longest < now:
        return gate  # it was open, or would have opened so long ago that this is no going on
    opens_at = min(told.opens_at, Boot(max(now, gate.asked_until) + longest))
    return replace(
        gate,
        failures=max(gate.failures, told.failures),
        opens_at=max(gate.opens_at, opens_at),
        hurried=gate.hurried or told.hurried,
        reason=told.reason if opens_at > gate.opens_at else gate.reason,
    )


INCIDENT_WINDOW = 600.0
"""Seconds: of the accounts tried within them, so many refused at once are no coincidence."""
_MOST_TRIED = 1000
# More are no better ground, and would have to be gone through with each answer.
YOUNG_GRANT = 150 * schedule.DAY
"""A grant younger than this has no business to be over: Spotify's live 180 days."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """What one endpoint answered lately: the ground on which a refusal is believed or not.

    A provider has refused the grants of most users before, falsely
    (metabrainz/listenbrainz-server#1921).
    """

    tried: tuple[tuple[Boot, str, bool], ...] = ()
    """(when, account, refused), the last INCIDENT_WINDOW of them, one an account."""
    trouble_at: Boot = LONG_AGO
    """The last lost answer or 5xx."""
    probed_at: Boot = LONG_AGO
    """When one of the refused was last tried again, for all of them."""


def note(refusals: Refusals, *, account: str, refused: bool, trouble: bool, now: Boot) -> Refusals:
    """Take down what an attempt met."""
    kept = tuple(
        entry
        for entry in refusals.tried
        if entry[0] > now - INCIDENT_WINDOW and entry[1] != account
    )
    if trouble:
        return replace(refusals, tried=kept, trouble_at=now)
    return replace(refusals, tried=(*kept, (now, account, refused))[-_MOST_TRIED:])


def together(parts: Iterable[Refusals]) -> Refusals:
    """What several rows tell of one endpoint, at a start."""
    parts = list(parts)
    tried = sorted(chain.from_iterable(part.tried for part in parts))
    return Refusals(
        tried=tuple(tried[-_MOST_TRIED:]),
        trouble_at=max((part.trouble_at for part in parts), default=LONG_AGO),
        probed_at=max((part.probed_at for part in parts), default=LONG_AGO),
    )


def incident(refusals: Refusals, *, now: Boot, grant_age: float | None) -> bool:
    """Whether a refusal just noted is to be doubted (design, "Refused")."""
    recent = [entry for entry in refusals.tried if entry[0] > now - INCIDENT_WINDOW]
    refused = sum(1 for entry in recent if entry[2])
    if refused >= 2 and refused * 2 > len(recent):
        return True
    if now - refusals.trouble_at < INCIDENT_WINDOW:
        return True
    return grant_age is not None and grant_age < YOUNG_GRANT
