"""The store and its key as one thing: accounts' states in, accounts' states out, sealed between.

Unsealing happens when a secret is first needed: a start costs the same with one account and with
100,000. What is written is durable when the call returns. A row of another client registration is
never handed out and never overwritten: it goes aside, and comes back with its registration.

An answer that the store does not take is spilled: its row lies sealed in a file beside the socket
until the store has it, or until a login or logout has overtaken it.

Without a key nothing is sealed or unsealed: each call that would have to raises
:class:`~spotokend.errors.Locked`, before it has changed anything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

import anyio

from spotokend.adapters.spill import SpillError, SpillFolder
from spotokend.adapters.store.base import (
    CANDIDATE,
    CURRENT,
    Fenced,
    Lease,
    Outcome,
    Row,
    Store,
    aside,
)
from spotokend.errors import Misconfigured
from spotokend.rules import saving
from spotokend.rules.account import (
    Attempt,
    Blocked,
    Fresh,
    Policy,
    Refreshing,
    Sealed,
    State,
    Waiting,
)
from spotokend.rules.gate import Gate
from spotokend.rules.notice import Notice
from spotokend.rules.sealing import KeyRing, SealingError, SealingKey
from spotokend.rules.transitions import due_at

from .packing import pack_row
from .recovery import Recovery, Spilled
from .rows import Owner, Rows

REKEYED_AT_ONCE = 50
"""Envelopes that a change of keys moves before it lets a login or a logout go first: each costs an
fsync."""


class Vault:
    """See the module. All calls of the store go through here."""

    def __init__(self, store: Store, rows: Rows, spill: SpillFolder) -> None:
        self._store = store
        self._rows = rows
        self._spill = spill
        self._spilled: dict[str, Spilled] = {}
        """What has a file beside the socket, by account."""
        # A login in the middle of an exchange would be deleted as the row that is exchanged.
        self._one_at_a_time = anyio.Lock()
        # A file that is being written under the older key must not be passed over.
        self._spilling = anyio.Lock()

    @property
    def locked(self) -> bool:
        """Whether there is no key."""
        return not self._rows.keys.ids

    async def holds_nothing(self) -> bool:
        """Whether nothing is there that a key has sealed: only then may one be made.

        Raises:
            StoreError, SpillError: nobody can say.
        """
        return not await self._store.sealed_by() and not await self._spill.accounts()

    async def unlock(self, keys: Sequence[SealingKey]) -> list[Notice]:
        """Use these keys, the newest first, from now on; before anything else is done with them
        the store gets what the last daemon could only spill.

        Returns what is to be told of that.

        Raises:
            Misconfigured: the store was sealed with others; nothing is touched.
            StoreError: the store can't be read.
        """
        names = [key.key_id for key in keys]
        if foreign := sorted((await self._store.sealed_by()).keys() - set(names)):
            raise Misconfigured(
                f"the key at hand ({', '.join(names)}) is not the one that sealed the store "
                f"({', '.join(foreign)}); nothing was overwritten",
                hint="put the right key back where [store] key names its place, or the store that "
                "belongs to this one",
            )
        recovery = Recovery(self._store, self._rows.under(KeyRing(*keys)), self._spill)
        self._spilled = await recovery.run()
        self._rows.keys.take(keys)
        return recovery.notices

    async def rows(self) -> AsyncIterator[Row]:
        """Every account's clear columns."""
        after = ""
        while page := await self._store.scan(after):
            for row in page:
                yield row
            after = page[-1].account

    def sealed(self, row: Row, policy: Policy) -> Sealed:
        """See :meth:`Rows.sealed`."""
        return self._rows.sealed(row, policy)

    async def unseal(self, owner: Owner, policy: Policy) -> State | None:
        """What there is of the account under that registration; None: no such row.

        Where the store still does not take what the last daemon spilled, that.
        """
        row = await self._store.load(owner.account)
        if row is None or row.fingerprint != owner.fingerprint:
            return None
        spilled = self._spilled.get(owner.account)
        if spilled is None or row.intent is None or row.intent.attempt != spilled.lease.attempt:
            return self._rows.to_state(row, policy)
        state = self._rows.to_state(spilled.row, policy)
        assert isinstance(state, Fresh | Waiting)  # what an answer makes; its envelope was opened
        return saving.taken_up(
            state,
            spilled.lease.attempt,
            version=spilled.lease.version,
            reason=spilled.reason,
            now=self._rows.clock.boot(),
        )

    async def begin(self, owner: Owner, state: State, attempt: Attempt) -> Lease:
        """Make the intent durable; see :meth:`Store.begin` for what it raises.

        A client-credentials account's first token has no row to hold an intent: it gets one. A
        grant's row that is gone was deleted by a logout, which must not be undone here.
        """
        version = state.version
        if isinstance(state, Refreshing) and state.grant is None:
            # It is never in doubt; but its crash loops back off by the same figure.
            attempt = replace(attempt, tries=state.failures + 1)
            if await self._store.load(owner.account) is None:
                version = await self.put(owner, state)
        return await self._store.begin(owner.account, version, self._rows.intent(attempt))

    async def commit(self, owner: Owner, lease: Lease, state: State, *, gate: Gate) -> int:
        """Make an answer durable, and with it what is to be kept of the gate; the version.

        Raises:
            Fenced, StoreError: see :meth:`Store.commit`.
        """
        row = self._rows.to_row(owner, state, lease.version + 1, gate)
        try:
            version = await self._store.commit(lease, row)
        except Fenced:
            await self.forget_spilled(owner.account)
            raise
        await self.forget_spilled(owner.account)
        return version

    async def spill(
        self, owner: Owner, lease: Lease, state: State, *, gate: Gate, reason: str
    ) -> None:
        """Write what the store does not take, for that reason, beside the socket.

        Raises:
            SpillError: it isn't there.
        """
        async with self._spilling:
            row = self._rows.to_row(owner, state, lease.version + 1, gate)
            await self._spill.write(owner.account, pack_row(lease.attempt, row))
            self._spilled[owner.account] = Spilled(lease, row, reason)

    async def forget_spilled(self, account: str) -> None:
        """The store has it, or a login or logout came after it."""
        if account in self._spilled:
            async with self._spilling:
                # A file that can't be removed: the next start sees that it is of no use any more.
                with suppress(SpillError):
                    await self._spill.remove(account)
                self._spilled.pop(account, None)

    async def settle(
        self,
        owner: Owner,
        lease: Lease,
        outcome: Outcome,
        state: State,
        attempt: Attempt,
        *,
        gate: Gate,
    ) -> int:
        """Make an attempt without an answer durable, as :meth:`commit`; returns the version."""
        row = self._rows.to_row(owner, state, lease.version + 1, gate)
        if outcome is Outcome.IN_DOUBT:
            row = replace(row, intent=self._rows.intent(attempt, not_before=due_at(state)))
        return await self._store.settle(lease, outcome, row)

    async def put(self, owner: Owner, state: State, *, candidate: bool = False) -> int:
        """Write a login, whatever is there; returns the version.

        A candidate lies beside the row in use until it is known whose it is.
        """
        self._rows.keys.check()
        async with self._one_at_a_time:
            if candidate:
                return await self._put(owner, state, CANDIDATE)
            old = await self._store.load(owner.account)
            if old is not None and old.fingerprint != owner.fingerprint:
                await self._put_aside(owner.account)
            version = await self._put(owner, state)
            await self.forget_spilled(owner.account)
            return version

    async def candidates(self) -> list[tuple[Row, State]]:
        """Logins that the end of the program left unfinished."""
        found = []
        for account in await self._store.slots(CANDIDATE):
            row = await self._store.load(account, CANDIDATE)
            if row is not None:
                found.append((row, self._rows.to_state(row, Policy())))
        return found

    async def drop_candidate(self, account: str) -> None:
        """It was promoted, or it is somebody else's."""
        await self._store.delete(account, CANDIDATE)

    async def delete(self, account: str, fingerprints: Iterable[str]) -> int:
        """A logout; returns the version at which the counters stay.

        What lies aside for one of these registrations goes too: the next start would bring it back.
        """
        async with self._one_at_a_time:
            for fingerprint in fingerprints:
                await self._store.delete(account, aside(fingerprint))
            version = await self._store.delete(account)
            await self.forget_spilled(account)
            return version

    async def counters(self, account: str) -> tuple[int, int]:
        """``(version, generation)`` reached, also after a logout."""
        version, generation = await self._store.counters(account)
        spilled = self._spilled.get(account)
        return version, max(generation, 0 if spilled is None else spilled.row.generation)

    async def put_aside(self, fingerprint: str) -> list[str]:
        """The accounts of which a row of that registration lies aside."""
        return await self._store.slots(aside(fingerprint))

    async def exchange(self, owner: Owner, policy: Policy) -> State | None:
        """Make the row in use that of the account's present registration.

        One of another goes aside: its refresh token must not be sent to this one, and undoing the
        edit brings it back. Returns what there is for this one; None: nothing.
        """
        self._rows.keys.check()
        async with self._one_at_a_time:
            await self._commit_spilled(owner.account)
            row = await self._store.load(owner.account)
            if row is not None and row.fingerprint == owner.fingerprint:
                return self._rows.to_state(row, policy)
            if row is not None:
                await self._put_aside(owner.account)
                await self._store.delete(owner.account)
            kept = await self._store.load(owner.account, aside(owner.fingerprint))
            if kept is None:
                return None
            state = self._rows.to_state(kept, policy)
            if isinstance(state, Blocked):
                return state  # its envelope doesn't open: it stays as it is, where it is
            _, generation = await self._store.counters(owner.account)
            state = replace(state, generation=max(state.generation, generation))
            version = await self._put(owner, state)
            await self._store.delete(owner.account, aside(owner.fingerprint))
            return replace(state, version=version)

    async def rekey(self) -> tuple[int, list[str]]:
        """Have everything sealed by the newest key; whatever is written meanwhile is already.

        Returns how many envelopes were moved, and the accounts of those that can't be: they, or
        their files beside the socket, don't open. Another call goes on where this one was cut off.

        Raises:
            StoreError, SpillError: some could not be written: the older keys are still needed.
        """
        moved, left = 0, dict[tuple[str, str], None]()
        newest = self._rows.keys.newest.key_id
        while True:
            # What lies open in memory of another call must not come back under the older key.
            async with self._one_at_a_time:
                page = await self._store.envelopes(not_by=newest, limit=len(left) + REKEYED_AT_ONCE)
                page = [place for place in page if place not in left]
                for place in page:
                    row = await self._store.load(*place)
                    if row is None or row.sealed is None:
                        continue
                    try:
                        moved += await self._store.reseal(row, self._rows.resealed(row))
                    except SealingError:
                        left[place] = None
                if not page:
                    moved += await self._rekey_spilled(newest)
                    unread = set(await self._spill.accounts()) - self._spilled.keys()
                    return moved, sorted(unread.union(account for account, _ in left))

    async def _rekey_spilled(self, newest: str) -> int:
        moved = 0
        async with self._spilling:
            for account, spilled in list(self._spilled.items()):
                if spilled.row.key_id != newest:
                    row = self._rows.resealed(spilled.row)
                    await self._spill.write(account, pack_row(spilled.lease.attempt, row))
                    self._spilled[account] = replace(spilled, row=row)
                    moved += 1
        return moved

    async def describe(self) -> dict[str, object]:
        """What the store is and holds; ``unsaved``: whose last answer lies beside the socket.

        Raises:
            StoreError: it can't be read.
        """
        unsaved: list[str] | None = None  # nobody can say
        with suppress(SpillError):
            unsaved = await self._spill.accounts()
        return await self._store.describe() | {"unsaved": unsaved}

    async def close(self) -> None:
        """Let go of the store."""
        await self._store.close()

    async def _put(self, owner: Owner, state: State, slot: str = CURRENT) -> int:
        while True:
            version, _ = await self._store.counters(owner.account)
            row = self._rows.to_row(owner, state, version + 1)
            try:
                return await self._store.put(replace(row, slot=slot))
            except Fenced:
                continue  # a refresh was committed between the two steps; a login wins all the same

    async def _put_aside(self, account: str) -> None:
        await self._commit_spilled(account)
        row = await self._store.load(account)
        assert row is not None  # the caller has seen it, and has the lock
        await self._store.put(replace(row, slot=aside(row.fingerprint)))

    async def _commit_spilled(self, account: str) -> None:
        """Have the last answer in its row before that is moved: without it the row is worth nothing.

        Raises:
            StoreError: the store still does not take it, and nothing may be moved.
        """
        spilled = self._spilled.get(account)
        if spilled is not None:
            with suppress(Fenced):
                await self._store.commit(spilled.lease, spilled.row)
            await self.forget_spilled(account)
