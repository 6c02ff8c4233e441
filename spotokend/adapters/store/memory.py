"""The store's contract kept in dictionaries: what is in it ends with the process.

For tests, and the measure that the durable stores are held to.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice

from . import fences
from .base import CURRENT, Intent, Lease, Outcome, Row, Store, rows_by_kind


class MemoryStore(Store):
    """Never full, never damaged, never interrupted: no method awaits anything."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Row] = {}  # by slot and account
        self._tombstones: dict[str, tuple[int, int]] = {}

    async def scan(self, after: str = "", limit: int = 1000) -> list[Row]:
        accounts = (account for account in await self.slots(CURRENT) if account > after)
        return [
            replace(self._rows[CURRENT, account], sealed=None)
            for account in islice(accounts, limit)
        ]

    async def load(self, account: str, slot: str = CURRENT) -> Row | None:
        return self._rows.get((slot, account))

    async def slots(self, slot: str) -> list[str]:
        return sorted(account for kept, account in self._rows if kept == slot)

    async def envelopes(self, *, not_by: str = "", limit: int = 1000) -> list[tuple[str, str]]:
        found = (
            (account, slot)
            for (slot, account), row in sorted(self._rows.items())
            if row.sealed is not None and row.key_id != not_by
        )
        return list(islice(found, limit))

    async def sealed_by(self) -> dict[str, int]:
        return dict(Counter(row.key_id for row in self._rows.values() if row.sealed is not None))

    async def describe(self) -> dict[str, object]:
        return {
            "backend": "memory",
            "path": "",
            "schema": 0,
            "bytes": 0,
            "durable": "no: it ends with the process",
            "rows": rows_by_kind(Counter(slot for slot, _ in self._rows)),
            "sealed_by": await self.sealed_by(),
        }

    async def reseal(self, before: Row, after: Row) -> bool:
        row = self._rows.get((before.slot, before.account))
        if row is None or row.sealed != before.sealed:
            return False
        self._rows[row.slot, row.account] = replace(row, sealed=after.sealed, key_id=after.key_id)
        return True

    async def counters(self, account: str) -> tuple[int, int]:
        row = self._rows.get((CURRENT, account))
        if row is not None:
            return row.version, row.generation
        return self._tombstones.get(account, (0, 0))

    async def begin(self, account: str, version: int, intent: Intent) -> Lease:
        present = self._rows.get((CURRENT, account))
        self._rows[CURRENT, account] = fences.begin(account, present, version, intent)
        return Lease(account, intent.attempt, version)

    async def commit(self, lease: Lease, row: Row) -> int:
        new = fences.commit(self._rows.get((CURRENT, lease.account)), lease, row)
        if new is not None:
            self._rows[CURRENT, row.account] = new
        return row.version

    async def settle(self, lease: Lease, outcome: Outcome, row: Row) -> int:
        new = fences.settle(self._rows.get((CURRENT, lease.account)), lease, outcome, row)
        self._rows[CURRENT, row.account] = new
        return row.version

    async def put(self, row: Row) -> int:
        version, _ = await self.counters(row.account)
        self._rows[row.slot, row.account] = fences.put(version, row)
        if row.slot == CURRENT:
            self._tombstones.pop(row.account, None)
        return row.version

    async def delete(self, account: str, slot: str = CURRENT) -> int:
        version, generation = await self.counters(account)
        row = self._rows.pop((slot, account), None)
        if row is not None and slot == CURRENT:
            version += 1
            self._tombstones[account] = version, generation
        return version

    async def changes(self, since: int) -> tuple[int, list[str]]:
        return since, []

    async def close(self) -> None:
        """Nothing to let go of."""
