"""Every failure that crosses the socket, as one exception class a code.

    SpotokendError                 code                 exit status
     ├─ BadRequest                 bad_request          2
     ├─ UnknownMethod              unknown_method       2
     ├─ Misconfigured              misconfigured        2
     ├─ LoginRequired              login_required       3
     ├─ DaemonNotRunning           (no daemon)          4
     ├─ Unavailable                unavailable          5
     │   ├─ Busy                   busy                 5
     │   └─ Locked                 locked               5
     ├─ InsufficientScope          insufficient_scope   6
     ├─ Forbidden                  forbidden            7
     ├─ UnknownAccount             unknown_account      7
     └─ InternalError              internal             1

``Busy`` and ``Locked`` are kinds of ``Unavailable``: a program that only wants to know "not now,
later perhaps" catches one class.
"""

from __future__ import annotations

_LONGEST_PAUSE = 366 * 86_400
"""Seconds. A ``retry_after`` beyond this is no promise of anything."""


class SpotokendError(Exception):
    """What happened (``message``), and what helps (``details``).

    ``details`` holds only what may be shown: ``hint`` (the cure, with the command to type),
    ``retry_after`` (seconds), ``account``, ``missing`` (scopes), and others a code defines.
    """

    code = "internal"
    exit_status = 1

    def __init__(self, message: str, /, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.details = {key: value for key, value in details.items() if value is not None}

    @property
    def hint(self) -> str | None:
        """The cure in words, or None."""
        hint = self.details.get("hint")
        return hint if isinstance(hint, str) else None

    @property
    def retry_after(self) -> float | None:
        """Seconds after which asking again makes sense, or None where nobody knows."""
        seconds = self.details.get("retry_after")
        if isinstance(seconds, (int, float)) and not isinstance(seconds, bool):
            # Handed to sleep() as it is: NaN, what is negative and what has no end help nobody.
            return float(seconds) if 0 <= seconds < _LONGEST_PAUSE else None
        return None

    def to_wire(self) -> list[object]:
        """``[code, message, details]``, the error element of a MessagePack-RPC response."""
        return [self.code, self.message, self.details]

    def __reduce__(self) -> tuple[object, ...]:
        # The default would call the class without the details, and lose them on the way
        # through a multiprocessing queue.
        return _rebuild, (type(self), self.code, self.message, self.details)


def _rebuild(
    kind: type[SpotokendError], code: str, message: str, details: dict[str, object]
) -> SpotokendError:
    error = kind(message)
    error.details = details
    if error.code != code:
        error.code = code
    return error


class BadRequest(SpotokendError):
    """The call itself is wrong: an argument is missing, of the wrong type or out of range."""

    code = "bad_request"
    exit_status = 2


class UnknownMethod(SpotokendError):
    """The daemon has no such method; an older daemon may lack a newer one."""

    code = "unknown_method"
    exit_status = 2


class Misconfigured(SpotokendError):
    """The configuration can't be used; the message names the place, the hint the cure."""

    code = "misconfigured"
    exit_status = 2


class LoginRequired(SpotokendError):
    """There is no grant, or the provider refused it; the hint holds the login command."""

    code = "login_required"
    exit_status = 3


class DaemonNotRunning(SpotokendError):
    """Nobody answers on the socket. Made by clients; never sent by the daemon."""

    code = "no_daemon"
    exit_status = 4


class Unavailable(SpotokendError):
    """No token just now; the daemon goes on trying. ``retry_after`` where it is known."""

    code = "unavailable"
    exit_status = 5


class Busy(Unavailable):
    """A limit was reached, for instance too many forced refreshes; ``retry_after`` says when."""

    code = "busy"


class Locked(Unavailable):
    """The daemon has no key at the moment: locked, or the keyring is closed."""

    code = "locked"


class InsufficientScope(SpotokendError):
    """The grant lacks scopes: ``details["missing"]``; the hint holds the login command."""

    code = "insufficient_scope"
    exit_status = 6


class Forbidden(SpotokendError):
    """The policy does not let this program do that."""

    code = "forbidden"
    exit_status = 7


class UnknownAccount(SpotokendError):
    """No account of that name is configured or logged in."""

    code = "unknown_account"
    exit_status = 7


class InternalError(SpotokendError):
    """A defect of the daemon; it is logged under ``details["id"]``."""

    code = "internal"
    exit_status = 1


BY_CODE: dict[str, type[SpotokendError]] = {
    kind.code: kind
    for kind in (
        BadRequest,
        UnknownMethod,
        Misconfigured,
        LoginRequired,
        DaemonNotRunning,
        Unavailable,
        Busy,
        Locked,
        InsufficientScope,
        Forbidden,
        UnknownAccount,
        InternalError,
    )
}


def from_wire(error: object) -> SpotokendError:
    """The exception for the error element of a response.

    Lenient on purpose: a newer daemon may send a code that this client doesn't know. Such an
    error is a plain :class:`SpotokendError` that keeps the code.
    """
    if isinstance(error, (list, tuple)) and len(error) >= 2:
        code, message = error[0], error[1]
        details = error[2] if len(error) > 2 and isinstance(error[2], dict) else {}
    else:
        code, message, details = "internal", error, {}
    details = {str(key): value for key, value in details.items()}
    return _rebuild(BY_CODE.get(str(code), SpotokendError), str(code), str(message), details)
