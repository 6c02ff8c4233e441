"""What each answer of an API means: the words, the cure, the exit status."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotokend.cli import api_errors
from spotokend.cli.api_errors import MEANINGS, Answer, explain, token_refused
from spotokend.errors import (
    BadRequest,
    Busy,
    Forbidden,
    InsufficientScope,
    LoginRequired,
    Unavailable,
)
from spotokend.rules.schedule import DAY

NOW = 1_790_000_000.0
PAGE = b"\n<!doctype html><title>Forbidden</title><p>Your client does not have permission"


def answer(status, body=b"", **headers):
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def spotify(status, message, reason=None, **headers):
    """As the Web API writes its errors."""
    error = {"status": status, "message": message}
    if reason is not None:
        error["reason"] = reason
    return answer(status, json.dumps({"error": error}).encode(), **headers)


def told(came, method="GET"):
    return explain(came, method=method, account="main", now=NOW)


CASES = {
    "scope": (
        spotify(403, "Insufficient client scope"),
        InsufficientScope,
        "the login of main lacks a scope that this call needs (403: Insufficient client scope)",
        (
            "spotokend login main --scope SCOPE (the API's reference names it, on the page of this"
            " call)"
        ),
    ),
    "scope of the player": (
        spotify(401, "Permissions missing"),
        InsufficientScope,
        "the login of main lacks a scope that this call needs (401: Permissions missing)",
        (
            "spotokend login main --scope SCOPE (the API's reference names it, on the page of this"
            " call)"
        ),
    ),
    "scope that is named": (
        answer(403, www_authenticate='Bearer error="insufficient_scope", scope="a:b user-x"'),
        InsufficientScope,
        "the login of main lacks a scope that this call needs (403)",
        "spotokend login main --scope a:b --scope user-x",
    ),
    "no user": (
        spotify(401, "Valid user authentication required"),
        BadRequest,
        (
            "this call is about a user, and main has none: it stands for the app itself"
            " (401: Valid user authentication required)"
        ),
        "name an account that a user has logged in to, with --account",
    ),
    "token": (
        spotify(401, "The access token expired"),
        LoginRequired,
        "the API refuses even the newest token of main (401: The access token expired)",
        (
            "spotokend login main\n"
            "if that changes nothing, these tokens are not for this API: compare api_url"
        ),
    ),
    "page": (
        answer(403, PAGE, content_type="text/html"),
        Unavailable,
        "this network is kept out of the API, as happens with a VPN or in some regions (403)",
        "try it without the VPN, or from another network",
    ),
    "page of an unknown kind": (
        answer(403, PAGE),
        Unavailable,
        "this network is kept out of the API, as happens with a VPN or in some regions (403)",
        "try it without the VPN, or from another network",
    ),
    "unlisted": (
        answer(403, b"User not registered in the Developer Dashboard"),
        Forbidden,
        (
            "the user of main is not on the app's list of users"
            " (403: User not registered in the Developer Dashboard)"
        ),
        (
            "the app's owner adds the user at https://developer.spotify.com/dashboard, User Management:"
            " at most 5; no new login is needed"
        ),
    ),
    "owner": (
        answer(403, b"Active premium subscription required for the owner of the app. When"),
        Forbidden,
        (
            "the owner of the app has no Spotify Premium, and so Spotify has stopped the app"
            " (403: Active premium subscription required for the owner of the app. When)"
        ),
        "the owner subscribes; it can then take some hours until calls are let through",
    ),
    "premium": (
        spotify(403, "Player command failed: Premium required", "PREMIUM_REQUIRED"),
        Forbidden,
        (
            "only users with Spotify Premium can do that, and the one of main is none"
            " (403: Player command failed: Premium required)"
        ),
        "subscribe; neither the token nor a scope is the matter",
    ),
    "restriction": (
        spotify(403, "Player command failed: Restriction violated", "UNKNOWN"),
        Forbidden,
        "the player can't do that just now (403: Player command failed: Restriction violated)",
        (
            "it plays or pauses already, there is nothing before or after, or the track can't be"
            " played"
        ),
    ),
    "forbidden": (
        answer(403, b'{"error":{"status":403}}'),
        Forbidden,
        "the API does not let main do that (403)",
        (
            "Spotify has closed some calls to apps in development mode: see the call's own page in the"
            " API's reference"
        ),
    ),
    "device": (
        spotify(404, "Player command failed: No active device found", "NO_ACTIVE_DEVICE"),
        BadRequest,
        (
            "nothing is playing anywhere, so there is nothing to control"
            " (404: Player command failed: No active device found)"
        ),
        (
            "open Spotify on a device and let it play, or name one as ?device_id=ID:"
            " spotokend api /v1/me/player/devices"
        ),
    ),
    "nothing there": (
        spotify(404, "Service not found"),
        BadRequest,
        "the API has nothing there (404: Service not found)",
        "compare the path with the API's reference; Spotify's begin with /v1/",
    ),
    "method": (
        spotify(405, "Method not allowed", allow="GET, PUT, x<script>"),
        BadRequest,
        "the API does not take this method there (405: Method not allowed)",
        "it takes GET, PUT; -X chooses",
    ),
    "method that isn't named": (
        answer(405),
        BadRequest,
        "the API does not take this method there (405)",
        "it takes another one; -X chooses",
    ),
    "proxy": (
        answer(407),
        Unavailable,
        "the proxy wants a user name and a password (407)",
        "they belong into the proxy variable: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT",
    ),
    "slow request": (
        answer(408),
        Unavailable,
        "the API did not get the whole request in time (408)",
        "try it again",
    ),
    "quota": (
        spotify(429, "API rate limit exceeded", "QUOTA_EXCEEDED", retry_after="13749"),
        Busy,
        (
            "the quota of the Web API is used up, which all apps of one developer account share"
            " (429: API rate limit exceeded)"
        ),
        "again in 3 h 49 min",
    ),
    "quota without an end": (
        answer(429, b'{"reason": "QUOTA_EXCEEDED"}'),
        Busy,
        (
            "the quota of the Web API is used up, which all apps of one developer account share"
            " (429: QUOTA_EXCEEDED)"
        ),
        "wait, and let all of these apps call less often",
    ),
    "rate": (
        spotify(429, "API rate limit exceeded"),
        Busy,
        "the API wants fewer calls (429: API rate limit exceeded)",
        "wait a minute, and call less often",
    ),
    "bad call": (
        spotify(400, "Missing required field: name"),
        BadRequest,
        "the API does not accept the call (400: Missing required field: name)",
        "compare path and data with the API's reference",
    ),
    "unchanged": (
        answer(304),
        BadRequest,
        "nothing has changed since what the call names, so nothing is sent (304)",
        "leave the If-… header out to have it all the same",
    ),
    "redirect": (
        answer(302, location="https://login.example:8443/portal?secret=1"),
        BadRequest,
        (
            "the API sends this call elsewhere, to login.example, and the token does not go there"
            " (302)"
        ),
        "compare the path, and the client's api_url, with the API's reference",
    ),
    "redirect to nowhere": (
        answer(308, location="//[::1"),
        BadRequest,
        "the API sends this call elsewhere, and the token does not go there (308)",
        "compare the path, and the client's api_url, with the API's reference",
    ),
    "redirect within": (
        answer(307, location="/v2/me"),
        BadRequest,
        "the API sends this call elsewhere, and the token does not go there (307)",
        "compare the path, and the client's api_url, with the API's reference",
    ),
    "captive": (
        answer(511, PAGE),
        Unavailable,
        "the network wants a sign-in first (511)",
        "open any page in a browser",
    ),
    "broken": (
        answer(502, b"upstream connect error"),
        Unavailable,
        "the API has broken down, or something before it (502: upstream connect error)",
        "try again in a minute",
    ),
    "no status at all": (
        answer(999),
        Unavailable,
        "the API has broken down, or something before it (999)",
        "try again in a minute",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_answer_is_explained(name):
    """Kind, words and cure; the status and the account are among the details."""
    came, kind, words, hint = CASES[name]
    error = told(came)

    assert (type(error), error.message, error.hint) == (kind, words, hint)
    assert (error.details["status"], error.details["account"]) == (came.status, "main")


def test_each_meaning_is_met():
    """No row of the table is hidden behind another one."""
    assert {api_errors._meaning(came) for came, *_ in CASES.values()} == set(MEANINGS)


@pytest.mark.parametrize("meaning", MEANINGS, ids=lambda meaning: meaning.words[:40])
def test_each_meaning_has_a_source(meaning):
    """Where it was seen or defined."""
    assert meaning.source
    assert meaning.hint


@pytest.mark.parametrize("name", CASES)
def test_only_one_kind_of_answer_is_about_the_token(name):
    """A newer token helps against nothing else, so none is asked for."""
    assert token_refused(CASES[name][0]) is (name == "token")


def test_the_missing_scopes_are_for_programs_too():
    """In the details, as the daemon names those that it misses."""
    assert told(CASES["scope that is named"][0]).details["missing"] == ["a:b", "user-x"]
    assert "missing" not in told(CASES["scope"][0]).details


def test_a_proposed_command_holds_nothing_for_a_shell():
    """What the API names is typed by a person: only what is plain is passed on."""
    scope = "a;reboot $(x) `y` 'z -rf user-read-email " + "s" * 101
    came = answer(403, www_authenticate=f'Bearer error=insufficient_scope, scope="{scope}"')

    assert told(came).hint == "spotokend login main --scope user-read-email"


def test_not_every_scope_of_a_long_list_is_named():
    """A line has an end."""
    scope = " ".join(f"s{number}" for number in range(1000))
    came = answer(403, www_authenticate=f'Bearer error="insufficient_scope", scope="{scope}"')

    assert len(told(came).details["missing"]) == api_errors.MOST_SCOPES


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": "invalid_token", "error_description": "It expired"}', "It expired"),
        (b'{"error": "invalid_token"}', "invalid_token"),
        (b'{"message": "Bad credentials"}', "Bad credentials"),
        (b'{"title": "Nope", "detail": "No more than ten"}', "No more than ten"),
        (b'{"title": "Nope", "detail": ""}', "Nope"),
        (b'{"error": {"message": null, "reason": "ODD"}}', "ODD"),
        (b'{"error": {"message": 5}, "message": ["x"]}', None),
        (b"[1, 2]", "[1, 2]"),
        (b'"odd"', '"odd"'),
        (b"caf\xe9 {account}", "caf\ufffd {account}"),
        (b" \x1b[31m red\r\n\t", "[31m red"),
        (b"ab " * 300, "ab " * 66 + "ab"),
        (PAGE, None),
        (b"", None),
    ],
)
def test_what_the_api_says_is_found_and_made_harmless(body, said):
    """In the shapes of errors that there are; on one line, cut, without control characters."""
    ending = f" (400: {said})" if said else " (400)"

    assert told(answer(400, body)).message == f"the API does not accept the call{ending}"


def test_a_token_that_the_api_echoes_is_not_shown():
    """Nor is anything else that is long and dense enough to be one."""
    token = "sandbox-access-000001-0123456789abcdef"

    assert token not in told(spotify(400, f"no good: Bearer {token}")).message


@pytest.mark.parametrize(
    ("value", "pause", "words"),
    [
        ("0", 1, "1 s"),
        ("20", 20, "20 s"),
        ("1.2", 2, "2 s"),
        ("90", 90, "90 s"),
        ("600", 600, "10 min"),
        ("5940", 5940, "99 min"),
        ("6000", 6000, "1 h 40 min"),
        ("7200", 7200, "2 h"),
        ("13749", 13749, "3 h 49 min"),
        ("172799", 172799, "48 h"),
        ("864000", 864000, "10 days"),
        ("Mon, 21 Sep 2026 14:13:40 GMT", 20, "20 s"),
        ("Mon, 21 Sep 2026 14:13:40", 20, "20 s"),
        ("Mon, 21 Sep 2026 14:13:40 -0000", 20, "20 s"),
        ("Mon, 21 Sep 2020 14:13:40 GMT", 1, "1 s"),
        (" 20 ", 20, "20 s"),
    ],
)
def test_when_to_come_again(value, pause, words):
    """``Retry-After`` in seconds or as a date: for programs, and exactly enough for people."""
    error = told(answer(429, retry_after=value))

    assert error.retry_after == pause
    assert error.hint == f"again in {words}"


@pytest.mark.parametrize(
    "value",
    ["", "soon", "-5", "1e9", str(int(367 * DAY)), "9" * 400, "²", "Mon, 99 Sep 2026 14:13:40 GMT"],
)
def test_a_moment_that_makes_no_sense_is_not_promised(value):
    """Then the advice is the general one."""
    error = told(answer(503, retry_after=value))

    assert error.retry_after is None
    assert error.hint == "try again in a minute"


def test_a_pause_is_not_told_where_waiting_does_not_help():
    """Some servers send the header with everything."""
    error = told(answer(404, retry_after="20"))

    assert error.retry_after is None
    assert "again" not in str(error.hint)


@pytest.mark.parametrize(
    ("method", "status", "doubt"),
    [
        ("GET", 503, False),
        ("HEAD", 503, False),
        ("POST", 503, True),
        ("PUT", 500, True),
        ("DELETE", 504, True),
        ("POST", 429, False),
        ("POST", 404, False),
        ("POST", 511, False),
    ],
)
def test_a_call_that_may_have_been_carried_out(method, status, doubt):
    """A server that breaks down may have acted before; what only reads may be repeated at will."""
    error = told(answer(status, retry_after="20"), method)

    assert error.message.endswith("; it may have been carried out all the same") is doubt
    assert str(error.hint).startswith("look whether it was, before you repeat it\n") is doubt


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "reason", "detail", "title", "error_description"])
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=10,
)
BODIES = (
    st.binary(max_size=500)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.text().map(lambda text: text.encode(errors="surrogatepass"))
)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["allow", "content-type", "location", "retry-after", "www-authenticate", "x-other"]
    ),
    st.text(max_size=300)
    | st.sampled_from(["//[::1", "http://[v1.x]/", "Bearer scope=", "9" * 5000, "GET," * 50]),
)


@given(
    status=st.integers(-1, 1000) | st.sampled_from([401, 403, 405, 429, 302, 503]),
    headers=HEADERS,
    body=BODIES,
    method=st.sampled_from(["GET", "POST"]),
)
def test_whatever_comes_is_told(status, headers, body, method):
    """Never an exception, no control characters, of bounded length, and with a cure."""
    came = Answer(status, headers, body)
    error = explain(came, method=method, account="main", now=NOW)

    assert error.message.isprintable()
    assert all(line.isprintable() and line for line in str(error.hint).split("\n"))
    assert len(error.message) < 500
    assert len(str(error.hint)) < 3000
    assert error.exit_status in {2, 3, 5, 6, 7}
    assert error.retry_after is None or 1 <= error.retry_after <= api_errors.LONGEST_PAUSE
    missing = error.details.get("missing", [])
    assert all(re.fullmatch(r"[\w:/.-]+", scope, re.ASCII) for scope in missing)
    assert not token_refused(came) or status == 401
