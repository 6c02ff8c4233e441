"""The SQLite store where it is more than the contract: threads, cancellation, kill -9, full disks."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import pytest
from store_rows import intent, lease, no_room, row

from spotokend.adapters.store import sqlite_schema
from spotokend.adapters.store.base import Damaged, Outcome, StoreError
from spotokend.adapters.store.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path):
    """Where the store is."""
    return str(tmp_path / "spotokend" / "store.sqlite3")


@pytest.fixture
async def store(path):
    """An open store with one row."""
    opened = await SqliteStore.open(path, now=0.0)
    await opened.put(row())
    yield opened
    await opened.close()


@pytest.fixture
def backend(anyio_backend):
    """For tests of asyncio's own cancellation."""
    assert anyio_backend == "asyncio"


class Pause:
    """Stops the store's thread just before its next COMMIT, until told to go on."""

    def __init__(self, store):
        self.reached = threading.Event()
        self._released = threading.Event()
        store._connection.set_trace_callback(self._trace)

    def _trace(self, statement):
        if statement == "COMMIT":
            self.reached.set()
            assert self._released.wait(10)

    async def until_reached(self):
        assert await anyio.to_thread.run_sync(self.reached.wait, 10)

    def end(self):
        self._released.set()


def crash(path, folder):
    """Copy what lies on the disk while the store is in use: what a crash would leave."""
    crashed = folder / "crashed" / "store.sqlite3"
    crashed.parent.mkdir(mode=0o700)
    for suffix in ("", "-wal"):
        shutil.copy(path + suffix, f"{crashed}{suffix}")
    assert Path(f"{crashed}-wal").stat().st_size > 0
    return str(crashed)


def spoil(path):
    """Overwrite all but header and schema."""
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))


# ------------------------------------------------------------------------------------- durability


@pytest.mark.anyio
async def test_what_was_written_is_there_after_reopening(store, path):
    """And opening had nothing to report."""
    await store.begin("main", 1, intent())
    await store.close()

    again = await SqliteStore.open(path, now=0.0)
    assert await again.load("main") == row(intent=intent())
    assert again.notes == []
    await again.close()


@pytest.mark.anyio
async def test_each_transaction_is_synced(store):
    """``synchronous = FULL`` in WAL mode is one fsync of the log for each commit."""
    assert store._query("PRAGMA journal_mode") == [("wal",)]
    assert store._query("PRAGMA synchronous") == [(2,)]


@pytest.mark.anyio
@pytest.mark.parametrize("write", ["begin", "commit", "settle", "put", "delete"])
async def test_each_write_is_one_transaction(store, write):
    """What a crash cuts off is undone as a whole."""
    statements = []
    await store.begin("main", 1, intent())
    store._connection.set_trace_callback(statements.append)
    match write:
        case "begin":
            await store.begin("main", 1, intent())
        case "commit":
            await store.commit(lease(), row(version=2))
        case "settle":
            await store.settle(lease(), Outcome.IN_DOUBT, row(version=2))
        case "put":
            await store.put(row(version=2))
        case "delete":
            await store.delete("main")

    assert statements[0] == "BEGIN IMMEDIATE"
    assert statements[-1] == "COMMIT"
    assert [word for word in statements if word in ("BEGIN IMMEDIATE", "COMMIT")] == [
        "BEGIN IMMEDIATE",
        "COMMIT",
    ]


WRITER = """
import anyio, sys
from store_rows import intent, lease, row
from spotokend.adapters.store.sqlite import SqliteStore

async def main():
    store = await SqliteStore.open(sys.argv[1], now=0.0)
    version, _ = await store.counters("main")
    if not version:
        version = await store.put(row())
    while True:
        attempt = f"attempt-{version}"
        await store.begin("main", version, intent(attempt))
        new = row(version=version + 1, sealed=bytes(version % 5000))
        version = await store.commit(lease("main", version, attempt), new)
        print(version, flush=True)

anyio.run(main)
"""


async def everything(path):
    """What is stored, and what there was to note on opening."""
    store = await SqliteStore.open(path, now=0.0)
    found = await store.load("main")
    await store.close()
    return found, store.notes


def test_kill_9_loses_nothing_that_was_acknowledged(path):
    """Killed in the middle of whatever it did; the log is long and short, and checkpointed."""
    dice = random.Random(20260618)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    for _ in range(5):
        command = [sys.executable, "-c", WRITER, path]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment
        ) as writer:
            acknowledged = [int(writer.stdout.readline()) for _ in range(dice.randrange(1, 80))]
            writer.send_signal(signal.SIGKILL)
            acknowledged += [int(line) for line in writer.stdout if line.endswith("\n")]

        found, notes = anyio.run(everything, path)
        assert notes == []
        # The next one may have been committed and not yet told.
        assert found.version - acknowledged[-1] in (0, 1)
        assert found.sealed == bytes((found.version - 1) % 5000)


@pytest.mark.anyio
async def test_a_full_disk_refuses_a_write_and_changes_nothing(store):
    """In words; reading goes on, and once there is room so does writing."""
    (pages,) = store._query("PRAGMA page_count")[0]
    store._query(f"PRAGMA max_page_count = {pages}")
    large = row("large", sealed=bytes(100_000))

    with pytest.raises(
        StoreError, match=r"store\.sqlite3: the disk is full: make room.*SQLITE_FULL"
    ):
        await store.put(large)
    assert await store.load("large") is None
    assert await store.load("main") == row()

    store._query("PRAGMA max_page_count = 100000")
    await store.put(large)
    assert await store.load("large") == large


@pytest.mark.anyio
async def test_a_store_opens_while_the_disk_takes_nothing(store, path, tmp_path):
    """Even after a crash, with its log to be read: what can be served is served."""
    crashed = crash(path, tmp_path)

    with no_room():
        after = await SqliteStore.open(crashed, now=0.0)
        assert after.notes == []
        assert await after.load("main") == row()
        with pytest.raises(StoreError, match="the disk reports an error"):
            await after.begin("main", 1, intent())
        assert await after.load("main") == row()
    await after.begin("main", 1, intent())
    assert await after.commit(lease(), row(version=2)) == 2
    await after.close()


@pytest.mark.anyio
async def test_a_read_only_store_says_so(store):
    """A file system that was remounted, for instance."""
    store._query("PRAGMA query_only = ON")

    with pytest.raises(StoreError, match="can't be written: the disk or the file is read-only"):
        await store.put(row(version=2))


def remove_the_folder(path):
    shutil.rmtree(Path(path).parent)


def move_the_folder(path):
    os.rename(Path(path).parent, Path(path).parent.with_name("elsewhere"))


def remove_the_log(path):
    os.unlink(f"{path}-wal")


def put_a_copy_in_its_place(path):
    shutil.copy(path, f"{path}.copy")
    os.rename(f"{path}.copy", path)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "change", [remove_the_folder, move_the_folder, remove_the_log, put_a_copy_in_its_place]
)
async def test_what_is_written_to_a_file_that_is_gone_is_not_durable(store, path, change):
    """SQLite goes on with what it has open; the next start would not find it."""
    await store.begin("main", 1, intent())
    change(path)
    with pytest.raises(StoreError, match=f"{path}.* was moved, removed or replaced") as refused:
        await store.commit(lease(), row(version=2))
    assert "restart spotokend" in str(refused.value)


@pytest.mark.anyio
async def test_a_folder_that_is_back_is_the_store_again(store, path):
    """And a commit that was refused meanwhile is the same commit when it is repeated."""
    await store.begin("main", 1, intent())
    folder = Path(path).parent
    os.rename(folder, folder.with_name("elsewhere"))
    with pytest.raises(StoreError):
        await store.commit(lease(), row(version=2))
    os.rename(folder.with_name("elsewhere"), folder)
    assert await store.commit(lease(), row(version=2)) == 2
    assert (await store.load("main")).version == 2


@pytest.mark.anyio
async def test_damage_met_on_the_way_says_what_to_do(store, path):
    """Opening repairs; a running store does not rewrite itself under its callers."""
    for number in range(50):
        await store.put(row(f"account-{number:02}", sealed=bytes(2000)))
    await store.close()
    again = await SqliteStore.open(path, now=0.0)
    again._query("PRAGMA cache_size = 0")
    spoil(path)

    with pytest.raises(Damaged, match="restart spotokend: it puts the file aside"):
        await again.scan()
    await again.close()


@pytest.mark.anyio
async def test_another_program_cannot_get_between(store, path, monkeypatch):
    """Neither read half a change nor write; and a second store says what is the matter."""
    with sqlite3.connect(path, timeout=0) as other, pytest.raises(sqlite3.OperationalError):
        other.execute("SELECT * FROM rows")
    other.close()
    monkeypatch.setattr(sqlite_schema, "BUSY_SECONDS", 0.0)
    with pytest.raises(StoreError, match="another program has it open"):
        await SqliteStore.open(path, now=0.0)


@pytest.mark.anyio
async def test_a_defect_of_ours_is_not_dressed_as_a_failing_disk(store):
    """It passes through, with its traceback."""
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await store._call(lambda: store._query("SELECT * FROM nowhere"))


# ----------------------------------------------------------------------------------- cancellation


@pytest.mark.anyio
async def test_a_write_under_way_is_finished_when_its_caller_is_cancelled(store):
    """Whoever awaited it doesn't learn the outcome; the store has it."""
    pause = Pause(store)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.put, row(version=2))
        await pause.until_reached()
        tasks.cancel_scope.cancel()
        pause.end()

    assert await store.load("main") == row(version=2)


@pytest.mark.anyio
async def test_a_write_waiting_in_line_is_carried_out_when_its_caller_is_cancelled(store):
    """Begun is begun, in the order in which it was asked for."""
    pause = Pause(store)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.put, row(version=2))
        await pause.until_reached()
        tasks.start_soon(store.put, row(version=3))
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
        pause.end()

    assert await store.load("main") == row(version=3)


@pytest.mark.anyio
async def test_asyncios_own_cancellation_lets_nobody_into_the_transaction(store, backend):
    """``Task.cancel()`` goes through anyio's shield; the thread finishes, and the next call waits."""
    pause = Pause(store)
    cancelled = asyncio.create_task(store.put(row(version=2)))
    await pause.until_reached()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    following = asyncio.create_task(store.load("main"))
    await anyio.wait_all_tasks_blocked()
    assert not following.done()
    pause.end()

    assert await following == row(version=2)


@pytest.mark.anyio
async def test_the_loop_goes_on_while_the_disk_is_slow(store):
    """A write that hangs in the disk hangs nobody else."""
    pause = Pause(store)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.put, row(version=2))
        await pause.until_reached()
        await anyio.lowlevel.checkpoint()
        pause.end()

    assert await store.counters("main") == (2, 2)
