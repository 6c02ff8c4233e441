"""A refresh token that was used or refused: may it be presented again, and when?

After a lost answer nobody knows whether the server used it up. On a server that rotates and revokes
families (RFC 9700, section 4.14.2), presenting a used one again kills its successor and the living
access tokens with it; on one that doesn't rotate, asking again is harmless.
"""

from __future__ import annotations

from dataclasses import replace

from . import schedule
from .account import (
    Access,
    Attempt,
    Grant,
    GrantRefused,
    Policy,
    Quarantined,
    Refreshing,
    Rotation,
    State,
    Waiting,
)
from .schedule import Boot, Wall

PROBES = (1800.0, 7200.0, 21_600.0, schedule.DAY)
"""Seconds after a doubtful refusal at which it is tried again, and no more after the last."""
TURN = 600.0
"""Seconds for which the probe of one account counts for all of the endpoint."""
_AHEAD = TURN - 60.0
"""By so much is the next moment of those for which another probed before that other's own, so that
the turn goes round. A minute less than the turn: the other's counts from its answer."""


def next_attempt(state: State, attempt: str, now: Boot) -> Attempt:
    """The attempt that follows on ``state``; it counts what is in doubt."""
    tries = state.tries if isinstance(state, Waiting | Quarantined) else 0
    return Attempt(id=attempt, started_at=now, tries=tries + 1)


def strictness(policy: Policy, grant: Grant | None) -> Rotation:
    """``auto`` resolved by what was seen: ``never``, ``grace`` or ``strict``."""
    if grant is None:
        return Rotation.NEVER  # client credentials: there is nothing to use up
    if policy.rotation is Rotation.AUTO:
        return Rotation.STRICT if grant.rotation_seen else Rotation.NEVER
    return policy.rotation


def retry_after_doubt(
    policy: Policy,
    grant: Grant | None,
    access: Access | None,
    *,
    tries: int,
    sent_at: Boot,
    now: Boot,
    opens_at: Boot,
    u: float,
) -> Boot:
    """When to present a refresh token again whose last answer was lost (design, "Doubt").

    Where it does no harm, once more soon, then by back-off. Where it may kill the token's successor
    and the living access tokens with it, not before these are of no use any more.
    """
    soon = Boot(now + schedule.retry_in_doubt(u))
    again = soon if tries == 1 else opens_at
    kind = strictness(policy, grant)
    if kind is Rotation.NEVER:
        return again
    grace_end = sent_at + policy.rotation_grace
    if kind is Rotation.GRACE and tries == 1 and now < grace_end:
        # The second half of what is left belongs to the way to the server.
        return Boot(min(soon, now + (grace_end - now) / 2))
    if access is None:
        return again
    last_useful = access.expires_at - schedule.serving_floor(access.life, policy.timing)
    return Boot(max(again, last_useful))


def previous_first(policy: Policy, grant: Grant | None) -> Grant | None:
    """The grant with the refresh token before the last rotation in front.

    None where there isn't one, or where presenting it may do harm. The other one is kept: nothing
    but the user ends a grant.
    """
    if grant is None or grant.previous is None or strictness(policy, grant) is Rotation.STRICT:
        return None
    return replace(grant, refresh_token=grant.previous, previous=grant.refresh_token)


def probe_after_refusal(
    policy: Policy, grant: Grant | None, *, incident: bool, probes: int, now: Boot
) -> Boot | None:
    """When a refused grant is tried again without the user; None: it isn't.

    ``probes`` were made already. In an incident the last of :data:`PROBES` ends them; else one
    repetition decides whether the previous refresh token gets its chance.
    """
    if incident:
        return _probe_in_incident(probes, now)
    if probes == 0 and previous_first(policy, grant) is not None:
        return Boot(now + PROBES[0])
    return None


def _probe_in_incident(probes: int, now: Boot) -> Boot | None:
    if probes >= len(PROBES):
        return None
    return Boot(now + PROBES[probes] - (PROBES[probes - 1] if probes else 0.0))


def refused(
    state: Refreshing, event: GrantRefused, *, policy: Policy, now: Boot, wall: Wall
) -> Quarantined:
    """The state after ``invalid_grant`` (design, "Refused")."""
    before = state.quarantine
    probes = 0 if before is None else before.probes + 1
    grant, reason = state.grant, event.reason
    incident = event.incident or (before is not None and before.incident)
    over = _is_over(policy, grant, wall)
    if over:
        # No mistake of the provider's, however many others it refuses at the same time.
        reason = f"the login's {policy.grant_life / schedule.DAY:.3g} days are over: {reason}"
        incident, probe_at, older = False, None, None
    else:
        if state.attempt.tries > 1:
            reason += " (an earlier answer was lost; it may have carried the successor)"
        probe_at = probe_after_refusal(policy, grant, incident=incident, probes=probes, now=now)
        older = previous_first(policy, grant)
    if older is not None and probes == 1 and not incident:
        # Refused twice, half an hour apart, and never worked: perhaps its answer was a mistake.
        grant, probe_at = older, now
    return Quarantined(
        version=state.version,
        generation=state.generation,
        grant=grant,
        access=state.access,
        reason=reason,
        since=wall if before is None else before.since,
        incident=incident,
        probe_at=probe_at,
        probes=probes,
    )


def _is_over(policy: Policy, grant: Grant | None, wall: Wall) -> bool:
    end = None if grant is None else schedule.grant_end(grant.authorized_at, policy.grant_life)
    return end is not None and end <= wall


def turn_passed(state: Quarantined, now: Boot) -> Quarantined:
    """``state`` after another account of the endpoint has probed in its place."""
    if state.probe_at is None:
        return state
    if not state.incident:
        # Its repetition concerns itself alone: it comes a little later.
        return replace(state, probe_at=Boot(now + TURN))
    probes = state.probes + 1
    probe_at = _probe_in_incident(probes, now)
    return replace(
        state, probes=probes, probe_at=None if probe_at is None else Boot(probe_at - _AHEAD)
    )
