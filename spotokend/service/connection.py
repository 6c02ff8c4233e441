"""One client of the server: its bytes, its deadlines, its calls under way.

:class:`Connection` moves bytes between a transport and the pure session, and calls from the session
to the handlers. Whatever is raised here, by the client's doing or by a defect, ends this connection
at most. An idle connection has no task and no timer.

The first small message of what has arrived is answered at once, if its answer is ready. Whatever
else there is to do for a client waits for its turn (:mod:`spotokend.service.turns`).
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol, cast

from spotokend import wire
from spotokend.adapters.peercred import Peer
from spotokend.errors import Busy, InternalError, SpotokendError, Unavailable
from spotokend.rules.methods import METHODS, Right
from spotokend.rules.session import UNREAD_LIMIT, Call, Session

from . import defects
from .turns import Turns

UNREAD_TIMEOUT = 30.0
"""Seconds in which a client that owes us a read must take something, or show that it is there."""
HALF_MESSAGE_TIMEOUT = 10.0
"""Seconds from the first byte of a message to its last."""

_READ_SIZE = 16 * 1024
# Bytes of one client that are held undecoded, some 500 requests; asyncio's own are 256 KiB.
_TURN = 32
# Messages of one client a turn: 0.3 ms. With fewer of them the loop's own cost would show.
_SMALL = 1024
# Bytes of which the first message may be answered at once. Any request but the end of a login is.

Log = Callable[..., None]
"""``log(event, level="warning", **fields)``; see :mod:`spotokend.adapters.logs`."""


class Handlers(Protocol):
    """What answers the calls."""

    def handle(
        self, connection: Connection, method: str, arguments: dict[str, object], /
    ) -> bytes | Coroutine[Any, Any, bytes]:
        """The packed result at once, or a coroutine that returns it; arguments are checked.

        When the client goes, or the server closes, the coroutine is cancelled: what must be
        finished has to be done elsewhere, with the coroutine waiting for it.

        Raises:
            SpotokendError: what the client is told. Any other exception is a defect.
        """


class Shared:
    """What the connections of one server have in common."""

    def __init__(
        self,
        handlers: Handlers,
        *,
        log: Log,
        unread_timeout: float,
        half_message_timeout: float,
    ) -> None:
        self.handlers = handlers
        self.log = log
        self.unread_timeout = unread_timeout
        self.half_message_timeout = half_message_timeout
        self.buffer = memoryview(bytearray(_READ_SIZE))
        """What any client sends passes through here within one call: none needs its own."""
        self.spare_decoders: list[wire.Decoder] = []
        self.connections: set[Connection] = set()
        self.turns = Turns()
        self._left = asyncio.Event()

    def left(self, connection: Connection) -> None:
        """The connection is over."""
        self.connections.discard(connection)
        self._left.set()

    async def everybody_left(self) -> None:
        """Wait until there is no connection."""
        while self.connections:
            self._left.clear()
            await self._left.wait()

    def defect(self, what: str, error: BaseException) -> InternalError:
        """Log an exception that nobody foresaw; the error that tells the client its id."""
        name = defects.tell(self.log, what, error)
        return InternalError(
            f"a defect of the daemon, logged under {name}",
            id=name,
            hint=f"look for {name} in the daemon's log: journalctl --user -u spotokend",
        )


class Connection(asyncio.BufferedProtocol):
    """One client: moves bytes between the transport and its session, and calls to the handlers."""

    __slots__ = (
        "_half_message",
        "_half_timer",
        "_hang_up_timer",
        "_in_line",
        "_session",
        "_shared",
        "_transport",
        "_unread_timer",
        "_unstarted",
        "_waits",
        "_written",
        "peer",
        "when_closed",
    )

    _transport: asyncio.Transport

    def __init__(self, shared: Shared, peer: Peer, refusal: SpotokendError | None) -> None:
        self.peer = peer
        self.when_closed: Callable[[], None] | None = None
        """Called once when the client is gone; set by the handler of ``watch``."""
        self._shared = shared
        self._session = Session(refusal=refusal, spare=shared.spare_decoders)
        self._waits: dict[int, asyncio.Task[bytes]] = {}
        self._written = 0
        self._unread_timer: asyncio.TimerHandle | None = None
        self._half_timer: asyncio.TimerHandle | None = None
        self._hang_up_timer: asyncio.TimerHandle | None = None
        self._half_message = 0
        self._in_line = False
        self._unstarted: tuple[Call, Coroutine[Any, Any, bytes]] | None = None
        """A call that needs a task, and so its turn."""

    def offer(self, key: str | None, data: bytes) -> None:
        """A packed notification for the client: O(1), never waits, never raises.

        The newest wins a ``key``; with key None all are kept, within the mailbox's bounds
        (:class:`spotokend.rules.session.Mailbox`).
        """
        self._session.offer(key, data)
        # What else is offered until then goes in the same write.
        self._line_up()

    @property
    def settled(self) -> bool:
        """It has asked something, and all that it asked is answered."""
        return not (self._waits or self._unstarted or self._in_line) and self._session.received > 0

    def dismiss(self) -> None:
        """Answer what is under way with "unavailable", and close when everything is taken."""
        self._session.dismiss(_stopping())
        self._advance()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # Pausing where the session stops means that its going on is told, too.
        self._transport.set_write_buffer_limits(high=UNREAD_LIMIT)
        self._shared.connections.add(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  asyncio passes it
        return self._shared.buffer

    def buffer_updated(self, nbytes: int) -> None:
        session = self._session
        session.receive(bytes(self._shared.buffer[:nbytes]))
        self._advance(1 if session.waiting <= _SMALL else 0)

    def eof_received(self) -> bool:
        """True to keep the other direction open: ``nc -N`` asks, ends its half, and listens on."""
        if _hung_up(self._transport):
            return False
        self._session.end()
        self._advance()
        return True

    def resume_writing(self) -> None:
        self._advance()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio passes it
        self._shared.left(self)
        self._stop_timers()
        self._cancel_waits()
        if self._session.ignored:
            self._tell("notifications were ignored", count=self._session.ignored)
        if self.when_closed is not None:
            try:
                self.when_closed()
            except Exception as error:  # noqa: BLE001  whatever it is, it is logged as a defect
                self._shared.defect("a connection's end", error)

    # Taking turns

    def take_turn(self) -> None:
        """It has come to the head of the line."""
        self._in_line = False
        self._advance(_TURN, start=True)

    def _line_up(self) -> None:
        if not self._in_line:
            self._in_line = True
            self._shared.turns.line_up(self.take_turn)

    def _advance(self, most: int = 0, *, start: bool = False) -> None:
        """Answer at most so many messages, send what can be sent, and see how to go on."""
        if self._transport.is_closing():
            return
        try:
            self._exchange(most, start=start)
        except Exception as error:  # noqa: BLE001  whatever it is, it ends this connection only
            self._shared.defect("a connection", error)
            self._transport.abort()

    def _exchange(self, most: int, *, start: bool) -> None:
        session, transport = self._session, self._transport
        if session.unsent:
            session.unsent = transport.get_write_buffer_size()
        # An error costs more than an answer that is ready, and a task much more: they end the turn.
        while (
            most
            and self._unstarted is None
            and (call := session.next_call()) is not None
            and self._begin(call)
        ):
            most -= 1
        held_back = bool(self._waits) and self._shared.turns.crowded
        if start and self._unstarted is not None and not held_back:
            self._start(*self._unstarted)
        out = session.take()
        if out:
            transport.write(out)
            self._written += len(out)
            session.unsent = transport.get_write_buffer_size()
        if session.unsent and self._unread_timer is None:
            self._watch_unread()
        if session.ready or (self._unstarted is not None and session.broken is None):
            transport.pause_reading()
            if not held_back:
                self._line_up()
            return  # how to go on is seen after its turn; or after an answer, if it is held back
        if session.incomplete or self._half_timer is not None:
            self._watch_half_message()
        if session.wants_input:
            transport.resume_reading()
        else:
            self._stop_reading()

    def _stop_reading(self) -> None:
        self._transport.pause_reading()
        session = self._session
        if session.broken is None and not session.finished:
            return
        if session.broken is None and self.when_closed is not None:
            # A watcher that ended its half of the connection still listens on the other.
            if self._hang_up_timer is None:
                self._watch_hang_up()
            return
        if session.broken is not None:
            self._cancel_waits()
            self._tell("a connection was ended", words=session.broken)
        self._transport.close()

    def _begin(self, call: Call) -> bool:
        """True if the answer was ready."""
        try:
            answer = self._shared.handlers.handle(self, call.method, call.arguments)
        except SpotokendError as error:
            self._session.fail(call.msgid, error)
        except Exception as error:  # noqa: BLE001  whatever it is, the caller gets an answer
            self._session.fail(call.msgid, self._shared.defect(call.method, error))
        else:
            if isinstance(answer, bytes):
                self._session.reply(call.msgid, answer)
                return True
            self._unstarted = call, answer
        return False

    def _start(self, call: Call, coroutine: Coroutine[Any, Any, bytes]) -> None:
        self._unstarted = None
        try:
            carried = METHODS[call.method].right is Right.ADMINISTER
            task = self._shared.turns.start(coroutine, carried=carried)
        except Busy as error:
            self._session.fail(call.msgid, error)
        else:
            self._waits[call.msgid] = task
            task.add_done_callback(partial(self._answered, call))

    def _answered(self, call: Call, task: asyncio.Task[bytes]) -> None:
        result, error = self._outcome(call, task)
        if self._waits.pop(call.msgid, None) is None:
            return  # the client went, or was sent away
        if error is not None:
            self._session.fail(call.msgid, error)
        else:
            self._session.reply(call.msgid, result)
        self._advance()

    def _outcome(
        self, call: Call, task: asyncio.Task[bytes]
    ) -> tuple[bytes, SpotokendError | None]:
        try:
            return task.result(), None
        except asyncio.CancelledError:
            return b"", _stopping()
        except SpotokendError as error:
            return b"", error
        except Exception as error:  # noqa: BLE001  whatever it is, the caller gets an answer
            return b"", self._shared.defect(call.method, error)

    def _cancel_waits(self) -> None:
        if self._unstarted is not None:
            self._unstarted[1].close()
            self._unstarted = None
        waits = list(self._waits.values())
        self._waits.clear()
        for task in waits:
            self._shared.turns.give_up(task)

    # Deadlines. A timer exists only while there is something to wait for.

    def _watch_unread(self) -> None:
        self._unread_timer = asyncio.get_running_loop().call_later(
            self._shared.unread_timeout, self._check_unread, self._written - self._session.unsent
        )

    def _check_unread(self, sent_then: int) -> None:
        self._unread_timer = None
        self._session.unsent = self._transport.get_write_buffer_size()
        if not self._session.unsent:
            return
        if self._written - self._session.unsent > sent_then:
            self._watch_unread()
        else:
            self._expire("a reply was not read")

    def _watch_half_message(self) -> None:
        session = self._session
        if self._half_timer is not None:
            if session.incomplete and session.received == self._half_message:
                return  # still the same message: its time goes on
            self._half_timer.cancel()
            self._half_timer = None
        if session.incomplete:
            self._half_message = session.received
            self._half_timer = asyncio.get_running_loop().call_later(
                self._shared.half_message_timeout, self._check_half_message
            )

    def _check_half_message(self) -> None:
        self._half_timer, message = None, self._half_message
        self._advance(1)  # the other half may have come, and wait in line
        if self._session.incomplete and self._session.received == message:
            self._expire("half a message, and no more")

    def _watch_hang_up(self) -> None:
        # Nobody tells: the loop watches only what is to be read or written.
        if _hung_up(self._transport):
            self._transport.abort()
        else:
            self._hang_up_timer = asyncio.get_running_loop().call_later(
                self._shared.unread_timeout, self._watch_hang_up
            )

    def _expire(self, reason: str) -> None:
        self._tell("a connection was ended", words=reason)
        self._transport.abort()

    def _tell(self, event: str, **fields: object) -> None:
        self._shared.log(event, level="debug", pid=self.peer.pid, **fields)

    def _stop_timers(self) -> None:
        for timer in (self._unread_timer, self._half_timer, self._hang_up_timer):
            if timer is not None:
                timer.cancel()


def _stopping() -> Unavailable:
    return Unavailable(
        "spotokend is stopping", hint="ask again once it runs: spotokend run", retry_after=1.0
    )


def _hung_up(transport: asyncio.Transport) -> bool:
    """True if the peer closed its socket, and not its sending half alone."""
    poll = select.poll()
    # Without any event asked for: a hang-up is always reported.
    poll.register(transport.get_extra_info("socket").fileno(), 0)
    return bool(poll.poll(0))
