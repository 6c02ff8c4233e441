"""A daemon's stand-in on a Unix socket: it says what the test has written down, and keeps count."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress

import pytest
from typed_answers import stdin

from spotokend import wire
from spotokend.errors import SpotokendError, UnknownMethod

ACCESS_TOKEN = "access-1"


class StandIn:
    """``answers[method]`` is a result, an error to be sent, or a function of the arguments.

    After the answer to ``watch`` come ``events``, ``(method, map)``, and then the daemon is gone,
    unless it ``stays``.
    """

    def __init__(self, path):
        self.path = str(path)
        self.answers = {}
        self.events = []
        self.stays = False
        self.calls = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._connections = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def asked(self, method):
        """The arguments of each call of a method."""
        return [arguments for name, arguments in self.calls if name == method]

    def close(self):
        """End, also for those who wait for an answer."""
        for connection in [self._listener, *self._connections]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join()
        with suppress(FileNotFoundError):
            os.unlink(self.path)

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._converse, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _converse(self, connection):
        decoder = wire.Decoder()
        with suppress(OSError):
            while data := connection.recv(4096):
                for _, msgid, method, params in decoder.feed(data):
                    arguments = params[0] if params else {}
                    self.calls.append((method, arguments))
                    connection.sendall(self._answer(msgid, method, arguments))
                    if method == "watch":
                        for event in self.events:
                            connection.sendall(wire.notification(*event))
                        if self.stays:
                            continue
                        os.unlink(self.path)
                        self._listener.shutdown(socket.SHUT_RDWR)
                        connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, msgid, method, arguments):
        answer = self.answers.get(method, UnknownMethod(f"there is no method {method}"))
        try:
            if callable(answer):
                answer = answer(arguments)
            if isinstance(answer, SpotokendError):
                raise answer
        except SpotokendError as error:
            return wire.error_response(msgid, error.to_wire())
        return wire.result_response(msgid, wire.pack(answer))


@pytest.fixture
def daemon(short_path, monkeypatch):
    """A stand-in that every client of this test finds, with a configuration that exists."""
    config = short_path / "config.toml"
    config.touch()
    monkeypatch.setenv("SPOTOKEND_CONFIG", str(config))
    monkeypatch.setenv("SPOTOKEND_SOCK", str(short_path / "socket"))
    stand_in = StandIn(short_path / "socket")
    yield stand_in
    stand_in.close()


@pytest.fixture
def token_map():
    """A token as the socket sends it, that lives for an hour."""
    return {
        "account": "main",
        "access_token": ACCESS_TOKEN,
        "token_type": "bearer",
        "expires_at": 3_600.0 * 500_000,
        "expires_boot": 3_600.0 * 1_000_000,
        "scope": ["streaming"],
        "generation": 4,
        "grant_expires_at": None,
    }


@pytest.fixture
def account_map():
    """Makes an account as ``status`` tells it; healthy but for what is given."""

    def make(**changed):
        return {
            "account": "main",
            "client": "spotify",
            "state": "fresh",
            "health": "ok",
            "user": "alice-1",
            "display_name": "Alice",
            "scope": ["streaming", "user-top-read"],
            "generation": 4,
            "issued_at": 1_000.0,
            "expires_at": 4_600.0,
            "due_at": 3_700.0,
            "authorized_at": 1_000.0,
            "grant_expires_at": 2_000.0 + 30 * 86_400,
            "since": 1_500.0,
            "reason": None,
            "hint": None,
            "failures": 0,
            "durable": True,
            **changed,
        }

    return make


@pytest.fixture
def status_map():
    """Makes the result of ``status`` for some accounts."""

    def make(*accounts, gate=None, warnings=(), health="ok", pid=1):
        gate = {"state": "open", "opens_at": None, "reason": None, **(gate or {})}
        return {
            "daemon": {
                "version": "0.1.0",
                "protocol": 1,
                "pid": pid,
                "started_at": 1_000.0,
                "socket": "socket",
                "config": "config.toml",
                "store": {"backend": "memory", "path": None},
                "health": health,
                "accounts": len(accounts),
                "connections": 1,
                "warnings": list(warnings),
            },
            "clients": {
                "spotify": {
                    "flow": "pkce",
                    "client_id": "client-1",
                    "redirect_uri": "http://127.0.0.1/callback",
                    "api_url": "https://api.spotify.com",
                    "scopes": [],
                    "accounts": len(accounts),
                    "in_flight": 0,
                    "gate": {"failures": 0, "probe": None, **gate},
                }
            },
            "accounts": list(accounts),
            "next": None,
        }

    return make


@pytest.fixture
def typed():
    """A person at a terminal: what is given is typed."""
    with stdin(terminal=True) as there:
        yield there


@pytest.fixture
def piped():
    """A script: what is given comes through a pipe."""
    with stdin(terminal=False) as there:
        yield there
