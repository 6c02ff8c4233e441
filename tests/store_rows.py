"""Rows for the tests of the stores, the leases that they are written under, and a full disk."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from dataclasses import replace

from spotokend.adapters.store.base import Intent, Lease, Row


def row(account="main", version=1, **fields) -> Row:
    """A row with something in each column, and a different something for each version."""
    given = {
        "client": "spotify",
        "fingerprint": "fingerprint-1",
        "generation": version,
        "state": "fresh",
        "due_at": 1000.5 + version,
        "expires_at": 2000.5 + version,
        "issued_at": 10.25,
        "boot_id": "boot-1",
        "due_boot": 100.5,
        "expires_boot": 200.5,
        "facts": b"\x81\xa1a\x01",
        "key_id": "key-1",
        "sealed": f"envelope of {account} at {version}".encode(),
    }
    return Row(account=account, version=version, **(given | fields))


def intent(attempt="attempt-1", **fields) -> Intent:
    """An intent begun at ten."""
    return Intent(attempt=attempt, started_at=10.0, **fields)


def lease(account="main", version=1, attempt="attempt-1") -> Lease:
    """The lease that ``begin`` gives for :func:`intent`."""
    return Lease(account, attempt, version)


def clear(stored: Row) -> Row:
    """What ``scan`` shows of it."""
    return replace(stored, sealed=None)


@contextmanager
def no_room(size=0):
    """Meanwhile no file of this process grows beyond ``size`` bytes: the write fails."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
