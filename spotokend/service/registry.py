"""The accounts and clients that exist now, what each holds at run time, and how names are found.

``move`` is the only place where an account's state is replaced; it calls ``publish``, which the
daemon composes, so that everybody hears of every change in one order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches

import anyio

from spotokend.errors import BadRequest, Locked, LoginRequired, UnknownAccount
from spotokend.rules.account import (
    Event,
    NeedsLogin,
    Policy,
    Refreshing,
    State,
    Unsaved,
    Waiting,
)
from spotokend.rules.config.values import DEFAULT_ACCOUNT, AccountConfig, ClientConfig, Config
from spotokend.rules.gate import LONG_AGO, Gate, Refusals
from spotokend.rules.lifecycle import advance
from spotokend.rules.notice import Change, Health, health
from spotokend.rules.oauth import Flow, Registration
from spotokend.rules.schedule import Boot, Timing, Wall
from spotokend.rules.secret import Secret

from .clock import Clock
from .rows import Owner

OUTCOMES_KEPT = 8
"""How many of an account's last attempts ``status ACCOUNT`` tells."""

NAMED = 10
"""Accounts that an error message names."""
COMPARED = 200
"""Accounts with which an unknown name is compared: 10 ms. Names that programs made, a hundred
thousand of them, would cost everybody seconds."""


@dataclass(frozen=True, slots=True)
class Past:
    """How an attempt ended, for ``status``."""

    at: Wall
    outcome: str
    words: str


class Client:
    """A client registration at run time: its configuration, its gate, and who stands before it."""

    __slots__ = (
        "_registration",
        "config",
        "front",
        "gate",
        "parked",
        "policy",
        "urgent",
        "wanted_at",
    )

    def __init__(self, config: ClientConfig, secret: Secret | None, timing: Timing) -> None:
        self.gate = Gate()
        self.urgent: dict[str, Account] = {}
        """Held back inside a known grace: each second counts."""
        self.front: dict[str, Account] = {}
        """Held back by the number in flight, and somebody waits."""
        self.parked: dict[str, Account] = {}
        """Due and held back."""
        self.wanted_at = LONG_AGO
        """When somebody last asked for a token that was not there."""
        self.configure(config, secret, timing)

    def send_away(self) -> None:
        """Whoever waits for one in flight to end hears that there is no use in that."""
        for account in self.front.values():
            account.queued = False
            account.wake()
        self.parked, self.front = self.front | self.parked, {}

    def configure(self, config: ClientConfig, secret: Secret | None, timing: Timing) -> None:
        """Take a configuration, the first or a new one."""
        self.config = config
        self.policy = Policy(
            timing=timing,
            rotation=config.rotation,
            rotation_grace=config.rotation_grace,
            proactive=config.proactive,
            needs_grant=config.flow is not Flow.CLIENT_CREDENTIALS,
            grant_life=config.grant_life,
        )
        self._registration = Registration(
            client_id=config.client_id,
            client_secret=secret,
            flow=config.flow,
            redirect_uri=config.redirect_uri,
            authorize_url=config.authorize_url,
            token_url=config.token_url,
        )

    @property
    def secret(self) -> Secret | None:
        """The client secret; None: it has none, or lacks it."""
        return self._registration.client_secret

    @property
    def lacks_secret(self) -> bool:
        """It has one, in a keyring that is closed."""
        return self.config.client_secret is not None and self.secret is None

    @property
    def registration(self) -> Registration:
        """What a request needs.

        Raises:
            Locked: the secret is missing for now.
        """
        if self.lacks_secret:
            raise Locked(
                f"the keyring that has the secret of the client {self.config.name} is locked",
                hint="unlock it: spotokend then goes on by itself",
            )
        return self._registration

    def take_secret(self, secret: Secret) -> None:
        """It is here at last."""
        self._registration = replace(self._registration, client_secret=secret)


class Account:
    """An account at run time."""

    __slots__ = (
        "_settled",
        "client",
        "entry",
        "forced_at",
        "health",
        "name",
        "outcomes",
        "queued",
        "rejects",
        "state",
        "user",
    )

    def __init__(self, name: str, client: Client, state: State) -> None:
        self.name = name
        self.client = client
        self.state = state
        self.health = Health.OK
        """As last told."""
        self.user: str | None = None
        """The user that the configuration wants here."""
        self.queued = False
        """A refresh is about to start: it has passed the gate, or waits for one in flight to end."""
        self.entry = 0
        """The serial number of its valid entry in the keeper's heap; 0: none."""
        self.forced_at: Boot = LONG_AGO
        self.rejects: deque[Boot] | None = None
        self.outcomes: deque[Past] | None = None
        self._settled: anyio.Event | None = None

    @property
    def owner(self) -> Owner:
        """Whose row it is."""
        return Owner(self.name, self.client.config.name, self.client.config.fingerprint)

    @property
    def under_way(self) -> bool:
        """A refresh is under way, about to start, or its answer is just being written."""
        state = self.state
        return (
            isinstance(state, Refreshing)
            or (isinstance(state, Unsaved) and not state.failures)
            or self.queued
        )

    async def settled(self) -> None:
        """Return when the refresh that is under way has ended, however it did."""
        while self.under_way:
            if self._settled is None:
                self._settled = anyio.Event()
            await self._settled.wait()

    def wake(self) -> None:
        """Let the callers of :meth:`settled` look again."""
        if self._settled is not None and not self.under_way:
            self._settled.set()
            self._settled = None

    def remember(self, past: Past) -> None:
        """Take down how an attempt ended."""
        if self.outcomes is None:
            self.outcomes = deque(maxlen=OUTCOMES_KEPT)
        self.outcomes.append(past)


class Registry:
    """See the module."""

    def __init__(
        self, config: Config, clock: Clock, *, publish: Callable[[Account, Change], None]
    ) -> None:
        self.config = config
        self.clock = clock
        self.clients: dict[str, Client] = {}
        self.accounts: dict[str, Account] = {}
        self.refusals: dict[str, Refusals] = {}
        """By the endpoint's URL: what its accounts met there."""
        self._publish = publish

    def next(self, account: Account, event: Event) -> State:
        """The state that ``event`` leads to; the present one where it means nothing."""
        return advance(
            account.state,
            event,
            now=self.clock.boot(),
            wall=self.clock.wall(),
            u=self.clock.rand(),
            policy=account.client.policy,
        )

    def move(self, account: Account, state: State) -> bool:
        """Put the account into ``state`` and tell everybody; False if it is there already."""
        before, was = account.state, account.health
        if state is before:
            return False
        now, policy = self.clock.boot(), account.client.policy
        account.state = state
        passing = isinstance(state, Refreshing) or (
            isinstance(state, Unsaved) and not state.failures
        )
        if not passing:
            # Until an attempt has ended nothing is told of it, neither good nor bad.
            account.health = health(state, policy, now)
        self._publish(
            account,
            Change(account.name, was, before, state, policy, now, self.clock.wall()),
        )
        account.wake()
        return True

    def apply(self, account: Account, event: Event) -> bool:
        """``next`` and ``move`` in one."""
        return self.move(account, self.next(account, event))

    def name(self, asked: str | None) -> str:
        """The account that is meant: the argument, ``default_account``, the only one.

        Raises:
            LoginRequired: there is none yet.
            BadRequest: several, and none was named.
        """
        if asked is not None:
            return asked
        if self.config.daemon.default_account is not None:
            return self.config.daemon.default_account
        if len(self.accounts) == 1:
            return next(iter(self.accounts))
        if not self.accounts:
            raise LoginRequired("nobody has logged in yet", hint="spotokend login")
        names = ", ".join(sorted(self.accounts)[:NAMED])
        more = f" and {len(self.accounts) - NAMED} more" if len(self.accounts) > NAMED else ""
        raise BadRequest(
            f"there are several accounts, and none was named: {names}{more}",
            hint="name one, or set default_account in [daemon], or SPOTOKEND_ACCOUNT",
        )

    def find(self, asked: str | None) -> Account:
        """The account; see :meth:`name` for which, and what it raises."""
        name = self.name(asked)
        account = self.accounts.get(name)
        if account is None:
            few = len(self.accounts) <= COMPARED
            near = get_close_matches(name, self.accounts, 1) if few else []
            raise UnknownAccount(
                f"there is no account named {name}",
                account=name,
                hint=f"did you mean {near[0]}?" if near else f"spotokend login {name}",
            )
        return account

    def client_of(self, account: str, wanted: str | None = None) -> Client:
        """The client of an account that may not exist yet: for a login.

        Raises:
            BadRequest: no such client, or several and none is named; not the configured one.
        """
        section = self.config.accounts.get(account)
        if section is not None and wanted not in {None, section.client}:
            raise BadRequest(
                f"the configuration gives account {account} to client {section.client}",
                hint=f"leave --client out, or change accounts.{account}.client",
            )
        if section is not None:
            wanted = section.client
        if wanted is None and account in self.accounts:
            wanted = self.accounts[account].client.config.name
        if wanted is None and len(self.clients) == 1:
            return next(iter(self.clients.values()))
        names = ", ".join(sorted(self.clients))
        if wanted is None:
            raise BadRequest(
                f"account {account} has no client yet, and the configuration has {names}",
                hint=f"spotokend login {account} --client NAME",
            )
        if wanted not in self.clients:
            raise BadRequest(
                f"there is no client named {wanted}; the configuration has {names}",
                hint=f"add [clients.{wanted}] to the configuration, then: spotokend reload",
            )
        return self.clients[wanted]

    def login_name(self, asked: str | None) -> str:
        """The account that a login is for: as :meth:`name`, but ``main`` where that can't tell."""
        if asked is None and self.config.daemon.default_account is None and len(self.accounts) != 1:
            return DEFAULT_ACCOUNT
        return self.name(asked)

    def scopes(self, account: str, client: Client) -> tuple[str, ...]:
        """The scopes that the configuration wants for the account."""
        section: AccountConfig | None = self.config.accounts.get(account)
        if section is None or section.scopes is None:
            return client.config.scopes
        return section.scopes

    def new(self, name: str, client: Client, state: State | None = None) -> Account:
        """An account that isn't known yet; :meth:`insert` makes it known."""
        if state is None and client.policy.needs_grant:
            state = NeedsLogin(reason="nobody has logged in yet")
        elif state is None:
            spread = self.clock.rand() * client.policy.timing.backoff_base
            retry_at = Boot(self.clock.boot() + spread)
            state = Waiting(grant=None, access=None, retry_at=retry_at)
        return Account(name, client, state)

    def insert(self, account: Account) -> None:
        """The account exists from now on."""
        section = self.config.accounts.get(account.name)
        account.user = None if section is None else section.user
        self.accounts[account.name] = account
        if isinstance(account.state, Waiting):
            # A client's own token is due at once, and nothing else happens that would say so.
            self.move(account, replace(account.state))

    def remove(self, account: Account) -> None:
        """It does not exist any more: neither configured nor logged in."""
        self.accounts.pop(account.name, None)
