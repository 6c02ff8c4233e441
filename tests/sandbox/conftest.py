"""A provider whose clock is a number, and the requests that a program would send to it."""

import base64
import hashlib
import itertools
import json
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from spotokend.sandbox import Options, Provider, Request

PKCE, CONFIDENTIAL, SECRET = (
    "sandbox-pkce-client",
    "sandbox-secret-client",
    "sandbox-client-secret",
)
REDIRECT = "http://127.0.0.1:8888/callback"
VERIFIER = "verifier-" * 6


def challenge(verifier):
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def basic(client_id, secret):
    pair = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
    return {"authorization": f"Basic {pair}"}


class World:
    """One provider and a program that talks to it; options as keywords."""

    PKCE, CONFIDENTIAL, SECRET = PKCE, CONFIDENTIAL, SECRET
    REDIRECT, VERIFIER = REDIRECT, VERIFIER
    challenge = staticmethod(challenge)
    basic = staticmethod(basic)

    def __init__(self, **options):
        numbers = itertools.count()
        self.time = 1000.0
        self.provider = Provider(
            Options(**options),
            now=lambda: self.time,
            random_text=lambda: f"random-{next(numbers)}",
            rand=lambda: 0.5,
        )

    @property
    def ledger(self):
        return self.provider.ledger

    def parameters(self, client=PKCE, **changed):
        """A complete authorization request; None leaves a parameter out."""
        given = {
            "client_id": client,
            "response_type": "code",
            "redirect_uri": REDIRECT,
            "state": "state-1",
            "scope": "user-read-private user-read-email",
        }
        if client == PKCE:
            given |= {"code_challenge": challenge(VERIFIER), "code_challenge_method": "S256"}
        return {name: value for name, value in (given | changed).items() if value is not None}

    def authorize(self, method="GET", form=None, **changed):
        query = urlencode(self.parameters(**changed))
        body = urlencode(form or {}).encode()
        return self.provider.handle(
            Request(method=method, path="/authorize", query=query, body=body)
        )

    def agree(self, user="alice", **changed):
        """What the redirect says after the user agreed."""
        response = self.authorize("POST", {"user": user, "decision": "agree"}, **changed)
        location = dict(response.headers)["location"]
        return {name: value for name, (value,) in parse_qs(urlsplit(location).query).items()}

    def token(self, headers=None, **form):
        """The token endpoint's status and JSON."""
        body = urlencode({name: value for name, value in form.items() if value is not None})
        response = self.provider.handle(
            Request(
                method="POST",
                path="/api/token",
                headers={"content-type": "application/x-www-form-urlencoded", **(headers or {})},
                body=body.encode(),
            )
        )
        return response.status, json.loads(response.body)

    def exchange(self, code, client=PKCE, **changed):
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT}
        if client == PKCE:
            return self.token(**(form | {"client_id": client, "code_verifier": VERIFIER} | changed))
        return self.token(basic(client, SECRET), **(form | changed))

    def login(self, client=PKCE, user="alice", **changed):
        """The tokens of a new grant."""
        code = self.agree(user, client=client, **changed)["code"]
        status, tokens = self.exchange(code, client)
        assert status == 200
        return tokens

    def refresh(self, refresh_token, client=PKCE):
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        if client == PKCE:
            return self.token(**form, client_id=client)
        return self.token(basic(client, SECRET), **form)

    def api(self, path, access_token, method="GET"):
        headers = {"authorization": f"Bearer {access_token}"}
        response = self.provider.handle(Request(method=method, path=path, headers=headers))
        kind = dict(response.headers)["content-type"]
        if kind == "application/json":
            return response.status, json.loads(response.body)
        return response.status, response.body.decode()

    def error(self, error, description=None):
        """What the token endpoint says when it refuses."""
        value = {"error": error}
        return 400, value if description is None else value | {"error_description": description}


@pytest.fixture
def world():
    """The class, so that each test names the options it is about."""
    return World
