"""The credential that systemd passes: read, never written, and missed in words."""

from __future__ import annotations

import os

import pytest

from spotokend.adapters.keys.credential import CredentialKey
from spotokend.errors import Misconfigured
from spotokend.rules.sealing import SealingKey, write_keys

KEYS = [SealingKey(bytes([number] * 32)) for number in (2, 1)]

pytestmark = pytest.mark.anyio


@pytest.fixture
def credential(tmp_path, monkeypatch):
    """Where systemd would put it."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    return tmp_path / "store-key"


async def test_the_keys_are_read_the_newest_first(credential):
    """Whatever the mode is: systemd gives the user access by other means."""
    credential.write_bytes(write_keys(KEYS))
    credential.chmod(0o440)
    loaded = await CredentialKey("store-key").load()
    assert [key.key_id for key in loaded] == [key.key_id for key in KEYS]


async def test_without_the_credential_there_is_no_key(credential):
    """systemd runs the daemon, and was not told to pass it."""
    assert await CredentialKey("store-key").load() == []


async def test_outside_of_systemd_that_is_said(credential, monkeypatch):
    """With the line for the unit, and how a key is made."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(Misconfigured, match=r"\$CREDENTIALS_DIRECTORY isn't set") as caught:
        await CredentialKey("store-key").load()
    assert "LoadCredential=store-key:" in caught.value.hint
    assert "base64" in caught.value.hint


@pytest.mark.parametrize("text", [b"", b"not a key\n"])
async def test_what_is_no_key_is_refused(credential, text):
    """And not repeated: it may be another secret."""
    credential.write_bytes(text)
    with pytest.raises(Misconfigured, match="the credential store-key holds no key") as caught:
        await CredentialKey("store-key").load()
    assert "not a key" not in caught.value.message


async def test_what_is_no_file_is_refused(credential):
    """A FIFO is not waited for, and a folder can't be read."""
    os.mkfifo(credential)
    with pytest.raises(Misconfigured, match="holds no key"):
        await CredentialKey("store-key").load()
    with pytest.raises(Misconfigured, match="can't be read: Not a directory"):
        await CredentialKey("store-key/inside").load()


async def test_only_its_owner_can_change_it():
    """How is said."""
    with pytest.raises(Misconfigured, match="only you") as caught:
        await CredentialKey("store-key").save(KEYS)
    assert "spotokend store rekey" in caught.value.hint
