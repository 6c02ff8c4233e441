"""One connection in virtual time: a scripted stream, and a clock that jumps to what is waited for."""

import re

import anyio
import anyio.abc
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from spotokend.sandbox.conversation import Conversation, Limits
from spotokend.sandbox.messages import Cut, Response, json_response

pytestmark = pytest.mark.anyio
GET = b"GET /v1/me HTTP/1.1\r\nhost: a\r\n\r\n"
LIMITS = Limits(header=1000, body=1000)
FOREVER = float("inf")


@pytest.fixture
def anyio_backend():
    """A clock of its own for each test."""
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


class Stream(anyio.abc.ByteStream):
    """Receives what the script says: bytes, seconds to wait, an exception, or nothing for ever."""

    def __init__(self, *script, blocked=False):
        self.script = list(script)
        self.sent = b""
        self.ended = False
        self.blocked = blocked

    async def receive(self, max_bytes=65536):
        while self.script:
            step = self.script[0]
            if isinstance(step, int | float):
                await anyio.sleep(step)
            del self.script[0]
            if isinstance(step, bytes):
                return step
            if isinstance(step, Exception):
                raise step
        raise anyio.EndOfStream

    async def send(self, item):
        if self.blocked:
            await anyio.sleep_forever()
        self.sent += item

    async def send_eof(self):
        self.ended = True

    async def aclose(self):
        pass

    @property
    def statuses(self):
        return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", self.sent)]


async def converse(*script, response=None, released=None, blocked=False):
    """The stream after the conversation, the requests answered, and the seconds that passed."""
    stream = Stream(*script, blocked=blocked)
    requests = []

    def answer(request):
        requests.append(request)
        return response or json_response(200, {"number": len(requests)})

    async def at_once(_fault_id):
        pass

    start = anyio.current_time()
    conversation = Conversation(stream, LIMITS, answer=answer, released=released or at_once)
    await conversation.run()
    return stream, requests, round(anyio.current_time() - start, 3)


async def test_a_connection_is_kept_for_the_next_request():
    """One after the other, or sent together."""
    stream, requests, _ = await converse(GET, 5, GET + GET)
    assert stream.statuses == [200, 200, 200]
    assert stream.sent.endswith(b'{"number":3}')
    assert [request.path for request in requests] == ["/v1/me"] * 3


async def test_connection_close_is_heeded():
    """Nothing more is read."""
    stream, _, _ = await converse(GET.replace(b"host: a", b"host: a\r\nconnection: close"), FOREVER)
    assert stream.statuses == [200]


async def test_a_request_arrives_in_any_pieces():
    """Byte by byte is as good as at once."""
    body = (
        b"POST /api/token?a=b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX: 1\r\nX: 2\r\n\r\nabc"
    )
    whole = await converse(body)
    pieces = await converse(*(bytes([byte]) for byte in body))
    assert whole[1] == pieces[1]
    (request,) = whole[1]
    assert (request.method, request.path, request.query) == ("POST", "/api/token", "a=b")
    assert (request.body, request.headers["x"]) == (b"abc", "1, 2")


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://accounts.example.test/authorize?a=b", "/authorize", "a=b"),
        (b"http://accounts.example.test", "/", ""),
        (b"http://accounts.example.test?a", "/", "a"),
        (b"//double", "//double", ""),
        (b"*", "*", ""),
    ],
)
async def test_targets(target, path, query):
    """A client that takes the sandbox for its proxy sends the whole address."""
    _, (request,), _ = await converse(GET.replace(b"/v1/me", target))
    assert (request.path, request.query) == (path, query)


async def test_an_expectation_is_met():
    """100 before the body, as curl waits for it."""
    head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\nexpect: 100-continue\r\n\r\n"
    stream, (request,), _ = await converse(head, b"x")
    assert stream.statuses == [100, 200]
    assert request.body == b"x"


async def test_head_has_no_body():
    """Asked as GET, its length is told and the body isn't sent."""
    stream, (request,), _ = await converse(GET.replace(b"GET", b"HEAD"))
    assert request.method == "GET"
    assert b"content-length: 12" in stream.sent
    assert stream.sent.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("status", [204, 304])
async def test_statuses_without_a_body(status):
    """Neither body nor length (RFC 9110, 8.6)."""
    stream, _, _ = await converse(GET, response=json_response(status, {}))
    assert b"content-length" not in stream.sent
    assert stream.sent.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ((b"\x16\x03\x01\x02\x00\x01garbage\r\n\r\n",), 400),
        ((b"GET / HTTP/1.1\r\n\r\n",), 400),
        ((b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"x" * 2000,), 431),
        ((b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2000\r\n\r\n", b"x" * 1001), 413),
        ((b"GET / HTTP/1.1\r\n",), 400),
    ],
)
async def test_what_is_no_request_is_turned_away(script, status):
    """With the reason; then the connection ends, and nothing is answered by the provider."""
    stream, requests, _ = await converse(*script)
    assert stream.statuses == [status]
    assert (stream.ended, requests) == (True, [])


async def test_a_silent_client_is_left_after_a_minute():
    """Without a word: it has asked nothing."""
    stream, _, seconds = await converse(FOREVER)
    assert (stream.sent, seconds) == (b"", 60)


@pytest.mark.parametrize("script", [(b"GET /", FOREVER), [b"G", 1] * 100])
async def test_a_slow_request_is_turned_away_after_ten_seconds(script):
    """Silence and single bytes are the same: the request as a whole has a deadline."""
    stream, _, seconds = await converse(*script)
    assert stream.statuses == [408]
    assert 10 <= seconds <= 11


async def test_lingering_ends_too():
    """Somebody who goes on sending after having been turned away is left after a second."""
    stream, _, seconds = await converse(b"garbage\r\n\r\n", *([b"x", 0.3] * 100))
    assert (stream.statuses, seconds) == ([400], 1)


async def test_a_client_that_does_not_read_is_left():
    """Half a minute for one response."""
    start = anyio.current_time()
    with pytest.raises(TimeoutError):
        await converse(GET, blocked=True)
    assert anyio.current_time() - start == 30


async def test_a_delayed_response():
    """Late by what it says."""
    stream, _, seconds = await converse(GET, response=Response(status=200, delay=7.0))
    assert (stream.statuses, seconds) == ([200], 7)


async def test_a_cut():
    """Not a byte, and nothing more is read."""
    stream, requests, _ = await converse(GET, GET, response=Response(status=0, cut=Cut.UNANSWERED))
    assert (stream.sent, len(requests)) == (b"", 1)


@pytest.mark.parametrize("body", [b"0123456789", b""])
async def test_a_cut_in_the_middle(body):
    """Less than what was announced."""
    stream, _, _ = await converse(
        GET, GET, response=Response(status=200, body=body, cut=Cut.HALFWAY)
    )
    head, _, sent = stream.sent.partition(b"\r\n\r\n")
    assert f"content-length: {max(len(body), 1)}".encode() in head
    assert sent == body[: len(body) // 2]


async def after_five_seconds(_fault_id):
    await anyio.sleep(5)


HELD = Response(status=200, body=b"late", held_by=1)


async def test_a_held_response_comes_once_it_is_released():
    """And the connection goes on."""
    stream, _, seconds = await converse(GET, FOREVER, response=HELD, released=after_five_seconds)
    assert (stream.statuses, seconds) == ([200], 65)


async def test_a_held_request_that_was_not_served_ends_without_an_answer():
    """When it is released the connection is closed."""
    response = Response(status=0, held_by=1, cut=Cut.UNANSWERED)
    stream, _, seconds = await converse(
        GET, FOREVER, response=response, released=after_five_seconds
    )
    assert (stream.sent, seconds) == (b"", 5)


@pytest.mark.parametrize("end", [(), (anyio.BrokenResourceError(),)])
async def test_whoever_hangs_up_is_not_waited_for(end):
    """The connection ends at once; the fault may stay on for days."""
    stream, _, seconds = await converse(GET, 2, *end, response=HELD, released=after_five_seconds)
    assert (stream.sent, seconds) == (b"", 2)


async def test_a_request_that_comes_meanwhile_is_kept():
    """It is answered after the one that is held."""
    stream, requests, _ = await converse(
        GET, 1, GET, FOREVER, response=HELD, released=after_five_seconds
    )
    assert (stream.statuses, len(requests)) == ([200, 200], 2)


async def test_a_flood_meanwhile_ends_the_connection():
    """What is kept is bounded."""
    stream, requests, _ = await converse(
        GET, 1, b"x" * 2000, FOREVER, response=HELD, released=after_five_seconds
    )
    assert (stream.sent, len(requests)) == (b"", 1)


@given(pieces=st.lists(st.binary(max_size=40) | st.just(GET), max_size=6))
def test_any_bytes_end_in_order(pieces):
    """Nothing that is sent raises, and every answer is one of HTTP."""

    async def play():
        stream, _, _ = await converse(*pieces)
        assert set(stream.statuses) <= {200, 400, 404, 413, 431, 501, 505}

    anyio.run(
        play,
        backend="trio",
        backend_options={"clock": trio.testing.MockClock(autojump_threshold=0)},
    )
