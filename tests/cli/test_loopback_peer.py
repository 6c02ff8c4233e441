"""Who is at the other end of a loopback connection, by the kernel's own table."""

from __future__ import annotations

import os
import socket

import pytest

from spotokend.cli import loopback_peer
from spotokend.cli.loopback_peer import find_uid, peer_uid

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout"


def row(local, remote, uid):
    return f"   0: {local} {remote} 01 00000000:00000000 00:00000000 00000000  {uid}        0 12345"


@pytest.fixture(params=["127.0.0.1", "::1"])
def connected(request):
    """A listener, and both ends of a connection to it."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family) as server:
        with socket.create_connection(server.getsockname()[:2]) as client:
            accepted, peer = server.accept()
            with accepted:
                yield peer[:2], server.getsockname()[:2], client


def test_a_process_of_ours_is_recognised(connected):
    """On IPv4 and IPv6."""
    peer, here, _ = connected

    assert peer_uid(peer, here) == os.getuid()


def test_a_connection_that_doesn_t_exist_belongs_to_nobody(connected):
    """No guess is made."""
    _, here, _ = connected

    assert peer_uid(("127.0.0.1", 1), here) is None


def test_a_socket_of_both_protocols_is_found():
    """A browser may reach 127.0.0.1 through an IPv6 socket."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_INET6) as client,
    ):
        client.connect(("::ffff:127.0.0.1", server.getsockname()[1]))
        accepted, peer = server.accept()
        with accepted:
            assert peer_uid(peer, server.getsockname()) == os.getuid()


def test_a_system_without_the_table_tells_nothing(monkeypatch):
    """Then nobody is trusted."""
    monkeypatch.setattr(loopback_peer, "TABLES", ("/nonexistent/tcp",))

    assert peer_uid(("127.0.0.1", 1), ("127.0.0.1", 2)) is None


@pytest.mark.parametrize(
    ("byteorder", "four", "six"),
    [
        ("little", "0100007F", "00000000000000000000000001000000"),
        ("big", "7F000001", "00000000000000000000000000000001"),
    ],
)
def test_addresses_are_read_in_the_machine_s_byte_order(monkeypatch, byteorder, four, six):
    """The kernel prints words, not bytes."""
    monkeypatch.setattr(loopback_peer.sys, "byteorder", byteorder)
    table = [HEAD, row(f"{four}:0001", f"{four}:0002", 7), row(f"{six}:0001", f"{six}:0002", 8)]

    assert find_uid(table, ("127.0.0.1", 1), ("127.0.0.1", 2)) == 7
    assert find_uid(table, ("::1", 1), ("::1", 2)) == 8
    assert find_uid(table, ("127.0.0.1", 2), ("127.0.0.1", 1)) is None


def test_a_broken_line_is_passed_over():
    """Half a line says nothing."""
    assert find_uid([HEAD, "", "   0: 0100007F:0001"], ("127.0.0.1", 1), ("127.0.0.1", 2)) is None
