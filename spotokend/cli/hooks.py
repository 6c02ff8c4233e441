"""``spotokend hooks``: commands of the user's, started when the daemon tells something.

It is a process of its own and outside of the daemon's sandbox, which so needs no room for whatever
the commands do. What it promises:

- Each hook hears all that it wants, in order; of one kind of notice it runs one command at a time.
- Nothing is lost without a word. What was dropped, couldn't be started, failed or took too long is a
  line on stderr, and so is that something may have been missed while the daemon was away.
- A command that takes too long is ended with all that it has started.
- A token leaves through a pipe, and only for a hook that asks for it: arguments and environment of a
  process can be read in ``/proc``, and are inherited by whatever it starts.
- It ends on SIGTERM or Ctrl-C once the commands under way have ended; on the second one at once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Collection
from contextlib import suppress

import anyio
from anyio.abc import Process, TaskGroup

from .. import paths
from ..adapters.config_file import read_config
from ..async_client import AsyncClient
from ..errors import DaemonNotRunning, Misconfigured, SpotokendError, Unavailable
from ..rules import hooks as rules
from ..rules.config.values import HookConfig
from ..rules.notice import Notice
from . import terminal

WAITING = 100
"""Notices of one kind that wait at a hook; the oldest makes room."""
TOKEN_PATIENCE = 10.0
"""Seconds for a token that a command is to be given. It is served at once, or there is trouble."""
FIRST_NAP = 0.5
LONGEST_NAP = 10.0
"""Seconds between two looks for a daemon that is away."""


def run(arguments: argparse.Namespace) -> int:
    """Start commands until SIGTERM or Ctrl-C."""
    path = arguments.config or paths.config_path()
    config = read_config(path)
    if not config.hooks:
        raise Misconfigured(
            f"there are no hooks in {path}",
            hint="add a section, such as [hooks.desktop] with desktop = true below it",
        )
    if any(hook.desktop for hook in config.hooks.values()) and not shutil.which(rules.NOTIFY_SEND):
        terminal.complain(
            f"nothing will appear on the desktop: there is no program {rules.NOTIFY_SEND}",
            "install libnotify's tools (Debian: apt-get install libnotify-bin)",
        )
    socket = os.environ.get("SPOTOKEND_SOCK") or config.daemon.socket or paths.socket_path()
    terminal.say(f"hooks: {', '.join(config.hooks)}")
    refused = anyio.run(_serve, socket, config.hooks.values())
    if refused is not None:
        raise refused
    return 0


async def _serve(socket: str, hooks: Collection[HookConfig]) -> SpotokendError | None:
    """Listen and start commands, until a signal; or until the daemon refuses, with what it said."""
    refused: SpotokendError | None = None
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with anyio.create_task_group() as everything:
            listening = anyio.CancelScope()
            everything.start_soon(_end, signals, listening, everything.cancel_scope)
            async with anyio.create_task_group() as commands:
                told = _Told(socket, hooks, commands)
                with listening:
                    refused = await told.listen()
                told.end()
            everything.cancel_scope.cancel()
    return refused


async def _end(
    signals: AsyncIterator[signal.Signals], listening: anyio.CancelScope, all_: anyio.CancelScope
) -> None:
    await anext(signals)
    listening.cancel()
    await anext(signals)
    all_.cancel()


class _Told:
    """What is told, and who is still to hear it."""

    def __init__(self, socket: str, hooks: Collection[HookConfig], commands: TaskGroup) -> None:
        self._socket = socket
        self._hooks = hooks
        self._commands = commands
        self._waiting: dict[tuple[str, str], deque[Notice]] = {}
        # By hook and kind of notice; each that is in here has a task that empties it.

    async def listen(self) -> SpotokendError:
        """Until the daemon refuses; while it is away, it is waited for."""
        away, nap = False, FIRST_NAP
        while True:
            try:
                async for method, event in AsyncClient(self._socket).watch(tokens=False):
                    if away:
                        terminal.say("spotokend is there")
                    away, nap = False, FIRST_NAP
                    self._hear(method, event)
            except (DaemonNotRunning, Unavailable) as error:
                if not away:
                    terminal.say(f"{error.message}; until it is there, what it tells is missed")
                away = True
            except SpotokendError as error:
                return error
            await anyio.sleep(nap)
            nap = min(2 * nap, LONGEST_NAP)

    def end(self) -> None:
        """Start nothing more."""
        for (name, kind), waiting in self._waiting.items():
            if waiting:
                terminal.say(f"hook {name}: the end came before {len(waiting)} more of {kind}")
                waiting.clear()

    def _hear(self, method: str, event: dict[str, object]) -> None:
        if method == "resync":
            terminal.say(
                "something that was told may have been missed; how all is: spotokend status"
            )
        if method != "notice":
            return
        notice = rules.heard(event)
        if notice is None:
            terminal.say("a notice was passed over: it is not of the form that this version knows")
            return
        for hook in rules.wanting(self._hooks, notice):
            self._take(hook, notice)

    def _take(self, hook: HookConfig, notice: Notice) -> None:
        key = hook.name, notice.kind
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = deque()
            self._commands.start_soon(self._empty, hook, key)
        if len(waiting) == WAITING:
            _in_vain(hook, waiting.popleft(), f"{WAITING} more have come while a command runs")
        waiting.append(notice)

    async def _empty(self, hook: HookConfig, key: tuple[str, str]) -> None:
        waiting = self._waiting[key]
        while waiting:
            await self._tell(hook, waiting.popleft())
        del self._waiting[key]

    async def _tell(self, hook: HookConfig, notice: Notice) -> None:
        words = rules.command(hook, notice)
        environ = os.environ | {"SPOTOKEND_SOCK": self._socket} | rules.fields(notice)
        line = await self._token(hook, notice) if hook.token else b""
        try:
            process = await anyio.open_process(
                words,
                stdin=subprocess.PIPE if hook.token else subprocess.DEVNULL,
                stdout=None,  # ours
                stderr=None,
                env=environ,
                start_new_session=True,
            )
        except OSError as error:
            _in_vain(hook, notice, f"{words[0]} can't be started: {error.strerror}")
            return
        try:
            with anyio.move_on_after(hook.timeout) as limit:
                await _give(process, line)
                await process.wait()
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):  # it has just ended by itself
                    os.killpg(process.pid, signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await process.aclose()
        if limit.cancelled_caught:
            _in_vain(hook, notice, f"{words[0]} ran longer than {hook.timeout:g} s and was ended")
        elif process.returncode:
            _in_vain(hook, notice, f"{words[0]} ended with status {process.returncode}")

    async def _token(self, hook: HookConfig, notice: Notice) -> bytes:
        """The line with the token; empty where there is none."""
        if notice.account is None:
            return b""
        try:
            async with AsyncClient(self._socket, timeout=TOKEN_PATIENCE) as client:
                return f"{(await client.token(notice.account)).access_token}\n".encode()
        except SpotokendError as error:
            _in_vain(hook, notice, f"there is no token to give: {error.message}")
            return b""


async def _give(process: Process, line: bytes) -> None:
    if process.stdin is not None:
        # A command that doesn't read it has ended, or closed its end.
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            if line:
                await process.stdin.send(line)
            await process.stdin.aclose()


def _in_vain(hook: HookConfig, notice: Notice, why: str) -> None:
    account = f" of {notice.account}" if notice.account else ""
    terminal.say(f"hook {hook.name}: {notice.kind}{account} ({notice.message}): {why}")
