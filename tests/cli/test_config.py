"""``spotokend config``: checked, written once, and shown; all without a daemon."""

from __future__ import annotations

import io
import stat
import sys

import pytest

from spotokend.cli import main
from spotokend.rules.config.parse import parse

ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Where the configuration is looked for; there is none yet."""
    place = tmp_path / "spotokend" / "config.toml"
    monkeypatch.setenv("SPOTOKEND_CONFIG", str(place))
    return place


@pytest.fixture
def written(path):
    """Writes one."""

    def write(text):
        path.parent.mkdir()
        path.write_text(text)
        return path

    return write


@pytest.fixture
def answers(monkeypatch):
    """Somebody types at a terminal."""

    class Keyboard(io.StringIO):
        def isatty(self):
            return True

    def give(*lines):
        monkeypatch.setattr(sys, "stdin", Keyboard("".join(f"{line}\n" for line in lines)))

    return give


def test_a_good_configuration_is_counted(written, capsys):
    """On stdout; warnings don't spoil it."""
    path = written(
        f'[clients.spotify]\nclient_id = "{ID}"\nscopes = ["streeming"]\n[accounts.a]\n[accounts.b]\n'
    )

    assert main(["config", "check"]) == 0
    out, err = capsys.readouterr()
    assert out == f"ok: {path}: 1 client, 2 accounts\n"
    assert err.startswith("warning: clients.spotify.scopes:")


def test_a_bad_one_is_told_with_all_its_problems(written, capsys):
    """Status 2, each problem with its line."""
    path = written('[clients.spotify]\nclient-id = "x"\n[daemon]\nloglevel = "info"\n')

    assert main(["config", "check"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{path}:2: clients.spotify.client-id: unknown key" in err
    assert f"{path}:4: daemon.loglevel: unknown key" in err


def test_another_file_can_be_named(tmp_path, capsys):
    """``--config`` is stronger than the environment."""
    assert main(["config", "check", "--config", str(tmp_path / "none.toml")]) == 2
    assert "none.toml" in capsys.readouterr().err


def test_the_configuration_in_effect_is_shown(written, capsys):
    """With the defaults, readable by the parser."""
    written(f'[clients.spotify]\nclient_id = "{ID}"\n')

    assert main(["config", "show"]) == 0
    out, _ = capsys.readouterr()
    assert 'flow = "pkce"' in out
    assert parse(out).clients["spotify"].client_id == ID


def test_a_first_configuration_is_written(path, capsys):
    """For its owner alone; what comes next is told."""
    words = ["--client-id", ID, "--scope", "streaming", "--scope", "user-top-read"]

    assert main(["config", "init", *words]) == 0
    assert parse(path.read_text()).clients["spotify"].scopes == ("streaming", "user-top-read")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    out, err = capsys.readouterr()
    assert out == ""
    assert f"Wrote {path}." in err
    assert "http://127.0.0.1/callback" in err


def test_one_that_exists_is_never_edited(written, answers, capsys):
    """And no question is asked in vain."""
    path = written("# mine\n")
    answers(ID, "")

    assert main(["config", "init"]) == 2
    assert path.read_text() == "# mine\n"
    assert "exists already" in capsys.readouterr().err


def test_a_terminal_is_asked(path, answers, capsys):
    """For the client id and the scopes; the questions are words, on stderr."""
    answers(ID, "streaming user-top-read")

    assert main(["config", "init"]) == 0
    client = parse(path.read_text()).clients["spotify"]
    assert (client.client_id, client.scopes) == (ID, ("streaming", "user-top-read"))
    out, err = capsys.readouterr()
    assert out == ""
    assert "Client id: " in err


def test_what_is_known_need_not_be_typed(path, answers, monkeypatch, capsys):
    """Return takes the id that other programs use; scopes that were named aren't asked for."""
    monkeypatch.setenv("SPOTIPY_CLIENT_ID", ID)
    answers("")

    assert main(["config", "init", "--scope", "streaming"]) == 0
    client = parse(path.read_text()).clients["spotify"]
    assert (client.client_id, client.scopes) == (ID, ("streaming",))
    assert f"Client id [{ID}]: " in capsys.readouterr().err


def test_without_a_terminal_the_variable_is_enough(path, monkeypatch):
    """In a script or a container."""
    monkeypatch.setenv("SPOTIPY_CLIENT_ID", ID)
    monkeypatch.setattr(sys, "stdin", None)

    assert main(["config", "init"]) == 0
    assert parse(path.read_text()).clients["spotify"].client_id == ID


def test_without_a_client_id_nothing_is_written(path, monkeypatch, capsys):
    """Status 2, and where the id is to be found."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))

    assert main(["config", "init"]) == 2
    assert "the client id is missing" in capsys.readouterr().err
    assert not path.exists()


def test_a_client_id_that_is_none_writes_nothing(path, capsys):
    """The parser's words."""
    assert main(["config", "init", "--client-id", "ä"]) == 2
    assert not path.exists()
