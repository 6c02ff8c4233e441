"""``spotokend config check``, ``init`` and ``show``: the configuration, without a daemon."""

from __future__ import annotations

import argparse
import os
import sys

from .. import paths
from ..adapters.client_secrets import read_secret
from ..adapters.config_file import read_config, write_new_config
from ..errors import BadRequest, Misconfigured
from ..rules.config.parse import DASHBOARD, starter
from ..rules.config.values import REDIRECT_URI, Config, SourceKind
from . import terminal
from .config_text import effective


def run(arguments: argparse.Namespace) -> int:
    """Do what the second word says."""
    path: str = arguments.config or paths.config_path()
    match arguments.path[-1]:
        case "check":
            _check(path)
        case "init":
            _init(path, arguments.client_id, arguments.scope)
        case _:
            _show(path)
    return 0


def _check(path: str) -> None:
    config = _read(path)
    for name, client in config.clients.items():
        source = client.client_secret
        # The other sources are the daemon's own: its environment, its credentials, its keyring.
        if source is not None and source.kind is SourceKind.FILE:
            read_secret(source, place=f"clients.{name}.client_secret")
    clients = _counted(len(config.clients), "client")
    accounts = _counted(len(config.accounts), "account")
    terminal.show(f"ok: {terminal.clean(path)}: {clients}, {accounts}")


def _show(path: str) -> None:
    terminal.show(effective(_read(path)).rstrip("\n"))


def _read(path: str) -> Config:
    config = read_config(path)
    for warning in config.warnings:
        terminal.say(f"warning: {warning}")
    return config


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _init(path: str, client_id: str | None, scopes: list[str]) -> None:
    if os.path.lexists(path):
        # Before any question: the answers would be thrown away.
        raise Misconfigured(
            f"{path} exists already and is left as it is",
            hint="edit that file, or move it away first",
        )
    known = client_id or os.environ.get("SPOTIPY_CLIENT_ID")
    if client_id is None and sys.stdin is not None and sys.stdin.isatty():
        known, scopes = _ask(known, scopes)
    if not known:
        raise BadRequest(
            "spotokend config init: the client id is missing",
            hint=f"copy it from your app's page, {DASHBOARD}: spotokend config init --client-id ID",
        )
    write_new_config(path, starter(known, scopes))
    terminal.say(
        f"Wrote {path}.\n"
        f"In the dashboard the app needs exactly this redirect URI, without a port: {REDIRECT_URI}\n"
        "Next: spotokend service install (or spotokend run), then spotokend login."
    )


def _ask(known: str | None, scopes: list[str]) -> tuple[str | None, list[str]]:
    terminal.say(f"The client id is on your app's page in the dashboard: {DASHBOARD}")
    asked = _prompt(f"Client id [{known}]: " if known else "Client id: ")
    if not scopes:
        scopes = _prompt("Scopes, with spaces between, or none: ").split()
    return asked or known, scopes


def _prompt(question: str) -> str:
    # input() would write the question to stdout, among the data.
    print(terminal.clean(question), end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()
