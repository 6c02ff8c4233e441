"""What both clients share: whom they call, what an answer means, what is kept, how long to hope.

Nothing in here waits: :mod:`spotokend.client` and :mod:`spotokend.async_client` do, each in its own
way. A client speaks only to a socket on which its own user or root listens, so that a path in a
shared folder can't be taken over by somebody else; whatever goes wrong between it and the daemon is
raised as a class of :mod:`spotokend.errors`; and no token that was asked for before another was
refused is kept.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time

from . import wire
from .errors import (
    BadRequest,
    Busy,
    DaemonNotRunning,
    Forbidden,
    Misconfigured,
    SpotokendError,
    Unavailable,
    from_wire,
)
from .token import Token

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself stays out of a client's import
    from collections.abc import Iterable, Iterator

    Event = tuple[str, dict[str, object]]
    Kept = dict[str | None, tuple[Token, float]]

TIMEOUT = 75.0
"""Seconds for one call. The daemon may take 70 to ask the provider: 5 to connect, 5 to send, 60 for
the answer; a caller that leaves earlier misses the token it has waited for."""

PATIENCE = 5.0
"""Seconds for which a daemon that was there before is given to come back."""

REPEATABLE = frozenset({"hello", "token", "reject", "refresh", "status", "watch"})
"""What may be asked again after a lost connection. ``reject`` names a generation, so the second one
finds the work done. A second ``refresh`` costs one more refresh at worst, and the daemon's limit on
forced ones may answer it :class:`~spotokend.Busy`: then ``token`` has the result of the first."""

READ_SIZE = 64 * 1024

_KEEP_FLOOR = 60.0
_KEEP_FLOOR_SHARE = 0.05
# The daemon's own floor is this share of the token's life. The wire doesn't tell the life: what was
# left when the token arrived stands for it, which for a short-lived one is less than a minute too.

_PATH_LIMIT = 107
# sockaddr_un has 108 bytes for the path and its NUL, unix(7).

_START = "start it with `systemctl --user start spotokend`, or `spotokend run` in a terminal"
_ELSEWHERE = "set SPOTOKEND_SOCK to the socket of your spotokend, or unset it"


class Lost(Exception):
    """The daemon is not there at the moment; ``error`` is for the caller if it stays away."""

    def __init__(self, error: SpotokendError) -> None:
        super().__init__(error.message)
        self.error = error


class Patience:
    """How often and for how long a lost daemon is looked for, in one call."""

    __slots__ = ("_nap", "_until")

    def __init__(self) -> None:
        self._nap = 0.0
        self._until: float | None = None

    def nap(self, lost: Lost) -> float:
        """Seconds to sleep before the next attempt: none at first, then up to a fifth of a second.

        Raises:
            SpotokendError: ``lost.error``, once :data:`PATIENCE` is over.
        """
        now = time.monotonic()
        if self._until is None:
            self._until = now + PATIENCE
        elif now >= self._until:
            raise lost.error
        nap, self._nap = self._nap, min(0.2, self._nap * 2 or 0.01)
        return nap


def open_socket(path: str, *, known: bool) -> socket.socket:
    """A connected socket that does not block. Connecting to a Unix socket never waits by itself.

    ``known``: a daemon has been met on this path before, so its absence is perhaps a restart.

    Raises:
        Lost: nobody listens now, but the daemon was there before; or it has too many callers.
        DaemonNotRunning: nobody listens.
        Forbidden: the socket is another user's.
        Misconfigured: no socket can have this path.
    """
    if len(os.fsencode(path)) > _PATH_LIMIT:
        raise Misconfigured(
            f"the path of the socket is longer than the {_PATH_LIMIT} bytes of Linux: {path}",
            hint="set SPOTOKEND_SOCK to a shorter one, for the daemon and here",
        )
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        connecting.connect(path)
        _check_listener(connecting, path)
    except BlockingIOError:
        connecting.close()
        # EAGAIN: the queue of those who wait to be accepted is full, connect(2).
        raise Lost(Busy(f"spotokend at {path} has more callers waiting than it admits")) from None
    except OSError as error:
        connecting.close()
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Forbidden(
                f"this user (uid {os.geteuid()}) may not open the socket {path}",
                hint=f"run this as the user whose daemon it is, or {_ELSEWHERE}",
            ) from None
        absent = _absent(path, error)
        if known:
            raise Lost(absent) from None
        raise absent from None
    except SpotokendError:
        connecting.close()
        raise
    return connecting


def _absent(path: str, error: OSError) -> DaemonNotRunning:
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
        return DaemonNotRunning(
            f"spotokend is not running: nobody listens on {path}", hint=_START, socket=path
        )
    return DaemonNotRunning(
        f"{path} can't be connected to: {error.strerror}", hint=_ELSEWHERE, socket=path
    )


def _check_listener(connected: socket.socket, path: str) -> None:
    uid = listener_uid(connected)
    if uid not in (0, os.geteuid()):
        raise Forbidden(
            f"{path} is another user's (uid {uid}): only root's and your own "
            f"(uid {os.geteuid()}) are trusted",
            hint=f"run this as that user, let the system's systemd listen for it, or {_ELSEWHERE}",
        )


def listener_uid(connected: socket.socket) -> int:
    """The user who called listen(2); under socket activation by the system's systemd, root."""
    # struct ucred: pid, uid, gid.
    credentials = connected.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII")
    )
    uid: int = struct.unpack("iII", credentials)[1]
    return uid


def reply_decoder() -> wire.Decoder:
    """A decoder with the limits for what a daemon sends."""
    return wire.Decoder(
        message_limit=wire.REPLY_LIMIT,
        array_limit=wire.REPLY_ARRAY_LIMIT,
        map_limit=wire.REPLY_MAP_LIMIT,
    )


def request_bytes(msgid: int, method: str, arguments: dict[str, object]) -> bytes:
    """A request.

    Raises:
        BadRequest: it is larger than the daemon reads; sent, it would only end the connection.
    """
    data = wire.request(msgid, method, arguments)
    if len(data) > wire.MESSAGE_LIMIT:
        raise BadRequest(
            f"the arguments of {method} take {len(data)} bytes; "
            f"at most {wire.MESSAGE_LIMIT} can be sent"
        )
    return data


def next_msgid(msgid: int) -> int:
    """1, 2, 3 … and from the largest that the wire knows to 1 again."""
    return msgid % wire.MSGID_LIMIT + 1


def read_answer(message: object) -> tuple[int, object, object] | None:
    """``(msgid, error, result)`` of a response; None for a notification, which nobody awaits here.

    Raises:
        Malformed: it is neither.
    """
    match message:
        case [kind, *_] if type(kind) is not int:
            pass  # patterns compare with ==, but True == 1 and 1.0 == 1 are no part of the protocol
        case [wire.RESPONSE, int(msgid), error, result] if wire.is_msgid(msgid):
            return msgid, error, result
        case [wire.NOTIFICATION, str(), list()]:
            return None
    raise wire.Malformed("neither a response nor a notification")


def result_of(answer: tuple[object, object]) -> object:
    """The result in ``(error, result)``; the error is raised, as its class."""
    error, result = answer
    if error is not None:
        raise from_wire(error)
    return result


def ended(path: str) -> Lost:
    """The connection has ended although an answer or an event was due."""
    return Lost(
        DaemonNotRunning(
            f"spotokend at {path} ends each connection without an answer",
            hint="its log says why: `journalctl --user -u spotokend`, or the terminal it runs in",
            socket=path,
        )
    )


def cut_off(path: str, method: str) -> Lost | Unavailable:
    """The connection has ended before ``method`` was answered: :class:`Lost` if it is repeatable."""
    if method in REPEATABLE:
        return ended(path)
    return Unavailable(
        f"the connection to spotokend was lost before {method} was answered: it may be done or not",
        hint="look at `spotokend status` before you repeat it",
    )


def not_spotokend(path: str, why: object) -> DaemonNotRunning:
    """Somebody answers, but not in our language."""
    return DaemonNotRunning(
        f"what answers on {path} is not spotokend: {why}", hint=_ELSEWHERE, socket=path
    )


def timed_out(method: str, seconds: float) -> Unavailable:
    """No answer in time."""
    return Unavailable(
        f"spotokend has not answered {method} within {seconds:g} s",
        hint="`spotokend status` tells what it is waiting for",
    )


def default_account() -> str | None:
    """``$SPOTOKEND_ACCOUNT`` as it is now; where it is unset or empty, the daemon decides."""
    return os.environ.get("SPOTOKEND_ACCOUNT") or None


def given(**arguments: object) -> dict[str, object]:
    """The arguments that are not None: the daemon has its own default for the rest."""
    return {name: value for name, value in arguments.items() if value is not None}


def listed(scopes: Iterable[str]) -> list[str]:
    """Scopes as a list; one string holds them with spaces between, as OAuth writes them."""
    return scopes.split() if isinstance(scopes, str) else list(scopes)


def read_token(path: str, result: object) -> Token:
    """The token in a result."""
    try:
        return Token.from_wire(result)
    except ValueError as error:
        raise not_spotokend(path, error) from None


def read_map(path: str, result: object) -> dict[str, object]:
    """The map in a result."""
    if not isinstance(result, dict):
        raise not_spotokend(path, "a result that should be a map")
    return result


def find(kept: Kept, account: str | None, min_ttl: float, scopes: list[str]) -> Token | None:
    """The kept token, if it is good enough. Safe from any thread: one entry is read, whole."""
    entry = kept.get(account)
    if entry is None:
        return None
    token, floor = entry
    left = token.expires_boot - time.clock_gettime(time.CLOCK_BOOTTIME)
    # Written so that a min_ttl of NaN is not good enough: the daemon will refuse it in words.
    if left < floor or not left >= min_ttl:
        return None
    if scopes and not set(scopes).issubset(token.scope):
        return None
    return token


def keep(kept: Kept, account: str | None, token: Token) -> None:
    """Keep a token until it nears its end.

    A client forgets by taking a new dictionary. An answer belongs in the dictionary that was there
    when it was asked for: so one that crosses a ``reject`` lands where nobody looks.
    """
    kept[account] = token, min(_KEEP_FLOOR, _KEEP_FLOOR_SHARE * token.remaining)


def add_page(path: str, whole: dict[str, object], page: dict[str, object]) -> str | None:
    """Add a page of accounts to the first; return what the next one is to begin after."""
    accounts, more, after = whole.get("accounts"), page.get("accounts"), page.get("next")
    if not isinstance(accounts, list) or not isinstance(more, list):
        raise not_spotokend(path, "a status without accounts")
    if page is not whole:
        accounts.extend(more)
    whole["next"] = None
    # A page without accounts is the last one, whatever it says: no loop without end.
    return after if isinstance(after, str) and more else None


class Subscription:
    """What a watching connection says, as events; on any number of connections, one by one."""

    def __init__(self, path: str, accounts: Iterable[str] | None, *, tokens: bool) -> None:
        self._path = path
        self._arguments = given(
            accounts=None if accounts is None else list(accounts), tokens=tokens
        )
        self._seen = False
        self._answered = False
        self._decoder = reply_decoder()

    @property
    def expecting(self) -> bool:
        """True while the daemon owes the answer, or the rest of a message; then time counts."""
        return not self._answered or self._decoder.incomplete

    def begin(self) -> bytes:
        """What to send on a new connection."""
        self._answered = False
        self._decoder = reply_decoder()
        return request_bytes(1, "watch", self._arguments)

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that ``data`` completes.

        Raises:
            SpotokendError: the daemon refuses, or it isn't spotokend.
        """
        try:
            for message in self._decoder.feed(data):
                yield from self._events(message)
        except wire.Malformed as error:
            raise not_spotokend(self._path, error) from None

    def _events(self, message: object) -> Iterator[Event]:
        read_answer(message)  # raises where it is no message at all
        match message:
            case [wire.NOTIFICATION, str(method), [dict(event)]]:
                yield method, event
            case [wire.RESPONSE, 1, error, result] if not self._answered:
                state = read_map(self._path, result_of((error, result)))
                self._answered = True
                if self._seen:
                    yield "resync", {"dropped": None}
                self._seen = True
                for method, key in (("state", "accounts"), ("token", "tokens")):
                    for event in _maps(state.get(key)):
                        yield method, event
            case _:
                raise wire.Malformed("neither an event nor the answer to watch")


def _maps(value: object) -> list[dict[str, object]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise wire.Malformed("a list of maps was due")
    return value
