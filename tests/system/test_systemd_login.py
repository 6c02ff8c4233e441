"""All that reaches out of the daemon, with it under the installed unit and its sandbox.

A browser's login, keys that are asked for, the hooks, and the package as a user has it, for a fresh
user with a ``systemd --user`` of their own.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import browsers
import pytest
from browsers import Window
from bystander import until
from real_keyring import CALL, PASSWORD
from user_manager import ROOT, UID, UserManager

from spotokend.sandbox import Options, Sandbox, ready_configuration, running

HOME = UserManager.home
CONFIG = HOME / ".config" / "spotokend"
UNITS = HOME / ".config" / "systemd" / "user"
WITHIN = 20.0
"""Seconds for what takes one on an idle machine."""


class Service:
    """spotokend as the fresh user has it; each test brings its lines of the configuration."""

    def __init__(self, manager: UserManager, configuration: str) -> None:
        self.manager = manager
        self._configuration = configuration
        # There is no journal in there.
        log = f"[Service]\nStandardError=append:{HOME}/log\n"
        for unit in ("spotokend", "spotokend-hooks"):
            manager.write(UNITS / f"{unit}.service.d" / "log.conf", log)

    def install(self, *lines: str, program: Iterable[str] = ("spotokend",)) -> None:
        """As after a change of the configuration; the sandbox is on."""
        text = "\n".join([self._configuration, "[timing]", "forced_interval = 0", *lines, ""])
        self.manager.write(CONFIG / "config.toml", text)
        installed = self.manager.run(*program, "service", "install")
        log = self.manager.path(HOME / "log")
        assert installed.returncode == 0, (installed.stderr, log.exists() and log.read_text())
        self.check_sandbox()

    def check_sandbox(self) -> None:
        """The daemon has given up what it could."""
        status = self.manager.call("cat", f"/proc/{self.manager.property('MainPID')}/status")
        assert "NoNewPrivs:\t1\n" in status
        assert "Seccomp:\t2\n" in status

    def token(self) -> str | None:
        """That of the account without a login; None where the store is locked, which is told."""
        asked = self.manager.run("spotokend", "token", "machine")
        assert asked.returncode in (0, 5), asked.stderr
        if asked.returncode:
            assert "spotokend unlock" in asked.stderr
            return None
        return asked.stdout


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A provider that asks its users."""
    with running(Options()) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def service(
    user_manager: UserManager, sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Service:
    """Nothing is installed yet."""
    folder = tmp_path_factory.mktemp("secrets")
    text = ready_configuration(sandbox.url, sandbox.provider.options, folder=str(folder))
    for file in folder.iterdir():
        user_manager.write(CONFIG / file.name, file.read_text())
    text = re.sub(r"\[accounts\.(bob|carol)\][^[]*", "", text)
    return Service(user_manager, text.replace(str(folder), str(CONFIG)))


# ---------------------------------------------------------------------------------------- a browser


def test_a_login_with_a_real_browser(service: Service):
    """The command opens it, the consent is clicked, the daemon in its sandbox gets the code."""
    ada = service.manager
    service.install()
    note = HOME / "address"
    ada.write(HOME / "browser", f'#!/bin/sh\nprintf %s "$1" >{note}.new && mv {note}.new {note}\n')
    ada.path(HOME / "browser").chmod(0o755)
    login = ada.command("env", "DISPLAY=:0", f"BROWSER={HOME}/browser", "spotokend", "login")
    with (
        browsers.chromium(UID) as chromium,
        Window(chromium) as window,
        subprocess.Popen(
            [*login, "alice"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        until(ada.path(note).exists)
        window.page.goto(ada.path(note).read_text())
        window.page.get_by_label("Alice").check()
        window.page.get_by_role("button", name="Agree").dispatch_event("click")
        window.page.wait_for_url("**/callback/done")
        assert "Logged in as Alice" in window.page.get_by_role("main").inner_text()
        assert window.foreign() == set()
        said = process.communicate(timeout=WITHIN)[1]

    assert (process.returncode, "Logged in alice as Alice" in said) == (0, True)
    assert ada.call("spotokend", "token", "alice").startswith("sandbox-access")


# ------------------------------------------------------------------------------------- the hooks

RIGHTS = "^(NoNewPrivs|Seccomp|Cap...):"
HOOK = f"""#!/bin/sh
cd {HOME}
tr '\\0' '\\n' </proc/$$/environ >>"$1.environ"
grep -E '{RIGHTS}' /proc/self/status >>"$1.status"
systemctl --user is-active spotokend.service >>"$1.manager"
echo "$#: $1, $2: $SPOTOKEND_KIND $SPOTOKEND_ACCOUNT $(cat)" >>"$1.told"
"""
HOOKS = f"""
[hooks.player]
command = ["{HOME}/hook", "player", "$HOME; no shell"]
kinds = ["token"]
token = true
[hooks.lamp]
command = ["{HOME}/hook", "lamp", "two words"]
kinds = ["token"]
"""


def test_hooks_run_outside_of_the_sandbox(service: Service):
    """Their unit is installed for them: they may what the user may, and only who asks gets a token."""
    ada = service.manager
    ada.write(HOME / "hook", HOOK, mode=0o700)

    service.install(HOOKS)

    assert ada.property("ActiveState", "spotokend-hooks.service") == "active"

    def told(hook: str) -> list[str]:
        path = ada.path(HOME / f"{hook}.told")
        return path.read_text().splitlines() if path.exists() else []

    # It hears of what happens from the moment at which it listens.
    until(lambda: (ada.call("spotokend", "refresh", "machine"), told("player"))[1])
    until(lambda: (token := service.token()) and token.strip() in told("player")[-1])
    until(lambda: len(told("lamp")) == len(told("player")))
    tokens = []
    for line in told("player"):
        head, _, token = line.rpartition(" ")
        assert head == "2: player, $HOME; no shell: token machine"
        assert token.startswith("sandbox-access")
        tokens.append(token)
    assert set(told("lamp")) == {"2: lamp, two words: token machine "}
    outside = ada.call("grep", "-E", RIGHTS, "/proc/self/status")
    for hook in ("player", "lamp"):
        environ = ada.path(HOME / f"{hook}.environ").read_text()
        assert "SPOTOKEND_KIND=token\n" in environ
        assert not [token for token in tokens if token in environ]
        status = ada.path(HOME / f"{hook}.status").read_text()
        assert set(status.splitlines()) == set(outside.splitlines())
        assert set(ada.path(HOME / f"{hook}.manager").read_text().splitlines()) == {"active"}

    service.install()

    assert ada.property("LoadState", "spotokend-hooks.service") == "not-found"


# ------------------------------------------------------------------------------- keys that are asked for


@contextmanager
def keyring(ada: UserManager) -> Iterator[None]:
    """gnome-keyring on the session's bus, open; its password was given as at a login."""
    start = 'printf %s "$1" | gnome-keyring-daemon --foreground --unlock --components=secrets'
    ada.call(
        *("systemd-run", "--user", "--quiet", "--unit=keyring"),
        *("--property=Type=dbus", "--property=BusName=org.freedesktop.secrets"),
        *("sh", "-c", start, "sh", PASSWORD),
    )
    yield
    ada.systemctl("stop", "keyring.service")


def ask_keyring(ada: UserManager, *arguments: str) -> None:
    """Lock it, or unlock it."""
    ada.call("python3", "-c", f"import sys; sys.path += ['/run/packages']\n{CALL}", *arguments)


def test_a_keyring_that_is_opened_later(service: Service):
    """From inside of the sandbox: locked is told, and it goes on when the user has opened it."""
    ada = service.manager
    if shutil.which("gnome-keyring-daemon") is None:
        pytest.skip("no gnome-keyring here (Debian: apt-get install gnome-keyring)")
    with keyring(ada):
        ask_keyring(ada, "lock")
        service.install("[store]", f'path = "{HOME}/a/store.sqlite3"', 'key = { keyring = "main" }')
        assert service.token() is None
        assert "the keyring is locked" in ada.call("spotokend", "status")

        ask_keyring(ada, "unlock", PASSWORD)
        ada.call("spotokend", "unlock")

        token = service.token()
        assert token is not None
        ask_keyring(ada, "lock")
        ada.systemctl("restart", "spotokend.service")
        assert service.token() is None
        ask_keyring(ada, "unlock", PASSWORD)
        until(service.token)  # by itself
        assert service.token() == token


def test_a_passphrase_that_a_program_asks_for(service: Service):
    """Cancelled, it is locked; `spotokend unlock` has it asked again, for a new store and an old one."""
    ada = service.manager
    answer = HOME / "answer"
    ada.write(HOME / "asker", f"#!/bin/sh\ncat {answer}\n", mode=0o700)
    service.install(
        "[store]",
        f'path = "{HOME}/b/store.sqlite3"',
        f'key = {{ passphrase = ["{HOME}/asker"] }}',
    )
    assert service.token() is None
    assert "the passphrase was not given" in ada.call("spotokend", "status")

    ada.write(answer, PASSWORD)
    ada.call("spotokend", "unlock")

    token = service.token()
    assert token is not None
    ada.path(answer).unlink()
    ada.systemctl("restart", "spotokend.service")
    assert service.token() is None
    ada.write(answer, PASSWORD)
    ada.call("spotokend", "unlock")
    assert service.token() == token


# -------------------------------------------------------------------------------------- the package


LIBRARIES = "LD_LIBRARY_PATH=/run/python/lib"
"""Where Python is a shared library, that has moved with it in there."""


def test_a_wheel_in_an_empty_environment_brings_its_units(service: Service, tmp_path: Path):
    """Installed as by pipx: the daemon that systemd starts is the one of that environment."""
    ada = service.manager
    pytest.importorskip("hatchling", reason="hatchling isn't installed, which builds the wheel")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    built = subprocess.run(
        [sys.executable, "-c", build, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    name = built.stdout.splitlines()[-1]
    ada.path(HOME / name).write_bytes((tmp_path / name).read_bytes())
    environment = HOME / "empty"
    ada.call(
        "env", LIBRARIES, "/run/python/bin/python3", "-m", "venv", "--without-pip", f"{environment}"
    )
    ada.call(
        *("env", LIBRARIES, "PYTHONPATH=/run/packages"),
        *(f"{environment}/bin/python", "-m", "pip", "install"),
        *("--quiet", "--no-index", "--no-deps", "--ignore-installed", "--no-compile"),
        *("--disable-pip-version-check", f"{HOME}/{name}"),
    )
    (packages,) = ada.path(environment).glob("lib/*/site-packages")
    # What it depends on, without asking the network for it.
    (packages / "dependencies.pth").write_text("/run/packages\n")

    drop_in = UNITS / "spotokend.service.d" / "libraries.conf"
    ada.write(drop_in, f"[Service]\nEnvironment={LIBRARIES}\n")
    # Nothing but the package has the units: beside it there is no checkout.
    service.install(program=["env", LIBRARIES, f"{environment}/bin/spotokend"])

    assert service.token() is not None
    words = ada.call("cat", f"/proc/{ada.property('MainPID')}/cmdline").split("\0")
    assert words[-3:] == [f"{environment}/bin/spotokend", "run", ""]
    loaded = "import spotokend.cli; print(spotokend.cli.__file__)"
    assert ada.call(f"{environment}/bin/python", "-c", loaded).startswith(str(environment))
