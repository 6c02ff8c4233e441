"""``status``: the whole state of the daemon as maps for the socket; nothing in it is a secret."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from spotokend import __version__, wire
from spotokend.rules import gate as gates
from spotokend.rules import schedule
from spotokend.rules.account import (
    Blocked,
    Holding,
    Quarantined,
    Refreshing,
    Sealed,
    State,
    Unsaved,
    Waiting,
)
from spotokend.rules.notice import (
    NAMES,
    Health,
    ending,
    health,
    hint,
    login_command,
    reason,
    why,
)
from spotokend.rules.schedule import NEVER, Boot, Wall
from spotokend.rules.transitions import due_at

from .registry import Account, Client, Registry


class Status:
    """See the module."""

    def __init__(
        self,
        registry: Registry,
        *,
        socket: str,
        config_path: str,
        store: dict[str, object],
        connections: Callable[[], int],
        locked: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._registry = registry
        self._clock = registry.clock
        self._connections = connections
        self._locked = locked
        self._started_at = self._clock.wall()
        self._socket = socket
        self._config_path = config_path
        self._store = store

    def page(
        self, accounts: Iterable[Account], following: str | None, *, whole_story: bool
    ) -> dict[str, object]:
        """The ``status`` result for these accounts."""
        return {
            "daemon": self._daemon(),
            "clients": {
                name: self._client(client) for name, client in self._registry.clients.items()
            },
            "accounts": [
                self.account(account) | (self._story(account) if whole_story else {})
                for account in accounts
            ],
            "next": following,
        }

    def account(self, account: Account) -> dict[str, object]:
        """One account: the map of ``status``, and of a ``state`` notification."""
        state, client = account.state, account.client
        now = self._clock.boot()
        grant = state.grant if isinstance(state, Holding) else None
        access = state.access if isinstance(state, Holding) else None
        expires_at = state.expires_at if isinstance(state, Sealed) else None
        if access is not None:
            expires_at = access.expires_at
        authorized_at = None if grant is None else grant.authorized_at
        words, cure = reason(state), hint(account.name, state)
        if words is None and (words := ending(state, client.policy, self._clock.wall())):
            cure = login_command(account.name)
        return {
            "account": account.name,
            "client": client.config.name,
            "state": NAMES[type(state)],
            "health": health(state, client.policy, now).value,
            "user": None if grant is None else grant.user,
            "display_name": None if grant is None else grant.display_name,
            "scope": list(grant.scopes if grant else access.scopes if access else ()),
            "generation": state.generation,
            "issued_at": None if access is None else self._civil(access.issued_at),
            "expires_at": None if expires_at is None else self._civil(expires_at),
            "due_at": self._due(account),
            "authorized_at": authorized_at,
            "grant_expires_at": schedule.grant_end(authorized_at, client.config.grant_life),
            "since": _since(state),
            "reason": words,
            "hint": cure,
            "failures": (
                state.failures if isinstance(state, Waiting | Refreshing | Unsaved) else 0
            ),
            "durable": not isinstance(state, Unsaved),
        }

    def _story(self, account: Account) -> dict[str, object]:
        return {
            "why": why(account.state, account.client.gate, self._clock.boot()),
            "outcomes": [
                {"at": past.at, "outcome": past.outcome, "words": past.words}
                for past in account.outcomes or ()
            ],
        }

    def _due(self, account: Account) -> float | None:
        due = due_at(account.state)
        if not isinstance(account.state, Unsaved):  # that is between us and the disk
            due = max(due, gates.closed_until(account.client.gate))
        return None if due == NEVER else self._civil(due)

    def _client(self, client: Client) -> dict[str, object]:
        gate, now = client.gate, self._clock.boot()
        opens_at = gates.closed_until(gate)
        closed = opens_at > now or gate.failures > 0
        return {
            "flow": client.config.flow.value,
            "client_id": client.config.client_id,
            "redirect_uri": client.config.redirect_uri,
            "api_url": client.config.api_url,
            "scopes": list(client.config.scopes),
            "accounts": sum(1 for a in self._registry.accounts.values() if a.client is client),
            "in_flight": gate.in_flight,
            "gate": {
                "state": "blocked" if gate.blocked else "closed" if closed else "open",
                "opens_at": self._civil(opens_at) if closed and not gate.blocked else None,
                "failures": gate.failures,
                "reason": gate.reason,
                "probe": gate.probe,
            },
        }

    def _daemon(self) -> dict[str, object]:
        now = self._clock.boot()
        worst = Health.OK
        for account in self._registry.accounts.values():
            of_account = health(account.state, account.client.policy, now)
            if of_account is Health.FAILING:
                worst = Health.FAILING
                break
            if of_account is Health.DEGRADED:
                worst = Health.DEGRADED
        locked = self._locked()
        if locked is not None:
            worst = Health.FAILING
        return {
            "version": __version__,
            "protocol": wire.PROTOCOL,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "socket": self._socket,
            "config": self._config_path,
            "store": self._store,
            "locked": locked,
            "health": worst.value,
            "accounts": len(self._registry.accounts),
            "connections": self._connections(),
            "warnings": list(self._registry.config.warnings),
        }

    def _civil(self, moment: Boot) -> float:
        return self._clock.wall() + (moment - self._clock.boot())


def _since(state: State) -> Wall | None:
    """Since when it is as it is, where that is no good; a try under way doesn't end it."""
    match state:
        case Refreshing() if state.quarantine is not None:
            return state.quarantine.since
        case Waiting() | Refreshing() | Quarantined() | Blocked():
            return state.since
    return None
