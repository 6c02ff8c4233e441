"""The daemon as a process: how it starts, heeds signals and ends."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from daemon_process import DaemonProcess
from world import CONFIG

import spotokend
from spotokend.adapters.lockfile import AlreadyRunning
from spotokend.rules.config.parse import parse
from spotokend.sandbox import (
    Fault,
    Kind,
    Options,
    Rotation,
    Sandbox,
    ready_configuration,
    running,
)
from spotokend.service import daemon as daemon_module
from spotokend.service.daemon import Daemon


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """The provider."""
    with running(Options(auto_approve=True)) as sandbox:
        yield sandbox


@pytest.fixture
def daemon(sandbox: Sandbox, short_path: Path) -> DaemonProcess:
    """A daemon that isn't started yet, with a client-credentials account among others."""
    folder = str(short_path)
    return DaemonProcess(
        short_path, ready_configuration(sandbox.url, sandbox.provider.options, folder=folder)
    )


def modes(folder: Path) -> dict[str, str]:
    """The permissions of everything below ``folder``."""
    return {
        str(path.relative_to(folder)): oct(path.lstat().st_mode & 0o777)
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_0_and_the_socket_goes(daemon: DaemonProcess, how: int):
    """SIGTERM as from systemd, SIGINT as from a terminal."""
    with daemon:
        assert daemon.socket.exists()
        os.kill(daemon.pid, how)
        assert daemon.wait() == 0
    assert not daemon.socket.exists()


def test_stop_ends_it(daemon: DaemonProcess):
    """``spotokend stop`` waits until it has ended."""
    with daemon:
        assert daemon.run("stop").returncode == 0
        assert daemon.wait() == 0


def test_all_that_it_makes_is_the_users_alone(daemon: DaemonProcess):
    """Whatever the umask was."""
    with daemon, spotokend.Client(str(daemon.socket)) as client:
        client.token("machine")
        state = daemon.folder / "home" / ".local" / "state" / "spotokend"
        made = modes(state) | modes(daemon.folder / "run")
        assert {"store.sqlite3", "key", "spotokend/spotokend.sock"} <= made.keys()
        assert set(made.values()) == {"0o600", "0o700"}
        assert oct(state.stat().st_mode & 0o777) == "0o700"


def test_a_second_one_refuses_to_start_and_names_the_first(daemon: DaemonProcess):
    """And harms it in nothing."""
    with daemon:
        second = daemon.run("run")
        assert second.returncode == 2
        assert str(daemon.pid) in second.stderr
        assert daemon.run("token", "machine").returncode == 0


def test_a_stale_socket_of_a_killed_one_is_no_obstacle(daemon: DaemonProcess):
    """Kill -9 leaves the path behind."""
    daemon.start().kill()
    assert daemon.socket.exists()
    with daemon:
        assert daemon.run("token", "machine").returncode == 0


def test_a_stored_token_is_served_before_httpx_and_structlog_are_loaded(daemon: DaemonProcess):
    """Each costs as much as the rest of the start."""
    with daemon:
        assert daemon.run("token", "machine").returncode == 0
    daemon.environ["PYTHONPROFILEIMPORTTIME"] = "1"
    daemon.errors.write_text("")
    with daemon, spotokend.Client(str(daemon.socket)) as client:
        client.token("machine")
        loaded = daemon.written()
    assert "| spotokend.service.daemon" in loaded.replace("|   ", "| ").replace("  ", "")
    assert "httpx" not in loaded


def test_sighup_applies_a_good_configuration(daemon: DaemonProcess):
    """As ``spotokend reload`` does; both say what changed."""
    with daemon:
        daemon.configure(daemon.config.read_text() + '\n[accounts.dave]\nclient = "pkce"\n')
        daemon.reload()
        deadline = time.monotonic() + 10
        while "dave" not in daemon.run("status").stdout:
            assert time.monotonic() < deadline
        daemon.configure(daemon.config.read_text().replace("dave", "erin"))
        told = daemon.run("reload")
        assert told.returncode == 0
        assert "dave" in told.stdout + told.stderr
        assert "erin" in told.stdout + told.stderr


def test_a_bad_configuration_is_refused_and_all_goes_on_as_before(daemon: DaemonProcess):
    """Nothing of it is applied; the words say what is wrong."""
    with daemon:
        good = daemon.config.read_text()
        daemon.configure(good.replace('client = "machine"', 'client = "nobody"'))
        refused = daemon.run("reload")
        assert refused.returncode == 2
        assert "nobody" in refused.stderr
        daemon.reload()
        deadline = time.monotonic() + 10
        while "reload_refused" not in daemon.written():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert daemon.run("token", "machine").returncode == 0


def test_the_command_lines_log_level_outlives_a_reload(daemon: DaemonProcess):
    """``--log-level`` wins over the configuration."""
    daemon.start("--log-level", "error")
    try:
        assert daemon.run("reload").returncode == 0
        assert daemon.run("refresh", "machine").returncode == 0
    finally:
        daemon.terminate()
    assert daemon.written() == ""


def test_another_key_is_refused_and_nothing_is_overwritten(daemon: DaemonProcess):
    """The store keeps what it has for the day on which the key is found."""
    daemon.start()
    assert daemon.run("token", "machine").returncode == 0
    daemon.terminate()
    state = daemon.folder / "home" / ".local" / "state" / "spotokend"
    key, store = (state / "key"), (state / "store.sqlite3")
    right, stored = key.read_bytes(), store.read_bytes()
    key.unlink()
    missing = daemon.run("run")
    assert missing.returncode == 2
    assert not key.exists()
    other = daemon.folder / "other"
    other.mkdir()
    DaemonProcess(other, daemon.config.read_text()).start().terminate()
    key.write_bytes((other / "home" / ".local" / "state" / "spotokend" / "key").read_bytes())
    key.chmod(0o600)
    wrong = daemon.run("run")
    assert wrong.returncode == 2
    assert "key" in wrong.stderr
    assert store.read_bytes() == stored
    key.write_bytes(right)
    with daemon:
        assert daemon.run("token", "machine").returncode == 0


# --- an answer on its way when the end comes

ROOM = 16_384
"""Bytes of a file: the store's log has more, the rest of what a daemon writes has less."""


@pytest.fixture
def rotating(short_path: Path) -> Iterator[tuple[Sandbox, DaemonProcess]]:
    """A provider that takes a second use of a refresh token for a theft; Alice is logged in."""
    options = Options(auto_approve=True, rotation=Rotation.ALWAYS, revoke_family=True)
    with running(options) as sandbox:
        configuration = ready_configuration(sandbox.url, options, folder=str(short_path))
        configuration += "\n[timing]\nforced_interval = 0\n"
        with DaemonProcess(short_path, configuration) as daemon:
            with spotokend.Client(str(daemon.socket)) as client:
                log_in(client)
            yield sandbox, daemon


def log_in(client: spotokend.Client) -> None:
    """What the user's browser does."""
    begun = client.call("login_start", account="alice")
    end = httpx.get(begun["url"], trust_env=False).headers["location"]
    client.call("login_finish", login_id=begun["login_id"], redirect_url=end)


@contextmanager
def late_answer(sandbox: Sandbox, daemon: DaemonProcess, seconds: float) -> Iterator[None]:
    """Within it the provider has Alice's refresh token, and its answer is that late."""
    fault = Fault(kind=Kind.SLOW, seconds=seconds, count=1, client="sandbox-pkce-client")
    sandbox.provider.faults.add(fault)
    before = len(sandbox.provider.record.log())

    def refresh() -> None:
        with suppress(spotokend.SpotokendError), spotokend.Client(str(daemon.socket)) as client:
            client.call("refresh", account="alice")

    asking = threading.Thread(target=refresh)
    asking.start()
    until(lambda: len(sandbox.provider.record.log()) > before)
    yield
    asking.join(30)


def until(condition: Callable[[], object]) -> None:
    """Wait for something that no event tells."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def limit_files(daemon: DaemonProcess, size: int) -> None:
    """From now on no file of the daemon's grows beyond that: as a full disk, for the larger ones."""
    _, hard = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (size, hard))


def generation(daemon: DaemonProcess) -> int:
    with spotokend.Client(str(daemon.socket)) as client:
        return client.token("alice").generation


def status(daemon: DaemonProcess) -> dict[str, Any]:
    with spotokend.Client(str(daemon.socket)) as client:
        return client.status("alice")["accounts"][0]


def goes_on(sandbox: Sandbox, daemon: DaemonProcess) -> bool:
    """The grant is the newest: the provider takes it, and has seen none twice."""
    with spotokend.Client(str(daemon.socket)) as client:
        before = client.token("alice").generation
        return (
            client.refresh("alice").generation == before + 1
            and sandbox.provider.ledger.double_redemptions == 0
        )


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_in_the_middle_of_a_refresh_loses_no_answer(
    rotating: tuple[Sandbox, DaemonProcess], how: int
):
    """It is waited for, stored, and found by the next daemon; a reload waits for nothing."""
    sandbox, daemon = rotating
    with late_answer(sandbox, daemon, 1.5):
        os.kill(daemon.pid, how)
        if how != signal.SIGHUP:
            assert daemon.wait() == 0
    if how != signal.SIGHUP:
        daemon.start()
    assert generation(daemon) == 2
    assert goes_on(sandbox, daemon)


@pytest.mark.parametrize("who", ["login", "logout"])
def test_a_login_or_logout_in_the_middle_of_a_refresh_wins(
    rotating: tuple[Sandbox, DaemonProcess], who: str
):
    """And survives the kill right after it."""
    sandbox, daemon = rotating
    with late_answer(sandbox, daemon, 1.5):
        with spotokend.Client(str(daemon.socket)) as client:
            if who == "login":
                log_in(client)
            else:
                client.call("logout", account="alice")
        until(lambda: "refresh_fenced" in daemon.written())
    daemon.kill()
    daemon.start()
    if who == "login":
        assert generation(daemon) == 3
        assert goes_on(sandbox, daemon)
    else:
        assert status(daemon)["state"] == "needs_login"


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_an_answer_that_the_disk_does_not_take_survives_the_end(
    rotating: tuple[Sandbox, DaemonProcess], end: str
):
    """It lies beside the socket, nobody else's; the next daemon has it before anybody asks."""
    sandbox, daemon = rotating
    spilled = daemon.socket.with_name("spotokend.sock.unsaved")
    with late_answer(sandbox, daemon, 1.0):
        limit_files(daemon, ROOM)
    assert generation(daemon) == 2
    account = status(daemon)
    assert (account["state"], account["durable"]) == ("unsaved", False)
    assert modes(spilled) == {"alice.spill": "0o600"}
    assert oct(spilled.stat().st_mode & 0o777) == "0o700"
    if end == "terminate":
        assert daemon.terminate() == 0
        assert "a sealed copy lies beside the socket" in daemon.written()
    else:
        daemon.kill()
    assert list(spilled.iterdir()) != []
    daemon.start()
    until(lambda: "spill_saved" in daemon.written())
    assert (generation(daemon), status(daemon)["durable"]) == (2, True)
    assert list(spilled.iterdir()) == []
    assert goes_on(sandbox, daemon)


def test_nothing_but_a_kill_ends_it_while_an_answer_is_nowhere_but_in_memory(
    rotating: tuple[Sandbox, DaemonProcess],
):
    """No room in the store, no folder for the file: it says so and waits; with room it ends."""
    sandbox, daemon = rotating
    daemon.socket.with_name("spotokend.sock.unsaved").write_text("in the way")
    with late_answer(sandbox, daemon, 1.0):
        limit_files(daemon, ROOM)
    assert "no copy could be put beside the socket" in status(daemon)["reason"]
    os.kill(daemon.pid, signal.SIGTERM)
    until(lambda: "stop_waits" in daemon.written())
    with pytest.raises(subprocess.TimeoutExpired):
        daemon.wait(1.0)
    assert generation(daemon) == 2
    limit_files(daemon, resource.RLIM_INFINITY)
    assert daemon.wait() == 0
    daemon.start()
    assert generation(daemon) == 2
    assert goes_on(sandbox, daemon)


def test_a_restart_in_an_outage_does_not_ask_at_once(rotating: tuple[Sandbox, DaemonProcess]):
    """``Retry-After`` of an hour, heard by Alice; after the restart it holds for Bob, too."""
    sandbox, daemon = rotating
    sandbox.provider.faults.add(Fault(kind=Kind.ANSWER, status=429, retry_after="3600"))
    with spotokend.Client(str(daemon.socket)) as client:
        with pytest.raises(spotokend.Unavailable):
            client.refresh("alice")
        asked = len(sandbox.provider.record.log())
        assert daemon.terminate() == 0
        daemon.start()
        with pytest.raises(spotokend.Unavailable) as refused:
            client.refresh("alice")
        assert refused.value.retry_after > 3000
        told = client.status()["clients"]["pkce"]["gate"]
        assert (told["state"], told["failures"]) == ("closed", 1)
    assert len(sandbox.provider.record.log()) == asked


class Broken:
    """In the place of the log, and of the logins, of a daemon that meets a defect."""

    def __init__(self) -> None:
        self.logged: list[str] = []

    def __call__(self, event: str, **fields: object) -> None:
        self.logged.append(event)

    def open(self) -> None:
        """As a log's."""

    async def fail(self) -> None:
        raise LookupError("access-1")

    resume = fail

    async def opened(self) -> None:
        """As keys that are there."""


@pytest.mark.anyio
async def test_a_defect_in_a_reload_or_in_a_login_that_was_cut_off_ends_no_daemon():
    """Whoever is served, and what is not saved yet, would end with it."""
    broken = Broken()
    daemon = Daemon(parse(CONFIG), "config.toml", "socket", broken)
    daemon.reload = broken.fail
    await daemon._reload_or_say_why()
    await daemon._load_the_slow_parts(broken, broken)
    assert broken.logged == ["defect", "defect"]


@pytest.mark.anyio
async def test_an_end_waits_for_no_reload(monkeypatch):
    """A reload may wait for a late answer, up to a minute; the SIGTERM after it is heeded at once."""
    daemon = Daemon(parse(CONFIG), "config.toml", "socket", Broken())
    begun = anyio.Event()

    async def reload():
        begun.set()
        await anyio.sleep_forever()

    monkeypatch.setattr(daemon, "reload", reload)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            await tasks.start(daemon._heed_signals)
            os.kill(os.getpid(), signal.SIGHUP)
            await begun.wait()
            os.kill(os.getpid(), signal.SIGTERM)
            await daemon._stop.wait()
            tasks.cancel_scope.cancel()


def test_a_start_that_is_refused_leaves_the_signals_as_they_were(short_path, monkeypatch):
    """They are held back from before the socket is there until the loop can heed them."""
    config = short_path / "config.toml"
    config.touch(0o600)
    config.write_text(CONFIG)
    monkeypatch.setenv("XDG_STATE_HOME", str(short_path))
    monkeypatch.setenv("SPOTOKEND_SOCK", str(short_path / "sock"))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    umask = os.umask(0)
    os.umask(umask)
    seen = []

    @contextmanager
    def in_use(_path: str, _held: object) -> Iterator[None]:
        seen.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        raise AlreadyRunning("somebody is here", None)
        yield

    monkeypatch.setattr(daemon_module, "listening", in_use)
    monkeypatch.setattr(daemon_module, "harden", dict)
    try:
        with pytest.raises(spotokend.Misconfigured, match="somebody is here"):
            daemon_module.run(str(config))
    finally:
        os.umask(umask)
    assert seen[0] >= set(daemon_module.SIGNALS)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
