"""Whose process is at the other end of a loopback TCP connection.

TCP has no SO_PEERCRED. The kernel lists every socket with its owner in ``/proc/net/tcp`` and
``tcp6`` (proc_net_tcp(5) in the kernel's documentation): the other end is the entry whose local
address is our connection's remote one, and the other way round.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable

TABLES = ("/proc/net/tcp", "/proc/net/tcp6")

Address = tuple[str, int]
"""A numeric host and a port."""


def peer_uid(peer: Address, here: Address) -> int | None:
    """The user id of the process at ``peer`` that is connected to ``here``; None: can't be told."""
    for name in TABLES:
        try:
            with open(name, encoding="ascii") as table:
                uid = find_uid(table, peer, here)
        except OSError:  # no /proc, or no IPv6: the other table may have it
            continue
        if uid is not None:
            return uid
    return None


def find_uid(table: Iterable[str], local: Address, remote: Address) -> int | None:
    """The owner of the socket with these addresses in a table of ``/proc/net``."""
    wanted = _packed(local), _packed(remote)
    for line in table:
        # sl local_address rem_address st tx:rx tr:when retrnsmt uid ...
        words = line.split()
        if len(words) > 7 and words[0] != "sl" and (_read(words[1]), _read(words[2])) == wanted:
            return int(words[7])
    return None


def _packed(address: Address) -> tuple[bytes, int]:
    host, port = address
    # As in IPv6: a browser may reach 127.0.0.1 through a socket that knows both (RFC 4291, 2.5.5.2).
    return socket.inet_pton(socket.AF_INET6, host if ":" in host else f"::ffff:{host}"), port


def _read(text: str) -> tuple[bytes, int]:
    digits, _, port = text.partition(":")
    # The kernel prints each 32-bit word in the byte order of the machine.
    words = [int(digits[i : i + 8], 16) for i in range(0, len(digits), 8)]
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    return (packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed), int(port, 16)
