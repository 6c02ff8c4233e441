"""The daemon's log: one line an event on stderr, as text for people or JSON for machines.

Importing structlog costs as much as the whole start, so events are kept until :meth:`Log.open` has
loaded it, and nothing is lost in between. No event has a place for a secret: fields are words,
names, numbers; what is a ``Secret`` shows its placeholder.

Where systemd's journal reads stderr, each line begins with its priority (sd-daemon(3)), so that
`journalctl -p warning` finds what it should.

A flood of clients is no flood of lines: what repeats itself is told ten times a minute, and then
counted.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TextIO

LEVELS = ("debug", "info", "warning", "error")
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}
"""Of syslog(3)."""
KEPT = 1000
"""Events that wait for structlog at most; the start has about ten."""
REPEATS = 10
"""Lines a minute of one event with the same account and words."""
MINUTE = 60.0


class Log:
    """Call it: ``log("refresh", level="info", account="main")``. Never raises."""

    def __init__(self, level: str, style: str, *, stream: TextIO | None = None) -> None:
        # Python has no stderr where its descriptor was closed before the start.
        self._stream: TextIO | None = stream or sys.stderr
        self._terminal = bool(self._stream and not self._stream.closed and self._stream.isatty())
        self._journal = _is_journal(self._stream)
        self._json = style == "json" or (style == "auto" and not self._terminal)
        self._kept: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._logger: Any = None
        self._told: dict[tuple[str, ...], int] = {}  # how often, within this minute
        self._minute_ends = 0.0
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """Tell what is at least so important."""
        self._least = LEVELS.index(level)

    def __call__(self, event: str, *, level: str = "info", **fields: object) -> None:
        """One event. ``fields`` that are None are left out."""
        if self._stream is None or LEVELS.index(level) < self._least:
            return
        if time.monotonic() >= self._minute_ends:
            self._tell_repeats()
        what = event, level, str(fields.get("account") or ""), str(fields.get("words") or "")
        times = self._told[what] = self._told.get(what, 0) + 1
        if times <= REPEATS:
            self._keep(event, level, fields)

    def _tell_repeats(self) -> None:
        told, self._told = self._told, {}
        self._minute_ends = time.monotonic() + MINUTE
        for (event, level, account, words), times in told.items():
            if times > REPEATS:
                repeated = {"of": event, "times": times - REPEATS, "words": words or None}
                self._keep("repeated", level, repeated | {"account": account or None})

    def _keep(self, event: str, level: str, fields: Mapping[str, object]) -> None:
        record = {key: value for key, value in fields.items() if value is not None}
        record |= {"event": event, "level": level, "timestamp": _timestamp()}
        # In this order: another thread may be just opening it.
        self._kept.append(record)
        if self._logger is not None:
            self._write_kept()

    def open(self) -> None:
        """Load structlog and write what was kept."""
        import structlog

        renderer: Any
        if self._json:
            renderer = structlog.processors.JSONRenderer(sort_keys=True)
        else:
            renderer = structlog.dev.ConsoleRenderer(
                colors=self._terminal and not os.environ.get("NO_COLOR"),
                # The default prints the variables of each frame: there lie the secrets.
                exception_formatter=structlog.dev.plain_traceback,
            )
        self._logger = structlog.wrap_logger(
            structlog.PrintLogger(self._stream),
            processors=[_with_priority(renderer) if self._journal else renderer],
        )
        self._write_kept()

    def close(self) -> None:
        """Write what is left: the program ends."""
        self._tell_repeats()
        if self._logger is None and self._kept:
            self.open()

    def _write_kept(self) -> None:
        while True:
            try:
                record = self._kept.popleft()
            except IndexError:
                return
            self._write(record)

    def _write(self, record: dict[str, Any]) -> None:
        try:
            self._logger.msg(**record)
        except (OSError, ValueError):
            # The terminal is gone, or the disk behind a redirection is full: the log is not what
            # the program is for.
            return


def _is_journal(stream: TextIO | None) -> bool:
    """Whether it is the one that the variable tells of: a redirection is none (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno()) if stream else None
    except (OSError, ValueError):
        return False
    told = os.environ.get("JOURNAL_STREAM")
    return status is not None and told == f"{status.st_dev}:{status.st_ino}"


def _with_priority(renderer: Any) -> Callable[[Any, str, Any], str]:
    def render(logger: Any, name: str, record: Any) -> str:
        prefix = f"<{PRIORITIES[record['level']]}>"
        lines = renderer(logger, name, record).split("\n")
        return "\n".join(prefix + line for line in lines)

    return render


def _timestamp() -> str:
    now = time.time()
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03d}Z"
