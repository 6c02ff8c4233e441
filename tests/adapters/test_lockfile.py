"""The lock: one holder, who is named, and who lets go by ending."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys

import pytest

from spotokend.adapters.lockfile import AlreadyRunning, StateLock
from spotokend.errors import Misconfigured

HOLDER = """
import sys
from spotokend.adapters.lockfile import StateLock

with StateLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    """The lock's file, in a folder that is still to be made."""
    return tmp_path / "spotokend" / "lock"


def test_the_holder_is_named_to_the_second(path):
    """By its process id, which the error has apart as well."""
    with StateLock(str(path)):
        with pytest.raises(AlreadyRunning, match=f"process id {os.getpid()} is running") as caught:
            StateLock(str(path)).__enter__()
        assert caught.value.pid == os.getpid()
        assert path.read_text(encoding="ascii") == f"{os.getpid()}\n"


def test_a_lock_that_was_left_is_free(path):
    """After the block, and after a block that raised; the file stays."""
    with pytest.raises(KeyError), StateLock(str(path)):
        raise KeyError
    with StateLock(str(path)) as lock:
        assert lock.path == str(path)
    assert path.exists()


def test_the_kernel_frees_the_lock_of_a_killed_process(path):
    """Nothing is to be cleaned up after kill -9, and the pid that it left misleads nobody."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(AlreadyRunning) as caught:
            StateLock(str(path)).__enter__()
        assert caught.value.pid == holder.pid
        holder.send_signal(signal.SIGKILL)
    assert path.read_text(encoding="ascii") == f"{holder.pid}\n"

    with StateLock(str(path)):
        assert path.read_text(encoding="ascii") == f"{os.getpid()}\n"


@pytest.mark.parametrize("content", ["", "not a number", "1" * 100])
def test_stale_content_is_harmless(path, content):
    """It says nothing about who holds the lock, and is replaced as a whole."""
    path.parent.mkdir()
    path.write_text(content, encoding="ascii")

    with StateLock(str(path)):
        assert path.read_text(encoding="ascii") == f"{os.getpid()}\n"


def test_a_holder_that_has_not_yet_said_who_it_is(path):
    """There is a moment between locking and writing."""
    with StateLock(str(path)):
        path.write_text("", encoding="ascii")
        with pytest.raises(AlreadyRunning, match="another spotokend is running") as caught:
            StateLock(str(path)).__enter__()
        assert caught.value.pid is None


def test_the_file_is_its_owners_and_not_passed_on(path):
    """Neither to other users nor to programs that the holder starts."""
    before = os.umask(0)
    try:
        with StateLock(str(path)) as lock:
            assert not os.get_inheritable(lock._file)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_a_place_that_takes_no_lock_says_so(path):
    """A link is not followed: it would create or truncate what it points to."""
    path.parent.mkdir()
    path.symlink_to("elsewhere")

    with pytest.raises(Misconfigured, match=f"the lock {path} can't be opened") as caught:
        StateLock(str(path)).__enter__()
    assert "rights" in caught.value.hint
    assert not (path.parent / "elsewhere").exists()


def test_where_a_sandbox_lets_nobody_write_the_cure_is_another(path, monkeypatch):
    """The folder's rights are fine; it is the unit that knows nothing of the folder."""

    def read_only(*arguments):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(Misconfigured, match="Read-only file system") as caught:
        StateLock(str(path)).__enter__()
    assert caught.value.hint.endswith("spotokend service install")


def test_what_goes_wrong_while_locking_leaves_nothing_open(path, monkeypatch):
    """A full disk, say; the next try isn't refused by the leftover of this one."""

    def no_room(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, "pwrite", no_room)
        StateLock(str(path)).__enter__()
    with StateLock(str(path)):
        pass
