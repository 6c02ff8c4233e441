"""The law of the terminal: every command speaks through this module.

- Data goes to stdout, words go to stderr: what is piped on is never mixed with what is explained.
- An error is ``spotokend: MESSAGE``, and below it ``  → HINT``, the cure.
- Colour only on a terminal, and not where ``NO_COLOR`` is set (https://no-color.org).
- What comes from outside, a display name or a provider's description, is written without the
  control characters that could move the cursor, recolour the screen or turn the text around.
"""

from __future__ import annotations

import os
import re
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself stays out of the start of ``spotokend token``
    from typing import TextIO

WIDTH = 79
"""Characters of a line of words: terminals have 80, and some wrap after the last."""

_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f"  # C0, DEL and C1: escape sequences begin here
    r"\u2028\u2029"  # line and paragraph separator
    r"\u202a-\u202e\u2066-\u2069"  # bidirectional overrides (CVE-2021-42574)
    r"\ud800-\udfff]"  # halves of surrogate pairs: no encoding has them
)
# Joiners and variation selectors stay: families, flags and several scripts are made of them.


def prepare() -> None:
    """Let no character that the terminal's encoding lacks end a command with an exception."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def clean(text: object) -> str:
    """``text`` on one line, with each control character replaced by U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", str(text))


def show(text: str) -> None:
    """One line of data on stdout. The caller cleans what came from outside."""
    print(text)


def flush() -> None:
    """Write out what stdout still holds, so that a full disk or a closed pipe shows itself."""
    if sys.stdout is not None:  # the command was started without one
        sys.stdout.flush()


def settle() -> None:
    """Give up what stdout can't take: the interpreter would try again at its end, and complain."""
    try:
        flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: str) -> None:
    """Words for the person, on stderr, line by line; at once, also into a pipe."""
    print("\n".join(clean(line) for line in text.split("\n")), file=sys.stderr, flush=True)


def tell(words: str) -> None:
    """A sentence of unknown length, on stderr, in lines of :data:`WIDTH` where it can be broken."""
    import textwrap  # a hundredth of a second, for whoever has much to say

    say(textwrap.fill(clean(words), WIDTH, break_long_words=False, break_on_hyphens=False))


def complain(message: str, hint: str | None = None) -> None:
    """What is wrong, and the cure."""
    label = _painted(sys.stderr, "spotokend:", "31")
    lines = [clean(line) for line in message.split("\n")]
    if hint:
        lines += [f"  → {clean(line)}" for line in hint.split("\n")]
    print(label, "\n".join(lines), file=sys.stderr, flush=True)


def end_line() -> None:
    """After Ctrl-C, which a terminal shows as ``^C``: the shell's prompt gets a line of its own."""
    if sys.stderr is not None and sys.stderr.isatty():
        print(file=sys.stderr, flush=True)


def colourful(stream: TextIO) -> bool:
    """True where colour is welcome."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def _painted(stream: TextIO, text: str, colour: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if colourful(stream) else text


def civil(at: float) -> str:
    """A Unix time as local date and time: ``2026-11-23 14:05:09``."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
