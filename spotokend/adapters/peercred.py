"""Who is at the other end of a Unix socket, as the kernel says it (SO_PEERCRED, unix(7))."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

_UCRED = struct.Struct("iII")
"""``struct ucred`` of Linux: pid_t, uid_t, gid_t."""


class Peer(NamedTuple):
    """The process that connected, as it was at that moment: it may have ended or changed since.

    ``pid`` is 0 for a process of a PID namespace that this one can't see.
    """

    pid: int
    uid: int
    gid: int


def read_peer(connection: socket.socket) -> Peer:
    """The peer of a connected Unix socket.

    Raises:
        OSError: it is no socket, or none of a kind that knows its peer.
    """
    return Peer._make(
        _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    )
