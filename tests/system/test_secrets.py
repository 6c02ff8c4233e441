"""Planted secrets: whatever is done to the daemon, they are found nowhere but where they belong."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
from daemon_process import DaemonProcess

import spotokend
from spotokend.sandbox import (
    App,
    Body,
    Fault,
    Kind,
    Options,
    Request,
    Response,
    Rotation,
    Sandbox,
    ready_configuration,
    running,
)

pytestmark = pytest.mark.timeout(90)

PATIENCE = 15.0
"""Seconds for what takes a fraction of one on an idle machine."""


# --- the search -----------------------------------------------------------------------------------

PIECE = 12
"""Characters of a secret, anywhere in it, that count as a find: half a token is a leak, too. No two
secrets share so much, and nothing else holds it by chance."""


class Planted:
    """Secrets by kind, and the search for any piece of them, plain or in the usual encodings."""

    def __init__(self) -> None:
        self._pieces: dict[bytes, str] = {}
        self.kinds: set[str] = set()

    def plant(self, kind: str, secret: str) -> None:
        """Look for this one, too. What all tokens of the sandbox begin with is no secret."""
        self.kinds.add(kind)
        # sandbox-access-000001-0123456789abcdef
        text = re.sub(r"^sandbox-[a-z]+-\d+-", "", secret)
        assert len(text) > PIECE
        for form in _forms(text.encode()):
            for start in range(len(form) - PIECE + 1):
                self._pieces.setdefault(form[start : start + PIECE], kind)

    def found(self, where: str, content: bytes | str, allowed: Iterable[str] = ()) -> set[str]:
        """What of it is there, as ``KIND in WHERE``; without the kinds that belong there."""
        data = content.encode() if isinstance(content, str) else content
        pieces = self._pieces
        kinds = {
            pieces[piece]
            for start in range(len(data) - PIECE + 1)
            if (piece := data[start : start + PIECE]) in pieces
        }
        return {f"{kind} in {where}" for kind in kinds - set(allowed)}


def _forms(text: bytes) -> Iterator[bytes]:
    yield text
    yield text[::-1]
    yield quote(text, safe="").encode()
    yield text.hex().encode()
    for shift in range(3):
        # Where the text doesn't begin at a multiple of three bytes its base64 is another; the first
        # and the last group of it depend on the neighbours.
        padded = bytes(shift) + text
        whole = padded[: len(padded) // 3 * 3]
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(whole)[4 if shift else 0 :]


def secret_text(name: str) -> str:
    """Something that looks like a secret, and is none that anybody could have."""
    return hashlib.sha256(name.encode()).hexdigest()[:40]


@pytest.mark.parametrize("kind", ["plain", "cut", "quoted", "hex", "basic", "reversed", "json"])
def test_the_search_finds_a_planted_value_however_it_is_written(kind: str):
    """It can fail: of each form one leak is found, and told by its kind and place."""
    planted = Planted()
    secret = secret_text("token")
    planted.plant("a token", secret)
    planted.plant("another", secret_text("another"))
    leak = {
        "plain": f"refused: {secret}.",
        "cut": f"refused: ...{secret[7:21]}",
        "quoted": quote(f"refresh_token={secret}&x=ä"),
        "hex": secret.encode().hex(),
        "basic": base64.b64encode(f"client-id:{secret}".encode()).decode(),
        "reversed": secret[::-1],
        "json": json.dumps({"words": [f'"{secret}"']}),
    }[kind]
    assert planted.found("the log", f"{'a line of the log ' * 50}{leak} and more") == {
        "a token in the log"
    }
    assert planted.found("the log", leak, allowed={"a token"}) == set()
    assert planted.found("the log", "nothing of it; sandbox-access-000001-x") == set()


def test_the_search_of_processes_and_files_finds_a_planted_value(tmp_path: Path):
    """In argv and environment of a child, and in a file whose name says nothing."""
    planted = Planted()
    for kind in ("argv", "environment", "file"):
        planted.plant(kind, secret_text(kind))
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "x").write_bytes(b"\xff" + secret_text("file").encode() + b"\0")
    child = subprocess.Popen(
        [sys.executable, "-c", "input()", secret_text("argv")],
        env={"VARIABLE": secret_text("environment")},
        stdin=subprocess.PIPE,
    )
    try:
        with Watch(os.getpid()) as watch:
            until(lambda: {"argv", "environment"} <= kinds(watch.found(planted)))
        assert watch.seen.keys() >= {os.getpid(), child.pid}
    finally:
        child.communicate(b"\n")
    assert in_files(planted, tmp_path) == {"file in store/x"}


def kinds(found: set[str]) -> set[str]:
    """Without their places."""
    return {words.partition(" in ")[0] for words in found}


def in_files(planted: Planted, folder: Path, belonging: dict[str, str] | None = None) -> set[str]:
    """What is found in the files of a folder; ``belonging``: by name, the kind that belongs there."""
    found: set[str] = set()
    for path in folder.rglob("*"):
        if path.is_file():
            name = str(path.relative_to(folder))
            allowed = {(belonging or {}).get(path.name, "")}
            found |= planted.found(name, path.read_bytes(), allowed)
    return found


class Watch:
    """Takes down argv and environment of a process and of all that descend from it, without pause."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._taken: dict[tuple[int, bytes], bytes] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def seen(self) -> dict[int, bytes]:
        """The processes that were met, and the last argv of each."""
        return dict(list(self._taken))

    def found(self, planted: Planted) -> set[str]:
        """What is found in them: some secrets are known only after the processes have ended."""
        found: set[str] = set()
        for (_, argv), environ in self._taken.items():
            words = argv.replace(b"\0", b" ").decode(errors="replace")
            found |= planted.found(f"argv of {words}", argv)
            found |= planted.found(f"environment of {words}", environ)
        return found

    def _run(self) -> None:
        while not self._over.is_set():
            self._look(self._pid)
            time.sleep(0.005)

    def _look(self, pid: int) -> None:
        # A process may end at any moment; one that is new may be about to become another program.
        with suppress(FileNotFoundError, ProcessLookupError):
            own = Path(f"/proc/{pid}")
            argv = (own / "cmdline").read_bytes()
            if (pid, argv) not in self._taken:
                self._taken[pid, argv] = environment(own)
            for task in (own / "task").iterdir():
                for child in (task / "children").read_text().split():
                    self._look(int(child))


def environment(own: Path) -> bytes:
    """Of a process; empty where it lets nobody but root see that."""
    try:
        return (own / "environ").read_bytes()
    except PermissionError:
        return b""


def until(true: Callable[[], object]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- the world ------------------------------------------------------------------------------------

CLIENT_SECRET = secret_text("client secret")
OTHER_SECRET = secret_text("a client secret that the provider doesn't know")
REDIRECTS = ("http://127.0.0.1/callback",)
APPS = (
    App(client_id="public-client", name="Public", redirect_uris=REDIRECTS),
    App(client_id="secret-client", name="Secret", redirect_uris=REDIRECTS, secret=CLIENT_SECRET),
)
TIMING = "\n[timing]\nforced_interval = 0\nrejects_per_hour = 60\nbackoff_base = 0.01\n"


class World:
    """Sandbox and daemon, what is planted in them, and what was found in all that was said."""

    def __init__(self, sandbox: Sandbox, daemon: DaemonProcess) -> None:
        self.sandbox = sandbox
        self.daemon = daemon
        self.planted = Planted()
        self.planted.plant("client secret", CLIENT_SECRET)
        self.planted.plant("client secret", OTHER_SECRET)
        self.said: list[tuple[str, str, frozenset[str]]] = []
        """Where, what, and the kinds that belong there."""
        self.errors: list[spotokend.SpotokendError] = []
        self.watches: list[Watch] = []
        """Of commands."""
        self._client = spotokend.Client(str(daemon.socket))
        self._requests: list[Request] = []
        handle = sandbox.provider.handle

        def overheard(request: Request) -> Response:
            self._requests.append(request)
            return handle(request)

        sandbox.provider.handle = overheard

    def collect(self) -> None:
        """Plant what sandbox and daemon have made of themselves."""
        ledger = self.sandbox.provider.ledger
        for kind, texts in (
            ("refresh token", ledger._refresh_tokens),
            ("access token", ledger._access_tokens),
            ("code", ledger._codes),
        ):
            for text in texts:
                self.planted.plant(kind, text)
        for request in self._requests:
            asked = {**request.parameters(), **request.form()}
            for kind, name in (("state", "state"), ("verifier", "code_verifier")):
                if name in asked:
                    self.planted.plant(kind, asked[name])
        key = state_folder(self.daemon) / "key"
        for line in key.read_text().splitlines() if key.exists() else []:
            if not line.startswith("#"):
                self.planted.plant("key of the store", line)
                self.planted.plant("key of the store", base64.b64decode(line).hex())

    def call(self, method: str, **arguments: object) -> object:
        """What a program would; the result, or the error, which is kept."""
        try:
            return self._client.call(method, **arguments)
        except spotokend.SpotokendError as error:
            self.errors.append(error)
            return error

    def run(self, *arguments: str, belongs: Iterable[str] = (), stdin: str = "") -> str:
        """A command; its standard output. ``belongs``: what it is for to print there."""
        done = self.daemon.run(*arguments, stdin=stdin)
        self.hear(f"stdout of {arguments}", done.stdout, belongs)
        self.hear(f"stderr of {arguments}", done.stderr)
        return done.stdout

    def hear(self, where: str, words: str, belongs: Iterable[str] = ()) -> None:
        """Keep it for the search: some secrets are only known later."""
        self.said.append((where, words, frozenset(belongs)))

    def ask_status(self) -> None:
        """Over the socket; and what a watcher is told who asks for no tokens."""
        for account in (None, "alice", "bob", "machine"):
            arguments = {} if account is None else {"account": account}
            self.hear(f"status {account}", json.dumps(self._client.call("status", **arguments)))
        self.hear("watch", json.dumps(self._client.call("watch", tokens=False)))

    def log_in(self, account: str, **more: object) -> None:
        """As a program that shows nothing to anybody."""
        begun = self.call("login_start", account=account, **more)
        assert isinstance(begun, dict)
        end = self.browse(str(begun["url"]), account)
        done = self.call("login_finish", login_id=begun["login_id"], redirect_url=end)
        assert isinstance(done, dict), done
        self.hear("login_finish", json.dumps(done))

    @staticmethod
    def browse(url: str, account: str) -> str:
        """The user's browser: where it is sent in the end."""
        address = httpx.URL(url).copy_merge_params({"login_hint": account})
        return httpx.get(address, trust_env=False).headers["location"]

    def fault(self, **fields: object) -> None:
        """One request goes wrong."""
        self.sandbox.provider.faults.add(Fault(count=1, **fields))

    def refresh_token(self, account: str) -> str:
        """The one that the provider takes now."""
        grants = self.sandbox.provider.ledger.select(user=account)
        return [grant.current for grant in grants][-1]

    def found(self) -> set[str]:
        """The search of all that was kept, and of all files."""
        self.collect()
        found: set[str] = set()
        for watch in self.watches:
            found |= watch.found(self.planted)
        for where, words, belonging in self.said:
            found |= self.planted.found(where, words, belonging)
        for error in self.errors:
            told = json.dumps(error.to_wire()) + repr(error)
            found |= self.planted.found(f"error {error.code}", told)
        found |= self.planted.found("log", self.daemon.written())
        found |= in_files(
            self.planted, self.daemon.folder / "home", belonging={"key": "key of the store"}
        )
        return found | in_files(self.planted, self.daemon.folder / "run")


def state_folder(daemon: DaemonProcess) -> Path:
    """Where the world keeps store and key."""
    return daemon.folder / "home" / ".local" / "state" / "spotokend"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A provider that rotates refresh tokens and ends a login whose old one comes back."""
    options = Options(auto_approve=True, apps=APPS, rotation=Rotation.ALWAYS)
    with running(options) as sandbox:
        yield sandbox


@pytest.fixture
def daemon(sandbox: Sandbox, short_path: Path) -> DaemonProcess:
    """Not started; says all it can."""
    text = ready_configuration(sandbox.url, sandbox.provider.options, folder=str(short_path))
    return DaemonProcess(short_path, text + TIMING)


@contextmanager
def started(sandbox: Sandbox, daemon: DaemonProcess) -> Iterator[World]:
    """A world that runs, with ``--log-level debug``."""
    daemon.start("--log-level", "debug")
    try:
        yield World(sandbox, daemon)
    finally:
        daemon.terminate()


# --- the stories ----------------------------------------------------------------------------------


def test_no_secret_is_seen_through_logins_refreshes_and_every_kind_of_failure(
    sandbox: Sandbox, daemon: DaemonProcess
):
    """Log, status, errors, output of the commands, argv, environment, files: nothing in any."""
    configured = daemon.config.read_bytes(), daemon.config.stat().st_mtime_ns
    with started(sandbox, daemon) as world, Watch(daemon.pid) as watch:
        assert log_in_by_loopback(world, "alice") == 0
        assert log_in_by_paste(world, "bob") == 0
        world.collect()
        for account in ("alice", "bob", "machine"):
            assert world.run("token", account, belongs={"access token"})
            world.run("refresh", account)
            token = world.call("token", account=account)
            assert isinstance(token, dict)
            world.call("reject", account=account, generation=token["generation"])
        world.ask_status()
        every_refusal(world)
        bad_messages(world)
        world.run("status")
        world.run("status", "--json")
        assert (daemon.config.read_bytes(), daemon.config.stat().st_mtime_ns) == configured
        for words in ("store info", "store info --json", "store rekey", "store info", "unlock"):
            world.collect()  # of a key, before there is another
            world.run(*words.split())
        world.run("api", "/v1/me", "--account", "alice")
        world.run("api", "/v1/no/such/thing", "--account", "bob")
        logouts_and_reloads(world)
        world.ask_status()
    assert {"state", "verifier", "code", "refresh token", "access token"} < world.planted.kinds
    assert {error.code for error in world.errors} >= {
        "bad_request",
        "login_required",
        "misconfigured",
        "unavailable",
    }
    assert world.found() == set()
    assert watch.found(world.planted) == set()
    assert daemon.pid in watch.seen


def log_in_by_loopback(world: World, account: str) -> int:
    """``spotokend login`` with a browser, which first brings the answer to somebody else's login."""
    with login(world, account) as (process, url):
        end = httpx.URL(world.browse(url, account))
        stranger = end.copy_merge_params({"state": secret_text("a stranger's state")})
        pages = []
        for address, status in ((stranger, 400), (end, 200)):
            answer = httpx.get(address, trust_env=False, follow_redirects=True)
            assert answer.status_code == status
            assert not {"code", "state"} & set(answer.url.params)
            pages.append(answer.text)
            assert answer.headers["cache-control"] == "no-store"
        for page in pages:
            world.hear("page after the login", page)
        return process.wait(PATIENCE)


def log_in_by_paste(world: World, account: str) -> int:
    """``spotokend login --paste``, with the address of another attempt first."""
    with login(world, account, "--paste") as (process, url):
        end = world.browse(url, account)
        state = parse_qs(urlsplit(end).query)["state"][0]
        assert process.stdin is not None
        process.stdin.write(end.replace(state, secret_text("another state")) + "\n")
        process.stdin.write(f"  <{end}>\n")
        process.stdin.flush()
        return process.wait(PATIENCE)


@contextmanager
def login(world: World, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``spotokend login --no-browser`` under way, and the address that it printed."""
    said = world.daemon.folder / f"login-{arguments[0]}"
    with said.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "spotokend", "login", "--no-browser", *arguments],
            env=world.daemon.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        # The address has to hold the state, and it alone.
        world.hear("address of a login", url, belongs={"state"})
        with Watch(process.pid) as watch:
            yield process, url
        assert process.poll() is not None
        world.watches.append(watch)
        world.hear("stdout of login", process.stdout.read())
        world.hear("stderr of login", said.read_text())
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            pipe.close()


def every_refusal(world: World) -> None:
    """Each answer of the token endpoint that is none, with the secrets of the request in it."""
    provider = world.sandbox.provider
    for status, error in (
        (400, "invalid_grant"),
        (400, "invalid_request"),
        (400, "no_such_error"),
        (401, "invalid_client"),
        (429, "slow_down"),
        (500, "server_error"),
        (503, "temporarily_unavailable"),
    ):
        for account in ("alice", "bob"):  # without a secret, and with one
            echoed = f"{error}: refresh_token={world.refresh_token(account)} {CLIENT_SECRET}"
            world.fault(
                kind=Kind.ANSWER, user=account, status=status, error=error, description=echoed
            )
            world.call("refresh", account=account)
            world.call("refresh", account=account)  # and once more, behind the closed gate
            world.call("token", account=account, min_ttl=1800)
            world.run("token", account, belongs={"access token"})
            world.run("status", account)
        world.ask_status()
        # Both clean again: a reload opens the gates, a login brings a new grant.
        provider.faults.clear()
        world.call("reload")
        world.log_in("alice")
        world.log_in("bob")
    # The error itself is the token; the answer is cut; it isn't one at all.
    for fields in (
        {"kind": Kind.ANSWER, "status": 400, "error": world.refresh_token("alice")},
        {"kind": Kind.TRUNCATE},
        {"kind": Kind.BREAK},
        {"kind": Kind.CUT, "served": True},
        {"kind": Kind.ANSWER, "status": 200, "body": Body.HTML},
        {"kind": Kind.ANSWER, "status": 302, "body": Body.EMPTY},
    ):
        world.fault(user="alice", **fields)
        world.call("refresh", account="alice")
        world.call("token", account="alice", min_ttl=1800)
        world.ask_status()
        provider.faults.clear()
        world.call("reload")
        world.log_in("alice")
    # The refused grant of a revoked login, and the secret of an app that has another now.
    provider.ledger.revoke(next(provider.ledger.select(user="alice")), "a new password")
    for grant in provider.ledger.select(user="alice"):
        provider.ledger.revoke(grant, "a new password")
    world.call("refresh", account="alice")
    world.run("token", "alice", belongs={"access token"})
    world.run("refresh", "alice")
    world.log_in("alice")
    # Who it is can't be told: the API says so with the token in its words.
    grants = list(provider.ledger._access_tokens)
    world.fault(
        kind=Kind.ANSWER, path="/v1/me", status=403, description=f"Bearer {grants[-1]} refused"
    )
    world.log_in("bob")
    # The code is refused in words that repeat it; the login is denied in words that hold the state.
    begun = world.call("login_start", account="alice")
    assert isinstance(begun, dict)
    end = world.browse(begun["url"], "alice")
    world.fault(kind=Kind.ANSWER, status=400, error="invalid_grant", description=end)
    world.call("login_finish", login_id=begun["login_id"], redirect_url=end)
    begun = world.call("login_start", account="alice")
    assert isinstance(begun, dict)
    state = parse_qs(urlsplit(begun["url"]).query)["state"][0]
    world.planted.plant("state", state)
    denied = f"{begun['redirect_uri']}?error=server_error&error_description={state}&state={state}"
    world.call("login_finish", login_id=begun["login_id"], redirect_url=denied)


def bad_messages(world: World) -> None:
    """Secrets in the wrong places of messages: no value of a request comes back or is logged."""
    code, access = secret_text("a pasted code"), secret_text("a pasted token")
    world.planted.plant("code", code)
    world.planted.plant("access token", access)
    for method, arguments in (
        ("token", {"account": f"Bearer {access}"}),
        ("token", {"account": "alice", "min_ttl": access}),
        ("token", {"account": "alice", "scopes": access}),
        ("reject", {"account": "alice", "generation": access}),
        ("login_finish", {"login_id": access, "redirect_url": f"http://127.0.0.1/?code={code}"}),
        ("login_start", {"account": "alice", "redirect_uri": f"http://127.0.0.1/?code={code}"}),
        ("login_cancel", {"login_id": [code]}),
    ):
        world.call(method, **arguments)
    begun = world.call("login_start", account="alice")
    assert isinstance(begun, dict)
    for pasted in (code, f"http://127.0.0.1/callback?code={code}&state=x", f"[{code}"):
        world.call("login_finish", login_id=begun["login_id"], redirect_url=pasted)
    world.call("login_cancel", login_id=begun["login_id"])
    for data in (
        f"GET /?code={code} HTTP/1.1\r\nAuthorization: Bearer {access}\r\n\r\n".encode(),
        b"\x94\x00\x07\xa5token\x91\x81" + b"\xa7account\xd9\x28" + code.encode()[:-1] + b"\xff",
        b"\x93\x02\xd9\x28" + access.encode() + b"\x90\x93\x00\x07\xd9\x28" + access.encode(),
    ):
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(PATIENCE)
            line.connect(str(world.daemon.socket))
            line.sendall(data)
            with suppress(ConnectionResetError):
                world.hear("answer to garbage", line.recv(65536).decode(errors="replace"))


def logouts_and_reloads(world: World) -> None:
    """The other methods; SIGHUP; configurations that are refused, and one with another secret."""
    daemon = world.daemon
    good = daemon.config.read_bytes()
    # Not by the log: that counts what repeats itself within a minute, and tells it no more.
    daemon.configure(f'{good.decode()}\n[clients.later]\nclient_id = "later"\n')
    daemon.reload()
    until(lambda: "later" in world.call("status")["clients"])
    for wrong in (
        f'[clients.x]\nclient_id = "1"\nclient_secret = "{CLIENT_SECRET}"\n',
        f'[clients.x]\nclient_id = "1"\nclient_secert = "{CLIENT_SECRET}"\n',
        f'[clients.x]\nclient_id = "1"\nclient_secret = "{CLIENT_SECRET}\n',
        f'[clients.x]\nclient_id = "1"\nclient_secret = {{ fiel = "{CLIENT_SECRET}" }}\n',
        f'[clients.x]\nclient_id = "1"\nclient_secret = {{ env = "{CLIENT_SECRET}" }}\n',
        f'[clients.x]\nclient_id = "1"\ntoken_url = "https://u:{CLIENT_SECRET}@example.test/"\n',
    ):
        daemon.configure(wrong)
        assert isinstance(world.call("reload"), spotokend.Misconfigured)
        world.run("config", "check")
        world.run("config", "show")
        world.run("reload")
    literal = good.decode().replace(
        f'{{ file = "{daemon.folder}/confidential.secret" }}', f'"{OTHER_SECRET}"'
    )
    assert OTHER_SECRET in literal
    daemon.configure(literal)
    world.run("reload")
    world.run("config", "check")
    world.run("config", "show")
    world.run("refresh", "bob")
    world.run("refresh", "machine")
    world.ask_status()
    daemon.config.write_bytes(good)
    world.run("reload")
    world.run("refresh", "machine")
    world.run("logout", "bob")


def test_a_secret_from_a_command_is_in_no_process_while_the_command_runs(
    sandbox: Sandbox, daemon: DaemonProcess
):
    """The child is held until it was looked at: argv and environment of it and of the daemon."""
    password, release = daemon.folder / "password", daemon.folder / "release"
    password.touch(mode=0o600)
    password.write_text(CLIENT_SECRET)
    os.mkfifo(release)
    with started(sandbox, daemon) as world:
        script = f"cat {password}; read line < {release}"
        daemon.configure(
            re.sub(
                r"client_secret = .*",
                f"client_secret = {{ command = {json.dumps(['sh', '-c', script])} }}",
                daemon.config.read_text(),
            )
        )
        with Watch(daemon.pid) as watch:

            def shells() -> int:
                return sum(argv.startswith(b"sh\0") for argv in watch.seen.values())

            reload = threading.Thread(target=world.run, args=["reload"])
            reload.start()
            # Two clients have the secret, so the command is run twice, once after the other.
            until(lambda: shells() == 1)
            with release.open("w") as pipe:
                pipe.write("\n")
            until(lambda: shells() == 2)
            with release.open("w") as pipe:
                pipe.write("\n")
            reload.join()
        assert isinstance(world.call("refresh", account="machine"), dict)
    assert world.found() == set()
    assert watch.found(world.planted) == set()


PASSPHRASE = secret_text("a passphrase")
ASKED = """
[store]
key = {{ passphrase = ["cat", "{folder}/passphrase"] }}
[hooks.player]
command = ["{folder}/hook"]
kinds = ["token"]
token = true
[hooks.other]
command = ["{folder}/hook"]
kinds = ["token"]
"""
HOOK = """#!/bin/sh
read -r token
tr '\\0' '\\n' </proc/$$/environ
tr '\\0' ' ' </proc/$$/cmdline
echo "heard ${#token}"
"""
"""Tells all that others could see of it, and how long the token is that it was given."""


def test_passphrase_hooks_and_watchers_show_only_what_is_asked_for(
    sandbox: Sandbox, daemon: DaemonProcess
):
    """Of hooks argv, environment and words, of ``watch`` without ``--tokens`` all; names in /proc."""
    folder = daemon.folder
    (folder / "passphrase").touch(mode=0o600)
    (folder / "passphrase").write_text(PASSPHRASE + "\n")
    (folder / "hook").write_text(HOOK)
    (folder / "hook").chmod(0o700)
    daemon.configure(daemon.config.read_text() + ASKED.format(folder=folder))
    listening = (("hooks",), ("watch",), ("watch", "--tokens", "--json"))
    # A manager of the user's own is none of this test's business.
    daemon.environ["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={folder}/no-bus"
    # What is left there is searched, too.
    daemon.environ["TMPDIR"] = str(folder / "home")
    with started(sandbox, daemon) as world, ExitStack() as ending:
        world.planted.plant("passphrase", PASSPHRASE)
        watched = [ending.enter_context(Watch(daemon.pid))]
        # Tokens belong in the last one.
        said = [folder / name for name in ("hooks", "watch", "tokens.secret")]
        for path, words in zip(said, listening, strict=True):
            with path.open("w") as file:
                process = subprocess.Popen(
                    [sys.executable, "-m", "spotokend", *words],
                    env=daemon.environ,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                )
            ending.callback(process.wait, PATIENCE)
            ending.callback(process.terminate)
            watched.append(ending.enter_context(Watch(process.pid)))
        until(lambda: len(world.call("status")["accounts"]) and all(map(heard_of, said[1:])))

        def both_heard() -> bool:
            world.call("refresh", account="machine")
            return set(re.findall(r"heard (\d+)", said[0].read_text())) >= {"0", "38"}

        until(both_heard)
        world.log_in("alice")
        for words in ("unlock", "store info", "store rekey", "refresh alice", "service install"):
            world.run(*words.split())
        own = Path(f"/proc/{daemon.pid}")
        with suppress(PermissionError):  # only root sees these
            names = [os.readlink(path) for path in (own / "fd").iterdir()]
            world.hear("names of files", (own / "maps").read_text() + "\n".join(names))
    for path, words in zip(said, listening, strict=True):
        belongs = {"access token"} if "--tokens" in words else set()
        world.hear(f"words of {words}", path.read_text(), belongs)
    assert (state_folder(daemon) / "key.wrapped").exists()
    assert world.found() == set()
    assert [watch.found(world.planted) for watch in watched] == [set()] * len(watched)
    assert "access token in it" in world.planted.found("it", said[2].read_text())


def heard_of(path: Path) -> bool:
    """Whoever writes there has heard of something."""
    return path.stat().st_size > 0


def test_the_browser_is_started_without_the_state_in_its_argv(
    sandbox: Sandbox, daemon: DaemonProcess
):
    """Other users can read argv: the browser gets an address of the listener, which leads on."""
    opened = daemon.folder / "opened"
    browser = daemon.folder / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$*" > {opened}.draft; mv {opened}.draft {opened}\n')
    browser.chmod(0o700)
    with started(sandbox, daemon) as world:
        said = daemon.folder / "said"
        for name in ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"):
            daemon.environ.pop(name, None)
        with said.open("w") as words:
            process = subprocess.Popen(
                [sys.executable, "-m", "spotokend", "login", "alice"],
                env=daemon.environ | {"DISPLAY": ":0", "BROWSER": f"{browser} %s"},
                stdin=subprocess.PIPE,
                stdout=words,
                stderr=words,
            )
        try:
            with Watch(process.pid) as watch:
                until(opened.exists)
                address = opened.read_text()
                assert address.startswith("http://127.0.0.1:")
                url = httpx.get(address, trust_env=False).headers["location"]
                end = world.browse(url, "alice")
                httpx.get(end, trust_env=False, follow_redirects=True)
                assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()
            process.stdin.close()
        world.hear("argv of the browser", address)
        # The words hold the address, for whoever sees no browser.
        world.hear("output of login", said.read_text(), belongs={"state"})
    assert world.found() == set()
    assert watch.found(world.planted) == set()


DEFECTS = """
import sys
from spotokend.adapters import endpoint
from spotokend.service import keeper
words = []
async def post(self, request):
    form = {name: getattr(value, "reveal", lambda: value)() for name, value in request.form}
    words.append(f"no such luck with {form} and {request.basic[1].reveal()}")
    raise RuntimeError(words[-1])
def stop(self):
    raise LookupError(words)
endpoint.Endpoint.post = post
keeper.Keeper.stop = stop
from spotokend.cli import main
sys.exit(main())
"""
"""The daemon with two defects that nobody foresaw, with all secrets of a request in their words: one
where requests are sent, and one from which it ends."""


class Crashing(DaemonProcess):
    """The daemon with those defects."""

    @staticmethod
    def _command(*arguments: str) -> list[str]:
        return [sys.executable, "-c", DEFECTS, *arguments]


def test_an_exception_that_nobody_foresaw_shows_no_secret(sandbox: Sandbox, daemon: DaemonProcess):
    """Neither in the log, nor in an error, nor in the traceback of a daemon that ends by it."""
    with started(sandbox, daemon) as world:
        world.log_in("bob")
    crashing = Crashing(daemon.folder, daemon.config.read_text())
    crashing.start("--log-level", "debug")
    try:
        world = World(sandbox, crashing)
        begun = world.call("login_start", account="bob")
        assert isinstance(begun, dict)
        end = world.browse(begun["url"], "bob")
        code = parse_qs(urlsplit(end).query)["code"][0]
        world.planted.plant("code", code)
        # Below a request, and in the keeper's own task.
        answer = world.call("login_finish", login_id=begun["login_id"], redirect_url=end)
        assert isinstance(answer, spotokend.InternalError)
        assert isinstance(world.call("refresh", account="bob"), spotokend.SpotokendError)
        world.ask_status()
        assert crashing.terminate() == 1
    finally:
        crashing.kill()
    assert '"kind": "RuntimeError"' in crashing.written()
    assert ": LookupError at <string>:11\n" in crashing.written()
    assert world.found() == set()


# --- what a crash leaves --------------------------------------------------------------------------

ENVIRONMENT_SECRET = secret_text("a client secret in the environment")
KEYED = """
[clients.variable]
client_id = "secret-client"
flow = "client_credentials"
client_secret = { env = "OTHER_CLIENT_SECRET" }
"""


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT], ids=lambda it: it.name)
def test_a_forced_crash_leaves_nothing_behind(
    sandbox: Sandbox, daemon: DaemonProcess, number: signal.Signals
):
    """No core, wherever the kernel puts them, and no word of a secret from the crash handler."""
    daemon.configure(daemon.config.read_text() + KEYED)
    daemon.environ |= {
        "PYTHONFAULTHANDLER": "1",
        "PYTHONASYNCIODEBUG": "1",  # its words show what was received
        "OTHER_CLIENT_SECRET": ENVIRONMENT_SECRET,
        "TMPDIR": str(daemon.folder / "home"),
    }
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    daemon.start("--log-level", "debug")
    world = World(sandbox, daemon)
    world.planted.plant("client secret", ENVIRONMENT_SECRET)
    try:
        world.log_in("bob")
        assert isinstance(world.call("token", account="bob"), dict)
    finally:
        os.kill(daemon.pid, number)
        assert daemon.wait() == -number
    assert "Current thread" in daemon.written()  # what faulthandler leaves: names and lines
    assert world.found() == set()
    assert not list(Path().glob("core*"))
    assert [path.name for path in daemon.folder.rglob("core*")] == []


def test_nobody_else_can_look_into_the_daemon(sandbox: Sandbox, daemon: DaemonProcess):
    """Not even another program of its user's: neither at its environment nor at its memory."""
    daemon.environ |= {"OTHER_CLIENT_SECRET": ENVIRONMENT_SECRET}
    # root without its capabilities is a user like others.
    another = (
        ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"] if not os.geteuid() else []
    )
    with started(sandbox, daemon) as world:
        world.planted.plant("client secret", ENVIRONMENT_SECRET)
        own = Path(f"/proc/{daemon.pid}")
        for name in ("environ", "mem", "maps"):
            look = subprocess.run(
                [*another, "head", "--bytes=9999", own / name], capture_output=True, check=False
            )
            assert (look.returncode, look.stdout) == (1, b"")
            assert b"Permission denied" in look.stderr
        assert world.planted.found("argv", (own / "cmdline").read_bytes()) == set()
        limits = (own / "limits").read_text()
        assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)


class Unlucky(DaemonProcess):
    """A daemon that prints a token."""

    @staticmethod
    def _command(*arguments: str) -> list[str]:
        program = "import sys; sys.exit('sandbox-refresh-000001-0123456789abcdef')"
        return [sys.executable, "-c", program]


def test_every_daemon_of_the_suite_is_searched(short_path: Path):
    """It can fail: with one that says what it may not. As for the rest: tests/test_overheard.py."""
    unlucky = Unlucky(short_path, "")
    unlucky._process = unlucky._launch()
    with pytest.raises(AssertionError, match="the daemon's log holds a secret"):
        unlucky.wait()
    unlucky.errors.unlink()
