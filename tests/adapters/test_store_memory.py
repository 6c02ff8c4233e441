"""The store in memory: that it stands alone. What it does is the contract's (test_store_base.py)."""

from __future__ import annotations

import pytest
from store_rows import intent, lease, row

from spotokend.adapters.store.base import Outcome
from spotokend.adapters.store.memory import MemoryStore

pytestmark = pytest.mark.anyio


async def test_the_life_of_a_row():
    """Login, a refresh without an answer, one with, logout; nothing of it outside this object."""
    store = MemoryStore()
    await store.put(row())
    await store.begin("main", 1, intent())
    await store.settle(lease(), Outcome.NOT_SENT, row(version=2))
    await store.begin("main", 2, intent("attempt-2"))
    await store.commit(lease("main", 2, "attempt-2"), row(version=3))

    assert [found.version for found in await store.scan()] == [3]
    assert await store.envelopes() == [("main", "")]
    assert await store.delete("main") == 4
    assert await store.counters("main") == (4, 3)
    assert await store.load("main") is None
    await store.close()
    assert await MemoryStore().counters("main") == (0, 0)
