"""Daemon processes that are forked where Python and the whole program are loaded already.

For tests that start a hundred: a start takes some milliseconds and no longer half a second. What
runs is ``spotokend run``, in a process of its own.

    python tests/forked_daemon.py [MODULE]

is the process that they are forked from. It imports the module, the program itself where none is
named, and is told on its standard input, a line of JSON each, to start one (``argv``, ``environ``,
``output``: the answer is its pid) or to tell how one has ended (``ended``: its pid).
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import pytest
from daemon_process import DaemonProcess

LOADED = (
    "spotokend.cli.parser",
    "spotokend.cli.run",
    "spotokend.service.daemon",
    "spotokend.adapters.endpoint",
    "anyio._backends._asyncio",
    "httpcore",
    "structlog",
)
"""What a daemon would load, at its start and at its first refresh."""


class ForkServer:
    """The process that daemons are forked from; a context manager."""

    def __init__(self, module: str = "spotokend.cli") -> None:
        # What is killed leaves no measurements. What is tested is the package that is imported here.
        environ = {name: it for name, it in os.environ.items() if not name.startswith("COVERAGE_")}
        environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        self._process = subprocess.Popen(
            [sys.executable, __file__, module],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def start(self, argv: list[str], environ: dict[str, str], output: Path) -> int:
        """The pid of a new process."""
        return self._ask(argv=argv, environ=environ, output=str(output))

    def ended(self, pid: int) -> int:
        """The exit status of one that has ended, negative for a signal."""
        return self._ask(ended=pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.communicate()

    def _ask(self, **order: Any) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


class Forked:
    """What of :class:`subprocess.Popen` a :class:`DaemonProcess` needs."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._server = server
        self._process = os.pidfd_open(pid)

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._process], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            self.returncode = self._server.ended(self.pid)
            os.close(self._process)
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._process, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkedDaemon(DaemonProcess):
    """A :class:`DaemonProcess` whose daemons come from ``server``."""

    def __init__(self, folder: Path, config: str, server: ForkServer) -> None:
        super().__init__(folder, config)
        self._server = server

    def _launch(self, *arguments: str) -> Any:
        pid = self._server.start(list(arguments), self.environ, self.errors)
        return Forked(self._server, pid)


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """Where plain daemons come from."""
    with ForkServer() as server:
        yield server


def main(module: str) -> None:
    """Serve on standard input until that ends."""
    program = import_module(module)
    for name in LOADED:
        import_module(name)
    for line in sys.stdin.buffer:
        order = json.loads(line)
        if "ended" in order:
            _, status = os.waitpid(order["ended"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                _become(order)
                os._exit(program.main(order["argv"]))
        sys.stdout.buffer.write(b"%d\n" % answer)
        sys.stdout.buffer.flush()


def _become(order: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(order["environ"])
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    output = os.open(order["output"], flags, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for file, number in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(file, number)
    os.closerange(3, 64)


if __name__ == "__main__":
    main(sys.argv[1])
