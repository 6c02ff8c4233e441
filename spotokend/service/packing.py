"""An account's contents as bytes and back: the secrets that are sealed, the facts that lie open.

Facts are read with suspicion: they lie open in the store, and damage there must cost no grant. What
is sealed has been proven whole when it is read.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from types import NoneType, UnionType
from typing import Any

import msgpack

from spotokend.adapters.store.base import Row
from spotokend.rules.account import Access, Blocked, Grant, Quarantined, State, Waiting
from spotokend.rules.secret import Secret


def pack_facts(state: State, gate: dict[str, object] | None, at: float) -> bytes:
    """What else is worth keeping of a state; of its client's gate where that is closed.

    ``at`` is the present in Unix seconds.
    """
    facts: dict[str, object] = {} if gate is None else {"gate": gate}
    match state:
        case Waiting():
            facts |= {"reason": state.reason, "since": state.since, "failures": state.failures}
        case Quarantined():
            facts |= {
                "reason": state.reason,
                "since": state.since,
                "incident": state.incident,
                "probes": state.probes,
                "tries": state.tries,
                "at": at,
            }
        case Blocked():
            facts |= {"reason": state.reason, "since": state.since}
    packed: bytes = msgpack.packb(facts)
    return packed


_FACTS: dict[str, tuple[type, ...]] = {
    "reason": (str,),
    "since": (float, int),
    "failures": (int,),
    "incident": (bool,),
    "probes": (int,),
    "tries": (int,),
    "at": (float, int),
    "gate": (dict,),
    "opens_at": (float,),
    "opens_boot": (float,),
    "asked_until": (float,),
    "asked_boot": (float,),
}


def read_facts(packed: bytes) -> dict[str, Any]:
    """What can be read of the facts."""
    try:
        facts = msgpack.unpackb(packed)
    except ValueError:
        return {}
    return known_facts(facts)


def known_facts(facts: object) -> dict[str, Any]:
    """Those entries of a map of facts that are what they should be."""
    if not isinstance(facts, dict):
        return {}
    return {
        name: value
        for name, kinds in _FACTS.items()
        if type(value := facts.get(name)) in kinds and _is_sound(value)
    }


def _is_sound(value: object) -> bool:
    """No number that none of the facts can be: all integers count something."""
    if isinstance(value, int):
        return 0 <= value < 2**31
    return value == value  # noqa: PLR0124 - false for a NaN, which compares with nothing


def pack_secrets(grant: Grant | None, access: Access | None) -> bytes:
    """What is to be sealed."""
    secrets: dict[str, object] = {}
    if grant is not None:
        secrets["grant"] = {
            "refresh_token": grant.refresh_token.reveal(),
            "previous": None if grant.previous is None else grant.previous.reveal(),
            "scopes": list(grant.scopes),
            "user": grant.user,
            "display_name": grant.display_name,
            "authorized_at": grant.authorized_at,
            "rotation_seen": grant.rotation_seen,
            "stage": grant.stage,
        }
    if access is not None:
        secrets["access"] = {
            "token": access.token.reveal(),
            "token_type": access.token_type,
            "scopes": list(access.scopes),
            "generation": access.generation,
        }
    packed: bytes = msgpack.packb(secrets)
    return packed


def unpack_secrets(packed: bytes) -> tuple[Grant | None, dict[str, Any] | None]:
    """The grant, and what is sealed of the access token."""
    secrets: dict[str, dict[str, Any]] = msgpack.unpackb(packed)
    fields = secrets.get("grant")
    if fields is None:
        return None, secrets.get("access")
    previous = fields["previous"]
    grant = Grant(
        refresh_token=Secret(fields["refresh_token"]),
        previous=None if previous is None else Secret(previous),
        scopes=tuple(fields["scopes"]),
        user=fields["user"],
        display_name=fields["display_name"],
        authorized_at=fields["authorized_at"],
        rotation_seen=fields["rotation_seen"],
        stage=fields.get("stage"),  # rows of the first release have none
    )
    return grant, secrets.get("access")


def pack_row(attempt: str, row: Row) -> bytes:
    """A whole row, and the attempt whose answer it holds: what a spill file is made of.

    Where a row gets other fields, so does the format of those files (``adapters.spill``).
    """
    packed: bytes = msgpack.packb([attempt, asdict(replace(row, intent=None))])
    return packed


_ROW: dict[str, type | UnionType] = (
    dict.fromkeys(("account", "slot", "client", "fingerprint", "state", "boot_id", "key_id"), str)
    | dict.fromkeys(("version", "generation"), int)
    | dict.fromkeys(("due_at", "expires_at", "issued_at"), float | None)
    | dict.fromkeys(("due_boot", "expires_boot"), float | None)
    | {"facts": bytes, "sealed": bytes | None, "intent": NoneType}
    | {"last_attempt": str | None}
)


def unpack_row(packed: bytes) -> tuple[str, Row]:
    """The attempt and its row.

    Raises:
        ValueError: it is something else.
    """
    try:
        attempt, fields = msgpack.unpackb(packed)
        row = Row(**fields)
    except TypeError:
        raise ValueError("it holds no row") from None
    for name, kind in _ROW.items():
        if not isinstance(getattr(row, name), kind):
            raise ValueError(f"its row has something else in the place of {name}")
    if not isinstance(attempt, str):
        raise ValueError("it names no attempt")
    return attempt, row
