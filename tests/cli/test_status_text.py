"""What ``status`` tells, as text: bars, durations, troubles, stories."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotokend.cli import status_text, terminal
from spotokend.cli.status_text import due, facts, left, life_bar, login_end, story, troubles, who

NOW = 2_000.0
CLIENTS = {"spotify": {"flow": "pkce"}, "machine": {"flow": "client_credentials"}}


@pytest.fixture
def civil(monkeypatch):
    """Civil times as the numbers that they are."""
    monkeypatch.setattr(terminal, "civil", lambda at: f"<{at:.0f}>")


@pytest.mark.parametrize(
    ("now", "bar"),
    [
        (0.0, ("━━┿━━━━━━━", "")),
        (50.0, ("━━┿━━", "─────")),
        (70.0, ("━━┿", "───────")),
        (75.0, ("━━┽", "───────")),
        (80.0, ("━━", "┼───────")),
        (86.0, ("━╾", "┼───────")),
        (99.9, ("╾", "─┼───────")),
        (100.0, ("", "──┼───────")),
        (1_000.0, ("", "──┼───────")),
        (-50.0, ("━━┿━━━━━━━", "")),
    ],
)
def test_a_bar_shortens_towards_its_mark(account_map, now, bar):
    """From full at the issue to nothing at the end; the refresh is due at the mark."""
    account = account_map(issued_at=0.0, due_at=75.0, expires_at=100.0)

    assert life_bar(account, now, 10) == bar


@pytest.mark.parametrize(
    "unknown",
    [
        {"issued_at": None},
        {"expires_at": None},
        {"issued_at": 5.0, "expires_at": 5.0},
    ],
)
def test_no_life_no_bar(account_map, unknown):
    """Without a token, or where nobody knows when it began."""
    assert life_bar(account_map(**unknown), NOW, 10) == ("", "")


def test_no_room_no_bar(account_map):
    """A bar of no cells is none."""
    assert life_bar(account_map(), NOW, 0) == ("", "")


@pytest.mark.parametrize("due_at", [None, 1_000.0, 4_600.0, 9_000.0])
def test_no_refresh_within_the_life_no_mark(account_map, due_at):
    """None is due, it is overdue since the beginning, or a pause is longer than the token lives."""
    lives, gone = life_bar(account_map(due_at=due_at), NOW, 10)

    assert set(lives + gone) <= set("━╾─")


@given(
    life=st.floats(1.0, 1e7),
    share=st.floats(0.0, 1.0),
    ages=st.tuples(st.floats(-1e7, 2e7), st.floats(-1e7, 2e7)).map(sorted),
    width=st.integers(1, 200),
)
def test_a_bar_has_its_width_and_never_grows(life, share, ages, width):
    """Whatever the figures are; as long as the token lives something is left of it."""
    account = {"issued_at": 0.0, "expires_at": life, "due_at": life * share}
    younger, older = (life_bar(account, age, width) for age in ages)

    for (lives, gone), age in ((younger, ages[0]), (older, ages[1])):
        assert len(lives + gone) == width
        assert bool(lives) == (age < life)
        assert sum((lives + gone).count(mark) for mark in "┿┽┼") == (0 < life * share < life)
    assert len(older[0]) <= len(younger[0])


@pytest.mark.parametrize(
    ("at", "words"),
    [(None, "–"), (NOW + 90, "in 90 s"), (NOW + 0.4, "now"), (NOW, "now"), (1.0, "now")],
)
def test_when_something_is_due(at, words):
    """What is as good as now is now."""
    assert due(at, NOW) == words


@pytest.mark.parametrize(
    ("expires_at", "words"), [(None, "none"), (NOW + 90, "90 s"), (NOW, "ended"), (1.0, "ended")]
)
def test_what_is_left_of_a_token(account_map, expires_at, words):
    """None, some time, or nothing any more."""
    assert left(account_map(expires_at=expires_at), NOW) == words


@pytest.mark.parametrize(
    ("changed", "words", "sentence"),
    [
        ({"grant_expires_at": NOW + 86_400 * 30}, "in 30 days", "ends in 30 days, <2594000>"),
        ({"grant_expires_at": NOW}, "ended", "ended, <2000>"),
        ({}, "never", "made <1000>, never ends"),
        (
            {"authorized_at": None},
            "unknown",
            "nobody knows when it ends: it was not made here",
        ),
        ({"client": "gone"}, "never", "made <1000>, never ends"),
        ({"client": "machine", "authorized_at": None}, "–", None),
        ({"state": "needs_login", "authorized_at": None}, "–", None),
        ({"state": "sealed", "authorized_at": None}, "–", None),
    ],
    ids=[
        *("ahead", "ended", "endless", "imported", "removed client"),
        *("client credentials", "no login", "not looked at yet"),
    ],
)
def test_when_a_login_ends(account_map, civil, changed, words, sentence):
    """It came from elsewhere, or its server's logins don't end; where there is no login, nothing."""
    endless = {"authorized_at": 1_000.0, "grant_expires_at": None, "why": "", "outcomes": []}
    account = account_map(**{**endless, **changed})
    told = [line.split(None, 1)[1] for line in facts(account, CLIENTS, NOW) if "  login " in line]

    assert login_end(account, CLIENTS, NOW) == words
    assert told == ([] if sentence is None else [sentence])


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({}, "Alice"),
        ({"display_name": None}, "alice-1"),
        ({"display_name": None, "user": None}, ""),
        ({"display_name": "A\x1b[31m"}, "A\ufffd[31m"),
    ],
)
def test_who_it_is(account_map, changed, name):
    """The name that people see; without what could paint."""
    assert who(account_map(**changed)) == name


def test_a_refused_client_has_no_next_try(status_map):
    """Only a reload helps, and the reason says so."""
    told = status_map(gate={"state": "blocked", "reason": "invalid_client"})

    assert troubles(told, NOW) == ["client spotify: refused: invalid_client"]


def test_a_pause_without_a_reason_was_asked_for(status_map):
    """With 429 and Retry-After."""
    told = status_map(gate={"state": "closed", "opens_at": NOW})

    assert troubles(told, NOW) == [
        "client spotify: not asked for a while: the provider asks for a pause",
        "  next try now",
    ]


def test_what_clients_have_in_common_is_told_once(status_map, account_map):
    """An outage meets all of them, and all their accounts; a cure is told at any rate."""
    outage = {"state": "closed", "reason": "no network", "opens_at": NOW + 5}
    told = status_map(
        account_map(reason="no network"),
        account_map(account="work", client="other", reason="no network", hint="do this"),
        account_map(account="gone", client="removed", reason="no network"),
        account_map(account="calm"),
        gate=outage,
    )
    other = told["clients"]["spotify"]
    told["clients"]["other"] = {**other, "gate": {**other["gate"], "opens_at": NOW + 9}}

    assert troubles(told, NOW) == [
        "clients spotify, other: not asked for a while: no network",
        "  next try: spotify in 5 s, other in 9 s",
        "work: no network",
        "  → do this",
        "gone: no network",
    ]


def test_the_story_of_an_account(account_map, civil):
    """Civil times with the distances, and the last attempts."""
    outcome = {"at": 1_000.0, "outcome": "renewed", "words": "a new\x1b token"}

    assert story(account_map(why="it is due then", outcomes=[outcome]), CLIENTS, NOW) == [
        "main",
        "  state         fresh, since <1500> (8 min)",
        "  health        ok",
        "  logged in as  Alice (alice-1)",
        "  client        spotify",
        "  scopes        streaming user-top-read",
        "  token         ends in 43 min, <4600>",
        "  refresh       due in 28 min, <3700>",
        "  because       it is due then",
        "  login         ends in 30 days, <2594000>",
        "  last outcomes",
        "    <1000>  renewed: a new\ufffd token",
    ]


def test_the_story_of_an_account_in_trouble(account_map, civil):
    """What is wrong, what to do, and what isn't known is left out."""
    account = account_map(
        state="unsaved",
        health="failing",
        user=None,
        display_name=None,
        scope=[],
        expires_at=1_900.0,
        due_at=1_950.0,
        authorized_at=None,
        grant_expires_at=None,
        since=None,
        reason="the disk is full",
        hint="make room",
        durable=False,
        why="",
        outcomes=[],
    )

    assert story(account, CLIENTS, NOW) == [
        "main",
        "  state         not saved yet",
        "  health        failing",
        "  reason        the disk is full",
        "  do            make room",
        "  client        spotify",
        "  scopes        none",
        "  token         ended, <1900>",
        "  refresh       due since, <1950>",
        "  login         nobody knows when it ends: it was not made here",
        "  on disk       not yet; see the reason",
    ]


def test_unknown_states_are_shown_as_they_are(account_map):
    """Of a newer daemon; without control characters."""
    assert status_text.state_words(account_map(state="new\x1b")) == "new\ufffd"
