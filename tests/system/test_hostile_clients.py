"""Clients that are broken or mean harm, at the real daemon: each costs its own connection at most.

A good client is beside them all the while and keeps getting its token, on the connection that it has
and on new ones. How fast, is measured by ``tests/bench/hostile.py``; here is shown that nobody waits
for all that others want.
"""

from __future__ import annotations

import array
import itertools
import os
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import bystander
import pytest
from bystander import Bystander, Impatient, connect, connections, descriptors, until
from daemon_process import DaemonProcess
from fault_matrix import row
from flood import PIPELINES, Flood
from system_calls import open_files

from spotokend import wire
from spotokend.sandbox import Options, Sandbox, ready_configuration, running

KIB = 1024
TOKEN = wire.request(1, "token", {"account": bystander.ACCOUNT})
LONG = 0.1
"""Seconds that half of a good client's waits never take, on a machine that has much else to do, too.
Without a guard each takes as long as the whole work of the others: from 0.4 seconds to many."""

_, MOST_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)
many_files = pytest.mark.skipif(
    MOST_FILES < 2500, reason="the hard limit of open files is too low: ulimit -Hn 4096"
)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A provider."""
    with running(Options(auto_approve=True)) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def configuration(sandbox: Sandbox) -> Iterator[str]:
    """A good configuration, that tells everything in the log."""
    with bystander.folder() as secrets:
        good = ready_configuration(sandbox.url, sandbox.provider.options, folder=str(secrets))
        yield good + '\n[daemon]\nlog_level = "debug"\n'


@pytest.fixture(scope="module")
def running_daemon(configuration: str) -> Iterator[DaemonProcess]:
    """One that runs through all tests of this file, whatever is done to it."""
    with bystander.folder() as path, bystander.started(DaemonProcess(path, configuration)) as one:
        with Bystander(one) as warming_up:
            warming_up.asks(5)
        yield one


@pytest.fixture
def daemon(running_daemon: DaemonProcess) -> Iterator[DaemonProcess]:
    """The same; in the end it has no connection left over, and no defect to tell of."""
    before = descriptors(running_daemon)
    yield running_daemon
    until(lambda: descriptors(running_daemon) <= before)
    assert "Traceback" not in running_daemon.written()
    assert bystander.events(running_daemon, "defect") == []


@pytest.fixture
def impatient(short_path: Path, configuration: str) -> Iterator[DaemonProcess]:
    """A daemon whose deadlines a test can wait for."""
    with bystander.started(Impatient(short_path, configuration)) as one:
        yield one


# --- those who say nothing, or not enough -----------------------------------------------------------


@row(
    "A thousand programs connect and say nothing.",
    "5 KB of memory each, no time, nobody's place.",
)
@many_files
def test_a_thousand_silent_clients_cost_nothing_but_their_place(daemon: DaemonProcess) -> None:
    """5 KB of memory each, no time, and nobody's place: the usual 1024 files would not be enough."""
    with Bystander(daemon) as good:
        good.asks()
        before = bystander.resident(daemon)
        with connections(daemon, 1000):
            until(lambda: descriptors(daemon) > 1000)
            assert bystander.resident(daemon) - before < 1000 * 5 * KIB
            assert good.asks() < LONG
            until(lambda: bystander.at_rest(daemon))


@row(
    "Two thousand connect and ask at once.",
    "All are served.",
)
@many_files
def test_two_thousand_at_once_are_all_served(daemon: DaemonProcess) -> None:
    """They connect and ask without waiting for each other; none is turned away."""
    with Bystander(daemon) as good, connections(daemon, 2000) as clients:
        for client in clients:
            client.sendall(TOKEN)
        assert good.asks(10) < LONG
        replies = {str(bystander.messages(client, 1)) for client in clients}
    assert len(replies) == 1


def test_clients_that_come_and_go_without_a_pause(daemon: DaemonProcess) -> None:
    """Taking them in is done in small portions."""
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(daemon.socket))

    with Bystander(daemon) as good:
        crowd = threading.Thread(target=come_and_go)
        crowd.start()
        try:
            assert good.asks(100) < LONG
        finally:
            stop.set()
            crowd.join()


@row(
    "Half a message, and a byte of it now and then.",
    "That connection is ended after 10 s; whole messages before it were answered.",
)
def test_half_a_message_has_its_time_however_its_bytes_drip(impatient: DaemonProcess) -> None:
    """A byte each now and then is no message; whole ones from the same hand were answered."""
    request = wire.request(2, "token", {"account": bystander.ACCOUNT, "a": "x" * 60_000})
    with Bystander(impatient) as good, connections(impatient, 60) as clients:
        began = time.monotonic()
        for number, client in enumerate(clients):
            # Some are at the first byte, some in the midst of what is too long to be built in vain.
            client.sendall(TOKEN + request[: 1 + number % 2 * 4500])
            assert bystander.messages(client, 1)[0][1:3] == [1, None]
        dripping = {client: 1 + number % 2 * 4500 for number, client in enumerate(clients)}
        first = None
        while dripping:
            for client, at in list(dripping.items()):
                try:
                    client.sendall(request[at : at + 1])
                    dripping[client] = at + 1
                except BrokenPipeError:
                    del dripping[client]
                    first = first or time.monotonic() - began
            good.asks(1)
            assert time.monotonic() - began < bystander.PATIENCE
        assert first is not None
        assert first > 1.0
        good.asks()
    ended = bystander.events(impatient, "a connection was ended")
    assert {line["words"] for line in ended} == {"half a message, and no more"}


# --- those who ask and don't read -------------------------------------------------------------------

DEAF: dict[str, tuple[str, dict[str, object]]] = {
    "status": ("status", {}),
    "watch with tokens": ("watch", {"tokens": True}),
    "token": ("token", {"account": bystander.ACCOUNT}),
    "nonsense": ("nonsense", {}),
}


@row(
    "One asks and does not read.",
    "It is read no further: 150 KB at most, and no time. Once it reads it is answered on, in order; after 30 s without reading anything it is sent away.",
)
@pytest.mark.parametrize(("method", "arguments"), DEAF.values(), ids=DEAF)
def test_who_does_not_read_is_read_no_further_and_may_go_on(
    method: str, arguments: dict[str, object], daemon: DaemonProcess
) -> None:
    """150 KB each, and no time; once it reads it is answered on, in order."""
    requests = [wire.request(number, method, arguments) for number in range(0x100, 0x8000)]
    size = len(requests[0])
    with Bystander(daemon) as good:
        good.asks()
        before = bystander.resident(daemon)
        with connections(daemon, 10) as clients:
            taken = bystander.fill(clients, b"".join(requests))
            assert good.asks() < LONG
            until(lambda: bystander.at_rest(daemon))
            assert bystander.resident(daemon) - before < 10 * 150 * KIB
            assert max(bystander.fill(clients[1:], TOKEN)) < 4 * KIB  # the kernel's
            answered = [m[1] for m in bystander.messages(clients[0], 400) if m[0] == wire.RESPONSE]
            assert answered == list(range(0x100, 0x100 + len(answered)))
            assert taken[0] // size > len(answered) > 300


def test_who_does_not_read_in_time_is_sent_away(impatient: DaemonProcess) -> None:
    """But not who reads slowly."""
    pipeline = b"".join(wire.request(number, "status") for number in range(0x100, 0x1000))
    with Bystander(impatient) as good, connections(impatient, 20) as clients:
        began = time.monotonic()
        bystander.fill(clients, pipeline)
        *deaf, slow = clients
        all_there = descriptors(impatient)
        while descriptors(impatient) > all_there - len(deaf):
            assert slow.recv(4 * KIB)
            good.asks(1)
            assert time.monotonic() - began < bystander.PATIENCE
        assert time.monotonic() - began > 2.0
        assert slow.recv(4 * KIB)
    ended = bystander.events(impatient, "a connection was ended")
    assert {line["words"] for line in ended} == {"a reply was not read"}


STOPPABLE = """
import socket, sys
from spotokend import wire
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
watch, status = wire.request(0, "watch"), [wire.request(n, "status") for n in range(1, 400)]
client.sendall(watch + b"".join(status))
print("asked", flush=True)
sys.stdin.readline()
decoder = wire.Decoder(message_limit=wire.REPLY_LIMIT)
answered = set()
while len(answered) < 400:
    for message in decoder.feed(client.recv(65536)):
        if message[0] == wire.RESPONSE:
            answered.add(message[1])
print("answered", flush=True)
"""


@row(
    "One is stopped (SIGSTOP) with its buffers full, and goes on.",
    "It misses nothing; nobody waits for it.",
)
def test_a_client_that_is_stopped_keeps_nobody_waiting_and_misses_nothing(
    daemon: DaemonProcess,
) -> None:
    """SIGSTOP with its buffers full; at SIGCONT all it asked for is there."""
    client = subprocess.Popen(
        [sys.executable, "-c", STOPPABLE, str(daemon.socket)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdin is not None
    assert client.stdout is not None
    with Bystander(daemon) as good:
        try:
            assert client.stdout.readline() == "asked\n"
            os.kill(client.pid, signal.SIGSTOP)
            assert good.asks() < LONG
            os.kill(client.pid, signal.SIGCONT)
            client.stdin.write("read\n")
            client.stdin.flush()
            assert client.stdout.readline() == "answered\n"
        finally:
            os.kill(client.pid, signal.SIGCONT)
            client.kill()
            client.communicate()


# --- floods -------------------------------------------------------------------------------------------


@row(
    "A hundred flood without a pause.",
    "Each has its turn; a good one waits for a few answers of theirs, not for all. How much that is: `tests/bench/hostile.py`.",
)
@pytest.mark.parametrize("kind", PIPELINES)
def test_a_hundred_that_flood_and_a_good_client_beside_them(
    kind: str, daemon: DaemonProcess
) -> None:
    """No pipeline ever rests; a good client waits for a few answers of theirs, not for all."""
    with Bystander(daemon) as good:
        good.asks()
        before = bystander.resident(daemon)
        with Flood(daemon.socket, kind):
            assert good.asks(200) < LONG
            assert bystander.resident(daemon) - before < 100 * 150 * KIB
        good.asks()


def test_a_flood_is_served_evenly(daemon: DaemonProcess) -> None:
    """Of a hundred that want without end none gets twice as much as another."""
    with Bystander(daemon) as good, Flood(daemon.socket, "status") as flood:
        began = time.monotonic()
        while time.monotonic() - began < 2.0:
            good.asks(10)
    assert max(flood.read) < 2 * min(flood.read)


# --- those who talk nonsense --------------------------------------------------------------------------

NESTED = {
    "a thousand levels": b"\x91" * KIB,
    "headers of 65,535 elements": b"\xdc\xff\xff" * 341,
    "headers of 64 elements": b"\xdc\x00\x40" * 341,
    "maps of 65,535 entries": b"\xde\xff\xff\x00" * 256,
    "maps in maps": b"\xde\x00\x20\x00" * 256,
    "within a request": b"\x94\x00\x07\xa5token\x91" + b"\x81\xa1a" * 340,
    "63 KiB of empty arrays": b"\xdc\x00\x40" * 2 + (b"\xdc\x00\x40" + b"\x90" * 64) * 63 * 15,
    "63 KiB of numbers": b"\xdc\x00\x40" * 2 + (b"\xdc\x00\x40" + b"\xcd\x01\x01" * 64) * 5 * 63,
}


@row(
    "A kilobyte of MessagePack headers promises 65,535 elements again and again.",
    "What has come is all that it costs; that connection is ended.",
)
@pytest.mark.parametrize("data", NESTED.values(), ids=NESTED)
def test_headers_that_promise_much_cost_the_bytes_that_came(
    data: bytes, daemon: DaemonProcess
) -> None:
    """A kilobyte of them once took 34 MB; here 200 take what they sent, and a little more."""
    with Bystander(daemon) as good:
        good.asks()
        bystander.forget_peak(daemon)
        before = bystander.resident(daemon)
        with connections(daemon, 200) as clients:
            for client in clients:
                client.sendall(data)
            assert good.asks() < LONG
            grown = bystander.resident(daemon, peak=True) - before
    assert grown < 200 * (len(data) + 10 * KIB) + 12 * KIB * KIB  # building one takes up to 10 MB


@row(
    "Garbage, another protocol, deep nesting.",
    "That connection is ended, with a line in the log.",
)
def test_garbage_ends_its_own_connection(daemon: DaemonProcess) -> None:
    """Whatever the bytes: some are closed at once, some wait for more, nobody else notices."""
    chance = random.Random(4)
    with Bystander(daemon) as good:
        good.asks()
        before = bystander.resident(daemon)
        for _ in range(10):
            with connections(daemon, 50) as clients:
                for client in clients:
                    client.setblocking(False)
                    try:
                        client.send(chance.randbytes(chance.randrange(1, 60_000)))
                    except BrokenPipeError:
                        continue  # it was closed for what had come
                assert good.asks(10) < LONG
        assert bystander.resident(daemon) - before < 8 * KIB * KIB


def absurd(chance: random.Random) -> object:
    """A value that no argument has."""
    values = [
        float("nan"),
        float("-inf"),
        -(2**63),
        2**64 - 1,
        "",
        "\0",
        "é" * chance.randrange(1, 9000),
        "\ud7ff\U0010ffff",
        b"\xff" * chance.randrange(1, 9000),
        [],
        [[]],
        {},
        {"a": {}},
        True,
        None,
        1e308,
        ["x" * 8193],
        "../../etc/passwd",
        "$(reboot)",
        "%s%n{}",
    ]
    return chance.choice(values)


@row(
    "Absurd values as any argument of any method.",
    "An answer says what is wrong; the connection goes on.",
)
def test_absurd_values_are_answered_each(daemon: DaemonProcess) -> None:
    """As any argument of any method: an answer, and the connection goes on."""
    chance = random.Random(5)
    methods = ["hello", "token", "reject", "refresh", "status", "login_start", "login_finish"]
    names = ["account", "min_ttl", "scopes", "generation", "after", "limit", "login_id", "client"]
    with Bystander(daemon) as good, connections(daemon, 4) as clients:
        for number in range(400):
            # Never a call that would do something: one of the values at least is refused.
            arguments = {name: absurd(chance) for name in chance.sample(names, 3)}
            request = wire.request(number, chance.choice(methods), {"account": "", **arguments})
            client = clients[number % 4]
            client.sendall(request)
            [[kind, msgid, error, result]] = bystander.messages(client, 1)
            assert (kind, msgid) == (wire.RESPONSE, number)
            assert (error is None) != (result is None)
            assert error is None or error[0] != "internal"
        good.asks()


# --- those who leave ------------------------------------------------------------------------------------


@row(
    "A connection is reset in the middle of a reply, or its process killed.",
    "That connection is over, and nothing else.",
)
@pytest.mark.parametrize("method", ["token", "status", "watch", "reload"])
def test_a_reset_in_the_middle_of_a_reply(method: str, daemon: DaemonProcess) -> None:
    """SO_LINGER 0, and much of what it asked for unread: no more than one connection's end."""
    data = b"".join(wire.request(number, method, account(method)) for number in range(3000))
    linger = struct.pack("ii", 1, 0)
    with Bystander(daemon) as good:
        for number in range(60):
            client = connect(daemon)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            client.setblocking(False)
            client.send(data)
            client.settimeout(bystander.PATIENCE)
            if number % 3:
                client.recv(100)  # the reply is under way
            client.close()
            good.asks(1)


def account(method: str) -> dict[str, object]:
    """The arguments that a method needs to do its work here."""
    return {"account": bystander.ACCOUNT} if method == "token" else {}


def test_a_process_that_is_killed_with_all_its_connections(daemon: DaemonProcess) -> None:
    """A hundred of them, all under way."""
    program = (
        "import socket, sys, time\nfrom spotokend import wire\nkept = []\n"
        "for number in range(100):\n"
        "    client = socket.socket(socket.AF_UNIX)\n"
        "    client.connect(sys.argv[1])\n"
        "    client.sendall(b''.join(wire.request(n, 'status') for n in range(300)) + b'\\x94')\n"
        "    kept.append(client)\n"
        "print('asked', flush=True)\n"
        "time.sleep(60)\n"
    )
    with Bystander(daemon) as good:
        before = descriptors(daemon)
        crowd = subprocess.Popen(
            [sys.executable, "-c", program, str(daemon.socket)], stdout=subprocess.PIPE
        )
        assert crowd.stdout is not None
        assert crowd.stdout.readline() == b"asked\n"
        crowd.kill()
        crowd.communicate()
        good.asks()
        until(lambda: descriptors(daemon) <= before)


def test_half_closed_connections(daemon: DaemonProcess) -> None:
    """Who ends its half is answered and let go."""
    sent = [b"", TOKEN, wire.request(1, "status") + TOKEN[:-1]]  # half a message is forgotten
    answered: list[list[object]] = [[], [[1, None]], [[1, None]]]
    with Bystander(daemon) as good:
        before = descriptors(daemon)
        with connections(daemon, 150) as clients:
            for number, client in enumerate(clients):
                client.sendall(sent[number % 3])
                client.shutdown(socket.SHUT_WR)
            for number, client in enumerate(clients):
                replies = bystander.messages(client)
                assert [reply[1:3] for reply in replies] == answered[number % 3]
            until(lambda: descriptors(daemon) <= before)
        good.asks()


def test_a_watcher_that_ends_its_half_is_told_on_and_noticed_when_it_goes(
    impatient: DaemonProcess,
) -> None:
    """Nothing can be read of it any more, and perhaps there is nothing to tell it for hours."""
    with Bystander(impatient) as good:
        good.asks()
    before = descriptors(impatient)
    with connections(impatient, 20) as watchers:
        for watcher in watchers:
            watcher.sendall(wire.request(1, "watch"))
            watcher.shutdown(socket.SHUT_WR)
            assert len(bystander.messages(watcher, 1)) == 1
        assert impatient.run("refresh", bystander.ACCOUNT).returncode == 0
        for watcher in watchers:
            while "token" not in {message[1] for message in bystander.messages(watcher, 1)}:
                continue
    until(lambda: descriptors(impatient) <= before)
    with Bystander(impatient) as good:
        good.asks()


@row(
    "One passes file descriptors, or urgent bytes.",
    "They are not taken; the program does not spin.",
)
def test_descriptors_that_a_client_passes_are_not_taken(daemon: DaemonProcess) -> None:
    """SCM_RIGHTS: they are closed by the kernel; the daemon never has them."""
    reading, writing = os.pipe()
    passed = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [reading] * 100))
    try:
        with Bystander(daemon) as good, connections(daemon, 10) as clients:
            good.asks(1)
            before = descriptors(daemon)
            for client in clients:
                for _ in range(5):
                    client.sendmsg([TOKEN], [passed])
                    assert bystander.messages(client, 1)[0][2] is None
            assert descriptors(daemon) <= before
            os.close(reading)
            reading = -1
            with pytest.raises(BrokenPipeError):  # nobody has its other end any more
                os.write(writing, b"x")
    finally:
        for descriptor in (reading, writing):
            if descriptor >= 0:
                os.close(descriptor)


def test_an_urgent_byte_does_not_keep_the_daemon_busy(daemon: DaemonProcess) -> None:
    """MSG_OOB makes a socket readable without anything to read."""
    with Bystander(daemon) as good, connections(daemon, 10) as clients:
        try:
            for client in clients:
                client.send(b"x", socket.MSG_OOB)
        except OSError:
            pytest.skip("this kernel has no urgent bytes on Unix sockets")
        good.asks()
        until(lambda: bystander.at_rest(daemon))


# --- no descriptor left -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "words"),
    [(1, "Too many open files"), (40, "the limit of open files is nearly reached")],
)
@row(
    "No file descriptor is free (EMFILE).",
    "Who is there is served, new ones once there is one again; told once, without spinning.",
)
def test_without_a_free_descriptor_who_is_there_is_served_and_new_ones_when_there_is_one(
    count: int, words: str, short_path: Path, configuration: str
) -> None:
    """EMFILE on the living daemon: told once, no spinning, and over as soon as it can be."""
    with bystander.started(DaemonProcess(short_path, configuration)) as daemon:
        with connections(daemon, count) as [first, *_], Bystander(daemon) as good:
            soft, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
            until(lambda: bystander.at_rest(daemon))  # its own start is over
            taken = set(open_files(daemon.pid))
            free = next(number for number in itertools.count() if str(number) not in taken)
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (free, hard))
            with connections(daemon, 30) as newcomers:
                for client in newcomers:
                    client.sendall(TOKEN)
                until(lambda: bystander.events(daemon, "clients must wait"))
                used = bystander.processor_seconds(daemon)
                for _ in range(20):
                    first.sendall(TOKEN)
                    assert bystander.messages(first, 1)[0][2] is None
                    time.sleep(0.1)
                # Five looks whether there is room, and twenty tokens.
                assert bystander.processor_seconds(daemon) - used < 0.2
                [told] = bystander.events(daemon, "clients must wait")
                assert told["words"] == words
                assert told["level"] == "warning"
                assert f"process {os.getpid()} has {count + 1} of them" in told["hint"]
                for client in newcomers:
                    client.setblocking(False)
                    with pytest.raises(BlockingIOError):
                        client.recv(1)
                resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (soft, hard))
                for client in newcomers:
                    client.settimeout(bystander.PATIENCE)
                    assert bystander.messages(client, 1)[0][2] is None
            good.asks()
        assert len(bystander.events(daemon, "clients must wait")) == 1
