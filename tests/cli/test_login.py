"""``spotokend login``: the browser and the paste race, and every end has its words."""

from __future__ import annotations

import html
import http.client
import os
import re
import socket
import sys
import threading
import time
from contextlib import closing
from urllib.parse import parse_qs, urlsplit

import pytest

from spotokend.cli import browser, login, main, pages
from spotokend.errors import (
    BadRequest,
    Forbidden,
    InternalError,
    LoginRequired,
    Misconfigured,
    Unavailable,
)
from spotokend.rules.methods import TEXT_LIMIT
from spotokend.service.logins import Logins

AUTHORIZE = "https://accounts.example.test/authorize?state=state-1"
REGISTERED = "http://127.0.0.1/callback"
RESULT = {
    "account": "main",
    "user": "alice-1",
    "display_name": "Alice",
    "scope": ["streaming", "user-top-read"],
    "notes": [],
}


class FakeBrowser:
    """A person who opens an address, agrees, and looks at the page where that ends."""

    def __init__(self):
        self.opened = []
        self.pages = []
        self.answers = ["code=code-1&state=state-1"]
        """The queries that the provider sends back, one after another."""
        self.redirect = None
        self._thread = None

    def open(self, address):
        self.opened.append(address)
        self._thread = threading.Thread(target=self._walk)
        self._thread.start()
        return True

    def finish(self):
        self._thread.join(20)

    def _walk(self):
        status, headers, _ = self._get(self.opened[0])
        assert (status, headers["location"]) == (303, AUTHORIZE)
        for answer in self.answers:
            status, headers, _ = self._get(f"{self.redirect}?{answer}")
            assert (status, headers["cache-control"]) == (303, "no-store")
            assert "code" not in headers["location"]
            self.pages.append((urlsplit(headers["location"]).path, self._get(headers["location"])))

    def _get(self, address):
        parts = urlsplit(address)
        with closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)) as client:
            client.request("GET", f"{parts.path}?{parts.query}" if parts.query else parts.path)
            response = client.getresponse()
            return response.status, response.headers, response.read().decode()


@pytest.fixture
def person(monkeypatch):
    """A desktop with a browser."""
    fake = FakeBrowser()
    monkeypatch.setattr(browser, "open_browser", fake.open)
    for name in ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"):
        monkeypatch.delenv(name, raising=False)
    return fake


@pytest.fixture
def provider(daemon, person):
    """The daemon's side of a login; ``provider.ends`` says how each ``login_finish`` ends."""

    class Provider:
        registered = REGISTERED
        lives = 600.0
        ends = (RESULT,)

        def start(self, arguments):
            person.redirect = arguments.get("redirect_uri", self.registered)
            number = len(daemon.asked("login_start"))
            return {
                "login_id": f"login-{number}",
                "url": AUTHORIZE,
                "redirect_uri": person.redirect,
                "expires_at": time.time() + self.lives,
            }

        def finish(self, arguments):
            end = self.ends[len(daemon.asked("login_finish")) - 1]
            if isinstance(end, Exception):
                raise end
            return end

    side = Provider()
    daemon.answers.update(login_start=side.start, login_finish=side.finish, login_cancel=None)
    return side


@pytest.fixture
def stdin(monkeypatch):
    """A pipe for what is pasted; nobody pastes anything unless the test does."""

    class Stdin:
        def __init__(self):
            reading, self._writing = os.pipe()
            self.file = os.fdopen(reading)

        def paste(self, text):
            os.write(self._writing, text.encode())

        def end(self):
            if self._writing is not None:
                os.close(self._writing)
            self._writing = None

    pipe = Stdin()
    monkeypatch.setattr(sys, "stdin", pipe.file)
    yield pipe
    pipe.end()
    pipe.file.close()


@pytest.fixture(autouse=True)
def _hands_off(stdin, monkeypatch):
    """No test waits for a browser that follows no redirect."""
    monkeypatch.setattr(login, "LINGER", 10.0)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_the_browser_does_it_all(daemon, provider, person, capsys):
    """Started with an address of our own, led to the provider and back, shown who logged in."""
    assert main(["login", "main", "--client", "spotify", "--scope", "streaming"]) == 0
    person.finish()
    out, err = capsys.readouterr()

    assert out == ""
    assert err.endswith("Logged in main as Alice (scopes streaming user-top-read).\n")
    assert person.opened == [f"{person.redirect}/start"]
    [(path, (status, _, page))] = person.pages
    assert (path, status) == ("/callback/done", 200)
    assert "Logged in as Alice, account main." in page
    asked = {"account": "main", "client": "spotify", "scopes": ["streaming"]}
    assert daemon.asked("login_start") == [asked, {**asked, "redirect_uri": person.redirect}]
    assert daemon.asked("login_cancel") == [{"login_id": "login-1"}]
    assert daemon.asked("login_finish") == [
        {
            "login_id": "login-2",
            "redirect_url": f"{person.redirect}?code=code-1&state=state-1",
        }
    ]


def test_no_process_s_argv_holds_the_state(daemon, provider, person):
    """The browser's command line can be read by every user of the computer."""
    main(["login"])
    person.finish()

    assert parse_qs(urlsplit(person.opened[0]).query) == {}
    assert "state" not in person.opened[0]


def test_a_registered_port_is_listened_at(daemon, provider, person):
    """Exactly as registered, and asked for once."""
    provider.registered = f"http://127.0.0.1:{free_port()}/cb"

    assert main(["login"]) == 0
    person.finish()
    assert daemon.asked("login_start") == [{}]
    assert daemon.asked("login_cancel") == []
    assert person.opened == [f"{provider.registered}/start"]


def test_the_account_may_come_from_the_environment(daemon, provider, person, monkeypatch):
    """As for every command that is about one account."""
    monkeypatch.setenv("SPOTOKEND_ACCOUNT", "work")

    main(["login"])
    person.finish()

    assert daemon.asked("login_start")[0] == {"account": "work"}


def test_somebody_without_a_name_and_scopes(provider, person, capsys):
    """A server that says neither who it is nor what was granted; notes are passed on."""
    notes = ["it could not be checked who this is"]
    provider.ends = ({**RESULT, "user": None, "display_name": None, "scope": [], "notes": notes},)

    assert main(["login"]) == 0
    person.finish()
    err = capsys.readouterr().err
    assert err.endswith("Logged in main (no scopes).\nit could not be checked who this is\n")
    assert "It could not be checked who this is." in person.pages[0][1][2]


def test_a_display_name_is_only_text(provider, person, capsys):
    """Neither the terminal nor the page runs it."""
    provider.ends = ({**RESULT, "display_name": "<b>A\x1b[2J"},)

    main(["login"])
    person.finish()

    assert "as <b>A\ufffd[2J (" in capsys.readouterr().err
    assert "&lt;b&gt;A\ufffd[2J" in person.pages[0][1][2]


OTHER = BadRequest("that address has no state", hint="paste all of it", outcome="not_this_login")


def test_another_login_s_answer_ends_nothing(provider, person, capsys):
    """A wrong or missing state: the page and the terminal say so, and the wait goes on."""
    provider.ends = (OTHER, RESULT)
    person.answers = ["code=code-1", "code=code-1&state=state-1"]

    assert main(["login"]) == 0
    person.finish()
    err = capsys.readouterr().err
    assert "spotokend: that address has no state\n  → paste all of it\nStill waiting" in err
    assert [path for path, _ in person.pages] == ["/callback/not-this-login", "/callback/done"]
    assert "it still waits" in person.pages[0][1][2]


def test_what_is_too_long_for_an_address_ends_nothing(daemon, provider, stdin, capsys):
    """The daemon would refuse it in a program's words; it isn't asked."""
    stdin.paste(f"http://127.0.0.1/callback?code={'x' * TEXT_LIMIT}&state=state-1\n")
    stdin.paste("http://127.0.0.1/callback?code=code-1&state=state-1\n")

    assert main(["login", "--paste"]) == 0
    assert "that is too long to be the address" in capsys.readouterr().err
    assert len(daemon.asked("login_finish")) == 1


GOOD = "code=code-1&state=state-1"


@pytest.mark.parametrize(
    ("error", "exit_status", "path", "page"),
    [
        (LoginRequired("declined", outcome="denied"), 3, "denied", 403),
        (LoginRequired("the code has expired", outcome="expired"), 3, "expired", 410),
        (LoginRequired("it came already", outcome="used"), 3, "used", 410),
        (LoginRequired("restarted", outcome="unknown"), 3, "unknown", 410),
        (Misconfigured("no such client", outcome="refused"), 2, "refused", 502),
        (BadRequest("no such client", outcome="client_changed"), 2, "client-changed", 409),
        (Forbidden("Bob logged in", outcome="other_user"), 7, "other-user", 409),
        (Unavailable("no network", outcome="unavailable"), 5, "unavailable", 503),
        (InternalError("a defect"), 1, "unfinished", 502),
    ],
)
def test_each_bad_end_has_a_page_and_a_status(
    daemon, provider, person, capsys, error, exit_status, path, page
):
    """Told at both places; there is nothing left to cancel."""
    provider.ends = (error,)

    assert main(["login"]) == exit_status
    person.finish()
    assert f"spotokend: {error.message}\n" in capsys.readouterr().err
    assert (person.pages[0][0], person.pages[0][1][0]) == (f"/callback/{path}", page)
    assert len(daemon.asked("login_cancel")) == 1


def test_every_end_of_the_daemon_s_has_a_page():
    """The outcomes that ``login_finish`` documents, and no other."""
    outcomes = set(re.findall(r"``(\w+)``", Logins.finish.__doc__)) - {"login_finish"}

    assert outcomes == set(pages.ENDS) - {pages.UNFINISHED}


def test_the_next_attempt_is_the_same_command(provider, person):
    """As it was typed, quoted for a shell."""
    provider.ends = (LoginRequired("declined", outcome="denied"),)

    main(["login", "main", "--client", "my", "--scope", "a", "--scope", "b c"])
    person.finish()

    words = re.findall("<span>(.*?)</span>", person.pages[0][1][2])
    typed = html.unescape(" ".join(words))
    assert typed == "spotokend login main --client my --scope a --scope 'b c'"


def test_an_address_can_be_pasted_while_listening(daemon, provider, stdin, monkeypatch, capsys):
    """The browser may run on another computer."""
    monkeypatch.setattr(browser, "open_browser", lambda address: False)
    stdin.paste("'http://127.0.0.1:1/callback?code=code-1\n&state=state-1'\n")

    assert main(["login"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert f"Open this address in a browser:\n\n{AUTHORIZE}\n" in err
    [finish] = daemon.asked("login_finish")
    assert finish["redirect_url"].startswith("http://127.0.0.1:1/callback?code=code-1\n&state")


def test_the_paste_alone(daemon, provider, person, stdin, capsys):
    """``--paste``: no listener and no browser, so nothing but the registered URI is needed."""
    stdin.paste("http://127.0.0.1/callback?code=code-1&state=state-1\n")

    assert main(["login", "--paste"]) == 0
    assert person.opened == []
    assert daemon.asked("login_start") == [{}]
    assert "copy its whole address, paste it here and press Return" in capsys.readouterr().err


def test_the_end_of_the_input_ends_a_paste(daemon, provider, stdin, capsys):
    """Nothing can come any more: status 3, and the login is cancelled."""
    stdin.end()

    assert main(["login", "--paste"]) == 3
    assert "the input ended before the address was pasted" in capsys.readouterr().err
    assert daemon.asked("login_cancel") == [{"login_id": "login-1"}]


def test_the_end_of_the_input_doesn_t_end_the_browser_s_login(provider, person, stdin):
    """``spotokend login </dev/null``."""
    stdin.end()

    assert main(["login"]) == 0
    person.finish()


def test_there_may_be_no_input_at_all(provider, person, monkeypatch):
    """Started by a desktop, without a terminal."""
    monkeypatch.setattr(sys, "stdin", None)

    assert main(["login"]) == 0
    person.finish()


def test_without_a_browser_the_address_alone_is_data(provider, person, stdin, capsys):
    """``--no-browser``: for a script, or another computer's browser."""
    stdin.paste("http://127.0.0.1/callback?code=code-1&state=state-1\n")

    assert main(["login", "--no-browser"]) == 0
    assert person.opened == []
    assert capsys.readouterr().out == f"{AUTHORIZE}\n"


@pytest.mark.parametrize(
    ("registered", "forwarded"),
    [(REGISTERED, "{port}:127.0.0.1:{port}"), ("http://[::1]/cb", "[::1]:{port}:[::1]:{port}")],
)
def test_both_ways_are_explained_over_ssh(
    provider, person, stdin, monkeypatch, capsys, registered, forwarded
):
    """A forwarded port, or the paste; with the command to type."""
    provider.registered = registered
    monkeypatch.setenv("SSH_CONNECTION", "::1 1 ::1 22")
    stdin.paste(f"{registered}?code=code-1&state=state-1\n")

    assert main(["login", "--no-browser"]) == 0
    words = capsys.readouterr().err
    port = urlsplit(person.redirect).port
    assert f"ssh -N -L {forwarded.format(port=port)} HOST" in words
    assert "paste it here" in words


def test_a_busy_port_leaves_the_paste(provider, person, stdin, capsys):
    """Said in words; the browser isn't sent to another program's page."""
    stdin.paste("http://127.0.0.1/callback?code=code-1&state=state-1\n")
    with socket.create_server(("127.0.0.1", 0)) as other:
        provider.registered = f"http://127.0.0.1:{other.getsockname()[1]}/callback"
        assert main(["login"]) == 0

    words = capsys.readouterr().err
    assert f"Can't listen at {provider.registered}: Address already in use." in words
    assert "paste it here" in words
    assert person.opened == []


def test_a_redirect_elsewhere_leaves_the_paste(provider, person, stdin, capsys):
    """A registered https address is somebody else's server."""
    provider.registered = "https://app.example.test/callback"
    stdin.paste("https://app.example.test/callback?code=code-1&state=state-1\n")

    assert main(["login"]) == 0
    assert "isn't an address at which this program can listen" in capsys.readouterr().err


def test_silence_is_explained_and_has_an_end(daemon, provider, monkeypatch, capsys):
    """A redirect URI that isn't registered ends on the provider's page and never comes back."""
    monkeypatch.setattr(login, "REMIND", 0.01)
    monkeypatch.setattr(browser, "open_browser", lambda address: True)
    provider.lives = 0.2

    assert main(["login"]) == 3
    words = capsys.readouterr().err
    assert words.count("Still waiting;") == 1
    assert words.count(f"must hold exactly {REGISTERED}") == 2
    assert "no answer came from the browser in time" in words
    assert daemon.asked("login_cancel")[-1] == {"login_id": "login-2"}


@pytest.fixture
def late(provider, person, monkeypatch):
    """The person agrees only after the time is over; somebody sits at the terminal."""
    provider.lives = 0.05
    provider.ends = (LoginRequired("the time was over", outcome="expired"),)
    over = threading.Event()
    walk, say = person._walk, login.terminal.say

    def walk_late():
        over.wait(20)
        walk()

    def told(text):
        say(text)
        if text.startswith("The time for this login is over."):
            over.set()

    monkeypatch.setattr(person, "_walk", walk_late)
    monkeypatch.setattr(login.terminal, "say", told)
    monkeypatch.setattr(login.questions, "interactive", lambda: True)
    return over


def test_a_browser_that_comes_too_late_is_told_so(late, person, capsys):
    """Not that nobody is there; and the terminal has the daemon's words, not those of silence."""
    assert main(["login"]) == 3
    person.finish()
    assert [path for path, _ in person.pages] == ["/callback/expired"]
    words = capsys.readouterr().err
    assert "spotokend: the time was over" in words
    assert "no answer came" not in words


def test_it_is_not_waited_long_for_a_late_browser(late, person, monkeypatch, capsys):
    """Only as long as was said."""
    monkeypatch.setattr(login, "LATE", 0.05)
    monkeypatch.setattr(person, "open", lambda address: True)
    monkeypatch.setattr(browser, "open_browser", person.open)

    assert main(["login", "main"]) == 3
    words = capsys.readouterr().err
    assert words.index("The time for this login is over.") < words.index("no answer came")
    assert "to log in again: `spotokend login main`" in words


def test_ctrl_c_ends_the_wait_for_a_late_browser(late, monkeypatch, capsys):
    """The login had ended: its status stays."""
    next_arrival = login.Arrivals.next

    def interrupted(self, seconds):
        if late.is_set():
            raise KeyboardInterrupt
        return next_arrival(self, seconds)

    monkeypatch.setattr(login.Arrivals, "next", interrupted)
    monkeypatch.setattr(browser, "open_browser", lambda address: True)

    assert main(["login"]) == 3
    assert "no answer came" in capsys.readouterr().err


def test_nobody_waits_for_a_late_browser_where_nobody_reads_why(
    provider, person, monkeypatch, capsys
):
    """A script goes on at once."""
    provider.lives = 0.05
    monkeypatch.setattr(browser, "open_browser", lambda address: True)

    assert main(["login"]) == 3
    assert "The time for this login is over" not in capsys.readouterr().err


def test_ctrl_c_cancels(daemon, provider, person, monkeypatch, capsys):
    """Quietly; the daemon forgets the state and the verifier."""

    def interrupted(self, seconds):
        raise KeyboardInterrupt

    person.answers = []
    monkeypatch.setattr(login.Arrivals, "next", interrupted)
    monkeypatch.setattr(browser, "open_browser", lambda address: True)

    assert main(["login"]) == 130
    assert daemon.asked("login_cancel")[-1] == {"login_id": "login-2"}


def test_a_daemon_that_can_t_cancel_is_no_matter(daemon, provider, stdin):
    """It forgets the login in time."""
    daemon.answers["login_cancel"] = Unavailable("not now")
    stdin.end()

    assert main(["login", "--paste"]) == 3


def test_what_is_missing_for_a_login_is_prepared_first(daemon, provider, person, monkeypatch):
    """A configuration and a daemon: with what the user has typed, before anything is asked."""
    seen = []

    def prepare(arguments, client):
        seen.append((arguments.account, client.socket_path, list(daemon.calls)))

    monkeypatch.setattr(login.first_run, "prepare", prepare)
    main(["login", "main"])
    person.finish()

    assert seen == [("main", daemon.path, [])]


def test_a_login_that_can_t_begin_opens_nothing(daemon, person):
    """The daemon's words and status."""
    daemon.answers["login_start"] = BadRequest("no such client")

    assert main(["login", "--client", "x"]) == 2
    assert person.opened == []
    assert daemon.asked("login_cancel") == []
