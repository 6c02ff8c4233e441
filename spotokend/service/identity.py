"""Whose grant it is: the person behind a login, and the one that an account is for.

An account is for one user, and a user is one account of a client: somebody else's login must never
take an account's place, and the same login twice would be refreshed twice. Who it is the provider
says; where it doesn't, the login is taken all the same, and that is told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Protocol

from spotokend.errors import Forbidden
from spotokend.rules import oauth
from spotokend.rules.account import Access, Grant, Holding, State
from spotokend.rules.notice import login_command
from spotokend.rules.secret import Secret

from .registry import Account, Client, Registry
from .vault import Vault


class LoginEndpoint(Protocol):
    """What logins need of :class:`spotokend.adapters.endpoint.Endpoint`."""

    async def post(self, request: oauth.TokenRequest) -> Any: ...
    async def identity(self, url: str, access_token: Secret) -> Any: ...


class Identities:
    """See the module. Its methods raise :class:`~spotokend.adapters.store.base.StoreError` too."""

    def __init__(
        self,
        registry: Registry,
        vault: Vault,
        endpoint: Callable[[], Awaitable[LoginEndpoint]],
    ) -> None:
        self._registry = registry
        self._vault = vault
        self._endpoint = endpoint

    async def grant_of(self, account: Account | None) -> Grant | None:
        """What an account holds, unsealed if need be; None: nothing, or it doesn't open."""
        if account is None:
            return None
        state: State | None = account.state
        if not isinstance(state, Holding):
            state = await self._vault.unseal(account.owner, account.client.policy)
        return state.grant if isinstance(state, Holding) else None

    async def identify(
        self, name: str, client: Client, grant: Grant, access: Access | None
    ) -> tuple[Grant, list[str]]:
        """The grant with its user, and notes for the person where that could not be found out.

        Raises:
            Forbidden: the account ``name`` is another user's, or the user has another account.
        """
        url = client.config.identity_url
        if url is None:
            return grant, []
        if access is None:
            return grant, ["without an access token it could not be asked who this is"]
        endpoint = await self._endpoint()
        identity = await endpoint.identity(url, access.token)
        user = getattr(identity, "user", None)
        if user is None:
            return grant, [f"it could not be checked who this is: {identity.words}"]
        await self._check(name, client, user, identity.display_name or user)
        return replace(grant, user=user, display_name=identity.display_name), []

    async def _check(self, name: str, client: Client, user: str, shown: str) -> None:
        wanted = await self._user_of(name)
        if wanted is not None and wanted != user:
            account = self._registry.accounts.get(name)
            to_change = (
                f"end the old login first: `spotokend logout {name}`"
                if account is None or account.user is None
                else f"change accounts.{name}.user in the configuration, then: `spotokend reload`"
            )
            raise Forbidden(
                f"account {name} belongs to user {wanted}, and {shown} ({user}) logged in",
                account=name,
                outcome="other_user",
                hint=f"log out at the provider's site, then log in as the right user:"
                f" `{login_command(name)}`; or give this user an account of another name:"
                f" `{login_command('NAME')}`; or {to_change}",
            )
        for other in list(self._registry.accounts.values()):
            same = other.client is client and other.name != name
            if same and await self._user_of(other.name) == user:
                raise Forbidden(
                    f"this is {shown} ({user}), who is account {other.name} already",
                    account=name,
                    outcome="other_user",
                    hint=f"use account {other.name}; or log out at the provider's site, then log in"
                    f" as another user: `{login_command(name)}`; or end the other login first:"
                    f" `spotokend logout {other.name}`",
                )

    async def _user_of(self, name: str) -> str | None:
        """The user that an account is for: as configured, else whose grant it holds."""
        account = self._registry.accounts.get(name)
        if account is not None and account.user is not None:
            return account.user
        grant = await self.grant_of(account)
        return None if grant is None else grant.user
