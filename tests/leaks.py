"""What no process of ours may say: looked for in the output of each that the tests start.

The sandbox's tokens, codes and secrets can be told by their shape, so that the search costs a look
at what a program has written, and nothing has to be planted. ``overheard.py`` sees to it that all
output is searched. ``tests/system/test_secrets.py`` is the thorough one, with any piece of any
secret in any encoding.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

_SECRETS = (
    rb"sandbox-(?:access|refresh|code)-\d{6}-\w{4,}",
    rb"sandbox-client-secret",
)
_BEGINNINGS = (b"sandbox-access-", b"sandbox-refresh-", b"sandbox-code-", b"sandbox-client-secret")


def _disguises(text: bytes) -> Iterator[bytes]:
    """In hexadecimal, and in base64 wherever in an encoded text it stands."""
    yield text.hex().encode()
    for shift in range(3):
        whole = (bytes(shift) + text)[: (shift + len(text)) // 3 * 3]
        # The first group depends on what stands before.
        yield re.escape(base64.b64encode(whole)[4 if shift else 0 :])


_DISGUISED = b"|".join(disguise for text in _BEGINNINGS for disguise in _disguises(text))
SHAPE = re.compile(b"|".join(_SECRETS) + rb"|(?:" + _DISGUISED + rb")[\w+/=-]*", re.ASCII)
LONGEST = 200
"""Bytes: what could be cut in two where something is read piece by piece."""
_AROUND = 60


def search(where: str, words: str | bytes, *others: str) -> None:
    """Look for secrets of the sandbox's, and for ``others``.

    Raises:
        AssertionError: there is one; with what stands around it.
    """
    data = words.encode(errors="replace") if isinstance(words, str) else words
    found = SHAPE.search(data)
    places = [found.span()] if found else []
    places += [
        (at, at + len(other)) for text in others if (at := data.find(other := text.encode())) >= 0
    ]
    for start, end in places:
        # Whoever reads of it need not see it, or another one beside it.
        around = data[max(0, start - _AROUND) : start] + b"[...]" + data[end : end + _AROUND]
        told = b"%s holds a secret: %s" % (where.encode(), around)
        raise AssertionError(SHAPE.sub(b"[...]", told).decode(errors="replace"))
