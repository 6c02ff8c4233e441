"""A configuration printed and read again means the same; secrets are named, never shown."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest

from spotokend.cli.config_text import effective
from spotokend.rules.config import keys
from spotokend.rules.config.parse import parse

ID = "0123456789abcdef0123456789abcdef"

FULL = f"""
[daemon]
socket = "/run/\\"user\\"/socket"
default_account = "alice.b"
[store]
path = "/var/lib/store"
[timing]
floor = 7.25
in_flight = 3
[clients.spotify]
client_id = "{ID}"
[clients.robot]
client_id = "{ID}"
flow = "client_credentials"
client_secret = {{ command = ["pass", "show", "it's"] }}
schedule = "on_demand"
[clients."other.server"]
client_id = "other"
flow = "authorization_code"
client_secret = {{ file = "/etc/secret" }}
authorize_url = "https://login.example/authorize"
token_url = "https://login.example/token"
grant_life = "none"
rotation = "grace"
[accounts."alice.b"]
client = "spotify"
scopes = ["streaming"]
user = "alice"
[accounts.bob]
client = "robot"
[hooks.light]
command = ["light", "on"]
kinds = ["token"]
accounts = ["bob"]
token = true
[hooks.desktop]
desktop = true
"""


@pytest.mark.parametrize("text", [f'[clients.spotify]\nclient_id = "{ID}"\n', FULL])
def test_what_is_printed_means_the_same(text):
    """With every default written out."""
    config = parse(text)

    assert parse(effective(config)) == config


def test_every_key_of_every_section_is_there():
    """With its value; what has none is explained in a comment."""
    printed = effective(parse(FULL))

    for section in ("daemon", "store", "timing"):
        for key in keys.SECTIONS[section]:
            assert f"\n{key} = " in printed or f"\n# {key}: " in printed


def test_a_secret_in_the_file_is_not_shown():
    """The source is named; the rest is TOML all the same."""
    text = f"""
    [clients.spotify]
    client_id = "{ID}"
    flow = "authorization_code"
    client_secret = "client-secret-1"
    """
    printed = effective(parse(text))

    assert "client-secret-1" not in printed
    assert "Secret" not in printed
    assert "# client_secret: stands in the file itself; not shown" in printed
    assert tomllib.loads(printed)["clients"]["spotify"]["client_id"] == ID


def test_unusual_letters_survive():
    """Paths may hold anything but a NUL."""
    config = parse(FULL)
    config = replace(config, store=replace(config.store, path="/ä\x7f\t\\\"'"))

    assert tomllib.loads(effective(config))["store"]["path"] == "/ä\x7f\t\\\"'"
