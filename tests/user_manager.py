"""A real ``systemd --user`` for a fresh user: units, activation and sandboxing as on a desktop.

All of it is in namespaces of its own: a user that only exists in there (``ada``, in a copy of
/etc/passwd), a home on a tmpfs, a /run of its own, a subtree of the control groups. Nothing of it
is left when its holder ends, and nobody else is in there.

It needs root, unshare(1), setpriv(1), a cgroup2 that can be written, and systemd with the user's
manager. The fixture :func:`user_manager` leaves a test out where that is not to be had, and says
what is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

ROOT = Path(__file__).parent.parent
USER, UID = "ada", 61_870
NEIGHBOUR = 61_871
"""Somebody else's user id, for files that are none of ada's business."""
WITHIN = 20.0
"""Seconds for what takes well under one on an idle machine."""

_PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
_SYSTEMD = "/lib/systemd/systemd"

# /run is private, so that sd_booted(3) is true in here alone. Python, its packages and ours are
# mounted where every user can read them: a checkout may be in root's home.
_SET_UP = f"""
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/system /run/systemd/unit-root /run/credentials /run/user
mkdir -p /run/python /run/packages /run/checkout /run/bin
mount --bind "$PYTHON" /run/python
mount --bind "$PACKAGES" /run/packages
mount --bind "$CHECKOUT" /run/checkout
(cat /etc/passwd; echo '{USER}:x:{UID}:{UID}::/home/{USER}:/bin/sh') > /run/passwd
(cat /etc/group; echo '{USER}:x:{UID}:') > /run/group
mount --bind /run/passwd /etc/passwd
mount --bind /run/group /etc/group
mount -t tmpfs -o mode=755 tmpfs /home
install -d -m 700 -o {UID} -g {UID} /home/{USER} /run/user/{UID}
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p "$CGROUP/manager"
chown -R {UID} "$CGROUP"
cat > /run/bin/python3 <<'END'
#!/bin/sh
# Where Python is a shared library, that has moved with it.
LD_LIBRARY_PATH=/run/python/lib exec /run/python/bin/{_PYTHON} -I "$@"
END
cat > /run/bin/spotokend <<'END'
#!/run/bin/python3
import sys
sys.path[:0] = ["/run/checkout", "/run/packages"]
from spotokend.cli import main
sys.exit(main())
END
chmod 755 /run/bin/python3 /run/bin/spotokend
echo ready
cat > /dev/null
echo 0 > /sys/fs/cgroup/cgroup.procs
find "$CGROUP" -depth -type d -exec rmdir {{}} + 2>/dev/null || true
"""


class UserManager:
    """See the module; a context manager, in whose block the manager runs."""

    home = Path("/home", USER)
    runtime = Path("/run/user", str(UID))
    program = "/run/bin/spotokend"

    def __init__(self) -> None:
        """Make the place; raises OSError with the reason where that can't be done."""
        self._cgroup = f"/sys/fs/cgroup/spotokend-tests-{os.getpid()}"
        self._holder = subprocess.Popen(
            [
                *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                *("--propagation=private", "sh", "-c", _SET_UP),
            ],
            env=os.environ
            | {"PYTHON": sys.base_prefix, "PACKAGES": sysconfig.get_path("purelib")}
            | {"CHECKOUT": str(ROOT), "CGROUP": self._cgroup},
            stdin=subprocess.PIPE,  # its end is the holder's
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            raise OSError(self._holder.communicate()[1].strip() or "unshare did not work")
        children = f"/proc/{self._holder.pid}/task/{self._holder.pid}/children"
        self._inside = Path(children).read_text().split()[0]
        self._manager: subprocess.Popen[bytes] | None = None
        self.environ = {
            "HOME": str(self.home),
            "USER": USER,
            "LOGNAME": USER,
            "SHELL": "/bin/sh",
            "LANG": "C.UTF-8",
            "PATH": "/run/bin:/usr/local/bin:/usr/bin:/bin",
            "XDG_RUNTIME_DIR": str(self.runtime),
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={self.runtime}/bus",
        }

    def path(self, inside: Path | str) -> Path:
        """A path in there, as it is seen from here."""
        return Path(f"/proc/{self._inside}/root{inside}")

    def write(self, inside: Path | str, text: str, *, mode: int = 0o600, owner: int = UID) -> None:
        """A file of the user's, or of somebody else's."""
        path = self.path(inside)
        for folder in reversed([folder for folder in path.parents if not folder.exists()]):
            folder.mkdir()
            os.chown(folder, owner, owner)
        path.write_text(text)
        path.chmod(mode)
        os.chown(path, owner, owner)

    def command(self, *command: str) -> list[str]:
        """The command line that runs it as the user, in there."""
        return [*self._enter(), *self._as_user(), *command]

    def run(self, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self.command(*command),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def call(self, *command: str) -> str:
        """What it prints; it has to end well."""
        done = self.run(*command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def systemctl(self, *arguments: str) -> str:
        """What ``systemctl --user`` prints; it has to end well."""
        return self.call("systemctl", "--user", "--no-pager", *arguments)

    def property(self, name: str, unit: str = "spotokend.service") -> str:
        """One property of a unit."""
        return self.systemctl("show", "--value", f"--property={name}", unit).strip()

    def start(self) -> None:
        """The user's manager, as at a login."""
        # Into its control group while it is still root; then it is the user's.
        become = f'echo 0 > {self._cgroup}/manager/cgroup.procs && exec "$@"'
        systemd = (_SYSTEMD, "--user", "--log-target=console", "--log-level=warning")
        self._manager = subprocess.Popen(
            [*self._enter(), "sh", "-c", become, "sh", *self._as_user(), *systemd],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + WITHIN
        state = ""
        # "degraded": a unit of the distribution's that finds no hardware for it.
        while state not in ("running", "degraded"):
            assert time.monotonic() < deadline, f"the user's manager is {state!r}"
            state = self.run("systemctl", "--user", "is-system-running").stdout.strip()

    def stop(self) -> None:
        """As at the end of the last session: all ends, and $XDG_RUNTIME_DIR is wiped."""
        assert self._manager is not None
        self.run("systemctl", "--user", "exit")
        self._manager.wait(WITHIN)
        shutil.rmtree(self.path(self.runtime))
        self.path(self.runtime).mkdir(mode=0o700)
        os.chown(self.path(self.runtime), UID, UID)

    def _enter(self) -> list[str]:
        return ["nsenter", f"--target={self._inside}", "--mount", "--pid", "--wd=/", "--"]

    def _as_user(self) -> list[str]:
        return [
            *("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"),
            *("--inh-caps=-all", "--bounding-set=-all", "--"),
            *("env", "-i", *(f"{name}={value}" for name, value in self.environ.items())),
        ]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._manager is not None and self._manager.poll() is None:
            self.run("systemctl", "--user", "exit")
            self._manager.wait(WITHIN)
        self._holder.communicate(timeout=WITHIN)


def missing() -> str | None:
    """What there would have to be; None if all is there."""
    if os.geteuid():
        return "needs root, for namespaces and another user"
    for program in ("unshare", "nsenter", "setpriv", "systemctl", _SYSTEMD, "dbus-daemon"):
        if shutil.which(program) is None:
            return f"{program} isn't installed (Debian: systemd dbus-user-session util-linux)"
    return None


@pytest.fixture(scope="module")
def user_manager() -> Iterator[UserManager]:
    """One for all tests of a file, with a user of whom nothing is known yet."""
    if (words := missing()) is not None:
        pytest.skip(f"a user's systemd: {words}")
    try:
        manager = UserManager()
    except OSError as error:
        pytest.skip(f"a user's systemd can't be run here: {error}")
    with manager:
        yield manager
