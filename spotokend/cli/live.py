"""``spotokend status --live``: the scene on the terminal, redrawn as things happen, until it is left.

What it promises:

- The terminal is left as it was: also after an exception, Ctrl-C, SIGTERM, and while it is suspended
  by Ctrl-Z. The view has the alternate screen; its last frame stays readable on the ordinary one.
- It draws at most four times a second, and once a second where nothing moves faster.
- The daemon may go and come back; what is refused (the account is gone, another user's socket) ends
  the view with the error.
- It asks for little: the accounts come from ``watch``, without their tokens, and one page of
  ``status`` after something has happened and every other second.

Leaving is how a live view ends, by q as by Ctrl-C; so that is no failure, as with top(1) and
watch(1).
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum, auto
from itertools import islice
from typing import Any, Self

from .. import calls
from ..client import Client
from ..errors import BadRequest, DaemonNotRunning, Unavailable
from . import terminal
from .scene import Scene

TYPE_CHECKING = False
if TYPE_CHECKING:  # rich costs a tenth of a second, for whoever looks
    from rich.live import Live
    from rich.text import Text

LOOK_EVERY = 2.0
LOOK_SPACING = 0.25
"""Seconds between two looks at the daemon, at most and at least."""
PATIENCE = 5.0
"""Seconds in which it answers, or is missed."""
LEAST_PAUSE = 0.25
LONGEST_PAUSE = 1.0
"""Seconds between two frames."""

Direct = Callable[[Scene, float], bool]
"""Called before each frame, with the moment; True: the view is over."""


def obstacle() -> str | None:
    """Why nothing can be drawn on standard output; None where it can."""
    if sys.stdout is None or not sys.stdout.isatty():
        return "standard output is no terminal"
    kind = os.environ.get("TERM", "")
    if kind in {"", "dumb", "unknown"}:
        return f"this terminal (TERM={kind}) can't be redrawn"
    if not sys.stdout.encoding.lower().startswith("utf"):
        return f"this terminal's encoding, {sys.stdout.encoding}, has no bars"
    return None


def follow(client: Client, account: str | None = None, *, direct: Direct | None = None) -> bool:
    """Show what happens, of all accounts or of one; True if ``direct`` ended it, False if the user.

    Raises:
        BadRequest: standard output can't be drawn on.
        SpotokendError: nobody answers at the start, or what is asked for is refused.
    """
    reason = obstacle()
    if reason is not None:
        raise BadRequest(f"a live view needs a terminal: {reason}", hint="spotokend watch")
    with Feed(client, account) as feed:
        return _View(feed, direct or (lambda _scene, _now: False)).run()


class Feed:
    """Keeps :attr:`scene` up to date while it is entered; it is touched with :attr:`lock` held."""

    def __init__(self, client: Client, account: str | None = None) -> None:
        self.scene = Scene(account)
        self.lock = threading.Lock()
        self._account = account
        self._path = client.socket_path
        self._client = Client(client.socket_path)  # its own: to close it ends the watching
        self._happened = threading.Event()
        self._closed = threading.Event()
        self._error: Exception | None = None

    def __enter__(self) -> Self:
        self.scene.learn(Client(self._path).status(self._account), time.time(), whole=True)
        self.woken, self.waker = socket.socketpair()
        self.woken.setblocking(False)
        self.waker.setblocking(False)
        for work in (self._watch, self._look):
            threading.Thread(target=self._run, args=(work,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed.set()
        self._happened.set()
        self._client.close()
        self.waker.close()
        self.woken.close()

    def settle(self) -> None:
        """Forget what made :attr:`woken` readable.

        Raises:
            SpotokendError: the daemon refuses what is asked for.
        """
        with suppress(BlockingIOError):
            while self.woken.recv(4096):
                pass
        if self._error is not None:
            raise self._error

    def _wake(self) -> None:
        with suppress(OSError):  # it is full, which wakes as well; or all is over
            self.waker.send(b"\0")

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whoever watches shall meet it, not this thread
            self._error = error
            self._wake()

    def _watch(self) -> None:
        names = None if self._account is None else [self._account]
        while not self._closed.is_set():
            # While it is away the looks tell of that.
            with suppress(DaemonNotRunning, Unavailable):
                for method, event in self._client.watch(names, tokens=False):
                    with self.lock:
                        self.scene.hear(method, event, time.time())
                    self._happened.set()
                    self._wake()
            self._closed.wait(LOOK_SPACING)

    def _look(self) -> None:
        while True:
            self._happened.wait(LOOK_EVERY)
            self._happened.clear()
            if self._closed.is_set():
                return
            try:
                # A client that never met the daemon hears at once that it isn't there.
                with Client(self._path, timeout=PATIENCE) as client:
                    status, whole = self._ask(client)
            except (DaemonNotRunning, Unavailable):
                with self.lock:
                    self.scene.miss(time.time())
            else:
                with self.lock:
                    self.scene.learn(status, time.time(), whole=whole)
            self._wake()
            self._closed.wait(LOOK_SPACING)

    def _ask(self, client: Client) -> tuple[dict[str, Any], bool]:
        if self._account is not None:
            return client.status(self._account), True
        page: dict[str, Any] = calls.read_map(self._path, client.call("status"))
        if page["next"] is None:
            return page, True
        # Of many accounts the first page will do, but a reload brings and takes some unsaid.
        if page["daemon"]["accounts"] == len(self.scene.accounts):
            return page, False
        return client.status(), True


class _View:
    """One view, from its first frame to its last."""

    def __init__(self, feed: Feed, direct: Direct) -> None:
        from rich.console import Console  # a tenth of a second, for whoever looks

        self._feed = feed
        self._direct = direct
        self._end: _End | None = None
        self._console = Console(
            file=sys.stdout,
            force_terminal=True,
            no_color=not terminal.colourful(sys.stdout),
            highlight=False,
            legacy_windows=False,
        )

    def run(self) -> bool:
        """See :func:`follow`."""
        with self._heeding_signals():
            while True:
                with self._stage() as (live, keys):
                    self._play(live, keys)
                if self._end is not _End.SUSPENDED:
                    break
                self._end = None
                self._suspend()
        for line in self._frame(spare=2, hint=""):
            self._console.print(line)
        return self._end is _End.OVER

    def _play(self, live: Live, keys: int | None) -> None:
        from rich.console import Group

        while self._end is None:
            self._feed.settle()
            with self._feed.lock:
                scene = self._feed.scene
                if self._direct(scene, time.time()):
                    self._end = _End.OVER
                pause = LEAST_PAUSE if _restless(scene) else LONGEST_PAUSE
            live.update(Group(*self._frame()), refresh=True)
            keys = self._wait(pause, keys)

    def _frame(self, *, spare: int = 0, hint: str = "q leaves") -> list[Text]:
        from .frame import draw

        columns, lines = os.get_terminal_size(self._console.file.fileno())
        # A terminal that doesn't know its size says 0.
        self._console.size = (columns or 80, max(1, (lines or 24) - spare))
        with self._feed.lock:
            return draw(self._feed.scene, time.time(), self._console, hint)

    def _wait(self, pause: float, keys: int | None) -> int | None:
        """Until the next frame is due; ``keys`` is where they come from, None once they have ended."""
        drawn = time.monotonic()
        until = drawn + pause
        while self._end is None and (seconds := until - time.monotonic()) > 0:
            inputs = [self._feed.woken, *(() if keys is None else (keys,))]
            ready, _, _ = select.select(inputs, [], [], seconds)
            if keys is not None and keys in ready:
                typed = os.read(keys, 1024)
                if b"q" in typed.lower():
                    self._end = _End.LEFT
                if not typed:
                    keys = None
            if self._feed.woken in ready:
                self._feed.settle()
                until = min(until, drawn + LEAST_PAUSE)
        return keys

    @contextmanager
    def _stage(self) -> Iterator[tuple[Live, int | None]]:
        """The alternate screen, and where keys come from one by one and without an echo."""
        from rich.live import Live

        with ExitStack() as undo:
            keys = None
            if sys.stdin is not None and sys.stdin.isatty():
                keys = sys.stdin.fileno()
                undo.callback(termios.tcsetattr, keys, termios.TCSADRAIN, termios.tcgetattr(keys))
                tty.setcbreak(keys)
            live = Live(
                console=self._console,
                screen=True,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            undo.enter_context(live)
            # Off, so that a name which this terminal shows wider than it should be breaks no row.
            self._write(_NO_WRAPPING)
            undo.callback(self._write, _WRAPPING)
            yield live, keys

    def _write(self, sequence: str) -> None:
        self._console.file.write(sequence)
        self._console.file.flush()

    @contextmanager
    def _heeding_signals(self) -> Iterator[None]:
        """Signals change what the loop does next: none falls into the middle of a frame."""
        ends = dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), _End.LEFT)
        ends[signal.SIGTSTP] = _End.SUSPENDED

        def heed(number: int, _frame: object) -> None:
            self._end = ends.get(signal.Signals(number), self._end)

        with ExitStack() as undo:
            for number in (*ends, signal.SIGWINCH):
                undo.callback(signal.signal, number, signal.signal(number, heed))
            # Else select would sleep on after the handler: PEP 475.
            fd = self._feed.waker.fileno()
            before = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
            undo.callback(signal.set_wakeup_fd, before)
            yield

    @staticmethod
    def _suspend() -> None:
        heed = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # returns when the shell's fg lets us go on
        signal.signal(signal.SIGTSTP, heed)


class _End(Enum):
    """How a view, or a part of it, came to its end."""

    OVER = auto()
    LEFT = auto()
    SUSPENDED = auto()


_NO_WRAPPING, _WRAPPING = "\x1b[?7l", "\x1b[?7h"
"""DECAWM; rich has no name for it."""


def _restless(scene: Scene) -> bool:
    """Whether bars move visibly within a second: on fifty cells, lives below a minute or two."""
    return any(
        account["issued_at"] is not None and account["expires_at"] - account["issued_at"] < 120
        for account in islice(scene.accounts.values(), 50)
    )
