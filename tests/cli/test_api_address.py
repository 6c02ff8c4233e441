"""Where a call goes: never anywhere but to the API, whatever is typed."""

from __future__ import annotations

import string
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spotokend.cli.api_address import LONGEST_SHOWN, address, is_loopback
from spotokend.errors import BadRequest, Misconfigured

API = "https://api.spotify.com"


@pytest.mark.parametrize(
    ("api_url", "path", "url"),
    [
        (API, "/v1/me", f"{API}/v1/me"),
        (API, "v1/me", f"{API}/v1/me"),
        (API, "me", f"{API}/me"),
        (API, "me?x=1", f"{API}/me?x=1"),
        (API, "/", f"{API}/"),
        (f"{API}/", "/v1/me", f"{API}/v1/me"),
        (API, "/v1/a//b/", f"{API}/v1/a//b/"),
        (API, "/v1/search?q=a%20b&type=track,album", f"{API}/v1/search?q=a%20b&type=track,album"),
        (API, "/v1/search?q=Björk é&x=%", f"{API}/v1/search?q=Bj%C3%B6rk%20%C3%A9&x=%"),
        (API, '/v1/x"<>^`{|}', f"{API}/v1/x%22%3C%3E%5E%60%7B%7C%7D"),
        (API, "/v1/me?next=https://evil.example/@", f"{API}/v1/me?next=https://evil.example/@"),
        (API, "/v1/users/a@b:c", f"{API}/v1/users/a@b:c"),
        (API, f"{API}/v1/me?offset=20", f"{API}/v1/me?offset=20"),
        (API, API, f"{API}/"),
        (API, f"{API}?x", f"{API}/?x"),
        (API, "HTTPS://API.Spotify.COM:443/v1/me", f"{API}/v1/me"),
        ("https://api.spotify.com:443", f"{API}/v1/me", "https://api.spotify.com:443/v1/me"),
        ("https://gate.example:8443/spotify/", "/me", "https://gate.example:8443/spotify/me"),
        ("https://gate.example/v1", "/v1/me", "https://gate.example/v1/me"),
        ("https://gate.example/v1", "/v1", "https://gate.example/v1"),
        ("https://gate.example/v1", "/v10/me", "https://gate.example/v1/v10/me"),
        ("https://gate.example/v1", "https://gate.example/v1/me", "https://gate.example/v1/me"),
        ("http://127.0.0.1:8000", "/v1/me", "http://127.0.0.1:8000/v1/me"),
        ("http://[::1]:8000", "http://[::1]:8000/v1/me", "http://[::1]:8000/v1/me"),
    ],
)
def test_paths_and_whole_addresses(api_url, path, url):
    """Below the API's own path, which isn't repeated; encoded where it isn't yet."""
    assert address(api_url, path) == url
    assert httpx.URL(url).host == httpx.URL(api_url).host


FOREIGN = [
    "https://evil.example/v1/me",
    "http://api.spotify.com/v1/me",
    "https://api.spotify.com:444/v1/me",
    "https://api.spotify.com:0/v1/me",
    "https://api.spotify.com:99999/v1/me",
    "https://api.spotify.com:x/v1/me",
    "https://api.spotify.com./v1/me",
    "https://api.spotify.com.evil.example/v1/me",
    "https://api.spotify.com@evil.example/v1/me",
    "https://api.spotify.com:443@evil.example/",
    "https://user@api.spotify.com/v1/me",
    "https://user:password@api.spotify.com/v1/me",
    "https://@api.spotify.com/v1/me",
    "https://аpi.spotify.com/v1/me",
    "https://api。spotify。com/v1/me",
    "https://api.spotify.com%2f@evil.example/",
    "https://api.spotify.com%00.evil.example/",
    "https:///v1/me",
    "https://[::1/v1/me",
    "https://[api.spotify.com]/v1/me",
    "ftp://api.spotify.com/v1/me",
    "file:///etc/passwd",
    "x://y",
]
MISLEADING = [
    "",
    " /v1/me",
    "//evil.example/v1/me",
    "///evil.example",
    "/\\evil.example/v1/me",
    "\\\\evil.example",
    "https:\\\\evil.example",
    "https:evil.example",
    "https:/evil.example",
    "evil.example/v1/me",
    "localhost:8000/v1/me",
    "user@evil.example",
    "?q=x",
    "../v1/me",
    "./v1/me",
    "/../v1/me",
    "/v1/./me",
    "/v1/%2e%2E/other",
    "/v1/..%2fother",
    "/v1/..%5cother",
    "/v1/..",
    f"{API}//evil.example",
    f"{API}/v1/../x",
    "/v1/me#x",
    "/v1/me\r\nHost: evil.example",
    "/v1/me\t",
    "/v1/me\x00",
    "/v1/me\x1b[31m",
    "/v1/me\u202e",
    "/v1/me\u00a0",
    "/v1/me\udcff",
    "\thttps://evil.example",
]


@pytest.mark.parametrize("path", FOREIGN)
def test_other_places_are_refused(path):
    """Another scheme, host or port; a user in front of the host; what only looks like the host."""
    with pytest.raises(BadRequest, match="is not at the API of this account") as caught:
        address(API, path)
    assert caught.value.hint == "name the path alone: spotokend api /v1/me"


@pytest.mark.parametrize("path", MISLEADING)
def test_what_can_be_understood_in_two_ways_is_refused(path):
    """Slashes, dots and characters that programs read differently, and what isn't to be seen."""
    with pytest.raises(BadRequest) as caught:
        address(API, path)
    assert "a path begins with one slash" in str(caught.value.hint)


@pytest.mark.parametrize(
    "path",
    [
        "https://gate.example/other/me",
        "https://gate.example/spotify-2/me",
        "https://gate.example",
    ],
)
def test_another_service_of_the_same_host_is_refused(path):
    """Where the API has a path of its own, the token stays below it."""
    with pytest.raises(BadRequest, match="nowhere else"):
        address("https://gate.example/spotify", path)


@pytest.mark.parametrize("path", ["/../other", "/spotify/../other", "/%2e%2e/other"])
def test_no_dots_lead_out_of_the_api(path):
    """Nor does a path that climbs."""
    with pytest.raises(BadRequest, match="may lead elsewhere"):
        address("https://gate.example/spotify", path)


def test_an_error_shows_only_the_beginning():
    """Of what may be the contents of a file."""
    with pytest.raises(BadRequest) as caught:
        address(API, f"https://evil.example/{'x' * 10_000}")
    assert len(caught.value.message) < LONGEST_SHOWN + 150


@pytest.mark.parametrize(
    "api_url",
    ["http://api.spotify.com", "http://localhost:8000", "ftp://127.0.0.1", "http://10.0.0.1"],
)
def test_no_token_goes_unencrypted_over_a_network(api_url):
    """Plain HTTP is for this machine alone; the configuration says so too."""
    with pytest.raises(Misconfigured, match="unencrypted"):
        address(api_url, "/v1/me")


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", False), (None, False)],
)
def test_loopback_is_a_literal(host, expected):
    """A name is whatever a resolver says."""
    assert is_loopback(host) is expected


PIECES = st.sampled_from(
    [
        *string.punctuation,
        *("//", "..", "%2e", "%2f", "https", "http", "://", "443", "é", "。", "\t", "\n"),
        *("api.spotify.com", "evil.example", "[::1]", "spotify", "v1"),
    ]
)


@given(
    path=st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=30),
    api_url=st.sampled_from([API, f"{API}/spotify/", "http://[::1]:8000"]),
)
@example(path="https://api.spotify.com/spotify", api_url=f"{API}/spotify/")
def test_no_words_change_who_is_asked(path, api_url):
    """For the library that sends it, too: host, port and scheme are the API's, or it is refused."""
    try:
        url = address(api_url, path)
    except BadRequest:
        return
    asked, own = httpx.URL(url), httpx.URL(api_url)
    assert (asked.scheme, asked.host, asked.port) == (own.scheme, own.host, own.port)
    assert asked.userinfo == b""
    assert urlsplit(url).path.startswith(own.path.rstrip("/"))
    assert url.isascii()
    assert url.isprintable()
