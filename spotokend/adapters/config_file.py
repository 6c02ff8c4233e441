"""The configuration file on disk: read whole and checked, or made once and never edited."""

from __future__ import annotations

import os
import shlex
import stat
import tempfile
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType

from spotokend.errors import Misconfigured
from spotokend.rules.config.parse import parse
from spotokend.rules.config.values import ClientConfig, Config, KeyKind, KeySource, SourceKind

LIMIT = 1024 * 1024
"""Bytes. A thousand accounts take a tenth of it; what is larger is some other file."""


def read_config(path: str) -> Config:
    """The configuration in the file, its paths absolute.

    Relative ones begin at the file's folder, those with ``~/`` at the user's home.

    :raises Misconfigured: it can't be read, isn't right, or shows a secret to other users
    """
    data, mode = _read(path)
    config = parse(_decoded(data, path), source=path)
    bare = [client.name for client in config.clients.values() if _holds_secret(client)]
    if bare and mode & 0o077:
        raise Misconfigured(
            f"{path} holds the client secret of {', '.join(bare)}, and others than its owner may "
            f"read it (mode {mode:04o})",
            hint=f"chmod 600 {shlex.quote(path)}",
        )
    return _anchored(config, os.path.dirname(os.path.abspath(path)))


def check_place(path: str) -> None:
    """Whether a first configuration could be written there, before anybody is asked about it.

    :raises Misconfigured: as :func:`write_new_config`, which has the last word
    """
    if os.path.lexists(path):
        raise _taken(path)
    folder = os.path.dirname(os.path.abspath(path))
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unwritable(path, f"{folder} takes no new files")


def write_new_config(path: str, text: str) -> None:
    """Make the file, whole or not at all, readable by its owner alone; its folder too if missing.

    :raises Misconfigured: there is one already, which is left as it is; or it can't be written
    """
    folder = os.path.dirname(os.path.abspath(path))
    try:
        umask = os.umask(0o077)  # makedirs' mode is the last folder's only
        try:
            os.makedirs(folder, exist_ok=True)
        finally:
            os.umask(umask)
        # mkstemp makes files of mode 0600, from their first instant.
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".config-")
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            # link() fails where the name is taken; rename() would replace what is there.
            os.link(temporary, path)
        except FileExistsError:
            raise _taken(path) from None
        finally:
            os.unlink(temporary)
        _sync_folder(folder)
    except OSError as error:
        raise _unwritable(path, error.strerror) from None


def _taken(path: str) -> Misconfigured:
    return Misconfigured(
        f"{path} exists already and is left as it is", hint="edit that file, or move it away first"
    )


def _unwritable(path: str, reason: str | None) -> Misconfigured:
    return Misconfigured(
        f"{path} can't be written: {reason}",
        hint="make the folder writable, or name another place with $SPOTOKEND_CONFIG",
    )


def _read(path: str) -> tuple[bytes, int]:
    """Contents and permission bits, of one and the same file."""
    other = "name the file: spotokend run --config FILE"
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise Misconfigured(f"{path} is no regular file", hint=other)
            data = file.read(LIMIT + 1)
    except IsADirectoryError:
        raise Misconfigured(f"{path} is a folder", hint=other) from None
    except FileNotFoundError:
        dangling = os.path.islink(path)
        raise Misconfigured(
            f"there is no configuration at {path}{', which links to nothing' if dangling else ''}",
            hint=f"{'remove the link, then ' if dangling else ''}make one: spotokend login, which "
            "asks for all it takes (spotokend config init: without logging in)",
        ) from None
    except OSError as error:
        raise Misconfigured(
            f"{path} can't be read: {error.strerror}",
            hint=f"see who may: ls -l {shlex.quote(path)}",
        ) from None
    if len(data) > LIMIT:
        raise Misconfigured(
            f"{path} is larger than {LIMIT // 1024} KiB, and so hardly a configuration", hint=other
        )
    return data, stat.S_IMODE(mode)


def _without_waiting(path: str, flags: int) -> int:
    # Opening a named pipe would wait for its other end.
    return os.open(path, flags | os.O_NONBLOCK)


def _decoded(data: bytes, path: str) -> str:
    try:
        # With the byte order mark that some editors put before UTF-8.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
    # Outside of the handler: that exception holds the whole file, with its secrets.
    raise Misconfigured(
        f"{path}:{line}: this isn't UTF-8", hint="save the file as UTF-8 in your editor"
    )


def _holds_secret(client: ClientConfig) -> bool:
    return client.client_secret is not None and client.client_secret.kind is SourceKind.LITERAL


def _anchored(config: Config, folder: str) -> Config:
    """The same with absolute paths: the daemon's own folder means nothing to the file's author."""

    def anchor(path: str | None) -> str | None:
        return None if path is None else os.path.join(folder, os.path.expanduser(path))

    def anchored(client: ClientConfig) -> ClientConfig:
        source = client.client_secret
        if source is None or source.kind is not SourceKind.FILE:
            return client
        path = os.path.join(folder, os.path.expanduser(str(source.value)))
        return replace(client, client_secret=replace(source, value=path))

    def anchored_key() -> KeySource | None:
        key = config.store.key
        if key is None or key.kind is not KeyKind.FILE:
            return key
        return replace(key, value=os.path.join(folder, os.path.expanduser(str(key.value))))

    return replace(
        config,
        daemon=replace(config.daemon, socket=anchor(config.daemon.socket)),
        store=replace(config.store, path=anchor(config.store.path), key=anchored_key()),
        clients=MappingProxyType(
            {name: anchored(client) for name, client in config.clients.items()}
        ),
    )


def _sync_folder(folder: str) -> None:
    """Make the new name durable, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
