"""``POST /api/token``: every grant type, with the errors that Spotify gives, word for word.

The descriptions are those seen in the wild; where none is known the closest known one is used.
"""

from __future__ import annotations

from collections.abc import Mapping

from .credentials import Credentials, read_credentials
from .ledger import Issued, Ledger, Refused
from .messages import Malformed, Request, Response, json_response, text_response
from .options import Kept, Options, RefreshScope

FORM = "application/x-www-form-urlencoded"
GRANT_TYPES = ("client_credentials", "authorization_code", "refresh_token")


def answer(ledger: Ledger, request: Request) -> Response:
    """The token endpoint's answer."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != FORM:
        return text_response(415, "", note=f"not {FORM}")
    try:
        issued, refreshed = _grant(ledger, request)
    except Refused as refused:
        value = {"error": refused.error}
        if refused.description is not None:
            value["error_description"] = refused.description
        return json_response(400, value, note=": ".join(value.values()))
    return json_response(200, _success(issued, ledger.options, refreshed=refreshed))


def _grant(ledger: Ledger, request: Request) -> tuple[Issued, bool]:
    try:
        form = request.form()
    except Malformed as error:
        raise Refused("invalid_request", str(error)) from error
    grant_type = form.get("grant_type")
    if grant_type is None:
        raise Refused("unsupported_grant_type", "grant_type parameter is missing")
    if grant_type not in GRANT_TYPES:
        raise Refused(
            "unsupported_grant_type",
            "grant_type must be client_credentials, authorization_code or refresh_token",
        )
    credentials = read_credentials(request, form)
    if credentials is None:
        raise Refused("invalid_client")
    authenticated = _authenticate(ledger.options, request, credentials)
    if grant_type == "client_credentials":
        if not authenticated:
            raise Refused("invalid_client", "Invalid client secret")
        return ledger.client_credentials(credentials.client_id), False
    if grant_type == "refresh_token":
        refresh_token = _needed(form, "refresh_token")
        issued = ledger.refresh(
            refresh_token, client_id=credentials.client_id, authenticated=authenticated
        )
        return issued, True
    issued = ledger.exchange(
        _needed(form, "code"),
        client_id=credentials.client_id,
        redirect_uri=_needed(form, "redirect_uri"),
        verifier=form.get("code_verifier"),
        authenticated=authenticated,
    )
    return issued, False


def _authenticate(options: Options, request: Request, credentials: Credentials) -> bool:
    """True with the right secret, False without one (PKCE). Raises :class:`Refused`."""
    app = options.app(credentials.client_id)
    if app is None:
        by_header = "authorization" in request.headers
        raise Refused("invalid_client", "Invalid client" if by_header else "Failed to get client")
    if credentials.secret is None:
        return False
    if not credentials.prove(app):
        raise Refused("invalid_client", "Invalid client secret")
    return True


def _needed(form: Mapping[str, str], name: str) -> str:
    value = form.get(name)
    if value is None:
        raise Refused("invalid_request", f"{name} must be supplied")
    return value


def _success(issued: Issued, options: Options, *, refreshed: bool) -> dict[str, object]:
    value: dict[str, object] = {
        "access_token": issued.access_token,
        "token_type": options.token_type,
    }
    if options.expires_in:
        value["expires_in"] = int(options.access_life)
    if issued.refresh_token is None:
        # Client credentials: neither a refresh token nor a scope.
        return value
    if issued.replaced or options.kept is Kept.SAME:
        value["refresh_token"] = issued.refresh_token
    elif options.kept is not Kept.OMIT:
        value["refresh_token"] = None if options.kept is Kept.NULL else ""
    if not (refreshed and options.refresh_scope is RefreshScope.OMIT):
        value["scope"] = " ".join(issued.scopes)
    return value
