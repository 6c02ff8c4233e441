"""A client secret from where the configuration says it is: read when needed, never kept here."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
from collections.abc import Collection, Mapping
from contextlib import closing
from functools import partial

from spotokend.errors import Locked, Misconfigured
from spotokend.rules.config.values import Config, SecretSource, SourceKind
from spotokend.rules.secret import Secret

COMMAND_TIMEOUT = 10.0
"""Seconds. A password manager that asks its user takes longer: unlock it before."""

_LIMIT = 64 * 1024
_SHOWN = 200
# RFC 6749, appendix A.2: VSCHAR.
_VSCHARS = re.compile(r"[\x20-\x7e]+")


def read_secrets(
    config: Config, known: Mapping[str, Secret | None] | None = None
) -> dict[str, Secret | None]:
    """The client secrets, each from its source, by client; None where a client has none.

    Where a keyring is closed it is what is ``known``, else None: the caller reads it again later.

    :raises Misconfigured: as :func:`read_secret`
    """
    found: dict[str, Secret | None] = {}
    withheld = secret_variables(config)
    for name, client in config.clients.items():
        found[name] = None
        if client.client_secret is not None:
            try:
                found[name] = read_secret(
                    client.client_secret, place=place_of(name), withheld=withheld
                )
            except Locked:
                found[name] = (known or {}).get(name)
    return found


def place_of(client: str) -> str:
    """The key of the configuration that names the source."""
    return f"clients.{client}.client_secret"


def secret_variables(config: Config) -> frozenset[str]:
    """Variables of the environment that hold secrets: no command is to inherit them."""
    sources = (client.client_secret for client in config.clients.values())
    return frozenset(
        str(source.value) for source in sources if source and source.kind is SourceKind.ENV
    )


def read_secret(source: SecretSource, *, place: str, withheld: Collection[str] = ()) -> Secret:
    """The secret; blocks, for a command or a keyring up to :data:`COMMAND_TIMEOUT`.

    ``place`` is the key that names the source, such as ``clients.spotify.client_secret``;
    ``withheld`` are the variables of the environment that a command doesn't get.

    :raises Misconfigured: it can't be had, is empty, or is no secret; names the place and the cure
    :raises Locked: the keyring that has it is closed, or isn't there yet
    """
    value = source.value
    if isinstance(value, Secret):
        secret, origin = value.reveal(), "what stands in the configuration"
    elif isinstance(value, tuple):
        secret, origin = _from_command(value, place, withheld), f"what {value[0]} printed"
    elif source.kind is SourceKind.ENV:
        secret, origin = _from_environment(value, place), f"${value}"
    elif source.kind is SourceKind.KEYRING:
        secret, origin = _from_keyring(value, place), f"{value} in the keyring"
    elif source.kind is SourceKind.CREDENTIAL:
        secret, origin = _from_credential(value, place), f"the credential {value}"
    else:
        secret, origin = _from_file(value, place), value
    secret = secret.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise Misconfigured(
            f"{place}: {origin} is empty", hint="put the secret there, from your app's page"
        )
    if not _VSCHARS.fullmatch(secret):
        raise Misconfigured(
            f"{place}: {origin} has more than one line, or characters that no client secret has",
            hint="leave the secret alone there, on one line",
        )
    return Secret(secret)


def _from_file(path: str, place: str) -> str:
    data, mode = _contents(
        path, place, hint=f"put the secret there: install -m 600 /dev/stdin {shlex.quote(path)}"
    )
    if mode & 0o077:
        raise Misconfigured(
            f"{place}: others than its owner may read {path} (mode {mode:04o})",
            hint=f"chmod 600 {shlex.quote(path)}",
        )
    folder = os.path.dirname(os.path.realpath(path))
    mode = os.stat(folder).st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise Misconfigured(
            f"{place}: everybody can write in {folder}, and put another secret in place of yours",
            hint=f"chmod o-w {shlex.quote(folder)}",
        )
    return data


def _from_credential(name: str, place: str) -> str:
    hint = f"in the unit's [Service] section: LoadCredential={name}:/path/to/the/secret"
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise Misconfigured(
            f"{place}: $CREDENTIALS_DIRECTORY isn't set, so systemd passed no credential {name}",
            hint=f"{hint}; outside of systemd use file, command or env",
        )
    # Its mode isn't looked at: systemd lets a unit's user in by an access control list, whose
    # mask shows as the group's bits.
    data, _ = _contents(os.path.join(folder, name), place, hint=hint)
    return data


def _contents(path: str, place: str, *, hint: str) -> tuple[str, int]:
    """Text and permission bits, of one and the same file."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise Misconfigured(f"{place}: {path} is no regular file", hint=hint)
            data = file.read(_LIMIT)
    except OSError as error:
        raise Misconfigured(f"{place}: {path} can't be read: {error.strerror}", hint=hint) from None
    # Latin-1 reads any bytes; what isn't ASCII is refused further on.
    return data.decode("latin-1"), stat.S_IMODE(mode)


def _without_waiting(path: str, flags: int) -> int:
    # Opening a named pipe would wait for its other end.
    return os.open(path, flags | os.O_NONBLOCK)


def _from_environment(name: str, place: str) -> str:
    secret = os.environ.get(name)
    if secret is None:
        raise Misconfigured(
            f"{place}: ${name} isn't set where the daemon was started",
            hint=f"set {name} in the daemon's environment, or use file or command",
        )
    return secret


def _from_keyring(name: str, place: str) -> str:
    """The item that ``keyring set spotokend NAME`` makes, in whichever collection it is."""
    try:
        import secretstorage
        from jeepney import DBusErrorResponse
    except ImportError:
        raise Misconfigured(
            f"{place}: the library for the keyring isn't installed",
            hint="pip install 'spotokend[keyring]' (Debian: python3-secretstorage)",
        ) from None
    attributes = {"service": "spotokend", "username": name}
    try:
        with closing(secretstorage.dbus_init()) as connection:
            # A service that hangs isn't waited for without an end.
            ask = partial(connection.send_and_get_reply, timeout=COMMAND_TIMEOUT)
            connection.send_and_get_reply = ask
            items = list(secretstorage.search_items(connection, attributes))
            for item in items:
                if not item.is_locked():
                    return item.get_secret().decode("latin-1")
            # A keyring that is closed may not even tell what it has.
            closed = items or any(
                collection.is_locked()
                for collection in secretstorage.get_all_collections(connection)
            )
    except (secretstorage.SecretStorageException, DBusErrorResponse, OSError) as error:
        # OSError: also a timeout. At the start of a session it may just not be there yet.
        raise Locked(
            f"{place}: no keyring answers ({str(error).strip() or type(error).__name__})",
            hint="see that the desktop's keyring runs, or use file or command",
        ) from None
    if closed:
        raise Locked(
            f"{place}: the keyring is locked", hint="unlock it: spotokend then goes on by itself"
        )
    raise Misconfigured(
        f"{place}: the keyring has no {name} of spotokend's",
        hint=f"secret-tool store --label 'spotokend: {name}' service spotokend username {name}",
    )


def _from_command(command: tuple[str, ...], place: str, withheld: Collection[str]) -> str:
    """What the command prints; no shell has a part in it.

    Of its words only the first is told: the others may be secrets.
    """
    program = command[0]
    hint = "try that command in a terminal; what asks for a password must be unlocked before"
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_TIMEOUT,
            env={name: text for name, text in os.environ.items() if name not in withheld},
            check=False,
        )
    except subprocess.TimeoutExpired:
        words = f"had not ended after {COMMAND_TIMEOUT:g} s"
    except OSError as error:
        words = f"can't be started: {error.strerror}"
    else:
        if done.returncode == 0:
            return done.stdout[:_LIMIT].decode("latin-1")
        ended = f"status {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
        words = f"ended with {ended}{_first_line(done.stderr)}"
    # Outside of the handlers: a timeout's exception holds what the command had printed.
    raise Misconfigured(f"{place}: {program} {words}", hint=hint)


def _first_line(stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").strip().splitlines()
    if not lines:
        return ""
    shown = "".join(letter if letter.isprintable() else "?" for letter in lines[0][:_SHOWN])
    return f": {shown}"
