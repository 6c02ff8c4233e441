"""The authorization endpoint: what calls back, what never does, and the consent."""

import pytest

from spotokend.sandbox import Request


def location(response):
    return dict(response.headers).get("location")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"client_id": None}, "Missing required parameter: client_id"),
        ({"client_id": "nobody"}, "INVALID_CLIENT: Invalid client"),
        ({"redirect_uri": None}, "Missing required parameter: redirect_uri"),
        (
            {"redirect_uri": "http://localhost:8888/callback"},
            "INVALID_CLIENT: Insecure redirect URI",
        ),
        (
            {"redirect_uri": "http://127.0.0.1:8888/other"},
            "INVALID_CLIENT: Invalid redirect URI",
        ),
        ({"redirect_uri": "http://127.0.0.1:99999/"}, "INVALID_CLIENT: Invalid redirect URI"),
        ({"scope": "user-read-birthdate"}, "Illegal scope"),
        ({"login_hint": "mallory"}, "Unknown user"),
    ],
)
@pytest.mark.parametrize("auto_approve", [False, True])
def test_a_page_that_never_calls_back(world, changed, words, auto_approve):
    """Until app and redirect URI are known to belong together nothing is sent anywhere."""
    place = world(auto_approve=auto_approve)
    response = place.authorize(**changed)
    assert response.status == 400
    assert f"<h1>{words}</h1>" in response.body.decode()
    assert location(response) is None


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"response_type": None}, "unsupported_response_type"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
    ],
)
def test_errors_that_are_told_to_the_app(world, changed, error):
    """With the state, so that the app knows whose error it is."""
    response = world().authorize(**changed)
    assert response.status == 303
    assert location(response) == f"{world.REDIRECT}?error={error}&state=state-1"


def test_the_consent_page(world):
    """Shows the app, each scope in words, and all users; the hinted one is chosen."""
    page = world().authorize(login_hint="bob", show_dialog="true").body.decode()
    assert "Sandbox PKCE app wants to use your account" in page
    assert "See your e-mail address <code>user-read-email</code>" in page
    assert 'value="bob" checked> Bob &amp; Bobby' in page
    assert "Čarolína Žluťoučká" in page
    assert page.count("checked") == 1


def test_without_scopes_it_asks_who_you_are(world):
    """An empty list would look broken."""
    assert "It asks who you are." in world().authorize(scope=None).body.decode()


def test_agreeing(world):
    """A code and the state come back, for the user who was chosen."""
    place = world()
    answer = place.agree("carol")
    assert answer == {"code": "sandbox-code-000001-random-0", "state": "state-1"}
    _, tokens = place.exchange(answer["code"])
    assert place.api("/v1/me", tokens["access_token"])[1]["id"] == "carol"


def test_cancelling(world):
    """access_denied and the state come back."""
    response = world().authorize("POST", {"user": "alice", "decision": "cancel"})
    assert location(response) == f"{world.REDIRECT}?error=access_denied&state=state-1"


def test_without_a_state_none_comes_back(world):
    """It belongs to the app; the provider invents none."""
    assert set(world().agree(state=None)) == {"code"}


def test_a_query_of_the_redirect_uri_is_kept(world):
    """RFC 6749, 3.1.2."""
    from spotokend.sandbox import App

    uri = "https://app.example.test/cb?tenant=1"
    app = App(client_id="app", name="App", redirect_uris=(uri,))
    response = world(apps=(app,), auto_approve=True).authorize(client="app", redirect_uri=uri)
    assert location(response) == f"{uri}&code=sandbox-code-000001-random-0&state=state-1"


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"decision": "perhaps"},
        {"decision": "agree", "user": "mallory"},
    ],
)
def test_a_form_that_is_no_decision(world, form):
    """Neither agreed nor cancelled: a page."""
    response = world().authorize("POST", form)
    assert (response.status, location(response)) == (400, None)


def test_unreadable_queries_and_forms(world):
    """A repeated parameter is refused, and nothing is sent anywhere."""
    place = world()
    twice = place.provider.handle(
        Request(method="GET", path="/authorize", query="client_id=a&client_id=b")
    )
    assert (twice.status, location(twice)) == (400, None)
    from urllib.parse import urlencode

    form = place.provider.handle(
        Request(
            method="POST",
            path="/authorize",
            query=urlencode(place.parameters()),
            body=b"decision=agree&decision=cancel",
        )
    )
    assert (form.status, location(form)) == (400, None)


def test_auto_approve(world):
    """At once, without a page, as whoever the request or the option names."""
    place = world(auto_approve=True, user="bob")
    for hint, user in ((None, "bob"), ("carol", "carol")):
        response = place.authorize(login_hint=hint, show_dialog="true")
        code = location(response).partition("code=")[2].partition("&")[0]
        assert place.ledger.owner(code) == (world.PKCE, user)


def test_a_consent_is_remembered_unless_the_dialog_is_asked_for(world):
    """Spotify skips the page for scopes that the user granted before."""
    place = world()
    assert place.authorize().status == 200
    place.login()
    assert place.authorize().status == 303
    assert place.authorize(show_dialog="true").status == 200
    assert place.authorize(scope="streaming").status == 200
    assert place.authorize(user="bob").status == 200


def test_a_consent_that_was_taken_back_is_asked_for_again(world):
    """Even for no scope at all."""
    place = world()
    place.login(scope=None)
    assert place.authorize(scope=None).status == 303
    (grant,) = place.ledger.select()
    place.ledger.revoke(grant, "taken back")
    assert place.authorize(scope=None).status == 200


def test_a_scope_is_asked_once(world):
    """Repeated ones are one."""
    tokens = world().login(scope="streaming user-top-read streaming")
    assert tokens["scope"] == "streaming user-top-read"
