"""The promises of the main job, on the real daemon process with the sandbox as the provider."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from daemon_process import DaemonProcess

import spotokend
from spotokend.sandbox import Options, Sandbox, ready_configuration, running

pytestmark = pytest.mark.timeout(150)
ACCOUNTS = ("alice", "bob", "machine")
LIFE = 5.0


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Three users who agree to everything; access tokens live five seconds."""
    with running(Options(access_life=LIFE, auto_approve=True)) as sandbox:
        yield sandbox


@pytest.fixture
def daemon(sandbox: Sandbox, short_path: Path) -> Iterator[DaemonProcess]:
    """A daemon with accounts by PKCE, by secret and by client credentials, all logged in."""
    configuration = ready_configuration(
        sandbox.url, sandbox.provider.options, folder=str(short_path)
    )
    with DaemonProcess(short_path, configuration) as daemon:
        with spotokend.Client(str(daemon.socket)) as client:
            for account in ("alice", "bob"):
                log_in(client, sandbox, account)
        yield daemon


def log_in(client: spotokend.Client, sandbox: Sandbox, account: str) -> None:
    """What the user's browser does."""
    begun = client.call("login_start", account=account)
    url = httpx.URL(begun["url"]).copy_merge_params({"login_hint": account})
    end = httpx.get(url, trust_env=False).headers["location"]
    client.call("login_finish", login_id=begun["login_id"], redirect_url=end)


def requests_of(sandbox: Sandbox) -> Counter[str]:
    """Token requests so far, by grant type."""
    return Counter(sandbox.provider.record.to_json()["by_grant_type"])


def test_a_minute_of_ten_clients_brings_no_error_and_no_short_token(
    daemon: DaemonProcess, sandbox: Sandbox
):
    """Lives of 5 s, 60 s, 10 clients without pause: at most 19 refreshes an account."""
    before = requests_of(sandbox)
    ends = time.monotonic() + 60
    errors: list[BaseException] = []
    served = Counter[str]()

    def ask(number: int) -> None:
        # Each request goes to the socket: the shim's own cache would hide the daemon.
        with spotokend.Client(str(daemon.socket)) as client:
            while time.monotonic() < ends and not errors:
                account, min_ttl = ACCOUNTS[number % 3], (number % 4) * 0.5
                asked_at = time.clock_gettime(time.CLOCK_BOOTTIME)
                try:
                    result = client.call("token", account=account, min_ttl=min_ttl)
                    token = spotokend.Token.from_wire(result)
                    # From the question on: what comes after the answer is the test's own time.
                    assert token.expires_boot - asked_at >= min_ttl
                except Exception as error:  # noqa: BLE001 - the test's own thread must tell
                    errors.append(error)
                served[account] += 1
                number += 1
                time.sleep(0.002)  # ten busy threads would starve the two processors of all else

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert errors == []
    assert min(served.values()) > 100
    made = requests_of(sandbox) - before
    assert made["refresh_token"] <= 2 * 19
    assert made["client_credentials"] <= 19
    assert made["refresh_token"] >= 2 * 60 / LIFE


def test_after_kill_9_a_stored_token_is_served_without_a_request(
    daemon: DaemonProcess, sandbox: Sandbox
):
    """The token that was good before the kill is good after the start, and no refresh is needed."""
    sandbox.provider.options = sandbox.provider.options.changed({"access_life": 600.0})
    with spotokend.Client(str(daemon.socket)) as client:
        before = {account: client.refresh(account) for account in ACCOUNTS}
    made = requests_of(sandbox)
    daemon.kill()
    daemon.start()
    with spotokend.Client(str(daemon.socket)) as client:
        after = {account: client.token(account) for account in ACCOUNTS}
    assert {name: token.access_token for name, token in after.items()} == {
        name: token.access_token for name, token in before.items()
    }
    assert {name: token.generation for name, token in after.items()} == {
        name: token.generation for name, token in before.items()
    }
    assert requests_of(sandbox) == made


def test_thirty_seconds_without_the_provider_are_survived(daemon: DaemonProcess, sandbox: Sandbox):
    """``unavailable`` with ``retry_after``, few probes by one account, and it resumes by itself."""

    def refreshes() -> int:
        log = sandbox.provider.record.log()
        return sum(1 for entry in log if entry["client"] == "sandbox-pkce-client")

    faults = f"{sandbox.url}/sandbox/faults"
    httpx.put(faults, json=[{"kind": "cut", "client": "sandbox-pkce-client"}], trust_env=False)
    before = refreshes()
    ends = time.monotonic() + 30
    waits: list[float] = []
    with spotokend.Client(str(daemon.socket)) as client:
        while time.monotonic() < ends:
            asked_at = time.clock_gettime(time.CLOCK_BOOTTIME)
            try:
                token = spotokend.Token.from_wire(client.call("token", account="alice"))
                assert token.expires_boot > asked_at  # it may end on its way
            except spotokend.Unavailable as error:
                assert error.retry_after is not None
                waits.append(error.retry_after)
            time.sleep(0.1)
        assert waits
        assert max(waits) <= 5
        probes = refreshes() - before
        assert probes <= 30  # about 13: a jittered back-off of at most 5 s while somebody waits
        httpx.put(faults, json=[], trust_env=False)
        ends = time.monotonic() + 10
        while time.monotonic() < ends:
            try:
                client.call("token", account="alice")
                break
            except spotokend.Unavailable:
                time.sleep(0.1)
        else:
            pytest.fail("service did not resume within 10 s")
    status = daemon.run("status", "alice")
    assert status.returncode == 0


def test_a_refused_grant_is_asked_for_once_and_cured_by_a_login_without_a_restart(
    daemon: DaemonProcess, sandbox: Sandbox
):
    """``invalid_grant``: one request, status says since when, why and the command."""
    for grant in list(sandbox.provider.ledger.grants.values()):
        sandbox.provider.ledger.revoke(grant, "a new password")
    with spotokend.Client(str(daemon.socket)) as client:
        ends = time.monotonic() + 20
        while True:
            state = client.status("alice")["accounts"][0]
            if state["state"] == "quarantined":
                break
            assert time.monotonic() < ends
            time.sleep(0.05)
        made = requests_of(sandbox)["refresh_token"]
        words = daemon.run("status", "alice").stdout
        assert "spotokend login alice" in words
        assert "revoked" in words
        asked = daemon.run("token", "alice")
        assert asked.returncode in {0, 3}  # served to its end, refused afterwards
        time.sleep(2 * LIFE)
        asked = daemon.run("token", "alice")
        assert asked.returncode == 3
        assert "spotokend login alice" in asked.stderr
        assert requests_of(sandbox)["refresh_token"] <= made + 1  # bob's own one
        log_in(client, sandbox, "alice")
        assert client.token("alice").remaining > 0
