"""What an account holds, the states it can be in, and the events that can happen to it.

Values only; :mod:`~spotokend.rules.lifecycle` holds the laws by which they follow each other. A
field exists only in the states in which it means something. Times are CLOCK_BOOTTIME
(:data:`~spotokend.rules.schedule.Boot`) where they decide, civil time where they are told.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from . import schedule
from .schedule import Boot, Timing, Wall
from .secret import Secret


class Rotation(StrEnum):
    """What the server does to a refresh token that was used."""

    AUTO = "auto"
    """Not known: as ``never`` until a rotation was seen, then as ``strict``."""
    NEVER = "never"
    """It stays good."""
    GRACE = "grace"
    """It is replaced, and works for ``rotation_grace`` seconds more."""
    STRICT = "strict"
    """It is replaced; presented again it kills its successor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the configuration says that concerns an account's life."""

    timing: Timing = schedule.DEFAULT_TIMING
    rotation: Rotation = Rotation.AUTO
    rotation_grace: float = 10.0
    """Seconds from the sending of a request in which the old refresh token still works."""
    proactive: bool = True
    needs_grant: bool = True
    """False with client credentials: the client's own secret is all that a token takes."""
    grant_life: float = schedule.GRANT_LIFE
    """Seconds from the user's consent to the end of the login; infinite where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A login: what a refresh token and the user's consent amount to. Never reaches the socket."""

    refresh_token: Secret
    previous: Secret | None = None
    """The refresh token before a rotation: kept until the present one has worked."""
    scopes: tuple[str, ...] = ()
    user: str | None = None
    """The provider's id of the user; None where it could not be asked."""
    display_name: str | None = None
    authorized_at: Wall | None = None
    """When the user consented; None for a grant that came from elsewhere."""
    rotation_seen: bool = False
    """This server has replaced a refresh token of ours before."""
    stage: int | None = None
    """Of :data:`~spotokend.rules.schedule.GRANT_STAGES`, where it was when last renewed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """An access token and its end."""

    token: Secret
    token_type: str = "Bearer"  # noqa: S105 - RFC 6750's name of a kind
    scopes: tuple[str, ...] = ()
    issued_at: Boot
    """When the request for it was **sent**: the server's clock started no earlier."""
    expires_at: Boot
    generation: int

    @property
    def life(self) -> float:
        """Seconds from issue to end, without the dust of floating-point sums."""
        return round(self.expires_at - self.issued_at, 3)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to redeem a grant."""

    id: str
    started_at: Boot
    tries: int = 1
    """Tries in a row whose fate isn't known, this one included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What every state has. Abstract."""

    version: int = 0
    """Of the stored row; grows with each write of it."""
    generation: int = 0
    """Of the last access token ever held; survives logout and login."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding(State):
    """A state in which secrets are at hand. Abstract."""

    grant: Grant | None
    """None with client credentials."""
    access: Access | None
    """None where there was none yet, or where the last one was reported as refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed(State):
    """In the store and not unsealed: a fresh start, or the key is away."""

    due_at: Boot
    expires_at: Boot | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedsLogin(State):
    """There is no grant: never logged in, logged out, or the client is another one now."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh(Holding):
    """All is well; due later."""

    due_at: Boot


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshing(Holding):
    """The intent is durable, the lease is held, the request is under way."""

    attempt: Attempt
    failures: int = 0
    """Attempts in a row without a token, before this one."""
    reason: str | None = None
    """Why the last one brought nothing."""
    since: Wall | None = None
    """Since when they fail."""
    grace_until: Boot | None = None
    quarantine: Quarantined | None = None
    """The state to which a probe of a refused grant returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting(Holding):
    """The last attempt brought nothing; or there is no token yet and one is due."""

    retry_at: Boot
    tries: int = 0
    """Attempts in a row whose fate isn't known."""
    failures: int = 0
    """Attempts in a row without a token."""
    reason: str | None = None
    since: Wall | None = None
    """Since when it fails."""
    grace_until: Boot | None = None
    """Until then the server takes a used refresh token: such a retry can't wait for others."""

    @property
    def in_doubt(self) -> bool:
        """The refresh token may be used up: nobody knows."""
        return self.tries > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsaved(Holding):
    """Answered and not committed yet: served, and nothing is redeemed until it is on disk."""

    attempt: Attempt
    due_at: Boot
    """Of the next refresh, once this is on disk."""
    retry_at: Boot
    """When it is written again."""
    failures: int = 0
    """Times that the store did not take it."""
    reason: str | None = None
    fruitless: int = 0
    """Attempts in a row without an access token, if this one brought a refresh token alone."""
    since: Wall | None = None
    """Since when they are."""
    spilled: bool = False
    """A sealed copy lies beside the socket: the program may end, the next start takes it up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere(Holding):
    """Another host holds the lease."""

    until: Boot


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined(Holding):
    """The server refused the grant. It is kept; only a login, or a probe, helps."""

    reason: str
    since: Wall
    incident: bool = False
    """The provider seems to have refused what it should not: one success elsewhere releases it."""
    probe_at: Boot | None = None
    """When the program tries again by itself; None: it doesn't."""
    probes: int = 0
    """How often it has, or another account in its place."""
    tries: int = 0
    """Probes in a row whose fate isn't known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked(Holding):
    """The server refused this client, or the program has a defect: only the user can mend it."""

    reason: str
    hint: str
    since: Wall


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an account. Abstract."""


@dataclass(frozen=True, slots=True)
class Loaded(Event):
    """The store has a row."""

    sealed: Sealed


@dataclass(frozen=True, slots=True)
class Unsealed(Event):
    """The row's envelope was opened: this is what it says."""

    state: State


@dataclass(frozen=True, slots=True)
class Locked(Event):
    """The key goes away, and the secrets with it."""


@dataclass(frozen=True, slots=True)
class LoggedIn(Event):
    """The user consented; the row is written."""

    grant: Grant
    access: Access | None
    """None: the server sent a refresh token alone."""
    version: int


@dataclass(frozen=True, slots=True)
class LoggedOut(Event):
    """The row is deleted, or put aside because its client changed."""

    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class Reconfigured(Event):
    """A valid configuration was applied; the client is still the same registration."""


@dataclass(frozen=True, slots=True)
class RefreshStarted(Event):
    """The intent is durable; the request goes out next."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Outcome(Event):
    """How an attempt ended. Abstract."""

    attempt: str


@dataclass(frozen=True, slots=True)
class NotSent(Outcome):
    """Nothing left this host."""

    reason: str
    opens_at: Boot
    """When the client's gate, or the store, lets the next attempt through."""


@dataclass(frozen=True, slots=True)
class Held(Outcome):
    """Nothing left this host: another one has the lease until then."""

    until: Boot


@dataclass(frozen=True, slots=True)
class Failed(Outcome):
    """The server is there and did not serve the request: the refresh token is as it was."""

    reason: str
    opens_at: Boot


@dataclass(frozen=True, slots=True)
class InDoubt(Outcome):
    """No answer that says whether the refresh token was used up."""

    reason: str
    opens_at: Boot
    sent_at: Boot


@dataclass(frozen=True, slots=True)
class GrantRefused(Outcome):
    """``invalid_grant`` (RFC 6749, section 5.2)."""

    reason: str
    incident: bool
    """The provider seems to refuse what it should not: worth probing later."""


@dataclass(frozen=True, slots=True)
class ClientRefused(Outcome):
    """``invalid_client`` and its kind. The attempt ``""``: another account of the client met it."""

    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class Answered(Outcome):
    """A token came."""

    grant: Grant | None
    access: Access | None
    """None: the server rotated the refresh token and sent no access token with it."""


@dataclass(frozen=True, slots=True)
class Saved(Outcome):
    """The answer is durable."""

    version: int


@dataclass(frozen=True, slots=True)
class SaveFailed(Outcome):
    """The store did not take it."""

    reason: str
    spilled: bool = False
    """A sealed copy of it was written beside the socket, and read back."""


@dataclass(frozen=True, slots=True)
class ChangedElsewhere(Event):
    """The store holds something newer, written by another process: this."""

    state: State


@dataclass(frozen=True, slots=True)
class TokenRejected(Event):
    """An API refused the access token of that generation."""

    generation: int


@dataclass(frozen=True, slots=True)
class EndpointBack(Event):
    """Another account of the endpoint had success after an incident or an outage."""


@dataclass(frozen=True, slots=True)
class ProbeTaken(Event):
    """Another account of the endpoint has just probed the refusals: this one's turn is the next."""


@dataclass(frozen=True, slots=True)
class ClocksMoved(Event):
    """Suspend, or civil time was set: what is overdue is spread."""
