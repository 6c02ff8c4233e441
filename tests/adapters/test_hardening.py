"""A process that was hardened: each test has one of its own, and looks at it from outside."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys

import pytest

from spotokend.adapters import hardening

UNLIMITED = resource.RLIM_INFINITY
MIB = 1024 * 1024


def in_a_process(program, **options):
    """What a fresh interpreter prints and how it ends; ``hardening`` is imported there."""
    return subprocess.run(
        [sys.executable, "-c", f"from spotokend.adapters import hardening\n{program}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        **options,
    )


def printed(program, **options):
    """The lines of one that ended well."""
    done = in_a_process(program, **options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_crash_leaves_no_core(tmp_path):
    """Although the limit was as high as it can be."""
    done = in_a_process(
        f"import os, signal; os.chdir({str(tmp_path)!r})\n"
        "hardening.forbid_dumps(); os.kill(os.getpid(), signal.SIGSEGV)",
        preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2
        ),
    )

    assert done.returncode == -signal.SIGSEGV
    assert list(tmp_path.iterdir()) == []


def test_nobody_but_root_may_look_inside():
    """The kernel's word for it, the limit, and to whom the files in /proc belong then."""
    lines = printed(
        "import ctypes, os, resource\n"
        "print(hardening.forbid_dumps())\n"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))\n"  # PR_GET_DUMPABLE
        "print(resource.getrlimit(resource.RLIMIT_CORE))\n"
        "print(os.stat('/proc/self/environ').st_uid)\n"
    )

    assert lines == ["no core dumps, no tracing", "0", "(0, 0)", "0"]


def test_doing_it_twice_is_the_same():
    """A daemon that detaches does it before, and again in its own process."""
    assert printed("hardening.forbid_dumps(); print(hardening.forbid_dumps())") == [
        "no core dumps, no tracing"
    ]


def test_what_the_kernel_refuses_is_told(monkeypatch):
    """In words, and nothing else happens."""

    class Refusing:
        def prctl(self, *arguments):
            ctypes.set_errno(1)
            return -1

    def refuse(*arguments):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(hardening, "_libc", Refusing)
    monkeypatch.setattr(hardening, "_COREDUMP_FILTER", "/nonexistent")
    monkeypatch.setattr(hardening.resource, "setrlimit", refuse)

    assert hardening.forbid_dumps() == (
        "not all was refused: RLIMIT_CORE: not allowed to raise maximum limit; "
        "PR_SET_DUMPABLE: Operation not permitted"
    )


LATER = f"""
print(hardening.lock_memory())
import os, resource, threading
print(resource.getrlimit(resource.RLIMIT_MEMLOCK))
more = bytearray({64 * MIB})  # beyond the limit
threads = [threading.Thread(target=len, args=(more,)) for _ in range(8)]
for thread in threads:
    thread.start()
print(os.waitstatus_to_exitcode(os.system("true")))
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmLck")])
"""


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] == UNLIMITED and os.geteuid() != 0,
    reason="there is no limit here, and only root may have it counted",
)
@pytest.mark.parametrize("limit", [0, 8 * MIB])
def test_under_a_limit_nothing_is_locked_and_no_allocation_fails(limit):
    """Which is what ``MCL_FUTURE`` would bring, as soon as the limit is reached."""

    def unprivileged():
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
        if os.geteuid() == 0:
            _drop(14)  # CAP_IPC_LOCK

    assert printed(LATER, preexec_fn=unprivileged) == [
        f"not locked, may be swapped out: Operation not permitted (limit {limit} bytes)",
        f"({limit}, {limit})",
        "0",
        "['0']",
    ]


def _drop(capability):
    """Take the capability out of the bounding set: the next program hasn't got it."""
    assert ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) == 0  # PR_CAPBSET_DROP


@pytest.mark.skipif(
    os.geteuid() != 0 and resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] != UNLIMITED,
    reason="only root, or who has no limit, may lock all of the memory",
)
def test_where_no_limit_counts_all_memory_is_locked():
    """What comes later, too; the limit is as it was."""
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    first, limit, ended, (locked) = printed(LATER)

    assert (first, ended) == ("locked: nothing is swapped out", "0")
    assert limit.endswith(f"{hard})")
    assert int(locked.strip("[']")) > 64 * 1024


def test_all_of_it_in_words(monkeypatch):
    """And what libraries log is silenced: asyncio's debug mode shows what it received."""
    lines = printed(
        "import logging\n"
        "print(sorted(hardening.harden()))\n"
        "logging.getLogger('asyncio').error('planted-1')\n"
        "logging.critical('planted-1')\n"
    )

    assert lines == ["['dumps', 'memory']"]
