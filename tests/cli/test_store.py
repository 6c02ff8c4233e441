"""``spotokend store``: from the daemon, or from the file where none runs."""

from __future__ import annotations

import json

import anyio
import pytest
from store_rows import row

from spotokend.adapters.lockfile import StateLock
from spotokend.adapters.store.sqlite import SqliteStore
from spotokend.cli import main
from spotokend.errors import BadRequest

INFO = {
    "backend": "sqlite",
    "path": "/state/store\x1b.sqlite3",
    "schema": 1,
    "bytes": 40960,
    "durable": "yes",
    "rows": {"in use": 3, "candidates": 0, "aside": 1},
    "sealed_by": {"aaaa": 3, "bbbb": 1},
    "unsaved": ["main"],
    "key": {"source": "the key /state/key", "ids": ["aaaa", "bbbb"], "locked": None},
}


def test_info_is_for_people(daemon, capsys):
    """A line a fact."""
    daemon.answers["store_info"] = INFO

    assert main(["store", "info"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "store      /state/store\ufffd.sqlite3 (sqlite, schema 1)",
        "size       40 KiB",
        "durable    yes",
        "logins     3 in use, 1 put aside, 0 not finished",
        "key        the key /state/key: aaaa, and still bbbb",
        "sealed by  aaaa: 3",
        "sealed by  bbbb: 1",
        "unsaved    main: beside the socket",
    ]


def test_info_is_json_for_programs(daemon, capsys):
    """The method's result."""
    daemon.answers["store_info"] = INFO

    assert main(["store", "info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == INFO


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A configuration whose store is in the same folder; no daemon."""
    monkeypatch.setenv("SPOTOKEND_SOCK", str(tmp_path / "nobody"))
    path = tmp_path / "config.toml"
    path.write_text(f'[clients.a]\nclient_id = "{"0" * 32}"\n[store]\npath = "store"\n')
    return path


async def make_store(path):
    store = await SqliteStore.open(str(path), now=0.0)
    await store.put(row("a", key_id="aaaa"))
    await store.close()


def test_without_a_daemon_the_file_is_read(config, capsys):
    """Of the key it is told where it would come from."""
    anyio.run(make_store, config.parent / "store")

    assert main(["store", "info", "--config", str(config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"key        the key {config.parent}/key: not at hand (no daemon runs)" in lines
    assert "sealed by  aaaa: 1" in lines


def test_without_a_store_that_is_said_and_none_is_made(config, capsys):
    """Nor a lock."""
    assert main(["store", "info", "--config", str(config)]) == 2
    assert "there is no store at" in capsys.readouterr().err
    assert list(config.parent.iterdir()) == [config]


def test_a_store_that_a_silent_daemon_holds_is_not_read(config, capsys):
    """Half a change may be in it."""
    path = config.parent / "store"
    anyio.run(make_store, path)
    with StateLock(f"{path}.lock"):
        assert main(["store", "info", "--config", str(config)]) == 5
    assert "doesn't answer" in capsys.readouterr().err


def test_what_is_no_store_is_refused(config, capsys):
    """In the store's words."""
    (config.parent / "store").write_text("no database" * 100)

    assert main(["store", "info", "--config", str(config)]) == 2
    assert str(config.parent / "store") in capsys.readouterr().err


DONE = {"key": "aaaa", "source": "the key /state/key", "moved": 4, "left": [], "kept": []}


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({}, 0, "Everything is sealed by key aaaa now: 4 moved.\n"),
        ({"kept": ["bbbb"]}, 0, "Nothing needs bbbb any more: remove that line from the key"),
        ({"left": ["main"], "kept": ["bbbb"]}, 5, "spotokend login main, then: spotokend store"),
    ],
)
def test_a_change_of_keys_says_what_is_left_to_do(daemon, capsys, more, status, words):
    """By the daemon, or by the user."""
    daemon.answers["rekey"] = DONE | more

    assert main(["store", "rekey"]) == status
    assert words in capsys.readouterr().err


MOVED = DONE | {
    "source": "the key main in the keyring",
    "moved": 0,
    "also_in": {"source": "the key /state/key", "remove": "rm /state/key"},
}


def test_a_change_of_places_says_each_step_that_is_left(daemon, capsys):
    """The line to write, the new start, the new key, and what is of no use then."""
    daemon.answers["rekey"] = MOVED

    assert main(["store", "rekey", "--to", "keyring=main"]) == 0
    assert daemon.asked("rekey") == [{"to": "keyring=main"}]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(
        "the key main in the keyring has the key aaaa now, as has the key /state/key,"
    )
    assert lines[1].endswith('under [store]: key = { keyring = "main" }')
    assert "spotokend service install" in lines[2]
    assert "spotokend store rekey" in lines[3]
    assert lines[4].endswith("rm /state/key")


@pytest.mark.parametrize("typed", ["file=key", "file=./key", "file=~/key"])
def test_a_path_is_that_of_whoever_types_it(daemon, capsys, tmp_path, monkeypatch, typed):
    """The daemon has another folder, and perhaps another home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    daemon.answers["rekey"] = MOVED | {"source": "\x1b"}

    assert main(["store", "rekey", "--to", typed]) == 0
    assert daemon.asked("rekey") == [{"to": f"file={tmp_path}/key"}]
    shown = capsys.readouterr().err
    assert f'key = {{ file = "{tmp_path}/key" }}' in shown
    assert "\x1b" not in shown


def test_another_passphrase_leaves_little_to_do(daemon, capsys):
    """Only what asks for it may be another."""
    daemon.answers["rekey"] = DONE | {"also_in": None}

    assert main(["store", "rekey", "--to", "passphrase=pinentry"]) == 0
    told = capsys.readouterr().err
    assert "the old one opens it no more" in told
    assert 'key = { passphrase = "pinentry" }' in told


def test_what_is_no_place_for_a_key_is_for_the_daemon_to_say(daemon, capsys):
    """Which knows them."""
    daemon.answers["rekey"] = BadRequest("rekey: to is no place for a key")

    assert main(["store", "rekey", "--to", "keyring"]) == 2
    assert "no place for a key" in capsys.readouterr().err
