"""One client of the server, on a real socket: it may do what it likes to itself."""

from __future__ import annotations

import asyncio
import gc
import json
import socket

import anyio
import pytest
from served import OK, PATIENCE, Served, connected, serving, until

from spotokend import wire
from spotokend.adapters.peercred import Peer
from spotokend.errors import Busy
from spotokend.rules.session import NOTICE_LIMIT, UNANSWERED_LIMIT, Session
from spotokend.service.connection import Connection, Shared

pytestmark = pytest.mark.anyio

LARGE = wire.pack("x" * 50_000)
QUOTING = "token-1 is no number"
"""Text of an exception; not written where it is raised, since the log shows lines of the source."""


class Slow:
    """Handlers whose answers come when the test says so."""

    def __init__(self):
        self.waiting = {}
        self.cancelled = 0
        self.most = 0

    def __call__(self, connection, method, arguments):
        return OK if method == "hello" else self._wait(arguments.get("account", "main"))

    async def _wait(self, account):
        answer = self.waiting[account] = asyncio.get_running_loop().create_future()
        self.most = max(self.most, len(self.waiting))
        try:
            return await answer
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            del self.waiting[account]

    async def under_way(self, count):
        """Wait until so many are."""
        await until(lambda: len(self.waiting) == count)


def timers():
    """Those that would wake the loop."""
    return [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]


class TestAnswers:
    """Calls and their answers."""

    async def test_at_once(self, short_path):
        """A handler that has the reply answers without a task."""
        tasks = []

        def handle(connection, method, arguments):
            tasks.append(asyncio.current_task())
            return wire.pack([method, arguments])

        async with serving(short_path, handle) as served, connected(served) as client:
            assert await client.ask(account="a") == [1, 1, None, ["token", {"account": "a"}]]
        assert tasks == [None]

    async def test_out_of_order(self, short_path):
        """A slow call holds up neither a fast one behind it nor another slow one."""
        slow = Slow()
        async with serving(short_path, slow) as served, connected(served) as client:
            await client.send(
                wire.request(1, "token", {"account": "a"}),
                wire.request(2, "token", {"account": "b"}),
                wire.request(3, "hello"),
            )
            assert await client.receive() == [1, 3, None, "ok"]
            await slow.under_way(2)
            slow.waiting["b"].set_result(OK)
            assert await client.receive() == [1, 2, None, "ok"]
            slow.waiting["a"].set_result(LARGE)
            assert (await client.receive())[:3] == [1, 1, None]

    @pytest.mark.parametrize("later", [False, True])
    async def test_error(self, short_path, later):
        """What a handler says is what the client is told."""

        def refuse(*_):
            raise Busy("not so often", retry_after=7.5)

        async def refuse_later():
            refuse()

        handle = (lambda *_: refuse_later()) if later else refuse
        async with serving(short_path, handle) as served, connected(served) as client:
            error = ["busy", "not so often", {"retry_after": 7.5}]
            assert await client.ask() == [1, 1, error, None]

    @pytest.mark.parametrize("later", [False, True])
    async def test_defect(self, short_path, later):
        """An exception is logged under an id; its text, which may hold a token, goes nowhere."""

        def break_down(*_):
            raise ValueError(QUOTING)

        async def break_down_later():
            break_down()

        handle = (lambda *_: break_down_later()) if later else break_down
        async with serving(short_path, handle) as served, connected(served) as client:
            for msgid in (1, 2):
                _, _, [code, _, details], _ = await client.ask(msgid=msgid)
                event, fields = served.logged[-1]
                assert (code, event) == ("internal", "defect")
                assert details["id"] == fields["id"]
                assert (fields["level"], fields["what"], fields["kind"]) == (
                    "error",
                    "token",
                    "ValueError",
                )
                assert "in break_down" in fields["where"]
            first, second = served.logged
            assert first[1]["id"] != second[1]["id"]
        assert "token-1" not in json.dumps(served.logged)

    async def test_ended_by_itself(self, short_path):
        """A call that is cancelled by the daemon's own end is answered."""
        slow = Slow()
        async with serving(short_path, slow) as served, connected(served) as client:
            await client.send(wire.request(1, "token"))
            await slow.under_way(1)
            slow.waiting["main"].cancel()
            assert (await client.receive())[2][0] == "unavailable"


class TestFlood:
    """More than is wanted."""

    async def test_pipeline(self, short_path):
        """A thousand requests in one piece get a thousand replies, in order."""
        requests = b"".join(wire.request(msgid, "token") for msgid in range(1000))
        async with serving(short_path) as served, connected(served) as client:
            await client.send(requests)
            replies = [await client.receive() for _ in range(1000)]
        assert [reply[1] for reply in replies] == [*range(1000)]

    async def test_slow_pipeline(self, short_path):
        """Of a thousand slow ones 64 are under way at a time, and all are answered."""
        slow = Slow()
        async with serving(short_path, slow) as served, connected(served) as client:
            await client.send(
                *(wire.request(n, "token", {"account": f"a{n}"}) for n in range(1000))
            )
            replies = []
            while len(replies) < 1000:
                await until(lambda: slow.waiting)
                for answer in list(slow.waiting.values()):
                    answer.set_result(OK)
                    replies.append(await client.receive())
        assert sorted(reply[1] for reply in replies) == [*range(1000)]
        assert slow.most == UNANSWERED_LIMIT

    async def test_large_replies(self, short_path):
        """A client that asks for much and reads late gets it all; the rest isn't read until then."""
        calls = []

        def handle(connection, method, arguments):
            calls.append(method)
            return LARGE

        async with serving(short_path, handle) as served:
            async with connected(served) as other, connected(served) as client:
                await client.send(*(wire.request(msgid, "token") for msgid in range(100)))
                await other.ask()
                await other.ask()
                assert len(calls) < 20
                replies = [await client.receive() for _ in range(100)]
            assert [reply[1] for reply in replies] == [*range(100)]
            assert len(calls) == 102


class TestMalformed:
    """What is no MessagePack-RPC."""

    async def test_told_and_closed(self, short_path):
        """One error, then the end; what is under way is given up; others notice nothing."""
        slow = Slow()
        async with serving(short_path, slow) as served:
            async with connected(served) as client, connected(served) as other:
                await client.send(wire.request(1, "token"))
                await slow.under_way(1)
                await client.send(wire.pack([0, 2, "token", {}]), wire.request(3, "hello"))
                [[_, msgid, [code, _, _], _]] = await client.rest()
                assert (msgid, code) == (2, "bad_request")
                await until(lambda: slow.cancelled == 1)
                assert await other.ask("hello") == [1, 1, None, "ok"]
            assert served.words("a connection was ended") == ["params must be an array"]

    async def test_notifications(self, short_path):
        """Notifications are ignored, and counted in the log."""
        async with serving(short_path) as served:
            async with connected(served) as client:
                await client.send(wire.notification("hi", {}) * 3)
                assert await client.ask() == [1, 1, None, "ok"]
            await until(lambda: not served.server.connections)
            assert served.words("notifications were ignored") == ["3 from this client"]


class TestDeadlines:
    """Half a message, an unread reply, and nothing at all."""

    async def test_idle(self, short_path):
        """A connection that does nothing costs no timer, before and after it asked."""
        async with serving(short_path) as served, connected(served) as client:
            with anyio.fail_after(PATIENCE):
                before = len(timers())
                await client.send(wire.request(1, "token"))
                await client.stream.receive()
                async with await anyio.connect_unix(served.path):
                    await until(lambda: served.server.connections == 2)
                    assert len(timers()) == before

    async def test_half_message(self, short_path):
        """Half a message ends the connection, and no other."""
        async with serving(short_path, half_message_timeout=0.02) as served:
            async with connected(served) as client, connected(served) as other:
                await client.send(wire.request(1, "token"), wire.request(2, "token")[:5])
                assert await client.rest() == [[1, 1, None, "ok"]]
                assert await other.ask() == [1, 1, None, "ok"]
            assert served.words("a connection was ended") == ["half a message, and no more"]

    async def test_trickle(self, short_path):
        """Byte by byte is no excuse: the time counts from the first byte of a message."""
        async with serving(short_path, half_message_timeout=3600) as served:
            async with connected(served) as client:
                assert await client.ask("hello") == [1, 1, None, "ok"]
                [connection] = served.joined
                data = wire.request(2, "token", {"account": "a"})
                await client.send(data[:1])
                await until(lambda: connection._half_timer)
                first = connection._half_timer
                for n in range(1, len(data) - 1):
                    send(connection, data[n : n + 1])
                    assert connection._half_timer is first
                await client.send(data[-1:] + data[:1])
                assert (await client.receive())[1] == 2
                assert connection._half_timer not in (None, first)
                await client.send(data[1:])
                assert (await client.receive())[1] == 2
                assert connection._half_timer is None

    async def test_never_reads(self, short_path):
        """A client that asks and doesn't read is cut off, and no other."""
        async with serving(short_path, lambda *_: LARGE, unread_timeout=0.05) as served:
            async with connected(served) as other:
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(served.path)
                    client.sendall(b"".join(wire.request(msgid, "token") for msgid in range(64)))
                    await until(lambda: served.server.connections == 2)
                    await until(lambda: served.server.connections == 1)
                assert (await other.ask())[:3] == [1, 1, None]
            assert served.words("a connection was ended") == ["a reply was not read"]

    async def test_reads_slowly(self):
        """A client that takes something each time is let be, and one that took all is forgotten."""
        transport = Pipe()
        connection = on_pipe(transport, lambda *_: LARGE, unread_timeout=3600.0)
        send(connection, wire.request(1, "token"))
        timer = connection._unread_timer
        assert timer is not None
        for _ in range(3):
            transport.unsent -= 1
            timer._run()
            assert connection._unread_timer not in (None, timer)
            timer = connection._unread_timer
        transport.unsent = 0
        timer._run()
        assert connection._unread_timer is None
        assert not transport.closing


class Pipe(asyncio.Transport):
    """A transport that keeps everything until it is told otherwise."""

    def __init__(self):
        super().__init__()
        self.unsent = 0
        self.closing = False

    def write(self, data):
        self.unsent += len(data)

    def get_write_buffer_size(self):
        return self.unsent

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def is_closing(self):
        return self.closing

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass

    def abort(self):
        self.closing = True


def on_pipe(transport, handle, **timeouts):
    """A connection without a server."""
    served = Served("", handle)
    timeouts = {"unread_timeout": 3600.0, "half_message_timeout": 3600.0} | timeouts
    shared = Shared(served, log=served._log, **timeouts)
    connection = Connection(shared, Peer(1, 2, 3), None)
    connection.connection_made(transport)
    return connection


def send(connection, data):
    """As the transport does it."""
    connection.get_buffer(-1)[: len(data)] = data
    connection.buffer_updated(len(data))


class TestGone:
    """Clients that leave."""

    async def test_while_waiting(self, short_path):
        """The wait of a client that went is cancelled; nothing else happens."""
        slow = Slow()
        async with serving(short_path, slow) as served, connected(served) as other:
            async with connected(served) as client:
                await client.send(wire.request(1, "token"))
                await slow.under_way(1)
            await until(lambda: slow.cancelled == 1)
            await until(lambda: served.server.connections == 1)
            assert await other.ask("hello") == [1, 1, None, "ok"]

    async def test_before_it_began(self, short_path):
        """A wait that is cancelled before its first step leaves nothing behind."""
        transport = Pipe()
        slow = Slow()
        connection = on_pipe(transport, slow)
        send(connection, wire.request(1, "token"))
        [task] = connection._shared.tasks
        connection.connection_lost(None)
        await asyncio.wait([task])
        gc.collect()
        assert task.cancelled()
        assert not connection._shared.tasks

    async def test_answered_too_late(self, short_path):
        """An answer for a client that went in the same moment is dropped."""
        transport = Pipe()
        connection = on_pipe(transport, lambda *_: asyncio.sleep(0, OK))
        send(connection, wire.request(1, "token"))
        [task] = connection._shared.tasks
        await until(task.done)
        connection.connection_lost(None)
        transport.closing = True
        await asyncio.sleep(0)
        assert transport.unsent == 0

    async def test_reset_in_mid_reply(self, short_path):
        """A client that dies under a long reply takes nobody along."""
        async with serving(short_path, lambda *_: wire.pack("x" * 2_000_000)) as served:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(served.path)
                client.sendall(wire.request(1, "token") * 2)
                await until(lambda: served.joined)
            await until(lambda: not served.server.connections)
            async with connected(served) as other:
                assert (await other.ask())[:3] == [1, 1, None]

    async def test_end_of_file(self, short_path):
        """A client that only ends its own half (``nc -N``) still gets its answer, then the end."""
        slow = Slow()
        async with serving(short_path, slow) as served, connected(served) as client:
            await client.send(wire.request(1, "token"))
            await client.stream.send_eof()
            await slow.under_way(1)
            slow.waiting["main"].set_result(OK)
            assert await client.rest() == [[1, 1, None, "ok"]]

    async def test_defect_in_a_connection(self, short_path, monkeypatch):
        """Even a defect of the session ends its own connection only."""
        async with serving(short_path) as served:
            async with connected(served) as client, connected(served) as other:
                await client.ask()
                with monkeypatch.context() as patch:
                    patch.setattr(Session, "next_call", lambda _: 1 / 0)
                    await client.send(wire.request(2, "token"))
                    assert await client.rest() == []
                assert await other.ask() == [1, 1, None, "ok"]
            [(event, fields)] = served.logged
            assert (event, fields["kind"]) == ("defect", "ZeroDivisionError")


def notice(number):
    """A packed notification."""
    return wire.notification("notice", {"n": number})


class TestOffers:
    """Notifications to a client that watches."""

    async def test_offered(self, short_path):
        """What is offered in one turn arrives in order, and of one key the newest."""
        async with serving(short_path) as served, connected(served) as client:
            await client.ask("watch")
            [connection] = served.joined
            connection.offer(None, notice(1))
            connection.offer("main", notice(2))
            connection.offer("main", notice(3))
            assert await client.receive() == [2, "notice", [{"n": 1}]]
            assert await client.receive() == [2, "notice", [{"n": 3}]]
            connection.offer("main", notice(4))
            assert await client.receive() == [2, "notice", [{"n": 4}]]

    async def test_after_the_reply(self, short_path):
        """What is offered while the handler runs comes behind its reply."""

        def handle(connection, method, arguments):
            connection.offer(None, notice(1))
            return OK

        async with serving(short_path, handle) as served, connected(served) as client:
            assert await client.ask("watch") == [1, 1, None, "ok"]
            assert await client.receive() == [2, "notice", [{"n": 1}]]

    async def test_overflow(self, short_path):
        """A watcher that doesn't read loses the oldest, is told how many, and costs no memory."""
        async with serving(short_path) as served, connected(served) as client:
            await client.ask("watch")
            [connection] = served.joined
            filler = wire.notification("filler", {"x": "x" * 30_000})
            while connection._transport.get_write_buffer_size() <= 64 * 1024:
                connection.offer(None, filler)
                await asyncio.sleep(0)
            count = NOTICE_LIMIT + 44
            for number in range(count):
                connection.offer(None, notice(number))
                await asyncio.sleep(0)
            assert connection._transport.get_write_buffer_size() < 100_000
            messages = []
            while not messages or messages[-1] != [2, "notice", [{"n": count - 1}]]:
                messages.append(await client.receive())
            [dropped] = [message[2][0]["dropped"] for message in messages if message[1] == "resync"]
            numbers = [message[2][0]["n"] for message in messages if message[1] == "notice"]
            assert numbers == [*range(dropped, count)]
            assert dropped == 44

    async def test_when_closed(self, short_path):
        """A watcher that goes is forgotten, once; offering to it afterwards is no error."""
        closed = []

        def handle(connection, method, arguments):
            connection.when_closed = lambda: closed.append(connection)
            return OK

        async with serving(short_path, handle) as served:
            async with connected(served) as client:
                await client.ask("watch")
            await until(lambda: closed)
            [connection] = closed
            connection.offer(None, notice(1))
            await asyncio.sleep(0)
            assert closed == [connection]

    async def test_when_closed_breaks(self, short_path):
        """A defect there is logged."""

        def handle(connection, method, arguments):
            connection.when_closed = lambda: 1 / 0
            return OK

        async with serving(short_path, handle) as served:
            async with connected(served) as client:
                await client.ask("watch")
            await until(lambda: served.logged)
            assert served.logged[0][1]["kind"] == "ZeroDivisionError"

    async def test_watching_half(self, short_path):
        """A watcher that ended its own half of the connection is told on."""

        def handle(connection, method, arguments):
            connection.when_closed = lambda: None
            return OK

        async with serving(short_path, handle) as served, connected(served) as client:
            await client.ask("watch")
            await client.stream.send_eof()
            [connection] = served.joined
            await until(lambda: connection._session.finished)
            connection.offer(None, notice(1))
            assert await client.receive() == [2, "notice", [{"n": 1}]]


async def test_what_is_asked_of_the_daemon_itself_is_carried_to_its_end(short_path):
    """The command line goes in the middle of a login: its code is used up, so it is finished."""
    done = []

    async def work(name) -> bytes:
        try:
            await asyncio.sleep(0.05)
            done.append(name)
        except asyncio.CancelledError:
            done.append("cancelled")
            raise
        return OK

    async with serving(short_path, lambda connection, method, arguments: work(method)) as served:
        async with connected(served) as client:
            await client.send(
                wire.request(1, "login_finish", {"login_id": "a", "redirect_url": "b"}),
                wire.request(2, "token"),
            )
            await asyncio.sleep(0.01)
        await until(lambda: len(done) == 2)
    assert done == ["cancelled", "login_finish"]
