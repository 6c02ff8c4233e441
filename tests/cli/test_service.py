"""``spotokend service``: which program is installed and where, what it says, what a purge tells."""

from __future__ import annotations

import os
import sys

import pytest

from spotokend.adapters import systemd
from spotokend.adapters.systemd import Needs
from spotokend.cli import main, purge, service
from spotokend.errors import Misconfigured
from spotokend.rules.config.parse import starter


class Manager:
    """Takes the adapter's place; a part that is an error is raised."""

    def __init__(self):
        self.calls = []
        self.environment = {}
        self.stop = self.reload = None

    def install(self, executable, unit_dir, needs):
        self.calls.append((executable, unit_dir))
        self.needs = None
        if not isinstance(self.environment, Exception):
            self.needs = needs(self.environment)
        return ["Wrote it.", "Started it."]

    def uninstall(self, unit_dir):
        self.calls.append(unit_dir)
        return ["Removed it."]

    def part(self, name):
        def act():
            self.calls.append(name)
            if isinstance(getattr(self, name), Exception):
                raise getattr(self, name)
            return getattr(self, name)

        return act


@pytest.fixture
def home(short_path, monkeypatch):
    """A home with a configuration, and XDG folders in it."""
    monkeypatch.setenv("HOME", str(short_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path / "run"))
    config = short_path / ".config" / "spotokend" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(starter("a" * 32, []))
    return short_path


@pytest.fixture
def manager(home, monkeypatch):
    """One that does everything, for a user who lingers."""
    manager = Manager()
    manager.environment = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run")}
    monkeypatch.setattr(systemd, "install", manager.install)
    monkeypatch.setattr(systemd, "uninstall", manager.uninstall)
    monkeypatch.setattr(systemd, "lingers", lambda: True)
    monkeypatch.setattr(systemd, "active", lambda: False)
    for name in ("environment", "stop", "reload"):
        monkeypatch.setattr(systemd, name, manager.part(name))
    return manager


@pytest.fixture
def unit(home):
    """An installed one."""
    unit = home / ".config" / "systemd" / "user" / "spotokend.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]")
    return unit


def test_install_names_the_program_that_was_called(manager, monkeypatch, tmp_path, capsys):
    """By its whole path, wherever it was called from."""
    program = tmp_path / "spotokend"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["spotokend"])

    assert main(["service", "install"]) == 0
    assert manager.calls[:1] == [(str(program), systemd.user_unit_dir(os.environ))]
    assert capsys.readouterr() == ("", "Wrote it.\nStarted it.\n")


def test_a_relative_path_is_made_absolute(manager, monkeypatch, tmp_path):
    """``./spotokend service install``; also where it can't be found again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["./spotokend"])

    main(["service", "install"])

    assert manager.calls[0][0] == str(tmp_path / "spotokend")


def test_under_the_interpreter_it_is_the_script_beside_it(manager, monkeypatch):
    """``python -m spotokend service install``."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/spotokend/__main__.py"])

    main(["service", "install"])

    assert manager.calls[0][0] == os.path.join(os.path.dirname(sys.executable), "spotokend")


def test_uninstall_needs_no_program(manager, capsys):
    """Only the place of the units."""
    assert main(["service", "uninstall"]) == 0
    assert manager.calls == [systemd.user_unit_dir(os.environ)]
    assert capsys.readouterr() == ("", "Removed it.\n")


# ------------------------------------------------------------------------------ what install says


@pytest.mark.parametrize(
    ("lingers", "environ", "said"),
    [
        (True, {}, False),
        (False, {}, True),
        (False, {"DISPLAY": ":0"}, False),
        (False, {"DISPLAY": ":0", "SSH_CONNECTION": "a b c d"}, True),
    ],
)
def test_lingering_is_explained_where_sessions_end(
    manager, monkeypatch, capsys, lingers, environ, said
):
    """One sentence with the command; on a desktop the session's end is what one wants."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(systemd, "lingers", lambda: lingers)

    main(["service", "install"])

    assert ("loginctl enable-linger" in capsys.readouterr().err) == said


@pytest.mark.parametrize(
    ("variable", "value", "what", "where"),
    [
        ("SPOTOKEND_CONFIG", "/x/c.toml", "configuration", ".config/spotokend/config.toml"),
        ("XDG_CONFIG_HOME", "/x", "configuration", ".config/spotokend/config.toml"),
        ("XDG_STATE_HOME", "/x", "state folder", ".local/state/spotokend"),
        ("SPOTOKEND_SOCK", "/x/s", "socket", "run/spotokend/spotokend.sock"),
    ],
)
def test_what_the_service_does_not_see_is_told(
    manager, home, monkeypatch, variable, value, what, where
):
    """With both places, and the line that changes it; not after that line was written."""
    monkeypatch.setenv(variable, value)

    (advice,) = service.install()[2:]

    assert f"this shell's ${variable}, so that its {what} is {home / where} and not /x" in advice
    assert advice.endswith(f'Environment="{variable}={value}"')
    manager.environment[variable] = value
    assert not [line for line in service.install() if line.startswith("warning")]


def test_a_relative_path_is_made_absolute_for_the_service(manager, home, monkeypatch):
    """Its own folder is another."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("SPOTOKEND_CONFIG", "my.toml")

    assert service.install()[-1].endswith(f'Environment="SPOTOKEND_CONFIG={home}/my.toml"')


def test_a_variable_that_changes_nothing_is_not_told(manager, home, monkeypatch):
    """It names the usual place, or the one that the configuration names for the service."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("SPOTOKEND_SOCK", str(home / "sock"))
    with (home / ".config" / "spotokend" / "config.toml").open("a") as config:
        config.write('[daemon]\nsocket = "~/sock"\n')

    assert service.install() == ["Wrote it.", "Started it."]


def test_without_a_configuration_the_service_can_not_start(manager, home):
    """Which install can't see, but say; where the service's own is another, login is no help."""
    (home / ".config" / "spotokend" / "config.toml").unlink()

    assert service.install()[-1] == (
        f"There is no {home}/.config/spotokend/config.toml yet, without which the service can't "
        "start: spotokend login helps to write it"
    )
    manager.environment["SPOTOKEND_CONFIG"] = "/x/c.toml"
    assert service.install()[-1] == (
        "There is no /x/c.toml yet, without which the service can't start"
    )


def test_without_the_manager_s_environment_there_is_no_advice(manager):
    """The unit is installed all the same."""
    manager.environment = Misconfigured("no")

    assert service.install() == ["Wrote it.", "Started it."]


# ----------------------------------------------------------------------- what the service needs


def test_a_usual_configuration_needs_nothing_more(manager, home):
    """But the state folder, which the sandbox can only let through if it is there."""
    service.install()

    assert manager.needs == Needs()
    state = home / ".local" / "state" / "spotokend"
    assert [oct(path.stat().st_mode & 0o777) for path in (state, state.parent)] == ["0o700"] * 2


def test_what_lies_elsewhere_is_let_through(manager, home):
    """Store, key and socket; folders that aren't there yet are made."""
    with (home / ".config" / "spotokend" / "config.toml").open("a") as config:
        config.write(
            f'[daemon]\nsocket = "{home}/s/sock"\n'
            f'[store]\npath = "{home}/a/store.sqlite3"\nkey = "{home}/b/key"\n'
        )

    service.install()

    assert manager.needs == Needs(
        socket=f"{home}/s/sock", writable=(f"{home}/a", f"{home}/s", f"{home}/b")
    )
    assert (home / "b").is_dir()


def test_a_state_folder_elsewhere_is_let_through(manager, home):
    """The service's own variable, and a socket of its own."""
    manager.environment |= {"XDG_STATE_HOME": f"{home}/x", "SPOTOKEND_SOCK": f"{home}/y"}

    service.install()

    assert manager.needs == Needs(socket=f"{home}/y", writable=(f"{home}/x/spotokend", str(home)))


@pytest.mark.parametrize(
    ("lines", "bus"),
    [
        ('client_secret = { command = ["pass", "spotify"] }', True),
        ('client_secret = { keyring = "spotify" }', True),
        ('client_secret = { credential = "spotify" }', False),
        ('[store]\nkey = { keyring = "mine" }', True),
        ('[store]\nkey = { passphrase = "pinentry" }', True),
        ('[store]\nkey = { credential = "mine" }', False),
    ],
)
def test_the_bus_is_let_in_for_what_may_ask_it(manager, home, lines, bus):
    """Keyrings, dialogues, and commands of which nobody knows."""
    config = home / ".config" / "spotokend" / "config.toml"
    config.write_text(
        f'[clients.x]\nclient_id = "{"a" * 32}"\nflow = "authorization_code"\n'
        + ("" if lines.startswith("client_secret") else 'client_secret = { env = "S" }\n')
        + lines
        + "\n"
    )

    service.install()

    assert manager.needs.bus is bus
    assert manager.needs.start


def test_what_can_not_be_used_is_not_started(manager, home):
    """The first client is told what is wrong."""
    (home / ".config" / "spotokend" / "config.toml").write_text("no TOML")

    service.install()

    assert manager.needs == Needs(start=False)


def test_a_folder_that_can_not_be_made_is_named(manager, home):
    """Nothing is installed then."""
    (home / "file").touch()
    with (home / ".config" / "spotokend" / "config.toml").open("a") as config:
        config.write(f'[store]\npath = "{home}/file/x/store.sqlite3"\n')

    with pytest.raises(Misconfigured, match="file/x can't be made: Not a directory"):
        service.install()


@pytest.mark.parametrize("place", ["/tmp/spotokend-nowhere", "/var/tmp/../tmp/spotokend-nowhere"])
@pytest.mark.parametrize(
    "lines",
    [
        '[daemon]\nsocket = "{place}"',
        '[store]\npath = "{place}"',
        '[store]\nkey = "{place}"',
        '[store]\nkey = {{ passphrase = ["{place}", "words"] }}',
        'client_secret = {{ file = "{place}" }}',
        'client_secret = {{ command = ["{place}", "words"] }}',
    ],
)
def test_what_the_service_would_not_see_is_refused(manager, home, lines, place):
    """Its /tmp is another: named with the cure before anything is written or made."""
    config = home / ".config" / "spotokend" / "config.toml"
    config.write_text(
        f'[clients.x]\nclient_id = "{"a" * 32}"\nflow = "authorization_code"\n'
        + ("" if lines.startswith("client_secret") else 'client_secret = { env = "S" }\n')
        + lines.format(place=place)
        + "\n"
    )

    with pytest.raises(Misconfigured, match=f"{place} is out of the s") as refused:
        service.install()

    assert refused.value.hint == (
        "choose a place below your home or $XDG_RUNTIME_DIR; then again: spotokend service install"
    )
    assert not (home / ".local").exists()


@pytest.mark.parametrize("variable", ["SPOTOKEND_CONFIG", "SPOTOKEND_SOCK", "XDG_STATE_HOME"])
def test_a_variable_of_the_service_that_leads_out_of_its_reach(manager, variable):
    """Of a drop-in, or of the user's whole manager."""
    manager.environment[variable] = "/tmp/spotokend-nowhere"

    with pytest.raises(Misconfigured, match="/tmp/spotokend-nowhere"):
        service.install()


def test_the_socket_is_not_taken_from_a_daemon_that_runs(manager, home, monkeypatch):
    """One that isn't systemd's: it would go on, and nobody reach it."""
    monkeypatch.setattr(purge, "listening_process", lambda path: 7)

    with pytest.raises(Misconfigured, match="a daemon runs already, process 7") as refused:
        service.install()

    assert refused.value.hint.startswith("spotokend stop")
    monkeypatch.setattr(systemd, "active", lambda: True)
    service.install()


# --------------------------------------------------------------------------------- what purge says


def test_purge_tells_what_goes_and_where_else_to_go(manager, home, unit, capsys):
    """Before it is done, a line each; and at the end what no program of ours can do."""
    assert main(["service", "uninstall", "--purge"]) == 0

    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "The service has been stopped.\n"
        "To be removed, for good:\n"
        f"  {unit}\n"
        f"  {home}/.config/spotokend/config.toml\n"
        f"  {home}/.config/spotokend\n"
        "Removed all of it.\n"
        "Spotify still lists your app among those with access; end that there: "
        "https://www.spotify.com/account/apps/\n"
        "The program itself goes the way it came: pipx uninstall spotokend, or pip uninstall "
        "spotokend.\n"
        "Copies of the logins in your backups stay encrypted: without the key nobody can read "
        "them, so delete\n"
        "it there too, if you keep it there.\n"
    )
    assert manager.calls == ["environment", "stop", "reload"]
    assert not unit.exists()


def test_a_second_purge_says_that_there_is_nothing(manager, home, unit, capsys):
    """And asks systemd nothing."""
    main(["service", "uninstall", "--purge"])
    capsys.readouterr()
    manager.calls.clear()

    assert main(["service", "uninstall", "--purge"]) == 0

    assert capsys.readouterr().err == (
        f"No service is installed: there is no {unit}.\n"
        "There is nothing of spotokend's to remove.\n"
    )
    assert manager.calls == []


def test_the_service_s_own_places_are_purged_too(manager, home, unit, capsys):
    """A drop-in may have moved them; relative ones begin at the home."""
    manager.environment["SPOTOKEND_CONFIG"] = "its.toml"
    (home / "its.toml").write_text(starter("b" * 32, []))

    assert main(["service", "uninstall", "--purge"]) == 0

    assert not (home / "its.toml").exists()
    assert not (home / ".config" / "spotokend").exists()


def test_without_systemd_the_rest_is_purged(manager, home, unit, capsys):
    """The unit's file too: nobody else would remove it."""
    manager.environment = Misconfigured("systemctl is not there: this machine runs no systemd")

    assert main(["service", "uninstall", "--purge"]) == 0

    assert capsys.readouterr().err.startswith(
        "The unit is removed without systemd's help: systemctl is not there: this machine runs no "
        "systemd\nTo be removed"
    )
    assert not unit.exists()
    assert manager.calls == ["environment"]


def test_systemd_that_can_not_stop_it_is_told_and_its_word_is_not_needed(manager, unit, capsys):
    """Whether a daemon runs the locks tell; nor does it matter when the manager reads on later."""
    manager.stop = Misconfigured("timed out")
    manager.reload = Misconfigured("no")

    assert main(["service", "uninstall", "--purge"]) == 0

    assert "without systemd's help: timed out" in capsys.readouterr().err
    assert manager.calls == ["environment", "stop", "reload"]


def test_a_broken_configuration_and_guests_are_told(manager, home, capsys):
    """What is wrong with it, and what stays beside it."""
    folder = home / ".config" / "spotokend"
    (folder / "config.toml").write_text("no TOML")
    (folder / "diary").touch()

    assert main(["service", "uninstall", "--purge"]) == 0

    err = capsys.readouterr().err
    assert f"none that it may name: {folder}/config.toml:1" in err
    assert f"Left as it is:\n  {folder}/diary: spotokend doesn't use it\n" in err


def test_what_could_not_be_removed_is_told_at_the_end(manager, home, unit, monkeypatch, capsys):
    """Status 1, the places, and what to do; the rest has gone."""
    config = f"{home}/.config/spotokend/config.toml"
    monkeypatch.setattr(purge, "remove", lambda found: ([str(unit)], {config: "Permission denied"}))

    assert main(["service", "uninstall", "--purge"]) == 1

    err = capsys.readouterr().err
    assert "Removed 1 of 3.\n" in err
    assert err.endswith(
        "spotokend: this could not be removed:\n"
        f"  {config}: Permission denied\n"
        "  → see who may: ls -ld PATH; then again: spotokend service uninstall --purge\n"
    )


def test_where_nothing_could_be_removed_nothing_is_claimed(manager, home, monkeypatch, capsys):
    """Neither that there was nothing, nor that the rest is up to Spotify."""
    monkeypatch.setattr(purge, "remove", lambda found: ([], {"/x": "Permission denied"}))

    assert main(["service", "uninstall", "--purge"]) == 1

    err = capsys.readouterr().err
    assert "There is nothing" not in err
    assert "https://" not in err


def test_a_daemon_that_runs_ends_the_purge_before_it_begins(manager, home, monkeypatch, capsys):
    """Nothing is even announced."""

    def refuse(found):
        raise Misconfigured("a daemon runs (process 7)", hint="spotokend stop")

    monkeypatch.setattr(purge, "nobody_running", refuse)

    assert main(["service", "uninstall", "--purge"]) == 2

    err = capsys.readouterr().err
    assert "To be removed" not in err
    assert err.endswith("spotokend: a daemon runs (process 7)\n  → spotokend stop\n")
    assert (home / ".config" / "spotokend" / "config.toml").exists()
