"""The pretended provider as a whole, without a socket."""

import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotokend.sandbox import Cut, Fault, Kind, Options, Provider, Request

TOKEN = "POST /api/token"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/token", 405),
        ("PUT", "/authorize", 405),
        ("GET", "/nothing", 404),
        ("OPTIONS", "*", 404),
    ],
)
def test_what_there_is_not(world, method, path, status):
    """Other methods and other paths."""
    assert world().provider.handle(Request(method=method, path=path)).status == status


def test_a_fault_strikes_before_the_grant_is_used(world):
    """The same refresh token works afterwards, and the count is right."""
    place = world(rotation="always")
    token = place.login()["refresh_token"]
    place.provider.faults.add(Fault(kind=Kind.ANSWER, status=503, count=1))
    assert place.refresh(token) == (503, {"error": "server_error"})
    assert place.refresh(token)[0] == 200
    assert place.ledger.double_redemptions == 0
    assert place.provider.record.by_endpoint[TOKEN] == 3


def test_a_fault_strikes_after_the_grant_was_used(world):
    """The answer is lost, and whoever asks again ends the family: the loss that nobody can undo."""
    place = world(rotation="always")
    token = place.login()["refresh_token"]
    place.provider.faults.add(Fault(kind=Kind.ANSWER, status=503, served=True, count=1))
    assert place.refresh(token) == (503, {"error": "server_error"})
    assert place.refresh(token) == place.error("invalid_grant", "Refresh token revoked")
    assert place.ledger.double_redemptions == 1


def test_a_hanging_response_names_the_fault_that_holds_it(world):
    """So that the shell knows what to wait for."""
    place = world()
    number = place.provider.faults.add(Fault(kind=Kind.HANG, path="/v1/"))
    response = place.provider.handle(Request(method="GET", path="/v1/me"))
    assert (response.held_by, response.cut) == (number, Cut.UNANSWERED)
    assert place.provider.record.log()[-1]["outcome"] == "held"


def test_faults_are_aimed_at_one_user(world):
    """A refresh token, an access token and a code tell whose request it is."""
    place = world()
    alice, bob = place.login(user="alice"), place.login(user="bob")
    place.provider.faults.add(Fault(kind=Kind.ANSWER, user="bob", path="/"))
    assert place.refresh(alice["refresh_token"])[0] == 200
    assert place.refresh(bob["refresh_token"])[0] == 503
    assert place.api("/v1/me", alice["access_token"])[0] == 200
    assert place.api("/v1/me", bob["access_token"])[0] == 503
    code = place.agree("bob")["code"]
    assert place.exchange(code)[0] == 503


def test_faults_are_aimed_at_one_client(world):
    """By header or form at the token endpoint, by parameter at the authorization endpoint."""
    place = world()
    public, confidential = place.login(), place.login(world.CONFIDENTIAL)
    place.provider.faults.add(Fault(kind=Kind.ANSWER, client=world.CONFIDENTIAL, path="/"))
    assert place.refresh(public["refresh_token"])[0] == 200
    assert place.refresh(confidential["refresh_token"], world.CONFIDENTIAL)[0] == 503
    assert place.authorize(client=world.CONFIDENTIAL).status == 503


def test_the_log_has_no_secrets(world):
    """Who, what and how it ended; neither tokens nor codes, nor unknown names."""
    place = world(rotation="always")
    tokens = place.login()
    place.refresh(tokens["refresh_token"])
    place.refresh("refresh-stolen")
    place.token(grant_type="made-up", client_id="made-up")
    place.api("/v1/me", tokens["access_token"])
    log = place.provider.record.log()
    text = json.dumps([log, place.provider.record.to_json()])
    for secret in ("sandbox-access", "sandbox-refresh", "sandbox-code", "stolen", "made-up"):
        assert secret not in text
    assert log[2] == {
        "at": 1000.0,
        "endpoint": TOKEN,
        "client": world.PKCE,
        "user": "alice",
        "grant_type": "refresh_token",
        "outcome": "200",
        "note": "",
        "fault": None,
    }


def test_options_change_while_it_runs(world):
    """From the next request on."""
    place = world()
    token = place.login()["refresh_token"]
    place.provider.options = place.provider.options.changed({"rotation": "always"})
    assert "refresh_token" in place.refresh(token)[1]


def test_it_stands_behind_an_httpx_transport(world):
    """Virtual-time tests need no socket."""
    place = world()

    def respond(request):
        response = place.provider.handle(
            Request(
                method=request.method,
                path=request.url.path,
                query=request.url.query.decode(),
                headers=dict(request.headers),
                body=request.content,
            )
        )
        return httpx.Response(response.status, headers=response.headers, content=response.body)

    client = httpx.Client(
        transport=httpx.MockTransport(respond), base_url="https://accounts.example.test"
    )
    form = {"grant_type": "client_credentials"}
    answer = client.post("/api/token", data=form, auth=(world.CONFIDENTIAL, world.SECRET))
    assert answer.json()["expires_in"] == 3600


TEXTS = st.text(max_size=30)
PIECES = st.sampled_from(
    [
        "grant_type=refresh_token", "client_id=sandbox-pkce-client", "refresh_token=%ff", "code=é",
        "response_type=code", "redirect_uri=http://127.0.0.1:1/callback", "redirect_uri=http://[",
        "scope=streaming", "decision=agree", "user=alice", "state=%00", "code_challenge=x", "&&", "=",
    ]
)  # fmt: skip


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "X"]),
    path=st.sampled_from(["/authorize", "/api/token", "/v1/me", "/v1/tracks/é", "/", ""]) | TEXTS,
    query=st.lists(PIECES, max_size=6).map("&".join) | TEXTS,
    headers=st.dictionaries(
        st.sampled_from(["authorization", "content-type"]),
        st.sampled_from(
            ["Basic é", "Basic Og==", "Bearer x", "application/x-www-form-urlencoded", ""]
        ),
    ),
    body=st.lists(PIECES, max_size=6).map("&".join).map(str.encode) | st.binary(max_size=50),
)
def test_every_request_gets_a_response(method, path, query, headers, body):
    """Nothing that a client sends raises."""
    provider = Provider(Options(), now=lambda: 0.0, random_text=lambda: "r")
    request = Request(method=method, path=path, query=query, headers=headers, body=body)
    assert 200 <= provider.handle(request).status < 500
