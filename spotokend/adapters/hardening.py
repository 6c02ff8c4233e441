"""This process keeps its memory to itself: no core dump, no debugger, no swap where that can be had.

Called first, before anything secret is read. Nothing here is ever fatal, and nothing makes a later
allocation fail. The kernel then hands ``/proc/PID`` of this process to root: others of the same
user can no longer read its environment, its memory or its open files (proc(5), ptrace(2)).
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource
from contextlib import suppress

_PR_SET_DUMPABLE = 4  # <linux/prctl.h>
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4  # <asm-generic/mman.h>
_COREDUMP_FILTER = "/proc/self/coredump_filter"


def harden() -> dict[str, str]:
    """Do all of it; what was done and how far, in words, by what it is about."""
    # What libraries log may hold anything: asyncio's debug mode shows the bytes that it received.
    logging.disable()
    return {"dumps": forbid_dumps(), "memory": lock_memory()}


def forbid_dumps() -> str:
    """No core dump of this process, and nobody but root may trace it; how far that went, in words.

    The limit is inherited by the commands that the daemon runs, which read secrets, too; the rest
    ends with their exec(2).
    """
    failed = []
    # Of a dump that is made nevertheless: nothing of the memory. Root's, where it was done before.
    with suppress(OSError), open(_COREDUMP_FILTER, "r+b", buffering=0) as file:
        file.write(b"0")
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError) as error:  # ValueError: not permitted
        failed.append(f"RLIMIT_CORE: {error}")
    # Also where the kernel pipes dumps to a program, which asks for no limit (core(5)).
    if _libc().prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        failed.append(f"PR_SET_DUMPABLE: {os.strerror(ctypes.get_errno())}")
    return f"not all was refused: {'; '.join(failed)}" if failed else "no core dumps, no tracing"


def lock_memory() -> str:
    """Keep all memory out of swap, if no limit counts; how far that went, in words.

    All or nothing: Python's strings lie anywhere in its heap, and are copied. Under a limit
    ``MCL_FUTURE`` would let an allocation fail as soon as the limit is reached (mlockall(2)), and
    Debian's 8 MiB are a third of what the daemon needs.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    unlimited = resource.RLIM_INFINITY
    # Under a limit of nothing the call is let through only where no limit counts: a look at the
    # capabilities wouldn't tell, because in a user namespace CAP_IPC_LOCK is worth nothing.
    asked = unlimited if hard == unlimited else 0
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (asked, hard))
    # On fault: the stacks of the threads would otherwise take their 8 MiB each at once.
    flags = _MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT
    refused = _libc().mlockall(flags)
    number = ctypes.get_errno()
    if asked != unlimited:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, hard))
    if not refused:
        return "locked: nothing is swapped out"
    return f"not locked, may be swapped out: {os.strerror(number)} (limit {hard} bytes)"


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
