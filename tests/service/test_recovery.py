"""At a start: what lies beside the socket is committed, dropped, or kept under another name."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from account_states import GENERATION, ROTATED, access, make
from set_clock import SetClock
from stubborn_store import FULL, StubbornStore

from spotokend.adapters.spill import SpillError, SpillFolder
from spotokend.adapters.store.base import CANDIDATE, Fenced, Intent, Lease, StoreError
from spotokend.rules.account import Fresh
from spotokend.rules.notice import Level
from spotokend.rules.sealing import KeyRing, SealingKey
from spotokend.service.packing import pack_row
from spotokend.service.recovery import Recovery, Spilled
from spotokend.service.rows import Owner, Rows

pytestmark = pytest.mark.anyio

OWNER = Owner("main", "spotify", "fingerprint-1")
OLD = make(Fresh, version=1)
NEW = make(
    Fresh, version=2, grant=ROTATED, generation=GENERATION + 1, access=access(GENERATION + 1)
)


def rows(key=bytes(32)) -> Rows:
    return Rows(KeyRing(SealingKey(key)), SetClock().clock, random_bytes=os.urandom)


class Beside:
    """A store in which an attempt is open, and its answer beside the socket."""

    def __init__(self, path) -> None:
        self.path = path
        self.folder = SpillFolder(str(path))
        self.store = StubbornStore()
        self.rows = rows()
        self.row = self.rows.to_row(OWNER, NEW, 2)
        self.lease = Lease("main", "attempt-1", 1)

    async def begin(self, attempt="attempt-1") -> None:
        await self.store.put(self.rows.to_row(OWNER, OLD, 1))
        await self.store.begin("main", 1, Intent(attempt=attempt, started_at=0.0))

    async def spill(self, row=None, *, attempt="attempt-1", account="main") -> None:
        await self.folder.write(account, pack_row(attempt, row or self.row))

    async def recover(self) -> tuple[dict[str, Spilled], list[tuple[str, str]]]:
        """What is left, and what is told: ``(kind, words)``."""
        recovery = Recovery(self.store, self.rows, self.folder)
        left = await recovery.run()
        self.notices = recovery.notices
        return left, [(notice.kind, notice.message) for notice in recovery.notices]

    def files(self) -> list[str]:
        return sorted(os.listdir(self.path)) if self.path.exists() else []

    async def generation(self) -> int:
        return (await self.store.counters("main"))[1]


@pytest.fixture
def beside(tmp_path) -> Beside:
    """Nothing is there yet."""
    return Beside(tmp_path / "socket.unsaved")


async def test_where_nothing_lies_nothing_is_done(beside):
    """The usual start: no folder is made, nothing is told."""
    assert await beside.recover() == ({}, [])
    assert not beside.path.exists()


async def test_the_answer_of_the_open_attempt_is_committed(beside):
    """As if the daemon had never ended; then its file goes."""
    await beside.begin()
    await beside.spill()
    left, told = await beside.recover()
    assert (left, [kind for kind, _ in told]) == ({}, ["spill_saved"])
    stored = await beside.store.load("main")
    assert stored == replace(beside.row, last_attempt="attempt-1")
    assert beside.files() == []


async def test_an_answer_that_was_committed_before_the_file_went_is_committed_once(beside):
    """Killed between the two."""
    await beside.begin()
    await beside.store.commit(beside.lease, beside.row)
    await beside.spill()
    beside.store.calls.clear()
    left, _ = await beside.recover()
    assert left == {}
    assert (await beside.store.load("main")).version == 2
    assert beside.files() == []


async def test_a_login_has_overtaken_it(beside):
    """It always wins; the answer to the grant before it is of no use, and that is told."""
    await beside.begin()
    await beside.spill()
    login = beside.rows.to_row(OWNER, make(Fresh, version=2, generation=9), 2)
    await beside.store.put(login)
    left, told = await beside.recover()
    assert (left, [kind for kind, _ in told]) == ({}, ["spill_overtaken"])
    assert await beside.generation() == 9
    assert beside.files() == []


async def test_a_logout_has_overtaken_it(beside):
    """Nothing brings the grant back."""
    await beside.begin()
    await beside.spill()
    await beside.store.delete("main")
    _, told = await beside.recover()
    assert [kind for kind, _ in told] == ["spill_overtaken"]
    assert await beside.store.load("main") is None
    assert beside.files() == []


async def test_what_the_store_still_does_not_take_stays_and_is_handed_on(beside):
    """Told with the reason; the row is as it was."""
    await beside.begin()
    await beside.spill()
    beside.store.troubles["commit"] = FULL
    left, told = await beside.recover()
    assert left == {"main": Spilled(beside.lease, beside.row, "the disk is full")}
    assert [kind for kind, _ in told] == ["spill_waits"]
    assert "the disk is full" in told[0][1]
    assert beside.files() == ["main.spill"]
    assert (await beside.store.load("main")).intent.attempt == "attempt-1"


async def test_another_attempt_is_open_and_nobody_knows_which_answer_is_good(beside):
    """Or the store is an older one, from a backup: kept, and told."""
    await beside.begin("attempt-2")
    await beside.spill()
    left, told = await beside.recover()
    assert (left, told[0][0]) == ({}, "spill_aside")
    assert beside.files() == ["main.spill.fenced-20231114T221320Z"]
    assert (await beside.store.load("main")).intent.attempt == "attempt-2"


async def test_a_store_that_never_heard_of_the_account_does_not_cost_the_answer(beside):
    """The state folder was moved away, say."""
    await beside.spill()
    _, told = await beside.recover()
    assert told[0][0] == "spill_aside"
    assert beside.files() == ["main.spill.fenced-20231114T221320Z"]


async def test_a_row_of_another_key_is_put_aside_with_that_in_its_name(beside):
    """The right key may still be found."""
    await beside.begin()
    other = rows(bytes([1] * 32))
    await beside.spill(other.to_row(OWNER, NEW, 2))
    _, told = await beside.recover()
    assert other.keys.newest.key_id in told[0][1]
    assert beside.files() == ["main.spill.foreign-key-20231114T221320Z"]
    assert (await beside.store.load("main")).intent is not None


@pytest.mark.parametrize(
    "harm",
    [
        {"version": 3},
        {"account": "other"},
        {"fingerprint": "fingerprint-2"},
        {"sealed": b"\x01" + bytes(60)},
        {"sealed": b"\x02" + bytes(60)},
        {"slot": CANDIDATE},
    ],
    ids=["version", "account", "fingerprint", "envelope", "newer envelope", "slot"],
)
async def test_what_is_not_the_row_that_was_sealed_is_put_aside(beside, harm):
    """Neither committed nor deleted, though the file by itself is whole."""
    await beside.begin()
    await beside.spill(replace(beside.row, **harm))
    left, told = await beside.recover()
    assert (left, told[0][0]) == ({}, "spill_aside")
    assert len(beside.files()) == 1
    assert await beside.generation() == GENERATION


async def test_a_row_of_another_account_is_not_committed_for_this_one(beside):
    """Somebody renamed the file."""
    await beside.begin()
    await beside.spill(account="alice")
    _, told = await beside.recover()
    assert "it holds the row of main" in told[0][1]
    assert beside.files() == ["alice.spill.damaged-20231114T221320Z"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "damaged"),
        (b"spotokend spill 1\nrubbish", "damaged"),
        (b"spotokend spill 9\n", "version"),
    ],
    ids=["empty", "rubbish", "newer"],
)
async def test_a_file_that_is_no_answer_is_put_aside_and_the_others_are_taken(beside, content, why):
    """One damaged file costs nobody else's login."""
    await beside.begin()
    await beside.spill()
    (beside.path / "alice.spill").write_bytes(content)
    _, told = await beside.recover()
    assert [kind for kind, _ in told] == ["spill_aside", "spill_saved"]
    assert beside.files() == [f"alice.spill.{why}-20231114T221320Z"]
    assert str(beside.path / beside.files()[0]) in told[0][1]
    assert await beside.generation() == GENERATION + 1


async def test_whole_bytes_that_are_no_row_are_damage(beside):
    """Written by nobody whom this program knows."""
    await beside.folder.write("main", b"\xc1")
    _, told = await beside.recover()
    assert told[0][0] == "spill_aside"


async def test_a_folder_that_can_not_be_read_is_told_and_ends_no_start(beside):
    """The stored logins are good all the same."""
    beside.path.write_text("")
    left, told = await beside.recover()
    assert (left, told[0][0]) == ({}, "spill_unreadable")


@pytest.mark.parametrize("call", ["read", "put_aside", "remove"])
async def test_a_file_that_can_not_be_dealt_with_is_told_and_stays(beside, monkeypatch, call):
    """Whatever its folder refuses."""
    await beside.begin()
    await beside.spill()
    if call == "put_aside":
        (beside.path / "main.spill").write_bytes(b"")

    async def refused(*_, **__):
        raise SpillError("main.spill: Input/output error")

    monkeypatch.setattr(beside.folder, call, refused)
    left, told = await beside.recover()
    assert left == {}
    assert told[-1][0] == "spill_unreadable"
    assert "Input/output error" in told[-1][1]
    assert beside.files() == ["main.spill"]


async def test_what_is_told_names_the_account_and_no_secret(beside):
    """Errors lead to the account's story; what went well needs nothing."""
    await beside.begin()
    await beside.spill()
    await beside.folder.write("alice", b"\xc1")
    await beside.recover()
    assert [(n.account, n.level, n.hint) for n in beside.notices] == [
        ("alice", Level.ERROR, "spotokend status alice"),
        ("main", Level.INFO, None),
    ]
    assert "planted" not in repr(beside.notices)


async def test_a_store_that_can_not_be_read_ends_the_start_and_costs_nothing(beside):
    """Populating would meet the same; the file waits for the next one."""
    await beside.begin()
    await beside.spill()
    beside.store.troubles["commit"] = Fenced("not now")

    async def unreadable(account):
        raise StoreError("unreadable")

    beside.store.counters = unreadable
    with pytest.raises(StoreError):
        await beside.recover()
    assert beside.files() == ["main.spill"]
