"""One client's conversation: the laws of the socket, fed whole, byte by byte and at random."""

from __future__ import annotations

import itertools
import tracemalloc

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spotokend import wire
from spotokend.errors import Forbidden, LoginRequired, Unavailable
from spotokend.rules.session import (
    KEYED_LIMIT,
    NOTICE_LIMIT,
    UNANSWERED_LIMIT,
    UNREAD_LIMIT,
    Call,
    Mailbox,
    Session,
)

OK = wire.pack("ok")


def request(msgid=1, method="token", *params):
    """A request whose params hold whatever is wanted."""
    return wire.pack([wire.REQUEST, msgid, method, list(params)])


def decoded(data):
    """The messages that a client reads."""
    decoder = wire.Decoder(
        message_limit=wire.REPLY_LIMIT,
        array_limit=wire.REPLY_ARRAY_LIMIT,
        map_limit=wire.REPLY_MAP_LIMIT,
    )
    messages = list(decoder.feed(data))
    assert not decoder.incomplete
    return messages


def pump(session):
    """Answer all calls at once and take what comes out, as a transport that is never full."""
    calls, out = [], b""
    while True:
        while session.ready:
            if (call := session.next_call()) is not None:
                calls.append(call)
                session.reply(call.msgid, OK)
        out += session.take()
        session.unsent = 0
        if not session.ready:
            return calls, out


def converse(session, pieces):
    """A whole conversation: the calls, the output, and how it ended."""
    calls, out = [], b""
    for piece in pieces:
        session.receive(piece)
        more_calls, more_out = pump(session)
        calls += more_calls
        out += more_out
    half = session.incomplete
    session.end()
    state = (session.broken, session.ignored, session.received, half, session.finished)
    return calls, out, state


def answers(data, session=None):
    """What a client reads that sends this: its messages, and the words for the end."""
    _, out, (broken, *_) = converse(session or Session(), [data])
    return decoded(out), broken


def begin(session, *msgids):
    """Requests that are under way."""
    session.receive(b"".join(request(msgid) for msgid in msgids))
    calls = [session.next_call() for _ in msgids]
    assert [call.msgid for call in calls] == [*msgids]


class TestRequests:
    """What becomes a call, and what is answered at once."""

    def test_call(self):
        """A request becomes a call with clean arguments, and its reply a response."""
        session = Session()
        session.receive(request(7, "token", {"account": b"main", "min_ttl": 60, "other": 1}))
        assert session.next_call() == Call(7, "token", {"account": "main", "min_ttl": 60.0})
        assert session.next_call() is None
        assert session.take() == b""
        session.reply(7, OK)
        assert decoded(session.take()) == [[1, 7, None, "ok"]]

    def test_error(self):
        """A call can be answered with an error."""
        session = Session()
        begin(session, 7)
        session.fail(7, LoginRequired("log in", hint="spotokend login"))
        assert decoded(session.take()) == [
            [1, 7, ["login_required", "log in", {"hint": "spotokend login"}], None]
        ]

    @pytest.mark.parametrize("msgid", [0, 127, 128, 2**16, 2**32 - 1])
    def test_msgid(self, msgid):
        """Any unsigned 32-bit integer names a request."""
        assert answers(request(msgid)) == ([[1, msgid, None, "ok"]], None)

    def test_out_of_order(self):
        """Calls are answered in any order, each once."""
        session = Session()
        begin(session, 1, 2)
        session.reply(2, OK)
        session.reply(1, OK)
        assert [message[1] for message in decoded(session.take())] == [2, 1]
        with pytest.raises(KeyError):
            session.reply(2, OK)

    def test_msgid_again(self):
        """A msgid may be used again once it was answered."""
        calls, _, state = converse(Session(), [request(1), request(1)])
        assert len(calls) == 2
        assert state[0] is None

    def test_method_in_bin(self):
        """Old libraries send strings as bin."""
        assert answers(wire.pack([0, 1, b"token", [{b"account": b"a"}]]))[1] is None

    @pytest.mark.parametrize(
        ("data", "code", "words"),
        [
            (request(1, "tokn"), "unknown_method", "there is no method 'tokn'"),
            (request(1, "logout"), "bad_request", "logout: account is missing"),
            (request(1, "token", 1), "bad_request", "params must hold one map"),
            (request(1, "token", None), "bad_request", "params must hold one map"),
            (request(1, "token", {}, {}), "bad_request", "params must hold one map"),
            (request(1, "token", {1: 2}), "bad_request", "token: the name of an argument"),
        ],
    )
    def test_bad_request(self, data, code, words):
        """A call that can't be made is answered here, and the conversation goes on."""
        messages, broken = answers(data + request(2))
        assert broken is None
        error, ok = messages
        assert (error[:2], error[2][0], error[3]) == ([1, 1], code, None)
        assert error[2][1].startswith(words)
        assert error[2][2]["hint"]
        assert ok == [1, 2, None, "ok"]

    @pytest.mark.parametrize("params", [[], {}, None, [[]], "x", list(range(64))])
    def test_notification(self, params):
        """Notifications of a client are dropped and counted, whatever they hold."""
        ignored = wire.pack([2, 5, params])
        calls, out, state = converse(Session(), [ignored, ignored, request(1)])
        assert len(calls) == 1
        assert decoded(out) == [[1, 1, None, "ok"]]
        assert state == (None, 2, 3, False, True)


class TestNoRpc:
    """What ends a conversation."""

    @pytest.mark.parametrize(
        "data",
        [
            wire.pack(None),
            wire.pack(0),
            wire.pack({}),
            wire.pack([]),
            wire.pack([[]]),
            wire.pack([0]),
            wire.pack([False, 1, "token", []]),
            wire.pack([0.0, 1, "token", []]),
            wire.pack([3, 1, "token", []]),
            wire.pack([-1, 1, "token", []]),
            wire.pack([0, -1, "token", []]),
            wire.pack([0, 2**32, "token", []]),
            wire.pack([0, True, "token", []]),
            wire.pack([0, "1", "token", []]),
            wire.pack([1, 1, None, None]),
            wire.pack([2, "hello"]),
            b"\xc1",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x94\x00\xc7\x01\x05\x00",
            b"\xdc\x00\x41" + b"\x00" * 65,
            b"\x94\x00\xd9" + b"\x05\xff\xff\xff\xff\xff",
            b"\xdb\x00\x01\x00\x01" + b"x" * 65_537,
        ],
    )
    def test_without_msgid(self, data):
        """Where no msgid is known nothing is said, and nothing that follows is read."""
        messages, broken = answers(data + request(1))
        assert messages == []
        assert broken

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (wire.pack([0, 1]), "a request must have four elements"),
            (wire.pack([0, 1, "token"]), "a request must have four elements"),
            (wire.pack([0, 1, "token", [], []]), "a request must have four elements"),
            (wire.pack([0, 1, 5, []]), "method must be a string"),
            (wire.pack([0, 1, b"\xff", []]), "method must be UTF-8"),
            (wire.pack([0, 1, "token", {}]), "params must be an array"),
            (wire.pack([0, 1, "token", None]), "params must be an array"),
            (request(1, "token", {"a": [[[[[[]]]]]]}), "nested more than 8 levels deep"),
            (b"\x94\x00\x01\xa1t\x91\x81\xa1x\xd4\x05\x00", "an extension type"),
            (b"\x94\x00\x01\xa1t\x91\x81\xa1x\xd6\xff\x00\x00\x00\x00", "an extension type"),
            (request(1, "token", {"a": list(range(65))}), "an array of too many elements"),
            (request(1, "token", {str(n): n for n in range(33)}), "a map of too many entries"),
            (request(1, "token", {"a": "x" * 65_530}), "a message of more than 65536 bytes"),
            (b"\x94\x00\x01\xa1t\x91\x81\xa1\xff\x01", "a string that isn't UTF-8"),
            (b"\x94\x00\x01\xa1t\x91\x81\x90\x01", "a map key that can't be one"),
            (b"\x94\x00\x01\xa1t\xc1", "not MessagePack"),
            (b"\x94\x00\x01" + b"\x91" * 2000, "nested too deeply"),
        ],
    )
    def test_with_msgid(self, data, words):
        """Where the msgid is known its request is told why, once; the rest is not read."""
        messages, broken = answers(data + request(2))
        assert broken == words
        [[kind, msgid, [code, message, details], result]] = messages
        assert (kind, msgid, code, result) == (1, 1, "bad_request", None)
        assert message == f"no MessagePack-RPC: {words}"
        assert details["hint"].startswith("the connection is closed")

    def test_at_the_limits(self):
        """What just keeps within the limits is a request."""
        wide = {str(n): list(range(64)) for n in range(32)}
        deep = {"a": [[[[[]]]]]}
        for argument in (wide, deep, {"a": "x" * 65_500}):
            assert answers(request(1, "token", argument)) == ([[1, 1, None, "ok"]], None)

    def test_msgid_in_flight(self):
        """A msgid that is under way can't be used: its answers couldn't be told apart."""
        session = Session()
        begin(session, 1, 2)
        session.receive(request(1))
        assert session.next_call() is None
        [[_, msgid, [code, message, _], _]] = decoded(session.take())
        assert (msgid, code) == (1, "bad_request")
        assert "still under way" in message
        assert session.finished

    def test_afterwards(self):
        """After the end nothing is heard, answered, offered or wanted."""
        session = Session()
        begin(session, 1)
        session.receive(b"\xc1")
        assert session.next_call() is None
        assert session.finished
        assert not session.wants_input
        session.receive(request(2))
        session.reply(1, OK)
        session.fail(1, Unavailable("late"))
        session.offer(None, OK)
        assert session.next_call() is None
        assert session.take() == b""

    def test_nothing_is_kept(self):
        """What arrived before the end, also in halves, is gone; nobody waits for the rest of it."""
        session = Session()
        session.receive(b"\xc1" + request(1) + request(2)[:4])
        assert session.next_call() is None
        assert (session.waiting, session.incomplete, session.ready) == (0, False, False)

    @pytest.mark.parametrize(
        ("message", "words"),
        [
            ({}, "a message must be an array that begins with its type"),
            ([], "a message must be an array that begins with its type"),
            ([True, 1, "token", []], "a message must be an array that begins with its type"),
            ([1, 1, None, None], "a daemon understands requests with a msgid, nothing else"),
            ([2, "hello"], "a daemon understands requests with a msgid, nothing else"),
            ([0], "a daemon understands requests with a msgid, nothing else"),
            ([0, "1", "token", []], "a daemon understands requests with a msgid, nothing else"),
        ],
    )
    def test_words(self, message, words):
        """The log says what kind of nonsense it was."""
        assert answers(wire.pack(message)) == ([], words)

    def test_hints(self):
        """Each of them shows how a request is made."""
        session = Session()
        begin(session, 1)
        session.receive(request(2, "token", 5) + request(1))
        assert session.next_call() is None
        assert session.next_call() is None
        assert [error for _, _, error, _ in decoded(session.take())] == [
            [
                "bad_request",
                "params must hold one map of named arguments, or nothing",
                {"hint": "for instance [0, 1, 'token', [{'account': 'main'}]]"},
            ],
            [
                "bad_request",
                "no MessagePack-RPC: this msgid belongs to a request that is still under way",
                {
                    "hint": (
                        "the connection is closed; a request is [0, msgid, method, [{arguments}]]"
                    )
                },
            ],
        ]

    def test_refusal(self):
        """A client that may not ask gets one error, whatever it asks, and no more."""
        session = Session(refusal=Forbidden("not you", hint="ask as the right one"))
        calls, out, (broken, *_) = converse(session, [request(1, "nothing"), request(2)])
        assert calls == []
        assert decoded(out) == [
            [1, 1, ["forbidden", "not you", {"hint": "ask as the right one"}], None]
        ]
        assert broken == "not you"

    def test_dismissed(self):
        """From this side: every call under way is answered, then it is the end."""
        session = Session()
        begin(session, 5, 3)
        session.dismiss(Unavailable("stopping"))
        error = ["unavailable", "stopping", {}]
        assert decoded(session.take()) == [[1, 3, error, None], [1, 5, error, None]]
        assert session.finished


class TestLimits:
    """Back-pressure, and what the server's deadlines need to know."""

    def test_unanswered(self):
        """With 64 under way no more is decoded; each answer lets one more in, none is lost."""
        session = Session()
        session.receive(b"".join(request(msgid) for msgid in range(UNANSWERED_LIMIT + 2)))
        calls = list(iter(session.next_call, None))
        assert [call.msgid for call in calls] == [*range(UNANSWERED_LIMIT)]
        assert not session.wants_input
        assert not session.ready
        session.reply(9, OK)
        assert session.ready
        assert [call.msgid for call in iter(session.next_call, None)] == [UNANSWERED_LIMIT]
        session.reply(8, OK)
        assert session.next_call().msgid == UNANSWERED_LIMIT + 1
        assert not session.wants_input
        session.reply(7, OK)
        assert session.wants_input

    def test_unread(self):
        """With 64 KiB of output unread no more is decoded, until the transport got rid of it."""
        session = Session()
        session.receive(request(1) + request(2))
        session.reply(session.next_call().msgid, wire.pack("x" * UNREAD_LIMIT))
        assert session.next_call() is None
        out = session.take()
        assert session.unsent == len(out) > UNREAD_LIMIT
        assert not session.wants_input
        session.unsent = UNREAD_LIMIT
        assert session.wants_input
        assert session.next_call().msgid == 2

    def test_errors_count(self):
        """Errors that are made here are output, too: a flood of bad requests is bounded."""
        session = Session()
        session.receive(b"".join(request(msgid, "x") for msgid in range(2000)))
        while session.ready:
            assert session.next_call() is None
        assert UNREAD_LIMIT < len(session.take()) < UNREAD_LIMIT + 1000
        assert session.received < 2000

    def test_received_while_full(self):
        """What arrives although nothing was wanted is kept, in order."""
        session = Session()
        begin(session, *range(UNANSWERED_LIMIT))
        session.receive(request(100)[:3])
        session.receive(request(100)[3:] + request(101))
        assert session.next_call() is None
        assert not session.incomplete
        for msgid in range(UNANSWERED_LIMIT):
            session.reply(msgid, OK)
        calls, _ = pump(session)
        assert [call.msgid for call in calls] == [100, 101]

    def test_half_message(self):
        """Half a message is known as such, unless it is this side that doesn't read on."""
        session = Session()
        session.receive(request(1) + request(2)[:4])
        assert not session.incomplete
        assert session.next_call().msgid == 1
        assert session.next_call() is None
        assert session.incomplete
        session.reply(1, wire.pack("x" * UNREAD_LIMIT))
        assert not session.incomplete
        session.take()
        session.unsent = 0
        assert session.incomplete
        assert session.received == 1
        session.receive(request(2)[4:])
        assert session.next_call().msgid == 2
        assert not session.incomplete

    def test_end_of_file(self):
        """A client that sends no more still gets its answers; half a message is forgotten."""
        session = Session()
        begin(session, 1)
        session.receive(request(2) + b"\x94")
        session.end()
        assert not session.wants_input
        assert not session.finished
        assert session.next_call().msgid == 2
        session.reply(1, OK)
        assert session.next_call() is None
        assert not session.finished
        session.receive(request(3))
        session.reply(2, OK)
        assert session.finished
        assert len(decoded(session.take())) == 2

    def test_a_turn_may_end_anywhere(self):
        """What was not decoded in one turn is decoded in the next, as if there had been no end."""
        session = Session()
        session.receive(request(1) + wire.notification("hi", {}) + request(2) + request(3)[:5])
        assert session.next_call().msgid == 1
        session.take()
        assert session.ready
        assert session.next_call() is None
        session.take()
        assert session.ready
        assert session.next_call().msgid == 2
        session.take()
        assert session.waiting == 5
        assert not session.incomplete
        assert session.next_call() is None
        assert session.incomplete
        assert not session.ready
        session.receive(request(3)[5:])
        assert session.next_call().msgid == 3
        session.take()
        assert session.waiting == 0

    def test_the_decoder_is_shared(self):
        """Between turns nobody holds it, whatever has arrived; what breaks it takes it away."""
        spare = []
        one, two, three = (Session(spare=spare) for _ in range(3))
        one.receive(request(1)[:5])
        assert pump(one) == ([], b"")
        [decoder] = spare
        two.receive(request(2) + request(3))
        assert two.next_call().msgid == 2
        assert spare == []
        two.take()
        assert spare == [decoder]
        one.receive(request(1)[5:])
        assert [call.msgid for call in pump(one)[0]] == [1]
        assert [call.msgid for call in pump(two)[0]] == [3]
        assert spare == [decoder]
        three.receive(b"\xc1")
        assert three.next_call() is None
        assert spare == []

    @pytest.mark.parametrize(
        "begin",
        [
            b"\xdc\x00\x40" * 340,
            b"\xdc\x00\x40" + (b"\xdc\x00\x40" + b"\x90" * 63) * 63,
            b"\xdc\x00\x40" + b"\xdc\x00\x40" * 7 + (b"\x94" + b"\xcd\x01\x01" * 4) * 63,
            b"\xc6\x00\x00\xff\x00" + b"x" * 60_000,
        ],
        ids=["nested", "arrays", "numbers", "text"],
    )
    def test_memory_of_half_a_message(self, begin):
        """A hundred halves cost their bytes: headers that promise arrays, and what they hold, none."""
        spare = []
        sessions = [Session(spare=spare) for _ in range(100)]
        pump(sessions[0])
        tracemalloc.start()
        try:
            for session in sessions:
                session.receive(begin[:1500])
                pump(session)
                session.receive(begin[1500:])
                pump(session)
                assert session.incomplete
            size, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert size < len(sessions) * (len(begin) + 500) + 50_000

    def test_half_a_large_message(self):
        """It isn't built in vain with each byte that comes, and is a call with its last one."""
        data = request(7, "token", {"a": ["x" * 50, *([[]] * 63)], "b": "y" * 9000})
        spare = []
        session = Session(spare=spare)
        session.receive(data[:5000])
        assert pump(session) == ([], b"")
        assert spare == []
        for n in range(5000, len(data) - 1):
            session.receive(data[n : n + 1])
            assert pump(session) == ([], b"")
            assert session.incomplete
        assert spare == []
        session.receive(data[-1:])
        assert [call.msgid for call in pump(session)[0]] == [7]


class TestMailbox:
    """Notifications to the client wait for room."""

    def test_offered(self):
        """Replies go first, then what was offered, in its order."""
        session = Session()
        begin(session, 1)
        session.offer("a", wire.notification("token", {"n": 1}))
        session.offer(None, wire.notification("notice", {"n": 2}))
        session.reply(1, OK)
        assert decoded(session.take()) == [
            [1, 1, None, "ok"],
            [2, "token", [{"n": 1}]],
            [2, "notice", [{"n": 2}]],
        ]
        assert session.take() == b""

    def test_waits_for_room(self):
        """While 64 KiB are unread nothing more is sent; then no more than there is room for."""
        session = Session()
        session.unsent = UNREAD_LIMIT + 1
        for n in range(3):
            session.offer(str(n), wire.pack(str(n) * UNREAD_LIMIT))
        assert session.take() == b""
        session.unsent = 0
        assert decoded(session.take()) == ["0" * UNREAD_LIMIT]
        session.unsent = 0
        assert decoded(session.take()) == ["1" * UNREAD_LIMIT]

    def test_newest_wins(self):
        """Of one key only the newest is sent, at its own place."""
        session = Session()
        for key, data in (("a", 1), ("b", 2), ("a", 3)):
            session.offer(key, wire.pack(data))
        assert decoded(session.take()) == [2, 3]

    def test_too_many_notices(self):
        """The oldest notices are dropped, counted and told; tokens stay."""
        session = Session()
        session.offer("a", wire.pack("token"))
        for n in range(NOTICE_LIMIT + 3):
            session.offer(None, wire.pack(n))
        resync, token, *notices = decoded(session.take())
        assert resync == [2, "resync", [{"dropped": 3}]]
        assert token == "token"
        assert notices == [*range(3, NOTICE_LIMIT + 3)]

    def test_too_many_after_some_were_sent(self):
        """What counts is how many wait, not how many there have been."""
        mailbox = Mailbox()
        for n in range(NOTICE_LIMIT):
            mailbox.put(None, b"%d" % n)
        assert [mailbox.pop() for _ in range(3)] == [b"0", b"1", b"2"]
        for n in range(3):
            mailbox.put(None, b"more %d" % n)
        for n in range(KEYED_LIMIT):
            mailbox.put(str(n), b"%d" % n)
        assert mailbox.pop() == b"3"
        mailbox.put(None, b"last")
        mailbox.put(None, b"one too many")
        assert decoded(mailbox.pop()) == [[2, "resync", [{"dropped": 1}]]]
        assert mailbox.pop() == b"5"

    def test_too_many_tokens(self):
        """The oldest tokens are dropped, whatever stands before them."""
        mailbox = Mailbox()
        mailbox.put(None, b"notice")
        for n in range(KEYED_LIMIT + 2):
            mailbox.put(str(n), b"%d" % n)
        out = []
        while mailbox:
            out.append(mailbox.pop())
        assert decoded(out[0]) == [[2, "resync", [{"dropped": 2}]]]
        assert out[1:] == [b"notice", *(b"%d" % n for n in range(2, KEYED_LIMIT + 2))]

    @given(st.lists(st.sampled_from(["a", "b", None, "pop"]), max_size=40))
    def test_model(self, steps):
        """As a list in which a key replaces its predecessor; without a bound reached."""
        mailbox, model = Mailbox(), []
        for number, step in enumerate(steps):
            data = b"%d" % number
            if step != "pop":
                mailbox.put(step, data)
                model = [item for item in model if step is None or item[0] != step]
                model.append((step, data))
            elif model:
                assert mailbox.pop() == model.pop(0)[1]
            assert bool(mailbox) == bool(model)


MSGPACK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
)
MSGIDS = st.integers(0, 3) | st.integers(-1, 2**32)
METHODS = st.sampled_from(["token", b"status", "logout", "nothing"])
MESSAGES = st.one_of(
    st.tuples(st.just(0), MSGIDS, METHODS, st.just([])).map(wire.pack),
    st.tuples(st.just(0), MSGIDS, METHODS, st.tuples(MSGPACK)).map(wire.pack),
    st.tuples(st.just(2), MSGPACK, MSGPACK).map(wire.pack),
    st.tuples(st.integers(0, 3), MSGPACK, MSGPACK, MSGPACK).map(wire.pack),
    MSGPACK.map(wire.pack),
    st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=4)).map(msgpack.packb),
)


class TestCuts:
    """However the bytes are cut, the conversation is the same."""

    @given(st.lists(MESSAGES, max_size=8), st.binary(max_size=8), st.data())
    def test_cuts(self, messages, rest, data):
        """Whole, byte by byte and at random places."""
        stream = b"".join(messages) + rest
        whole = converse(Session(), [stream])
        assert converse(Session(), (stream[n : n + 1] for n in range(len(stream)))) == whole
        places = data.draw(st.lists(st.integers(0, len(stream)), max_size=6).map(sorted))
        pieces = [stream[a:b] for a, b in itertools.pairwise([0, *places, len(stream)])]
        assert converse(Session(), pieces) == whole

    @pytest.mark.parametrize("size", [65_519, 65_520, 65_521, 65_600])
    def test_the_limit(self, size):
        """Around the limit of a message, too, and behind another message."""
        stream = request(1) + request(2, "token", {"a": "x" * size}) + request(3)
        whole = converse(Session(), [stream])
        for step in (999, 16_384, 65_535, 65_536, 65_537):
            pieces = (stream[n : n + step] for n in range(0, len(stream), step))
            assert converse(Session(), pieces) == whole
        single_bytes = (stream[n : n + 1] for n in range(65_500, len(stream)))
        assert converse(Session(), [stream[:65_500], *single_bytes]) == whole

    def test_long_pipeline(self):
        """A pipeline far longer than a message may be is fine, in one piece."""
        stream = b"".join(request(msgid) for msgid in range(12_000))
        calls, out, state = converse(Session(), [stream])
        assert len(stream) > 2 * wire.MESSAGE_LIMIT
        assert [call.msgid for call in calls] == [*range(12_000)]
        assert len(decoded(out)) == 12_000
        assert state[0] is None

    @given(st.binary(max_size=200))
    def test_garbage(self, garbage):
        """Any bytes: responses to what asked, perhaps the end, and no other outcome."""
        session = Session()
        calls, out, (broken, ignored, received, half, finished) = converse(session, [garbage])
        assert finished
        assert all(message[0] == wire.RESPONSE for message in decoded(out))
        assert len(calls) + ignored <= received <= len(garbage)
        assert not (broken and half)


class Conversation(RuleBasedStateMachine):
    """A client that sends and reads as it likes, a server that answers as it likes."""

    def __init__(self):
        super().__init__()
        self.session = Session()
        self.line = b""
        """Sent by the client, not yet received."""
        self.msgids = itertools.count()
        self.asked = []
        self.under_way = []
        self.answered = []
        self.transport = b""
        """Taken over by the transport, not yet read by the client."""
        self.read = b""
        self.offered = 0

    @rule(count=st.integers(1, 40), notify=st.booleans())
    def ask(self, count, notify):
        """The client sends some requests, perhaps behind a notification."""
        if notify:
            self.line += wire.notification("hello", {})
        for msgid in itertools.islice(self.msgids, count):
            self.line += request(msgid)
            self.asked.append(msgid)

    @precondition(lambda self: self.line and self.session.wants_input)
    @rule(share=st.floats(0, 1))
    def arrive(self, share):
        """Some of it arrives."""
        size = max(1, int(len(self.line) * share))
        piece, self.line = self.line[:size], self.line[size:]
        self.session.receive(piece)
        self.advance()

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), size=st.sampled_from([1, 5000, 70_000]), good=st.booleans())
    def answer(self, data, size, good):
        """A call is answered."""
        msgid = data.draw(st.sampled_from(self.under_way))
        self.under_way.remove(msgid)
        self.answered.append(msgid)
        if good:
            self.session.reply(msgid, wire.pack("x" * size))
        else:
            self.session.fail(msgid, Unavailable("later"))
        self.advance()

    @rule(count=st.integers(1, 400))
    def offer(self, count):
        """Notices are offered."""
        for _ in range(count):
            self.session.offer(None, wire.notification("notice", {"n": self.offered}))
            self.offered += 1
        self.advance()

    @rule(share=st.floats(0, 1))
    def read_some(self, share):
        """The client reads some of what the transport holds."""
        size = int(len(self.transport) * share)
        self.read += self.transport[:size]
        self.transport = self.transport[size:]
        self.advance()

    def advance(self):
        self.session.unsent = len(self.transport)
        while True:
            while self.session.ready:
                if (call := self.session.next_call()) is not None:
                    self.under_way.append(call.msgid)
            self.transport += self.session.take()
            assert self.session.unsent == len(self.transport)
            if not self.session.ready:
                return

    @invariant()
    def within_bounds(self):
        """The limits hold."""
        assert len(self.under_way) <= UNANSWERED_LIMIT
        full = len(self.under_way) == UNANSWERED_LIMIT or len(self.transport) > UNREAD_LIMIT
        assert self.session.wants_input == (not full)

    def teardown(self):
        """In the end everything is asked and answered once, in order, and no notice is unaccounted."""
        while self.line or self.under_way or self.transport:
            if self.line and self.session.wants_input:
                self.session.receive(self.line)
                self.line = b""
            self.advance()
            for msgid in self.under_way:
                self.session.reply(msgid, OK)
                self.answered.append(msgid)
            self.under_way.clear()
            self.advance()
            self.read += self.transport
            self.transport = b""
            self.advance()
        messages = decoded(self.read)
        assert [message[1] for message in messages if message[0] == 1] == self.answered
        assert sorted(self.answered) == self.asked
        notices = [message[2][0]["n"] for message in messages if message[1] == "notice"]
        dropped = sum(message[2][0]["dropped"] for message in messages if message[1] == "resync")
        assert notices == sorted(set(notices))
        assert len(notices) + dropped == self.offered
        assert self.session.broken is None


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=40, stateful_step_count=30)
