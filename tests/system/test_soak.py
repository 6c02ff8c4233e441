"""Fifty accounts of short lives and twenty clients on the real daemon, while all goes wrong by chance.

One minute in the usual run, in which the processor has little to do; ten with ``tests/run --nightly``.
The figures are printed: ``tests/run -s tests/system/test_soak.py``.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from daemon_process import DaemonProcess
from nightly import SEED, often
from system_calls import open_files

import spotokend
from spotokend.sandbox import Cut, Options, Request, Response, Sandbox, User, running

SECONDS = often(60, 600)
ACCOUNTS = [f"user-{number:02}" for number in range(50)]
CLIENTS = 20
LIFE = 8.0
SOON = 30.0
"""Seconds within which all is well again once nothing goes wrong any more."""
HANDFUL = 4
"""Descriptors more than before that are no leak: connections just being opened or closed."""

pytestmark = pytest.mark.timeout(SECONDS + 120)

# Half of the time all is well. What is served and not delivered costs a grant, so it is rare.
FAULTS: list[list[dict[str, object]]] = [
    [{"kind": "answer", "status": 503}],
    [{"kind": "answer", "status": 429, "retry_after": "1"}],
    [{"kind": "answer", "status": 403, "body": "html"}],
    [{"kind": "answer", "status": 200, "body": "html"}],
    [{"kind": "answer", "status": 500, "body": "empty", "probability": 0.5}],
    [{"kind": "cut"}],
    [{"kind": "cut", "probability": 0.5}],
    [{"kind": "hang", "count": 3}],
    [{"kind": "slow", "seconds": 1.5}],
    [{"kind": "slow", "seconds": 3.0, "probability": 0.3}],
    [{"kind": "cut", "served": True, "count": 1}],
    [{"kind": "break", "count": 1}],
    [{"kind": "truncate", "count": 1}, {"kind": "answer", "status": 502, "probability": 0.3}],
]

CONFIG = """
[clients.strict]
client_id = "sandbox-pkce-client"
rotation = "strict"
{endpoints}
[clients.auto]
client_id = "sandbox-pkce-client"
{endpoints}
[timing]
backoff_cap = 2.0
backoff_cap_waiting = 1.0
forced_interval = 0.0
"""
ENDPOINTS = """
scopes = ["user-read-private"]
authorize_url = "{url}/authorize"
token_url = "{url}/api/token"
identity_url = "{url}/v1/me"
"""


class Losses:
    """Whose refresh token was replaced by an answer that was never delivered whole.

    That is the one window in which a grant may be lost, here by the line.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self.users: set[str] = set()
        self._ledger = sandbox.provider.ledger
        self._handle = sandbox.provider.handle
        sandbox.provider.handle = self.handle

    def handle(self, request: Request) -> Response:
        """In the place of the provider's own."""
        before = {grant.id: grant.refreshes for grant in list(self._ledger.grants.values())}
        response = self._handle(request)
        whole = response.body.endswith(b"}") and response.held_by is None
        if response.cut is not Cut.NO or not whole:
            for grant in list(self._ledger.grants.values()):
                if grant.refreshes > before.get(grant.id, 0):
                    self.users.add(grant.user)
        return response


@dataclass(frozen=True, slots=True)
class Usage:
    """What the daemon takes."""

    resident: int
    """Kilobytes."""
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Now."""
        status = Path(f"/proc/{pid}/status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return cls(int(resident.split()[1]), len(open_files(pid)))


class Soak:
    """The world, the clients in it, and what they have seen."""

    def __init__(self, sandbox: Sandbox, daemon: DaemonProcess) -> None:
        self.sandbox = sandbox
        self.daemon = daemon
        self.losses = Losses(sandbox)
        self.outcomes: Counter[str] = Counter()
        self.relogins = 0
        self.over = threading.Event()
        self._errors: list[BaseException] = []

    def start(self, work: Callable[[random.Random], None], name: str) -> threading.Thread:
        """Run it in a thread, with dice of its own; whatever it raises ends the soak."""

        def run() -> None:
            try:
                work(random.Random(f"{name} {SEED}"))
            except BaseException as error:  # noqa: BLE001 - raised again by check()
                self._errors.append(error)
                self.over.set()

        thread = threading.Thread(target=run, name=name)
        thread.start()
        return thread

    def check(self) -> None:
        """Raise what a thread has raised."""
        for error in self._errors:
            raise error

    def client(self) -> spotokend.Client:
        """A new one."""
        return spotokend.Client(str(self.daemon.socket))

    def ask(self, dice: random.Random) -> None:
        """A client: any account's token, again and again; some ask the API with it."""
        ledger = self.sandbox.provider.ledger
        with self.client() as client, httpx.Client(trust_env=False) as api:
            while not self.over.is_set():
                account, min_ttl = dice.choice(ACCOUNTS), dice.choice((0.0, 0.5, 2.0))
                asked_at = ledger.now
                try:
                    given = client.call("token", account=account, min_ttl=min_ttl)
                except spotokend.SpotokendError as error:
                    self.outcomes[error.code] += 1
                    assert error.code in {"unavailable", "login_required"}, error
                else:
                    token = spotokend.Token.from_wire(given)
                    theirs = ledger._access_tokens[token.access_token]
                    assert theirs.expires_at - asked_at >= min_ttl
                    assert theirs.grant is not None
                    assert theirs.grant.user == account
                    self.outcomes["token"] += 1
                    if dice.random() < 0.05:
                        self.call_api(api, account, token)
                self.over.wait(dice.uniform(0.05, 0.25))

    def call_api(self, api: httpx.Client, account: str, token: spotokend.Token) -> None:
        """As a program would."""
        bearer = {"Authorization": f"Bearer {token.access_token}"}
        status = api.get(f"{self.sandbox.url}/v1/me", headers=bearer).status_code
        # A token may end on the way; one whose grant was ended by a lost answer may be dead before.
        late = token.expires_boot <= time.clock_gettime(time.CLOCK_BOOTTIME)
        assert status == 200 or late or account in self.losses.users
        self.outcomes[f"api {status}"] += 1

    def watch(self, dice: random.Random) -> None:
        """The user: logs in where that is asked for, which is where a grant was lost, alone."""
        with self.client() as client:
            while not self.over.wait(1.0):
                for account in self.refused(client):
                    self.log_in(client, account)
                    self.relogins += 1

    def refused(self, client: spotokend.Client) -> list[str]:
        """The accounts that need their user; each has lost an answer, and says so."""
        refused = []
        for account in client.status()["accounts"]:
            if account["state"] in {"fresh", "waiting", "refreshing", "unsaved"}:
                continue
            assert account["state"] == "quarantined", account
            assert account["account"] in self.losses.users, account
            assert "an earlier answer was lost" in account["reason"], account
            refused.append(account["account"])
        return refused

    def log_in(self, client: spotokend.Client, account: str) -> None:
        """What the user's browser does; again, if the provider is away just now."""
        while not self.over.is_set():
            begun = client.call("login_start", account=account)
            url = httpx.URL(begun["url"]).copy_merge_params({"login_hint": account})
            end = httpx.get(url, trust_env=False).headers["location"]
            with suppress(spotokend.SpotokendError):
                self.losses.users.discard(account)
                client.call("login_finish", login_id=begun["login_id"], redirect_url=end)
                return
            self.over.wait(0.5)

    def put_faults(self, faults: list[dict[str, object]]) -> None:
        """In place of those that are on."""
        reply = httpx.put(f"{self.sandbox.url}/sandbox/faults", json=faults, trust_env=False)
        assert reply.status_code == 200, reply.text

    def trouble(self, dice: random.Random) -> None:
        """Another fault every few seconds, and as long without."""
        while not self.over.is_set():
            self.put_faults(dice.choice(FAULTS))
            self.over.wait(dice.uniform(0.5, 3.0))
            self.put_faults([])
            self.over.wait(dice.uniform(0.5, 3.0))

    def lost_nothing(self) -> None:
        """Every account is fresh, or was lost in the window; and what is fresh holds the grant."""
        deadline = time.monotonic() + SOON
        with self.client() as client:
            while time.monotonic() < deadline:
                accounts = {item["account"]: item for item in client.status()["accounts"]}
                refused = self.refused(client)
                if all(accounts[name]["state"] == "fresh" for name in {*accounts} - {*refused}):
                    break
                time.sleep(0.1)
            else:
                pytest.fail(f"not well again within {SOON:.0f} s: {accounts}")
            assert accounts.keys() == set(ACCOUNTS)
            for name in {*accounts} - {*refused}:
                # The provider takes a replaced refresh token for theft: only the right one does it.
                client.refresh(name)


@pytest.fixture
def soak(short_path: Path) -> Iterator[Soak]:
    """Everybody has logged in."""
    users = tuple(
        User(id=name, account_id=f"account-of-{name}", display_name=name) for name in ACCOUNTS
    )
    options = Options(users=users, access_life=LIFE, auto_approve=True, rotation="always")
    with running(options) as sandbox:
        config = CONFIG.format(endpoints=ENDPOINTS.format(url=sandbox.url))
        for number, name in enumerate(ACCOUNTS):
            config += f'[accounts.{name}]\nclient = "{("strict", "auto")[number % 2]}"\n'
        daemon = DaemonProcess(short_path, config)
        # The memory is the program's own, not that of what measures its coverage.
        for name in [name for name in daemon.environ if name.startswith("COVERAGE_")]:
            del daemon.environ[name]
        with daemon:
            soak = Soak(sandbox, daemon)
            with soak.client() as client:
                for account in ACCOUNTS:
                    soak.log_in(client, account)
            yield soak


def test_nothing_is_lost_and_nothing_grows(soak: Soak):
    """No expired token, no grant lost outside the window, memory and descriptors flat."""
    clients = [soak.start(soak.ask, f"client {number}") for number in range(CLIENTS)]
    clients.append(soak.start(soak.watch, "user"))
    trouble = soak.start(soak.trouble, "trouble")
    usage: list[Usage] = []
    try:
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends and not soak.over.wait(1.0):
            usage.append(Usage.of(soak.daemon.pid))
    finally:
        soak.over.set()
        for thread in (*clients, trouble):
            thread.join()
    soak.check()
    soak.put_faults([])
    soak.lost_nothing()

    quarter = len(usage) // 4
    # The least of many: what a moment takes is no growth.
    begun, ended = usage[quarter : 2 * quarter], usage[-quarter:]
    ledger = soak.sandbox.provider.ledger
    figures = {
        "seed": SEED,
        "seconds": SECONDS,
        "outcomes": dict(soak.outcomes),
        "refreshes": sum(grant.refreshes for grant in ledger.grants.values()),
        "presented twice": ledger.double_redemptions,
        "lost by the line and logged in again": soak.relogins,
        "kilobytes": [min(item.resident for item in part) for part in (begun, ended)],
        "descriptors": [min(item.descriptors for item in part) for part in (begun, ended)],
    }
    print(json.dumps(figures))
    assert soak.outcomes["token"] > 10 * SECONDS
    kilobytes, descriptors = figures["kilobytes"], figures["descriptors"]
    assert kilobytes[1] < 1.05 * kilobytes[0] + 1024
    assert descriptors[1] <= descriptors[0] + HANDFUL
