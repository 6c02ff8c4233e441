"""The Web API, as far as a program needs it to see whether its token works.

Errors have the API's own shape, ``{"error": {"status", "message"}}``, but the one for users who
aren't on the app's list, which is plain text (zmb3/spotify#232).
"""

from __future__ import annotations

import json
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
        if request.method != "GET":
            return _not_allowed("GET")
        return json_response(200, _track(request.path.removeprefix(TRACKS)))
    methods = ROUTES.get(request.path)
    if methods is None:
        return _error(404, "Service not found")
    if request.method not in methods:
        return _not_allowed(*methods)
    if user is None:
        return _unauthorized("Valid user authentication required")
    scope, act = methods[request.method]
    if scope is not None and scope not in token.scopes:
        return _insufficient()
    return act(user, token, request)


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


def _me(user: User, token: AccessToken, _request: Request) -> Response:
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
    return json_response(200, me)


def _player(_user: User, _token: AccessToken, _request: Request) -> Response:
    player = {
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
    return json_response(200, player)


def _obey(_user: User, _token: AccessToken, request: Request) -> Response:
    """A command to the player, which takes it and stays as it is: it always plays."""
    if request.body and _json_object(request) is None:
        return _error(400, "Error parsing JSON.")
    return Response(status=204)


def _playlists(user: User, _token: AccessToken, _request: Request) -> Response:
    items = [_playlist(user, number, f"{user.display_name}: list {number}") for number in (1, 2)]
    page = {
        "href": "/v1/me/playlists",
        "items": items,
        "limit": 20,
        "next": None,
        "offset": 0,
        "previous": None,
        "total": len(items),
    }
    return json_response(200, page)


def _create_playlist(user: User, token: AccessToken, request: Request) -> Response:
    """The playlist that was asked for, as if it had been made; the next list doesn't have it."""
    wanted = _json_object(request)
    if wanted is None:
        return _error(400, "Error parsing JSON.")
    name, public = wanted.get("name"), wanted.get("public", True)
    if not isinstance(name, str) or not name:
        return _error(400, "Missing required field: name")
    if f"playlist-modify-{'public' if public else 'private'}" not in token.scopes:
        return _insufficient()
    return json_response(201, _playlist(user, 3, name) | {"public": bool(public)})


def _playlist(user: User, number: int, name: str) -> dict[str, object]:
    return {
        "id": f"sandbox-playlist-{number}",
        "name": name,
        "owner": {"id": user.id, "display_name": user.display_name},
        "public": False,
        "type": "playlist",
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


def _json_object(request: Request) -> dict[str, object] | None:
    try:
        value = json.loads(request.body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


Act = Callable[[User, AccessToken, Request], Response]
ROUTES: dict[str, dict[str, tuple[str | None, Act]]] = {
    "/v1/me": {"GET": (None, _me)},
    "/v1/me/player": {"GET": ("user-read-playback-state", _player)},
    "/v1/me/player/pause": {"PUT": ("user-modify-playback-state", _obey)},
    "/v1/me/player/play": {"PUT": ("user-modify-playback-state", _obey)},
    "/v1/me/playlists": {
        "GET": ("playlist-read-private", _playlists),
        "POST": (None, _create_playlist),
    },
}
"""Path to method to the scope that it needs whatever is asked, and what it does."""


def _not_allowed(*methods: str) -> Response:
    return _error(405, "Method not allowed", ("allow", ", ".join(methods)))


def _insufficient() -> Response:
    # Spotify doesn't say which scope.
    return _error(403, "Insufficient client scope")


def _unauthorized(message: str) -> Response:
    # RFC 6750, 3.
    challenge = f'Bearer realm="spotify", error="invalid_token", error_description="{message}"'
    return _error(401, message, ("www-authenticate", challenge))


def _error(status: int, message: str, *headers: tuple[str, str]) -> Response:
    return json_response(
        status, {"error": {"status": status, "message": message}}, *headers, note=message
    )
