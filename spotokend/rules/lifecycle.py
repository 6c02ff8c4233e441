"""The laws of an account's life: the one function that moves it from state to state.

What everything else relies on, and what the tests walk over the whole product of states and events:

1. :func:`advance` is the only way from one state to the next, and
   :data:`~spotokend.rules.transitions.TRANSITIONS` names every step that it can take. A pair that
   isn't there changes nothing: the same object comes back.
2. An outcome carries the attempt it belongs to; another attempt's is ignored. So a late answer
   can't undo a login, a logout, or the attempt after it.
3. ``generation`` and ``version`` never fall.
4. No state is a dead end: it has a moment at which something happens by itself (``due_at``), or
   it is a refresh under way, or ``need`` names what only the user can do. What is renewed on
   demand, and what is sealed, has whoever asks.
5. ``usable`` never returns a token with less than the asked-for life.
6. A refresh starts ahead of time only from ``Fresh``: else nothing is presented before its moment.

Pure: knows nothing of disks, sockets and other accounts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from . import saving, schedule
from .account import (
    Answered,
    Blocked,
    ChangedElsewhere,
    ClientRefused,
    ClocksMoved,
    Elsewhere,
    EndpointBack,
    Event,
    Failed,
    Fresh,
    GrantRefused,
    Held,
    Holding,
    InDoubt,
    Loaded,
    Locked,
    LoggedIn,
    LoggedOut,
    NeedsLogin,
    NotSent,
    Outcome,
    Policy,
    ProbeTaken,
    Quarantined,
    Reconfigured,
    Refreshing,
    RefreshStarted,
    Rotation,
    Saved,
    SaveFailed,
    Sealed,
    State,
    TokenRejected,
    Unsaved,
    Unsealed,
    Waiting,
)
from .doubt import PROBES, refused, retry_after_doubt, strictness, turn_passed
from .schedule import NEVER, Boot, Wall
from .transitions import TRANSITIONS, due_at

CLOCKS_SPREAD = 5.0
"""What is overdue after a suspend or a jump is spread over so many seconds."""


def advance(
    state: State, event: Event, *, now: Boot, wall: Wall, u: float, policy: Policy
) -> State:
    """The state after ``event``; ``state`` itself where the event means nothing to it.

    Args:
        now, wall: the present on both clocks.
        u: the dice, uniform in [0, 1).
        policy: what the configuration says of the account.
    """
    if type(event) not in TRANSITIONS[type(state)]:
        return state
    if isinstance(event, Outcome) and not _concerns(state, event):
        return state
    return _STEPS[type(event)](state, event, _Moment(now, wall, u, policy))


@dataclass(frozen=True, slots=True)
class _Moment:
    """What every step needs besides state and event."""

    now: Boot
    wall: Wall
    u: float
    policy: Policy


def _concerns(state: State, event: Outcome) -> bool:
    if isinstance(state, Refreshing | Unsaved):
        return event.attempt == state.attempt.id
    # Only a refusal of the client as a whole reaches an account without an attempt.
    return not event.attempt


def _loaded(state: NeedsLogin | Waiting, event: Loaded, _at: _Moment) -> State:
    return _never_falling(event.sealed, state)


def _replaced(state: State, event: Unsealed | ChangedElsewhere, _at: _Moment) -> State:
    return _never_falling(event.state, state)


def _locked(state: Holding, _event: Locked, _at: _Moment) -> State:
    expires_at = None if state.access is None else state.access.expires_at
    return Sealed(
        version=state.version,
        generation=state.generation,
        due_at=due_at(state),
        expires_at=expires_at,
    )


def _logged_in(state: State, event: LoggedIn, at: _Moment) -> State:
    version = max(state.version, event.version)
    if event.access is None:
        return Waiting(
            version=version,
            generation=state.generation,
            grant=event.grant,
            access=None,
            retry_at=at.now,
        )
    return Fresh(
        version=version,
        generation=max(state.generation, event.access.generation),
        grant=event.grant,
        access=event.access,
        due_at=saving.next_due(event.access, at.policy, at.u),
    )


def _logged_out(state: State, event: LoggedOut, at: _Moment) -> State:
    version = max(state.version, event.version)
    if at.policy.needs_grant:
        return NeedsLogin(version=version, generation=state.generation, reason=event.reason)
    return Waiting(
        version=version, generation=state.generation, grant=None, access=None, retry_at=at.now
    )


def _reconfigured(state: Blocked | Fresh, _event: Reconfigured, at: _Moment) -> State:
    if isinstance(state, Fresh):
        if state.access is None or at.policy.proactive == (state.due_at < NEVER):
            return state
        # Another schedule.
        return replace(state, due_at=saving.next_due(state.access, at.policy, at.u))
    if state.grant is None and at.policy.needs_grant:
        return state  # its envelope could not be opened: no configuration mends that
    return _released(state, at)


def _refresh_started(state: Holding, event: RefreshStarted, at: _Moment) -> State:
    if not isinstance(state, Fresh) and at.now < due_at(state):
        return state
    started = Refreshing(**_kept(state), attempt=event.attempt)
    if isinstance(state, Waiting):
        return replace(
            started,
            failures=state.failures,
            reason=state.reason,
            since=state.since,
            grace_until=state.grace_until,
        )
    return replace(started, quarantine=state) if isinstance(state, Quarantined) else started


def _not_served(state: Refreshing, event: NotSent | Failed, at: _Moment) -> State:
    opens_at = _opening(event.opens_at, at)
    if state.quarantine is not None:
        return _quarantined_again(state, state.quarantine, probe_at=opens_at)
    return Waiting(
        **_kept(state),
        retry_at=opens_at,
        tries=state.attempt.tries - 1,  # this attempt took nothing away from an older doubt
        failures=state.failures + 1,
        reason=event.reason,
        since=_since(state, at),
        grace_until=state.grace_until,
    )


def _held(state: Refreshing, event: Held, at: _Moment) -> State:
    if state.quarantine is None and state.attempt.tries == 1:
        return Elsewhere(**_kept(state), until=event.until)
    # A refusal and a doubt stay, whoever has the lease.
    words = "another host is refreshing it"
    return _not_served(state, NotSent(event.attempt, words, event.until), at)


def _in_doubt(state: Refreshing, event: InDoubt, at: _Moment) -> State:
    if state.grant is None:
        return _not_served(state, Failed(event.attempt, event.reason, event.opens_at), at)
    tries = state.attempt.tries
    retry_at = retry_after_doubt(
        at.policy,
        state.grant,
        state.access,
        tries=tries,
        sent_at=event.sent_at,
        now=at.now,
        opens_at=_opening(event.opens_at, at),
        u=at.u,
    )
    if state.quarantine is not None:
        again = _quarantined_again(state, state.quarantine, probe_at=retry_at)
        return replace(again, tries=tries)
    grace = strictness(at.policy, state.grant) is Rotation.GRACE and tries == 1
    return Waiting(
        **_kept(state),
        retry_at=retry_at,
        tries=tries,
        failures=state.failures + 1,
        reason=event.reason,
        since=_since(state, at),
        grace_until=Boot(event.sent_at + at.policy.rotation_grace) if grace else None,
    )


def _grant_refused(state: Refreshing, event: GrantRefused, at: _Moment) -> State:
    return refused(state, event, policy=at.policy, now=at.now, wall=at.wall)


def _client_refused(state: Holding, event: ClientRefused, at: _Moment) -> State:
    if isinstance(state, Quarantined):
        # It stays refused; its probe comes when the client may be mended.
        later = None if state.probe_at is None else Boot(at.now + PROBES[0])
        return replace(state, probe_at=later)
    if isinstance(state, Waiting) and state.in_doubt and at.now < state.retry_at:
        return state  # a reload must not end the doubt before its time
    return Blocked(**_kept(state), reason=event.reason, hint=event.hint, since=at.wall)


def _answered(state: Refreshing, event: Answered, at: _Moment) -> State:
    return saving.answered(state, event, policy=at.policy, now=at.now, wall=at.wall, u=at.u)


def _saved(state: Unsaved, event: Saved, at: _Moment) -> State:
    return saving.saved(state, event, at.now)


def _save_failed(state: Unsaved, event: SaveFailed, at: _Moment) -> State:
    return saving.save_failed(state, event, at.now)


def _token_rejected(state: Holding, event: TokenRejected, at: _Moment) -> State:
    if state.access is None or state.access.generation != event.generation:
        return state
    if isinstance(state, Fresh):
        return Waiting(
            **_kept(state) | {"access": None},
            retry_at=at.now,
            reason="the API refused the access token",
        )
    if isinstance(state, Waiting):
        # Also in doubt: there is no living token left that another try could kill.
        return replace(state, access=None, retry_at=min(state.retry_at, at.now))
    if isinstance(state, Unsaved):
        return saving.token_rejected(state)
    return replace(state, access=None)


def _endpoint_back(state: Waiting | Quarantined, _event: EndpointBack, at: _Moment) -> State:
    if isinstance(state, Quarantined):
        if not state.incident or state.tries:
            return state
        return _released(state, at)
    if state.in_doubt or state.retry_at <= at.now:
        return state
    return replace(state, retry_at=at.now)


def _probe_taken(state: Quarantined, _event: ProbeTaken, at: _Moment) -> State:
    return turn_passed(state, at.now)


def _clocks_moved(state: State, _event: ClocksMoved, at: _Moment) -> State:
    if due_at(state) > at.now:
        return state
    spread = Boot(at.now + schedule.spread(at.u, CLOCKS_SPREAD))
    match state:
        case Sealed() | Fresh():
            return replace(state, due_at=spread)
        case Waiting() if state.grace_until is None or state.grace_until <= at.now:
            return replace(state, retry_at=spread)
        case Quarantined():
            return replace(state, probe_at=spread)
    return state  # inside a grace each second counts


def _opening(opens_at: Boot, at: _Moment) -> Boot:
    """``opens_at`` as a moment at which to look again: a blocked gate has none that is known."""
    return opens_at if opens_at < NEVER else at.now


def _since(state: Refreshing, at: _Moment) -> Wall:
    return at.wall if state.since is None else state.since


def _kept(state: Holding) -> dict[str, Any]:
    """What one state with secrets takes over from another."""
    return {
        "version": state.version,
        "generation": state.generation,
        "grant": state.grant,
        "access": state.access,
    }


def _released(state: Quarantined | Blocked, at: _Moment) -> Waiting:
    return Waiting(
        **_kept(state), retry_at=at.now, failures=1, reason=state.reason, since=state.since
    )


def _quarantined_again(state: Refreshing, before: Quarantined, *, probe_at: Boot) -> Quarantined:
    # The access token may have been reported as refused while the probe was under way.
    return replace(before, access=state.access, probe_at=probe_at)


def _never_falling(new: State, old: State) -> State:
    version, generation = max(new.version, old.version), max(new.generation, old.generation)
    return replace(new, version=version, generation=generation)


_STEPS: dict[type[Event], Callable[[Any, Any, _Moment], State]] = {
    Loaded: _loaded,
    Unsealed: _replaced,
    Locked: _locked,
    LoggedIn: _logged_in,
    LoggedOut: _logged_out,
    Reconfigured: _reconfigured,
    RefreshStarted: _refresh_started,
    NotSent: _not_served,
    Failed: _not_served,
    InDoubt: _in_doubt,
    GrantRefused: _grant_refused,
    ClientRefused: _client_refused,
    Answered: _answered,
    Saved: _saved,
    SaveFailed: _save_failed,
    Held: _held,
    ChangedElsewhere: _replaced,
    TokenRejected: _token_rejected,
    EndpointBack: _endpoint_back,
    ProbeTaken: _probe_taken,
    ClocksMoved: _clocks_moved,
}
