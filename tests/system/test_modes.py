"""Files and folders that the program makes: its user's alone, from their first instant to the last."""

from __future__ import annotations

import re
import resource
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from daemon_process import DaemonProcess

import spotokend
from spotokend.sandbox import App, Options, Request, Response, Rotation, Sandbox, running

pytestmark = pytest.mark.timeout(90)

PATIENCE = 20.0
"""Seconds for what takes a fraction of one on an idle machine."""

APP = App(client_id="public-client", name="Public", redirect_uris=("http://127.0.0.1/callback",))
TIMING = "\n[timing]\nforced_interval = 0\n"

CALLS = "umask,open,openat,creat,mkdir,mkdirat,mknod,mknodat,bind,chmod,fchmod,fchmodat"
UMASK = re.compile(r"umask\((0[0-7]*)\)")
MADE = re.compile(
    r'(?:open|openat|creat)\(.*"([^"]*)", [A-Z_|]*O_(?:CREAT|TMPFILE)[A-Z_|]*, (0[0-7]*)\) = \d'
    r'|mkdir(?:at)?\(.*"([^"]*)", (0[0-7]*)\) = 0'
    r'|mknod(?:at)?\(.*"([^"]*)", [A-Z_]+\|(0[0-7]*)[^)]*\) = 0'
)
BOUND = re.compile(r'bind\(.*sun_path="([^"]*)".*\) = 0')
CHANGED = re.compile(r'f?chmod(?:at)?\((?:.*"([^"]*)"|\d+), (0[0-7]*)')


def widest(trace: str, folder: str) -> dict[str, int]:
    """The widest mode that each name below ``folder`` ever had, and descriptors by their number.

    Of a trace by ``strace -f``, whose processes have one umask: forked, they inherit it.
    """
    umask, found = 0, {}

    def had(name: str, mode: int) -> None:
        found[name] = found.get(name, 0) | mode

    for line in trace.splitlines():
        if match := UMASK.search(line):
            umask = int(match[1], 8)
        elif match := MADE.search(line):
            name, mode = (part for part in match.groups() if part is not None)
            if name.startswith(folder):
                had(name, int(mode, 8) & ~umask)
        elif match := BOUND.search(line):
            had(match[1], 0o777 & ~umask)
        elif match := CHANGED.search(line):
            had(match[1] or line, int(match[2], 8))
    return found


def test_the_search_of_a_trace_finds_a_mode_that_was_too_wide_for_a_moment():
    """It can fail: with a file, a folder, a socket, a pipe, and a mode that was widened."""
    trace = """1 umask(022) = 0
1 openat(AT_FDCWD, "/w/a", O_WRONLY|O_CREAT|O_CLOEXEC, 0666) = 3
2 mkdir("/w/b", 0777) = 0
1 mknodat(AT_FDCWD, "/w/e", S_IFIFO|0660) = 0
1 bind(3, {sa_family=AF_UNIX, sun_path="/w/c"}, 110) = 0
1 umask(077) = 022
1 openat(AT_FDCWD, "/w/d", O_RDWR|O_CREAT|O_NOFOLLOW|O_CLOEXEC, 0644) = 3
1 openat(AT_FDCWD, "/elsewhere", O_RDWR|O_CREAT, 0644) = 3
1 fchmod(3, 0640) = 0
1 chmod("/w/d", 0604) = 0
"""
    assert widest(trace, "/w") == {
        "/w/a": 0o644,
        "/w/b": 0o755,
        "/w/c": 0o755,
        "/w/d": 0o604,
        "/w/e": 0o640,
        "1 fchmod(3, 0640) = 0": 0o640,
    }


def until(true) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A provider that rotates refresh tokens."""
    with running(Options(auto_approve=True, apps=[APP], rotation=Rotation.ALWAYS)) as sandbox:
        yield sandbox


class Life:
    """A user's world under the widest umask; each command is traced, where that is allowed."""

    def __init__(self, sandbox: Sandbox, folder: Path, *, traced: bool) -> None:
        self.sandbox = sandbox
        self.daemon = DaemonProcess(folder, "")
        self.daemon.config.unlink()
        self.home = folder / "home"
        self.config = self.home / ".config" / "spotokend" / "config.toml"
        self.state = self.home / ".local" / "state" / "spotokend"
        self.spill = folder / "run" / "spotokend" / "spotokend.sock.unsaved"
        self.environ = self.daemon.environ | {"SPOTOKEND_CONFIG": str(self.config)}
        self._traces = folder / "traces"
        self._traces.mkdir()
        self._traced = traced

    def run(self, *arguments: str) -> str:
        """A command, to its end, which is a good one; its standard output."""
        done = subprocess.run(
            self._command(*arguments),
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            umask=0,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def detach(self) -> subprocess.Popen[bytes]:
        """``run --detach``; strace goes on until the daemon ends, where it traces."""
        process = subprocess.Popen(
            self._command("run", "--detach", "--log-level", "debug"),
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            umask=0,
        )
        log = self.state / "store.sqlite3.log"
        until(lambda: log.exists() and b'"ready"' in log.read_bytes())
        return process

    def client(self) -> spotokend.Client:
        """Over the socket."""
        return spotokend.Client(str(self.daemon.socket))

    def log_in(self, account: str) -> None:
        """As a program that opens its own browser."""
        begun = self.client().call("login_start", account=account)
        end = httpx.get(begun["url"], trust_env=False).headers["location"]
        self.client().call("login_finish", login_id=begun["login_id"], redirect_url=end)

    def made(self) -> dict[str, int]:
        """The widest mode of everything, in all traces."""
        found: dict[str, int] = {}
        for trace in self._traces.iterdir():
            for name, mode in widest(trace.read_text(), str(self.daemon.folder)).items():
                found[name] = found.get(name, 0) | mode
        return found

    def modes(self) -> dict[str, str]:
        """Of all that there is now, as ``ls -l`` shows them."""
        return {
            str(path.relative_to(self.daemon.folder)): stat.filemode(path.lstat().st_mode)
            for top in (self.home, self.daemon.folder / "run")
            for path in top.rglob("*")
        }

    def _command(self, *arguments: str) -> list[str]:
        command = [sys.executable, "-m", "spotokend", *arguments]
        if not self._traced:
            return command
        output = self._traces / str(len(list(self._traces.iterdir())))
        options = ["-f", "--seccomp-bpf", "-qq", "-o", str(output), "-e", f"trace={CALLS}"]
        return ["strace", *options, *command]


def may_trace(folder: Path) -> bool:
    """strace is here, and the kernel lets it."""
    probe = [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-e",
        "trace=mkdir",
        "-o",
        str(folder / "probe"),
        "true",
    ]
    return shutil.which("strace") is not None and not subprocess.run(probe, check=False).returncode


def test_nothing_is_ever_readable_by_others(sandbox: Sandbox, short_path: Path):
    """A whole life: first configuration, detached start, login, refresh, spill, reload, a new key,
    stop and purge. Between being made and being narrowed nothing is wide, either."""
    traced = may_trace(short_path)
    life = Life(sandbox, short_path, traced=traced)
    life.run("config", "init", "--client-id", APP.client_id)
    address = f"http://{urlsplit(sandbox.url).netloc}"
    with life.config.open("a") as config:
        config.write(
            f'authorize_url = "{address}/authorize"\ntoken_url = "{address}/api/token"\n'
            f'identity_url = "{address}/v1/me"\n{TIMING}'
        )
    starting = life.detach()
    life.log_in("main")
    assert life.run("token")
    life.run("refresh")
    spilled(life)
    life.run("reload")
    with suppress(spotokend.UnknownMethod):
        life.client().call("rekey")
    life.run("status")
    running_modes = life.modes()
    life.run("stop")
    starting.wait(PATIENCE)
    stopped_modes = life.modes()
    life.run("service", "uninstall", "--purge")

    names = {name for name in running_modes if not name.endswith("-wal")}
    assert names >= {
        "home/.config",
        "home/.config/spotokend",
        "home/.config/spotokend/config.toml",
        "home/.local",
        "home/.local/state",
        "home/.local/state/spotokend",
        "home/.local/state/spotokend/key",
        "home/.local/state/spotokend/store.sqlite3",
        "home/.local/state/spotokend/store.sqlite3.lock",
        "home/.local/state/spotokend/store.sqlite3.log",
        "run/spotokend",
        "run/spotokend/spotokend.sock",
        "run/spotokend/spotokend.sock.pid",
    }
    assert "run/spotokend/spotokend.sock.pid" not in stopped_modes
    for modes in (running_modes, stopped_modes):
        wide = {name for name, mode in modes.items() if mode[1:] not in ("rwx------", "rw-------")}
        assert wide == set()
    assert {name for name in life.modes() if "spotokend" in name} == set()
    if not traced:
        return
    made = life.made()
    assert {Path(name).name for name in made} >= {
        "spotokend",
        "spotokend.sock",
        "spotokend.sock.pid",
        "spotokend.sock.unsaved",
        "store.sqlite3",
        "store.sqlite3-wal",
        "store.sqlite3.lock",
        "store.sqlite3.log",
    }
    assert {name: oct(mode) for name, mode in made.items() if mode & 0o077} == {}


def test_passphrase_service_and_salvage_are_as_narrow(sandbox: Sandbox, short_path: Path):
    """The wrapped keys, units, and what is saved of a damaged store."""
    traced = may_trace(short_path)
    life = Life(sandbox, short_path, traced=traced)
    for name, text in (("systemctl", "exit 0"), ("ask", "echo correct horse")):
        (short_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (short_path / name).chmod(0o700)
    life.environ["PATH"] = f"{short_path}:{life.environ['PATH']}"
    life.run("config", "init", "--client-id", APP.client_id)
    life.run("service", "install")
    address = f"http://{urlsplit(sandbox.url).netloc}"
    with life.config.open("a") as config:
        config.write(f'authorize_url = "{address}/authorize"\ntoken_url = "{address}/api/token"\n')
        config.write('identity_url = "none"\n')
        config.write(f'\n[store]\nkey = {{ passphrase = ["{short_path}/ask"] }}\n')
    store = life.state / "store.sqlite3"
    for damage in (False, True):
        if damage:
            data = bytearray(store.read_bytes())
            data[4096:8192] = b"\xff" * 4096
            store.write_bytes(data)
            (life.state / "store.sqlite3.log").unlink()
        starting = life.detach()
        if not damage:
            until(lambda: logged_in(life))
        life.run("stop")
        starting.wait(PATIENCE)
    names = life.modes()
    assert {name.rpartition("/")[2] for name in names} >= {
        "key.wrapped",
        "spotokend.service",
        "spotokend.socket",
    }
    assert [name for name in names if "store.sqlite3" in name and "damaged" in name]
    wide = {name for name, mode in names.items() if mode[1:] not in ("rwx------", "rw-------")}
    assert wide == set()
    if traced:
        made = life.made()
        assert "store.sqlite3" in {Path(name).name for name in made}
        assert {name: oct(mode) for name, mode in made.items() if mode & 0o077} == {}


def logged_in(life: Life) -> bool:
    """A key takes a moment to be made of a passphrase."""
    with suppress(spotokend.Locked):
        life.log_in("main")
        return True
    return False


def spilled(life: Life) -> None:
    """An answer that the store's disk doesn't take: no file may grow beyond a page of SQLite's."""
    pid = int(life.daemon.socket.with_name("spotokend.sock.pid").read_text())
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    handle = life.sandbox.provider.handle

    def handle_late(request: Request) -> Response:
        if request.path == "/api/token":
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (4000, limits[1]))
        return handle(request)

    life.sandbox.provider.handle = handle_late
    life.client().call("refresh")
    life.sandbox.provider.handle = handle
    [spill] = life.spill.iterdir()
    assert stat.S_IMODE(spill.stat().st_mode) == 0o600
    resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
    until(lambda: not spill.exists())
