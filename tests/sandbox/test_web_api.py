"""The edge of the Web API, and its own kind of errors."""

import json

import pytest

from spotokend.sandbox import Request


def call(place, path="/v1/me", **headers):
    response = place.provider.handle(Request(method="GET", path=path, headers=headers))
    return response, json.loads(response.body)["error"]


def test_who_am_i(world):
    """``account_id`` is what accounts are linked by; e-mail and country come with their scopes."""
    place = world()
    _, me = place.api("/v1/me", place.login(scope=None)["access_token"])
    assert (me["account_id"], me["id"], me["display_name"]) == (
        "sandbox-account-alice",
        "alice",
        "Alice",
    )
    assert not {"email", "country", "product"} & set(me)
    _, me = place.api("/v1/me", place.login()["access_token"])
    assert (me["email"], me["product"]) == ("alice@example.test", "premium")


def test_names_come_in_any_alphabet(world):
    """UTF-8, unescaped."""
    place = world()
    _, me = place.api("/v1/me", place.login(user="carol")["access_token"])
    assert me["display_name"] == "Čarolína Žluťoučká 🎧"


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        ({}, 401, "No token provided"),
        ({"authorization": "Basic eA=="}, 400, "Only valid bearer authentication supported"),
        ({"authorization": "Bearer "}, 400, "Only valid bearer authentication supported"),
        ({"authorization": "Bearer access-1"}, 401, "Invalid access token"),
    ],
)
def test_calls_without_a_good_token(world, headers, status, message):
    """The API's own words."""
    response, error = call(world(), **headers)
    assert response.status == status
    assert error == {"status": status, "message": message}


def test_an_expired_token(world):
    """401, told in the header too (RFC 6750, 3)."""
    place = world()
    token = place.login()["access_token"]
    place.time += 3599.9
    assert place.api("/v1/me", token)[0] == 200
    place.time += 0.1
    response, error = call(place, authorization=f"Bearer {token}")
    assert error == {"status": 401, "message": "The access token expired"}
    assert 'error="invalid_token"' in dict(response.headers)["www-authenticate"]


@pytest.mark.parametrize(
    ("path", "scope"),
    [("/v1/me/player", "user-read-playback-state"), ("/v1/me/playlists", "playlist-read-private")],
)
def test_scopes_are_asked_for(world, path, scope):
    """403 without, an object with them."""
    place = world()
    assert place.api(path, place.login()["access_token"]) == (
        403,
        {"error": {"status": 403, "message": "Insufficient client scope"}},
    )
    status, value = place.api(path, place.login(scope=scope)["access_token"])
    assert status == 200
    assert {"items", "device"} & set(value)


def test_a_user_who_is_not_on_the_list(world):
    """Login and refresh work; every call is refused in words that aren't JSON."""
    place = world(unlisted=("bob",))
    words = "User not registered in the Developer Dashboard"
    assert place.api("/v1/me", place.login(user="bob")["access_token"]) == (403, words)
    assert place.api("/v1/me", place.login(user="alice")["access_token"])[0] == 200


def test_client_credentials_have_no_user(world):
    """What isn't about a user works; what is doesn't."""
    place = world()
    basic = world.basic(world.CONFIDENTIAL, world.SECRET)
    _, tokens = place.token(basic, grant_type="client_credentials")
    assert place.api("/v1/tracks/abc", tokens["access_token"])[1]["id"] == "abc"
    assert place.api("/v1/me", tokens["access_token"]) == (
        401,
        {"error": {"status": 401, "message": "Valid user authentication required"}},
    )


def send(place, token, method, path, body=b""):
    headers = {"authorization": f"Bearer {token}"}
    return place.provider.handle(Request(method=method, path=path, headers=headers, body=body))


@pytest.mark.parametrize("path", ["/v1/me/player/play", "/v1/me/player/pause"])
def test_commands_to_the_player(world, path):
    """204 without a body; 403 without the scope, 400 for a body that is no JSON object."""
    place = world()
    token = place.login(scope="user-modify-playback-state")["access_token"]
    for body in (b"", b'{"uris": []}'):
        response = send(place, token, "PUT", path, body)
        assert (response.status, response.body) == (204, b"")
    for body in (b"{", b"[]", b"[" * 100_000):
        assert send(place, token, "PUT", path, body).status == 400
    assert send(place, place.login()["access_token"], "PUT", path).status == 403


def test_a_new_playlist(world):
    """Answered as if it had been made; public unless it is said otherwise."""
    place = world()
    token = place.login(scope="playlist-modify-private")["access_token"]
    path = "/v1/me/playlists"
    response = send(place, token, "POST", path, b'{"name": "Sand", "public": false}')
    made = json.loads(response.body)
    assert response.status == 201
    assert (made["name"], made["public"], made["owner"]["id"]) == ("Sand", False, "alice")
    assert send(place, token, "POST", path, b'{"name": "Sand"}').status == 403
    token = place.login(scope="playlist-modify-public")["access_token"]
    made = json.loads(send(place, token, "POST", path, b'{"name": "Sand"}').body)
    assert made["public"] is True


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Error parsing JSON."),
        (b"name=Sand", "Error parsing JSON."),
        (b"{}", "Missing required field: name"),
        (b'{"name": ""}', "Missing required field: name"),
        (b'{"name": 1}', "Missing required field: name"),
    ],
)
def test_a_playlist_that_can_not_be(world, body, message):
    """400, in the API's words."""
    place = world()
    response = send(place, place.login()["access_token"], "POST", "/v1/me/playlists", body)
    assert response.status == 400
    assert json.loads(response.body)["error"]["message"] == message


def test_the_methods_that_there_are(world):
    """405 names them (RFC 9110, 15.5.6)."""
    place = world()
    response = send(place, place.login()["access_token"], "DELETE", "/v1/me/playlists")
    assert (response.status, dict(response.headers)["allow"]) == (405, "GET, POST")


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v1/nothing", 404, "Service not found"),
        ("DELETE", "/v1/me", 405, "Method not allowed"),
        ("PUT", "/v1/tracks/abc", 405, "Method not allowed"),
    ],
)
def test_calls_that_do_not_exist(world, method, path, status, message):
    """In the API's own shape."""
    place = world()
    assert place.api(path, place.login()["access_token"], method) == (
        status,
        {"error": {"status": status, "message": message}},
    )
