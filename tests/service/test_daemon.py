"""The daemon as a process: how it starts, heeds signals and ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_process import DaemonProcess

import spotokend
from spotokend.sandbox import Options, Sandbox, ready_configuration, running


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
