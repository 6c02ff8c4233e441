"""A string that does not show itself: tokens, codes, verifiers and client secrets.

Whatever prints, formats or logs a :class:`Secret` gets its placeholder. The one way to the value is
:meth:`Secret.reveal`, so that a reader finds every place that uses one by searching for that name.
"""

from __future__ import annotations

import hmac
from typing import NoReturn

_ANY = ("utf-8", "surrogatepass")
"""JSON can hold halves of characters; comparing must not raise while an answer is being saved."""


class Secret:
    """An immutable string; equal to another Secret of the same value, never to a str."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself; for the request, the reply or the envelope that needs it."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        # Constant time: an equality that leaks its position is a way to guess a state or a code.
        return isinstance(other, Secret) and hmac.compare_digest(
            self._value.encode(*_ANY), other._value.encode(*_ANY)
        )

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Secret is not pickled: it would lie readable in whatever holds the pickle"
        )
