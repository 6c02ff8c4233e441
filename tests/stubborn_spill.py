"""The folder beside the socket in memory, with a disk that can be told to fail."""

from __future__ import annotations

from spotokend.adapters.spill import SpillError, Unusable


class StubbornSpill:
    """As :class:`spotokend.adapters.spill.SpillFolder`; ``troubles["write"] = SpillError(...)``."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.aside: dict[str, bytes] = {}
        self.damaged: set[str] = set()
        self.troubles: dict[str, SpillError] = {}
        self.writes: list[str] = []

    def _meet(self, call: str) -> None:
        if trouble := self.troubles.get(call):
            raise trouble

    async def write(self, account: str, data: bytes) -> None:
        self._meet("write")
        self.files[account] = data
        self.writes.append(account)

    async def accounts(self) -> list[str]:
        self._meet("accounts")
        return sorted(self.files)

    async def read(self, account: str) -> bytes:
        self._meet("read")
        if account in self.damaged:
            raise Unusable("it is damaged", "damaged")
        return self.files[account]

    async def remove(self, account: str) -> None:
        self._meet("remove")
        self.files.pop(account, None)

    async def put_aside(self, account: str, why: str, *, now: float) -> str:
        self._meet("put_aside")
        self.aside[f"{account}.{why}"] = self.files.pop(account)
        return f"/spill/{account}.{why}"
