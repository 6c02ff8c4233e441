"""``spotokend service install`` and ``uninstall``: the daemon as units of systemd's user manager."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from .. import paths
from ..adapters import systemd
from ..adapters.config_file import read_config
from ..errors import Misconfigured
from ..rules.config.values import Config, KeyKind, SourceKind
from . import browser, terminal
from .parser import PROGRAM

REVOKE = "https://www.spotify.com/account/apps/"
"""Where a user of Spotify's sees, and ends, the access of apps."""

_EPILOGUE = f"""\
Spotify still lists your app among those with access; end that there: {REVOKE}
The program itself goes the way it came: pipx uninstall spotokend, or pip uninstall spotokend.
Copies of the logins in your backups stay encrypted: without the key nobody can read them, so delete
it there too, if you keep it there."""


def run(arguments: argparse.Namespace) -> int:
    """Install or remove the unit."""
    if arguments.command[-1] == "install":
        done = [*install(), *_lingering()]
    elif arguments.purge:
        return _purge()
    else:
        done = systemd.uninstall(systemd.user_unit_dir(os.environ))
    for sentence in done:
        terminal.say(sentence)
    return 0


def install() -> list[str]:
    """Install the units and start them; what was done and what to know, a sentence each.

    Raises:
        Misconfigured: as :func:`spotokend.adapters.systemd.install`; or a daemon runs already that
            isn't systemd's.
    """
    done = systemd.install(_executable(), systemd.user_unit_dir(os.environ), _needs)
    with suppress(Misconfigured):  # it has been installed, and this is advice
        done += _advice(systemd.environment())
    return done


def _executable() -> str:
    """The command as it was called now; under ``python -m`` the script beside the interpreter."""
    called = sys.argv[0]
    if os.path.basename(called) == PROGRAM:
        return os.path.abspath(shutil.which(called) or called)
    return os.path.join(os.path.dirname(sys.executable), PROGRAM)


def _needs(service: Mapping[str, str]) -> systemd.Needs:
    """What the service's configuration needs; the folders that it writes in are made, if need be.

    ``service`` is its environment.

    Raises:
        Misconfigured: a daemon has the socket already that isn't systemd's; or a folder can't be
            made, or is one that the service would not see.
    """
    home = service.get("HOME") or os.path.expanduser("~")
    usual = {  # what the unit lets it write in, as it is
        "state": os.path.join(home, ".local", "state", paths.NAME),
        "runtime": os.path.join(_runtime(service), paths.NAME),
    }
    config_path = os.path.join(home, paths.config_path(service))
    try:
        config = read_config(config_path)
    except Misconfigured:  # it is told when the daemon is first started
        config = Config()
    store = config.store.path or os.path.join(paths.state_dir(service), "store.sqlite3")
    key = config.store.key
    usual_socket = os.path.join(usual["runtime"], f"{paths.NAME}.sock")
    socket = service.get("SPOTOKEND_SOCK") or config.daemon.socket or usual_socket
    files = [store, socket]
    if key is not None and key.kind is KeyKind.FILE:
        files.append(str(key.value))
    folders = [os.path.dirname(os.path.join(home, file)) for file in files]
    _within_reach(home, [config_path, *files, *_read_by(config)])
    _nobody_else(os.path.join(home, socket))
    for folder in {usual["state"], *folders} - {usual["runtime"]}:  # that one systemd makes
        _make(folder)
    return systemd.Needs(
        socket=None if socket == usual_socket else os.path.join(home, socket),
        writable=tuple(
            folder
            for folder in dict.fromkeys(folders)
            if not any(f"{folder}/".startswith(f"{place}/") for place in usual.values())
        ),
        bus=_asks_the_bus(config),
        hooks=bool(config.hooks),
        start=bool(config.clients),
    )


def _runtime(service: Mapping[str, str]) -> str:
    """What %t is in a unit."""
    return service.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"


def _read_by(config: Config) -> Iterator[str]:
    """The files of secrets, and the programs that print them."""
    for client in config.clients.values():
        source = client.client_secret
        if source is not None and source.kind is SourceKind.FILE:
            yield str(source.value)
        elif source is not None and isinstance(source.value, tuple):
            yield source.value[0]
    if config.store.key is not None and isinstance(config.store.key.value, tuple):
        yield config.store.key.value[0]


def _within_reach(home: str, files: Iterable[str]) -> None:
    """What is below /tmp is not there for the service, and what it writes there is lost with it."""
    for file in files:
        path = os.path.join(home, file)
        # Whose home is there has nothing in another place.
        if systemd.out_of_reach(path) and not path.startswith(f"{home}/"):
            raise Misconfigured(
                f"{path} is out of the service's reach: its /tmp and /var/tmp are folders of its "
                "own, which nobody else sees and which end with it (PrivateTmp=)",
                hint="choose a place below your home or $XDG_RUNTIME_DIR; then again: "
                "spotokend service install",
            )


def _nobody_else(socket: str) -> None:
    """systemd would take the socket's path from a daemon that listens there."""
    from .purge import listening_process

    if not systemd.active() and (pid := listening_process(socket)) is not None:
        raise Misconfigured(
            f"a daemon runs already, process {pid}, and listens on {socket}",
            hint="spotokend stop; then again: spotokend service install",
        )


def _make(folder: str) -> None:
    """Have the folder there, or the sandbox has nothing to let the daemon write in."""
    umask = os.umask(0o077)  # makedirs' mode is the last folder's only
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise Misconfigured(
            f"the folder {folder} can't be made: {error.strerror}",
            hint="the configuration names it; make it yourself, or name another",
        ) from None
    finally:
        os.umask(umask)


def _asks_the_bus(config: Config) -> bool:
    """A keyring answers there; and what a command or a dialogue for a password needs isn't known."""
    key = config.store.key
    sources = {
        client.client_secret.kind for client in config.clients.values() if client.client_secret
    }
    return bool(sources & {SourceKind.COMMAND, SourceKind.KEYRING}) or (
        key is not None and key.kind in (KeyKind.KEYRING, KeyKind.PASSPHRASE)
    )


def _lingering() -> list[str]:
    """On a desktop the end of the session is the end of what needs tokens; elsewhere it isn't."""
    if systemd.lingers() or browser.graphical(os.environ):
        return []
    return ["It ends with your last session; to let it stay, once: loginctl enable-linger"]


def _advice(service: Mapping[str, str]) -> list[str]:
    """Where this shell and the service, whose environment is given, look at different places."""
    config = paths.config_path(service)
    socket = service.get("SPOTOKEND_SOCK") or _configured_socket(config)
    found = [
        f"warning: the service doesn't see this shell's ${variable}, so that its {what} is {there} "
        f"and not {here}. To change that: systemctl --user edit spotokend, and there, below "
        f"[Service]: {systemd.setting(variable, os.path.abspath(os.environ[variable]))}"
        for what, variables, here, there in (
            ("configuration", ("SPOTOKEND_CONFIG", "XDG_CONFIG_HOME"), paths.config_path(), config),
            ("state folder", ("XDG_STATE_HOME",), paths.state_dir(), paths.state_dir(service)),
            (
                "socket",
                ("SPOTOKEND_SOCK",),
                paths.socket_path(),
                socket or paths.socket_path(service),
            ),
        )
        for variable in variables
        if here != there and os.environ.get(variable, "") not in ("", service.get(variable))
    ]
    if not found and not os.path.exists(config):
        cure = "" if config != paths.config_path() else ": spotokend login helps to write it"
        found.append(f"There is no {config} yet, without which the service can't start{cure}")
    return found


def _configured_socket(config: str) -> str | None:
    try:
        return read_config(config).daemon.socket
    except Misconfigured:
        return None


def _purge() -> int:
    """Remove everything of ours that this user has; the flag is the consent."""
    from . import purge  # the store's side, which no other command here needs

    unit_dir = systemd.user_unit_dir(os.environ)
    worlds = [purge.World(os.environ, os.curdir)]
    service = _stopped(unit_dir)
    if service is not None:
        worlds.append(purge.World(service, service.get("HOME", os.sep)))
    found = purge.take_inventory(str(unit_dir), worlds)
    for note in found.notes.values():
        terminal.say(note)
    with purge.nobody_running(found):
        going = found.files + found.folders
        if going:
            terminal.say("\n  ".join(["To be removed, for good:", *going]))
        removed, refused = purge.remove(found)
    if service is not None:
        with suppress(Misconfigured):  # else it looks at its units when it starts next
            systemd.reload()
    if removed:
        share = "all of it" if len(removed) == len(going) else f"{len(removed)} of {len(going)}"
        terminal.say(f"Removed {share}.")
    elif not refused:
        terminal.say("There is nothing of spotokend's to remove.")
    if found.left:
        terminal.say("\n  ".join(["Left as it is:", *_with_reasons(found.left)]))
    if removed:
        terminal.say(_EPILOGUE)
    if refused:
        terminal.complain(
            "\n  ".join(["this could not be removed:", *_with_reasons(refused)]),
            "see who may: ls -ld PATH; then again: spotokend service uninstall --purge",
        )
    return 1 if refused else 0


def _stopped(unit_dir: Path) -> dict[str, str] | None:
    """Have the service stopped; returns its environment, None where systemd has a part in nothing."""
    unit = unit_dir / systemd.UNIT
    if not any(os.path.lexists(unit_dir / name) for name in systemd.UNITS):
        terminal.say(f"No service is installed: there is no {unit}.")
        return None
    service = None
    try:
        service = systemd.environment()
        systemd.stop()
    except Misconfigured as error:
        terminal.say(f"The unit is removed without systemd's help: {error.message}")
    else:
        terminal.say("The service has been stopped.")
    return service


def _with_reasons(places: Mapping[str, str]) -> list[str]:
    return [f"{path}: {why}" for path, why in places.items()]
