"""The first run: each way from nothing to a daemon that answers, and each way out of it."""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys

import pytest
from typed_answers import stdin

from spotokend import calls
from spotokend.adapters import systemd
from spotokend.cli import browser, first_run, service
from spotokend.client import Client
from spotokend.errors import (
    BadRequest,
    Busy,
    DaemonNotRunning,
    Forbidden,
    Misconfigured,
    SpotokendError,
)
from spotokend.rules.config.parse import parse, starter
from spotokend.rules.config.values import SPOTIFY_SCOPES

ID = "0123456789abcdef0123456789abcdef"
OTHER = "f" * 32
LOCAL = "http://127.0.0.1:8888/callback"


class World:
    """A user's computer without a daemon, and what a test changes about it."""

    def __init__(self, folder, patch):
        self._patch = patch
        self.config = folder / ".config" / "spotokend" / "config.toml"
        self.socket = folder / "run" / "spotokend" / "spotokend.sock"
        self.socket.parent.mkdir(parents=True)
        self.listener = None
        self.installed = 0
        self.manager = {"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder / "run")}
        """The environment of the user's systemd."""
        self.has_systemd(False)
        patch.setenv("HOME", str(folder))
        patch.setenv("XDG_RUNTIME_DIR", str(folder / "run"))
        patch.setenv("PATH", str(folder))
        for name in ("DISPLAY", "WAYLAND_DISPLAY"):
            patch.delenv(name, raising=False)
        patch.setattr(systemd, "environment", lambda: self.manager)
        patch.setattr(systemd, "lingers", lambda: True)
        patch.setattr(service, "install", self._install)

    def has_systemd(self, answer, *, starts=True):
        self._patch.setattr(systemd, "available", lambda: answer)
        self._starts = starts

    def appears(self):
        """The daemon answers from now on."""
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.socket))
        self.listener.listen()

    def prepare(self, *, client=None, scope=()):
        arguments = argparse.Namespace(account=None, client=client, scope=list(scope))
        with Client() as there:
            return first_run.prepare(arguments, there)

    def fails(self, kind, **arguments):
        """The error that it ends with, which leaves nothing behind that wasn't there before."""
        before = self.contents()
        with pytest.raises(SpotokendError) as caught:
            self.prepare(**arguments)
        assert type(caught.value) is kind
        assert self.contents() == before
        return caught.value

    def contents(self):
        root = self.config.parents[2]
        return {
            str(path): path.read_bytes() if path.is_file() else None for path in root.rglob("*")
        }

    def configure(self, text=None):
        self.config.parent.mkdir(parents=True)
        self.config.write_text(text or starter(ID, []))

    @property
    def client(self):
        """What the configuration says of its client."""
        return parse(self.config.read_text()).clients["spotify"]

    def _install(self):
        assert self.config.exists(), "the service would end at once"
        self.installed += 1
        if self._starts:
            self.appears()
        return ["Wrote the unit.", "Started it."]


@pytest.fixture
def world(short_path, monkeypatch):
    """Nothing is there, nothing runs; no wait is long."""
    there = World(short_path, monkeypatch)
    for name in ("BY_SERVICE", "BY_HAND", "UNATTENDED"):
        monkeypatch.setattr(first_run, name, 0.05)
    monkeypatch.setattr(first_run, "LOOK", 0.01)
    yield there
    if there.listener is not None:
        there.listener.close()


@pytest.fixture
def started(world, monkeypatch):
    """Somebody starts the daemon in another terminal, once they were told to."""
    monkeypatch.setattr(first_run, "BY_HAND", 20.0)
    monkeypatch.setattr(first_run, "UNATTENDED", 20.0)
    naps = []

    def nap(seconds):
        naps.append(seconds)
        if len(naps) == 3:
            world.appears()

    monkeypatch.setattr(first_run.time, "sleep", nap)
    return naps


def wide(text):
    """Lines that a terminal of 80 columns would have to break, though there was a place before."""
    return [line for line in text.splitlines() if len(line) > 80 and " " in line.strip(" \\")]


def test_with_a_daemon_there_is_nothing_to_do(world, typed, monkeypatch, capsys):
    """One connection, no question, no look at any file."""
    world.appears()
    made = []
    real = calls.open_socket
    monkeypatch.setattr(
        calls, "open_socket", lambda path, known: made.append(path) or real(path, known=known)
    )
    monkeypatch.setattr(first_run.os.path, "lexists", lambda path: pytest.fail("looked"))

    world.prepare()

    assert made == [str(world.socket)]
    assert capsys.readouterr() == ("", "")


def test_a_daemon_with_too_many_callers_is_there(world, typed, monkeypatch, capsys):
    """What it says to that is the login's own matter."""

    def busy(path, known):
        raise calls.Lost(Busy("more callers than it admits"))

    monkeypatch.setattr(calls, "open_socket", busy)

    world.prepare()
    assert capsys.readouterr() == ("", "")


def test_another_user_s_socket_is_no_reason_to_ask(world, typed, monkeypatch):
    """Nor is one that nobody can have; the client's own words say what to do."""

    def refused(path, known):
        raise Forbidden("another user's")

    monkeypatch.setattr(calls, "open_socket", refused)
    world.fails(Forbidden)


def test_a_dead_socket_is_no_daemon(world, piped):
    """What a daemon left behind that was killed."""
    world.appears()
    world.listener.close()
    piped.end()

    assert 'ended at "Client id"' in world.fails(DaemonNotRunning).message


@pytest.mark.parametrize("terminal", [True, False])
def test_from_nothing_by_hand(world, started, capsys, terminal):
    """Two answers; the configuration is written and shown, and the wait ends when it may."""
    with stdin(terminal=terminal) as there:
        there.give(ID, "1 user-top-read")
        world.prepare()

    assert world.client.client_id == ID
    assert world.client.scopes == (
        "user-read-playback-state",
        "user-read-currently-playing",
        "user-top-read",
    )
    assert world.client.redirect_uri == "http://127.0.0.1/callback"
    out, err = capsys.readouterr()
    assert out == ""
    for words in (
        "https://developer.spotify.com/dashboard",
        "Premium",
        "        http://127.0.0.1/callback\n",
        '"Web API"',
        "client secret isn't needed",
        "\n  11  sdk ",
        f"This is your configuration now, in\n{world.config}\n\n    # spotokend's configuration",
        f'    client_id = "{ID}"\n',
        '        "user-top-read",\n',
        "spotokend run\n",
    ):
        assert words in err
    assert err.endswith("The daemon answers.\n\n")
    assert ("Ctrl-C" in err) is terminal
    assert wide(err) == []
    assert len(err[: err.index("Client id: ")].splitlines()) <= 16


def test_from_nothing_by_systemd(world, typed, capsys):
    """Three answers, all of them before anything is written; no other terminal is needed."""
    world.has_systemd(True)
    typed.give(ID, "none", "y")

    world.prepare()

    assert world.client.scopes == ()
    assert world.installed == 1
    err = capsys.readouterr().err
    question = err.index("Run it as a service? [Y/n] ")
    assert question < err.index("This is your configuration") < err.index("Wrote the unit.")
    assert "spotokend run" not in err
    assert "enable-linger" not in err
    assert wide(err) == []


def test_return_at_each_question(world, typed, monkeypatch):
    """The id that other programs use, no scopes, a service."""
    monkeypatch.setenv("SPOTIPY_CLIENT_ID", ID)
    world.has_systemd(True)
    typed.give("", "", "")

    world.prepare()

    assert (world.client.client_id, world.client.scopes) == (ID, ())
    assert world.installed == 1


def test_answers_for_all_can_be_piped_in(world, piped):
    """The question about the service, too: the configuration was made just now."""
    world.has_systemd(True)
    piped.write(f"{ID}\nall\nyes\nhttp://127.0.0.1/callback?code=code-1".encode())

    world.prepare()

    assert world.client.scopes == SPOTIFY_SCOPES
    assert world.installed == 1
    assert piped.rest() == b"http://127.0.0.1/callback?code=code-1"


def test_scopes_that_were_named_are_not_asked_for(world, started, typed, capsys):
    """``--scope`` says it already; an unknown one is warned about, within the screen."""
    typed.give(ID)

    world.prepare(scope=["user-top-read", "user-read-concerts"])

    assert world.client.scopes == ("user-top-read", "user-read-concerts")
    err = capsys.readouterr().err
    assert "Scopes" not in err
    assert '\nwarning: clients.spotify.scopes: "user-read-concerts" is no scope' in err
    assert wide(err) == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("", "a client id is needed"),
        ("https://developer.spotify.com/dashboard/1", "that is an address, and no client id"),
        ("my app", "that doesn't look like a client id: 32 digits and letters a to f"),
        (ID.upper(), "that doesn't look like a client id"),
        (ID[1:], "that doesn't look like a client id"),
    ],
)
def test_what_can_t_be_a_client_id_is_asked_for_again(
    world, started, typed, capsys, answer, message
):
    """With the reason, and where the id is."""
    typed.give(answer, ID, "")

    world.prepare()

    assert world.client.client_id == ID
    err = capsys.readouterr().err
    cure = "copy it from your app's page: https://developer.spotify.com/dashboard"
    assert re.search(rf"spotokend: {re.escape(message)}.*\n  → {re.escape(cure)}\n", err)
    assert err.count("Client id: ") == 2
    assert wide(err) == []


def test_whoever_insists_on_a_client_id_is_believed(world, started, typed, capsys):
    """The same answer twice: the form of Spotify's ids is a habit of theirs, and no promise."""
    typed.give("my-app", "my-app", "")

    world.prepare()

    assert world.client.client_id == "my-app"
    assert (
        "→ or type the same again, to take it all the same\nClient id: " in capsys.readouterr().err
    )


def test_a_script_is_believed_and_warned(world, started, piped, capsys):
    """Nobody is there to be asked again."""
    piped.give("my-app", "")

    world.prepare()

    assert world.client.client_id == "my-app"
    assert "warning: clients.spotify.client_id" in capsys.readouterr().err


def test_a_script_s_third_wrong_answer_is_the_last(world, piped):
    """Status 2, and nothing is written."""
    piped.give("http://a", "http://b", "http://c", ID)

    assert "that is an address" in world.fails(BadRequest).message


@pytest.mark.parametrize(
    ("variables", "offered"),
    [
        ({"SPOTIPY_CLIENT_ID": ID, "SPOTIFY_CLIENT_ID": OTHER}, "SPOTIPY_CLIENT_ID"),
        ({"SPOTIPY_CLIENT_ID": " ", "SPOTIFY_CLIENT_ID": ID}, "SPOTIFY_CLIENT_ID"),
        ({"SPOTIPY_CLIENT_ID": "your-client-id"}, None),
        ({}, None),
    ],
)
def test_the_client_id_of_other_programs_is_offered(
    world, piped, monkeypatch, capsys, variables, offered
):
    """It is said whose it is; a placeholder isn't offered."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    piped.end()

    world.fails(DaemonNotRunning)
    err = capsys.readouterr().err
    if offered:
        assert f"Return takes the one of ${offered}.\nClient id [{ID}]: \n" in err
    else:
        assert "isn't needed.\n\nClient id: \n" in err


def test_the_redirect_uri_of_other_programs_is_taken(world, started, typed, monkeypatch, capsys):
    """It is registered already, perhaps; it is shown, and said whose it is."""
    monkeypatch.setenv("SPOTIPY_REDIRECT_URI", LOCAL)
    typed.give(ID, "")

    world.prepare()

    assert world.client.redirect_uri == LOCAL
    err = capsys.readouterr().err
    assert f"\n        {LOCAL}\n\n    It is that of $SPOTIPY_REDIRECT_URI.\n" in err
    assert "without a port" not in err


@pytest.mark.parametrize(
    "uri", ["http://localhost:8888/callback", "http://example.test/", "app://callback", "8888"]
)
def test_a_redirect_uri_that_spotify_refuses_is_not_taken(
    world, started, typed, monkeypatch, capsys, uri
):
    """Since when is said, for it worked for years."""
    monkeypatch.setenv("SPOTIPY_REDIRECT_URI", uri)
    typed.give(ID, "")

    world.prepare()

    assert world.client.redirect_uri == "http://127.0.0.1/callback"
    err = capsys.readouterr().err
    assert err.startswith("$SPOTIPY_REDIRECT_URI isn't used: ")
    assert "Since November 2025" in " ".join(err.split())
    assert "        http://127.0.0.1/callback\n" in err
    assert wide(err) == []


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(
    ("answers", "question"),
    [([], "Client id"), ([ID], "Scopes"), ([ID, "1"], "Run it as a service?")],
)
def test_the_end_of_the_input_leaves_everything_as_it_was(world, answers, question, terminal):
    """At each question: status 4, what to type, and not even a folder was made."""
    world.has_systemd(True)
    with stdin(terminal=terminal) as there:
        there.give(*answers)
        there.end()
        error = world.fails(DaemonNotRunning)

    assert error.message == f'the input ended at "{question}"; nothing has been written'
    assert error.hint.startswith("spotokend login in a terminal, or with all answers piped in")
    assert "socket" not in error.details
    assert world.installed == 0


def test_where_nothing_can_be_written_nothing_is_asked(world, typed, monkeypatch, capsys):
    """The answers would be thrown away."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    assert "takes no new files" in world.fails(Misconfigured).message
    assert capsys.readouterr().err == ""


def test_a_configuration_that_was_made_meanwhile_is_left_alone(world, typed, monkeypatch):
    """By another login, or by a program that manages such files."""

    def meanwhile(*arguments):
        world.configure("# theirs\n")
        return True

    world.has_systemd(True)
    monkeypatch.setattr(first_run, "_offer_service", meanwhile)
    typed.give(ID, "")

    with pytest.raises(Misconfigured, match="exists already and is left as it is"):
        world.prepare()
    assert world.config.read_text() == "# theirs\n"
    assert [path.name for path in world.config.parent.iterdir()] == ["config.toml"]
    assert world.installed == 0


def test_a_client_that_will_not_be_there_is_told_before_the_questions(world, typed, capsys):
    """``--client work`` is for a configuration that has one."""
    error = world.fails(Misconfigured, client="work")
    assert error.message == "there is no configuration yet, and so no client work"
    assert error.hint == "leave out --client: the first one is called spotify"
    assert capsys.readouterr().err == ""


def test_the_client_that_will_be_there_may_be_named(world, started, typed):
    """It is called so by everybody who follows the documents."""
    typed.give(ID, "")

    world.prepare(client="spotify")
    assert world.client.client_id == ID


@pytest.mark.parametrize("terminal", [True, False])
def test_a_broken_configuration_is_told_first(world, capsys, terminal):
    """No daemon would start with it."""
    world.has_systemd(True)
    world.configure("[clients.spotify]\nclient-id = 3\n")
    with stdin(terminal=terminal):
        error = world.fails(Misconfigured)

    assert f"{world.config}:2: clients.spotify.client-id: unknown key" in error.message
    assert capsys.readouterr().err == ""


def test_a_link_to_nothing_is_told(world, typed):
    """It is in the way of a configuration."""
    world.config.parent.mkdir(parents=True)
    world.config.symlink_to("nowhere")

    assert "links to nothing" in world.fails(Misconfigured).message


def test_a_script_with_a_configuration_is_asked_nothing(world, piped, capsys):
    """As for every other command: nobody answers, and how to start it."""
    world.has_systemd(True)
    world.configure()
    piped.give("y")

    error = world.fails(DaemonNotRunning)
    assert error.message == f"spotokend is not running: nobody listens on {world.socket}"
    assert "spotokend run" in error.hint
    assert capsys.readouterr().err == ""


def test_a_person_with_a_configuration_is_offered_the_service(world, typed, capsys):
    """And the configuration isn't touched."""
    world.has_systemd(True)
    world.configure("# mine\n" + starter(OTHER, []))
    typed.give("")

    world.prepare()

    assert world.installed == 1
    assert world.config.read_text().startswith("# mine\n")
    err = capsys.readouterr().err
    assert "Client id" not in err
    assert "Run it as a service? [Y/n] " in err


def test_who_wants_no_service_starts_it_in_another_terminal(world, started, typed, capsys):
    """Named with all that another terminal needs."""
    world.has_systemd(True)
    world.configure()
    typed.give("n")

    world.prepare()

    assert world.installed == 0
    assert len(started) == 3
    assert "spotokend run\n" in capsys.readouterr().err


@pytest.mark.parametrize("terminal", [True, False])
def test_a_daemon_that_nobody_starts_is_not_waited_for_for_ever(world, capsys, terminal):
    """Status 4, with the two commands."""
    with stdin(terminal=terminal) as there:
        there.give(ID, "")
        with pytest.raises(DaemonNotRunning) as caught:
            world.prepare()

    assert caught.value.message == f"nobody answers on\n{world.socket}"
    start, login = caught.value.hint.splitlines()
    assert start.startswith("start the daemon: ")
    assert start.endswith("spotokend run")
    assert login == "then log in: spotokend login"
    assert world.client.client_id == ID


def test_a_service_that_does_not_answer_is_told_with_systemd_s_words(
    world, typed, monkeypatch, capsys
):
    """And where its log is."""
    asked = []

    def systemctl(command):
        asked.append(command)
        return subprocess.CompletedProcess(command, 3, "Active: failed\n" + "words " * 30, "")

    monkeypatch.setattr(systemd, "run_systemctl", systemctl)
    world.has_systemd(True, starts=False)
    world.configure()
    typed.give("y")

    with pytest.raises(DaemonNotRunning) as caught:
        world.prepare()
    assert caught.value.message == (
        f"the service was started, and still nobody answers on\n{world.socket}"
    )
    assert "journalctl --user -u spotokend" in caught.value.hint
    assert asked == [["systemctl", "--user", "status", "--lines=5", "spotokend.service"]]
    err = capsys.readouterr().err
    assert "\nActive: failed\nwords " in err
    assert wide(err) == []


def test_systemd_s_objection_is_passed_on(world, typed, monkeypatch):
    """The configuration is there then, and the next login begins here."""

    def objects():
        raise Misconfigured("`systemctl --user enable` did not work")

    monkeypatch.setattr(service, "install", objects)
    world.has_systemd(True)
    typed.give(ID, "", "y")

    with pytest.raises(Misconfigured, match="did not work"):
        world.prepare()
    assert world.client.client_id == ID


@pytest.mark.parametrize(
    ("desktop", "lingers", "told"),
    [(False, False, True), (True, False, False), (False, True, False)],
)
def test_without_a_desktop_lingering_is_explained(
    world, typed, monkeypatch, capsys, desktop, lingers, told
):
    """Else the service would end with the SSH session that installed it."""
    monkeypatch.setattr(browser, "graphical", lambda environ: desktop)
    monkeypatch.setattr(systemd, "lingers", lambda: lingers)
    world.has_systemd(True)
    world.configure()
    typed.give("y")

    world.prepare()
    assert ("\n    loginctl enable-linger\n" in capsys.readouterr().err) is told


@pytest.mark.parametrize(
    ("answer", "installed"), [("", 0), ("y", 1)], ids=["Return means no", "but yes is heeded"]
)
def test_what_a_service_would_not_see_is_said(
    world, started, typed, monkeypatch, capsys, answer, installed
):
    """A shell's own variables; a service that looks elsewhere helps nobody."""
    other = world.config.with_name("other.toml")
    other.parent.mkdir(parents=True)
    monkeypatch.setenv("SPOTOKEND_CONFIG", str(other))
    monkeypatch.setenv("SPOTOKEND_SOCK", str(world.socket))
    world.config = other
    world.has_systemd(True)
    typed.give(ID, "", answer)

    world.prepare()

    assert world.installed == installed
    err = capsys.readouterr().err
    assert "would not see $SPOTOKEND_CONFIG of this shell, and so look elsewhere" in err
    assert "Run it as a service? [y/N] " in err


def test_variables_that_change_nothing_are_not_worth_a_word(world, typed, monkeypatch, capsys):
    """What systemd has as well, and what is set to its own default."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(world.config.parents[1]))
    monkeypatch.setenv("XDG_STATE_HOME", str(world.config.parents[2] / "state"))
    world.manager["XDG_STATE_HOME"] = os.environ["XDG_STATE_HOME"]
    world.has_systemd(True)
    world.configure()
    typed.give("")

    world.prepare()
    assert world.installed == 1
    assert "would not see" not in capsys.readouterr().err


def test_another_terminal_is_told_what_this_one_has_set(world, started, typed, monkeypatch, capsys):
    """Quoted for its shell, with whole paths: it may be in another folder."""
    monkeypatch.chdir(world.config.parents[2])
    monkeypatch.setenv("SPOTOKEND_CONFIG", "my own.toml")
    world.config = world.config.parents[2] / "my own.toml"
    typed.give(ID, "")

    world.prepare()
    assert world.client.client_id == ID
    config = f"SPOTOKEND_CONFIG='{os.path.realpath(world.config)}'"
    assert f"\n    {config} \\\n    XDG_RUNTIME_DIR=" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("called", "found", "named"),
    [
        ("spotokend", True, "spotokend"),
        ("/opt/a b/bin/spotokend", False, "'/opt/a b/bin/spotokend'"),
        ("/lib/spotokend/__main__.py", False, f"{sys.executable} -m spotokend"),
    ],
)
def test_the_command_is_one_that_another_terminal_finds(
    world, started, typed, monkeypatch, capsys, called, found, named
):
    """Also where it is called from an environment that isn't activated there."""
    monkeypatch.setattr(sys, "argv", [called, "login"])
    monkeypatch.setattr(first_run.shutil, "which", lambda program: program if found else None)
    world.configure()

    world.prepare()
    assert re.search(rf" {re.escape(named)} run\n", capsys.readouterr().err)


def test_a_socket_that_only_the_configuration_knows_is_told(world, typed, monkeypatch, capsys):
    """The daemon would listen there, and this command would wait here in vain."""
    world.has_systemd(True)
    elsewhere = world.socket.parent / "a b.sock"
    world.configure(f'[daemon]\nsocket = "{elsewhere}"\n' + starter(ID, []))

    error = world.fails(DaemonNotRunning)
    assert str(elsewhere) in error.message
    assert error.hint == f"tell this shell, too: export SPOTOKEND_SOCK='{elsewhere}'"
    assert capsys.readouterr().err == ""

    # With the variable both go by that.
    monkeypatch.setenv("SPOTOKEND_SOCK", str(world.socket))
    typed.give("y")
    world.prepare()
    assert world.installed == 1


def test_it_tells_whether_this_is_the_first_time(world, started, piped):
    """Then whoever called it has more to explain than later."""
    piped.give(ID, "")

    assert world.prepare() is True
    assert world.prepare() is False
