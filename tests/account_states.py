"""States of an account and events that can happen to it, several representative ones of each kind.

The tests of the rules walk their product. Every secret in them is recognisable by :data:`PLANTED`.
"""

from __future__ import annotations

from spotokend.rules.account import (
    Access,
    Answered,
    Attempt,
    Blocked,
    ChangedElsewhere,
    ClientRefused,
    ClocksMoved,
    Elsewhere,
    EndpointBack,
    Event,
    Failed,
    Fresh,
    Grant,
    GrantRefused,
    Held,
    InDoubt,
    Loaded,
    Locked,
    LoggedIn,
    LoggedOut,
    NeedsLogin,
    NotSent,
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
from spotokend.rules.schedule import NEVER, Boot, Wall
from spotokend.rules.secret import Secret

NOW = Boot(10_000.0)
WALL = Wall(1_700_000_000.0)
PLANTED = "planted"
MINE, FOREIGN = "attempt-1", "attempt-0"
GENERATION, VERSION = 5, 3
REASON = "it went wrong"


def grant(number: int = 1, **fields) -> Grant:
    """A login whose refresh token is that number."""
    given = {"scopes": ("streaming",), "user": "ada", "authorized_at": Wall(WALL - 1000.0)}
    return Grant(refresh_token=Secret(f"{PLANTED}-refresh-{number}"), **(given | fields))


ROTATED = grant(2, previous=Secret(f"{PLANTED}-refresh-1"), rotation_seen=True)


def access(generation: int = GENERATION, *, left: float = 900.0, life: float = 3600.0) -> Access:
    """An access token with that much left at :data:`NOW`."""
    return Access(
        token=Secret(f"{PLANTED}-access-{generation}"),
        scopes=("streaming",),
        issued_at=Boot(NOW + left - life),
        expires_at=Boot(NOW + left),
        generation=generation,
    )


def attempt(id_: str = MINE, *, tries: int = 1) -> Attempt:
    """One begun a second ago."""
    return Attempt(id=id_, started_at=Boot(NOW - 1.0), tries=tries)


def make(kind: type[State], **fields) -> State:
    """A state of that kind; each field that isn't given has something in it."""
    defaults: dict[str, object] = {
        "version": VERSION,
        "generation": GENERATION,
        "grant": grant(),
        "access": access(),
        "due_at": Boot(NOW + 100.0),
        "expires_at": Boot(NOW + 900.0),
        "retry_at": Boot(NOW + 10.0),
        "until": Boot(NOW + 30.0),
        "attempt": attempt(),
        "reason": REASON,
        "hint": "mend it",
        "since": Wall(WALL - 60.0),
    }
    known = {name: value for name, value in defaults.items() if name in kind.__dataclass_fields__}
    return kind(**(known | fields))


REPETITION = make(Quarantined, grant=ROTATED, probe_at=Boot(NOW + 1800.0))
INCIDENT = make(Quarantined, incident=True, probe_at=Boot(NOW + 1800.0))

STATES: dict[str, State] = {
    "sealed": make(Sealed),
    "sealed and due": make(Sealed, due_at=NOW),
    "sealed on demand": make(Sealed, due_at=NEVER, expires_at=None),
    "needs a login": make(NeedsLogin),
    "fresh": make(Fresh),
    "fresh and due": make(Fresh, due_at=Boot(NOW - 1.0)),
    "fresh on demand": make(Fresh, due_at=NEVER),
    "fresh without a user": make(Fresh, grant=None),
    "refreshing": make(Refreshing, reason=None, since=None),
    "refreshing after failures": make(Refreshing, failures=3),
    "refreshing without a token": make(Refreshing, access=None),
    "refreshing a rotated grant": make(Refreshing, grant=ROTATED),
    "refreshing in doubt": make(Refreshing, attempt=attempt(tries=2), failures=1),
    "refreshing in doubt, in grace": make(
        Refreshing, attempt=attempt(tries=2), failures=1, grace_until=Boot(NOW + 5.0)
    ),
    "refreshing without a user": make(Refreshing, grant=None, access=None),
    "repeating a refused one": make(Refreshing, grant=ROTATED, quarantine=REPETITION),
    "probing an incident": make(Refreshing, quarantine=INCIDENT),
    "waiting": make(Waiting, failures=1),
    "waiting and due": make(Waiting, failures=1, retry_at=NOW),
    "waiting in doubt": make(Waiting, failures=1, tries=1),
    "waiting in doubt, and due": make(Waiting, failures=1, tries=1, retry_at=NOW),
    "waiting in grace": make(
        Waiting, failures=1, tries=1, retry_at=NOW, grace_until=Boot(NOW + 5.0)
    ),
    "waiting for a first token": make(Waiting, grant=None, access=None, reason=None, since=None),
    "unsaved": make(Unsaved, reason=None, since=None),
    "unsaved on demand": make(Unsaved, due_at=NEVER, reason=None, since=None),
    "unsaved after failures": make(Unsaved, failures=2, since=None),
    "unsaved and spilled": make(Unsaved, failures=2, since=None, spilled=True),
    "unsaved and fruitless": make(Unsaved, fruitless=2),
    "unsaved and rejected": make(Unsaved, access=None, since=None),
    "elsewhere": make(Elsewhere),
    "elsewhere no longer": make(Elsewhere, until=NOW),
    "quarantined": make(Quarantined),
    "quarantined for a repetition": REPETITION,
    "quarantined in an incident": INCIDENT,
    "quarantined, and due": make(Quarantined, incident=True, probe_at=NOW, probes=1),
    "quarantined in doubt": make(Quarantined, incident=True, probe_at=Boot(NOW + 9.0), tries=1),
    "quarantined for good": make(Quarantined, incident=True, probes=4),
    "blocked": make(Blocked),
    "blocked and unreadable": make(Blocked, grant=None, access=None),
}

STORED: list[State] = [
    make(kind, version=VERSION + 1, generation=GENERATION + 1)
    for kind in (NeedsLogin, Waiting, Fresh, Quarantined, Blocked)
]
"""As another process may have written them."""


def outcomes(id_: str) -> list[Event]:
    """All that can come of an attempt."""
    new = access(GENERATION + 1, left=3600.0)
    return [
        NotSent(id_, REASON, Boot(NOW + 4.0)),
        NotSent(id_, REASON, NEVER),
        Held(id_, Boot(NOW + 30.0)),
        Failed(id_, REASON, Boot(NOW + 4.0)),
        InDoubt(id_, REASON, Boot(NOW + 4.0), Boot(NOW - 1.0)),
        InDoubt(id_, REASON, NEVER, Boot(NOW - 61.0)),
        GrantRefused(id_, REASON, incident=False),
        GrantRefused(id_, REASON, incident=True),
        ClientRefused(id_, REASON, "mend it"),
        Answered(id_, grant(3), new),
        Answered(id_, None, new),
        Answered(id_, grant(3), None),
        Saved(id_, VERSION + 1),
        SaveFailed(id_, "the disk is full"),
        SaveFailed(id_, "the disk is full", spilled=True),
    ]


EVENTS: list[Event] = [
    Loaded(make(Sealed)),
    *map(Unsealed, STORED),
    Unsealed(make(Unsaved, version=VERSION + 1, generation=GENERATION + 1, failures=1)),
    Locked(),
    LoggedIn(grant(9), access(GENERATION + 1, left=3600.0), VERSION + 1),
    LoggedIn(grant(9), None, VERSION + 1),
    LoggedOut(VERSION + 1, "logged out"),
    Reconfigured(),
    RefreshStarted(attempt("attempt-2")),
    *outcomes(MINE),
    *outcomes(FOREIGN),
    *outcomes(""),
    *map(ChangedElsewhere, STORED),
    TokenRejected(GENERATION),
    TokenRejected(GENERATION - 1),
    EndpointBack(),
    ProbeTaken(),
    ClocksMoved(),
]

POLICIES = {
    "auto": Policy(),
    "never": Policy(rotation=Rotation.NEVER),
    "grace": Policy(rotation=Rotation.GRACE),
    "strict": Policy(rotation=Rotation.STRICT),
    "on demand": Policy(proactive=False),
    "client credentials": Policy(needs_grant=False),
}
