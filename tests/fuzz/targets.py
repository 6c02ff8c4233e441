"""What reads bytes of strangers, each as a function of bytes: only what is declared may be raised.

A function here returns if all is well, whatever it is given, and raises something if not. test_fuzz.py
gives them what inputs.py makes; hunt.py has atheris look for what leads into code that nothing else led
into.
"""

from __future__ import annotations

import asyncio
import math
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import h11
import httpcore
import httpx

from spotokend import calls, wire
from spotokend.adapters.endpoint import BODY_LIMIT, Endpoint, NotSent, Reply
from spotokend.adapters.store.base import Intent, Row
from spotokend.cli.arrivals import addresses
from spotokend.cli.callback import HEAD_LIMIT, Exchange, Redirect
from spotokend.cli.pages import used
from spotokend.errors import BadRequest, Misconfigured, SpotokendError
from spotokend.rules import gate, notice, oauth
from spotokend.rules.account import Access, Grant, Holding, Policy, Rotation, Unsaved
from spotokend.rules.config.parse import parse
from spotokend.rules.config.values import Config
from spotokend.rules.schedule import DEFAULT_TIMING, Boot, Wall
from spotokend.rules.sealing import KeyRing, SealingError, SealingKey, open_envelope, seal
from spotokend.rules.secret import Secret
from spotokend.rules.session import NOTICE_LIMIT, UNANSWERED_LIMIT, UNREAD_LIMIT, Session
from spotokend.rules.transitions import due_at
from spotokend.service.clock import Clock
from spotokend.service.packing import pack_secrets, read_facts, unpack_row
from spotokend.service.rows import Owner, Rows
from spotokend.service.traces import gate_of, refusals_of

CORPUS = Path(__file__).with_name("corpus")
BOOT, WALL = Boot(50_000.0), Wall(1_790_000_000.0)
DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Target:
    """Something that reads bytes of strangers."""

    read: Callable[[bytes], None]
    words: tuple[bytes, ...]
    """What means something there: thrown in at any place."""
    longest: int = 4096
    """Bytes of an input."""
    memory: int = 1024 * 1024
    """Bytes that reading may take, and as many times the input's own as :attr:`times` says."""
    times: int = 64
    message: int | None = None
    """From this byte on an input is a value of MessagePack; None: it is something else."""
    effort: int = 1
    """How much longer than another's an input takes."""


def corpus(name: str) -> list[tuple[str, bytes]]:
    """The examples of a target, by the names of their files."""
    return [(file.name, file.read_bytes()) for file in sorted((CORPUS / name).iterdir())]


def _pieces(data: bytes) -> Iterator[bytes]:
    """``data`` cut somehow, always alike for the same bytes."""
    dice = random.Random(zlib.crc32(data))
    start = 0
    while start < len(data):
        end = start + dice.choice((1, 3, 40, 1000, len(data)))
        yield data[start:end]
        start = end


# --- the socket -----------------------------------------------------------------------------------


def decoder(data: bytes) -> None:
    """MessagePack from a client: messages within all limits or Malformed, however it is cut."""
    assert _decoded([data]) == _decoded(_pieces(data))
    wire.is_half(data)
    shared = wire.Decoder()
    try:
        for message in shared.feed(data):
            wire.too_deep(message)
            assert len(repr(message)) < 100 * wire.MESSAGE_LIMIT
    except wire.Malformed:
        msgid = shared.malformed_request()
        assert msgid is None or wire.is_msgid(msgid)
    else:
        assert 0 <= shared.reset() <= len(data)
    assert list(wire.Decoder().feed(b"\x90")) == [[]]


def _decoded(pieces: Iterator[bytes] | list[bytes]) -> list[str]:
    reader, found = wire.Decoder(), []
    try:
        for piece in pieces:
            # repr(), since NaN is not equal to itself.
            found += map(repr, reader.feed(piece))
    except wire.Malformed as error:
        found += [str(error), str(reader.malformed_request())]
    return found


def session(data: bytes) -> None:
    """A client's conversation: each request answered once, all queues bounded, nothing raised."""
    talk = _Talk(random.Random(zlib.crc32(data)))
    for piece in _pieces(data):
        talk.session.receive(piece)
        for _ in range(200):
            talk.go_on()
            if not talk.session.ready:
                break
    talk.end()
    responses = 0
    for message in wire.Decoder(message_limit=wire.REPLY_LIMIT).feed(talk.sent):
        assert isinstance(message, list)
        responses += message[0] == wire.RESPONSE
    # What was wrong is answered by the session itself; at the end one error may tell why.
    assert talk.answered <= responses <= talk.answered + talk.session.received + 1


class _Talk:
    """The server's side of a session: takes calls and answers them in any order, or later."""

    def __init__(self, dice: random.Random) -> None:
        self.session = Session()
        self.answered = 0
        self.sent = b""
        self._dice = dice
        self._under_way: list[int] = []

    def go_on(self) -> None:
        """Take what has come, push something now and then, answer some, and write it all."""
        self._take_calls()
        assert len(self._under_way) <= UNANSWERED_LIMIT
        if self._dice.random() < 0.05:
            for _ in range(self._dice.randrange(2 * NOTICE_LIMIT)):
                self.session.offer(self._dice.choice((None, "a", "b")), b"\x93\x02\xa1n\x90")
        while self._under_way and self._dice.random() < 0.7:
            self._answer(self._dice.randrange(len(self._under_way)))
        self._write()

    def end(self) -> None:
        """The client sends no more: what it has asked is answered, and then all is said."""
        self.session.end()
        while self._under_way or self.session.ready:
            self._take_calls()
            while self._under_way:
                self._answer(0)
            self._write()
        self._write()
        assert self.session.finished

    def _take_calls(self) -> None:
        while self.session.ready:
            call = self.session.next_call()
            if call is not None:
                self._under_way.append(call.msgid)
        if self.session.broken is not None:
            self._under_way.clear()  # nobody waits any more

    def _answer(self, which: int) -> None:
        msgid = self._under_way.pop(which)
        self.answered += 1
        if self._dice.random() < 0.3:
            self.session.fail(msgid, BadRequest("no", hint="do"))
        else:
            self.session.reply(msgid, wire.pack("x" * self._dice.choice((1, 1000))))

    def _write(self) -> None:
        out = self.session.take()
        assert len(out) <= 2 * UNREAD_LIMIT + 2000 * UNANSWERED_LIMIT
        self.sent += out
        self.session.unsent = 0


def reply(data: bytes) -> None:
    """What a client reads of whoever listens on the socket: an answer, events, or a declared error."""
    reader = calls.reply_decoder()
    watching = calls.Subscription("/socket", None, tokens=True)
    watching.begin()
    try:
        for message in reader.feed(data):
            answer = calls.read_answer(message)
            if answer is not None:
                result = calls.result_of(answer[1:])
                calls.read_map("/socket", result)
                token = calls.read_token("/socket", result)
                assert repr(token)
                calls.find({None: (token, 60.0)}, None, 0.0, [])
    except (wire.Malformed, SpotokendError) as error:
        assert len(str(error)) < 4 * wire.REPLY_LIMIT
    try:
        for piece in _pieces(data):
            for method, event in watching.feed(piece):
                assert isinstance(method, str)
                assert isinstance(event, dict)
    except SpotokendError:
        pass


# --- the provider and the browser -----------------------------------------------------------------


def token_answer(data: bytes) -> None:
    """``STATUS``, header lines, an empty line, the body: a meaning, with words that can be shown."""
    head, _, body = data.partition(b"\n\n")
    status, *lines = head.decode("latin-1").split("\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    given = int(status) if status.isdecimal() and len(status) < 6 else 200
    _meaning(oauth.read_answer(given, headers, body, timing=DEFAULT_TIMING, now=WALL), len(body))


def _meaning(answer: oauth.Answer | NotSent, size: int) -> None:
    if isinstance(answer, oauth.Issued):
        assert answer.access_token is not None or answer.refresh_token is not None
        assert 1.0 <= answer.life <= 366 * DAY
        assert sum(map(len, answer.scopes or ())) <= size
        answer.token_type.encode("ascii")
        # What a store has to take, and a form and a header to carry.
        for token in (answer.access_token, answer.refresh_token):
            if token is not None:
                assert 0 < len(token.reveal().encode()) <= size
        return
    assert answer.words
    assert answer.words.isprintable()
    assert len(answer.words) < 1000
    if isinstance(answer, oauth.Transient) and answer.retry_after is not None:
        assert 1.0 <= answer.retry_after <= DEFAULT_TIMING.retry_after_cap


class _Wire:
    """The endpoint over connections on which the same bytes come, whatever was asked."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._backend = httpcore.AsyncMockBackend([])
        transport = httpx.AsyncHTTPTransport(verify=False)
        # httpx has no argument for that; httpcore has this backend for exactly such tests.
        transport._pool = httpcore.AsyncConnectionPool(network_backend=self._backend)
        self._endpoint = Endpoint(
            timing=DEFAULT_TIMING, boot=lambda: BOOT, wall=lambda: WALL, transport=transport
        )
        self._request = oauth.refresh_request(
            oauth.Registration(
                client_id="client-1",
                client_secret=None,
                flow=oauth.Flow.PKCE,
                redirect_uri="http://127.0.0.1/callback",
                authorize_url="http://127.0.0.1:1/authorize",
                token_url="http://127.0.0.1:1/api/token",
            ),
            Secret("refresh-1"),
        )

    def post(self, data: bytes) -> Reply:
        """What the endpoint makes of them."""
        self._backend._buffer = list(_pieces(data))
        return self._loop.run_until_complete(self._endpoint.post(self._request))


_the_wire = cache(_Wire)


def http_answer(data: bytes) -> None:
    """The bytes of a whole HTTP answer, or of what is none: the same meanings, and never raised."""
    answer = _the_wire().post(data).answer
    assert not isinstance(answer, NotSent)  # whatever comes, something had been sent
    _meaning(answer, BODY_LIMIT)


STATE = "state-1"
REDIRECT = "http://127.0.0.1:8888/callback"


def redirect(data: bytes) -> None:
    """Where the browser ended: a code only with our state, and never anything else but words."""
    text = data.decode("utf-8", "replace")
    found = oauth.read_redirect(text, redirect_uri=REDIRECT, state=Secret(STATE))
    match found:
        case oauth.Code(code):
            # However it is written: its letters are all there.
            assert {*STATE} <= {*unquote(text)}
            assert 0 < len(code.reveal()) <= len(text)
        case oauth.Denied(error, description):
            assert error.isprintable()
            assert len(error) <= 200
            assert description is None or len(description) <= 200
        case oauth.NotThis(words):
            assert words.isprintable()
            assert len(words) < 300


def pasted(data: bytes) -> None:
    """Lines of a terminal: each character goes into one address or is dropped with a blank piece."""
    first, _, second = data.decode("utf-8", "replace").partition("\0")
    before = ""
    for text in (first, second):
        found = addresses(before, text)
        assert sum(map(len, found)) <= len(before) + len(text)
        for address in found:
            oauth.read_redirect(address, redirect_uri=REDIRECT, state=Secret(STATE))
        assert all(address.startswith(("http://", "https://")) for address in found[1:])
        before = found[-1] if found else before


_REDIRECT = Redirect(REDIRECT)


def callback(data: bytes) -> None:
    """What connects to the loopback listener: one request or a protocol error, one closed answer."""
    exchange, request = Exchange(), None
    try:
        for piece in (*_pieces(data), b""):
            request = exchange.receive(piece)
            if request is not None:
                break
    except h11.RemoteProtocolError:
        return
    if request is None:
        return
    assert len(request.target) <= 2 * HEAD_LIMIT
    path = _REDIRECT.path_asked(request)
    if path == _REDIRECT.path:
        out = exchange.see_other(_REDIRECT.address("done"))
        assert b"code=" not in out
        query = request.target.decode("latin-1").partition("?")[2]
        oauth.read_redirect(f"{REDIRECT}?{query}", redirect_uri=REDIRECT, state=Secret(STATE))
    else:
        out = exchange.not_found() if path is None else exchange.page(used())
    head, _, body = out.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 ")
    assert b"connection: close" in head.lower()
    assert len(body) < 16 * 1024


# --- files ----------------------------------------------------------------------------------------


def configuration(data: bytes) -> None:
    """The text of a configuration file: a Config, or Misconfigured with a line for each mistake."""
    text = data.decode("utf-8", "replace")
    try:
        config = parse(text)
    except Misconfigured as error:
        problems = error.details["problems"]
        assert isinstance(problems, list)
        assert len(error.message.split("\n")) == len(problems) > 0
        assert len(error.message) < 2000 * (1 + len(text))
    else:
        assert isinstance(config, Config)
        assert config.clients


KEY = SealingKey(bytes(range(32)))
OWNER = Owner("main", "spotify", "fingerprint-1")
PLAINTEXT = b"what was sealed"
SEALED = CORPUS / "envelope" / "valid"


def envelope(data: bytes) -> None:
    """An envelope of the store: only the one that was sealed for this row opens."""
    try:
        opened = open_envelope(
            KEY, data, account=OWNER.account, fingerprint=OWNER.fingerprint, version=7
        )
    except SealingError as error:
        assert str(error).isprintable()
        return
    assert (opened, data) == (PLAINTEXT, SEALED.read_bytes())


_CLOCK = Clock(lambda: BOOT, lambda: WALL, lambda: 0.5, "boot-1")
_ROWS = Rows(KeyRing(KEY), _CLOCK, random_bytes=bytes)
_COLUMNS = struct.Struct("<4B9d")
_GRANT = Grant(refresh_token=Secret("refresh-1"))
_ACCESS = Access(
    token=Secret("access-1"), issued_at=BOOT, expires_at=Boot(BOOT + 3600), generation=3
)
_SEALED = seal(
    KEY,
    pack_secrets(_GRANT, _ACCESS),
    account=OWNER.account,
    fingerprint=OWNER.fingerprint,
    version=7,
    nonce=bytes(12),
)
STATES = ("fresh", "waiting", "quarantined", "blocked", "what nobody knows")


def stored(data: bytes) -> None:
    """A row whose columns and facts a disk has bitten: a state, and a gate that opens in days.

    The columns are four bytes of choices and nine numbers; the facts are what follows.
    """
    data += bytes(max(0, _COLUMNS.size - len(data)))
    kind, intent, boot, rotation, *numbers = _COLUMNS.unpack(data[: _COLUMNS.size])
    facts = data[_COLUMNS.size :]
    # SQLite keeps a NaN as NULL, and has no other numbers than 64 bits.
    due, expires, issued, due_boot, expires_boot, started, not_before, tries, generation = (
        None if math.isnan(number) else number for number in numbers
    )
    state = STATES[kind % len(STATES)]
    row = Row(
        account=OWNER.account,
        client=OWNER.client,
        fingerprint=OWNER.fingerprint,
        version=7,
        generation=_integer(generation),
        state=state,
        due_at=due,
        expires_at=expires,
        issued_at=issued,
        boot_id="boot-1" if boot % 2 else "boot-0",
        due_boot=due_boot,
        expires_boot=expires_boot,
        facts=facts,
        key_id=KEY.key_id,
        sealed=_SEALED,
        intent=None
        if not intent % 2 or started is None
        else Intent(
            attempt="attempt-1",
            started_at=started,
            tries=_integer(tries),
            not_before=not_before,
        ),
    )
    read_facts(facts)
    policy = Policy(rotation=list(Rotation)[rotation % len(Rotation)])
    asleep = _ROWS.sealed(row, policy)
    assert due_at(asleep) == due_at(asleep)
    awake = _ROWS.to_state(row, policy)
    assert isinstance(awake, Holding)
    # Nothing is lost by what lies open: the envelope alone holds the grant.
    assert awake.grant == _GRANT
    assert due_at(awake) == due_at(awake)
    told = gate.together([refusals_of(row, _CLOCK)])
    gate.incident(told, now=BOOT, grant_age=None)
    resumed = gate.resumed(
        gate.Gate(), gate_of(row, _CLOCK, DEFAULT_TIMING), now=BOOT, timing=DEFAULT_TIMING
    )
    later = Boot(BOOT + 2 * DAY)
    assert gate.may_start(resumed, later, DEFAULT_TIMING)
    chance = gate.next_chance(resumed, BOOT)
    assert chance <= later or gate.may_start(resumed, BOOT, DEFAULT_TIMING)
    for shown in (asleep, awake):
        notice.health(shown, policy, BOOT)
        assert str(notice.refusal(OWNER.account, shown, resumed, BOOT))
        notice.ending(shown, policy, WALL)
    assert not isinstance(awake, Unsaved)
    _ROWS.to_row(OWNER, awake, 8, resumed)


def _integer(number: float | None) -> int:
    if number is None:
        return 0
    return int(max(-(2**62), min(2**62, number)))


def spilled(data: bytes) -> None:
    """A spill file whose sum is right, whatever wrote it: a row that is sound, or a declared error."""
    try:
        attempt, row = unpack_row(data)
        _ROWS.check(row)
    except (ValueError, SealingError):
        return
    assert isinstance(attempt, str)
    assert isinstance(row.account, str)


TARGETS = {
    "decoder": Target(
        decoder,
        (
            *(b"\x94\x00", b"\x93\x02", b"\xdc\xff\xff", b"\xdd\x00\x00\x00\x40"),
            *(b"\xde\xff\xff", b"\xc1", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"),
            *(b"\xc6\x00\x01\x00\x00", b"\xd9\xff", b"\xc7\x01\x05", b"\xd4\x01", b"\x91" * 9),
            *(b"\x81\x80", b"\xcf", b"\xcb\x7f\xf8"),
        ),
        longest=72 * 1024,
        message=0,
        times=250,
    ),
    "session": Target(
        session,
        (
            *(b"\x94\x00", b"\x93\x02", b"\xa5token", b"\xc4\x05token", b"\x91\x81"),
            *(b"\xa7account", b"\xa7min_ttl", b"\xcb\x7f\xf0" + bytes(6), b"\xa6scopes"),
            *(b"\xa6status", b"\x90", b"\xc0", b"\x91" * 9, b"\xdc\x00\x41"),
            *(b"\xce\xff\xff\xff\xff", b"\xa7refresh", b"\xa6reject"),
        ),
        longest=72 * 1024,
        memory=4 * 1024 * 1024,
        message=0,
        times=250,
    ),
    "reply": Target(
        reply,
        (
            *(b"\x94\x01\x01\xc0", b"\x93\x02\xa5token\x91", b"\x93\xa4busy"),
            *(b"\xacaccess_token", b"\x81", b"\xaaexpires_at", b"\xcb\x7f\xf8" + bytes(6)),
            *(b"\xaageneration", b"\xa5scope", b"\xc0", b"\xdd\xff\xff\xff\xff"),
            *(b"\xdf\x00\x00\x10\x00", b"\xa8accounts", b"\xa6tokens", b"\x90"),
        ),
        message=0,
        times=250,
    ),
    "token_answer": Target(
        token_answer,
        (
            *(b"200\n", b"400\n", b"429\n", b"503\n", b"retry-after: ", b"\n\n", b"{", b"}"),
            *(b'"', b":", b'"access_token":"access-1"', b'"refresh_token":"refresh-2"'),
            *(b'"expires_in":', b"NaN", b"1e999", b"-1", b"9" * 400, b'"scope":', b"null"),
            *(b"[" * 400, b'"error":"invalid_grant"', b'"error_description":', b"\\ud800"),
            *(b"\xff", b"\xef\xbb\xbf", b"Wed, 21 Oct 2026 07:28:00 GMT"),
        ),
    ),
    "http_answer": Target(
        http_answer,
        (
            *(b"HTTP/1.1 200 OK\r\n", b"\r\n\r\n", b"Content-Length: "),
            *(b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n", b"0\r\n\r\n"),
            *(b"ffffffff\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
            *(b"Location: http://127.0.0.1/\r\n", b"Set-Cookie: a=b\r\n", b"\r\n"),
            *(b"\x1f\x8b\x08\0", b"429"),
        ),
        longest=40 * 1024,
        memory=6 * BODY_LIMIT,
        effort=8,
    ),
    "redirect": Target(
        redirect,
        (
            *(b"http://127.0.0.1:8888/callback?", b"code=code-1", b"&", b"state=state-1"),
            *(b"error=", b"%00", b"error=access_denied", b"#", b"?", b"%", b"\n", b"<", b">"),
            *(b"\xe2\x80\x9c", b"&state=", b"+"),
        ),
        longest=40 * 1024,
    ),
    "pasted": Target(
        pasted,
        (
            *(b"http://", b"https://", b"\n", b"\r", b" ", b"\0", b"http"),
            *(b"code=code-1&state=state-1", b"http://127.0.0.1:8888/callback?", b"'", b'"'),
            *(b"<", b">", b"\xff", b"\t"),
        ),
    ),
    "callback": Target(
        callback,
        (
            *(b"GET ", b"HEAD ", b"POST ", b"/callback?code=code-1&state=state-1"),
            *(b" HTTP/1.1\r\n", b"\r\n", b"Host: 127.0.0.1:8888\r\n", b"Host: evil.test\r\n"),
            *(b"\r\n\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"),
            *(b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"\0", b" HTTP/1.0\r\n"),
            *(b"Connection: upgrade\r\n", b"http://127.0.0.1:8888", b"/callback/start"),
        ),
        longest=40 * 1024,
        times=128,
    ),
    "configuration": Target(
        configuration,
        (
            *(b"[clients.a]\n", b"client_id = ", b"[accounts.a]\n", b"[daemon]\n"),
            *(b"[store]\n", b"[timing]\n", b"flow = ", b'"pkce"', b"client_secret = { "),
            *(b"env = ", b"}\n", b"scopes = [", b"]", b"\n", b"=", b'"', b"'''", b"1e999"),
            *(b"nan", b"inf", b"9" * 5000, b"2026-01-01", b"[" * 400, b"a." * 400),
            *(b"redirect_uri = ", b'"http://127.0.0.1/callback"', b"rotation = ", b'"180d"'),
            *(b"\\ud800", b"#"),
        ),
        memory=4 * 1024 * 1024,
        times=2048,
        effort=3,
    ),
    "envelope": Target(
        envelope, (b"\1", b"\2", bytes(12), bytes(16), KEY.key_id.encode()), longest=200
    ),
    "stored": Target(
        stored,
        (
            *(struct.pack("<d", float("inf")), struct.pack("<d", float("-inf"))),
            *(struct.pack("<d", 1e308), struct.pack("<d", WALL), struct.pack("<d", BOOT)),
            *(struct.pack("<d", -1.0), bytes(8), b"\x81", b"\xa4gate\x81", b"\xa8opens_at\xcb"),
            *(b"\xa8failures", b"\xa6probes", b"\xa5tries", b"\xa8incident", b"\xc3"),
            *(b"\xd3\x80" + bytes(7), b"\xcf" + b"\xff" * 8, b"\xcb\x7f\xf8" + bytes(6)),
            *(b"\xff", b"\xcb\x7f\xf0" + bytes(6), b"\xaaopens_boot\xcb"),
            *(b"\xabasked_until\xcb", b"\xa5since", b"\xf0"),
        ),
        message=_COLUMNS.size,
    ),
    "spilled": Target(
        spilled,
        (
            *(b"\x92", b"\xc0", b"\x90", b"\x80", b"\xa7account", b"\xa6sealed"),
            *(b"\xa7version", b"\xa4slot", b"\xd3\x80" + bytes(7), b"\xc4\x00", b"\xa6intent"),
            *(b"\xa1x", b"\xcb\x7f\xf8" + bytes(6)),
        ),
        message=0,
        times=250,
    ),
}
"""By name, which is also its folder in the corpus."""
