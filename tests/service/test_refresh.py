"""One refresh from its intent to its outcome: whatever the provider answers, whenever the disk fails."""

from __future__ import annotations

import itertools
import json
from contextlib import suppress
from dataclasses import replace

import anyio
import httpx
import pytest
import trio
from stubborn_store import FULL, StubbornStore
from world import CONFIG, World, running, virtual_time

from spotokend.adapters.store.base import Fenced, StoreError
from spotokend.errors import LoginRequired, Misconfigured, SpotokendError, Unavailable
from spotokend.rules.account import (
    Blocked,
    Fresh,
    NeedsLogin,
    Quarantined,
    Refreshing,
    Unsaved,
    Waiting,
)
from spotokend.rules.secret import Secret
from spotokend.sandbox import Body, Fault, Kept, Kind, Options, RefreshScope, Rotation

pytestmark = pytest.mark.anyio

STRICT = Options(auto_approve=True, rotation=Rotation.ALWAYS, revoke_family=True)
OWN_TOKENS = """
[clients.own]
client_id = "sandbox-secret-client"
flow = "client_credentials"
client_secret = { env = "UNUSED" }
token_url = "http://127.0.0.1:1/api/token"
"""
SECRET = {"own": Secret("sandbox-client-secret")}


@pytest.fixture
def anyio_backend():
    """Hours pass in no time."""
    return virtual_time()


async def refreshed(world: World) -> None:
    """Let 2000 seconds pass, and have the token of generation 1 replaced if that is possible."""
    await anyio.sleep(2000)
    with suppress(SpotokendError):
        await world.call("token", min_ttl=1700.0)


def answer(status=200, headers=None, **fields) -> httpx.Response:
    return httpx.Response(status, headers=headers, content=json.dumps(fields))


# --- answers that bring a token


@pytest.mark.parametrize("kept", Kept)
async def test_a_kept_refresh_token_stays_in_whatever_words_that_is_said(kept):
    """Absent, null, empty or the same: the old one (aome510/spotify-player#1040)."""
    async with running(options=Options(auto_approve=True, kept=kept)) as world:
        await world.login()
        before = world.account().state.grant
        await refreshed(world)
        state = world.account().state
        assert isinstance(state, Fresh)
        assert state.generation == 2
        assert state.grant == before
        assert await world.intent() is None
        assert len(world.requests) == 2


@pytest.mark.parametrize(
    ("rotation", "replaced"),
    [
        (Rotation.NEVER, [False, False]),
        (Rotation.OPTIONAL, [False, True]),
        (Rotation.ALWAYS, [True, True]),
    ],
)
async def test_a_rotated_refresh_token_is_kept_with_the_one_before(rotation, replaced):
    """Two refreshes; the successor is on disk, and what it replaced beside it."""
    async with running(options=Options(auto_approve=True, rotation=rotation)) as world:
        await world.login()
        for expected in replaced:
            before = world.account().state.grant
            await refreshed(world)
            grant = world.account().state.grant
            assert (grant.refresh_token != before.refresh_token) is expected
            assert grant.previous == (before.refresh_token if expected else None)
        assert grant.rotation_seen is any(replaced)
        account = world.account()
        stored = await world.vault.unseal(account.owner, account.client.policy)
        assert stored == account.state


@pytest.mark.parametrize(
    ("refresh_scope", "scope"),
    [
        (RefreshScope.GRANT, ["user-read-private"]),
        (RefreshScope.OMIT, ["user-read-private"]),
        (RefreshScope.ALL, ["streaming", "user-read-private"]),
    ],
)
async def test_scopes_of_a_refresh_may_be_left_out_or_wider(refresh_scope, scope):
    """Left out means the old ones (RFC 6749, 5.1); wider ones are taken (spotify/web-api#814)."""
    options = Options(auto_approve=True, refresh_scope=refresh_scope)
    async with running(options=options) as world:
        await world.login("other", "alice", scopes=("streaming",))
        await world.call("logout", account="other")
        await world.login("main", "alice")
        await refreshed(world)
        token = await world.call("token", account="main")
        assert token["scope"] == scope
        assert token["generation"] == 2


@pytest.mark.parametrize("expires_in", [None, 0, -1, 1e300, "soon", True, [], float("nan")])
async def test_an_absurd_life_is_the_default_one(expires_in):
    """The answer is taken all the same: it may hold the only refresh token."""
    async with running() as world:
        await world.login()
        world.replies.append(
            answer(access_token="access-2", refresh_token="refresh-2", expires_in=expires_in)
        )
        await refreshed(world)
        state = world.account().state
        assert state.grant.refresh_token.reveal() == "refresh-2"
        assert state.access.life == 3600


async def test_a_token_type_in_lower_case_is_what_it_is():
    """``bearer`` occurs, and is compared without case (RFC 6749, 5.1)."""
    async with running(options=Options(auto_approve=True, token_type="bearer")) as world:
        await world.login()
        assert (await world.call("refresh"))["token_type"] == "Bearer"


async def test_a_refresh_token_without_an_access_token_is_saved_first_and_judged_later():
    """A 200 that brings half: the successor is on disk, the old token serves, one more is asked."""
    async with running() as world:
        await world.login()
        world.replies.append(answer(refresh_token="refresh-2"))
        await refreshed(world)
        state = world.account().state
        assert isinstance(state, Waiting)
        assert state.grant.refresh_token.reveal() == "refresh-2"
        assert state.grant.previous is not None
        stored = await world.vault.unseal(world.account().owner, world.account().client.policy)
        assert stored.grant == state.grant
        world.replies.append(answer(access_token="access-2"))
        await anyio.sleep(60)
        assert (await world.call("token"))["access_token"] == "access-2"


async def test_a_server_that_never_sends_an_access_token_is_not_hammered():
    """Each of its answers is a success by itself, and none helps: it is backed off from."""
    async with running() as world:
        await world.login()
        await anyio.sleep(2600)
        world.replies.extend(answer(refresh_token=f"refresh-{n}") for n in range(2, 2000))
        began = len(world.requests)
        await anyio.sleep(3600)
        # 1, 2, 4 … 32, then 60 seconds, halved by the dice: some 120 an hour.
        assert len(world.requests) - began < 130
        assert world.account().client.gate.reason == "the answer held no access token"


# --- answers that bring none


def unanswered(**fields) -> Fault:
    return Fault(kind=Kind.CUT, **fields)


FAILURES = [
    # what happens, the state, is the intent open, seconds in which nothing more is sent,
    # seconds in which one more is sent
    pytest.param(
        Fault(kind=Kind.ANSWER, status=429, retry_after="100", count=1),
        Waiting,
        False,
        99.9,
        105,
        id="429 with Retry-After",
    ),
    pytest.param(
        Fault(kind=Kind.ANSWER, status=429, count=1), Waiting, False, 0.4, 5, id="429 without"
    ),
    pytest.param(Fault(kind=Kind.ANSWER, status=503, count=1), Waiting, True, 1, 4, id="503 JSON"),
    pytest.param(
        Fault(kind=Kind.ANSWER, status=500, body=Body.EMPTY, count=1),
        Waiting,
        True,
        1,
        4,
        id="500 empty",
    ),
    pytest.param(
        Fault(kind=Kind.ANSWER, status=502, body=Body.TEXT, served=True, count=1),
        Waiting,
        True,
        1,
        4,
        id="502 after use",
    ),
    pytest.param(
        Fault(kind=Kind.ANSWER, status=403, body=Body.HTML, count=1),
        Waiting,
        False,
        0.4,
        5,
        id="403 HTML",
    ),
    pytest.param(
        Fault(kind=Kind.ANSWER, status=200, body=Body.HTML, count=1),
        Waiting,
        True,
        1,
        4,
        id="200 HTML",
    ),
    pytest.param(Fault(kind=Kind.TRUNCATE, count=1), Waiting, True, 1, 4, id="truncated"),
    pytest.param(unanswered(count=1), Waiting, True, 1, 4, id="cut before use"),
    pytest.param(unanswered(served=True, count=1), Waiting, True, 1, 4, id="cut after use"),
    pytest.param(Fault(kind=Kind.BREAK, count=1), Waiting, True, 1, 4, id="cut in the answer"),
    pytest.param(Fault(kind=Kind.HANG, count=1), Waiting, True, 1, 4, id="hang"),
    pytest.param(
        Fault(kind=Kind.ANSWER, status=400, error="odd_error", count=1),
        Waiting,
        False,
        299,
        305,
        id="unknown error",
    ),
    pytest.param(
        Fault(kind=Kind.ANSWER, status=400, error="invalid_grant", count=1),
        Quarantined,
        False,
        1799,
        1860,
        id="invalid_grant",
    ),
    pytest.param(
        Fault(kind=Kind.ANSWER, status=400, error="invalid_client", count=1),
        Blocked,
        False,
        86_400,
        None,
        id="invalid_client",
    ),
    pytest.param(
        Fault(kind=Kind.ANSWER, status=400, error="invalid_request", count=1),
        Blocked,
        False,
        86_400,
        None,
        id="invalid_request",
    ),
]


@pytest.mark.parametrize(("fault", "kind", "in_doubt", "quiet", "again"), FAILURES)
async def test_every_failure_ends_in_its_state_and_asks_again_when_it_should(
    fault, kind, in_doubt, quiet, again
):
    """State, row, intent and the next request; the token that is there is served meanwhile."""
    async with running() as world:
        await world.login()
        world.provider.faults.add(fault)
        await anyio.sleep(2000)
        token = await world.call("token", min_ttl=1500.0)
        assert token["generation"] == 1
        with suppress(SpotokendError):
            await world.call("token", min_ttl=1700.0)
        ended = trio.current_time()
        account = world.account()
        state = account.state
        assert type(state) is kind
        assert getattr(state, "in_doubt", False) is in_doubt
        assert len(world.requests) == 2
        assert (await world.call("token"))["generation"] == 1
        assert state.grant is not None
        row = await world.store.load("main")
        assert (row.intent is not None) is in_doubt
        if in_doubt:
            assert row.intent.tries == 1
            assert row.intent.not_before == pytest.approx(
                world.wall() + state.retry_at - world.boot()
            )
        assert row.version == state.version
        assert row.state == kind.__name__.lower()
        assert row.due_boot == getattr(state, "retry_at", getattr(state, "probe_at", None))
        await anyio.sleep_until(ended + quiet)
        assert len(world.requests) == 2
        if again is not None:
            await anyio.sleep_until(ended + again)
            assert len(world.requests) == 3
            assert isinstance(world.account().state, Fresh)
            assert await world.intent() is None
            assert world.account().state.generation == 2


async def test_a_request_that_never_left_is_no_doubt():
    """No network: the intent is closed, and the gate backs off."""
    async with running() as world:
        await world.login()
        world.replies.append(httpx.ConnectError("no route to host"))
        await refreshed(world)
        state = world.account().state
        assert isinstance(state, Waiting)
        assert not state.in_doubt
        assert await world.intent() is None
        await anyio.sleep(5)
        assert world.account().state.generation == 2


async def test_a_second_try_that_is_not_served_takes_nothing_from_the_doubt_of_the_first():
    """Cut off, then 429: the intent stays open, with the one try whose fate isn't known."""
    async with running() as world:
        await world.login()
        await anyio.sleep(2000)
        world.provider.faults.add(unanswered(count=1))
        world.provider.faults.add(Fault(kind=Kind.ANSWER, status=429, retry_after="50", count=1))
        with pytest.raises(Unavailable):
            await world.call("token", min_ttl=1700.0)
        await anyio.sleep(5)
        state = world.account().state
        assert len(world.requests) == 3
        assert (state.in_doubt, state.tries) == (True, 1)
        assert (await world.intent()).tries == 1
        await anyio.sleep(60)
        assert world.account().state.generation == 2
        assert await world.intent() is None


async def test_a_refusal_after_doubt_says_what_may_have_happened():
    """Rotated, the answer lost, the old one presented at last: refused, with the cause."""
    async with running(options=STRICT) as world:
        await world.login()
        await refreshed(world)
        world.provider.faults.add(unanswered(served=True, count=1))
        await refreshed(world)
        assert world.account().state.in_doubt
        assert len(world.requests) == 3
        # Not before the last moment at which the access token is of use.
        last = world.account().state.access.expires_at - 60
        await anyio.sleep_until(last - 0.1)
        assert len(world.requests) == 3
        await anyio.sleep(1)
        assert len(world.requests) == 4
        assert isinstance(world.account().state, Quarantined)
        assert "an earlier answer was lost" in world.account().state.reason
        assert world.provider.ledger.double_redemptions == 1


async def test_a_probe_of_a_refused_grant_that_is_lost_leaves_it_in_quarantine():
    """No doubt is left open by it: after a restart the grant must not be taken for a good one."""
    async with running() as world:
        await world.login()
        refusal = Fault(kind=Kind.ANSWER, status=400, error="invalid_grant", count=1)
        world.provider.faults.add(refusal)
        world.provider.faults.add(unanswered(count=1))
        await refreshed(world)
        since = world.account().state.since
        await anyio.sleep(1801)
        assert len(world.requests) == 3
        state = world.account().state
        assert isinstance(state, Quarantined)
        assert state.since == since
        row = await world.store.load("main")
        assert (row.state, row.intent) == ("quarantined", None)


async def test_a_failure_after_another_accounts_client_was_refused_is_no_dead_end():
    """The gate is blocked when a 429 arrives: the account still has a moment, and hears of it."""
    async with running() as world:
        await world.login("one", "alice")
        await world.login("two", "bob")
        world.provider.faults.add(
            Fault(kind=Kind.ANSWER, user="bob", status=429, seconds=5.0, count=1)
        )
        world.provider.faults.add(
            Fault(kind=Kind.ANSWER, user="alice", status=400, error="invalid_client", count=1)
        )
        world.latency = 2.0  # both are on their way before the first answer comes
        await anyio.sleep(2701 + 10)
        assert len(world.requests) == 4
        assert isinstance(world.account("one").state, Blocked)
        await anyio.sleep(120)
        assert isinstance(world.account("two").state, Blocked)
        await world.roster.reconfigure(world.config, {"pkce": None})
        await anyio.sleep(60)
        assert isinstance(world.account("two").state, Fresh)


# --- a disk that fails


async def test_nothing_is_sent_while_the_store_takes_no_writes():
    """The intent is durable first: a full disk costs no grant, and is backed off from."""
    store = StubbornStore()
    async with running(store=store) as world:
        await world.login()
        await anyio.sleep(2000)
        store.troubles["begin"] = FULL
        with pytest.raises(Unavailable) as refused:
            await world.call("token", min_ttl=1700.0)
        assert "the disk is full" in refused.value.message
        assert (await world.call("token"))["generation"] == 1
        await anyio.sleep(600)
        assert len(world.requests) == 1
        outcomes = (await world.call("status", account="main"))["accounts"][0]["outcomes"]
        assert outcomes[-1]["outcome"] == "not sent"
        waits = [b["at"] - a["at"] for a, b in itertools.pairwise(outcomes)]
        assert waits[-1] == pytest.approx(30, abs=1)
        store.troubles.clear()
        await anyio.sleep(61)
        assert world.account().state.generation == 2


async def test_an_answer_that_can_not_be_saved_is_served_and_written_until_it_is():
    """``durable: false``; retried 0.1 to 5 s apart; nothing redeemed; in the end it is on disk."""
    store = StubbornStore()
    async with running(store=store, options=STRICT) as world:
        await world.login()
        await anyio.sleep(2000)
        store.troubles["commit"] = FULL
        token = await world.call("token", min_ttl=1700.0)
        assert token["generation"] == 2
        account = (await world.call("status", account="main"))["accounts"][0]
        assert (account["state"], account["durable"]) == ("unsaved", False)
        assert account["health"] == "degraded"
        assert "the disk is full" in account["reason"]
        began = trio.current_time()
        await anyio.sleep(60)
        tries = [fields for fields in world.events("refresh") if fields["outcome"] == "not saved"]
        assert len(tries) == pytest.approx(6 + 54 / 5, abs=2)
        with pytest.raises(SpotokendError):
            await world.call("refresh")
        assert len(world.requests) == 2
        assert [notice.kind for notice in world.notices].count("not_durable") == 1
        store.troubles.clear()
        await anyio.sleep_until(began + 66)
        assert isinstance(world.account().state, Fresh)
        assert await world.intent() is None
        assert (await store.counters("main"))[1] == 2
        assert (await world.call("token"))["access_token"] == token["access_token"]


async def test_a_report_while_the_answer_is_being_saved_breaks_nothing():
    """The disk is slow and somebody reports the token: two writers commit one attempt."""
    store = StubbornStore()
    async with running(store=store) as world:
        await world.login()
        await anyio.sleep(2000)
        store.troubles["commit"] = FULL
        await world.call("token", min_ttl=1700.0)
        del store.troubles["commit"]
        store.slow["commit"] = 3.0
        await anyio.sleep(1)
        with pytest.raises(Unavailable):
            await world.call("reject", generation=2)
        await anyio.sleep(10)
        assert (await world.call("token"))["generation"] == 3
        assert (await store.counters("main"))[1] == 3


async def test_an_outcome_that_can_not_be_saved_counts_in_memory_and_stays_doubt_on_disk():
    """The state moves; what a restart reads is the open intent, which is the safe side."""
    store = StubbornStore()
    async with running(store=store) as world:
        await world.login()
        store.troubles["settle"] = FULL
        world.provider.faults.add(Fault(kind=Kind.ANSWER, status=400, error="invalid_grant"))
        await refreshed(world)
        assert isinstance(world.account().state, Quarantined)
        assert (await world.intent()).tries == 1
        assert len(world.events("settle_failed")) == 1
        await anyio.sleep(1700)
        assert len(world.requests) == 2


async def test_a_row_that_another_process_replaced_is_taken_as_it_is():
    """``begin`` is fenced: nothing is sent, and the account goes on with what is there."""
    async with running() as world:
        await world.login()
        account = world.account()
        await world.vault.put(account.owner, account.state)
        await refreshed(world)
        assert world.account().state.version == (await world.store.counters("main"))[0]
        assert len(world.requests) == 1
        await anyio.sleep(1000)
        assert world.account().state.generation == 2


async def test_a_row_that_is_gone_means_a_login_and_is_not_made_anew():
    """Somebody deleted it: its grant must not come back by the refresh that is about to start."""
    async with running() as world:
        await world.login()
        await world.store.delete("main")
        await refreshed(world)
        assert len(world.requests) == 1
        assert await world.store.load("main") is None
        with pytest.raises(LoginRequired):
            await world.call("token")


async def test_a_refusal_is_none_of_the_business_of_a_grant_written_meanwhile():
    """Another process logged in while the old grant was refused."""
    store = StubbornStore()
    async with running(store=store) as world:
        await world.login()
        account = world.account()
        world.latency = 5.0
        world.provider.faults.add(
            Fault(kind=Kind.ANSWER, status=400, error="invalid_grant", count=1)
        )
        await anyio.sleep(2000)
        held = account.state
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(refused_token, world)
            await anyio.sleep(1)
            await world.vault.put(account.owner, held)
        assert isinstance(account.state, Fresh)
        assert account.state.version == 2


async def refused_token(world: World) -> None:
    with suppress(SpotokendError):
        await world.call("token", min_ttl=1700.0)


@pytest.mark.parametrize("call", ["begin", "commit", "settle"])
async def test_a_store_that_says_fenced_without_a_reason_leaves_the_account_alive(call):
    """Whatever the store means by it, the row decides and the account goes on."""
    store = StubbornStore()
    async with running(store=store) as world:
        await world.login()
        store.troubles[call] = Fenced("not now")
        if call == "settle":
            world.provider.faults.add(Fault(kind=Kind.ANSWER, status=429, count=1))
        await refreshed(world)
        assert not isinstance(world.account().state, Refreshing | Unsaved)
        store.troubles.clear()
        await anyio.sleep(3600)
        assert world.account().state.generation >= 2


@pytest.mark.parametrize(("call", "requests"), [("begin", 1), ("commit", 2), ("settle", 3)])
async def test_a_store_that_is_fenced_and_can_not_be_read_either_is_asked_again(call, requests):
    """No state is a dead end: what is there is found out once it can be."""
    store = StubbornStore()
    async with running(store=store) as world:
        await world.login()
        store.troubles = {call: Fenced("not now"), "load": FULL}
        if call == "settle":
            world.provider.faults.add(Fault(kind=Kind.ANSWER, status=429, count=1))
        await refreshed(world)
        assert not isinstance(world.account().state, Refreshing)
        await anyio.sleep(30)
        assert len(world.requests) == requests
        store.troubles.clear()
        await anyio.sleep(3600)
        assert isinstance(world.account().state, Fresh)
        assert world.account().state.generation >= 2


# --- logins and logouts in the middle


async def test_a_login_during_a_refresh_wins_and_generations_never_repeat():
    """The late answer to the old grant is dropped with a line in the log."""
    async with running(options=STRICT) as world:
        await world.login()
        await anyio.sleep(2000)
        async with anyio.create_task_group() as tasks:
            world.latency = 20.0
            tasks.start_soon(refused_token, world)
            await anyio.sleep(1)
            world.latency = 0.05
            await world.login()
            new = world.account().state
            assert new.generation == 3
            await anyio.sleep(30)
        assert world.account().state == new
        assert (await world.call("token"))["generation"] == 3
        stored = await world.vault.unseal(world.account().owner, world.account().client.policy)
        assert stored.grant == new.grant
        assert len(world.events("refresh_fenced")) == 1
        assert (await world.call("refresh"))["generation"] == 4


async def test_a_failure_that_comes_after_a_login_is_none_of_its_business():
    """The old grant is refused when the new one is already there."""
    async with running() as world:
        await world.login()
        await anyio.sleep(2000)
        world.provider.faults.add(
            Fault(kind=Kind.ANSWER, status=400, error="invalid_grant", seconds=20.0, count=1)
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(refused_token, world)
            await anyio.sleep(1)
            await world.login()
            await anyio.sleep(30)
        assert isinstance(world.account().state, Fresh)
        assert await world.intent() is None


async def test_a_logout_during_a_refresh_wins():
    """The answer that comes late brings nothing back, on disk or in memory."""
    async with running(options=STRICT) as world:
        await world.login()
        account = world.account()
        await anyio.sleep(2000)
        async with anyio.create_task_group() as tasks:
            world.latency = 20.0
            tasks.start_soon(refused_token, world)
            await anyio.sleep(1)
            await world.call("logout", account="main")
            await anyio.sleep(30)
        assert isinstance(account.state, NeedsLogin)
        assert await world.store.load("main") is None
        assert "main" not in world.registry.accounts
        world.latency = 0.05
        await world.login()
        assert (await world.call("token"))["generation"] == 2


@pytest.mark.parametrize(("call", "requests"), [("begin", 1), ("load", 2), ("commit", 2)])
async def test_a_logout_while_the_disk_is_slow_wins_at_every_step(call, requests):
    """Before the intent is written nothing is sent; after the answer nothing comes back."""
    store = StubbornStore()
    config = CONFIG + "[accounts.main]\n"
    async with running(config, store=store, options=STRICT) as world:
        await world.login()
        await anyio.sleep(2000)
        store.slow[call] = 5.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(refused_token, world)
            await anyio.sleep(1)
            await world.call("logout", account="main")
        await anyio.sleep(3600)
        assert await store.load("main") is None
        assert isinstance(world.account().state, NeedsLogin)
        assert len(world.requests) == requests


async def test_a_login_before_the_intent_is_written_spares_the_request():
    """The disk was slow, the user was not: the old grant is of no interest any more."""
    store = StubbornStore()
    async with running(store=store) as world:
        await world.login()
        await anyio.sleep(2000)
        store.slow["begin"] = 5.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(refused_token, world)
            await anyio.sleep(1)
            await world.login()
        assert len(world.requests) == 2
        assert world.account().state.generation == 3


async def test_a_login_while_the_answer_is_written_wins():
    """The commit comes after the login's row, and is fenced."""
    store = StubbornStore()
    async with running(store=store, options=STRICT) as world:
        await world.login()
        await anyio.sleep(2000)
        store.slow["commit"] = 5.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(refused_token, world)
            await anyio.sleep(1)
            await world.login()
        state = world.account().state
        assert isinstance(state, Fresh)
        assert state.generation == 4
        stored = await world.vault.unseal(world.account().owner, world.account().client.policy)
        assert stored.grant == state.grant
        assert len(world.events("refresh_fenced")) == 1


async def test_of_many_callers_that_go_away_none_harms_the_refresh():
    """Each is cancelled at another moment; one request, one commit."""
    store = StubbornStore()
    async with running(store=store) as world:
        await world.login()
        await anyio.sleep(2000)
        store.slow = {"begin": 1.0, "commit": 1.0}
        world.latency = 2.0

        async def impatient(seconds: float) -> None:
            with anyio.move_on_after(seconds):
                await world.call("token", min_ttl=1700.0)

        async with anyio.create_task_group() as tasks:
            for n in range(45):
                tasks.start_soon(impatient, n / 10)
        assert world.account().state.generation == 2
        assert len(world.requests) == 2
        assert [call for call, *_ in store.calls].count("commit") == 1


async def test_a_daemon_that_is_killed_while_it_saves_has_saved():
    """From the last byte of the answer on nothing cancels."""
    store = StubbornStore()
    async with running(store=store, options=STRICT) as world:
        await world.login()
        await anyio.sleep(2000)
        store.slow["commit"] = 5.0
        with anyio.move_on_after(1):
            await world.call("token", min_ttl=1700.0)
        world.keeping.cancel()
        await anyio.sleep(10)
        assert (await store.counters("main"))[1] == 2


# --- client credentials


async def test_a_client_of_its_own_gets_a_token_without_a_login_and_renews_it():
    """From nothing: a row, a token, and the next one ahead of its end."""
    async with running(OWN_TOKENS, secrets=SECRET) as world:
        token = await world.call("token")
        assert (token["account"], token["generation"], token["scope"]) == ("own", 1, [])
        assert token["grant_expires_at"] is None
        await anyio.sleep(2 * 3600)
        assert (await world.call("token"))["generation"] == 3
        assert len(world.requests) == 3
        row = await world.store.load("own")
        assert (row.generation, row.intent) == (3, None)


async def test_client_credentials_are_never_in_doubt():
    """There is nothing to use up: a lost answer is backed off from, and the intent is closed."""
    async with running(OWN_TOKENS, secrets=SECRET) as world:
        world.provider.faults.add(unanswered(served=True, count=1))
        with pytest.raises(Unavailable):
            await world.call("token")
        state = world.account("own").state
        assert isinstance(state, Waiting)
        assert not state.in_doubt
        assert await world.intent("own") is None
        await anyio.sleep(5)
        assert (await world.call("token"))["generation"] == 1


async def test_a_disk_that_fails_at_the_first_token_of_a_client_costs_nothing():
    """The row could be written, the intent not: the next try goes on from there."""
    store = StubbornStore()
    store.troubles["begin"] = StoreError("read-only")
    async with running(OWN_TOKENS, store=store, secrets=SECRET) as world:
        with pytest.raises(Unavailable):
            await world.call("token")
        await anyio.sleep(100)
        assert world.requests == []
        store.troubles.clear()
        await anyio.sleep(70)
        assert (await world.call("token"))["generation"] == 1


async def test_a_grant_refused_to_a_client_that_has_none_is_a_matter_of_its_configuration():
    """``invalid_grant`` to client credentials: no login could ever help."""
    async with running(OWN_TOKENS, secrets=SECRET) as world:
        world.provider.faults.add(Fault(kind=Kind.ANSWER, status=400, error="invalid_grant"))
        with pytest.raises(Misconfigured) as refused:
            await world.call("token")
        assert "spotokend reload" in refused.value.hint
        await anyio.sleep(3600)
        assert len(world.requests) == 1


async def test_an_account_whose_grant_got_lost_asks_for_a_login():
    """A row without a grant where one is needed: no request could be made of it."""
    async with running() as world:
        await world.login()
        account = world.account()
        now = world.boot()
        await world.vault.put(account.owner, Waiting(grant=None, access=None, retry_at=now))
        async with running(before=world) as next_world:
            with pytest.raises(LoginRequired) as refused:
                await next_world.call("token")
            assert "no refresh token" in refused.value.message
            assert next_world.requests == []


async def test_a_grant_of_unknown_age_is_not_doubted_for_its_youth():
    """It came from elsewhere: its refusal alone is no incident."""
    async with running() as world:
        await world.login()
        account = world.account()
        state = account.state
        old = replace(state, grant=replace(state.grant, authorized_at=None))
        await world.vault.put(account.owner, old)
        world.keeping.cancel()
        async with running(before=world) as next_world:
            refusal = Fault(kind=Kind.ANSWER, status=400, error="invalid_grant")
            next_world.provider.faults.add(refusal)
            await refreshed(next_world)
            state = next_world.account().state
            assert isinstance(state, Quarantined)
            assert (state.incident, state.probe_at) == (False, None)


async def test_a_logout_while_the_http_side_is_loaded_spares_the_refresh():
    """The first refresh loads a library first; what was asked for may be over by then."""
    async with running(CONFIG + "[accounts.main]\n") as world:
        await world.login()
        account = world.account()
        loaded = anyio.Event()
        get_endpoint = world.refresh._endpoint

        async def slowly():
            await loaded.wait()
            return await get_endpoint()

        world.refresh._endpoint = slowly
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.refresh.run, account)
            await anyio.sleep(1)
            await world.call("logout", account="main")
            loaded.set()
        assert isinstance(account.state, NeedsLogin)
        assert len(world.requests) == 1


async def test_a_login_while_the_row_is_read_is_not_undone_by_it():
    """After a start: somebody asks, the disk is slow, and the user logs in anew."""
    store = StubbornStore()
    async with running(store=store) as before:
        await before.login()
        before.keeping.cancel()
        async with running(before=before) as world:
            store.slow["load"] = 5.0
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(world.call, "token")
                await anyio.sleep(1)
                store.slow.clear()
                await world.login()
            assert world.account().state.generation == 2
            assert (await world.call("token"))["generation"] == 2


async def test_what_is_neither_sealed_nor_unsaved_is_left_alone():
    """The keeper may come late: somebody else has unsealed or saved it."""
    async with running() as world:
        await world.login()
        account, state = world.account(), world.account().state
        await world.refresh.unseal(account)
        await world.refresh.save(account)
        assert account.state is state


@pytest.mark.parametrize("troubles", [{}, {"settle": FULL}], ids=["written", "not written"])
async def test_a_logout_while_an_outcome_is_written_wins(troubles):
    """The disk takes its time with a refusal that concerns nobody any more."""
    store = StubbornStore()
    async with running(CONFIG + "[accounts.main]\n", store=store) as world:
        await world.login()
        world.provider.faults.add(Fault(kind=Kind.ANSWER, status=400, error="invalid_grant"))
        store.slow["settle"] = 5.0
        store.troubles = troubles
        await anyio.sleep(2000)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(refused_token, world)
            await anyio.sleep(1)
            await world.call("logout", account="main")
        assert isinstance(world.account().state, NeedsLogin)
        assert await store.load("main") is None


@pytest.mark.parametrize(
    ("call", "requests"), [("begin", 1), ("commit", 2)], ids=["begin", "commit"]
)
async def test_a_defect_is_told_and_the_account_goes_on(call, requests):
    """An exception that nobody foresaw: before the request, and with the answer in hand."""
    store = StubbornStore()
    async with running(store=store, options=STRICT) as world:
        await world.login()
        store.troubles[call] = ValueError("access-1")
        await anyio.sleep(2000)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(refused_token, world)
            await anyio.sleep(0.08)
            store.troubles.clear()
        assert len(world.requests) == requests
        assert len(world.events("defect")) == 1
        assert "access-1" not in repr(world.logged)
        await anyio.sleep(3600)
        assert isinstance(world.account().state, Fresh)
        assert world.provider.ledger.double_redemptions == 0


async def test_a_defect_after_a_login_came_concerns_nobody():
    """It is told, and the account's new state stays."""
    async with running() as world:
        await world.login()
        account, state = world.account(), world.account().state
        world.refresh.abandon(account, ValueError("access-1"))
        assert account.state is state


# --- late answers, and the refresh token before


@pytest.mark.parametrize(("seconds", "generation"), [(59.0, 2), (71.0, 1)])
async def test_an_answer_is_waited_for_up_to_sixty_seconds(seconds, generation):
    """Whoever hangs up earlier loses the rotated token in it; whoever waits for ever hangs."""
    async with running(options=STRICT) as world:
        await world.login()
        await anyio.sleep(2000)
        world.latency = seconds
        began = trio.current_time()
        with suppress(SpotokendError):
            await world.call("token", min_ttl=1700.0)
        assert trio.current_time() - began <= 70  # 5 to connect, 5 to send
        state = world.account().state
        assert state.generation == generation
        assert isinstance(state, Fresh if generation == 2 else Waiting)
        # From the sending on: a late answer is no fresher for it.
        if generation == 2:
            assert state.access.issued_at == pytest.approx(began, abs=1)


async def test_a_successor_that_never_worked_makes_way_for_the_one_before():
    """A 200 with a made-up refresh token: refused twice, half an hour apart; then the old one.

    Of a grant whose age is unknown: a young one that is refused is probed as it is.
    """
    async with running(CONFIG + 'rotation = "never"\n') as world:
        await world.login()
        account = world.account()
        good = replace(account.state.grant, authorized_at=None)
        world.registry.move(account, replace(account.state, grant=good))
        world.replies.append(answer(access_token="access-2", refresh_token="made-up"))
        await refreshed(world)
        assert account.state.grant.previous == good.refresh_token
        await anyio.sleep(account.state.due_at - trio.current_time() + 1)
        assert isinstance(account.state, Quarantined)
        await anyio.sleep(1810)
        assert isinstance(account.state, Fresh)
        assert account.state.grant.refresh_token == good.refresh_token
        waits = [b - a for a, b in itertools.pairwise(world.requests[-3:])]
        assert waits == pytest.approx([1800, 0], abs=1)


async def test_where_rotations_were_seen_the_one_before_is_never_presented():
    """It might kill its successor: refused is refused."""
    async with running() as world:
        await world.login()
        world.replies.append(answer(access_token="access-2", refresh_token="made-up"))
        await refreshed(world)
        await anyio.sleep(4 * 3600)
        state = world.account().state
        assert isinstance(state, Quarantined)
        assert state.grant.refresh_token.reveal() == "made-up"
        assert world.provider.ledger.double_redemptions == 0
