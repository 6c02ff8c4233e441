"""``/authorize``: what an app asks, the user's decision, and the way back.

Until the app and its redirect URI are known to belong together nothing is sent anywhere: a page
says what is wrong, and the app never hears of it (RFC 6749, 4.1.2.1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from . import pages
from .ledger import Ledger
from .messages import Malformed, Request, Response
from .options import App, Options, User, secure


class _Page(Exception):
    """Ends with a page, not with a redirect."""

    def __init__(self, words: str, advice: str) -> None:
        super().__init__(words)
        self.response = pages.refusal(words, advice)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    app: App
    redirect_uri: str
    scopes: tuple[str, ...]
    state: str | None
    challenge: str | None
    user: User
    show_dialog: bool
    error: str | None
    """What is told to the app instead of asking the user."""


def answer(ledger: Ledger, request: Request) -> Response:
    """The page that asks (GET), or the way back to the app (GET and POST)."""
    try:
        asked = _read(ledger.options, request)
        if asked.error is not None:
            return _back(asked, error=asked.error)
        if request.method == "POST":
            return _decide(ledger, asked, request)
    except _Page as end:
        return end.response
    known = not asked.show_dialog and _agreed_before(ledger, asked)
    if ledger.options.auto_approve or known:
        return _agree(ledger, asked, asked.user)
    return pages.consent(
        asked.app,
        asked.scopes,
        ledger.options.users,
        asked.user,
        f"{request.path}?{request.query}",
    )


def _read(options: Options, request: Request) -> _Asked:
    try:
        given = request.parameters()
    except Malformed as error:
        raise _Page("Invalid request", f"{error}.".capitalize()) from error
    app = _app(options, given)
    redirect_uri = _redirect_uri(app, given)
    scopes = tuple(dict.fromkeys(given.get("scope", "").split()))
    if not set(scopes) <= set(options.scopes):
        raise _Page("Illegal scope", "A scope is asked for that doesn't exist.")
    user = options.find_user(given.get("user") or given.get("login_hint", ""))
    if user is None:
        known = ", ".join(user.id for user in options.users)
        raise _Page("Unknown user", f"The sandbox has the users {known}.")
    return _Asked(
        app=app,
        redirect_uri=redirect_uri,
        scopes=scopes,
        state=given.get("state"),
        challenge=given.get("code_challenge"),
        user=user,
        show_dialog=given.get("show_dialog", "").lower() == "true",
        error=_error(given),
    )


def _app(options: Options, given: Mapping[str, str]) -> App:
    client_id = given.get("client_id")
    if client_id is None:
        raise _Page("Missing required parameter: client_id", "The app has to say which one it is.")
    app = options.app(client_id)
    if app is None:
        raise _Page("INVALID_CLIENT: Invalid client", "No app is registered under this client id.")
    return app


def _redirect_uri(app: App, given: Mapping[str, str]) -> str:
    redirect_uri = given.get("redirect_uri")
    if redirect_uri is None:
        raise _Page(
            "Missing required parameter: redirect_uri", "The app has to say where it listens."
        )
    if not secure(redirect_uri):
        raise _Page(
            "INVALID_CLIENT: Insecure redirect URI",
            "Plain http is for http://127.0.0.1 and http://[::1] alone; localhost is refused.",
        )
    if not app.accepts(redirect_uri):
        raise _Page(
            "INVALID_CLIENT: Invalid redirect URI",
            f"Registered are: {', '.join(app.redirect_uris)}. Without a port a loopback literal"
            " stands for all its ports; everything else is matched exactly.",
        )
    return redirect_uri


def _error(given: Mapping[str, str]) -> str | None:
    if given.get("response_type") != "code":
        return "unsupported_response_type"
    challenge, method = given.get("code_challenge"), given.get("code_challenge_method")
    if challenge is None and method is None:
        return None
    # RFC 7636, 4.2: a SHA-256 in base64url without padding has 43 characters. Spotify takes no
    # other method.
    if method != "S256" or not re.fullmatch(r"[A-Za-z0-9_-]{43}", challenge or ""):
        return "invalid_request"
    return None


def _agreed_before(ledger: Ledger, asked: _Asked) -> bool:
    clients_grants = ledger.select(client=asked.app.client_id, user=asked.user.id)
    return any(not grant.revoked for grant in clients_grants) and set(
        asked.scopes
    ) <= ledger.granted(asked.app.client_id, asked.user.id)


def _decide(ledger: Ledger, asked: _Asked, request: Request) -> Response:
    try:
        form = request.form()
    except Malformed as error:
        raise _Page("Invalid request", f"{error}.".capitalize()) from error
    decision, user = form.get("decision"), ledger.options.find_user(form.get("user", ""))
    if user is None or decision not in ("agree", "cancel"):
        raise _Page("Invalid request", "The form wants a known user, and agree or cancel.")
    if decision == "cancel":
        return _back(asked, error="access_denied")
    return _agree(ledger, asked, user)


def _agree(ledger: Ledger, asked: _Asked, user: User) -> Response:
    code = ledger.consent(
        client_id=asked.app.client_id,
        user=user.id,
        scopes=asked.scopes,
        redirect_uri=asked.redirect_uri,
        challenge=asked.challenge,
    )
    return _back(asked, code=code)


def _back(asked: _Asked, **parameters: str) -> Response:
    if asked.state is not None:
        parameters["state"] = asked.state
    # RFC 6749, 3.1.2: a query that the redirect URI has is kept.
    joint = "&" if "?" in asked.redirect_uri else "?"
    return Response(
        # 303, so that what follows the posted form is a GET.
        status=303,
        headers=(
            ("location", f"{asked.redirect_uri}{joint}{urlencode(parameters)}"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
        ),
        note=parameters.get("error", ""),
    )
