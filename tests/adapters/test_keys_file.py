"""The key's file: made once, read by its owner alone, never replaced."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from spotokend.adapters.keys.file import load_or_create_key
from spotokend.errors import Misconfigured

VALUE = bytes(range(32))


@pytest.fixture
def path(tmp_path):
    """The key's file, in a folder that is still to be made."""
    return tmp_path / "spotokend" / "key"


def made(path):
    return load_or_create_key(
        str(path), store_is_empty=True, random_bytes=lambda size: VALUE[:size]
    )


def loaded(path):
    def never(size):
        raise AssertionError("a key was made")

    return load_or_create_key(str(path), store_is_empty=False, random_bytes=never)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_key_is_made_for_an_empty_store(path, umask):
    """For its owner alone, whatever the umask is, and nothing else is left beside it."""
    before = os.umask(umask)
    try:
        key = made(path)
    finally:
        os.umask(before)

    assert key.reveal() == VALUE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_it_is_the_same_key_ever_after(path):
    """Whether the store is empty or not."""
    key = made(path)

    assert loaded(path).reveal() == key.reveal()
    assert (
        load_or_create_key(str(path), store_is_empty=True, random_bytes=bytes).reveal()
        == key.reveal()
    )


def test_the_file_says_what_it_is(path):
    """For whoever wonders whether it may be deleted; and a line of base64."""
    made(path)
    heading, line = path.read_text(encoding="ascii").splitlines()

    assert heading.startswith("# The key to the logins in spotokend's store.")
    assert line == "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def test_a_missing_key_is_not_replaced_beside_a_store_in_use(path):
    """A new one would be the loss of all that the old one sealed."""
    with pytest.raises(Misconfigured, match=f"the key {path} is missing") as caught:
        loaded(path)
    assert f"restore {path} from a backup" in caught.value.hint
    assert "spotokend login" in caught.value.hint
    assert not path.parent.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(path, mode):
    """The cure names the command, and what to do if they have."""
    made(path)
    path.chmod(mode)

    with pytest.raises(Misconfigured, match="open to other users") as caught:
        loaded(path)
    assert caught.value.hint.startswith(f"chmod 600 {path}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a heading\n",
        "not base64!\n",
        "AAEC\n",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n" * 2,
        "\x00\xff" * 4000,
    ],
    ids=["empty", "heading", "garbage", "short", "unpadded", "two", "binary"],
)
def test_what_is_no_key_is_refused_and_left_alone(path, text):
    """Never overwritten, even beside an empty store: it may be the key to another one."""
    path.parent.mkdir()
    path.write_text(text, encoding="latin-1")
    path.chmod(0o600)

    with pytest.raises(Misconfigured, match=f"{path} holds no key: one line") as caught:
        made(path)
    assert f"restore {path}" in caught.value.hint
    assert path.read_text(encoding="latin-1") == text


def test_space_around_the_line_is_no_matter(path):
    """As an editor or a copy by hand leaves it."""
    path.parent.mkdir()
    path.write_text(
        "\n  AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8= \r\n\n# end", encoding="ascii"
    )
    path.chmod(0o400)

    assert loaded(path).reveal() == VALUE


def test_a_link_to_the_key_is_followed(path, tmp_path):
    """Whoever deploys keys often places them so; the file's own mode counts."""
    made(tmp_path / "deployed")
    path.parent.mkdir()
    path.symlink_to(tmp_path / "deployed")

    assert loaded(path).reveal() == VALUE


def test_a_link_to_nothing_is_not_replaced(path, tmp_path):
    """Something is to be mounted there, perhaps."""
    path.parent.mkdir()
    path.symlink_to(tmp_path / "nowhere")

    with pytest.raises(Misconfigured, match="No such file or directory"):
        made(path)
    assert list(path.parent.iterdir()) == [path]


def test_what_is_no_file_is_refused(path):
    """A FIFO, without waiting for its other end; a folder."""
    path.parent.mkdir()
    os.mkfifo(path, 0o600)
    with pytest.raises(Misconfigured, match="no regular file"):
        made(path)
    path.unlink()
    path.mkdir(0o700)
    with pytest.raises(Misconfigured, match="no regular file"):
        made(path)


def test_a_key_that_another_process_made_in_between_is_the_key(path):
    """It isn't replaced by the one at hand."""
    other = bytes(reversed(VALUE))

    def overtaken(size):
        load_or_create_key(str(path), store_is_empty=True, random_bytes=lambda _: other)
        return VALUE

    key = load_or_create_key(str(path), store_is_empty=True, random_bytes=overtaken)

    assert key.reveal() == loaded(path).reveal() == other
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_takes_no_file_says_so(path):
    """Here because it is a file itself."""
    Path(path.parent).write_text("in the way", encoding="ascii")

    with pytest.raises(Misconfigured, match="can't be used: Not a directory") as caught:
        made(path)
    assert "rights" in caught.value.hint
