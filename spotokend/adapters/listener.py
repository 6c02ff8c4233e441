"""The listening Unix socket: nobody else's for a moment, and never taken from a living daemon.

Where systemd holds it (sd_listen_fds(3)) it is the one that was passed, which stays when the daemon
ends: clients wait in line for the next one. Else the daemon makes its own, and the caller holds the
daemon's lock: between the probe and what follows nobody else does the same.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator, MutableMapping

from spotokend import paths
from spotokend.errors import Misconfigured, SpotokendError

PATH_LIMIT = 107
"""Bytes of a socket's path: ``sun_path`` has 108, and one is the final zero (unix(7))."""

BACKLOG = 4096
"""Clients that wait to be accepted; more are told EAGAIN. A script may start hundreds at once."""

_CURE = "set [daemon] socket or $SPOTOKEND_SOCK to another path"


_FIRST_PASSED = 3
# SD_LISTEN_FDS_START: they follow the three that every process has.
_PASSED = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class AlreadyListening(Misconfigured):
    """Somebody answers at the path. ``pid`` is who listens there, 0 if that can't be seen."""

    def __init__(self, path: str, pid: int) -> None:
        whose = f"process {pid}" if pid else "another process"
        super().__init__(
            f"{whose} already listens at {path}",
            hint=f"use the daemon that runs, end it with 'spotokend stop', or {_CURE}",
        )
        self.pid = pid


def passed(environ: MutableMapping[str, str]) -> socket.socket | None:
    """The listening socket that systemd has passed to this process; None where it passed none.

    Of several it is the one named "spotokend" (``FileDescriptorName=``). The variables are taken
    out of ``environ``, and no descriptor is left to children.

    Raises:
        Misconfigured: what was passed is no Unix stream socket that listens at a path.
    """
    pid, count, names = (environ.pop(name, "") for name in _PASSED)
    # The variables may be an ancestor's, which had a shell between itself and us.
    if pid != str(os.getpid()) or not count.isdigit() or not int(count):
        return None
    descriptors = range(_FIRST_PASSED, _FIRST_PASSED + int(count))
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    named = dict(zip(names.split(":"), descriptors, strict=False))
    listener = socket.socket(fileno=named.get(paths.NAME, _FIRST_PASSED))
    if not _listens_at_a_path(listener):
        raise Misconfigured(
            "what systemd passed is no Unix socket that listens at a path",
            hint="the socket unit needs ListenStream= with a path: spotokend service install",
        )
    listener.setblocking(False)
    return listener


@contextlib.contextmanager
def listening(path: str, held: socket.socket | None) -> Iterator[socket.socket]:
    """The socket to serve: ``held`` by systemd, which listens on after us, or one at ``path``.

    What is made here is removed in the end.

    Raises:
        AlreadyListening, Misconfigured: as :func:`bind`.
    """
    with bind(path) if held is None else held.dup() as listener:
        try:
            yield listener
        finally:
            listener.close()  # where nothing was served: one that lives isn't removed
            if held is None:
                remove(path)


def bind(path: str) -> socket.socket:
    """A socket that listens at ``path``: mode 0600 from its first instant, in a folder of ours.

    A missing folder is made with mode 0700. What a dead daemon left behind is removed.

    Raises:
        AlreadyListening: a living process has the path.
        Misconfigured: no socket can be made there; the message says why.
    """
    if len(os.fsencode(path)) > PATH_LIMIT:
        raise Misconfigured(
            f"the path of the socket has {len(os.fsencode(path))} bytes, and the system allows "
            f"{PATH_LIMIT}: {path}",
            hint=f"{_CURE}, a shorter one",
        )
    try:
        _prepare_folder(os.path.dirname(path) or ".")
        _remove_stale(path)
        return _listen(path)
    except OSError as error:
        raise Misconfigured(
            f"no socket can be made at {path}: {error.strerror}", hint=_CURE
        ) from error


def remove(path: str) -> None:
    """Remove what a closed listener left at ``path``; another's living socket stays."""
    with contextlib.suppress(OSError, SpotokendError):
        _remove_stale(path)


def _listens_at_a_path(listener: socket.socket) -> bool:
    return (
        (listener.family, listener.type) == (socket.AF_UNIX, socket.SOCK_STREAM)
        and bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        and os.path.isabs(listener.getsockname())  # an abstract one is bytes that begin with zero
    )


def _prepare_folder(folder: str) -> None:
    # Under this umask the folders in between are private too: makedirs' mode is the last one's only.
    umask = os.umask(0o077)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    finally:
        os.umask(umask)
    status = os.stat(folder)
    if os.path.basename(folder) == paths.NAME and status.st_uid == os.geteuid():
        # Made by a unit file or an installer with a wider mode. A folder of another name may be
        # the user's home: its mode is not ours to change.
        os.chmod(folder, 0o700)
    elif status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise Misconfigured(
            f"everybody can write in {folder}: any user could put another socket in place of ours",
            hint=f"chmod o-w {folder}, or {_CURE}",
        )


def _remove_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Misconfigured(f"{path} is there already and is no socket", hint=_CURE)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A listener whose backlog is full would let a blocking connect wait for ever.
        probe.setblocking(False)
        outcome = probe.connect_ex(path)
        if outcome == errno.ECONNREFUSED:
            os.unlink(path)
        elif outcome == 0:
            raise AlreadyListening(path, _listening_pid(probe))
        elif outcome in (errno.EAGAIN, errno.EPROTOTYPE):
            # Its backlog is full, or it is a socket of another type: alive in either case.
            raise AlreadyListening(path, 0)
        elif outcome != errno.ENOENT:
            raise OSError(outcome, os.strerror(outcome))


def _listening_pid(connected: socket.socket) -> int:
    # The credentials are those of the process that called listen(2).
    size = struct.calcsize("i")
    (pid,) = struct.unpack("i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(pid)


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        umask = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(umask)
        listener.setblocking(False)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
