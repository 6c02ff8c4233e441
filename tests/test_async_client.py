"""The client for asyncio against a server that follows a script."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
import threading

import pytest
from scripted import ScriptedServer, Time, answering, token_map, wait_for

import spotokend
from spotokend import async_client, calls, errors, wire
from spotokend.async_client import AsyncClient

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(short_path):
    return short_path / "s"


@pytest.fixture
def still(monkeypatch):
    """Time stands still for the client's patience, and each nap moves it."""
    clock = Time()
    yielding = asyncio.sleep

    async def sleep(seconds):
        clock.sleep(seconds)
        await yielding(0)

    monkeypatch.setattr(async_client.asyncio, "sleep", sleep)
    monkeypatch.setattr(calls.time, "monotonic", clock.monotonic)
    return clock


def tokens(asked):
    """A script that hands out a new generation at each request and notes what was asked."""

    def answer(method, arguments):
        asked.append((method, arguments))
        return token_map(len(asked), account=arguments.get("account", "main"))

    return answering(answer)


def cut(talk):
    talk.request()


def with_a_small_buffer(client):
    client._linked()._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


async def happened(event):
    await asyncio.to_thread(wait_for, event)


class TestTokens:
    """token, reject and refresh: the same as in the blocking client."""

    async def test_keeps_a_token(self, path):
        """A token is asked for once, and again where the kept one isn't good enough."""
        asked = []
        with ScriptedServer(path, tokens(asked)):
            async with AsyncClient(path) as client:
                first = await client.token()
                assert await client.token(min_ttl=600, scopes="streaming") is first
                await client.token("ada", min_ttl=3601, scopes=("x",))

        assert asked == [
            ("token", {}),
            ("token", {"account": "ada", "min_ttl": 3601, "scopes": ["x"]}),
        ]

    async def test_account(self, path, monkeypatch):
        """The call's account, else the client's, else the environment's."""
        asked = []
        monkeypatch.setenv("SPOTOKEND_ACCOUNT", "eve")
        with ScriptedServer(path, tokens(asked)):
            async with AsyncClient(path) as client:
                await client.token()
                client.account = "bob"
                await client.refresh()
                await client.reject(3, "ada")

        assert asked == [
            ("token", {"account": "eve"}),
            ("refresh", {"account": "bob"}),
            ("reject", {"account": "ada", "generation": 3}),
        ]

    async def test_reject(self, path):
        """A refused token is forgotten, and its successor kept."""
        asked = []
        with ScriptedServer(path, tokens(asked)):
            async with AsyncClient(path, account="main") as client:
                successor = await client.reject(await client.token())

                assert successor.generation == 2
                assert await client.token() is successor
        assert asked[1] == ("reject", {"account": "main", "generation": 1})

    async def test_late_answer_is_not_kept(self, path):
        """An answer that was under way while its token was refused is handed out, not kept."""

        def out_of_order(talk):
            early, _, _ = talk.request()
            later, _, _ = talk.request()
            talk.result(later, token_map(2))
            talk.result(early, token_map(1))
            answering(lambda *_: token_map(3))(talk)

        with ScriptedServer(path, out_of_order):
            async with AsyncClient(path) as client:
                first, second = await asyncio.gather(client.token(), client.reject(1))

                assert (first.generation, second.generation) == (1, 2)
                assert await client.token() is second

    async def test_refresh(self, path):
        """After a forced refresh nobody gets the older token."""
        with ScriptedServer(path, tokens([])):
            async with AsyncClient(path) as client:
                await client.token()
                fresh = await client.refresh()

                assert await client.token() is fresh


class TestOtherCalls:
    """status, hello, call, and errors."""

    async def test_status_follows_pages(self, path):
        """All accounts are in one result."""

        def answer(_, arguments):
            first = "after" not in arguments
            return {"accounts": [1] if first else [2], "next": "a" if first else None}

        with ScriptedServer(path, answering(answer)):
            async with AsyncClient(path) as client:
                assert await client.status() == {"accounts": [1, 2], "next": None}

    async def test_hello_and_call(self, path):
        """The client says who it is, and any method can be called."""
        with ScriptedServer(path, answering(lambda *asked: {"asked": list(asked)})):
            async with AsyncClient(path) as client:
                assert await client.hello() == {
                    "asked": ["hello", {"client": f"spotokend {spotokend.__version__}"}]
                }
                assert await client.call("logout", account="a") == {
                    "asked": ["logout", {"account": "a"}]
                }

    async def test_errors_keep_the_connection(self, path):
        """A refusal is raised as its class, and the connection goes on."""

        def answer(*_):
            raise errors.LoginRequired("no grant", hint="spotokend login")

        with ScriptedServer(path, answering(answer)) as server:
            async with AsyncClient(path) as client:
                for _ in range(2):
                    with pytest.raises(errors.LoginRequired, match="no grant"):
                        await client.token()
            assert server.connections == 1


class TestOneConnection:
    """Many calls at once."""

    async def test_each_gets_its_own_answer(self, path):
        """Answers in any order reach the calls that they belong to, on one connection."""
        count = 50

        def backwards(talk):
            requests = [talk.request() for _ in range(count)]
            for msgid, _, arguments in reversed(requests):
                talk.result(msgid, arguments["n"])
            talk.until_closed()

        with ScriptedServer(path, backwards) as server:
            async with AsyncClient(path) as client:
                results = await asyncio.gather(*(client.call("x", n=n) for n in range(count)))
            assert results == list(range(count))
            assert server.connections == 1

    async def test_cancelled_call(self, path):
        """The answer to a call that was cancelled is dropped; the connection is used on."""
        asked, cancelled = threading.Event(), threading.Event()

        def late(talk):
            msgid, _, _ = talk.request()
            asked.set()
            wait_for(cancelled)
            talk.result(msgid, "late")
            answering(lambda *_: "next")(talk)

        with ScriptedServer(path, late) as server:
            async with AsyncClient(path) as client:
                call = asyncio.create_task(client.call("refresh"))
                await happened(asked)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                assert client._link._waiting == {}
                cancelled.set()

                assert await client.call("hello") == "next"
            assert server.connections == 1

    async def test_cancelled_in_the_same_turn(self, path):
        """A call that is cancelled after its answer came, and before it ran on, spoils nothing."""
        both = threading.Event()

        def answer_twice(talk):
            msgid, _, _ = talk.request()
            data = wire.result_response(msgid, wire.pack(1))
            talk.send(data + data + wire.notification("notice", {}))
            both.set()
            answering(lambda *_: 2)(talk)

        with ScriptedServer(path, answer_twice):
            async with AsyncClient(path) as client:
                assert await client.call("hello") == 1
                await happened(both)
                assert await client.call("hello") == 2

    async def test_cut_with_a_cancelled_call(self, path):
        """A connection that ends while a call is being cancelled is nobody's error."""
        asked = threading.Event()

        def silent(talk):
            talk.request()
            asked.set()
            talk.until_closed()

        with ScriptedServer(path, silent):
            async with AsyncClient(path) as client:
                call = asyncio.create_task(client.call("refresh"))
                await happened(asked)
                call.cancel()
                client._link._close()
                with pytest.raises(asyncio.CancelledError):
                    await call

    async def test_much_to_send(self, path):
        """What doesn't fit into the socket's buffer is sent later, whole and in order."""
        count = 20

        def slow_reader(talk):
            wait_for(full)
            requests = [talk.request() for _ in range(count)]
            for msgid, _, arguments in requests:
                talk.result(msgid, arguments["n"])
            talk.until_closed()

        full = threading.Event()
        with ScriptedServer(path, slow_reader):
            async with AsyncClient(path) as client:
                with_a_small_buffer(client)
                waiting = [
                    asyncio.create_task(client.call("x", n=n, filler="x" * 10_000))
                    for n in range(count)
                ]
                await asyncio.sleep(0)
                assert client._link._unsent
                full.set()
                assert await asyncio.gather(*waiting) == list(range(count))
                assert not client._link._unsent

    async def test_nobody_reads(self, path, monkeypatch):
        """With a daemon that reads nothing, calls are refused before they fill the memory."""
        done = threading.Event()
        monkeypatch.setattr(async_client, "UNSENT_LIMIT", 50_000)

        with ScriptedServer(path, lambda _: wait_for(done)):
            async with AsyncClient(path, timeout=0.05) as client:
                with_a_small_buffer(client)
                waiting = [client.call("x", filler="x" * 60_000) for _ in range(20)]
                outcomes = await asyncio.gather(*waiting, return_exceptions=True)
                assert len(client._link._unsent) < 50_000 + 61_000
            done.set()
        assert {type(error) for error in outcomes} == {errors.Busy, errors.Unavailable}
        assert any("doesn't read" in error.message for error in outcomes)


class TestRestarts:
    """A daemon that comes and goes."""

    async def test_restart_is_invisible(self, path, still):
        """A connection that was cut at rest is replaced, also for what can't be repeated."""
        with ScriptedServer(path, answering(lambda *_: 1)) as server:
            async with AsyncClient(path) as client:
                await client.call("hello")
                server.stop()
                server.start()

                assert await client.call("logout") == 1
        assert still.naps == []

    async def test_asks_again(self, path):
        """All calls that were under way at a restart are asked again."""

        def half(talk):
            talk.request()
            talk.request()
            talk.send(b"\x94\x01")

        with ScriptedServer(path, half, answering(lambda method, _: method)) as server:
            async with AsyncClient(path) as client:
                results = await asyncio.gather(client.call("hello"), client.call("status"))
            assert results == ["hello", "status"]
            assert server.connections == 2

    async def test_waits_for_a_daemon_that_was_there(self, path, still):
        """While a known daemon restarts, its socket may be away for a moment."""
        with ScriptedServer(path, answering(lambda *_: 1)) as server:
            async with AsyncClient(path) as client:
                await client.call("hello")
                server.stop()
                still.after[3] = server.start

                assert await client.call("hello") == 1
        assert still.naps == [0.0, 0.01, 0.02]

    async def test_gives_up(self, path, still):
        """After five seconds the caller is told that nobody listens; a later call may succeed."""
        with ScriptedServer(path, answering(lambda *_: 1)) as server:
            async with AsyncClient(path) as client:
                await client.call("hello")
                server.stop()
                with pytest.raises(errors.DaemonNotRunning, match="nobody listens on"):
                    await client.call("hello")
                server.start()
                assert await client.call("hello") == 1

    async def test_nobody_was_ever_there(self, path, still):
        """Without a daemon the answer comes at once."""
        async with AsyncClient(path) as client:
            with pytest.raises(errors.DaemonNotRunning, match="nobody listens on"):
                await client.token()
        assert still.naps == []

    async def test_never_repeats_what_must_not_be(self, path):
        """A login that may have been taken is not sent twice."""
        with ScriptedServer(path, cut) as server:
            async with AsyncClient(path) as client:
                with pytest.raises(errors.Unavailable, match="login_finish was answered"):
                    await client.call("login_finish")
            assert server.connections == 1

    async def test_cut_while_sending(self, path):
        """A daemon that has gone when the request is written is noticed there."""
        with ScriptedServer(path, answering(lambda *_: 1)) as server:
            async with AsyncClient(path) as client:
                link = client._linked()
                server.stop()
                with pytest.raises(calls.Lost):
                    await link.exchange("hello", {})
                assert not link.usable()

    async def test_reset(self, path):
        """A daemon that is killed with the request unread resets the connection: asked again."""
        with ScriptedServer(path, lambda talk: talk.socket.recv(1), answering(lambda *_: 1)):
            async with AsyncClient(path) as client:
                assert await client.call("hello") == 1


class TestTrouble:
    """Silence and garbage."""

    async def test_silence(self, path):
        """No answer within the time-out is Unavailable; the connection goes on."""

        def silent(talk):
            talk.request()
            answering(lambda *_: 1)(talk)

        with ScriptedServer(path, silent) as server:
            async with AsyncClient(path, timeout=0.05) as client:
                with pytest.raises(errors.Unavailable, match=r"status within 0\.05 s"):
                    await client.call("status")
                client.timeout = 10
                assert await client.call("status") == 1
            assert server.connections == 1

    @pytest.mark.parametrize("garbage", [b"\xc1", b"HTTP/1.1 400 Bad\r\n", b"\x94\x01\xff\xc0\xc0"])
    async def test_garbage(self, path, garbage):
        """What doesn't speak the protocol is named, to each call."""

        def script(talk):
            talk.request()
            talk.request()
            talk.send(garbage)
            talk.until_closed()

        with ScriptedServer(path, script):
            async with AsyncClient(path) as client:
                outcomes = await asyncio.gather(
                    client.call("hello"), client.call("logout"), return_exceptions=True
                )
        assert [type(error) for error in outcomes] == [errors.DaemonNotRunning] * 2
        assert all("is not spotokend" in str(error) for error in outcomes)

    async def test_byte_by_byte(self, path):
        """An answer in many small parts is one answer."""

        def dribble(talk):
            for byte in wire.result_response(talk.request()[0], wire.pack({"a": "b"})):
                talk.send(bytes([byte]))
            talk.until_closed()

        with ScriptedServer(path, dribble):
            async with AsyncClient(path) as client:
                assert await client.hello() == {"a": "b"}


class TestWatch:
    """Events."""

    async def test_events(self, path):
        """What is comes first, then what happens."""

        def script(talk):
            msgid, method, arguments = talk.request()
            assert (method, arguments) == ("watch", {"accounts": ["a"], "tokens": True})
            talk.result(msgid, {"accounts": [{"n": 1}], "tokens": [{"n": 2}]})
            talk.notify("notice", {"n": 3})
            talk.until_closed()

        with ScriptedServer(path, script):
            async with AsyncClient(path) as client:
                events = client.watch(["a"])
                assert [await anext(events) for _ in range(3)] == [
                    ("state", {"n": 1}),
                    ("token", {"n": 2}),
                    ("notice", {"n": 3}),
                ]
                await events.aclose()
                assert client._watching == set()

    async def test_restart(self, path, still):
        """A restart is told as ``resync``, and then all that is; however the connection ended."""

        def watched(talk):
            talk.result(talk.request()[0], {"accounts": [{"n": talk.number}], "tokens": []})

        def reset(talk):
            talk.socket.recv(1)

        with ScriptedServer(path, watched, reset, watched):
            async with AsyncClient(path) as client:
                events = client.watch()
                assert [await anext(events) for _ in range(3)] == [
                    ("state", {"n": 1}),
                    ("resync", {"dropped": None}),
                    ("state", {"n": 3}),
                ]
                await events.aclose()

    async def test_gives_up(self, path, still):
        """A daemon that only hangs up ends the watch with the usual error."""
        with ScriptedServer(path, cut):
            async with AsyncClient(path) as client:
                with pytest.raises(errors.DaemonNotRunning, match="ends each connection"):
                    await anext(client.watch())

    async def test_close_ends_it(self, path):
        """Closing the client ends a watch that waits."""

        def script(talk):
            talk.result(talk.request()[0], {"accounts": [{}], "tokens": []})
            talk.until_closed()

        with ScriptedServer(path, script):
            client = AsyncClient(path)
            events = client.watch()
            assert await anext(events) == ("state", {})
            rest = asyncio.create_task(anext(events, "the end"))
            await asyncio.sleep(0)
            await client.close()

            assert await rest == "the end"

    async def test_half_a_message(self, path):
        """Between events it waits for ever; within one it doesn't."""

        def script(talk):
            talk.result(talk.request()[0], {"accounts": [], "tokens": []})
            talk.send(b"\x93\x02")
            talk.until_closed()

        with ScriptedServer(path, script):
            async with AsyncClient(path, timeout=0.05) as client:
                with pytest.raises(errors.Unavailable, match="watch within"):
                    await anext(client.watch())


class TestLife:
    """Loops, processes, closing, importing."""

    async def test_closed(self, path):
        """A closed client says so, and ends the calls under way; closing twice is fine."""
        asked = threading.Event()

        def silent(talk):
            talk.request()
            asked.set()
            talk.until_closed()

        with ScriptedServer(path, silent):
            client = AsyncClient(path)
            call = asyncio.create_task(client.call("hello"))
            await happened(asked)
            await client.close()
            await client.close()

            with pytest.raises(RuntimeError, match=r"spotokend\.AsyncClient is closed"):
                await call
            with pytest.raises(RuntimeError, match=r"spotokend\.AsyncClient is closed"):
                await client.token()
            assert [event async for event in client.watch()] == []

    async def test_usual_place(self, path, monkeypatch):
        """Without a path it is the environment's."""
        monkeypatch.setenv("SPOTOKEND_SOCK", str(path))
        with ScriptedServer(path, answering(lambda *_: 1)):
            async with AsyncClient() as client:
                assert await client.call("hello") == 1

    def test_imports(self):
        """To what asyncio costs by itself it adds nothing that makes a start slow."""
        brought = subprocess.run(
            [sys.executable, "-I", "-c", IMPORTS],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout.split()

        heavy = {"anyio", "argparse", "dataclasses", "httpx", "json", "pathlib", "structlog"}
        assert heavy.intersection(brought) == set()


IMPORTS = """
import asyncio, sys
before = set(sys.modules)
import spotokend
spotokend.AsyncClient
print(*sorted(set(sys.modules) - before))
"""


class TestLoops:
    """One object and several loops, one after the other; each test runs loops of its own."""

    def test_next_loop(self, path):
        """A client that is used from a second ``asyncio.run`` connects anew, and warns of nothing."""
        client = AsyncClient(path)
        with ScriptedServer(path, answering(lambda *_: 1)) as server:
            assert asyncio.run(client.call("hello")) == 1
            assert asyncio.run(client.call("hello")) == 1
            assert server.connections == 2
            asyncio.run(client.close())

    def test_loop_that_rests(self, path):
        """A loop that still exists closes its own connection when it runs again."""
        client = AsyncClient(path)
        first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
        with ScriptedServer(path, answering(lambda *_: 1)) as server:
            assert first.run_until_complete(client.call("hello")) == 1
            left = client._link
            assert second.run_until_complete(client.call("hello")) == 1
            assert left._open
            first.run_until_complete(asyncio.sleep(0))
            assert not left._open
            assert server.connections == 2
            second.run_until_complete(client.close())
        first.close()
        second.close()

    def test_child_process(self, path, monkeypatch):
        """A child leaves its parent's loop alone: it shares the epoll with it."""
        client = AsyncClient(path)
        first = asyncio.new_event_loop()
        with ScriptedServer(path, answering(lambda *_: 1)):
            assert first.run_until_complete(client.call("hello")) == 1
            inherited = client._link
            monkeypatch.setattr(os, "getpid", lambda: -1)
            monkeypatch.setattr(first, "remove_reader", None)
            monkeypatch.setattr(first, "call_soon_threadsafe", None)
            assert asyncio.run(client.call("hello")) == 1
            assert inherited._socket.fileno() == -1
            asyncio.run(client.close())
        monkeypatch.undo()
        first.close()

    def test_fork(self, path):
        """A real fork: parent and child go on with one client, each on its own connection."""

        def numbered(talk):
            answering(lambda *_: talk.number)(talk)

        with ScriptedServer(path, numbered):
            done = subprocess.run(
                [sys.executable, "-c", FORK, str(path)],
                capture_output=True,
                text=True,
                timeout=30,
                check=True,
            )
        assert done.stdout.split() == ["1", "child", "2", "parent", "1"]

    def test_dropped_without_close(self, path):
        """A client that is dropped with its loop warns of nothing."""
        with ScriptedServer(path, answering(lambda *_: 1)):
            assert asyncio.run(AsyncClient(path).call("hello")) == 1
            gc.collect()


FORK = """
import asyncio, os, sys
from spotokend import AsyncClient
client = AsyncClient(sys.argv[1])
loop = asyncio.new_event_loop()
def call():
    return loop.run_until_complete(client.call("hello"))
print(call(), flush=True)
pid = os.fork()
if not pid:
    loop = asyncio.new_event_loop()
    print("child", call(), flush=True)
    sys.exit()
os.waitpid(pid, 0)
print("parent", call())
"""
