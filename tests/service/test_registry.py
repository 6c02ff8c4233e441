"""The registry: which account is meant, which client a login gets, and one way to change a state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import anyio
import pytest
from account_states import NOW, PLANTED, WALL, access, attempt, grant, make
from anyio.lowlevel import checkpoint
from set_clock import SetClock

from spotokend.errors import BadRequest, LoginRequired, SpotokendError, UnknownAccount
from spotokend.rules.account import (
    Answered,
    ClocksMoved,
    Elsewhere,
    EndpointBack,
    Fresh,
    LoggedOut,
    NeedsLogin,
    Refreshing,
    RefreshStarted,
    Rotation,
    Saved,
    SaveFailed,
    State,
    Unsaved,
    Waiting,
)
from spotokend.rules.config.parse import parse
from spotokend.rules.notice import Change, Health
from spotokend.rules.schedule import DEFAULT_TIMING, Boot, Wall
from spotokend.rules.secret import Secret
from spotokend.service.registry import OUTCOMES_KEPT, Account, Client, Past, Registry
from spotokend.service.rows import Owner

pytestmark = pytest.mark.anyio

ONE = """
[clients.pkce]
client_id = "client-1"
scopes = ["streaming"]
"""
TWO = (
    ONE
    + """
[clients.own]
client_id = "client-2"
flow = "client_credentials"
client_secret = { env = "UNUSED" }
rotation = "grace"
rotation_grace = 20.0
schedule = "on_demand"
"""
)
DEFAULT = '[daemon]\ndefault_account = "home"\n'


class World:
    """A registry of a configuration, and what it published."""

    def __init__(self, config: str = ONE) -> None:
        self.time = SetClock()
        self.published: list[tuple[Account, Change]] = []
        self.registry = Registry(
            parse(config),
            self.time.clock,
            publish=lambda account, change: self.published.append((account, change)),
        )
        for name, settings in self.registry.config.clients.items():
            self.registry.clients[name] = Client(settings, None, DEFAULT_TIMING)

    def add(self, *names: str, client: str = "pkce", state: State | None = None) -> Account:
        """Insert accounts of these names; the last one."""
        for name in names:
            account = self.registry.new(name, self.registry.clients[client], state)
            self.registry.insert(account)
        return account


def error_of(call: Callable[..., object], *arguments: object) -> SpotokendError:
    with pytest.raises(SpotokendError) as refused:
        call(*arguments)
    return refused.value


# --- which account is meant


@pytest.mark.parametrize(
    ("config", "accounts", "asked", "meant"),
    [
        pytest.param(DEFAULT + ONE, ["main"], "other", "other", id="the argument first"),
        pytest.param(DEFAULT + ONE, ["main"], None, "home", id="then default_account"),
        pytest.param(ONE, ["main"], None, "main", id="then the only one"),
    ],
)
def test_the_account_is_the_argument_the_default_or_the_only_one(config, accounts, asked, meant):
    """In this order, whether it exists or not."""
    world = World(config)
    world.add(*accounts)
    assert world.registry.name(asked) == meant
    assert world.registry.login_name(asked) == meant


def test_without_any_account_a_login_is_required():
    """And the hint holds the command."""
    error = error_of(World().registry.name, None)
    assert isinstance(error, LoginRequired)
    assert error.hint == "spotokend login"


def test_of_several_accounts_one_has_to_be_named():
    """The error has their names, in order."""
    world = World()
    world.add("work", "home")
    error = error_of(world.registry.name, None)
    assert isinstance(error, BadRequest)
    assert error.message == "there are several accounts, and none was named: home, work"
    assert "default_account" in error.hint
    assert world.registry.login_name(None) == "main"


def test_of_very_many_accounts_some_are_named_and_the_rest_counted():
    """A hundred thousand names would be no message."""
    world = World()
    world.add(*(f"account-{number:02}" for number in range(12)))
    message = error_of(world.registry.name, None).message
    assert message.endswith("account-08, account-09 and 2 more")


def test_the_first_login_is_for_main():
    """Nobody has logged in, nothing is configured, and no name was given."""
    assert World().registry.login_name(None) == "main"
    assert World(DEFAULT + ONE).registry.login_name(None) == "home"
    assert World().registry.login_name("alice") == "alice"


def test_an_account_is_found_by_its_name():
    """Or by the rule for those that name none."""
    world = World()
    account = world.add("main")
    assert world.registry.find("main") is account
    assert world.registry.find(None) is account


@pytest.mark.parametrize(
    ("asked", "hint"),
    [("hmoe", "did you mean home?"), ("zebra", "spotokend login zebra")],
)
def test_an_unknown_account_is_answered_with_the_nearest_or_the_login(asked, hint):
    """A typing error, or an account that is still to be made."""
    world = World()
    world.add("home", "work")
    error = error_of(world.registry.find, asked)
    assert isinstance(error, UnknownAccount)
    assert error.message == f"there is no account named {asked}"
    assert error.details["account"] == asked
    assert error.hint == hint


def test_of_very_many_accounts_none_is_compared(monkeypatch: pytest.MonkeyPatch):
    """Comparing 100,000 names takes seconds, in which the daemon would serve nobody."""
    monkeypatch.setattr("spotokend.service.registry.get_close_matches", pytest.fail)
    world = World()
    world.add(*(f"account-{number}" for number in range(1000)))
    assert error_of(world.registry.find, "account-x").hint == "spotokend login account-x"


# --- which client a login gets


def test_the_only_client_is_nobodys_choice():
    """With one client an account needs no section."""
    world = World()
    assert world.registry.client_of("main") is world.registry.clients["pkce"]


def test_a_client_is_named_or_follows_from_the_account():
    """The argument, the configuration's section, or what the account has been logged in with."""
    world = World(TWO + '[accounts.bot]\nclient = "own"\n')
    pkce, own = world.registry.clients["pkce"], world.registry.clients["own"]
    world.add("main")
    assert world.registry.client_of("new", "own") is own
    assert world.registry.client_of("bot") is own
    assert world.registry.client_of("bot", "own") is own
    assert world.registry.client_of("main") is pkce
    assert world.registry.client_of("main", "own") is own


def test_another_client_than_the_configured_one_is_refused():
    """The section in the configuration is the user's word."""
    world = World(TWO + '[accounts.bot]\nclient = "own"\n')
    error = error_of(world.registry.client_of, "bot", "pkce")
    assert isinstance(error, BadRequest)
    assert error.message == "the configuration gives account bot to client own"
    assert "accounts.bot.client" in error.hint


def test_of_several_clients_one_has_to_be_named():
    """With their names, and the command."""
    error = error_of(World(TWO).registry.client_of, "main")
    assert isinstance(error, BadRequest)
    assert error.message == "account main has no client yet, and the configuration has own, pkce"
    assert error.hint == "spotokend login main --client NAME"


def test_an_unknown_client_is_answered_with_the_known_ones():
    """And with what to write where."""
    error = error_of(World(TWO).registry.client_of, "main", "pckce")
    assert isinstance(error, BadRequest)
    assert error.message == "there is no client named pckce; the configuration has own, pkce"
    assert "[clients.pckce]" in error.hint


def test_scopes_are_the_accounts_own_or_the_clients():
    """A section may leave them to the client."""
    sections = (
        '[accounts.own]\nclient = "pkce"\nscopes = ["user-read-email"]\n'
        '[accounts.plain]\nclient = "pkce"\n'
    )
    world = World(ONE + sections)
    client = world.registry.clients["pkce"]
    assert world.registry.scopes("own", client) == ("user-read-email",)
    assert world.registry.scopes("plain", client) == ("streaming",)
    assert world.registry.scopes("unknown", client) == ("streaming",)


# --- clients at run time


def test_a_client_takes_its_configuration():
    """As the rules and the requests need it; again after a reload, with another secret."""
    world = World(TWO)
    client = world.registry.clients["own"]
    assert client.policy.rotation is Rotation.GRACE
    assert client.policy.rotation_grace == 20.0
    assert client.policy.proactive is False
    assert client.policy.needs_grant is False
    assert world.registry.clients["pkce"].policy.needs_grant is True
    changed = replace(client.config, client_id="client-3", proactive=True)
    client.configure(changed, Secret(f"{PLANTED}-secret"), DEFAULT_TIMING)
    assert client.policy.proactive is True
    assert client.registration.client_id == "client-3"
    assert client.registration.client_secret == Secret(f"{PLANTED}-secret")
    assert client.registration.token_url == changed.token_url


async def test_those_sent_away_wait_no_longer_and_stand_behind_nobody():
    """The gate closed: callers look again, the accounts stay parked until it opens."""
    world = World()
    client = world.registry.clients["pkce"]
    caller, parked = world.add("caller"), world.add("parked")
    caller.queued = True
    client.front["caller"] = caller
    client.parked["parked"] = parked
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(caller.settled)
        await checkpoint()
        client.send_away()
    assert caller.queued is False
    assert client.front == {}
    assert list(client.parked) == ["caller", "parked"]


# --- accounts


def test_a_new_account_needs_a_login_or_waits_for_its_first_token():
    """A user has to consent; a client's own token takes nobody, and is due almost at once."""
    world = World(TWO)
    assert world.add("main").state == NeedsLogin(reason="nobody has logged in yet")
    own = world.add("own", client="own").state
    assert own == Waiting(grant=None, access=None, retry_at=Boot(NOW + 0.5))
    state = make(Fresh)
    assert world.add("other", state=state).state is state


def test_who_waits_for_a_first_token_is_published_when_it_becomes_known():
    """The keeper hears of it by nothing else; of those that need a login it need not hear."""
    world = World(TWO)
    world.add("main")
    world.add("other", state=make(Fresh))
    assert world.published == []
    account = world.add("own", client="own")
    ((published, change),) = world.published
    assert published is account
    assert change.after is account.state
    assert change.before == change.after


def test_an_account_is_known_until_it_is_removed():
    """Removing it twice is no error."""
    world = World(ONE + '[accounts.alice]\nclient = "pkce"\nuser = "ada"\n')
    account = world.registry.new("alice", world.registry.clients["pkce"])
    assert world.registry.accounts == {}
    world.registry.insert(account)
    assert world.registry.accounts == {"alice": account}
    assert account.user == "ada"
    assert world.add("main").user is None
    world.registry.remove(account)
    world.registry.remove(account)
    assert list(world.registry.accounts) == ["main"]


def test_its_row_is_named_by_account_client_and_fingerprint():
    """Together they say where its refresh token may go."""
    account = World().add("main")
    fingerprint = account.client.config.fingerprint
    assert account.owner == Owner("main", "pkce", fingerprint)


def test_only_the_last_outcomes_are_remembered():
    """They are for people."""
    account = World().add("main")
    assert account.outcomes is None
    for number in range(OUTCOMES_KEPT + 3):
        account.remember(Past(Wall(WALL + number), "failed", "words"))
    assert [past.at - WALL for past in account.outcomes] == list(range(3, OUTCOMES_KEPT + 3))


# --- changes


def test_a_change_is_published_once_with_both_states():
    """After the account is in its new state, with the moment on both clocks."""
    world = World()
    account = world.add("main", state=make(Fresh))
    before = account.state
    assert world.registry.apply(account, RefreshStarted(attempt("attempt-2"))) is True
    after = account.state
    assert isinstance(after, Refreshing)
    policy = account.client.policy
    assert world.published == [
        (account, Change("main", Health.OK, before, after, policy, NOW, WALL))
    ]


def test_changes_are_published_in_their_order():
    """A whole attempt: each change begins where the one before it ended."""
    world = World()
    account = world.add("main", state=make(Fresh))
    for event in (
        RefreshStarted(attempt()),
        Answered("attempt-1", grant(2), access(6, left=3600.0)),
        SaveFailed("attempt-1", "the disk is full"),
        Saved("attempt-1", 4),
        LoggedOut(5, "logged out"),
    ):
        assert world.registry.apply(account, event)
    changes = [change for _, change in world.published]
    kinds = [type(change.after) for change in changes]
    assert kinds == [Refreshing, Unsaved, Unsaved, Fresh, NeedsLogin]
    assert [change.before for change in changes[1:]] == [change.after for change in changes[:-1]]
    assert changes[-1].after is account.state


def test_what_means_nothing_is_not_published():
    """An event for another state, another's outcome, or the state that it is in already."""
    world = World()
    account = world.add("main", state=make(Fresh))
    for event in (EndpointBack(), Saved("attempt-0", 4)):
        assert world.registry.apply(account, event) is False
    assert world.registry.move(account, account.state) is False
    assert world.published == []


def test_an_equal_state_that_is_another_one_is_published():
    """After a reload the keeper has to look anew at what looks the same."""
    world = World()
    account = world.add("main", state=make(Fresh))
    assert world.registry.move(account, replace(account.state)) is True
    assert len(world.published) == 1


def test_looking_at_the_next_state_changes_nothing():
    """It is sealed and written before the account is in it."""
    world = World()
    account = world.add("main", state=make(Fresh))
    before = account.state
    assert isinstance(world.registry.next(account, RefreshStarted(attempt())), Refreshing)
    assert account.state is before
    assert world.published == []


def test_the_dice_are_thrown_for_each_change():
    """What is overdue after a sleep is spread."""
    world = World()
    account = world.add("main", state=make(Fresh, due_at=NOW))
    dues = []
    for world.time.u in (0.25, 0.75):
        state = world.registry.next(account, ClocksMoved())
        assert isinstance(state, Fresh)
        dues.append(state.due_at - NOW)
    assert dues[1] == 3 * dues[0] > 0


def test_health_is_what_was_told_last():
    """An attempt under way, or an answer being written, says nothing: neither good nor bad."""
    world = World()
    account = world.add("main", state=make(Fresh, access=access(left=60.0)))
    told = []
    for state in (
        make(Waiting, failures=1, access=access(left=60.0)),
        make(Refreshing, failures=1, access=None),
        make(Unsaved, reason=None),
        make(Unsaved, failures=1),
        make(Fresh),
        make(Elsewhere, access=None),
        make(NeedsLogin),
    ):
        world.registry.move(account, state)
        told.append((world.published[-1][1].was, account.health))
    ok, degraded, failing = Health
    assert told == [
        (ok, degraded),
        (degraded, degraded),
        (degraded, degraded),
        (degraded, degraded),
        (degraded, ok),
        (ok, ok),
        (ok, failing),
    ]


# --- waiting for the end of a refresh


@pytest.mark.parametrize(
    ("state", "queued", "under_way"),
    [
        (make(Fresh), False, False),
        (make(Fresh), True, True),
        (make(Refreshing), False, True),
        (make(Unsaved, reason=None), False, True),
        (make(Unsaved, failures=1), False, False),
        (make(Waiting, failures=1), False, False),
    ],
)
async def test_a_refresh_is_under_way_until_its_answer_is_on_disk_or_refused_by_it(
    state, queued, under_way
):
    """Or it is about to start; callers join it meanwhile, and wait for nothing otherwise."""
    account = World().add("main", state=state)
    account.queued = queued
    assert account.under_way is under_way
    with anyio.move_on_after(0) as patience:
        await account.settled()
    assert patience.cancelled_caught is under_way


async def test_everybody_who_waits_wakes_when_it_has_ended():
    """And not before: neither by the answer alone, nor by a call that looks too early."""
    world = World()
    account = world.add("main", state=make(Refreshing))
    woken = []

    async def wait(number: int) -> None:
        await account.settled()
        woken.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(wait, number)
        await checkpoint()
        account.wake()
        answer = Answered("attempt-1", grant(2), access(6, left=3600.0))
        assert world.registry.apply(account, answer)
        await checkpoint()
        assert woken == []
        assert world.registry.apply(account, Saved("attempt-1", 4))
    assert sorted(woken) == [0, 1, 2]


async def test_who_wakes_to_the_next_refresh_waits_for_that_too():
    """It began in the same turn of the loop in which the one before it ended."""
    world = World()
    account = world.add("main", state=make(Refreshing))
    woken = []

    async def wait() -> None:
        await account.settled()
        woken.append(account.state)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await checkpoint()
        world.registry.move(account, make(Waiting, failures=1))
        world.registry.move(account, make(Refreshing))
        for _ in range(3):
            await checkpoint()
        assert woken == []
        world.registry.move(account, make(Fresh))
    assert woken == [account.state]


async def test_a_caller_that_gave_up_leaves_the_others_waiting_and_woken():
    """Its cancellation is its own."""
    world = World()
    account = world.add("main", state=make(Refreshing))
    with anyio.move_on_after(0):
        await account.settled()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(account.settled)
        await checkpoint()
        world.registry.move(account, make(Fresh))


async def test_publishing_comes_before_waking():
    """Who wakes finds everything in place: the reply on the board, the entry in the heap."""
    order = []
    world = World()
    registry = Registry(
        world.registry.config,
        world.time.clock,
        publish=lambda account, change: order.append("published"),
    )
    account = Account("main", world.registry.clients["pkce"], make(Refreshing))

    async def wait() -> None:
        await account.settled()
        order.append("woken")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await checkpoint()
        registry.move(account, make(Fresh))
    assert order == ["published", "woken"]
