"""The live view: in a terminal of its own, with the real daemon; and what feeds it."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
from types import SimpleNamespace

import pytest
from daemon_process import DaemonProcess
from rich.cells import cell_len
from terminal_process import TerminalProcess

from spotokend import calls
from spotokend.cli import live, main
from spotokend.cli.live import Feed, obstacle
from spotokend.cli.scene import Scene
from spotokend.client import Client
from spotokend.errors import BadRequest, Forbidden, UnknownAccount
from spotokend.sandbox import Options, ready_configuration, running

LIVE = [sys.executable, "-m", "spotokend", "status", "--live"]
ENTERED, LEFT = "\x1b[?1049h", "\x1b[?1049l"
"""The alternate screen."""


@pytest.fixture
def world(short_path):
    """A daemon with an account that works by itself, and three that nobody has logged in to."""
    options = Options(auto_approve=True)
    with running(options) as sandbox:
        config = ready_configuration(sandbox.url, options, folder=str(short_path))
        with DaemonProcess(short_path, config) as daemon:
            Client(daemon.socket).token("machine")
            yield daemon


def assert_left_as_it_was(terminal, before):
    """Cursor, wrapping, keys and the ordinary screen are there again."""
    assert not terminal.screen.cursor.hidden
    assert terminal.written.count(ENTERED) == terminal.written.count(LEFT)
    assert terminal.written.rindex("\x1b[?7h") > terminal.written.rindex("\x1b[?7l")
    assert termios.tcgetattr(terminal._terminal)[:4] == before


def keys(terminal):
    """How the terminal treats what is typed, just now."""
    return termios.tcgetattr(terminal._terminal)[:4]


# ------------------------------------------------------------------------------- in a real terminal


def test_the_view_shows_what_happens(world):
    """Accounts, a refresh, a window of another size, a login; and q leaves."""
    with TerminalProcess(LIVE, world.environ) as terminal:
        before = keys(terminal)
        terminal.expect("LOGIN")
        terminal.expect("nobody has logged in yet")
        assert [line.split()[:2] for line in terminal.screen.display[3:7]] == [
            ["✗", "alice"],
            ["✗", "bob"],
            ["✗", "carol"],
            ["✓", "machine"],
        ]
        token = Client(world.socket).refresh("machine")
        terminal.expect("machine: token 2, 60 min before the end")
        assert "refreshed" in terminal.screen.display[6]

        terminal.resize(60, 20)
        world.configure(world.config.read_text().replace("[accounts.bob]", "[accounts.bert]"))
        world.reload()
        terminal.expect("✗ bert")
        assert "machine" in terminal.shown
        assert terminal.screen.cursor.hidden

        terminal.type("q")
        assert terminal.wait() == 0
        assert_left_as_it_was(terminal, before)
    assert token.access_token not in terminal.written
    assert "✓ machine" in terminal.shown
    assert "q leaves" not in terminal.written.rpartition(LEFT)[2]
    assert max(cell_len(line) for line in terminal.shown.splitlines()) <= 60


def test_a_daemon_that_goes_and_comes_back(world):
    """The view says so, waits, and goes on; Ctrl-C is how one leaves it."""
    with TerminalProcess(LIVE, world.environ) as terminal:
        before = keys(terminal)
        terminal.expect("✓ machine")
        world.kill()
        terminal.expect("doesn't answer since")
        world.start()
        terminal.expect("spotokend is back after")
        Client(world.socket).refresh("machine")
        terminal.expect("machine: token 2")
        terminal.type("\x03")
        assert terminal.wait() == 0
        assert_left_as_it_was(terminal, before)
    assert "Traceback" not in terminal.written


def test_the_view_of_one_account_without_colours(world):
    """With its story; suspended it gives the terminal back, and SIGTERM ends it as Ctrl-C does."""
    environ = {**world.environ, "NO_COLOR": "1"}
    with TerminalProcess([*LIVE, "machine"], environ, columns=100) as terminal:
        before = keys(terminal)
        terminal.expect("ahead of the token's end")
        assert "alice" not in terminal.shown
        terminal.type("\x1a")
        terminal.expect("machine: renewed: generation 1")
        while terminal.written.count(ENTERED) < 2:  # nobody could wake it: so it isn't stopped
            assert terminal._read(10)
        terminal._process.send_signal(signal.SIGTERM)
        assert terminal.wait() == 0
        assert_left_as_it_was(terminal, before)
    assert "\x1b[3" not in terminal.written


def test_what_is_refused_ends_the_view(daemon, status_map, account_map):
    """For instance where a reload took the account: in words, on the ordinary screen."""
    daemon.answers["status"] = status_map(account_map(why="so", outcomes=[]))
    daemon.answers["watch"] = UnknownAccount("there is no account named main", hint="log in")
    with TerminalProcess([*LIVE, "main"], os.environ) as terminal:
        assert terminal.wait() == 7
        assert not terminal.screen.cursor.hidden
    assert terminal.written.rpartition(LEFT)[2].endswith(
        " there is no account named main\r\n  → log in\r\n"
    )


def test_without_a_daemon_there_is_no_view(short_path):
    """As with any command: status 4, and nothing was drawn."""
    environ = {"SPOTOKEND_SOCK": str(short_path / "socket")}
    with TerminalProcess(LIVE, environ) as terminal:
        assert terminal.wait() == 4
    assert ENTERED not in terminal.written


# ----------------------------------------------------------------------------- what it is drawn on


@pytest.mark.parametrize(
    ("is_terminal", "term", "encoding", "reason"),
    [
        (True, "xterm", "utf-8", None),
        (True, "linux", "UTF8", None),
        (False, "xterm", "utf-8", "standard output is no terminal"),
        (True, "dumb", "utf-8", "this terminal (TERM=dumb) can't be redrawn"),
        (True, "", "utf-8", "this terminal (TERM=) can't be redrawn"),
        (True, "xterm", "iso8859-1", "this terminal's encoding, iso8859-1, has no bars"),
    ],
)
def test_where_nothing_can_be_drawn(monkeypatch, is_terminal, term, encoding, reason):
    """It would be garbage; so it is said before."""
    stdout = SimpleNamespace(isatty=lambda: is_terminal, encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setenv("TERM", term)

    assert obstacle() == reason


def test_without_a_standard_output_nothing_can_be_drawn(monkeypatch):
    """The command may be started so."""
    monkeypatch.setattr(sys, "stdout", None)

    assert obstacle() == "standard output is no terminal"


@pytest.mark.parametrize(
    ("issued_at", "expires_at", "restless"),
    [(0.0, 20.0, True), (0.0, 3_600.0, False), (None, 20.0, False), (None, None, False)],
)
def test_short_lives_are_redrawn_more_often(account_map, issued_at, expires_at, restless):
    """The bar of an hour doesn't move within a second."""
    scene = Scene()
    scene.accounts["main"] = account_map(issued_at=issued_at, expires_at=expires_at)

    assert live._restless(scene) is restless


# ------------------------------------------------------------------------------------ what feeds it


def settled(feed, done):
    """Wait until ``done()`` holds, as a view does."""
    while not done():
        assert select.select([feed.woken], [], [], 10)[0], "nothing happened"
        feed.settle()


def test_a_feed_tells_the_scene_everything(daemon, status_map, account_map):
    """The status, events, and that the daemon has gone; no token was asked for."""
    daemon.answers["status"] = status_map(account_map())
    daemon.answers["watch"] = {"accounts": [account_map()], "tokens": []}
    daemon.events = [("state", account_map(generation=5))]
    with Feed(Client()) as feed:
        settled(feed, lambda: feed.scene.away_since is not None)

    assert feed.scene.accounts == {"main": account_map(generation=5)}
    assert daemon.asked("watch") == [{"tokens": False}]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Forbidden("not you"), Forbidden),
        ({"accounts": [{"account": "main", "state": "fresh"}], "tokens": []}, KeyError),
    ],
)
def test_what_goes_wrong_in_a_thread_is_met_by_who_looks(
    daemon, status_map, account_map, answer, error
):
    """What the daemon refuses, and defects."""
    daemon.answers["status"] = status_map(account_map(why="so", outcomes=[]))
    daemon.answers["watch"] = answer
    with Feed(Client(), "main") as feed, pytest.raises(error):
        settled(feed, lambda: False)


def test_what_is_refused_at_the_start_starts_nothing(daemon):
    """There is no such account."""
    daemon.answers["status"] = UnknownAccount("no account x")
    with pytest.raises(UnknownAccount), Feed(Client(), "x"):
        pytest.fail("it was entered")

    assert daemon.asked("status") == [{"account": "x"}]


def test_of_many_accounts_one_page_is_asked_for(daemon, status_map, account_map):
    """All pages only where accounts came or went, which no event tells."""

    def page(arguments):
        whole = status_map(account_map(account="b" if "after" in arguments else "a"))
        whole["daemon"]["accounts"] = 2
        return {**whole, "next": None if "after" in arguments else "a"}

    daemon.answers["status"] = page
    feed = Feed(Client())
    status, whole = feed._ask(Client())
    assert [account["account"] for account in status["accounts"]] == ["a", "b"]
    assert whole

    feed.scene.learn(status, time.time(), whole=True)
    status, whole = feed._ask(Client())
    assert [account["account"] for account in status["accounts"]] == ["a"]
    assert not whole


def test_what_is_no_status_is_no_spotokend(daemon):
    """Somebody else answers on the socket."""
    daemon.answers["status"] = 5
    with pytest.raises(calls.DaemonNotRunning):
        Feed(Client())._ask(Client())


def test_a_view_needs_a_terminal(daemon):
    """And says so before it asks anybody."""
    with pytest.raises(BadRequest, match="needs a terminal"):
        live.follow(Client())

    assert daemon.calls == []
    assert main(["status", "--live"]) == 2
