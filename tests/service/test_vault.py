"""The store with its key: no row of another registration, no login undone, no envelope destroyed."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace

import anyio
import pytest
from stubborn_spill import StubbornSpill
from stubborn_store import FULL, StubbornStore
from world import virtual_time

from spotokend.adapters.store.base import (
    CANDIDATE,
    Fenced,
    Intent,
    Outcome,
    Row,
    StoreError,
    aside,
)
from spotokend.adapters.store.memory import MemoryStore
from spotokend.errors import Locked, Misconfigured
from spotokend.rules.account import (
    Access,
    Attempt,
    Blocked,
    Fresh,
    Grant,
    Policy,
    Refreshing,
    Waiting,
)
from spotokend.rules.gate import Gate
from spotokend.rules.schedule import Boot, Wall
from spotokend.rules.sealing import KeyRing, SealingKey
from spotokend.rules.secret import Secret
from spotokend.service.clock import Clock
from spotokend.service.rows import Owner, Rows
from spotokend.service.vault import Vault

pytestmark = pytest.mark.anyio

OLD, NEW = Owner("main", "spotify", "fingerprint-1"), Owner("main", "spotify", "fingerprint-2")
POLICY = Policy()
NOW = Boot(100.0)


@pytest.fixture
def anyio_backend():
    """A slow disk costs no time."""
    return virtual_time()


def rows(key=bytes(32)) -> Rows:
    clock = Clock(lambda: NOW, lambda: Wall(1000.0), lambda: 0.5, "boot-1")
    return Rows(KeyRing(SealingKey(key)), clock, random_bytes=bytes)


def login(number=1, generation=1) -> Fresh:
    return Fresh(
        generation=generation,
        grant=Grant(refresh_token=Secret(f"refresh-{number}")),
        access=Access(
            token=Secret(f"access-{number}"),
            issued_at=Boot(0.0),
            expires_at=Boot(3600.0),
            generation=generation,
        ),
        due_at=Boot(2700.0),
    )


async def token(vault, owner) -> str | None:
    """The refresh token in use."""
    state = await vault.unseal(owner, POLICY)
    return None if state is None else state.grant.refresh_token.reveal()


async def test_a_row_goes_in_and_comes_out_sealed_between():
    """Through ``put``, ``unseal``, ``rows`` and ``sealed``."""
    vault = Vault(MemoryStore(), rows(), StubbornSpill())
    assert await vault.put(OLD, login()) == 1
    assert await vault.unseal(OLD, POLICY) == replace(login(), version=1)
    (row,) = [row async for row in vault.rows()]
    assert row.sealed is None
    assert vault.sealed(row, POLICY).due_at == 2700
    assert await vault.counters("main") == (1, 1)


async def test_more_rows_than_a_page_are_all_told():
    """The store gives them a thousand at a time."""
    vault = Vault(MemoryStore(), rows(), StubbornSpill())
    names = [f"account-{n:04}" for n in range(2001)]
    for name in names:
        await vault.put(Owner(name, "spotify", "fingerprint-1"), Waiting(**NOTHING))
    assert [row.account async for row in vault.rows()] == names


NOTHING = {"grant": None, "access": None, "retry_at": NOW}


async def test_a_row_of_another_registration_is_nobodys():
    """Its refresh token would be sent to another server: as if it were not there."""
    vault = Vault(MemoryStore(), rows(), StubbornSpill())
    await vault.put(OLD, login())
    assert await vault.unseal(NEW, POLICY) is None
    assert await vault.unseal(Owner("other", "spotify", "fingerprint-1"), POLICY) is None


async def test_the_keys_that_sealed_the_store_are_the_only_ones_taken():
    """Others are refused in words before anything is touched; an empty store takes any."""
    store = MemoryStore()
    key, other = SealingKey(bytes(32)), SealingKey(bytes([1] * 32))
    assert await Vault(store, rows(), StubbornSpill()).unlock([other]) == []
    await Vault(store, rows(), StubbornSpill()).put(OLD, login())
    closed = Vault(store, Rows(KeyRing(), rows().clock, random_bytes=bytes), StubbornSpill())
    with pytest.raises(Misconfigured) as refused:
        await closed.unlock([other])
    assert key.key_id in refused.value.message
    assert other.key_id in refused.value.message
    assert closed.locked
    await closed.unlock([other, key])
    assert not closed.locked
    assert await token(closed, OLD) == "refresh-1"
    await store.put(replace(await store.load("main"), slot=CANDIDATE))
    await store.delete("main")
    with pytest.raises(Misconfigured):
        await closed.unlock([other])


async def test_without_a_key_nothing_is_sealed_or_unsealed_and_nothing_changes():
    """Neither a login nor an edit of the configuration moves a row; a logout still can."""
    store = MemoryStore()
    await Vault(store, rows(), StubbornSpill()).put(OLD, login())
    before = await store.load("main")
    closed = Vault(store, Rows(KeyRing(), rows().clock, random_bytes=bytes), StubbornSpill())
    for call in (
        lambda: closed.unseal(OLD, POLICY),
        lambda: closed.put(NEW, login()),
        lambda: closed.put(NEW, login(), candidate=True),
        lambda: closed.exchange(NEW, POLICY),
        closed.rekey,
    ):
        with pytest.raises(Locked):
            await call()
    assert await store.load("main") == before
    assert await store.slots(CANDIDATE) == []
    await closed.delete("main", [])
    assert await store.load("main") is None


# --- a change of keys


def with_keys(store, spill, *values) -> Vault:
    """A vault that has these keys, the newest first."""
    keys = [SealingKey(bytes([value] * 32)) for value in values]
    return Vault(store, Rows(KeyRing(*keys), rows().clock, random_bytes=os.urandom), spill)


async def test_a_change_of_keys_moves_every_slot_and_the_files_beside_the_socket():
    """Afterwards the newest key alone opens all of it: rows in use, aside, candidates, answers."""
    store, spill = StubbornStore(), StubbornSpill()
    old = with_keys(store, spill, 1)
    await old.put(NEW, login(1))
    await old.put(OLD, login(2))  # the other goes aside
    await old.put(replace(OLD, account="other"), login(3), candidate=True)
    await old.put(replace(OLD, account="spilt"), login(4))
    spilt = replace(OLD, account="spilt")
    held = await old.unseal(spilt, POLICY)
    lease = await store.begin("spilt", held.version, Intent(attempt="a1", started_at=0.0))
    await old.spill(spilt, lease, login(5, 2), gate=Gate(), reason="full")

    both = with_keys(store, spill, 2, 1)
    store.troubles["commit"] = FULL
    await both.unlock([SealingKey(bytes([2] * 32)), SealingKey(bytes([1] * 32))])
    store.troubles.clear()
    assert await both.rekey() == (5, [])
    assert await both.rekey() == (0, [])

    new = with_keys(store, spill, 2)
    await new.unlock([SealingKey(bytes([2] * 32))])
    assert await token(new, OLD) == "refresh-2"
    assert await token(new, spilt) == "refresh-5"
    assert [state.grant.refresh_token.reveal() for _, state in await new.candidates()] == [
        "refresh-3"
    ]
    assert (await new.exchange(NEW, POLICY)).grant.refresh_token.reveal() == "refresh-1"


async def test_what_does_not_open_keeps_its_key_and_is_named():
    """A damaged envelope, and a file that can't be read: the older key is not to be dropped."""
    store, spill = StubbornStore(), StubbornSpill()
    old = with_keys(store, spill, 1)
    await old.put(OLD, login())
    row = await store.load("main")
    await store.reseal(row, replace(row, sealed=row.sealed[:-1] + b"?"))
    spill.files["gone"] = b"?"

    assert await with_keys(store, spill, 2, 1).rekey() == (0, ["gone", "main"])


async def test_a_login_during_a_change_of_keys_is_not_overwritten():
    """The envelope that was read is the only one that is replaced."""
    store = StubbornStore()
    await with_keys(store, StubbornSpill(), 1).put(OLD, login())
    both = with_keys(store, StubbornSpill(), 2, 1)
    read = store.load

    async def overtaken(account, slot=""):
        row = await read(account, slot)
        store.load = read
        await store.put(replace(row, version=row.version + 1, key_id="", sealed=None))
        return row

    store.load = overtaken
    assert await both.rekey() == (0, [])
    assert (await store.load("main")).sealed is None


# --- a refresh


async def test_an_intent_is_durable_with_its_tries_and_closed_by_the_commit():
    """begin → commit, and begin → settle in doubt."""
    store = MemoryStore()
    vault = Vault(store, rows(), StubbornSpill())
    version = await vault.put(OLD, login())
    state = replace(login(), version=version)
    attempt = Attempt("attempt-1", NOW, tries=2)
    lease = await vault.begin(OLD, state, attempt)
    assert (await store.load("main")).intent == Intent(
        attempt="attempt-1", started_at=1000.0, tries=2
    )
    assert await vault.commit(OLD, lease, login(2, 2), gate=Gate()) == 2
    row = await store.load("main")
    assert (row.intent, row.generation) == (None, 2)
    lease = await vault.begin(OLD, replace(state, version=2), attempt)
    waiting = Waiting(generation=2, grant=login(2).grant, access=None, retry_at=Boot(110.0))
    assert await vault.settle(OLD, lease, Outcome.IN_DOUBT, waiting, attempt, gate=Gate()) == 3
    assert (await store.load("main")).intent.not_before == 1010
    lease = await vault.begin(OLD, replace(state, version=3), attempt)
    assert await vault.settle(OLD, lease, Outcome.REFUSED, waiting, attempt, gate=Gate()) == 4
    assert (await store.load("main")).intent is None


async def test_only_a_clients_own_account_gets_a_row_for_its_first_intent():
    """A grant's row that is gone was deleted by a logout."""
    store = MemoryStore()
    vault = Vault(store, rows(), StubbornSpill())
    with pytest.raises(Fenced):
        await vault.begin(OLD, login(), Attempt("attempt-1", NOW))
    assert await store.load("main") is None
    attempt = Attempt("attempt-2", NOW)
    state = Refreshing(grant=None, access=None, attempt=attempt)
    lease = await vault.begin(OLD, state, attempt)
    assert (lease.version, (await store.load("main")).intent.attempt) == (1, "attempt-2")
    again = replace(state, version=1, failures=6)
    lease = await vault.begin(OLD, again, replace(attempt, id="attempt-3"))
    assert lease.version == 1
    # Never in doubt: but a crash loop backs off by what went wrong before.
    assert (await store.load("main")).intent.tries == 7


# --- logins


async def test_a_login_overwrites_no_row_of_another_registration():
    """It goes aside, and serves again when the edit is undone."""
    store = MemoryStore()
    vault = Vault(store, rows(), StubbornSpill())
    await vault.put(OLD, login(1))
    await vault.put(NEW, login(2, 2))
    assert await token(vault, NEW) == "refresh-2"
    assert await vault.put_aside("fingerprint-1") == ["main"]
    state = await vault.exchange(OLD, POLICY)
    assert state.grant.refresh_token.reveal() == "refresh-1"
    assert (state.generation, state.version) == (2, (await store.load("main")).version)
    assert await token(vault, OLD) == "refresh-1"
    assert await vault.put_aside("fingerprint-2") == ["main"]
    assert await vault.put_aside("fingerprint-1") == []


class Hurried(MemoryStore):
    """Somebody else commits between reading the counters and writing the login."""

    def __init__(self, between: int) -> None:
        super().__init__()
        self.between = between

    async def put(self, row: Row) -> int:
        if self.between and row.version > 1:
            self.between -= 1
            await super().put(replace(row, generation=row.generation + 1))
        return await super().put(row)


@pytest.mark.parametrize("between", [1, 3])
async def test_a_login_wins_over_every_write_that_comes_between(between):
    """The counters it read are stale: it reads them again until it is there."""
    store = Hurried(between)
    vault = Vault(store, rows(), StubbornSpill())
    await vault.put(OLD, login(1))
    version = await vault.put(OLD, login(2, 2))
    assert await token(vault, OLD) == "refresh-2"
    assert version == 2 + between == (await store.load("main")).version


async def test_a_candidate_lies_beside_the_row_in_use():
    """It is found by the next start, and goes without touching the row."""
    vault = Vault(MemoryStore(), rows(), StubbornSpill())
    await vault.put(OLD, login(1))
    await vault.put(OLD, login(2), candidate=True)
    assert await token(vault, OLD) == "refresh-1"
    ((row, state),) = await vault.candidates()
    assert (row.account, row.client, row.fingerprint) == ("main", "spotify", "fingerprint-1")
    assert state.grant.refresh_token.reveal() == "refresh-2"
    await vault.drop_candidate("main")
    assert await vault.candidates() == []
    assert await token(vault, OLD) == "refresh-1"


class Forgetful(MemoryStore):
    """What was listed is gone when it is asked for."""

    async def load(self, account: str, slot: str = "") -> Row | None:
        return None


async def test_a_candidate_that_goes_while_it_is_looked_for_is_none():
    """A logout came between."""
    store = Forgetful()
    vault = Vault(store, rows(), StubbornSpill())
    await vault.put(OLD, login(), candidate=True)
    assert await vault.candidates() == []


async def test_a_logout_takes_with_it_what_would_bring_the_login_back():
    """The rows that lie aside for the present registrations; those of others wait on."""
    vault = Vault(MemoryStore(), rows(), StubbornSpill())
    for number, owner in enumerate((OLD, NEW, replace(OLD, fingerprint="fingerprint-3")), 1):
        await vault.put(owner, login(number, number))
    version = await vault.delete("main", ["fingerprint-2", "fingerprint-3"])
    assert version == (await vault.counters("main"))[0]
    assert await vault.exchange(NEW, POLICY) is None
    state = await vault.exchange(OLD, POLICY)
    assert state.grant.refresh_token.reveal() == "refresh-1"


# --- edits of the configuration


async def test_an_exchange_of_the_same_registration_changes_nothing():
    """The row in use is handed out as it is."""
    store = StubbornStore()
    vault = Vault(store, rows(), StubbornSpill())
    await vault.put(OLD, login())
    store.calls.clear()
    assert await vault.exchange(OLD, POLICY) == replace(login(), version=1)
    assert store.calls == []


async def test_a_crash_at_any_step_of_an_exchange_loses_nothing():
    """After each prefix of its writes the next start comes to the same end, there and back."""
    for steps in range(5):
        store = StubbornStore()
        vault = Vault(store, rows(), StubbornSpill())
        await vault.put(NEW, login(2))
        await vault.put(OLD, login(1))  # the other one goes aside
        store.calls.clear()
        store.troubles = Crash(store, steps)
        with suppress(StoreError):
            await vault.exchange(NEW, POLICY)
        assert len(store.calls) == steps
        store.troubles = {}
        again = Vault(store, rows(), StubbornSpill())
        assert (await again.exchange(NEW, POLICY)).grant.refresh_token.reveal() == "refresh-2"
        assert (await again.exchange(OLD, POLICY)).grant.refresh_token.reveal() == "refresh-1"
        assert (await again.exchange(NEW, POLICY)).grant.refresh_token.reveal() == "refresh-2"


class Crash(dict):
    """Troubles that begin once so many writes were carried out."""

    def __init__(self, store: StubbornStore, steps: int) -> None:
        super().__init__()
        self.store, self.steps = store, steps

    def get(self, call, default=None):
        writes = call.startswith(("put", "delete"))
        return FULL if writes and len(self.store.calls) >= self.steps else default


async def test_an_envelope_that_does_not_open_stays_where_it_is():
    """Brought back it would be sealed anew, without what is in it."""
    store = MemoryStore()
    vault = Vault(store, rows(), StubbornSpill())
    await vault.put(OLD, login())
    row = await store.load("main")
    await vault.put(NEW, login(2, 2))
    damaged = replace(row, slot=aside("fingerprint-1"), sealed=row.sealed[:-1] + b"\0")
    await store.put(damaged)
    state = await vault.exchange(OLD, POLICY)
    assert isinstance(state, Blocked)
    assert (await store.load("main", damaged.slot)).sealed == damaged.sealed


async def test_a_login_in_the_middle_of_an_exchange_is_not_deleted_by_it():
    """The disk is slow: one after the other, and the login is what is left."""
    store = StubbornStore()
    vault = Vault(store, rows(), StubbornSpill())
    await vault.put(OLD, login(1))
    store.slow = {"load": 1.0, "put": 1.0, "delete": 1.0}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(vault.exchange, NEW, POLICY)
        await anyio.sleep(1.5)
        await vault.put(NEW, login(2, 2))
    assert await token(vault, NEW) == "refresh-2"
    assert await vault.put_aside("fingerprint-1") == ["main"]


async def test_closing_closes_the_store():
    """The last call of all."""
    closed = []

    class Closing(MemoryStore):
        async def close(self) -> None:
            closed.append(True)

    await Vault(Closing(), rows(), StubbornSpill()).close()
    assert closed == [True]
