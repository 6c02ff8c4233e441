"""Faults that are switched on while the sandbox runs: what goes wrong, for whom, how often.

A fault is plain data. It decides what becomes of a request, and tells the shell in the response
what is left to do on the wire; so it works the same in virtual time as over a socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import cast

from .checks import Check, choice, flag, integer, number, optional_text, seconds, text
from .messages import Cut, Request, Response, json_response, phrase_of

MOST_FAULTS = 64
MOST_LATE = 3600


class Kind(StrEnum):
    """What goes wrong."""

    ANSWER = "answer"
    """Another answer in place of the true one: ``status``, ``body`` and its words, ``retry_after``."""
    TRUNCATE = "truncate"
    """The first half of the true answer, sent as if it were whole."""
    SLOW = "slow"
    """The true answer, ``seconds`` late."""
    HANG = "hang"
    """No answer until the fault is removed."""
    CUT = "cut"
    """The connection is closed without an answer."""
    BREAK = "break"
    """The connection is closed in the middle of the true answer."""


class Body(StrEnum):
    """What a false answer looks like."""

    JSON = "json"
    HTML = "html"
    TEXT = "text"
    EMPTY = "empty"


FIELDS_OF_ALL = ("kind", "path", "client", "user", "count", "probability")
FIELDS_OF: dict[Kind, tuple[str, ...]] = {
    Kind.ANSWER: (
        "status",
        "body",
        "error",
        "description",
        "reason",
        "retry_after",
        "served",
        "seconds",
    ),
    Kind.TRUNCATE: ("seconds",),
    Kind.SLOW: ("seconds",),
    Kind.HANG: ("served",),
    Kind.CUT: ("served", "seconds"),
    Kind.BREAK: ("seconds",),
}
"""A field that its kind would ignore is refused: it would look as if it did something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. Raises ``ValueError`` for what makes no sense."""

    kind: Kind
    path: str = "/api/token"
    """Requests whose path starts so: the token endpoint; ``/v1/`` for the API."""
    client: str | None = None
    """Only this client id,"""
    user: str | None = None
    """only this user."""
    count: int | None = None
    """The next so many requests; None: all."""
    probability: float = 1.0
    seconds: float = 0.0
    """How late it comes."""
    served: bool = False
    """True: the request is carried out first, so a grant is used up and nobody hears of it."""
    status: int = 503
    body: Body = Body.JSON
    error: str = "server_error"
    description: str | None = None
    """What it says in words: beside the ``error``, as the API's message, or as the whole text."""
    reason: str | None = None
    """The API's own word for the cause, such as QUOTA_EXCEEDED; the token endpoint has none."""
    retry_after: str | None = None
    """The header as it is: seconds, an HTTP date, or nonsense."""

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            # Frozen for everybody else; the check turns "cut" into Kind.CUT.
            object.__setattr__(self, name, check(name, getattr(self, name)))
        allowed = FIELDS_OF_ALL + FIELDS_OF[self.kind]
        for item in fields(self):
            if item.name not in allowed and getattr(self, item.name) != item.default:
                raise ValueError(f"{item.name}: has no meaning for the kind {self.kind.value}")
        if self.kind is Kind.SLOW and not self.seconds:
            raise ValueError("seconds: how slow? More than 0 is needed")

    @classmethod
    def from_json(cls, value: object) -> Fault:
        """A fault of a JSON object; ``kind`` is needed. Raises ``ValueError``."""
        if not isinstance(value, dict):
            raise ValueError(f"a fault is a JSON object, not {value!r}")
        names = [item.name for item in fields(cls)]
        for name in value:
            if name not in names:
                raise ValueError(f"no field {name!r}; there are {', '.join(names)}")
        if "kind" not in value:
            raise ValueError(f"kind: one of {', '.join(Kind)} is needed")
        return cls(**cast("dict[str, object]", value))  # type: ignore[arg-type]  # __post_init__ checks each

    def to_json(self) -> dict[str, object]:
        """The fields that its kind has, for people to read."""
        allowed = FIELDS_OF_ALL + FIELDS_OF[self.kind]
        return {name: value for name, value in asdict(self).items() if name in allowed}

    def matches(self, request: Request, *, client: str | None, user: str | None) -> bool:
        """Whether it is meant for this request."""
        return (
            request.path.startswith(self.path)
            and self.client in (None, client)
            and self.user in (None, user)
        )

    def apply(self, request: Request, serve: Callable[[], Response]) -> Response:
        """What becomes of the request; ``serve`` carries it out, and is called once or never."""
        true_kind = self.kind in (Kind.TRUNCATE, Kind.SLOW, Kind.BREAK)
        true_answer = serve() if self.served or true_kind else None
        if self.kind is Kind.ANSWER:
            return replace(self._false_answer(request), delay=self.seconds)
        if true_answer is None:
            # Not served: whenever this ends, it ends without an answer.
            return Response(status=0, delay=self.seconds, cut=Cut.UNANSWERED)
        if self.kind is Kind.CUT:
            return replace(true_answer, delay=self.seconds, cut=Cut.UNANSWERED)
        if self.kind is Kind.BREAK:
            return replace(true_answer, delay=self.seconds, cut=Cut.HALFWAY)
        if self.kind is Kind.TRUNCATE:
            half = true_answer.body[: len(true_answer.body) // 2]
            return replace(true_answer, delay=self.seconds, body=half)
        return replace(true_answer, delay=self.seconds)

    def _false_answer(self, request: Request) -> Response:
        extra = () if self.retry_after is None else (("retry-after", self.retry_after),)
        phrase = phrase_of(self.status)
        if self.body is Body.JSON:
            if request.path.startswith("/v1/"):
                told = {"status": self.status, "message": self.description or phrase}
                value: object = {
                    "error": told if self.reason is None else told | {"reason": self.reason}
                }
            elif self.description is None:
                value = {"error": self.error}
            else:
                value = {"error": self.error, "error_description": self.description}
            return json_response(self.status, value, *extra)
        if self.body is Body.HTML:
            words = (
                "Log in to this network to reach the Internet."
                if self.status == 200
                else f"Your client does not have permission to get URL {request.path} from this server."
                if self.status == 403
                else phrase
            )
            page = f"<!doctype html><html><head><title>{phrase}</title></head><body>{words}</body></html>"
            return Response(
                status=self.status,
                headers=(("content-type", "text/html; charset=utf-8"), *extra),
                body=page.encode(),
            )
        text = "" if self.body is Body.EMPTY else self.description or _UPSTREAM
        return Response(
            status=self.status,
            headers=(("content-type", "text/plain"), *extra),
            body=text.encode(),
        )


_UPSTREAM = (
    "upstream connect error or disconnect/reset before headers."
    " reset reason: connection termination"
)
"""What Spotify's own proxy says when the service behind it is gone."""


@dataclass(slots=True, kw_only=True)
class Switched:
    """A fault that is switched on."""

    id: int
    fault: Fault
    struck: int = 0

    def to_json(self) -> dict[str, object]:
        """Its fields, its id and how often it struck."""
        return {"id": self.id, "struck": self.struck, **self.fault.to_json()}


class Faults:
    """The faults that are on; the first that fits a request strikes.

    One that struck ``count`` times stays in the list, so that what it holds back stays held, and
    so that a test can ask how often it struck.
    """

    def __init__(self, rand: Callable[[], float]) -> None:
        self.changed: Callable[[], None] = _nobody
        """Called after each removal: whoever waits for one looks again."""
        self._rand = rand
        self._on: dict[int, Switched] = {}
        self._ids = 0

    def add(self, fault: Fault) -> int:
        """Switch one more on; its id. Raises ``ValueError`` when there are too many."""
        if len(self._on) >= MOST_FAULTS:
            raise ValueError(f"{MOST_FAULTS} faults are on; remove some first")
        self._ids += 1
        self._on[self._ids] = Switched(id=self._ids, fault=fault)
        return self._ids

    def put(self, faults: Iterable[Fault]) -> list[int]:
        """These in place of all others; their ids. Raises ``ValueError`` for too many."""
        wanted = list(faults)
        if len(wanted) > MOST_FAULTS:
            raise ValueError(f"at most {MOST_FAULTS} faults, not {len(wanted)}")
        self.clear()
        return [self.add(fault) for fault in wanted]

    def remove(self, fault_id: int) -> bool:
        """Switch one off; False where there is none of that id."""
        found = self._on.pop(fault_id, None) is not None
        self.changed()
        return found

    def clear(self) -> None:
        """Switch all off."""
        self._on.clear()
        self.changed()

    def holds(self, fault_id: int) -> bool:
        """Whether that fault is still on."""
        return fault_id in self._on

    def next_for(
        self, request: Request, *, client: str | None, user: str | None
    ) -> Switched | None:
        """The fault that strikes this request, counted; or None."""
        for switched in self._on.values():
            fault = switched.fault
            if fault.count is not None and switched.struck >= fault.count:
                continue
            if not fault.matches(request, client=client, user=user):
                continue
            if fault.probability < 1 and self._rand() >= fault.probability:
                continue
            switched.struck += 1
            return switched
        return None

    def to_json(self) -> list[dict[str, object]]:
        """All that are on."""
        return [switched.to_json() for switched in self._on.values()]


def _nobody() -> None:
    """Nobody is waiting."""


def _header(name: str, value: object) -> str | None:
    given = optional_text(name, str(value) if type(value) is int else value)
    if given is not None and not (given.isascii() and given == given.strip()):
        raise ValueError(f"{name}: what fits into a header, not {value!r}")
    return given


def _late(name: str, value: object) -> float:
    late = seconds(name, value)
    if late > MOST_LATE:
        raise ValueError(f"{name}: at most {MOST_LATE}; to wait without end there is the kind hang")
    return late


def _probability(name: str, value: object) -> float:
    share = number(name, value)
    if not 0 <= share <= 1:
        raise ValueError(f"{name}: a number from 0 to 1, not {value!r}")
    return share


def _count(name: str, value: object) -> int | None:
    return None if value is None else integer(name, value, least=1, most=2**53)


def _status(name: str, value: object) -> int:
    # 1xx comes before an answer and is none.
    return integer(name, value, least=200, most=599)


_CHECKS: dict[str, Check] = {
    "kind": choice(Kind),
    "path": text,
    "client": optional_text,
    "user": optional_text,
    "count": _count,
    "probability": _probability,
    "seconds": _late,
    "served": flag,
    "status": _status,
    "body": choice(Body),
    "error": text,
    "description": optional_text,
    "reason": optional_text,
    "retry_after": _header,
}
