"""The store's contract: one row an account, bytes in and bytes out, nothing lost.

Every write is durable when its call returns. All calls are coroutines; a call that was begun is
carried to its end even when its caller is cancelled.

The life of a refresh in here::

    lease = await store.begin(account, version, intent)   # durable before anything is sent
    ...                                                   # the request
    await store.commit(lease, row)                        # an answer: closes the intent
    await store.settle(lease, Outcome.IN_DOUBT, row)      # or none: keeps it

``version`` is the fence: each write but ``begin`` raises it, and a write that expects another
version than the row's, or another open intent, is refused (:class:`Fenced`). It is never used
again: ``delete`` leaves counters that go on counting. Which write is allowed, and what the row is
afterwards, is said once for all stores in ``fences``.

Other slots than the current one only keep a row for later. They have no intent, no counters and no
fence; their version is the one that their envelope is bound to.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

CURRENT = ""
"""The slot of the row that is in use."""
CANDIDATE = "candidate"
"""The slot of a grant that has just been obtained and whose user isn't known yet."""


def aside(fingerprint: str) -> str:
    """The slot in which a row of another client registration waits for the edit to be undone."""
    return f"aside:{fingerprint}"


def rows_by_kind(slots: Mapping[str, int]) -> dict[str, int]:
    """How many rows there are in use, as candidates and put aside, from their numbers by slot."""
    in_use, candidates = slots.get(CURRENT, 0), slots.get(CANDIDATE, 0)
    aside = sum(slots.values()) - in_use - candidates
    return {"in use": in_use, "candidates": candidates, "aside": aside}


class Outcome(StrEnum):
    """How a refresh ended that brought no answer worth a commit."""

    NOT_SENT = "not_sent"
    """Nothing left this host: closes the intent."""
    REFUSED = "refused"
    """The server said no: closes the intent."""
    IN_DOUBT = "in_doubt"
    """Nobody knows what the server did: the intent stays open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What is about to be done with a row's refresh token; durable before it is done."""

    attempt: str
    """Unique; a commit that repeats it is the same commit."""
    started_at: float
    """Unix seconds."""
    tries: int = 1
    """How often in a row this was begun without an answer: a crash loop backs off too."""
    not_before: float | None = None
    """Unix seconds before which no other try may be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One account. All but ``sealed`` is readable by whoever can read the store's file."""

    account: str
    slot: str = CURRENT
    client: str
    """The client's name in the configuration."""
    fingerprint: str
    version: int = 0
    generation: int = 0
    state: str
    due_at: float | None = None
    """Unix seconds of the next refresh; None: none is due."""
    expires_at: float | None = None
    """Unix seconds of the access token's end; None: there is none to serve."""
    issued_at: float | None = None
    """Unix seconds at which the access token was asked for."""
    boot_id: str = ""
    """The boot in which the two next were true."""
    due_boot: float | None = None
    expires_boot: float | None = None
    facts: bytes = b""
    """MessagePack of a map of what else is known: since, reason, failures, rotation seen, …"""
    key_id: str = ""
    """The name of the key that sealed ``sealed``."""
    sealed: bytes | None = None
    """The envelope with the grant and the access token; None: there is none."""
    intent: Intent | None = None
    last_attempt: str | None = None
    """The attempt of the last commit. The store's own: what a caller passes in is ignored."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to redeem the refresh token of one row, once."""

    account: str
    attempt: str
    version: int


class StoreError(Exception):
    """The store can't do that now: full, read-only, I/O error. Nothing has changed in it.

    The text names the file, what happened and the cure.
    """


class Fenced(Exception):
    """The row is no longer the one that was expected: somebody logged in or out meanwhile."""


class Damaged(StoreError):
    """What the store's file holds is no longer consistent. Opening it anew repairs what can be."""


class NewerSchema(StoreError):
    """The store was written by a newer version of this program, which alone may touch it."""


class Store(abc.ABC):
    """One contract and one suite of tests over all implementations."""

    @abc.abstractmethod
    async def scan(self, after: str = "", limit: int = 1000) -> list[Row]:
        """Rows of the current slot in the order of their names, ``sealed`` left out (None)."""

    @abc.abstractmethod
    async def load(self, account: str, slot: str = CURRENT) -> Row | None:
        """One whole row. None also where ``delete`` left its counters (see :meth:`counters`)."""

    @abc.abstractmethod
    async def slots(self, slot: str) -> list[str]:
        """Names of the accounts that have a row in that slot, in order."""

    @abc.abstractmethod
    async def envelopes(self, *, not_by: str = "", limit: int = 1000) -> list[tuple[str, str]]:
        """``(account, slot)`` of rows, in any slot, with an envelope of another key than ``not_by``.

        With the name of the new key it is what a change of keys has still to do.
        """

    @abc.abstractmethod
    async def sealed_by(self) -> dict[str, int]:
        """How many envelopes each key has sealed, in all slots, by the key's name.

        None at all means that no key is needed yet: only then may one be made.
        """

    @abc.abstractmethod
    async def describe(self) -> dict[str, object]:
        """What it is and holds, for people: ``backend``, ``path``, ``schema``, ``bytes`` on disk,
        ``durable`` (in words), ``rows`` by slot (``in use``, ``candidates``, ``aside``), and
        ``sealed_by`` as :meth:`sealed_by`.
        """

    @abc.abstractmethod
    async def reseal(self, before: Row, after: Row) -> bool:
        """Put the envelope of ``after`` in the place of that of ``before``, if it is still there.

        Both are the same row otherwise, which keeps all else, its version too: a lease stays good.
        False: it has been written since, and is to be looked at anew.

        Raises:
            StoreError: not written.
        """

    @abc.abstractmethod
    async def counters(self, account: str) -> tuple[int, int]:
        """``(version, generation)`` reached by the account, also after a delete; (0, 0) at first."""

    @abc.abstractmethod
    async def begin(self, account: str, version: int, intent: Intent) -> Lease:
        """Write the intent. The row keeps its version.

        An intent that a crash or a lost answer left open is replaced, and with it its lease.

        Raises:
            Fenced: the row's version is another, or there is none.
            StoreError: it can't be written: nothing may be sent.
        """

    @abc.abstractmethod
    async def commit(self, lease: Lease, row: Row) -> int:
        """Replace the row, close the intent; returns the new version, which is ``row.version``.

        ``row.version`` must be ``lease.version + 1``: it is bound into the envelope. A commit that
        repeats an attempt already committed succeeds and changes nothing; after a crash a lease is
        made anew from the open intent.

        Raises:
            Fenced: another write came between.
            StoreError: not written.
            ValueError: the row isn't the lease's, or has another version; a defect of the caller.
        """

    @abc.abstractmethod
    async def settle(self, lease: Lease, outcome: Outcome, row: Row) -> int:
        """Replace the row after a refresh without an answer; the intent as the outcome says.

        With ``IN_DOUBT`` the intent of ``row`` is stored (it may carry a ``not_before``), or stays
        as it is where ``row`` has none.

        Raises:
            Fenced, StoreError, ValueError: as ``commit``.
        """

    @abc.abstractmethod
    async def put(self, row: Row) -> int:
        """Write a row whatever is there: a login. Always wins; returns the version.

        In the current slot ``row.version`` must be greater than ``counters(account)`` has it (one
        above, usually): the intent is closed and the counters follow. Other slots take a row as
        it is, without its intent.

        Raises:
            Fenced: the version was used already.
            StoreError: not written.
        """

    @abc.abstractmethod
    async def delete(self, account: str, slot: str = CURRENT) -> int:
        """Remove a row: a logout. Always wins; the current slot's counters remain, raised by one.

        Returns the version that the counters have then. Deleting what isn't there is no error, and
        raises nothing.

        Raises:
            StoreError: not removed.
        """

    @abc.abstractmethod
    async def changes(self, since: int) -> tuple[int, list[str]]:
        """A cursor, and the accounts written by *others* since that cursor. One process: none."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Finish what was begun and let go of the files."""
