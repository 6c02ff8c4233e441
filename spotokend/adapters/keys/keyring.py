"""The store's keys in the desktop's keyring, by the Secret Service's D-Bus interface.

One item a key, in the default collection, with the attributes ``application``, ``store`` and
``number``: a new key is a new item, so that nothing is ever overwritten, and the highest number is
the newest. A keyring that is locked, or not there at all, is waited for; only one that is open and
empty has no key.

Specification: https://specifications.freedesktop.org/secret-service-spec/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from anyio import CapacityLimiter, to_thread

from spotokend.errors import Locked, Misconfigured
from spotokend.rules.sealing import SealingKey, read_keys, write_keys

if TYPE_CHECKING:
    from jeepney.io.blocking import DBusConnection
    from secretstorage import Collection

_T = TypeVar("_T")

APPLICATION = "spotokend"

TIMEOUT = 10.0
"""Seconds for each answer on the bus."""

UNLOCK = "unlock the keyring (by a login to the desktop, or secret-tool), then: spotokend unlock"


class KeyringKey:
    """The keys of the store that is called ``store`` in the keyring."""

    nap = 2.0
    """Seconds between two looks at a locked keyring, each of which takes some milliseconds. There is
    a signal, but not while the service isn't running, and not from all services."""
    asks = False
    writable = True

    def __init__(self, store: str) -> None:
        self.store = store
        self.name = f"the key {store} in the keyring"
        self.removal = f"secret-tool clear application {APPLICATION} store {store}"
        self.lost = (
            "see that the right keyring is the default one; if the key is gone for good, move the"
            " store away and log in again (spotokend login)"
        )
        self._limiter = CapacityLimiter(1)

    async def load(self) -> list[SealingKey]:
        """The keys, the newest first; none where the open keyring has none.

        Raises:
            Locked: the keyring is locked, or nobody offers one.
            Misconfigured: the library is missing, or an item holds no key.
        """
        return await self._call(lambda found: list(_keys(found).values()))

    async def save(self, keys: Sequence[SealingKey]) -> None:
        """Have exactly these in the keyring: new ones are added first, then old ones removed.

        Raises:
            Locked, Misconfigured: as :meth:`load`; all that was there still is.
        """
        await self._call(lambda found: self._save(found, keys))

    def _save(self, found: _Found, keys: Sequence[SealingKey]) -> None:
        present = _keys(found)
        held = {key.key_id for key in present.values()}
        number = max(present, default=0)
        for key in reversed(keys):
            if key.key_id not in held:
                number += 1
                found.add(number, key)
        wanted = {key.key_id for key in keys}
        for old, key in present.items():
            if key.key_id not in wanted:
                found.remove(old)

    async def _call(self, work: Callable[[_Found], _T]) -> _T:
        def whole() -> _T:
            with _in_words(), closing(_connect()) as connection:
                return work(_Found(connection, self.store))

        return await to_thread.run_sync(whole, limiter=self._limiter)


class _Found:
    """What an open keyring has of a store: secrets by their numbers."""

    def __init__(self, connection: DBusConnection, store: str) -> None:
        import secretstorage

        try:
            self._collection: Collection = secretstorage.Collection(connection)
        except secretstorage.ItemNotFoundException:
            raise Locked("there is no default keyring (yet)", hint=UNLOCK) from None
        if self._collection.is_locked():
            raise Locked("the keyring is locked", hint=UNLOCK)
        self._store = store
        self._attributes = {"application": APPLICATION, "store": store}

    def secrets(self) -> dict[int, bytes]:
        """By number, the highest first."""
        found: dict[int, bytes] = {}
        for item in self._collection.search_items(self._attributes):
            number = item.get_attributes().get("number", "")
            if number.isdecimal():
                found[int(number)] = item.get_secret()
        return dict(sorted(found.items(), reverse=True))

    def add(self, number: int, key: SealingKey) -> None:
        self._collection.create_item(
            f"spotokend: the key to the logins in {self._store} ({key.key_id})",
            self._attributes | {"number": str(number)},
            write_keys([key]),
        )

    def remove(self, number: int) -> None:
        for item in self._collection.search_items(self._attributes | {"number": str(number)}):
            item.delete()


def _keys(found: _Found) -> dict[int, SealingKey]:
    keys: dict[int, SealingKey] = {}
    for number, secret in found.secrets().items():
        try:
            (keys[number],) = read_keys(secret)
        except ValueError:
            raise Misconfigured(
                f"the keyring's item {number} of spotokend holds no key",
                hint="look at it with seahorse or secret-tool; it was not touched",
            ) from None
    return keys


def _connect() -> DBusConnection:
    import secretstorage

    connection = secretstorage.dbus_init()
    # A service that hangs isn't waited for without an end.
    connection.send_and_get_reply = partial(connection.send_and_get_reply, timeout=TIMEOUT)
    return connection


@contextmanager
def _in_words() -> Iterator[None]:
    """What library, bus and service say, as errors of ours."""
    try:
        import secretstorage
        from jeepney import DBusErrorResponse
    except ImportError:
        raise Misconfigured(
            "the library for the keyring isn't installed",
            hint="install it with spotokend's extra: pip install 'spotokend[keyring]' (Debian:"
            " python3-secretstorage)",
        ) from None
    try:
        yield
    except secretstorage.LockedException:
        raise Locked("the keyring is locked", hint=UNLOCK) from None
    except (secretstorage.SecretStorageException, DBusErrorResponse, OSError) as error:
        raise Locked(
            f"no keyring answers ({str(error).strip() or type(error).__name__})",
            hint="start the desktop's keyring, or name another source under [store] key;"
            " spotokend goes on once it is there",
        ) from None
