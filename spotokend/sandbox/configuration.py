"""A configuration of spotokend that is ready to be used with a running sandbox."""

from __future__ import annotations

import json
import os
import re

from .options import App, Options, Rotation, User

SCOPES = ("user-read-private", "user-read-playback-state", "playlist-read-private")
"""What those of the sandbox's API calls need that change nothing."""


def ready_configuration(url: str, options: Options, *, folder: str | None = None) -> str:
    """The TOML text: a client for each app and flow, and an account for each user.

    ``url`` is the sandbox's. With ``folder`` each client secret is written there, into a file that
    only its owner can read, and the text names the file; else the text names a variable of the
    environment, and says how to set it. Raises ``OSError`` where a file can't be written.
    """
    sections = [f"# spotokend with the sandbox at {url}"]
    names: list[str] = []
    machine = False
    for app in options.apps:
        name = _client_name(app, names)
        names.append(name)
        secret = _secret(name, app.secret, folder)
        flow = "pkce" if app.secret is None else "authorization_code"
        where = _endpoints(url, options)
        sections.append(_client(name, app, flow, [*secret, *_consent(app), *where]))
        if app.secret is not None and not machine:
            machine = True
            sections.append(_client("machine", app, "client_credentials", [*secret, *where]))
            sections.append('[accounts.machine]  # needs no login\nclient = "machine"')
    if names:
        sections += [
            _account(user, names[number % len(names)]) for number, user in enumerate(options.users)
        ]
    return "\n\n".join(sections) + "\n"


def _client_name(app: App, taken: list[str]) -> str:
    kind = "pkce" if app.secret is None else "confidential"
    others = sum(name.startswith(kind) for name in taken)
    return f"{kind}{others + 1}" if others else kind


def _client(name: str, app: App, flow: str, more: list[str]) -> str:
    return "\n".join(
        (
            f"[clients.{name}]",
            f"client_id = {_quoted(app.client_id)}",
            f"flow = {_quoted(flow)}",
            *more,
        )
    )


def _consent(app: App) -> list[str]:
    return [
        f"redirect_uri = {_quoted(app.redirect_uris[0])}",
        f"scopes = [{', '.join(map(_quoted, SCOPES))}]",
    ]


def _endpoints(url: str, options: Options) -> list[str]:
    lines = [
        f"authorize_url = {_quoted(url + '/authorize')}",
        f"token_url = {_quoted(url + '/api/token')}",
        f"api_url = {_quoted(url)}",
        f"identity_url = {_quoted(url + '/v1/me')}",
    ]
    # Spotify's own behaviour needs no line: that is what spotokend expects unasked.
    if options.rotation is not Rotation.NEVER and options.grace:
        lines += ['rotation = "grace"', f"rotation_grace = {options.grace}"]
    elif options.rotation is not Rotation.NEVER:
        lines.append('rotation = "strict"')
    return lines


def _account(user: User, client: str) -> str:
    key = user.id if re.fullmatch(r"[A-Za-z0-9_-]+", user.id) else _quoted(user.id)
    return f"[accounts.{key}]  # log in as {user.display_name}\nclient = {_quoted(client)}"


def _secret(name: str, secret: str | None, folder: str | None) -> list[str]:
    if secret is None:
        return []
    if folder is None:
        variable = f"SANDBOX_{name.upper()}_SECRET"
        return [
            f"# export {variable}={secret}",
            f"client_secret = {{ env = {_quoted(variable)} }}",
        ]
    path = os.path.join(os.path.abspath(folder), f"{name}.secret")
    # The mode given to open(2) counts only for a new file; one that exists is narrowed before
    # anything is in it.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(secret)
    return [f"client_secret = {{ file = {_quoted(path)} }}"]


def _quoted(text: str) -> str:
    # A JSON string is a TOML basic string, once DEL is kept out; and nothing here is unprintable.
    return json.dumps(text, ensure_ascii=False)
