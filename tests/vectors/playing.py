"""Playing the vectors over real sockets: as a client that sends one, as a server that answers with one."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
import threading
import time
from collections.abc import Iterable
from typing import Any

import msgpack
from scripted import TOO_LONG, Conversation, Script

from spotokend import calls, wire

from .reading import Case, byte_by_byte, unhex

FOLLOWING = 4_000_000_001
"""The msgid of the good request behind a vector: whoever answers it has gone on."""
GOOD_REQUEST = wire.request(FOLLOWING, "hello")

LIMITS = ("more than", "too many", "too long", "too deeply")
NO_MESSAGEPACK = ("not MessagePack", "extension type", "that isn't UTF-8", "a map key")


def broken_layer(words: str) -> str:
    """The layer that ended a conversation, by what it said of it."""
    if any(limit in words for limit in LIMITS):
        return "limits"
    return "messagepack" if any(reason in words for reason in NO_MESSAGEPACK) else "rpc"


def ways_to_send(case: Case) -> dict[str, list[bytes]]:
    """The bytes of a server's vector and a good request behind them, cut in three ways."""
    data = unhex(case["input"])
    more = b"" if case["afterwards"] == "waiting" else GOOD_REQUEST
    return {
        "whole": [data, more],
        "byte by byte": [*byte_by_byte(data), *byte_by_byte(more)],
        "in one piece with more": [data + more],
    }


def converse(path: str, case: Case, pieces: Iterable[bytes]) -> list[Any]:
    """Send what a server's vector holds; all that comes back until the connection has ended."""
    messages: list[Any] = []
    decoder = calls.reply_decoder()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TOO_LONG)
        connection.connect(path)
        send_apart(connection, pieces)
        if case["afterwards"] == "waiting":
            connection.shutdown(socket.SHUT_WR)
        try:
            while data := connection.recv(65_536):
                messages += decoder.feed(data)
                if any(message[1] == FOLLOWING for message in messages):
                    if case.get("unanswered"):
                        break  # whoever is waited for would keep it open
                    connection.shutdown(socket.SHUT_WR)
        except ConnectionResetError:
            pass  # closed with something of ours unread
    return messages


def ways_to_answer(case: Case) -> dict[str, list[bytes]]:
    """The bytes of a client's vector, cut in two ways; what may follow stands in the vectors."""
    data = unhex(case["input"])
    return {"whole": [data], "byte by byte": byte_by_byte(data)}


def answering_with(case: Case, pieces: list[bytes], done: threading.Event) -> Script:
    """A server that answers the first request with a client's vector; ``done``: the client is."""

    def script(talk: Conversation) -> None:
        _await_request(talk.socket)
        send_apart(talk.socket, pieces, done)
        if case["then"] == "stays":
            talk.until_closed()

    return script


def _await_request(connection: socket.socket) -> None:
    """Return when a request has come; some clients greet with a notification first.

    Raises:
        EOFError: the client has gone.
    """
    messages = msgpack.Unpacker()
    while data := connection.recv(65_536):
        messages.feed(data)
        if any(message[0] == wire.REQUEST for message in messages):
            return
    raise EOFError


def send_apart(
    connection: socket.socket, pieces: Iterable[bytes], done: threading.Event | None = None
) -> None:
    """Send each piece when the one before has been read, so that nothing glues them together.

    Ends early once nobody is there to read, or ``done`` says that nobody will.
    """
    deadline = time.monotonic() + TOO_LONG
    for piece in pieces:
        while _unread(connection):
            if done is not None and done.is_set():
                return
            assert time.monotonic() < deadline, "it doesn't read on"
            time.sleep(0)
        try:
            connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            return


def _unread(connection: socket.socket) -> int:
    """What the other end has not read yet, unix(7): 0 only if nothing is left."""
    return struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]
