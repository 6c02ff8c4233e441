"""A configuration as TOML again: every key with the value in effect, and no secret.

What is printed can be read by the parser and means the same, but for a client secret that stands in
the file itself: that is left out, and said.
"""

from __future__ import annotations

import json
import math

from ..rules.config import keys
from ..rules.config.values import Config, KeyKind, KeySource, SecretSource, SourceKind


def effective(config: Config) -> str:
    """The text of the whole configuration."""
    sections = [
        _section("daemon", "daemon", config.daemon),
        _section("store", "store", config.store),
        _section("timing", "timing", config.timing),
        *(_section("clients", f"clients.{_key(k)}", v) for k, v in config.clients.items()),
        *(_section("accounts", f"accounts.{_key(k)}", v) for k, v in config.accounts.items()),
        *(_section("hooks", f"hooks.{_key(k)}", v) for k, v in config.hooks.items()),
    ]
    return "\n".join(sections)


def _section(kind: str, title: str, values: object) -> str:
    lines = [f"[{title}]"]
    for word, key in keys.SECTIONS[kind].items():
        if word == "schedule":
            proactive = getattr(values, "proactive")  # noqa: B009 - a field of one of six classes
            value: object = "proactive" if proactive else "on_demand"
        else:
            value = getattr(values, word)
        lines.append(_line(word, value, key.meaning))
    return "\n".join(lines) + "\n"


def _line(word: str, value: object, meaning: str) -> str:
    if isinstance(value, SecretSource):
        if value.kind is SourceKind.LITERAL:
            return f"# {word}: stands in the file itself; not shown"
        return f"{word} = {{ {value.kind.value} = {_value(value.value)} }}"
    if isinstance(value, KeySource):
        inner = _value(value.value)
        plain = value.kind is KeyKind.FILE
        return f"{word} = {inner if plain else f'{{ {value.kind.value} = {inner} }}'}"
    if value is None and word == "identity_url":
        value = "none"
    if value is None:
        return f"# {word}: {meaning}"
    return f"{word} = {_value(value)}"


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, bool):  # before int, which it is a kind of
        return str(value).lower()
    if isinstance(value, float):
        return '"none"' if math.isinf(value) else f"{value:.15g}"
    if isinstance(value, int):
        return str(value)
    # What JSON makes of a string, TOML reads back; DEL, which TOML wants escaped, is escaped.
    return json.dumps(str(value)).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    # Names have no other characters than a bare key, but for the dot.
    return f'"{name}"' if "." in name else name
