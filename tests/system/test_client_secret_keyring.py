"""A client secret in a real keyring: locked at the start, unlocked later, changed, locked again."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from daemon_process import DaemonProcess
from real_keyring import PASSWORD, RealKeyring

import spotokend
from spotokend.sandbox import Options, Sandbox, ready_configuration, running

WITHIN = 20.0
"""Seconds in which it must go on by itself: it looks each 5."""
SECRET = "sandbox-client-secret"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """The provider."""
    with running(Options(auto_approve=True)) as sandbox:
        yield sandbox


@pytest.fixture
def keyring(short_path: Path) -> Iterator[RealKeyring]:
    """Unlocked; it has the secret."""
    with RealKeyring(short_path) as keyring:
        assert keyring.unlock(PASSWORD)
        keep(keyring, SECRET)
        yield keyring


_KEEP = """
import sys
import secretstorage

collection = secretstorage.Collection(secretstorage.dbus_init())
attributes = {"service": "spotokend", "username": "app"}
collection.create_item("spotokend: app", attributes, sys.stdin.buffer.read(), replace=True)
"""


def keep(keyring: RealKeyring, secret: str) -> None:
    """What ``secret-tool store --label 'spotokend: app' service spotokend username app`` does."""
    command = [sys.executable, "-c", _KEEP]
    subprocess.run(command, input=secret.encode(), env=keyring.environ, check=True)


@pytest.fixture
def daemon(sandbox: Sandbox, short_path: Path, keyring: RealKeyring) -> DaemonProcess:
    """Not started; the secret of each client that has one is in the keyring."""
    text = ready_configuration(sandbox.url, sandbox.provider.options, folder=str(short_path))
    inside = 'client_secret = { keyring = "app" }'
    often = "[timing]\nforced_interval = 0\n"
    daemon = DaemonProcess(short_path, re.sub(r"client_secret = .*", inside, text) + often)
    daemon.environ["DBUS_SESSION_BUS_ADDRESS"] = keyring.environ["DBUS_SESSION_BUS_ADDRESS"]
    return daemon


def served(client: spotokend.Client) -> bool:
    """Whether there is a token by now."""
    with suppress(spotokend.Unavailable):
        return client.token("machine").generation == 1
    return False


def test_a_locked_keyring_is_waited_for(daemon: DaemonProcess, keyring: RealKeyring):
    """The daemon is up, says what it lacks and how to mend it, and goes on by itself."""
    keyring.lock()
    with daemon, spotokend.Client(str(daemon.socket)) as client:
        with pytest.raises(spotokend.Unavailable, match=r"client .* is locked"):
            client.token("machine")
        assert keyring.unlock(PASSWORD)
        deadline = time.monotonic() + WITHIN
        while not served(client):
            assert time.monotonic() < deadline, daemon.written()
            time.sleep(0.1)
    assert daemon.written().count("the keyring gave the secret") == daemon.written().count(
        "the keyring is locked"
    )


def test_a_reload_reads_it_again_if_it_can(daemon: DaemonProcess, keyring: RealKeyring):
    """A new secret counts from then on; behind a lock the known one still does."""
    with daemon, spotokend.Client(str(daemon.socket)) as client:
        assert client.token("machine").generation == 1
        keyring.lock()
        client.call("reload")
        assert client.refresh("machine").generation == 2
        assert keyring.unlock(PASSWORD)
        keep(keyring, "not-the-secret")
        client.call("reload")
        with pytest.raises(spotokend.SpotokendError, match="secret"):
            client.call("refresh", account="machine")
        keep(keyring, SECRET)
        client.call("reload")
        assert client.token("machine", min_ttl=1700).generation >= 2
