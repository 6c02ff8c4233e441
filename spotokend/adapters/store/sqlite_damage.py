"""What to do about a damaged SQLite file: keep it, and go on with all of its rows that can be read.

The damaged file gets a second name, which says when, and stays as it is. A new file is filled from
a copy of it and takes its place when it is complete. A crash at any moment repeats this, or finishes
it at the next start (:func:`finish_replacement`).
"""

from __future__ import annotations

import glob
import itertools
import os
import shutil
import sqlite3
import time
from contextlib import closing, suppress

from .sqlite_schema import TABLES, Steps, connect, upgrade

_COMPLETE = ".salvaged"
_FRESH = ".salvaging"
_COPY = ".salvaging-copy"

_UNREADABLE = (sqlite3.DatabaseError, UnicodeDecodeError)
# The second where SQLite quotes a piece of the damage in its message.


def put_aside(path: str, now: float) -> str:
    """Give the file and its log a second name, under which they stay; returns that name."""
    stem = path + ".damaged"
    # Where an earlier start got no further than this, for want of space say, it has its name.
    kept = (name for name in glob.iglob(glob.escape(stem) + "-*") if _same_file(name, path))
    name = next(kept, None) or free_name(stem, now)
    for suffix in ("", "-wal"):
        with suppress(FileNotFoundError, FileExistsError):
            os.link(path + suffix, name + suffix)
    sync_folder(path)
    return name


def replace_damaged(path: str, damaged: str, steps: Steps) -> tuple[int, int]:
    """Put a file with what can be read of ``damaged`` in the place of ``path``.

    Returns the numbers of rows that were saved, and of those that are known to be lost.
    """
    fresh, copy = path + _FRESH, path + _COPY
    _remove(fresh, copy)
    try:
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError), open(damaged + suffix, "rb") as source:
                create(copy + suffix)
                with open(copy + suffix, "wb") as target:
                    shutil.copyfileobj(source, target)
        create(fresh)
        with closing(connect(fresh)) as target_database:
            counts = _fill(target_database, fresh, copy, steps)
        _sync(fresh, os.O_RDONLY)
        os.rename(fresh, path + _COMPLETE)
        finish_replacement(path)
    finally:
        _remove(fresh, copy)
    return counts


def finish_replacement(path: str) -> None:
    """Let a complete replacement, if there is one, take the place of the damaged file."""
    if os.path.lexists(path + _COMPLETE):
        # The log first: SQLite would play the old one into the new file.
        with suppress(FileNotFoundError):
            os.unlink(path + "-wal")
        os.rename(path + _COMPLETE, path)
        sync_folder(path)


def _fill(target: sqlite3.Connection, target_name: str, copy: str, steps: Steps) -> tuple[int, int]:
    # Of an empty file SQLite would delete the log.
    empty = os.path.getsize(copy) == 0
    version = len(steps) if empty else _version(copy, len(steps))
    upgrade(target, 0, steps[:version])
    listed: set[tuple[str, int]] = set()
    if not empty:
        listed |= _salvage(copy, target)
    # Once more under the first page of the new file, which holds the same schema: where only that
    # one is broken, all the rows are still there.
    _graft_first_page(target_name, copy)
    listed |= _salvage(copy, target)
    saved = sum(
        target.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - names of ours
        for table in TABLES
    )
    if version < len(steps):
        upgrade(target, version, steps)
    return saved, max(len(listed) - saved, 0)


def _connect_damaged(copy: str) -> sqlite3.Connection:
    connection = connect(copy)
    # Lets SQLite read on where schema or length of the file are not what they should be.
    connection.execute("PRAGMA writable_schema = ON")
    return connection


def _version(copy: str, newest: int) -> int:
    with closing(_connect_damaged(copy)) as source, suppress(*_UNREADABLE):
        (version,) = source.execute("PRAGMA user_version").fetchone()
        if 0 < version <= newest:
            return int(version)
    return newest


def _salvage(copy: str, target: sqlite3.Connection) -> set[tuple[str, int]]:
    """Bring over the rows that can be read; returns ``(table, rowid)`` of all that are heard of."""
    # Before SQLite has it open, and may play the log into the file.
    size = sum(os.path.getsize(name) for name in (copy, copy + "-wal") if os.path.exists(name))
    listed: set[tuple[str, int]] = set()
    target.execute("BEGIN")
    with closing(_connect_damaged(copy)) as source:
        for table in TABLES:
            listed |= {(table, rowid) for rowid in _rowids(source, table, most=size // 16)}
            # Behind a page that is gone nothing is listed. Rowids count up from one, and a row has
            # about a kilobyte.
            known = {rowid for name, rowid in listed if name == table}
            for rowid in sorted(known.union(range(1, size // 512))):
                with suppress(*_UNREADABLE):
                    _copy_row(source, target, table, rowid)
    target.execute("COMMIT")
    return listed


def _rowids(source: sqlite3.Connection, table: str, most: int) -> set[int]:
    """Rowids that the table or its index lists; ``most``: of no more there is room in the file."""
    rowids: set[int] = set()
    # Each ends where its tree is broken; a broken tree may also go in circles.
    for tree in (
        "NOT INDEXED ORDER BY rowid",
        "NOT INDEXED ORDER BY rowid DESC",
        f"INDEXED BY {table}_by_name",
    ):
        with suppress(*_UNREADABLE):
            query = f"SELECT rowid FROM {table} {tree} LIMIT ?"  # noqa: S608 - names of ours
            for (rowid,) in source.execute(query, (most,)):
                rowids.add(rowid)
    return rowids


def _copy_row(
    source: sqlite3.Connection, target: sqlite3.Connection, table: str, rowid: int
) -> None:
    query = f"SELECT rowid, * FROM {table} WHERE rowid = ?"  # noqa: S608 - a name of ours
    row = source.execute(query, (rowid,)).fetchone()
    if row is not None:
        columns = ", ".join(
            name for (name,) in source.execute("SELECT name FROM pragma_table_info(?)", (table,))
        )
        marks = ", ".join("?" * len(row))
        # What breaks a CHECK is ignored like what is there already.
        target.execute(
            f"INSERT OR IGNORE INTO {table} (rowid, {columns}) VALUES ({marks})",  # noqa: S608
            row,
        )


def _graft_first_page(twin: str, copy: str) -> None:
    """The file format: https://sqlite.org/fileformat.html, 1.3."""
    with open(twin, "rb") as file:
        header = file.read(100)
        page_size = int.from_bytes(header[16:18], "big")
        page = bytearray(header + file.read(page_size - len(header)))
    page[18:20] = b"\2\2"  # in WAL mode: the log counts, too
    page[28:32] = (os.path.getsize(copy) // page_size).to_bytes(4, "big")
    page[32:40] = bytes(8)  # no free pages
    with open(copy, "r+b") as file:
        file.write(page)


def create(name: str) -> None:
    """Make an empty file that nobody else can read."""
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def free_name(stem: str, now: float) -> str:
    """``stem`` and the time, and a number where that is taken."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    numbered = (
        f"{stem}-{stamp}" + (f"-{number}" if number else "") for number in itertools.count()
    )
    return next(
        name
        for name in numbered
        if not os.path.lexists(name) and not os.path.lexists(name + "-wal")
    )


def sync_folder(path: str) -> None:
    """Make new names beside ``path`` durable: that is the folder's fsync, not the file's."""
    _sync(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)


def _sync(name: str, flags: int) -> None:
    file = os.open(name, flags | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _same_file(one: str, other: str) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samefile(one, other)
    return False


def _remove(*names: str) -> None:
    for name, suffix in itertools.product(names, ("", "-wal", "-journal")):
        with suppress(FileNotFoundError):
            os.unlink(name + suffix)
