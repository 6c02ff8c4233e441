"""MessagePack-RPC as published: the bytes of messages, and the limits on them.

Request ``[0, msgid, method, params]``, response ``[1, msgid, error, result]``, notification
``[2, method, params]``. This module turns bytes into such arrays and back and knows nothing of
what they mean. Source: https://github.com/msgpack-rpc/msgpack-rpc/blob/master/spec.md
"""

from __future__ import annotations

import msgpack

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself stays out of a client's import
    from collections.abc import Iterator

REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2

PROTOCOL = 1
"""Version of the methods and their results, as ``hello`` tells it."""

MESSAGE_LIMIT = 64 * 1024
"""Bytes of one message to the daemon. A token request has 40; nothing legitimate comes near."""
ARRAY_LIMIT = 64
MAP_LIMIT = 32
DEPTH_LIMIT = 8
MSGID_LIMIT = 2**32 - 1
"""The specification: msgid is a 32-bit unsigned integer."""

REPLY_LIMIT = 4 * 1024 * 1024
"""Bytes of one message from the daemon: a page of ``status`` is the largest."""
REPLY_ARRAY_LIMIT = 10_000
REPLY_MAP_LIMIT = 1_000

_SLICE = 16 * 1024
# What the unpacker gets at a time: it must never hold more than a message and a slice.
_HEAD = 24
# Bytes that an array's header, a kind and a msgid may take: 5, 9 and 9 in their longest forms.


class Malformed(ValueError):
    """The bytes are no MessagePack, or exceed a limit; the connection can't be resynchronised."""


class Decoder:
    """Bytes in, decoded messages out, at any boundaries; bounded in memory.

    Feed it and then iterate, to the end or until :meth:`reset`::

        for message in decoder.feed(data):
            ...

    It raises :class:`Malformed` once and is of no use afterwards. Text that arrives as str is
    ``str``; bin stays ``bytes``.

    It takes 41 KB, and half a message up to two hundred times its bytes: three make a header that
    promises an array of 64. Who has many conversations holds what isn't decoded as bytes, and
    resets the one decoder that they share.
    """

    __slots__ = (
        "_array_limit",
        "_fed",
        "_head",
        "_limit",
        "_map_limit",
        "_reset_at",
        "_start",
        "_unpacker",
    )

    def __init__(
        self,
        *,
        message_limit: int = MESSAGE_LIMIT,
        array_limit: int = ARRAY_LIMIT,
        map_limit: int = MAP_LIMIT,
    ) -> None:
        self._limit = message_limit
        self._array_limit = array_limit
        self._map_limit = map_limit
        self._fed = 0
        self._start = 0  # where in the stream the first incomplete message begins
        self._reset_at = 0  # what _start was then
        self._head = b""
        self._unpacker = self._new_unpacker()

    @property
    def incomplete(self) -> bool:
        """True while the first part of a message has arrived and the rest has not."""
        return self._fed > self._start

    def feed(self, data: bytes) -> Iterator[object]:
        """Yield each message that ``data`` completes.

        Raises:
            Malformed: no MessagePack, or over a limit.
        """
        unpacker = self._unpacker
        offset = 0
        while offset < len(data):
            room = self._limit - (self._fed - self._start)
            if not room:
                raise Malformed(f"a message of more than {self._limit} bytes")
            # In slices, so that a long pipeline of valid messages never fills the buffer.
            piece = data[offset : offset + min(room, _SLICE)]
            offset += len(piece)
            unpacker.feed(piece)
            self._fed += len(piece)
            while self._fed > self._start:
                try:
                    message = unpacker.unpack()
                except msgpack.OutOfData:
                    self._keep_head(piece)
                    break
                except (ValueError, TypeError) as error:
                    self._keep_head(piece)
                    # What the unpacker says may quote the input: only the kind is passed on.
                    raise Malformed(_reason(error)) from None
                self._start = unpacker.tell()
                yield message

    def reset(self) -> int:
        """Forget what is no whole message; how many of the bytes since the last reset were.

        The others have to be fed again.
        """
        decoded = self._start - self._reset_at
        if self._fed > self._start:
            self._unpacker = self._new_unpacker()
            self._fed = self._start = 0
        self._reset_at = self._start
        return decoded

    def malformed_request(self) -> int | None:
        """After :class:`Malformed`: the msgid, if it was a request and had got that far."""
        # The same limits again: what broke the message before its msgid breaks this too, and so
        # the answer does not depend on how the bytes were cut.
        unpacker = self._new_unpacker()
        unpacker.feed(self._head)
        try:
            # This call knows no limit of elements; a request has four.
            if unpacker.read_array_header() != 4:
                return None
            kind, msgid = unpacker.unpack(), unpacker.unpack()
        except (ValueError, TypeError, msgpack.OutOfData):
            return None
        return msgid if type(kind) is int and kind == REQUEST and is_msgid(msgid) else None

    def _keep_head(self, piece: bytes) -> None:
        begun_before = self._fed - len(piece) - self._start
        known = self._head if begun_before > 0 else b""
        self._head = (known + piece[max(-begun_before, 0) :][:_HEAD])[:_HEAD]

    def _new_unpacker(self) -> msgpack.Unpacker:
        return msgpack.Unpacker(
            raw=False,
            strict_map_key=False,
            # The default of a megabyte would be held by each idle connection.
            read_size=256,
            max_buffer_size=self._limit + _SLICE,
            max_str_len=self._limit,
            max_bin_len=self._limit,
            max_array_len=self._array_limit,
            max_map_len=self._map_limit,
            max_ext_len=0,
            ext_hook=_no_extensions,
        )


def is_half(data: bytes) -> bool:
    """True if ``data`` is the beginning of one message, and no more; builds nothing of it.

    False also if no message can begin so, as far as that is seen without building it.
    """
    unpacker = msgpack.Unpacker(read_size=256)
    unpacker.feed(data)
    try:
        unpacker.skip()
    except msgpack.OutOfData:
        return True
    except ValueError:
        return False
    return False


def is_msgid(value: object) -> bool:
    """True for an unsigned 32-bit integer."""
    return type(value) is int and 0 <= value <= MSGID_LIMIT


def _no_extensions(*_: object) -> object:
    raise ValueError("extension")


def _reason(error: Exception) -> str:
    if isinstance(error, msgpack.StackError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "a string that isn't UTF-8"
    if isinstance(error, TypeError):
        return "a map key that can't be one"
    text = str(error)
    for limit, what in (
        ("max_array_len", "an array of too many elements"),
        ("max_map_len", "a map of too many entries"),
        ("max_str_len", "a string that is too long"),
        ("max_bin_len", "binary data that is too long"),
        ("max_ext_len", "an extension type"),
        ("extension", "an extension type"),
    ):
        if limit in text:
            return what
    return "not MessagePack"


def too_deep(value: object, limit: int = DEPTH_LIMIT) -> bool:
    """True if arrays and maps are nested more than ``limit`` levels."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return False
    if limit == 0:
        return True
    for item in value:  # noqa: SIM110  any() makes a generator: twice the time, at each request
        if too_deep(item, limit - 1):
            return True
    return False


def pack(value: object) -> bytes:
    """The MessagePack of ``value``: maps, arrays, str, bin, numbers, bool, nil."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def unpack(packed: bytes) -> object:
    """The value of one whole message that this program packed itself."""
    value: object = msgpack.unpackb(packed)
    return value


def request(msgid: int, method: str, arguments: dict[str, object] | None = None) -> bytes:
    """``[0, msgid, method, params]``; params holds the map of named arguments, or nothing."""
    return pack([REQUEST, msgid, method, [arguments] if arguments else []])


def error_response(msgid: int, error: list[object]) -> bytes:
    """``[1, msgid, error, nil]``."""
    return pack([RESPONSE, msgid, error, None])


def result_response(msgid: int, packed_result: bytes) -> bytes:
    """``[1, msgid, nil, result]`` around a result that is packed already.

    The result of ``token`` is packed once a refresh, not once a request.
    """
    if msgid < 0x80:
        return b"\x94\x01" + msgid.to_bytes(1, "big") + b"\xc0" + packed_result
    return b"\x94\x01\xce" + msgid.to_bytes(4, "big") + b"\xc0" + packed_result


def notification(method: str, arguments: dict[str, object]) -> bytes:
    """``[2, method, [arguments]]``."""
    return pack([NOTIFICATION, method, [arguments]])
