"""What the disk does to the real daemon process and to its store, and what becomes of the logins.

What is expected of each is a row of docs/reliability.md, and stands beside its test.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from daemon_process import DaemonProcess
from fault_matrix import row
from forked_daemon import ForkedDaemon, ForkServer
from rotating import SOON, Rotating, SandboxBooks, rotating
from small_disk import SmallDisk
from system_calls import failing

from spotokend.errors import Unavailable
from spotokend.sandbox import Fault

PAGES = 8192
"""Bytes: room for an intent, and not for an answer as well."""
GONE_WITHIN = 5.0
"""Seconds for a SIGTERM while the disk is full."""


World = Rotating[SandboxBooks]

# ------------------------------------------------------------------------------ the daemon's disk


@pytest.fixture
def disk(small_disks: type[SmallDisk], short_path: Path) -> Iterator[SmallDisk]:
    """The disk that holds the store's folder."""
    place = short_path / "home" / ".local" / "state" / "spotokend"
    place.mkdir(parents=True)
    with small_disks(place) as disk:
        yield disk


@pytest.fixture
def world(disk: SmallDisk, short_path: Path) -> Iterator[World]:
    """A strict provider, a login of alice's, and the store on the small disk."""

    def on_it(folder: Path, config: str) -> DaemonProcess:
        daemon = DaemonProcess(folder, config)
        daemon.wrapper = disk.inside
        return daemon

    with rotating(short_path, {"alice": "strict"}, process=on_it) as world:
        world.folder = disk.path
        renew(world)
        yield world


@pytest.fixture
def plain_world(fork_server: ForkServer, short_path: Path) -> Iterator[World]:
    """The same on a disk like any other."""
    process = partial(ForkedDaemon, server=fork_server)
    with rotating(short_path, {"alice": "strict"}, process=process) as world:
        renew(world)
        yield world


def renew(world: World) -> int:
    """All is well: the generation."""
    before = world.ask("token", account="alice")["generation"]
    token = world.ask("refresh", account="alice")
    assert token["generation"] == before + 1
    assert world.status("alice")["durable"]
    assert world.provider.works(token["access_token"])
    return int(token["generation"])


def spilled(world: World) -> bool:
    """A copy lies beside the socket."""
    return (world.spill / "alice.spill").exists()


def become_unsaved(world: World) -> int:
    """Refresh, and have the answer refused by the disk; the generation, which is served."""
    before = world.ask("token", account="alice")["generation"]
    rotations = world.provider.rotations("alice")
    token = world.ask("refresh", account="alice")
    assert token["generation"] == before + 1
    served_from_memory(world, before + 1)
    assert world.provider.rotations("alice") == rotations + 1
    return int(before + 1)


@contextmanager
def redeemed(world: World) -> Iterator[None]:
    """A block in which a refresh token is used up, and the answer has not come yet."""
    rotations = world.provider.rotations("alice")
    world.provider.sandbox.provider.faults.add(Fault(kind="slow", seconds=2.0, count=1))
    with world.begin("refresh", account="alice"):
        # "refreshing" begins earlier, with the intent.
        world.until("alice", lambda _: world.provider.rotations("alice") > rotations)
        yield


def served_from_memory(world: World, generation: int) -> None:
    """The new token is served, said not to be durable, and nothing more is redeemed."""
    rotations = world.provider.rotations("alice")
    token = world.ask("token", account="alice")
    assert token["generation"] == generation
    assert world.provider.works(token["access_token"])
    status = world.status("alice")
    assert (status["state"], status["durable"]) == ("unsaved", False)
    with pytest.raises(Unavailable):
        world.ask("refresh", account="alice")
    assert world.provider.rotations("alice") == rotations


def saved(world: World, generation: int) -> None:
    """It is on the disk, without another request, and it is the living end of the family."""
    world.until("alice", lambda status: status["state"] == "fresh")
    token = world.ask("token", account="alice")
    assert token["generation"] == generation
    assert world.provider.works(token["access_token"])
    assert not spilled(world)
    renew(world)


def refused(world: World) -> str:
    """The words with which a start is refused."""
    said = len(world.daemon.written())
    process = world.daemon._launch("run", "--config", str(world.daemon.config))
    assert process.wait(SOON) == 2
    return world.daemon.written()[said:]


@row(
    "The disk with the store is full.",
    "Nothing is sent, since an answer could not be kept: the refresh token stays good. The token"
    " that there is is served to its end. Tried again by back-off; renewed by itself once there is"
    " room. The program ends at once when it is asked to.",
)
def test_on_a_full_disk_nothing_is_redeemed(world: World, disk: SmallDisk):
    """The disk takes writes before the server may rotate."""
    before = world.ask("token", account="alice")
    rotations = world.provider.rotations("alice")
    disk.fill()
    with pytest.raises(Unavailable, match=r"the store takes no writes: .*: the disk is full"):
        world.ask("refresh", account="alice")
    assert world.ask("token", account="alice")["access_token"] == before["access_token"]
    assert world.provider.rotations("alice") == rotations
    disk.make_room()
    world.until("alice", lambda status: status["state"] == "fresh")
    assert world.ask("token", account="alice")["generation"] == before["generation"] + 1
    disk.fill()
    begun = time.monotonic()
    assert world.daemon.terminate() == 0
    assert time.monotonic() - begun < GONE_WITHIN
    assert not spilled(world)


@row(
    "The disk gets full while the answer is on its way.",
    "The new token is served from memory; `status` says that it is not on disk. A sealed copy lies"
    " beside the socket. Nothing more is redeemed. Saved by itself once there is room.",
)
def test_an_answer_that_finds_the_disk_full_is_kept(world: World, disk: SmallDisk):
    """There was room for the intent, and then none for what came of it."""
    disk.fill(but=PAGES)
    generation = become_unsaved(world)
    assert spilled(world)
    disk.make_room()
    saved(world, generation)


@row(
    "The program is ended then, by SIGTERM or `kill -9`, and started again, the disk still full.",
    "SIGTERM takes seconds at most. The next start serves what the copy holds, and redeems"
    " nothing; saved once there is room.",
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda it: it.name)
def test_a_start_goes_on_with_the_copy_beside_the_socket(
    world: World, disk: SmallDisk, number: signal.Signals
):
    """The only copy of the successor survives the program, and two of its starts."""
    disk.fill(but=PAGES)
    generation = become_unsaved(world)
    assert spilled(world)
    os.kill(world.daemon.pid, number)
    assert world.daemon.wait(GONE_WITHIN) == (0 if number == signal.SIGTERM else -number)
    assert spilled(world)
    disk.fill()  # a daemon that ends in order gives some pages back
    world.daemon.start()
    served_from_memory(world, generation)
    assert spilled(world)
    disk.make_room()
    saved(world, generation)
    world.daemon.kill()
    world.daemon.start()
    renew(world)


@row(
    "No copy can be put beside the socket either.",
    "SIGTERM waits for room on one of them, and the log says so; the token is served meanwhile."
    " Then it is saved, and the program ends.",
)
def test_the_program_does_not_end_with_the_only_copy(world: World, disk: SmallDisk):
    """What is only in memory would end with it."""
    world.spill.touch()  # where the folder belongs: a file is in its way
    disk.fill(but=PAGES)
    generation = become_unsaved(world)
    assert "no copy could be put beside the socket" in world.status("alice")["reason"]
    os.kill(world.daemon.pid, signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        world.daemon.wait(1.0)
    assert world.ask("token", account="alice")["generation"] == generation
    assert "the end waits until alice can be kept" in world.daemon.written()
    disk.make_room()
    assert world.daemon.wait() == 0
    world.spill.unlink()
    world.daemon.start()
    saved(world, generation)


@row(
    "fsync fails (EIO) while the answer is written, and the program is killed.",
    "The next start serves the new token, whether it finds it in the store, beside the socket, or"
    " in both.",
)
@pytest.mark.usefixtures("strace")
def test_a_failed_fsync_and_a_kill(plain_world: World):
    """The kernel may have kept what it said it had not: the same answer is then saved twice."""
    world = plain_world
    before = world.ask("token", account="alice")["generation"]
    with redeemed(world), failing(world.daemon.pid, "EIO", "fdatasync", below=world.folder):
        world.until("alice", lambda status: status["failures"] > 0)
        served_from_memory(world, before + 1)
        world.daemon.kill()
    assert spilled(world)
    assert world.stored("alice").generation == before + 1  # it was kept, against its word
    world.daemon.start()
    saved(world, before + 1)


@row(
    "The disk refuses writes otherwise: it has become read-only, or a quota is reached.",
    "As if it were full, with what the system says.",
)
@pytest.mark.parametrize("error", ["EROFS", "EDQUOT", "EIO"])
@pytest.mark.usefixtures("strace")
def test_a_disk_that_refuses_writes(plain_world: World, error: str):
    """Nothing is sent, and it goes on by itself when writes are taken again."""
    world = plain_world
    generation = world.ask("token", account="alice")["generation"]
    rotations = world.provider.rotations("alice")
    with failing(world.daemon.pid, error, "pwrite64", below=world.folder):
        with pytest.raises(Unavailable, match="nothing was sent"):
            world.ask("refresh", account="alice")
        assert world.ask("token", account="alice")["generation"] == generation
    assert world.provider.rotations("alice") == rotations
    world.until("alice", lambda status: status["state"] == "fresh")
    assert world.ask("token", account="alice")["generation"] == generation + 1
    renew(world)


@row(
    "The disk is read-only, or the store's files are not to be opened, at a start.",
    "The start is refused with the place and the cure, and nothing is touched. It works once that"
    " is mended.",
)
def test_a_start_on_a_read_only_disk(world: World, disk: SmallDisk):
    """Nothing is made anew beside what is there."""
    generation = renew(world)
    assert world.daemon.terminate() == 0
    disk.remount("ro")
    assert "Read-only file system" in refused(world)
    disk.remount("rw")
    world.daemon.start()
    assert world.ask("token", account="alice")["generation"] == generation
    renew(world)


@pytest.fixture
def without_privileges() -> tuple[str, ...]:
    """What a command begins with so that rights of files hold for root, too."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("rights of files: setpriv is missing (Debian: util-linux)")
    passing = "-dac_override,-dac_read_search"
    return ("setpriv", f"--bounding-set={passing}", f"--inh-caps={passing}", "--")


def test_a_start_without_permission(short_path: Path, without_privileges: tuple[str, ...]):
    """The living daemon goes on with what it has open; a start says what it may not."""

    def unprivileged(folder: Path, config: str) -> DaemonProcess:
        daemon = DaemonProcess(folder, config)
        daemon.wrapper = without_privileges
        return daemon

    with rotating(short_path, {"alice": "strict"}, process=unprivileged) as world:
        renew(world)
        files = [world.folder / "store.sqlite3", world.folder / "key"]
        for file in files:
            file.chmod(0)
            generation = renew(world)
            world.daemon.kill()
            said = refused(world)
            assert str(file) in said
            assert "Permission denied" in said
            file.chmod(0o600)
            world.daemon.start()
            assert world.ask("token", account="alice")["generation"] == generation


@row(
    "No file more can be made (inodes).",
    "Refreshes go on. A start that needs one for the store's log is refused in words, and works"
    " once there is one.",
)
def test_no_inode_is_left(world: World, disk: SmallDisk):
    """What is open is enough to go on."""
    disk.use_up_inodes()
    generation = renew(world)
    assert world.daemon.terminate() == 0
    disk.use_up_inodes()
    assert "df -i" in refused(world)
    disk.make_room()
    world.daemon.start()
    assert world.ask("token", account="alice")["generation"] == generation
    renew(world)


@row(
    "The store's folder is moved away, or another file is put in the store's place, while it is in"
    " use.",
    "Noticed at the next write: as if the disk were full. What is put back is the store again.",
)
def test_a_store_that_is_moved_away_and_back(plain_world: World):
    """Before a refresh, nothing is redeemed; in the middle of one, its answer is kept."""
    world = plain_world
    generation = world.ask("token", account="alice")["generation"]
    rotations = world.provider.rotations("alice")
    away = world.folder.with_name("away")
    world.folder.rename(away)
    with pytest.raises(Unavailable, match="was moved, removed or replaced"):
        world.ask("refresh", account="alice")
    assert world.ask("token", account="alice")["generation"] == generation
    assert world.provider.rotations("alice") == rotations
    away.rename(world.folder)
    world.until("alice", lambda status: status["state"] == "fresh")
    generation = renew(world)

    with redeemed(world):
        world.folder.rename(away)
        world.until("alice", lambda status: status["failures"] > 0)
    served_from_memory(world, generation + 1)
    assert spilled(world)
    away.rename(world.folder)
    saved(world, generation + 1)


@row(
    "The store's folder is deleted while it is in use.",
    "The tokens that there are are served to their end; nothing more is redeemed. The program ends"
    " when it is asked to. The logins are gone, as they were deleted: log in again.",
)
def test_a_store_that_is_deleted(plain_world: World):
    """Whoever deletes logins means it; but nothing is redeemed into a file that nobody finds."""
    world = plain_world
    generation = world.ask("token", account="alice")["generation"]
    rotations = world.provider.rotations("alice")
    shutil.rmtree(world.folder)
    with pytest.raises(Unavailable, match="was moved, removed or replaced"):
        world.ask("refresh", account="alice")
    assert world.ask("token", account="alice")["generation"] == generation
    assert world.provider.rotations("alice") == rotations
    assert world.daemon.terminate() == 0
    world.daemon.start()
    assert world.status("alice")["state"] == "needs_login"
    world.log_in("alice")
    renew(world)
