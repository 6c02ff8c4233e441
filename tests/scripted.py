"""A stand-in for the daemon that says what a test tells it to say, byte by byte if need be.

Each accepted connection runs one function of the script, in a thread of its own; the last function
serves all further ones. What a function raises fails the test at the end.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from spotokend import SpotokendError, wire

TOO_LONG = 10.0
"""Seconds after which a test is wrong, not slow."""


def token_map(generation: int = 1, *, life: float = 3600.0, **changes: object) -> dict[str, object]:
    """A ``token`` result with ``life`` seconds to go."""
    token: dict[str, object] = {
        "account": "main",
        "access_token": f"access-{generation}",
        "token_type": "Bearer",
        "expires_at": time.time() + life,
        "expires_boot": time.clock_gettime(time.CLOCK_BOOTTIME) + life,
        "scope": ["user-read-email", "streaming"],
        "generation": generation,
        "grant_expires_at": None,
    }
    return {**token, **changes}


class Conversation:
    """The server's end of one connection."""

    def __init__(self, accepted: socket.socket, number: int) -> None:
        accepted.settimeout(TOO_LONG)
        self.socket = accepted
        self.number = number
        self._decoder = wire.Decoder()
        self._requests: list[list[object]] = []

    def request(self) -> tuple[int, str, dict[str, object]]:
        """The next ``(msgid, method, arguments)``; EOFError once the client has gone."""
        while not self._requests:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self._requests.extend(self._decoder.feed(data))
        kind, msgid, method, params = self._requests.pop(0)
        assert kind == wire.REQUEST
        return msgid, method, params[0] if params else {}

    def result(self, msgid: int, result: object) -> None:
        self.send(wire.result_response(msgid, wire.pack(result)))

    def error(self, msgid: int, error: SpotokendError) -> None:
        self.send(wire.error_response(msgid, error.to_wire()))

    def notify(self, method: str, event: dict[str, object]) -> None:
        self.send(wire.notification(method, event))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def until_closed(self) -> None:
        """Wait until the client hangs up; further requests are read and not answered."""
        while self.socket.recv(65536):
            continue


Script = Callable[[Conversation], None]


def answering(answer: Callable[[str, dict[str, object]], object]) -> Script:
    """A script that answers each request with what ``answer(method, arguments)`` returns."""

    def script(talk: Conversation) -> None:
        while True:
            try:
                msgid, method, arguments = talk.request()
            except EOFError:
                return
            try:
                talk.result(msgid, answer(method, arguments))
            except SpotokendError as error:
                talk.error(msgid, error)

    return script


class ScriptedServer:
    """A context manager: listens on ``path`` inside it; :meth:`stop` and :meth:`start` restart."""

    def __init__(self, path: Path, *scripts: Script) -> None:
        self.path = str(path)
        self.connections = 0
        self._scripts = list(scripts)
        self._threads: list[threading.Thread] = []
        self._accepted: list[socket.socket] = []
        self._errors: list[BaseException] = []
        self._listener: socket.socket | None = None

    def start(self) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self.path)
        listener.listen()
        self._listener = listener
        self._run(self._accept, listener)

    def stop(self) -> None:
        """End as a killed daemon ends: every connection is cut, nobody listens any more."""
        if self._listener is None:
            return
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener = None
        os.unlink(self.path)
        self._threads[0].join(TOO_LONG)  # so that nothing is accepted behind our back
        for accepted in self._accepted:
            try:
                accepted.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # its script has ended already
        for thread in self._threads:
            thread.join(TOO_LONG)
            assert not thread.is_alive(), "a script that does not end"
        self._threads.clear()
        self._accepted.clear()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for error in self._errors:
            raise error

    def _run(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                try:
                    accepted, _ = listener.accept()
                except OSError:
                    return
                self.connections += 1
                script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
                self._accepted.append(accepted)
                self._run(self._talk, script, Conversation(accepted, self.connections))

    def _talk(self, script: Script, talk: Conversation) -> None:
        with talk.socket:
            try:
                script(talk)
            except (EOFError, ConnectionError):
                return  # the client hung up, or the server was stopped
            except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
                self._errors.append(error)


class Time:
    """A clock that moves only when somebody sleeps; what is due then is done on the way."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.naps: list[float] = []
        self.after: dict[int, Callable[[], None]] = {}

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds
        self.after.pop(len(self.naps), lambda: None)()


def wait_for(event: threading.Event) -> None:
    assert event.wait(TOO_LONG), "it has not happened"
