"""The pages that a person meets: consent, refusal, and the sandbox's own description.

Small, without scripts and foreign resources; light or dark as the reader's system is.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from html import escape

from .faults import FIELDS_OF, FIELDS_OF_ALL
from .messages import Response
from .options import SCOPES, App, Options, User

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 42rem; padding: 2rem 1rem;
  background: #fff; color: #1c1c1c; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
fieldset { border: 1px solid #8a8a8a; border-radius: .5rem; margin: 1rem 0; }
label { display: block; padding: .3rem 0; }
button { font: inherit; padding: .6rem 1.6rem; margin: .5rem .5rem 0 0; border-radius: 2rem;
  border: 1px solid #6b6b6b; background: transparent; color: inherit; cursor: pointer; }
button.agree { background: #14733a; border-color: #14733a; color: #fff; }
:focus-visible { outline: 3px solid #1a6fd6; outline-offset: 2px; }
code, pre { font: .9rem/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { overflow-x: auto; border-left: 3px solid #8a8a8a; padding-left: 1rem; }
dt { font-weight: 600; margin-top: .5rem; }
.quiet { color: #595959; }
@media (prefers-color-scheme: dark) {
  body { background: #161616; color: #ececec; } .quiet { color: #a8a8a8; }
}
"""

_POLICY = (
    "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    # No form-action: browsers apply it to the redirect that follows the consent as well, and an
    # app's redirect URI may be anything.
    + "'"
)


def page(status: int, title: str, body: str, *, note: str = "") -> Response:
    """A whole page; ``body`` is HTML, ``title`` text."""
    html = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{escape(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )
    return Response(
        status=status,
        headers=(
            ("content-type", "text/html; charset=utf-8"),
            ("cache-control", "no-store"),
            ("content-security-policy", _POLICY),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
        ),
        body=html.encode(),
        note=note,
    )


def refusal(words: str, advice: str) -> Response:
    """The end of an authorization that can't be told to the app: it never calls back."""
    return page(
        400,
        words,
        f'<p>{escape(advice)}</p>\n<p class="quiet">Nothing was sent to the app.'
        " You can close this page.</p>",
        note=words,
    )


def consent(
    app: App, scopes: Iterable[str], users: Iterable[User], chosen: User, action: str
) -> Response:
    """The question to the user; the form is posted to ``action``."""
    wanted = "\n".join(
        f"<li>{escape(SCOPES.get(scope, scope))} <code>{escape(scope)}</code></li>"
        for scope in scopes
    )
    choices = "\n".join(
        f'<label><input type="radio" name="user" value="{escape(user.id)}"'
        f"{' checked' if user == chosen else ''}> {escape(user.display_name)}"
        f' <span class="quiet">({escape(user.id)})</span></label>'
        for user in users
    )
    asked = (
        f"<p>It asks to:</p>\n<ul>\n{wanted}\n</ul>" if wanted else "<p>It asks who you are.</p>"
    )
    return page(
        200,
        f"{app.name} wants to use your account",
        f"{asked}\n"
        f'<form method="post" action="{escape(action)}">\n'
        f"<fieldset>\n<legend>Logged in as</legend>\n{choices}\n</fieldset>\n"
        '<button class="agree" name="decision" value="agree">Agree</button>\n'
        '<button name="decision" value="cancel">Cancel</button>\n</form>\n'
        '<p class="quiet">This is an offline sandbox: no real account is touched.</p>',
    )


def index(options: Options, url: str) -> Response:
    """The description at ``/``."""

    def terms(rows: Iterable[tuple[str, str]]) -> str:
        items = (f"<dt><code>{escape(a)}</code></dt><dd>{escape(b)}</dd>" for a, b in rows)
        return "<dl>\n" + "\n".join(items) + "\n</dl>"

    return page(
        200,
        "spotokend sandbox",
        "<p>An offline stand-in for Spotify's accounts service and the edge of its Web API."
        " Nothing here is real, and nothing leaves this machine.</p>\n"
        f"<h2>Endpoints</h2>\n{terms(_ENDPOINTS)}\n"
        f"<h2>Registered apps</h2>\n{terms((app.client_id, _app(app)) for app in options.apps)}\n"
        "<h2>Users</h2>\n"
        f"{terms((user.id, f'{user.display_name}, {user.account_id}') for user in options.users)}\n"
        f"<h2>Control</h2>\n{terms(_CONTROL)}\n"
        "<h2>Faults</h2>\n"
        "<p>The next three requests for tokens are answered with 503; one is carried out, and the"
        " connection cut before its answer; then all is well again:</p>\n"
        f"<pre>{escape(_EXAMPLE.replace('URL', url))}</pre>\n"
        f"<p>Every kind takes {', '.join(FIELDS_OF_ALL)}; and</p>\n"
        f"{terms((kind, ', '.join(names)) for kind, names in FIELDS_OF.items())}\n"
        f"<h2>Options</h2>\n"
        f"{terms((name, json.dumps(value)) for name, value in options.to_json().items())}",
    )


def _app(app: App) -> str:
    kind = "public, uses PKCE" if app.secret is None else "has a secret"
    return f"{kind}; redirects to {', '.join(app.redirect_uris)}"


_ENDPOINTS = (
    (
        "GET /authorize",
        "Asks the user. login_hint or user names who that is; show_dialog=true asks again.",
    ),
    (
        "POST /api/token",
        "The token endpoint: authorization_code, refresh_token, client_credentials.",
    ),
    ("GET /v1/me", "Who the token belongs to."),
    ("GET /v1/me/player", "Needs user-read-playback-state."),
    ("PUT /v1/me/player/play", "Needs user-modify-playback-state, as does pause."),
    ("GET /v1/me/playlists", "Needs playlist-read-private."),
    ("POST /v1/me/playlists", "Needs playlist-modify-public, or -private."),
    ("GET /v1/tracks/ID", "Works with client credentials, too."),
)
_CONTROL = (
    ("GET /sandbox/state", "Counters, grants, faults, options and the log of the last requests."),
    ("GET /sandbox/faults", "The faults that are on."),
    ("POST /sandbox/faults", "Switch one on: a JSON object with kind, and what that kind takes."),
    ("PUT /sandbox/faults", "A JSON list, in place of all that are on."),
    ("DELETE /sandbox/faults", "Switch all off, or with ?id=N one."),
    (
        "POST /sandbox/revoke",
        "End the grants of a grant id, client, user; of access tokens alone with what = access.",
    ),
    ("POST /sandbox/advance", "seconds: let codes, tokens and grants age by so much at once."),
    ("POST /sandbox/options", "Change options from now on."),
)
_EXAMPLE = """\
curl URL/sandbox/faults -d '{"kind": "answer", "status": 503, "count": 3}'
curl URL/sandbox/faults -d '{"kind": "cut", "served": true, "count": 1}'
curl -X DELETE URL/sandbox/faults
"""
