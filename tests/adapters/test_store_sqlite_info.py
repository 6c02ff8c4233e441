"""What a store is and holds: the same from the daemon's connection and from a file nobody has open."""

from __future__ import annotations

import sqlite3

import pytest
from store_rows import row

from spotokend.adapters.store.base import CANDIDATE, StoreError, aside
from spotokend.adapters.store.memory import MemoryStore
from spotokend.adapters.store.sqlite import SqliteStore
from spotokend.adapters.store.sqlite_info import read_description

pytestmark = pytest.mark.anyio


async def fill(store) -> None:
    await store.put(row("a", key_id="new"))
    await store.put(row("a", slot=aside("f2"), key_id="old"))
    await store.put(row("b", slot=CANDIDATE, key_id="old"))


async def test_a_file_is_described_without_being_changed(tmp_path):
    """Also one that a killed daemon has left, with a log beside it."""
    path = tmp_path / "spotokend" / "store #1?.sqlite3"
    store = await SqliteStore.open(str(path), now=0.0)
    await fill(store)
    told = await store.describe()
    await store.close()
    before = {name: name.read_bytes() for name in path.parent.iterdir()}

    assert read_description(str(path)) == told | {"bytes": path.stat().st_size}
    assert told["rows"] == {"in use": 1, "candidates": 1, "aside": 1}
    assert told["sealed_by"] == {"new": 1, "old": 2}
    assert {name: name.read_bytes() for name in path.parent.iterdir()} == before


async def test_memory_tells_alike():
    """In the same fields."""
    store = MemoryStore()
    await fill(store)
    told = await store.describe()
    assert told["rows"] == {"in use": 1, "candidates": 1, "aside": 1}
    assert told["sealed_by"] == {"new": 1, "old": 2}


async def test_what_is_no_store_is_refused(tmp_path):
    """Another program's database, no database, nothing."""
    other = tmp_path / "other"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE songs (name)")
    connection.close()
    with pytest.raises(StoreError, match="no store of spotokend's"):
        read_description(str(other))
    (tmp_path / "text").write_text("no database" * 100)
    for name in ("text", "nothing"):
        with pytest.raises(StoreError):
            read_description(str(tmp_path / name))
