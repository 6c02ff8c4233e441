"""strace on a living process: which system calls it makes, and a kill or an error at one of them.

Real faults at real places, without a fault point in the program: ``strace --inject`` ends the
process, or lets the kernel answer with an error, when a thread is about to make its n-th call of a
kind. Whoever uses it asks for the fixture ``strace``, which leaves the test out where that program
is missing, or may not trace.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

NET = ("socket", "connect", "sendto", "sendmsg", "recvfrom", "recvmsg", "close")
DISK = ("openat", "write", "pwrite64", "fsync", "fdatasync", "ftruncate", "rename", "unlink")
OF_INTEREST = NET + DISK
"""What the outside can see of a process."""


@dataclass(frozen=True, slots=True)
class Call:
    """One system call of a recorded process."""

    thread: int
    name: str
    number: int
    """The how-manyth call of that name by that thread, from one."""
    shown: str
    """Arguments and result, as strace shows them."""


def record(pid: int, act: Callable[[], object], folder: Path) -> list[Call]:
    """The calls :data:`OF_INTEREST` that all threads of ``pid`` make while ``act`` runs, in order."""
    output = folder / "strace.secret"  # it shows how an answer with a token is written
    wanted = f"trace={','.join(OF_INTEREST)}"
    with _attached("-f", "-y", "-s", "64", "-e", wanted, "-o", str(output), "-p", str(pid)):
        act()
    return parse(output.read_text(errors="replace"))


def parse(text: str) -> list[Call]:
    """Calls in the order in which they began, of what ``strace -f -o`` has written."""
    found: list[tuple[int, str, str]] = []
    unfinished: dict[int, int] = {}
    for line in text.splitlines():
        thread, rest = int(line.split(maxsplit=1)[0]), line.split(maxsplit=1)[1]
        if resumed := re.match(r"<\.\.\. \w+ resumed>(.*)", rest):
            # Of a call that was begun before the recording there is only this end.
            if (begun := unfinished.pop(thread, None)) is not None:
                found[begun] = (*found[begun][:2], found[begun][2] + resumed[1])
        elif called := re.match(r"(\w+)(\(.*)", rest):
            name, shown = called[1], called[2].removesuffix(" <unfinished ...>")
            if shown != called[2]:
                unfinished[thread] = len(found)
            found.append((thread, name, shown))
    counted: Counter[tuple[int, str]] = Counter()
    calls = []
    for thread, name, shown in found:
        counted[thread, name] += 1
        calls.append(Call(thread, name, counted[thread, name], shown))
    return calls


@contextmanager
def killed_at(
    pid: int, name: str, number: int, *, main_thread: bool = False, path: Path | None = None
) -> Iterator[None]:
    """SIGKILL when the main thread, or any other one, is about to make that call.

    With ``path`` only calls that concern that file are counted. The call itself is not made any
    more. Leaving the block ends the watch, whether it came to that or not.
    """
    which = [] if path is None else ["-P", str(path)]
    for thread in [pid] if main_thread else _others(pid):
        which += ["-p", str(thread)]
    with _attached("-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}", *which):
        yield


@contextmanager
def failing(pid: int, error: str, *names: str, below: Path) -> Iterator[None]:
    """Meanwhile these calls, where they concern a file in the folder ``below``, end with an error.

    ``error`` is its name, such as ``ENOSPC``. Nothing of the call is carried out.
    """
    paths = [option for path in below.iterdir() for option in ("-P", str(path))]
    calls = ",".join(names)
    inject = f"inject={calls}:error={error}"
    with _attached("-f", "-e", f"trace={calls}", "-e", inject, *paths, "-p", str(pid)):
        yield


def open_files(pid: int) -> list[str]:
    """The numbers of a process's descriptors. A daemon shows them to root alone."""
    try:
        return os.listdir(f"/proc/{pid}/fd")
    except PermissionError:
        pytest.skip("how many files a daemon has open: only root can see that")


def _others(pid: int) -> list[int]:
    threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    return [thread for thread in threads if thread != pid]


@contextmanager
def _attached(*options: str) -> Iterator[None]:
    process = subprocess.Popen(
        ["strace", *(() if "-o" in options else ("-o", "/dev/null")), *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for _ in range(options.count("-p")):
            line = process.stderr.readline()
            assert " attached" in line, line + process.stderr.read()
        yield
    finally:
        process.terminate()  # it lets go of what still lives
        process.communicate()


@pytest.fixture(scope="session")
def strace() -> None:
    """It is here, and may trace."""
    if shutil.which("strace") is None:
        pytest.skip("faults at system calls: strace isn't installed (Debian: strace)")
    # As the daemon is: its user alone doesn't suffice.
    program = (
        "from spotokend.adapters.hardening import forbid_dumps as f; print(f(), flush=1); input()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as victim:
        try:
            assert victim.stdout is not None
            victim.stdout.readline()
            with suppress(AssertionError), _attached("-e", "trace=none", "-p", str(victim.pid)):
                return
        finally:
            victim.kill()
    pytest.skip("faults at system calls: strace may not trace here (see ptrace(2), Yama)")
