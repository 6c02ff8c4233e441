"""The board: replies encoded once a refresh, only what may be served, and each watcher its own."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product

import pytest
from account_states import GENERATION, NOW, STATES, WALL, access, grant, make
from hypothesis import given
from hypothesis import strategies as st
from set_clock import SetClock

from spotokend import wire
from spotokend.rules import session
from spotokend.rules.account import (
    Fresh,
    Holding,
    NeedsLogin,
    Quarantined,
    Refreshing,
    Sealed,
    State,
    Unsaved,
    Waiting,
)
from spotokend.rules.config.values import ClientConfig
from spotokend.rules.notice import Level, Notice
from spotokend.rules.schedule import DAY, DEFAULT_TIMING, GRANT_LIFE, Boot, Wall
from spotokend.service.board import Board, Prepared, Watcher, token_map
from spotokend.service.registry import Account, Client

NEXT = access(GENERATION + 1, left=3600.0)
NOTHING = make(NeedsLogin)
"""Where an account begins in these tests."""


class Inbox:
    """A watcher's end that keeps the bytes."""

    def __init__(self) -> None:
        self.offered: list[tuple[str | None, bytes]] = []

    def offer(self, key: str | None, data: bytes) -> None:
        self.offered.append((key, data))

    @property
    def keys(self) -> list[str | None]:
        return [key for key, _ in self.offered]


class World:
    """A board, its clock, and accounts that are put into states by hand."""

    def __init__(self) -> None:
        self.time = SetClock()
        self.board = Board(self.time.clock)
        self.client = Client(ClientConfig(name="pkce", client_id="id"), None, DEFAULT_TIMING)
        self.accounts: dict[str, Account] = {}

    def move(self, state: State, name: str = "main") -> Account:
        account = self.accounts.setdefault(name, Account(name, self.client, NOTHING))
        before, account.state = account.state, state
        self.board.apply(account, before)
        return account

    def watch(self, accounts: set[str] | None = None, *, tokens: bool = True) -> Inbox:
        inbox = Inbox()
        named = None if accounts is None else frozenset(accounts)
        self.board.watch(Watcher(inbox, named, tokens=tokens))
        return inbox

    def served(self, name: str = "main") -> Prepared:
        prepared = self.board.get(name)
        assert prepared is not None
        return prepared


@pytest.fixture
def world() -> World:
    return World()


def written(**fields) -> State:
    """An answer with the next token, on its way to the disk."""
    fields = {"access": NEXT, "generation": GENERATION + 1, "reason": None} | fields
    return make(Unsaved, **fields)


def saved() -> State:
    return make(Fresh, access=NEXT, generation=GENERATION + 1)


def notice(account: str | None = None) -> Notice:
    return Notice("kind", Level.INFO, account, "words", None, WALL)


# --- replies


def test_a_reply_has_what_the_protocol_promises_of_a_token(world: World):
    """Both ends of it on their clocks, and the end of the login."""
    world.move(make(Fresh))
    assert wire.unpack(world.served().packed) == {
        "account": "main",
        "access_token": f"planted-access-{GENERATION}",
        "token_type": "Bearer",
        "expires_at": WALL + 900.0,
        "expires_boot": NOW + 900.0,
        "scope": ["streaming"],
        "generation": GENERATION,
        "grant_expires_at": WALL - 1000.0 + GRANT_LIFE,
    }


def test_a_clients_own_token_has_no_login_that_ends(world: World):
    """Client credentials: there is no grant."""
    world.move(make(Fresh, grant=None))
    assert wire.unpack(world.served().packed)["grant_expires_at"] is None


def test_what_a_caller_is_measured_by_stands_beside_the_reply(world: World):
    """End, floor, life, scopes and generation are at hand without decoding."""
    world.move(make(Fresh))
    served = world.served()
    assert served.expires_at == NOW + 900.0
    assert served.floor == 60.0
    assert served.life == 3600.0
    assert served.scopes == {"streaming"}
    assert served.generation == GENERATION


def test_a_reply_is_encoded_once_a_refresh(world: World):
    """Whatever else happens to the account: the same bytes until there is another token."""
    world.move(make(Fresh))
    packed = world.served().packed
    for state in (make(Refreshing), make(Waiting, failures=1), make(Quarantined), make(Fresh)):
        world.move(state)
        assert world.served().packed is packed
    world.move(saved())
    assert world.served().packed is not packed


def test_an_answer_is_served_once_it_is_on_disk(world: World):
    """Until then the token before it is, and nobody is told of the new one."""
    inbox = world.watch()
    world.move(make(Fresh))
    world.move(make(Refreshing))
    world.move(written())
    assert world.served().generation == GENERATION
    assert inbox.keys == ["token main"]
    world.move(saved())
    assert world.served().generation == GENERATION + 1
    assert inbox.keys == ["token main"] * 2


def test_a_first_answer_is_not_served_before_it_is_on_disk(world: World):
    """There was no token before it: nothing is served."""
    world.move(make(Refreshing, access=None))
    world.move(written())
    assert world.board.get("main") is None


def test_an_answer_that_the_disk_did_not_take_is_served_all_the_same(world: World):
    """It lives in memory alone; once it is on disk after all nobody hears of it again."""
    inbox = world.watch()
    world.move(written())
    world.move(written(failures=1, reason="the disk is full"))
    assert world.served().generation == GENERATION + 1
    packed = world.served().packed
    world.move(written(failures=2, reason="the disk is full"))
    world.move(saved())
    assert world.served().packed is packed
    assert inbox.keys == ["token main"]


@pytest.mark.parametrize(
    "state",
    [
        make(NeedsLogin),
        make(Sealed),
        make(Waiting, access=None),
        make(Refreshing, access=None),
        make(Quarantined, access=None),
    ],
    ids=lambda state: type(state).__name__,
)
def test_without_a_token_there_is_no_reply(world: World, state: State):
    """Logged out, sealed again, or the last one was reported as refused: it is gone at once."""
    inbox = world.watch()
    world.move(make(Fresh))
    world.move(state)
    assert world.board.get("main") is None
    assert world.board.usable("main", NOW) is None
    world.move(state)
    assert inbox.keys == ["token main"]


def test_another_login_is_told_with_the_same_token(world: World):
    """Only the login's end is another."""
    world.move(make(Fresh))
    inbox = world.watch()
    world.move(make(Fresh, grant=grant(authorized_at=WALL)))
    assert wire.unpack(world.served().packed)["grant_expires_at"] == WALL + GRANT_LIFE
    assert inbox.keys == ["token main"]
    world.move(make(Fresh, grant=None))
    assert wire.unpack(world.served().packed)["grant_expires_at"] is None


def test_a_token_is_usable_to_its_end_and_no_longer(world: World):
    """What is served on the way to a refresh still lives, be it for a moment."""
    world.move(make(Fresh))
    assert world.board.usable("main", Boot(NOW + 899.9)) is world.served()
    assert world.board.usable("main", Boot(NOW + 900.0)) is None
    assert world.board.usable("other", NOW) is None


# --- civil time


def test_after_civil_time_was_set_replies_are_encoded_anew(world: World):
    """``expires_at`` follows it; the end on the clock that nobody sets stays."""
    account = world.move(make(Fresh))
    world.time.wall = Wall(WALL + DAY)
    world.board.prepare(account)
    token = wire.unpack(world.served().packed)
    assert token["expires_at"] == WALL + DAY + 900.0
    assert token["expires_boot"] == NOW + 900.0


def test_civil_time_gives_nobody_an_answer_that_is_not_on_disk(world: World):
    """Encoding anew while one is written leaves the token before it in its place."""
    world.move(make(Fresh))
    account = world.move(written())
    world.board.prepare(account)
    assert world.served().generation == GENERATION
    world.time.wall = Wall(WALL + DAY)
    world.move(saved())
    assert wire.unpack(world.served().packed)["expires_at"] == WALL + DAY + 3600.0


@pytest.mark.parametrize("state", [make(Sealed), make(Waiting, access=None)])
def test_where_there_is_no_token_nothing_is_encoded(world: World, state: State):
    """The clocks move for all accounts, whatever state they are in."""
    world.board.prepare(world.move(state))
    assert world.board.get("main") is None


# --- watchers


def test_a_pushed_token_is_what_encoding_it_whole_would_give(world: World):
    """The packed map goes into its notification as it is."""
    inbox = world.watch()
    state = make(Fresh)
    account = world.move(state)
    token = token_map(account, state.access, state.grant, world.time.clock)
    assert inbox.offered == [("token main", wire.notification("token", token))]


def test_a_watcher_hears_of_the_accounts_that_it_named(world: World):
    """Tokens, states and notices of others pass it by; what concerns none is for everybody."""
    inbox, everything = world.watch({"main"}), world.watch()
    for name in ("main", "other"):
        world.move(make(Fresh), name)
        world.board.tell_state(name, {"account": name})
        world.board.tell(notice(name))
    world.board.tell(notice(None))
    assert inbox.keys == ["token main", "state main", None, None]
    told = [wire.unpack(data)[2][0]["account"] for _, data in inbox.offered]
    assert told == ["main", "main", "main", None]
    assert len(everything.offered) == 7


def test_a_watcher_without_tokens_gets_none(world: World):
    """A status line has no use for secrets."""
    inbox = world.watch(tokens=False)
    world.move(make(Fresh))
    world.board.tell_state("main", {"account": "main"})
    world.board.tell(notice("main"))
    assert inbox.keys == ["state main", None]
    assert not any(b"planted" in data for _, data in inbox.offered)


def test_states_and_notices_are_pushed_in_the_protocols_form(world: World):
    """``[2, "state", [MAP]]`` and ``[2, "notice", [MAP]]``."""
    inbox = world.watch()
    world.board.tell_state("main", {"account": "main", "state": "fresh"})
    world.board.tell(notice("main"))
    assert [wire.unpack(data) for _, data in inbox.offered] == [
        [2, "state", [{"account": "main", "state": "fresh"}]],
        [2, "notice", [notice("main").to_wire()]],
    ]


def test_who_is_watched_is_known(world: World):
    """A state is only encoded for somebody who hears it."""
    assert not world.board.watched("main")
    inbox = world.watch({"other"})
    assert not world.board.watched("main")
    assert world.board.watched("other")
    world.watch()
    assert world.board.watched("main")
    world.board.forget(inbox)
    assert world.board.watched("other")


def test_a_second_watch_replaces_the_first(world: World):
    """One connection, one set of accounts."""
    inbox = world.watch({"main"})
    world.board.watch(Watcher(inbox, frozenset({"other"}), tokens=False))
    world.move(make(Fresh))
    world.move(make(Fresh), "other")
    world.board.tell(notice("other"))
    assert inbox.keys == [None]


def test_a_forgotten_watcher_hears_nothing_more(world: World):
    """Its connection is gone; and forgetting one that never watched is no error."""
    inbox = world.watch()
    world.board.forget(inbox)
    world.board.forget(Inbox())
    world.move(make(Fresh))
    world.board.tell_state("main", {})
    world.board.tell(notice())
    assert inbox.offered == []


def test_a_slow_watcher_finds_the_newest_of_each_account_and_every_notice(world: World):
    """The keys are those by which a connection's mailbox lets the newest win."""
    mailbox = session.Mailbox()

    class Slow(Inbox):
        def offer(self, key: str | None, data: bytes) -> None:
            mailbox.put(key, data)

    world.board.watch(Watcher(Slow(), None, tokens=True))
    for name, state in product(("main", "other"), (make(Fresh), saved())):
        world.move(state, name)
        world.board.tell_state(name, {"account": name, "generation": state.generation})
        world.board.tell(notice(name))
    found = []
    while mailbox:
        _, method, (content,) = wire.unpack(mailbox.pop())
        found.append((method, content["account"], content.get("generation")))
    assert sorted(found, key=str) == [
        ("notice", "main", None),
        ("notice", "main", None),
        ("notice", "other", None),
        ("notice", "other", None),
        ("state", "main", GENERATION + 1),
        ("state", "other", GENERATION + 1),
        ("token", "main", GENERATION + 1),
        ("token", "other", GENERATION + 1),
    ]


# --- whatever happens


SAME_LOGIN = [
    state
    for state in STATES.values()
    if not isinstance(state, Holding) or state.grant is not None or state.access is None
]
"""One token isn't of two logins."""


def being_written(state: State) -> bool:
    return isinstance(state, Unsaved) and not state.failures


def expected(history: list[State]) -> int | None:
    """The generation that is to be served after these states."""
    settled = [state for state in history if not being_written(state)]
    last = settled[-1] if settled else NOTHING
    return last.access.generation if isinstance(last, Holding) and last.access else None


@given(st.lists(st.sampled_from([*SAME_LOGIN, written(), saved()]), max_size=8))
def test_after_any_states_the_last_settled_token_is_served_and_was_told(states: list[State]):
    """No order of states raises, serves what isn't on disk, or changes a token silently."""
    world = World()
    inbox = world.watch()
    served: list[bytes | None] = [None]
    for number, state in enumerate(states, 1):
        account = world.move(state)
        world.board.prepare(account)
        prepared = world.board.get("main")
        assert (prepared and prepared.generation) == expected(states[:number])
        served.append(prepared.packed if prepared else None)
    changed = [after for before, after in pairwise(served) if after not in {None, before}]
    assert [wire.unpack(data)[2][0] for _, data in inbox.offered] == list(map(wire.unpack, changed))


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_nobody_pays_where_nobody_watches(
    world: World, state: State, monkeypatch: pytest.MonkeyPatch
):
    """Without watchers no notification is encoded, for no state."""
    refuse: Callable[..., bytes] = pytest.fail
    monkeypatch.setattr(wire, "notification", refuse)
    world.move(state)
    world.board.tell(notice("main"))
