"""Requests to an authorization server, and what is read from its answers."""

import json
import time
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spotokend.rules.oauth import (
    ADDRESS_LIMIT,
    UNKNOWN_REFUSAL_PAUSE,
    ClientRefused,
    Code,
    Denied,
    Flow,
    GrantRefused,
    Issued,
    NotThis,
    Registration,
    TokenRequest,
    Transient,
    authorization_url,
    basic_credentials,
    client_credentials_request,
    code_challenge,
    code_request,
    json_object,
    outside_text,
    read_answer,
    read_redirect,
    refresh_request,
)
from spotokend.rules.schedule import Timing, Wall
from spotokend.rules.secret import Secret

TIMING = Timing(default_life=1234.0)
NOW = Wall(784_111_777.0)  # Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110
REDIRECT = "http://127.0.0.1:8080/callback"
TOKEN_URL = "https://accounts.example/api/token"
CODE, STATE, VERIFIER = Secret("code-1"), Secret("state-1"), Secret("verifier-1")


def registration(**changes: object) -> Registration:
    """A public client."""
    values: dict = {
        "client_id": "client-1",
        "client_secret": None,
        "flow": Flow.PKCE,
        "redirect_uri": "http://127.0.0.1/callback",
        "authorize_url": "https://accounts.example/authorize",
        "token_url": TOKEN_URL,
    }
    return Registration(**{**values, **changes})


PUBLIC = registration()
CONFIDENTIAL = registration(client_secret=Secret("secret-1"), flow=Flow.AUTHORIZATION_CODE)
BASIC = ("client-1", Secret("secret-1"))


def answer(status=200, fields=None, *, body=None, headers=None):
    """Read an answer of JSON fields, or of raw bytes."""
    body = json.dumps(fields).encode() if body is None else body
    return read_answer(status, headers or {}, body, timing=TIMING, now=NOW)


# --- requests -------------------------------------------------------------------------------------


def test_the_challenge_of_the_specification():
    """The example of RFC 7636, appendix B."""
    verifier = Secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
    assert code_challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_the_authorization_url():
    """All that Spotify wants, with the challenge in place of the verifier."""
    url = authorization_url(
        PUBLIC, scopes=["streaming", "ugc"], state=STATE, verifier=VERIFIER, redirect_uri=REDIRECT
    )
    assert dict(parse_qsl(urlsplit(url).query, strict_parsing=True)) == {
        "client_id": "client-1",
        "response_type": "code",
        "redirect_uri": REDIRECT,
        "scope": "streaming ugc",
        "state": "state-1",
        "show_dialog": "true",
        "code_challenge_method": "S256",
        "code_challenge": code_challenge(VERIFIER),
    }


def test_spaces_in_the_authorization_url():
    """They are %20, which every server reads, and the address is otherwise the endpoint's."""
    url = authorization_url(
        PUBLIC, scopes=["a", "b"], state=STATE, verifier=None, redirect_uri=REDIRECT
    )
    start = "https://accounts.example/authorize?client_id=client-1&"
    assert (url.startswith(start), "scope=a%20b&" in url) == (True, True)


def test_an_authorization_url_without_scopes_and_verifier():
    """What is empty is left out."""
    url = authorization_url(PUBLIC, scopes=[], state=STATE, verifier=None, redirect_uri=REDIRECT)
    assert [name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)] == [
        "client_id",
        "response_type",
        "redirect_uri",
        "state",
        "show_dialog",
    ]


def test_the_query_of_the_authorization_endpoint_is_kept():
    """RFC 6749, 3.1: their query stays, no name occurs twice, a fragment goes."""
    reg = registration(authorize_url="https://a.example/?tenant=7&empty=&state=theirs#top")
    url = authorization_url(reg, scopes=[], state=STATE, verifier=None, redirect_uri=REDIRECT)
    pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    assert (pairs[:2], [v for n, v in pairs if n == "state"], urlsplit(url).fragment) == (
        [("tenant", "7"), ("empty", "")],
        ["state-1"],
        "",
    )


@pytest.mark.parametrize(
    ("request_", "form", "basic"),
    [
        pytest.param(
            code_request(PUBLIC, code=CODE, verifier=VERIFIER, redirect_uri=REDIRECT),
            (
                ("grant_type", "authorization_code"),
                ("code", CODE),
                ("redirect_uri", REDIRECT),
                ("code_verifier", VERIFIER),
                ("client_id", "client-1"),
            ),
            None,
            id="code, PKCE",
        ),
        pytest.param(
            code_request(CONFIDENTIAL, code=CODE, verifier=VERIFIER, redirect_uri=REDIRECT),
            (
                ("grant_type", "authorization_code"),
                ("code", CODE),
                ("redirect_uri", REDIRECT),
                ("code_verifier", VERIFIER),
            ),
            BASIC,
            id="code, secret and PKCE",
        ),
        pytest.param(
            code_request(CONFIDENTIAL, code=CODE, verifier=None, redirect_uri=REDIRECT),
            (("grant_type", "authorization_code"), ("code", CODE), ("redirect_uri", REDIRECT)),
            BASIC,
            id="code, secret",
        ),
        pytest.param(
            refresh_request(PUBLIC, Secret("refresh-1")),
            (
                ("grant_type", "refresh_token"),
                ("refresh_token", Secret("refresh-1")),
                ("client_id", "client-1"),
            ),
            None,
            id="refresh, PKCE",
        ),
        pytest.param(
            refresh_request(CONFIDENTIAL, Secret("refresh-1")),
            (("grant_type", "refresh_token"), ("refresh_token", Secret("refresh-1"))),
            BASIC,
            id="refresh, secret",
        ),
        pytest.param(
            client_credentials_request(CONFIDENTIAL),
            (("grant_type", "client_credentials"),),
            BASIC,
            id="client credentials",
        ),
    ],
)
def test_a_token_request_of_each_flow(request_, form, basic):
    """The table of spotify.md: what the form holds, and who authenticates how."""
    expected = TokenRequest(url=TOKEN_URL, form=form, basic=basic, grant_type=form[0][1])
    assert request_ == expected


def test_a_request_shows_no_secret():
    """Neither the code nor the secret appears where a request is printed."""
    text = repr(code_request(CONFIDENTIAL, code=CODE, verifier=VERIFIER, redirect_uri=REDIRECT))
    assert [word for word in ("code-1", "verifier-1", "secret-1") if word in text] == []


@pytest.mark.parametrize(
    ("client_id", "client_secret", "encoded"),
    [
        ("Aladdin", "opensesame", "QWxhZGRpbjpvcGVuc2VzYW1l"),
        ("a:b", "c d%é", "YSUzQWI6YytkJTI1JUMzJUE5"),  # a%3Ab:c+d%25%C3%A9
    ],
)
def test_basic_credentials(client_id, client_secret, encoded):
    """RFC 6749, 2.3.1: form-encoded before they are joined."""
    assert basic_credentials(client_id, Secret(client_secret)) == Secret(encoded)


# --- the redirect ---------------------------------------------------------------------------------


def read(url: str):
    """Read an address in the login of state-1."""
    return read_redirect(url, redirect_uri=REDIRECT, state=STATE)


GOOD = f"{REDIRECT}?code=code-1&state=state-1"


@pytest.mark.parametrize(
    "pasted",
    [
        GOOD,
        f"{GOOD}\n",
        f"  \t{GOOD}  \r\n",
        f"{GOOD[:40]}\n{GOOD[40:]}",
        f"{GOOD[:40]}  \r\n  {GOOD[40:]}",
        f'"{GOOD}"',
        f"'{GOOD}'",
        f"<{GOOD}>",
        f"“{GOOD}”",
        f"\ufeff{GOOD}\u200b",
        f"\x1b{GOOD}\x00",
        f"{GOOD}#_=_",
        f"{GOOD}&iss=https%3A%2F%2Faccounts.example",
        GOOD.replace("127.0.0.1:8080", "localhost:1"),
        GOOD.removeprefix("http://"),
        GOOD.removeprefix("http://127.0.0.1:8080"),
        GOOD.partition("?")[2],
    ],
)
def test_a_pasted_address(pasted):
    """White space, line wraps, quotes, brackets and missing beginnings are forgiven."""
    assert read(pasted) == Code(CODE)


@pytest.mark.parametrize(
    ("pasted", "words"),
    [
        ("", "no state"),
        ("\n", "no state"),
        ("yes", "no state"),
        ("https://example.com/", "no state"),
        ("https://example.com/watch?v=1", "not the address of this login"),
        ("https://accounts.example/authorize?state=state-1&code=x", "begins with http://127"),
        ("http://[::1/callback?code=code-1&state=other", "another login attempt"),
        (f"{REDIRECT}?code=code-1", "no state"),
        (f"{REDIRECT}?code=code-1&state=", "another login attempt"),
        (f"{REDIRECT}?code=code-1&state=state-0", "another login attempt"),
        (f"{REDIRECT}?error=access_denied&state=state-0", "another login attempt"),
        (f"{REDIRECT}?state=state-1", "no code"),
        (f"{REDIRECT}?code=&state=state-1", "no code"),
        (f"{GOOD}&state=state-1", "twice"),
        (f"{GOOD}&code=code-2", "twice"),
        (GOOD + GOOD, "twice"),
        (GOOD + "&" * ADDRESS_LIMIT, "too long"),
        ("x" * 5_000_000, "too long"),
    ],
)
def test_an_address_that_is_not_the_end_of_this_login(pasted, words):
    """What isn't our answer is said to be so, and never ends the login."""
    result = read(pasted)
    assert (type(result), words in getattr(result, "words", "")) == (NotThis, True)


@pytest.mark.parametrize("path", ["", "/", "/callback", "/a/b%20c"])
def test_each_redirect_path(path):
    """The path has to be the registered one, also where there is none."""
    uri = f"http://127.0.0.1:9{path}"
    mine = read_redirect(f"{uri}?code=code-1&state=state-1", redirect_uri=uri, state=STATE)
    other = read_redirect(f"{uri}x?code=code-1&state=state-1", redirect_uri=uri, state=STATE)
    # A letter after a bare port is a part of the host, which isn't looked at.
    assert (mine, type(other)) == (Code(CODE), NotThis if path else Code)


def test_a_redirect_uri_with_a_query():
    """Some servers want one; its own parameters don't disturb."""
    uri = "http://127.0.0.1/cb?app=1"
    url = f"{uri}&code=code-1&state=state-1"
    assert read_redirect(url, redirect_uri=uri, state=STATE) == Code(CODE)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("error=access_denied", Denied("access_denied", None)),
        (
            "error=access_denied&error_description=The+user%0Asaid%1B%5B2J+no",
            Denied("access_denied", "The user said [2J no"),
        ),
        ("error=%00&code=code-1", Denied("error", None)),
        (f"error={'A1' * 100}", Denied("…", None)),
    ],
)
def test_a_login_that_was_denied(query, expected):
    """The server's error, made fit to be shown; a code beside it isn't used."""
    assert read(f"{REDIRECT}?{query}&state=state-1") == expected


secrets = st.text(min_size=1).filter(lambda text: text.isprintable() or text.isascii())
blanks = st.text(alphabet=" \t\r\n\u200b\ufeff\xa0", max_size=3)


@given(code=secrets, state=secrets, cuts=st.lists(st.tuples(st.integers(0, 200), blanks)))
def test_a_mangled_paste_is_read(code, state, cuts):
    """White space may come in at any place: the address is read all the same."""
    url = f"{REDIRECT}?{urlencode({'code': code, 'state': state})}"
    for place, blank in cuts:
        url = url[:place] + blank + url[place:]
    result = read_redirect(f"<{url}>\n", redirect_uri=REDIRECT, state=Secret(state))
    assert result == Code(Secret(code))


@given(st.text() | st.builds(lambda tail: f"{REDIRECT}?{tail}", st.text()))
@example("http://[::1")
@example(f"{REDIRECT}?code=%ff%00&state=\udc80")
@example("//\udcff?state=%ED%A0%80")
def test_nothing_that_is_pasted_raises(pasted):
    """Whatever is pasted gives no code, since nobody guesses the state; and no exception."""
    state = Secret("a state that nobody guesses")
    assert type(read_redirect(pasted, redirect_uri=REDIRECT, state=state)) is NotThis


# --- tokens ---------------------------------------------------------------------------------------

TOKENS = {
    "access_token": "access-1",
    "token_type": "Bearer",
    "expires_in": 3600,
    "refresh_token": "refresh-2",
    "scope": "streaming user-read-private",
}


def issued(**changes) -> Issued:
    """Read the answer above with other fields; ``...`` leaves one out."""
    fields = {name: v for name, v in {**TOKENS, **changes}.items() if v is not ...}
    result = answer(200, fields)
    assert isinstance(result, Issued)
    return result


def test_an_answer_with_everything():
    """The answer as Spotify gives it to a code exchange."""
    assert issued() == Issued(
        access_token=Secret("access-1"),
        token_type="Bearer",
        life=3600.0,
        scopes=("streaming", "user-read-private"),
        refresh_token=Secret("refresh-2"),
    )


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (..., None),
        (None, None),
        ("", None),
        (7, None),
        ({}, None),
        ("refresh-1", Secret("refresh-1")),
        ("refresh-2", Secret("refresh-2")),
        ("répété", Secret("répété")),
        ("\ud800", None),
    ],
)
def test_the_refresh_token_of_an_answer(sent, kept):
    """Absent, null and empty mean: keep the old one (spotify.md, "Why this project")."""
    assert issued(refresh_token=sent).refresh_token == kept


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (..., None),
        (None, None),
        ("", None),
        (" ", None),
        (7, None),
        ([], None),
        ("b a b", ("b", "a")),
        ("a  b\n", ("a", "b")),
        (["a", 7, "b c"], ("a", "b", "c")),
    ],
)
def test_the_scope_of_an_answer(sent, kept):
    """Absent means as before; what comes is taken, wider or not, in its order."""
    assert issued(scope=sent).scopes == kept


@pytest.mark.parametrize(
    ("sent", "life"),
    [
        (..., 1234.0),
        (None, 1234.0),
        (0, 1234.0),
        (-5, 1234.0),
        ("soon", 1234.0),
        (True, 1234.0),
        ("9" * 6000, 1234.0),
        (float("nan"), 1234.0),
        (float("inf"), 1234.0),
        (10**9, 1234.0),
        (60, 60.0),
        (60.5, 60.5),
        ("60", 60.0),
    ],
)
def test_the_life_of_an_answer(sent, life):
    """What is missing or absurd means the default, and never costs the tokens beside it."""
    assert issued(expires_in=sent).life == life


def test_a_life_of_more_digits_than_python_reads():
    """json would refuse the whole answer, and the refresh token in it with it."""
    body = json.dumps(TOKENS).replace("3600", "9" * 6000).encode()
    result = answer(200, body=body)
    assert (result.refresh_token, result.life) == (Secret("refresh-2"), 1234.0)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (..., "Bearer"),
        (None, "Bearer"),
        (7, "Bearer"),
        ("bearer", "Bearer"),
        ("BEARER", "Bearer"),
        ("DPoP", "DPoP"),
        ("Bearer\r\nX-Evil: 1", "Bearer"),
        ("", "Bearer"),
    ],
)
def test_the_token_type_of_an_answer(sent, kept):
    """In any case of letters, or missing; what could break a header is not taken over."""
    assert issued(token_type=sent).token_type == kept


@pytest.mark.parametrize(
    "access_token", [..., None, "", 7, "with space", "line\nbreak", "é", "\ud800"]
)
def test_a_refresh_token_alone_is_kept(access_token):
    """A rotation counts even if the access token beside it is missing or unusable."""
    result = issued(access_token=access_token)
    assert (result.access_token, result.refresh_token) == (None, Secret("refresh-2"))


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf" + json.dumps(TOKENS).encode(),
        b" \r\n" + json.dumps(TOKENS).encode() + b"\n",
        json.dumps(TOKENS).encode()[:-1] + b', "note": "\xff\xfe"}',
        json.dumps(TOKENS).encode()[:-1] + b', "refresh_token": "refresh-2"}',
        json.dumps({**TOKENS, "error": "invalid_grant"}).encode(),
    ],
    ids=["byte order mark", "white space", "bytes that are not UTF-8", "twice", "an error beside"],
)
def test_tokens_in_strange_company(body):
    """Tokens that can be read are read, whatever stands around them."""
    result = answer(200, body=body)
    assert (result.access_token, result.refresh_token) == (Secret("access-1"), Secret("refresh-2"))


def test_a_token_of_damaged_bytes():
    """A refresh token that isn't UTF-8 doesn't replace a good one."""
    body = json.dumps(TOKENS).encode().replace(b"refresh-2", b"refresh-\xff")
    assert answer(200, body=body).refresh_token is None


def test_created_is_as_good_as_ok():
    """No 2xx with tokens is dropped for its number."""
    assert answer(201, TOKENS) == issued()


def test_tokens_with_a_status_that_denies_them():
    """What comes with an error isn't an issue of tokens."""
    assert type(answer(500, TOKENS)) is Transient


# --- errors ---------------------------------------------------------------------------------------

REFUSED = [
    ("invalid_grant", "Refresh token revoked", GrantRefused, "was revoked"),
    ("invalid_grant", "Refresh token expired", GrantRefused, "refresh token has expired"),
    ("invalid_grant", "Invalid refresh token", GrantRefused, "does not know the refresh token"),
    ("invalid_grant", None, GrantRefused, "did not say why"),
    ("invalid_grant", "Invalid authorization code", GrantRefused, "was used before: log in again"),
    ("invalid_grant", "Authorization code expired", GrantRefused, "code has expired: log in again"),
    ("invalid_grant", "Invalid redirect URI", GrantRefused, "register exactly"),
    ("invalid_grant", "code_verifier was incorrect", GrantRefused, "PKCE verifier is wrong"),
    ("invalid_client", "Invalid client", ClientRefused, "the client id, or how"),
    ("invalid_client", "Invalid client secret", ClientRefused, "the client secret"),
    ("invalid_client", "Failed to get client", ClientRefused, "does not know the client id"),
    ("invalid_client", None, ClientRefused, "the client id, or how"),
    ("invalid_request", "refresh_token must be supplied", ClientRefused, "malformed"),
    ("invalid_request", "code must be supplied", ClientRefused, "malformed"),
    ("invalid_request", "code_verifier required", ClientRefused, "malformed"),
    ("unsupported_grant_type", "grant_type parameter is missing", ClientRefused, "this flow"),
    # And the rest of RFC 6749, 5.2.
    ("unauthorized_client", None, ClientRefused, "does not let this client"),
    ("invalid_scope", None, ClientRefused, "one of the scopes"),
]


@pytest.mark.parametrize("status", [200, 400, 401, 403])
@pytest.mark.parametrize(("error", "description", "kind", "words"), REFUSED)
def test_each_refusal(status, error, description, kind, words):
    """The table of spotify.md, whatever the status of the refusal."""
    fields = {"error": error} | ({"error_description": description} if description else {})
    result = answer(status, fields)
    assert (type(result), result.error, result.description) == (kind, error, description)
    assert words in result.words


@pytest.mark.parametrize(
    ("error", "defect", "hint"),
    [
        ("invalid_client", False, "client_secret"),
        ("unsupported_grant_type", False, "token_url"),
        ("invalid_request", True, "report"),
    ],
)
def test_who_is_to_mend_a_refused_client(error, defect, hint):
    """The user's configuration or this program, each with its cure."""
    result = answer(400, {"error": error})
    assert (result.defect, hint in result.hint) == (defect, True)


BLOCKED = b"<html><p>Your client does not have permission to get URL /api/token from this server"
UPSTREAM = b"upstream connect error or disconnect/reset before headers. reset reason: overflow"


@pytest.mark.parametrize(
    ("status", "body", "in_doubt", "words"),
    [
        (429, b"", False, "fewer requests"),
        (429, b'{"error":{"status":429,"reason":"QUOTA_EXCEEDED"}}', False, "fewer requests"),
        (429, b'{"error":"invalid_grant"}', False, "fewer requests"),
        (500, b'{"error":"server_error"}', True, "broken down"),
        (500, b'{"error":"invalid_grant"}', True, "broken down"),
        (502, b"<html>Bad Gateway</html>", True, "broken down"),
        (503, UPSTREAM, True, "broken down"),
        (503, b"", True, "broken down"),
        (400, b'{"error":"server_error"}', True, "error of its own"),
        (400, b'{"error":"temporarily_unavailable"}', True, "overloaded"),
        (403, BLOCKED, False, "VPN"),
        (200, b"<html>Sign in to the network</html>", True, "something else"),
        (200, b'{"access_token": "acc', True, "something else"),
        (200, b"", True, "something else"),
        (200, b"[]", True, "something else"),
        (200, b"{}", True, "something else"),
        (200, b'{"error": ""}', True, "something else"),
        (200, b"[" * 200_000, True, "something else"),
        (204, b"", True, "something else"),
        (301, b"", False, "leads elsewhere"),
        (302, b'{"error":"invalid_grant"}', False, "leads elsewhere"),
        (307, b"", False, "leads elsewhere"),
        (400, b"<html>", False, "without a reason"),
        (401, b'{"error":{"status":401,"message":"x"}}', False, "without a reason"),
        (404, b"", False, "compare token_url"),
        (405, b"", False, "compare token_url"),
        (407, b"", False, "proxy"),
        (408, b"", False, "without a reason"),
        (511, b"", False, "sign-in"),
        (101, b"", True, "broken down"),
        (999, b"", True, "broken down"),
    ],
)
def test_each_answer_that_may_pass(status, body, in_doubt, words):
    """The rest of spotify.md's table, and its relatives: who may have used up a refresh token."""
    result = answer(status, body=body)
    assert (type(result), result.in_doubt, result.status) == (Transient, in_doubt, status)
    assert words in result.words


@pytest.mark.parametrize(
    ("error", "named"),
    [("slow_network", True), ("x" * 41, False), ("AQDz1-refresh-token", False), ("a b", False)],
)
def test_an_error_that_is_not_known(error, named):
    """It is asked for again, slowly; it is quoted only if it can't be a token."""
    result = answer(400, {"error": error})
    assert (type(result), result.in_doubt, result.retry_after, error in result.words) == (
        Transient,
        False,
        UNKNOWN_REFUSAL_PAUSE,
        named,
    )


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 120 ", 120.0),
        ("1.5", 1.5),
        ("0", 1.0),
        ("13749", 13749.0),
        ("2, 7", 7.0),
        ("7,2 , 1.5", 7.0),
        ("2, soon", None),
        ("9" * 5000, TIMING.retry_after_cap),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60.0),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60.0),
        ("Sun Nov  6 08:50:37 1994", 60.0),
        ("Sun, 06 Nov 1994 10:50:37 +0200", 60.0),
        ("Sun, 06 Nov 1970 08:49:37 GMT", 1.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", TIMING.retry_after_cap),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("Fri, 31 Feb 2000 23:59:59 GMT", None),
        ("-5", None),
        ("soon", None),
        ("nan", None),
        ("١٢", None),
        ("", None),
    ],
)
def test_retry_after(value, seconds):
    """Seconds or a date in any of the three forms (RFC 9110, 5.6.7), between a second and a day.

    Where it comes more than once, as a proxy may add its own, the longest of them.
    """
    assert answer(429, {}, headers={"retry-after": value}).retry_after == seconds


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        ("Thu, 01 Jan 2026 00:00:00 GMT", 60.0),
        ("Thu Jan  1 00:00:30 2026", 30.0),
        ("Fri, 02 Jan 2026 00:00:00 GMT", 1.0),
        ("long ago", TIMING.retry_after_cap),
    ],
)
def test_retry_after_as_a_date_counts_from_the_servers_own(sent, seconds):
    """This host's clock is decades behind: were it asked, the longest pause would be kept."""
    headers = {"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT", "date": sent}
    assert answer(503, {}, headers=headers).retry_after == seconds


def test_retry_after_with_an_unknown_error():
    """The longer of the server's pause and our own."""
    headers = {"retry-after": "4000"}
    assert answer(400, {"error": "slow"}, headers=headers).retry_after == 4000.0


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
names = st.sampled_from([*TOKENS, "error", "error_description"])
bodies = st.binary() | st.one_of(
    anything,
    st.dictionaries(names, anything | st.sampled_from(["invalid_grant", "invalid_client"])),
).map(lambda value: json.dumps(value).encode())


@settings(max_examples=300)
@given(
    status=st.integers(-1, 1000) | st.sampled_from([200, 400, 429]),
    retry_after=st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ .{0,20}"),
    body=bodies,
)
@example(400, "Mon, 01 Jan 0000 00:00:00 GMT", b"[" * 100_000)
@example(400, "Mon, 01 Jan 2000 00:00:00 +9999999999", b'{"a":' * 100_000)
@example(200, "", b'{"access_token":' + b"9" * 10_000 + b"}")
@example(200, "", b'{"access_token":"a","expires_in":NaN,"scope":[NaN],"token_type":-Infinity}')
@example(200, "", "{}".encode("utf-16"))
def test_no_answer_raises(status, retry_after, body):
    """Whatever the server sends has a meaning, a pause within bounds, and one line of words."""
    result = answer(status, body=body, headers={"retry-after": retry_after})
    if isinstance(result, Transient) and result.retry_after is not None:
        assert 1.0 <= result.retry_after <= TIMING.retry_after_cap
    if isinstance(result, Issued):
        assert result.access_token or result.refresh_token
        assert 0 < result.life < 10**9
    else:
        assert result.words
        assert result.words.isprintable()


@given(
    token=st.from_regex(r"AQ[A-Za-z0-9_-]{30,200}", fullmatch=True),
    status=st.sampled_from([200, 400, 401, 403, 429, 500]),
    place=st.sampled_from(["error", "error_description", "hint", "refresh_tokens"]),
    before=st.sampled_from(["", "the token ", "x\n", "=" * 190]),
)
def test_no_token_gets_into_words(token, status, place, before):
    """A server that quotes a token back doesn't make us print it, whole or in part."""
    fields = {"error": "invalid_grant", place: f"{before}{token} is unknown"}
    assert token[:24] not in repr(answer(status, fields))


def test_issued_tokens_are_not_shown():
    """The result may be logged by mistake."""
    assert [word for word in ("access-1", "refresh-2") if word in repr(issued())] == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", None),
        ("\x00\n", None),
        ("Refresh token revoked", "Refresh token revoked"),
        ("two\nlines\x1b[31m\u202e", "two lines [31m"),
        ("words " * 100, ("words " * 100)[:200]),
        ("got " + "A" * 24, "got …"),
        (f"see {quote('https://example.com/a-long-path/page', safe='/')}", "see https%…"),
    ],
)
def test_text_of_a_server(text, shown):
    """One line, no control characters, nothing that is dense enough to be a token."""
    assert outside_text(text) == shown


def test_numbers_in_json():
    """Small integers stay exact, for they may be ids; large ones don't raise."""
    assert json_object(b'{"id": 9007199254740993, "n": %s}' % (b"9" * 5000)) == {
        "id": 9007199254740993,
        "n": float("inf"),
    }


def test_each_request_is_made_of_what_it_is_given():
    """The same table, asked for when the test runs."""
    for registered, named, basic in (
        (PUBLIC, (("client_id", "client-1"),), None),
        (CONFIDENTIAL, (), BASIC),
    ):
        for proof, verifier in (((), None), ((("code_verifier", VERIFIER),), VERIFIER)):
            exchange = code_request(registered, code=CODE, verifier=verifier, redirect_uri=REDIRECT)
            fields = ("code", CODE), ("redirect_uri", REDIRECT), *proof, *named
            assert exchange == TokenRequest(
                url=TOKEN_URL,
                form=(("grant_type", "authorization_code"), *fields),
                basic=basic,
                grant_type="authorization_code",
            )
        assert refresh_request(registered, CODE) == TokenRequest(
            url=TOKEN_URL,
            form=(("grant_type", "refresh_token"), ("refresh_token", CODE), *named),
            basic=basic,
            grant_type="refresh_token",
        )
        assert client_credentials_request(registered) == TokenRequest(
            url=TOKEN_URL,
            form=(("grant_type", "client_credentials"), *named),
            basic=basic,
            grant_type="client_credentials",
        )


def test_the_longest_address_and_the_first_redirect():
    """Both bounds are where they are said to be."""
    query = "code=code-1&state=state-1&more="
    longest = query + "x" * (ADDRESS_LIMIT - len(query))
    assert read_redirect(longest, redirect_uri=REDIRECT, state=STATE) == Code(CODE)
    assert isinstance(read_redirect(longest + "x", redirect_uri=REDIRECT, state=STATE), NotThis)
    assert isinstance(answer(299, {"access_token": "access-1"}), Issued)
    assert isinstance(answer(300, {"access_token": "access-1"}), Transient)


def test_a_pause_is_passed_on_with_whatever_comes_with_it():
    """Of an error that passes, of one that is not known; clamped as it is configured."""
    timing = Timing(retry_after_cap=50.0)
    for value in ("3600", "Sun, 06 Nov 1994 09:49:37 GMT", "Sun, 06 Nov 1994 09:49:37"):
        headers = {"retry-after": value}
        found = read_answer(429, headers, b"", timing=timing, now=NOW)
        assert isinstance(found, Transient)
        assert found.retry_after == 50.0
    for error in ("server_error", "temporarily_unavailable", "never_heard_of"):
        found = answer(400, {"error": error}, headers={"retry-after": "900"})
        assert isinstance(found, Transient)
        assert (found.retry_after, found.status) == (900.0, 400)


def test_no_other_alphabet_makes_a_token_type():
    """It goes into a header, which takes ASCII alone."""
    kept = answer(fields={"access_token": "access-1", "token_type": "Bäreŗ"})
    assert isinstance(kept, Issued)
    assert kept.token_type == "Bearer"


@pytest.mark.parametrize(
    ("pasted", "words"),
    [
        ("x" * 40_000, "that is too long to be the address that the browser ended on"),
        (f"{GOOD}&code=code-2", "that address says something twice: copy it again, once"),
        (
            f"{REDIRECT}?code=code-1",
            "that address has no state: copy all of it, from http to the last character",
        ),
        (
            f"{REDIRECT}?code=code-1&state=state-0",
            (
                "that address belongs to another login attempt:"
                " open the link that was shown last, and copy where it ends"
            ),
        ),
        (
            f"{REDIRECT}?state=state-1",
            "that address has no code: copy all of it, from http to the last character",
        ),
        (
            "http://127.0.0.1/other?state=state-1",
            f"that is not the address of this login: copy the one that begins with {REDIRECT}",
        ),
    ],
)
def test_what_is_said_of_a_wrong_address(pasted, words):
    """Each of them says what to copy instead."""
    assert read(pasted) == NotThis(words)


@pytest.mark.parametrize(
    ("error", "name"),
    [("slow_network", "slow_network"), ("AQDz1-refresh-token", "one without a proper name")],
)
def test_what_is_said_of_an_error_that_is_not_known(error, name):
    """Its name, where it can be one."""
    words = f"the server refused with an error that is not known here: {name}"
    assert answer(400, {"error": error}) == Transient(
        words=words, in_doubt=False, retry_after=UNKNOWN_REFUSAL_PAUSE, status=400
    )


def test_a_date_without_a_zone_is_read_alike_in_each_country(monkeypatch):
    """It is UTC (RFC 9110, 5.6.7), wherever this host stands."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "ELSEWHERE-9")
        time.tzset()
        found = answer(429, {}, headers={"retry-after": "Sun Nov  6 08:50:37 1994"})
    time.tzset()
    assert found.retry_after == 60.0


def test_of_a_long_text_only_its_beginning_is_looked_at():
    """Whatever a server sends, little time is spent on its words."""
    assert [outside_text(" " * blanks + "x") for blanks in (9_999, 10_000)] == ["x", None]
