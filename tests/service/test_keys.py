"""The store's keys: made once, waited for while they are locked, exchanged without a loss."""

from __future__ import annotations

import os

import anyio
import pytest
from kept_keys import KeptKeys
from stubborn_spill import StubbornSpill
from stubborn_store import FULL, StubbornStore
from world import virtual_time

from spotokend.adapters.spill import SpillError
from spotokend.adapters.store.base import Row
from spotokend.errors import Locked, Misconfigured, Unavailable
from spotokend.rules.account import Fresh, Grant
from spotokend.rules.config.values import KeyKind, KeySource
from spotokend.rules.schedule import Boot, Wall
from spotokend.rules.sealing import KeyRing
from spotokend.rules.secret import Secret
from spotokend.service.clock import Clock
from spotokend.service.keys import Keys
from spotokend.service.rows import Owner, Rows
from spotokend.service.vault import Vault

pytestmark = pytest.mark.anyio

OWNER = Owner("main", "spotify", "fingerprint-1")
OLD, NEW = bytes(32), bytes([1] * 32)
LOGIN = Fresh(grant=Grant(refresh_token=Secret("refresh-1")), access=None, due_at=Boot(0.0))


@pytest.fixture
def anyio_backend():
    """Waiting costs no time."""
    return virtual_time()


class Start:
    """One start of the daemon over a store, as far as keys are concerned."""

    def __init__(self, place: KeptKeys, store: StubbornStore, spill: StubbornSpill | None = None):
        self.place, self.store, self.spill = place, store, spill or StubbornSpill()
        ring = KeyRing()
        clock = Clock(lambda: Boot(100.0), lambda: Wall(1000.0), lambda: 0.5, "boot-1")
        self.vault = Vault(store, Rows(ring, clock, random_bytes=os.urandom), self.spill)
        self.told: list[str | None] = []
        self.late = 0
        self.other = KeptKeys(name="the other place")
        """Where a source other than the one in use is."""
        self.in_use_anew = place
        self.keys = Keys(
            place,
            ring,
            self.vault,
            random_bytes=lambda size: NEW[:size],
            place_at=lambda source: self.other if source else self.in_use_anew,
            unlocked=self._unlocked,
            tell=lambda error: self.told.append(error and error.message),
        )

    async def _unlocked(self, _notices: list[object]) -> None:
        with pytest.raises(Locked, match="just being unlocked"):
            self.keys.check()
        self.late += 1


async def in_use(*keys: bytes) -> StubbornStore:
    """A store that the first of these has sealed."""
    store = StubbornStore()
    start = Start(KeptKeys(*keys[:1]), store)
    await start.keys.start()
    await start.vault.put(OWNER, LOGIN)
    return store


async def test_a_key_is_made_for_an_empty_store_alone():
    """Once: the next start finds it."""
    place, store = KeptKeys(), StubbornStore()
    first = Start(place, store)
    assert await first.keys.start() == []
    assert first.keys.ready
    await first.vault.put(OWNER, LOGIN)
    await Start(place, store).keys.start()
    assert len(place.saved) == 1

    lost = KeptKeys()
    with pytest.raises(Misconfigured, match="the key in memory is missing") as caught:
        await Start(lost, store).keys.start()
    assert caught.value.hint == "find it"
    assert lost.saved == []


async def test_a_file_beside_the_socket_is_something_that_a_key_has_sealed():
    """It may hold the only copy of a login. Where nobody can look, no key is made either."""
    spill = StubbornSpill()
    spill.files["main"] = b"an answer"
    for trouble in (None, SpillError("the disk is failing")):
        if trouble is not None:
            spill.troubles["accounts"] = trouble
        place = KeptKeys()
        with pytest.raises(Misconfigured):
            await Start(place, StubbornStore(), spill).keys.start()
        assert place.saved == []


async def test_a_locked_place_is_waited_for_and_no_key_is_made():
    """It is looked at again and again; its reason is told once, and its end."""
    place = KeptKeys(nap=2.0)
    place.locked = True
    start = Start(place, StubbornStore())
    assert await start.keys.start() == []
    assert start.keys.reason == "the place is locked"
    with pytest.raises(Locked) as caught:
        start.keys.check()
    assert caught.value.hint == "open it"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start.keys.wait)
        await anyio.sleep(61)
        assert place.loads == 31
        assert place.saved == []
        place.locked = False
        with anyio.fail_after(3):
            await start.keys.opened()
    assert start.told == ["the place is locked", None]
    assert start.late == 1
    await start.keys.unlock()  # no matter
    assert start.late == 1


async def test_a_person_is_asked_behind_the_start_and_not_again_before_somebody_wants_that():
    """Nobody wants a dialogue that comes back by itself."""
    place = KeptKeys(OLD, asks=True)
    place.locked = True
    start = Start(place, await in_use(OLD))
    await start.keys.start()
    assert place.loads == 0
    assert start.keys.reason == "the key in memory has not been given yet"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start.keys.wait)
        await anyio.sleep(3600)
        assert place.loads == 1
        with pytest.raises(Locked):
            await start.keys.unlock()
        place.locked = False
        await start.keys.unlock()
    assert start.keys.ready


async def test_the_wrong_key_ends_the_start_where_waiting_is_of_no_use():
    """And is waited out where the right one may still come."""
    store = await in_use(OLD)
    with pytest.raises(Misconfigured, match="is not the one that sealed the store"):
        await Start(KeptKeys(NEW), store).keys.start()
    place = KeptKeys(NEW, nap=2.0)
    start = Start(place, store)
    assert await start.keys.start() == []
    assert "is not the one that sealed" in str(start.keys.reason)
    place.keys = KeptKeys(OLD).keys
    with anyio.fail_after(3):
        await start.keys.wait()
    assert start.keys.ready


async def test_a_store_that_can_not_be_read_is_told_and_tried_again():
    """While it waits for the key; at the start it is for the daemon to say."""
    place = KeptKeys(OLD, nap=2.0)
    place.locked = True
    start = Start(place, await in_use(OLD))
    await start.keys.start()
    place.locked = False
    read = start.store.sealed_by

    async def failing() -> dict[str, int]:
        start.store.sealed_by = read
        raise FULL

    start.store.sealed_by = failing
    await start.keys.wait()
    assert start.told == ["the place is locked", "the store can't be read: the disk is full", None]


async def names_in(store: StubbornStore) -> list[str]:
    return list(await store.sealed_by())


async def test_a_change_of_keys_keeps_both_until_everything_has_moved():
    """First both are in the place, then the new one alone."""
    place, store = KeptKeys(OLD), await in_use(OLD)
    start = Start(place, store)
    await start.keys.start()
    old, new = KeptKeys(OLD).keys[0].key_id, KeptKeys(NEW).keys[0].key_id

    done = await start.keys.rekey()

    assert done == {
        "key": new,
        "source": "the key in memory",
        "moved": 1,
        "left": [],
        "kept": [],
        "also_in": None,
    }
    assert place.saved == [(new, old), (new,)]
    assert await names_in(store) == [new]
    assert (await start.keys.store_info())["key"]["ids"] == [new, old]


async def test_one_that_was_cut_off_goes_on_with_the_same_key():
    """After a start in between, too."""
    place, store = KeptKeys(OLD), await in_use(OLD)
    start = Start(place, store)
    await start.keys.start()
    reseal = store.reseal

    async def full(before: Row, after: Row) -> bool:
        raise FULL

    store.reseal = full
    with pytest.raises(Unavailable, match="the old one is kept: the disk is full"):
        await start.keys.rekey()
    store.reseal = reseal
    again = Start(place, store)
    await again.keys.start()
    assert (await again.keys.rekey())["moved"] == 1
    assert len(place.saved) == 2


async def test_what_does_not_open_keeps_the_old_key_in_its_place():
    """And the account is named."""
    place, spill = KeptKeys(OLD), StubbornSpill()
    start = Start(place, await in_use(OLD), spill)
    await start.keys.start()
    spill.files["gone"] = b"?"
    done = await start.keys.rekey()
    assert (done["left"], len(done["kept"]), len(place.keys)) == (["gone"], 1, 2)


async def test_a_place_that_only_its_owner_writes_gives_both_keys():
    """One is not enough; of two the first is the new one, and the other is for its owner to remove."""
    store = await in_use(OLD)
    place = KeptKeys(OLD)
    place.writable = False
    start = Start(place, store)
    await start.keys.start()
    with pytest.raises(Misconfigured, match="read-only"):
        await start.keys.rekey()
    both = KeptKeys(NEW, OLD)
    both.writable = False
    start = Start(both, store)
    await start.keys.start()
    done = await start.keys.rekey()
    assert (done["moved"], done["kept"]) == (1, [place.keys[0].key_id])


async def test_a_place_whose_key_was_exchanged_meanwhile_is_left_alone():
    """Nobody knows then what the other key is for."""
    place = KeptKeys(OLD)
    start = Start(place, await in_use(OLD))
    await start.keys.start()
    place.keys = KeptKeys(NEW).keys
    with pytest.raises(Misconfigured, match="is another now"):
        await start.keys.rekey()
    assert place.saved == []


async def test_without_a_key_there_is_nothing_to_change():
    """It is locked."""
    place = KeptKeys(nap=2.0)
    place.locked = True
    start = Start(place, StubbornStore())
    await start.keys.start()
    with pytest.raises(Locked):
        await start.keys.rekey()


ELSEWHERE = KeySource(KeyKind.KEYRING, "main")


async def started(place: KeptKeys) -> Start:
    """A start with that place, whose first key has sealed a login."""
    start = Start(place, await in_use(OLD))
    await start.keys.start()
    return start


async def test_a_change_of_places_is_a_copy():
    """The store is not touched, and the place in use neither: the next start finds the key there."""
    place = KeptKeys(OLD)
    start = await started(place)
    (old,) = (key.key_id for key in place.keys)

    done = await start.keys.move(ELSEWHERE)

    assert done == {
        "key": old,
        "source": "the other place",
        "moved": 0,
        "left": [],
        "kept": [],
        "also_in": {"source": "the key in memory", "remove": "forget it"},
    }
    assert (place.saved, start.other.saved) == ([], [(old,)])
    assert await names_in(start.store) == [old]
    there = Start(start.other, start.store)
    await there.keys.start()
    await there.keys.rekey()
    assert old not in await names_in(start.store)  # what the place before has opens nothing now


async def test_a_key_that_was_in_use_before_is_replaced_there():
    """By a change of places that was given up, a change of keys, and another try."""
    start = await started(KeptKeys(OLD))
    await start.keys.move(ELSEWHERE)
    newest = (await start.keys.rekey())["key"]
    await start.keys.move(ELSEWHERE)
    assert [key.key_id for key in start.other.keys] == [newest]


async def test_a_foreign_key_in_the_other_place_is_never_overwritten():
    """It is named, and so is how to remove it."""
    start = await started(KeptKeys(OLD))
    start.other = KeptKeys(NEW, name="the other place")
    with pytest.raises(Misconfigured, match="the other place has the key of something") as caught:
        await start.keys.move(ELSEWHERE)
    assert start.other.keys[0].key_id in caught.value.message
    assert "forget it" in str(caught.value.hint)
    assert start.other.saved == []


async def test_another_process_may_have_been_quicker():
    """What it has put there meanwhile stays there, and is not taken for ours."""
    start = await started(KeptKeys(OLD))

    async def too_late(_keys: object) -> None:
        start.other.keys = KeptKeys(NEW).keys

    start.other.save = too_late
    with pytest.raises(Misconfigured, match="the key of something else"):
        await start.keys.move(ELSEWHERE)


async def test_another_place_that_is_locked_or_not_to_be_written_changes_nothing():
    """The words say so, and how to go on; the class of the error stays."""
    start = await started(KeptKeys(OLD))
    start.other.locked = True
    with pytest.raises(Locked, match="nothing has changed: the place is locked") as caught:
        await start.keys.move(ELSEWHERE)
    assert str(caught.value.hint).startswith("open it. As a service")
    start.other.locked = False
    start.other.trouble = Misconfigured("no room")
    with pytest.raises(Misconfigured, match="nothing has changed: no room") as caught:
        await start.keys.move(ELSEWHERE)
    assert str(caught.value.hint).startswith("try again. ")


async def test_the_place_in_use_is_no_other_place():
    """A new key there is another command."""
    start = await started(KeptKeys(OLD))
    start.other = KeptKeys(OLD)
    with pytest.raises(Misconfigured, match="is where the key is already"):
        await start.keys.move(ELSEWHERE)
    assert start.other.saved == []


async def test_before_a_change_of_places_the_change_of_keys_is_finished():
    """Which of two keys the store needs is not for the other place to find out."""
    start = await started(KeptKeys(OLD, NEW))
    with pytest.raises(Misconfigured, match="isn't finished") as caught:
        await start.keys.move(ELSEWHERE)
    assert "spotokend store rekey" in str(caught.value.hint)
    assert start.other.saved == []


async def test_for_another_passphrase_the_present_one_is_asked_for():
    """Of the place as it is without what is remembered; who doesn't know it changes nothing."""
    start = await started(KeptKeys(OLD))
    start.other, start.in_use_anew = KeptKeys(asks=True), KeptKeys(OLD, asks=True)
    start.in_use_anew.locked = True
    with pytest.raises(Locked):
        await start.keys.move(ELSEWHERE)
    assert start.other.saved == []
    start.in_use_anew.locked = False

    done = await start.keys.move(ELSEWHERE)

    assert done["also_in"] is None
    assert len(start.other.saved) == 1
    await start.keys.rekey()  # by the new one
    assert len(start.other.saved) == 3


async def test_without_a_key_there_is_none_to_move():
    """It is locked."""
    place = KeptKeys(nap=2.0)
    place.locked = True
    start = Start(place, StubbornStore())
    await start.keys.start()
    with pytest.raises(Locked):
        await start.keys.move(ELSEWHERE)
