"""One client of the server, on a real socket: it may do what it likes to itself."""

from __future__ import annotations

import asyncio
import gc
import json
import socket

import anyio
import pytest
from served import OK, PATIENCE, Served, at_once, connected, serving, until

from spotokend import wire
from spotokend.adapters.peercred import Peer
from spotokend.errors import Busy
from spotokend.rules.session import NOTICE_LIMIT, UNANSWERED_LIMIT, Session
from spotokend.service import turns as turns_module
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
            [(event, fields)] = served.logged
            assert (event, fields["count"]) == ("notifications were ignored", 3)


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

    async def test_trickle_of_a_large_message(self):
        """The same for one that waits for its turn with each byte; its last byte saves it."""
        pipe = Pipe()
        connection = on_pipe(pipe, at_once)
        data = wire.request(1, "token", {"a": "x" * 6000})
        send(connection, data[:4000])
        await asyncio.sleep(0)
        timer = connection._half_timer
        assert timer is not None
        for n in range(4000, 4010):
            send(connection, data[n : n + 1])
            await asyncio.sleep(0)
            assert connection._half_timer is timer
        send(connection, data[4010:])
        timer._run()
        assert pipe.answered == [1]
        assert not pipe.closing
        await asyncio.sleep(0)
        assert connection._half_timer is None

    async def test_half_behind_a_whole(self):
        """The time of the second half message is its own, also where the first was late."""
        pipe = Pipe()
        connection = on_pipe(pipe, at_once)
        data = wire.request(1, "token", {"a": "x" * 2000})
        send(connection, data[:1500])
        await asyncio.sleep(0)
        connection._half_timer._run()
        assert pipe.closing
        pipe.closing = False
        send(connection, data[1500:] + data[:1500])
        connection._check_half_message()
        assert pipe.answered == [1]
        await asyncio.sleep(0)
        assert not pipe.closing
        connection._half_timer._run()
        assert pipe.closing

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
        self.reading = True
        self.written = b""

    def write(self, data):
        self.unsent += len(data)
        self.written += data

    def get_write_buffer_size(self):
        return self.unsent

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def is_closing(self):
        return self.closing

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def abort(self):
        self.closing = True

    close = abort

    @property
    def answered(self):
        """The msgids of the replies."""
        return [message[1] for message in wire.Decoder().feed(self.written)]


def on_pipe(transport, handle, beside=None, **timeouts):
    """A connection without a server; perhaps of one together with another."""
    served = Served("", handle)
    timeouts = {"unread_timeout": 3600.0, "half_message_timeout": 3600.0} | timeouts
    shared = beside._shared if beside else Shared(served, log=served._log, **timeouts)
    connection = Connection(shared, Peer(1, 2, 3), None)
    connection.connection_made(transport)
    return connection


def send(connection, data):
    """As the transport does it."""
    connection.get_buffer(-1)[: len(data)] = data
    connection.buffer_updated(len(data))


class TestTurns:
    """However much one wants, the others come in between."""

    PIPELINE = b"".join(wire.request(msgid, "token") for msgid in range(1000, 2000))

    async def test_beside_a_flood(self):
        """Who asks once is answered in the same turn of the loop, before what others want besides."""
        pipes = [Pipe() for _ in range(4)]
        first = on_pipe(pipes[0], at_once)
        floods = [first, *(on_pipe(pipe, at_once, beside=first) for pipe in pipes[1:3])]
        for flood in floods:
            send(flood, self.PIPELINE)
        good = on_pipe(pipes[3], at_once, beside=first)
        send(good, wire.request(1, "token"))
        assert [len(pipe.answered) for pipe in pipes] == [0, 0, 0, 1]
        for counts in ([32, 0, 0], [32, 32, 0], [32, 32, 32], [64, 32, 32]):
            await asyncio.sleep(0)
            assert [len(pipe.answered) for pipe in pipes[:3]] == counts
        assert [pipe.reading for pipe in pipes] == [False, False, False, True]
        await until(lambda: all(pipe.reading for pipe in pipes))
        assert [len(pipe.answered) for pipe in pipes[:3]] == [1000] * 3

    async def test_the_first_of_some(self):
        """A short pipeline: the first is answered at once, the others in turn, and in order."""
        pipe = Pipe()
        connection = on_pipe(pipe, at_once)
        send(connection, b"".join(wire.request(msgid, "token") for msgid in range(5)))
        assert pipe.answered == [0]
        await asyncio.sleep(0)
        assert pipe.answered == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("bad", [wire.request(1, "nothing"), wire.notification("hi", {})])
    async def test_what_is_refused_ends_the_turn(self, bad):
        """An error costs more than an answer that is ready."""
        pipe = Pipe()
        connection = on_pipe(pipe, at_once)
        send(connection, bad * 3 + wire.request(2, "token"))
        for expected in [False] * 3 + [True]:
            assert (2 in pipe.answered) is expected
            await asyncio.sleep(0)
        assert 2 in pipe.answered

    async def test_a_task_ends_the_turn(self):
        """Calls that need one are begun one a turn, each client's in its turn."""
        slow = Slow()
        pipes = [Pipe(), Pipe()]
        one = on_pipe(pipes[0], slow)
        two = on_pipe(pipes[1], slow, beside=one)
        for connection, name in ((one, "a"), (two, "b")):
            send(
                connection,
                b"".join(wire.request(n, "token", {"account": f"{name}{n}"}) for n in range(3)),
            )
        assert not one._shared.turns.tasks
        for count in range(1, 7):
            await asyncio.sleep(0)
            assert len(one._shared.turns.tasks) == count
        await slow.under_way(6)
        assert list(slow.waiting) == ["a0", "b0", "a1", "b1", "a2", "b2"]
        for connection in (one, two):
            connection.connection_lost(None)
        await until(lambda: slow.cancelled == 6)

    async def test_in_a_crowd(self, monkeypatch):
        """Each client has one call under way, and the next one when that is answered."""
        monkeypatch.setattr(turns_module, "CROWD", 2)
        slow = Slow()
        pipes = [Pipe(), Pipe(), Pipe()]
        one = on_pipe(pipes[0], slow)
        others = [on_pipe(pipe, slow, beside=one) for pipe in pipes[1:]]
        for connection, name in zip((one, *others), "abc", strict=True):
            send(
                connection,
                b"".join(wire.request(n, "token", {"account": f"{name}{n}"}) for n in range(3)),
            )
        await slow.under_way(3)
        for _ in range(10):
            await asyncio.sleep(0)
        assert list(slow.waiting) == ["a0", "b0", "c0"]
        assert not one._shared.turns._line, "nobody waits for a turn that would come to nothing"
        slow.waiting["b0"].set_result(OK)
        await until(lambda: "b1" in slow.waiting)
        assert list(slow.waiting) == ["a0", "c0", "b1"]
        while slow.waiting:
            for answer in list(slow.waiting.values()):
                answer.set_result(OK)
            await until(lambda: not any(answer.done() for answer in slow.waiting.values()))
            for _ in range(10):
                await asyncio.sleep(0)
        assert [sorted(pipe.answered) for pipe in pipes] == [[0, 1, 2]] * 3

    async def test_too_much_is_carried(self, monkeypatch):
        """Who asks for one more login or reload than is bearable is told so, and may go on."""
        monkeypatch.setattr(turns_module, "CARRIED_LIMIT", 1)
        slow = Slow()
        pipe = Pipe()
        connection = on_pipe(pipe, slow)
        send(connection, wire.request(1, "reload") + wire.request(2, "reload"))
        await until(lambda: pipe.answered)
        [[_, msgid, [code, _, _], _]] = wire.Decoder().feed(pipe.written)
        assert (msgid, code) == (2, "busy")
        slow.waiting["main"].set_result(OK)
        await until(lambda: pipe.answered == [2, 1])

    async def test_dismissed_before_its_turn(self):
        """A call that waits for its turn when the server ends is answered, and not begun."""
        pipe = Pipe()
        slow = Slow()
        connection = on_pipe(pipe, slow)
        send(connection, wire.request(1, "token"))
        connection.dismiss()
        await asyncio.sleep(0)
        [[_, msgid, [code, _, _], _]] = wire.Decoder().feed(pipe.written)
        assert (msgid, code, slow.most, pipe.closing) == (1, "unavailable", 0, True)


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
        await asyncio.sleep(0)
        [task] = connection._shared.turns.tasks
        connection.connection_lost(None)
        await asyncio.wait([task])
        gc.collect()
        assert task.cancelled()
        assert not connection._shared.turns.tasks

    async def test_before_its_turn(self):
        """A call that waits for its turn when its client goes is not begun."""
        transport = Pipe()
        slow = Slow()
        connection = on_pipe(transport, slow)
        send(connection, wire.request(1, "token"))
        connection.connection_lost(None)
        transport.closing = True
        await asyncio.sleep(0)
        gc.collect()
        assert slow.most == 0
        assert not connection._shared.turns.tasks

    async def test_answered_too_late(self, short_path):
        """An answer for a client that went in the same moment is dropped."""
        transport = Pipe()
        connection = on_pipe(transport, lambda *_: asyncio.sleep(0, OK))
        send(connection, wire.request(1, "token"))
        await asyncio.sleep(0)
        [task] = connection._shared.turns.tasks
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

    async def test_watching_half_and_gone(self, short_path):
        """One that ended its own half and then goes leaves nothing behind, though nobody tells."""

        def handle(connection, method, arguments):
            connection.when_closed = lambda: None
            return OK

        async with serving(short_path, handle, unread_timeout=0.01) as served:
            async with connected(served) as client:
                await client.ask("watch")
                await client.stream.send_eof()
                [connection] = served.joined
                await until(lambda: connection._hang_up_timer)
                first = connection._hang_up_timer
                await until(lambda: connection._hang_up_timer is not first)
                assert served.server.connections == 1
            await until(lambda: not served.server.connections)


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


async def test_how_a_call_ended_that_nobody_waits_for(short_path, capfd):
    """A refusal is nobody's matter any more, a defect is told: by the log, and by nothing else."""
    went = asyncio.Event()

    async def fail(error) -> bytes:
        await went.wait()
        raise error

    errors = {"logout": Busy("not now"), "reload": ValueError(QUOTING)}
    async with serving(short_path, lambda _c, method, _a: fail(errors[method])) as served:
        async with connected(served) as client:
            await client.send(
                wire.request(1, "logout", {"account": "a"}), wire.request(2, "reload")
            )
            await until(lambda: len(served.server._shared.turns.tasks) == 2)
        await until(lambda: not served.server.connections)
        went.set()
        await until(lambda: not served.server._shared.turns.tasks)
        gc.collect()
    [(event, fields)] = served.logged
    assert (event, fields["what"], fields["kind"]) == ("defect", "reload", "ValueError")
    assert capfd.readouterr().err == ""
