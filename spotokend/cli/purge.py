"""What spotokend has put on this disk, and its removal: ``spotokend service uninstall --purge``.

Three laws keep everybody else's files safe:

- In a folder of ours, one called ``spotokend`` or the unit's own, the names that we give are
  enough. Anywhere else only the configuration's word makes a file ours, and that may be a slip of
  the pen: there the content must be ours, too.
- A symbolic link goes as a link. What it leads to was put there by somebody for a reason that we
  don't know, another disk or a repository of dotfiles: it is named, and stays.
- Only what belongs to this user goes, and of that only regular files, links, dead sockets and
  folders that are empty then.

Looking changes nothing; an :class:`Inventory` can be shown before it is acted on.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from .. import calls, paths
from ..adapters.config_file import read_config
from ..adapters.keys.file import KeyFile
from ..adapters.keys.passphrase import read_wrapped
from ..adapters.peercred import read_peer
from ..adapters.store.sqlite_schema import APPLICATION_ID
from ..adapters.systemd import UNITS
from ..errors import DaemonNotRunning, Forbidden, Misconfigured
from ..rules.config.values import Config, KeyKind, SourceKind
from ..service.places import WRAPPED, place_of_key

_UNIT_NAMES = "|".join(re.escape(unit) for unit in UNITS)
_UNIT_FILE = re.compile(rf"(?:{_UNIT_NAMES})|\.(?:{_UNIT_NAMES})\.\d+")
_DROP_IN = re.compile(r".+\.conf|\..+\.conf\.\d+")
# Of a file that is made under another name first, by a process that was killed meanwhile.
_CONFIG_DRAFT = re.compile(r"\.config-[a-z0-9_]{8}")
_KEY_DRAFT = re.compile(r"\.key-[a-z0-9_]{8}")
_AFTER_STORE = (  # its name: lock, log, half a repair, what was put aside, and SQLite's own files
    r"(\.lock|\.log(\.1)?|(\.salvaged|\.salvaging(-copy)?|\.(schema-\d+|damaged)-\d{8}T\d{6}Z(-\d+)?)?"
    r"(-wal|-shm|-journal)?)"
)
_SPILL = re.compile(r".+\.(draft|spill(\.[a-z-]+-\d{8}T\d{6}Z(-\d+)?)?)")
_REMINDER = re.compile(r".+\.reminded")
_REMOVABLE = {"regular file": (stat.S_IFREG, stat.S_IFLNK), "socket": (stat.S_IFSOCK,)}


class World(NamedTuple):
    """What decides where a process of ours has its files."""

    environ: Mapping[str, str]
    folder: str
    """The one in which it was started: relative paths begin here."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """All that is ours, and what is beside it."""

    files: list[str] = field(default_factory=list)
    """To be removed, in this order: the configuration, which names other places, comes last."""
    folders: list[str] = field(default_factory=list)
    """To be removed after the files, which leave them empty: the inner ones first."""
    left: dict[str, str] = field(default_factory=dict)
    """What stays, and why."""
    unread: dict[str, str] = field(default_factory=dict)
    """Where nobody can say what is there, and why."""
    notes: dict[str, str] = field(default_factory=dict)
    """What to know about the search itself, by the configuration that it concerns."""
    locks: set[str] = field(default_factory=set)
    sockets: set[str] = field(default_factory=set)
    """By which a daemon that runs can be seen; neither need exist."""


def take_inventory(unit_dir: str, worlds: Iterable[World]) -> Inventory:
    """Look for everything of ours: the unit's, and that of daemons started in these worlds."""
    search = _Search()
    search.unit(unit_dir)
    for world in worlds:
        search.world(world)
    return search.result()


@contextmanager
def nobody_running(inventory: Inventory) -> Iterator[None]:
    """A block in which no daemon runs on these files, nor starts: the locks are ours meanwhile.

    Raises:
        Misconfigured: one runs already; names its process where that can be seen.
    """
    with ExitStack() as held:
        for path in sorted(inventory.locks):
            # As in adapters.lockfile, but the file is neither made nor written to.
            try:
                file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                continue  # there is none; or it is told as what can't be removed
            held.callback(os.close, file)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(file, 32).strip()
                raise _running(int(holder) if holder.isdigit() else 0, path) from None
        for path in sorted(inventory.sockets):
            pid = listening_process(path)
            if pid is not None:
                raise _running(pid, path)
        yield


def remove(inventory: Inventory) -> tuple[list[str], dict[str, str]]:
    """Remove it all, as far as that goes: what was removed; what could not be, and why."""
    removed: list[str] = []
    refused = dict(inventory.unread)
    for act, names in ((os.unlink, inventory.files), (os.rmdir, inventory.folders)):
        for path in names:
            try:
                act(path)
            except FileNotFoundError:
                continue  # somebody else was quicker
            except OSError as error:
                # A folder in which something stayed has been told with that.
                if not any(_inside(name, path) for name in refused):
                    refused[path] = str(error.strerror)
                continue
            removed.append(path)
    return removed, refused


def _running(pid: int, path: str) -> Misconfigured:
    who = f"process {pid}" if pid else "a process that can't be seen from here"
    kill = f"; if that doesn't reach it: kill {pid}" if pid else ""
    return Misconfigured(
        f"a daemon runs ({who}) and uses {path}: nothing has been removed",
        hint=f"spotokend stop{kill}",
    )


def listening_process(path: str) -> int | None:
    """The process that listens there, 0 if it can't be seen; None: nobody of this user's does."""
    try:
        with calls.open_socket(path, known=False) as connection:
            return read_peer(connection).pid
    except calls.Lost:  # alive, and too busy to answer
        return 0
    except (DaemonNotRunning, Forbidden, Misconfigured):
        return None


class _Search:
    """First it is told where things may be; then :meth:`result` looks there."""

    def __init__(self) -> None:
        self._found = Inventory()
        self._names: list[tuple[str, re.Pattern[str]]] = []
        """Which names in which folders are ours."""
        self._configs: list[tuple[str, re.Pattern[str]]] = []
        self._folders: dict[str, bool] = {}
        """Those that go if they are empty then; True: all that is in them should be ours."""

    def unit(self, folder: str) -> None:
        """The units, the drop-ins to them, and the links that enable them."""
        self._names.append((folder, _UNIT_FILE))
        for unit in UNITS:
            drop_ins = os.path.join(folder, f"{unit}.d")
            self._names.append((drop_ins, _DROP_IN))
            self._folders[drop_ins] = True
        for name in self._listed(folder):
            links = os.path.join(folder, name)
            enabled = name.endswith((".wants", ".requires")) and self._listed(links)
            if enabled and not set(UNITS).isdisjoint(enabled):
                self._names.append((links, _UNIT_FILE))
                self._folders[links] = False

    def world(self, world: World) -> None:
        """Everything else: at the usual places, and where the configuration names another."""
        state = paths.state_dir(world.environ)
        runtime = os.path.join(state, "run")  # without $XDG_RUNTIME_DIR
        usual = paths.config_path({**world.environ, "SPOTOKEND_CONFIG": ""})
        store = os.path.join(state, "store.sqlite3")
        sockets = [
            paths.socket_path(world.environ),
            os.path.join(paths.runtime_dir(world.environ), f"{paths.NAME}.sock"),
            os.path.join(runtime, f"{paths.NAME}.sock"),
        ]
        for folder in (runtime, os.path.dirname(usual)):
            self._folders[folder] = True
        self._names.append((paths.runtime_dir(world.environ), _REMINDER))
        self._store(store)
        self._key(os.path.join(state, "key"), _no_key)
        self._key(os.path.join(state, WRAPPED), _no_wrapped)
        config = self._config(_absolute(world, paths.config_path(world.environ)))
        if config is not None:
            store = _absolute(world, config.store.path or store)
            key = config.store.key
            named = str(key.value) if key is not None and key.kind is KeyKind.FILE else None
            beside = os.path.join(os.path.dirname(store), "key")
            self._store(store)
            self._key(_absolute(world, named or beside), _no_key)
            self._key(os.path.join(os.path.dirname(store), WRAPPED), _no_wrapped)
            self._kept_elsewhere(config)
            sockets += filter(None, [config.daemon.socket])
            self._client_secrets(config)
        for path in sockets:
            self._socket(_absolute(world, path))

    def result(self) -> Inventory:
        """Look at all those places."""
        found = self._found
        links = [folder for folder in self._folders if os.path.islink(folder)]
        for folder in links:
            self._classify(folder)
        for folder, pattern in self._names + self._configs:
            if not any(_inside(folder, link) for link in links):
                for name in filter(pattern.fullmatch, self._listed(folder)):
                    self._classify(os.path.join(folder, name))
        for folder in sorted(self._folders, key=len, reverse=True):
            if os.path.isdir(folder) and not any(_inside(folder, link) for link in links):
                self._classify_folder(folder)
        for path in filter(os.path.islink, found.files):
            target = os.path.realpath(path)
            # Not what a masked unit leads to, /dev/null.
            if target not in found.files and (os.path.isfile(target) or os.path.isdir(target)):
                found.left[target] = f"{path} was a link to it; see what is in it"
        return found

    def _store(self, path: str) -> None:
        if self._ours(path, _no_store):
            folder, name = os.path.split(path)
            self._names.append((folder, re.compile(re.escape(name) + _AFTER_STORE)))
            # By its one true name: taken twice, a lock is refused the second time.
            self._found.locks.add(os.path.join(os.path.realpath(folder), f"{name}.lock"))

    def _key(self, path: str, objection: Callable[[str], str | None]) -> None:
        if self._ours(path, objection):
            self._names.append(_exactly(path))
        if self._at_home(path):
            self._names.append((os.path.dirname(path), _KEY_DRAFT))

    def _kept_elsewhere(self, config: Config) -> None:
        """Of what is in no file of ours it is told where it is."""
        key = config.store.key
        if key is not None and key.kind in {KeyKind.KEYRING, KeyKind.CREDENTIAL}:
            place = place_of_key(config)
            self._found.left[place.name] = f"yours to remove: {place.removal}"

    def _socket(self, path: str) -> None:
        self._at_home(path)  # elsewhere too: it is enough that it is a socket, and dead
        unsaved = paths.unsaved_dir(path)
        self._names += [_exactly(path), _exactly(f"{path}.pid"), (unsaved, _SPILL)]
        self._folders[unsaved] = True
        self._found.sockets.add(path)

    def _config(self, path: str) -> Config | None:
        if self._ours(path, _no_config):
            self._configs.append(_exactly(path))
        if self._at_home(path):
            self._configs.append((os.path.dirname(path), _CONFIG_DRAFT))
        try:
            return read_config(path)
        except Misconfigured as error:
            if os.path.lexists(path):
                self._found.notes[path] = (
                    "The configuration can't be used, so only the usual places are looked at, and "
                    f"none that it may name: {error.message}"
                )
            return None

    def _client_secrets(self, config: Config) -> None:
        for client in config.clients.values():
            source = client.client_secret
            if source is not None and source.kind is SourceKind.FILE:
                path = str(source.value)
                if os.path.lexists(path):
                    self._found.left[path] = f"the client secret of {client.name} is your own file"

    def _ours(self, path: str, objection: Callable[[str], str | None]) -> bool:
        """Whether the file may be removed for its place; if not, for what is in it."""
        if self._at_home(path):
            return True
        words = objection(path)
        if words is not None and os.path.lexists(path):
            self._found.left[path] = words
        return words is None

    def _at_home(self, path: str) -> bool:
        """Whether the file's folder is ours, which is looked through then."""
        folder = os.path.dirname(path)
        if os.path.basename(folder) == paths.NAME:  # the rule by which the daemon sets its mode
            self._folders[folder] = True
        return folder in self._folders

    def _listed(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            if not any(_inside(folder, outer) for outer in self._found.unread):
                self._found.unread[folder] = str(error.strerror)
            return []

    def _classify(self, path: str) -> None:
        found = self._found
        if path in found.files or path in found.left:
            return
        try:
            status = os.lstat(path)
        except OSError as error:
            found.unread[path] = str(error.strerror)
            return
        expected = "socket" if path in found.sockets else "regular file"
        if status.st_uid != os.geteuid():
            found.left[path] = f"it belongs to user {status.st_uid}"
        elif stat.S_IFMT(status.st_mode) in _REMOVABLE[expected]:
            found.files.append(path)
        else:
            found.left[path] = f"it is no {expected}"

    def _classify_folder(self, folder: str) -> None:
        found = self._found
        inside = [os.path.join(folder, name) for name in self._listed(folder)]
        guests = [path for path in inside if path not in (*found.files, *found.folders)]
        if os.stat(folder).st_uid != os.geteuid():
            found.left[folder] = f"it belongs to user {os.stat(folder).st_uid}"
        elif not guests and folder not in found.unread:
            found.folders.append(folder)
        elif self._folders[folder]:
            for path in guests:
                if path not in found.unread and path not in self._folders:
                    found.left.setdefault(path, "spotokend doesn't use it")


def _exactly(path: str) -> tuple[str, re.Pattern[str]]:
    return os.path.dirname(path), re.compile(re.escape(os.path.basename(path)))


def _absolute(world: World, path: str) -> str:
    folder, name = os.path.split(os.path.join(world.folder, path))
    # Behind a link, .. is the folder above what the link leads to: abspath doesn't know that.
    settled = os.path.realpath if os.pardir in folder.split(os.sep) else os.path.abspath
    return os.path.join(settled(folder), name)


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + os.sep)


def _no_config(path: str) -> str | None:
    try:
        read_config(path)
    except Misconfigured:
        return "it is no configuration that spotokend could use"
    return None


def _no_key(path: str) -> str | None:
    with suppress(Misconfigured):
        if KeyFile(path).read():
            return None
    return "it is no key that spotokend could use"


def _no_wrapped(path: str) -> str | None:
    with suppress(Misconfigured):
        if read_wrapped(path) is not None:
            return None
    return "it is no file with keys under a passphrase of spotokend's"


def _no_store(path: str) -> str | None:
    head = _beginning(path, 72)
    # The application's mark in SQLite's header: https://sqlite.org/fileformat.html, 1.3.
    if head == b"" or (head and head[68:] == APPLICATION_ID.to_bytes(4, "big")):
        return None
    if head is None and (_beginning(path + ".lock", 32) or b"-").strip().isdigit():
        return None  # removed by hand, and the rest of the family is still there
    return "it is no store of spotokend's, nor what is called alike beside it"


def _beginning(path: str, size: int) -> bytes | None:
    """The first bytes of a file; None where they can't be read. A FIFO isn't waited for."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as f:
            return f.read(size)
    except OSError:
        return None
