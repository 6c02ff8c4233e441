"""systemd's user manager: ``spotokend service install`` and ``uninstall``.

Installing is writing one unit file and telling the manager. Nothing is written before the manager
has answered, and doing it again brings the same result.

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

from ..errors import Misconfigured

UNIT = "spotokend.service"

LINGER = Path("/var/lib/systemd/linger")
"""Where logind keeps a file for each user whose manager runs without a session."""

RunSystemctl = Callable[[list[str]], "subprocess.CompletedProcess[str]"]
"""Runs a command line and returns its status and words; FileNotFoundError: no such program."""

_WITHOUT_SYSTEMD = "start it some other way with your session: `spotokend run`"
_WITHOUT_MANAGER = (
    "log in directly or by SSH, not through su or sudo; for a user who never logs in: "
    "`loginctl enable-linger USER`. " + _WITHOUT_SYSTEMD[0].upper() + _WITHOUT_SYSTEMD[1:]
)
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
    quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'Environment="{variable}={quoted}"'


def install(executable: str, unit_dir: Path, run: RunSystemctl = run_systemctl) -> list[str]:
    """Have the daemon started now and with each session of the user's.

    ``executable`` is the absolute path of the ``spotokend`` command. Returns what was done, a
    sentence each.

    Raises:
        Misconfigured: no systemd, no manager for this user, or what it objected to.
    """
    if not Path(executable).is_absolute() or not os.access(executable, os.X_OK):
        raise Misconfigured(
            f"{executable} is no program that a service could start",
            hint="call `spotokend service install` by its whole path",
        )
    text = _template().replace("%executable%", _quoted(executable))
    _require_manager(run)
    path = unit_dir / UNIT
    try:
        _write(path, text)
    except OSError as error:
        raise Misconfigured(
            f"{path} could not be written: {error.strerror}",
            hint="make room or permit it, then install again",
        ) from None
    _systemctl(run, _LOOK, "daemon-reload")
    _systemctl(run, _LOOK, "enable", UNIT)
    # Not `enable --now`: what runs already would go on with the old program.
    _systemctl(run, _LOOK, "restart", UNIT)
    return [f"Wrote {path}.", "It starts with your session, and has been started now."]


def uninstall(unit_dir: Path, run: RunSystemctl = run_systemctl) -> list[str]:
    """Stop the daemon and forget the unit; grants, configuration and the user's own drop-ins stay.

    Raises:
        Misconfigured: as :func:`install`.
    """
    path = unit_dir / UNIT
    if not path.exists():
        return [f"There is no {path}: nothing to do."]
    _require_manager(run)
    _systemctl(run, _LOOK, "disable", "--now", UNIT)
    try:
        path.unlink()
    except OSError as error:
        raise Misconfigured(
            f"{path} could not be removed: {error.strerror}", hint="remove it by hand"
        ) from None
    _systemctl(run, _LOOK, "daemon-reload")
    return ["It has been stopped.", f"Removed {path}."]


def stop(run: RunSystemctl = run_systemctl) -> None:
    """Stop the daemon, which waits for its end, and let no failure of the past stay listed.

    Raises:
        Misconfigured: as :func:`install`.
    """
    _require_manager(run)
    _systemctl(run, _LOOK, "stop", UNIT)
    with suppress(Misconfigured):  # it objects where it has forgotten the unit already
        _systemctl(run, _LOOK, "reset-failed", UNIT)


def reload(run: RunSystemctl = run_systemctl) -> None:
    """Have the manager read all units anew.

    Raises:
        Misconfigured: as :func:`install`.
    """
    _systemctl(run, _LOOK, "daemon-reload")


def _template() -> str:
    """The unit of this release: inside an installed package, beside it in a checkout."""
    installed = resources.files("spotokend") / "systemd" / UNIT
    if installed.is_file():
        return installed.read_text(encoding="utf-8")
    return Path(__file__).parents[2].joinpath("systemd", UNIT).read_text(encoding="utf-8")


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


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a manager that reloads meanwhile reads the old unit or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
