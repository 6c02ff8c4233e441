"""The authorization server over HTTPS, with stand-ins and over real loopback sockets."""

import datetime as dt
import gzip
import ipaddress
import json
import logging
import os
import socket
import ssl
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from urllib.parse import parse_qsl

import anyio
import httpx
import pytest
from anyio.abc import SocketAttribute
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSListener
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import spotokend
from spotokend.adapters.endpoint import (
    BODY_LIMIT,
    Endpoint,
    Identity,
    NotSent,
    UnknownIdentity,
)
from spotokend.rules.oauth import (
    ClientRefused,
    Flow,
    GrantRefused,
    Issued,
    Registration,
    TokenRequest,
    Transient,
    authorization_url,
    client_credentials_request,
    code_request,
    read_redirect,
    refresh_request,
)
from spotokend.rules.schedule import Boot, Timing, Wall
from spotokend.rules.secret import Secret

pytestmark = pytest.mark.anyio

TIMING = Timing(connect_timeout=5.0, send_timeout=5.0, answer_timeout=20.0)
SHORT = Timing(connect_timeout=0.3, send_timeout=0.3, answer_timeout=0.3)
"""For servers that would keep us waiting for ever."""
TOO_LONG = 10.0
"""Seconds after which a test is wrong, not slow."""

TOKENS = {"access_token": "access-1", "refresh_token": "refresh-2", "expires_in": 60}
OBJECT = json.dumps(TOKENS).encode()
SECRETS = ("access-1", "refresh-1", "refresh-2", "secret-1")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    """Both: production runs on one, the keeper's tests on the other."""
    return request.param


@pytest.fixture(autouse=True)
def variables(monkeypatch, other_certificate):
    """No proxies, and a single authority: to read the usual ones takes longer than most tests."""
    for name in list(os.environ):
        if name.upper().endswith("_PROXY") or name.startswith("SSL_CERT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SSL_CERT_FILE", str(other_certificate))


def refresh(url: str, *, confidential: bool = False) -> TokenRequest:
    """A refresh of a public or a confidential client."""
    form: tuple = (("grant_type", "refresh_token"), ("refresh_token", Secret("refresh-1")))
    if confidential:
        basic = ("client-1", Secret("secret-1"))
        return TokenRequest(url=url, form=form, basic=basic, grant_type="refresh_token")
    form = (*form, ("client_id", "client 1"))
    return TokenRequest(url=url, form=form, basic=None, grant_type="refresh_token")


def endpoint(transport=None, *, timing=TIMING, boot=lambda: Boot(100.0)) -> Endpoint:
    """An endpoint at rest in time."""
    return Endpoint(timing=timing, boot=boot, wall=lambda: Wall(0.0), transport=transport)


async def ask(url: str, **arguments):
    """Post one refresh to a real address, and return what came of it."""
    this = endpoint(**arguments)
    with anyio.fail_after(TOO_LONG):
        reply = await this.post(refresh(url))
        await this.aclose()
    return reply.answer


async def answer_of(handler, url="https://accounts.example/api/token"):
    """Post one refresh to a stand-in."""
    return (await endpoint(httpx.MockTransport(handler)).post(refresh(url))).answer


# --- real servers -------------------------------------------------------------------------------


async def request_on(stream) -> bytes:
    """All of the request that has arrived: head and body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive()
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-l")), 0
    )
    while len(body) < length:
        body += await stream.receive()
    return head + b"\r\n\r\n" + body


def http(body: bytes, *, status="200 OK", headers=()) -> bytes:
    """A whole response."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode() + body


@asynccontextmanager
async def serving(conversation, *, tls=None, scheme=None):
    """A loopback server: ``conversation`` has each connection; yields the address."""

    async def guarded(stream) -> None:
        try:
            async with stream:
                await conversation(stream)
        except (anyio.BrokenResourceError, anyio.EndOfStream, ssl.SSLError):
            pass  # the client hung up, as many of these tests want it to

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    scheme = scheme or ("https" if tls else "http")
    if tls:
        listener = TLSListener(listener, tls, standard_compatible=False)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, guarded)
        yield f"{scheme}://127.0.0.1:{port}/api/token"
        tasks.cancel_scope.cancel()


def replying(*pieces: bytes):
    """A conversation: the request is read, the pieces are sent, the connection is closed."""

    async def conversation(stream) -> None:
        await request_on(stream)
        for piece in pieces:
            await stream.send(piece)

    return conversation


async def silent(stream) -> None:
    """A conversation: everything is read, nothing is said."""
    while True:
        await stream.receive()


def self_signed(file, *, days=(-1, 1)):
    """A certificate for 127.0.0.1 and accounts.example, and its key, in one file.

    Valid from and to, in days from now.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "accounts.example")])
    names = [
        x509.DNSName("accounts.example"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now + dt.timedelta(days=days[0]))
        .not_valid_after(now + dt.timedelta(days=days[1]))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    pkcs8 = serialization.PrivateFormat.PKCS8
    private = key.private_bytes(pem, pkcs8, serialization.NoEncryption())
    file.write_bytes(private + certificate.public_bytes(pem))
    return file


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """The loopback servers' certificate."""
    return self_signed(tmp_path_factory.mktemp("tls") / "certificate.pem")


@pytest.fixture(scope="module")
def other_certificate(tmp_path_factory):
    """A certificate that no server here has."""
    return self_signed(tmp_path_factory.mktemp("tls") / "other.pem")


@pytest.fixture
def tls(certificate):
    """The server's side of TLS with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


# --- what is sent -------------------------------------------------------------------------------


async def test_what_a_public_client_sends():
    """A form, our name and version, and no authentication."""
    seen = []

    def handler(request):
        seen.append(request)
        return httpx.Response(200, content=OBJECT)

    await answer_of(handler)
    (request,) = seen
    assert (request.method, str(request.url)) == ("POST", "https://accounts.example/api/token")
    assert parse_qsl(request.content.decode(), strict_parsing=True) == [
        ("grant_type", "refresh_token"),
        ("refresh_token", "refresh-1"),
        ("client_id", "client 1"),
    ]
    headers = {name: request.headers.get(name) for name in ("content-type", "authorization")}
    assert headers == {"content-type": "application/x-www-form-urlencoded", "authorization": None}
    assert request.headers["user-agent"] == f"spotokend/{spotokend.__version__}"


async def test_what_a_confidential_client_sends():
    """HTTP Basic."""
    seen = []

    def handler(request):
        seen.append(request.headers["authorization"])
        return httpx.Response(200, content=OBJECT)

    await endpoint(httpx.MockTransport(handler)).post(
        refresh("https://accounts.example/", confidential=True)
    )
    assert seen == ["Basic Y2xpZW50LTE6c2VjcmV0LTE="]


async def test_no_cookie_comes_back():
    """What a server sets for one account isn't sent for the next."""
    cookies = []

    def handler(request):
        cookies.append(request.headers.get("cookie"))
        return httpx.Response(200, content=OBJECT, headers={"set-cookie": "sp_t=1; Path=/"})

    this = endpoint(httpx.MockTransport(handler))
    for _ in range(2):
        await this.post(refresh("https://accounts.example/"))
    assert cookies == [None, None]


async def test_each_request_has_its_own_connection():
    """None is kept: the server may close it just when the next request is on its way."""
    connections = []

    async def conversation(stream) -> None:
        connections.append(stream)
        while True:
            await request_on(stream)
            await stream.send(http(OBJECT))

    async with serving(conversation) as url:
        this = endpoint()
        answers = [type((await this.post(refresh(url))).answer) for _ in range(2)]
        await this.aclose()
    assert (answers, len(connections)) == ([Issued, Issued], 2)


async def test_the_moment_of_sending():
    """A token's life counts from when sending began, not from the answer or the connecting."""
    moments = iter([10.0, 20.0, 30.0])
    async with serving(replying(http(OBJECT))) as url:
        this = endpoint(boot=lambda: Boot(next(moments)))
        reply = await this.post(refresh(url))
        await this.aclose()
    assert (type(reply.answer), reply.sent_at, next(moments)) == (Issued, 20.0, 30.0)


# --- what is answered ---------------------------------------------------------------------------


async def test_tokens():
    """The tokens of an answer, with the time of the request."""
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=OBJECT))
    reply = await endpoint(transport).post(refresh("https://accounts.example/"))
    assert (reply.sent_at, reply.answer) == (
        100.0,
        Issued(
            access_token=Secret("access-1"),
            token_type="Bearer",
            life=60.0,
            scopes=None,
            refresh_token=Secret("refresh-2"),
        ),
    )


async def test_a_refusal():
    """What the server says of the grant is passed on."""
    answer = await answer_of(lambda request: httpx.Response(400, json={"error": "invalid_grant"}))
    assert type(answer) is GrantRefused


async def test_headers_are_read_in_any_case():
    """Retry-After as the server spells it."""
    async with serving(replying(http(b"", status="429 No", headers=["RETRY-AFTER: 77"]))) as url:
        answer = await ask(url)
    assert (type(answer), answer.retry_after, answer.in_doubt) == (Transient, 77.0, False)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status):
    """The refresh token doesn't go where an answer leads."""
    seen = []

    def handler(request):
        seen.append(request)
        return httpx.Response(status, headers={"location": "https://elsewhere.example/"})

    answer = await answer_of(handler)
    assert (type(answer), answer.status, len(seen)) == (Transient, status, 1)


@pytest.mark.parametrize("location", ["n:t", "http://[", "//\xff", "ftp://elsewhere.example/"])
async def test_a_redirect_to_what_is_no_address(location):
    """httpx looks where it leads all the same, and objects; but the request had been served."""
    async with serving(replying(http(b"", status="302", headers=[f"Location: {location}"]))) as url:
        answer = await ask(url)
    assert (type(answer), answer.in_doubt, answer.status) == (Transient, False, 302)
    assert "leads elsewhere" in answer.words


async def test_a_compressed_answer():
    """Not asked for, and read all the same: it may hold a rotated token."""
    headers = {"content-encoding": "gzip"}
    answer = await answer_of(
        lambda request: httpx.Response(200, content=gzip.compress(OBJECT), headers=headers)
    )
    assert type(answer) is Issued


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([], gzip.compress(OBJECT)),
        (["Content-Encoding: gzip"], OBJECT),
        (["Content-Encoding: gzip"], gzip.compress(OBJECT)[:-9]),
    ],
    ids=["not said", "not so", "cut"],
)
async def test_a_compressed_answer_that_is_not_in_order(headers, body):
    """What can be read of it counts: a rotation isn't dropped for its wrapping."""
    async with serving(replying(http(body, headers=headers))) as url:
        answer = await ask(url)
    assert (type(answer), answer.refresh_token) == (Issued, Secret("refresh-2"))


@pytest.mark.parametrize(
    "body",
    [b"\x1f\x8bno gzip", gzip.compress(b" " * 2 * BODY_LIMIT + OBJECT)],
    ids=["damaged", "a bomb"],
)
async def test_a_compressed_answer_that_cannot_be_read(body):
    """In doubt; and it is unpacked to the limit only."""
    async with serving(replying(http(body, headers=["Content-Encoding: gzip"]))) as url:
        answer = await ask(url)
    assert (type(answer), answer.in_doubt, answer.status) == (Transient, True, 200)


# --- what never left ----------------------------------------------------------------------------


async def test_a_refused_connection():
    """Nothing listens: nothing was sent, and the words say where and why."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    answer = await ask(f"http://127.0.0.1:{port}/")
    assert answer == NotSent("no connection to 127.0.0.1: Connection refused")


async def test_a_certificate_that_is_not_trusted(tls):
    """The request isn't sent to a server that can't prove its name."""
    received = []

    async def conversation(stream) -> None:
        received.append(await stream.receive())

    async with serving(conversation, tls=tls) as url:
        answer = await ask(url)
    assert (type(answer), received) == (NotSent, [])
    assert "the certificate of 127.0.0.1 is not trusted (self-signed certificate)" in answer.words
    assert "SSL_CERT_FILE" in answer.words


@pytest.mark.parametrize(
    ("days", "words"),
    [
        ((-2, -1), "has expired, if this host's clock is right, which says 1970-01-01"),
        ((1, 2), "is not valid yet: is this host's clock right? It says 1970-01-01"),
    ],
)
async def test_a_certificate_of_another_time(monkeypatch, tmp_path, days, words):
    """The authority is trusted: it is the clock that is to be looked at."""
    certificate = self_signed(tmp_path / "certificate.pem", days=days)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with serving(silent, tls=context) as url:
        answer = await ask(url)
    assert answer == NotSent(f"the certificate of 127.0.0.1 {words}")


@pytest.mark.parametrize("host", ["localhost", "[::ffff:127.0.0.1]"])
async def test_a_certificate_of_another_name(tls, certificate, monkeypatch, host):
    """The authority is trusted: it is the network or the address that is to be looked at."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with serving(silent, tls=tls) as url:
        answer = await ask(url.replace("127.0.0.1", host))
    assert type(answer) is NotSent
    assert "is another's: sign in to this network, if it wants that" in answer.words


async def test_an_authority_of_ones_own(tls, certificate, monkeypatch):
    """SSL_CERT_FILE is honoured, for loopback, too."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with serving(replying(http(OBJECT)), tls=tls) as url:
        answer = await ask(url)
    assert type(answer) is Issued


async def test_a_server_that_speaks_no_tls():
    """Nothing is sent in the clear."""

    async def conversation(stream) -> None:
        await stream.receive()
        await stream.send(http(OBJECT))

    async with serving(conversation, scheme="https") as url:
        answer = await ask(url)
    assert answer == NotSent("127.0.0.1 did not agree on an encrypted connection")


async def test_a_server_that_does_not_shake_hands():
    """A connection without TLS within the time to connect."""
    async with serving(silent, scheme="https") as url:
        answer = await ask(url, timing=SHORT)
    assert answer == NotSent("no connection to 127.0.0.1 within 0.3 s")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://[::1/", "the address of the server can't be asked"),
        ("https://a.example:x/", "the address of the server can't be asked"),
        ("ftp://a.example/", "a.example is not asked: its address must begin with https://"),
        ("", "must begin with https://"),
    ],
)
async def test_an_address_that_cannot_be_asked(url, words):
    """It is said, not raised."""
    answer = await ask(url)
    assert (type(answer), words in answer.words) == (NotSent, True)


def resolving(request):
    """A stand-in without a network."""
    raise httpx.ConnectError("secret-1") from socket.gaierror(-3, "secret-1")


def two_addresses(request):
    """A stand-in whose two addresses are both out of reach."""
    tried = [OSError(113, "secret-1"), OSError(111, "secret-1")]
    failed = OSError("All connection attempts failed")
    failed.__cause__ = ExceptionGroup("multiple connection attempts failed", tried)
    raise httpx.ConnectError("secret-1") from failed


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (resolving, "the name accounts.example can't be resolved: is the network up?"),
        (two_addresses, "no connection to accounts.example: No route to host"),
    ],
)
async def test_a_network_that_is_not_there(handler, words):
    """The causes that lie behind the library's exception, in words of our own."""
    assert await answer_of(handler) == NotSent(words)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (httpx.ReadError("refresh-1"), "the connection to accounts.example broke off"),
        (httpx.WriteError("refresh-1"), "the connection to accounts.example broke off"),
        (httpx.RemoteProtocolError("refresh-1"), "the connection to accounts.example broke off"),
        (httpx.WriteTimeout("refresh-1"), "accounts.example did not take the request within 5 s"),
        (httpx.ReadTimeout("refresh-1"), "no whole answer from accounts.example within 20 s"),
        (RuntimeError("refresh-1"), "the connection to accounts.example broke off"),
        (ssl.SSLError(1, "refresh-1"), "the connection to accounts.example broke off"),
        (ConnectionResetError(104, "refresh-1"), "the connection to accounts.example broke off"),
    ],
)
async def test_troubles_that_leave_doubt(error, words):
    """Whatever isn't known to come before sending leaves doubt; no exception's text is quoted."""

    def handler(request):
        raise error

    answer = await answer_of(handler)
    assert (type(answer), answer.in_doubt, answer.status) == (Transient, True, None)
    assert (words in answer.words, "refresh-1" in answer.words) == (True, False)


# --- what broke off -----------------------------------------------------------------------------

HALF = http(OBJECT)[:-9]


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ((), None),
        ((b"HTTP/1.1 200 OK\r\nContent-Le",), None),
        ((b"SSH-2.0-OpenSSH\r\n\r\n",), None),
        ((HALF,), 200),
        ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",), 200),
        ((http(b"{", status="500 Oh").replace(b": 1", b": 2"),), 500),
    ],
    ids=["no answer", "half a head", "no HTTP", "half a body", "half a chunk", "half an error"],
)
async def test_a_connection_that_is_cut(pieces, status):
    """The request was sent, and no whole answer came: in doubt, and asked only once."""
    connections = []

    async def conversation(stream) -> None:
        connections.append(stream)
        await replying(*pieces)(stream)

    async with serving(conversation) as url:
        answer = await ask(url)
    assert (type(answer), answer.in_doubt, answer.status) == (Transient, True, status)
    assert "the connection to 127.0.0.1 broke off before the whole answer" in answer.words
    assert len(connections) == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # as above, of the request
async def test_a_reset_before_the_request_is_read():
    """The server closes at once, with our bytes unread: nobody knows what it saw."""

    async def conversation(stream) -> None:
        await stream.receive(1)

    async with serving(conversation) as url:
        answer = await ask(url)
    assert (type(answer), answer.in_doubt) == (Transient, True)


async def test_a_whole_object_in_a_broken_answer():
    """The tokens are there, though more was announced: a rotation isn't dropped for its frame."""
    longer = http(OBJECT).replace(b"Content-Length: ", b"Content-Length: 9")
    async with serving(replying(longer)) as url:
        answer = await ask(url)
    assert type(answer) is Issued


async def test_an_answer_whose_end_is_never_sent():
    """The same for a body that is never closed: what has come counts at the deadline."""

    async def conversation(stream) -> None:
        await request_on(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + OBJECT)
        await silent(stream)

    async with serving(conversation) as url:
        answer = await ask(url, timing=SHORT)
    assert type(answer) is Issued


async def test_a_refusal_that_is_cut_off():
    """429 is no matter of doubt, whatever became of its body."""
    cut = http(b"slow", status="429 No", headers=["Retry-After: 9"])[:-2]
    async with serving(replying(cut)) as url:
        answer = await ask(url)
    assert (type(answer), answer.in_doubt, answer.retry_after) == (Transient, False, 9.0)


async def test_a_server_that_never_answers():
    """The request was taken; after the time for an answer there is doubt."""
    async with serving(silent) as url:
        answer = await ask(url, timing=SHORT)
    assert (type(answer), answer.in_doubt) == (Transient, True)
    assert answer.words == "no whole answer from 127.0.0.1 within 0.3 s"


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["head", "body"])
async def test_a_server_that_drips(head):
    """The time for an answer is for all of it, not for each byte."""

    async def conversation(stream) -> None:
        await request_on(stream)
        await stream.send(head)
        while True:
            await stream.send(b"H" if head else b"HTTP/1.1 200 OK\r\nX: "[:1])
            await anyio.sleep(0.02)

    async with serving(conversation) as url:
        answer = await ask(url, timing=SHORT)
    assert (type(answer), answer.in_doubt) == (Transient, True)


async def test_an_answer_that_is_too_large():
    """It is read to the limit, and the server isn't asked for more."""

    async def conversation(stream) -> None:
        await request_on(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send(b" " * 65536)

    async with serving(conversation) as url:
        answer = await ask(url)
    assert (type(answer), answer.in_doubt) == (Transient, True)
    assert answer.words == f"the answer of 127.0.0.1 is larger than {BODY_LIMIT} bytes"


async def test_an_answer_just_within_the_limit():
    """The limit itself is allowed."""
    async with serving(replying(http(OBJECT + b" " * (BODY_LIMIT - len(OBJECT))))) as url:
        assert type(await ask(url)) is Issued


async def test_an_answer_in_many_pieces_keeps_nobody_waiting():
    """What has come in one read may be ten thousand chunks: others have their turns in between."""
    made, seen = 0, [0]

    class Pieces(httpx.AsyncByteStream):
        async def __aiter__(self):
            nonlocal made
            for _ in range(1000):
                made += 1
                yield b" "
            yield OBJECT

    async def others() -> None:
        while True:
            seen.append(made)
            await checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(others)
        answer = await answer_of(lambda request: httpx.Response(200, stream=Pieces()))
        tasks.cancel_scope.cancel()
    assert type(answer) is Issued
    assert max(later - earlier for earlier, later in pairwise(seen)) <= 32


# --- cancellation -------------------------------------------------------------------------------


async def test_cancellation_while_waiting():
    """The caller's cancellation is the one thing that comes out as an exception."""
    async with serving(silent) as url:
        this = endpoint()
        with anyio.move_on_after(0.05) as scope:
            await this.post(refresh(url))
        await this.aclose()
    assert scope.cancelled_caught is True


class Closing(httpx.AsyncBaseTransport, httpx.AsyncByteStream):
    """A connection during whose closing the caller is cancelled; then it breaks."""

    def __init__(self, scope: anyio.CancelScope) -> None:
        self.scope = scope

    async def handle_async_request(self, request):
        self.trace = request.extensions["trace"]
        return httpx.Response(200, stream=self)

    async def __aiter__(self):
        yield OBJECT
        await self.trace("http11.receive_response_body.complete", {})

    async def aclose(self) -> None:
        self.scope.cancel()
        await anyio.sleep(0.01)
        raise httpx.CloseError("closed badly")


async def test_cancellation_after_the_last_byte():
    """The answer is kept, although the caller is cancelled and the closing goes wrong."""
    with anyio.CancelScope() as scope:
        reply = await endpoint(Closing(scope)).post(refresh("https://accounts.example/"))
    assert (scope.cancel_called, type(reply.answer)) == (True, Issued)


# --- proxies ------------------------------------------------------------------------------------


@pytest.fixture
def proxied(monkeypatch):
    """Every kind of proxy variable, leading to an address."""

    def set_proxy(url: str) -> None:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, url.removesuffix("/api/token"))
            monkeypatch.setenv(name.lower(), url.removesuffix("/api/token"))

    return set_proxy


ELSEWHERE = "https://accounts.example/api/token"


def named(proxy_url: str) -> str:
    """The proxy there, as it is told of."""
    return f"the proxy {httpx.URL(proxy_url).netloc.decode()} of HTTPS_PROXY or ALL_PROXY"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_loopback_is_not_asked_for_through_a_proxy(proxied, host):
    """The proxy would look on its own host, and would see the refresh token."""
    through = []

    async def proxy(stream) -> None:
        through.append(await stream.receive())

    async with serving(proxy) as proxy_url, serving(replying(http(OBJECT))) as url:
        proxied(proxy_url)
        answer = await ask(url.replace("127.0.0.1", host))
    assert (type(answer), through) == (Issued, [])


async def test_through_a_proxy(proxied, tls, certificate, monkeypatch):
    """A tunnel, and inside it TLS with the server: the proxy sees a host name only."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    seen = []

    async def proxy(stream) -> None:
        seen.append((await request_on(stream)).split(b"\r\n")[0])
        await stream.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        inside = await anyio.streams.tls.TLSStream.wrap(
            stream, server_side=True, ssl_context=tls, standard_compatible=False
        )
        seen.append((await request_on(inside)).split(b"\r\n")[0])
        await inside.send(http(OBJECT))

    async with serving(proxy) as proxy_url:
        proxied(proxy_url)
        answer = await ask(ELSEWHERE)
    assert type(answer) is Issued
    assert seen == [b"CONNECT accounts.example:443 HTTP/1.1", b"POST /api/token HTTP/1.1"]


async def test_a_proxy_that_refuses(proxied):
    """Nothing reached the server; the proxy's own word is told."""
    async with serving(replying(http(b"", status="407 Authentication Required"))) as proxy_url:
        proxied(proxy_url)
        answer = await ask(ELSEWHERE)
    words = "gives no way to accounts.example: 407 Authentication Required"
    assert answer == NotSent(f"{named(proxy_url)} {words}")


async def test_a_proxy_that_is_gone(proxied):
    """It is told that it is the proxy, which one, and where it was named."""
    async with serving(silent) as proxy_url:
        proxied(proxy_url)
    answer = await ask(ELSEWHERE)
    assert answer == NotSent(f"no connection to {named(proxy_url)}: Connection refused")


async def test_a_proxy_without_an_address(proxied, monkeypatch):
    """The same where its name is not known."""

    def unknown(*arguments, **more):
        raise socket.gaierror(-3, "secret-1")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    proxied("http://proxy.example:3128")
    answer = await ask(ELSEWHERE)
    proxy = "the proxy proxy.example:3128 of HTTPS_PROXY or ALL_PROXY"
    assert answer == NotSent(f"the name of {proxy} can't be resolved: is the network up?")


async def test_a_certificate_behind_a_proxy(proxied, tls):
    """What is not trusted is the server's, however the way to it was made."""

    async def proxy(stream) -> None:
        await request_on(stream)
        await stream.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await anyio.streams.tls.TLSStream.wrap(stream, server_side=True, ssl_context=tls)

    async with serving(proxy) as proxy_url:
        proxied(proxy_url)
        answer = await ask(ELSEWHERE)
    assert type(answer) is NotSent
    assert "the certificate of accounts.example is not trusted" in answer.words


async def test_a_proxy_that_hangs_up(proxied):
    """Only the proxy was spoken to: no doubt about the refresh token."""
    async with serving(replying()) as proxy_url:
        proxied(proxy_url)
        answer = await ask(ELSEWHERE)
    words = "broke off before the whole answer was there"
    assert answer == NotSent(f"the connection to {named(proxy_url)} {words}")


async def test_a_proxy_that_is_silent(proxied):
    """The way to the server has the time to connect, not the long time for an answer."""
    timing = Timing(connect_timeout=0.3, send_timeout=5.0, answer_timeout=60.0)
    async with serving(silent) as proxy_url:
        proxied(proxy_url)
        answer = await ask(ELSEWHERE, timing=timing)
    assert answer == NotSent(f"no connection to {named(proxy_url)} within 0.3 s")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "gopher://user-1:secret-1@127.0.0.1:1"),
        ("ALL_PROXY", "http://[::1"),
        ("SSL_CERT_FILE", "/nonexistent/authorities.pem"),
    ],
)
async def test_variables_that_cannot_be_used(monkeypatch, name, value):
    """The daemon goes on, sends nothing, and says which variables to look at."""
    monkeypatch.setenv(name, value)
    this = endpoint()
    answer = (await this.post(refresh(ELSEWHERE))).answer
    identity = await this.identity(ELSEWHERE, Secret("access-1"))
    await this.aclose()
    assert (type(answer), identity) == (NotSent, UnknownIdentity(answer.words))
    assert (name in answer.words, "secret-1" in answer.words) == (True, False)


# --- identity -----------------------------------------------------------------------------------


async def identity(handler):
    """Ask a stand-in whose token it is."""
    url = "https://api.example/v1/me"
    return await endpoint(httpx.MockTransport(handler)).identity(url, Secret("access-1"))


async def test_what_is_asked_for_the_identity():
    """A GET with the token as Bearer (RFC 6750, 2.1), and nothing more."""
    seen = []

    def handler(request):
        seen.append((request.method, request.headers["authorization"], request.content))
        return httpx.Response(200, json={"id": "alice"})

    await identity(handler)
    assert seen == [("GET", "Bearer access-1", b"")]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"account_id": "1", "id": "2", "sub": "3"}, Identity("1", None)),
        ({"id": "alice", "display_name": "Alice\x1b[31m"}, Identity("alice", "Alice [31m")),
        ({"id": "alice", "display_name": None}, Identity("alice", None)),
        ({"sub": "alice", "name": "Alice"}, Identity("alice", "Alice")),
        ({"account_id": "", "id": "alice"}, Identity("alice", None)),
        ({"account_id": None, "id": 583231}, Identity("583231", None)),
        ({"id": "a" * 64, "display_name": 7}, Identity("a" * 64, None)),
    ],
)
async def test_who_it_is(fields, expected):
    """The field that Spotify links accounts by comes first, then the older and OpenID Connect's."""
    assert await identity(lambda request: httpx.Response(200, json=fields)) == expected


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>", "holds no id"),
        (200, b"{}", "holds no id"),
        (200, b'{"id": true}', "holds no id"),
        (200, b'{"id": "a\\nb"}', "holds no id"),
        (200, b'{"id": "%s"}' % (b"a" * 201), "holds no id"),
        (401, b"", "(status 401)"),
        (403, b"", "(status 403)"),
        (403, b"User not registered in the Developer Dashboard", "under user management"),
        (403, b"Active premium subscription required for the owner", "needs Spotify Premium"),
        (302, b"", "(status 302)"),
        (503, b"", "(status 503)"),
    ],
)
async def test_who_it_is_not_said(status, body, words):
    """The login goes on without; the words say what is wrong, and the cure where there is one."""
    result = await identity(lambda request: httpx.Response(status, content=body))
    assert (type(result), words in result.words) == (UnknownIdentity, True)


async def test_an_identity_endpoint_that_is_out_of_reach():
    """The same words as for a token endpoint."""

    def handler(request):
        raise httpx.ReadTimeout("access-1")

    result = await identity(handler)
    assert result == UnknownIdentity("no whole answer from api.example within 20 s")


# --- a server that nobody here wrote ------------------------------------------------------------


@pytest.fixture(scope="module")
def authorization_server(authorization_servers):
    """One for all tests here: none counts what it has seen."""
    with authorization_servers() as server:
        yield server


VERIFIER = Secret("verifier-of-at-least-forty-three-characters-in-length")
STATE = Secret("state-1")


async def login(this: Endpoint, server, reg: Registration):
    """Log in as a browser would; the reply to the code's exchange."""
    redirect_uri = "http://127.0.0.1:8123/callback"
    url = authorization_url(
        reg,
        scopes=["openid", "user-read-private"],
        state=STATE,
        verifier=VERIFIER,
        redirect_uri=redirect_uri,
    )
    ended_at = await anyio.to_thread.run_sync(server.log_in, url)
    code = read_redirect(ended_at, redirect_uri=redirect_uri, state=STATE)
    request = code_request(reg, code=code.code, verifier=VERIFIER, redirect_uri=redirect_uri)
    return request, (await this.post(request)).answer


def registration(server, *, confidential: bool) -> Registration:
    """One of the two clients that the server knows."""
    return Registration(
        client_id="confidential" if confidential else "public",
        client_secret=Secret(server.client_secret) if confidential else None,
        flow=Flow.AUTHORIZATION_CODE if confidential else Flow.PKCE,
        redirect_uri=server.redirect_uri,
        authorize_url=server.authorize_url,
        token_url=server.token_url,
    )


@pytest.mark.parametrize("confidential", [False, True], ids=["PKCE", "secret and PKCE"])
async def test_a_login_and_its_refreshes(authorization_server, confidential):
    """From the authorization URL to the refusal of a refresh token that was used before."""
    this = endpoint()
    reg = registration(authorization_server, confidential=confidential)
    exchange, first = await login(this, authorization_server, reg)
    identity = await this.identity(authorization_server.identity_url, first.access_token)
    second = (await this.post(refresh_request(reg, first.refresh_token))).answer
    replayed = (await this.post(refresh_request(reg, first.refresh_token))).answer
    exchanged_again = (await this.post(exchange)).answer
    await this.aclose()
    assert identity == Identity("ada", None)
    assert (type(second), second.life) == (Issued, 60.0)
    assert second.refresh_token != first.refresh_token
    assert (type(replayed), type(exchanged_again)) == (GrantRefused, GrantRefused)


async def test_client_credentials(authorization_server):
    """A token for the client itself, and no refresh token."""
    this = endpoint()
    reg = registration(authorization_server, confidential=True)
    answer = (await this.post(client_credentials_request(reg))).answer
    await this.aclose()
    assert (type(answer), answer.refresh_token) == (Issued, None)


async def test_a_wrong_client_secret(authorization_server):
    """A matter of configuration, not of the grant."""
    this = endpoint()
    reg = replace(
        registration(authorization_server, confidential=True), client_secret=Secret("wrong: 100 %")
    )
    answer = (await this.post(client_credentials_request(reg))).answer
    await this.aclose()
    assert (type(answer), answer.error, answer.defect) == (ClientRefused, "invalid_client", False)


# --- secrets ------------------------------------------------------------------------------------


async def test_no_secret_is_logged(caplog):
    """Not even where all libraries log everything that they can."""
    caplog.set_level(logging.DEBUG)
    async with serving(replying(http(OBJECT))) as url, serving(replying(HALF)) as broken:
        this = endpoint()
        await this.post(refresh(url, confidential=True))
        await this.post(refresh(broken))
        await this.identity(broken, Secret("access-1"))
        await this.aclose()
    assert [secret for secret in SECRETS if secret in caplog.text] == []
    assert [r.name for r in caplog.records if r.name.startswith("spotokend")] == []
