"""A daemon as one of its watchers sees it, and what its user does meanwhile; on asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self

import httpx

import spotokend

SOON = 30.0
"""Seconds within which whatever is waited for has happened, on a slow machine, too."""
AT_ONCE = 8
"""Logins; a daemon has a bound on those, which no user meets."""

State = dict[str, Any]
"""One account's part of ``status``."""


class Watched:
    """See the module; an asynchronous context manager.

    What is waited for is seen even where it lasts for a moment only: each state is pushed. ``agree``
    takes the address for the user's browser and returns the one that it ends on.
    """

    def __init__(
        self, socket: object, agree: Callable[[str], Awaitable[str]] | None = None
    ) -> None:
        self.client = spotokend.AsyncClient(str(socket))
        self._browser = httpx.AsyncClient(trust_env=False)
        self._agree = agree or self._follow
        self._states: dict[str, State] = {}
        self._waiting: dict[str, list[tuple[Callable[[State], bool], asyncio.Future[State]]]] = {}
        self._few = asyncio.Semaphore(AT_ONCE)

    async def __aenter__(self) -> Self:
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.client.close()
        await self._watching
        await self._browser.aclose()

    async def until(self, account: str, true: Callable[[State], bool]) -> State:
        """The account's state as soon as ``true`` says so of it."""
        if account in self._states and true(self._states[account]):
            return self._states[account]
        found: asyncio.Future[State] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(account, []).append((true, found))
        try:
            return await asyncio.wait_for(found, SOON)
        except TimeoutError:
            raise AssertionError(f"within {SOON:.0f} s only {self._states[account]}") from None

    async def log_in(self, account: str) -> None:
        """The user logs in to the account."""
        async with self._few:
            begun: Any = await self.client.call("login_start", account=account)
            end = await self._agree(begun["url"])
            await self.client.call("login_finish", login_id=begun["login_id"], redirect_url=end)

    async def token(self, account: str) -> spotokend.Token:
        """From the daemon, not from what the shim keeps; never a dead one."""
        asked_at = boot()
        token = spotokend.Token.from_wire(await self.client.call("token", account=account))
        assert token.expires_boot > asked_at
        return token

    async def status(self, account: str) -> State:
        """The account's part, with its story."""
        status: Any = await self.client.status(account)
        found: State = status["accounts"][0]
        return found

    async def _follow(self, url: str) -> str:
        return (await self._browser.get(url)).headers["location"]

    async def _watch(self) -> None:
        async for kind, event in self.client.watch(tokens=False):
            if kind == "state":
                account = str(event["account"])
                self._states[account] = event
                for true, found in self._waiting.get(account, []):
                    if not found.done() and true(event):
                        found.set_result(event)


def fresh(generation: int) -> Callable[[State], bool]:
    """Has a token at least so new, and on disk."""
    return lambda state: state["state"] == "fresh" and state["generation"] >= generation


def in_trouble(state: State) -> bool:
    """An attempt has brought nothing."""
    return state["state"] == "waiting" and state["reason"] is not None


def says(words: str) -> Callable[[State], bool]:
    """Tells that as the reason."""
    return lambda state: words in (state["reason"] or "")


def boot() -> float:
    """CLOCK_BOOTTIME, by which everything is decided."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
