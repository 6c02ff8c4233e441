"""A store in memory that can be told to fail, to be slow, and what it was asked to do."""

from __future__ import annotations

import anyio

from spotokend.adapters.store.base import CURRENT, Intent, Lease, Outcome, Row, StoreError
from spotokend.adapters.store.memory import MemoryStore

FULL = StoreError("the disk is full")


class StubbornStore(MemoryStore):
    """The calls are those of the contract, by name: ``troubles["commit"] = FULL``."""

    def __init__(self) -> None:
        super().__init__()
        self.troubles: dict[str, Exception] = {}
        self.slow: dict[str, float] = {}
        """Seconds that a call takes before it is carried out."""
        self.calls: list[tuple[str, str, str]] = []
        """(call, account, slot) of all writes that were carried out."""

    async def _meet(self, call: str) -> None:
        if seconds := self.slow.get(call):
            await anyio.sleep(seconds)
        if trouble := self.troubles.get(call):
            raise trouble

    async def scan(self, after: str = "", limit: int = 1000) -> list[Row]:
        await self._meet("scan")
        return await super().scan(after, limit)

    async def load(self, account: str, slot: str = CURRENT) -> Row | None:
        await self._meet("load")
        return await super().load(account, slot)

    async def begin(self, account: str, version: int, intent: Intent) -> Lease:
        await self._meet("begin")
        lease = await super().begin(account, version, intent)
        self.calls.append(("begin", account, CURRENT))
        return lease

    async def commit(self, lease: Lease, row: Row) -> int:
        await self._meet("commit")
        version = await super().commit(lease, row)
        self.calls.append(("commit", row.account, CURRENT))
        return version

    async def settle(self, lease: Lease, outcome: Outcome, row: Row) -> int:
        await self._meet("settle")
        version = await super().settle(lease, outcome, row)
        self.calls.append((f"settle {outcome}", row.account, CURRENT))
        return version

    async def put(self, row: Row) -> int:
        await self._meet("put")
        version = await super().put(row)
        self.calls.append(("put", row.account, row.slot))
        return version

    async def delete(self, account: str, slot: str = CURRENT) -> int:
        await self._meet(f"delete {slot}" if slot else "delete")
        version = await super().delete(account, slot)
        self.calls.append(("delete", account, slot))
        return version
