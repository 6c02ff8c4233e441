"""``spotokend config check``, ``init`` and ``show``: the configuration, without a daemon."""

from __future__ import annotations

import argparse
import shlex

from .. import paths
from ..adapters.client_secrets import place_of, read_secret
from ..adapters.config_file import read_config
from ..errors import BadRequest
from ..rules.config.parse import parse, starter
from ..rules.config.values import Config, SourceKind
from . import first_run, questions, terminal
from .config_text import effective


def run(arguments: argparse.Namespace) -> int:
    """Do what the second word says."""
    path: str = arguments.config or paths.config_path()
    match arguments.command[-1]:
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
            read_secret(source, place=place_of(name))
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


def _init(path: str, client_id: str | None, wanted: list[str]) -> None:
    if client_id:
        text = starter(client_id, wanted)
    elif (known := first_run.known_client_id()[0]) and not questions.interactive():
        # In a script, which may have no end of its input.
        text = starter(known, wanted, first_run.known_redirect_uri())
    else:
        try:
            text = first_run.compose(path, wanted)
        except questions.EndOfInput as end:
            raise BadRequest(
                f'the input ended at "{end}"; nothing has been written',
                hint="without questions: spotokend config init --client-id ID --scope SCOPE",
            ) from None
    first_run.write(path, text)
    redirect_uri = parse(text).clients[first_run.CLIENT].redirect_uri
    terminal.say(f"\nThe app's redirect URI, in the dashboard, must be exactly {redirect_uri}")
    if path == paths.config_path():
        terminal.say("Next: spotokend login, which gets the daemon going as well.")
    else:
        terminal.say(f"Next: spotokend run --config {shlex.quote(path)}\nand: spotokend login")
