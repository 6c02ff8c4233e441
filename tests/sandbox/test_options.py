"""What a sandbox pretends to be, and which redirect URIs may be registered and asked for."""

import pytest

from spotokend.sandbox.options import CHANGEABLE, App, Options, Rotation, User, secure


@pytest.mark.parametrize(
    "uri",
    [
        "https://app.example.test/cb",
        "http://127.0.0.1/cb",
        "http://[::1]:80/cb",
        "my-app:callback",
    ],
)
def test_what_may_be_registered(uri):
    """HTTPS, loopback literals, and schemes of an app's own."""
    assert secure(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "http://localhost/cb",
        "http://app.example.test/cb",
        "http://127.0.0.1.example.test/cb",
        "callback",
        "http://[::1/cb",
        "http://127.0.0.1/c b",
        "https://example.test/č",
    ],
)
def test_what_may_not_be_registered(uri):
    """Since 2025-11-27 neither plain http elsewhere nor localhost."""
    assert not secure(uri)
    with pytest.raises(ValueError, match="can't be registered"):
        Options(apps=(App(client_id="a", name="a", redirect_uris=(uri,)),))


@pytest.mark.parametrize(
    ("registered", "asked", "accepted"),
    [
        ("http://127.0.0.1/cb", "http://127.0.0.1/cb", True),
        ("http://127.0.0.1/cb", "http://127.0.0.1:1/cb", True),
        ("http://127.0.0.1/cb", "http://127.0.0.1:65535/cb", True),
        ("http://127.0.0.1/cb?x=1", "http://127.0.0.1:80/cb?x=1", True),
        ("http://127.0.0.1", "http://127.0.0.1:80", True),
        ("http://[::1]/cb", "http://[::1]:8080/cb", True),
        ("http://127.0.0.1/cb", "http://127.0.0.1:65536/cb", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:0/cb", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:/cb", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:80/cb/", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:80/cb?x=1", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:80/cb#x", False),
        ("http://127.0.0.1/cb", "http://[::1]:80/cb", False),
        ("http://127.0.0.1/cb", "http://me@127.0.0.1:80/cb", False),
        ("http://127.0.0.1:8888/cb", "http://127.0.0.1:8889/cb", False),
        ("http://127.0.0.1:8888/cb", "http://127.0.0.1/cb", False),
        ("https://app.example.test/cb", "https://app.example.test:444/cb", False),
        ("https://app.example.test/cb", "https://app.example.test/cb", True),
    ],
)
def test_only_a_loopback_literal_without_a_port_stands_for_all_ports(registered, asked, accepted):
    """RFC 8252, 7.3 for those; everything else exactly."""
    app = App(client_id="a", name="a", redirect_uris=(registered,))
    assert app.accepts(asked) is accepted


def test_defaults_are_spotifys():
    """An hour, six months, and refresh tokens that stay."""
    options = Options()
    assert (options.access_life, options.grant_life) == (3600, 180 * 86400)
    assert options.rotation is Rotation.NEVER


def test_options_change_by_json_values():
    """Strings become what they mean, and the old options stay as they were."""
    before = Options()
    after = before.changed({"rotation": "always", "grace": 5, "unlisted": ["bob"]})
    assert (after.rotation, after.grace, after.unlisted) == (Rotation.ALWAYS, 5.0, ("bob",))
    assert before == Options()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rotatoin": "always"}, "no option 'rotatoin'; there are access_life"),
        ({"users": []}, "no option 'users'"),
        ({"rotation": "sometimes"}, "rotation: one of"),
        ({"access_life": 0}, "access_life: seconds, at least 1"),
        ({"user": "mallory"}, "no user 'mallory'; there are alice, bob, carol"),
        ({"unlisted": ["mallory"]}, "no user 'mallory'"),
    ],
)
def test_a_wrong_option_is_named(values, words):
    """A misspelt option must not look as if it did something."""
    with pytest.raises(ValueError, match=words):
        Options().changed(values)


def test_somebody_has_to_live_there():
    """Without users nobody could be logged in."""
    with pytest.raises(ValueError, match="at least one"):
        Options(users=())


def test_every_changeable_option_is_shown():
    """What can be changed can be read."""
    assert tuple(Options().to_json()) == CHANGEABLE


def test_who_is_logged_in():
    """The one who was named, else the option's, else the first."""
    bob = User(id="bob", account_id="b", display_name="Bob")
    amy = User(id="amy", account_id="a", display_name="Amy")
    options = Options(users=(amy, bob))
    assert options.find_user("") == amy
    assert options.changed({"user": "bob"}).find_user("") == bob
    assert options.find_user("bob") == bob
    assert options.find_user("mallory") is None


def test_a_secret_is_not_in_a_representation():
    """A test's failure prints its options."""
    assert "sandbox-client-secret" not in repr(Options())
