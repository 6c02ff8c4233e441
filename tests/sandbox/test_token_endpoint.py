"""The token endpoint, row by row as Spotify's behaves."""

import pytest

from spotokend.sandbox import Options, Request
from spotokend.sandbox.token_endpoint import answer


def test_pkce_exchange(world):
    """All fields of Spotify's table, and headers that forbid storing."""
    tokens = world().login()
    assert tokens == {
        "access_token": "sandbox-access-000004-random-2",
        "token_type": "Bearer",
        "expires_in": 3600,
        "refresh_token": "sandbox-refresh-000003-random-1",
        "scope": "user-read-private user-read-email",
    }


def test_exchange_with_a_secret(world):
    """The same fields for a confidential client."""
    tokens = world().login(world.CONFIDENTIAL)
    assert set(tokens) == {"access_token", "token_type", "expires_in", "refresh_token", "scope"}


def test_a_secret_and_pkce_together(world):
    """A confidential client may use PKCE as well; both are checked."""
    place = world()
    pkce = {"code_challenge": world.challenge(world.VERIFIER), "code_challenge_method": "S256"}
    code = place.agree(client=world.CONFIDENTIAL, **pkce)["code"]
    assert place.exchange(code, world.CONFIDENTIAL) == place.error(
        "invalid_request", "code_verifier required"
    )
    status, _ = place.exchange(code, world.CONFIDENTIAL, code_verifier=world.VERIFIER)
    assert status == 200


def test_client_credentials(world):
    """Neither refresh token nor scope."""
    status, tokens = world().token(
        world.basic(world.CONFIDENTIAL, world.SECRET), grant_type="client_credentials"
    )
    assert status == 200
    assert set(tokens) == {"access_token", "token_type", "expires_in"}


def test_a_refresh_without_rotation(world):
    """Spotify's default: no refresh token in the answer, and the old one stays good."""
    place = world()
    first = place.login()
    for _ in range(2):
        status, tokens = place.refresh(first["refresh_token"])
        assert status == 200
        assert set(tokens) == {"access_token", "token_type", "expires_in", "scope"}
        assert tokens["access_token"] != first["access_token"]


@pytest.mark.parametrize(
    ("kept", "field"),
    [
        ("omit", {}),
        ("null", {"refresh_token": None}),
        ("empty", {"refresh_token": ""}),
        ("same", {"refresh_token": "sandbox-refresh-000003-random-1"}),
    ],
)
def test_all_ways_to_say_keep_it(world, kept, field):
    """Absent, null, empty and the same all mean that the old one goes on."""
    place = world(kept=kept)
    _, tokens = place.refresh(place.login()["refresh_token"])
    assert {name: tokens[name] for name in tokens if name == "refresh_token"} == field


@pytest.mark.parametrize("kept", ["omit", "null", "empty", "same"])
def test_a_rotation_always_tells_the_new_token(world, kept):
    """However a kept one is told."""
    place = world(rotation="always", kept=kept)
    old = place.login()["refresh_token"]
    status, tokens = place.refresh(old)
    assert status == 200
    assert tokens["refresh_token"] not in (old, None, "")


@pytest.mark.parametrize(
    ("option", "scope"),
    [
        ("grant", "user-top-read"),
        ("all", "streaming user-read-email user-read-private user-top-read"),
        ("omit", None),
    ],
)
def test_the_scope_of_a_refresh(world, option, scope):
    """That of the consent, all that was ever granted, or none told."""
    place = world(refresh_scope=option)
    place.login()
    place.login(scope="streaming")
    last = place.login(scope="user-top-read")
    _, tokens = place.refresh(last["refresh_token"])
    assert tokens.get("scope") == scope


def test_expires_in_is_an_integer_or_absent(world):
    """A life of 90.7 s is told as 90; some servers tell none."""
    assert world(access_life=90.7).login()["expires_in"] == 90
    assert "expires_in" not in world(expires_in=False).login()


def test_the_token_type_can_be_written_otherwise(world):
    """``bearer`` occurs."""
    assert world(token_type="bearer").login()["token_type"] == "bearer"


REFUSALS = {
    "grant type missing": (
        {},
        {},
        ("unsupported_grant_type", "grant_type parameter is missing"),
    ),
    "grant type unknown": (
        {"grant_type": "password"},
        {},
        (
            "unsupported_grant_type",
            "grant_type must be client_credentials, authorization_code or refresh_token",
        ),
    ),
    "no client": ({"grant_type": "refresh_token"}, {}, ("invalid_client", None)),
    "unreadable header": (
        {"grant_type": "refresh_token"},
        {"authorization": "Basic ?"},
        ("invalid_client", None),
    ),
    "unknown client in the form": (
        {"grant_type": "refresh_token", "client_id": "nobody"},
        {},
        ("invalid_client", "Failed to get client"),
    ),
    "unknown client in the header": (
        {"grant_type": "refresh_token"},
        ("nobody", "nothing"),
        ("invalid_client", "Invalid client"),
    ),
    "wrong secret": (
        {"grant_type": "client_credentials"},
        ("sandbox-secret-client", "wrong"),
        ("invalid_client", "Invalid client secret"),
    ),
    "client credentials without a secret": (
        {"grant_type": "client_credentials", "client_id": "sandbox-secret-client"},
        {},
        ("invalid_client", "Invalid client secret"),
    ),
    "no refresh token": (
        {"grant_type": "refresh_token", "client_id": "sandbox-pkce-client"},
        {},
        ("invalid_request", "refresh_token must be supplied"),
    ),
    "empty refresh token": (
        {"grant_type": "refresh_token", "client_id": "sandbox-pkce-client", "refresh_token": ""},
        {},
        ("invalid_request", "refresh_token must be supplied"),
    ),
    "no code": (
        {"grant_type": "authorization_code", "client_id": "sandbox-pkce-client"},
        {},
        ("invalid_request", "code must be supplied"),
    ),
    "no redirect": (
        {"grant_type": "authorization_code", "client_id": "sandbox-pkce-client", "code": "c"},
        {},
        ("invalid_request", "redirect_uri must be supplied"),
    ),
    "unknown code": (
        {
            "grant_type": "authorization_code",
            "client_id": "sandbox-pkce-client",
            "code": "c",
            "redirect_uri": "http://127.0.0.1/callback",
        },
        {},
        ("invalid_grant", "Invalid authorization code"),
    ),
    "unknown refresh token": (
        {
            "grant_type": "refresh_token",
            "client_id": "sandbox-pkce-client",
            "refresh_token": "refresh-1",
        },
        {},
        ("invalid_grant", "Invalid refresh token"),
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_word_for_word(world, case):
    """Status 400 and the error and description that Spotify gives."""
    form, headers, (error, description) = REFUSALS[case]
    if isinstance(headers, tuple):
        headers = world.basic(*headers)
    place = world()
    assert place.token(headers, **form) == place.error(error, description)


@pytest.mark.parametrize(
    ("changed", "error", "description"),
    [
        ({"redirect_uri": "http://127.0.0.1:1/callback"}, "invalid_grant", "Invalid redirect URI"),
        ({"code_verifier": "x" * 43}, "invalid_grant", "code_verifier was incorrect"),
        ({"code_verifier": "short"}, "invalid_grant", "code_verifier was incorrect"),
        ({"code_verifier": None}, "invalid_request", "code_verifier required"),
        ({"client_id": "sandbox-secret-client"}, "invalid_grant", "Invalid authorization code"),
    ],
)
def test_a_wrong_exchange_says_which(world, changed, error, description):
    """Which of the several things was wrong, and the code stays good for the right one."""
    place = world()
    code = place.agree()["code"]
    assert place.exchange(code, **changed) == place.error(error, description)
    assert place.exchange(code)[0] == 200


def test_a_code_works_once(world):
    """The second exchange is refused and counted; the tokens of the first live on."""
    place = world()
    code = place.agree()["code"]
    _, tokens = place.exchange(code)
    assert place.exchange(code) == place.error("invalid_grant", "Invalid authorization code")
    assert place.ledger.codes_reused == 1
    assert place.api("/v1/me", tokens["access_token"])[0] == 200


def test_a_code_expires(world):
    """Ten minutes after the consent."""
    place = world()
    code = place.agree()["code"]
    place.time += 600
    assert place.exchange(code) == place.error("invalid_grant", "Authorization code expired")


def test_a_verifier_without_a_challenge_is_refused(world):
    """A downgrade: somebody took the challenge away (RFC 9700, 2.1.1)."""
    place = world()
    code = place.agree(client=world.CONFIDENTIAL)["code"]
    assert place.exchange(code, world.CONFIDENTIAL, code_verifier=world.VERIFIER) == place.error(
        "invalid_grant", "code_verifier was incorrect"
    )


def test_a_grant_got_with_a_secret_is_refreshed_with_it(world):
    """The client id alone isn't enough there (RFC 6749, 6)."""
    place = world()
    token = place.login(world.CONFIDENTIAL)["refresh_token"]
    assert place.token(
        grant_type="refresh_token", refresh_token=token, client_id=world.CONFIDENTIAL
    ) == place.error("invalid_client", "Invalid client secret")
    assert place.refresh(token, world.CONFIDENTIAL)[0] == 200


def test_another_clients_refresh_token_is_invalid(world):
    """Tokens are bound to the client they were issued to."""
    place = world()
    token = place.login()["refresh_token"]
    assert place.refresh(token, world.CONFIDENTIAL) == place.error(
        "invalid_grant", "Invalid refresh token"
    )


def test_a_parameter_given_twice_is_invalid(world):
    """RFC 6749, 3.2."""
    request = Request(
        method="POST",
        path="/api/token",
        headers={"content-type": "application/x-www-form-urlencoded; charset=utf-8"},
        body=b"grant_type=refresh_token&grant_type=password",
    )
    response = answer(world().ledger, request)
    assert response.body == (
        b'{"error":"invalid_request","error_description":"a parameter was given twice"}'
    )


@pytest.mark.parametrize("content_type", [None, "application/json", "text/plain"])
def test_only_forms_are_read(world, content_type):
    """JSON in place of a form is 415, as at Spotify."""
    headers = {} if content_type is None else {"content-type": content_type}
    response = answer(world().ledger, Request(method="POST", path="/api/token", headers=headers))
    assert (response.status, response.body) == (415, b"")


def test_the_error_is_noted_for_the_log(world):
    """Error and description, no token."""
    place = world()
    place.refresh("refresh-1")
    assert place.provider.record.log()[-1]["note"] == "invalid_grant: Invalid refresh token"
    assert Options() == place.provider.options
