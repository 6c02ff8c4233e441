"""Clients that never let a full pipeline rest, in a process of their own.

with Flood(path, "token") as flood:
    ...                             # a hundred of them are being answered
flood.read                          # the bytes that each of them was sent
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

sys.path.insert(0, str(Path(__file__).parent.parent))  # the project's own, as a program, too

from spotokend import wire

CLIENTS = 100


def _pipeline(method: str, arguments: dict[str, object] | None = None) -> bytes:
    return b"".join(wire.request(number, method, arguments) for number in range(4000))


# 63 KiB of empty arrays: as much work as bytes of a message can make. They never end.
_HALF = b"\xdc\x00\x40" * 2 + (b"\xdc\x00\x40" + b"\x90" * 64) * 63 * 15

PIPELINES = {
    "token": _pipeline("token", {"account": "machine"}),
    "status": _pipeline("status"),
    "unknown method": _pipeline("nonsense"),
    "unknown account": _pipeline("token", {"account": "nobody"}),
    "refused arguments": _pipeline("token", {"account": "../x"}),
    "logins": _pipeline("login_start", {"account": "alice"}),
    "reloads": _pipeline("reload"),
    "half a message, byte by byte": _HALF,
}
"""What each of them sends again and again."""


class Flood:
    """See the module; a context manager, within which all have been served at least once."""

    def __init__(self, path: os.PathLike[str], kind: str) -> None:
        self.read: list[int] = []
        """What each was sent, in bytes; known when it is over."""
        self._command = [sys.executable, __file__, os.fspath(path), kind]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        words, _nothing = self._process.communicate()
        self.read = json.loads(words)


class _Client:
    """One of them."""

    def __init__(self, path: str, pipeline: bytes, *, dripping: bool) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.socket.setblocking(False)
        self.read = 0
        self._pipeline = memoryview(pipeline)
        self._piece = 1 if dripping else len(pipeline)
        self._sent = self.socket.send(pipeline[:-4000]) if dripping else 0

    def serve(self, events: int) -> None:
        """Send what is taken, and read what is there.

        Raises:
            ConnectionError: the daemon has had enough, as of half a message after ten seconds.
        """
        if events & selectors.EVENT_READ:
            data = self.socket.recv(256 * 1024)
            if not data:
                raise ConnectionResetError
            self.read += len(data)
        if events & selectors.EVENT_WRITE:
            sent = self.socket.send(self._pipeline[self._sent :][: self._piece])
            self._sent = (self._sent + sent) % len(self._pipeline)


def main(path: str, kind: str) -> None:
    """Flood until the end of standard input; then say what each has read."""
    dripping = PIPELINES[kind] == _HALF
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ, None)

    def connect() -> _Client:
        client = _Client(path, PIPELINES[kind], dripping=dripping)
        selector.register(client.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, client)
        return client

    clients = [connect() for _ in range(CLIENTS)]
    ready = False
    while True:
        if not ready and (dripping or all(client.read for client in clients)):
            print("ready", flush=True)
            ready = True
        for key, events in selector.select():
            if key.data is None:
                print(json.dumps([client.read for client in clients]))
                return
            try:
                key.data.serve(events)
            except BlockingIOError:
                continue
            except ConnectionError:
                selector.unregister(key.fileobj)
                key.data.socket.close()
                clients[clients.index(key.data)] = connect()


if __name__ == "__main__":
    main(*sys.argv[1:])
