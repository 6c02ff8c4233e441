"""The listener with real sockets: who is answered, with what, and who can't disturb it."""

from __future__ import annotations

import http.client
import os
import select
import socket
import threading
from contextlib import closing

import pytest

from spotokend.cli import pages
from spotokend.cli.callback import Redirect
from spotokend.cli.listener import CONNECTIONS, Listener

FREE = Redirect("http://127.0.0.1/callback")
DENIED = pages.ended("denied", "the user declined", None, "spotokend login")
AUTHORIZE = "https://accounts.example.test/authorize?state=state-1"


class Browser:
    """One request in a thread of its own; the listener is served meanwhile."""

    def __init__(self, listener, path, **headers):
        self.status = self.headers = self.body = None
        self._address = (listener.redirect.host, listener.port)
        self._path = path
        self._headers = headers
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self):
        with closing(http.client.HTTPConnection(*self._address, timeout=10)) as connection:
            connection.request("GET", self._path, headers=self._headers)
            response = connection.getresponse()
            self.status, self.body = response.status, response.read()
            self.headers = response.headers

    def finish(self):
        self._thread.join(10)

    @property
    def waiting(self):
        self._thread.join(0.001)
        return self._thread.is_alive()


def serve(listener, *browsers):
    """Serve until a visit, or until the browsers have their answers."""
    while any(browser.waiting for browser in browsers):
        select.select([listener], [], [], 0.05)
        if (visit := listener.serve()) is not None:
            return visit
    return None


@pytest.fixture
def listener():
    """On a free port, with a login under way."""
    listening = Listener(FREE)
    listening.authorize_url = AUTHORIZE
    yield listening
    listening.close()


def test_a_free_port_is_taken_and_told(listener):
    """Where the registered URI has none."""
    assert listener.redirect.uri == f"http://127.0.0.1:{listener.port}/callback"
    assert listener.start_address == f"http://127.0.0.1:{listener.port}/callback/start"


def test_the_registered_port_is_taken(listener):
    """And no other; where somebody has it, that is an error."""
    with pytest.raises(OSError, match="in use"):
        Listener(listener.redirect)


def test_a_port_can_be_taken_again_at_once():
    """After a login comes the next one, while old connections are still being buried."""
    first = Listener(FREE)
    browser = Browser(first, "/")
    serve(first, browser)
    first.close()

    Listener(first.redirect).close()

    assert browser.status == 404


def test_ipv6_has_its_own_listener():
    """``[::1]`` is as good as 127.0.0.1."""
    with closing(Listener(Redirect("http://[::1]/callback"))) as listening:
        browser = Browser(listening, "/callback?code=code-1")
        visit = serve(listening, browser)
        assert visit.address == f"http://[::1]:{listening.port}/callback?code=code-1"
        visit.answer(DENIED)
        serve(listening, browser)

    assert browser.status == 303


def test_the_start_leads_to_the_provider(listener):
    """So that the state in that address is in no process's argv."""
    browser = Browser(listener, "/callback/start")

    assert serve(listener, browser) is None
    assert (browser.status, browser.headers["location"]) == (303, AUTHORIZE)


def test_before_there_is_a_login_the_start_leads_nowhere():
    """Nothing is to be found."""
    with closing(Listener(FREE)) as listening:
        browser = Browser(listening, "/callback/start")
        serve(listening, browser)

    assert browser.status == 404


def test_a_visit_is_answered_with_an_address_without_the_code(listener):
    """303 to the page, which is there when the browser comes for it."""
    browser = Browser(listener, "/callback?code=code-1&state=state-1")
    visit = serve(listener, browser)
    assert visit.address == f"{listener.redirect.uri}?code=code-1&state=state-1"

    visit.answer(pages.success("main", "Alice", []))
    serve(listener, browser)
    assert browser.status == 303
    location = browser.headers["location"]
    assert location == f"http://127.0.0.1:{listener.port}/callback/done"

    page = Browser(listener, "/callback/done")
    serve(listener, page)
    assert page.status == 200
    assert b"Alice" in page.body
    assert page.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["/", "/callback/", "/callback/done", "/favicon.ico", "/callbackx", "/Callback"]
)
def test_other_addresses_are_not_found(listener, path):
    """Also a page that nobody was sent to."""
    browser = Browser(listener, path)

    assert serve(listener, browser) is None
    assert browser.status == 404


def test_another_host_is_not_found(listener):
    """DNS rebinding: the right port under a wrong name."""
    browser = Browser(listener, "/callback?code=code-1", Host="evil.example")

    assert serve(listener, browser) is None
    assert browser.status == 404


def test_silent_connections_block_nobody(listener):
    """Browsers open them ahead of need; of too many the oldest goes."""
    silent = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(CONNECTIONS)]
    browser = Browser(listener, "/callback?code=code-1")
    visit = serve(listener, browser)

    assert visit is not None
    visit.answer(DENIED)
    serve(listener, browser)
    silent[0].settimeout(10)
    assert silent[0].recv(1) == b""
    for connection in silent:
        connection.close()


def test_connections_that_end_or_make_no_sense_are_dropped(listener):
    """Without a word, and without harm to the next one."""
    address = ("127.0.0.1", listener.port)
    with socket.create_connection(address) as tls, socket.create_connection(address) as half:
        tls.sendall(b"\x16\x03\x01\x02\x00\x01\r\n\r\n")
        half.sendall(b"GET / HT")
    with socket.create_connection(address):
        pass
    browser = Browser(listener, "/")
    serve(listener, browser)
    listener.serve()

    assert browser.status == 404
    assert listener._connections == {}


def test_a_request_may_come_in_pieces(listener):
    """It is answered when it is whole."""
    with socket.create_connection(("127.0.0.1", listener.port), timeout=10) as slow:
        slow.sendall(b"GET /callback?code=code-1 HTTP/1.1\r\n")
        listener.serve()
        listener.serve()
        slow.sendall(f"Host: 127.0.0.1:{listener.port}\r\n\r\n".encode())
        visit = None
        while visit is None:
            visit = listener.serve()
        visit.answer(DENIED)

        assert slow.recv(100).startswith(b"HTTP/1.1 303 ")


def test_a_browser_that_has_gone_is_no_error(listener):
    """The login goes on; nobody is there to be told."""
    visitor = socket.create_connection(("127.0.0.1", listener.port))
    visitor.sendall(
        f"GET /callback?code=code-1 HTTP/1.1\r\nHost: 127.0.0.1:{listener.port}\r\n\r\n".encode()
    )
    visit = None
    while visit is None:
        visit = listener.serve()
    # A reset: the kernel throws away what was to be sent.
    visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    visitor.close()

    visit.answer(DENIED)

    assert listener._connections == {}


@pytest.mark.parametrize(
    ("uid", "words"),
    [
        (os.getuid() + 1, f"another user of this computer (uid {os.getuid() + 1}) was refused"),
        (None, "doesn't tell whose it is"),
    ],
)
def test_other_users_are_refused(capsys, uid, words):
    """And so is whoever can't be recognised; it is said once."""
    with closing(Listener(FREE, uid_of=lambda peer, here: uid)) as listening:
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", listening.port), timeout=10) as stranger:
                listening.serve()
                assert stranger.recv(1) == b""

    assert capsys.readouterr().err.count(words) == 1


def test_nobody_to_accept_is_no_error(listener):
    """A connection that was taken back before its turn."""
    listener._accept()

    assert listener._connections == {}


def test_lingering_ends_when_the_last_page_was_fetched(listener):
    """The browser follows the 303 after the login has ended."""
    browser = Browser(listener, "/callback?code=code-1")
    serve(listener, browser).answer(DENIED)
    serve(listener, browser)
    page = Browser(listener, "/callback/denied")

    listener.linger(10)

    page.finish()
    assert page.status == 403


def test_lingering_without_a_browser_takes_no_time(listener):
    """After a paste nobody comes for a page."""
    listener.linger(1_000)

    assert listener._unseen.total() == 0


def test_lingering_has_an_end(listener):
    """A browser that doesn't follow."""
    browser = Browser(listener, "/callback?code=code-1")
    serve(listener, browser).answer(DENIED)
    serve(listener, browser)

    listener.linger(0.01)

    assert listener._unseen.total() == 1


@pytest.mark.parametrize("path", ["/callback?code=code-1", "/callback/start"])
def test_an_address_that_comes_again_is_used(listener, path):
    """In a second tab, or from the history, after the login has ended; so is the way to begin it."""
    first = Browser(listener, "/callback?code=code-1")
    serve(listener, first).answer(pages.success("main", "Alice", []))
    serve(listener, first)
    again = Browser(listener, path)
    listener.linger(0.2)

    assert serve(listener, again) is None
    assert again.headers["location"].endswith("/callback/used")
    assert listener._unseen == {"/callback/done": 1, "/callback/used": 1}


def test_two_tabs_that_end_alike_both_get_their_page(listener):
    """Lingering counts them; a page that is loaded once more stands for none of the others."""
    for _ in range(2):
        browser = Browser(listener, "/callback?code=code-1")
        serve(listener, browser).answer(DENIED)
        serve(listener, browser)
    first = Browser(listener, "/callback/denied")
    serve(listener, first)
    listener.linger(0)
    assert listener._unseen.total() == 1

    second = Browser(listener, "/callback/denied")
    listener.linger(10)
    second.finish()
    reloaded = Browser(listener, "/callback/denied")
    serve(listener, reloaded)
    assert [tab.status for tab in (first, second, reloaded)] == [403, 403, 403]
    assert listener._unseen.total() == 0
