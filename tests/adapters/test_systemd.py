"""``spotokend service``: the unit that is written, and what systemd's manager is asked to do."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spotokend.adapters import systemd
from spotokend.adapters.systemd import Needs
from spotokend.errors import Misconfigured


class Manager:
    """Takes systemctl's place: remembers what it was asked, and refuses what it is told to.

    Its own environment and the unit's are ``environments``, as systemd 252 prints them.
    """

    def __init__(self, refuse=None, words="", environments=("", "")):
        self.asked = []
        self._refuse = refuse
        self._words = words
        self._environments = dict(zip((4, 5), environments, strict=True))

    def __call__(self, command):
        assert command[:2] == ["systemctl", "--user"]
        self.asked.append(" ".join(command[2:]))
        status = 1 if command[2] == self._refuse else 0
        words = f"Environment={self._environments.get(len(command), '')}\n"
        return subprocess.CompletedProcess(command, status, stdout=words, stderr=self._words)


def plainly(environment):
    """A configuration that needs nothing beyond the units as they are."""
    return Needs()


def no_systemctl(command):
    raise FileNotFoundError(command[0])


@pytest.fixture
def units(tmp_path):
    """The folder of the user's units, which doesn't exist yet."""
    return tmp_path / "systemd" / "user"


@pytest.fixture
def executable(tmp_path):
    """A path with everything in it that systemd gives a meaning to, and yet allows."""
    path = tmp_path / "a good 100%i $HOME" / "spotokend"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_install_writes_the_unit_and_starts_it(units, executable):
    """Two files, whole and under their names alone; the manager reads, enables and starts them."""
    manager = Manager()

    done = systemd.install(executable, units, plainly, manager)

    assert manager.asked == [
        "show --property=Version",
        "show --property=Environment",
        "show --property=Environment spotokend.service",
        "daemon-reload",
        "enable --now spotokend.socket",
        "enable spotokend.service",
        "restart spotokend.service",
    ]
    assert {path.name for path in units.iterdir()} == {"spotokend.service", "spotokend.socket"}
    assert done == [
        f"Wrote {units / 'spotokend.socket'}.",
        f"Wrote {units / 'spotokend.service'}.",
        "It starts with your session, and has been started now.",
    ]
    assert "%executable%" not in (units / "spotokend.service").read_text()


def test_installing_again_replaces_what_is_there(units, executable):
    """An update brings its own unit, and the running daemon is started anew with it."""
    units.mkdir(parents=True)
    (units / "spotokend.service").write_text("of an older release")
    manager = Manager()

    systemd.install(executable, units, plainly, manager)

    assert "ExecStart=" in (units / "spotokend.service").read_text()
    assert manager.asked[-1] == "restart spotokend.service"


@pytest.mark.parametrize(
    ("run", "said", "cure"),
    [
        (no_systemctl, "runs no systemd", "spotokend run"),
        (Manager("show", "Failed to connect to bus"), "Failed to connect to bus", "enable-linger"),
        (Manager("show"), "status 1", "enable-linger"),
    ],
)
def test_without_a_manager_nothing_is_written_and_the_cure_is_told(
    units, executable, run, said, cure
):
    """No systemd, or none for this user: said in words, status 2."""
    with pytest.raises(Misconfigured, match=said) as refused:
        systemd.install(executable, units, plainly, run)

    assert cure in refused.value.hint
    assert refused.value.exit_status == 2
    assert not units.exists()


def test_what_the_manager_objects_to_is_quoted(units, executable):
    """Its own words, with the command, and where to look further."""
    manager = Manager("enable", "Unit is masked.\n")

    with pytest.raises(Misconfigured) as refused:
        systemd.install(executable, units, plainly, manager)

    assert refused.value.message == (
        "`systemctl --user enable --now spotokend.socket` did not work: Unit is masked."
    )
    assert "journalctl --user -u spotokend.service" in refused.value.hint


@pytest.mark.parametrize("path", ["spotokend", "/does/not/exist/spotokend"])
def test_only_a_program_with_its_whole_path_is_installed(units, path):
    """A name that the manager could not find is refused before it is asked."""
    manager = Manager()

    with pytest.raises(Misconfigured, match=f"{path} is no program"):
        systemd.install(path, units, plainly, manager)

    assert manager.asked == []


@pytest.mark.parametrize("name", ["a\nType=oneshot", 'a"b', "a'b", "a\\b"])
def test_a_path_that_systemd_does_not_take_is_refused(units, tmp_path, name):
    """A line break would even add a setting to the unit."""
    path = tmp_path / name
    path.write_text("")
    path.chmod(0o755)

    with pytest.raises(Misconfigured, match="quote, backslash or control character"):
        systemd.install(str(path), units, plainly, Manager())

    assert not units.exists()


def test_a_folder_that_can_not_be_written_is_named(tmp_path, executable):
    """A file stands where the folder should be; nothing else is touched, no draft stays."""
    (tmp_path / "systemd").write_text("")

    with pytest.raises(Misconfigured, match="could not be written: Not a directory"):
        systemd.install(executable, tmp_path / "systemd" / "user", plainly, Manager())


def test_no_draft_stays_behind_when_the_unit_can_not_be_replaced(units, executable):
    """A folder under the unit's name can't be replaced by a file."""
    (units / "spotokend.service").mkdir(parents=True)

    with pytest.raises(Misconfigured, match="could not be written"):
        systemd.install(executable, units, plainly, Manager())

    assert {path.name for path in units.iterdir()} == {"spotokend.service", "spotokend.socket"}


def test_what_the_configuration_needs_goes_into_drop_ins(units, executable):
    """Quoted for systemd; gone when it is installed again without that need. Others' stay."""
    folder, socket = '/srv/a "b" 100%h', "/srv/s 1%/sock"
    seen = []

    def needs(environment):
        seen.append(environment)
        return Needs(socket=socket, writable=(folder, "/x"), bus=True, hooks=True)

    manager = Manager(environments=("HOME=/home/ada", "A=b"))

    done = systemd.install(executable, units, needs, manager)

    assert seen == [{"HOME": "/home/ada", "A": "b"}]
    lines = (units / "spotokend.service.d" / systemd.DROP_IN).read_text().splitlines()
    assert lines[1:] == [
        "[Service]",
        r'''ReadWritePaths="-/srv/a \"b\" 100%%h"''',
        'ReadWritePaths="-/x"',
        "InaccessiblePaths=",
        "InaccessiblePaths=-%t/systemd/private",
    ]
    lines = (units / "spotokend.socket.d" / systemd.DROP_IN).read_text().splitlines()
    assert lines[1:] == ["[Socket]", "ListenStream=", "ListenStream=/srv/s 1%%/sock"]
    assert manager.asked[-2:] == [
        "enable spotokend.service spotokend-hooks.service",
        "restart spotokend.service spotokend-hooks.service",
    ]
    assert f"Wrote {units / 'spotokend-hooks.service'}." in done

    (units / "spotokend.service.d" / "own.conf").touch()
    again = Manager()
    systemd.install(executable, units, plainly, again)

    assert "disable --now spotokend-hooks.service" in again.asked
    left = {str(path.relative_to(units)) for path in units.rglob("*") if path.is_file()}
    assert left == {"spotokend.service", "spotokend.socket", "spotokend.service.d/own.conf"}
    assert not (units / "spotokend.socket.d").exists()


def test_what_can_not_run_is_not_started(units, executable):
    """Only its socket: the first client has it tried, and is told why it can't."""
    manager = Manager()

    done = systemd.install(executable, units, lambda _: Needs(start=False), manager)

    assert manager.asked[-2:] == ["enable --now spotokend.socket", "enable spotokend.service"]
    assert done[-1] == "It starts with your session, or when the first program asks it."


@pytest.mark.parametrize(
    ("states", "there"),
    [
        (("inactive", "inactive"), False),
        (("active", "active"), True),
        (("inactive", "active"), True),
        (("failed", "active"), True),
        (("failed", "inactive"), False),
        (("activating", "active"), True),
    ],
)
def test_whether_systemd_has_it_at_this_moment(states, there):
    """The service, or its socket."""

    def run(command):
        words = "\n\n".join(f"ActiveState={state}" for state in states)
        return subprocess.CompletedProcess(command, 0, stdout=words, stderr="")

    assert systemd.active(run) is there


def test_uninstall_stops_and_removes_it(units, executable):
    """After it the manager knows no such unit."""
    systemd.install(executable, units, plainly, Manager())
    manager = Manager()

    done = systemd.uninstall(units, manager)

    assert manager.asked == [
        "show --property=Version",
        "disable --now spotokend.socket spotokend.service",
        "daemon-reload",
    ]
    assert list(units.iterdir()) == []
    assert done == [
        "It has been stopped.",
        f"Removed {units / 'spotokend.socket'}.",
        f"Removed {units / 'spotokend.service'}.",
    ]


def test_uninstall_where_nothing_is_installed_does_nothing(units):
    """Said, not an error: the state asked for is the state there is."""
    assert systemd.uninstall(units, no_systemctl) == [
        f"There is no {units / 'spotokend.service'}: nothing to do."
    ]


def test_a_unit_that_can_not_be_removed_is_named(units):
    """Here a folder stands under its name."""
    (units / "spotokend.service").mkdir(parents=True)

    with pytest.raises(Misconfigured, match="could not be removed") as refused:
        systemd.uninstall(units, Manager())

    assert refused.value.hint == "remove it by hand"


@pytest.mark.parametrize(
    ("run", "there"),
    [
        (Manager(), True),
        (Manager("show", "Failed to connect to bus"), False),
        (no_systemctl, False),
    ],
)
def test_a_manager_that_answers_is_available(run, there):
    """No systemd at all, or none for this user: said without an error."""
    assert systemd.available(run) is there


def test_whoever_lingers_has_a_file_of_that_name(tmp_path, monkeypatch):
    """As logind keeps it."""
    monkeypatch.setattr(systemd, "LINGER", tmp_path)
    me = pwd.getpwuid(os.getuid()).pw_name
    (tmp_path / "ada").touch()

    assert systemd.lingers("ada")
    assert not systemd.lingers()
    (tmp_path / me).touch()
    assert systemd.lingers()


def test_a_user_without_a_name_does_not_linger(monkeypatch):
    """In a container that was started with a mere number."""
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)

    assert not systemd.lingers()


def test_the_daemon_s_environment_is_the_manager_s_and_then_the_unit_s():
    """Quoted as systemd quotes: spaces, quotes, backslashes, dollars, backticks."""
    manager = Manager(
        environments=(
            r"""HOME=/home/ada UML=ü "FOO=a b" XDG_CONFIG_HOME=/old""",
            r"""XDG_CONFIG_HOME=/new "Q=a\"b'c\\d\$e\`f" EMPTY=""",
        )
    )

    assert systemd.environment(manager) == {
        "HOME": "/home/ada",
        "UML": "ü",
        "FOO": "a b",
        "XDG_CONFIG_HOME": "/new",
        "Q": "a\"b'c\\d$e`f",
        "EMPTY": "",
    }
    assert manager.asked == [
        "show --property=Environment",
        "show --property=Environment spotokend.service",
    ]


def test_stopping_forgets_a_failure_of_the_past_too():
    """Where systemd has forgotten the unit by then, it objects, and that is fine."""
    for manager in (Manager(), Manager("reset-failed", "not loaded")):
        systemd.stop(manager)

        assert manager.asked == [
            "show --property=Version",
            "stop spotokend.socket",
            "stop spotokend-hooks.service",
            "stop spotokend.service",
            "reset-failed spotokend.socket",
            "reset-failed spotokend.service",
            "reset-failed spotokend-hooks.service",
        ]


def test_what_keeps_the_daemon_from_being_stopped_is_told():
    """The caller must know that it may run on."""
    with pytest.raises(Misconfigured, match="timed out"):
        systemd.stop(Manager("stop", "Job timed out."))


def test_the_manager_is_asked_to_read_its_units_anew():
    """After a unit was removed."""
    manager = Manager()

    systemd.reload(manager)

    assert manager.asked == ["daemon-reload"]


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("/tmp/socket", False),
        ("/var/tmp/a/store", False),
        ("/srv/../tmp/socket", False),
        ("{link}/socket", False),
        ("/tmp", False),
        ("/tmpfs/socket", True),
        ("/srv/tmp/socket", True),
        ("/run/user/1000/spotokend.sock", True),
    ],
)
def test_what_is_in_a_folder_that_the_daemon_has_to_itself(path, there, tmp_path):
    """However it is spelt; such a folder may be a link to another one itself."""
    (tmp_path / "link").symlink_to("/tmp")

    assert systemd.out_of_reach(path.format(link=tmp_path / "link")) is not there


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"XDG_CONFIG_HOME": "/srv/ada/config"}, "/srv/ada/config/systemd/user"),
        ({"XDG_CONFIG_HOME": "relative"}, "{home}/.config/systemd/user"),
        ({}, "{home}/.config/systemd/user"),
    ],
)
def test_units_live_in_the_configuration_folder(environ, folder, own_world):
    """The XDG specification: a relative folder is ignored."""
    assert systemd.user_unit_dir(environ) == Path(folder.format(home=own_world))


def test_the_unit_comes_from_an_installed_package_first(tmp_path, monkeypatch):
    """A wheel carries it under spotokend/systemd; only a checkout has it one folder up."""
    packaged = tmp_path / "systemd" / "spotokend.service"
    packaged.parent.mkdir()
    for unit in systemd.UNITS:
        packaged.with_name(unit).write_text("[Service]\nExecStart=%executable% run\n")
    monkeypatch.setattr(systemd.resources, "files", lambda package: tmp_path)
    units = tmp_path / "units"

    systemd.install(sys.executable, units, plainly, Manager())

    assert (units / "spotokend.service").read_text() == (
        f'[Service]\nExecStart="{sys.executable}" run\n'
    )


def test_systemctl_is_run_with_its_words_captured(tmp_path, monkeypatch):
    """The real runner, with a program of that name on the path."""
    program = tmp_path / "systemctl"
    program.write_text('#!/bin/sh\necho "$@" >&2\nexit 3\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    done = systemd.run_systemctl(["systemctl", "--user", "show"])

    assert (done.returncode, done.stderr) == (3, "--user show\n")


def test_a_setting_reaches_the_daemon_as_it_was_meant(units, executable, own_world):
    """In a drop-in: quoted for systemd, its own specifiers made literal, and nothing to complain."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze isn't installed (Debian: systemd)")
    line = systemd.setting("SPOTOKEND_CONFIG", '/100%h "a b" $HOME back\\slash')
    assert line == r'''Environment="SPOTOKEND_CONFIG=/100%%h \"a b\" $HOME back\\slash"'''
    systemd.install(executable, units, plainly, Manager())
    drop_in = units / "spotokend.service.d" / "own.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(f"[Service]\n{line}\n")

    verified = verify(units)

    assert (verified.stdout + verified.stderr, verified.returncode) == ("", 0)


def verify(units):
    return subprocess.run(
        ["systemd-analyze", "verify", "--user", units / "spotokend.service"],
        capture_output=True,
        text=True,
        check=False,
    )


def test_systemd_itself_finds_nothing_wrong_with_the_unit(units, executable, own_world):
    """``systemd-analyze verify`` has no complaint, and finds the program despite its odd path."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze isn't installed (Debian: systemd)")
    systemd.install(executable, units, plainly, Manager())

    verified = verify(units)

    # Its status is 0 for much that it complains of.
    assert (verified.stdout + verified.stderr, verified.returncode) == ("", 0)
