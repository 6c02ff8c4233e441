"""The configuration that is printed ready for use."""

import os
import stat
import tomllib

import pytest

from spotokend.sandbox import App, Options, User, ready_configuration

URL = "http://127.0.0.1:9999"


def test_it_is_toml_with_a_client_for_each_flow():
    """PKCE, secret and client credentials, and accounts for all of them."""
    ready = tomllib.loads(ready_configuration(URL, Options()))
    flows = {name: client["flow"] for name, client in ready["clients"].items()}
    assert flows == {
        "pkce": "pkce",
        "confidential": "authorization_code",
        "machine": "client_credentials",
    }
    assert {name: account["client"] for name, account in ready["accounts"].items()} == {
        "machine": "machine",
        "alice": "pkce",
        "bob": "confidential",
        "carol": "pkce",
    }


def test_every_endpoint_is_the_sandboxs():
    """Nothing may reach the real provider."""
    ready = tomllib.loads(ready_configuration(URL, Options()))
    for client in ready["clients"].values():
        assert client["authorize_url"] == f"{URL}/authorize"
        assert client["token_url"] == f"{URL}/api/token"
        assert client["api_url"] == URL
        assert client["identity_url"] == f"{URL}/v1/me"


def test_without_a_folder_the_secret_comes_from_the_environment():
    """And the text says how to set it."""
    text = ready_configuration(URL, Options())
    assert "# export SANDBOX_CONFIDENTIAL_SECRET=sandbox-client-secret" in text
    ready = tomllib.loads(text)
    assert ready["clients"]["confidential"]["client_secret"] == {
        "env": "SANDBOX_CONFIDENTIAL_SECRET"
    }


def test_with_a_folder_the_secret_is_in_a_private_file(tmp_path):
    """Readable by its owner alone, also where a wider file was there before."""
    path = tmp_path / "confidential.secret"
    path.write_text("an older and longer secret than this")
    path.chmod(0o644)
    text = ready_configuration(URL, Options(), folder=str(tmp_path))
    assert tomllib.loads(text)["clients"]["machine"]["client_secret"] == {"file": str(path)}
    assert path.read_text() == "sandbox-client-secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "sandbox-client-secret" not in text


def test_a_link_in_the_folder_is_not_followed(tmp_path):
    """The secret goes nowhere else."""
    elsewhere = tmp_path / "elsewhere"
    os.symlink(elsewhere, tmp_path / "confidential.secret")
    with pytest.raises(OSError, match="symbolic link"):
        ready_configuration(URL, Options(), folder=str(tmp_path))
    assert not elsewhere.exists()


@pytest.mark.parametrize(
    ("options", "rotation"),
    [
        ({}, {}),
        ({"rotation": "always"}, {"rotation": "strict"}),
        ({"rotation": "optional"}, {"rotation": "strict"}),
        (
            {"rotation": "always", "grace": 5},
            {"rotation": "grace", "rotation_grace": 5.0},
        ),
    ],
)
def test_rotation_is_told_where_it_is_not_spotifys(options, rotation):
    """The defaults need no line."""
    client = tomllib.loads(ready_configuration(URL, Options(**options)))["clients"]["pkce"]
    assert {name: client[name] for name in client if name.startswith("rotation")} == rotation


def test_other_apps_and_users():
    """Names that repeat are numbered, and what TOML can't take bare is quoted."""
    apps = tuple(
        App(client_id=f"app-{n}", name="App", redirect_uris=("http://127.0.0.1/cb",))
        for n in (1, 2)
    )
    users = (User(id='d"ot.ted', account_id="a", display_name="Dotted"),)
    ready = tomllib.loads(ready_configuration(URL, Options(apps=apps, users=users)))
    assert list(ready["clients"]) == ["pkce", "pkce2"]
    assert ready["accounts"] == {'d"ot.ted': {"client": "pkce"}}


def test_without_apps_there_is_nothing_to_configure():
    """A comment alone is TOML, too."""
    assert tomllib.loads(ready_configuration(URL, Options(apps=()))) == {}
