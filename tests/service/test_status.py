"""``status``: the documented maps, exactly, for every state of an account, and no secret in them."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import pytest
from account_states import (
    GENERATION,
    NOW,
    PLANTED,
    REASON,
    REPETITION,
    STATES,
    WALL,
    access,
    grant,
    make,
)
from set_clock import SetClock

from spotokend import __version__, wire
from spotokend.rules import gate
from spotokend.rules.account import (
    Blocked,
    Elsewhere,
    Fresh,
    NeedsLogin,
    Refreshing,
    Sealed,
    State,
    Unsaved,
    Waiting,
)
from spotokend.rules.config.parse import parse
from spotokend.rules.gate import Failure, Gate
from spotokend.rules.notice import NAMES
from spotokend.rules.schedule import DEFAULT_TIMING, GRANT_LIFE, NEVER, Boot, Wall
from spotokend.rules.secret import Secret
from spotokend.service.registry import Account, Client, Past, Registry
from spotokend.service.status import Status

CONFIG = f"""
[clients.pkce]
client_id = "client-1"
scopes = ["streaming", "user-read-private"]

[clients.secret]
client_id = "client-2"
flow = "authorization_code"
client_secret = "{PLANTED}-client-secret"
"""

TEXT, NUMBER = str | None, float | None
ACCOUNT = {
    "account": str,
    "client": str,
    "state": str,
    "health": str,
    "user": TEXT,
    "display_name": TEXT,
    "scope": list,
    "generation": int,
    "issued_at": NUMBER,
    "expires_at": NUMBER,
    "due_at": NUMBER,
    "authorized_at": NUMBER,
    "grant_expires_at": NUMBER,
    "since": NUMBER,
    "reason": TEXT,
    "hint": TEXT,
    "failures": int,
    "durable": bool,
}
STORY = {"why": str, "outcomes": list}
OUTCOME = {"at": float, "outcome": str, "words": str}
CLIENT = {
    "flow": str,
    "client_id": str,
    "redirect_uri": str,
    "api_url": (str, type(None)),
    "scopes": list,
    "accounts": int,
    "in_flight": int,
    "gate": dict,
}
GATE = {"state": str, "opens_at": NUMBER, "failures": int, "reason": TEXT, "probe": TEXT}
DAEMON = {
    "version": str,
    "protocol": int,
    "pid": int,
    "started_at": float,
    "socket": str,
    "config": str,
    "store": dict,
    "health": str,
    "accounts": int,
    "connections": int,
    "warnings": list,
    "locked": TEXT,
}
PAGE = {"daemon": dict, "clients": dict, "accounts": list, "next": TEXT}


def conforms(value: dict[str, object], schema: dict[str, object]) -> bool:
    """These keys, each of its type, and no number that isn't one."""
    assert value.keys() == schema.keys()
    for key, kind in schema.items():
        found = value[key]
        assert isinstance(found, kind), key
        assert isinstance(found, bool) == (kind is bool), key
        assert not isinstance(found, float) or math.isfinite(found), key
    return True


class World:
    """A daemon's status over accounts that are put into states by hand."""

    def __init__(self) -> None:
        self.time = SetClock()
        self.connections = 0
        self.registry = Registry(
            parse(CONFIG), self.time.clock, publish=lambda _account, _change: None
        )
        for name, config in self.registry.config.clients.items():
            self.registry.clients[name] = Client(
                config, Secret(f"{PLANTED}-client-secret"), DEFAULT_TIMING
            )
        self.status = Status(
            self.registry,
            socket="/run/socket",
            config_path="/etc/config.toml",
            store={"backend": "sqlite", "path": "/store"},
            connections=lambda: self.connections,
        )

    @property
    def client(self) -> Client:
        return self.registry.clients["pkce"]

    def add(self, state: State, name: str = "main", client: str = "pkce") -> Account:
        account = Account(name, self.registry.clients[client], state)
        self.registry.insert(account)
        return account

    def page(self, *, whole_story: bool = False) -> dict[str, object]:
        """As a client gets it."""
        accounts = list(self.registry.accounts.values())
        page = self.status.page(accounts, None, whole_story=whole_story)
        return wire.unpack(wire.pack(page))

    def told(self, state: State) -> dict[str, object]:
        """One account in that state, with the whole story."""
        self.add(state)
        (account,) = self.page(whole_story=True)["accounts"]
        return account


@pytest.fixture
def world() -> World:
    return World()


# --- the schema


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_every_state_is_told_in_the_documented_form(world: World, state: State):
    """All keys, each of its type; the state by its name on the socket."""
    told = world.told(state)
    assert conforms(told, ACCOUNT | STORY)
    assert told["state"] == NAMES[type(state)]
    assert told["durable"] is not isinstance(state, Unsaved)
    assert conforms(world.status.account(world.registry.accounts["main"]), ACCOUNT)


def test_the_page_its_daemon_and_its_clients_are_in_the_documented_form(world: World):
    """So a client written against the documentation can rely on each key."""
    page = world.page()
    assert conforms(page, PAGE)
    assert conforms(page["daemon"], DAEMON)
    assert list(page["clients"]) == ["pkce", "secret"]
    for client in page["clients"].values():
        assert conforms(client, CLIENT)
        assert conforms(client["gate"], GATE)


def test_the_next_page_begins_after_the_name_that_is_told(world: World):
    """``next`` is passed on."""
    assert world.status.page([], "main", whole_story=False)["next"] == "main"


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_no_secret_is_in_it(world: World, state: State):
    """Tokens, refresh tokens and client secrets are planted everywhere; none comes out."""
    account = world.add(state)
    world.add(state, "other", "secret")
    account.remember(Past(WALL, "refused", REASON))
    client = world.client
    client.gate = gate.block(client.gate, REASON, "mend it")
    page = world.status.page([account], "other", whole_story=True)
    assert PLANTED not in repr(page)
    assert PLANTED.encode() not in wire.pack(page)
    assert any("clients.secret.client_secret" in words for words in page["daemon"]["warnings"])


# --- an account


def test_a_fresh_account(world: World):
    """Times are told in civil time, whatever they are kept in."""
    state = make(Fresh, grant=grant(display_name="Ada"), access=access())
    assert world.told(state) == {
        "account": "main",
        "client": "pkce",
        "state": "fresh",
        "health": "ok",
        "user": "ada",
        "display_name": "Ada",
        "scope": ["streaming"],
        "generation": GENERATION,
        "issued_at": WALL + 900.0 - 3600.0,
        "expires_at": WALL + 900.0,
        "due_at": WALL + 100.0,
        "authorized_at": WALL - 1000.0,
        "grant_expires_at": WALL - 1000.0 + GRANT_LIFE,
        "since": None,
        "reason": None,
        "hint": None,
        "failures": 0,
        "durable": True,
        "why": "ahead of the token's end; due in 2 min",
        "outcomes": [],
    }


def test_times_follow_civil_time(world: World):
    """The clock was set by a day: so is all that is told of CLOCK_BOOTTIME."""
    before = world.told(make(Fresh))
    world.time.wall = Wall(WALL + 86_400)
    (after,) = world.page(whole_story=True)["accounts"]
    moved = {key for key in before if before[key] != after[key]}
    assert moved == {"issued_at", "expires_at", "due_at"}
    assert after["expires_at"] == before["expires_at"] + 86_400


def test_a_sealed_account_is_told_from_its_clear_columns(world: World):
    """When it ends and when it is due; who it is, nobody can say yet."""
    told = world.told(make(Sealed))
    assert told["expires_at"] == WALL + 900.0
    assert told["due_at"] == WALL + 100.0
    assert told["scope"] == []
    assert (told["user"], told["issued_at"], told["grant_expires_at"]) == (None, None, None)


def test_a_clients_own_token_has_scopes_and_no_user(world: World):
    """Client credentials: the scopes are the token's."""
    told = world.told(make(Fresh, grant=None))
    assert told["scope"] == ["streaming"]
    assert (told["user"], told["authorized_at"], told["grant_expires_at"]) == (None, None, None)


def test_a_failing_account_says_what_since_when_and_how_often(world: World):
    """Between two tries."""
    told = world.told(make(Waiting, failures=3, access=access(left=60.0)))
    assert told["health"] == "degraded"
    assert told["reason"] == REASON
    assert told["since"] == WALL - 60.0
    assert told["failures"] == 3


def test_a_try_under_way_does_not_hide_the_failures_before_it(world: World):
    """A try may take a minute; until it has ended the trouble lasts since when it began."""
    told = world.told(make(Refreshing, failures=3, access=access(left=60.0)))
    assert told["health"] == "degraded"
    assert told["reason"] == REASON
    assert told["since"] == WALL - 60.0
    assert told["failures"] == 3
    assert told["due_at"] is None


def test_a_probe_of_a_refused_login_is_still_one_that_was_refused(world: World):
    """Since when, and the command that mends it."""
    told = world.told(make(Refreshing, since=None, quarantine=REPETITION))
    assert told["health"] == "failing"
    assert told["since"] == REPETITION.since
    assert told["hint"] == "spotokend login main"


def test_a_blocked_account_names_the_act(world: World):
    """Nothing goes on by itself: there is no next moment."""
    told = world.told(make(Blocked))
    assert told["hint"] == "mend it"
    assert told["since"] == WALL - 60.0
    assert told["due_at"] is None


def test_what_is_not_on_disk_is_said(world: World):
    """``durable: false``, how often it was tried, and what helps."""
    told = world.told(make(Unsaved, failures=2, reason="the disk is full"))
    assert told["durable"] is False
    assert told["failures"] == 2
    assert told["reason"] == "the new token is not on disk yet: the disk is full"
    assert "make room" in told["hint"]


def test_a_closed_gate_moves_what_is_due(world: World):
    """Nothing is sent before it opens; and what is due later is not earlier for that."""
    world.client.gate = Gate(failures=1, opens_at=Boot(NOW + 40.0))
    assert world.told(make(Waiting, failures=1))["due_at"] == WALL + 40.0
    assert world.told(make(Fresh))["due_at"] == WALL + 100.0
    assert world.told(make(Elsewhere))["due_at"] == WALL + 40.0


def test_behind_a_blocked_gate_nothing_is_due(world: World):
    """Only a reload helps, and nobody knows when that comes."""
    world.client.gate = gate.block(Gate(), REASON, "mend it")
    assert world.told(make(Waiting, failures=1))["due_at"] is None


@pytest.mark.parametrize(
    "closed",
    [Gate(failures=1, opens_at=Boot(NOW + 40.0)), gate.block(Gate(), REASON, "mend it")],
    ids=["closed", "blocked"],
)
def test_no_gate_stands_between_an_answer_and_the_disk(world: World, closed: Gate):
    """It is written again when ``why`` says so, whatever the provider thinks of the client."""
    world.client.gate = closed
    told = world.told(make(Unsaved, failures=1))
    assert told["due_at"] == WALL + 10.0
    assert told["why"] == "the answer is written again in 10 s; nothing is redeemed before"


@pytest.mark.parametrize("state", [make(Fresh, due_at=NEVER), make(NeedsLogin), make(Refreshing)])
def test_what_does_nothing_by_itself_is_never_due(world: World, state: State):
    """On demand, before a login, or under way already."""
    assert world.told(state)["due_at"] is None


def test_the_whole_story_has_the_last_outcomes(world: World):
    """For one account; a page of many has none of it."""
    account = world.add(make(Waiting, failures=1))
    account.remember(Past(Wall(WALL - 30.0), "failed", "the provider answered 503"))
    account.remember(Past(WALL, "renewed", "a new token"))
    (told,) = world.page(whole_story=True)["accounts"]
    for outcome in told["outcomes"]:
        assert conforms(outcome, OUTCOME)
    assert told["outcomes"] == [
        {"at": WALL - 30.0, "outcome": "failed", "words": "the provider answered 503"},
        {"at": WALL, "outcome": "renewed", "words": "a new token"},
    ]
    (brief,) = world.page()["accounts"]
    assert conforms(brief, ACCOUNT)


# --- the daemon


def test_the_daemon_says_who_and_where_it_is(world: World):
    """And since when: by the clock as it was then."""
    world.time.wall = Wall(WALL + 60.0)
    world.add(make(Fresh))
    world.connections = 7
    assert world.page()["daemon"] == {
        "version": __version__,
        "protocol": wire.PROTOCOL,
        "pid": os.getpid(),
        "started_at": WALL,
        "socket": "/run/socket",
        "config": "/etc/config.toml",
        "store": {"backend": "sqlite", "path": "/store"},
        "health": "ok",
        "accounts": 1,
        "connections": 7,
        "warnings": list(world.registry.config.warnings),
        "locked": None,
    }


WELL = make(Fresh)
WORRYING = make(Waiting, failures=1, access=access(left=60.0))
ILL = make(Blocked)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], "ok"),
        ([WELL, WELL], "ok"),
        ([WORRYING, WELL], "degraded"),
        ([WELL, WORRYING, ILL, WELL], "failing"),
        ([ILL, WORRYING], "failing"),
    ],
)
def test_the_daemon_is_as_well_as_its_worst_account(
    world: World, states: list[State], expected: str
):
    """In whatever order they stand."""
    for number, state in enumerate(states):
        world.add(state, f"account-{number}")
    assert world.page()["daemon"]["health"] == expected


def test_the_daemons_health_counts_accounts_on_other_pages(world: World):
    """The page is empty, and somebody elsewhere is ill."""
    world.add(ILL)
    page = world.status.page([], None, whole_story=False)
    assert page["accounts"] == []
    assert page["daemon"]["health"] == "failing"


# --- clients


def test_a_client_is_told_as_it_is_configured(world: World):
    """With the number of its accounts and what is under way."""
    world.add(make(Fresh))
    world.add(make(Fresh), "second")
    world.add(make(Fresh), "other", "secret")
    world.client.gate = gate.started(Gate(), "main")
    clients = world.page()["clients"]
    assert clients["pkce"] == {
        "flow": "pkce",
        "client_id": "client-1",
        "redirect_uri": world.client.config.redirect_uri,
        "api_url": world.client.config.api_url,
        "scopes": ["streaming", "user-read-private"],
        "accounts": 2,
        "in_flight": 1,
        "gate": {
            "state": "open",
            "opens_at": None,
            "failures": 0,
            "reason": None,
            "probe": None,
        },
    }
    assert clients["secret"]["flow"] == "authorization_code"
    assert clients["secret"]["accounts"] == 1
    assert clients["secret"]["in_flight"] == 0


def closed(**failure) -> Gate:
    return gate.failed(
        Gate(),
        "main",
        Failure("the provider answered 503", **failure),
        now=NOW,
        u=0.5,
        waiting=False,
        timing=DEFAULT_TIMING,
    )


GATES = [
    pytest.param(closed(), "closed", 0.5, 1, "the provider answered 503", None, id="back-off"),
    pytest.param(
        closed(retry_after=100.0),
        "closed",
        100.5,
        1,
        "the provider answered 503",
        None,
        id="Retry-After",
    ),
    pytest.param(
        gate.answered(closed(retry_after=100.0), NOW),
        "closed",
        100.0,
        0,
        None,
        None,
        id="asked for",
    ),
    pytest.param(
        replace(closed(), opens_at=Boot(NOW - 5.0)),
        "closed",
        -5.0,
        1,
        "the provider answered 503",
        None,
        id="a probe is awaited",
    ),
    pytest.param(
        gate.started(closed(), "main"),
        "closed",
        0.5,
        1,
        "the provider answered 503",
        "main",
        id="probing",
    ),
    pytest.param(
        gate.block(closed(), "no such client", "mend it"),
        "blocked",
        None,
        0,
        "no such client",
        None,
        id="blocked",
    ),
    pytest.param(
        replace(gate.answered(closed(retry_after=100.0), NOW), asked_until=NOW),
        "open",
        None,
        0,
        None,
        None,
        id="open again",
    ),
]


@pytest.mark.parametrize(("present", "state", "after", "failures", "reason", "probe"), GATES)
def test_a_gate_is_open_closed_or_blocked(
    world: World, present: Gate, state, after, failures, reason, probe
):
    """And says until when, and why."""
    world.client.gate = present
    assert world.page()["clients"]["pkce"]["gate"] == {
        "state": state,
        "opens_at": None if after is None else WALL + after,
        "failures": failures,
        "reason": reason,
        "probe": probe,
    }


def test_without_the_key_the_daemon_is_failing_and_says_why(world: World):
    """Whatever its sealed accounts look like."""
    world.status._locked = lambda: "the keyring is locked"
    told = world.page()["daemon"]
    assert (told["locked"], told["health"]) == ("the keyring is locked", "failing")
