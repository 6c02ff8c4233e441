"""How clients say who they are, in all the ways they do."""

import pytest

from spotokend.sandbox.credentials import Credentials, read_bearer, read_credentials
from spotokend.sandbox.messages import Request
from spotokend.sandbox.options import App


def request(**headers):
    return Request(method="POST", path="/api/token", headers=headers)


def test_basic_credentials(world):
    """The header wins over the form."""
    credentials = read_credentials(
        Request(method="POST", path="/", headers=world.basic("id", "pass:word")),
        {"client_id": "other"},
    )
    assert credentials == Credentials(client_id="id", secret="pass:word")


@pytest.mark.parametrize(
    "header", ["Basic", "Basic !!!", "Basic aWQ=", "Basic /w==", "Bearer access-1", ""]
)
def test_a_header_that_holds_no_credentials(header):
    """Neither other schemes, nor what isn't base64 of id:secret."""
    assert read_credentials(request(authorization=header), {}) is None


def test_credentials_of_the_form():
    """A public client names itself; some confidential ones send the secret along."""
    assert read_credentials(request(), {}) is None
    assert read_credentials(request(), {"client_id": "a"}) == Credentials(
        client_id="a", secret=None
    )
    assert read_credentials(request(), {"client_id": "a", "client_secret": "b"}) == Credentials(
        client_id="a", secret="b"
    )


@pytest.mark.parametrize(
    ("secret", "sent", "proved"),
    [
        ("s", "s", True),
        ("s", "t", False),
        ("s", None, False),
        (None, "s", False),
        (None, None, False),
        ("a b", "a+b", True),
        ("a+b", "a+b", True),
    ],
)
def test_proof(secret, sent, proved):
    """Plain as most clients send it, or form-encoded as RFC 6749, 2.3.1 has it."""
    app = App(client_id="a", name="a", redirect_uris=(), secret=secret)
    assert Credentials(client_id="a", secret=sent).prove(app) is proved


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer a", "a"), ("bearer  a ", "a"), ("Bearer", None), ("Basic a", None), ("", None)],
)
def test_bearer(header, token):
    """The scheme's case doesn't matter (RFC 9110, 11.1)."""
    assert read_bearer(request(authorization=header)) == token


def test_a_secret_is_not_in_a_representation():
    """Not even of what was guessed wrong."""
    assert "word" not in repr(Credentials(client_id="id", secret="word"))
