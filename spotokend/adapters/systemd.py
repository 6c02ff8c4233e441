"""systemd's user manager: ``spotokend service install`` and ``uninstall``.

Installing is writing unit files and telling the manager: the service, the socket at which it is
started, the hooks' process where there are hooks, and a drop-in for what the configuration has
elsewhere, which the sandbox would hide. Nothing is written before the manager has answered, and
doing it again brings the same result.

The manager has an environment of its own, which a shell's ``export`` doesn't reach:
:func:`environment` tells what the daemon will see.
"""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from ..errors import Misconfigured

UNIT = "spotokend.service"
SOCKET = "spotokend.socket"
HOOKS = "spotokend-hooks.service"
UNITS = (SOCKET, UNIT, HOOKS)
DROP_IN = "50-configuration.conf"
"""Ours, in ``UNIT.d``; others there are the user's own."""

PRIVATE = ("/tmp", "/var/tmp")  # noqa: S108 - they aren't written in, but kept out of
"""Where the unit's daemon has folders of its own, which are empty and end with it (PrivateTmp=)."""

LINGER = Path("/var/lib/systemd/linger")
"""Where logind keeps a file for each user whose manager runs without a session."""

_DROP_IN_HEAD = """\
# Written by `spotokend service install` from the configuration, and replaced when it is called again.
"""


class Needs(NamedTuple):
    """What a configuration needs beyond the units as they are."""

    socket: str | None = None
    """Where to listen instead of the usual place."""
    writable: tuple[str, ...] = ()
    """Folders, absolute, that the daemon writes in besides its usual ones."""
    bus: bool = False
    """Something asks the session's bus, or may: a keyring, a command."""
    hooks: bool = False
    start: bool = True
    """It can run: else only the socket is opened, and the first client has it tried."""


RunSystemctl = Callable[[list[str]], "subprocess.CompletedProcess[str]"]
"""Runs a command line and returns its status and words; FileNotFoundError: no such program."""

_WITHOUT_SYSTEMD = "start it some other way with your session: `spotokend run`"
_WITHOUT_MANAGER = (
    "log in directly or by SSH, not through su or sudo; for a user who never logs in: "
    "`loginctl enable-linger USER`. " + _WITHOUT_SYSTEMD[0].upper() + _WITHOUT_SYSTEMD[1:]
)
_ROOM = "make room or permit it, then install again"
_LOOK = f"`systemctl --user status {UNIT}` and `journalctl --user -u {UNIT}` tell more"


def user_unit_dir(environ: Mapping[str, str]) -> Path:
    """Where a user's own units live: ``$XDG_CONFIG_HOME/systemd/user`` (systemd.unit(5))."""
    config_home = Path(environ.get("XDG_CONFIG_HOME", ""))
    base = config_home if config_home.is_absolute() else Path.home() / ".config"
    return base / "systemd" / "user"


def run_systemctl(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run it for real."""
    return subprocess.run(command, capture_output=True, text=True, check=False)


def available(run: RunSystemctl = run_systemctl) -> bool:
    """Whether this user has a manager that answers, and so a unit could be installed."""
    try:
        _require_manager(run)
    except Misconfigured:
        return False
    return True


def lingers(user: str | None = None) -> bool:
    """Whether the user's manager runs without a session of theirs; ``user`` is a login name.

    Read from the disk as logind does: `loginctl` would need one that answers.
    """
    try:
        name = user or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's number without a name
        return False
    return (LINGER / name).exists()


def environment(run: RunSystemctl = run_systemctl) -> dict[str, str]:
    """The variables that the unit's daemon is started with: the manager's, then the unit's own.

    Raises:
        Misconfigured: as :func:`install`.
    """
    found: dict[str, str] = {}
    for of in ([], [UNIT]):
        line = _systemctl(run, _WITHOUT_MANAGER, "show", "--property=Environment", *of)
        line = line.strip().removeprefix("Environment=")
        # In double quotes a shell, but not shlex, takes the backslash before these as a mark.
        for word in shlex.split(line.replace("\\$", "$").replace("\\`", "`")):
            name, _, value = word.partition("=")
            found[name] = value
    return found


def setting(variable: str, value: str) -> str:
    """The line for a drop-in that gives the unit's daemon this variable (systemd.exec(5))."""
    return f"Environment={_word(f'{variable}={value}')}"


def out_of_reach(path: str) -> bool:
    """Whether the unit's daemon would look for it in a folder of its own, :data:`PRIVATE`."""
    real = f"{os.path.realpath(path)}/"
    return any(real.startswith(f"{os.path.realpath(place)}/") for place in PRIVATE)


def install(
    executable: str,
    unit_dir: Path,
    needs: Callable[[Mapping[str, str]], Needs],
    run: RunSystemctl = run_systemctl,
) -> list[str]:
    """Have the daemon started now and with each session of the user's.

    ``executable`` is the absolute path of the ``spotokend`` command; ``needs`` tells from the
    service's environment what its configuration needs. Returns what was done, a sentence each.

    Raises:
        Misconfigured: no systemd, no manager for this user, or what it objected to.
    """
    if not Path(executable).is_absolute() or not os.access(executable, os.X_OK):
        raise Misconfigured(
            f"{executable} is no program that a service could start",
            hint="call `spotokend service install` by its whole path",
        )
    texts = {unit: _template(unit).replace("%executable%", _quoted(executable)) for unit in UNITS}
    _require_manager(run)
    needed = needs(environment(run))
    units = UNITS if needed.hooks else (SOCKET, UNIT)
    if not needed.hooks and (unit_dir / HOOKS).exists():
        _systemctl(run, _LOOK, "disable", "--now", HOOKS)
    for unit in UNITS:
        _write(unit_dir / unit, texts[unit] if unit in units else None)
        _write(unit_dir / f"{unit}.d" / DROP_IN, _drop_in(unit, needed))
    _systemctl(run, _LOOK, "daemon-reload")
    _systemctl(run, _LOOK, "enable", "--now", SOCKET)
    _systemctl(run, _LOOK, "enable", *units[1:])
    done = [f"Wrote {unit_dir / unit}." for unit in units]
    if not needed.start:
        return [*done, "It starts with your session, or when the first program asks it."]
    # Not `enable --now`: what runs already would go on with the old program. Nobody who asks
    # meanwhile notices: the socket stays open.
    _systemctl(run, _LOOK, "restart", *units[1:])
    return [*done, "It starts with your session, and has been started now."]


def uninstall(unit_dir: Path, run: RunSystemctl = run_systemctl) -> list[str]:
    """Stop the daemon and forget the units; grants, configuration and the user's drop-ins stay.

    Raises:
        Misconfigured: as :func:`install`.
    """
    units = [unit for unit in UNITS if (unit_dir / unit).exists()]
    if not units:
        return [f"There is no {unit_dir / UNIT}: nothing to do."]
    _require_manager(run)
    _systemctl(run, _LOOK, "disable", "--now", *units)
    for unit in UNITS:
        _write(unit_dir / f"{unit}.d" / DROP_IN, None)
        _write(unit_dir / unit, None)
    _systemctl(run, _LOOK, "daemon-reload")
    return ["It has been stopped.", *(f"Removed {unit_dir / unit}." for unit in units)]


def stop(run: RunSystemctl = run_systemctl) -> None:
    """Stop the daemon, which waits for its end, and let no failure of the past stay listed.

    Raises:
        Misconfigured: as :func:`install`.
    """
    _require_manager(run)
    # The socket first, or the next client would have it started again.
    for unit in (SOCKET, HOOKS):
        with suppress(Misconfigured):  # of an earlier release, or without hooks: it knows none
            _systemctl(run, _LOOK, "stop", unit)
    _systemctl(run, _LOOK, "stop", UNIT)
    for unit in UNITS:
        with suppress(Misconfigured):  # it objects where it has forgotten the unit already
            _systemctl(run, _LOOK, "reset-failed", unit)


def active(run: RunSystemctl = run_systemctl) -> bool:
    """Whether the daemon or its socket is the manager's at this moment.

    Raises:
        Misconfigured: as :func:`install`.
    """
    states = _systemctl(run, _WITHOUT_MANAGER, "show", "--property=ActiveState", UNIT, SOCKET)
    return any(word in states.split() for word in ("ActiveState=active", "ActiveState=activating"))


def reload(run: RunSystemctl = run_systemctl) -> None:
    """Have the manager read all units anew.

    Raises:
        Misconfigured: as :func:`install`.
    """
    _systemctl(run, _LOOK, "daemon-reload")


def _template(unit: str) -> str:
    """The unit of this release: inside an installed package, beside it in a checkout."""
    installed = resources.files("spotokend") / "systemd" / unit
    if installed.is_file():
        return installed.read_text(encoding="utf-8")
    return Path(__file__).parents[2].joinpath("systemd", unit).read_text(encoding="utf-8")


def _drop_in(unit: str, needs: Needs) -> str | None:
    """What the configuration adds to the unit; None where that is nothing."""
    lines: list[str] = []
    if unit == SOCKET and needs.socket is not None:
        # The empty line takes back the usual one.
        lines = ["[Socket]", "ListenStream=", "ListenStream=" + needs.socket.replace("%", "%%")]
    elif unit == UNIT and (needs.writable or needs.bus):
        lines = ["[Service]"]
        # "-": what is missing is for the daemon to tell, in better words than systemd's.
        lines += [f"ReadWritePaths={_word('-' + folder)}" for folder in needs.writable]
        if needs.bus:
            lines += ["InaccessiblePaths=", "InaccessiblePaths=-%t/systemd/private"]
    return "\n".join([_DROP_IN_HEAD.rstrip(), *lines, ""]) if lines else None


def _word(text: str) -> str:
    """``text`` as one word of a setting's list, with nothing in it that systemd reads."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{quoted}"'


def _quoted(path: str) -> str:
    """``path`` as the first word of ExecStart= (systemd.service(5), "Command lines")."""
    # systemd takes no program with such a name, however it is quoted.
    if any(character in "\"'\\" or ord(character) < 0x20 for character in path):
        raise Misconfigured(
            f"{path!r} has a quote, backslash or control character in it; systemd can't start that",
            hint="install spotokend under another path",
        )
    return '"' + path.replace("%", "%%") + '"'


def _require_manager(run: RunSystemctl) -> None:
    """Ask the manager of this user something harmless."""
    _systemctl(run, _WITHOUT_MANAGER, "show", "--property=Version")


def _systemctl(run: RunSystemctl, hint: str, *arguments: str) -> str:
    command = ["systemctl", "--user", *arguments]
    try:
        done = run(command)
    except FileNotFoundError:
        raise Misconfigured(
            "systemctl is not there: this machine runs no systemd", hint=_WITHOUT_SYSTEMD
        ) from None
    if done.returncode != 0:
        words = done.stderr.strip() or f"status {done.returncode}"
        raise Misconfigured(f"`{shlex.join(command)}` did not work: {words}", hint=hint)
    return done.stdout


def _write(path: Path, text: str | None) -> None:
    """Whole or not at all: a manager that reloads meanwhile reads the old file or the new one.

    None removes it, and its folder if that was a drop-in's and is empty now.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    umask = os.umask(0o077)  # whoever may write a unit runs what he likes as its user
    try:
        if text is None:
            path.unlink(missing_ok=True)
            if path.name == DROP_IN:
                with suppress(OSError):
                    path.parent.rmdir()
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.write_text(text, encoding="utf-8")
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        act, cure = ("removed", "remove it by hand") if text is None else ("written", _ROOM)
        raise Misconfigured(f"{path} could not be {act}: {error.strerror}", hint=cure) from None
    finally:
        os.umask(umask)
