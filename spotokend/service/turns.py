"""Turns: in which order clients are served, and how much is under way for them.

Each turn of the event loop serves one place of one line; whoever isn't done lines up again. However
many clients flood, one that asks and waits for its answer waits for a few milliseconds of their
work, not for all of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from spotokend.errors import Busy

CROWD = 1024
"""Calls under way from which on each client may have one: they take 2.5 KB each."""
CARRIED_LIMIT = 64
"""Calls under way that go on when their clients go: by nothing else would they be bounded."""


class Turns:
    """The line of one server, and its tasks."""

    def __init__(self) -> None:
        self._line: deque[Callable[[], None]] = deque()
        self._carried: set[asyncio.Task[bytes]] = set()
        self.tasks: set[asyncio.Task[bytes]] = set()
        """The handlers' coroutines that are under way."""

    @property
    def crowded(self) -> bool:
        """True while so much is under way that a client should have no more than one call."""
        return len(self.tasks) >= CROWD

    def line_up(self, turn: Callable[[], None]) -> None:
        """Call ``turn`` in a later turn of the loop, after those that wait already.

        It must not raise.
        """
        if not self._line:
            asyncio.get_running_loop().call_soon(self._next)
        self._line.append(turn)

    def _next(self) -> None:
        turn = self._line.popleft()
        if self._line:
            # In the loop's next turn: what has arrived meanwhile comes in between.
            asyncio.get_running_loop().call_soon(self._next)
        turn()

    def start(self, coroutine: Coroutine[Any, Any, bytes], *, carried: bool) -> asyncio.Task[bytes]:
        """Run a call; with ``carried`` to its end, whoever gives it up.

        Raises:
            Busy: too many are carried already.
        """
        if carried and len(self._carried) >= CARRIED_LIMIT:
            coroutine.close()
            raise Busy(
                f"{CARRIED_LIMIT} logins, logouts and reloads are under way already",
                retry_after=1.0,
            )
        task = asyncio.get_running_loop().create_task(coroutine)
        # The loop itself holds tasks weakly.
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        if carried:
            self._carried.add(task)
            task.add_done_callback(self._carried.discard)
        return task

    def give_up(self, task: asyncio.Task[bytes]) -> None:
        """Nobody waits for the answer any more.

        A login, a logout or a reload goes on all the same. It must not even be cancelled and be
        shielded inside: no cancel scope of anyio's holds off a cancelled task.
        """
        if task not in self._carried:
            task.cancel()
