"""What systemd hears of the daemon: that it is ready, how it is, and that both its loops go round.

The watchdog is fed by the work itself: the keeper's loop must have come round, and the server must
have answered a request that went the way of every client's. A daemon that hangs in either is killed
and started anew, and loses nothing by that which a crash would not lose.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Protocol

import anyio

from spotokend.adapters.listener import passed
from spotokend.adapters.notify import Notify
from spotokend.errors import Misconfigured
from spotokend.rules.notice import Health, health, hint, reason

from .keeper import Keeper
from .registry import Account, Registry
from .server import Server, refuse_those_who_wait

_BEATS = 3
# Signs of life in the time of the watchdog: one may be late by all of the rest.
_STATUS_PAUSE = 1.0
# Seconds between two lines of status: a thousand accounts may change at once.
_MORE_TIME = 60.0
# Seconds that a daemon asks for which waits for answers, each third of them.
_NAMED = 3
# Accounts in trouble that are told by name.


class Start(Protocol):
    """What is supervised: the daemon's whole run, which returns its exit status."""

    def __call__(self, *, notify: Notify, held: socket.socket | None) -> int: ...


def supervised(start: Start) -> int:
    """Run it with what systemd has passed to this process, if it was systemd that started it.

    Raises:
        Misconfigured: it wasn't started. Those who wait at a socket of systemd's have been told;
            they would wait for ever, and have it started again and again.
    """
    notify = Notify(os.environ)
    held = passed(os.environ)
    with held or nullcontext():
        try:
            return start(notify=notify, held=held)
        except Misconfigured as error:
            notify.status(f"Not started: {error.message}")
            if held is not None:
                anyio.run(partial(refuse_those_who_wait, held.dup(), error, own_uid=os.getuid()))
            raise


class Supervision:
    """See the module. Where no systemd listens nothing of it costs anything."""

    def __init__(self, notify: Notify, registry: Registry) -> None:
        self._notify = notify
        self._registry = registry
        self._troubled: set[str] = set()
        self._changed = anyio.Event()

    def heard(self, account: Account) -> None:
        """The account's state has changed. O(1)."""
        if account.health is Health.OK:
            self._troubled.discard(account.name)
        else:
            self._troubled.add(account.name)
        self._changed.set()

    @asynccontextmanager
    async def reload(self) -> AsyncIterator[None]:
        """While its block runs the configuration is read anew."""
        self._notify.reloading()
        try:
            yield
        finally:
            self._look_around()
            self._notify.ready()

    async def feed_watchdog(self, keeper: Keeper, server: Server) -> None:
        """Until it is cancelled; at once over where no watchdog is set."""
        while self._notify.watchdog is not None:
            await keeper.looks()
            await server.answers()
            self._notify.alive()
            await anyio.sleep(self._notify.watchdog / _BEATS)

    async def tell_status(self) -> None:
        """Tell how it is, now and after changes, until it is cancelled."""
        self._look_around()
        while self._notify.heard:
            self._changed = anyio.Event()
            self._notify.status(self.words())
            await anyio.sleep(_STATUS_PAUSE)
            await self._changed.wait()

    async def ask_for_time(self) -> None:
        """Say that the end has begun, and that it goes on, until it is cancelled."""
        self._notify.stopping()
        while self._notify.heard:
            self._notify.extend(_MORE_TIME)
            await anyio.sleep(_MORE_TIME / 3)

    def _look_around(self) -> None:
        """See how every account is: of one that was never moved nothing is heard."""
        now, accounts = self._registry.clock.boot(), self._registry.accounts.values()
        self._troubled = {
            account.name
            for account in accounts
            if health(account.state, account.client.policy, now) is not Health.OK
        }
        self._changed.set()

    def words(self) -> str:
        """How it is, in a line."""
        accounts = self._registry.accounts
        troubled = sorted(name for name in self._troubled if name in accounts)
        if not accounts:
            return "No account yet: spotokend login"
        keeps = "Keeps 1 account" if len(accounts) == 1 else f"Keeps {len(accounts)} accounts"
        if not troubled:
            return f"{keeps}, all well"
        if len(troubled) == 1:
            name, state = troubled[0], accounts[troubled[0]].state
            cure = hint(name, state) or "spotokend status"
            return f"{keeps}. {name}: {reason(state) or 'its token is about to end'} ({cure})"
        names = ", ".join(troubled[:_NAMED])
        more = f" and {len(troubled) - _NAMED} more" if len(troubled) > _NAMED else ""
        return f"{keeps}. Not well: {names}{more} (spotokend status)"
