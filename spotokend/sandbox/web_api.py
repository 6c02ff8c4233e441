"""The Web API, as far as a program needs it to see whether its token works.

Errors have the API's own shape, ``{"error": {"status", "message"}}``, but the one for users who
aren't on the app's list, which is plain text (zmb3/spotify#232).
"""

from __future__ import annotations

from collections.abc import Callable

from .credentials import read_bearer
from .ledger import AccessToken, Ledger
from .messages import Request, Response, json_response, text_response
from .options import User

PREFIX = "/v1/"
TRACKS = "/v1/tracks/"


def answer(ledger: Ledger, request: Request) -> Response:
    """The answer to any call below ``/v1/``."""
    token = _token(ledger, request)
    if isinstance(token, Response):
        return token
    user = ledger.options.find_user(token.grant.user) if token.grant else None
    if user is not None and user.id in ledger.options.unlisted:
        words = "User not registered in the Developer Dashboard"
        return text_response(403, words, note=words)
    if request.path.startswith(TRACKS):
        return _get(request) or json_response(200, _track(request.path.removeprefix(TRACKS)))
    if request.path not in ROUTES:
        return _error(404, "Service not found")
    scope, describe = ROUTES[request.path]
    if (refusal := _get(request)) is not None:
        return refusal
    if user is None:
        return _unauthorized("Valid user authentication required")
    if scope is not None and scope not in token.scopes:
        return _error(403, "Insufficient client scope")
    return json_response(200, describe(user, token))


def _token(ledger: Ledger, request: Request) -> AccessToken | Response:
    if "authorization" not in request.headers:
        return _error(401, "No token provided", ("www-authenticate", 'Bearer realm="spotify"'))
    text = read_bearer(request)
    if text is None:
        return _error(400, "Only valid bearer authentication supported")
    token = ledger.access(text)
    if token is None:
        return _unauthorized("Invalid access token")
    if ledger.now >= token.expires_at:
        return _unauthorized("The access token expired")
    return token


def _get(request: Request) -> Response | None:
    return None if request.method == "GET" else _error(405, "Method not allowed", ("allow", "GET"))


def _me(user: User, token: AccessToken) -> dict[str, object]:
    me: dict[str, object] = {
        "account_id": user.account_id,
        "display_name": user.display_name,
        "external_urls": {},
        "href": f"/v1/users/{user.id}",
        "id": user.id,
        "images": [],
        "type": "user",
        "uri": f"spotify:user:{user.id}",
    }
    if "user-read-email" in token.scopes:
        me["email"] = user.email
    if "user-read-private" in token.scopes:
        me |= {"country": "CZ", "product": "premium"}
    return me


def _player(_user: User, _token: AccessToken) -> dict[str, object]:
    return {
        "device": {
            "id": "sandbox-device",
            "is_active": True,
            "name": "Sandbox loudspeaker",
            "type": "Speaker",
            "volume_percent": 50,
        },
        "is_playing": True,
        "progress_ms": 1000,
        "repeat_state": "off",
        "shuffle_state": False,
        "currently_playing_type": "track",
        "item": _track("sandbox-track"),
    }


def _playlists(user: User, _token: AccessToken) -> dict[str, object]:
    items = [
        {
            "id": f"sandbox-playlist-{number}",
            "name": f"{user.display_name}: list {number}",
            "owner": {"id": user.id, "display_name": user.display_name},
            "public": False,
            "type": "playlist",
        }
        for number in (1, 2)
    ]
    return {
        "href": "/v1/me/playlists",
        "items": items,
        "limit": 20,
        "next": None,
        "offset": 0,
        "previous": None,
        "total": len(items),
    }


def _track(track_id: str) -> dict[str, object]:
    return {
        "id": track_id,
        "name": "Sand in the Gears",
        "artists": [{"id": "sandbox-artist", "name": "The Castles", "type": "artist"}],
        "duration_ms": 180_000,
        "type": "track",
        "uri": f"spotify:track:{track_id}",
    }


ROUTES: dict[str, tuple[str | None, Callable[[User, AccessToken], dict[str, object]]]] = {
    "/v1/me": (None, _me),
    "/v1/me/player": ("user-read-playback-state", _player),
    "/v1/me/playlists": ("playlist-read-private", _playlists),
}
"""Path to the scope that it needs and what it shows."""


def _unauthorized(message: str) -> Response:
    # RFC 6750, 3.
    challenge = f'Bearer realm="spotify", error="invalid_token", error_description="{message}"'
    return _error(401, message, ("www-authenticate", challenge))


def _error(status: int, message: str, *headers: tuple[str, str]) -> Response:
    return json_response(
        status, {"error": {"status": status, "message": message}}, *headers, note=message
    )
