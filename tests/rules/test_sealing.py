"""The envelope: what opens it, and that nothing else does."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotokend.errors import Locked
from spotokend.rules.sealing import (
    FORMAT,
    KeyRing,
    SealingError,
    SealingKey,
    Tampered,
    UnknownFormat,
    WrongKey,
    open_envelope,
    read_keys,
    seal,
    write_keys,
)

KEY = SealingKey(b"k" * 32)
NONCE = b"n" * 12
ROW = {"account": "main", "fingerprint": "fingerprint-1", "version": 7}
ENVELOPE = seal(KEY, b"a grant", **ROW, nonce=NONCE)


@given(
    plaintext=st.binary(max_size=200),
    account=st.text(max_size=20),
    fingerprint=st.text(max_size=20),
    version=st.integers(min_value=0),
)
def test_what_was_sealed_comes_out_again(plaintext, account, fingerprint, version):
    """For any content and any row."""
    row = {"account": account, "fingerprint": fingerprint, "version": version}

    assert open_envelope(KEY, seal(KEY, plaintext, **row, nonce=NONCE), **row) == plaintext


def test_the_layout_is_what_the_module_says():
    """Stored envelopes are opened by later versions: these bytes stay."""
    assert ENVELOPE[:1] == b"\x01"
    assert ENVELOPE[1:9].hex() == KEY.key_id == "633ca8f8692a30b1"
    assert ENVELOPE[9:21] == NONCE
    assert ENVELOPE[21:].hex() == "f91b80c270daf1c49c9a1c4b7597d6386646c4d9032419"


def test_nothing_of_the_content_is_readable():
    """Neither the plaintext nor the account's name stands in the envelope."""
    assert b"grant" not in ENVELOPE
    assert b"main" not in ENVELOPE


@pytest.mark.parametrize(
    "other",
    [{"account": "other"}, {"fingerprint": "fingerprint-2"}, {"version": 8}],
    ids=lambda other: next(iter(other)),
)
def test_an_envelope_opens_for_its_own_row_only(other):
    """Moved to another account or registration, or put back after a newer one, it is refused."""
    with pytest.raises(Tampered, match="belongs to another row"):
        open_envelope(KEY, ENVELOPE, **(ROW | other))


def test_the_parts_of_the_binding_do_not_run_into_each_other():
    """An account ``ab`` with fingerprint ``c`` is not account ``a`` with ``bc``."""
    envelope = seal(KEY, b"x", account="ab", fingerprint="c", version=1, nonce=NONCE)

    with pytest.raises(Tampered):
        open_envelope(KEY, envelope, account="a", fingerprint="bc", version=1)


@given(bit=st.integers(min_value=0, max_value=len(ENVELOPE) * 8 - 1))
def test_a_flipped_bit_anywhere_is_noticed(bit):
    """In the format, the key's name, the nonce, the content or the tag."""
    changed = bytearray(ENVELOPE)
    changed[bit // 8] ^= 1 << bit % 8

    with pytest.raises(SealingError):
        open_envelope(KEY, bytes(changed), **ROW)


@given(length=st.integers(min_value=0, max_value=len(ENVELOPE) - 1))
def test_a_cut_off_envelope_is_noticed(length):
    """At any length."""
    with pytest.raises(Tampered):
        open_envelope(KEY, ENVELOPE[:length], **ROW)


def test_too_short_an_envelope_says_so():
    """Its words name the account and how much there is."""
    with pytest.raises(Tampered, match="'main' is cut off after 36 bytes"):
        open_envelope(KEY, ENVELOPE[:36], **ROW)


def test_another_key_is_told_from_tampering():
    """The error names the key that is needed, so that a change of keys can look for it."""
    other = SealingKey(b"o" * 32)

    with pytest.raises(WrongKey, match=f"sealed by key {KEY.key_id}, this is key") as caught:
        open_envelope(other, ENVELOPE, **ROW)
    assert caught.value.key_id == KEY.key_id


def test_a_newer_format_is_told_from_tampering():
    """Its cure is the newer version, not a backup."""
    with pytest.raises(UnknownFormat, match=f"has format {FORMAT + 1}"):
        open_envelope(KEY, bytes((FORMAT + 1,)) + ENVELOPE[1:], **ROW)


def test_a_key_does_not_show_itself():
    """Not in text, and not in a pickle or a copy."""
    assert repr(KEY) == str(KEY) == f"SealingKey({KEY.key_id}, ***)"
    for leak in (pickle.dumps, copy.copy):
        with pytest.raises(
            TypeError,
            match=r"^a SealingKey is not pickled: it would lie readable in the pickle$",
        ):
            leak(KEY)


def test_keys_and_nonces_of_another_length_are_refused():
    """AES-256 has 32 bytes; the nonce of the format has 12."""
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        SealingKey(b"k" * 31)
    with pytest.raises(ValueError, match="12 bytes, not 11"):
        seal(KEY, b"", **ROW, nonce=b"n" * 11)


def test_a_key_is_known_by_its_bytes_and_named_by_their_digest():
    """Both decide what can be opened by later versions."""
    key = SealingKey(b"k" * 32)
    assert (key.reveal(), key.key_id) == (b"k" * 32, "633ca8f8692a30b1")
    assert seal(key, b"a grant", **ROW, nonce=NONCE) == ENVELOPE
    assert open_envelope(key, ENVELOPE, **ROW) == b"a grant"


# --- several keys


OTHER = SealingKey(b"o" * 32)


def test_the_newest_key_seals_and_each_opens_what_it_has_sealed():
    """While a store goes over from one key to the next both are at hand."""
    ring = KeyRing(OTHER, KEY)

    assert ring.ids == (OTHER.key_id, KEY.key_id)
    assert ring.open(ENVELOPE, **ROW) == b"a grant"
    sealed = ring.seal(b"new", **ROW, nonce=NONCE)
    assert open_envelope(OTHER, sealed, **ROW) == b"new"
    with pytest.raises(WrongKey) as caught:
        KeyRing(OTHER).open(ENVELOPE, **ROW)
    assert caught.value.key_id == KEY.key_id


def test_without_a_key_everything_is_locked():
    """In the words that were given for it."""
    ring = KeyRing()
    for call in (
        ring.check,
        lambda: ring.newest,
        lambda: ring.seal(b"", **ROW, nonce=NONCE),
        lambda: ring.open(ENVELOPE, **ROW),
    ):
        with pytest.raises(Locked) as caught:
            call()
        assert caught.value.hint == "spotokend unlock"
    ring.lock("the keyring is closed", "open it")
    with pytest.raises(Locked, match="the keyring is closed") as caught:
        ring.check()
    assert caught.value.hint == "open it"


def test_keys_that_were_held_stay_behind_those_that_are_taken():
    """What was read a moment ago still opens; locked, all of them go."""
    ring = KeyRing(KEY)
    ring.take([OTHER])

    assert ring.ids == (OTHER.key_id, KEY.key_id)
    ring.take([OTHER, KEY])
    assert ring.ids == (OTHER.key_id, KEY.key_id)
    ring.lock("", "")
    assert ring.ids == ()


def test_keys_are_written_and_read_as_lines():
    """With room for people's lines between them, as an editor leaves it."""
    text = write_keys([OTHER, KEY])

    assert [key.key_id for key in read_keys(b"# a\n\n " + text + b"\r\n#")] == [
        OTHER.key_id,
        KEY.key_id,
    ]


@pytest.mark.parametrize("text", [b"", b"# only\n", b"AAEC\n", b"\xff\n", b"not a key"])
def test_what_is_no_key_is_not_repeated(text):
    """It may be the half of one."""
    with pytest.raises(ValueError, match="base64 of 32 bytes") as caught:
        read_keys(text)
    assert caught.value.__context__ is None
