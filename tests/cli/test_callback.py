"""The redirect taken apart, and HTTP as bytes: which requests are meant, and what they get."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotokend.cli import pages
from spotokend.cli.callback import HEAD_LIMIT, HEADERS, Exchange, Redirect

REDIRECT = Redirect("http://127.0.0.1:8888/callback")


def request(target="/callback", *, method="GET", host="127.0.0.1:8888"):
    return h11.Request(method=method, target=target, headers=[("Host", host)])


def answered(data):
    """Status, headers and body of a response in bytes."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    client.receive_data(b"")
    response = client.next_event()
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += bytes(event.data)
    headers = {name.decode(): value.decode() for name, value in response.headers}
    return response.status_code, headers, body


@pytest.mark.parametrize(
    ("uri", "host", "port", "path", "authority"),
    [
        ("http://127.0.0.1/callback", "127.0.0.1", None, "/callback", "127.0.0.1"),
        ("http://127.0.0.1:8888/a/b", "127.0.0.1", 8888, "/a/b", "127.0.0.1:8888"),
        ("http://[::1]:8888", "::1", 8888, "/", "[::1]:8888"),
        ("http://127.0.0.1:80/", "127.0.0.1", 80, "/", "127.0.0.1"),
    ],
)
def test_a_redirect_uri_is_taken_apart(uri, host, port, path, authority):
    """Where to bind, what to match; the scheme's own port isn't in a Host header."""
    redirect = Redirect(uri)

    assert (redirect.host, redirect.port, redirect.path) == (host, port, path)
    assert redirect.authority == authority
    assert redirect.uri == uri


@pytest.mark.parametrize(
    ("uri", "loopback"),
    [
        ("http://127.0.0.1/callback", True),
        ("http://127.0.0.2/callback", False),
        ("http://[::1]/callback", True),
        ("https://127.0.0.1/callback", False),
        ("http://localhost/callback", False),
        ("https://app.example.test/callback", False),
    ],
)
def test_only_a_plain_loopback_literal_can_be_listened_at(uri, loopback):
    """Names are whatever a resolver says they are; TLS would need a certificate."""
    assert Redirect(uri).loopback is loopback


@pytest.mark.parametrize(
    ("uri", "ported"),
    [
        ("http://127.0.0.1/callback?app=1", "http://127.0.0.1:4000/callback?app=1"),
        ("http://[::1]/", "http://[::1]:4000/"),
    ],
)
def test_a_port_is_put_in(uri, ported):
    """All else stays exactly as it is registered."""
    assert Redirect(uri).at(4000).uri == ported


def test_our_pages_lie_below_the_redirect():
    """So that they can't be taken for it."""
    assert REDIRECT.beside("done") == "/callback/done"
    assert Redirect("http://127.0.0.1:1").beside("done") == "/done"
    assert REDIRECT.address("done") == "http://127.0.0.1:8888/callback/done"


def test_a_request_for_us_has_a_path():
    """Without its query."""
    assert REDIRECT.path_asked(request("/callback?code=code-1&state=state-1")) == "/callback"


@pytest.mark.parametrize(
    "strange",
    [
        request(method="POST"),
        request(method="HEAD"),
        request(host="evil.example:8888"),
        request(host="localhost:8888"),
        request(host="127.0.0.1"),
        request(host=""),
    ],
)
def test_other_methods_and_hosts_are_not_for_us(strange):
    """A page on the web that points its own name at this port is one of them."""
    assert REDIRECT.path_asked(strange) is None


def test_the_scheme_s_own_port_may_be_written_or_not():
    """Both mean the same host."""
    redirect = Redirect("http://127.0.0.1:80/")

    assert redirect.path_asked(request("/", host="127.0.0.1")) == "/"
    assert redirect.path_asked(request("/", host="127.0.0.1:80")) == "/"
    assert redirect.path_asked(request("/", host="127.0.0.1:81")) is None


def test_a_request_arrives_in_any_pieces():
    """Byte by byte, too."""
    exchange = Exchange()
    received = [exchange.receive(bytes([b])) for b in b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"]

    assert received[:-1] == [None] * (len(received) - 1)
    assert received[-1].target == b"/x"


def test_a_body_is_read_over():
    """Nobody sends one with GET; it isn't for us either."""
    exchange = Exchange()

    assert exchange.receive(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n") is None
    assert exchange.receive(b"ab").method == b"GET"


@pytest.mark.parametrize(
    "noise",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS: a browser that upgrades by itself
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"x" * (HEAD_LIMIT + 1),
    ],
)
def test_other_languages_are_no_request(noise):
    """Refused by the grammar; the listener hangs up."""
    with pytest.raises(h11.RemoteProtocolError):
        Exchange().receive(noise + b"\r\n\r\n")


def test_an_end_without_a_request_is_none():
    """A browser closes what it opened ahead of need."""
    assert Exchange().receive(b"") is None


@given(st.binary(max_size=200))
def test_noise_gets_a_protocol_error_or_nothing(data):
    """No other exception, whatever is sent."""
    exchange = Exchange()
    try:
        exchange.receive(data)
        exchange.receive(b"")
    except h11.RemoteProtocolError as error:
        assert error.error_status_hint >= 400


def exchanged(method="GET"):
    exchange = Exchange()
    exchange.receive(f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return exchange


def test_a_page_comes_with_headers_that_keep_it_here():
    """Not stored, not told to others, nothing loaded, nothing guessed."""
    page = pages.used()
    status, headers, body = answered(exchanged().page(page))

    assert status == 410
    assert body == page.body
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-security-policy"] == pages.POLICY
    assert headers["x-content-type-options"] == "nosniff"


def test_a_redirect_is_a_303_with_the_same_headers():
    """303, so that the next request is a GET whatever this one was (RFC 9110, 15.4.4)."""
    status, headers, body = answered(exchanged().see_other("http://127.0.0.1:8888/callback/done"))

    assert (status, body) == (303, b"")
    assert headers["location"] == "http://127.0.0.1:8888/callback/done"
    assert {name.lower(): value for name, value in HEADERS}.items() <= headers.items()


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
def test_what_is_not_for_us_is_not_found(method):
    """In few words."""
    data = exchanged(method).not_found()

    assert data.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert data.endswith(b"\r\n\r\n" if method == "HEAD" else b"Not found.\n")
