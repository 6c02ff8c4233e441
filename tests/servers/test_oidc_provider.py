"""The authorization server of the tests is itself what the tests take it for: a strict judge."""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

VERIFIER = "verifier-of-at-least-forty-three-characters-in-length"
REDIRECT_URI = "http://127.0.0.1:8123/callback"


def granted(server, user="ada"):
    """Log ``user`` in with PKCE and redeem the code; the answer of the token endpoint."""
    digest = hashlib.sha256(VERIFIER.encode()).digest()
    request = {
        "client_id": "public",
        "response_type": "code",
        "redirect_uri": REDIRECT_URI,
        "scope": "openid user-read-private",
        "state": "state-1",
        "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
        "code_challenge_method": "S256",
        "login_hint": user,
    }
    redirect = server.log_in(f"{server.authorize_url}?{urlencode(request)}")
    assert redirect.startswith(f"{REDIRECT_URI}?")
    return redeemed(
        server,
        grant_type="authorization_code",
        code=parse_qs(urlsplit(redirect).query)["code"][0],
        redirect_uri=REDIRECT_URI,
        code_verifier=VERIFIER,
    )


def redeemed(server, **form):
    return httpx.post(server.token_url, data={"client_id": "public", **form}, trust_env=False)


def refreshed(server, refresh_token):
    return redeemed(server, grant_type="refresh_token", refresh_token=refresh_token)


def test_a_login_ends_at_the_redirect_with_a_code_that_is_worth_a_grant(authorization_server):
    """The scripted browser passes login and consent, and the identity is the one that was hinted."""
    grant = granted(authorization_server, user="grace").json()

    answer = httpx.get(
        authorization_server.identity_url,
        headers={"Authorization": f"Bearer {grant['access_token']}"},
        trust_env=False,
    )

    assert answer.json() == {"sub": "grace"}
    assert authorization_server.counters()["codes_redeemed"] == 1


def test_a_refresh_token_presented_twice_is_counted_and_kills_its_successor(authorization_server):
    """The judge sees a double redemption, and punishes the whole family for it."""
    first = granted(authorization_server).json()["refresh_token"]
    second = refreshed(authorization_server, first).json()["refresh_token"]
    assert second != first

    assert refreshed(authorization_server, first).json()["error"] == "invalid_grant"
    assert refreshed(authorization_server, second).json()["error"] == "invalid_grant"

    assert authorization_server.counters() == {
        "token_requests": 4,
        "codes_redeemed": 1,
        "client_credentials": 0,
        "refreshes": 1,
        "refused": 2,
        "double_redemptions": 1,
    }


def test_without_rotation_a_refresh_token_works_again_and_again(authorization_servers):
    """Spotify's behaviour for clients with a secret: no new refresh token, nothing to count."""
    with authorization_servers(rotate=False) as server:
        refresh_token = granted(server).json()["refresh_token"]
        answers = [refreshed(server, refresh_token) for _ in range(3)]
        counters = server.counters()

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert (counters["refreshes"], counters["double_redemptions"]) == (3, 0)


def test_client_credentials_are_granted_to_the_client_with_the_secret(authorization_server):
    """The third kind of grant, without a refresh token."""
    answer = httpx.post(
        authorization_server.token_url,
        data={"grant_type": "client_credentials"},
        auth=("confidential", authorization_server.client_secret),
        trust_env=False,
    )

    assert sorted(answer.json()) == ["access_token", "expires_in", "token_type"]


@pytest.mark.parametrize("life", [2, 60])
def test_access_tokens_live_as_long_as_asked_for(authorization_servers, life):
    """The life is a setting, so that a test sees many refreshes in little time."""
    with authorization_servers(access_token_life=life) as server:
        assert granted(server).json()["expires_in"] == life


def test_it_ends_with_its_standard_input(authorization_servers):
    """Stopped or orphaned, no server stays behind."""
    server = authorization_servers()
    server.stop()

    with pytest.raises(httpx.ConnectError):
        server.counters()
