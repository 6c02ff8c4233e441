"""An answer on its way to the disk: served once it is there, or once the disk has refused it.

Until then it is the only copy of what the provider may have issued in exchange for the last good
refresh token: nothing is redeemed before it lies in the store, and the program does not end before
it lies there or, sealed, beside the socket.
"""

from __future__ import annotations

from dataclasses import replace

from . import schedule
from .account import (
    Access,
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
from .schedule import NEVER, Boot, Wall
from .transitions import due_at

NO_ACCESS_TOKEN = "the provider renewed the login and sent no access token with it"  # noqa: S105 - words

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two writes of an answer: doubled from the one to the other."""


def next_due(access: Access, policy: Policy, u: float) -> Boot:
    """When the token is to be renewed by itself."""
    if not policy.proactive:
        return NEVER
    return Boot(access.issued_at + schedule.due_after(access.life, u, policy.timing))


def answered(
    state: Refreshing, event: Answered, *, policy: Policy, now: Boot, wall: Wall, u: float
) -> Unsaved:
    """The state after a token came."""
    access = event.access
    if access is None:
        # A server that always answers so must not be asked again and again without a pause.
        fruitless = state.failures + 1
        pause = schedule.backoff(fruitless, u, waiting=False, timing=policy.timing)
        return Unsaved(
            version=state.version,
            generation=state.generation,
            grant=event.grant,
            access=state.access,
            attempt=state.attempt,
            due_at=Boot(now + pause),
            retry_at=now,
            fruitless=fruitless,
            since=wall if state.since is None else state.since,
        )
    return Unsaved(
        version=state.version,
        generation=max(state.generation, access.generation),
        grant=event.grant,
        access=access,
        attempt=state.attempt,
        due_at=next_due(access, policy, u),
        retry_at=now,
    )


def saved(state: Unsaved, event: Saved, now: Boot) -> Fresh | Waiting:
    """The state after the store took it."""
    version, generation = max(state.version, event.version), state.generation
    grant, access = state.grant, state.access
    if state.fruitless:
        return Waiting(
            version=version,
            generation=generation,
            grant=grant,
            access=access,
            retry_at=state.due_at,
            failures=state.fruitless,
            reason=NO_ACCESS_TOKEN,
            since=state.since,
        )
    if access is None:  # reported as refused meanwhile
        return Waiting(
            version=version, generation=generation, grant=grant, access=None, retry_at=now
        )
    return Fresh(
        version=version, generation=generation, grant=grant, access=access, due_at=state.due_at
    )


def save_failed(state: Unsaved, event: SaveFailed, now: Boot) -> Unsaved:
    """The state after the store did not."""
    pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(state.failures, 10))
    return replace(
        state,
        failures=state.failures + 1,
        retry_at=Boot(now + pause),
        reason=event.reason,
        spilled=state.spilled or event.spilled,
    )


def token_rejected(state: Unsaved) -> Unsaved:
    """The state after an API refused the token: a copy that still holds it does not count."""
    return replace(state, access=None, spilled=False)


def taken_up(
    state: Fresh | Waiting, attempt: str, *, version: int, reason: str, now: Boot
) -> Unsaved:
    """The state of an answer that lay beside the socket at the start.

    ``state`` is what it will be once it is saved, ``version`` the row's until then, ``reason`` why
    the store does not take it.
    """
    waiting = state if isinstance(state, Waiting) else None
    return Unsaved(
        version=version,
        generation=state.generation,
        grant=state.grant,
        access=state.access,
        attempt=Attempt(attempt, now),
        due_at=due_at(state),
        retry_at=now,
        failures=1,
        reason=reason,
        fruitless=0 if waiting is None else waiting.failures,
        since=None if waiting is None else waiting.since,
        spilled=True,
    )
