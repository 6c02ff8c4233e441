"""Each reader: what it takes, what it refuses, and that the refusal names the cure and no secret."""

import datetime as dt
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotokend.rules.config import keys, readers
from spotokend.rules.config.readers import Wrong
from spotokend.rules.config.values import SecretSource, SourceKind
from spotokend.rules.secret import Secret

TOML = st.recursive(
    st.text()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.datetimes()
    | st.dates()
    | st.times(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.text() | st.sampled_from(["file", "command", "credential", "env"]), inner
        )
    ),
    max_leaves=8,
)


def refusal(reader, value):
    """What and cure, as they are told."""
    with pytest.raises(Wrong) as caught:
        reader(value)
    assert caught.value.hint != ""
    return f"{caught.value.message}; {caught.value.hint}"


@given(value=TOML)
def test_any_reader_reads_or_refuses(value):
    """Whatever TOML can hold, no other exception leaves a reader, and a refusal is one line."""
    for table in keys.SECTIONS.values():
        for key in table.values():
            try:
                key.read(value)
            except Wrong as wrong:
                assert "\n" not in wrong.message + wrong.hint


@given(url=st.from_regex(r"(https?|ftp)?:?/?/?[a-z0-9.@:\[\]%#?/-]{0,30}", fullmatch=True))
def test_any_address_is_read_or_refused(url):
    """Broken brackets, ports and hosts are refused in words."""
    for reader in (readers.endpoint, readers.redirect_uri, readers.identity):
        try:
            assert reader(url) in {url, None}
        except Wrong:
            continue


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("a", "a string"),
        (True, "a boolean"),
        (1, "an integer"),
        (1.0, "a float"),
        ([], "an array"),
        ({}, "a table"),
        (dt.date(2026, 1, 1), "a date or a time"),
    ],
)
def test_kinds_are_named_as_toml_names_them(value, words):
    """The user wrote TOML, and knows nothing of Python's types."""
    assert readers.kind_of(value) == words


def test_shown_words_are_quoted_short_and_in_ascii():
    """A look-alike letter and a line break show themselves; length is bounded."""
    assert readers.show("p\u043a\n") == '"p\\u043a\\n"'
    assert len(readers.show("x" * 1000)) < 100


def test_text_refuses_what_is_none():
    """Another type, nothing at all, and what can't be seen."""
    assert readers.text("a b") == "a b"
    assert refusal(readers.text, 3) == (
        'a string belongs here, not an integer; write it in quotes: "..."'
    )
    assert refusal(readers.text, " \t") == "is empty; fill it in, or remove the line"
    for unseen in ("a\n", " a", "a\0", "a\x1b[0m"):
        assert "control characters" in refusal(readers.text, unseen)


def test_client_id():
    """Printable ASCII (RFC 6749, A.1); an empty one says where to find it."""
    assert readers.client_id("id-1") == "id-1"
    assert "dashboard" in refusal(readers.client_id, "")
    assert "no client id has" in refusal(readers.client_id, "ïd")


def test_name():
    """A bad name is shown with the rule."""
    assert readers.name("work.2") == "work.2"
    assert refusal(readers.name, "../x") == (
        '"../x" can\'t be a name; letters, digits, dots, hyphens and underscores, a letter or '
        "digit first, at most 60"
    )


def test_choice():
    """An unknown word gets the nearest, and all that would do."""
    read = readers.choice({"proactive": True, "on_demand": False})
    assert read("on_demand") is False
    assert refusal(read, "Proactiv") == (
        '"Proactiv" is unknown (did you mean "proactive"?); use "proactive" or "on_demand"'
    )
    assert refusal(read, "x") == '"x" is unknown; use "proactive" or "on_demand"'
    assert refusal(readers.choice({"a": 1}), "b").endswith('use "a"')


def test_backend():
    """PostgreSQL is a later version's, and that is said plainly."""
    assert readers.backend("sqlite") == "sqlite"
    assert refusal(readers.backend, "postgres") == (
        'this version has no PostgreSQL store yet; what works is backend = "sqlite"'
    )
    assert "is unknown" in refusal(readers.backend, "mysql")


def test_number():
    """Integers and floats in range; no booleans, no NaN, no infinity, no number too long to print."""
    read = readers.number(0, 10)
    assert read(3) == 3.0
    assert isinstance(read(3), float)
    for value in (math.nan, math.inf, -1, 10.5, 16**9999):
        assert refusal(read, value) == "is out of range; write a number from 0 to 10"
    for value in (True, "3"):
        assert "a number belongs here" in refusal(read, value)


def test_whole():
    """Whole numbers in range."""
    read = readers.whole(1, 64)
    assert read(64) == 64
    assert refusal(read, 65) == "is out of range; write a number from 1 to 64"
    for value in (True, 1.0, "1"):
        assert "a whole number belongs here" in refusal(read, value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(90, 90.0), (0.5, 0.5), ("90s", 90.0), ("1.5h", 5400.0), ("10 m", 600.0), ("2d", 172_800.0)],
)
def test_duration(value, seconds):
    """A number of seconds, or a number with a unit."""
    assert readers.duration(0, 200_000)(value) == seconds


def test_duration_refuses():
    """What is no time or out of range; the range is told in units for people."""
    read = readers.duration(0, 86_400)
    for value in ("9" * 400 + "d", math.nan, -1, "2d"):
        assert refusal(read, value) == "is out of range; write a time from 0s to 1d"
    for value in ("", "5 weeks", "1h30m", "-1s", "\u0665s", True, [], "none"):
        assert refusal(read, value).startswith("a time belongs here; write seconds, or such as")


def test_a_duration_may_be_endless():
    """``"none"`` only where that means something, and then the refusal names it."""
    read = readers.duration(60, 86_400, endless=True)
    assert read("none") == math.inf
    assert refusal(read, "never").endswith('or "none"')


@pytest.mark.parametrize(
    ("value", "scopes"),
    [
        ([], ()),
        ("", ()),
        (["a", "b", "a"], ("a", "b")),
        ("a  b\ta", ("a", "b")),
        (["a,b"], ("a,b",)),
    ],
)
def test_scopes(value, scopes):
    """An array or words; each once, in their order."""
    assert readers.scopes(value) == scopes


def test_scopes_refuse():
    """Commas between words, what no server takes (RFC 6749, A.4), and other types."""
    assert refusal(readers.scopes, "a, b,c") == (
        'scopes are separated by spaces, not by commas; write an array: ["a", "b", "c"]'
    )
    assert refusal(readers.scopes, ["a b"]).startswith('"a b" can\'t be a scope')
    assert refusal(readers.scopes, ["a", ""]).startswith('"" can\'t be a scope')
    assert refusal(readers.scopes, [1]).startswith("an integer can't be a scope")
    assert refusal(readers.scopes, "ä").startswith('"\\u00e4" can\'t be a scope')
    assert refusal(readers.scopes, 1).startswith("an array of scopes belongs here, not an integer")


def test_file():
    """A path is kept as it is written; another user's home isn't guessed, and isn't repeated."""
    for path in ("/a/b", "a", "~/a", "../a"):
        assert readers.file(path) == path
    assert refusal(readers.file, "~bob") == (
        "of paths with a ~ only ~/ is understood; write the whole path"
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://accounts.example/token",
        "https://accounts.example:8443/a?b=c",
        "http://127.0.0.1:8090/token",
        "http://[::1]/token",
    ],
)
def test_endpoint(url):
    """HTTPS, and plain HTTP to this machine."""
    assert readers.endpoint(url) == url
    assert readers.identity(url) == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://accounts.example/token", "would send secrets unencrypted"),
        ("http://localhost/token", "would send secrets unencrypted"),
        ("http://192.0.2.1/token", "would send secrets unencrypted"),
        ("ftp://accounts.example/token", "is no web address"),
        ("accounts.example/token", "is no URL with a host"),
        ("https://", "is no URL with a host"),
        ("https://accounts.example:0/", "is no URL with a host"),
        ("https://accounts.example:99999/", "is no URL"),
        ("https://accounts.example:x/", "is no URL"),
        ("https://[::1/", "is no URL"),
        ("https://accounts.example/a b", "characters that no URL has"),
        ("https://accounts.example/ä", "characters that no URL has"),
        ("https://accounts.example/a#b", "has a fragment"),
        ("https://accounts.example/a#", "has a fragment"),
    ],
)
def test_endpoint_refuses(url, words):
    """What would show a secret on the way, and what is no address."""
    assert words in refusal(readers.endpoint, url)


def test_an_address_with_a_password_is_not_repeated():
    """Its message would carry the password into logs."""
    told = refusal(readers.endpoint, "https://user:password-1@accounts.example/")
    assert told.startswith("holds a user's name or password")
    assert "password-1" not in told


def test_identity_may_be_none():
    """Some servers can't say who logged in."""
    assert readers.identity("none") is None


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/callback",
        "http://127.0.0.1:8888/callback",
        "http://[::1]:8888/callback?a=b",
        "https://accounts.example/callback",
    ],
)
def test_redirect_uri(url):
    """Loopback literals over HTTP, anything over HTTPS."""
    assert readers.redirect_uri(url) == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "http://localhost:8888/callback",
            'Spotify refuses "localhost" as a redirect; use 127.0.0.1',
        ),
        ("https://LOCALHOST/callback", 'Spotify refuses "localhost" as a redirect; use 127.0.0.1'),
        ("http://app.localhost/callback", 'Spotify refuses "localhost" as a redirect'),
        ("http://example.com/callback", "must stay on this machine; use 127.0.0.1 or [::1]"),
        ("http://0.0.0.0/callback", "must stay on this machine"),
        ("myapp://callback", "the redirect must be http or https; such as http://127.0.0.1:8888/"),
        ("http://127.0.0.1/callback#x", "has a fragment"),
        ("http:///callback", "is no URL with a host"),
    ],
)
def test_redirect_uri_refuses(url, words):
    """What Spotify refuses, and what would hand the code to others."""
    assert words in refusal(readers.redirect_uri, url)


@pytest.mark.parametrize(
    ("value", "source"),
    [
        ({"file": "secret"}, SecretSource(SourceKind.FILE, "secret")),
        ({"command": ["pass", "a b"]}, SecretSource(SourceKind.COMMAND, ("pass", "a b"))),
        ({"credential": "secret"}, SecretSource(SourceKind.CREDENTIAL, "secret")),
        ({"keyring": "spotify"}, SecretSource(SourceKind.KEYRING, "spotify")),
        ({"env": "A_1"}, SecretSource(SourceKind.ENV, "A_1")),
        ("secret-1", SecretSource(SourceKind.LITERAL, Secret("secret-1"))),
    ],
)
def test_secret_source(value, source):
    """A table that names one source, or the secret itself."""
    assert readers.secret_source(value) == source


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "is empty; name one source"),
        (3, "a table belongs here, not an integer; name one source"),
        ({}, "names no source; name one source"),
        ({"file": "a", "env": "B"}, "names more than one source"),
        ({"fil": "a"}, '"fil" is no source of a secret (did you mean "file"?)'),
        ({"keyring": "a b"}, "keyring: the name of the keyring's item belongs here"),
        ({"file": 3}, "file: a string belongs here, not an integer"),
        ({"command": "pass spotify"}, "command: the program and its arguments belong here"),
        ({"command": []}, "command: the program and its arguments belong here"),
        ({"command": [" "]}, "command: the program and its arguments belong here"),
        ({"command": ["a", 1]}, "command: the program and its arguments belong here"),
        ({"command": ["a", "\0"]}, "command: the program and its arguments belong here"),
        ({"credential": "a/b"}, "credential: the name of a credential has no slash"),
        ({"credential": ".."}, "credential: the name of a credential has no slash"),
        ({"env": "A-B"}, "env: the name of an environment variable belongs here, not its value"),
    ],
)
def test_secret_source_refuses(value, words):
    """Each with what may stand there."""
    assert words in refusal(readers.secret_source, value)


@pytest.mark.parametrize("word", ["file", "command", "credential", "env", "keyring", "value"])
@pytest.mark.parametrize("shape", [lambda s: s, lambda s: [s], lambda s: {"a": s}])
@pytest.mark.parametrize("secret", ["~planted-1", "planted-1/x", "planted-1\n", "planted-1=="])
def test_a_misplaced_secret_is_not_repeated(word, shape, secret):
    """A secret that was pasted in a source's place shows in no message."""
    try:
        readers.secret_source({word: shape(secret)})
    except Wrong as wrong:
        assert "planted-1" not in wrong.message + wrong.hint
