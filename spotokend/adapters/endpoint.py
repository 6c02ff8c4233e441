"""The authorization server over HTTPS: one request, one answer, and how sure we are of it.

:meth:`Endpoint.post` never raises, but for the caller's cancellation, and never logs. It tells
apart what nobody else can: that nothing of the request left this host (:class:`NotSent`), or that
it did and no answer came (a Transient in doubt: the refresh token may be used up).

The module imports httpx, which takes a tenth of a second: whoever serves tokens imports it late.
"""

from __future__ import annotations

import ipaddress
import math
import os
import socket
import ssl
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import urlencode

import anyio
import httpx
from anyio.lowlevel import cancel_shielded_checkpoint

from spotokend import __version__
from spotokend.rules.oauth import (
    Answer,
    TokenRequest,
    Transient,
    basic_credentials,
    json_object,
    outside_text,
    read_answer,
)
from spotokend.rules.refusals import certificate
from spotokend.rules.schedule import Boot, Timing, Wall
from spotokend.rules.secret import Secret

BODY_LIMIT = 1024 * 1024
"""Bytes of an answer; Spotify's have some 500."""
_PIECES = 16
# Of a body in one turn of the loop: half a millisecond. 64 KiB come in one read, and hold ten
# thousand chunks of a byte, for which no client should wait.


@dataclass(frozen=True, slots=True)
class NotSent:
    """Nothing of the request has left this host; ``words`` say why."""

    words: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a request."""

    answer: Answer | NotSent
    sent_at: Boot
    """When sending began: a token's life and a rotation's grace count from here."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who agreed."""

    user: str
    """The server's lasting id of the user."""
    display_name: str | None


@dataclass(frozen=True, slots=True)
class UnknownIdentity:
    """The server did not say who it is; ``words`` say why."""

    words: str


class Endpoint:
    """Requests to token and identity endpoints.

    No redirects: they would carry tokens to another place. No retries and no reuse of connections:
    one that the server has just closed leaves us in doubt. No cookies: they would tie the accounts
    to each other. Proxies and certificate authorities come from the usual variables, except that
    loopback is never asked for through a proxy, which would look on its own host.
    """

    def __init__(
        self,
        *,
        timing: Timing,
        boot: Callable[[], Boot],
        wall: Callable[[], Wall],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._timing = timing
        self._boot = boot
        self._wall = wall
        self._unusable: str | None = None
        self._clients: dict[bool, httpx.AsyncClient] = {}  # by whether the host is loopback
        try:
            tls = httpx.create_ssl_context()
            for loopback in (True, False):
                self._clients[loopback] = self._client(tls, transport, proxies=not loopback)
        except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:
            # A bad variable must not keep the daemon from serving what it has.
            self._unusable = (
                "the variables of proxies (HTTPS_PROXY, ALL_PROXY) or certificates (SSL_CERT_FILE,"
                f" SSL_CERT_DIR) can't be used ({type(error).__name__}): correct them, and start"
                " the daemon anew"
            )

    def _client(
        self, tls: ssl.SSLContext, transport: httpx.AsyncBaseTransport | None, *, proxies: bool
    ) -> httpx.AsyncClient:
        timing = self._timing
        return httpx.AsyncClient(
            transport=transport,
            verify=tls,
            trust_env=proxies,
            timeout=httpx.Timeout(
                connect=timing.connect_timeout,
                write=timing.send_timeout,
                read=timing.answer_timeout,
                pool=None,
            ),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            headers={
                "User-Agent": f"spotokend/{__version__}",
                "Accept": "application/json",
                # Of a compressed answer that is cut, less can be read.
                "Accept-Encoding": "identity",
                "Connection": "close",
            },
        )

    async def aclose(self) -> None:
        """Close both clients, and what they have open."""
        for client in self._clients.values():
            await client.aclose()

    async def post(self, request: TokenRequest) -> Reply:
        """Send a token request, and read the answer whatever it is."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if request.basic is not None:
            headers["Authorization"] = f"Basic {basic_credentials(*request.basic).reveal()}"
        form = urlencode(
            [(name, v.reveal() if isinstance(v, Secret) else v) for name, v in request.form]
        )
        exchange = await self._exchange("POST", request.url, headers, form.encode())
        return Reply(self._answer(exchange), exchange.sent_at)

    async def identity(self, url: str, access_token: Secret) -> Identity | UnknownIdentity:
        """Ask whose token it is: ``/v1/me``, or the userinfo endpoint of OpenID Connect."""
        headers = {"Authorization": f"Bearer {access_token.reveal()}"}
        exchange = await self._exchange("GET", url, headers, None)
        if exchange.trouble is not None:
            return UnknownIdentity(exchange.trouble)
        return _read_identity(exchange.status, _uncompressed(exchange.body))

    def _answer(self, exchange: _Exchange) -> Answer | NotSent:
        if exchange.trouble is not None and not exchange.sent:
            return NotSent(exchange.trouble)
        answer = read_answer(
            exchange.status or 0,
            exchange.headers,
            _uncompressed(exchange.body),
            timing=self._timing,
            now=self._wall(),
        )
        # What was cut off may still hold all that counts: a status of 429, or the whole object in
        # a body that was never closed. To drop that would be to lose what a rotation brought.
        if exchange.trouble is not None and isinstance(answer, Transient) and answer.in_doubt:
            return replace(answer, words=exchange.trouble, status=exchange.status)
        return answer

    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None
    ) -> _Exchange:
        exchange = _Exchange(self._timing, self._boot)
        if self._unusable is not None:
            exchange.trouble = self._unusable
            return exchange
        try:
            address = httpx.URL(url)
            exchange.host = address.host
            client = self._clients[_is_loopback(address.host)]
            request = client.build_request(
                method,
                address,
                headers=headers,
                content=content,
                extensions={"trace": exchange.trace},
            )
            await exchange.run(client, request)
        except Exception as error:  # noqa: BLE001 - httpx lets some through that are not its own
            if not exchange.complete:  # a connection that closes badly takes nothing back
                exchange.sent = exchange.status is not None or not (
                    exchange.tunnelling or isinstance(error, _BEFORE_SENDING)
                )
                exchange.trouble = _trouble(error, exchange, self._timing, self._wall())
        return exchange


_BEFORE_SENDING = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.InvalidURL,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


class _TooLarge(Exception):
    """The body exceeds :data:`BODY_LIMIT`."""


class _Exchange:
    """One request under way: how far it has got, and its deadlines."""

    def __init__(self, timing: Timing, boot: Callable[[], Boot]) -> None:
        self._timing = timing
        self._boot = boot
        self._deadline = anyio.CancelScope()
        self.host = "the server"
        self.proxy: str | None = None
        """What is spoken to in the server's place, up to the end of making a way to it."""
        self.sent_at = boot()
        self.sent = False
        """Something of the request may have left this host; once there is trouble."""
        self.tunnelling = False
        """Only the proxy was spoken to."""
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.body = bytearray()
        self.complete = False
        self.trouble: str | None = None
        """Why there is no complete answer."""

    async def run(self, client: httpx.AsyncClient, request: httpx.Request) -> None:
        """Send the request and collect the answer; raises whatever keeps it from being complete."""
        timing = self._timing
        # httpx bounds single reads, which a server that drips byte by byte never exceeds.
        self._allow(timing.connect_timeout + timing.send_timeout + timing.answer_timeout)
        with self._deadline:
            response = await client.send(request, stream=True)
            try:
                self.status, self.headers = response.status_code, dict(response.headers)
                assert isinstance(response.stream, httpx.AsyncByteStream)
                pieces = 0
                async for piece in response.stream:
                    self.body += piece
                    if len(self.body) > BODY_LIMIT:
                        # Not raised here: on trio, httpx's generators have to be left from within.
                        self._deadline.cancel()
                    pieces += 1
                    if not pieces % _PIECES:
                        await cancel_shielded_checkpoint()
                self.complete = True
            finally:
                await response.aclose()
        if len(self.body) > BODY_LIMIT:
            raise _TooLarge
        if not self.complete:
            raise httpx.ConnectTimeout("") if self.tunnelling else httpx.ReadTimeout("")

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """httpx's ``trace`` extension: what the connection is about to do, or has done.

        A transport that tells nothing is judged by its exceptions, and by all times together.
        """
        if event == "connection.connect_tcp.started" and info["host"] != self.host:
            self.proxy = f"the proxy {info['host']}:{info['port']} of HTTPS_PROXY or ALL_PROXY"
        elif event == "proxy.start_tls.started":
            self.proxy = None
        elif event == "http11.send_request_headers.started":
            self.tunnelling = info["request"].method == b"CONNECT"
            if self.tunnelling:
                self._allow(self._timing.connect_timeout)
            else:
                self.sent_at = self._boot()
                self._allow(self._timing.send_timeout + self._timing.answer_timeout)
        elif event == "http11.send_request_body.complete" and not self.tunnelling:
            self._allow(self._timing.answer_timeout)
        elif event == "http11.receive_response_headers.complete" and not self.tunnelling:
            # httpx may still object: to where a redirect leads, which it does not follow.
            _, self.status, *_ = info["return_value"]
        elif event == "http11.receive_response_body.complete":
            # The last byte is there: from now on neither the deadline nor the caller's
            # cancellation may take away what it brought, while the connection is being closed.
            self.complete = self._deadline.shield = True
            self._allow(math.inf)

    def _allow(self, seconds: float) -> None:
        self._deadline.deadline = anyio.current_time() + seconds


def _uncompressed(body: bytearray) -> bytes:
    """The body without gzip, which was not asked for; the headers may be wrong about that."""
    if body.startswith(b"\x1f\x8b"):  # RFC 1952, 2.3.1
        try:
            # Of one that is cut what came may still hold all that counts.
            return zlib.decompressobj(wbits=31).decompress(body, BODY_LIMIT)
        except zlib.error:
            pass  # a damaged one is no JSON either
    return bytes(body)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# The first kind that fits counts.
_TROUBLES: tuple[tuple[type[Exception], str], ...] = (
    (httpx.ConnectError, "{peer} did not agree on an encrypted connection"),
    (httpx.ConnectTimeout, "no connection to {peer} within {timing.connect_timeout:g} s"),
    (httpx.ProxyError, "{peer} gives no way to {host}: {said}"),
    (httpx.InvalidURL, "the address of {host} can't be asked: check the URLs of the client"),
    (httpx.UnsupportedProtocol, "{host} is not asked: its address must begin with https://"),
    (httpx.WriteTimeout, "{host} did not take the request within {timing.send_timeout:g} s"),
    (httpx.ReadTimeout, "no whole answer from {host} within {timing.answer_timeout:g} s"),
    (_TooLarge, "the answer of {host} is larger than {limit} bytes"),
    (Exception, "the connection to {peer} broke off before the whole answer was there"),
)


def _trouble(error: Exception, exchange: _Exchange, timing: Timing, wall: Wall) -> str:
    """What went wrong, in words; none of them the exception's own, which may quote the request."""
    peer = exchange.proxy or exchange.host
    for cause in _causes(error) if isinstance(error, httpx.ConnectError) else ():
        match cause:
            case ssl.SSLCertVerificationError():
                return certificate(
                    cause.verify_code,
                    peer=peer,
                    said=cause.verify_message,
                    today=str(datetime.fromtimestamp(wall, UTC).date()),
                )
            case socket.gaierror():
                name = exchange.host if exchange.proxy is None else f"of {exchange.proxy}"
                return f"the name {name} can't be resolved: is the network up?"
            case OSError(errno=int(number)) if not isinstance(cause, ssl.SSLError):
                return f"no connection to {peer}: {os.strerror(number)}"
    return next(words for kind, words in _TROUBLES if isinstance(error, kind)).format(
        peer=peer,
        host=exchange.host,
        timing=timing,
        limit=BODY_LIMIT,
        said=outside_text(str(error)),
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and all that led to it, also of several addresses that were tried."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for single in error.exceptions:
            yield from _causes(single)
    # httpcore raises "from None": what is hidden so is still the context.
    earlier = error.__cause__ or error.__context__
    if earlier is not None:
        yield from _causes(earlier)


# What Spotify's Web API says with 403 in plain text, in lower case, and what it means.
_FORBIDDEN = (
    # zmb3/spotify#232
    (b"not registered", "add this user in the dashboard of the app, under user management"),
    # zmb3/spotify#301
    (b"premium", "the owner of the app needs Spotify Premium"),
)


def _read_identity(status: int | None, body: bytes) -> Identity | UnknownIdentity:
    if status != 200:
        cure = next((f": {words}" for said, words in _FORBIDDEN if said in body.lower()), "")
        return UnknownIdentity(f"the server did not say who the user is (status {status}){cure}")
    fields = json_object(body)
    # Spotify's field to link accounts by since May 2026, its older one, and OpenID Connect's.
    for name in ("account_id", "id", "sub"):
        user = fields.get(name)
        if isinstance(user, int) and not isinstance(user, bool):
            user = str(user)
        if isinstance(user, str) and user and user.isprintable() and len(user) <= 200:
            display_name = fields.get("display_name") or fields.get("name")
            return Identity(
                user, outside_text(display_name) if isinstance(display_name, str) else None
            )
    return UnknownIdentity("the answer of the identity endpoint holds no id of the user")
