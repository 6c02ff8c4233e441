"""Opening the store's file: whose it is, where it lies, and what is done before it is used."""

from __future__ import annotations

import os
import stat
from contextlib import closing
from pathlib import Path

import pytest
from store_rows import no_room, row

from spotokend.adapters.store import sqlite_file
from spotokend.adapters.store.base import NewerSchema, StoreError
from spotokend.adapters.store.sqlite import SqliteStore
from spotokend.adapters.store.sqlite_file import network_filesystem, open_database
from spotokend.adapters.store.sqlite_schema import STEPS

NOW = 1_781_777_700.0
STAMP = "20260618T101500Z"
ADDED = (*STEPS, ("ALTER TABLE rows ADD COLUMN extra TEXT NOT NULL DEFAULT 'old'",))

MOUNTS = r"""
22 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /proc rw,nosuid - proc proc rw
41 22 0:33 / /people rw,relatime shared:2 - nfs4 server:/export/people rw,vers=4.2
42 41 253:1 / /people/anna/local\040disk rw - ext4 /dev/vdb rw
43 22 0:40 / /media/share rw - cifs //server/share rw
44 22 253:2 / /media/share rw - xfs /dev/vdc rw
45 22 0:41 / /srv rw master:3 propagate_from:2 - fuse.sshfs host:/srv rw
""".strip()


@pytest.fixture
def path(tmp_path):
    """The store's file, in a folder that is still to be made."""
    return str(tmp_path / "spotokend" / "store.sqlite3")


def opened(path, **options):
    """Open and close it; what there was to note."""
    connection, notes = open_database(path, now=NOW, **options)
    connection.close()
    return notes


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


# ---------------------------------------------------------------------------------- whose it is


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_folder_and_files_are_the_owners_alone(path, umask):
    """Whatever the umask is; the log as well as the file."""
    before = os.umask(umask)
    try:
        connection, notes = open_database(path, now=NOW)
    finally:
        os.umask(before)
    with closing(connection):
        assert notes == []
        connection.execute("INSERT INTO tombstones VALUES ('main', 1, 1)")
        assert mode(Path(path).parent) == 0o700
        assert {file.name: mode(file) for file in Path(path).parent.iterdir()} == {
            "store.sqlite3": 0o600,
            "store.sqlite3-wal": 0o600,
        }


def test_files_open_to_others_are_closed(path):
    """As a careless copy leaves them; and the folder that is the program's own."""
    opened(path)
    os.chmod(path, 0o644)
    os.chmod(Path(path).parent, 0o775)

    assert opened(path) == []
    assert mode(path) == 0o600
    assert mode(Path(path).parent) == 0o700


def test_a_folder_of_other_things_keeps_its_mode(tmp_path):
    """It is somebody's home, perhaps."""
    tmp_path.chmod(0o755)
    opened(str(tmp_path / "store.sqlite3"))

    assert mode(tmp_path) == 0o755


def test_a_folder_that_others_can_write_is_refused(tmp_path):
    """They could replace the store; the cure is the owner's decision."""
    tmp_path.chmod(0o775)

    with pytest.raises(StoreError, match=f"chmod go-w {tmp_path}"):
        opened(str(tmp_path / "store.sqlite3"))
    assert list(tmp_path.iterdir()) == []


def test_what_belongs_to_somebody_else_is_refused(path, monkeypatch):
    """With the command that changes it."""
    opened(path)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)

    with pytest.raises(
        StoreError, match=f"belongs to user {owner}, spotokend runs as {owner + 1}: chown"
    ):
        opened(path)


def test_a_symbolic_link_is_refused(path, tmp_path):
    """SQLite would keep the log beside the file it points to."""
    target = tmp_path / "elsewhere.sqlite3"
    Path(path).parent.mkdir()
    Path(path).symlink_to(target)

    with pytest.raises(StoreError, match=f"symbolic link to {target}: name that file itself"):
        opened(path)
    assert not target.exists()


def test_what_is_no_file_is_refused(path):
    """A FIFO, without waiting for its other end; a folder."""
    Path(path).parent.mkdir()
    os.mkfifo(path)
    with pytest.raises(StoreError, match="no regular file: move it away"):
        opened(path)
    Path(path).unlink()
    Path(path).mkdir()
    with pytest.raises(StoreError, match=r"store\.sqlite3: Is a directory"):
        opened(path)


# --------------------------------------------------------------------------------- where it lies


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/", None),
        ("/var/lib/spotokend", None),
        ("/people", "nfs4"),
        ("/people/anna/.local/state", "nfs4"),
        ("/peoples", None),
        ("/people/anna/local disk", None),
        ("/people/anna/local disk/state", None),
        ("/media/share", None),
        ("/srv/state", "fuse.sshfs"),
    ],
)
def test_network_file_systems_are_told_from_the_table_of_mounts(folder, kind):
    """The innermost mount counts, and of two at one place the later."""
    assert network_filesystem(MOUNTS, folder) == kind


def test_a_folder_on_a_network_file_system_is_refused(path, monkeypatch, tmp_path):
    """By where it really lies, links followed; with the way out."""
    table = tmp_path / "mountinfo"
    table.write_text(f"{MOUNTS}\n50 22 0:50 / {tmp_path}/real rw - nfs server:/x rw\n")
    monkeypatch.setattr(sqlite_file, "MOUNTS", str(table))
    (tmp_path / "real").mkdir()
    (tmp_path / "spotokend").symlink_to("real")

    with pytest.raises(StoreError, match=r"network file system \(nfs\).*\[store\] path"):
        opened(path)


def test_where_the_mounts_are_unknown_nothing_is_refused(path, monkeypatch):
    """Without /proc there is nothing to go by."""
    monkeypatch.setattr(sqlite_file, "MOUNTS", f"{path}/nowhere")

    assert opened(path) == []


# ---------------------------------------------------------------------------- what is done before


@pytest.mark.anyio
async def test_an_older_schema_is_upgraded_after_a_copy_was_made(path):
    """The copy is the older version's own store, readable by its owner alone."""
    store = await SqliteStore.open(path, now=NOW)
    await store.put(row())
    await store.close()
    copy = f"{path}.schema-1-{STAMP}"

    connection, notes = open_database(path, now=NOW, steps=ADDED)
    with closing(connection):
        assert connection.execute("SELECT account, extra FROM rows").fetchall() == [("main", "old")]
    assert notes == [f"{path} was upgraded from schema 1; before, it was {copy}"]
    assert mode(copy) == 0o600
    before = await SqliteStore.open(copy, now=NOW)
    assert await before.load("main") == row()
    await before.close()
    assert opened(path, steps=ADDED) == []


def test_a_newer_schema_is_left_alone(path):
    """Not a byte of it changes."""
    opened(path, steps=ADDED)
    content = Path(path).read_bytes()

    with pytest.raises(NewerSchema, match="has schema 2"):
        opened(path)
    assert Path(path).read_bytes() == content


def test_an_upgrade_without_a_copy_does_not_happen(path):
    """Half a copy isn't left either: each start would make another."""
    opened(path)

    with no_room(8192), pytest.raises(StoreError, match="the disk reports an error"):
        opened(path, steps=ADDED)
    assert [file.name for file in Path(path).parent.iterdir()] == ["store.sqlite3"]
    assert opened(path) == []


def test_a_log_without_its_file_is_not_played_into_a_new_one(path):
    """Whoever moved the file away meant its rows, too."""
    connection, _ = open_database(path, now=NOW)
    with closing(connection):
        connection.execute("INSERT INTO tombstones VALUES ('main', 1, 1)")
        Path(path).rename(f"{path}.moved")
        log = Path(f"{path}-wal").read_bytes()
        Path(f"{path}-wal").rename(f"{path}.kept")
    Path(f"{path}.kept").rename(f"{path}-wal")

    connection, notes = open_database(path, now=NOW)
    with closing(connection):
        assert connection.execute("SELECT count(*) FROM tombstones").fetchone() == (0,)
    assert notes == [
        f"{path} is gone, its log was still there and is kept as {path}.damaged-{STAMP}-wal"
    ]
    assert Path(f"{path}.damaged-{STAMP}-wal").read_bytes() == log
