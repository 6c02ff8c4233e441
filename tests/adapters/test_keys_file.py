"""The keys' file: read by its owner alone, and replaced only by one that goes on where it was."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from spotokend.adapters.keys.file import KeyFile
from spotokend.errors import Misconfigured
from spotokend.rules.sealing import SealingKey

VALUE = bytes(range(32))


@pytest.fixture
def path(tmp_path):
    """The key's file, in a folder that is still to be made."""
    return tmp_path / "spotokend" / "key"


def made(path, value=VALUE):
    """The key of a file that is made now."""
    file = KeyFile(str(path))
    assert file.read() == []
    file._save([SealingKey(value)])
    return loaded(path)


def loaded(path):
    (key,) = KeyFile(str(path)).read()
    return key


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


def test_there_is_no_key_where_there_is_no_file(path):
    """Whether one may be made is for whoever knows the store."""
    assert KeyFile(str(path)).read() == []
    assert not path.parent.exists()


def test_the_file_says_what_it_is(path):
    """For whoever wonders whether it may be deleted; and a line of base64."""
    made(path)
    heading, line = path.read_text(encoding="ascii").splitlines()

    assert heading.startswith("# The key to the logins in spotokend's store.")
    assert line == "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


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
        "\x00\xff" * 4000,
    ],
    ids=["empty", "heading", "garbage", "short", "unpadded", "binary"],
)
def test_what_is_no_key_is_refused_and_left_alone(path, text):
    """Never overwritten, even beside an empty store: it may be the key to another one."""
    path.parent.mkdir()
    path.write_text(text, encoding="latin-1")
    path.chmod(0o600)

    with pytest.raises(Misconfigured, match=f"{path} holds no key: lines") as caught:
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


def test_a_key_that_another_process_made_in_between_is_left(path):
    """It isn't replaced by the one at hand."""
    file = KeyFile(str(path))
    assert file.read() == []
    made(path, bytes(reversed(VALUE)))

    with pytest.raises(Misconfigured, match="changed by somebody else"):
        file._save([SealingKey(VALUE)])
    assert loaded(path).reveal() == bytes(reversed(VALUE))
    assert list(path.parent.iterdir()) == [path]


def test_even_at_the_last_moment_it_is_left(path, monkeypatch):
    """Between the look and the making."""
    file = KeyFile(str(path))
    file.read()
    link = os.link

    def overtaken(draft, name):
        monkeypatch.setattr(os, "link", link)
        made(path, bytes(reversed(VALUE)))
        link(draft, name)

    monkeypatch.setattr(os, "link", overtaken)
    file._save([SealingKey(VALUE)])

    assert loaded(path).reveal() == bytes(reversed(VALUE))
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.anyio
async def test_a_second_key_is_put_before_the_first_and_the_first_taken_away(path):
    """In one step each: whenever that is cut off, the keys are all there."""
    made(path)
    file = KeyFile(str(path))
    (old,) = await file.load()
    new = SealingKey(bytes(32))

    await file.save([new, old])
    assert [key.key_id for key in KeyFile(str(path)).read()] == [new.key_id, old.key_id]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await file.save([new])
    assert loaded(path).key_id == new.key_id
    assert list(path.parent.iterdir()) == [path]


def test_behind_a_link_the_file_is_replaced_and_not_the_link(path, tmp_path):
    """Else the next deployment would bring the old key back."""
    made(tmp_path / "deployed")
    path.parent.mkdir()
    path.symlink_to("../deployed")
    file = KeyFile(str(path))
    file._save([SealingKey(bytes(32)), *file.read()])

    assert path.is_symlink()
    assert len(KeyFile(str(tmp_path / "deployed")).read()) == 2


def test_a_folder_that_takes_no_file_says_so(path):
    """Here because it is a file itself."""
    Path(path.parent).write_text("in the way", encoding="ascii")

    with pytest.raises(Misconfigured, match="can't be used: Not a directory") as caught:
        made(path)
    assert "rights" in caught.value.hint
