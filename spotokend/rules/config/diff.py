"""What a reload changes, in words for people and as facts for the daemon.

Pure: two configurations in, a list of changes out. Accounts without a section aren't in a
configuration; what happens to them is said with their client.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import StrEnum

from .problems import dotted
from .values import AccountConfig, ClientConfig, Config

RESTART = frozenset({"daemon.socket", "daemon.log_format", "store", "timing"})
"""Settings, and whole sections, that are looked at once, when the daemon starts."""


class Kind(StrEnum):
    """What changed; ``name`` in :class:`Change` says of which."""

    SETTING = "setting"
    """A key of ``[daemon]``, ``[store]`` or ``[timing]``; the name is dotted."""
    CLIENT_ADDED = "client_added"
    CLIENT_REMOVED = "client_removed"
    CLIENT_CHANGED = "client_changed"
    """Grants go on: the rest of a client's keys."""
    CLIENT_REPLACED = "client_replaced"
    """Another fingerprint: its grants aren't sent any more."""
    ACCOUNT_ADDED = "account_added"
    ACCOUNT_REMOVED = "account_removed"
    ACCOUNT_CHANGED = "account_changed"
    ACCOUNT_REPLACED = "account_replaced"
    """Moved to a client of another fingerprint."""
    HOOKS = "hooks"
    """Nothing for the daemon; no name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference between two configurations."""

    kind: Kind
    name: str
    """The client, the account, or the setting."""
    words: str
    """For people: what changed and what follows. Holds no secret."""
    needs_restart: bool = False
    """It has no effect before the daemon is started anew."""


def changes(old: Config, new: Config) -> list[Change]:
    """The differences, settings first, then clients, then accounts, by name; then the hooks."""
    return [*_settings(old, new), *_clients(old, new), *_accounts(old, new), *_hooks(old, new)]


def _settings(old: Config, new: Config) -> Iterator[Change]:
    for section in ("daemon", "store", "timing"):
        before, after = getattr(old, section), getattr(new, section)
        for field in fields(before):
            was, is_now = getattr(before, field.name), getattr(after, field.name)
            if was == is_now:
                continue
            name = f"{section}.{field.name}"
            restart = name in RESTART or section in RESTART
            words = f"{name}: {_shown(was)} becomes {_shown(is_now)}"
            yield Change(
                kind=Kind.SETTING,
                name=name,
                words=words + (" when the daemon is restarted" if restart else ""),
                needs_restart=restart,
            )


def _shown(value: object) -> str:
    return "the default" if value is None else str(value)


def _clients(old: Config, new: Config) -> Iterator[Change]:
    for name in sorted(old.clients.keys() | new.clients.keys()):
        before, after = old.clients.get(name), new.clients.get(name)
        title = dotted(("clients", name))
        if before is None:
            yield Change(kind=Kind.CLIENT_ADDED, name=name, words=f"{title}: added")
        elif after is None:
            yield Change(
                kind=Kind.CLIENT_REMOVED,
                name=name,
                words=f"{title}: removed; nothing is refreshed for its accounts any more, "
                "and their grants are kept",
            )
        elif before.fingerprint != after.fingerprint:
            yield Change(
                kind=Kind.CLIENT_REPLACED,
                name=name,
                words=f"{title}: {' and '.join(_replaced(before, after))}; its accounts need a "
                "login, spotokend login ACCOUNT; the old grants are kept aside, and serve again "
                "when this is undone",
            )
        elif before != after:
            yield Change(
                kind=Kind.CLIENT_CHANGED,
                name=name,
                words=f"{title}: {'; '.join(_changed(before, after))}",
            )


def _replaced(before: ClientConfig, after: ClientConfig) -> Iterator[str]:
    """What of the fingerprint is another."""
    if before.client_id != after.client_id:
        yield "another client id"
    if before.token_url != after.token_url:
        yield "another token_url"
    if before.flow != after.flow:
        yield f"its flow is {after.flow} now"


def _changed(before: ClientConfig, after: ClientConfig) -> Iterator[str]:
    """The keys that differ, though the fingerprint doesn't, and when that counts."""
    if before.scopes != after.scopes:
        yield _scopes(before.scopes, after.scopes, "ACCOUNT")
    for field, words in (
        ("redirect_uri", "redirect_uri changed: from the next login"),
        ("authorize_url", "authorize_url changed: from the next login"),
        ("identity_url", "identity_url changed: from the next login"),
        ("client_secret", "the secret's source changed: it is read anew"),
        ("api_url", "api_url changed: from the next call"),
        ("rotation", f"rotation is now {after.rotation}"),
        ("rotation_grace", f"rotation_grace is now {after.rotation_grace:g} s"),
        ("grant_life", "grant_life changed: the ends of the logins are counted anew"),
        ("proactive", f"schedule is now {'proactive' if after.proactive else 'on_demand'}"),
    ):
        if getattr(before, field) != getattr(after, field):
            yield words


def _scopes(before: tuple[str, ...], after: tuple[str, ...], account: str) -> str:
    """A grant keeps the scopes that its user agreed to, whatever is configured."""
    more = sorted(set(after) - set(before))
    if more:
        return f"more scopes, {' '.join(more)}: to get them, spotokend login {account}"
    if set(after) != set(before):
        return "fewer scopes: from the next login; present grants keep theirs"
    return "the same scopes, written otherwise"


def _accounts(old: Config, new: Config) -> Iterator[Change]:
    for name in sorted(old.accounts.keys() | new.accounts.keys()):
        before, after = old.accounts.get(name), new.accounts.get(name)
        title = dotted(("accounts", name))
        if before is None:
            yield Change(kind=Kind.ACCOUNT_ADDED, name=name, words=f"{title}: added")
        elif after is None:
            yield Change(
                kind=Kind.ACCOUNT_REMOVED,
                name=name,
                words=f"{title}: its section is removed; if it is logged in it goes on, with what "
                "its client says",
            )
        elif before != after:
            yield _account(title, before, after, old, new)


def _account(
    title: str, before: AccountConfig, after: AccountConfig, old: Config, new: Config
) -> Change:
    was, is_now = old.clients[before.client], new.clients[after.client]
    if before.client != after.client and was.fingerprint != is_now.fingerprint:
        return Change(
            kind=Kind.ACCOUNT_REPLACED,
            name=after.name,
            words=f"{title}: now of the client {after.client}; it needs a login, spotokend login "
            f"{after.name}; the old grant is kept aside, and serves again when this is undone",
        )
    words = []
    if before.client != after.client:
        words.append(f"now of the client {after.client}, which is registered alike")
    had = was.scopes if before.scopes is None else before.scopes
    has = is_now.scopes if after.scopes is None else after.scopes
    if before.scopes != after.scopes or had != has:
        words.append(_scopes(had, has, after.name))
    if before.user != after.user:
        words.append("another user: from the next login")
    return Change(kind=Kind.ACCOUNT_CHANGED, name=after.name, words=f"{title}: {'; '.join(words)}")


def _hooks(old: Config, new: Config) -> Iterator[Change]:
    if old.hooks != new.hooks:
        words = "hooks: changed; start their own process anew: systemctl --user restart"
        yield Change(kind=Kind.HOOKS, name="", words=f"{words} spotokend-hooks")
