"""Requests and responses as values: what the sandbox's core speaks, whoever carries them.

A shell over sockets, or a test behind ``httpx.MockTransport``, makes a :class:`Request`, gets a
:class:`Response`, and carries out what that says about its own delivery: wait, hold, cut.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from urllib.parse import parse_qsl

MOST_PARAMETERS = 100


class Malformed(ValueError):
    """A query, form or JSON text that can't be read; the words say why."""


class Cut(Enum):
    """Where the connection is closed although the response isn't out."""

    NO = "no"
    UNANSWERED = "cut"
    """Before the first byte."""
    HALFWAY = "broken"
    """In the middle of the body, which the headers announced whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request. ``path`` and ``query`` as sent; the names of ``headers`` in lower case."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def parameters(self) -> dict[str, str]:
        """The query. Raises :class:`Malformed`."""
        return _pairs(self.query)

    def form(self) -> dict[str, str]:
        """The form-encoded body. Raises :class:`Malformed`."""
        return _pairs(self.body.decode("utf-8", "replace"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One HTTP response, and how it is to be delivered."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    note: str = ""
    """What the sandbox's own log says about it: an error and its description, never a secret."""
    delay: float = 0.0
    """Seconds to wait before it is sent."""
    held_by: int | None = None
    """The fault that holds it back, until that fault is removed."""
    cut: Cut = Cut.NO

    @property
    def outcome(self) -> str:
        """For the counters: the status, or what happens in its place."""
        if self.held_by is not None:
            return "held"
        return str(self.status) if self.cut is Cut.NO else self.cut.value


def json_response(
    status: int, value: object, *headers: tuple[str, str], note: str = ""
) -> Response:
    """A response of JSON. Nothing here may be stored: most of it holds tokens (RFC 6749, 5.1)."""
    return Response(
        status=status,
        headers=(
            ("content-type", "application/json"),
            ("cache-control", "no-store"),
            ("pragma", "no-cache"),
            *headers,
        ),
        # As Spotify writes it: no blanks, and UTF-8 rather than escapes.
        body=json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(),
        note=note,
    )


def text_response(status: int, text: str, *, note: str = "") -> Response:
    """A response of plain text."""
    return Response(
        status=status,
        headers=(("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store")),
        body=text.encode(),
        note=note,
    )


def phrase_of(status: int) -> str:
    """The status in words, also where it is nobody's."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


def _pairs(text: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_PARAMETERS)
    except ValueError as error:
        raise Malformed(f"more than {MOST_PARAMETERS} parameters") from error
    found: dict[str, str] = {}
    for name, value in pairs:
        # RFC 6749, 3.1 and 3.2: parameters MUST NOT be included more than once.
        if name in found:
            raise Malformed("a parameter was given twice")
        # "Parameters sent without a value MUST be treated as if they were omitted."
        found[name] = value
    return {name: value for name, value in found.items() if value}
