"""The schema: its steps, what it refuses, and what SQLite's errors become."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import fields

import pytest

from spotokend.adapters.store.base import Damaged, Intent, NewerSchema, Row, StoreError
from spotokend.adapters.store.sqlite_schema import (
    APPLICATION_ID,
    STEPS,
    TABLES,
    connect,
    examine,
    in_words,
    upgrade,
)

ADDED = (*STEPS, ("ALTER TABLE rows ADD COLUMN extra TEXT",))


@pytest.fixture
def path(tmp_path):
    """Where the file is."""
    return str(tmp_path / "store.sqlite3")


@pytest.fixture
def connection(path):
    """An open file of the newest schema."""
    with closing(connect(path)) as opened:
        upgrade(opened, 0, STEPS)
        yield opened


def columns(connection, table="rows"):
    return [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]


def test_the_columns_are_the_fields(connection):
    """Nothing that a row holds is without a column."""
    plain = {field.name for field in fields(Row)} - {"intent"}

    assert set(columns(connection)) == plain | {f"intent_{field.name}" for field in fields(Intent)}
    assert columns(connection)[-1] == "sealed"


def test_a_new_file_is_empty_and_then_sound(path):
    """Version nought means that all steps are to be gone."""
    with closing(connect(path)) as opened:
        assert examine(opened, path, len(STEPS)) == 0
        upgrade(opened, 0, STEPS)
        assert examine(opened, path, len(STEPS)) == len(STEPS)
        assert opened.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)


def test_a_step_leads_on_from_the_one_before(connection, path):
    """And the file says how far it has come."""
    upgrade(connection, 1, ADDED)

    assert columns(connection)[-1] == "extra"
    assert examine(connection, path, 2) == 2


def test_steps_are_gone_all_or_none(path):
    """A step that can't be gone leaves the file as it was."""
    with closing(connect(path)) as opened:
        upgrade(opened, 0, STEPS)
        with pytest.raises(sqlite3.OperationalError):
            upgrade(opened, 1, (*ADDED, ("no SQL",)))
    with closing(connect(path)) as opened:
        assert examine(opened, path, 1) == 1
        assert "extra" not in columns(opened)


def test_a_newer_schema_is_refused(connection, path):
    """Its words name both versions and the cure."""
    upgrade(connection, 1, ADDED)

    with pytest.raises(
        NewerSchema, match="has schema 2, this version of spotokend knows 1: install"
    ):
        examine(connection, path, 1)


def test_another_programs_database_is_refused(path):
    """It isn't damaged; it isn't ours."""
    with closing(connect(path)) as opened:
        opened.execute("CREATE TABLE bookmarks (address TEXT)")
        with pytest.raises(StoreError, match="database of another program: name another file"):
            examine(opened, path, 1)


@pytest.mark.parametrize(
    "statement",
    [
        "PRAGMA application_id = 1",
        "PRAGMA user_version = 0",
        "PRAGMA user_version = 1025",
        "PRAGMA user_version = -2147483647",
        "DROP TABLE tombstones",
    ],
)
def test_a_header_that_contradicts_the_schema_is_damage(connection, path, statement):
    """The rows may be whole nevertheless, so this is for the repair, not for a refusal."""
    connection.execute(statement)

    with pytest.raises(Damaged, match="its header or schema is not what was written"):
        examine(connection, path, 1)


def test_a_value_of_the_wrong_type_is_found(connection, path):
    """No caller has to expect a text where a time should be."""
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute("INSERT INTO tombstones VALUES ('main', 'seven', 1)")
    connection.execute("PRAGMA ignore_check_constraints = OFF")

    with pytest.raises(Damaged, match="CHECK constraint failed in tombstones"):
        examine(connection, path, 1)


@pytest.mark.parametrize(
    ("offset", "byte"),
    [(0, 0), (18, 9), (19, 9), (105, 0xFF)],
    ids=["magic", "write version", "read version", "first page"],
)
def test_a_broken_header_is_damage(path, offset, byte):
    """Whatever of it is broken: SQLite has an error of another kind for each."""
    with closing(connect(path)) as opened:
        upgrade(opened, 0, STEPS)
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(bytes((byte,)))

    with closing(connect(path)) as opened, pytest.raises(Damaged):
        examine(opened, path, 1)


def test_a_schema_that_is_no_text_is_damage(path):
    """SQLite quotes it in its message, which Python then can't decode."""
    with closing(connect(path)) as opened:
        upgrade(opened, 0, STEPS)
    with open(path, "r+b") as file:
        content = file.read().replace(b"CREATE TABLE rows (", b"CREATE TABLE rows \xa3")
        file.seek(0)
        file.write(content)

    with (
        closing(connect(path)) as opened,
        pytest.raises(Damaged, match="malformed database schema"),
    ):
        examine(opened, path, 1)


def test_a_name_that_is_no_text_hides_nothing_else(connection):
    """It is shown with a mark in place of what can't be read."""
    connection.execute("INSERT INTO tombstones VALUES (CAST(x'6dff' AS TEXT), 1, 1)")

    assert connection.execute("SELECT account FROM tombstones").fetchone() == ("m\ufffd",)


def test_what_the_system_refuses_names_the_file():
    """The one that the system named, or the store's."""
    with pytest.raises(StoreError, match=r"^store: Is a directory$"), in_words("store"):
        raise IsADirectoryError(21, "Is a directory")
    with pytest.raises(StoreError, match=r"^folder: Permission denied$"), in_words("store"):
        raise PermissionError(13, "Permission denied", "folder")


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (sqlite3.SQLITE_FULL, StoreError, "the disk is full: make room"),
        (sqlite3.SQLITE_IOERR_WRITE, StoreError, "the disk reports an error"),
        (sqlite3.SQLITE_READONLY_DBMOVED, StoreError, "it can't be written"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreError, "another program has it open"),
        (sqlite3.SQLITE_CANTOPEN, StoreError, "it, or its log, can't be opened"),
        (sqlite3.SQLITE_CORRUPT_INDEX, Damaged, "restart spotokend"),
        (sqlite3.SQLITE_NOTADB, Damaged, "restart spotokend"),
        (sqlite3.SQLITE_ERROR, sqlite3.OperationalError, "as SQLite says it"),
    ],
)
def test_each_kind_of_error_has_its_words(code, kind, words):
    """The extended codes of a kind, too; what is our defect keeps its own."""
    error = sqlite3.OperationalError("as SQLite says it")
    error.sqlite_errorcode, error.sqlite_errorname = code, "SQLITE_NAME"

    with pytest.raises(kind, match=words) as caught, in_words("store"):
        raise error
    assert caught.type is kind


def test_a_disk_that_fails_is_not_taken_for_damage(connection, path):
    """Nothing is put aside because of it."""

    class Failing:
        def execute(self, statement):
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
            raise error

    with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
        examine(Failing(), path, 1)


def test_both_tables_have_a_second_tree(connection):
    """The index by name lists what the table may have lost."""
    for table in TABLES:
        connection.execute(f"SELECT rowid FROM {table} INDEXED BY {table}_by_name")
