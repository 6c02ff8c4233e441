"""Which write a store allows, and what the row is afterwards; the same for every store.

Pure: each store reads the present row in its own transaction, asks here, and writes the answer.
What is refused raises :class:`Fenced`; nobody but a login, a logout or another process can have
come between, so its text says so.
"""

from __future__ import annotations

from dataclasses import replace

from .base import CURRENT, Fenced, Intent, Lease, Outcome, Row


def begin(account: str, present: Row | None, version: int, intent: Intent) -> Row:
    """The row under its new intent."""
    if present is None or present.version != version:
        raise _fenced(account, present, f"version {version}")
    return replace(present, intent=intent)


def commit(present: Row | None, lease: Lease, row: Row) -> Row | None:
    """The row that an answer makes; None if this very attempt was committed before.

    The second case is a commit whose own success was not told: the process died, or the disk
    reported an error after it had kept the data.
    """
    _check_caller(lease, row)
    if present is not None and present.last_attempt == lease.attempt:
        return None
    _check_lease(present, lease)
    return replace(row, intent=None, last_attempt=lease.attempt)


def settle(present: Row | None, lease: Lease, outcome: Outcome, row: Row) -> Row:
    """The row that a refresh without an answer makes."""
    _check_caller(lease, row)
    present = _check_lease(present, lease)
    intent = (row.intent or present.intent) if outcome is Outcome.IN_DOUBT else None
    return replace(row, intent=intent, last_attempt=present.last_attempt)


def put(reached: int, row: Row) -> Row:
    """The row that a login makes; ``reached`` is the version of the account's counters.

    The last attempt is forgotten: its commit, repeated, must not pass for one made after the login.
    """
    if row.slot == CURRENT and row.version <= reached:
        raise Fenced(
            f"account {row.account!r}: version {row.version} can't be written, {reached} was"
            " reached already: another login or logout came between"
        )
    return replace(row, intent=None, last_attempt=None)


def _check_caller(lease: Lease, row: Row) -> None:
    # The version is bound into the envelope: a row stored under another could never be opened.
    if (row.account, row.slot, row.version) != (lease.account, CURRENT, lease.version + 1):
        raise ValueError(
            f"a row of {row.account!r} (slot {row.slot!r}, version {row.version}) can't be written"
            f" under a lease of {lease.account!r} at version {lease.version}"
        )


def _check_lease(present: Row | None, lease: Lease) -> Row:
    if (
        present is None
        or present.version != lease.version
        or present.intent is None
        or present.intent.attempt != lease.attempt
    ):
        raise _fenced(lease.account, present, f"version {lease.version} under this attempt")
    return present


def _fenced(account: str, present: Row | None, expected: str) -> Fenced:
    found = "it isn't stored" if present is None else f"version {present.version} is stored"
    return Fenced(
        f"account {account!r}: {expected} was expected, {found}: a login, a logout or another"
        " refresh came between"
    )
