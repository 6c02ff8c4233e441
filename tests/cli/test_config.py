"""``spotokend config``: checked, written once, and shown; all without a daemon."""

from __future__ import annotations

import io
import stat
import sys

import pytest
from typed_answers import stdin

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


def test_a_secret_s_file_is_looked_at_too(written, capsys):
    """The daemon would not start without it."""
    written(
        f'[clients.bot]\nclient_id = "{ID}"\nflow = "client_credentials"\n'
        'client_secret = { file = "nowhere" }\n'
    )

    assert main(["config", "check"]) == 2
    assert "clients.bot.client_secret" in capsys.readouterr().err


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
    """For its owner alone, and shown; what comes next is told."""
    words = ["--client-id", ID, "--scope", "streaming", "--scope", "user-top-read"]

    assert main(["config", "init", *words]) == 0
    assert parse(path.read_text()).clients["spotify"].scopes == ("streaming", "user-top-read")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    out, err = capsys.readouterr()
    assert out == ""
    assert f"\n{path}\n" in err
    assert f'    client_id = "{ID}"\n' in err
    assert "must be exactly http://127.0.0.1/callback\n" in err


def test_one_that_exists_is_never_edited(written, typed, capsys):
    """And no question is asked in vain."""
    path = written("# mine\n")
    typed.give(ID, "")

    assert main(["config", "init"]) == 2
    assert main(["config", "init", "--client-id", ID]) == 2
    assert path.read_text() == "# mine\n"
    err = capsys.readouterr().err
    assert err.count("exists already") == 2
    assert "Client id" not in err


def test_a_terminal_is_asked(path, typed, capsys):
    """As at a first login, for the client id and the scopes; the questions are words, on stderr."""
    typed.give(ID, "8 user-top-read")

    assert main(["config", "init"]) == 0
    client = parse(path.read_text()).clients["spotify"]
    assert (client.client_id, client.scopes) == (ID, ("user-follow-read", "user-top-read"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.index("http://127.0.0.1/callback") < err.index("Client id: ")
    assert "Next: spotokend login, " in err


def test_what_is_known_need_not_be_typed(path, typed, monkeypatch, capsys):
    """Return takes the id that other programs use; scopes that were named aren't asked for."""
    monkeypatch.setenv("SPOTIPY_CLIENT_ID", ID)
    typed.give("")

    assert main(["config", "init", "--scope", "streaming"]) == 0
    client = parse(path.read_text()).clients["spotify"]
    assert (client.client_id, client.scopes) == (ID, ("streaming",))
    err = capsys.readouterr().err
    assert f"Return takes the one of $SPOTIPY_CLIENT_ID.\nClient id [{ID}]: " in err
    assert "Scopes" not in err


def test_answers_can_be_piped_in(path, piped, capsys):
    """The same questions, and no more of the pipe than their answers."""
    piped.write(f"{ID}\n8\nthe rest".encode())

    assert main(["config", "init"]) == 0
    client = parse(path.read_text()).clients["spotify"]
    assert (client.client_id, client.scopes) == (ID, ("user-follow-read",))
    assert piped.rest() == b"the rest"


@pytest.mark.parametrize("name", ["SPOTIPY_CLIENT_ID", "SPOTIFY_CLIENT_ID"])
@pytest.mark.parametrize("stream", [None, io.StringIO()], ids=["none", "a pipe"])
def test_without_a_terminal_the_variable_is_enough(path, monkeypatch, capsys, name, stream):
    """In a script or a container, whose input may never end: nothing is asked."""
    monkeypatch.setenv(name, ID)
    monkeypatch.setenv("SPOTIPY_REDIRECT_URI", "http://127.0.0.1:8888/callback")
    monkeypatch.setattr(sys, "stdin", stream)

    assert main(["config", "init"]) == 0
    client = parse(path.read_text()).clients["spotify"]
    assert (client.client_id, client.redirect_uri) == (ID, "http://127.0.0.1:8888/callback")
    assert "must be exactly http://127.0.0.1:8888/callback" in capsys.readouterr().err


def test_an_app_that_was_named_has_our_redirect_uri(path, monkeypatch):
    """The variables are those of another one, perhaps."""
    monkeypatch.setenv("SPOTIPY_CLIENT_ID", "f" * 32)
    monkeypatch.setenv("SPOTIPY_REDIRECT_URI", "http://127.0.0.1:8888/callback")

    assert main(["config", "init", "--client-id", ID]) == 0
    client = parse(path.read_text()).clients["spotify"]
    assert (client.client_id, client.redirect_uri) == (ID, "http://127.0.0.1/callback")


@pytest.mark.parametrize(("answers", "question"), [([], "Client id"), ([ID], "Scopes")])
@pytest.mark.parametrize("terminal", [True, False])
def test_without_an_answer_nothing_is_written(path, capsys, answers, question, terminal):
    """Status 2, and how to do without questions."""
    with stdin(terminal=terminal) as there:
        there.give(*answers)
        there.end()
        assert main(["config", "init"]) == 2
    err = capsys.readouterr().err
    assert f'the input ended at "{question}"; nothing has been written' in err
    assert "spotokend config init --client-id ID" in err
    assert not path.parent.exists()


def test_a_client_id_that_is_none_writes_nothing(path, capsys):
    """The parser's words."""
    assert main(["config", "init", "--client-id", "ä"]) == 2
    assert "the client id: has characters that no client id has" in capsys.readouterr().err
    assert not path.exists()


def test_another_place_is_what_the_daemon_has_to_be_told(tmp_path, capsys):
    """A login wouldn't find it."""
    path = tmp_path / "a b.toml"

    assert main(["config", "init", "--config", str(path), "--client-id", ID]) == 0
    assert parse(path.read_text()).clients["spotify"].client_id == ID
    assert (
        f"Next: spotokend run --config '{path}'\nand: spotokend login\n" in capsys.readouterr().err
    )
