"""What the network does to the real daemon process, and what becomes of the account.

What is expected of each is a row of docs/reliability.md. Most are faults of the line
between daemon and provider (:mod:`network_rows`). Those are all played at the same time, in one
daemon, each with a client, an account and a line of its own: none can be helped or harmed by
another's back-off.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import math
import os
import re
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from daemon_process import DaemonProcess
from fault_matrix import Row
from faulty_line import Ends, Fault, Line, Listens
from network_rows import LINE_ROWS, PAUSE, LineRow, Then, reply
from real_servers import AuthorizationServer
from watched_daemon import State, Watched, boot, fresh, in_trouble, says

import spotokend
from spotokend.sandbox import App, Options, Rotation, Sandbox, running

pytestmark = [pytest.mark.timeout(120), pytest.mark.anyio]

LIFE = 14.0
"""Seconds of an access token: most of it is there for a machine that is late with all rows at once."""
FLOOR = 0.05 * LIFE
"""With less than that left a token is of no use any more."""
LONGEST_WAIT = 3.0
"""Seconds: the cap of the back-off here, and the latest moment for the second try after doubt."""
MOST_TRIES = 20
"""Of one fault, in some 11 s: the back-off's own mean is thirteen."""
LATE = 11.5
"""Seconds, of an answer that comes when the access token is dead."""
SLACK = 3.0
"""Seconds that the machine may be late by."""


def timing(*, due: float = 0.15, longest_wait: float = LONGEST_WAIT) -> str:
    """A refresh is due at that share of the life."""
    return f"""
        [timing]
        due_from = {due}
        due_to = {due + 0.05}
        start_spread = 1
        backoff_base = 0.25
        backoff_cap = {longest_wait}
        backoff_cap_waiting = 1.0
        connect_timeout = 1
        send_timeout = 1
        answer_timeout = 2
    """


SERVERS = {
    "keeps": Options(access_life=LIFE, auto_approve=True, rotation=Rotation.NEVER),
    "rotates": Options(access_life=LIFE, auto_approve=True, rotation=Rotation.ALWAYS),
    "graces": Options(access_life=LIFE, auto_approve=True, rotation=Rotation.ALWAYS, grace=10),
}
ROTATION = {
    "keeps": 'rotation = "auto"',
    "rotates": 'rotation = "strict"',
    "graces": 'rotation = "grace"\nrotation_grace = 10',
}


def account_of(name: str) -> str:
    """The account, the client and the client id of one row."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name)


def app(name: str) -> App:
    redirect_uris = ("http://127.0.0.1/callback",)
    return App(client_id=account_of(name), name=name, redirect_uris=redirect_uris)


def section(
    name: str, authorize_url: str, token_url: str, more: str = "", *, client_id: str = ""
) -> str:
    """Client and account of one row."""
    key = account_of(name)
    return f"""
        [clients.{key}]
        client_id = "{client_id or key}"
        authorize_url = "{authorize_url}"
        token_url = "{token_url}"
        identity_url = "none"
        {more}
        [accounts.{key}]
        client = "{key}"
    """


def token_requests(sandbox: Sandbox, name: str) -> int:
    """That the provider has seen of the row's client; its login's among them."""
    by_client: Any = sandbox.provider.record.to_json()["by_client"]
    return by_client.get(account_of(name), {}).get("POST /api/token", 0)


def context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(made)
    return made


# --- the line ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Seen:
    """What was seen of a row."""

    line: Line
    first: spotokend.Token
    failed: State = field(default_factory=dict)
    """The account's state after the fault has struck first,"""
    left: float = 0.0
    """what the token had left by then, seconds,"""
    generations: set[int] = field(default_factory=set)
    """generations of the tokens that were served from then on to the end of the first one,"""
    refusals: list[spotokend.SpotokendError] = field(default_factory=list)
    """what a caller got after that end,"""
    dead: State = field(default_factory=dict)
    """and ``status`` then."""
    arrived: int = 0
    """Requests of this account that had come over the line by then; its login's is the first,"""
    served: int = 0
    """and of these the provider had seen so many."""
    ended: State = field(default_factory=dict)
    """``status`` at the end of it all."""


async def play(daemon: Watched, row: LineRow, fault: Fault, line: Line, sandbox: Sandbox) -> Seen:
    """A login, the fault, its end."""
    account = account_of(row.name)
    line.break_with(fault, after=1)  # the login, that is
    await daemon.log_in(account)
    seen = Seen(line, await daemon.token(account))
    if row.then is Then.USED:
        # Twice over the broken line: the second is the work of what the first one brought.
        await daemon.until(account, fresh(3))
        seen.ended = await daemon.status(account)
        return seen
    seen.failed = await daemon.until(account, in_trouble)
    seen.left = seen.first.expires_boot - boot()
    while not seen.refusals and seen.generations <= {1}:
        try:
            seen.generations.add((await daemon.token(account)).generation)
        except (spotokend.Unavailable, spotokend.LoginRequired) as error:
            assert boot() >= seen.first.expires_boot
            seen.refusals.append(error)
        await asyncio.sleep(0.2)
    seen.dead = await daemon.status(account)
    seen.arrived = len(line.requests)
    seen.served = token_requests(sandbox, row.name)
    line.mend()
    if row.then is Then.LOST:
        await daemon.until(account, lambda state: state["state"] == "quarantined")
        seen.ended = await daemon.status(account)
        await daemon.log_in(account)
    else:
        await daemon.until(account, fresh(2))
        seen.ended = await daemon.status(account)
    await daemon.token(account)
    return seen


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, Seen | BaseException]]:
    """All rows played at the same time, in one daemon."""
    authority, now, day = trustme.CA(), dt.datetime.now(dt.UTC), dt.timedelta(days=1)
    own = context(authority.issue_cert("127.0.0.1"))
    past = authority.issue_cert("127.0.0.1", not_before=now - 2 * day, not_after=now - day)
    shown = {
        "nobody's": context(trustme.CA().issue_cert("127.0.0.1")),
        "another's": context(authority.issue_cert("other.example")),
        "expired": context(past),
        "early": context(authority.issue_cert("127.0.0.1", not_before=now + day)),
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spotokend-")))
        sandboxes: dict[str, Sandbox] = {}
        for name, options in SERVERS.items():
            apps = tuple(app(row.name) for row in LINE_ROWS if row.server == name)
            sandboxes[name] = stack.enter_context(running(replace(options, apps=apps)))
        lines: dict[str, Line] = {}
        config = timing()
        for row in LINE_ROWS:
            sandbox = sandboxes[row.server]
            line = Line(("127.0.0.1", sandbox.port), host=row.host, tls=own if row.tls else None)
            lines[row.name] = stack.enter_context(line)
            config += section(
                row.name,
                f"{sandbox.url}/authorize",
                f"{line.url}/api/token",
                ROTATION[row.server],
            )
        daemon = DaemonProcess(folder, config)
        trust(daemon, authority)

        async def play_all() -> list[Seen | BaseException]:
            async with Watched(daemon.socket) as watched:
                played = []
                for row in LINE_ROWS:
                    fault = replace(row.line, certificate=shown.get(row.certificate))
                    line, sandbox = lines[row.name], sandboxes[row.server]
                    played.append(play(watched, row, fault, line, sandbox))
                return await asyncio.gather(*played, return_exceptions=True)

        with daemon:
            played = asyncio.run(play_all())
        yield dict(zip((row.name for row in LINE_ROWS), played, strict=True))


def trust(daemon: DaemonProcess, authority: trustme.CA) -> None:
    """Let the daemon believe the authority's certificates, and no others."""
    path = daemon.folder / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    daemon.environ["SSL_CERT_FILE"] = str(path)


@pytest.mark.parametrize("row", LINE_ROWS, ids=lambda row: row.name)
def test_a_fault_of_the_line(row: LineRow, seen: dict[str, Seen | BaseException]):
    """What the row of the table says."""
    it = seen[row.name]
    if isinstance(it, BaseException):
        raise it
    assert {request.what for request in it.line.requests} == {"POST /api/token"}
    if row.then is not Then.USED:
        assert row.says in it.failed["reason"]
        if it.left > LIFE / 6 + SLACK:
            assert it.failed["health"] == "ok"
    CHECKS[row.then](row, it)


def still_served(row: LineRow, it: Seen, outcome: str) -> None:
    """The token to its end; then a refusal that says when to come back; few tries; renewed."""
    assert it.generations == {1}
    assert {past["outcome"] for past in it.dead["outcomes"]} == {outcome}
    assert (it.dead["state"] in {"waiting", "refreshing"}, it.dead["health"]) == (True, "failing")
    (refusal,) = it.refusals
    assert type(refusal) is spotokend.Unavailable
    assert row.says in refusal.message
    assert refusal.hint == f"spotokend status {account_of(row.name)}"
    assert 1 <= (refusal.retry_after or 0) <= LONGEST_WAIT
    assert 2 <= it.dead["failures"] <= MOST_TRIES
    assert (it.ended["state"], it.ended["health"], it.ended["reason"]) == ("fresh", "ok", None)


def not_sent(row: LineRow, it: Seen) -> None:
    assert (it.arrived, it.served) == (1, 1)
    still_served(row, it, "not sent")


def not_served(row: LineRow, it: Seen) -> None:
    assert (it.arrived > 1, it.served) == (True, 1)
    still_served(row, it, "not served")


def doubted(row: LineRow, it: Seen) -> None:
    tries = it.line.connected[1:]
    assert tries[1] - tries[0] >= 1
    assert it.served <= 1 + MOST_TRIES
    still_served(row, it, "no answer")


def paused(row: LineRow, it: Seen) -> None:
    _, refused, again, *_ = (request.at for request in it.line.requests)
    assert again - refused >= PAUSE
    assert (it.arrived, it.served) == (2, 1)
    (refusal,) = it.refusals
    assert 1 <= (refusal.retry_after or 0) <= PAUSE


def used(row: LineRow, it: Seen) -> None:
    assert (it.ended["health"], it.ended["reason"]) == ("ok", None)
    assert {past["outcome"] for past in it.ended["outcomes"]} == {"renewed"}


def at_the_last_moment(it: Seen) -> None:
    _, lost, again, *_ = (request.at for request in it.line.requests)
    assert lost < it.first.expires_boot - LIFE / 4
    assert again >= it.first.expires_boot - FLOOR


def waited(row: LineRow, it: Seen) -> None:
    at_the_last_moment(it)
    assert (it.ended["health"], it.served) == ("ok", 2)


def lost(row: LineRow, it: Seen) -> None:
    at_the_last_moment(it)
    assert (it.generations, it.served) == ({1}, 3)  # login, the lost answer, the refusal
    assert "an earlier answer was lost; it may have carried the successor" in it.ended["reason"]
    assert it.ended["hint"] == f"spotokend login {account_of(row.name)}"


def graced(row: LineRow, it: Seen) -> None:
    _, lost, again, *_ = (request.at for request in it.line.requests)
    assert 1 <= again - lost <= LONGEST_WAIT + SLACK
    assert (it.refusals, it.ended["health"]) == ([], "ok")


CHECKS: dict[Then, Callable[[LineRow, Seen], None]] = {
    Then.NOT_SENT: not_sent,
    Then.NOT_SERVED: not_served,
    Then.DOUBTED: doubted,
    Then.PAUSED: paused,
    Then.USED: used,
    Then.WAITED: waited,
    Then.LOST: lost,
    Then.GRACED: graced,
}


# --- names and proxies ---------------------------------------------------------------------------

# In a mount namespace of its own a process can be shown other files; without root's rights it needs
# a user namespace besides.
UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]


class DaemonWithNames(DaemonProcess):
    """On a host that knows the names in :attr:`names` and has no other way to find any."""

    def __init__(self, folder: Path, config: str) -> None:
        super().__init__(folder, config)
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions attempts:1\n")
        self.know()

    def know(self, *names: str) -> None:
        """These names, all of this host; while the daemon runs, too."""
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost {' '.join(names)}\n")

    def _command(self, *arguments: str) -> list[str]:
        mount = (
            'mount --bind "$0/hosts" /etc/hosts'
            ' && mount --bind "$0/resolv.conf" /etc/resolv.conf && exec "$@"'
        )
        return [*UNSHARE, "sh", "-c", mount, str(self.folder), *super()._command(*arguments)]


@pytest.fixture
def names() -> type[DaemonWithNames]:
    """The class, once it is known that it can run here."""
    if subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a host with names of its own: unshare(1) may not make a mount namespace here")
    return DaemonWithNames


async def test_a_start_without_a_network(names: type[DaemonWithNames], short_path: Path):
    """The stored tokens are served; what is missing is told; and they are renewed once it is there."""
    authority = trustme.CA()
    tls = context(authority.issue_cert("accounts.example"))
    told = {
        "unknown": "the name accounts.example can't be resolved: is the network up?",
        "closed": "no connection to 127.0.0.1: Connection refused",
    }
    with ExitStack() as stack:
        apps = tuple(app(account) for account in told)
        options = replace(SERVERS["keeps"], access_life=LIFE, apps=apps)
        sandbox = stack.enter_context(running(options))
        address, consent = ("127.0.0.1", sandbox.port), f"{sandbox.url}/authorize"
        named = stack.enter_context(Line(address, tls=tls))
        closed = stack.enter_context(Line(address))
        config = timing(due=0.5)
        config += section("unknown", consent, f"https://accounts.example:{named.port}/api/token")
        config += section("closed", consent, f"{closed.url}/api/token")
        daemon = names(short_path, config)
        trust(daemon, authority)
        daemon.know("accounts.example")
        stack.enter_context(daemon)
        async with Watched(daemon.socket) as watched:
            for account in told:
                await watched.log_in(account)
            first = {account: await watched.token(account) for account in told}
        daemon.terminate()
        daemon.know()
        closed.break_with(Fault(listens=Listens.CLOSED))
        daemon.start()
        async with Watched(daemon.socket) as watched:
            for account, token in first.items():
                assert (await watched.token(account)).access_token == token.access_token
            for account, words in told.items():
                assert (await watched.until(account, in_trouble))["reason"] == words
            await asyncio.sleep(max(token.expires_boot for token in first.values()) - boot())
            for account, words in told.items():
                with pytest.raises(spotokend.Unavailable) as refusal:
                    await watched.token(account)
                assert words in refusal.value.message
                assert 1 <= refusal.value.retry_after <= LONGEST_WAIT
                assert token_requests(sandbox, account) == 1
            daemon.know("accounts.example")
            closed.mend()
            for account in told:
                await watched.until(account, fresh(2))
                assert (await watched.token(account)).generation == 2


PROXY_FAULTS = {
    "gives no way to accounts.example: 407 Proxy Authentication Required": Fault(
        served=False, answer=lambda _: reply(b"", status="407 Proxy Authentication Required")
    ),
    "broke off before the whole answer was there": Fault(served=False),
    "within 1 s": Fault(takes=0, ends=Ends.SILENT),
    "Connection refused": Fault(listens=Listens.CLOSED),
}
"""What a proxy does, and a part of what is told."""


async def test_a_host_behind_a_proxy(names: type[DaemonWithNames], short_path: Path):
    """Used for all but what NO_PROXY names, and told by its own name when it is what is broken."""
    authority = trustme.CA()
    apps = (app("main"), app("direct"))
    with ExitStack() as stack:
        sandbox = stack.enter_context(running(replace(SERVERS["rotates"], apps=apps)))
        tls = context(authority.issue_cert("accounts.example"))
        proxy = stack.enter_context(Line(("127.0.0.1", sandbox.port), tls=tls, proxy=True))
        tls = context(authority.issue_cert("direct.example"))
        direct = stack.enter_context(Line(("127.0.0.1", sandbox.port), tls=tls))
        consent, strict = f"{sandbox.url}/authorize", ROTATION["rotates"]
        config = timing(longest_wait=0.5)
        config += section("main", consent, "https://accounts.example/api/token", strict)
        config += section(
            "direct", consent, f"https://direct.example:{direct.port}/api/token", strict
        )
        daemon = names(short_path, config)
        trust(daemon, authority)
        daemon.know("direct.example")
        daemon.environ |= {"HTTPS_PROXY": proxy.url, "NO_PROXY": "direct.example"}
        with daemon:
            async with Watched(daemon.socket) as watched:
                for account in ("main", "direct"):
                    await watched.log_in(account)
                await watched.until("main", fresh(2))
                for words, fault in PROXY_FAULTS.items():
                    proxy.break_with(fault)
                    told = (await watched.until("main", says(words)))["reason"]
                    assert f"the proxy {proxy.url[7:]} of HTTPS_PROXY or ALL_PROXY" in told
                stranger = trustme.CA().issue_cert("accounts.example")
                proxy.break_with(Fault(certificate=context(stranger)))
                words = "the certificate of accounts.example is not trusted"
                await watched.until("main", says(words))
                served = token_requests(sandbox, "main")
                proxy.mend()
                state = await watched.until("main", fresh(served + 1))
                main, other = await watched.status("main"), await watched.status("direct")
        assert {past["outcome"] for past in main["outcomes"]} == {"renewed", "not sent"}
        assert {past["outcome"] for past in other["outcomes"]} == {"renewed"}
        assert (state["failures"], other["health"]) == (0, "ok")
        assert set(proxy.tunnels) == {"accounts.example:443"}
        assert len(direct.requests) == token_requests(sandbox, "direct")


# --- a server that nobody here wrote, and that forgives nothing -----------------------------------


async def test_lost_and_late_answers_of_a_strict_server(
    authorization_servers: type[AuthorizationServer], short_path: Path
):
    """What a lost answer costs, and when; and that a late one costs nothing. Usual time-outs."""
    with ExitStack() as stack:
        server = stack.enter_context(authorization_servers(access_token_life=LIFE))
        address = httpx.URL(server.issuer)
        accounts = {"seen": "auto", "strict": "strict", "late": "strict"}
        config = "[timing]\ndue_from = 0.25\ndue_to = 0.30\n"
        lines = {}
        for account, rotation in accounts.items():
            lines[account] = stack.enter_context(Line((address.host, address.port)))
            config += section(
                account,
                server.authorize_url,
                f"{lines[account].url}/token",
                f'rotation = "{rotation}"\nscopes = ["openid"]',
                client_id="public",
            )

        async def agree(url: str) -> str:
            return await asyncio.to_thread(server.log_in, url)

        async def lose_an_answer(account: str, generation: int) -> None:
            # The line stays good for the login, and for the refreshes up to that generation.
            lines[account].break_with(Fault(answer=lambda _: b"", count=1), after=generation)
            await daemon.log_in(account)
            await daemon.until(account, fresh(generation))
            token = await daemon.token(account)
            await daemon.until(account, in_trouble)
            while boot() < token.expires_boot - FLOOR - 1:
                assert await daemon.token(account) == token
                await asyncio.to_thread(whoami, server, token, token.expires_boot - FLOOR)
                await asyncio.sleep(0.5)
            told = await daemon.until(account, lambda state: state["state"] == "quarantined")
            assert "an earlier answer was lost; it may have carried" in told["reason"]
            assert lines[account].requests[-1].at >= token.expires_boot - FLOOR
            await daemon.log_in(account)
            await asyncio.to_thread(whoami, server, await daemon.token(account))

        async def wait_for_a_late_answer() -> None:
            lines["late"].break_with(Fault(late=LATE, count=1), after=1)
            await daemon.log_in("late")
            first = await daemon.token("late")
            await asyncio.sleep(first.expires_boot - boot())
            await daemon.token("late")  # joins the refresh that is under way
            await daemon.until("late", fresh(3))
            _, asked, again = (request.at for request in lines["late"].requests)
            assert again - asked >= LATE

        with DaemonProcess(short_path, config) as process:
            async with Watched(process.socket, agree) as daemon:
                await asyncio.gather(
                    lose_an_answer("seen", 2), lose_an_answer("strict", 1), wait_for_a_late_answer()
                )
        counters = server.counters()
        assert (counters["double_redemptions"], counters["refused"]) == (2, 2)


def whoami(server: AuthorizationServer, token: spotokend.Token, until: float = math.inf) -> None:
    """The server takes the token up to that moment: a dead family takes its access tokens along."""
    headers = {"Authorization": token.authorization}
    answer = httpx.get(server.identity_url, headers=headers, trust_env=False)
    assert answer.is_success or boot() >= until


ROWS = [
    *(Row(row.fault, row.expected) for row in LINE_ROWS),
    Row(
        fault=(
            "The daemon is started while the provider's name can't be resolved, or nobody listens"
            " at its address."
        ),
        expected=(
            "The stored token is served to its end, then programs get `unavailable` with"
            " `retry_after`. `status` says: “the name … can't be resolved: is the network up?”, or"
            " “no connection to …”. Renewed by itself once there is a way."
        ),
    ),
    Row(
        fault="There is a proxy (`HTTPS_PROXY`), and names that don't need it (`NO_PROXY`).",
        expected="It is used for all names but those.",
    ),
    Row(
        fault="The proxy is gone, silent, hangs up, or refuses (407).",
        expected=(
            "Nothing is sent to the provider. `status` names the proxy, and the variables in which"
            " it stands. Tried again by back-off; renewed by itself once there is a way."
        ),
    ),
    Row(
        fault="The proxy shows a certificate of its own in place of the provider's.",
        expected="Refused, as any certificate by an authority that nobody knows.",
    ),
    Row(
        fault="A certified server that revokes families rotates, and its answer is lost.",
        expected=(
            "`strict`, or `auto` once a rotation was seen: the access token stays good to its last"
            " moment, also by the server's word. Then the refresh token is presented again and"
            " refused; quarantined with that cause; a login mends it."
        ),
    ),
    Row(
        fault=f"The same, and the answer comes after {LATE} s, when the old access token is dead.",
        expected="It is used: callers wait for it, and the next refresh works.",
    ),
]
