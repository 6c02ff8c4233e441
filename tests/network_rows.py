"""What may happen to the line between the daemon and its provider, as data: a row a fault.

``tests/system/test_network_faults.py`` plays them all on the real daemon process.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from enum import Enum

from faulty_line import Ends, Fault, Listens


class Then(Enum):
    """What becomes of an account."""

    NOT_SENT = (
        "Nothing is sent. The token that there is goes on being served, quietly, to its end; then"
        " programs get `unavailable` with `retry_after`. Tried again by back-off; renewed by itself"
        " once the line is good."
    )
    NOT_SERVED = (
        "Not in doubt: the request did not get to the token endpoint. Otherwise as if nothing had"
        " been sent."
    )
    DOUBTED = (
        "In doubt. This provider is not known to rotate: asked once more after 1 to 3 s, then by"
        " back-off. The token is served to its end, then `unavailable` with `retry_after`; renewed"
        " by itself once the line is good."
    )
    PAUSED = (
        "Not in doubt. Nothing is sent before the longest pause that was asked for is over, whoever"
        " waits; then renewed by itself."
    )
    USED = "The answer is used, and the successor of the refresh token in it is not lost."
    WAITED = (
        "In doubt, with a strict provider: the refresh token is not presented again before the last"
        " moment at which the access token is of use. Then it is, and works."
    )
    LOST = (
        "In doubt, with a strict provider: the refresh token is not presented again before the last"
        " moment at which the access token is of use. Then the provider refuses it, and the account"
        " is quarantined with that cause; a login mends it."
    )
    GRACED = (
        "In doubt, with a provider that gives grace: presented once more inside it, and renewed."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LineRow:
    """A fault and what is expected of it, made of what the test needs."""

    name: str
    fault: str
    """In words."""
    then: Then
    says: str = ""
    """A part of what ``status`` tells as the reason."""
    besides: str = ""
    """What else is expected, in words."""
    line: Fault
    server: str = "keeps"
    """``keeps`` its refresh tokens, ``rotates`` and ends a family for a second use, or ``graces``."""
    tls: bool = False
    certificate: str = ""
    """Which one the broken line shows in place of its own."""
    host: str = "127.0.0.1"

    @property
    def expected(self) -> str:
        """In words."""
        said = f" `status` says: “{self.says}”." if self.says else ""
        return self.then.value + said + (f" {self.besides}" if self.besides else "")


# What comes back on a broken line.


def reply(
    body: bytes,
    *headers: str,
    status: str = "200 OK",
    length: int | None = None,
) -> bytes:
    """A whole answer; ``length`` in place of the true one."""
    head = (
        f"HTTP/1.1 {status}",
        f"Content-Length: {len(body) if length is None else length}",
        *headers,
        "",
        "",
    )
    return "\r\n".join(head).encode() + body


def page(status: str, *headers: str) -> Fault:
    """Somebody else answers, with a page for people."""
    html = b"<!doctype html><html><body>Sign in to use this network.</body></html>"
    return Fault(
        served=False,
        answer=lambda _: reply(html, "Content-Type: text/html", *headers, status=status),
    )


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def cut_in_headers(answer: bytes) -> bytes:
    return answer[: answer.index(b"\r\n\r\n") - 4]


def cut_in_body(answer: bytes) -> bytes:
    return answer[: -len(body_of(answer)) // 2]


def chunked(answer: bytes, *, end: bytes) -> bytes:
    body = body_of(answer)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n" % (len(body), body) + end


PAUSE = 14
"""Seconds that an answer asks for: longer than what a token has left then."""

BROKE_OFF = "the connection to 127.0.0.1 broke off before the whole answer was there"
NOT_THE_ENDPOINT = "something else than the token endpoint answered, or its answer was cut"

LINE_ROWS = (
    LineRow(
        name="IPv6 only",
        fault="The endpoint has an IPv6 address only.",
        server="rotates",
        host="::1",
        line=Fault(),
        then=Then.USED,
    ),
    # No line.
    LineRow(
        name="nobody listens",
        fault="Nobody listens at the provider's address.",
        line=Fault(listens=Listens.CLOSED),
        then=Then.NOT_SENT,
        says="no connection to 127.0.0.1: Connection refused",
    ),
    LineRow(
        name="nobody listens, IPv6 only",
        fault="The endpoint has an IPv6 address only, and nobody listens there.",
        host="::1",
        line=Fault(listens=Listens.CLOSED),
        then=Then.NOT_SENT,
        says="no connection to ::1: Connection refused",
    ),
    LineRow(
        name="nobody listens, strict",
        fault="The same with a strict provider.",
        server="rotates",
        line=Fault(listens=Listens.CLOSED),
        then=Then.NOT_SENT,
        says="no connection to 127.0.0.1: Connection refused",
    ),
    LineRow(
        name="connecting is not answered",
        fault="The line drops everything: connecting is never answered.",
        line=Fault(listens=Listens.DEAF),
        then=Then.NOT_SENT,
        says="no connection to 127.0.0.1 within 1 s",
    ),
    # Somebody else answers.
    LineRow(
        name="captive portal, a page",
        fault="A captive portal answers 200 with a page.",
        line=page("200 OK"),
        then=Then.DOUBTED,
        says=f"{NOT_THE_ENDPOINT} (status 200)",
    ),
    LineRow(
        name="captive portal, a redirect",
        fault="A captive portal answers 302 to its login page.",
        line=page("302 Found", "Location: /login"),
        then=Then.NOT_SERVED,
        says="the answer leads elsewhere, as that of a network that wants a sign-in does",
        besides="The redirect is not followed.",
    ),
    LineRow(
        name="captive portal, 511",
        fault="The network answers 511 (RFC 6585).",
        line=page("511 Network Authentication Required"),
        then=Then.NOT_SERVED,
        says="the network wants a sign-in first: open any page in a browser",
    ),
    LineRow(
        name="403 page",
        fault="A page with 403: this network is kept out.",
        line=page("403 Forbidden"),
        then=Then.NOT_SERVED,
        says="this network is kept out of the server",
    ),
    LineRow(
        name="502 page",
        fault="A gateway answers 502 with a page.",
        line=page("502 Bad Gateway"),
        then=Then.DOUBTED,
        says="the server has broken down, or something before it (status 502)",
    ),
    LineRow(
        name="429, twice",
        fault="429 comes with two `Retry-After`, the provider's and a proxy's.",
        line=Fault(
            served=False,
            answer=lambda _: reply(
                b"", "Retry-After: 2", f"Retry-After: {PAUSE}", status="429 Too Many Requests"
            ),
        ),
        then=Then.PAUSED,
        says="the server wants fewer requests",
    ),
    LineRow(
        name="no HTTP",
        fault="What answers speaks another protocol.",
        line=Fault(served=False, answer=lambda _: b"SSH-2.0-OpenSSH_9.2\r\n"),
        then=Then.DOUBTED,
        says=BROKE_OFF,
    ),
    # Cut.
    LineRow(
        name="cut before the request",
        fault="The connection is closed before anything of the request is read.",
        line=Fault(takes=0),
        then=Then.DOUBTED,
        says=BROKE_OFF,
    ),
    LineRow(
        name="cut in the request",
        fault="The connection is reset in the middle of the request.",
        line=Fault(takes=60, ends=Ends.RESET),
        then=Then.DOUBTED,
        says=BROKE_OFF,
    ),
    LineRow(
        name="cut after the request",
        fault="The connection is closed after the request, which the provider never sees.",
        line=Fault(served=False),
        then=Then.DOUBTED,
        says=BROKE_OFF,
    ),
    LineRow(
        name="cut before the answer",
        fault="The connection is reset after the request, which the provider serves.",
        line=Fault(answer=lambda _: b"", ends=Ends.RESET),
        then=Then.DOUBTED,
        says=BROKE_OFF,
    ),
    LineRow(
        name="cut in the status line",
        fault="The connection is closed in the middle of the status line.",
        line=Fault(answer=lambda answer: answer[:7]),
        then=Then.DOUBTED,
        says=BROKE_OFF,
    ),
    LineRow(
        name="cut in the headers",
        fault="The connection is closed in the middle of the headers.",
        line=Fault(answer=cut_in_headers),
        then=Then.DOUBTED,
        says=BROKE_OFF,
    ),
    LineRow(
        name="cut in the body",
        fault="The connection is closed in the middle of the body.",
        line=Fault(answer=cut_in_body),
        then=Then.DOUBTED,
        says=BROKE_OFF,
    ),
    LineRow(
        name="reset in the body",
        fault="The connection is reset in the middle of the body.",
        line=Fault(answer=cut_in_body, ends=Ends.RESET),
        then=Then.DOUBTED,
        says=BROKE_OFF,
    ),
    # Slow.
    LineRow(
        name="silent after connecting",
        fault="The line goes dead once it is connected, as after a sleep: nothing comes through.",
        line=Fault(takes=0, ends=Ends.SILENT),
        then=Then.DOUBTED,
        says="no whole answer from 127.0.0.1 within 2 s",
    ),
    LineRow(
        name="silent in the answer",
        fault="The line goes dead in the middle of the answer.",
        line=Fault(answer=cut_in_body, ends=Ends.SILENT),
        then=Then.DOUBTED,
        says="no whole answer from 127.0.0.1 within 2 s",
    ),
    LineRow(
        name="a byte a second",
        fault="The answer comes at one byte a second.",
        line=Fault(pace=1.0),
        then=Then.DOUBTED,
        says="no whole answer from 127.0.0.1 within 2 s",
        besides="The time for the answer is for all of it.",
    ),
    LineRow(
        name="byte by byte",
        fault="The answer comes byte by byte, and whole in time.",
        server="rotates",
        line=Fault(pace=0.0005),
        then=Then.USED,
    ),
    LineRow(
        name="late",
        fault="The answer comes late, and in time.",
        server="rotates",
        line=Fault(late=1.2),
        then=Then.USED,
    ),
    # Mangled.
    LineRow(
        name="Content-Length too long",
        fault="`Content-Length` is too long, and the connection is closed after the true end.",
        server="rotates",
        line=Fault(answer=lambda answer: reply(b := body_of(answer), length=len(b) + 50)),
        then=Then.USED,
    ),
    LineRow(
        name="Content-Length too long, and silence",
        fault="`Content-Length` is too long, and the connection stays open after the true end.",
        server="rotates",
        line=Fault(
            answer=lambda answer: reply(b := body_of(answer), length=len(b) + 50),
            ends=Ends.SILENT,
        ),
        then=Then.USED,
    ),
    LineRow(
        name="Content-Length too short",
        fault="`Content-Length` is too short.",
        line=Fault(answer=lambda answer: reply(b := body_of(answer), length=len(b) - 20)),
        then=Then.DOUBTED,
        says=f"{NOT_THE_ENDPOINT} (status 200)",
    ),
    LineRow(
        name="Content-Length twice, alike",
        fault="`Content-Length` comes twice and says the same.",
        server="rotates",
        line=Fault(
            answer=lambda answer: reply(b := body_of(answer), f"Content-Length: {len(b)}"),
        ),
        then=Then.USED,
    ),
    LineRow(
        name="Content-Length twice, different",
        fault="`Content-Length` comes twice and says two things (RFC 9112, 6.3: unrecoverable).",
        line=Fault(answer=lambda answer: reply(body_of(answer), "Content-Length: 7")),
        then=Then.DOUBTED,
        says=BROKE_OFF,
    ),
    LineRow(
        name="chunks without an end",
        fault="The answer is chunked, and the last chunk never comes.",
        server="rotates",
        line=Fault(answer=lambda answer: chunked(answer, end=b"")),
        then=Then.USED,
    ),
    LineRow(
        name="chunks, then garbage",
        fault="The answer is chunked; behind the chunk with the tokens there is garbage.",
        server="rotates",
        line=Fault(answer=lambda answer: chunked(answer, end=b"no size\r\n")),
        then=Then.USED,
    ),
    LineRow(
        name="garbage for chunks",
        fault="The answer is said to be chunked, and isn't.",
        line=Fault(
            answer=lambda answer: (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body_of(answer)
            )
        ),
        then=Then.DOUBTED,
        says=BROKE_OFF,
    ),
    LineRow(
        name="garbage for gzip",
        fault="The answer is said to be compressed, and is garbage.",
        line=Fault(answer=lambda _: reply(b"\x1f\x8bgarbage", "Content-Encoding: gzip")),
        then=Then.DOUBTED,
        says=f"{NOT_THE_ENDPOINT} (status 200)",
    ),
    LineRow(
        name="no gzip",
        fault="The answer is said to be compressed, and isn't.",
        server="rotates",
        line=Fault(answer=lambda answer: reply(body_of(answer), "Content-Encoding: gzip")),
        then=Then.USED,
    ),
    LineRow(
        name="gzip, cut",
        fault="The answer is compressed, and cut behind the tokens.",
        server="rotates",
        line=Fault(
            answer=lambda answer: reply(
                gzip.compress(body_of(answer))[:-8], "Content-Encoding: gzip", length=10_000
            )
        ),
        then=Then.USED,
    ),
    LineRow(
        name="1xx",
        fault="Two interim answers (100, 103) come before the answer.",
        server="rotates",
        line=Fault(
            answer=lambda answer: (
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n"
                + answer
            )
        ),
        then=Then.USED,
    ),
    LineRow(
        name="HTTP/1.0",
        fault="The answer is HTTP/1.0, and ends where the connection does.",
        server="rotates",
        line=Fault(answer=lambda answer: b"HTTP/1.0 200 OK\r\n\r\n" + body_of(answer)),
        then=Then.USED,
    ),
    LineRow(
        name="HTTP/1.0, cut",
        fault="The same, and it is cut in the middle, which nothing but the JSON can show.",
        line=Fault(
            answer=lambda answer: b"HTTP/1.0 200 OK\r\n\r\n" + cut_in_body(b"\r\n\r\n" + answer)
        ),
        then=Then.DOUBTED,
        says=f"{NOT_THE_ENDPOINT} (status 200)",
    ),
    LineRow(
        name="keep-alive",
        fault="The connection is kept alive, and idle ones get 408 as some servers send it.",
        server="rotates",
        line=Fault(
            answer=lambda answer: (
                reply(body_of(answer), "Connection: keep-alive")
                + reply(b"", status="408 Request Timeout")
            ),
            ends=Ends.SILENT,
        ),
        then=Then.USED,
        besides="No connection is used twice: there is no race to lose.",
    ),
    LineRow(
        name="BOM",
        fault="The answer begins with a byte order mark.",
        server="rotates",
        line=Fault(answer=lambda answer: reply(b"\xef\xbb\xbf" + body_of(answer))),
        then=Then.USED,
    ),
    LineRow(
        name="no UTF-8",
        fault="Beside the tokens stand bytes that are no UTF-8.",
        server="rotates",
        line=Fault(
            answer=lambda answer: reply(body_of(answer).replace(b"{", b'{"note": "\xff\xfe", ', 1))
        ),
        then=Then.USED,
    ),
    LineRow(
        name="huge headers",
        fault="Headers of 64 KiB come with the answer.",
        server="rotates",
        line=Fault(
            answer=lambda answer: reply(
                body_of(answer), *[f"X-{n}: {'x' * 1000}" for n in range(64)]
            )
        ),
        then=Then.USED,
    ),
    LineRow(
        name="headers without end",
        fault="Headers come without end.",
        line=Fault(answer=lambda _: b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 100_000),
        then=Then.DOUBTED,
        says=BROKE_OFF,
        besides="What is kept of them is bounded.",
    ),
    LineRow(
        name="body without end",
        fault="The body is larger than 1 MiB.",
        line=Fault(answer=lambda _: reply(b" " * 3_000_000)),
        then=Then.DOUBTED,
        says="the answer of 127.0.0.1 is larger than 1048576 bytes",
        besides="It is read to that limit.",
    ),
    # Encrypted.
    LineRow(
        name="certificate of nobody",
        fault="TLS is intercepted: the certificate is by an authority that nobody here knows.",
        tls=True,
        line=Fault(),
        certificate="nobody's",
        then=Then.NOT_SENT,
        says="the certificate of 127.0.0.1 is not trusted (unable to get local issuer certificate):"
        " sign in to this network, if it wants that; if that authority is yours, name it in"
        " SSL_CERT_FILE and start the daemon anew",
    ),
    LineRow(
        name="certificate of another name",
        fault="The certificate is another name's.",
        tls=True,
        line=Fault(),
        certificate="another's",
        then=Then.NOT_SENT,
        says="the certificate that is shown for 127.0.0.1 is another's: sign in to this network, if"
        " it wants that, or correct the URLs of the client",
    ),
    LineRow(
        name="certificate expired",
        fault="The certificate has expired.",
        tls=True,
        line=Fault(),
        certificate="expired",
        then=Then.NOT_SENT,
        says="the certificate of 127.0.0.1 has expired, if this host's clock is right",
    ),
    LineRow(
        name="certificate not yet valid",
        fault="The certificate is not valid yet.",
        tls=True,
        line=Fault(),
        certificate="early",
        then=Then.NOT_SENT,
        says="the certificate of 127.0.0.1 is not valid yet: is this host's clock right?",
    ),
    LineRow(
        name="no TLS",
        fault="What answers does not speak TLS.",
        tls=True,
        line=Fault(takes=1, answer=lambda _: reply(b"")),
        then=Then.NOT_SENT,
        says="127.0.0.1 did not agree on an encrypted connection",
    ),
    LineRow(
        name="no handshake",
        fault="The line goes dead before the handshake of TLS.",
        tls=True,
        line=Fault(takes=0, ends=Ends.SILENT),
        then=Then.NOT_SENT,
        says="no connection to 127.0.0.1 within 1 s",
    ),
    LineRow(
        name="handshake cut",
        fault="The connection is reset in the handshake of TLS.",
        tls=True,
        line=Fault(takes=100, ends=Ends.RESET),
        then=Then.NOT_SENT,
        says="127.0.0.1",
    ),
    LineRow(
        name="TLS, cut before the answer",
        fault="An encrypted connection is reset after the request, which the provider serves.",
        tls=True,
        line=Fault(answer=lambda _: b"", ends=Ends.RESET),
        then=Then.DOUBTED,
        says=BROKE_OFF,
    ),
    # Strict providers.
    LineRow(
        name="not served, strict",
        fault="The line is cut once after the request, which a strict provider never sees.",
        server="rotates",
        line=Fault(served=False, count=1),
        then=Then.WAITED,
        says=BROKE_OFF,
    ),
    LineRow(
        name="answer lost, strict",
        fault="The answer of a strict provider is lost once.",
        server="rotates",
        line=Fault(answer=lambda _: b"", count=1),
        then=Then.LOST,
        says=BROKE_OFF,
    ),
    LineRow(
        name="answer cut, strict",
        fault="The answer of a strict provider is once cut in the middle of the body.",
        server="rotates",
        line=Fault(answer=cut_in_body, count=1),
        then=Then.LOST,
        says=BROKE_OFF,
    ),
    LineRow(
        name="answer lost, grace",
        fault="The answer of a provider that gives 10 s of grace is lost once.",
        server="graces",
        line=Fault(answer=lambda _: b"", count=1),
        then=Then.GRACED,
        says=BROKE_OFF,
    ),
)
