"""What the last daemon could only spill: from its files into the store, before anything else.

A file whose attempt is the one that the store says is open is committed, as if the daemon had never
ended. One that a login, a logout or its own commit has overtaken is of no use, and goes. All others
are kept under a name that says why, and told: they may hold the only copy of a login.
"""

from __future__ import annotations

from dataclasses import dataclass

from spotokend.adapters.spill import SpillError, SpillFolder, Unusable
from spotokend.adapters.store.base import CURRENT, Fenced, Lease, Row, Store, StoreError
from spotokend.rules.notice import Level, Notice
from spotokend.rules.sealing import SealingError, UnknownFormat, WrongKey

from .packing import unpack_row
from .rows import Rows


@dataclass(frozen=True, slots=True)
class Spilled:
    """An answer that lies in a file: what commits it, and why the store did not take it."""

    lease: Lease
    row: Row
    reason: str


class Recovery:
    """One start's look at the files; :attr:`notices` is what is to be told of it."""

    def __init__(self, store: Store, rows: Rows, spill: SpillFolder) -> None:
        self._store = store
        self._rows = rows
        self._spill = spill
        self.notices: list[Notice] = []

    async def run(self) -> dict[str, Spilled]:
        """Go over all files; returns what the store still does not take, by account.

        Raises:
            StoreError: the store can't be read.
        """
        left: dict[str, Spilled] = {}
        try:
            accounts = await self._spill.accounts()
        except SpillError as error:
            self._notice("spill_unreadable", Level.ERROR, None, str(error))
            return left
        for account in accounts:
            try:
                spilled = await self._recover(account)
            except Unusable as error:
                await self._put_aside(account, error)
            except SpillError as error:
                self._notice("spill_unreadable", Level.ERROR, account, str(error))
            else:
                if spilled is not None:
                    left[account] = spilled
        return left

    async def _recover(self, account: str) -> Spilled | None:
        lease, row = await self._read(account)
        try:
            await self._store.commit(lease, row)
        except StoreError as error:
            words = f"the answer that was not saved is still only beside the socket: {error}"
            self._notice("spill_waits", Level.ERROR, account, words)
            return Spilled(lease, row, str(error))
        except Fenced:
            reached, _ = await self._store.counters(account)
            if reached < row.version:
                raise Unusable(
                    "its attempt is not the one that the store has begun", "fenced"
                ) from None
            words = "a login or a logout came after the answer that was not saved; it is dropped"
            self._notice("spill_overtaken", Level.INFO, account, words)
        else:
            self._notice("spill_saved", Level.INFO, account, "the answer that was not saved is now")
        await self._spill.remove(account)
        return None

    async def _read(self, account: str) -> tuple[Lease, Row]:
        data = await self._spill.read(account)
        try:
            attempt, row = unpack_row(data)
            self._rows.check(row)
        except WrongKey as error:
            raise Unusable(str(error), "foreign-key") from None
        except UnknownFormat as error:
            raise Unusable(str(error), "version") from None
        except (ValueError, SealingError) as error:
            raise Unusable(str(error), "damaged") from None
        if (row.account, row.slot) != (account, CURRENT):
            raise Unusable(f"it holds the row of {row.account}", "damaged")
        return Lease(account, attempt, row.version - 1), row

    async def _put_aside(self, account: str, error: Unusable) -> None:
        words = f"the answer of an earlier spotokend that was not saved can't be used: {error}"
        try:
            name = await self._spill.put_aside(account, error.why, now=self._rows.clock.wall())
        except SpillError as stays:
            self._notice("spill_unreadable", Level.ERROR, account, f"{words}; {stays}")
        else:
            self._notice("spill_aside", Level.ERROR, account, f"{words}; it is kept as {name}")

    def _notice(self, kind: str, level: Level, account: str | None, words: str) -> None:
        hint = None if account is None or level is Level.INFO else f"spotokend status {account}"
        self.notices.append(Notice(kind, level, account, words, hint, self._rows.clock.wall()))
