"""``spotokend api`` as a user has it: the command, the real daemon, and the sandbox as the API."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from daemon_process import DaemonProcess
from overheard import may_tell
from spotify_front import front
from terminal_process import TerminalProcess

import spotokend
from spotokend.sandbox import (
    Body,
    Fault,
    Kind,
    Options,
    Request,
    Response,
    Sandbox,
    ready_configuration,
    running,
)

PLAY = "/v1/me/player/play"
OFTEN = "\n[timing]\nforced_interval = 0\nrejects_per_hour = 60\n"
"""Tokens are reported as refused more often here than in a life."""


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[Sandbox, DaemonProcess]]:
    """A user who may play music, one who may not, one who isn't on the list, and the app itself."""
    with (
        tempfile.TemporaryDirectory(prefix="spotokend-") as folder,
        running(Options(auto_approve=True, unlisted=("carol",))) as sandbox,
    ):
        text = ready_configuration(sandbox.url, sandbox.provider.options, folder=folder)
        with DaemonProcess(Path(folder), text + OFTEN) as daemon:
            log_in(daemon, "alice", "user-modify-playback-state")
            log_in(daemon, "bob")
            log_in(daemon, "carol")
            yield sandbox, daemon


@pytest.fixture
def sandbox(world: tuple[Sandbox, DaemonProcess]) -> Iterator[Sandbox]:
    """All is well there again after each test."""
    sandbox, _ = world
    yield sandbox
    sandbox.provider.faults.put([])


@pytest.fixture
def daemon(world: tuple[Sandbox, DaemonProcess], monkeypatch: pytest.MonkeyPatch) -> DaemonProcess:
    """Its commands are about alice where they don't say otherwise."""
    _, daemon = world
    monkeypatch.setattr(daemon, "environ", daemon.environ | {"SPOTOKEND_ACCOUNT": "alice"})
    return daemon


@pytest.fixture
def heard(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Each request to the API from now on."""
    requests: list[Request] = []
    handle = sandbox.provider.handle

    def overheard(request: Request) -> Response:
        if request.path.startswith("/v1/"):
            requests.append(request)
        return handle(request)

    monkeypatch.setattr(sandbox.provider, "handle", overheard)
    return requests


def log_in(daemon: DaemonProcess, account: str, *scopes: str) -> None:
    """What the user's browser does."""
    with spotokend.Client(str(daemon.socket)) as client:
        begun = client.call("login_start", account=account, scopes=list(scopes))
        url = httpx.URL(begun["url"]).copy_merge_params({"login_hint": account})
        end = httpx.get(url, trust_env=False).headers["location"]
        client.call("login_finish", login_id=begun["login_id"], redirect_url=end)


def test_who_am_i(daemon: DaemonProcess, heard: list[Request]):
    """The account of the variable, another one by the option; a path with and without its slash."""
    done = daemon.run("api", "/v1/me")
    other = daemon.run("api", "v1/me", "--account", "bob")

    assert (done.returncode, done.stderr) == (other.returncode, other.stderr) == (0, "")
    assert json.loads(done.stdout)["id"] == "alice"
    assert json.loads(other.stdout)["id"] == "bob"
    assert [request.path for request in heard] == ["/v1/me"] * 2


def test_a_token_that_ends_early_is_replaced_unseen(
    daemon: DaemonProcess, sandbox: Sandbox, heard: list[Request]
):
    """Revoked in the middle of its life: one 401, a new token, one more call, and the answer."""
    daemon.run("api", "/v1/me")
    for grant in sandbox.provider.ledger.select(user="alice"):
        sandbox.provider.ledger.revoke_access_tokens(grant)
    heard.clear()
    done = daemon.run("api", "/v1/me")

    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["id"] == "alice"
    assert len({request.headers["authorization"] for request in heard}) == len(heard) == 2


def test_a_put_with_a_body(daemon: DaemonProcess, heard: list[Request]):
    """204: done, and nothing to print."""
    body = '{"uris": ["spotify:track:1"]}'
    done = daemon.run("api", PLAY, "-X", "PUT", "-d", "@-", stdin=body)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    [request] = heard
    assert (request.method, request.path, request.body) == ("PUT", PLAY, body.encode())
    assert request.headers["content-type"] == "application/json"


def test_a_missing_scope(daemon: DaemonProcess):
    """Status 6, and the login that adds it."""
    done = daemon.run("api", PLAY, "-X", "PUT", "--account", "bob")

    assert (done.returncode, done.stdout) == (6, "")
    assert "403: Insufficient client scope" in done.stderr
    assert "→ spotokend login bob --scope SCOPE" in done.stderr


def test_whose_call_it_can_not_be(daemon: DaemonProcess, heard: list[Request]):
    """A user who isn't listed; an account without a user: one request each, and what helps."""
    unlisted = daemon.run("api", "/v1/me", "--account", "carol")
    machine = daemon.run("api", "/v1/me", "--account", "machine")

    assert (unlisted.returncode, machine.returncode) == (7, 2)
    assert "User Management" in unlisted.stderr
    assert "name an account that a user has logged in to" in machine.stderr
    assert unlisted.stdout == machine.stdout == ""
    assert len(heard) == 2


def test_the_hours_of_a_used_up_quota(daemon: DaemonProcess, sandbox: Sandbox):
    """Status 5, the wait in hours and minutes, and whose quota it is."""
    sandbox.provider.faults.add(
        Fault(
            kind=Kind.ANSWER, path="/v1/", status=429, retry_after="13749", reason="QUOTA_EXCEEDED"
        )
    )
    done = daemon.run("api", "/v1/me")

    assert (done.returncode, done.stdout) == (5, "")
    assert "all apps of one developer account share" in done.stderr
    assert "→ again in 3 h 49 min" in done.stderr


OWNER = "Active premium subscription required for the owner of the app."
FAULTS: list[tuple[dict[str, object], int, str]] = [
    ({"status": 403, "body": Body.HTML}, 5, "this network is kept out of the API"),
    ({"status": 502, "body": Body.TEXT}, 5, "it may have been carried out all the same"),
    ({"status": 500, "body": Body.EMPTY}, 5, "it may have been carried out all the same"),
    ({"status": 403, "reason": "PREMIUM_REQUIRED"}, 7, "only users with Spotify Premium"),
    ({"status": 403, "body": Body.TEXT, "description": OWNER}, 7, "has stopped the app"),
    ({"status": 404, "reason": "NO_ACTIVE_DEVICE"}, 2, "/v1/me/player/devices"),
    ({"status": 401}, 3, "spotokend login alice"),
]


def test_what_else_the_api_says(daemon: DaemonProcess, sandbox: Sandbox):
    """Each with its own status and words, and nothing on stdout."""
    for fault, status, words in FAULTS:
        sandbox.provider.faults.put([Fault(kind=Kind.ANSWER, path="/v1/", **fault)])
        done = daemon.run("api", PLAY, "-X", "PUT")
        assert (done.returncode, done.stdout) == (status, ""), fault
        assert words in done.stderr


def test_a_lost_answer(daemon: DaemonProcess, sandbox: Sandbox):
    """Carried out or not: it can't be known from here, and is said so."""
    for served in (False, True):
        sandbox.provider.faults.put([Fault(kind=Kind.CUT, path="/v1/", served=served)])
        done = daemon.run("api", PLAY, "-X", "PUT")
        assert (done.returncode, done.stdout) == (5, "")
        assert "it may have been carried out all the same" in done.stderr
        assert sandbox.provider.faults.to_json()[0]["struck"] == 1


def test_the_token_goes_nowhere_else(daemon: DaemonProcess, heard: list[Request], sandbox: Sandbox):
    """Another host's address, and one that only looks like ours: status 2, and nobody is asked."""
    port = sandbox.url.rpartition(":")[2]
    for path in (
        "https://evil.example/v1/me",
        f"http://127.0.0.1:{port}@evil.example/v1/me",
        f"http://localhost:{port}/v1/me",
        "//evil.example/v1/me",
        "/\\evil.example/v1/me",
    ):
        done = daemon.run("api", path)
        assert (done.returncode, done.stdout) == (2, ""), path
    assert heard == []
    assert daemon.run("api", f"{sandbox.url}/v1/me").returncode == 0


def test_through_a_proxy_under_the_real_name(
    daemon: DaemonProcess, sandbox: Sandbox, heard: list[Request], tmp_path: Path
):
    """``HTTPS_PROXY`` and ``SSL_CERT_FILE`` are enough; without the latter it isn't believed."""
    text = daemon.config.read_text()
    daemon.configure(
        text.replace(f'api_url = "{sandbox.url}"', 'api_url = "https://api.spotify.com"')
    )
    assert daemon.run("reload").returncode == 0
    with front(sandbox.port, tmp_path) as proxy:
        daemon.environ |= proxy.environ
        done = daemon.run("api", "/v1/me")
        del daemon.environ["SSL_CERT_FILE"]
        doubtful = daemon.run("api", "/v1/me")
    daemon.configure(text)
    assert daemon.run("reload").returncode == 0

    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["id"] == "alice"
    assert doubtful.returncode == 5
    assert "the certificate of api.spotify.com is not trusted" in doubtful.stderr
    assert len(heard) == 1
    assert proxy.refused == []


def test_whoever_stops_reading_is_left_in_peace(daemon: DaemonProcess):
    """``spotokend api /v1/me | true``: 141, and silence."""
    read, write = os.pipe()
    os.close(read)
    with may_tell("nobody reads it"):
        done = subprocess.run(
            [sys.executable, "-m", "spotokend", "api", "/v1/me"],
            env=daemon.environ,
            stdout=write,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    os.close(write)

    assert (done.returncode, done.stderr) == (141, b"")


def on_a_terminal(daemon: DaemonProcess, *words: str, **environ: str) -> TerminalProcess:
    """The command as a person sees it; 100 columns by 40 lines."""
    command = [sys.executable, "-m", "spotokend", "api", *words]
    return TerminalProcess(command, daemon.environ | environ, columns=100, lines=40)


def test_a_person_sees_it_indented_and_in_colours(daemon: DaemonProcess):
    """Readable JSON; in one colour where ``NO_COLOR`` is set; not a byte more than that."""
    with on_a_terminal(daemon, "/v1/me", NO_COLOR="") as terminal:
        assert terminal.wait() == 0
        assert '\n  "display_name": "Alice",\n' in terminal.shown
        assert json.loads(terminal.shown)["id"] == "alice"
        assert set(re.findall(r"\x1b\[[0-9;]*(.)", terminal.written)) == {"m"}
    with on_a_terminal(daemon, "/v1/me", NO_COLOR="1") as terminal:
        assert terminal.wait() == 0
        assert json.loads(terminal.shown)["id"] == "alice"
        assert "\x1b" not in terminal.written


def test_an_error_on_a_terminal(daemon: DaemonProcess):
    """Words and the cure, and nothing besides."""
    with on_a_terminal(daemon, "/v1/nothing", NO_COLOR="1") as terminal:
        assert terminal.wait() == 2
        assert terminal.shown == (
            "spotokend: the API has nothing there (404: Service not found)\n"
            "  → compare the path with the API's reference; Spotify's begin with /v1/"
        )
