"""The blocking client against a server that follows a script."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from scripted import ScriptedServer, Time, answering, token_map, wait_for

import spotokend
from spotokend import calls, errors, wire
from spotokend import client as client_module
from spotokend.client import Client


@pytest.fixture
def path(short_path):
    return short_path / "s"


@pytest.fixture
def still(monkeypatch):
    """Time stands still for the client, and each nap moves it."""
    clock = Time()
    monkeypatch.setattr(client_module.time, "sleep", clock.sleep)
    monkeypatch.setattr(client_module.time, "monotonic", clock.monotonic)
    return clock


def tokens(asked):
    """A script that hands out a new generation at each request and notes what was asked."""

    def answer(method, arguments):
        asked.append((method, arguments))
        return token_map(len(asked), account=arguments.get("account", "main"))

    return answering(answer)


def cut(talk):
    talk.request()


class TestTokens:
    """token, reject and refresh: what is asked, and what is kept."""

    def test_asks_for_a_token(self, path):
        """A token is asked for with no more arguments than were given."""
        asked = []
        with ScriptedServer(path, tokens(asked)), Client(path) as client:
            token = client.token()

        assert isinstance(token, spotokend.Token)
        assert token.access_token == "access-1"
        assert asked == [("token", {})]

    def test_passes_all_arguments(self, path):
        """Account, min_ttl and scopes reach the daemon, from any kind of iterable."""
        asked = []
        with ScriptedServer(path, tokens(asked)), Client(path) as client:
            client.token("ada", min_ttl=120, scopes=iter(["streaming"]))

        assert asked == [("token", {"account": "ada", "min_ttl": 120, "scopes": ["streaming"]})]

    def test_keeps_a_token(self, path):
        """While it is good enough, the token comes from the process itself."""
        asked = []
        with ScriptedServer(path, tokens(asked)), Client(path) as client:
            first = client.token()
            again = client.token(min_ttl=600, scopes="streaming user-read-email")

            assert again is first
            assert len(asked) == 1

            client.token(min_ttl=3601)
            client.token(scopes=["playlist-read-private"])
            client.token("ada")

        assert len(asked) == 4

    def test_kept_token_needs_no_server(self, path):
        """A kept token is served although the daemon has gone."""
        with ScriptedServer(path, tokens([])) as server, Client(path) as client:
            token = client.token()
            server.stop()

            assert client.token() is token

    def test_kept_until_it_nears_its_end(self, path, monkeypatch):
        """CLOCK_BOOTTIME decides: a moved wall clock changes nothing, a suspend does."""
        asked = []
        with ScriptedServer(path, tokens(asked)), Client(path) as client:
            client.token()
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            monkeypatch.setattr(time, "time", lambda: 0.0)
            assert client.token().generation == 1

            monkeypatch.setattr(time, "clock_gettime", lambda _: now + 3539)
            assert client.token().generation == 1

            monkeypatch.setattr(time, "clock_gettime", lambda _: now + 3541)
            assert client.token().generation == 2

    @pytest.mark.parametrize(
        ("argument", "own", "variable", "expected"),
        [
            ("ada", "bob", "eve", "ada"),
            (None, "bob", "eve", "bob"),
            (None, None, "eve", "eve"),
            (None, None, "", None),
            (None, None, None, None),
        ],
    )
    def test_account(self, path, monkeypatch, argument, own, variable, expected):
        """The call's account, else the client's, else the environment's of now, else nobody's."""
        asked = []
        with ScriptedServer(path, tokens(asked)), Client(path, account=own) as client:
            if variable is not None:
                monkeypatch.setenv("SPOTOKEND_ACCOUNT", variable)
            client.token(argument)
            client.reject(1, argument)
            client.refresh(argument)

        assert [arguments.get("account") for _, arguments in asked] == [expected] * 3

    def test_reject_names_the_generation(self, path):
        """A refused token is reported by account and generation, and its successor is kept."""
        asked = []
        with ScriptedServer(path, tokens(asked)), Client(path) as client:
            refused = client.token("main")
            successor = client.reject(refused)

            assert asked[1:] == [("reject", {"account": "main", "generation": 1})]
            assert successor.generation == 2
            assert client.token("main") is successor

    def test_reject_by_generation(self, path):
        """The number alone is enough; the daemon knows the account."""
        asked = []
        with ScriptedServer(path, tokens(asked)), Client(path) as client:
            client.reject(7)

        assert asked == [("reject", {"generation": 7})]

    def test_reject_drops_even_if_unanswered(self, path):
        """A refused token isn't served again, also when no successor can be had."""

        def answer(method, _):
            if method == "reject":
                raise errors.Busy("three times in an hour", retry_after=60)
            return token_map(1)

        with ScriptedServer(path, answering(answer)), Client(path) as client:
            refused = client.token()
            with pytest.raises(errors.Busy):
                client.reject(refused)

            assert client.token() is not refused

    def test_late_answer_is_not_kept(self, path):
        """An answer that was under way while its token was refused is handed out, not kept."""
        asked, release = threading.Event(), threading.Event()

        def late(talk):
            msgid, _, _ = talk.request()
            asked.set()
            wait_for(release)
            talk.result(msgid, token_map(1))
            talk.until_closed()

        with (
            ScriptedServer(path, late, answering(lambda *_: token_map(2))),
            Client(path) as client,
            ThreadPoolExecutor() as threads,
        ):
            first = threads.submit(client.token)
            wait_for(asked)
            client.reject(1)
            release.set()

            assert first.result().generation == 1
            assert client.token().generation == 2

    def test_refresh_replaces_what_was_kept(self, path):
        """After a forced refresh nobody gets the older token."""
        asked = []
        with ScriptedServer(path, tokens(asked)), Client(path) as client:
            client.token()
            fresh = client.refresh()

            assert client.token() is fresh
        assert asked == [("token", {}), ("refresh", {})]

    def test_not_a_token(self, path):
        """A result that is no token comes from something else than spotokend."""
        with (
            ScriptedServer(path, answering(lambda *_: {"access_token": 1})),
            Client(path) as client,
        ):
            with pytest.raises(errors.DaemonNotRunning, match="is not spotokend: a token without"):
                client.token()


class TestOtherCalls:
    """status, hello, call, and errors."""

    def test_status_follows_pages(self, path):
        """All accounts are in one result."""
        asked = []

        def answer(method, arguments):
            asked.append(arguments)
            page = {None: (["a", "b"], "b"), "b": (["c"], "c"), "c": ([], "c")}
            names, following = page[arguments.get("after")]
            return {
                "daemon": {"health": "ok"},
                "accounts": [{"account": name} for name in names],
                "next": following,
            }

        with ScriptedServer(path, answering(answer)), Client(path, account="a") as client:
            status = client.status()

        assert status == {
            "daemon": {"health": "ok"},
            "accounts": [{"account": "a"}, {"account": "b"}, {"account": "c"}],
            "next": None,
        }
        assert asked == [{}, {"after": "b"}, {"after": "c"}]

    def test_status_of_one(self, path):
        """One account is asked for by name."""
        asked = []

        def answer(_, arguments):
            asked.append(arguments)
            return {"accounts": [{"account": "ada"}], "next": None}

        with ScriptedServer(path, answering(answer)), Client(path) as client:
            assert client.status("ada")["accounts"] == [{"account": "ada"}]
        assert asked == [{"account": "ada"}]

    def test_hello(self, path):
        """The client says who it is, and tells what the daemon says."""
        with ScriptedServer(path, answering(lambda *asked: {"asked": list(asked)})) as server:
            with Client(server.path) as client:
                assert client.hello() == {
                    "asked": ["hello", {"client": f"spotokend {spotokend.__version__}"}]
                }

    def test_call(self, path):
        """Any method can be called, also with an argument that is named as one of ours."""
        with ScriptedServer(path, answering(lambda *asked: list(asked))), Client(path) as client:
            assert client.call("logout", account="ada", method="x") == [
                "logout",
                {"account": "ada", "method": "x"},
            ]

    def test_not_a_map(self, path):
        """A status that is no map comes from something else than spotokend."""
        with ScriptedServer(path, answering(lambda *_: 7)), Client(path) as client:
            with pytest.raises(errors.DaemonNotRunning, match="is not spotokend"):
                client.hello()

    def test_errors_keep_the_connection(self, path):
        """A refusal is raised as its class, with its details, and the connection goes on."""

        def answer(*_):
            raise errors.LoginRequired("no grant", hint="spotokend login ada", account="ada")

        with ScriptedServer(path, answering(answer)) as server, Client(path) as client:
            for _ in range(2):
                with pytest.raises(errors.LoginRequired, match="no grant") as caught:
                    client.token()
                assert caught.value.hint == "spotokend login ada"

            assert server.connections == 1

    def test_too_large_a_request(self, path):
        """What the daemon wouldn't read isn't sent."""
        with ScriptedServer(path, answering(lambda *_: 1)), Client(path) as client:
            with pytest.raises(errors.BadRequest, match="at most 65536"):
                client.call("logout", account="a" * 70_000)
            assert client.call("logout") == 1


class TestRestarts:
    """A daemon that comes and goes."""

    def test_restart_is_invisible(self, path, still):
        """A connection that was cut at rest is replaced without a nap or a word."""
        with ScriptedServer(path, answering(lambda *_: 1)) as server, Client(path) as client:
            client.call("hello")
            server.stop()
            server.start()

            assert client.call("hello") == 1
            assert client.call("logout") == 1
        assert still.naps == []

    @pytest.mark.parametrize("part", [b"", b"\x94\x01\x01\xc0"])
    def test_asks_again(self, path, part):
        """A connection that ends before the whole answer costs one more request."""

        def half(talk):
            talk.request()
            talk.send(part)

        with ScriptedServer(path, half, answering(lambda *_: token_map(4))), Client(path) as client:
            assert client.token().generation == 4

    def test_unread_request(self, path):
        """A daemon that is killed with the request unread resets the connection: asked again."""

        def reset(talk):
            talk.socket.recv(1)

        with ScriptedServer(path, reset, answering(lambda *_: 5)), Client(path) as client:
            assert client.call("status") == 5

    def test_waits_for_a_daemon_that_was_there(self, path, still):
        """While a known daemon restarts, its socket may be away for a moment."""
        with ScriptedServer(path, answering(lambda *_: 1)) as server, Client(path) as client:
            client.call("hello")
            server.stop()
            still.after[4] = server.start

            assert client.call("hello") == 1
        assert still.naps == [0.0, 0.01, 0.02, 0.04]

    def test_gives_up_on_a_daemon_that_stays_away(self, path, still):
        """After five seconds the caller is told that nobody listens."""
        with ScriptedServer(path, answering(lambda *_: 1)) as server, Client(path) as client:
            client.call("hello")
            server.stop()
            with pytest.raises(errors.DaemonNotRunning, match="nobody listens on"):
                client.call("hello")

        assert calls.PATIENCE <= sum(still.naps) < calls.PATIENCE + 0.25

    def test_no_nap_beyond_the_time_out(self, path, still):
        """The whole call ends with its time-out, however patient it could be."""
        with ScriptedServer(path, answering(lambda *_: 1)) as server:
            with Client(path, timeout=0.5) as client:
                client.call("hello")
                server.stop()
                with pytest.raises(errors.Unavailable, match=r"within 0\.5 s"):
                    client.call("hello")

        assert sum(still.naps) == pytest.approx(0.5)

    def test_nobody_was_ever_there(self, path, still):
        """Without a daemon the answer comes at once, and says how to start one."""
        with Client(path) as client, pytest.raises(errors.DaemonNotRunning) as caught:
            client.token()

        assert str(path) in caught.value.message
        assert "systemctl --user start spotokend" in caught.value.hint
        assert "spotokend run" in caught.value.hint
        assert caught.value.exit_status == 4
        assert still.naps == []

    def test_ends_each_connection(self, path, still):
        """A daemon that only ever hangs up is told from one that isn't there."""
        with ScriptedServer(path, cut), Client(path) as client:
            with pytest.raises(errors.DaemonNotRunning, match="ends each connection"):
                client.call("hello")

    def test_never_repeats_what_must_not_be(self, path):
        """A login that may have been taken is not sent twice; the words say so."""
        requests = []

        def note(talk):
            requests.append(talk.request()[1])

        with ScriptedServer(path, note), Client(path) as client:
            with pytest.raises(errors.Unavailable, match="login_finish was answered"):
                client.call("login_finish", login_id="x", redirect_url="y")

        assert requests == ["login_finish"]


class TestTrouble:
    """Silence, garbage and interruptions."""

    def test_silence(self, path):
        """No answer within the time-out is Unavailable, and the connection isn't used again."""

        def silent(talk):
            talk.request()
            talk.until_closed()

        with ScriptedServer(path, silent, answering(lambda *_: 2)) as server:
            with Client(path, timeout=0.05) as client:
                with pytest.raises(errors.Unavailable, match=r"status within 0\.05 s"):
                    client.call("status")
                client.timeout = 10
                assert client.call("status") == 2
            assert server.connections == 2

    def test_nobody_reads(self, path):
        """Sending is timed, too: a full socket buffer doesn't hold the caller for ever."""
        done = threading.Event()

        def deaf(_):
            wait_for(done)

        with ScriptedServer(path, deaf), Client(path, timeout=0.05) as client:
            connection = client._open()
            with pytest.raises(TimeoutError):
                connection.send(bytes(2**22), "hello", time.monotonic() + 0.05)
            connection.close()
            done.set()

    @pytest.mark.parametrize(
        "garbage",
        [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\xc1",
            b"\x94\x01\xff\xc0\xc0",
            b"\x94\x00\x01\xa5hello\x90",
            b"\x93\x02\x01\x90",
        ],
    )
    def test_garbage(self, path, garbage):
        """What doesn't speak the protocol is named, with the place."""

        def script(talk):
            talk.request()
            talk.send(garbage)
            talk.until_closed()

        with ScriptedServer(path, script), Client(path) as client:
            with pytest.raises(errors.DaemonNotRunning) as caught:
                client.call("hello")

        assert f"what answers on {path} is not spotokend" in caught.value.message

    @pytest.mark.parametrize("garbage", [b"\xc1", wire.request(1, "hello")])
    def test_garbage_behind_the_answer(self, path, garbage):
        """The answer that came is good; the connection isn't used again."""

        def script(talk):
            msgid, _, _ = talk.request()
            talk.send(wire.result_response(msgid, wire.pack({"a": talk.number})) + garbage)
            talk.until_closed()

        with ScriptedServer(path, script) as server, Client(path) as client:
            assert [client.hello(), client.hello()] == [{"a": 1}, {"a": 2}]
            assert server.connections == 2

    def test_byte_by_byte(self, path):
        """An answer in many small parts, after notifications that nobody asked for, is one answer."""

        def dribble(talk):
            msgid, _, _ = talk.request()
            talk.notify("notice", {"kind": "x"})
            for byte in wire.result_response(msgid, wire.pack({"a": "b"})):
                talk.send(bytes([byte]))
            talk.until_closed()

        with ScriptedServer(path, dribble), Client(path) as client:
            assert client.hello() == {"a": "b"}

    def test_unasked_bytes_at_rest(self, path):
        """A connection on which something came while it rested isn't used again."""
        resting, sent = threading.Event(), threading.Event()

        def chatty(talk):
            msgid, _, _ = talk.request()
            talk.result(msgid, 1)
            wait_for(resting)
            talk.notify("notice", {})
            sent.set()
            talk.until_closed()

        with ScriptedServer(path, chatty, answering(lambda *_: 2)), Client(path) as client:
            assert client.call("hello") == 1
            resting.set()
            wait_for(sent)
            assert client.call("hello") == 2

    def test_interrupt(self, path, monkeypatch):
        """Ctrl-C in the middle of a call ends a connection on which its answer may still come."""
        ended = threading.Event()

        def unanswered(talk):
            talk.until_closed()
            ended.set()

        with ScriptedServer(path, unanswered, answering(lambda *_: 3)), Client(path) as client:
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as caught:
                patch.setattr(client_module._Connection, "receive", interrupt)
                client.call("hello")
            wait_for(ended)
            del caught  # held till here: its traceback would keep an open connection alive

            assert client.call("hello") == 3

    def test_signal_while_waiting(self, path):
        """A signal that the program handles doesn't end a call (PEP 475)."""
        handled = threading.Event()

        def disturb(talk):
            msgid, _, _ = talk.request()
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
            wait_for(handled)
            talk.result(msgid, 1)
            talk.until_closed()

        before = signal.signal(signal.SIGUSR1, lambda *_: handled.set())
        try:
            with ScriptedServer(path, disturb), Client(path) as client:
                assert client.call("hello") == 1
        finally:
            signal.signal(signal.SIGUSR1, before)

    def test_no_signal(self, path):
        """Writing to a daemon that has gone raises no SIGPIPE, whatever the program made of it."""
        signals = []
        before = signal.signal(signal.SIGPIPE, lambda *_: signals.append(1))
        try:
            with ScriptedServer(path, answering(lambda *_: 1)) as server, Client(path) as client:
                connection = client._open()
                server.stop()
                with pytest.raises(calls.Lost):
                    connection.exchange("hello", {}, time.monotonic() + 5)
        finally:
            signal.signal(signal.SIGPIPE, before)
        assert signals == []


def interrupt(*_):
    raise KeyboardInterrupt


class TestThreads:
    """Many threads, one client."""

    def test_slow_call_blocks_nobody(self, path):
        """While one thread waits for a refresh, the others are answered."""
        asked, release = threading.Event(), threading.Event()

        def slow(talk):
            msgid, _, _ = talk.request()
            asked.set()
            wait_for(release)
            talk.result(msgid, "slow")
            talk.until_closed()

        with (
            ScriptedServer(path, slow, answering(lambda *_: "quick")),
            Client(path) as client,
            ThreadPoolExecutor() as threads,
        ):
            waiting = threads.submit(client.call, "refresh")
            wait_for(asked)
            assert [client.call("hello") for _ in range(3)] == ["quick"] * 3
            release.set()
            assert waiting.result() == "slow"

    def test_each_gets_its_own_answer(self, path):
        """No answer reaches another thread's call; few connections are kept."""
        with ScriptedServer(path, answering(lambda _, asked: asked["n"])) as server:
            with Client(path) as client, ThreadPoolExecutor(8) as threads:
                numbers = list(range(400))
                assert list(threads.map(lambda n: client.call("x", n=n), numbers)) == numbers
                assert len(client._idle) <= client_module.IDLE_LIMIT
            assert server.connections <= 400

    def test_few_at_rest(self, path):
        """Connections beyond the limit are closed after use."""
        together = threading.Barrier(6)

        def meet(method, _):
            together.wait(10)
            return method

        with ScriptedServer(path, answering(meet)) as server, Client(path) as client:
            with ThreadPoolExecutor(6) as threads:
                list(threads.map(client.call, ["x"] * 6))
            assert server.connections == 6
            assert len(client._idle) == client_module.IDLE_LIMIT

    def test_parents_connection_is_left_alone(self, path, monkeypatch):
        """After a fork the child opens a connection of its own."""
        with ScriptedServer(path, answering(lambda *_: 1)) as server, Client(path) as client:
            client.call("hello")
            inherited = client._open()
            monkeypatch.setattr(os, "getpid", lambda: -1)
            with pytest.raises(calls.Lost):
                inherited.receive("hello", None)
            inherited.close()

            assert client.call("hello") == 1
            assert server.connections == 3

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


FORK = """
import os, sys
from spotokend import Client
client = Client(sys.argv[1])
print(client.call("hello"), flush=True)
pid = os.fork()
if not pid:
    print("child", client.call("hello"), flush=True)
    sys.exit()
os.waitpid(pid, 0)
print("parent", client.call("hello"))
"""


class TestWatch:
    """Events."""

    def test_events(self, path):
        """What is comes first, then what happens, in its order, however the bytes were cut."""

        def script(talk):
            msgid, method, arguments = talk.request()
            assert (method, arguments) == ("watch", {"accounts": ["a"], "tokens": True})
            answer = wire.result_response(
                msgid, wire.pack({"accounts": [{"account": "a"}], "tokens": [{"generation": 1}]})
            )
            first = wire.notification("notice", {"kind": "x"})
            second = wire.notification("token", {"generation": 2})
            talk.send(answer + first + second[:5])
            talk.send(second[5:])
            talk.until_closed()

        with ScriptedServer(path, script), Client(path) as client:
            events = client.watch(iter(["a"]))

            assert [next(events) for _ in range(4)] == [
                ("state", {"account": "a"}),
                ("token", {"generation": 1}),
                ("notice", {"kind": "x"}),
                ("token", {"generation": 2}),
            ]
            events.close()
            assert client._watching == set()

    def test_restart(self, path, still):
        """A restart is told as ``resync``, and then all that is."""

        def watched(*events):
            def script(talk):
                msgid, _, arguments = talk.request()
                assert arguments == {"tokens": False}
                talk.result(msgid, {"accounts": [{"n": talk.number}], "tokens": []})
                for event in events:
                    talk.notify("state", event)

            return script

        with ScriptedServer(path, watched({"n": 1.5}), cut, watched()), Client(path) as client:
            events = client.watch(tokens=False)

            assert [next(events) for _ in range(4)] == [
                ("state", {"n": 1}),
                ("state", {"n": 1.5}),
                ("resync", {"dropped": None}),
                ("state", {"n": 3}),
            ]
            events.close()

    def test_gives_up(self, path, still):
        """A daemon that stays away ends the watch with the usual error."""
        with ScriptedServer(path, cut), Client(path) as client:
            with pytest.raises(errors.DaemonNotRunning, match="ends each connection"):
                next(client.watch())

    def test_close_ends_it(self, path):
        """Closing the client from another thread ends a watch that waits."""
        watching = threading.Event()

        def script(talk):
            talk.result(talk.request()[0], {"accounts": [], "tokens": []})
            talk.notify("state", {})
            watching.set()
            talk.until_closed()

        with ScriptedServer(path, script), ThreadPoolExecutor() as threads:
            client = Client(path)
            events = client.watch()
            assert next(events) == ("state", {})
            rest = threads.submit(list, events)
            wait_for(watching)
            client.close()

            assert rest.result(10) == []

    def test_refusal(self, path):
        """The daemon's refusal is raised."""

        def answer(*_):
            raise errors.Forbidden("not you")

        with ScriptedServer(path, answering(answer)), Client(path) as client:
            with pytest.raises(errors.Forbidden):
                next(client.watch())

    def test_half_a_message(self, path):
        """Between events it waits for ever; within one it doesn't."""

        def script(talk):
            talk.result(talk.request()[0], {"accounts": [], "tokens": []})
            talk.send(b"\x93\x02")
            talk.until_closed()

        with ScriptedServer(path, script), Client(path, timeout=0.05) as client:
            with pytest.raises(errors.Unavailable, match="watch within"):
                next(client.watch())


class TestLife:
    """Opening, closing, importing."""

    def test_closed(self, path):
        """A closed client says so, to the programmer; closing twice is fine."""
        with ScriptedServer(path, answering(lambda *_: token_map())), Client(path) as client:
            client.token()
            client.close()
            with pytest.raises(RuntimeError, match=r"spotokend\.Client is closed"):
                client.token()
            assert list(client.watch()) == []

    def test_call_under_way_at_close(self, path):
        """A call that is under way when the client is closed is answered, and leaves nothing open."""
        asked, release = threading.Event(), threading.Event()

        def slow(talk):
            msgid, _, _ = talk.request()
            asked.set()
            wait_for(release)
            talk.result(msgid, 1)
            talk.until_closed()

        with ScriptedServer(path, slow), ThreadPoolExecutor() as threads:
            client = Client(path)
            waiting = threads.submit(client.call, "hello")
            wait_for(asked)
            client.close()
            release.set()

            assert waiting.result() == 1
            assert client._idle == []

    def test_wake_of_a_closed_connection(self, path):
        """A watch that ends by itself while the client is closed is no error."""
        with ScriptedServer(path, answering(lambda *_: 1)), Client(path) as client:
            connection = client._open()
            connection.close()
            assert not connection.at_rest()
            connection.wake()

    def test_dropped_without_close(self, path):
        """``Client().token()`` warns of nothing."""
        with ScriptedServer(path, answering(lambda *_: token_map())):
            assert Client(path).token().generation == 1
            gc.collect()

    def test_usual_place(self, monkeypatch, short_path):
        """Without a path it is the environment's."""
        monkeypatch.setenv("SPOTOKEND_SOCK", str(short_path / "other"))
        with ScriptedServer(short_path / "other", answering(lambda *_: 1)), Client() as client:
            assert client.call("hello") == 1

    def test_past_deadline(self):
        """A deadline that has passed is a time-out, and never "don't block"."""
        with pytest.raises(TimeoutError):
            client_module._left(time.monotonic() - 1)

    def test_imports(self):
        """A client brings msgpack and a few small modules; nothing that costs its program time."""
        brought = subprocess.run(
            [sys.executable, "-I", "-c", IMPORTS],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout.split()

        heavy = {
            "argparse",
            "asyncio",
            "dataclasses",
            "httpx",
            "json",
            "logging",
            "pathlib",
            "re",
            "ssl",
            "structlog",
            "subprocess",
            "threading",
            "typing",
        }
        assert heavy.intersection(brought) == set()
        assert {name for name in brought if name.startswith("spotokend")} == {
            "spotokend",
            "spotokend.calls",
            "spotokend.client",
            "spotokend.errors",
            "spotokend.paths",
            "spotokend.token",
            "spotokend.wire",
        }


IMPORTS = """
import sys
before = set(sys.modules)
import spotokend
spotokend.Client
print(*sorted(set(sys.modules) - before))
"""
