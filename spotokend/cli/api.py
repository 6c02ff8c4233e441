"""``spotokend api``: one call of an account's API. Its answer goes to stdout, what is wrong to stderr.

The token goes to the API that the account's client names (``api_url``), and nowhere else: an address
that is given whole is only compared with it, no redirect is followed, and no header that is given
changes who is asked. Nothing is repeated but, once, a call whose token was refused.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from spotokend import __version__, calls
from spotokend.client import Client
from spotokend.errors import BadRequest, Misconfigured, SpotokendError, Unavailable
from spotokend.rules.oauth import outside_text
from spotokend.token import Token

from . import terminal
from .api_address import address, is_loopback
from .api_errors import IN_DOUBT, LOOK_FIRST, SAFE, Answer, explain, token_refused

CONNECT_TIMEOUT = 5.0
ANSWER_TIMEOUT = 30.0
"""Seconds of silence; an answer that goes on coming may take longer."""
DATA_LIMIT = 16 * 1024 * 1024
"""Bytes. Spotify's largest, the picture of a playlist, has 256 KiB; what is larger is a mistake."""
ERROR_LIMIT = 64 * 1024
"""Bytes that are read of an answer that is no success; its words stand in the first hundred."""
COLOUR_LIMIT = 256 * 1024
"""Characters. To colour so many takes a second."""


def run(arguments: argparse.Namespace) -> int:
    """Make the call."""
    call = read_call(arguments.method, arguments.data, arguments.header)
    with Client() as client:
        account, url = _find(client, arguments.account, arguments.path)
        with _connect(url) as http:
            answer = _send(http, url, call, token := client.token(account))
            if answer is not None and token_refused(answer):
                answer = _send(http, url, call, client.reject(token))
    if answer is not None:
        raise explain(answer, method=call.method, account=account, now=time.time())
    return 0


# --- where it goes --------------------------------------------------------------------------------


def _find(client: Client, account: str | None, path: str) -> tuple[str, str]:
    """The account that is meant, and the whole address of its call."""
    if account is None:
        # Which one that is the daemon tells only with a token; none is asked for in vain.
        first = calls.read_map(client.socket_path, client.call("status", limit=1))
        clients: dict[str, Any] = calls.read_map(client.socket_path, first.get("clients"))
        _check_any([each["api_url"] for each in clients.values() if each.get("api_url")], path)
        account = client.token().account
    status: dict[str, Any] = client.status(account)
    name = status["accounts"][0]["client"]
    api_url = status["clients"][name].get("api_url")
    if api_url is None:
        raise Misconfigured(
            f"it isn't known where tokens of {account} may go: clients.{name}.api_url is missing",
            hint=f'add api_url = "https://…" to [clients.{name}], then run: spotokend reload',
            account=account,
        )
    return account, address(api_url, path)


def _check_any(api_urls: list[str], path: str) -> None:
    """Raise what is wrong with ``path`` if it can be meant for none of these."""
    for api_url in api_urls:
        with suppress(BadRequest):
            address(api_url, path)
            return
    if api_urls:
        address(api_urls[0], path)


# --- what is sent ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """The words of the command line, checked."""

    method: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | None


def read_call(method: str | None, data: str | None, headers: list[str]) -> Call:
    """What is to be sent. ``data`` as of the option: the text itself, ``@FILE``, ``@-`` for stdin.

    Raises:
        BadRequest: something of it can't be sent.
    """
    body = None if data is None else _read_data(data)
    if method is None:
        method = "GET" if body is None else "POST"
    if not re.fullmatch(r"[A-Za-z]{1,20}", method):
        raise BadRequest(f"{method[:20]} is no method", hint="such as GET, POST, PUT or DELETE")
    method = method.upper()
    if method in {"CONNECT", "TRACE"}:
        # RFC 9110, 9.3.6 and 9.3.8: the one asks for a tunnel, the other for the token back.
        raise BadRequest(f"{method} is a matter between programs, and no call of an API")
    pairs = [_read_header(text) for text in headers]
    if body and all(name.lower() != "content-type" for name, _ in pairs):
        if not _is_json(body):
            raise BadRequest(
                "the data is no JSON, and nothing says what else it is",
                hint="correct it, or add such as -H 'Content-Type: text/plain'",
            )
        pairs.append(("Content-Type", "application/json"))
    return Call(method, tuple(pairs), body)


def _read_data(data: str) -> bytes:
    if not data.startswith("@"):
        return os.fsencode(data)
    name = data[1:]
    try:
        with open(0 if name == "-" else name, "rb", closefd=name != "-") as file:
            body = file.read(DATA_LIMIT + 1)
    except OSError as error:
        raise BadRequest(f"--data {data}: {error.strerror}", hint="name a file to read") from None
    if len(body) > DATA_LIMIT:
        raise BadRequest(f"--data {data}: more than {DATA_LIMIT} bytes")
    return body


_OURS = {"authorization", "connection", "content-length", "host", "transfer-encoding"}
"""Headers that say whose call it is, who is to answer it, and where it ends."""


def _read_header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    # RFC 9110, 5.6.2 and 5.5. A value isn't shown: it may be somebody's key.
    if not colon or not re.fullmatch(r"[\w!#$%&'*+.^`|~-]{1,100}", name, re.ASCII):
        raise BadRequest(
            "that is no header: a name and a colon are expected",
            hint="such as -H 'Accept-Language: de'",
        )
    if not re.fullmatch(r"[\t -~]*", value):
        raise BadRequest(f"the header {name} holds what isn't printable ASCII")
    if name.lower() in _OURS:
        raise BadRequest(f"the header {name} is spotokend's own", hint=f"leave -H '{name}: …' out")
    return name, value.strip()


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body.decode())  # RFC 8259, 8.1: UTF-8, and nothing else
    except (ValueError, RecursionError):
        return False
    return True


# --- the exchange ---------------------------------------------------------------------------------


def _connect(url: str) -> httpx.Client:
    """Proxies and certificate authorities come from the usual variables; loopback is asked directly."""
    try:
        return httpx.Client(
            verify=httpx.create_ssl_context(),
            trust_env=not is_loopback(urlsplit(url).hostname),
            timeout=httpx.Timeout(ANSWER_TIMEOUT, connect=CONNECT_TIMEOUT),
            headers={
                "User-Agent": f"spotokend/{__version__}",
                "Accept": "application/json",
                # What is piped on is what was sent, and a few bytes can't become many.
                "Accept-Encoding": "identity",
            },
        )
    except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:
        raise Misconfigured(
            "the variables of proxies (HTTPS_PROXY, ALL_PROXY) or certificates (SSL_CERT_FILE, "
            f"SSL_CERT_DIR) can't be used ({type(error).__name__})",
            hint="correct them, or unset them",
        ) from None


def _send(http: httpx.Client, url: str, call: Call, token: Token) -> Answer | None:
    """Make the call and print the answer; None, or the answer unprinted if it is no success."""
    headers = [*call.headers, ("Authorization", token.authorization)]
    response = None
    try:
        with http.stream(call.method, url, headers=headers, content=call.body) as response:
            if response.is_success:
                _print(response)
                return None
            return Answer(response.status_code, dict(response.headers), _beginning(response))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # Without its context: an exception of httpx holds the request, and that the token.
        raise _trouble(error, urlsplit(url).hostname or "", call, response) from None


def _beginning(response: httpx.Response) -> bytes:
    body = b""
    with suppress(httpx.HTTPError):  # the status says enough
        for piece in response.iter_bytes():
            body += piece
            if len(body) >= ERROR_LIMIT:
                break
    return body[:ERROR_LIMIT]


_BEFORE_SENDING = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.InvalidURL,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


def _trouble(
    error: Exception, host: str, call: Call, response: httpx.Response | None
) -> SpotokendError:
    if response is not None:
        return Unavailable(
            f"the answer of {host} broke off after {response.num_bytes_downloaded} bytes",
            hint="what was printed, if anything, is not all of it",
        )
    words, hint = _what_happened(error, host)
    if call.method not in SAFE and not isinstance(error, _BEFORE_SENDING):
        words += f"; {IN_DOUBT}"
        hint = f"{LOOK_FIRST}\n{hint}"
    return Unavailable(words, hint=hint)


def _what_happened(error: Exception, host: str) -> tuple[str, str]:
    for cause in _causes(error):
        match cause:
            case ssl.SSLCertVerificationError():
                return (
                    f"the certificate of {host} is not trusted ({cause.verify_message})",
                    "if that authority is yours, name it in SSL_CERT_FILE",
                )
            case socket.gaierror():
                return f"the name {host} can't be resolved", "is the network up?"
            case ConnectionRefusedError():
                return f"nobody listens at {host}, or at its proxy", "is it the right address?"
    match error:
        case httpx.ProxyError():
            said = outside_text(str(error))
            return f"the proxy gives no way to {host}: {said}", "look at the proxy variables"
        case httpx.ConnectTimeout():
            words = f"no connection to {host} within {CONNECT_TIMEOUT:g} s"
        case httpx.ConnectError():
            words = f"no connection to {host}, or none that is encrypted"
        case httpx.TimeoutException():
            words = f"no answer from {host} within {ANSWER_TIMEOUT:g} s"
        case httpx.InvalidURL():
            return f"the address at {host} is too long", "shorten the path"
        case _:
            words = f"the connection to {host} broke off before there was an answer"
    return words, "is the network up? Then try again in a minute"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


# --- what comes back ------------------------------------------------------------------------------


def _print(response: httpx.Response) -> None:
    if sys.stdout is None:  # the command was started without one
        return
    if sys.stdout.isatty():
        _show(response.read(), response.headers.get("content-type", "no type")[:100])
        return
    for piece in response.iter_bytes():
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()  # whoever reads a pipe wants it now


def _show(body: bytes, kind: str) -> None:
    """For a person: JSON indented and in colours, other text harmless, the rest by its size."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        terminal.say(f"{len(body)} bytes of {kind} came; to have them, send stdout to a file.")
        return
    try:
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        colourful = terminal.colourful(sys.stdout) and len(text) <= COLOUR_LIMIT
    except (ValueError, RecursionError):
        text, colourful = text.replace("\r\n", "\n").removesuffix("\n").expandtabs(), False
    text = "\n".join(map(terminal.clean, text.split("\n")))
    if colourful:
        _paint(text)
    elif text:
        terminal.show(text)


def _paint(text: str) -> None:
    from rich.console import Console  # only for whoever looks at it
    from rich.highlighter import JSONHighlighter
    from rich.text import Text

    painted = Text(text)
    JSONHighlighter().highlight(painted)
    console = Console(file=sys.stdout, force_terminal=True, legacy_windows=False)
    console.print(painted, soft_wrap=True)
