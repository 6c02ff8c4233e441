"""Who is at the other end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from spotokend.adapters.peercred import Peer, read_peer

CONNECT = """
import os, socket, sys
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[3]))
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
client.recv(1)
"""


def test_same_process():
    """A pair of sockets is made by one process: ourselves."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with one, other:
        assert read_peer(one) == Peer(os.getpid(), os.getuid(), os.getgid())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_other_user(short_path):
    """The kernel says which user's process connected, whatever that process would like to be."""
    path = str(short_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        short_path.chmod(0o755)
        os.chmod(path, 0o666)
        command = [sys.executable, "-S", "-c", CONNECT, path, "65534", "65533"]
        with subprocess.Popen(command) as process:
            connection, _ = listener.accept()
            with connection:
                assert read_peer(connection) == Peer(process.pid, 65533, 65534)


def test_large_ids(monkeypatch):
    """User and group ids are unsigned: containers use those above 2³¹."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with one, other:
        credentials = b"".join(
            number.to_bytes(4, sys.byteorder) for number in (7, 4_000_000_000, 2**32 - 2)
        )
        monkeypatch.setattr(socket.socket, "getsockopt", lambda *_: credentials)
        assert read_peer(one) == Peer(7, 4_000_000_000, 2**32 - 2)


def test_no_unix_socket():
    """A closed socket has no peer to tell."""
    closed = socket.socket(socket.AF_UNIX)
    closed.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        read_peer(closed)
