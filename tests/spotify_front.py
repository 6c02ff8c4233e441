"""The sandbox under Spotify's own names: a proxy that answers for them, with certificates of its own.

A program under test keeps the addresses that it ships with, ``https://accounts.spotify.com`` and
``https://api.spotify.com``; that it ends up at the sandbox is the environment's doing alone
(``HTTPS_PROXY``, ``SSL_CERT_FILE``). Nothing leaves this machine: other names are refused.
"""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trustme

NAMES = ("accounts.spotify.com", "api.spotify.com")
PATIENCE = 20.0
"""Seconds that a connection may stay silent."""


class Front:
    """Where it listens, and what makes programs believe it."""

    def __init__(self, port: int, authority: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.refused: list[str] = []
        """Targets of CONNECT that aren't Spotify's: what a program asked for besides."""
        self.environ = {
            "HTTPS_PROXY": self.url,
            "NO_PROXY": "127.0.0.1,localhost",
            "SSL_CERT_FILE": str(authority),
        }


@contextmanager
def front(sandbox_port: int, folder: Path) -> Iterator[Front]:
    """A front before the sandbox at that port; its certificate authority's file is in ``folder``."""
    authority = trustme.CA()
    path = folder / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*NAMES).configure_cert(context)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(PATIENCE)
            target = _target(self.request)
            if target is None:
                return
            if target not in {f"{name}:443" for name in NAMES}:
                there.refused.append(target)
                self.request.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            # A peer that has gone, or doesn't believe the certificate, ends its connection only.
            with suppress(OSError), context.wrap_socket(self.request, server_side=True) as inner:
                _splice(inner, sandbox_port)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True
        request_queue_size = 64

    with Server(("127.0.0.1", 0), Handler) as server:
        there = Front(server.server_address[1], path)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield there
        finally:
            server.shutdown()
            thread.join()


def _target(connection: socket.socket) -> str | None:
    """What CONNECT asks for (RFC 9110, section 9.3.6); None: it asks for nothing, or has gone."""
    head = b""
    while b"\r\n\r\n" not in head:
        try:
            piece = connection.recv(4096)
        except OSError:
            return None
        if not piece or len(head) > 16 * 1024:
            return None
        head += piece
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split()
    return words[1] if len(words) == 3 and words[0] == "CONNECT" else None


def _splice(inner: ssl.SSLSocket, sandbox_port: int) -> None:
    """Bytes to and fro until one side ends; answers in a thread, as TLS can't be polled simply."""
    with socket.create_connection(("127.0.0.1", sandbox_port), PATIENCE) as sandbox:
        answers = threading.Thread(target=_copy, args=(sandbox, inner), daemon=True)
        answers.start()
        _copy(inner, sandbox)
        with suppress(OSError):
            sandbox.shutdown(socket.SHUT_WR)
        answers.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(64 * 1024):
            sink.sendall(data)
    # unwrap() would wait for the other side's close_notify; the end of TCP is enough here.
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
