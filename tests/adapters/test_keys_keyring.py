"""The keyring's items: added before others are removed; a real keyring, and none at all."""

from __future__ import annotations

import builtins
from collections.abc import Iterator

import pytest
from real_keyring import PASSWORD, RealKeyring

from spotokend.adapters.keys.keyring import APPLICATION, KeyringKey
from spotokend.errors import Locked, Misconfigured
from spotokend.rules.sealing import SealingKey

secretstorage = pytest.importorskip("secretstorage")
pytestmark = pytest.mark.anyio

FIRST, SECOND = SealingKey(bytes([1] * 32)), SealingKey(bytes([2] * 32))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealKeyring]:
    """One keyring for all."""
    with RealKeyring(tmp_path_factory.mktemp("keyring")) as keyring:
        keyring.unlock(PASSWORD)
        yield keyring


@pytest.fixture
def bus(service: RealKeyring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", service.environ["DBUS_SESSION_BUS_ADDRESS"])


def names(keys: list[SealingKey]) -> list[str]:
    return [key.key_id for key in keys]


@pytest.mark.usefixtures("bus")
async def test_keys_are_items_of_a_store_the_newest_first():
    """Other stores' are other items; what is kept is not written anew."""
    place = KeyringKey("main")
    assert await place.load() == []
    await place.save([FIRST])
    await KeyringKey("other").save([SealingKey(bytes(32))])
    await place.save([SECOND, FIRST])
    assert names(await place.load()) == names([SECOND, FIRST])
    await place.save([SECOND])
    assert names(await place.load()) == names([SECOND])
    assert len(await KeyringKey("other").load()) == 1


@pytest.mark.usefixtures("bus")
async def test_an_item_that_holds_no_key_is_left_alone():
    """It is named; one without a number is no business of ours."""
    bus = secretstorage.dbus_init()
    collection = secretstorage.Collection(bus)
    ours = {"application": APPLICATION, "store": "strange"}
    collection.create_item("a note", ours, b"a note")
    assert await KeyringKey("strange").load() == []
    item = collection.create_item("no key", ours | {"number": "7"}, b"not a key")
    with pytest.raises(Misconfigured, match="item 7 of spotokend holds no key") as caught:
        await KeyringKey("strange").load()
    assert "not a key" not in caught.value.message
    assert item.get_secret() == b"not a key"
    bus.close()


@pytest.mark.usefixtures("bus")
async def test_locked_it_gives_and_takes_nothing(service: RealKeyring):
    """And asks nobody."""
    service.lock()
    for call in (KeyringKey("main").load(), KeyringKey("main").save([FIRST])):
        with pytest.raises(Locked, match="the keyring is locked"):
            await call
    assert service.unlock(PASSWORD)
    assert names(await KeyringKey("main").load()) == names([SECOND])


@pytest.mark.parametrize("address", [None, "unix:path=/nowhere", "nonsense"])
async def test_without_a_bus_it_is_waited_for(address, monkeypatch):
    """A session that has only just begun may not have one yet."""
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
    with pytest.raises(Locked, match="no keyring answers"):
        await KeyringKey("main").load()


async def test_a_missing_library_is_named_with_its_package(monkeypatch):
    """It is an extra."""
    load = builtins.__import__

    def without(name, *arguments, **more):
        if name == "secretstorage":
            raise ImportError(name)
        return load(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(Misconfigured, match="isn't installed") as caught:
        await KeyringKey("main").load()
    assert "spotokend[keyring]" in caught.value.hint
