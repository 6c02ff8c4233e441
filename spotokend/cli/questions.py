"""Asking a person: the question on stderr, the answer from a line of stdin.

An answer is read byte by byte up to its newline and not a byte further: what follows in the same
pipe, perhaps an address for the login, is still there for whoever reads next. On a terminal the line
is edited and echoed by the terminal itself; answers that are piped in are asked for all the same, so
that a log tells what was asked.
"""

from __future__ import annotations

import os
import re
import select
import sys
from collections.abc import Callable
from typing import TypeVar

from ..errors import BadRequest
from ..rules.config.readers import Wrong
from . import terminal

LONGEST = 4096
"""Bytes of an answer, newline and all: as many as a terminal's own line takes (termios(3))."""
TRIES = 3
"""Answers to one question, where nobody is there to correct them."""

Answer = TypeVar("Answer")

# What a terminal puts around a pasted text, once a program has asked it to and not unasked it.
_PASTE_MARKS = re.compile(r"\x1b\[20[01]~")
_WORDS = {"y": True, "yes": True, "n": False, "no": False}


class EndOfInput(Exception):
    """The input ended where an answer was due; the text is the question."""


def interactive() -> bool:
    """True where somebody can type an answer."""
    return sys.stdin is not None and sys.stdin.isatty()


def ask(question: str, read: Callable[[str], Answer], *, default: str = "") -> Answer:
    """What ``read`` makes of the answer; ``default`` is what the mere Return key means.

    White space and quotes around an answer are dropped. One that ``read`` objects to, by raising
    :class:`~spotokend.rules.config.readers.Wrong`, is asked for again.

    Raises:
        EndOfInput: there is no answer.
        BadRequest: it is too long; or the third one that was piped in is wrong, too.
    """
    prompt = f"{question} [{default}]: " if default else f"{question}: "
    return _asked(question, prompt, read, default)


def confirm(question: str, *, default: bool) -> bool:
    """Yes or no; ``default`` is what the mere Return key means. Raises as :func:`ask`."""
    return _asked(question, f"{question} [{'Y/n' if default else 'y/N'}] ", _yes, "ny"[default])


def _asked(question: str, prompt: str, read: Callable[[str], Answer], default: str) -> Answer:
    tries = 0
    while True:
        try:
            return read(_answer(question, prompt) or default)
        except Wrong as wrong:
            tries += 1
            if tries == TRIES and not interactive():
                raise BadRequest(wrong.message, hint=wrong.hint) from None
            terminal.complain(wrong.message, wrong.hint)


def _yes(text: str) -> bool:
    if text.lower() not in _WORDS:
        raise Wrong("that is neither yes nor no", "type y or n")
    return _WORDS[text.lower()]


def _answer(question: str, prompt: str) -> str:
    print(terminal.clean(prompt), end="", file=sys.stderr, flush=True)
    echoed = False
    try:
        line = _line(question)
        echoed = interactive() and sys.stderr.isatty() and line.endswith(b"\n")
    finally:
        # Also after Ctrl-C: whatever is written next begins on a line of its own.
        if not echoed:
            print(file=sys.stderr, flush=True)
    return _PASTE_MARKS.sub("", line.decode(errors="replace")).strip(" \t\r\n\xa0'\"<>")


def _line(question: str) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        if len(line) == LONGEST:
            raise BadRequest(
                f'the answer to "{question}" is longer than {LONGEST} bytes',
                hint="look at what was pasted or piped in",
            )
        byte = _byte()
        if not byte:
            break
        line += byte
    if not line:
        raise EndOfInput(question)
    return line


def _byte() -> bytes:
    if sys.stdin is None:  # the command was started without one
        return b""
    stdin = sys.stdin.fileno()
    # A terminal that another program has left in non-blocking mode would say "nothing there".
    select.select([stdin], [], [])
    try:
        return os.read(stdin, 1)
    except OSError:  # the terminal has gone: as the end of the input
        return b""
