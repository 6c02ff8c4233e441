"""The contract of the stores, held against each of them; and all of them against each other."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from store_rows import clear, intent, lease, row

from spotokend.adapters.store.base import CANDIDATE, CURRENT, Fenced, Lease, Outcome, aside
from spotokend.adapters.store.memory import MemoryStore
from spotokend.adapters.store.sqlite import SqliteStore

ASIDE = aside("fingerprint-0")


@asynccontextmanager
async def in_memory(folder: Path):
    yield MemoryStore()


@asynccontextmanager
async def in_sqlite(folder: Path):
    store = await SqliteStore.open(str(folder / "store.sqlite3"), now=0.0)
    yield store
    await store.close()


@pytest.fixture(params=[in_memory, in_sqlite], ids=["memory", "sqlite"])
async def store(request, tmp_path):
    """Each store, empty."""
    async with request.param(tmp_path) as opened:
        yield opened


# ----------------------------------------------------------------------------------------- reading


@pytest.mark.anyio
async def test_a_new_store_holds_nothing(store):
    """No rows, no counters, no envelopes; and nothing is an error."""
    assert await store.scan() == []
    assert await store.load("main") is None
    assert await store.slots(CURRENT) == []
    assert await store.envelopes() == []
    assert await store.counters("main") == (0, 0)


@pytest.mark.anyio
async def test_a_row_comes_back_as_it_was_written(store):
    """Each column, also where there is nothing in it, and numbers at their limits."""
    full = row()
    bare = row(
        account="bare",
        version=2**62,
        due_at=None,
        expires_at=None,
        issued_at=None,
        due_boot=float("inf"),
        expires_boot=None,
        facts=b"",
        key_id="",
        sealed=None,
    )
    await store.put(full)
    await store.put(bare)

    assert await store.load("main") == full
    assert await store.load("bare") == bare


@pytest.mark.anyio
async def test_scan_goes_through_the_accounts_by_pages(store):
    """In the order of their names, from after the last one; of the current slot alone."""
    names = ["B", "a", "a.b", "a0", "b", "ä"]
    for name in reversed(names):
        await store.put(row(name))
    await store.put(row("candidate-only", slot=CANDIDATE))

    pages, after = [], ""
    while page := await store.scan(after, limit=4):
        pages.append([found.account for found in page])
        after = page[-1].account

    assert pages == [names[:4], names[4:]]


@pytest.mark.anyio
async def test_scan_leaves_the_envelopes_out(store):
    """What it shows is enough to schedule an account and costs the same for each."""
    await store.put(row())

    assert await store.scan() == [clear(row())]


@pytest.mark.anyio
async def test_slots_names_the_accounts_of_one_slot(store):
    """In order."""
    await store.put(row("b", slot=CANDIDATE))
    await store.put(row("a", slot=CANDIDATE))
    await store.put(row("c"))

    assert await store.slots(CANDIDATE) == ["a", "b"]
    assert await store.slots(CURRENT) == ["c"]
    assert await store.slots(ASIDE) == []


@pytest.mark.anyio
async def test_envelopes_lists_what_a_key_has_sealed(store):
    """Of every slot, but those of the key that is asked to be left out; none where none is."""
    await store.put(row("a", key_id="new"))
    await store.put(row("a", slot=ASIDE, key_id="old"))
    await store.put(row("b", slot=CANDIDATE, key_id="old"))
    await store.put(row("c", sealed=None, key_id="old"))

    assert await store.envelopes() == [("a", CURRENT), ("a", ASIDE), ("b", CANDIDATE)]
    assert await store.envelopes(not_by="new") == [("a", ASIDE), ("b", CANDIDATE)]
    assert await store.envelopes(not_by="new", limit=1) == [("a", ASIDE)]


@pytest.mark.anyio
async def test_one_process_sees_no_changes_of_others(store):
    """The cursor stays where it is."""
    await store.put(row())

    assert await store.changes(17) == (17, [])


# ----------------------------------------------------------------------------------------- refresh


@pytest.mark.anyio
async def test_begin_writes_the_intent_and_keeps_the_version(store):
    """So that a crash after it leaves a trace, and the envelope still opens."""
    await store.put(row())
    begun = intent(tries=3, not_before=99.5)

    assert await store.begin("main", 1, begun) == lease()
    assert await store.load("main") == row(intent=begun)
    assert await store.scan() == [clear(row(intent=begun))]


@pytest.mark.anyio
@pytest.mark.parametrize("version", [0, 1, 3])
async def test_begin_is_fenced_at_another_version(store, version):
    """Older or newer; and nothing is written."""
    await store.put(row(version=2))

    with pytest.raises(Fenced, match=f"version {version} was expected, version 2 is stored"):
        await store.begin("main", version, intent())
    assert await store.load("main") == row(version=2)


@pytest.mark.anyio
async def test_begin_is_fenced_where_there_is_no_row(store):
    """Also where there was one."""
    await store.put(row())
    await store.delete("main")

    with pytest.raises(Fenced, match="it isn't stored"):
        await store.begin("main", 1, intent())


@pytest.mark.anyio
async def test_commit_replaces_the_row_and_closes_the_intent(store):
    """The new row knows the attempt that made it, and what the caller says of that is ignored."""
    await store.put(row())
    await store.begin("main", 1, intent())
    new = row(version=2, intent=intent("ignored"), last_attempt="ignored")

    assert await store.commit(lease(), new) == 2
    assert await store.load("main") == row(version=2, last_attempt="attempt-1")
    assert await store.counters("main") == (2, 2)


@pytest.mark.anyio
async def test_a_repeated_commit_changes_nothing(store):
    """Nor does it fail: nobody knows whether the first one's success was told."""
    await store.put(row())
    await store.begin("main", 1, intent())
    await store.commit(lease(), row(version=2))

    assert await store.commit(lease(), row(version=2, state="other")) == 2
    assert await store.load("main") == row(version=2, last_attempt="attempt-1")


@pytest.mark.anyio
async def test_a_commit_is_repeated_safely_even_after_the_next_begin(store):
    """A spilled result that had reached the store before must not fence out what came later."""
    await store.put(row())
    await store.begin("main", 1, intent())
    await store.commit(lease(), row(version=2))
    await store.begin("main", 2, intent("attempt-2"))

    assert await store.commit(lease(), row(version=2)) == 2
    assert await store.commit(lease("main", 2, "attempt-2"), row(version=3)) == 3


@pytest.mark.anyio
async def test_a_lease_made_anew_from_the_open_intent_commits(store):
    """As after a crash between answer and commit, from the spill file."""
    await store.put(row())
    await store.begin("main", 1, intent())
    found = await store.load("main")
    again = Lease("main", found.intent.attempt, found.version)

    assert await store.commit(again, row(version=2)) == 2


@pytest.mark.anyio
async def test_a_commit_without_its_intent_is_fenced(store):
    """It was never begun, or a later attempt has taken its place."""
    await store.put(row())

    with pytest.raises(Fenced):
        await store.commit(lease(), row(version=2))
    await store.begin("main", 1, intent())
    await store.begin("main", 1, intent("attempt-2", tries=2))
    with pytest.raises(Fenced, match="another refresh came between"):
        await store.commit(lease(), row(version=2))
    assert await store.load("main") == row(intent=intent("attempt-2", tries=2))


@pytest.mark.anyio
@pytest.mark.parametrize("write", ["commit", "settle"])
async def test_a_login_in_between_fences_a_result_out(store, write):
    """The login wins, and its row stays as it is."""
    await store.put(row())
    await store.begin("main", 1, intent())
    await store.put(row(version=2, fingerprint="new"))

    with pytest.raises(Fenced, match="a login, a logout"):
        if write == "commit":
            await store.commit(lease(), row(version=2))
        else:
            await store.settle(lease(), Outcome.REFUSED, row(version=2))
    assert await store.load("main") == row(version=2, fingerprint="new")


@pytest.mark.anyio
@pytest.mark.parametrize("write", ["commit", "settle"])
async def test_a_logout_in_between_fences_a_result_out(store, write):
    """A token that came too late doesn't bring a deleted account back."""
    await store.put(row())
    await store.begin("main", 1, intent())
    await store.delete("main")

    with pytest.raises(Fenced):
        if write == "commit":
            await store.commit(lease(), row(version=2))
        else:
            await store.settle(lease(), Outcome.IN_DOUBT, row(version=2))
    assert await store.load("main") is None


@pytest.mark.anyio
async def test_a_repeated_commit_is_fenced_by_a_login_after_it(store):
    """Else the caller would take its own row for the one in use."""
    await store.put(row())
    await store.begin("main", 1, intent())
    await store.commit(lease(), row(version=2))
    await store.put(row(version=3, last_attempt="attempt-1"))

    with pytest.raises(Fenced):
        await store.commit(lease(), row(version=2))


@pytest.mark.anyio
@pytest.mark.parametrize("outcome", [Outcome.NOT_SENT, Outcome.REFUSED])
async def test_settle_closes_the_intent_where_the_outcome_is_known(store, outcome):
    """Whatever the row says of one; the last commit's attempt stays known."""
    await store.put(row())
    await store.begin("main", 1, intent())
    await store.commit(lease(), row(version=2))
    await store.begin("main", 2, intent("attempt-2"))
    new = row(version=3, state="quarantined", intent=intent("attempt-2"))

    assert await store.settle(lease("main", 2, "attempt-2"), outcome, new) == 3
    assert await store.load("main") == replace(new, intent=None, last_attempt="attempt-1")


@pytest.mark.anyio
async def test_settle_keeps_an_intent_in_doubt(store):
    """With what the row says of it; where it says nothing, as it was."""
    await store.put(row())
    await store.begin("main", 1, intent())
    later = intent(tries=2, not_before=50.5)

    await store.settle(lease(), Outcome.IN_DOUBT, row(version=2, intent=later))
    assert await store.load("main") == row(version=2, intent=later)
    await store.settle(lease(version=2), Outcome.IN_DOUBT, row(version=3))
    assert await store.load("main") == row(version=3, intent=later)


@pytest.mark.anyio
@pytest.mark.parametrize("wrong", [{"account": "other"}, {"version": 3}, {"slot": CANDIDATE}])
async def test_a_row_that_is_not_the_leases_is_a_defect(store, wrong):
    """It would be stored where its envelope can't be opened."""
    await store.put(row())
    await store.begin("main", 1, intent())
    mistaken = row(**({"version": 2} | wrong))

    with pytest.raises(ValueError, match="under a lease of 'main' at version 1"):
        await store.commit(lease(), mistaken)
    with pytest.raises(ValueError, match="under a lease of 'main' at version 1"):
        await store.settle(lease(), Outcome.NOT_SENT, mistaken)


# ---------------------------------------------------------------------------------- login, logout


@pytest.mark.anyio
async def test_a_login_always_wins(store):
    """Over an open intent, and at any higher version."""
    await store.put(row())
    await store.begin("main", 1, intent())

    assert await store.put(row(version=9, intent=intent())) == 9
    assert await store.load("main") == row(version=9)


@pytest.mark.anyio
async def test_a_version_is_never_used_again(store):
    """Neither the present one nor those before."""
    await store.put(row(version=5))

    for version in (4, 5):
        with pytest.raises(Fenced, match="5 was reached already"):
            await store.put(row(version=version))
    assert await store.load("main") == row(version=5)


@pytest.mark.anyio
async def test_a_logout_removes_the_row_and_keeps_counting(store):
    """Version and generation survive it, and what follows starts above them."""
    await store.put(row(version=5, generation=7))

    assert await store.delete("main") == 6
    assert await store.load("main") is None
    assert await store.scan() == []
    assert await store.envelopes() == []
    assert await store.counters("main") == (6, 7)
    with pytest.raises(Fenced):
        await store.put(row(version=6))
    await store.put(row(version=7, generation=8))
    assert await store.counters("main") == (7, 8)


@pytest.mark.anyio
async def test_deleting_what_is_not_there_raises_nothing(store):
    """Neither an error nor the version."""
    assert await store.delete("main") == 0
    assert await store.counters("main") == (0, 0)
    await store.put(row())
    await store.delete("main")
    assert await store.delete("main") == 2
    assert await store.counters("main") == (2, 1)


@pytest.mark.anyio
async def test_other_slots_have_no_fence_and_no_counters(store):
    """A row is put aside as it is, at whatever version its envelope is bound to."""
    await store.put(row(version=5))

    assert await store.put(row(version=3, slot=ASIDE, intent=intent())) == 3
    assert await store.put(row(version=3, slot=ASIDE)) == 3
    assert await store.load("main", ASIDE) == row(version=3, slot=ASIDE)
    assert await store.load("main") == row(version=5)
    assert await store.counters("main") == (5, 5)
    assert await store.delete("main", ASIDE) == 5
    assert await store.load("main", ASIDE) is None
    assert await store.load("main") == row(version=5)


@pytest.mark.anyio
async def test_a_candidate_alone_leaves_the_counters_at_nothing(store):
    """It isn't the account's row until it is known whose it is."""
    await store.put(row(slot=CANDIDATE))

    assert await store.counters("main") == (0, 0)
    assert await store.delete("main", CANDIDATE) == 0
    assert await store.counters("main") == (0, 0)


# --------------------------------------------------------------------------- against each other


ACCOUNTS = st.sampled_from(["a", "b", "c"])
SLOTS = st.sampled_from([CURRENT, CURRENT, CURRENT, CANDIDATE, ASIDE])
"""Mostly the one with the fences."""
NEAR = st.sampled_from([0, 0, 0, 1, -1])
"""How far from the right version a call is: mostly not at all."""


class SameStory(RuleBasedStateMachine):
    """Both stores live through the same calls, and give the same answers."""

    leases = Bundle("leases")

    def __init__(self):
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="spotokend-")
        self.path = str(Path(self.folder, "store.sqlite3"))
        self.portal_context = start_blocking_portal("asyncio")
        self.portal = self.portal_context.__enter__()
        self.memory = MemoryStore()
        self.sqlite = self.open()
        self.attempts = 0

    def open(self):
        return self.portal.call(lambda: SqliteStore.open(self.path, now=0.0))

    def teardown(self):
        self.portal.call(self.sqlite.close)
        self.portal_context.__exit__(None, None, None)
        shutil.rmtree(self.folder)

    def answer(self, store, method, *arguments):
        async def call():
            try:
                return await getattr(store, method)(*arguments)
            except (Fenced, ValueError) as refusal:
                return repr(refusal)

        return self.portal.call(call)

    def both(self, method, *arguments):
        told = self.answer(self.memory, method, *arguments)
        assert self.answer(self.sqlite, method, *arguments) == told
        return told

    @rule(account=ACCOUNTS, slot=SLOTS, off=NEAR, generation=st.integers(0, 9))
    def put(self, account, slot, off, generation):
        version, _ = self.both("counters", account)
        self.both("put", row(account, version + 1 + off, slot=slot, generation=generation))

    @rule(account=ACCOUNTS, slot=SLOTS)
    def delete(self, account, slot):
        self.both("delete", account, slot)

    @rule(target=leases, account=ACCOUNTS, off=NEAR, tries=st.integers(1, 3))
    def begin(self, account, off, tries):
        self.attempts += 1
        version, _ = self.both("counters", account)
        begun = intent(f"attempt-{self.attempts}", tries=tries)
        given = self.both("begin", account, version + off, begun)
        return given if isinstance(given, Lease) else multiple()

    @rule(held=leases, off=NEAR, sealed=st.none() | st.binary(max_size=9))
    def commit(self, held, off, sealed):
        self.both("commit", held, row(held.account, held.version + 1 + off, sealed=sealed))

    @rule(
        held=leases,
        outcome=st.sampled_from(Outcome),
        later=st.none() | st.floats(allow_nan=False),
    )
    def settle(self, held, outcome, later):
        open_intent = None if later is None else intent(held.attempt, not_before=later)
        new = row(held.account, held.version + 1, state="waiting", intent=open_intent)
        self.both("settle", held, outcome, new)

    @rule()
    def restart(self):
        self.portal.call(self.sqlite.close)
        self.sqlite = self.open()
        assert self.sqlite.notes == []

    @invariant()
    def they_hold_the_same(self):
        assert self.portal.call(picture, self.sqlite) == self.portal.call(picture, self.memory)


async def picture(store):
    """Everything that can be read of a store."""
    return {
        "scan": await store.scan(),
        "envelopes": await store.envelopes(),
        "counters": [await store.counters(account) for account in "abc"],
        "rows": [
            [await store.load(account, slot) for account in await store.slots(slot)]
            for slot in (CURRENT, CANDIDATE, ASIDE)
        ],
    }


def test_all_stores_tell_the_same_story():
    """Whatever is called in whatever order, SQLite answers as memory does."""
    run_state_machine_as_test(SameStory, settings=settings(max_examples=15, stateful_step_count=25))
