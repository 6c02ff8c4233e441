"""The store's contract in one SQLite file: the embedded default.

Each write is one transaction with one fsync (WAL, ``synchronous = FULL``) and is durable when its
call returns. One connection, used by one worker thread at a time, so that the event loop never
waits for the disk and writes keep the order in which they were asked for.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import astuple, fields
from typing import Any, Self, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread

from . import fences
from .base import CURRENT, Intent, Lease, Outcome, Row, Store, StoreError
from .sqlite_file import open_database
from .sqlite_info import SEALED_BY, describe
from .sqlite_schema import in_words

_T = TypeVar("_T")

# Schema and classes name things alike: a column a field, the intent's with a prefix.
_PLAIN = tuple(field.name for field in fields(Row) if field.name != "intent")
_INTENT = tuple(f"intent_{field.name}" for field in fields(Intent))
_COLUMNS = _PLAIN + _INTENT

# Built of the names above and of nothing else, hence without the danger that S608 is about.
_ALL = ", ".join(_COLUMNS)
_CLEAR = ", ".join("NULL" if name == "sealed" else name for name in _COLUMNS)
_LOAD = f"SELECT {_ALL} FROM rows WHERE slot = ? AND account = ?"  # noqa: S608 - as above
_PEEK = f"SELECT {_CLEAR} FROM rows WHERE slot = ? AND account = ?"  # noqa: S608
_SCAN = f"SELECT {_CLEAR} FROM rows WHERE slot = ? AND account > ? ORDER BY account LIMIT ?"  # noqa: S608
# Not INSERT OR REPLACE, which would delete and so rewrite the index as well.
_WRITE = (
    f"INSERT INTO rows ({_ALL}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608
    f" ON CONFLICT (slot, account) DO UPDATE SET"
    f" {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS)}"
)
_BEGIN = (
    f"UPDATE rows SET {', '.join(f'{name} = ?' for name in _INTENT)} WHERE slot = ? AND account = ?"  # noqa: S608
)
_COUNTERS = """
    SELECT version, generation FROM rows WHERE slot = '' AND account = :account
    UNION ALL SELECT version, generation FROM tombstones WHERE account = :account
"""
_ENVELOPES = """
    SELECT account, slot FROM rows WHERE sealed IS NOT NULL AND key_id != ?
    ORDER BY slot, account LIMIT ?
"""
_RESEAL = "UPDATE rows SET sealed = ?, key_id = ? WHERE slot = ? AND account = ? AND sealed = ?"


class SqliteStore(Store):
    """One file; see :func:`sqlite_file.open_database` for what opening does to it."""

    def __init__(self, path: str, connection: sqlite3.Connection, notes: list[str]) -> None:
        self.path = path
        self.notes = notes
        """What opening had to do, for the log: damage, an upgrade."""
        self._connection = connection
        self._limiter = CapacityLimiter(1)
        self._turn = threading.Lock()
        self._file = _identity(path)
        self._log: object = None  # SQLite makes it when it first needs it

    @classmethod
    async def open(cls, path: str, *, now: float) -> Self:
        """Open the file, make it if there is none; ``now`` is in Unix seconds.

        Raises:
            StoreError: it can't be used; the text says why and what helps.
        """
        connection, notes = await to_thread.run_sync(lambda: open_database(path, now=now))
        return cls(path, connection, notes)

    async def scan(self, after: str = "", limit: int = 1000) -> list[Row]:
        return await self._call(
            lambda: [_row(values) for values in self._query(_SCAN, CURRENT, after, limit)]
        )

    async def load(self, account: str, slot: str = CURRENT) -> Row | None:
        return await self._call(lambda: self._first(_LOAD, slot, account))

    async def slots(self, slot: str) -> list[str]:
        query = "SELECT account FROM rows WHERE slot = ? ORDER BY account"
        return await self._call(lambda: [account for (account,) in self._query(query, slot)])

    async def envelopes(self, *, not_by: str = "", limit: int = 1000) -> list[tuple[str, str]]:
        return await self._call(lambda: self._query(_ENVELOPES, not_by, limit))

    async def sealed_by(self) -> dict[str, int]:
        return await self._call(lambda: dict(self._query(SEALED_BY)))

    async def describe(self) -> dict[str, object]:
        return await self._call(lambda: describe(self._connection, self.path))

    async def reseal(self, before: Row, after: Row) -> bool:
        values = after.sealed, after.key_id, before.slot, before.account, before.sealed

        def write() -> bool:
            return self._connection.execute(_RESEAL, values).rowcount == 1

        return await self._transaction(write)

    async def counters(self, account: str) -> tuple[int, int]:
        return await self._call(lambda: self._counters(account))

    async def begin(self, account: str, version: int, intent: Intent) -> Lease:
        def write() -> Lease:
            fences.begin(account, self._first(_PEEK, CURRENT, account), version, intent)
            self._query(_BEGIN, *astuple(intent), CURRENT, account)
            return Lease(account, intent.attempt, version)

        return await self._transaction(write)

    async def commit(self, lease: Lease, row: Row) -> int:
        def write() -> int:
            new = fences.commit(self._first(_PEEK, CURRENT, lease.account), lease, row)
            if new is not None:
                self._write(new)
            return row.version

        return await self._transaction(write)

    async def settle(self, lease: Lease, outcome: Outcome, row: Row) -> int:
        def write() -> int:
            present = self._first(_PEEK, CURRENT, lease.account)
            self._write(fences.settle(present, lease, outcome, row))
            return row.version

        return await self._transaction(write)

    async def put(self, row: Row) -> int:
        def write() -> int:
            version, _ = self._counters(row.account)
            self._write(fences.put(version, row))
            if row.slot == CURRENT:
                self._query("DELETE FROM tombstones WHERE account = ?", row.account)
            return row.version

        return await self._transaction(write)

    async def delete(self, account: str, slot: str = CURRENT) -> int:
        def write() -> int:
            version, generation = self._counters(account)
            present = self._first(_PEEK, slot, account)
            self._query("DELETE FROM rows WHERE slot = ? AND account = ?", slot, account)
            if present is not None and slot == CURRENT:
                version += 1
                self._query("INSERT INTO tombstones VALUES (?, ?, ?)", account, version, generation)
            return version

        return await self._transaction(write)

    async def changes(self, since: int) -> tuple[int, list[str]]:
        return since, []  # the lock on the file leaves no others

    async def close(self) -> None:
        await self._call(self._connection.close)

    async def _call(self, work: Callable[[], _T]) -> _T:
        def in_turn() -> _T:
            # The limiter keeps order, but asyncio's own Task.cancel(), which anyio's shield doesn't
            # stop, releases it while the thread still works: the next call waits for it here.
            with self._turn, in_words(self.path):
                return work()

        with CancelScope(shield=True):
            result = await to_thread.run_sync(in_turn, limiter=self._limiter)
        return result  # noqa: RET504 - to mypy a CancelScope may swallow what is raised in it

    async def _transaction(self, write: Callable[[], _T]) -> _T:
        def whole() -> _T:
            self._query("BEGIN IMMEDIATE")
            try:
                result = write()
                self._query("COMMIT")
            except BaseException:
                # After some disk errors SQLite has rolled back by itself already.
                if self._connection.in_transaction:
                    self._query("ROLLBACK")
                raise
            self._check_place()
            return result

        return await self._call(whole)

    def _check_place(self) -> None:
        """See that what was written is where the next start looks for it.

        SQLite goes on with the files that it has open, wherever their names are meanwhile: a folder
        that was moved away, or a backup put in its place, and each write is lost with the process.
        """
        file, log = _identity(self.path), _identity(f"{self.path}-wal")
        self._log = self._log or log
        if (file, log) != (self._file, self._log):
            raise StoreError(
                f"{self.path} was moved, removed or replaced while it was in use, and what is"
                " written can't be kept: put it back, or restart spotokend to go on with what is"
                " there now"
            )

    def _query(self, statement: str, *values: object) -> list[Any]:
        return self._connection.execute(statement, values).fetchall()

    def _first(self, statement: str, slot: str, account: str) -> Row | None:
        found = self._query(statement, slot, account)
        return _row(found[0]) if found else None

    def _counters(self, account: str) -> tuple[int, int]:
        found = self._connection.execute(_COUNTERS, {"account": account}).fetchone()
        return found or (0, 0)

    def _write(self, row: Row) -> None:
        intent = (None,) * len(_INTENT) if row.intent is None else astuple(row.intent)
        self._query(_WRITE, *(getattr(row, name) for name in _PLAIN), *intent)


def _identity(path: str) -> tuple[int, int] | None:
    """Which file has that name; None: none."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def _row(values: tuple[Any, ...]) -> Row:
    plain, intent = values[: len(_PLAIN)], values[len(_PLAIN) :]
    # An open intent has an attempt; without one all its columns are NULL.
    return Row(
        **dict(zip(_PLAIN, plain, strict=True)),
        intent=None
        if intent[0] is None
        else Intent(**dict(zip(Intent.__slots__, intent, strict=True))),
    )
