"""``spotokend run --detach``: a daemon of the old kind, for machines without systemd (PEP 3143).

The caller is told by :func:`detached` how the start went, and not only that it was begun. What the
daemon says goes to a file that never grows beyond two times :data:`LOG_LIMIT`. Which process it is
stands in a file with a lock: only the lock tells that it lives, so that a number left behind by a
crash is no obstacle.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from spotokend.errors import Misconfigured, SpotokendError, from_wire

LOG_LIMIT = 1024 * 1024
"""Bytes: then the file is moved to ``.1``, over the one that lay there."""

_UNDER_SYSTEMD = "without --detach: systemd keeps it in the background, and sees how it is"


def refuse_under_systemd(environ: Mapping[str, str]) -> None:
    """Raises :class:`~spotokend.errors.Misconfigured` in a process that systemd has started.

    It would take the process that it knows for ended, and end the other.
    """
    # What systemd sets is inherited: by the shells of a desktop's terminal, and by cron's jobs,
    # which both have an $INVOCATION_ID and may well detach. The pids tell who is meant
    # (systemd.exec(5): SYSTEMD_EXEC_PID since 248; sd_listen_fds(3)).
    own = str(os.getpid())
    told = {
        "NOTIFY_SOCKET": True,
        "LISTEN_PID": environ.get("LISTEN_PID") == own,
        "INVOCATION_ID": environ.get("SYSTEMD_EXEC_PID", own) == own,
    }
    found = [f"${name}" for name, meant in told.items() if meant and environ.get(name)]
    if found:
        raise Misconfigured(
            f"--detach isn't for a process that systemd has started ({', '.join(found)} is set)",
            hint=f"in the unit: ExecStart=… spotokend run, {_UNDER_SYSTEMD}",
        )


def detached(
    serve: Callable[[Callable[[], None]], int], *, pid_path: str, log_path: str
) -> int | None:
    """Run ``serve`` in a daemon; returns in both processes.

    ``serve`` gets what it calls when it answers, and gives an exit status, which is returned in the
    daemon. In the caller's process None is returned, as soon as the daemon answers.

    Raises:
        SpotokendError: the daemon could not start: what it raised there.
    """
    os.umask(0o077)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed before the start
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115 - for the process's life
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        os.waitpid(child, 0)  # it ends when it has forked the daemon
        with open(reader, "rb") as pipe:
            _understand(pipe.read(), log_path)
        return None
    os.close(reader)

    ready = False

    def tell_ready() -> None:
        nonlocal ready
        ready = True
        _tell(writer, "ready")

    try:
        with _daemon(writer, pid_path, log_path):
            return serve(tell_ready)
    except SpotokendError as error:
        if ready:
            raise
        _tell(writer, error.to_wire())
        return error.exit_status


def _tell(writer: int, words: object) -> None:
    # The caller may have been ended meanwhile, by Ctrl-C: the daemon lives on all the same.
    with suppress(BrokenPipeError):
        os.write(writer, json.dumps(words).encode())
    os.close(writer)


@contextmanager
def _daemon(writer: int, pid_path: str, log_path: str) -> Iterator[None]:
    """This process becomes one; ``writer`` alone stays open of what was."""
    from daemon import DaemonContext  # of python-daemon, and for nobody else

    try:
        os.makedirs(os.path.dirname(log_path), mode=0o700, exist_ok=True)
        log = LogFile.open(log_path)
    except OSError as error:
        raise Misconfigured(
            f"the log {log_path} can't be opened: {error.strerror}",
            hint="see the rights of that file and its folder",
        ) from None
    with open(os.devnull, "r+") as nothing, open(log, "a") as words:
        context = DaemonContext(
            detach_process=True,  # it would guess, by what its standard input is
            working_directory="/",
            umask=0o077,
            pidfile=PidFile(pid_path),
            files_preserve=[writer],
            stdin=nothing,
            stdout=nothing,
            stderr=words,
            signal_map=dict.fromkeys((signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)),
        )
        context.open()
    sys.stderr = LogFile(log_path)
    with context:
        yield


def _understand(told: bytes, log_path: str) -> None:
    if not told:
        raise SpotokendError(
            "the daemon ended before it answered", hint=f"its last words: tail {log_path}"
        )
    words = json.loads(told)
    if words != "ready":
        raise from_wire(words)


class PidFile:
    """A context manager: the own process id at ``path``, and its lock, as long as the block runs.

    Entering it raises :class:`~spotokend.errors.Misconfigured` where another process has the lock,
    or the file can't be made.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = -1

    def __enter__(self) -> Self:
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            while not self._locked():
                pass
        except OSError as error:
            raise Misconfigured(
                f"the PID file {self.path} can't be made: {error.strerror}",
                hint="see the rights of that file and its folder",
            ) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            os.unlink(self.path)
        os.close(self._file)

    def _locked(self) -> bool:
        """False: whoever had it before has just removed the file that was opened."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(self.path, flags, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(file, self.path):
                os.close(file)
                return False
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(file, 32, 0).decode("ascii", "replace").strip()
            os.close(file)
            raise Misconfigured(
                f"spotokend runs already: process {holder or 'unknown'} holds {self.path}",
                hint="use it, or end it first: spotokend stop",
            ) from None
        self._file = file
        return True


def _is_at(file: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


class LogFile(io.TextIOBase):
    """The standard error of a daemon: its descriptor leads to ``path``, and keeps within the limit.

    What doesn't come through :meth:`write`, such as the interpreter's own last words, lands there
    as well.
    """

    DESCRIPTOR = 2

    def __init__(self, path: str) -> None:
        self._path = path

    @staticmethod
    def open(path: str) -> int:
        """A descriptor that adds to the file, which is made where it is missing."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(path, flags, 0o600)

    def fileno(self) -> int:
        """Of the file, whichever it is."""
        return self.DESCRIPTOR

    def write(self, text: str) -> int:
        """Raises OSError where the disk is full: the line is lost then."""
        data = text.encode("utf-8", "backslashreplace")
        if os.fstat(self.DESCRIPTOR).st_size + len(data) > LOG_LIMIT:
            os.replace(self._path, f"{self._path}.1")
            file = self.open(self._path)
            os.dup2(file, self.DESCRIPTOR)
            os.close(file)
        while data:
            data = data[os.write(self.DESCRIPTOR, data) :]
        return len(text)
