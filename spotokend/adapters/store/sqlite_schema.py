"""The schema of the SQLite store, and every connection to a file that has it.

Each schema is reached from the one before by a step, so that the steps together make a new file,
bring an old one up to date, and make the empty twin of a damaged one.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from .base import Damaged, NewerSchema, StoreError

APPLICATION_ID = 0x73706F74
"""``spot``: what file(1) and we tell our files by."""

ABSURD_VERSION = 1000
"""No schema gets there: a number above it is a flipped bit, and not of a newer version."""

Steps = Sequence[tuple[str, ...]]

# Step n leads from schema n to schema n + 1, so that all of them make a new file. The types are
# CHECKs and not STRICT: an SQLite before 3.37 takes a STRICT table for a malformed schema, and a
# file must not become "damaged" by moving to an older host. Tables keep their rowids: the table
# and its index are then two trees, and what one has lost the other still lists. ``sealed`` stands
# last, so that reading the other columns never follows it into overflow pages.
STEPS: Steps = (
    (
        """CREATE TABLE rows (
            account TEXT NOT NULL CHECK (typeof(account) = 'text'),
            slot TEXT NOT NULL CHECK (typeof(slot) = 'text'),
            client TEXT NOT NULL CHECK (typeof(client) = 'text'),
            fingerprint TEXT NOT NULL CHECK (typeof(fingerprint) = 'text'),
            version INTEGER NOT NULL CHECK (typeof(version) = 'integer'),
            generation INTEGER NOT NULL CHECK (typeof(generation) = 'integer'),
            state TEXT NOT NULL CHECK (typeof(state) = 'text'),
            due_at REAL CHECK (typeof(due_at) IN ('real', 'null')),
            expires_at REAL CHECK (typeof(expires_at) IN ('real', 'null')),
            issued_at REAL CHECK (typeof(issued_at) IN ('real', 'null')),
            boot_id TEXT NOT NULL CHECK (typeof(boot_id) = 'text'),
            due_boot REAL CHECK (typeof(due_boot) IN ('real', 'null')),
            expires_boot REAL CHECK (typeof(expires_boot) IN ('real', 'null')),
            facts BLOB NOT NULL CHECK (typeof(facts) = 'blob'),
            key_id TEXT NOT NULL CHECK (typeof(key_id) = 'text'),
            intent_attempt TEXT CHECK (typeof(intent_attempt) IN ('text', 'null')),
            intent_started_at REAL CHECK (typeof(intent_started_at) IN ('real', 'null')),
            intent_tries INTEGER CHECK (typeof(intent_tries) IN ('integer', 'null')),
            intent_not_before REAL CHECK (typeof(intent_not_before) IN ('real', 'null')),
            last_attempt TEXT CHECK (typeof(last_attempt) IN ('text', 'null')),
            sealed BLOB CHECK (typeof(sealed) IN ('blob', 'null'))
        )""",
        "CREATE UNIQUE INDEX rows_by_name ON rows (slot, account)",
        """CREATE TABLE tombstones (
            account TEXT NOT NULL CHECK (typeof(account) = 'text'),
            version INTEGER NOT NULL CHECK (typeof(version) = 'integer'),
            generation INTEGER NOT NULL CHECK (typeof(generation) = 'integer')
        )""",
        "CREATE UNIQUE INDEX tombstones_by_name ON tombstones (account)",
    ),
)

TABLES = ("rows", "tombstones")

BUSY_SECONDS = 2.0
"""How long a file that another program has open is waited for."""

_WORDS = {
    sqlite3.SQLITE_FULL: "the disk is full: make room, the write is tried again",
    sqlite3.SQLITE_READONLY: "it can't be written: the disk or the file is read-only",
    sqlite3.SQLITE_IOERR: "the disk reports an error: see the kernel's log, and free space and quota",
    sqlite3.SQLITE_BUSY: "another program has it open: close that one",
    sqlite3.SQLITE_CANTOPEN: (
        "it, or its log, can't be opened: see the rights of its folder, and df -i for free inodes"
    ),
}


@contextmanager
def in_words(path: str) -> Iterator[None]:
    """Turn what SQLite and the system say of this file into a :class:`StoreError`.

    What has no words here is a defect of ours and passes through with its traceback.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(f"{error.filename or path}: {error.strerror}") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", -1)
        # The low byte is the kind, the rest says more precisely which (sqlite.org/rescode.html).
        if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise Damaged(
                f"{path}: {error}; restart spotokend: it puts the file aside and carries over what"
                " can be read"
            ) from error
        words = _WORDS.get(code & 0xFF)
        if words is None:
            raise
        raise StoreError(f"{path}: {words} ({error.sqlite_errorname})") from error


def connect(path: str) -> sqlite3.Connection:
    """Open the file, which must exist, for this process alone."""
    # One thread at a time uses it, not always the same one: see SqliteStore.
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    # A flipped bit in one name must not hide all the others behind a decoding error.
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")
    # Nobody else may write, and no -shm file is needed: even on a full disk the store opens.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA secure_delete = ON")  # a logout leaves no envelope in free pages
    return connection


def examine(connection: sqlite3.Connection, path: str, newest: int) -> int:
    """The version of the schema of a sound file; 0 if it is empty.

    Raises:
        Damaged: it isn't sound. All of it is read: 130 ms for 100,000 accounts.
        NewerSchema, StoreError: it isn't ours to touch.
    """
    try:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if not names and not version:
            return 0
        # The mark alone may be what is damaged.
        if application_id != APPLICATION_ID and not names.issuperset(TABLES):
            raise StoreError(
                f"{path} is the database of another program: name another file under [store] path"
            )
        if newest < version <= ABSURD_VERSION:
            raise NewerSchema(
                f"{path} has schema {version}, this version of spotokend knows {newest}: install"
                " the newer one again, or name another file under [store] path and log in there"
            )
        # Never reaches the disk, but is refused where the header says that nobody may write.
        connection.execute("BEGIN")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("ROLLBACK")
        (finding,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except UnicodeDecodeError:
        finding = "malformed database schema"  # which SQLite's message quotes
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", -1) & 0xFF
        # The system lets us write the file, or there would be no connection.
        if code in _WORDS and code != sqlite3.SQLITE_READONLY:
            raise
        finding = str(error)
    else:
        known = 1 <= version <= newest
        if application_id != APPLICATION_ID or not known or not names.issuperset(TABLES):
            finding = "its header or schema is not what was written"
    if finding != "ok":
        raise Damaged(f"{path} is damaged ({finding})")
    return int(version)


def upgrade(connection: sqlite3.Connection, version: int, steps: Steps) -> None:
    """Go all the steps that lead on from ``version``."""
    connection.execute("BEGIN IMMEDIATE")  # all steps or none; left open it is undone by closing
    for statement in itertools.chain.from_iterable(steps[version:]):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {len(steps)}")
    connection.execute("COMMIT")
