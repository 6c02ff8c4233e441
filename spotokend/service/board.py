"""The board: each account's token reply, encoded once a refresh, and the programs that watch.

``apply`` and ``tell`` are O(1) for an account nobody watches, never wait and never raise: a slow
watcher has a mailbox of its own at its connection.
"""

from __future__ import annotations

from typing import Protocol

from spotokend import wire
from spotokend.rules import schedule
from spotokend.rules.account import Access, Grant, Holding, State, Unsaved
from spotokend.rules.notice import Notice
from spotokend.rules.schedule import Boot

from .clock import Clock
from .registry import Account


class Mailbox(Protocol):
    """The part of a connection that a watcher needs; see :mod:`spotokend.service.server`."""

    def offer(self, key: str | None, data: bytes) -> None:
        """Deliver when the connection can take it; of one key only the newest."""


class Prepared:
    """A token reply, ready to be sent."""

    __slots__ = ("expires_at", "floor", "generation", "life", "packed", "scopes")

    def __init__(self, access: Access, packed: bytes, floor: float) -> None:
        self.packed = packed
        self.expires_at = access.expires_at
        self.floor = floor
        """With less than this left a newer one is wanted first, seconds."""
        self.life = access.life
        self.scopes = frozenset(access.scopes)
        self.generation = access.generation


class Watcher:
    """A connection that asked to be told."""

    __slots__ = ("accounts", "mailbox", "tokens")

    def __init__(self, mailbox: Mailbox, accounts: frozenset[str] | None, *, tokens: bool) -> None:
        self.mailbox = mailbox
        self.accounts = accounts
        """None: all."""
        self.tokens = tokens

    def hears(self, account: str | None) -> bool:
        """Whether it asked for this account; what concerns none concerns everybody."""
        return self.accounts is None or account is None or account in self.accounts


class Board:
    """See the module."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._prepared: dict[str, Prepared] = {}
        self._watchers: dict[Mailbox, Watcher] = {}
        # The hot path: one dictionary look-up, no indirection.
        self.get = self._prepared.get

    def apply(self, account: Account, before: State) -> None:
        """The account's state changed."""
        state = account.state
        if _being_written(state):
            return
        access = state.access if isinstance(state, Holding) else None
        known = self._prepared.get(account.name)
        if access is None:
            self._prepared.pop(account.name, None)
        elif known is None or known.generation != access.generation or _login(before, state):
            self.prepare(account)
            self._push_token(account.name)

    def prepare(self, account: Account) -> None:
        """Encode the account's reply (anew: after civil time moved, its ``expires_at`` is wrong)."""
        state = account.state
        if not isinstance(state, Holding) or state.access is None or _being_written(state):
            return
        token = token_map(account, state.access, state.grant, self._clock)
        floor = schedule.serving_floor(state.access.life, account.client.policy.timing)
        self._prepared[account.name] = Prepared(state.access, wire.pack(token), floor)

    def usable(self, account: str, now: Boot) -> Prepared | None:
        """The account's reply while its token lives."""
        prepared = self._prepared.get(account)
        return prepared if prepared is not None and prepared.expires_at > now else None

    def watch(self, watcher: Watcher) -> None:
        """Tell this one from now on; in place of what its connection asked for before."""
        self._watchers[watcher.mailbox] = watcher

    def forget(self, mailbox: Mailbox) -> None:
        """The connection is gone."""
        self._watchers.pop(mailbox, None)

    def watched(self, account: str) -> bool:
        """Whether anybody would hear of the account: telling costs encoding."""
        return any(watcher.hears(account) for watcher in self._watchers.values())

    def tell_state(self, account: str, status: dict[str, object]) -> None:
        """Push an account's state."""
        data = wire.notification("state", status)
        for watcher in self._watchers.values():
            if watcher.hears(account):
                watcher.mailbox.offer(f"state {account}", data)

    def tell(self, notice: Notice) -> None:
        """Push a notice."""
        if self._watchers:
            data = wire.notification("notice", notice.to_wire())
            for watcher in self._watchers.values():
                if watcher.hears(notice.account):
                    watcher.mailbox.offer(None, data)

    def _push_token(self, account: str) -> None:
        if not self._watchers:
            return
        # ``[2, "token", [MAP]]`` around the map that is packed already.
        data = _TOKEN_HEAD + self._prepared[account].packed
        for watcher in self._watchers.values():
            if watcher.tokens and watcher.hears(account):
                watcher.mailbox.offer(f"token {account}", data)


_TOKEN_HEAD = b"\x93\x02" + wire.pack("token") + b"\x91"


def token_map(
    account: Account, access: Access, grant: Grant | None, clock: Clock
) -> dict[str, object]:
    """The ``token`` result of the protocol."""
    authorized_at = None if grant is None else grant.authorized_at
    return {
        "account": account.name,
        "access_token": access.token.reveal(),
        "token_type": access.token_type,
        "expires_at": clock.wall() + (access.expires_at - clock.boot()),
        "expires_boot": access.expires_at,
        "scope": list(access.scopes),
        "generation": access.generation,
        "grant_expires_at": schedule.grant_end(authorized_at, account.client.config.grant_life),
    }


def _being_written(state: State) -> bool:
    """Its answer is served once it is on disk, or that has failed."""
    return isinstance(state, Unsaved) and not state.failures


def _login(before: State, state: State) -> bool:
    """The grant is another: its end, told with the token, is too."""
    old = before.grant if isinstance(before, Holding) else None
    new = state.grant if isinstance(state, Holding) else None
    return (old and old.authorized_at) != (new and new.authorized_at)
