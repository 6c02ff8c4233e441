"""One client's conversation: bytes in, calls out; replies in, bytes out. No clock, no socket.

Whoever owns the transport does, in this order::

    session.receive(data)                 # what arrived; session.end() at the end of file
    while session.ready:                  # or for as many messages as are its turn
        call = session.next_call()
        if call is not None:
            ...                           # session.reply(…) or .fail(…), now or later
    transport.write(session.take())
    session.unsent = ...                  # bytes that the transport still holds

and repeats the last steps after each reply, each offer, and whenever the transport got rid of
something. It reads on while ``wants_input`` and not ``ready``, and closes once ``finished`` and
everything is out.

What the session promises, whatever the client sends and however the bytes are cut:

- A request ``[0, msgid, method, params]`` is answered exactly once: with a call's result, with its
  error, or here, if the method or an argument is none.
- Notifications of the client are dropped and counted: some clients greet with one.
- What is no MessagePack-RPC, or goes over a limit, ends the conversation; where the request had a
  msgid, it is told why, once.
- At most 64 requests are unanswered, and at most 64 KiB (and the replies to those 64) unread;
  until then nothing further is decoded. What had arrived stays, and is decoded later.
- Between turns it holds what has arrived as bytes, never as half built objects.
- Notifications *to* the client wait in a bounded :class:`Mailbox` until there is room.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from spotokend import wire
from spotokend.errors import BadRequest, SpotokendError

from . import methods

UNANSWERED_LIMIT = 64
"""Requests under way, a connection: a program that asks for more at once is broken or hostile."""
UNREAD_LIMIT = 64 * 1024
"""Bytes of output that the client has not taken: about 200 tokens."""
NOTICE_LIMIT = 256
"""Notices that wait in a mailbox."""
KEYED_LIMIT = 1024
"""Tokens that wait in a mailbox: 600 bytes each, so that a client that sleeps costs no megabytes."""

_PARAMETER_DEPTH = wire.DEPTH_LIMIT - 2
# An element of params stands in params, and that in the message.
_LARGE = 4096
# Bytes from which a message that may be half is not built in vain each time some more of it comes:
# 64 KiB of empty arrays take 13 ms. No request comes near it but the one with a redirect's address.


class Call(NamedTuple):
    """A request whose method and arguments are checked (:mod:`spotokend.rules.methods`)."""

    msgid: int
    method: str
    arguments: dict[str, object]


class Session:
    """The conversation with one client; see the module's own words for the order of calls.

    ``refusal``: the error that answers the first request, whatever it asks; then the end.
    ``spare``: decoders that nobody uses just now. A session has one from the first
    :meth:`next_call` of a turn to :meth:`take`: those of one server share it.
    """

    __slots__ = (
        "_decoder",
        "_ended",
        "_half",
        "_input",
        "_mailbox",
        "_messages",
        "_out",
        "_out_size",
        "_refusal",
        "_spare",
        "_unanswered",
        "broken",
        "ignored",
        "received",
        "unsent",
    )

    def __init__(
        self, *, refusal: SpotokendError | None = None, spare: list[wire.Decoder] | None = None
    ) -> None:
        self._refusal = refusal
        self._spare = [] if spare is None else spare
        self._decoder: wire.Decoder | None = None
        self._messages: Iterator[object] | None = None
        self._input = b""
        """What has arrived and was not decoded when the turn began."""
        self._half = False
        """That is the beginning of one message, and no more."""
        self._unanswered: set[int] = set()
        self._out: list[bytes] = []
        self._out_size = 0
        self._mailbox: Mailbox | None = None
        self._ended = False
        self.broken: str | None = None
        """Why the conversation was ended from this side, in words without anything of the client's."""
        self.ignored = 0
        """Notifications that the client sent."""
        self.received = 0
        """Messages that arrived whole; with ``incomplete`` it tells one half message from another."""
        self.unsent = 0
        """Bytes that the transport took over and still holds; its owner sets this."""

    @property
    def wants_input(self) -> bool:
        """False while a limit is reached, and after the end: then nothing is to be read."""
        return not (self._blocked or self._ended or self.broken)

    @property
    def incomplete(self) -> bool:
        """True if half a message has arrived, and the client is the one to go on."""
        return self._half and not self._blocked

    @property
    def ready(self) -> bool:
        """True if more of what has arrived may be decoded now."""
        return bool(self._input) and not (self._half or self._blocked)

    @property
    def finished(self) -> bool:
        """True once no call can come and no reply is due: flush, then close."""
        return self.broken is not None or (
            self._ended and (self._half or not self._input) and not self._unanswered
        )

    @property
    def waiting(self) -> int:
        """Bytes that have arrived and are not decoded."""
        return len(self._input)

    def receive(self, data: bytes) -> None:
        """Take what arrived. While ``wants_input`` is false it is kept, not decoded."""
        if self._ended or self.broken:
            return
        self._end_turn()
        self._input += data
        self._half = False

    def end(self) -> None:
        """The client sends no more. What it asked before is still answered (``nc -N`` does so)."""
        self._ended = True

    def next_call(self) -> Call | None:
        """Decode the next message: its call, or None where it makes none, or there is none.

        Answer it, or have it under way, before asking for the next: whether a msgid is used twice
        depends on it.
        """
        if not self.ready or (self._messages is None and not self._begin_turn()):
            return None
        assert self._messages is not None
        try:
            message = next(self._messages)
        except StopIteration:
            self._end_turn()
            self._half = bool(self._input)
            return None
        except wire.Malformed as problem:
            assert self._decoder is not None
            self._break(_Breach(self._decoder.malformed_request(), str(problem)))
            return None
        self.received += 1
        try:
            return self._read(message)
        except _Breach as breach:
            self._break(breach)
            return None

    def reply(self, msgid: int, packed_result: bytes) -> None:
        """Answer a call with a result that is packed already. After the end: nothing."""
        if self.broken is None:
            self._unanswered.remove(msgid)
            self._put(wire.result_response(msgid, packed_result))

    def fail(self, msgid: int, error: SpotokendError) -> None:
        """Answer a call with an error. After the end: nothing."""
        if self.broken is None:
            self._unanswered.remove(msgid)
            self._put(wire.error_response(msgid, error.to_wire()))

    def dismiss(self, error: SpotokendError) -> None:
        """End the conversation from this side; every call under way is answered with ``error``."""
        for msgid in sorted(self._unanswered):
            self.fail(msgid, error)
        self._close(error.message)

    def offer(self, key: str | None, data: bytes) -> None:
        """A packed notification to the client, sent when there is room. See :class:`Mailbox`."""
        if self.broken is None:
            if self._mailbox is None:
                self._mailbox = Mailbox()
            self._mailbox.put(key, data)

    def take(self) -> bytes:
        """What is to be sent now, perhaps nothing. It counts as unread until ``unsent`` is set."""
        if self._mailbox is not None:
            while self._mailbox and self._out_size + self.unsent <= UNREAD_LIMIT:
                self._put(self._mailbox.pop())
            if not self._mailbox:
                self._mailbox = None
        self._end_turn()
        data = b"".join(self._out)
        self._out.clear()
        self._out_size = 0
        self.unsent += len(data)
        return data

    @property
    def _blocked(self) -> bool:
        return (
            len(self._unanswered) >= UNANSWERED_LIMIT or self._out_size + self.unsent > UNREAD_LIMIT
        )

    def _put(self, data: bytes) -> None:
        self._out.append(data)
        self._out_size += len(data)

    def _begin_turn(self) -> bool:
        """Have a decoder at work on what has arrived; False where that is half a message."""
        if _LARGE < len(self._input) < wire.MESSAGE_LIMIT and wire.is_half(self._input):
            self._half = True
            return False
        self._decoder = self._spare.pop() if self._spare else wire.Decoder()
        self._messages = self._decoder.feed(self._input)
        return True

    def _end_turn(self) -> None:
        """Keep what was not decoded, as bytes, and leave the decoder to others."""
        if self._decoder is not None:
            self._input = self._input[self._decoder.reset() :]
            self._spare.append(self._decoder)
            self._messages = self._decoder = None

    def _read(self, message: object) -> Call | None:
        """The call that a decoded message is; None if there is nothing for anybody else to do.

        Raises:
            _Breach: it is neither a request nor a notification.
        """
        # type() is: True == 1 and 0.0 == 0 are no part of the specification.
        if type(message) is not list or not message or type(message[0]) is not int:
            raise _Breach(None, "a message must be an array that begins with its type")
        if message[0] == wire.NOTIFICATION and len(message) == 3:
            self.ignored += 1
            return None
        if message[0] != wire.REQUEST or len(message) < 2 or not wire.is_msgid(message[1]):
            raise _Breach(None, "a daemon understands requests with a msgid, nothing else")
        msgid = message[1]
        if msgid in self._unanswered:
            raise _Breach(msgid, "this msgid belongs to a request that is still under way")
        if self._refusal is not None:
            raise _Breach(msgid, self._refusal.message, self._refusal)
        method, params = _parts(msgid, message)
        try:
            arguments = methods.check(method, _named_arguments(params))
        except SpotokendError as error:
            self._put(wire.error_response(msgid, error.to_wire()))
            return None
        self._unanswered.add(msgid)
        return Call(msgid, method, arguments)

    def _break(self, breach: _Breach) -> None:
        if breach.msgid is not None:
            self._put(wire.error_response(breach.msgid, breach.error.to_wire()))
        self._close(breach.reason)

    def _close(self, reason: str) -> None:
        self.broken = reason
        self._unanswered.clear()
        self._messages = self._decoder = self._mailbox = None
        self._input = b""
        self._half = False


class Mailbox:
    """Notifications that wait for room: newest wins a key, the oldest are dropped beyond a bound.

    Those without a key (notices) are all worth telling, up to 256 of them. Those with a key
    (tokens, by account) replace their predecessor, which nobody needs any more; up to 1024 of
    them. What was dropped for want of room is counted, and told first by a ``resync``: whoever gets
    that calls ``watch`` again. Every operation is O(1).
    """

    __slots__ = ("_dropped", "_first_notice", "_next_notice", "_waiting")

    def __init__(self) -> None:
        self._waiting: dict[str | int, bytes] = {}  # in the order of sending
        # Notices have consecutive numbers as keys, and leave in order: the first is the oldest.
        self._first_notice = self._next_notice = 0
        self._dropped = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, key: str | None, data: bytes) -> None:
        """Keep ``data`` until there is room; ``key`` None: a notice."""
        waiting = self._waiting
        if key is None:
            waiting[self._next_notice] = data
            self._next_notice += 1
            if self._next_notice - self._first_notice > NOTICE_LIMIT:
                self._drop(self._first_notice)
            return
        waiting.pop(key, None)  # so that it moves to the end
        waiting[key] = data
        notices = self._next_notice - self._first_notice
        if len(waiting) - notices > KEYED_LIMIT:
            # At most NOTICE_LIMIT steps: only notices can stand before it.
            self._drop(next(key for key in waiting if isinstance(key, str)))

    def pop(self) -> bytes:
        """The next to be sent."""
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            return wire.notification("resync", {"dropped": dropped})
        key = next(iter(self._waiting))
        if isinstance(key, int):
            self._first_notice = key + 1
        return self._waiting.pop(key)

    def _drop(self, key: str | int) -> None:
        del self._waiting[key]
        self._dropped += 1
        if isinstance(key, int):
            self._first_notice = key + 1


class _Breach(Exception):
    """No MessagePack-RPC, or not from this client: the conversation ends."""

    def __init__(self, msgid: int | None, reason: str, error: SpotokendError | None = None) -> None:
        super().__init__(reason)
        self.msgid = msgid
        self.reason = reason
        self.error = error or BadRequest(
            f"no MessagePack-RPC: {reason}",
            hint="the connection is closed; a request is [0, msgid, method, [{arguments}]]",
        )


def _parts(msgid: int, message: list[object]) -> tuple[str, list[object]]:
    """Method and params of a request."""
    if len(message) != 4:
        raise _Breach(msgid, "a request must have four elements")
    method, params = message[2], message[3]
    if isinstance(method, bytes):
        try:
            method = method.decode()
        except UnicodeDecodeError:
            raise _Breach(msgid, "method must be UTF-8") from None
    if not isinstance(method, str):
        raise _Breach(msgid, "method must be a string")
    if not isinstance(params, list):
        raise _Breach(msgid, "params must be an array")
    for parameter in params:
        if wire.too_deep(parameter, _PARAMETER_DEPTH):
            raise _Breach(msgid, f"nested more than {wire.DEPTH_LIMIT} levels deep")
    return method, params


def _named_arguments(params: list[object]) -> dict[object, object]:
    if not params:
        return {}
    if len(params) > 1 or not isinstance(params[0], dict):
        raise BadRequest(
            "params must hold one map of named arguments, or nothing",
            hint="for instance [0, 1, 'token', [{'account': 'main'}]]",
        )
    return params[0]
