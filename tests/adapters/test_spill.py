"""Spill files: whole or not there, nobody else's for a moment, and never deleted for being odd."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat

import anyio
import pytest

from spotokend.adapters import spill
from spotokend.adapters.spill import SpillError, SpillFolder, Unusable

pytestmark = pytest.mark.anyio

NOW = 1_790_000_000.0
DATA = b"sealed-1 " * 100


@pytest.fixture
def path(tmp_path):
    """Where the folder is to be; there is none yet."""
    return tmp_path / "spotokend" / "spotokend.sock.unsaved"


@pytest.fixture
def folder(path):
    """Opens it."""
    return SpillFolder(str(path))


@pytest.fixture
def open_umask():
    """The most careless umask."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path) -> str:
    return oct(stat.S_IMODE(os.lstat(path).st_mode))


# --- there and back


async def test_what_is_written_is_read_listed_and_removed(folder, path):
    """The life of one answer."""
    assert await folder.accounts() == []
    await folder.write("main", DATA)
    await folder.write("alice", b"")
    assert await folder.accounts() == ["alice", "main"]
    assert await folder.read("main") == DATA
    assert await folder.read("alice") == b""
    await folder.remove("main")
    await folder.remove("main")
    assert await folder.accounts() == ["alice"]
    assert os.listdir(path) == ["alice.spill"]


async def test_the_newest_answer_wins(folder):
    """One file an account."""
    await folder.write("main", DATA)
    await folder.write("main", b"newer")
    assert await folder.read("main") == b"newer"


async def test_a_file_is_what_the_module_says(folder, path):
    """A line for people, the digest, the bytes: a later version must be able to read it."""
    await folder.write("main", DATA)
    whole = b"spotokend spill 1\n" + hashlib.sha256(DATA).digest() + DATA
    assert (path / "main.spill").read_bytes() == whole


async def test_names_that_look_like_its_own_are_names(folder):
    """An account may be called so; and a draft is no account."""
    names = ["main", "main.draft", "main.spill", "main.spill.damaged-20260101T000000Z"]
    for name in names:
        await folder.write(name, name.encode())
    assert await folder.accounts() == names
    for name in names:
        assert await folder.read(name) == name.encode()


# --- whose it is


@pytest.mark.usefixtures("open_umask")
async def test_nobody_else_can_read_it_not_even_for_a_moment(folder, path, monkeypatch):
    """Folder 0700, files 0600: also the draft, at its first fsync, whatever the umask."""
    seen = []
    fsync = os.fsync

    def looking(file):
        seen.extend(mode(entry) for entry in path.iterdir())
        fsync(file)

    monkeypatch.setattr(spill.os, "fsync", looking)
    await folder.write("main", DATA)
    assert set(seen) == {"0o600"}
    assert mode(path) == "0o700"


async def test_a_folder_that_others_could_look_into_is_closed(folder, path):
    """Somebody made it so, or an older version."""
    path.mkdir(parents=True)
    path.chmod(0o755)
    await folder.write("main", DATA)
    assert mode(path) == "0o700"


async def test_a_folder_that_went_with_all_above_it_is_made_again(folder, path):
    """The session ended, or somebody cleaned up; under the daemon's umask all of it is private."""
    await folder.write("main", DATA)
    shutil.rmtree(path.parent)
    assert await folder.accounts() == []
    before = os.umask(0o077)
    try:
        await folder.write("main", DATA)
    finally:
        os.umask(before)
    assert await folder.read("main") == DATA
    assert (mode(path.parent), mode(path)) == ("0o700", "0o700")


async def test_a_folder_of_somebody_else_is_neither_written_to_nor_read(folder, path, monkeypatch):
    """In /tmp anybody may have made it before us."""
    path.mkdir(parents=True)
    monkeypatch.setattr(spill.os, "geteuid", lambda: os.getuid() + 1)
    for call in (folder.write("main", DATA), folder.accounts()):
        with pytest.raises(SpillError, match="no folder of this user's"):
            await call
    assert list(path.iterdir()) == []


async def test_a_link_in_the_place_of_the_folder_is_not_followed(folder, path, tmp_path):
    """It leads to where somebody wants the answer to be."""
    path.parent.mkdir()
    path.symlink_to(tmp_path)
    with pytest.raises(SpillError, match="no folder of this user's"):
        await folder.write("main", DATA)
    assert not (tmp_path / "main.spill").exists()


# --- a disk that fails


@pytest.mark.parametrize("call", ["fsync", "rename"])
async def test_a_write_that_fails_leaves_the_older_answer_whole_and_no_draft(
    folder, path, monkeypatch, call
):
    """The words name the file and what the system said."""
    await folder.write("main", DATA)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spill.os, call, full)
    with pytest.raises(SpillError, match=r"main\.spill: No space left on device"):
        await folder.write("main", b"newer")
    assert os.listdir(path) == ["main.spill"]
    assert await folder.read("main") == DATA


async def test_a_folder_that_can_not_be_made_is_told(tmp_path):
    """The runtime folder is a file, for one."""
    (tmp_path / "run").write_text("")
    folder = SpillFolder(str(tmp_path / "run" / "socket.unsaved"))
    with pytest.raises(SpillError, match=r"socket\.unsaved: Not a directory"):
        await folder.write("main", DATA)
    with pytest.raises(SpillError, match="Not a directory"):
        await folder.accounts()


@pytest.mark.parametrize("there", [b"rubbish", b"another"], ids=["damaged", "another"])
async def test_what_does_not_read_as_it_was_written_does_not_count(
    folder, path, monkeypatch, there
):
    """A disk that takes everything and keeps something else."""
    rename = os.rename

    def lying(source, target):
        rename(source, target)
        whole = b"spotokend spill 1\n" + hashlib.sha256(b"another").digest() + there
        (path / "main.spill").write_bytes(whole)

    monkeypatch.setattr(spill.os, "rename", lying)
    with pytest.raises(SpillError, match=r"main\.spill"):
        await folder.write("main", DATA)


async def test_each_write_is_on_disk_before_it_counts(folder, monkeypatch):
    """fsync of the file before its name, of the folder after it."""
    done = []
    fsync, rename = os.fsync, os.rename

    def syncing(file):
        kind = "folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file"
        done.append(f"fsync {kind}")
        fsync(file)

    def renaming(source, target):
        done.append("rename")
        rename(source, target)

    await folder.write("main", DATA)
    monkeypatch.setattr(spill.os, "fsync", syncing)
    monkeypatch.setattr(spill.os, "rename", renaming)
    await folder.write("main", DATA)
    assert done[-3:] == ["fsync file", "rename", "fsync folder"]


async def test_what_a_killed_process_left_half_written_is_no_answer(folder, path):
    """It had not been promised to anybody; the next start removes it, and the next write, too."""
    await folder.write("main", DATA)
    (path / "alice.draft").write_bytes(b"spotokend spi")
    await folder.write("alice", DATA)
    (path / "bob.draft").write_bytes(b"spotokend spi")
    assert await folder.accounts() == ["alice", "main"]
    assert sorted(os.listdir(path)) == ["alice.spill", "main.spill"]


async def test_a_caller_that_goes_away_cancels_nothing(folder):
    """What was begun is carried to its end."""
    with anyio.move_on_after(0):
        await folder.write("main", DATA)
    assert await folder.read("main") == DATA


# --- what can't be used


async def test_each_cut_and_each_flipped_bit_is_noticed(folder, path):
    """Nothing but what was written passes for it."""
    await folder.write("main", b"sealed-1")
    whole = (path / "main.spill").read_bytes()
    for at in range(len(whole)):
        flipped = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        for harmed in (whole[:at], flipped):
            (path / "main.spill").write_bytes(harmed)
            with pytest.raises(Unusable) as refused:
                await folder.read("main")
            assert refused.value.why in {"damaged", "version"}


async def test_a_newer_version_is_named_as_what_it_is(folder, path):
    """It is no damage: that version can still read it."""
    path.mkdir(parents=True)
    (path / "main.spill").write_bytes(b"spotokend spill 2\nsomething else")
    with pytest.raises(Unusable, match="another version") as refused:
        await folder.read("main")
    assert refused.value.why == "version"


async def test_what_is_no_file_is_no_answer_and_blocks_nobody(folder, path, tmp_path):
    """A pipe that nobody writes to, a link, nothing at all."""
    path.mkdir(parents=True)
    os.mkfifo(path / "main.spill")
    with anyio.fail_after(10):
        with pytest.raises(Unusable):
            await folder.read("main")
    (tmp_path / "elsewhere").write_bytes(b"spotokend spill 1\n")
    (path / "alice.spill").symlink_to(tmp_path / "elsewhere")
    for name in ("alice", "bob"):
        with pytest.raises(SpillError, match=rf"{name}\.spill"):
            await folder.read(name)


async def test_what_is_put_aside_stays_under_a_name_that_says_why_and_when(folder, path):
    """And never over another that was put aside before."""
    names = []
    for number in range(3):
        await folder.write("main", str(number).encode())
        names.append(await folder.put_aside("main", "damaged", now=NOW))
    stem = str(path / "main.spill.damaged-20260921T141320Z")
    assert names == [stem, f"{stem}-1", f"{stem}-2"]
    kept = [path / os.path.basename(name) for name in names]
    assert [file.read_bytes()[-1:] for file in kept] == [b"0", b"1", b"2"]
    assert await folder.accounts() == []
    with pytest.raises(SpillError):
        await folder.put_aside("main", "damaged", now=NOW)
