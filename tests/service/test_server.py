"""The server as a whole: accepting, refusing, running out of descriptors, ending."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import subprocess
import sys
import textwrap
from contextlib import AsyncExitStack
from functools import partial

import anyio
import pytest
from served import OK, PATIENCE, Client, Served, connected, serving, until

from spotokend import wire
from spotokend.adapters.listener import bind
from spotokend.adapters.peercred import Peer, read_peer
from spotokend.errors import Misconfigured
from spotokend.service import server as server_module
from spotokend.service.connection import Connection
from spotokend.service.server import _most_connections, _raise_limit, refuse_those_who_wait

pytestmark = pytest.mark.anyio


class TestPeers:
    """Who is served."""

    @pytest.mark.parametrize("uid", [0, 1, 65_534])
    async def test_stranger(self, short_path, uid):
        """Another user, root too, gets one error, and then the end."""
        if uid == os.getuid():
            uid = 4711
        calls = []
        async with (
            serving(
                short_path,
                lambda *call: calls.append(call) or OK,
                read_peer=lambda _: Peer(1, uid, 1),
            ) as served,
            connected(served) as client,
        ):
            await client.send(wire.request(1, "nothing"), wire.request(2, "token"))
            [[_, msgid, [code, message, details], _]] = await client.rest()
        assert (msgid, code) == (1, "forbidden")
        assert message == f"this daemon serves user {os.getuid()} only, and this is user {uid}"
        assert "hint" in details
        assert calls == []

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
    async def test_real_stranger(self, short_path):
        """The same with a process of another user."""
        async with serving(short_path) as served:
            short_path.chmod(0o755)
            os.chmod(served.path, 0o666)
            program = textwrap.dedent("""
                import os, socket, sys
                os.setgid(65534)
                os.setuid(65534)
                client = socket.socket(socket.AF_UNIX)
                client.connect(sys.argv[1])
                client.sendall(bytes.fromhex(sys.argv[2]))
                while data := client.recv(4096):
                    sys.stdout.buffer.write(data)
            """)
            request = wire.request(1, "token").hex()
            command = [sys.executable, "-S", "-c", program, served.path, request]
            with anyio.fail_after(PATIENCE):
                run = partial(subprocess.run, command, check=True, capture_output=True)
                process = await anyio.to_thread.run_sync(run)
            [[_, _, [code, message, _], _]] = wire.Decoder().feed(process.stdout)
        assert code == "forbidden"
        assert message.endswith("this is user 65534")

    async def test_own(self, short_path):
        """The user's own programs are served, and known by their process."""
        peers = []

        def handle(connection, method, arguments):
            peers.append(connection.peer)
            return OK

        async with serving(short_path, handle) as served, connected(served) as client:
            assert await client.ask() == [1, 1, None, "ok"]
            assert served.server.connections == 1
        assert peers == [Peer(os.getpid(), os.getuid(), os.getgid())]

    async def test_gone_at_once(self, short_path):
        """A client of which nothing can be learnt is let go; the next one is served."""
        failures = [OSError(errno.ENOTCONN, "not connected")]

        def read(connection):
            if failures:
                raise failures.pop()
            return read_peer(connection)

        async with serving(short_path, read_peer=read) as served:
            async with connected(served) as client:
                assert await client.rest() == []
            async with connected(served) as client:
                assert await client.ask() == [1, 1, None, "ok"]
            assert served.words("a client went at once") == ["not connected"]


class Listener(socket.socket):
    """One whose accept fails as often as wanted."""

    def fail(self, times):
        self.failures, self.accepted = times, 0
        return self

    def accept(self):
        self.accepted += 1
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


class TestNoRoom:
    """No descriptor is left."""

    async def test_accept_fails(self, short_path, monkeypatch):
        """Each failure is followed by a pause, told once a time; then clients are served."""
        monkeypatch.setattr(server_module, "_ACCEPT_PAUSE", 0.001)
        served = Served(str(short_path / "socket"), lambda *_: OK)
        listener = Listener(fileno=bind(served.path).detach()).fail(5)
        async with anyio.create_task_group() as tasks:
            await tasks.start(served.server.serve, listener)
            async with connected(served) as client:
                assert await client.ask() == [1, 1, None, "ok"]
                # Five failures, the client, and the look whether there is another.
                assert listener.accepted == 7
            await served.server.close()
        assert served.words("clients must wait") == ["Too many open files"]

    async def test_kept_in_reserve(self, short_path, monkeypatch):
        """Clients don't get the last descriptors: one too many waits until another goes."""
        monkeypatch.setattr(server_module, "_most_connections", lambda: 1)
        monkeypatch.setattr(server_module, "_ACCEPT_PAUSE", 0.001)
        async with serving(short_path) as served:
            async with connected(served) as first:
                assert await first.ask() == [1, 1, None, "ok"]
                async with connected(served) as second:
                    await second.send(wire.request(1, "token"))
                    await until(lambda: served.logged)
                    assert served.server.connections == 1
                    await first.stream.aclose()
                    assert await second.receive() == [1, 1, None, "ok"]
            [(event, fields)] = served.logged
            assert (event, fields["words"]) == (
                "clients must wait",
                "the limit of open files is nearly reached",
            )
            assert fields["hint"].startswith(f"process {os.getpid()} has 1 of them: end it")

    async def test_told_once_while_somebody_waits(self, short_path, monkeypatch):
        """One goes and another comes in, time and again: no line for each; the next time there is."""
        monkeypatch.setattr(server_module, "_most_connections", lambda: 2)
        monkeypatch.setattr(server_module, "_ACCEPT_PAUSE", 0.001)
        async with serving(short_path) as served:
            for _ in range(2):
                clients = [await anyio.connect_unix(served.path) for _ in range(5)]
                for stream in clients:
                    await stream.send(wire.request(1, "token"))
                    assert await stream.receive() == wire.result_response(1, OK)
                    await stream.aclose()
                await until(lambda: not served.server.connections)
                async with connected(served) as client:
                    await client.ask()
                await until(lambda: not served.server.connections)
            assert len(served.words("clients must wait")) == 2

    @pytest.mark.parametrize(
        ("limit", "expected"),
        [(1024, 960), (100, 50), (100_000, 4096), (resource.RLIM_INFINITY, 4096)],
    )
    def test_most(self, monkeypatch, limit, expected):
        """64 are kept for the daemon itself, or half where there are few; 4096 are enough."""
        monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
        assert _most_connections() == expected

    @pytest.mark.parametrize(
        ("limits", "expected"),
        [
            ((1024, 524_288), [(4160, 524_288)]),
            ((1024, 4096), [(4096, 4096)]),
            ((1024, resource.RLIM_INFINITY), [(4160, resource.RLIM_INFINITY)]),
            ((1024, 1024), []),
            ((20_000, 20_000), []),
            ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), []),
        ],
    )
    def test_limit_is_raised(self, monkeypatch, limits, expected):
        """To what clients may need, within the hard limit; never lowered."""
        raised = []
        monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
        monkeypatch.setattr(resource, "setrlimit", lambda _, new: raised.append(new))
        _raise_limit()
        assert raised == expected

    def test_real_limit(self, short_path):
        """A process that really has no descriptor left goes on, at rest, and serves again."""
        path = short_path / "socket"
        run = subprocess.Popen([sys.executable, "-c", CROWDED, path], stdout=subprocess.PIPE)
        try:
            assert run.stdout.readline() == b"ready\n"
            clients = []
            for _ in range(40):
                client = socket.socket(socket.AF_UNIX)
                client.settimeout(PATIENCE)
                client.connect(str(path))
                client.sendall(wire.request(1, "token"))
                clients.append(client)
            assert run.stdout.readline() == b"full\n"
            used = _processor_time(run.pid)
            for client in clients:
                assert client.recv(100) == wire.result_response(1, OK)
                client.close()
            # Forty clients, some pauses between them: far from spinning.
            assert _processor_time(run.pid) - used < 0.5
        finally:
            run.kill()  # on SIGTERM it would write its coverage, without a descriptor for that
            run.communicate()


CROWDED = """
import resource, sys, anyio, os
from spotokend import wire
from spotokend.adapters.listener import bind
from spotokend.service import server

class Handlers:
    def handle(self, connection, method, arguments):
        return wire.pack("ok")

def log(event, **fields):
    if event == "clients must wait":
        print("full", flush=True)

async def main():
    listener = bind(sys.argv[1])
    # Its own limit would stop it before the system's does.
    server._most_connections = lambda: 1000
    server._ACCEPT_PAUSE = 0.01
    serving = server.Server(Handlers(), own_uid=os.getuid(), log=log)
    async with anyio.create_task_group() as tasks:
        await tasks.start(serving.serve, listener)
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 10, used + 10))
        print("ready", flush=True)

anyio.run(main)
"""


def _processor_time(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class TestEnd:
    """Closing, and being cancelled."""

    async def test_close(self, short_path):
        """What is answered is sent, what isn't is told so; then nobody is served, and the path stays."""
        waits = []

        async def wait():
            try:
                await asyncio.Event().wait()
            finally:
                waits.append("ended")

        def handle(connection, method, arguments):
            return OK if method == "stop" else wait()

        async with anyio.create_task_group() as tasks:
            served = Served(str(short_path / "socket"), handle)
            listener = bind(served.path)
            await tasks.start(served.server.serve, listener)
            async with connected(served) as client, connected(served) as idle:
                await client.send(wire.request(1, "token"), wire.request(2, "stop"))
                assert await client.receive() == [1, 2, None, "ok"]
                await served.server.close()
                [[_, msgid, [code, _, _], _]] = await client.rest()
                assert (msgid, code) == (1, "unavailable")
                assert await idle.rest() == []
        assert waits == ["ended"]
        assert listener.fileno() == -1
        assert (short_path / "socket").is_socket()

    async def test_last_requests(self, short_path):
        """Who has just connected may still ask, and gets what can be had in a second."""

        async def soon():
            await asyncio.sleep(0.05)
            return OK

        async with serving(short_path, lambda *_: soon()) as served:
            async with connected(served) as before, connected(served) as late:
                await before.send(wire.request(1, "token"))
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(served.server.close)
                    await anyio.sleep(0.01)
                    await late.send(wire.request(2, "token"))
                    assert await late.receive() == [1, 2, None, "ok"]
                    assert await before.receive() == [1, 1, None, "ok"]
                    assert (await before.rest(), await late.rest()) == ([], [])

    async def test_flush(self, short_path):
        """A client that reads gets the whole of a long reply before the end."""
        async with serving(short_path, lambda *_: wire.pack("x" * 2_000_000)) as served:
            async with connected(served) as client:
                await client.send(wire.request(1, "token"))
                await until(lambda: served.joined)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(served.server.close)
                    [reply] = await client.rest()
        assert len(reply[3]) == 2_000_000

    async def test_nobody_reads(self, short_path, monkeypatch):
        """A client that doesn't read holds up the end for a short time only."""
        monkeypatch.setattr(server_module, "_FLUSH_TIME", 0.02)
        async with serving(short_path, lambda *_: wire.pack("x" * 2_000_000)) as served:
            async with connected(served) as client:
                await client.send(wire.request(1, "token"))
                await until(lambda: served.joined)
                with anyio.fail_after(PATIENCE):
                    await served.server.close()
                assert served.server.connections == 0

    async def test_close_while_full(self, short_path, monkeypatch):
        """The pause of a full server doesn't outlive it."""
        monkeypatch.setattr(server_module, "_most_connections", lambda: 0)
        async with serving(short_path) as served:
            async with await anyio.connect_unix(served.path):
                await until(lambda: served.logged)
            await served.server.close()
            pauses = [
                timer
                for timer in asyncio.get_running_loop()._scheduled
                if not timer.cancelled() and timer._callback == served.server._accept_from
            ]
            assert pauses == []

    async def test_cancelled(self, short_path):
        """Cancellation ends everything at once, in order."""
        waits = []

        async def wait():
            try:
                await asyncio.Event().wait()
            finally:
                waits.append("ended")

        served = Served(str(short_path / "socket"), lambda *_: wait())
        async with anyio.create_task_group() as tasks:
            await tasks.start(served.server.serve, bind(served.path))
            async with connected(served) as client:
                await client.send(wire.request(1, "token"))
                await until(lambda: served.joined)
                tasks.cancel_scope.cancel()
        assert waits in ([], ["ended"])
        assert served.server.connections == 0

    async def test_arriving_while_closing(self, short_path):
        """A client that is just being taken in when the server closes is not left over."""
        async with serving(short_path) as served:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(served.path)
                await until(lambda: served.server._arriving)
                await served.server.close()
                assert client.recv(1) == b""
        assert served.server.connections == 0


class TestSignsOfLife:
    """What the watchdog is fed by."""

    async def test_answers(self, short_path):
        """A request of the server's own goes the way of all others."""
        asked = []

        def handle(connection, method, arguments):
            asked.append(method)
            return OK

        async with serving(short_path, handle) as served:
            await served.server.answers()
            await until(lambda: served.server.connections == 0)
        assert asked == ["hello"]

    async def test_stuck(self, short_path, monkeypatch):
        """Where clients get no answer it gets none, either."""
        async with serving(short_path) as served:
            monkeypatch.setattr(Connection, "buffer_updated", lambda *_: None)
            with anyio.move_on_after(0.05) as waited:
                await served.server.answers()
            assert waited.cancelled_caught

    async def test_no_descriptor(self, short_path, monkeypatch):
        """That clients must wait for room is no hang: nobody is to be killed for it."""

        def full():
            raise OSError(errno.EMFILE, "Too many open files")

        async with serving(short_path) as served:
            monkeypatch.setattr(socket, "socketpair", full)
            await served.server.answers()

    async def test_closing(self, short_path):
        """Nothing is begun any more."""
        async with serving(short_path) as served:
            await served.server.close()
            await served.server.answers()


async def test_those_who_wait_are_refused(short_path):
    """All of them, with the reason; and the socket that systemd holds goes on."""
    path = str(short_path / "socket")
    error = Misconfigured("no client is configured", hint="spotokend login")
    with bind(path) as held:
        async with anyio.create_task_group() as tasks:
            async with AsyncExitStack() as stack:
                clients = [
                    Client(await stack.enter_async_context(await anyio.connect_unix(path)))
                    for _ in range(40)
                ]
                tasks.start_soon(
                    partial(refuse_those_who_wait, held.dup(), error, own_uid=os.getuid())
                )
                for client in clients:
                    _, _, [code, message, details], _ = await client.ask()
                    assert (code, message) == ("misconfigured", "no client is configured")
                    assert details["hint"] == "spotokend login"
                    assert await client.rest() == []
        async with await anyio.connect_unix(path):
            pass
