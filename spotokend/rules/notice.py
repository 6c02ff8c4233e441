"""The words: what a state means to a person, what is told when it changes, and the cure.

Everything that the program says of an account comes from here, so that status, log, notices and
errors agree. No value in here can hold a secret.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from spotokend.errors import LoginRequired, Misconfigured, SpotokendError, Unavailable

from . import schedule
from .account import (
    Blocked,
    Elsewhere,
    Fresh,
    Holding,
    NeedsLogin,
    Policy,
    Quarantined,
    Refreshing,
    Sealed,
    State,
    Unsaved,
    Waiting,
)
from .gate import Gate, closed_until
from .schedule import NEVER, Boot, Wall
from .transitions import due_at, usable

PRESSING = 7
"""Days before its end from which on a login that ends is a warning."""


class Health(StrEnum):
    """How an account, or the whole program, is."""

    OK = "ok"
    DEGRADED = "degraded"
    """It serves, and needs help or luck to go on."""
    FAILING = "failing"
    """It can't serve, or won't be able to without the user."""


class Level(StrEnum):
    """How loudly a notice is told."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something worth telling, once."""

    kind: str
    level: Level
    account: str | None
    message: str
    hint: str | None
    at: Wall

    def to_wire(self) -> dict[str, object]:
        """The map of a ``notice`` notification."""
        return {
            "kind": self.kind,
            "level": self.level.value,
            "account": self.account,
            "message": self.message,
            "hint": self.hint,
            "at": self.at,
        }


@dataclass(frozen=True, slots=True)
class Change:
    """An account went from one state to the next."""

    account: str
    was: Health
    """What its health was when it was last told: a token may have come near its end since."""
    before: State
    after: State
    policy: Policy
    now: Boot
    wall: Wall


NAMES: dict[type[State], str] = {
    Sealed: "sealed",
    NeedsLogin: "needs_login",
    Fresh: "fresh",
    Refreshing: "refreshing",
    Waiting: "waiting",
    Unsaved: "unsaved",
    Elsewhere: "elsewhere",
    Quarantined: "quarantined",
    Blocked: "blocked",
}
"""The states as the socket names them."""

KINDS = (
    "login_required",
    "grant_expiring",
    "blocked",
    "incident",
    "not_durable",
    "spill_saved",
    "spill_overtaken",
    "spill_waits",
    "spill_aside",
    "spill_unreadable",
    "degraded",
    "recovered",
    "token",
    "clock_moved",
    "locked",
    "unlocked",
)
"""Of notices, also of those that are made elsewhere."""


def in_words(seconds: float) -> str:
    """A duration for people: ``40 s``, ``12 min``, ``3 h``, ``5 days``."""
    seconds = max(0.0, seconds)
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / schedule.DAY:.0f} days"


def login_command(account: str) -> str:
    """What to type."""
    return f"spotokend login {account}"


def health(state: State, policy: Policy, now: Boot) -> Health:
    """See :class:`Health`. Failures are nobody's business while the token lives long enough."""
    match state:
        case NeedsLogin() | Quarantined() | Blocked():
            return Health.FAILING
        case Refreshing() if state.quarantine is not None:
            return Health.FAILING
        case Waiting() | Refreshing() | Unsaved() if state.failures:
            pass
        case Fresh() if state.due_at <= now:
            pass  # held back by the gate: another account of the client meets the failures
        case _:
            return Health.OK
    access = usable(state, now)
    if access is None:
        return Health.FAILING
    little = schedule.degraded(access.expires_at - now, access.life, policy.timing)
    return Health.DEGRADED if little or isinstance(state, Unsaved) else Health.OK


def reason(state: State) -> str | None:
    """What is wrong, if anything is."""
    match state:
        case NeedsLogin() | Quarantined() | Blocked():
            return state.reason
        case Refreshing() if state.quarantine is not None:
            return state.quarantine.reason
        case Waiting() | Refreshing() if state.failures:
            return state.reason
        case Unsaved() if state.failures:
            kept = "; a sealed copy lies beside the socket" if state.spilled else ""
            return f"the new token is not on disk yet: {state.reason}{kept}"
    return None


def ending(state: State, policy: Policy, now: Wall) -> str | None:
    """That the login itself ends before long; None while it does not, or nobody knows."""
    authorized_at = None
    if isinstance(state, Holding) and state.grant is not None:
        authorized_at = state.grant.authorized_at
    end = schedule.grant_end(authorized_at, policy.grant_life)
    if end is None or schedule.grant_stage(end - now) is None:
        return None
    if end <= now:
        return "the login has reached its end; it is tried, and will be refused before long"
    return f"the login ends in {in_words(end - now)}"


def hint(account: str, state: State) -> str | None:
    """The command, or the act, that mends it; None where waiting does."""
    match state:
        case NeedsLogin() | Quarantined():
            return login_command(account)
        case Refreshing() if state.quarantine is not None:
            return login_command(account)
        case Blocked():
            return state.hint
        case Unsaved() if state.failures:
            return "make room on the disk that holds the store, or make it writable"
    return None


def why(state: State, gate: Gate, now: Boot) -> str:
    """Why the next refresh is when it is."""
    due = due_at(state)
    match state:
        case Sealed():
            return "stored; it is unsealed when somebody asks, or when it is due"
        case NeedsLogin():
            return "there is nothing to refresh before a login"
        case Refreshing():
            return "a refresh is under way"
        case Unsaved():
            wait = in_words(due - now)
            return f"the answer is written again in {wait}; nothing is redeemed before"
        case Blocked():
            return "nothing is sent before the configuration is mended and reloaded"
        case Quarantined() if state.probe_at is None:
            return "the provider refused the login; it is not asked again before a new one"
        case Fresh() if due == NEVER:
            return "refreshed when somebody asks for it (schedule: on_demand)"
    if gate.blocked:
        return "the provider refuses this client; nothing is sent before a reload"
    return _why_then(state, gate, now, in_words(max(due, closed_until(gate)) - now))


def _why_then(state: State, gate: Gate, now: Boot, wait: str) -> str:
    """:func:`why` for a state that goes on by itself in ``wait``."""
    match state:
        case Elsewhere():
            return f"another host refreshes it; looked at again in {wait}"
        case Quarantined() if state.incident:
            return f"the refusal is doubtful; one more try in {wait}"
        case Quarantined():
            return f"the provider refused the login; it is asked once more in {wait}"
        case Waiting() if state.in_doubt:
            return (
                f"an answer was lost and the refresh token may be used up; next try in {wait}, "
                "when it does least harm"
            )
    if gate.failures or closed_until(gate) > now:
        cause = gate.reason or "it asked for a pause"
        return f"the provider is not answering as it should ({cause}); next try in {wait}"
    if isinstance(state, Waiting):
        return f"{state.reason or 'there is no token yet'}; next try in {wait}"
    return f"ahead of the token's end; due in {wait}"


def refusal(account: str, state: State, gate: Gate, now: Boot) -> SpotokendError:
    """The error for a caller who can't have a token from this state."""
    match state:
        case NeedsLogin():
            return LoginRequired(
                f"{account}: {state.reason}", account=account, hint=login_command(account)
            )
        case Quarantined():
            retry_after = None if state.probe_at is None else _pause(state.probe_at, now)
            return LoginRequired(
                f"{account}: {_refused(state, now)}",
                account=account,
                hint=login_command(account),
                retry_after=retry_after,
            )
        case Blocked():
            return Misconfigured(f"{account}: {state.reason}", account=account, hint=state.hint)
    if gate.blocked:
        return Misconfigured(f"{account}: {gate.reason}", account=account, hint=gate.hint)
    # From the other states a caller starts a refresh by asking, once the gate is open.
    patient = isinstance(state, Waiting | Unsaved | Elsewhere)
    retry_after = _pause(max(due_at(state) if patient else now, closed_until(gate)), now)
    because = reason(state) or gate.reason or "no token could be had yet"
    return Unavailable(
        f"{account}: {because}; next try in {in_words(retry_after)}",
        account=account,
        retry_after=retry_after,
        hint=f"spotokend status {account}",
    )


def _pause(moment: Boot, now: Boot) -> float:
    # Not 0: a caller that took it at its word would ask in a loop.
    return max(1.0, moment - now)


def _refused(state: Quarantined, now: Boot) -> str:
    """What happened to the login, and whether and when it is tried again without the user."""
    if state.probe_at is None:
        return f"{state.reason}; it is not tried again before a new login"
    return f"{state.reason}; tried once more in {in_words(state.probe_at - now)}"


def of_key(error: SpotokendError | None, at: Wall) -> Notice:
    """That there is no key to the stored logins, and why; or that now there is."""
    if error is None:
        return Notice("unlocked", Level.INFO, None, "the stored logins are unlocked", None, at)
    return Notice("locked", Level.WARNING, None, error.message, error.hint, at)


def notices(change: Change) -> list[Notice]:
    """What is to be told of a change: once a state, not once a try."""
    return [
        Notice(kind, level, change.account, message, cure, change.wall)
        for kind, level, message, cure in (*_of_state(change), *_of_health(change))
    ]


def _of_state(change: Change) -> Iterator[tuple[str, Level, str, str | None]]:
    before, after = change.before, change.after
    known, cure = _quarantine(before), hint(change.account, after)
    if type(after) is not type(before):
        match after:
            case NeedsLogin():  # the user's own act, or a fresh installation
                yield "login_required", Level.INFO, after.reason, cure
            case Blocked():
                yield "blocked", Level.ERROR, after.reason, cure
            case Quarantined() if known is None:
                yield "login_required", Level.ERROR, _refused(after, change.now), cure
    if isinstance(after, Quarantined) and after.incident and not (known and known.incident):
        words = "the provider refuses logins that should be good; they are kept and tried again"
        yield "incident", Level.WARNING, words, None
    stage, ends = _stage_reached(before, after), ending(after, change.policy, change.wall)
    if stage is not None and ends is not None:
        level = Level.WARNING if stage <= PRESSING else Level.INFO
        yield "grant_expiring", level, ends, login_command(change.account)
    unsaved_before = isinstance(before, Unsaved) and before.failures
    if isinstance(after, Unsaved) and after.failures and not unsaved_before:
        yield "not_durable", Level.ERROR, str(reason(after)), cure


def _of_health(change: Change) -> Iterator[tuple[str, Level, str, str | None]]:
    before, after = change.before, change.after
    was, now_is = change.was, health(after, change.policy, change.now)
    if isinstance(after, Waiting) and now_is is not Health.OK and was is Health.OK:
        cause = reason(after) or "no token"
        yield "degraded", Level.WARNING, cause, f"spotokend status {change.account}"
    if isinstance(before, Sealed):
        return  # unsealing brings nothing new
    # Told once it is served: whoever hears of it and asks must not get the one before.
    new = after.generation > before.generation or _being_written(before)
    if isinstance(after, Holding) and after.access and new and not _being_written(after):
        life = in_words(after.access.expires_at - change.now)
        yield "token", Level.DEBUG, f"a new token, good for {life}", None
    if isinstance(after, Fresh) and was is not Health.OK and not isinstance(before, NeedsLogin):
        yield "recovered", Level.INFO, "the token is fresh again", None


def _being_written(state: State) -> bool:
    return isinstance(state, Unsaved) and not state.failures


def _stage_reached(before: State, after: State) -> int | None:
    """The stage of its end that the login has reached with this answer; None if it told that before.

    The stage is stored with the answer, so that no restart repeats it.
    """
    if not (isinstance(before, Refreshing) and isinstance(after, Unsaved)):
        return None
    was = None if before.grant is None else before.grant.stage
    reached = None if after.grant is None else after.grant.stage
    return reached if reached is not None and (was is None or reached < was) else None


def _quarantine(before: State) -> Quarantined | None:
    """The refusal that was told already, if ``before`` is it or a probe of it."""
    if isinstance(before, Refreshing):
        return before.quarantine
    return before if isinstance(before, Quarantined) else None
