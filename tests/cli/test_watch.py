"""``spotokend watch``: one line an event, and tokens only for whoever asks for them."""

from __future__ import annotations

import json

import pytest

from spotokend import calls
from spotokend.cli import main
from spotokend.cli.watch import describe
from spotokend.client import Client


@pytest.fixture
def watched(daemon, account_map, token_map, monkeypatch):
    """A daemon with one account that says something and goes away for good."""
    monkeypatch.setattr(calls, "PATIENCE", 0.0)
    daemon.answers["watch"] = lambda arguments: {
        "accounts": [account_map()],
        "tokens": [token_map] if arguments["tokens"] else [],
    }
    notice = {"kind": "token", "level": "info", "account": None, "message": "hello\x1b"}
    daemon.events = [("notice", {**notice, "hint": "do this", "at": 1.0})]
    return daemon


def test_events_are_lines(watched, capsys):
    """A time, an account, what happened; at the end the daemon is gone: status 4."""
    assert main(["watch"]) == 4
    lines = capsys.readouterr().out.splitlines()

    assert [line[21:] for line in lines] == [
        "main: fresh; next refresh in 0 s",
        "spotokend: info: hello\ufffd → do this",
    ]
    assert watched.asked("watch") == [{"tokens": False}]


def test_tokens_come_only_when_asked_for(watched, capsys):
    """Without the option they aren't even sent."""
    main(["watch", "--tokens", "main", "work"])

    assert "access-1" in capsys.readouterr().out
    assert watched.asked("watch") == [{"accounts": ["main", "work"], "tokens": True}]


def test_json_is_one_object_a_line(watched, account_map, capsys):
    """The event's name, and its map as it came."""
    main(["watch", "--json"])
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert events[0] == {"event": "state", **account_map()}
    assert events[1]["event"] == "notice"
    assert events[1]["message"] == "hello\x1b"


def test_a_stream_that_ends_is_no_error(monkeypatch):
    """Nothing was lost."""
    monkeypatch.setattr(Client, "watch", lambda self, accounts, *, tokens: iter(()))

    assert main(["watch"]) == 0


@pytest.mark.parametrize(
    ("method", "event", "line"),
    [
        (
            "state",
            {"account": "a", "state": "waiting", "due_at": 160.0, "reason": "no network"},
            "a: waiting to retry; next refresh in 60 s; no network",
        ),
        (
            "state",
            {"account": "a", "state": "quarantined", "due_at": None, "hint": "spotokend login a"},
            "a: login refused → spotokend login a",
        ),
        ("state", {"account": "a", "state": "levitating"}, "a: levitating"),
        (
            "token",
            {"account": "a", "access_token": "access-1", "expires_at": 400.0},
            "a: a token, good for 5 min: access-1",
        ),
        (
            "notice",
            {"account": "a", "level": "error", "message": "no"},
            "a: error: no",
        ),
        (
            "resync",
            {"dropped": None},
            "events were missed; what follows is the present state",
        ),
        ("earthquake", {"account": None}, "spotokend: earthquake"),
    ],
)
def test_each_event_has_its_words(method, event, line):
    """Those of a newer daemon are named at least."""
    assert describe(method, event, 100.0) == line
