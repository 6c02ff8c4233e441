"""What a reload changes, told in words and as facts."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotokend.rules.config.diff import Kind, changes
from spotokend.rules.config.parse import parse
from spotokend.rules.config.values import Config

SPOTIFY = '[clients.spotify]\nclient_id = "id-1"\n'
ALIKE = '[clients.alike]\nclient_id = "id-1"\n'
BOT = """\
[clients.bot]
client_id = "id-2"
flow = "client_credentials"
client_secret = "planted-1"
"""


def told(old, new):
    """Kind, name and words of each change."""
    return [(c.kind, c.name, c.words) for c in changes(parse(old), parse(new))]


def words(old, new):
    """The words of the only change."""
    [(_, _, said)] = told(old, new)
    return said


def test_the_same_configuration_changes_nothing():
    """Not even when its client secret stands in it."""
    assert told(SPOTIFY + BOT, SPOTIFY + BOT) == []


def test_warnings_are_no_change():
    """They are said after each reload anyway."""
    config = parse(SPOTIFY)
    assert changes(config, dataclasses.replace(config, warnings=())) == []


@pytest.mark.parametrize(
    ("section", "said", "restart"),
    [
        ('[daemon]\nlog_level = "debug"', "daemon.log_level: info becomes debug", False),
        ('[daemon]\ndefault_account = "a"', "daemon.default_account: the default becomes a", False),
        (
            '[daemon]\nsocket = "/s"',
            "daemon.socket: the default becomes /s when the daemon is restarted",
            True,
        ),
        (
            '[daemon]\nlog_format = "json"',
            "daemon.log_format: auto becomes json when the daemon is restarted",
            True,
        ),
        (
            '[store]\npath = "/p"',
            "store.path: the default becomes /p when the daemon is restarted",
            True,
        ),
        ("[timing]\nnap = 10", "timing.nap: 30.0 becomes 10.0 when the daemon is restarted", True),
    ],
)
def test_settings(section, said, restart):
    """Old and new value, and whether that has an effect before the daemon is restarted."""
    [change] = changes(parse(SPOTIFY), parse(SPOTIFY + section))
    assert (change.kind, change.words, change.needs_restart) == (Kind.SETTING, said, restart)
    assert said.startswith(f"{change.name}: ")


def test_clients_that_come_and_go():
    """Removing one keeps its grants."""
    assert told(SPOTIFY, SPOTIFY + BOT) == [(Kind.CLIENT_ADDED, "bot", "clients.bot: added")]
    assert told(SPOTIFY + BOT, SPOTIFY) == [
        (
            Kind.CLIENT_REMOVED,
            "bot",
            (
                "clients.bot: removed; nothing is refreshed for its accounts any more, and their grants "
                "are kept"
            ),
        )
    ]


def test_a_client_of_another_fingerprint():
    """Its accounts need a login; undoing the edit restores them. The cause is named."""
    [(kind, name, said)] = told(SPOTIFY, SPOTIFY.replace("id-1", "id-3"))
    assert (kind, name) == (Kind.CLIENT_REPLACED, "spotify")
    assert said == (
        "clients.spotify: another client id; its accounts need a login, spotokend login ACCOUNT; "
        "the old grants are kept aside, and serve again when this is undone"
    )
    assert "another token_url and its flow is authorization_code now" in words(
        SPOTIFY,
        SPOTIFY + 'authorize_url = "https://a.example/a"\ntoken_url = "https://a.example/t"\n'
        'flow = "authorization_code"\nclient_secret = { env = "S" }',
    )


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("", 'scopes = "b a"', "more scopes, a b: to get them, spotokend login ACCOUNT"),
        (
            'scopes = "a b"',
            'scopes = "a"',
            "fewer scopes: from the next login; present grants keep theirs",
        ),
        ('scopes = "a b"', 'scopes = "b a"', "the same scopes, written otherwise"),
        (
            "",
            'redirect_uri = "http://127.0.0.1:1/c"',
            "redirect_uri changed: from the next login",
        ),
        ("", 'identity_url = "none"', "identity_url changed: from the next login"),
        ("", 'rotation = "strict"', "rotation is now strict"),
        ("", "rotation_grace = 30", "rotation_grace is now 30 s"),
        ("", 'grant_life = "none"', "grant_life changed: the ends of the logins are counted anew"),
        ("", 'schedule = "on_demand"', "schedule is now on_demand"),
        ('schedule = "on_demand"', "", "schedule is now proactive"),
        (
            "",
            'api_url = "https://a.example"\nauthorize_url = "https://a.example/a"',
            "authorize_url changed: from the next login; api_url changed: from the next call",
        ),
    ],
)
def test_a_client_whose_grants_go_on(before, after, said):
    """What changed and from when it counts."""
    assert told(SPOTIFY + before, SPOTIFY + after) == [
        (Kind.CLIENT_CHANGED, "spotify", f"clients.spotify: {said}")
    ]


def test_another_secret_is_not_shown():
    """Neither the old one nor the new one."""
    said = words(BOT, BOT.replace("planted-1", "planted-2"))
    assert said == "clients.bot: the secret's source changed: it is read anew"


def test_accounts_that_come_and_go():
    """A section that goes doesn't end a login."""
    account = '[accounts."a.b"]\n'
    assert told(SPOTIFY, SPOTIFY + account) == [
        (Kind.ACCOUNT_ADDED, "a.b", 'accounts."a.b": added')
    ]
    assert told(SPOTIFY + account, SPOTIFY) == [
        (
            Kind.ACCOUNT_REMOVED,
            "a.b",
            (
                'accounts."a.b": its section is removed; if it is logged in it goes on, with what its '
                "client says"
            ),
        )
    ]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("", 'scopes = "c"', "more scopes, c: to get them, spotokend login a"),
        ('scopes = "c"', "", "more scopes, s: to get them, spotokend login a"),
        ('scopes = "s"', "", "the same scopes, written otherwise"),
        ('user = "u"', 'user = "v"', "another user: from the next login"),
        (
            'client = "spotify"\nuser = "u"',
            'client = "alike"',
            (
                "now of the client alike, which is registered alike; fewer scopes: from the next login; "
                "present grants keep theirs; another user: from the next login"
            ),
        ),
    ],
)
def test_an_account_whose_grant_goes_on(before, after, said):
    """Its own scopes and the client's are compared as they count."""
    clients = SPOTIFY + 'scopes = "s"\n' + ALIKE
    common = "" if "client" in before else 'client = "spotify"\n'
    section = clients + "[accounts.a]\n" + common
    assert told(section + before, section + after) == [
        (Kind.ACCOUNT_CHANGED, "a", f"accounts.a: {said}")
    ]


def test_an_account_of_another_client():
    """Its grant isn't sent to the new one."""
    section = SPOTIFY + BOT + "[accounts.a]\nclient = "
    assert told(section + '"spotify"', section + '"bot"') == [
        (
            Kind.ACCOUNT_REPLACED,
            "a",
            (
                "accounts.a: now of the client bot; it needs a login, spotokend login a; the old grant "
                "is kept aside, and serves again when this is undone"
            ),
        )
    ]


def test_hooks_are_their_own_process():
    """The daemon does nothing about them, and says who does."""
    assert told(SPOTIFY, SPOTIFY + "[hooks.desktop]\ndesktop = true\n") == [
        (
            Kind.HOOKS,
            "",
            "hooks: changed; start their own process anew: systemctl --user restart spotokend-hooks",
        )
    ]


PIECES = st.lists(
    st.sampled_from(
        [
            BOT,
            ALIKE,
            '[accounts.a]\nclient = "spotify"\n',
            '[daemon]\nlog_level = "error"\n',
            "[timing]\nin_flight = 3\n",
            "[hooks.desktop]\ndesktop = true\n",
        ]
    ),
    unique=True,
).map(lambda pieces: parse(SPOTIFY + "".join(pieces)))


@given(old=PIECES, new=PIECES)
def test_every_difference_is_told(old, new):
    """There is a change exactly if the configurations differ; no secret is in its words."""
    found = changes(old, new)
    assert (found == []) == (
        dataclasses.replace(old, warnings=()) == dataclasses.replace(new, warnings=())
    )
    assert all("planted-1" not in change.words for change in found)


def test_the_first_configuration_is_all_new():
    """A daemon that had none can tell what it got."""
    found = changes(Config(), parse(SPOTIFY + "[accounts.a]"))
    assert [change.kind for change in found] == [Kind.CLIENT_ADDED, Kind.ACCOUNT_ADDED]
