"""The table of keys agrees with the values' fields and defaults, and with the example file."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from spotokend.rules.config import keys
from spotokend.rules.config.parse import parse
from spotokend.rules.config.values import (
    AccountConfig,
    ClientConfig,
    DaemonConfig,
    HookConfig,
    StoreConfig,
)
from spotokend.rules.schedule import Timing

EXAMPLE = Path(__file__).parents[2].joinpath("config.example.toml").read_text(encoding="utf-8")
UNCOMMENTED = re.sub(r"^#(?=\[|\w+ = )", "", EXAMPLE, flags=re.MULTILINE)
PLACEHOLDERS = ["clients.spotify.client_id", "clients.bot.client_id"]

CLASSES = {
    "daemon": DaemonConfig,
    "store": StoreConfig,
    "timing": Timing,
    "clients": ClientConfig,
    "accounts": AccountConfig,
    "hooks": HookConfig,
}
EVERY_KEY = [
    pytest.param(section, word, key, id=f"{section}.{word}")
    for section, table in keys.SECTIONS.items()
    for word, key in table.items()
]


@pytest.mark.parametrize("section", CLASSES)
def test_the_keys_of_a_section_are_the_fields_of_its_class(section):
    """No key is read and not kept, and no field is out of the user's reach."""
    fields = {field.name for field in dataclasses.fields(CLASSES[section])} - {"name"}
    assert {{"schedule": "proactive"}.get(word, word) for word in keys.SECTIONS[section]} == fields


@pytest.mark.parametrize(("section", "word", "key"), EVERY_KEY)
def test_the_default_that_is_told_is_the_default(section, word, key):
    """Writing a key's default into the file changes nothing."""
    field = {"schedule": "proactive"}.get(word, word)
    default = next(
        field_.default for field_ in dataclasses.fields(CLASSES[section]) if field_.name == field
    )
    if key.default is None:
        assert default in {None, dataclasses.MISSING}
    else:
        assert key.read(tomllib.loads(f"value = {key.default}")["value"]) == default


@pytest.mark.parametrize(("section", "word", "key"), EVERY_KEY)
def test_every_key_stands_in_the_example(section, word, key):
    """In its own section, and with its default where it has one."""
    title = rf"\[{section}\.\w+\]" if section in keys.NAMED else rf"\[{section}\]"
    bodies = re.findall(rf"^#?{title}\n(.*?)(?=^#?\[|\Z)", EXAMPLE, re.MULTILINE | re.DOTALL)
    value = ".+" if key.default is None else re.escape(key.default)
    assert any(re.search(rf"^#?{word} = {value}$", body, re.MULTILINE) for body in bodies)


@pytest.mark.parametrize(("section", "word", "key"), EVERY_KEY)
def test_every_key_has_a_meaning(section, word, key):
    """One line, without an end that a table would have to strip."""
    assert re.fullmatch(r"\S[^\n]*[^\s.]", key.meaning) is not None


def test_a_key_of_a_later_version_is_not_read():
    """What is refused as missing and what is read are two sets."""
    for section, words in keys.LATER.items():
        assert words.keys() & keys.SECTIONS[section].keys() == set()


def test_the_example_is_a_configuration():
    """It can be used as it is; only the client id is to be filled in, and that is said."""
    config = parse(EXAMPLE)
    assert list(config.clients) == ["spotify"]
    assert [warning.split(": ")[0] for warning in config.warnings] == PLACEHOLDERS[:1]
    filled = EXAMPLE.replace("PASTE-YOUR-CLIENT-ID-HERE", "0123456789abcdef" * 2)
    assert parse(filled).warnings == ()


def test_the_example_with_all_its_comments_removed_is_one_too():
    """Every line that is offered works, and the defaults that are shown are the defaults."""
    config = parse(UNCOMMENTED)
    assert list(config.clients) == ["spotify", "bot", "other"]
    assert [warning.split(": ")[0] for warning in config.warnings] == PLACEHOLDERS
    assert config.clients["spotify"] == parse(EXAMPLE).clients["spotify"]
    assert config.timing == Timing()
