"""The real daemon with an authorization server that nobody here wrote, and that forgives nothing.

Its refresh tokens rotate, and one that is presented twice takes its whole family with it: a single
double redemption, or one lost answer, and the account is dead.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgpack
import pytest
from daemon_process import DaemonProcess
from real_servers import AuthorizationServer

import spotokend

SCOPES = ["openid", "user-read-private"]


def configuration(server: AuthorizationServer, folder: Path, *, timing: str = "") -> str:
    """Two clients: ``ada`` uses PKCE, and ``grace`` a secret that stands in a file of its own."""
    secret = folder / "client-secret"
    secret.touch(mode=0o600)
    secret.write_text(f"{server.client_secret}\n")
    endpoints = f"""
        authorize_url = "{server.authorize_url}"
        token_url = "{server.token_url}"
        identity_url = "{server.identity_url}"
        scopes = {SCOPES}
    """
    return f"""
        [clients.public]
        client_id = "public"
        rotation = "auto"
        {endpoints}
        [clients.confidential]
        client_id = "confidential"
        flow = "authorization_code"
        client_secret = {{ file = "{secret}" }}
        rotation = "strict"
        schedule = "on_demand"
        {endpoints}
        [accounts.ada]
        client = "public"
        [accounts.grace]
        client = "confidential"
        [timing]
        {timing}
    """


@pytest.fixture
def daemon(authorization_server: AuthorizationServer, short_path: Path) -> Iterator[DaemonProcess]:
    """A daemon with two accounts, nobody logged in; tokens live for a minute."""
    with DaemonProcess(short_path, configuration(authorization_server, short_path)) as daemon:
        yield daemon


@contextmanager
def login(daemon: DaemonProcess, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``spotokend login`` under way, and the address that it wants the user's browser to open."""
    with subprocess.Popen(
        [sys.executable, "-m", "spotokend", "login", *arguments, "--no-browser"],
        env=daemon.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process, process.stdout.readline().rstrip("\n")
        finally:
            process.kill()


def log_in_at_the_terminal(daemon: DaemonProcess, server: AuthorizationServer, user: str) -> str:
    """Log ``user`` in to the account of the same name by pasting; what was said in the end."""
    with login(daemon, user, "--paste") as (process, url):
        said = process.communicate(server.log_in(f"{url}&login_hint={user}") + "\n", timeout=30)[1]
    assert process.returncode == 0, said + daemon.written()
    return said


def whoami(server: AuthorizationServer, access_token: str) -> str:
    """Whose token it is, by the server's own word."""
    answer = httpx.get(
        server.identity_url,
        headers={"Authorization": f"Bearer {access_token}"},
        trust_env=False,
    )
    return answer.raise_for_status().json()["sub"]


@pytest.mark.parametrize("account", ["ada", "grace"])
def test_a_login_comes_home_to_the_loopback_listener(
    daemon: DaemonProcess, authorization_server: AuthorizationServer, account: str
):
    """With PKCE and with a secret: the browser ends on a page without the code, the token works."""
    with login(daemon, account) as (process, url):
        redirect = authorization_server.log_in(f"{url}&login_hint={account}")
        page = httpx.get(redirect, follow_redirects=True, trust_env=False)
        said = process.communicate(timeout=30)[1]

    assert process.returncode == 0, said
    assert f"Logged in {account} as {account} (scopes openid user-read-private)." in said
    assert (page.status_code, page.url.query) == (200, b"")
    assert f"Logged in as {account}, account {account}." in page.text
    token = daemon.run("token", account).stdout.rstrip("\n")
    assert whoami(authorization_server, token) == account
    counters = authorization_server.counters()
    assert (counters["token_requests"], counters["codes_redeemed"]) == (1, 1)


@pytest.mark.parametrize("account", ["ada", "grace"])
def test_a_login_comes_home_by_pasting_the_address(
    daemon: DaemonProcess, authorization_server: AuthorizationServer, account: str
):
    """Nobody listens: the address that the browser ended on arrives on standard input."""
    said = log_in_at_the_terminal(daemon, authorization_server, account)

    assert f"Logged in {account} as {account}" in said
    token = daemon.run("token", account).stdout.rstrip("\n")
    assert whoami(authorization_server, token) == account


def test_another_user_is_refused_with_the_cure_and_the_old_grant_goes_on(
    daemon: DaemonProcess, authorization_server: AuthorizationServer
):
    """The wrong person at the browser costs nothing: ada's account stays ada's, and refreshes."""
    log_in_at_the_terminal(daemon, authorization_server, "ada")

    with login(daemon, "ada") as (process, url):
        redirect = authorization_server.log_in(f"{url}&login_hint=eve")
        page = httpx.get(redirect, follow_redirects=True, trust_env=False)
        said = process.communicate(timeout=30)[1]

    assert process.returncode == spotokend.Forbidden.exit_status
    assert "ada belongs to user ada, and eve (eve) logged in" in said
    assert "spotokend logout ada" in said
    assert (page.status_code, page.url.query) == (409, b"")
    assert "The login that was there before is unchanged." in page.text
    refreshed = daemon.run("refresh", "ada")
    assert refreshed.returncode == 0, refreshed.stderr
    with spotokend.Client(daemon.socket) as client:
        token = client.token("ada")
    assert token.generation == 2
    assert whoami(authorization_server, token.access_token) == "ada"
    counters = authorization_server.counters()
    assert (counters["codes_redeemed"], counters["refreshes"], counters["refused"]) == (2, 1, 0)


@pytest.mark.parametrize("account", ["ada", "grace"])
def test_after_a_kill_the_next_token_comes_without_a_request(
    daemon: DaemonProcess, authorization_server: AuthorizationServer, account: str
):
    """SIGKILL while no refresh is in flight: the stored token is served, and the grant goes on."""
    log_in_at_the_terminal(daemon, authorization_server, account)
    with spotokend.Client(daemon.socket) as client:
        before = client.refresh(account)
        assert client.status(account)["accounts"][0]["state"] == "fresh"
    made = authorization_server.counters()

    assert daemon.kill() == -9
    daemon.start()
    with spotokend.Client(daemon.socket) as client:
        after = client.token(account)
        assert after.access_token == before.access_token
        assert after.expires_boot == before.expires_boot
        assert authorization_server.counters() == made
        assert client.refresh(account).generation == before.generation + 1

    assert daemon.terminate() == 0
    counters = authorization_server.counters()
    assert counters["refreshes"] == made["refreshes"] + 1
    assert (counters["refused"], counters["double_redemptions"]) == (0, 0)


LIFE = 2
"""Seconds. The server counts in whole ones."""
MIN_TTLS = (0.0, 0.5, LIFE / 2)
"""What is asked for in turn; the last is the most that is allowed, and makes the daemon hurry."""
REFRESHES = 50


class Program:
    """What one program asks for, and what it makes of the answers."""

    def __init__(self, first: dict[str, int]) -> None:
        """``first``: the generation of each account at the start."""
        self.requests = 0
        self._generations = dict(first)
        self._goal = {account: generation + REFRESHES for account, generation in first.items()}
        self._asked_at = 0.0
        self._min_ttl = 0.0

    def questions(self) -> Iterator[tuple[str, float]]:
        """Account and ``min_ttl``, until every account has been refreshed often enough."""
        for account, min_ttl in itertools.cycle(itertools.product(self._goal, MIN_TTLS)):
            if all(self._generations[name] >= goal for name, goal in self._goal.items()):
                return
            self._min_ttl = min_ttl
            self._asked_at = time.clock_gettime(time.CLOCK_BOOTTIME)
            yield account, min_ttl

    def received(self, account: str, token: spotokend.Token) -> None:
        """The daemon's answer: long enough a life, and never an older token than the last."""
        self.requests += 1
        self.served(account, token)
        assert token.generation >= self._generations[account]
        self._generations[account] = token.generation

    def served(self, account: str, token: spotokend.Token) -> None:
        """A token from the daemon, or one that a client has kept."""
        assert token.account == account
        # From the question, not from now: what happens between the answer and this line, on a
        # machine that is busy, is not the daemon's doing.
        assert token.expires_boot - self._asked_at >= self._min_ttl


def blocking(path: Path, program: Program) -> None:
    """:class:`spotokend.Client`: the token that it keeps, and then the daemon's."""
    with spotokend.Client(path) as client:
        for account, min_ttl in program.questions():
            program.served(account, client.token(account, min_ttl=min_ttl))
            result = client.call("token", account=account, min_ttl=min_ttl)
            program.received(account, spotokend.Token.from_wire(result))


def asynchronous(path: Path, programs: list[Program]) -> None:
    """Several callers that share one :class:`spotokend.AsyncClient`."""

    async def ask(client: spotokend.AsyncClient, program: Program) -> None:
        for account, min_ttl in program.questions():
            program.served(account, await client.token(account, min_ttl=min_ttl))
            result = await client.call("token", account=account, min_ttl=min_ttl)
            program.received(account, spotokend.Token.from_wire(result))

    async def ask_all() -> None:
        async with spotokend.AsyncClient(path) as client, asyncio.TaskGroup() as tasks:
            for program in programs:
                tasks.create_task(ask(client, program))

    asyncio.run(ask_all())


def raw(path: Path, program: Program) -> None:
    """A program that knows MessagePack-RPC and nothing of ours."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(path))
        answers = msgpack.Unpacker()
        for msgid, (account, min_ttl) in enumerate(program.questions()):
            arguments = {"account": account, "min_ttl": min_ttl}
            connection.sendall(msgpack.packb([0, msgid, "token", [arguments]]))
            while (answer := next(answers, None)) is None:
                answers.feed(connection.recv(4096))
            kind, answered, error, result = answer
            assert (kind, answered, error) == (1, msgid, None)
            program.received(account, spotokend.Token.from_wire(result))


@pytest.mark.timeout(120)
def test_twenty_clients_and_fifty_rotations_lose_nothing(
    authorization_servers: type[AuthorizationServer], short_path: Path
):
    """No failed request, no short token, no double redemption; ``auto`` and ``strict`` alike.

    ada's tokens are refreshed ahead of their end, at the moments at which callers need it, too;
    grace's only because callers need it.
    """
    with authorization_servers(access_token_life=LIFE) as server:
        config = configuration(server, short_path, timing="due_from = 0.3\ndue_to = 0.5")
        with DaemonProcess(short_path, config) as daemon:
            log_in_at_the_terminal(daemon, server, "ada")
            log_in_at_the_terminal(daemon, server, "grace")
            with spotokend.Client(daemon.socket) as client:
                first = {account: client.token(account).generation for account in ("ada", "grace")}
            programs = [Program(first) for _ in range(20)]
            with ThreadPoolExecutor(len(programs)) as pool:
                running = [pool.submit(blocking, daemon.socket, it) for it in programs[:8]]
                running += [pool.submit(raw, daemon.socket, it) for it in programs[8:14]]
                running += [pool.submit(asynchronous, daemon.socket, programs[14:])]
            for program in running:
                program.result()
            counters = server.counters()
            assert counters["refreshes"] >= len(first) * REFRESHES
            assert (counters["refused"], counters["double_redemptions"]) == (0, 0)
            assert min(program.requests for program in programs) >= REFRESHES

            # What is stored is the living end of the family, for the next daemon, too.
            assert daemon.terminate() == 0
            daemon.start()
            for account in first:
                refreshed = daemon.run("refresh", account)
                assert refreshed.returncode == 0, refreshed.stderr
            counters = server.counters()
            assert (counters["refused"], counters["double_redemptions"]) == (0, 0)
