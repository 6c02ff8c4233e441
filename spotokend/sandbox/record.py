"""What the sandbox saw: counters that a test can assert on, and a log of the last requests.

No secret gets in: an entry has no field that could hold one.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict, dataclass

LAST_REQUESTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One request and what became of it."""

    at: float
    endpoint: str
    """Method and path, for the endpoints that exist; ``other`` for the rest."""
    client: str | None
    """The client id, if one of that id is registered."""
    user: str | None
    grant_type: str | None
    outcome: str
    """The status, or ``cut``, ``broken``, ``held``."""
    note: str
    fault: int | None
    """The fault that struck."""


class Record:
    """Counters and log since the start."""

    def __init__(self) -> None:
        self.total = 0
        self.by_endpoint: Counter[str] = Counter()
        self._by_client: dict[str, Counter[str]] = {}
        self._by_grant_type: Counter[str] = Counter()
        self._outcomes: dict[str, Counter[str]] = {}
        self._last: deque[Entry] = deque(maxlen=LAST_REQUESTS)

    def add(self, entry: Entry) -> None:
        """Count and keep one."""
        self.total += 1
        self.by_endpoint[entry.endpoint] += 1
        self._by_client.setdefault(entry.client or "unknown", Counter())[entry.endpoint] += 1
        if entry.grant_type is not None:
            self._by_grant_type[entry.grant_type] += 1
        self._outcomes.setdefault(entry.endpoint, Counter())[entry.outcome] += 1
        self._last.append(entry)

    def to_json(self) -> dict[str, object]:
        """The counters."""
        return {
            "total": self.total,
            "by_endpoint": self.by_endpoint,
            "by_client": self._by_client,
            "by_grant_type": self._by_grant_type,
            "outcomes": self._outcomes,
        }

    def log(self) -> list[dict[str, object]]:
        """The last requests, oldest first."""
        return [asdict(entry) for entry in self._last]
