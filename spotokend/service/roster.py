"""Which accounts exist: those of the configuration and those of the store; at start and on reload.

A reload applies a whole valid configuration or nothing. Nobody loses a grant by it: a row whose
client is another registration now, or is gone, stays in the store and comes back when the edit is
undone. And no grant ever meets another registration than its own: what is under way is finished
under the old configuration, and between the first and the last step to the new one nothing else
runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from spotokend.adapters.store.base import Row, StoreError
from spotokend.errors import Unavailable
from spotokend.rules.account import (
    ChangedElsewhere,
    Loaded,
    LoggedOut,
    NeedsLogin,
    Reconfigured,
    Unsaved,
)
from spotokend.rules.config.values import ClientConfig, Config
from spotokend.rules.gate import Refusals, resumed, together, unblock
from spotokend.rules.secret import Secret

from .registry import Account, Client, Registry
from .traces import gate_of, refusals_of
from .vault import Vault

GONE = "its client is not in the configuration any more; the login is kept in the store"
CHANGED = "its client is another registration now; the old login is kept and comes back with it"


class Roster:
    """See the module."""

    def __init__(self, registry: Registry, vault: Vault, *, log: Callable[..., None]) -> None:
        self._registry = registry
        self._vault = vault
        self._log = log

    async def populate(self, secrets: Mapping[str, Secret | None]) -> None:
        """Fill the registry from its configuration and the store.

        Raises:
            StoreError: the store can't be read.
        """
        self._take_clients(secrets)
        await self._take_stock()

    async def reconfigure(self, config: Config, secrets: Mapping[str, Secret | None]) -> None:
        """Go over to another configuration.

        Raises:
            Unavailable: an answer that isn't on disk yet would be lost; nothing is applied.
            StoreError: the store can't be read; what it isn't needed for is applied.
        """
        registry = self._registry
        await self._finish(config)
        # No await from here until every account is one of its client's present registration.
        had = {name: account.owner.fingerprint for name, account in registry.accounts.items()}
        registry.config = config
        for name in [name for name in registry.clients if name not in config.clients]:
            self._drop(registry.clients.pop(name))
        self._take_clients(secrets)
        for account in list(registry.accounts.values()):
            before = account.client
            section = config.accounts.get(account.name)
            account.user = None if section is None else section.user
            account.client = before if section is None else registry.clients[section.client]
            if had[account.name] != account.owner.fingerprint:
                registry.apply(account, LoggedOut(account.state.version, CHANGED))
            elif account.client is not before:
                # It may stand before the other one's gate: the keeper has to look at it anew.
                registry.move(account, replace(account.state))
            registry.apply(account, Reconfigured())
        for client in registry.clients.values():
            client.gate = unblock(client.gate)
        for account in list(registry.accounts.values()):
            if (
                isinstance(account.state, NeedsLogin)
                or had[account.name] != account.owner.fingerprint
            ):
                await self._exchange(account)
        await self._take_stock()
        for account in list(registry.accounts.values()):
            if isinstance(account.state, NeedsLogin) and account.name not in config.accounts:
                registry.remove(account)

    async def unlocked(self) -> None:
        """Do what only the key allows: find what lies aside for those without a login.

        Raises:
            StoreError: the store can't be read.
        """
        for account in list(self._registry.accounts.values()):
            if isinstance(account.state, NeedsLogin):
                await self._exchange(account)

    async def _finish(self, config: Config) -> None:
        """Wait for the refreshes under way whose account is about to change its client."""
        accounts = self._registry.accounts
        while under_way := [a for a in accounts.values() if a.under_way and _leaves(a, config)]:
            await under_way[0].settled()
        for account in accounts.values():
            if isinstance(account.state, Unsaved) and _leaves(account, config):
                raise Unavailable(
                    f"nothing was applied: the last answer for {account.name} is not on disk yet, "
                    f"and its login might be lost: {account.state.reason}",
                    account=account.name,
                    hint="make room on the disk that holds the store, then: spotokend reload",
                )

    def _take_clients(self, secrets: Mapping[str, Secret | None]) -> None:
        registry = self._registry
        for name, config in registry.config.clients.items():
            if name in registry.clients:
                registry.clients[name].configure(config, secrets[name], registry.config.timing)
            else:
                registry.clients[name] = Client(config, secrets[name], registry.config.timing)

    async def _take_stock(self) -> None:
        """Take in what the store and the configuration have and the registry has not."""
        registry = self._registry
        told: dict[str, list[Refusals]] = {}
        async for row in self._vault.rows():
            if row.account not in registry.accounts and (client := self._client_of(row)):
                if row.fingerprint == client.config.fingerprint:
                    told.setdefault(client.config.token_url, []).append(self._recall(row, client))
                await self._take_in(row, client)
        for url, refusals in told.items():
            known = registry.refusals.get(url, Refusals())
            registry.refusals[url] = together([known, *refusals])
        for name, section in registry.config.accounts.items():
            if name not in registry.accounts:
                await self._add(name, registry.clients[section.client])
        # Without a section an account is known by its row alone, and that may lie aside.
        for client in registry.clients.values():
            for name in await self._vault.put_aside(client.config.fingerprint):
                if name not in registry.accounts:
                    await self._add(name, client)
        self._add_clients_own()

    def _drop(self, client: Client) -> None:
        """The client is gone from the configuration; its accounts' rows stay in the store."""
        registry = self._registry
        for account in [a for a in registry.accounts.values() if a.client is client]:
            registry.apply(account, LoggedOut(account.state.version, GONE))
            registry.remove(account)

    def _client_of(self, row: Row) -> Client | None:
        """The client of a stored account."""
        registry = self._registry
        section = registry.config.accounts.get(row.account)
        client = registry.clients.get(row.client if section is None else section.client)
        if client is None:
            self._log("client_gone", account=row.account, level="warning", words=GONE)
        return client

    def _recall(self, row: Row, client: Client) -> Refusals:
        """Go on with the pauses that the account has brought upon its client; the rest it tells."""
        clock, timing = self._registry.clock, client.policy.timing
        told = gate_of(row, clock, timing)
        client.gate = resumed(client.gate, told, now=clock.boot(), timing=timing)
        return refusals_of(row, clock)

    async def _take_in(self, row: Row, client: Client) -> None:
        """A stored account that isn't known yet."""
        registry = self._registry
        account = registry.new(row.account, client)
        registry.insert(account)
        if row.fingerprint == client.config.fingerprint:
            registry.apply(account, Loaded(self._vault.sealed(row, client.policy)))
        else:
            registry.apply(account, LoggedOut(row.version, CHANGED))
            await self._exchange(account)

    async def _add(self, name: str, client: Client) -> None:
        """A configured account without a row in use; perhaps one was put aside."""
        account = self._registry.new(name, client)
        self._registry.insert(account)
        await self._exchange(account)

    def _add_clients_own(self) -> None:
        """A client-credentials client that no account names is an account of its own name.

        Nobody can log in there, so it would never come into being otherwise.
        """
        registry = self._registry
        for name, client in registry.clients.items():
            named = any(account.client is client for account in registry.accounts.values())
            if not client.policy.needs_grant and not named and name not in registry.accounts:
                registry.insert(registry.new(name, client))

    async def _exchange(self, account: Account) -> None:
        """Whatever row is in use, put the one of the account's registration in its place."""
        if self._vault.locked:
            return  # see unlocked
        before = account.state
        try:
            state = await self._vault.exchange(account.owner, account.client.policy)
        except StoreError as error:
            self._log("exchange", account=account.name, level="error", words=str(error))
            return
        if state is not None and account.state is before:  # else a login came meanwhile
            self._registry.apply(account, ChangedElsewhere(state))


def _leaves(account: Account, config: Config) -> bool:
    """Whether the account is another client's, or another registration's, by ``config``."""
    now: ClientConfig = account.client.config
    section = config.accounts.get(account.name)
    then = config.clients.get(now.name if section is None else section.client)
    return then is None or (then.name, then.fingerprint) != (now.name, now.fingerprint)
