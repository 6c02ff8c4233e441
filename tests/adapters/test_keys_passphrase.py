"""The keys under a passphrase: wrapped, unwrapped, and no file that eats the memory."""

from __future__ import annotations

import os
import stat

import pytest

from spotokend.adapters.keys.passphrase import PassphraseKey
from spotokend.errors import Locked, Misconfigured
from spotokend.rules.sealing import SealingKey

pytestmark = pytest.mark.anyio

KEYS = [SealingKey(bytes([number] * 32)) for number in (2, 1)]
RIGHT, WRONG = ("printf", "correct horse"), ("printf", "wrong horse")
CHEAP = 2


@pytest.fixture
def path(tmp_path):
    return tmp_path / "spotokend" / "key.wrapped"


def source(path, asker=RIGHT):
    return PassphraseKey(str(path), asker, cost=CHEAP)


def names(keys):
    return [key.key_id for key in keys]


async def test_the_keys_come_back_with_the_passphrase_alone(path):
    """From a file for its owner alone, in which nothing of them is readable."""
    assert await source(path).load() == []
    await source(path).save(KEYS)

    assert names(await source(path).load()) == names(KEYS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(Locked, match="the passphrase was wrong") as caught:
        await source(path, WRONG).load()
    assert caught.value.hint == "spotokend unlock"


async def test_a_change_of_keys_asks_nobody(path, tmp_path):
    """What scrypt made of the passphrase is kept for it."""
    asked = tmp_path / "asked"
    asker = ("sh", "-c", f"echo asked >>{asked}; echo horse")
    first = source(path, asker)
    await first.save(KEYS[1:])
    await first.save(KEYS)
    assert names(await first.load()) == names(KEYS)
    assert asked.read_text() == "asked\n"
    second = source(path, asker)
    await second.load()
    await second.save(KEYS[:1])
    assert names(await second.load()) == names(KEYS[:1])
    assert asked.read_text() == "asked\n" * 2


async def test_another_passphrase_needs_no_other_key(path):
    """The file is written anew; the store isn't touched."""
    await source(path).save(KEYS)
    path.unlink()
    await source(path, WRONG).save(KEYS)
    assert names(await source(path, WRONG).load()) == names(KEYS)


async def test_a_file_that_was_replaced_is_asked_for_again(path):
    """The passphrase that is known opens it no more."""
    known = source(path)
    await known.save(KEYS)
    await source(path, WRONG).save(KEYS)
    with pytest.raises(Locked):
        await known.load()


async def test_a_passphrase_that_is_not_given_leaves_it_locked(path):
    """Neither for the first key nor for a later start."""
    with pytest.raises(Locked, match="was not given: false ended"):
        await source(path, ("false",)).save(KEYS)
    assert not path.exists()
    await source(path).save(KEYS)
    with pytest.raises(Locked, match="was not given"):
        await source(path, ("false",)).load()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("scrypt 2 8 1", "scrypt 1073741824 8 1"),
        ("scrypt 2 8 1", "scrypt 3 8 1"),
        ("scrypt 2 8 1", "scrypt 1 8 1"),
        ("scrypt 2 8 1", "scrypt 2 1048576 1"),
        ("scrypt 2 8 1", "scrypt 2 8 4096"),
        ("scrypt 2 8 1", "scrypt 2 8 1 1"),
        ("scrypt 2 8 1", "argon2 2 8 1"),
        ("scrypt", "#scrypt"),
        ("==\n", "*\n"),
    ],
)
async def test_figures_that_are_not_ours_are_refused_before_they_are_used(path, old, new):
    """Whoever can write the file could have a start fill the memory; the file stays as it is."""
    await source(path).save(KEYS)
    text = path.read_text().replace(old, new)
    path.write_text(text)
    with pytest.raises(Misconfigured, match="can't be used") as caught:
        await source(path).load()
    assert "not touched" in caught.value.hint
    assert path.read_text() == text


async def test_a_file_that_was_changed_does_not_open(path):
    """The figures are sealed with the keys: a weaker scrypt can't be forced upon the next writing."""
    await source(path).save(KEYS)
    path.write_text(path.read_text().replace("scrypt 2 8 1", "scrypt 4 8 1"))
    with pytest.raises(Locked, match="wrong"):
        await source(path).load()


async def test_what_is_in_the_place_of_the_file_is_said(path, tmp_path):
    """A FIFO, a link in circles, a file in the place of the folder."""
    path.parent.mkdir()
    os.mkfifo(path)
    with pytest.raises(Misconfigured):
        await source(path).load()
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(Misconfigured, match="symbolic"):
        await source(path).load()
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match=r"Not a directory|File exists"):
        await source(tmp_path / "file" / "key.wrapped").save(KEYS)
