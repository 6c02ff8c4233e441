"""What no process of ours may say: looked for in the output of each that the tests start.

The sandbox's tokens, codes and secrets can be told by their shape, so that the search costs a look
at each line that a daemon or a command has written, and nothing has to be planted.
``tests/system/test_secrets.py`` is the thorough one, with any piece of any secret in any encoding.
"""

from __future__ import annotations

import re

SHAPE = re.compile(r"sandbox-(?:access|refresh|code)-\d{6}-\w{4,}|sandbox-client-secret")
_AROUND = 60


def search(where: str, words: str, *others: str) -> None:
    """Look for secrets of the sandbox's, and for ``others``.

    Raises:
        AssertionError: there is one; with what stands around it.
    """
    found = SHAPE.search(words)
    places = [found.span()] if found else []
    places += [(at, at + len(other)) for other in others if (at := words.find(other)) >= 0]
    for start, end in places:
        around = f"{words[max(0, start - _AROUND) : start]}[…]{words[end : end + _AROUND]}"
        raise AssertionError(f"{where} holds a secret: {around}")
