"""Text into a configuration, or every mistake in it with its place and its cure."""

import datetime as dt
import json
import math
import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotokend.errors import Misconfigured
from spotokend.rules.account import Rotation
from spotokend.rules.config import keys
from spotokend.rules.config.parse import parse, starter
from spotokend.rules.config.values import (
    API_URL,
    IDENTITY_URL,
    REDIRECT_URI,
    SPOTIFY_SCOPES,
    TOKEN_URL,
    AccountConfig,
    ClientConfig,
    DaemonConfig,
    HookConfig,
    KeyKind,
    KeySource,
    SecretSource,
    SourceKind,
    StoreConfig,
)
from spotokend.rules.oauth import Flow
from spotokend.rules.schedule import Timing

ID = "0123456789abcdef" * 2
CLIENT = f'[clients.spotify]\nclient_id = "{ID}"\n'
BOT = f'[clients.bot]\nclient_id = "{ID}"\nflow = "client_credentials"\nclient_secret = {{ env = "S" }}\n'
OTHER = """\
[clients.other]
client_id = "id-1"
authorize_url = "https://accounts.example/authorize"
token_url = "https://accounts.example/token"
"""


def mistakes(text):
    """The lines of the message, without the file's name."""
    with pytest.raises(Misconfigured) as caught:
        parse(text)
    told = caught.value.message.splitlines()
    problems = caught.value.details["problems"]
    assert len(told) == len(problems)
    for line, problem in zip(told, problems, strict=True):
        assert problem.keys() == {"key", "message", "hint"}
        assert line.endswith(f"{problem['message']}; {problem['hint']}")
    assert caught.value.hint == "mend config.toml, then: spotokend config check"
    return [line.removeprefix("config.toml:") for line in told]


def mistake(text):
    """The only line of the message."""
    [line] = mistakes(text)
    return line


def toml(value):
    """TOML of a value: tables inline, so that any nesting can be written."""
    match value:
        case dict():
            return "{" + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case float() if math.isnan(value) or math.isinf(value):
            return str(value)
        case dt.date() | dt.time():
            return value.isoformat()
        case _:
            return repr(value)


def document(tables):
    """A TOML document of a dict."""
    return "\n".join(f"{toml(key)} = {toml(value)}" for key, value in tables.items())


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
LIKELY = st.sampled_from(
    [
        "pkce",
        "client_credentials",
        "authorization_code",
        "spotify",
        "none",
        "https://accounts.example/a",
        "http://127.0.0.1/a",
        "streaming",
        "180d",
        "grace",
    ]
)
VALUES = st.recursive(
    WORDS
    | LIKELY
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(0, 90)
    | st.floats()
    | st.dates()
    | st.times(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            WORDS | st.sampled_from(["file", "command", "credential", "env", "keyring"]),
            inner,
            max_size=2,
        )
    ),
    max_leaves=4,
)


def section(name):
    """A table with some of a section's keys, or something else."""
    known = st.sampled_from([*keys.SECTIONS[name], *keys.LATER.get(name, {})])
    return st.dictionaries(known | WORDS, VALUES, max_size=6) | VALUES


def named(name):
    """Sections with names."""
    return st.dictionaries(LIKELY | WORDS, section(name), max_size=3) | VALUES


DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "daemon": section("daemon"),
        "store": section("store"),
        "timing": section("timing"),
        "clients": named("clients"),
        "accounts": named("accounts"),
        "other": VALUES,
    },
)


@given(tables=DOCUMENTS)
def test_any_document_parses_or_is_misconfigured(tables):
    """No other exception, and one mistake a line."""
    text = document(tables)
    assert tomllib.loads(text).keys() == tables.keys()
    try:
        parse(text)
    except Misconfigured as error:
        assert len(error.message.split("\n")) == len(error.details["problems"])


@given(text=st.text() | st.text(alphabet="[]{}=.\"'#abc01-:\n "))
def test_any_text_parses_or_is_misconfigured(text):
    """No other exception leaves the parser."""
    with pytest.raises(Misconfigured):
        parse(text)


@given(tables=DOCUMENTS, secret=st.text(alphabet="0123456789", min_size=12, max_size=12))
def test_no_message_holds_a_secret(tables, secret):
    """Neither a mistake beside it nor a warning about it repeats a client secret."""
    clients = tables.get("clients")
    bare = {"client_id": "id", "client_secret": f"planted{secret}"}
    tables["clients"] = {**(clients if isinstance(clients, dict) else {}), "bare": bare}
    with pytest.raises(Misconfigured) as caught:  # PKCE has no use for a secret
        parse(document(tables))
    assert secret not in caught.value.message + str(caught.value.details)


def test_the_least():
    """A client id is all that Spotify takes; everything else has a default."""
    config = parse(CLIENT)
    assert config.daemon == DaemonConfig()
    assert config.store == StoreConfig()
    assert config.timing == Timing()
    assert dict(config.clients) == {"spotify": ClientConfig(name="spotify", client_id=ID)}
    assert dict(config.accounts) == {}
    assert config.warnings == ()


def test_everything():
    """Each key arrives where it belongs."""
    config = parse(
        f"""
        [daemon]
        socket = "~/s.sock"
        log_level = "debug"
        log_format = "json"
        default_account = "work"
        [store]
        backend = "sqlite"
        path = "a.sqlite3"
        key = "/k"
        [timing]
        nap = "20s"
        in_flight = 2
        [clients.spotify]
        client_id = "{ID}"
        flow = "authorization_code"
        client_secret = {{ command = ["pass", "spotify"] }}
        redirect_uri = "http://127.0.0.1:8888/callback"
        scopes = "streaming user-top-read"
        identity_url = "none"
        rotation = "grace"
        rotation_grace = 30
        grant_life = "none"
        schedule = "on_demand"
        [accounts.work]
        client = "spotify"
        scopes = ["user-read-email"]
        user = "user-1"
        """
    )
    assert config.daemon == DaemonConfig(
        socket="~/s.sock", log_level="debug", log_format="json", default_account="work"
    )
    assert config.store == StoreConfig(
        backend="sqlite", path="a.sqlite3", key=KeySource(KeyKind.FILE, "/k")
    )
    assert config.timing == Timing(nap=20.0, in_flight=2)
    assert config.clients["spotify"] == ClientConfig(
        name="spotify",
        client_id=ID,
        flow=Flow.AUTHORIZATION_CODE,
        client_secret=SecretSource(SourceKind.COMMAND, ("pass", "spotify")),
        redirect_uri="http://127.0.0.1:8888/callback",
        scopes=("streaming", "user-top-read"),
        identity_url=None,
        rotation=Rotation.GRACE,
        rotation_grace=30.0,
        grant_life=math.inf,
        proactive=False,
    )
    assert config.accounts["work"] == AccountConfig(
        name="work", client="spotify", scopes=("user-read-email",), user="user-1"
    )
    assert config.warnings == ()


def test_another_server_gets_nothing_of_spotifys_defaults():
    """Its tokens aren't sent to Spotify's API, and its scopes and ids are its own matter."""
    config = parse(OTHER + 'scopes = ["openid"]\n[accounts.a]\nscopes = ["profile"]')
    client = config.clients["other"]
    assert (client.api_url, client.identity_url) == (None, None)
    assert config.warnings == ()
    given = 'api_url = "https://api.example"\nidentity_url = "https://accounts.example/me"\n'
    client = parse(OTHER + given).clients["other"]
    assert client.api_url == "https://api.example"
    assert client.identity_url == "https://accounts.example/me"


def test_spotifys_own_token_url_may_be_written_out():
    """It is Spotify all the same."""
    client = parse(CLIENT + f'token_url = "{TOKEN_URL}"').clients["spotify"]
    assert (client.api_url, client.identity_url) == (API_URL, IDENTITY_URL)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = b", "1: this is no TOML at line 1, column 5: invalid value; text stands in quotes"),
        ("\n[clients x]", "2: this is no TOML at line 2, column 10: expected ']'"),
        ("a = [", " this is no TOML at end of document: invalid value; text stands"),
        ("a = " + "[" * 100_000, " this is no TOML: arrays or tables nest too deep; text stands"),
        ("a = " + "1" * 5000, " this is no TOML: a number has too many digits; text stands"),
    ],
)
def test_syntax(text, words):
    """Line and column where there are any, and never the line itself."""
    assert mistake(text).startswith(words)


def test_a_syntax_error_holds_no_text_of_the_file():
    """Nor does an exception behind it, which a log could print with its variables."""
    with pytest.raises(Misconfigured) as caught:
        parse('client_secret = "planted-1"\na = b')
    assert caught.value.__context__ is None
    assert "planted-1" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "[clients]\n", "[daemon]\n"])
def test_no_client(text):
    """An empty file, perhaps half written, isn't the wish to drop every client."""
    assert mistake(text).startswith(" there is no client; add a section: [clients.spotify] with")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "[deamon]\n" + CLIENT,
            (
                '1: deamon: unknown key (did you mean "daemon"?); known here: daemon, store, timing, '
                "clients, accounts, hooks"
            ),
        ),
        (
            f'client_id = "{ID}"\n' + CLIENT,
            "1: client_id: unknown key; it belongs below [clients.NAME]",
        ),
        (
            'scopes = "a"\n' + CLIENT,
            "1: scopes: unknown key; it belongs below [clients.NAME] or [accounts.NAME]",
        ),
        (CLIENT + "nap = 3", "3: clients.spotify.nap: unknown key; it belongs below [timing]"),
        (
            CLIENT + "redirect_url = 3",
            '3: clients.spotify.redirect_url: unknown key (did you mean "redirect_uri"?); known here: '
            + ", ".join(keys.CLIENT),
        ),
        (
            CLIENT + "[store]\nfoo = 1",
            "4: store.foo: unknown key; known here: backend, path, key",
        ),
        (
            CLIENT + '[store]\ndsn = "x"',
            (
                "4: store.dsn: this version doesn't have that yet; remove it; what works is "
                'backend = "sqlite" with path'
            ),
        ),
        (
            CLIENT + 'allow = "x"',
            (
                "3: clients.spotify.allow: this version doesn't have that yet; remove it; in this "
                "version every program of your user may ask"
            ),
        ),
        (
            CLIENT + "[accounts.a]\nsinks = []",
            (
                "4: accounts.a.sinks: this version doesn't have that yet; remove it; in this version "
                "programs ask: spotokend token ACCOUNT"
            ),
        ),
        (
            CLIENT + '[daemon]\nlog_level = "loud"',
            '4: daemon.log_level: "loud" is unknown; use "debug", "info", "warning" or "error"',
        ),
    ],
)
def test_keys_that_are_unknown_misplaced_or_later(text, line):
    """Nothing is passed over in silence."""
    assert mistake(text) == line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "daemon = 3\n" + CLIENT,
            "1: daemon: a section belongs here, not an integer; write [daemon],",
        ),
        (
            "[[timing]]\n" + CLIENT,
            "1: timing: a section belongs here, not an array; write [timing],",
        ),
        (
            "accounts = []\n" + CLIENT,
            "1: accounts: a section belongs here, not an array; write [accounts.NAME], in single",
        ),
        (
            CLIENT + f'[clients]\nclient_id = "{ID}"\n',
            "4: clients.client_id: a section belongs here, not a string; write [clients.NAME], in",
        ),
    ],
)
def test_sections_of_another_shape(text, words):
    """The mistake of one bracket too many, and of a name too few."""
    assert any(line.startswith(words) for line in mistakes(text))


def test_names():
    """Bad names are told for clients and accounts, with their lines."""
    bad = mistakes(
        CLIENT + f'[clients."a b"]\nclient_id = "{ID}"\n[accounts."-x"]\nclient = "spotify"'
    )
    assert [line.partition(";")[0] for line in bad] == [
        '3: clients."a b": "a b" can\'t be a name',
        '5: accounts.-x: "-x" can\'t be a name',
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "[clients.a]",
            (
                '1: clients.a.client_id: missing: a client has an id; add client_id = "..."; its value '
                "is on your app's page: https://developer.spotify.com/dashboard"
            ),
        ),
        (
            CLIENT + 'client_secret = { env = "S" }',
            (
                '3: clients.spotify.client_secret: flow = "pkce" has no use for a client secret; '
                'remove it, or write flow = "authorization_code"'
            ),
        ),
        (
            CLIENT + 'flow = "authorization_code"',
            (
                '1: clients.spotify.client_secret: flow = "authorization_code" needs a secret, and there '
                'is none; add client_secret = { file = "client-secret" }, or use flow = "pkce"'
            ),
        ),
        (
            CLIENT + 'flow = "client_credentials"',
            (
                '1: clients.spotify.client_secret: flow = "client_credentials" needs a secret, and there '
                'is none; add client_secret = { file = "client-secret" }'
            ),
        ),
        (
            BOT + 'scopes = ["streaming"]',
            (
                '5: clients.bot.scopes: flow = "client_credentials" has no user who could be asked; '
                'remove it, or use flow = "pkce"'
            ),
        ),
        (
            BOT + 'redirect_uri = "http://127.0.0.1:8888/callback"',
            (
                '5: clients.bot.redirect_uri: flow = "client_credentials" has no user who could be '
                'asked; remove it, or use flow = "pkce"'
            ),
        ),
        (
            CLIENT + 'token_url = "https://accounts.example/token"',
            (
                "1: clients.spotify.authorize_url: token_url is another server's than Spotify's, and "
                'this is missing; add authorize_url = "https://...", that server\'s address for logins'
            ),
        ),
        (
            CLIENT + 'flow = "pkcee"\nclient_secret = { env = "S" }',
            (
                '3: clients.spotify.flow: "pkcee" is unknown (did you mean "pkce"?); use "pkce", '
                '"authorization_code" or "client_credentials"'
            ),
        ),
    ],
)
def test_clients_whose_keys_do_not_fit(text, line):
    """Flow, secret, redirect and endpoints; a key that couldn't be read draws no second mistake."""
    assert mistake(text) == line


def test_client_credentials_have_no_login():
    """At another server no authorize_url is asked for; what says nothing may stand there."""
    text = BOT + 'token_url = "https://accounts.example/token"\nscopes = []\n'
    assert parse(text).clients["bot"].flow is Flow.CLIENT_CREDENTIALS


def test_accounts_find_their_client():
    """The only one needs no mention; a named one is found."""
    assert parse(CLIENT + "[accounts.a]").accounts["a"].client == "spotify"
    assert parse(CLIENT + BOT + '[accounts.a]\nclient = "bot"').accounts["a"].client == "bot"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            CLIENT + BOT + "[accounts.a]",
            (
                "7: accounts.a.client: there are several clients, and nothing says which one this "
                'account is of; add client = "NAME", which is one of "spotify" or "bot"'
            ),
        ),
        (
            CLIENT + '[accounts.a]\nclient = "spotifi"',
            (
                '4: accounts.a.client: there is no client "spotifi" (did you mean "spotify"?); use '
                '"spotify", or add [clients.spotifi]'
            ),
        ),
        (
            CLIENT + '[accounts.a]\nclient = "x.y"',
            '4: accounts.a.client: there is no client "x.y"; use "spotify", or add [clients."x.y"]',
        ),
        (
            BOT + '[accounts.a]\nuser = "user-1"',
            (
                '6: accounts.a.user: its client "bot" has flow = "client_credentials", without a user; '
                "remove it, or name another client"
            ),
        ),
        (
            CLIENT + "[accounts.a]\nclient = 3",
            '4: accounts.a.client: a string belongs here, not an integer; write it in quotes: "..."',
        ),
    ],
)
def test_accounts_whose_client_does_not_fit(text, line):
    """Missing, unknown, or without users."""
    assert mistake(text) == line


def test_without_clients_accounts_draw_no_second_mistake():
    """The missing client is the one thing to mend."""
    text = '[accounts.a]\n[accounts.b]\nclient = "spotify"'
    assert mistake(text).startswith(" there is no client;")


def test_default_account():
    """With one client an account needs no section; with several a default one does."""
    default = '[daemon]\ndefault_account = "main"\n'
    section = '[accounts.main]\nclient = "bot"\n'
    assert parse(default + CLIENT).daemon.default_account == "main"
    assert parse(default + CLIENT + BOT + section).daemon.default_account == "main"
    assert mistake(default + CLIENT + BOT + section.replace("main", "mian")) == (
        '2: daemon.default_account: there is no account "main" (did you mean "mian"?); add '
        '[accounts.main], with client set to one of "spotify" or "bot"'
    )
    assert mistake(default.replace("main", "-") + CLIENT).startswith(
        '2: daemon.default_account: "-" can\'t be a name'
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("due_from = 0.8", "due_from: 0.8 isn't below due_to, which is 0.8;"),
        ("due_to = 0.97", "due_to: 0.97 of the life is later than the token is served"),
        ("backoff_base = 90", "backoff_base: 90 s is more than backoff_cap, 60 s;"),
        ('due_to = "0.1"', "due_to: a number belongs here, not a string;"),
        ("nap = nan", "nap: is out of range; write a time from 0.1s to 5m"),
    ],
)
def test_timing_that_does_not_fit(text, words):
    """Each figure in its range, and the figures with each other."""
    assert mistake(f"{CLIENT}[timing]\n{text}").startswith(f"4: timing.{words}")


def test_hooks():
    """Each has a name, and its defaults."""
    text = """
[hooks.desktop]
desktop = true
[hooks.light]
command = ["light", "on"]
kinds = ["token"]
accounts = ["main"]
token = true
timeout = "1m"
"""
    assert parse(CLIENT + text).hooks == {
        "desktop": HookConfig(name="desktop", desktop=True),
        "light": HookConfig(
            name="light",
            command=("light", "on"),
            kinds=("token",),
            accounts=("main",),
            token=True,
            timeout=60.0,
        ),
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "",
            (
                "3: hooks.a: nothing says what it does; "
                'add command = ["program", "argument"], or desktop = true'
            ),
        ),
        (
            "desktop = false",
            (
                "3: hooks.a: nothing says what it does; "
                'add command = ["program", "argument"], or desktop = true'
            ),
        ),
        (
            'desktop = true\ncommand = ["a"]',
            (
                "5: hooks.a.command: desktop = true has a command of its own, notify-send; "
                "remove it, or desktop = true"
            ),
        ),
        (
            "desktop = true\ntoken = true",
            (
                "5: hooks.a.token: a notification on the desktop has no place for a token; "
                "remove it, or desktop = true"
            ),
        ),
        (
            "command = 1",
            (
                "4: hooks.a.command: the program and its arguments belong here, as an array of strings; "
                'such as ["notify-me", "--loud"]'
            ),
        ),
    ],
)
def test_hooks_that_do_nothing_or_too_much(text, line):
    """With the cure."""
    assert mistake(f"{CLIENT}[hooks.a]\n{text}") == line


def test_unknown_scopes_are_warned_about():
    """The list grows, so they are asked for all the same; the nearest known one is named."""
    config = parse(CLIENT + 'scopes = "user-read-privat"\n[accounts.a]\nscopes = ["new"]\n')
    assert config.clients["spotify"].scopes == ("user-read-privat",)
    assert config.warnings == (
        (
            'clients.spotify.scopes: "user-read-privat" is no scope of Spotify\'s that this version '
            'knows (did you mean "user-read-private"?); it is asked for all the same'
        ),
        (
            'accounts.a.scopes: "new" is no scope of Spotify\'s that this version knows; it is asked '
            "for all the same"
        ),
    )


def test_a_client_id_unlike_spotifys_is_warned_about():
    """A placeholder would only be noticed in the browser."""
    [warning] = parse('[clients.a]\nclient_id = "PASTE-HERE"').warnings
    assert warning.startswith("clients.a.client_id: Spotify's client ids are 32 digits and letters")


def test_a_secret_in_the_file_is_warned_about():
    """Loudly, and without repeating it."""
    text = CLIENT + 'flow = "authorization_code"\nclient_secret = "planted-1"'
    [warning] = parse(text).warnings
    assert warning.startswith("clients.spotify.client_secret: THE SECRET STANDS IN THE CONFIG")
    assert "planted-1" not in warning


def test_the_source_is_named():
    """Messages and the cure name the file as it was given."""
    with pytest.raises(Misconfigured) as caught:
        parse("x = 1\n" + CLIENT, source="/etc/s.toml")
    assert caught.value.message.startswith("/etc/s.toml:1: x: unknown key")
    assert caught.value.hint == "mend /etc/s.toml, then: spotokend config check"


def test_the_starter_is_a_configuration():
    """What ``config init`` writes parses, without a warning, and says what was asked for."""
    config = parse(starter(ID, iter(["streaming", "user-top-read"])))
    assert config.clients["spotify"].client_id == ID
    assert config.clients["spotify"].scopes == ("streaming", "user-top-read")
    assert config.warnings == ()


def test_a_starter_has_a_redirect_uri_where_it_is_another():
    """One that other programs use with the same app; the default needs no mention."""
    uri = "http://127.0.0.1:8888/callback"
    assert parse(starter(ID, [], uri)).clients["spotify"].redirect_uri == uri
    assert "redirect_uri" not in starter(ID, [], REDIRECT_URI)


def test_a_starter_fits_the_screen():
    """Also with every scope: each then has a line of its own. Indented, within 80 columns."""
    for scopes in ([], SPOTIFY_SCOPES[:2], SPOTIFY_SCOPES):
        text = starter(ID, scopes)
        assert parse(text).clients["spotify"].scopes == tuple(scopes)
        assert max(map(len, text.splitlines())) <= 75


@given(
    client_id=st.text(st.characters(codec="ascii"), max_size=20),
    scopes=st.lists(st.text(st.characters(codec="ascii"), max_size=30), max_size=3),
    redirect_uri=st.sampled_from([REDIRECT_URI, "https://a.example/?b=%22", 'https://a.example/"'])
    | st.text(st.characters(codec="ascii"), max_size=9),
)
def test_any_starter_parses_or_is_refused(client_id, scopes, redirect_uri):
    """Quotes and backslashes in an id come back as they were."""
    try:
        text = starter(client_id, scopes, redirect_uri)
    except Misconfigured as error:
        assert error.hint is not None
    else:
        client = parse(text).clients["spotify"]
        assert client.client_id == client_id
        assert client.scopes == tuple(dict.fromkeys(scopes))
        assert client.redirect_uri == redirect_uri


def test_a_starter_names_what_is_wrong():
    """The client id, the scopes, or the redirect URI."""
    with pytest.raises(Misconfigured, match=re.escape("the client id: is empty")):
        starter("", [])
    with pytest.raises(Misconfigured, match=re.escape('the scopes: "a b" can\'t be a scope')):
        starter(ID, ["a b"])
    with pytest.raises(Misconfigured, match=re.escape('the redirect URI: "http://localhost/"')):
        starter(ID, [], "http://localhost/")
