"""The scene: what a live view knows, what it tells of it, and which accounts it shows first."""

from __future__ import annotations

import pytest

from spotokend.cli import terminal
from spotokend.cli.scene import KEPT, Happening, Scene

NOW = 2_000.0


@pytest.fixture(autouse=True)
def civil(monkeypatch):
    """Civil times as the numbers that they are."""
    monkeypatch.setattr(terminal, "civil", lambda at: f"<{at:.0f}>")


@pytest.fixture
def scene(status_map, account_map):
    """A scene with one account, to which nothing has happened."""
    scene = Scene()
    scene.learn(status_map(account_map()), NOW, whole=True)
    return scene


def told(scene):
    """What has happened, as words."""
    return [str(happening) for happening in scene.happenings]


# ------------------------------------------------------------------------- what happens to accounts


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, []),
        ({"state": "refreshing"}, []),
        ({"generation": 5}, ["main: token 5, 43 min before the end of the one before"]),
        ({"generation": 5, "expires_at": None}, []),
        ({"state": "waiting", "reason": "no network"}, ["main: no network"]),
        ({"state": "waiting"}, []),
        ({"state": "blocked", "reason": "told by a notice"}, []),
        (
            {"generation": 5, "authorized_at": 1_990.0, "grant_expires_at": 2_000.0 + 31 * 86_400},
            ["main: logged in again; the login ends <2680400>, 24 h later than before"],
        ),
        ({"authorized_at": 1_990.0, "grant_expires_at": None}, ["main: logged in again"]),
        ({"authorized_at": None}, []),
    ],
)
def test_a_change_of_state_is_told_once(scene, account_map, changed, words):
    """New tokens, the first failure of a row, new logins."""
    scene.hear("state", account_map(**changed), NOW)
    scene.hear("state", account_map(**changed), NOW + 1)

    assert told(scene) == words
    assert scene.accounts == {"main": account_map(**changed)}


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ({"expires_at": None}, "main: token 5, good for 43 min"),
        ({"expires_at": 1_970.0}, "main: token 5; the one before had ended 30 s ago"),
    ],
)
def test_a_token_is_compared_with_the_one_before(status_map, account_map, before, words):
    """There may have been none, or none that still lived."""
    scene = Scene()
    scene.learn(status_map(account_map(**before)), NOW, whole=True)
    scene.hear("state", account_map(generation=5), NOW)

    assert told(scene) == [words]


def test_a_first_login_is_told(status_map, account_map):
    """With its end, where that is known."""
    scene = Scene()
    nobody = {"authorized_at": None, "grant_expires_at": None}
    scene.learn(status_map(account_map(**nobody)), NOW, whole=True)
    scene.hear("state", account_map(), NOW)

    assert told(scene) == ["main: logged in; the login ends <2594000>"]


def test_refreshes_are_counted(scene, account_map):
    """Neither a first token nor that of a login is one."""
    scene.hear("state", account_map(generation=5), NOW)
    scene.hear("state", account_map(generation=6, authorized_at=1_990.0), NOW)
    scene.hear("state", account_map(account="new", generation=1), NOW)
    scene.hear("state", account_map(generation=7, authorized_at=1_990.0), NOW + 5)

    assert scene.refreshes == {"main": 2}
    assert scene.refreshed_at == {"main": NOW + 5}


def test_a_failure_that_goes_on_is_no_news(scene, account_map):
    """The account is tried and fails, again and again, for one reason."""
    for state in ("waiting", "refreshing", "waiting"):
        scene.hear("state", account_map(state=state, reason="no network"), NOW)

    assert told(scene) == ["main: no network"]


# ----------------------------------------------------------------------------- what the daemon tells


def test_notices_are_told_at_their_time(scene):
    """With the cure; what is meant for nobody's eyes is left out, and so is the unknown."""
    notice = {"kind": "incident", "level": "warning", "account": None, "message": "x", "hint": None}
    scene.hear("notice", {**notice, "at": 1.0}, NOW)
    scene.hear(
        "notice", {**notice, "account": "a\x1b", "message": "no\x07", "hint": "z", "at": 2.0}, NOW
    )
    scene.hear("notice", {**notice, "level": "debug", "at": 3.0}, NOW)
    scene.hear("earthquake", {}, NOW)

    assert told(scene) == ["x", "a\ufffd: no\ufffd → z"]
    assert [happening.at for happening in scene.happenings] == [1.0, 2.0]


def test_events_that_came_too_fast_are_counted(scene):
    """After a new connection nobody knows how many were missed; that is no news."""
    scene.hear("resync", {"dropped": None}, NOW)
    scene.hear("resync", {"dropped": 7}, NOW)

    assert told(scene) == ["7 events came too fast and are missing here"]


def test_a_daemon_that_goes_and_comes(scene, status_map, account_map):
    """It is missed once, and welcomed with the time that it was away."""
    scene.miss(NOW)
    scene.miss(NOW + 1)
    assert scene.away_since == NOW

    scene.learn(status_map(account_map(), pid=2), NOW + 8, whole=True)
    assert scene.away_since is None
    assert told(scene) == [
        "spotokend doesn't answer; waiting for it",
        "spotokend is back after 8 s",
    ]


def test_a_daemon_that_was_not_missed(scene, status_map, account_map):
    """It was started anew between two looks."""
    scene.learn(status_map(account_map(), pid=2), NOW, whole=True)

    assert told(scene) == ["spotokend was started anew"]


def test_watch_knows_better_than_status(scene, status_map, account_map):
    """But it doesn't tell what changes by time alone."""
    scene.hear("state", account_map(generation=5), NOW)
    scene.learn(status_map(account_map(health="degraded")), NOW, whole=True)

    assert scene.accounts == {"main": account_map(generation=5, health="degraded")}


def test_accounts_come_and_go(scene, status_map, account_map):
    """A page adds what is new; a whole status is all there is."""
    scene.learn(status_map(account_map(account="second")), NOW, whole=False)
    assert sorted(scene.accounts) == ["main", "second"]

    scene.learn(status_map(account_map(account="second")), NOW, whole=True)
    assert sorted(scene.accounts) == ["second"]


# ------------------------------------------------------------------------------------- one account


def test_one_account_has_its_story(status_map, account_map):
    """Why, and its attempts: each once, and in place of what its states tell."""
    first = {"at": 1_000.0, "outcome": "renewed", "words": "generation 4"}
    second = {"at": 1_990.0, "outcome": "not sent", "words": "no network"}
    scene = Scene("main")
    scene.learn(status_map(account_map(why="so", outcomes=[first])), NOW, whole=True)
    scene.hear("state", account_map(state="waiting", reason="no network"), NOW)
    scene.learn(status_map(account_map(why="thus", outcomes=[first, second])), NOW, whole=True)
    scene.hear("state", account_map(generation=5), NOW)

    assert told(scene) == ["main: renewed: generation 4", "main: not sent: no network"]
    assert scene.accounts["main"]["why"] == "thus"
    assert scene.accounts["main"]["generation"] == 5
    assert scene.refreshes == {"main": 1}


# -------------------------------------------------------------------------------------- what is shown


def test_as_many_happenings_as_anybody_reads(scene):
    """The oldest are forgotten; who told some already gets the rest."""
    for number in range(KEPT + 5):
        scene.tell(Happening(float(number), None, "info", str(number)))

    assert told(scene) == [str(number) for number in range(5, KEPT + 5)]
    assert scene.told == KEPT + 5
    assert [happening.words for happening in scene.untold(KEPT + 3)] == ["103", "104"]
    assert len(list(scene.untold(0))) == KEPT
    assert list(scene.untold(scene.told)) == []


def test_accounts_that_fit_stand_by_their_names(status_map, account_map):
    """So that a row stays where it is."""
    scene = Scene()
    names = ["b", "c", "a"]
    scene.learn(status_map(*(account_map(account=name) for name in names)), NOW, whole=True)

    assert [row["account"] for row in scene.rows(3)] == ["a", "b", "c"]


def test_of_too_many_accounts_the_most_urgent_are_shown(status_map, account_map):
    """Those in trouble, and those that are due next."""
    scene = Scene()
    accounts = [
        account_map(account="never", due_at=None),
        account_map(account="late", due_at=9_000.0),
        account_map(account="soon", due_at=2_001.0),
        account_map(account="as soon", due_at=2_001.0),
        account_map(account="limping", health="degraded", due_at=9_000.0),
        account_map(account="broken", health="failing", due_at=None),
        account_map(account="strange", health="dancing", due_at=2_500.0),
    ]
    scene.learn(status_map(*accounts), NOW, whole=True)

    urgent = ["broken", "limping", "as soon", "soon", "strange", "late"]
    assert [row["account"] for row in scene.rows(6)] == urgent
