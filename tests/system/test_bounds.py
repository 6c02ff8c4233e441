"""Everything that grows has a bound: each is filled, at the real daemon, and its memory looked at.

Limits of memory are generous: twice to five times what was measured. Without its bound each of these
takes hundreds of megabytes, or grows for as long as one goes on.
"""

from __future__ import annotations

import gzip
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import bystander
import pytest
from bystander import Bystander, connections, until
from daemon_process import DaemonProcess
from fault_matrix import row

import spotokend
from spotokend import wire
from spotokend.rules import gate
from spotokend.rules.schedule import Boot
from spotokend.rules.session import UNREAD_LIMIT
from spotokend.sandbox import Options, Sandbox, ready_configuration, running
from spotokend.service.connection import HALF_MESSAGE_TIMEOUT, UNREAD_TIMEOUT
from spotokend.service.logins import MOST as MOST_LOGINS
from spotokend.service.registry import OUTCOMES_KEPT
from spotokend.service.turns import CARRIED_LIMIT

KIB = 1024
MIB = 1024 * KIB


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A provider."""
    with running(Options(auto_approve=True)) as sandbox:
        yield sandbox


@pytest.fixture
def daemon(sandbox: Sandbox, short_path: Path) -> Iterator[DaemonProcess]:
    """One that may be made to refresh without a pause, and tells everything in its log."""
    good = ready_configuration(sandbox.url, sandbox.provider.options, folder=str(short_path))
    more = '\n[daemon]\nlog_level = "debug"\n[timing]\nforced_interval = 0\n'
    with bystander.started(DaemonProcess(short_path, good + more)) as one:
        with Bystander(one) as warming_up:
            warming_up.asks(5)
        yield one


@contextmanager
def provided_by(port: int, folder: Path, *timing: str) -> Iterator[DaemonProcess]:
    """A daemon whose account has its tokens from a server of the test's own."""
    secret = folder / "secret"
    secret.touch(mode=0o600)
    secret.write_text("secret-1")
    configuration = (
        "\n".join(("[timing]", *timing)) + "\n"
        '[clients.machine]\nclient_id = "1"\nflow = "client_credentials"\n'
        f'client_secret = {{ file = "secret" }}\ntoken_url = "http://127.0.0.1:{port}/token"\n'
    )
    with bystander.started(DaemonProcess(folder, configuration)) as daemon:
        yield daemon


# --- what clients can pile up -------------------------------------------------------------------------


def test_the_deadlines_are_those_of_the_protocol() -> None:
    """The other tests make them shorter."""
    assert (UNREAD_TIMEOUT, HALF_MESSAGE_TIMEOUT, UNREAD_LIMIT) == (30.0, 10.0, 64 * KIB)


@row(
    "Logins are begun again and again, and none finished.",
    "Thirty-two; the next is told when to come back.",
)
def test_logins_under_way(daemon: DaemonProcess) -> None:
    """Thirty-two persons before a browser; one more is told when to come back, and has a place then."""
    scopes = ["x" * 1000 + str(number) for number in range(60)]
    with Bystander(daemon) as good, spotokend.Client(str(daemon.socket)) as client:
        before = bystander.resident(daemon)
        begun: list[Any] = [
            client.call("login_start", account="alice", scopes=scopes) for _ in range(MOST_LOGINS)
        ]
        for _ in range(100):
            with pytest.raises(spotokend.Busy) as refused:
                client.call("login_start", account="alice", scopes=scopes)
        assert refused.value.retry_after == 60.0
        assert bystander.resident(daemon) - before < 12 * MIB  # 64 KiB of scopes, and an URL, each
        client.call("login_cancel", login_id=begun[0]["login_id"])
        client.call("login_start", account="alice")
        good.asks()


@row(
    "A hundred ask for 64 tokens each of a provider that does not answer.",
    "One call each at least, 1024 in all, 64 KiB unread each. Nothing of it stays when they go.",
)
def test_calls_under_way(short_path: Path) -> None:
    """A provider that doesn't answer, and a hundred clients that ask for 64 tokens each, and go.

    Each of them has one call under way at least, all together 1024; and no memory stays.
    """
    pipeline = b"".join(wire.request(number, "token") for number in range(64))
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        with (
            provided_by(deaf.getsockname()[1], short_path) as daemon,
            killed_in_the_end(daemon),
            spotokend.Client(str(daemon.socket)) as good,
        ):
            until(lambda: provider_is_asked(good))
            sizes = [bystander.resident(daemon)]
            for _ in range(3):
                with connections(daemon, 100) as clients:
                    for client in clients:
                        client.sendall(pipeline)
                    assert good.hello()["protocol"] == 1
                    until(lambda: bystander.at_rest(daemon))
                    sizes.append(bystander.resident(daemon))
    assert max(sizes) - sizes[0] < 6 * MIB
    assert sizes[-1] - sizes[1] < 3 * MIB


def provider_is_asked(client: spotokend.Client) -> bool:
    """A refresh of the only account is under way."""
    status: Any = client.status()
    return bool(status["accounts"][0]["state"] == "refreshing")


@contextmanager
def killed_in_the_end(daemon: DaemonProcess) -> Iterator[None]:
    """Told to end, it would wait for the answer."""
    try:
        yield
    finally:
        daemon.kill()


@row(
    "Administrative calls that nobody waits for.",
    "Sixty-four at once are carried to their end; more are told that it is busy.",
)
def test_what_is_carried_to_its_end_when_its_client_goes(daemon: DaemonProcess) -> None:
    """Reloads that nobody waits for: sixty-four at once; who asks for more is told so."""
    pipeline = b"".join(wire.request(number, "reload") for number in range(64))
    with Bystander(daemon) as good:
        with connections(daemon, 10) as clients:
            for client in clients:
                client.sendall(pipeline)
            replies = [reply for client in clients for reply in bystander.messages(client, 64)]
        codes = [error[0] for _, _, error, _ in replies if error is not None]
        assert set(codes) == {"busy"}
        assert len(replies) - len(codes) >= CARRIED_LIMIT
        before = bystander.resident(daemon)
        for _ in range(30):
            with connections(daemon, 10) as clients:
                for client in clients:
                    client.sendall(pipeline)
        good.asks()
        assert bystander.resident(daemon) - before < 8 * MIB
        until(lambda: bystander.at_rest(daemon))
        with spotokend.Client(str(daemon.socket)) as last:
            last.call("reload")


@row(
    "One watches and does not read.",
    "The newest token and state of each account wait, and 256 notices; what was dropped is counted.",
)
def test_a_watcher_that_does_not_read(daemon: DaemonProcess) -> None:
    """Twenty of them while a token is replaced again and again: the newest waits, once."""
    with (
        connections(daemon, 20) as deaf,
        connections(daemon, 1) as [attentive],
        spotokend.Client(str(daemon.socket), account=bystander.ACCOUNT) as client,
    ):
        for watcher in (*deaf, attentive):
            watcher.sendall(wire.request(1, "watch"))
            assert len(bystander.messages(watcher, 1)) == 1
        bystander.fill(deaf, b"".join(wire.request(number, "status") for number in range(4000)))
        until(lambda: bystander.at_rest(daemon))
        before = bystander.resident(daemon)
        for _ in range(60):
            newest = client.refresh()
        assert bystander.resident(daemon) - before < 4 * MIB
        assert tokens_up_to(newest, attentive) == 60
        assert tokens_up_to(newest, deaf[0]) == 1
        story: Any = client.status(bystander.ACCOUNT)
        assert len(story["accounts"][0]["outcomes"]) == OUTCOMES_KEPT


def tokens_up_to(newest: spotokend.Token, watcher: socket.socket) -> int:
    """How many tokens it is told of, up to that one."""
    tokens = 0
    while True:
        for message in bystander.messages(watcher, 1):
            if message[1] == "token":
                tokens += 1
                if message[2][0]["generation"] == newest.generation:
                    return tokens


@row(
    "Programs ask without a pause while there is no token.",
    "They are told when to ask again; nothing of that is kept.",
)
def test_callers_of_an_account_without_a_token_in_an_outage(short_path: Path) -> None:
    """They ask without a pause, and are told when to ask again: nothing of that is kept."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # and nobody listens: refused
        with provided_by(reserved.getsockname()[1], short_path) as daemon:
            stop = threading.Event()

            def ask() -> None:
                with connections(daemon, 20) as clients:
                    for number in itertools.count():
                        for client in clients:
                            client.sendall(wire.request(number, "token"))
                        for client in clients:
                            assert bystander.messages(client, 1)[0][2][0] == "unavailable"
                        if stop.is_set():
                            return

            asking = threading.Thread(target=ask)
            asking.start()
            try:
                until(lambda: len(bystander.events(daemon, "refresh")) > 1)
                before = bystander.resident(daemon)
                time.sleep(2.0)
                assert bystander.resident(daemon) - before < 2 * MIB
            finally:
                stop.set()
                asking.join()


def test_what_an_endpoint_answered_is_remembered_of_so_many_accounts() -> None:
    """The ground on which a refusal is believed: the last ones, one an account."""
    refusals = gate.Refusals()
    for number in range(2000):
        account = f"account-{number % 1500}"
        refusals = gate.note(
            refusals, account=account, refused=True, trouble=False, now=Boot(1000.0)
        )
    assert len(refusals.tried) <= 1000
    assert len({account for _, account, _ in refusals.tried}) == len(refusals.tried)


# --- the log --------------------------------------------------------------------------------------------


@row(
    "Something happens again and again that the log tells.",
    "Ten lines a minute of a kind, then their number.",
)
def test_a_flood_of_bad_clients_is_no_flood_of_lines(daemon: DaemonProcess) -> None:
    """Each reason ten times a minute, and then a count; also where everything is to be told."""
    with Bystander(daemon) as good:
        for _ in range(300):
            with connections(daemon, 1) as [client]:
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                assert bystander.messages(client) == []
        with spotokend.Client(str(daemon.socket)) as reloading:
            for _ in range(50):
                reloading.call("reload")
        good.asks()
    assert daemon.terminate() == 0
    assert len(bystander.events(daemon, "a connection was ended")) == 10
    assert len(bystander.events(daemon, "reloaded")) == 10
    repeated = {
        line["of"]: (line["times"], line["level"]) for line in bystander.events(daemon, "repeated")
    }
    assert repeated["a connection was ended"] == (290, "debug")
    assert repeated["reloaded"] == (40, "info")


def test_clients_that_go_leave_no_words_but_the_log_s(daemon: DaemonProcess) -> None:
    """Nothing of asyncio's own: no traceback of a call that nobody waits for, whose text may quote."""
    calls = [
        wire.request(1, "login_start", {"account": "alice"}),
        wire.request(2, "login_finish", {"login_id": "x", "redirect_url": "http://127.0.0.1/x"}),
        wire.request(3, "logout", {"account": "alice"}),
        wire.request(4, "token", {"account": "alice"}),
        wire.request(5, "refresh", {"account": "alice"}),
        wire.request(6, "reject", {"account": "alice", "generation": 0}),
        wire.request(7, "reload"),
    ]
    with Bystander(daemon) as good:
        for _ in range(20):
            with connections(daemon, 5) as clients:
                for client in clients:
                    client.sendall(b"".join(calls))
        good.asks()
    assert daemon.terminate() == 0
    assert bystander.events(daemon, "defect") == []  # and each line is one of the log's


# --- what the provider can pile up ------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
TOKEN = json.dumps(
    {"access_token": "access-1", "token_type": "Bearer", "expires_in": 3600}
).encode()


def endless(peer: socket.socket) -> None:
    """A body without an end."""
    peer.sendall(HEAD + b"\r\n")
    while True:
        peer.sendall(b" " * 65536)


BOMB = gzip.compress(bytes(32 * MIB))


def bomb(peer: socket.socket) -> None:
    """32 MiB that are 32 KiB on the wire."""
    length = f"Content-Length: {len(BOMB)}\r\n\r\n".encode()
    peer.sendall(HEAD + b"Content-Encoding: gzip\r\n" + length + BOMB)


def bomb_in_a_bomb(peer: socket.socket) -> None:
    """The same, packed once more."""
    body = gzip.compress(BOMB)
    length = f"Content-Length: {len(body)}\r\n\r\n".encode()
    peer.sendall(HEAD + b"Content-Encoding: gzip, gzip\r\n" + length + body)


def endless_headers(peer: socket.socket) -> None:
    """A head without an end."""
    peer.sendall(HEAD)
    while True:
        peer.sendall(b"X-Header: value\r\n" * 1000)


def large_header(peer: socket.socket) -> None:
    """A megabyte in one header."""
    peer.sendall(HEAD + b"X-Header: " + b"x" * 1_000_000 + b"\r\n\r\n" + TOKEN)


def nested(peer: socket.socket) -> None:
    """A megabyte of brackets."""
    body = b"[" * 1_000_000
    peer.sendall(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)


def small_chunks(peer: socket.socket) -> None:
    """Chunks of a byte, as fast as they are taken."""
    peer.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        peer.sendall(b"1\r\n \r\n" * 10_000)


def trickle(peer: socket.socket) -> None:
    """A byte now and then: each is in time."""
    peer.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        peer.sendall(b"1\r\n \r\n")
        time.sleep(0.05)


def trickling_head(peer: socket.socket) -> None:
    """The same within the head."""
    peer.sendall(HEAD)
    while True:
        peer.sendall(b"X")
        time.sleep(0.05)


def never_final(peer: socket.socket) -> None:
    """Interim answers without an end."""
    while True:
        peer.sendall(b"HTTP/1.1 102 Processing\r\n\r\n" * 1000)


ANSWERS = (
    endless,
    bomb,
    bomb_in_a_bomb,
    endless_headers,
    large_header,
    nested,
    small_chunks,
    trickle,
    trickling_head,
    never_final,
)


def a_token(peer: socket.socket) -> None:
    """What ought to come."""
    peer.sendall(HEAD + b"Connection: close\r\n\r\n" + TOKEN)


HURRIED = (
    "answer_timeout = 1.0",
    "forced_interval = 0",
    "backoff_base = 0.05",
    "backoff_cap = 0.05",
)
"""So that one bad answer can be asked for after the other."""


class Provider:
    """Answers each request with what :attr:`answer` sends; a context manager."""

    def __init__(self) -> None:
        self.answer: Callable[[socket.socket], None] = a_token
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]

    def _accept(self) -> None:
        with suppress(OSError):  # the end
            while True:
                peer, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._talk, args=(peer, self.answer)))
                self._threads[-1].start()

    @staticmethod
    def _talk(peer: socket.socket, answer: Callable[[socket.socket], None]) -> None:
        with peer, suppress(OSError):  # the daemon has hung up
            peer.settimeout(bystander.PATIENCE)
            peer.recv(64 * KIB)
            answer(peer)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """Whose answers are what a test wants."""
    with Provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def provided(provider: Provider) -> Iterator[DaemonProcess]:
    """A daemon that has a token of that provider, and everything in memory that it needs to ask."""
    with bystander.folder() as folder, provided_by(provider.port, folder, *HURRIED) as daemon:
        with Bystander(daemon) as warming_up:
            warming_up.asks(5)
        until(lambda: bystander.at_rest(daemon))
        yield daemon


@row(
    "The provider's answer has no end.",
    "It is read to a megabyte, and to its deadline.",
)
@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.__name__)
def test_an_answer_of_the_provider(
    answer: Callable[[socket.socket], None], provider: Provider, provided: DaemonProcess
) -> None:
    """A megabyte and the answer's time bound it; what is stored is served on, meanwhile too."""
    provider.answer = a_token
    until(lambda: isinstance(refreshed(provided), spotokend.Token))
    before = bystander.resident(provided)
    bystander.forget_peak(provided)
    outcomes = []
    asking = threading.Thread(target=lambda: outcomes.append(refreshed(provided)))
    with Bystander(provided) as good:
        provider.answer = answer
        asking.start()
        served = 0
        while asking.is_alive():
            good.asks(1)
            served += 1
        asking.join()
        provider.answer = a_token  # when it asks again by itself
    [error] = outcomes
    assert type(error) is spotokend.Unavailable
    assert bystander.resident(provided, peak=True) - before < 16 * MIB
    if answer in (small_chunks, trickle, trickling_head):
        # All the time for the answer. Not so beside interim answers without an end: httpcore reads
        # on over 64 KiB of them in one turn of the loop.
        assert served >= 5


def refreshed(daemon: DaemonProcess) -> spotokend.Token | spotokend.SpotokendError:
    """What comes of a forced refresh."""
    with spotokend.Client(str(daemon.socket)) as client:
        try:
            return client.refresh(bystander.ACCOUNT)
        except spotokend.SpotokendError as error:
            return error
