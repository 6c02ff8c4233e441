"""An access token as it crosses the socket: the only kind of token that a client ever sees."""

from __future__ import annotations

import math
import time


class Token:
    """One access token and what is known about it.

    ========================  ==========================================================
    ``account``               name of the account (str)
    ``access_token``          what goes behind ``Authorization: Bearer`` (str)
    ``token_type``            usually ``Bearer`` (str)
    ``expires_at``            Unix time, seconds (float)
    ``expires_boot``          the same moment on CLOCK_BOOTTIME of this host, seconds (float)
    ``scope``                 granted scopes (tuple of str)
    ``generation``            grows with each access token of the account (int)
    ``grant_expires_at``      Unix time at which the login itself ends, or None if unknown
    ========================  ==========================================================

    Neither ``repr`` nor ``str`` shows the token: both land in logs and tracebacks.
    """

    __slots__ = (
        "access_token",
        "account",
        "expires_at",
        "expires_boot",
        "generation",
        "grant_expires_at",
        "scope",
        "token_type",
    )

    def __init__(
        self,
        *,
        account: str,
        access_token: str,
        token_type: str,
        expires_at: float,
        expires_boot: float,
        scope: tuple[str, ...],
        generation: int,
        grant_expires_at: float | None = None,
    ) -> None:
        self.account = account
        self.access_token = access_token
        self.token_type = token_type
        self.expires_at = expires_at
        self.expires_boot = expires_boot
        self.scope = scope
        self.generation = generation
        self.grant_expires_at = grant_expires_at

    @property
    def remaining(self) -> float:
        """Seconds left, on the clock that counts suspend and that nobody can set; may be negative."""
        return self.expires_boot - time.clock_gettime(time.CLOCK_BOOTTIME)

    @property
    def authorization(self) -> str:
        """The value of an ``Authorization`` header (RFC 6750, section 2.1).

        Some providers answer ``bearer`` in lower case, and some APIs insist on ``Bearer``.
        """
        kind = "Bearer" if self.token_type.lower() == "bearer" else self.token_type
        return f"{kind} {self.access_token}"

    def to_wire(self) -> dict[str, object]:
        """The map of the protocol's ``token`` result."""
        return {
            "account": self.account,
            "access_token": self.access_token,
            "token_type": self.token_type,
            "expires_at": self.expires_at,
            "expires_boot": self.expires_boot,
            "scope": list(self.scope),
            "generation": self.generation,
            "grant_expires_at": self.grant_expires_at,
        }

    @classmethod
    def from_wire(cls, result: object) -> Token:
        """Read a ``token`` result; unknown keys are ignored.

        Raises:
            ValueError: something that a token must have is missing or of the wrong type.
        """
        try:
            values = _mapping(result)
            grant_expires_at = values.get("grant_expires_at")
            return cls(
                account=_text(values["account"]),
                access_token=_some_text(values["access_token"]),
                token_type=_text(values["token_type"]),
                expires_at=_number(values["expires_at"]),
                expires_boot=_number(values["expires_boot"]),
                scope=_texts(values["scope"]),
                generation=_whole(values["generation"]),
                grant_expires_at=None if grant_expires_at is None else _number(grant_expires_at),
            )
        except KeyError as error:
            raise ValueError(f"a token without {error.args[0]}") from None
        except TypeError:
            raise ValueError(
                "a token that is no map, or a value of a wrong type in it, or an empty one"
            ) from None

    def __repr__(self) -> str:
        return (
            f"<Token account={self.account!r} generation={self.generation} "
            f"expires_at={self.expires_at:.0f}>"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and self.to_wire() == other.to_wire()

    def __hash__(self) -> int:
        return hash((self.account, self.generation, self.access_token))


def _mapping(value: object) -> dict[object, object]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _texts(value: object) -> tuple[str, ...]:
    # A str would pass for a list of its letters.
    if not isinstance(value, (list, tuple)):
        raise TypeError
    return tuple(_text(item) for item in value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _some_text(value: object) -> str:
    text = _text(value)
    if not text:  # an API would take the empty header for none at all
        raise TypeError
    return text


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    # Infinity would be kept for ever, and NaN is smaller than nothing.
    if not math.isfinite(value):
        raise TypeError
    return float(value)
