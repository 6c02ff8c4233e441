"""What a login waits for: the browser at the loopback listener, or an address that is pasted.

Both at once, under one poll; whichever comes first is the first to be tried. A pasted address may
come wrapped over several lines, with older ones before it, or not at all: the end of the input
means only that nothing will be pasted.
"""

from __future__ import annotations

import os
import re
import select
import time

from . import terminal
from .listener import Listener, Visit
from .pages import Page

QUIET = 0.3
"""Seconds without more input after which a pasted text is taken to be whole.

A terminal hands over a wrapped address line by line, within milliseconds; taken apart, the first
line could hold the state and half of the code, and that half would be redeemed.
"""
LONGEST = 64 * 1024
"""Characters of a pasted text. What is longer is no address, and may have no end."""
LINE = 4096
"""Bytes of a line that a terminal hands over, newline and all: it drops the rest without a word
(N_TTY_BUF_SIZE, termios(3))."""

# What a terminal puts around a pasted text, once a program has asked it to and not unasked it.
_PASTE_MARKS = re.compile(r"\x1b\[20[01]~")
_AROUND = " \t\r\n'\"<>"


class Arrival:
    """An address that may be the answer to the login, and who waits for a word on it."""

    def __init__(self, address: str, visit: Visit | None = None) -> None:
        self.address = address
        self._visit = visit

    def answer(self, page: Page) -> None:
        """Show the browser a page; after a paste there is no browser to show it to."""
        if self._visit is not None:
            self._visit.answer(page)


class Arrivals:
    """The arrivals of one login. ``stdin`` is a file descriptor, or None."""

    def __init__(self, listener: Listener | None, stdin: int | None) -> None:
        self._listener = listener
        self._stdin = stdin
        self._poll = select.poll()
        self._text = ""
        self._quiet_at = 0.0
        self._addresses: list[str] = []
        self._before = ""
        for source in (listener, stdin):
            if source is not None:
                self._poll.register(source, select.POLLIN)

    @property
    def exhausted(self) -> bool:
        """True once nothing can arrive any more."""
        return self._listener is None and self._stdin is None and not self._addresses

    def next(self, seconds: float) -> Arrival | None:
        """The next arrival within so many seconds, or None; at once when none can come."""
        deadline = time.monotonic() + seconds
        while not self.exhausted:
            if self._addresses:
                return Arrival(self._addresses.pop(0))
            now = time.monotonic()
            if self._text and now >= self._quiet_at:
                self._take()
                continue
            if now >= deadline:
                return None
            until = min(deadline, self._quiet_at) if self._text else deadline
            # poll() counts in whole milliseconds: rounded up, or the last one is spent spinning.
            for descriptor, _ in self._poll.poll(int((until - now) * 1000) + 1):
                if descriptor == self._stdin:
                    self._read(descriptor)
                elif self._listener is not None and (visit := self._listener.serve()) is not None:
                    return Arrival(visit.address, visit)
        return None

    def _read(self, stdin: int) -> None:
        try:
            data = os.read(stdin, 64 * 1024)
        except OSError:  # the terminal has gone: as the end of the input
            data = b""
        if len(data) == LINE and os.isatty(stdin):
            self._text = ""
            terminal.complain(
                f"the terminal cuts a line off after {LINE - 1} characters, and this one was longer",
                "break the address into shorter lines, and paste them all at once",
            )
            return
        self._text += data.decode(errors="replace")
        self._quiet_at = time.monotonic() + QUIET
        if len(self._text) > LONGEST:
            self._text, data = "", b""
            terminal.complain(
                "what is pasted here is too long for an address, and isn't read any further",
                "begin again with the address alone: spotokend login",
            )
        if not data:
            self._poll.unregister(stdin)
            self._stdin = None
            self._take()

    def _take(self) -> None:
        text, self._text = self._text, ""
        self._addresses += addresses(self._before, text)
        if self._addresses:
            self._before = self._addresses[-1]


def addresses(before: str, text: str) -> list[str]:
    """The addresses in a pasted text, oldest first; ``before`` is the last one of earlier texts.

    What doesn't begin like an address is one if it says all that one says; else it continues the
    address before it, of which it is the other lines, or stands in front of one.
    """
    # The source of a web page has "&amp;" for "&"; no state and no code has either.
    text = _PASTE_MARKS.sub("", text).replace("&amp;", "&")
    pieces = [piece for piece in re.split(r"(?=https?://)", text) if piece.strip(_AROUND)]
    if not pieces or pieces[0].startswith("http"):
        return pieces
    if re.search(r"\b(?:code|error)=", pieces[0]) and re.search(r"\bstate=", pieces[0]):
        return [pieces[0].lstrip(f"{_AROUND}?"), *pieces[1:]]
    if before.startswith("http"):
        return [before + pieces[0], *pieces[1:]]
    return pieces[1:] or pieces
