"""The store's keys, between the place where they are kept and the vault that uses them.

They are asked for at the start. A place that is locked then is waited for: the daemon is up, and
whoever needs a key is answered ``locked``. A key is made only for a store that holds nothing yet,
and only where the place is open and has none: beside a store in use, a new key would be the silent
loss of every login in it.

A change of keys is safe at any moment: the new key is put beside the old one where both are kept,
everything moves from the one to the other, and only then the old one goes. Wherever that is cut
off, both are there at the next start, and :meth:`Keys.rekey` goes on.

A change of places is a copy: the key in use is put into the other place, and stays in its own,
which the configuration names until somebody edits it. So there is no moment at which a start would
not find it; what stays behind is made worthless by a change of keys in the new place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import anyio

from spotokend.adapters.spill import SpillError
from spotokend.adapters.store.base import StoreError
from spotokend.errors import Locked, Misconfigured, SpotokendError, Unavailable
from spotokend.rules.config.values import KeySource
from spotokend.rules.notice import Notice
from spotokend.rules.sealing import KEY_BYTES, KeyRing, SealingKey

from .vault import Vault


class KeyPlace(Protocol):
    """Where keys are kept: what the modules of :mod:`spotokend.adapters.keys` offer."""

    @property
    def name(self) -> str:
        """In words: ``the key /path``."""
        ...

    @property
    def lost(self) -> str:
        """What to do where it has no key and should have one."""
        ...

    @property
    def removal(self) -> str:
        """What to type, or to do, for it to have none any more."""
        ...

    @property
    def nap(self) -> float | None:
        """Seconds between two looks at a locked place; None: it is asked again on request."""
        ...

    @property
    def asks(self) -> bool:
        """Whether a person is asked, which may take its time."""
        ...

    @property
    def writable(self) -> bool:
        """Whether :meth:`save` can do it."""
        ...

    async def load(self) -> list[SealingKey]:
        """The keys, the newest first; none where the place is open and has none.

        Raises:
            Locked: they can't be had now.
            Misconfigured: nor later, as things are.
        """
        ...

    async def save(self, keys: Sequence[SealingKey]) -> None:
        """Have exactly these there, durably; what is there already stays until they are.

        Raises:
            Locked, Misconfigured: not done.
        """
        ...


class Keys:
    """See the module."""

    def __init__(
        self,
        place: KeyPlace,
        ring: KeyRing,
        vault: Vault,
        *,
        random_bytes: Callable[[int], bytes],
        place_at: Callable[[KeySource | None], KeyPlace],
        unlocked: Callable[[list[Notice]], Awaitable[None]],
        tell: Callable[[SpotokendError | None], None],
    ) -> None:
        """``place_at`` makes the place for a source, None: the one in use, knowing nothing yet.

        ``unlocked`` is awaited when the vault was opened later than at the start, before anybody
        is let in; with what is to be told. ``tell`` hears why it is still locked, each reason once, and None when it isn't any more.
        """
        self._place = place
        self._ring = ring
        self._vault = vault
        self._random_bytes = random_bytes
        self._place_at = place_at
        self._unlocked = unlocked
        self._tell = tell
        self._told: str | None = None
        self._turn = anyio.Lock()
        self._opened = anyio.Event()
        self._asking: set[anyio.CancelScope] = set()
        self._stopped = False
        self.ready = False
        """Whether everything that needs the key can be asked for."""

    @property
    def reason(self) -> str | None:
        """Why there is no key; None: there is one."""
        try:
            self.check()
        except Locked as locked:
            return locked.message
        return None

    def check(self) -> None:
        """See that it is :attr:`ready`.

        Raises:
            Locked: it isn't; why, and what to type.
        """
        self._ring.check()
        if not self.ready:
            raise Locked("the stored logins are just being unlocked", retry_after=1.0)

    async def start(self) -> list[Notice]:
        """Ask for the key the first time, unless that would keep everybody waiting for a person.

        Returns what is to be told.

        Raises:
            Misconfigured: it can't be had, and waiting doesn't help.
            StoreError: the store can't be read.
        """
        if self._place.asks:
            self._ring.lock(f"{self._place.name} has not been given yet", "spotokend unlock")
            return []
        try:
            notices = await self._open()
        except Locked:
            return []  # it was told, and everybody who needs it will hear it
        except Misconfigured:
            if self._place.nap is None:
                raise
            return []
        self._let_in()
        return notices

    async def opened(self) -> None:
        """Return when it is :attr:`ready`."""
        await self._opened.wait()

    async def wait(self) -> None:
        """Return when there is a key: it is looked for, or asked for once, until then."""
        if self._place.asks:
            await self._try()
        while not self.ready:
            with anyio.move_on_after(self._place.nap):  # None: no end
                await self._opened.wait()
            if not self.ready:
                await self._try()

    async def unlock(self) -> None:
        """Ask for the key now, if it isn't there.

        Raises:
            Locked: it can't be had.
            Misconfigured: it is the wrong one, or none.
            StoreError: the store can't be read.
        """
        with self._until_stopped():
            async with self._turn:
                await self._unlock()

    def stop(self) -> None:
        """Wait for no person's answer any more: :meth:`unlock` and :meth:`move` end at once."""
        self._stopped = True
        for scope in self._asking:
            scope.cancel()

    @contextmanager
    def _until_stopped(self) -> Iterator[None]:
        with anyio.CancelScope() as scope:
            self._asking.add(scope)
            if self._stopped:
                scope.cancel()
            try:
                yield
            finally:
                self._asking.discard(scope)
        if scope.cancelled_caught:
            raise Unavailable("spotokend is being stopped")

    async def _unlock(self) -> None:
        if not self.ready:
            await self._unlocked(await self._open())
            self._let_in()
            self._tell(None)

    async def rekey(self) -> dict[str, object]:
        """The ``rekey`` result: go over to a new key; or to the newest, if that was begun already.

        Raises:
            Locked: there is no key, or its place is locked.
            Misconfigured: its place can't be written.
            Unavailable: the store can't be written; both keys are kept, and a repetition goes on.
        """
        self.check()
        async with self._turn:
            keys = await self._in_use()
            if len(keys) == 1:
                keys = [SealingKey(self._random_bytes(KEY_BYTES)), *keys]
                await self._place.save(keys)
            self._ring.take(keys)
            try:
                moved, left = await self._vault.rekey()
            except (StoreError, SpillError) as error:
                raise Unavailable(
                    f"not everything has the new key yet, and the old one is kept: {error}",
                    hint="mend that, then: spotokend store rekey",
                ) from None
            done = self._place.writable and not left
            if done:
                await self._place.save(keys[:1])
            return {
                "key": keys[0].key_id,
                "source": self._place.name,
                "moved": moved,
                "left": left,
                "kept": [] if done else [key.key_id for key in keys[1:]],
                "also_in": None,
            }

    async def move(self, source: KeySource) -> dict[str, object]:
        """The ``rekey`` result: have the key in use in another place, too; or, where that is the
        passphrase that it is under already, have it under another one.

        Nothing is taken away, and nothing that is in the other place is overwritten.

        Raises:
            Locked: there is no key, or one of the places is locked: nothing was changed.
            Misconfigured: the other place can't be used, or it has a key of something else.
        """
        self.check()
        other = self._place_at(source)
        with self._until_stopped():
            async with self._turn:
                return await self._move(other)

    async def _move(self, other: KeyPlace) -> dict[str, object]:
        keys = await self._in_use()
        if len(keys) > 1:
            raise Misconfigured(
                f"a change of keys in {self._place.name} isn't finished",
                hint="spotokend store rekey, and what that says; then the same again",
            )
        also_in = None
        if other.name != self._place.name:
            also_in = {"source": self._place.name, "remove": self._place.removal}
        elif not other.asks:
            raise Misconfigured(
                f"{other.name} is where the key is already",
                hint="for a new key there: spotokend store rekey",
            )
        try:
            if also_in is None:
                await self._place_at(None).load()  # the present one, from whoever wants another
            else:
                self._see_that_it_is_ours(other, await other.load())
            await other.save(keys)
            # Another process may have been quicker.
            self._see_that_it_is_ours(other, await other.load())
        except (Locked, Misconfigured) as error:
            raise type(error)(
                f"the key was not moved, and nothing has changed: {error.message}",
                hint=f"{error.hint or 'try again'}. As a service the daemon reaches only what its"
                " configuration names: docs/security.md, The key",
            ) from None
        if also_in is None:
            self._place = other
        return {
            "key": keys[0].key_id,
            "source": other.name,
            "moved": 0,
            "left": [],
            "kept": [],
            "also_in": also_in,
        }

    async def store_info(self) -> dict[str, object]:
        """The ``store_info`` result.

        Raises:
            StoreError: the store can't be read.
        """
        key = {"source": self._place.name, "ids": list(self._ring.ids), "locked": self.reason}
        return await self._vault.describe() | {"key": key}

    async def _in_use(self) -> list[SealingKey]:
        keys = await self._place.load()
        if not {key.key_id for key in keys}.issuperset(self._ring.ids[:1]):
            raise Misconfigured(
                f"{self._place.name} is another now than the one in use",
                hint="restart spotokend, or put the right one back",
            )
        return keys

    def _see_that_it_is_ours(self, place: KeyPlace, found: Sequence[SealingKey]) -> None:
        foreign = sorted({key.key_id for key in found}.difference(self._ring.ids))
        if foreign:
            raise Misconfigured(
                f"{place.name} has the key of something else already ({', '.join(foreign)})",
                hint="name another place; or, if nothing needs that key, remove it first:"
                f" {place.removal}",
            )

    async def _open(self) -> list[Notice]:
        try:
            return await self._vault.unlock(await self._keys())
        except (Locked, Misconfigured) as error:
            self._ring.lock(error.message, error.hint or "spotokend unlock")
            if error.message != self._told:
                self._told = error.message
                self._tell(error)
            raise

    def _let_in(self) -> None:
        self.ready = True
        self._opened.set()

    async def _keys(self) -> list[SealingKey]:
        keys = await self._place.load()
        if keys:
            return keys
        try:
            if not await self._vault.holds_nothing():
                raise Misconfigured(
                    f"{self._place.name} is missing, and the store holds what it has sealed",
                    hint=self._place.lost,
                )
        except SpillError as error:
            raise Misconfigured(f"nobody can say whether a key is needed: {error}") from None
        await self._place.save([SealingKey(self._random_bytes(KEY_BYTES))])
        # What is there now, which another process may have made in between.
        return await self._place.load()

    async def _try(self) -> None:
        try:
            await self.unlock()
        except (Locked, Misconfigured, Unavailable):
            pass  # it was told, or this is the end
        except StoreError as error:
            self._tell(Unavailable(f"the store can't be read: {error}"))
