"""Looking into a sandbox, and changing it, over ``/sandbox/…``."""

import json

import pytest

from spotokend.sandbox import Request
from spotokend.sandbox.control import Control, mine


@pytest.fixture
def place(world):
    return world(rotation="always")


@pytest.fixture
def ask(place):
    """A control request: its status and JSON."""
    control = Control(place.provider, lambda: "http://127.0.0.1:1")

    def ask(method, path, value=None, *, body=None, query=""):
        body = body if body is not None else json.dumps(value).encode()
        response = control.handle(Request(method=method, path=path, query=query, body=body))
        return response.status, json.loads(response.body)

    return ask


@pytest.mark.parametrize(
    ("path", "here"),
    [("/", True), ("/sandbox/state", True), ("/authorize", False), ("/sandboxed", False)],
)
def test_which_paths_are_control(path, here):
    """Everything else belongs to the pretended provider."""
    assert mine(path) is here


def test_the_index_is_a_page(place):
    """At ``/``, with the address to copy from."""
    control = Control(place.provider, lambda: "http://127.0.0.1:1")
    response = control.handle(Request(method="GET", path="/"))
    assert b"curl http://127.0.0.1:1/sandbox/faults" in response.body


def test_state(place, ask):
    """Everything that a test asserts on, and no secret."""
    first = place.login()
    place.refresh(first["refresh_token"])
    place.login(user="bob")
    place.refresh(first["refresh_token"])
    status, state = ask("GET", "/sandbox/state")
    assert status == 200
    assert state["requests"]["by_endpoint"]["POST /api/token"] == 4
    assert state["double_redemptions"] == 1
    alice, bob = state["grants"]
    assert (alice["user"], alice["access_tokens"], alice["refreshes"]) == ("alice", 0, 1)
    assert alice["revoked"] == "a replaced refresh token was presented again"
    assert (bob["user"], bob["access_tokens"], bob["revoked"]) == ("bob", 1, None)
    assert bob["expires_at"] - bob["authorized_at"] == 180 * 86400
    assert len(state["log"]) == 6
    assert "random-" not in json.dumps(state)


def test_faults_come_and_go(place, ask):
    """POST adds, PUT replaces, GET lists, DELETE removes."""
    assert ask("POST", "/sandbox/faults", {"kind": "cut"}) == (201, {"id": 1})
    assert ask("POST", "/sandbox/faults", {"kind": "hang"}) == (201, {"id": 2})
    assert ask("DELETE", "/sandbox/faults", query="id=1") == (200, {})
    assert [fault["id"] for fault in ask("GET", "/sandbox/faults")[1]] == [2]
    wanted = [{"kind": "slow", "seconds": 1}, {"kind": "break"}]
    assert ask("PUT", "/sandbox/faults", wanted) == (200, {"ids": [3, 4]})
    assert ask("DELETE", "/sandbox/faults", query="id=2") == (404, {"error": "no fault 2"})
    assert ask("DELETE", "/sandbox/faults") == (200, {})
    assert ask("GET", "/sandbox/faults") == (200, [])


def test_a_wrong_list_of_faults_changes_nothing(ask):
    """The old ones stay if one of the new ones is wrong."""
    ask("POST", "/sandbox/faults", {"kind": "cut"})
    status, _ = ask("PUT", "/sandbox/faults", [{"kind": "hang"}, {"kind": "explode"}])
    assert status == 400
    assert [fault["kind"] for fault in ask("GET", "/sandbox/faults")[1]] == ["cut"]


def test_revoking_grants(place, ask):
    """By user, client or grant; with them go their tokens."""
    alice, bob = place.login(user="alice"), place.login(user="bob")
    status, answer = ask("POST", "/sandbox/revoke", {"user": "alice"})
    assert (status, len(answer["grants"])) == (200, 1)
    assert place.refresh(alice["refresh_token"]) == place.error(
        "invalid_grant", "Refresh token revoked"
    )
    assert place.api("/v1/me", bob["access_token"])[0] == 200


def test_revoking_access_tokens_alone(place, ask):
    """The API says 401, and a refresh mends it."""
    tokens = place.login()
    ask("POST", "/sandbox/revoke", {"client": place.PKCE, "what": "access"})
    assert place.api("/v1/me", tokens["access_token"])[0] == 401
    _, renewed = place.refresh(tokens["refresh_token"])
    assert place.api("/v1/me", renewed["access_token"])[0] == 200


def test_advancing(place, ask):
    """Six months in no time."""
    token = place.login()["refresh_token"]
    assert ask("POST", "/sandbox/advance", {"seconds": 180 * 86400})[0] == 200
    assert place.refresh(token) == place.error("invalid_grant", "Refresh token expired")


def test_changing_options(place, ask):
    """The answer is all of them as they are now."""
    status, options = ask("POST", "/sandbox/options", {"rotation": "never", "grace": 3})
    assert (status, options["rotation"], options["grace"]) == (200, "never", 3.0)
    assert options["access_life"] == 3600.0


@pytest.mark.parametrize(
    ("method", "path", "value", "words"),
    [
        ("POST", "/sandbox/faults", {"kind": "explode"}, "kind: one of"),
        ("PUT", "/sandbox/faults", {"kind": "cut"}, "PUT takes a list"),
        ("POST", "/sandbox/revoke", {}, "needed: grant, client or user"),
        ("POST", "/sandbox/revoke", {"user": "a", "what": "some"}, "what is all or access"),
        ("POST", "/sandbox/revoke", {"usr": "a"}, "no 'usr' here"),
        ("POST", "/sandbox/revoke", {"user": 1}, "user: a string"),
        ("POST", "/sandbox/advance", {"seconds": -1}, "seconds: seconds, at least 0"),
        ("POST", "/sandbox/advance", {}, "seconds: a number"),
        ("POST", "/sandbox/options", [], "a JSON object"),
        ("POST", "/sandbox/options", {"rotatoin": "x"}, "no option 'rotatoin'"),
    ],
)
def test_mistakes_are_told(ask, method, path, value, words):
    """400 and what is wrong."""
    status, answer = ask(method, path, value)
    assert status == 400
    assert words in answer["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_bodies_that_are_not_json(ask, body):
    """However deep."""
    status, answer = ask("POST", "/sandbox/options", body=body)
    assert (status, bool(answer["error"])) == (400, True)


@pytest.mark.parametrize("query", ["id=x", "id=-1", "x=1", "id=1&id=2"])
def test_deleting_wants_an_id_or_nothing(ask, query):
    """A typing error must not remove everything."""
    assert ask("DELETE", "/sandbox/faults", query=query)[0] == 400


def test_unknown_control_paths_list_the_known_ones(ask):
    """The cure is in the answer."""
    status, answer = ask("GET", "/sandbox/nothing")
    assert status == 404
    assert "POST /sandbox/faults" in answer["error"]
