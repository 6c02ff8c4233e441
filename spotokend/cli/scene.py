"""The scene: what a live view knows of the daemon, what has happened, and which of it is shown.

Pure: results of ``status`` and events of ``watch`` go in, each with its moment (Unix seconds); no
clock, no terminal, no socket. It holds no token: only what is watched without tokens is understood.
What has happened is bounded, and each account costs its map.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice
from typing import Any

from ..rules.notice import in_words
from . import terminal
from .status_text import outcome_words
from .terminal import clean

KEPT = 100
"""Happenings; no terminal shows more."""

_URGENCY = {"failing": 0, "degraded": 1}


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that the view tells, on a line of its own."""

    at: float
    account: str | None
    level: str
    words: str
    cure: str | None = None

    def __str__(self) -> str:
        subject = "" if self.account is None else f"{clean(self.account)}: "
        cure = f" → {clean(self.cure)}" if self.cure else ""
        return f"{subject}{clean(self.words)}{cure}"


class Scene:
    """All accounts of a daemon, or one with its story."""

    def __init__(self, account: str | None = None) -> None:
        self.account = account
        """The only one; None: all."""
        self.caption = ""
        """A line above the accounts, for whoever directs what happens."""
        self.daemon: Mapping[str, Any] = {}
        self.clients: Mapping[str, Any] = {}
        self.accounts: dict[str, Mapping[str, Any]] = {}
        self.happenings: deque[Happening] = deque(maxlen=KEPT)
        self.told = 0
        """How many happenings there have been, those that are forgotten among them."""
        self.away_since: float | None = None
        """When the daemon was first missed; None: it answers."""
        self.refreshes: Counter[str] = Counter()
        """How many of each account were seen."""
        self.refreshed_at: dict[str, float] = {}
        self._outcomes_until = float("-inf")

    def learn(self, status: Mapping[str, Any], now: float, *, whole: bool) -> None:
        """Take a result of ``status``; ``whole``: there are no other accounts than those in it."""
        before, self.daemon, self.clients = self.daemon, status["daemon"], status["clients"]
        if self.away_since is not None:
            words = f"spotokend is back after {in_words(now - self.away_since)}"
            self.away_since = None
            self.tell(Happening(now, None, "info", words))
        elif before and before["pid"] != self.daemon["pid"]:
            self.tell(Happening(now, None, "info", "spotokend was started anew"))
        told = {account["account"]: self._merged(account) for account in status["accounts"]}
        self.accounts = told if whole else self.accounts | told
        if self.account is not None:
            for outcome in status["accounts"][0]["outcomes"]:
                self._tell_outcome(outcome)

    def _merged(self, account: Mapping[str, Any]) -> Mapping[str, Any]:
        # Of an account that is known ``watch`` has the newer map, but it tells changes of state only.
        by_time_alone = {key: account[key] for key in ("health", "why") if key in account}
        return {**account, **self.accounts.get(account["account"], {}), **by_time_alone}

    def hear(self, method: str, event: Mapping[str, Any], now: float) -> None:
        """Take an event of ``watch``; what a newer daemon may send besides means nothing here."""
        match method:
            case "state":
                known = self.accounts.get(event["account"], {})
                # The story, of which a state knows nothing, goes on until it is told anew.
                self.accounts[event["account"]] = {**known, **event}
                if known:
                    self._compare(known, event, now)
            case "notice" if event["level"] != "debug":  # a new token is told with its state
                self.tell(
                    Happening(
                        event["at"],
                        event["account"],
                        event["level"],
                        event["message"],
                        event["hint"],
                    )
                )
            case "resync" if event["dropped"] is not None:
                words = f"{event['dropped']} events came too fast and are missing here"
                self.tell(Happening(now, None, "warning", words))

    def miss(self, now: float) -> None:
        """Nobody answers."""
        if self.away_since is None:
            self.away_since = now
            self.tell(Happening(now, None, "error", "spotokend doesn't answer; waiting for it"))

    def tell(self, happening: Happening) -> None:
        """Let it be shown."""
        self.happenings.append(happening)
        self.told += 1

    def untold(self, seen: int) -> Iterator[Happening]:
        """Those that came after the first ``seen``, as far as they are kept."""
        new = min(self.told - seen, len(self.happenings))
        return islice(self.happenings, len(self.happenings) - new, None)

    def rows(self, room: int) -> list[Mapping[str, Any]]:
        """The accounts for so many lines: all by their names, or what is most urgent of too many."""
        if len(self.accounts) <= room:
            return [self.accounts[name] for name in sorted(self.accounts)]
        return nsmallest(room, self.accounts.values(), key=_urgency)

    def _compare(self, old: Mapping[str, Any], new: Mapping[str, Any], now: float) -> None:
        name, happened = new["account"], None
        if new["authorized_at"] not in (None, old["authorized_at"]):
            self.tell(Happening(now, name, "info", _login_words(old, new)))
        elif new["generation"] > old["generation"] and new["expires_at"] is not None:
            if old["expires_at"] is not None:
                self.refreshes[name] += 1
                self.refreshed_at[name] = now
            happened = Happening(now, name, "info", _token_words(old, new, now))
        elif new["state"] == "waiting" and new["reason"] and not old["reason"]:
            # The other states of trouble are told by a notice, at once.
            happened = Happening(now, name, "quiet", new["reason"])
        if happened is not None and self.account is None:  # else its outcomes tell it
            self.tell(happened)

    def _tell_outcome(self, outcome: Mapping[str, Any]) -> None:
        if outcome["at"] > self._outcomes_until:
            self._outcomes_until = outcome["at"]
            level = "info" if outcome["outcome"] == "renewed" else "quiet"
            self.tell(Happening(outcome["at"], self.account, level, outcome_words(outcome)))


def _urgency(account: Mapping[str, Any]) -> tuple[int, float, str]:
    due_at = account["due_at"]
    return (
        _URGENCY.get(account["health"], 2),
        float("inf") if due_at is None else due_at,
        account["account"],
    )


def _token_words(old: Mapping[str, Any], new: Mapping[str, Any], now: float) -> str:
    words = f"token {new['generation']}"
    if old["expires_at"] is None:
        return f"{words}, good for {in_words(new['expires_at'] - now)}"
    spare = old["expires_at"] - now
    if spare > 0:
        return f"{words}, {in_words(spare)} before the end of the one before"
    return f"{words}; the one before had ended {in_words(-spare)} ago"


def _login_words(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    again = "logged in again" if old["authorized_at"] is not None else "logged in"
    end, before = new["grant_expires_at"], old["grant_expires_at"]
    if end is None:
        return again
    words = f"{again}; the login ends {terminal.civil(end)}"
    return words if before is None else f"{words}, {in_words(end - before)} later than before"
