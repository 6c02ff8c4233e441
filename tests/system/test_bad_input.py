"""Bad input to the real programs: each mistake has words, a cure and a status, and harms nothing."""

from __future__ import annotations

import base64
import ctypes
import itertools
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import httpx
import msgpack
import pytest
from bystander import folder
from daemon_process import DaemonProcess

import spotokend
from spotokend import wire
from spotokend.sandbox import Options, Sandbox, ready_configuration, running

pytestmark = pytest.mark.timeout(60)

CLIENT = '[clients.spotify]\nclient_id = "00000000000000000000000000000000"\n'
"""Spotify's own endpoints: nothing here ever asks them, since nobody has logged in."""
PATIENCE = 15.0
"""Seconds for what takes a fraction of one on an idle machine."""


# --- the world ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A provider whose users agree to everything."""
    with running(Options(auto_approve=True)) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def configuration(sandbox: Sandbox) -> Iterator[str]:
    """A good configuration: alice by PKCE, bob by secret, carol by PKCE, a machine by itself."""
    with folder() as secrets:
        yield ready_configuration(sandbox.url, sandbox.provider.options, folder=str(secrets))


@pytest.fixture(scope="module")
def serving(sandbox: Sandbox, configuration: str) -> Iterator[DaemonProcess]:
    """A daemon that runs through all tests of this file. alice is logged in, and the machine."""
    with folder() as path, DaemonProcess(path, configuration) as daemon:
        with spotokend.Client(str(daemon.socket)) as client:
            log_in(client, "alice")
            client.token("machine")
        yield daemon


@pytest.fixture(scope="module")
def used(sandbox: Sandbox, configuration: str) -> Iterator[DaemonProcess]:
    """A world with a store that holds two logins and an app's token; no daemon runs."""
    with folder() as path:
        with DaemonProcess(path, configuration) as daemon:
            with spotokend.Client(str(daemon.socket)) as client:
                log_in(client, "alice")
                log_in(client, "bob")
                client.token("machine")
        yield daemon


@pytest.fixture(scope="module")
def fresh() -> Iterator[DaemonProcess]:
    """A world in which no daemon has ever run."""
    with folder() as path:
        yield DaemonProcess(path, CLIENT)


@pytest.fixture
def copy(used: DaemonProcess, configuration: str) -> Iterator[DaemonProcess]:
    """The used world once more, to be damaged."""
    with folder() as path:
        shutil.copytree(used.folder, path, dirs_exist_ok=True)
        (path / "stderr").unlink()
        yield DaemonProcess(path, configuration)


def log_in(client: spotokend.Client, account: str) -> None:
    """What the user's browser does."""
    begun = client.call("login_start", account=account)
    url = httpx.URL(begun["url"]).copy_merge_params({"login_hint": account})
    end = httpx.get(url, trust_env=False).headers["location"]
    client.call("login_finish", login_id=begun["login_id"], redirect_url=end)


def state_folder(daemon: DaemonProcess) -> Path:
    """Where the world keeps store and key."""
    return daemon.folder / "home" / ".local" / "state" / "spotokend"


def traces(daemon: DaemonProcess) -> dict[str, tuple[int, int, bytes]]:
    """All that a daemon could have made or changed, but for the lock, which names the last holder."""
    found = {}
    for top in ("home", "run"):
        for path in sorted((daemon.folder / top).rglob("*")):
            if path.suffix == ".lock":
                continue
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            changed = status.st_mtime_ns if path.is_file() else 0
            found[str(path.relative_to(daemon.folder))] = status.st_mode, changed, content
    return found


def refused(daemon: DaemonProcess, *arguments: str) -> str:
    """Run a command that must end with status 2 and leave no trace; what it said."""
    before = traces(daemon)
    done = daemon.run(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert traces(daemon) == before
    return done.stderr


def logged(daemon: DaemonProcess, event: str, times: int = 1) -> str:
    """Wait until the log has that event so often; all of the log."""
    deadline = time.monotonic() + PATIENCE
    while daemon.written().count(f'"event": "{event}"') < times:
        assert time.monotonic() < deadline, daemon.written()
        time.sleep(0.01)
    return daemon.written()


# --- the configuration ----------------------------------------------------------------------------

MISTAKES: dict[str, tuple[str, tuple[str, ...]]] = {
    "unknown key": (
        CLIENT + '[daemon]\nlog_levle = "info"\n',
        (":4: daemon.log_levle: unknown key", 'did you mean "log_level"?'),
    ),
    "unknown key of a client": (
        CLIENT + 'scope = ["streaming"]\n',
        (":3: clients.spotify.scope: unknown key", 'did you mean "scopes"?'),
    ),
    "unknown section": (
        CLIENT + '[account.main]\nclient = "spotify"\n',
        (":3: account: unknown key", 'did you mean "accounts"?'),
    ),
    "key of a later version": (
        CLIENT + "[accounts.main]\nplain_socket = true\n",
        (":4: accounts.main.plain_socket: ", "spotokend token ACCOUNT"),
    ),
    "syntax error": (
        CLIENT + "scopes = [\n\n[accounts.main]\n",
        (":5: this is no TOML at line 5", 'key = "value"'),
    ),
    "two of one name": (
        CLIENT + 'client_id = "1"\n',
        (":3: this is no TOML at line 3", "overwrite"),
    ),
    "no client": ("[daemon]\n", ("there is no client", "[clients.spotify]")),
    "empty file": ("", ("there is no client", "[clients.spotify]")),
    "missing client id": (
        "[clients.spotify]\nscopes = []\n",
        (":1: clients.spotify.client_id: missing", 'add client_id = "..."', "dashboard"),
    ),
    "missing secret": (
        CLIENT + 'flow = "authorization_code"\n',
        ("clients.spotify.client_secret: ", "needs a secret", 'add client_secret = { file = "'),
    ),
    "unknown client": (
        CLIENT + '[accounts.main]\nclient = "spotfy"\n',
        (':4: accounts.main.client: there is no client "spotfy"', 'did you mean "spotify"?'),
    ),
    "redirect to localhost": (
        CLIENT + 'redirect_uri = "http://localhost:8888/callback"\n',
        (":3: clients.spotify.redirect_uri: ", "localhost", "http://127.0.0.1"),
    ),
    "plain redirect to a host": (
        CLIENT + 'redirect_uri = "http://app.example.test/callback"\n',
        (":3: clients.spotify.redirect_uri: ", "https"),
    ),
    "bad URL": (
        CLIENT + 'token_url = "accounts.example.test/token"\n',
        (":3: clients.spotify.token_url: ", "https://"),
    ),
    "URL with a bad port": (
        CLIENT + 'token_url = "https://accounts.example.test:port/token"\n',
        (":3: clients.spotify.token_url: ", "is no URL", "https://"),
    ),
    "URL with a password": (
        CLIENT + 'token_url = "https://user:pass-1@accounts.example.test/token"\n',
        (":3: clients.spotify.token_url: ", "remove everything before the @"),
    ),
    "plain endpoint": (
        CLIENT + 'token_url = "http://accounts.example.test/token"\n',
        (":3: clients.spotify.token_url: ", "https"),
    ),
    "plain endpoint by the name of localhost": (
        CLIENT + 'token_url = "http://localhost:8080/token"\n',
        (":3: clients.spotify.token_url: ", "https", "127.0.0.1"),
    ),
    "bad account name": (
        CLIENT + '[accounts."../me"]\n',
        (":3: ", '"../me" can\'t be a name', "letters, digits, dots, hyphens"),
    ),
    "bad client name": (
        '[clients."-x"]\nclient_id = "1"\n',
        (":1: ", '"-x" can\'t be a name', "a letter or digit first"),
    ),
    "bad scope": (CLIENT + "scopes = [1]\n", (":3: clients.spotify.scopes: ", "scope")),
    "bad type": (CLIENT + "[timing]\nnap = true\n", (":4: timing.nap: ", 'such as "30s"')),
    "bad number": (CLIENT + "[timing]\nin_flight = 65\n", (":4: timing.in_flight: ", "1 to 64")),
    "unknown default account": (
        CLIENT
        + '[clients.other]\nclient_id = "1"\n[accounts.main]\nclient = "other"\n'
        + '[daemon]\ndefault_account = "mian"\n',
        ('daemon.default_account: there is no account "mian"', 'did you mean "main"?'),
    ),
}
"""Text of the file; what is said of it: the place with its line, what is the matter, the cure."""


@pytest.fixture(params=MISTAKES.values(), ids=MISTAKES)
def mistake(request: pytest.FixtureRequest) -> tuple[str, tuple[str, ...]]:
    """One after the other."""
    return request.param


def test_a_mistake_is_told_with_place_and_cure_and_nothing_is_started(
    mistake: tuple[str, tuple[str, ...]],
    fresh: DaemonProcess,
    serving: DaemonProcess,
    configuration: str,
):
    """``run``, ``config check`` and ``reload`` say the same; what runs goes on as it was."""
    text, fragments = mistake
    fresh.configure(text)
    words = refused(fresh, "run")
    for fragment in (str(fresh.config), *fragments, "spotokend config check"):
        assert fragment in words
    with spotokend.Client(str(serving.socket)) as client:
        before = overall(client)
        serving.configure(text)
        try:
            with pytest.raises(spotokend.Misconfigured) as raised:
                client.call("reload")
            checked = serving.run("config", "check")
        finally:
            serving.configure(configuration)
        assert overall(client) == before
    assert checked.returncode == 2
    assert checked.stdout == ""
    assert checked.stderr == f"spotokend: {raised.value.message}\n  → {raised.value.hint}\n"
    assert checked.stderr == words.replace(str(fresh.config), str(serving.config))


def overall(client: spotokend.Client) -> tuple[object, ...]:
    """What a refused reload must not change."""
    status = client.status()
    tokens = [client.call("token", account=account) for account in ("alice", "machine")]
    names = [(account["account"], account["state"]) for account in status["accounts"]]
    return tokens, names, sorted(status["clients"]), status["daemon"]["pid"]


def test_several_mistakes_are_told_at_once_by_their_lines(fresh: DaemonProcess):
    """A line each, in the order of the file: one look at it mends them all."""
    fresh.configure('[clients.a]\n\n[accounts.b]\nclient = "c"\n\n[daemon]\nlog_level = "loud"\n')
    lines = refused(fresh, "run").splitlines()
    assert [line.split(f"{fresh.config}:")[1].split(":")[0] for line in lines[:3]] == [
        "1",
        "4",
        "7",
    ]
    assert len(lines) == 4


def test_the_command_and_the_signal_refuse_a_mistake_too(
    serving: DaemonProcess, configuration: str
):
    """``spotokend reload`` ends with status 2; SIGHUP has only the log to say so."""
    serving.configure(CLIENT + "scope = []\n")
    try:
        done = serving.run("reload")
        serving.reload()
        log = logged(serving, "reload_refused")
    finally:
        serving.configure(configuration)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "clients.spotify.scope: unknown key" in done.stderr
    assert "clients.spotify.scope: unknown key" in log
    assert serving.run("token", "alice").returncode == 0
    assert serving.run("reload").returncode == 0


def readable_with_secret(daemon: DaemonProcess) -> None:
    """A secret in the configuration, and others may read that."""
    text = CLIENT + 'flow = "authorization_code"\nclient_secret = "secret-1"\n'
    daemon.config.write_text(text)
    daemon.config.chmod(0o644)


def readable_secret(daemon: DaemonProcess) -> None:
    """A secret in a file of its own, and others may read that."""
    secret = daemon.folder / "client-secret"
    secret.write_text("secret-1\n")
    secret.chmod(0o640)
    daemon.configure(
        CLIENT + 'flow = "authorization_code"\nclient_secret = { file = "client-secret" }\n'
    )


def missing_secret(daemon: DaemonProcess) -> None:
    """A file for the secret that isn't there."""
    daemon.configure(
        CLIENT + 'flow = "authorization_code"\nclient_secret = { file = "no-such-file" }\n'
    )


def missing(daemon: DaemonProcess) -> None:
    """No configuration at all."""


def a_folder(daemon: DaemonProcess) -> None:
    """A folder in its place."""
    daemon.config.mkdir()


def dangling(daemon: DaemonProcess) -> None:
    """A link that leads nowhere."""
    daemon.config.symlink_to("no-such-file")


def a_pipe(daemon: DaemonProcess) -> None:
    """A named pipe, whose other end nobody ever opens."""
    os.mkfifo(daemon.config)


def not_text(daemon: DaemonProcess) -> None:
    """Bytes that are no UTF-8, in line 3."""
    daemon.config.write_bytes(CLIENT.encode() + b"# \xff\n")


def endless(daemon: DaemonProcess) -> None:
    """Some other file, by its size."""
    daemon.config.write_bytes(b"#" * (1024 * 1024 + 1))


FILES: dict[Callable[[DaemonProcess], None], tuple[str, ...]] = {
    readable_with_secret: ("holds the client secret of spotify", "(mode 0644)", "chmod 600 "),
    readable_secret: ("clients.spotify.client_secret: ", "(mode 0640)", "chmod 600 "),
    missing_secret: ("clients.spotify.client_secret: ", "No such file", "install -m 600 "),
    missing: ("there is no configuration at ", "spotokend config init"),
    a_folder: ("is a folder", "--config FILE"),
    dangling: ("there is no configuration at ", "spotokend config init"),
    a_pipe: ("is no regular file", "--config FILE"),
    not_text: (":3: this isn't UTF-8", "save the file as UTF-8"),
    endless: ("is larger than 1024 KiB", "--config FILE"),
}


@pytest.fixture(params=FILES, ids=lambda prepare: prepare.__name__)
def file_mistake(request: pytest.FixtureRequest) -> tuple[Callable[..., None], tuple[str, ...]]:
    """One after the other."""
    return request.param, FILES[request.param]


def remove(path: Path) -> None:
    """Whatever it is."""
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def test_a_file_that_will_not_do_is_told_and_nothing_is_started(
    file_mistake: tuple[Callable[..., None], tuple[str, ...]],
    fresh: DaemonProcess,
    serving: DaemonProcess,
    configuration: str,
):
    """``run``, ``config check`` and ``reload`` say the same; the secret itself isn't repeated."""
    prepare, fragments = file_mistake
    remove(fresh.config)
    prepare(fresh)
    try:
        words = refused(fresh, "run")
        assert refused(fresh, "config", "check") == words
    finally:
        remove(fresh.config)
    for fragment in (str(fresh.folder), *fragments):
        assert fragment in words
    assert "secret-1" not in words
    with spotokend.Client(str(serving.socket)) as client:
        before = overall(client)
        remove(serving.config)
        prepare(serving)
        try:
            with pytest.raises(spotokend.Misconfigured) as raised:
                client.call("reload")
        finally:
            remove(serving.config)
            serving.configure(configuration)
        assert overall(client) == before
    told = f"spotokend: {raised.value.message}\n  → {raised.value.hint}\n"
    assert told == words.replace(str(fresh.folder), str(serving.folder))


def test_a_mistake_changes_nothing_of_a_store_that_is_there(used: DaemonProcess):
    """Store, key and their folder stay byte for byte, and no socket is made."""
    for name in ("unknown key", "empty file"):
        used.configure(MISTAKES[name][0])
        refused(used, "run")
        refused(used, "config", "check")


def test_a_file_that_may_not_be_read_is_told(fresh: DaemonProcess):
    """Its rights count for root, too, without the capabilities that make root overlook them."""
    PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2  # noqa: N806 - C's own names
    # Loaded here: between fork and exec nothing may be. Refused to others, who don't need it.
    prctl = ctypes.CDLL(None).prctl

    def drop() -> None:
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)

    remove(fresh.config)
    fresh.configure(CLIENT)
    fresh.config.chmod(0)
    before = traces(fresh)
    try:
        said = [
            subprocess.run(
                [sys.executable, "-m", "spotokend", *arguments],
                env=fresh.environ,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
                preexec_fn=drop,
            )
            for arguments in (["run"], ["config", "check"])
        ]
    finally:
        remove(fresh.config)
    for done in said:
        assert done.returncode == 2
        assert f"{fresh.config} can't be read: Permission denied" in done.stderr
        assert f"ls -l {fresh.config}" in done.stderr
    assert traces(fresh) == before


def test_an_unknown_scope_is_a_warning_and_the_daemon_runs(short_path: Path):
    """Spotify may have one that this version doesn't know: told by check, log and status."""
    words = 'is no scope of Spotify\'s that this version knows (did you mean "streaming"?)'
    with DaemonProcess(short_path, CLIENT + 'scopes = ["streming"]\n') as daemon:
        check = daemon.run("config", "check")
        assert check.returncode == 0
        assert check.stdout.startswith("ok: ")
        assert words in check.stderr
        assert words in daemon.run("status").stdout
        assert words in logged(daemon, "ready").replace('\\"', '"')


# --- what stands beside the configuration ---------------------------------------------------------


def test_a_second_daemon_names_the_first_one(serving: DaemonProcess):
    """By the lock of the store; and by the socket, where it has a store of its own."""
    first = f"{serving.pid}"
    assert f"process id {first}" in refused_start(serving)
    environ = dict(serving.environ)
    serving.environ["XDG_STATE_HOME"] = str(serving.folder / "home" / "other")
    try:
        assert f"process {first} already listens at {serving.socket}" in refused_start(serving)
    finally:
        serving.environ.update(environ)
    assert not (serving.folder / "home" / "other" / "spotokend" / "store.sqlite3").exists()
    assert serving.run("token", "alice").returncode == 0


def refused_start(daemon: DaemonProcess) -> str:
    """``run`` beside a living daemon, whose socket and log must stay."""
    done = daemon.run("run")
    assert done.returncode == 2
    assert "spotokend stop" in done.stderr
    assert daemon.socket.is_socket()
    return done.stderr


def other_key(copy: DaemonProcess) -> None:
    """That of another store."""
    (state_folder(copy) / "key").write_text(base64.b64encode(bytes(range(32))).decode() + "\n")


def no_key(copy: DaemonProcess) -> None:
    """Something else than a key."""
    (state_folder(copy) / "key").write_text("no key\n")


def lost_key(copy: DaemonProcess) -> None:
    """None at all: a new one would be the silent loss of every login."""
    (state_folder(copy) / "key").unlink()


def readable_key(copy: DaemonProcess) -> None:
    """The right one, and others may read it."""
    (state_folder(copy) / "key").chmod(0o644)


def newer_schema(copy: DaemonProcess) -> None:
    """A store that a later version has written."""
    in_store(copy, "PRAGMA user_version = 99")


def other_program(copy: DaemonProcess) -> None:
    """Another program's database."""
    in_store(copy, "DROP TABLE rows", "DROP TABLE tombstones", "PRAGMA application_id = 1")


def long_socket(copy: DaemonProcess) -> None:
    """A path that no address of a socket holds."""
    copy.environ["SPOTOKEND_SOCK"] = str(copy.folder / "run" / ("x" * 108))


def occupied_socket(copy: DaemonProcess) -> None:
    """Some file of the user's where the socket should be."""
    copy.socket.parent.mkdir(mode=0o700, exist_ok=True)
    copy.socket.write_text("mine")


def in_store(daemon: DaemonProcess, *statements: str) -> None:
    """Change the store behind the daemon's back."""
    store = sqlite3.connect(state_folder(daemon) / "store.sqlite3", isolation_level=None)
    for statement in statements:
        store.execute(statement)
    store.close()


@pytest.mark.parametrize(
    ("prepare", "fragments"),
    [
        (other_key, ("is not the one that sealed the store", "put the right key back")),
        (no_key, ("holds no key", "restore ")),
        (lost_key, ("is missing, and the store holds what it has sealed", "from a backup")),
        (readable_key, ("is open to other users", "chmod 600 ")),
        (newer_schema, ("has schema 99, this version of spotokend knows ", "install the newer")),
        (other_program, ("is the database of another program", "[store] path")),
        (long_socket, ("bytes, and the system allows 107", "a shorter one")),
        (occupied_socket, ("is there already and is no socket", "$SPOTOKEND_SOCK")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_does_not_fit_the_store_is_refused_and_nothing_overwritten(
    prepare: Callable[[DaemonProcess], None], fragments: tuple[str, ...], copy: DaemonProcess
):
    """Store, key and whatever else is there stay byte for byte."""
    prepare(copy)
    words = refused(copy, "run")
    for fragment in fragments:
        assert fragment in words


def test_with_its_own_key_back_the_store_serves_again(copy: DaemonProcess, sandbox: Sandbox):
    """What a wrong key was refused for is still there: a token without any request."""
    key = state_folder(copy) / "key"
    right = key.read_bytes()
    other_key(copy)
    refused(copy, "run")
    key.write_bytes(right)
    asked = sandbox.provider.record.total
    with copy:
        done = copy.run("token", "alice")
    assert done.returncode == 0
    assert sandbox.provider.ledger.access(done.stdout.strip()) is not None
    assert sandbox.provider.record.total == asked


def test_a_store_of_garbage_is_put_aside_and_the_daemon_runs(copy: DaemonProcess):
    """Under a name that says when, whole; the log says so, status what to do."""
    store = state_folder(copy) / "store.sqlite3"
    garbage = random.Random(1).randbytes(20_000)
    store.write_bytes(garbage)
    with copy:
        log = logged(copy, "ready")
        [kept] = store.parent.glob("store.sqlite3.damaged-20*Z")
        assert kept.read_bytes() == garbage
        assert "is damaged" in log
        assert f"it is kept as {kept}" in log
        done = copy.run("token", "alice")
        assert done.returncode == 3
        assert "spotokend login alice" in done.stderr
        assert copy.run("token", "machine").returncode == 0


def test_a_store_with_a_broken_page_is_put_aside_and_what_can_be_read_goes_on(copy: DaemonProcess):
    """The header of the page that holds the rows: their index still lists them, as lost."""
    store = state_folder(copy) / "store.sqlite3"
    damaged = bytearray(store.read_bytes())
    page = int.from_bytes(damaged[16:18], "big")
    # Page 1 is the schema, page 2 the table of rows.
    damaged[page : page + 8] = b"\xff" * 8
    store.write_bytes(damaged)
    with copy:
        log = logged(copy, "ready")
        [kept] = store.parent.glob("store.sqlite3.damaged-20*Z")
        assert kept.read_bytes() == damaged
        assert f"it is kept as {kept}" in log
        assert copy.run("token", "machine").returncode == 0


def test_flipped_bits_in_one_login_cost_that_login_only(copy: DaemonProcess):
    """SQLite doesn't notice them, the seal does; nothing is thrown away, the others are served."""
    store = state_folder(copy) / "store.sqlite3"
    connection = sqlite3.connect(store)
    [(sealed,)] = connection.execute("SELECT sealed FROM rows WHERE account = 'alice'")
    connection.close()
    content = store.read_bytes()
    middle = content.index(sealed) + len(sealed) // 2
    flipped = bytes(byte ^ 0xFF for byte in content[middle : middle + 4])
    store.write_bytes(content[:middle] + flipped + content[middle + 4 :])
    with copy:
        assert copy.run("token", "bob").returncode == 0
        assert copy.run("token", "machine").returncode == 0
        done = copy.run("token", "alice")
        assert done.returncode in {2, 3, 5}
        assert "alice" in done.stderr
        assert "  → spotokend " in done.stderr
        assert copy.run("status").returncode == 0


# --- the socket -----------------------------------------------------------------------------------


class Line:
    """One connection, byte by byte."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(path))
        self._unpacker = msgpack.Unpacker(raw=False)
        self._numbers = itertools.count(1_000)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def replies(self, until: int | None = None) -> list[list[object]]:
        """All replies up to the one with that msgid, or to the end of the connection."""
        found = []
        while True:
            for message in self._unpacker:
                assert message[0] == wire.RESPONSE
                found.append(message[1:])
                if message[1] == until:
                    return found
            try:
                data = self.socket.recv(64 * 1024)
            except ConnectionResetError:  # closed with something of ours unread
                data = b""
            if not data:
                return found
            self._unpacker.feed(data)

    def works(self) -> bool:
        """Whether this very connection still answers."""
        number = next(self._numbers)
        self.socket.sendall(wire.request(number, "hello"))
        return [reply[0] for reply in self.replies(number)] == [number]


@pytest.fixture(scope="module")
def witness(serving: DaemonProcess) -> Iterator[Line]:
    """A well-behaved client that is connected all the while."""
    with Line(serving.socket) as line:
        yield line


def pack(*values: object) -> bytes:
    """A message of these elements."""
    return msgpack.packb(list(values))


def nested(depth: int) -> object:
    """Arrays in arrays."""
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


BREACHES: dict[str, tuple[bytes, int | None]] = {
    "HTTP": (b"GET / HTTP/1.1\r\nHost: spotokend\r\n\r\n", None),
    "JSON": (b'{"method": "token"}\n', None),
    "TLS": (bytes.fromhex("1603010200010001fc0303") + bytes(64), None),
    "the byte that MessagePack never uses": (b"\xc1", None),
    "random bytes": (random.Random(2).randbytes(4096), None),
    "zeros": (bytes(4096), None),
    "nil": (msgpack.packb(None), None),
    "a map": (msgpack.packb({"method": "token"}), None),
    "an empty array": (pack(), None),
    "a response": (pack(1, 7, None, None), None),
    "an unknown type": (pack(3, 7, "token", []), None),
    "true for the type": (pack(True, 7, "token", []), None),
    "a msgid of -1": (pack(0, -1, "token", []), None),
    "a msgid of 2**32": (pack(0, 2**32, "token", []), None),
    "a msgid of 7.0": (pack(0, 7.0, "token", []), None),
    "a msgid of true": (pack(0, True, "token", []), None),
    "a request of three": (pack(0, 7, "token"), 7),
    "a request of five": (pack(0, 7, "token", [], None), 7),
    "a method of 5": (pack(0, 7, 5, []), 7),
    "a method that isn't UTF-8": (pack(0, 7, b"\xff", []), 7),
    "params that are a map": (pack(0, 7, "token", {}), 7),
    "params that are nil": (pack(0, 7, "token", None), 7),
    "an array of 65": (pack(0, 7, "token", [{"scopes": ["streaming"] * 65}]), 7),
    "a map of 33": (pack(0, 7, "token", [{str(number): 0 for number in range(33)}]), 7),
    "nine levels": (pack(0, 7, "token", [{"scopes": nested(6)}]), 7),
    "five thousand levels": (b"\x94\x00\x07\xa5token" + b"\x91" * 5000, 7),
    "an extension type": (pack(0, 7, "token", [{"account": msgpack.ExtType(4, b"x")}]), 7),
    "a time stamp": (pack(0, 7, "token", [{"min_ttl": msgpack.Timestamp(1)}]), 7),
    "a string that isn't UTF-8": (b"\x94\x00\x07\xa5token\x91\x81\xa7account\xa2\xff\xfe", 7),
    "an array for a key": (b"\x94\x00\x07\xa5token\x91\x81\x90\x01", 7),
    "64 KiB and more": (pack(0, 7, "token", [{"account": "x" * 70_000}]), 7),
    "four GiB announced": (
        b"\x94\x00\x07\xa5token\x91\x81\xa7account\xdb\xff\xff\xff\xff" + b"x" * 70_000,
        7,
    ),
    "four thousand million elements announced": (b"\xdd\xff\xff\xff\xff", None),
    "a msgid that is under way": (pack(0, 7, "status", []) + pack(0, 7, "status", []), 7),
}
"""Bytes that are no MessagePack-RPC, or go over a limit; and the msgid that can be answered."""


@pytest.mark.parametrize(("data", "msgid"), BREACHES.values(), ids=BREACHES)
def test_what_is_no_messagepack_rpc_gets_one_error_at_most_and_the_end(
    data: bytes, msgid: int | None, serving: DaemonProcess, witness: Line
):
    """``bad_request`` where an id is known, then the connection is closed; others notice nothing."""
    with Line(serving.socket) as line:
        line.socket.sendall(data)
        replies = line.replies()
    if msgid is None:
        assert replies == []
    else:
        [(answered, (code, message, details), result)] = replies
        assert (answered, code, result) == (msgid, "bad_request", None)
        assert message.startswith("no MessagePack-RPC: ")
        assert "[0, msgid, method, [{arguments}]]" in details["hint"]
    assert witness.works()


ABSURD: dict[str, tuple[str, object, str | None]] = {
    "NaN": ("token", {"account": "alice", "min_ttl": float("nan")}, "min_ttl"),
    "infinity": ("token", {"account": "alice", "min_ttl": float("inf")}, "min_ttl"),
    "a negative time": ("token", {"account": "alice", "min_ttl": -1}, "min_ttl"),
    "true for a time": ("token", {"account": "alice", "min_ttl": True}, "min_ttl"),
    "text for a time": ("token", {"account": "alice", "min_ttl": "5"}, "min_ttl"),
    "more than half a life": ("token", {"account": "alice", "min_ttl": 1e9}, None),
    "an account of 5": ("token", {"account": 5}, "account"),
    "an account that is a path": ("token", {"account": "../key"}, "account"),
    "an account of 61 letters": ("token", {"account": "x" * 61}, "account"),
    "an account with a line break": ("token", {"account": "alice\n"}, "account"),
    "no account of several": ("token", {}, None),
    "a text of scopes": ("token", {"account": "alice", "scopes": "streaming"}, "scopes"),
    "a scope of 5": ("token", {"account": "alice", "scopes": [5]}, "scopes"),
    "no generation": ("reject", {"account": "alice"}, "generation"),
    "a negative generation": ("reject", {"account": "alice", "generation": -1}, "generation"),
    "a generation to come": ("reject", {"account": "alice", "generation": 2**64 - 1}, None),
    "no page": ("status", {"limit": 0}, "limit"),
    "no redirect": ("login_finish", {"login_id": "x"}, "redirect_url"),
    "a long redirect": (
        "login_finish",
        {"login_id": "x", "redirect_url": "x" * 9000},
        "redirect_url",
    ),
    "another redirect": (
        "login_start",
        {"account": "alice", "redirect_uri": "http://127.0.0.1:1/elsewhere"},
        None,
    ),
    "a client that isn't there": ("login_start", {"account": "dora", "client": "nobody"}, None),
    "a login of a machine": ("login_start", {"account": "machine"}, None),
    "no account to log out": ("logout", {}, "account"),
}
"""Method and arguments; the argument that is the matter, where it is one alone."""


@pytest.mark.parametrize(("method", "arguments", "argument"), ABSURD.values(), ids=ABSURD)
def test_absurd_arguments_are_named_and_the_connection_goes_on(
    method: str, arguments: object, argument: str | None, serving: DaemonProcess
):
    """``bad_request`` with a cure, and the next request is answered on the same connection."""
    with Line(serving.socket) as line:
        line.socket.sendall(pack(0, 7, method, [arguments]))
        [(_, (code, message, details), result)] = line.replies(7)
        assert (code, result) == ("bad_request", None)
        assert details.get("argument") == argument
        assert message
        assert details["hint"]
        assert line.works()


def test_an_unknown_method_is_answered_and_strange_but_legal_calls_work(serving: DaemonProcess):
    """The nearest name in the hint; bin for str, unknown keys and notifications do no harm."""
    with Line(serving.socket) as line:
        line.socket.sendall(pack(0, 1, "tokne", []))
        [(_, (code, _, details), _)] = line.replies(1)
        assert code == "unknown_method"
        assert details["hint"].startswith("did you mean token? ")
        line.socket.sendall(pack(0, 2, "token", [5]))
        [(_, (code, _, _), _)] = line.replies(2)
        assert code == "bad_request"
        line.socket.sendall(pack(2, "token", ["anything", {"at": "all"}]) + pack(2, None, None))
        line.socket.sendall(pack(0, 3, b"token", [{b"account": b"alice", "colour": nested(4)}]))
        [(_, error, result)] = line.replies(3)
        assert error is None
        assert result["account"] == "alice"


def test_a_pipeline_longer_than_a_message_may_be_is_answered_in_order(serving: DaemonProcess):
    """The limit is a message's, not the stream's."""
    numbers = range(1, 6001)
    requests = b"".join(wire.request(number, "hello") for number in numbers)
    assert len(requests) > wire.MESSAGE_LIMIT
    with Line(serving.socket) as line:

        def send() -> None:
            for start in range(0, len(requests), 1000):  # cut anywhere
                line.socket.sendall(requests[start : start + 1000])

        sender = threading.Thread(target=send)
        sender.start()
        replies = line.replies(numbers[-1])
        sender.join()
    assert [number for number, _, _ in replies] == list(numbers)
    assert all(error is None for _, error, _ in replies)


def test_a_client_that_never_reads_or_never_ends_its_message_keeps_nobody_waiting(
    serving: DaemonProcess, witness: Line
):
    """It is read no further once it has so much unread; others are answered meanwhile."""
    with Line(serving.socket) as deaf, Line(serving.socket) as slow:
        slow.socket.sendall(wire.request(1, "token", {"account": "alice"})[:-3])
        deaf.socket.setblocking(False)
        sent = 0
        for number in range(200_000):
            try:
                sent += deaf.socket.send(wire.request(number, "status"))
            except BlockingIOError:
                break
        else:
            pytest.fail(f"{sent} bytes were taken, and nothing of the answers was read")
        assert witness.works()
        assert serving.run("token", "alice").returncode == 0
    assert witness.works()


# --- the commands ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["token", "alice"],
        ["status"],
        ["refresh", "alice"],
        ["login", "alice"],
        ["logout", "alice"],
        ["reload"],
        ["watch"],
        ["stop"],
    ],
    ids=" ".join,
)
def test_without_a_daemon_the_status_is_4_and_the_start_is_told(
    arguments: list[str], used: DaemonProcess, configuration: str
):
    """On stderr, with nothing on stdout."""
    used.configure(configuration)
    absent(used, *arguments, cure="spotokend run")


def test_without_a_configuration_that_comes_first(fresh: DaemonProcess):
    """Told to start a daemon, the user would only learn there that it has nothing to work with."""
    remove(fresh.config)
    absent(fresh, "token", cure="spotokend login")


def absent(daemon: DaemonProcess, *arguments: str, cure: str) -> None:
    """Run a command that finds nobody."""
    done = daemon.run(*arguments)
    assert (done.returncode, done.stdout) == (4, "")
    assert f"spotokend is not running: nobody listens on {daemon.socket}" in done.stderr
    assert cure in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "fragments"),
    [
        (["token", "carol"], 3, ("nobody has logged in yet", "spotokend login carol")),
        (["token", "alcie"], 7, ("no account named alcie", "did you mean alice?")),
        (
            ["token", "alice", "--scope", "user-top-read", "--scope", "user-read-private"],
            6,
            ("lacks user-top-read", "spotokend login alice --scope user-top-read\n"),
        ),
        (["token", "alice", "--min-ttl", "7000"], 2, ("7000 s", "ask for at most 1800 s")),
        (["token", "alice", "--min-ttl", "nan"], 2, ("--min-ttl",)),
        (["token", "alice", "bob"], 2, ("bob",)),
        (["token"], 2, ("there are several accounts", "SPOTOKEND_ACCOUNT")),
        (["tokne"], 2, ("token",)),
        (["logout", "nobody"], 7, ("no account named nobody",)),
        (["login", "machine"], 2, ("client credentials", "spotokend token machine")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_each_failure_of_a_command_has_its_status_and_its_cure(
    arguments: list[str], status: int, fragments: tuple[str, ...], serving: DaemonProcess
):
    """Nothing on stdout, where a script would take it for a token."""
    done = serving.run(*arguments)
    assert (done.returncode, done.stdout) == (status, "")
    for fragment in fragments:
        assert fragment in done.stderr
    assert "  → " in done.stderr


def test_while_the_provider_is_away_the_status_is_5_and_says_when_it_tries_again(short_path: Path):
    """A port on which nobody listens: connection refused, as in an outage."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        secret = short_path / "secret"
        secret.touch(mode=0o600)
        secret.write_text("secret-1")
        configuration = (
            '[clients.machine]\nclient_id = "1"\nflow = "client_credentials"\n'
            f'client_secret = {{ file = "secret" }}\ntoken_url = "{address}/token"\n'
        )
        with DaemonProcess(short_path, configuration) as daemon:
            done = daemon.run("token")
            assert (done.returncode, done.stdout) == (5, "")
            assert "machine: " in done.stderr
            assert "next try in " in done.stderr
            assert "spotokend status machine" in done.stderr
            with spotokend.Client(str(daemon.socket)) as client:
                with pytest.raises(spotokend.Unavailable) as raised:
                    client.token()
            assert raised.value.retry_after is not None


def test_a_client_that_the_provider_refuses_is_status_2_and_a_reload_cures_it(
    sandbox: Sandbox, short_path: Path
):
    """The wrong secret: told as the configuration's mistake, mended without a restart."""
    secret = short_path / "client.secret"
    secret.touch(mode=0o600)
    secret.write_text("not-the-secret")
    configuration = (
        '[clients.machine]\nclient_id = "sandbox-secret-client"\nflow = "client_credentials"\n'
        f'client_secret = {{ file = "client.secret" }}\ntoken_url = "{sandbox.url}/api/token"\n'
    )
    with DaemonProcess(short_path, configuration) as daemon:
        done = daemon.run("token")
        assert (done.returncode, done.stdout) == (2, "")
        assert "does not accept the client secret" in done.stderr
        assert "spotokend reload" in done.stderr
        secret.write_text("sandbox-client-secret")
        assert daemon.run("reload").returncode == 0
        assert daemon.run("token").returncode == 0
