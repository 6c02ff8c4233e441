"""``spotokend store info`` and ``store rekey``: what the logins are kept in, under which key, and where
that is."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from .. import calls, paths
from ..adapters.config_file import read_config
from ..adapters.lockfile import AlreadyRunning, StateLock
from ..adapters.store.base import StoreError
from ..adapters.store.sqlite_info import read_description
from ..client import Client
from ..errors import DaemonNotRunning, Misconfigured, Unavailable
from ..service.places import place_of_key, place_of_store
from . import terminal

PATIENCE = 3600.0
"""Seconds for a change of keys, which costs an fsync a login."""


def run(arguments: argparse.Namespace) -> int:
    """Do what the second word says."""
    if arguments.command[-1] == "info":
        _info(as_json=arguments.json, config_path=arguments.config)
    elif arguments.to is not None:
        _move(arguments.to)
    else:
        _rekey()
    return 0


def _info(*, as_json: bool, config_path: str | None) -> None:
    try:
        client = Client()
        info: dict[str, Any] = calls.read_map(client.socket_path, client.call("store_info"))
    except DaemonNotRunning:
        info = _without_a_daemon(config_path or paths.config_path())
    if as_json:
        terminal.show(json.dumps(info))
    else:
        terminal.show("\n".join(_lines(info)))


def _without_a_daemon(config_path: str) -> dict[str, Any]:
    config = read_config(config_path)
    path = place_of_store(config)
    if not os.path.exists(path):
        raise Misconfigured(f"there is no store at {path} yet: the daemon makes it when it starts")
    key = {"source": place_of_key(config).name, "ids": [], "locked": "no daemon runs"}
    try:
        with StateLock(f"{path}.lock"):  # nobody writes while it is read
            return read_description(path) | {"unsaved": None, "key": key}
    except AlreadyRunning as error:
        raise Unavailable(f"the store is in use, and its daemon doesn't answer: {error}") from None
    except StoreError as error:
        raise Misconfigured(str(error)) from None


def _lines(info: dict[str, Any]) -> list[str]:
    key, rows = info["key"], info["rows"]
    lines = [
        f"store      {terminal.clean(info['path'])} ({info['backend']}, schema {info['schema']})",
        f"size       {info['bytes'] / 1024:.0f} KiB",
        f"durable    {info['durable']}",
        "logins     {in use} in use, {aside} put aside, {candidates} not finished".format(**rows),
        f"key        {terminal.clean(key['source'])}: {_held(key)}",
    ]
    lines += [
        f"sealed by  {name}: {number}{'' if name in key['ids'] or not key['ids'] else ' (missing)'}"
        for name, number in info["sealed_by"].items()
    ]
    if info["unsaved"]:
        lines.append(f"unsaved    {', '.join(info['unsaved'])}: beside the socket")
    return lines


def _held(key: dict[str, Any]) -> str:
    if key["locked"] is not None:
        return f"not at hand ({terminal.clean(key['locked'])})"
    newest, *older = key["ids"]
    return f"{newest}, and still {', '.join(older)}" if older else f"{newest}"


def _move(words: str) -> None:
    kind, _, value = words.partition("=")
    if kind == "file" and value:
        # The daemon's folder, and its home, are not those of whoever types this.
        value = os.path.abspath(os.path.expanduser(value))
        words = f"{kind}={value}"
    client = Client(timeout=PATIENCE)
    done: dict[str, Any] = calls.read_map(client.socket_path, client.call("rekey", to=words))
    # As TOML has it, too; a name or a path has no character that the two would write otherwise.
    line = f"key = {{ {kind} = {json.dumps(value, ensure_ascii=False)} }}"
    also_in = done["also_in"]
    if also_in is None:
        terminal.say(
            "The key is under the new passphrase; the old one opens it no more.\n"
            f"If something else asks for it now, write under [store]: {line}"
        )
        return
    terminal.say(
        f"{terminal.clean(done['source'])} has the key {done['key']} now, as has"
        f" {terminal.clean(also_in['source'])}, from where the daemon takes it until you\n"
        f"  1. write into the configuration, under [store]: {terminal.clean(line)}\n"
        "  2. start the daemon anew: spotokend service install; without systemd: spotokend stop, and"
        " start it\n"
        "  3. make a new key, so that the one in the old place opens nothing any more: spotokend"
        " store rekey\n"
        f"  4. remove that: {terminal.clean(also_in['remove'])}"
    )


def _rekey() -> None:
    client = Client(timeout=PATIENCE)
    done: dict[str, Any] = calls.read_map(client.socket_path, client.call("rekey"))
    terminal.say(
        f"Everything is sealed by key {done['key']} now: {done['moved']} moved."
        if not done["left"]
        else f"{done['moved']} moved to key {done['key']}."
    )
    if done["left"]:
        names = ", ".join(done["left"])
        raise Unavailable(
            f"what is stored of {names} doesn't open, and the older key is kept for it",
            hint=f"spotokend login {done['left'][0]}, then: spotokend store rekey",
        )
    if done["kept"]:
        terminal.say(
            f"Nothing needs {', '.join(done['kept'])} any more: remove that line from"
            f" {terminal.clean(done['source'])}."
        )
