"""Logins under way: from the authorization URL to a durable grant of the right user.

The daemon makes ``state`` and the PKCE verifier (RFC 7636; also with a client secret, RFC 9700,
section 2.1.1), keeps them to itself, and exchanges the code. The grant is durable as a candidate
before the provider is asked whose it is: a crash in between loses nothing, and nobody else's grant
ever takes an account's place.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import anyio

from spotokend.adapters.store.base import StoreError
from spotokend.errors import (
    BadRequest,
    Busy,
    LoginRequired,
    Misconfigured,
    SpotokendError,
    Unavailable,
)
from spotokend.rules import gate, oauth, renewal
from spotokend.rules.account import Access, Grant, Holding, LoggedIn, LoggedOut, Waiting
from spotokend.rules.notice import login_command
from spotokend.rules.schedule import Boot
from spotokend.rules.secret import Secret

from .identity import Identities, LoginEndpoint
from .registry import Account, Client, Registry
from .rows import Owner
from .vault import Vault

MOST = 32
"""Logins under way at once: each is a person before a browser."""
REMEMBERED, REMEMBERED_FOR = 64, 3600.0
"""Of so many logins it is known how they ended, for so many seconds."""


@dataclass(frozen=True, slots=True)
class Login:
    """One login under way."""

    owner: Owner
    scopes: tuple[str, ...]
    redirect_uri: str
    state: Secret
    verifier: Secret
    ends_at: Boot


@dataclass(frozen=True, slots=True)
class Ended:
    """How a login has ended, for whoever brings its answer afterwards."""

    outcome: str
    account: str
    at: Boot


OVER = {
    "used": "the answer to this login came already: `spotokend status {account}` tells more",
    "expired": "the time for this login was over before its answer came",
    "cancelled": "this login was cancelled before its answer came",
}
"""What is said to an answer that comes after the login has ended so."""


class Logins:
    """See the module."""

    def __init__(
        self,
        registry: Registry,
        vault: Vault,
        endpoint: Callable[[], Awaitable[LoginEndpoint]],
        *,
        random_bytes: Callable[[int], bytes],
        log: Callable[..., None],
    ) -> None:
        self._registry = registry
        self._clock = registry.clock
        self._vault = vault
        self._endpoint = endpoint
        self._random_bytes = random_bytes
        self._log = log
        self._identities = Identities(registry, vault, endpoint)
        self._under_way: dict[str, Login] = {}
        self._ended: dict[str, Ended] = {}

    async def start(
        self,
        account: str | None,
        client: str | None,
        scopes: tuple[str, ...],
        redirect_uri: str | None,
    ) -> dict[str, object]:
        """The ``login_start`` result: where to send the user.

        Raises:
            BadRequest: no such client; a redirect URI that the provider would refuse.
            Busy: too many logins under way.
            Unavailable: the store, which knows the scopes granted so far, can't be read.
        """
        name = self._registry.login_name(account)
        registration = self._registry.client_of(name, client)
        if not registration.policy.needs_grant:
            raise BadRequest(
                f"client {registration.config.name} uses client credentials: there is no login",
                hint=f"spotokend token {name}",
            )
        redirect = _redirect(registration.config.redirect_uri, redirect_uri)
        wanted = await self._scopes(name, registration, scopes)
        self._forget()
        if len(self._under_way) >= MOST:
            raise Busy(f"{MOST} logins are under way already", retry_after=60.0)
        login = Login(
            owner=Owner(name, registration.config.name, registration.config.fingerprint),
            scopes=wanted,
            redirect_uri=redirect,
            state=self._random_text(24),
            verifier=self._random_text(48),
            ends_at=Boot(self._clock.boot() + registration.policy.timing.login_timeout),
        )
        login_id = self._random_text(12).reveal()
        self._under_way[login_id] = login
        return {
            "login_id": login_id,
            "url": oauth.authorization_url(
                registration.registration,
                scopes=wanted,
                state=login.state,
                verifier=login.verifier,
                redirect_uri=redirect,
            ),
            "redirect_uri": redirect,
            "expires_at": self._clock.wall() + registration.policy.timing.login_timeout,
        }

    def cancel(self, login_id: str) -> None:
        """End a login; one that isn't there has ended already."""
        self._end(login_id, "cancelled")

    async def finish(self, login_id: str, redirect_url: str) -> dict[str, object]:
        """The ``login_finish`` result: exchange the code, make the grant durable, see whose it is.

        Each error says in ``details["outcome"]`` what became of the login, for whoever shows it.

        Raises:
            BadRequest: ``not_this_login``, which goes on; ``client_changed``: there is none now.
            LoginRequired: it is over: ``denied``, ``expired``, ``used``, ``cancelled``,
                ``unknown``, ``refused``, ``unavailable`` or ``client_changed``.
            Forbidden: ``other_user`` than the account's.
            Misconfigured, Unavailable: ``refused``, ``unavailable``: by provider or store.
        """
        self._forget()
        login = self._under_way.get(login_id)
        if login is None:
            raise self._over(login_id)
        end = oauth.read_redirect(redirect_url, redirect_uri=login.redirect_uri, state=login.state)
        if isinstance(end, oauth.NotThis):
            hint = "paste the whole address of the newest attempt"
            raise BadRequest(end.words, outcome="not_this_login", hint=hint)
        # A code is good once: a second delivery of it must not find the login.
        self._end(login_id, "used")
        if isinstance(end, oauth.Denied):
            raise _denied(end, login.owner.account)
        # The browser's end, or the command line's, must not cancel what has used up the code.
        with anyio.CancelScope(shield=True):
            try:
                done = await self._exchange(login, end.code)
            except StoreError as error:
                raise _store_unavailable(error, outcome="unavailable") from None
        return done  # out here: mypy believes that a cancel scope may swallow an exception

    async def logout(self, account: Account) -> None:
        """Delete the grant. Always wins, also over a refresh that is under way.

        Raises:
            BadRequest: there is no login to end.
            Unavailable: the store takes no writes.
        """
        if not account.client.policy.needs_grant:
            raise BadRequest(
                f"{account.name} uses client credentials: there is no login to end",
                hint="remove it from the configuration, then: spotokend reload",
            )
        with anyio.CancelScope(shield=True):
            try:
                await self._vault.drop_candidate(account.name)
                known = [client.config.fingerprint for client in self._registry.clients.values()]
                version = await self._vault.delete(account.name, known)
            except StoreError as error:
                raise _store_unavailable(error) from None
            self._registry.apply(account, LoggedOut(version, "logged out"))
            self._log("logout", account=account.name, level="info")
            if account.name not in self._registry.config.accounts:
                self._registry.remove(account)

    async def resume(self) -> None:
        """Finish the logins that the end of the program cut off behind the exchange."""
        for row, state in await self._vault.candidates():
            if not isinstance(state, Holding) or state.grant is None:
                continue
            owner = Owner(row.account, row.client, row.fingerprint)
            try:
                client = self._client(owner)
                present = await self._identities.grant_of(self._registry.accounts.get(row.account))
                if present is not None and present.authorized_at == state.grant.authorized_at:
                    # It is in use, and a rotation may have replaced its refresh token since.
                    await self._drop_candidate(row.account)
                else:
                    await self._promote(owner, client, state.grant, state.access)
            except (SpotokendError, StoreError) as error:
                self._log("login_cut_off", account=row.account, level="warning", words=str(error))

    async def _exchange(self, login: Login, code: Secret) -> dict[str, object]:
        owner, name = login.owner, login.owner.account
        client = self._client(owner)
        endpoint = await self._endpoint()
        authorized_at = self._clock.wall()
        request = oauth.code_request(
            client.registration,
            code=code,
            verifier=login.verifier,
            redirect_uri=login.redirect_uri,
        )
        reply = await endpoint.post(request)
        issued = _issued(reply.answer, name)
        client.gate = gate.answered(client.gate, self._clock.boot())
        grant = renewal.first(issued, asked=login.scopes, authorized_at=authorized_at)
        if grant is None:
            raise Misconfigured(
                "the provider granted the login and sent no refresh token",
                account=name,
                outcome="refused",
                hint="some servers want the scope offline_access: add it to the client's scopes",
            )
        access = renewal.access(issued, scopes=grant.scopes, sent_at=reply.sent_at, generation=0)
        candidate = Waiting(grant=grant, access=access, retry_at=self._clock.boot())
        await self._vault.put(owner, candidate, candidate=True)
        return await self._promote(owner, client, grant, access)

    async def _promote(
        self, owner: Owner, client: Client, grant: Grant, access: Access | None
    ) -> dict[str, object]:
        """Candidate → whose is it? → the account's grant."""
        name = owner.account
        try:
            grant, notes = await self._identities.identify(name, client, grant, access)
            self._client(owner)  # a reload may have come while the provider was asked
        except SpotokendError:
            await self._drop_candidate(name)
            raise
        account = self._registry.accounts.get(name) or self._registry.new(name, client)
        _, generation = await self._vault.counters(name)
        # A refresh under way may bring a token of the next generation before it hears of this.
        generation = max(generation, account.state.generation) + (2 if account.under_way else 1)
        if access is not None:
            access = replace(access, generation=generation)
        login = LoggedIn(grant, access, account.state.version)
        version = await self._vault.put(owner, self._registry.next(account, login))
        client = self._client(owner)  # or while the row was written, which then goes aside
        account = self._registry.accounts.get(name) or account
        account.client = client
        self._registry.insert(account)
        self._registry.apply(account, replace(login, version=version))
        self._log("login", account=name, level="info", user=grant.display_name or grant.user)
        await self._drop_candidate(name)
        return {
            "account": name,
            "user": grant.user,
            "display_name": grant.display_name,
            "scope": list(grant.scopes),
            "notes": notes,
        }

    def _client(self, owner: Owner) -> Client:
        """The client that a login was begun with; an error if there is another by now.

        The code and the grant of the one must not be sent to the other.
        """
        try:
            client = self._registry.client_of(owner.account, owner.client)
        except BadRequest as gone:
            raise BadRequest(gone.message, **gone.details, outcome="client_changed") from None
        if client.config.fingerprint != owner.fingerprint:
            words = f"client {owner.client} was changed while the login was under way"
            raise _login_again(words, owner.account, "client_changed")
        return client

    async def _drop_candidate(self, name: str) -> None:
        try:
            await self._vault.drop_candidate(name)
        except StoreError as error:
            # Harmless: the next start sees that it is in use, or asks once more whose it is.
            self._log("candidate", account=name, level="warning", words=str(error))

    async def _scopes(self, name: str, client: Client, added: tuple[str, ...]) -> tuple[str, ...]:
        """What to ask for: the configured scopes, those granted already, and the added ones."""
        try:
            grant = await self._identities.grant_of(self._registry.accounts.get(name))
        except StoreError as error:
            raise _store_unavailable(error) from None
        granted = () if grant is None else grant.scopes
        return tuple(dict.fromkeys((*self._registry.scopes(name, client), *granted, *added)))

    def _end(self, login_id: str, outcome: str) -> None:
        login = self._under_way.pop(login_id, None)
        if login is not None:
            self._ended[login_id] = Ended(outcome, login.owner.account, self._clock.boot())

    def _forget(self) -> None:
        """Let go of logins that are too old, and after a while of the knowledge of them."""
        now = self._clock.boot()
        for login_id in [key for key, login in self._under_way.items() if login.ends_at <= now]:
            self._end(login_id, "expired")
        lately = [item for item in self._ended.items() if now - item[1].at < REMEMBERED_FOR]
        self._ended = dict(lately[-REMEMBERED:])

    def _over(self, login_id: str) -> LoginRequired:
        """The error for an answer to a login that isn't under way."""
        ended = self._ended.get(login_id)
        if ended is not None:
            words = OVER[ended.outcome].format(account=ended.account)
            return _login_again(words, ended.account, ended.outcome)
        words = "this login is not known: spotokend was restarted meanwhile, or it is long over"
        return LoginRequired(words, outcome="unknown", hint="spotokend login")

    def _random_text(self, size: int) -> Secret:
        return Secret(base64.urlsafe_b64encode(self._random_bytes(size)).rstrip(b"=").decode())


def _login_again(words: str, account: str, outcome: str) -> LoginRequired:
    return LoginRequired(words, account=account, outcome=outcome, hint=login_command(account))


def _denied(end: oauth.Denied, account: str) -> LoginRequired:
    """The user's "no", or what kept the provider from asking (RFC 6749, 4.1.2.1)."""
    outcome, words = {
        "access_denied": ("denied", "the user declined"),
        "server_error": ("unavailable", "the provider ran into an error of its own"),
        "temporarily_unavailable": ("unavailable", "the provider is overloaded or under repair"),
    }.get(end.error, ("refused", end.description or end.error))
    return _login_again(f"the login was not granted: {words}", account, outcome)


def _issued(answer: object, account: str) -> oauth.Issued:
    """The tokens of an exchange, or the error that says why there are none."""
    match answer:
        case oauth.Issued():
            return answer
        case oauth.GrantRefused():
            # Spotify's "Authorization code expired". Its "Invalid authorization code" may be a used
            # one or none at all: no more is known than that it is refused.
            late = "code expired" in (answer.description or "").lower()
            raise _login_again(answer.words, account, "expired" if late else "refused")
        case oauth.ClientRefused():
            raise Misconfigured(answer.words, account=account, outcome="refused", hint=answer.hint)
    words = str(getattr(answer, "words", answer))
    raise Unavailable(
        f"the code could not be exchanged: {words}",
        account=account,
        outcome="unavailable",
        retry_after=getattr(answer, "retry_after", None),
        hint=f"codes are good once and for a short time; start again: `{login_command(account)}`",
    )


def _redirect(configured: str, asked: str | None) -> str:
    """The redirect URI of a login: the configured one, on a port of the caller's choice.

    A loopback literal registered without a port accepts any (RFC 8252, section 7.3); everything
    else must match exactly.
    """
    if asked is None or asked == configured:
        return configured
    have = urlsplit(configured)
    if have.port is None and have.hostname in {"127.0.0.1", "::1"}:
        origin = f"{have.scheme}://{have.netloc}"
        rest = configured.removeprefix(origin)
        port = re.fullmatch(rf"{re.escape(origin)}:([0-9]{{1,5}}){re.escape(rest)}", asked)
        if port is not None and 0 < int(port[1]) < 65536:
            return asked
    raise BadRequest(
        "the redirect URI is not the client's",
        hint=f"the configuration registers {configured}",
    )


def _store_unavailable(error: StoreError, *, outcome: str | None = None) -> Unavailable:
    return Unavailable(
        f"the store can't be used: {error}", outcome=outcome, hint="spotokend status"
    )
