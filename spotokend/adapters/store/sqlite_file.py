"""The file of the SQLite store: whose it is, what schema it has, and what to do if it is damaged.

:func:`open_database` returns a connection to a sound file of the newest schema, or says in words
why there can be none. On the way it never overwrites anything: what is damaged is kept under a
name that says when, what is upgraded is copied first, what somebody else wrote is left alone.

The folder is 0700 and each file 0600 from its first instant: SQLite gives ``-wal`` the mode of the
file it belongs to, and that one is made here.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
from contextlib import closing, suppress

from spotokend import paths

from .base import Damaged, StoreError
from .sqlite_damage import (
    create,
    finish_replacement,
    free_name,
    put_aside,
    replace_damaged,
    sync_folder,
)
from .sqlite_schema import STEPS, Steps, connect, examine, in_words, upgrade

MOUNTS = "/proc/self/mountinfo"

NETWORK_FILESYSTEMS = frozenset(
    (
        *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "glusterfs", "gfs2", "lustre"),
        *("ncpfs", "nfs", "nfs4", "ocfs2", "smb3", "smbfs"),
        *("fuse.ceph", "fuse.davfs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
    )
)
"""Where locks or fsync mean less than here: SQLite's documentation warns of WAL on all of them."""


def open_database(
    path: str, *, now: float, steps: Steps = STEPS
) -> tuple[sqlite3.Connection, list[str]]:
    """A connection to a sound file of the newest schema, and what had to be done for it, in words.

    ``now`` (Unix seconds) goes into the names of what is put aside.

    Raises:
        NewerSchema: a later version of this program wrote the file.
        StoreError: the place won't do, the file is another program's, or the disk refuses.
    """
    path = os.path.abspath(path)
    notes: list[str] = []
    with in_words(path):
        _prepare_folder(os.path.dirname(path))
        finish_replacement(path)
        if not os.path.lexists(path) and os.path.lexists(path + "-wal"):
            # Left by somebody who moved the file alone. SQLite would play it into the new one.
            name = put_aside(path, now)
            os.unlink(path + "-wal")
            notes.append(f"{path} is gone, its log was still there and is kept as {name}-wal")
        emptied = os.path.isfile(path) and os.path.getsize(path) == 0
        _own_files(path)
        if emptied and os.path.lexists(path + "-wal"):
            # SQLite would delete the log of an empty file.
            notes.append(_mend(path, f"{path} is damaged (it is empty)", now, steps))
        elif emptied:
            notes.append(f"{path} was empty: what was in it, if anything was, is lost")
        connection = connect(path)
        try:
            try:
                version = examine(connection, path, len(steps))
            except Damaged as error:
                notes.append(_mend(path, str(error), now, steps))
                # Not before: SQLite plays the log into a file that it closes, unless another file
                # has its name by then.
                connection.close()
                connection = connect(path)
                version = len(steps)
            if version < len(steps):
                if version:
                    name = _back_up(connection, path, version, now)
                    notes.append(
                        f"{path} was upgraded from schema {version}; before, it was {name}"
                    )
                upgrade(connection, version, steps)
            # No write-ahead log before the schema is known to be ours.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # an fsync for each transaction
        except BaseException:
            connection.close()
            raise
    return connection, notes


def network_filesystem(mountinfo: str, folder: str) -> str | None:
    """The type of the network file system that holds an absolute ``folder``; None: a local one.

    ``mountinfo`` is the text of /proc/self/mountinfo, see proc_pid_mountinfo(5).
    """
    longest, kind = "", ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        # White space and backslashes of the mount point are written in octal.
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split(" ")[4])
        inside = folder == point or folder.startswith(point.rstrip("/") + "/")
        # Of two at one place the later hides the earlier.
        if inside and len(point) >= len(longest):
            longest, kind = point, after.split(" ")[0]
    return kind if kind in NETWORK_FILESYSTEMS else None


def _mend(path: str, finding: str, now: float, steps: Steps) -> str:
    """Put the damaged file aside, and one with what can be read of it in its place; the note."""
    name = put_aside(path, now)
    saved, lost = replace_damaged(path, name, steps)
    return f"{finding}; it is kept as {name}, {saved} of its rows were carried over" + (
        f", {lost} can't be read" if lost else ""
    )


def _prepare_folder(folder: str) -> None:
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with suppress(FileNotFoundError), open(MOUNTS, encoding="utf-8", errors="replace") as mounts:
        kind = network_filesystem(mounts.read(), os.path.realpath(folder))
        if kind is not None:
            raise StoreError(
                f"{folder} lies on a network file system ({kind}), whose locks a store can't trust:"
                " name a file on a local disk under [store] path"
            )
    status = os.stat(folder)
    _check_owner(folder, status)
    if os.path.basename(folder) == paths.NAME:
        os.chmod(folder, 0o700)  # ours alone
    elif status.st_mode & 0o022:
        # One that holds other things too isn't ours to change.
        raise StoreError(
            f"{folder} can be written by others, who could replace the store: chmod go-w {folder}"
        )


def _own_files(path: str) -> None:
    # Before any connection: closing a descriptor drops the locks that SQLite has on the file.
    for name, flags in ((path, os.O_CREAT), (f"{path}-wal", 0)):
        if os.path.islink(name):
            raise StoreError(
                f"{name} is a symbolic link to {os.path.realpath(name)}: name that file itself"
                " under [store] path, so that its log lies beside it"
            )
        with suppress(FileNotFoundError):
            file = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
            try:
                status = os.fstat(file)
                if not stat.S_ISREG(status.st_mode):
                    raise StoreError(f"{name} is no regular file: move it away")
                _check_owner(name, status)
                os.fchmod(file, 0o600)
            finally:
                os.close(file)


def _check_owner(name: str, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise StoreError(
            f"{name} belongs to user {status.st_uid}, spotokend runs as {os.geteuid()}:"
            f" chown {os.geteuid()} {name}, or name another file under [store] path"
        )


def _back_up(connection: sqlite3.Connection, path: str, version: int, now: float) -> str:
    name = free_name(f"{path}.schema-{version}", now)
    create(name)
    try:
        with closing(sqlite3.connect(name)) as copy:
            connection.backup(copy)
    except BaseException:
        os.unlink(name)  # half a copy each start would fill what is left of the disk
        raise
    sync_folder(path)
    return name
