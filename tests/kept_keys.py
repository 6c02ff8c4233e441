"""A place for the store's keys in memory, which can be locked, and can refuse to be written."""

from __future__ import annotations

from collections.abc import Sequence

from spotokend.errors import Locked, Misconfigured
from spotokend.rules.sealing import SealingKey


class KeptKeys:
    """As the modules of :mod:`spotokend.adapters.keys`."""

    lost = "find it"
    removal = "forget it"

    def __init__(
        self,
        *keys: bytes,
        name: str = "the key in memory",
        nap: float | None = None,
        asks: bool = False,
    ) -> None:
        self.name = name
        self.keys = [SealingKey(key) for key in keys]
        self.nap = nap
        self.asks = asks
        self.writable = True
        self.locked = False
        self.trouble: Exception | None = None
        """Raised by the next calls of ``save``."""
        self.loads = 0
        self.saved: list[tuple[str, ...]] = []
        """The names of the keys of each ``save``."""

    async def load(self) -> list[SealingKey]:
        self.loads += 1
        if self.locked:
            raise Locked("the place is locked", hint="open it")
        return list(self.keys)

    async def save(self, keys: Sequence[SealingKey]) -> None:
        if self.trouble is not None:
            raise self.trouble
        if not self.writable:
            raise Misconfigured("the place is read-only", hint="write it yourself")
        self.keys = list(keys)
        self.saved.append(tuple(key.key_id for key in keys))
