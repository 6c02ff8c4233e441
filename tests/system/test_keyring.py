"""The store's key in a real keyring: locked, absent, unlocked later; nothing is ever made in place of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from daemon_process import DaemonProcess
from real_keyring import PASSWORD, RealKeyring

import spotokend
from spotokend.sandbox import Options, Sandbox, ready_configuration, running

WITHIN = 15.0
"""Seconds in which it must go on by itself: it looks each 2."""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """The provider."""
    with running(Options(auto_approve=True)) as sandbox:
        yield sandbox


@pytest.fixture
def keyring(short_path: Path) -> Iterator[RealKeyring]:
    """A keyring that is locked."""
    with RealKeyring(short_path) as keyring:
        yield keyring


@pytest.fixture
def daemon(sandbox: Sandbox, short_path: Path, keyring: RealKeyring) -> DaemonProcess:
    """A daemon with that keyring, not started yet."""
    config = ready_configuration(sandbox.url, sandbox.provider.options, folder=str(short_path))
    daemon = DaemonProcess(short_path, f'{config}\n[store]\nkey = {{ keyring = "main" }}\n')
    daemon.environ["DBUS_SESSION_BUS_ADDRESS"] = keyring.environ["DBUS_SESSION_BUS_ADDRESS"]
    return daemon


def store_info(daemon: DaemonProcess) -> dict[str, Any]:
    """What ``spotokend store info`` is made of."""
    with spotokend.Client(str(daemon.socket)) as client:
        return client.call("store_info")


def token(daemon: DaemonProcess) -> str:
    """What a program gets."""
    with spotokend.Client(str(daemon.socket)) as client:
        return client.token("machine").access_token


def until(found: Callable[[], bool], daemon: DaemonProcess) -> None:
    deadline = time.monotonic() + WITHIN
    while True:
        with suppress(spotokend.Locked):
            if found():
                return
        assert time.monotonic() < deadline, daemon.written()
        time.sleep(0.05)


def refusal(daemon: DaemonProcess) -> spotokend.Locked:
    """What a program is told that asks for a token."""
    with spotokend.Client(str(daemon.socket)) as client, pytest.raises(spotokend.Locked) as told:
        client.token("machine")
    return told.value


def test_a_locked_keyring_is_waited_for_and_never_taken_for_an_empty_one(
    daemon: DaemonProcess, keyring: RealKeyring
):
    """From the first start to a rekey, through a wrong password and a keyring that is not there."""
    with daemon:
        # Nothing is stored yet, and still no key is made: nobody knows what the keyring holds.
        assert "the keyring is locked" in refusal(daemon).message
        asked = daemon.run("token", "machine")
        assert asked.returncode == 5
        assert "spotokend unlock" in asked.stderr
        status = daemon.run("status")
        assert status.returncode == 0
        assert "the keyring is locked" in status.stdout + status.stderr
        assert store_info(daemon)["key"]["ids"] == []
        assert not keyring.unlock("wrong horse")
        assert daemon.run("unlock").returncode == 5
        assert keyring.unlock(PASSWORD)
        assert daemon.run("unlock").returncode == 0  # at once
        first = token(daemon)
        (key,) = store_info(daemon)["key"]["ids"]

    keyring.lock()
    with daemon:
        account = spotokend.Client(str(daemon.socket)).status("machine")["accounts"][0]
        assert account["state"] == "sealed"
        with spotokend.Client(str(daemon.socket)) as client:
            for method in ("reload", "rekey", "unlock"):
                with pytest.raises(spotokend.Locked):
                    client.call(method)
        assert keyring.unlock(PASSWORD)
        until(lambda: token(daemon) == first, daemon)  # by itself, and nothing was lost
        assert store_info(daemon)["key"]["ids"] == [key]

        moved = daemon.run("store", "rekey")
        assert moved.returncode == 0, moved.stderr
        info = store_info(daemon)
        newest = info["key"]["ids"][0]
        assert newest != key
        assert list(info["sealed_by"]) == [newest]
        assert token(daemon) == first

    keyring.stop()
    with daemon:
        assert "no keyring answers" in refusal(daemon).message
        keyring.start()
        assert "keyring" in refusal(daemon).message
        assert keyring.unlock(PASSWORD)
        until(lambda: token(daemon) == first, daemon)
        assert store_info(daemon)["key"]["ids"] == [newest]


def test_the_wrong_keyring_is_named_and_gets_no_new_key(
    daemon: DaemonProcess, keyring: RealKeyring
):
    """Open, and without the key that the store needs: nothing is made, and the right one is waited for."""
    keyring.unlock(PASSWORD)
    with daemon:
        first = token(daemon)
    daemon.configure(daemon.config.read_text().replace('"main"', '"other"'))
    with daemon:
        told = refusal(daemon)
        assert "is missing, and the store holds what it has sealed" in told.message
        assert store_info(daemon)["key"]["ids"] == []
    daemon.configure(daemon.config.read_text().replace('"other"', '"main"'))
    with daemon:
        assert token(daemon) == first


def test_the_key_moves_from_its_file_into_the_keyring(daemon: DaemonProcess, keyring: RealKeyring):
    """As the command says it; with the line that it prints, and no login anew."""
    in_keyring = daemon.config.read_text()
    daemon.configure(in_keyring.partition("[store]")[0])
    with daemon:
        first = token(daemon)
        locked = daemon.run("store", "rekey", "--to", "keyring=main")
        assert locked.returncode == 5
        assert "nothing has changed: the keyring is locked" in locked.stderr
        assert keyring.unlock(PASSWORD)
        moved = daemon.run("store", "rekey", "--to", "keyring=main")
        assert moved.returncode == 0, moved.stderr
        (key,) = store_info(daemon)["key"]["ids"]
    assert 'under [store]: key = { keyring = "main" }' in moved.stderr
    daemon.configure(in_keyring)
    with daemon:
        assert token(daemon) == first
        assert store_info(daemon)["key"]["ids"] == [key]
        assert daemon.run("store", "rekey").returncode == 0
        assert key not in store_info(daemon)["sealed_by"]
        old = next(daemon.folder.rglob("state/spotokend/key"))
        assert moved.stderr.rstrip().endswith(f"rm {old}")
        old.unlink()
    with daemon:
        assert token(daemon) == first
