"""``spotokend hooks``: what is started, what is said when that fails, and how it ends."""

from __future__ import annotations

import os
import stat

import pytest

from spotokend import calls
from spotokend.cli import hooks, main
from spotokend.errors import Forbidden, Unavailable

CLIENT = '[clients.spotify]\nclient_id = "0123456789abcdef0123456789abcdef"\n'
END = '[hooks.end]\ncommand = ["sh", "-c", "kill $PPID"]\nkinds = ["clock_moved"]\n'
"""A hook that ends the one who has started it."""


def notice(kind="degraded", account="main", message="no network"):
    """A notice's event."""
    fields = {"kind": kind, "level": "warning", "account": account, "message": message}
    return "notice", {**fields, "hint": None, "at": 1.0}


@pytest.fixture
def told(daemon, account_map, capfd):
    """Runs the hooks of a configuration on some notices, to the end; what they wrote, and we."""
    daemon.answers["watch"] = {"accounts": [account_map()], "tokens": []}
    daemon.stays = True

    def run(sections, *events, end=END):
        daemon.events = [*events, notice("clock_moved", None)]
        with open(os.environ["SPOTOKEND_CONFIG"], "w", encoding="utf-8") as file:
            file.write(CLIENT + end + sections)
        assert main(["hooks"]) == 0
        written = capfd.readouterr()
        return written.out, written.err

    return run


def test_a_command_has_the_notice_in_its_environment(told):
    """And nothing on its standard input; what it prints is printed."""
    out, err = told(
        """
[hooks.light]
command = ["sh", "-c", "cat; echo $SPOTOKEND_KIND of $SPOTOKEND_ACCOUNT: $SPOTOKEND_MESSAGE"]
""",
        notice(message="no \x1bnetwork; $(exit)"),
    )
    assert "degraded of main: no \ufffdnetwork; $(exit)\n" in out
    assert err.startswith("hooks: end, light\n")


def test_a_token_comes_on_the_standard_input(told, daemon, token_map):
    """One line; of the account that the notice is about."""
    daemon.answers["token"] = token_map
    out, _ = told(
        """
[hooks.player]
command = ["sh", "-c", "sed 's/^/got /'"]
kinds = ["degraded"]
token = true
""",
        notice(),
    )
    assert out == "got access-1\n"
    assert daemon.asked("token") == [{"account": "main"}]


def test_a_command_need_not_read_its_token(told, daemon, token_map):
    """It has ended, or closed its end: no failure."""
    daemon.answers["token"] = token_map
    section = '[hooks.player]\ncommand = ["true"]\nkinds = ["degraded"]\ntoken = true\n'
    _, err = told(section, notice())
    assert "player:" not in err


def test_where_there_is_no_token_the_line_is_missing(told, daemon):
    """And that is said; a notice without an account has none to begin with."""
    daemon.answers["token"] = Unavailable("no network")
    section = '[hooks.player]\ncommand = ["cat"]\nkinds = ["degraded", "recovered"]\ntoken = true\n'
    out, err = told(section, notice(), notice("recovered", None))
    assert out == ""
    why = "there is no token to give: no network"
    assert f"hook player: degraded of main (no network): {why}\n" in err
    assert err.count("hook player") == 1


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ('["no-such-program"]', "no-such-program can't be started: No such file or directory"),
        ('["sh", "-c", "exit 3"]', "sh ended with status 3"),
        ('["sh", "-c", "kill -9 $$"]', "sh ended with status -9"),
        ('["sleep", "60"]', "sleep ran longer than 1 s and was ended"),
    ],
)
def test_what_fails_is_told(told, command, said):
    """With the notice, so that it is not lost."""
    section = f'[hooks.a]\ncommand = {command}\nkinds = ["degraded"]\ntimeout = 1\n'
    assert f"hook a: degraded of main (no network): {said}\n" in told(section, notice())[1]


def test_without_notify_send_the_desktop_is_not_told(told, monkeypatch, short_path):
    """That is said at the start, with the cure, and of each notice."""
    for name in ("sh", "kill"):
        (short_path / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(short_path))
    _, err = told('[hooks.desktop]\ndesktop = true\nkinds = ["degraded"]\n', notice())
    assert "nothing will appear on the desktop: there is no program notify-send\n" in err
    assert "apt-get install libnotify-bin" in err
    assert "(no network): notify-send can't be started: No such file" in err


def test_the_desktop_is_told_by_notify_send(told, monkeypatch, short_path):
    """With the notice's words."""
    program = short_path / "notify-send"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{short_path}:{os.environ['PATH']}")
    out, err = told('[hooks.desktop]\ndesktop = true\nkinds = ["degraded"]\n', notice())
    assert out.splitlines()[-2:] == ["spotokend: main", "no network"]
    assert "desktop:" not in err


def test_of_one_kind_one_command_at_a_time_and_what_is_too_much_is_told(
    told, monkeypatch, short_path
):
    """Nothing goes without a word: each is heard, in order, or is on stderr."""
    monkeypatch.setattr(hooks, "WAITING", 2)
    program = short_path / "one-at-a-time"
    program.write_text(
        '#!/bin/sh\nmkdir lock && sleep 0.05 && echo "$SPOTOKEND_MESSAGE"; rmdir lock'
    )
    program.chmod(stat.S_IRWXU)
    monkeypatch.chdir(short_path)
    sent = [f"number {number}" for number in range(6)]
    section = f'[hooks.a]\ncommand = ["{program}"]\nkinds = ["degraded"]\n'
    out, err = told(section, *(notice(message=words) for words in sent))
    heard = out.splitlines()
    dropped = [words for words in sent if f"({words}): 2 more have come" in err]
    at_the_end = err.count("hook a: the end came before")
    assert heard == sorted(heard)
    assert sorted(heard + dropped) == sent or at_the_end
    assert dropped


def test_what_was_missed_or_is_not_understood_is_told(told, daemon):
    """A flood, or a newer daemon."""
    daemon.answers["watch"] = {"accounts": [], "tokens": []}
    _, err = told("", ("resync", {"dropped": 3}), ("notice", {"kind": 1}), ("earthquake", {}))
    assert "something that was told may have been missed" in err
    assert "a notice was passed over" in err


def test_a_daemon_that_stays_away_is_waited_for(told, daemon, monkeypatch):
    """Whoever has gone is told of once."""
    monkeypatch.setattr(calls, "PATIENCE", 0.0)
    monkeypatch.setattr(hooks, "FIRST_NAP", 0.001)
    daemon.stays = False
    _, err = told("", end=END.replace("kill", "sleep 0.05; kill"))
    assert err.count("until it is there, what it tells is missed") == 1


def test_a_daemon_that_refuses_ends_it(daemon, capfd):
    """As any command: with its words and its status."""
    with open(os.environ["SPOTOKEND_CONFIG"], "w", encoding="utf-8") as file:
        file.write(CLIENT + END)
    daemon.answers["watch"] = Forbidden("you may not")
    assert main(["hooks"]) == 7
    assert "spotokend: you may not" in capfd.readouterr().err


def test_without_hooks_there_is_nothing_to_do(daemon, capfd):
    """Status 2, which the unit doesn't start again after, and how to have one."""
    with open(os.environ["SPOTOKEND_CONFIG"], "w", encoding="utf-8") as file:
        file.write(CLIENT)
    assert main(["hooks"]) == 2
    assert "→ add a section, such as [hooks.desktop]" in capfd.readouterr().err
