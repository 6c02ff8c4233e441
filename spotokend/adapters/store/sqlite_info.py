"""What an SQLite store is and holds, for people; also of one that no daemon has open."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing, suppress
from tempfile import TemporaryDirectory

from .base import StoreError, rows_by_kind
from .sqlite_schema import TABLES, in_words

SEALED_BY = "SELECT key_id, count(*) FROM rows WHERE sealed IS NOT NULL GROUP BY key_id"


def describe(connection: sqlite3.Connection, path: str) -> dict[str, object]:
    """See :meth:`.base.Store.describe`."""
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    slots = dict(connection.execute("SELECT slot, count(*) FROM rows GROUP BY slot").fetchall())
    return {
        "backend": "sqlite",
        "path": path,
        "schema": schema,
        "bytes": _size(path),
        "durable": "yes: each change is on the disk before it is told",
        "rows": rows_by_kind(slots),
        "sealed_by": dict(connection.execute(SEALED_BY).fetchall()),
    }


def read_description(path: str) -> dict[str, object]:
    """The same of a file that nobody has open, from a copy of it: nothing is mended or upgraded.

    Raises:
        StoreError: there is none, it is another program's, or it can't be read.
    """
    path = os.path.abspath(path)
    with in_words(path), TemporaryDirectory(prefix="spotokend-") as folder:
        size, copy = _size(path), os.path.join(folder, "copy")
        # Of a log that a killed daemon has left SQLite would write into the file.
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(path + suffix, copy + suffix)
        with closing(sqlite3.connect(f"file:{copy}?mode=rw", uri=True)) as connection:
            return _checked(connection, path) | {"bytes": size}


def _checked(connection: sqlite3.Connection, path: str) -> dict[str, object]:
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if not names.issuperset(TABLES):
        raise StoreError(f"{path} is no store of spotokend's")
    return describe(connection, path)


def _size(path: str) -> int:
    size = 0
    for suffix in ("", "-wal"):
        with suppress(FileNotFoundError):
            size += os.path.getsize(path + suffix)
    return size
