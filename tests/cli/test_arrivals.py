"""The race of browser and paste, and what people paste."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import closing

import pytest

from spotokend.cli import arrivals, pages
from spotokend.cli.arrivals import LINE, Arrivals, addresses
from spotokend.cli.callback import Redirect
from spotokend.cli.listener import Listener

ADDRESS = "http://127.0.0.1/callback?code=code-1&state=state-1"


@pytest.fixture
def paste():
    """What is pasted is written to ``paste.into``; the command reads ``paste.stdin``."""

    class Paste:
        stdin, into = os.pipe()
        closed = False

        def __call__(self, text):
            os.write(self.into, text.encode())

        def end(self):
            self.closed = True
            os.close(self.into)

    pasted = Paste()
    yield pasted
    if not pasted.closed:
        pasted.end()
    os.close(pasted.stdin)


@pytest.fixture
def listener():
    """A listener that nobody visits unless the test does."""
    with closing(Listener(Redirect("http://127.0.0.1/callback"))) as listening:
        yield listening


def test_a_pasted_address_arrives(paste):
    """Once it is quiet; with no page for anybody."""
    paste(f"{ADDRESS}\n")
    arrival = Arrivals(None, paste.stdin).next(10)

    assert arrival.address.strip() == ADDRESS
    assert arrival.answer(pages.used()) is None


def test_lines_that_come_one_after_another_are_one_address(paste, monkeypatch):
    """A terminal hands over a wrapped paste line by line."""
    monkeypatch.setattr(arrivals, "QUIET", 0.5)
    waiting = Arrivals(None, paste.stdin)
    paste("http://127.0.0.1/callback?state=state-1&code=co\n")
    later = threading.Timer(0.05, paste, ["de-1\n"])
    later.start()
    arrival = waiting.next(10)
    later.join()

    assert arrival.address.split() == ["http://127.0.0.1/callback?state=state-1&code=co", "de-1"]


def test_the_end_of_the_input_ends_an_address(paste):
    """``echo -n ADDRESS | spotokend login``; then nothing can arrive any more."""
    paste(ADDRESS)
    paste.end()
    waiting = Arrivals(None, paste.stdin)

    assert waiting.next(10).address == ADDRESS
    assert waiting.exhausted
    assert waiting.next(10) is None


def test_the_end_of_the_input_leaves_the_browser(paste, listener):
    """``spotokend login </dev/null`` goes on listening."""
    paste.end()
    waiting = Arrivals(listener, paste.stdin)

    assert waiting.next(0.01) is None
    assert not waiting.exhausted


def test_a_regular_file_can_be_the_input(tmp_path):
    """It is always readable, which epoll refuses and poll doesn't."""
    path = tmp_path / "address"
    path.write_text(ADDRESS)
    with path.open() as file:
        assert Arrivals(None, file.fileno()).next(10).address == ADDRESS


def test_a_terminal_that_goes_away_is_the_end(listener):
    """Reading from it is an error then."""
    master, slave = os.openpty()
    waiting = Arrivals(listener, slave)
    os.close(master)

    assert waiting.next(0.01) is None
    os.close(slave)


def test_a_descriptor_that_can_t_be_read_is_the_end(tmp_path, listener):
    """Such as one that was opened for writing."""
    with (tmp_path / "file").open("w") as file:
        waiting = Arrivals(listener, file.fileno())
        assert waiting.next(0.01) is None


def test_without_any_source_nothing_can_arrive():
    """No listener, and the command was started without stdin."""
    waiting = Arrivals(None, None)

    assert waiting.exhausted
    assert waiting.next(10) is None


def test_the_browser_arrives(paste, listener):
    """Its visit waits for an answer."""
    waiting = Arrivals(listener, paste.stdin)
    with socket.create_connection(("127.0.0.1", listener.port), timeout=10) as visitor:
        visitor.sendall(
            b"GET /callback?code=code-1 HTTP/1.1\r\n"
            + f"Host: 127.0.0.1:{listener.port}\r\n\r\n".encode()
        )
        arrival = waiting.next(10)
        assert arrival.address == f"{listener.redirect.uri}?code=code-1"
        arrival.answer(pages.used())

        assert visitor.recv(100).startswith(b"HTTP/1.1 303 ")


def test_several_addresses_are_tried_one_after_another(paste):
    """An older one in the same paste doesn't hide the right one."""
    paste("http://127.0.0.1/callback?code=old\nhttp://127.0.0.1/callback?code=new\n")
    waiting = Arrivals(None, paste.stdin)

    assert waiting.next(10).address.strip().endswith("old")
    assert not waiting.exhausted
    assert waiting.next(10).address.strip().endswith("new")


def test_the_rest_of_an_address_may_come_later(paste):
    """After the first part was refused, the second one continues it."""
    waiting = Arrivals(None, paste.stdin)
    paste("http://127.0.0.1/callback?code=code-1\n")
    assert "state" not in waiting.next(10).address
    paste("&state=state-1\n")

    assert "".join(waiting.next(10).address.split()) == ADDRESS


def test_an_endless_paste_is_read_no_further(paste, monkeypatch, capsys):
    """``yes | spotokend login``: said once, and as if the input had ended."""
    monkeypatch.setattr(arrivals, "LONGEST", 1000)
    paste("x" * 1010)
    waiting = Arrivals(None, paste.stdin)

    assert waiting.next(10) is None
    assert waiting.exhausted
    assert "too long for an address, and isn't read any further" in capsys.readouterr().err


def test_a_line_that_the_terminal_has_cut_is_refused_in_words(capsys):
    """Half a code would be redeemed; shorter lines of the same address arrive whole."""
    query = f"?code={'x' * LINE}&state=state-1"
    master, slave = os.openpty()
    waiting = Arrivals(None, slave)
    try:
        os.write(master, f"http://127.0.0.1/callback{query}\n".encode())
        assert waiting.next(0.01) is None
        words = capsys.readouterr().err
        assert f"cuts a line off after {LINE - 1} characters" in words
        assert "break the address into shorter lines" in words
        os.write(master, f"http://127.0.0.1/callback\n{query[:2000]}\n".encode())
        os.write(master, f"{query[2000:]}\n".encode())
        assert "".join(waiting.next(10).address.split()) == f"http://127.0.0.1/callback{query}"
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize(
    ("before", "text", "expected"),
    [
        ("", "", []),
        ("", " \n'\"\n", []),
        ("", "code=a&state=b", ["code=a&state=b"]),
        ("", "<http://x/?code=a>", ["http://x/?code=a>"]),
        ("nonsense", "code=a", ["code=a"]),
        ("http://x/?code=a", "&state=b", ["http://x/?code=a&state=b"]),
        ("http://x/?code=a", "http://x/?code=b", ["http://x/?code=b"]),
        ("", "http://x/?a=1 https://y/?b=2", ["http://x/?a=1 ", "https://y/?b=2"]),
        ("", "http://x/?next=http%3A%2F%2Fy", ["http://x/?next=http%3A%2F%2Fy"]),
        ("", "\x1b[200~http://x/?code=a\x1b[201~\n", ["http://x/?code=a\n"]),
        ("", "http://x/?code=a&amp;state=b", ["http://x/?code=a&state=b"]),
        ("", "'?code=a&state=b'", ["code=a&state=b'"]),
        ("", "It ended on: http://x/?code=a", ["http://x/?code=a"]),
        # A whole query is no other line of an older attempt's address.
        ("http://x/?code=a&state=b", "code=c&state=d", ["code=c&state=d"]),
        ("http://x/?code=a&state=b", "x/?error=c&state=d", ["x/?error=c&state=d"]),
        ("http://x/?code=a", "b&state=c http://y", ["http://x/?code=ab&state=c ", "http://y"]),
    ],
)
def test_addresses_in_a_text(before, text, expected):
    """Blank ones are none; what doesn't begin one continues the last."""
    assert addresses(before, text) == expected
