"""Who asks: client authentication at the token endpoint, and the bearer token of an API call."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from .messages import Request
from .options import App


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a client says of itself, unchecked."""

    client_id: str
    secret: str | None = field(repr=False)

    def prove(self, app: App) -> bool:
        """Whether the secret is the app's."""
        # RFC 6749, 2.3.1 wants both parts form-encoded before base64; Spotify's examples, and so
        # most clients, send them plain.
        return (
            app.secret is not None
            and self.secret is not None
            and app.secret in (self.secret, unquote_plus(self.secret))
        )


def read_credentials(request: Request, form: Mapping[str, str]) -> Credentials | None:
    """From ``Authorization: Basic``, else from the form; None where there are none."""
    header = request.headers.get("authorization")
    if header is None:
        client_id = form.get("client_id")
        if client_id is None:
            return None
        return Credentials(client_id=client_id, secret=form.get("client_secret"))
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        pair = base64.b64decode(value.strip(), validate=True).decode()
    except ValueError:  # no base64, not even ASCII, or no UTF-8 inside
        return None
    client_id, colon, secret = pair.partition(":")
    return Credentials(client_id=unquote_plus(client_id), secret=secret) if colon else None


def read_bearer(request: Request) -> str | None:
    """The token of ``Authorization: Bearer``, or None where the header is something else."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" and value.strip() else None
