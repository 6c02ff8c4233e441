"""A process that changes the keys of a store without end, to be killed: ``python -m tests.rekeying FOLDER``.

Also what looks afterwards whether everything is still there.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import anyio

from spotokend.adapters.keys.file import KeyFile
from spotokend.adapters.spill import SpillFolder
from spotokend.adapters.store.base import Intent, Lease, StoreError
from spotokend.adapters.store.sqlite import SqliteStore
from spotokend.rules.account import Fresh, Grant, Policy
from spotokend.rules.gate import Gate
from spotokend.rules.schedule import Boot, Wall
from spotokend.rules.sealing import KeyRing
from spotokend.rules.secret import Secret
from spotokend.service.clock import Clock
from spotokend.service.keys import Keys
from spotokend.service.rows import Owner, Rows
from spotokend.service.vault import Vault

IN_USE, ASIDE = "fingerprint-1", "fingerprint-2"
ACCOUNTS = 24
SPILT = "spilt"


def login(words: str, generation: int = 1) -> Fresh:
    grant = Grant(refresh_token=Secret(words))
    return Fresh(grant=grant, access=None, due_at=Boot(0.0), generation=generation)


async def _nothing(_notices: list[object]) -> None:
    """Nobody waits here."""


class Opened:
    """Store, vault and keys of a folder, as the daemon puts them together."""

    def __init__(self, folder: Path, store: SqliteStore) -> None:
        self.store = store
        self.place = KeyFile(str(folder / "key"))
        ring = KeyRing()
        clock = Clock(
            lambda: Boot(time.monotonic()), lambda: Wall(time.time()), lambda: 0.5, "boot-1"
        )
        self.vault = Vault(
            store, Rows(ring, clock, random_bytes=os.urandom), SpillFolder(str(folder / "unsaved"))
        )
        self.keys = Keys(
            self.place,
            ring,
            self.vault,
            random_bytes=os.urandom,
            place_at=lambda _: self.place,
            unlocked=_nothing,
            tell=lambda _: None,
        )

    async def fill(self) -> None:
        """Logins in use, put aside and not finished, and an answer that only the file has."""
        for number in range(ACCOUNTS):
            name = f"account-{number}"
            await self.vault.put(Owner(name, "c", ASIDE), login(f"aside-{number}"))
            await self.vault.put(Owner(name, "c", IN_USE), login(f"in-use-{number}"))
        owner = Owner("new", "c", IN_USE)
        await self.vault.put(owner, login("candidate"), candidate=True)
        spilt = Owner(SPILT, "c", IN_USE)
        version = await self.vault.put(spilt, login("before"))
        lease = await self.store.begin(SPILT, version, Intent(attempt="a1", started_at=0.0))
        await self.vault.spill(spilt, lease, login("answer", 2), gate=Gate(), reason="full")

    async def held(self) -> set[str]:
        """Every refresh token that is there."""
        found = {state.grant.refresh_token.reveal() for _, state in await self.vault.candidates()}
        for name in [*(f"account-{number}" for number in range(ACCOUNTS)), SPILT]:
            state = await self.vault.unseal(Owner(name, "c", IN_USE), Policy())
            found.add(state.grant.refresh_token.reveal())
        for number in range(ACCOUNTS):
            kept = await self.store.load(f"account-{number}", f"aside:{ASIDE}")
            state = self.vault._rows.to_state(kept, Policy())
            found.add(state.grant.refresh_token.reveal())
        return found


EXPECTED = {"candidate", "answer"} | {
    f"{kind}-{number}" for kind in ("in-use", "aside") for number in range(ACCOUNTS)
}


async def opened(folder: Path) -> Opened:
    """A start: both the keys and what they open."""
    return Opened(folder, await SqliteStore.open(str(folder / "store.sqlite3"), now=time.time()))


async def _change_for_ever(folder: Path) -> None:
    here = await opened(folder)
    here.store.commit = _full  # the file beside the socket stays
    await here.keys.start()
    print("ready", flush=True)
    while True:
        await here.keys.rekey()


async def _full(_lease: Lease, _row: object) -> int:
    raise StoreError("the disk is full")


if __name__ == "__main__":
    anyio.run(_change_for_ever, Path(sys.argv[1]))
