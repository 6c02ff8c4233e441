"""The bytes of MessagePack-RPC, and the limits on them."""

from __future__ import annotations

import struct
import tracemalloc
from itertools import pairwise

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotokend import wire
from spotokend.wire import Decoder, Malformed

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=40)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(max_size=5) | st.integers(0, 9) | st.binary(max_size=5), inner)
    ),
    max_leaves=12,
)


def fed(decoder, pieces):
    return [message for piece in pieces for message in decoder.feed(piece)]


def cut(data, cuts):
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def refused(data, **limits):
    """Why ``data`` is malformed, in one piece and byte by byte alike."""
    reasons = set()
    for pieces in ([data], [bytes([byte]) for byte in data]):
        with pytest.raises(Malformed) as caught:
            fed(Decoder(**limits), pieces)
        reasons.add(str(caught.value))
    assert len(reasons) == 1
    return reasons.pop()


class TestDecoder:
    """Bytes in, messages out."""

    @given(st.lists(VALUES, max_size=5), st.lists(st.integers(0, 2**16), max_size=8))
    def test_any_split(self, messages, cuts):
        """However the bytes are cut, the same messages come out, and nothing stays inside."""
        data = b"".join(map(wire.pack, messages))
        decoder = Decoder()

        assert fed(decoder, cut(data, cuts)) == messages
        assert not decoder.incomplete

    @given(VALUES)
    def test_byte_by_byte(self, message):
        """A message is there with its last byte and not before."""
        data = wire.pack(message)
        decoder = Decoder()
        for byte in data[:-1]:
            assert list(decoder.feed(bytes([byte]))) == []
            assert decoder.incomplete
        assert list(decoder.feed(data[-1:])) == [message]

    @given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
    def test_garbage(self, data, cuts):
        """Any bytes are messages or malformed, the same in one piece or in many."""
        outcomes = []
        for pieces in ([data], cut(data, cuts)):
            messages = []
            try:
                decoder = Decoder()
                for piece in pieces:
                    messages.extend(map(repr, decoder.feed(piece)))
            except Malformed as error:
                messages.append(str(error))
            outcomes.append(messages)
        assert outcomes[0] == outcomes[1]

    def test_text_and_binary(self):
        """Text is str, and binary stays bytes."""
        assert list(Decoder().feed(b"\xa1x\xc4\x01x")) == ["x", b"x"]

    def test_nothing(self):
        """No bytes, no message."""
        decoder = Decoder()
        assert list(decoder.feed(b"")) == []
        assert not decoder.incomplete

    def test_long_pipeline(self):
        """Many messages at once may be longer than one is allowed to be."""
        message = wire.request(1, "token", {"account": "a" * 200})
        count = 3 * wire.MESSAGE_LIMIT // len(message)
        assert len(list(Decoder().feed(message * count))) == count

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"\xc1", "not MessagePack"),
            (b"\xa1\xff", "a string that isn't UTF-8"),
            (b"\x81\x90\x01", "a map key that can't be one"),
            (b"\x81\x80\x01", "a map key that can't be one"),
            (b"\xd4\x01x", "an extension type"),
            (b"\xd6\xff\x00\x00\x00\x01", "an extension type"),
            (b"\xc7\x00\x05", "an extension type"),
            (b"\xc9\xff\xff\xff\xff\x01", "an extension type"),
            (b"\xdc\x00\x41", "an array of too many elements"),
            (b"\xdd\xff\xff\xff\xff", "an array of too many elements"),
            (b"\xde\x00\x21", "a map of too many entries"),
            (b"\xdf\xff\xff\xff\xff", "a map of too many entries"),
            (b"\x91" * 5000, "nested too deeply"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_malformed(self, data, reason):
        """Each way to be wrong has its words."""
        assert refused(data) == reason

    def test_reason_quotes_nothing(self):
        """What was sent doesn't land in an error, and from there in a log."""
        reason = refused(b"\x81\xb0access-1-access-1\xa8\xff\xff\xff\xff\xff\xff\xff\xff")
        assert "access" not in reason

    def test_elements_at_the_edge(self):
        """64 elements and 32 entries are allowed, one more is not."""
        array, entries = list(range(64)), {n: n for n in range(32)}
        assert fed(Decoder(), [wire.pack(array), wire.pack(entries)]) == [array, entries]
        assert refused(wire.pack([*array, 64])) == "an array of too many elements"
        assert refused(wire.pack({**entries, 32: 32})) == "a map of too many entries"

    @pytest.mark.parametrize("limit", [wire.MESSAGE_LIMIT, 20_000, 100])
    @pytest.mark.parametrize("kind", [str, bytes])
    def test_size_at_the_edge(self, limit, kind):
        """A message of exactly the limit passes, also behind another; one byte more does not."""

        def message(size):
            filler = "x" * size if kind is str else b"x" * size
            headers = len(wire.pack([filler[:-10]])) - len(filler[:-10])
            return wire.pack([filler[headers:]])

        exact, more = message(limit), message(limit + 1)
        assert (len(exact), len(more)) == (limit, limit + 1)
        assert len(fed(Decoder(message_limit=limit), [exact + exact + exact[:1]])) == 2
        assert refused(more, message_limit=limit) == f"a message of more than {limit} bytes"

    def test_size_of_many_small_parts(self):
        """The limit counts the message, not its longest string."""
        parts = wire.pack(["x" * 30] * 4)
        assert refused(parts, message_limit=100) == "a message of more than 100 bytes"

    @pytest.mark.parametrize(
        "data",
        [
            b"\xdc\xff\xff",
            b"\xdc\x00\x40" * 1000,
            b"\xdd\xff\xff\xff\xff" * 1000,
            b"\xdf\xff\xff\xff\xff" * 1000,
            b"\xdb\xff\xff\xff\xff" + b"x" * 100_000,
            b"\xc6\x00\x00\xff\xf0" + b"x" * 60_000,
        ],
        ids=["array16", "nested", "array32", "map32", "str32", "bin32"],
    )
    def test_memory(self, data):
        """A header that promises much costs little: far from what it promises, whatever follows."""
        decoder = Decoder()
        tracemalloc.start()
        try:
            for offset in range(0, len(data), 1000):
                list(decoder.feed(data[offset : offset + 1000]))
        except Malformed:
            pass
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < 4 * wire.MESSAGE_LIMIT + 64 * 8 * 1000

    def test_limits_for_replies(self):
        """A client reads longer arrays than the daemon does."""
        array = list(range(1000))
        limits = {"array_limit": wire.REPLY_ARRAY_LIMIT, "message_limit": wire.REPLY_LIMIT}
        assert fed(Decoder(**limits), [wire.pack(array)]) == [array]


class TestReset:
    """One decoder for many conversations."""

    @given(st.lists(VALUES, max_size=4), st.binary(max_size=20), st.integers(0, 4))
    def test_bytes_that_were_messages(self, messages, rest, taken):
        """It tells how many of the bytes made whole messages, and forgets the others."""
        packed = [wire.pack(message) for message in messages]
        decoder = Decoder()
        for _ in range(2):
            fed = decoder.feed(b"".join(packed) + rest)
            out = [next(fed) for _ in range(min(taken, len(messages)))]
            assert out == messages[:taken]
            assert decoder.reset() == len(b"".join(packed[:taken]))
            assert not decoder.incomplete
        assert list(decoder.feed(b"\x93\x01\x02\x03")) == [[1, 2, 3]]
        assert decoder.reset() == 4
        assert decoder.reset() == 0


class TestHalf:
    """Whether there is a whole message, without building one."""

    @given(VALUES, st.binary(max_size=10))
    def test_half(self, message, more):
        """Each beginning is a half, the whole isn't, and what follows is no matter."""
        data = wire.pack(message)
        assert [wire.is_half(data[:size]) for size in range(1, len(data))] == [True] * (
            len(data) - 1
        )
        assert not wire.is_half(data + more)

    @pytest.mark.parametrize("data", [b"\xc1", b"\x92\x01\xc1", b"\x91" * 5000])
    def test_what_never_becomes_one(self, data):
        """That is for the decoder to refuse, now."""
        assert not wire.is_half(data)


class TestMalformedRequest:
    """The msgid of a request that broke: whom to answer."""

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b"\x94\x00\x07\xc1", 7),
            (b"\x94\x00\xce\xff\xff\xff\xff\xc1", wire.MSGID_LIMIT),
            (b"\xdd\x00\x00\x00\x04\xd3" + bytes(8) + b"\xcf" + bytes(7) + b"\x07\xc1", 7),
            (b"\x94\x00\x07\xa5token\x91\x81\xa1a\xd4\x01x", 7),
            (b"\x94\x00\xcf\x00\x00\x00\x01\x00\x00\x00\x00\xc1", None),
            (b"\x94\x00\xff\xc1", None),
            (b"\x94\x00\xc3\xc1", None),
            (b"\x94\x01\x07\xc1", None),
            (b"\x94\xc2\x07\xc1", None),
            (b"\x94\x00\xc1", None),
            (b"\xc1", None),
            (b"\xa5hello\xc1", None),
            (b"\xdc\xff\xff\x00\x07", None),
        ],
    )
    @pytest.mark.parametrize("before", [b"", b"\x94\x00\x09\xa1x\x90" * 3])
    def test_msgid(self, data, expected, before):
        """It is told if it had come, however the bytes were cut, and whatever came before."""
        whole = before + data
        for pieces in ([whole], [bytes([byte]) for byte in whole], cut(whole, [3, len(whole) - 2])):
            decoder = Decoder()
            with pytest.raises(Malformed):
                fed(decoder, pieces)
            assert decoder.malformed_request() == expected

    def test_too_large(self):
        """A request that is too large has an id, too."""
        data = wire.request(5, "token", {"account": "x" * wire.MESSAGE_LIMIT})
        for pieces in ([data], cut(data, [1, 2, 3, 50_000])):
            decoder = Decoder()
            with pytest.raises(Malformed):
                fed(decoder, pieces)
            assert decoder.malformed_request() == 5


class TestMessages:
    """What is sent."""

    def test_request(self):
        """Without arguments there is no map."""
        assert msgpack.unpackb(wire.request(7, "token")) == [0, 7, "token", []]
        assert msgpack.unpackb(wire.request(7, "token", {})) == [0, 7, "token", []]
        assert msgpack.unpackb(wire.request(7, "x", {"a": 1})) == [0, 7, "x", [{"a": 1}]]

    @pytest.mark.parametrize("msgid", [0, 1, 127, 128, 255, 65_536, wire.MSGID_LIMIT])
    def test_result(self, msgid):
        """A result that is packed already is put into a response."""
        response = wire.result_response(msgid, wire.pack({"a": [1]}))
        assert msgpack.unpackb(response) == [1, msgid, None, {"a": [1]}]

    def test_error(self):
        """An error stands where it should, and the result is nil."""
        response = wire.error_response(3, ["busy", "later", {}])
        assert msgpack.unpackb(response) == [1, 3, ["busy", "later", {}], None]

    def test_notification(self):
        """A notification has no id."""
        assert msgpack.unpackb(wire.notification("state", {"a": 1})) == [2, "state", [{"a": 1}]]

    @given(st.dictionaries(st.text(), SCALARS | st.lists(SCALARS)))
    def test_there_and_back(self, value):
        """What this program has packed it can unpack, whatever its size."""
        assert wire.unpack(wire.pack(value)) == value

    def test_unpack_knows_no_limit(self):
        """The limits are for what others send."""
        value = {"a": list(range(wire.REPLY_ARRAY_LIMIT + 1))}
        assert wire.unpack(wire.pack(value)) == value

    def test_float(self):
        """Times keep their full precision."""
        assert wire.pack(1.5) == b"\xcb" + struct.pack(">d", 1.5)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, True), (2**32 - 1, True), (2**32, False), (-1, False), (True, False), (1.0, False)],
)
def test_msgid(value, expected):
    """An id is an unsigned 32-bit integer, as the specification says."""
    assert wire.is_msgid(value) is expected


def test_depth():
    """Eight levels are allowed, of arrays and maps alike; a ninth isn't."""
    value: object = 1
    for level in range(8):
        value = [1, value] if level % 2 else {"k": value}
    assert not wire.too_deep(value)
    assert wire.too_deep([value])
    assert wire.too_deep({"k": value})
    assert not wire.too_deep("text")
    assert wire.too_deep((((),),), limit=2)
