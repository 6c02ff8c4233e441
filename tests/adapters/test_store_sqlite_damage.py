"""Damaged files: nothing of them is lost, what can be read goes on, and a crash in between is safe."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import anyio
import pytest
from store_rows import no_room, row

from spotokend.adapters.store import sqlite_damage
from spotokend.adapters.store.base import CANDIDATE, Damaged, StoreError
from spotokend.adapters.store.sqlite import SqliteStore
from spotokend.adapters.store.sqlite_damage import free_name, put_aside, replace_damaged
from spotokend.adapters.store.sqlite_file import open_database
from spotokend.adapters.store.sqlite_schema import STEPS, connect, examine

NOW = 1_781_777_700.0
STAMP = "20260618T101500Z"
PAGE = 4096
ACCOUNTS = [f"account-{number:02}" for number in range(40)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A store of 40 rows, each of nearly a kilobyte, and of one account that has logged out."""
    name = tmp_path_factory.mktemp("sound") / "store.sqlite3"
    anyio.run(fill, str(name))
    return name.read_bytes()


@pytest.fixture
def path(tmp_path, sound):
    """A copy of it, to be damaged."""
    name = tmp_path / "spotokend" / "store.sqlite3"
    name.parent.mkdir()
    name.write_bytes(sound)
    return str(name)


async def fill(path):
    store = await SqliteStore.open(path, now=NOW)
    for account in ACCOUNTS:
        await store.put(stored(account))
    await store.put(row("gone"))
    await store.delete("gone")
    await store.put(row("new", slot=CANDIDATE))
    await store.close()


def stored(account):
    return row(account, sealed=account.encode() * 80)


def repaired(path):
    """Open it; the accounts that are whole, and what there was to note."""
    return anyio.run(repair, path)


async def repair(path):
    store = await SqliteStore.open(path, now=NOW)
    rows = [await store.load(found.account) for found in await store.scan()]
    await store.put(row(slot=CANDIDATE))  # it takes writes, too
    await store.close()
    return [found.account for found in rows if found == stored(found.account)], store.notes


def overwrite(path, page, content):
    with open(path, "r+b") as file:
        file.seek(page * PAGE)
        file.write(content)


def accounts_in(content):
    return [account for account in ACCOUNTS if stored(account).sealed in content]


def spoil_page_of(account, path):
    """Overwrite the page with that account's row; the accounts that were on it."""
    content = Path(path).read_bytes()
    page = content.index(stored(account).sealed) // PAGE
    overwrite(path, page, random.Random(1).randbytes(PAGE))
    return accounts_in(content[page * PAGE :][:PAGE])


# ---------------------------------------------------------------------------- what goes on


def test_what_is_no_database_is_kept_under_another_name(tmp_path):
    """Byte by byte, and a new store takes its place."""
    folder = tmp_path / "spotokend"
    folder.mkdir()
    path = folder / "store.sqlite3"
    path.write_bytes(b"a text of somebody's\n" * 1000)

    accounts, notes = repaired(str(path))

    assert accounts == []
    assert "; ".join(notes) == (
        f"{path} is damaged (file is not a database); it is kept as {path}.damaged-{STAMP},"
        " 0 of its rows were carried over"
    )
    assert Path(f"{path}.damaged-{STAMP}").read_bytes() == b"a text of somebody's\n" * 1000


def test_the_first_page_alone_costs_nothing(path):
    """It holds the header and the schema, which are known."""
    overwrite(path, 0, bytes(PAGE))

    accounts, (note,) = repaired(path)

    assert accounts == ACCOUNTS
    assert note.endswith("42 of its rows were carried over")
    connection, _ = open_database(path, now=NOW)
    query = "SELECT account, version, generation FROM tombstones"
    assert connection.execute(query).fetchall() == [("gone", 2, 1)]
    query = "SELECT account FROM rows WHERE slot = ?"
    assert connection.execute(query, (CANDIDATE,)).fetchall() == [("main",), ("new",)]
    connection.close()


@pytest.mark.parametrize("tree", ["rows_by_name", "tombstones_by_name"])
def test_an_index_alone_costs_nothing(path, tree):
    """The table still has the rows."""
    connection, _ = open_database(path, now=NOW)
    (root,) = connection.execute(
        "SELECT rootpage FROM sqlite_master WHERE name = ?", (tree,)
    ).fetchone()
    connection.close()
    overwrite(path, root - 1, b"\xff" * PAGE)

    accounts, (note,) = repaired(path)

    assert accounts == ACCOUNTS
    assert note.endswith("42 of its rows were carried over")


def test_a_page_of_rows_costs_those_rows(path):
    """The index tells how many; the damaged file is kept as it is."""
    lost = spoil_page_of("account-20", path)
    damaged = Path(path).read_bytes()

    accounts, (note,) = repaired(path)

    assert accounts == [account for account in ACCOUNTS if account not in lost]
    assert note.endswith(
        f"{42 - len(lost)} of its rows were carried over, {len(lost)} can't be read"
    )
    assert Path(f"{path}.damaged-{STAMP}").read_bytes() == damaged


def test_what_is_cut_off_costs_what_was_there(path):
    """All whole pages that are left are read."""
    content = Path(path).read_bytes()
    left = content[: len(content) // PAGE * 2 // 3 * PAGE]
    Path(path).write_bytes(left + b"half a page")

    accounts, _ = repaired(path)

    assert accounts == accounts_in(left)
    assert 0 < len(accounts) < len(ACCOUNTS)


async def write_and_crash(path, crashed):
    """Leave what is on the disk while a store is in use."""
    store = await SqliteStore.open(path, now=NOW)
    await store.put(stored("account-99"))
    for suffix in ("", "-wal"):
        shutil.copy(path + suffix, f"{crashed}{suffix}")
    await store.close()


def test_the_log_counts_too(path, tmp_path):
    """Rows that had not yet moved from it into the damaged file."""
    crashed = tmp_path / "crashed" / "store.sqlite3"
    crashed.parent.mkdir(mode=0o700)
    anyio.run(write_and_crash, path, crashed)
    log = Path(f"{crashed}-wal").read_bytes()
    lost = spoil_page_of("account-20", crashed)

    accounts, (note,) = repaired(str(crashed))

    assert accounts == [account for account in [*ACCOUNTS, "account-99"] if account not in lost]
    assert f"{43 - len(lost)} of its rows were carried over" in note
    assert Path(f"{crashed}.damaged-{STAMP}-wal").read_bytes() == log


async def copy_the_log(path, copy):
    """Of a new store, all of whose rows are in the log alone."""
    store = await SqliteStore.open(path, now=NOW)
    await store.put(stored("account-00"))
    shutil.copy(f"{path}-wal", copy)
    await store.close()


def test_the_log_of_an_empty_file_is_read(tmp_path):
    """SQLite would delete it unread; what it holds goes on, and both lie aside."""
    path = tmp_path / "spotokend" / "store.sqlite3"
    anyio.run(copy_the_log, str(path), tmp_path / "log")
    log = (tmp_path / "log").read_bytes()
    path.write_bytes(b"")
    Path(f"{path}-wal").write_bytes(log)

    accounts, (note,) = repaired(str(path))

    assert accounts == ["account-00"]
    assert note == (
        f"{path} is damaged (it is empty); it is kept as {path}.damaged-{STAMP},"
        " 1 of its rows were carried over"
    )
    assert Path(f"{path}.damaged-{STAMP}-wal").read_bytes() == log
    assert Path(f"{path}.damaged-{STAMP}").read_bytes() == b""


def test_an_empty_file_is_told(tmp_path):
    """Nothing can be carried over, and nobody may wonder where the logins have gone."""
    path = tmp_path / "spotokend" / "store.sqlite3"
    path.parent.mkdir()
    path.touch()

    assert repaired(str(path)) == (
        [],
        [f"{path} was empty: what was in it, if anything was, is lost"],
    )
    assert repaired(str(path)) == ([], [])


def test_what_is_kept_is_what_was_found(path, tmp_path):
    """Byte by byte, the log beside it as well: SQLite plays it into the file when that is closed."""
    crashed = tmp_path / "crashed" / "store.sqlite3"
    crashed.parent.mkdir(mode=0o700)
    anyio.run(write_and_crash, path, crashed)
    spoil_page_of("account-20", crashed)
    found = crashed.read_bytes(), Path(f"{crashed}-wal").read_bytes()

    repaired(str(crashed))

    kept = f"{crashed}.damaged-{STAMP}"
    assert (Path(kept).read_bytes(), Path(f"{kept}-wal").read_bytes()) == found


def test_an_older_schema_is_salvaged_as_such_and_then_upgraded(path):
    """Its rows have the columns of their time, and get the others on the way."""
    added = (*STEPS, ("ALTER TABLE rows ADD COLUMN extra TEXT NOT NULL DEFAULT 'old'",))
    with open(path, "r+b") as file:
        file.truncate(Path(path).stat().st_size - PAGE)

    connection, (note,) = open_database(path, now=NOW, steps=added)

    assert "were carried over" in note
    assert connection.execute("SELECT DISTINCT extra FROM rows").fetchall() == [("old",)]
    assert examine(connection, path, 2) == 2
    connection.close()


@pytest.mark.parametrize("seed", range(24))
def test_whatever_is_damaged_the_store_opens_or_says_why_not(path, seed):
    """No row is invented, no damage ends in a traceback, and the damaged file is kept."""
    dice = random.Random(seed)
    content = bytearray(Path(path).read_bytes())
    start = dice.randrange(200) if seed % 2 else dice.randrange(len(content))
    if seed % 3 == 0:
        content[start] ^= 1 << dice.randrange(8)
    else:
        length = min(dice.randrange(1, 9000), len(content) - start)
        content[start : start + length] = dice.randbytes(length)
    Path(path).write_bytes(content)

    try:
        accounts, notes = repaired(path)
    except StoreError as refusal:
        assert not isinstance(refusal, Damaged)
        assert Path(path).read_bytes() == content
    else:
        assert set(accounts) <= set(ACCOUNTS)
        # What is changed inside an envelope is for its seal to notice.
        assert len(accounts) >= len(ACCOUNTS) - 1 or notes
        if notes:
            assert Path(f"{path}.damaged-{STAMP}").read_bytes() == content


# ------------------------------------------------------------------------------ crashes in between


def test_a_replacement_that_was_complete_takes_its_place_at_the_next_start(path):
    """The old log is gone before: it would be played into the new file."""
    complete = Path(path).read_bytes()
    Path(f"{path}.salvaged").write_bytes(complete)
    Path(path).write_bytes(b"damaged")
    Path(f"{path}-wal").write_bytes(b"of the damaged one")

    assert repaired(path) == (ACCOUNTS, [])
    assert [file.name for file in Path(path).parent.iterdir()] == ["store.sqlite3"]


def test_a_replacement_that_was_not_complete_is_made_again(path):
    """What the crash left of it is no obstacle, and doesn't stay."""
    overwrite(path, 0, bytes(PAGE))
    for left in (".salvaging", ".salvaging-journal", ".salvaging-copy", ".salvaging-copy-wal"):
        Path(path + left).write_bytes(b"half of something")

    assert (repaired(path))[0] == ACCOUNTS
    assert {file.name for file in Path(path).parent.iterdir()} == {
        "store.sqlite3",
        f"store.sqlite3.damaged-{STAMP}",
    }


def test_a_full_disk_leaves_the_damaged_file_where_it_is(path):
    """Each start tries again; the file has its second name once, not once a start."""
    overwrite(path, 0, bytes(PAGE))
    damaged = Path(path).read_bytes()
    for later in range(2):
        with no_room(8192), pytest.raises(StoreError, match="File too large"):
            open_database(path, now=NOW + later)
    assert Path(path).read_bytes() == damaged
    assert {file.name for file in Path(path).parent.iterdir()} == {
        "store.sqlite3",
        f"store.sqlite3.damaged-{STAMP}",
    }

    assert (repaired(path))[0] == ACCOUNTS


def test_nothing_is_kept_over_what_was_kept_before(path):
    """Two damages in one second have two names."""
    for _ in range(2):
        overwrite(path, 0, bytes(PAGE))
        repaired(path)

    kept = Path(path).parent.glob("*.damaged-*")
    assert sorted(file.name.removeprefix("store.sqlite3.damaged-") for file in kept) == [
        STAMP,
        f"{STAMP}-1",
    ]


def test_a_kept_log_keeps_its_name_as_well(path):
    """Even where the file that it belonged to was taken away since."""
    Path(f"{path}.damaged-{STAMP}-wal").write_bytes(b"kept")

    assert free_name(f"{path}.damaged", NOW) == f"{path}.damaged-{STAMP}-1"


def test_repairing_twice_gives_the_same(path):
    """As when a crash comes after the rows were copied and before the file had its place."""
    overwrite(path, 0, bytes(PAGE))
    name = put_aside(path, NOW)

    assert replace_damaged(path, name, STEPS) == (42, 0)
    assert replace_damaged(path, name, STEPS) == (42, 0)
    connection = connect(path)
    assert examine(connection, path, 1) == 1
    connection.close()
    assert not sqlite_damage._same_file(path, f"{path}.nowhere")
