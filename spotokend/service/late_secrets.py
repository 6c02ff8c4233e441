"""Client secrets in a keyring that is closed: the daemon runs without them, and takes them later.

At a boot the keyring opens with the user's login, which may be after the daemon's start, or never.
Other clients, and tokens that still live, have no use for it: so nothing is refused but the
requests that need the secret. Nobody wakes up while none is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import anyio
from anyio import to_thread

from spotokend.adapters.client_secrets import place_of, read_secret
from spotokend.errors import SpotokendError
from spotokend.rules import gate
from spotokend.rules.account import EndpointBack, Waiting
from spotokend.rules.config.values import Config
from spotokend.rules.secret import Secret

from .registry import Client, Registry

NAP = 5.0
"""Seconds between two looks at the keyring, of a few milliseconds each. Its signals differ from
service to service, and one that isn't running has none."""


class LateSecrets:
    """See the module. ``kick`` has the keeper look at all accounts anew."""

    def __init__(
        self, registry: Registry, *, kick: Callable[[], None], log: Callable[..., None]
    ) -> None:
        self._registry = registry
        self._kick = kick
        self._log = log
        self._missing = anyio.Event()

    def look(self) -> None:
        """The clients were configured: does one of them lack its secret?"""
        if any(client.lacks_secret for client in self._registry.clients.values()):
            self._missing.set()

    def known(self, config: Config) -> dict[str, Secret | None]:
        """The secrets that hold for another configuration, too, if a keyring is closed just now."""
        return {
            name: client.secret
            for name, client in self._registry.clients.items()
            if name in config.clients
            and config.clients[name].client_secret == client.config.client_secret
        }

    async def run(self) -> None:
        """Take what comes, for ever."""
        while True:
            await self._missing.wait()
            told: dict[str, str] = {}
            while lacking := [c for c in self._registry.clients.values() if c.lacks_secret]:
                for client in lacking:
                    await self._take(client, told)
                await anyio.sleep(NAP)
            self._missing = anyio.Event()
            self.look()

    async def _take(self, client: Client, told: dict[str, str]) -> None:
        name, config = client.config.name, client.config
        assert config.client_secret is not None
        read = partial(read_secret, config.client_secret, place=place_of(name))
        try:
            secret = await to_thread.run_sync(read)
        except SpotokendError as error:
            if told.get(name) != error.message:
                told[name] = error.message
                self._log("client_secret", level="warning", words=error.message, hint=error.hint)
            return
        if client.config is config:  # no reload meanwhile
            client.take_secret(secret)
            client.gate = gate.supplied(client.gate)
            self._log("client_secret", words=f"the keyring gave the secret of the client {name}")
            for account in list(self._registry.accounts.values()):
                if account.client is client and isinstance(account.state, Waiting):
                    self._registry.apply(account, EndpointBack())
            self._kick()
