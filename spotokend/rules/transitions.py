"""Which step each state can take, as data; and what a state means: when it is due, what it needs.

:data:`TRANSITIONS` is state → event → the states that may follow. What isn't in it changes nothing;
and what is in it may change nothing, too: the outcome of another attempt, the report of another
token. Tests walk the whole product, and the diagram in the documentation is drawn from it.
"""

from __future__ import annotations

from .account import (
    Access,
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
    ProbeTaken,
    Quarantined,
    Reconfigured,
    Refreshing,
    RefreshStarted,
    Saved,
    SaveFailed,
    Sealed,
    State,
    TokenRejected,
    Unsaved,
    Unsealed,
    Waiting,
)
from .schedule import NEVER, Boot

_STORED = frozenset({NeedsLogin, Waiting, Fresh, Quarantined, Blocked})
"""The states that a stored row can be read as."""
_OUT = frozenset({NeedsLogin, Waiting})
"""After a logout: a client-credentials account needs no login, and waits for its next token."""
_ALWAYS: dict[type[Event], frozenset[type[State]]] = {
    LoggedIn: frozenset({Fresh, Waiting}),
    LoggedOut: _OUT,
    ChangedElsewhere: _STORED,
}
"""Login and logout always win."""


def _to(*states: type[State]) -> frozenset[type[State]]:
    return frozenset(states)


TRANSITIONS: dict[type[State], dict[type[Event], frozenset[type[State]]]] = {
    Sealed: _ALWAYS
    | {
        # Unsaved: an answer that lay beside the socket, and that the store still does not take.
        Unsealed: _STORED | {Unsaved},
        ClocksMoved: _to(Sealed),
    },
    NeedsLogin: _ALWAYS
    | {
        Loaded: _to(Sealed),
    },
    Fresh: _ALWAYS
    | {
        Reconfigured: _to(Fresh),
        RefreshStarted: _to(Refreshing),
        TokenRejected: _to(Waiting),
        ClientRefused: _to(Blocked),
        Locked: _to(Sealed),
        ClocksMoved: _to(Fresh),
    },
    Refreshing: _ALWAYS
    | {
        NotSent: _to(Waiting, Quarantined),
        Held: _to(Elsewhere, Waiting, Quarantined),
        Failed: _to(Waiting, Quarantined),
        InDoubt: _to(Waiting, Quarantined),
        GrantRefused: _to(Quarantined),
        ClientRefused: _to(Blocked),
        Answered: _to(Unsaved),
        TokenRejected: _to(Refreshing),
    },
    Waiting: _ALWAYS
    | {
        Loaded: _to(Sealed),
        RefreshStarted: _to(Refreshing),
        TokenRejected: _to(Waiting),
        ClientRefused: _to(Blocked),
        EndpointBack: _to(Waiting),
        Locked: _to(Sealed),
        ClocksMoved: _to(Waiting),
    },
    Unsaved: _ALWAYS
    | {
        Saved: _to(Fresh, Waiting),
        SaveFailed: _to(Unsaved),
        TokenRejected: _to(Unsaved),
    },
    Elsewhere: _ALWAYS
    | {
        RefreshStarted: _to(Refreshing),
        TokenRejected: _to(Elsewhere),
        ClientRefused: _to(Blocked),
        Locked: _to(Sealed),
    },
    Quarantined: _ALWAYS
    | {
        RefreshStarted: _to(Refreshing),
        TokenRejected: _to(Quarantined),
        ClientRefused: _to(Quarantined),
        EndpointBack: _to(Waiting),
        ProbeTaken: _to(Quarantined),
        Locked: _to(Sealed),
        ClocksMoved: _to(Quarantined),
    },
    Blocked: _ALWAYS
    | {
        Reconfigured: _to(Waiting),
        TokenRejected: _to(Blocked),
        Locked: _to(Sealed),
    },
}


def due_at(state: State) -> Boot:
    """When something is to be done for the account by itself; ``NEVER`` if nothing is."""
    match state:
        case Sealed() | Fresh():
            return state.due_at
        case Waiting() | Unsaved():
            return state.retry_at
        case Elsewhere():
            return state.until
        case Quarantined() if state.probe_at is not None:
            return state.probe_at
    return NEVER


def need(state: State) -> str | None:
    """What only the user can do: ``login``, ``repair`` (then reload), or None."""
    if isinstance(state, NeedsLogin | Quarantined):
        return "login"
    if isinstance(state, Blocked):
        return "repair"
    return None


def usable(state: State, now: Boot, min_ttl: float = 0.0) -> Access | None:
    """The access token, if it lives and has at least ``min_ttl`` seconds left."""
    if isinstance(state, Holding) and state.access is not None:
        remaining = state.access.expires_at - now
        if remaining > 0 and remaining >= min_ttl:
            return state.access
    return None


def later(state: State, generation: int) -> bool:
    """Whether there is an access token of a later generation than that one."""
    access = state.access if isinstance(state, Holding) else None
    return access is not None and access.generation > generation
