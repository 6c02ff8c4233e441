"""Each method as a client meets it: results, defaults, errors with their cure, and no dead token."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import chain

import anyio
import httpx
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from stubborn_store import FULL, StubbornStore
from world import CONFIG, Mailbox, World, running, virtual_time

from spotokend import __version__, wire
from spotokend.errors import (
    BadRequest,
    Busy,
    InsufficientScope,
    LoginRequired,
    Misconfigured,
    SpotokendError,
    Unavailable,
    UnknownAccount,
)
from spotokend.rules.account import Fresh, Unsaved, Waiting
from spotokend.rules.methods import METHODS, check
from spotokend.sandbox import Fault, Kind, Options

pytestmark = pytest.mark.anyio

NOBODY_TO_ASK = CONFIG.replace('identity_url = "http://127.0.0.1:1/v1/me"', 'identity_url = "none"')
CONFIGURED = CONFIG + '[accounts.main]\nclient = "pkce"\n'
OUTAGE = Fault(kind=Kind.ANSWER, status=503)


@pytest.fixture
def anyio_backend():
    """Hours pass in no time."""
    return virtual_time()


def told(mailbox: Mailbox, method: str) -> list:
    """What a watcher was offered by that name."""
    return [value for _, (_, name, (value,)) in mailbox.offered if name == method]


# --- hello, stop, reload


async def test_hello_says_who_answers_and_what_can_be_asked():
    """In the same turn: it is what a client's first call waits for."""
    async with running() as world:
        answer = world.handlers.handle(Mailbox(), "hello", {})
        assert isinstance(answer, bytes)
        assert wire.unpack(answer) == {
            "server": f"spotokend {__version__}",
            "protocol": 1,
            "methods": list(METHODS),
        }


async def test_every_method_of_the_table_is_answered():
    """With the fewest arguments that it takes: by a result, or by an error of the protocol."""
    least = {
        "reject": {"generation": 0},
        "login_finish": {"login_id": "unknown", "redirect_url": "nonsense"},
        "login_cancel": {"login_id": "unknown"},
        "logout": {"account": "unknown"},
    }
    async with running() as world:
        for method in METHODS:
            with suppress(LoginRequired, UnknownAccount):
                await world.call(method, **check(method, least.get(method, {})))
        assert (world.reloads, world.stops) == (1, 1)


async def test_reload_and_stop_are_passed_on():
    """The daemon's business: what changed, and nothing."""
    async with running() as world:
        assert await world.call("reload") == {"changes": [], "warnings": []}
        assert await world.call("stop") is None


# --- token


async def test_a_good_token_is_answered_in_the_same_turn():
    """Bytes and no coroutine, and the same bytes each time."""
    async with running() as world:
        await world.login()
        first = world.handlers.handle(Mailbox(), "token", {})
        assert isinstance(first, bytes)
        assert world.handlers.handle(Mailbox(), "token", {"account": "main"}) is first
        assert (
            world.handlers.handle(
                Mailbox(), "token", {"min_ttl": 1800.0, "scopes": ("user-read-private",)}
            )
            is first
        )


async def test_which_account_is_meant():
    """The only one; with several the default or a name; the codes for none, several and unknown."""
    async with running(NOBODY_TO_ASK) as world:
        with pytest.raises(LoginRequired):
            await world.call("token")
        await world.login("one")
        assert (await world.call("token"))["account"] == "one"
        await world.login("two")
        for method in ("token", "refresh"):
            with pytest.raises(BadRequest) as several:
                await world.call(method)
            assert "one, two" in several.value.message
        with pytest.raises(UnknownAccount) as unknown:
            await world.call("token", account="tow")
        assert unknown.value.hint == "did you mean two?"
    async with running(NOBODY_TO_ASK + '[daemon]\ndefault_account = "two"\n') as world:
        await world.login("one")
        with pytest.raises(UnknownAccount):
            await world.call("token")
        await world.login("two")
        assert (await world.call("token"))["account"] == "two"
        assert (await world.call("reject", generation=0))["account"] == "two"


async def test_an_account_without_a_login_says_how_to_log_in():
    """Configured and never logged in; then logged out."""
    async with running(CONFIGURED) as world:
        for words in ("nobody has logged in yet", "logged out"):
            for method, arguments in (
                ("token", {}),
                ("refresh", {}),
                ("reject", {"generation": 0}),
            ):
                with pytest.raises(LoginRequired) as refused:
                    await world.call(method, **arguments)
                assert words in refused.value.message
                assert refused.value.hint == "spotokend login main"
            await world.login()
            await world.call("logout", account="main")


async def test_missing_scopes_are_named_with_the_command_that_gets_them():
    """No refresh brings them, so none is made; also for a token that comes fresh."""
    async with running() as world:
        await world.login()
        for _ in range(2):
            with pytest.raises(InsufficientScope) as refused:
                await world.call(
                    "token", scopes=("streaming", "user-read-private", "user-top-read")
                )
            assert refused.value.details == {
                "account": "main",
                "missing": ["streaming", "user-top-read"],
                "hint": "spotokend login main --scope streaming --scope user-top-read",
            }
        assert len(world.requests) == 1
        await anyio.sleep(2000)
        with pytest.raises(InsufficientScope):
            await world.call("token", scopes=("streaming",), min_ttl=1700.0)
        assert len(world.requests) == 2


async def test_scopes_that_come_with_the_refresh_are_enough():
    """They were granted elsewhere meanwhile (spotify/web-api#814)."""
    async with running() as world:
        await world.login()
        world.replies.append(
            httpx.Response(
                200, content=json.dumps({"access_token": "access-2", "scope": "streaming"})
            )
        )
        await anyio.sleep(2000)
        token = await world.call("token", min_ttl=1700.0, scopes=("streaming",))
        assert token["scope"] == ["streaming"]


@pytest.mark.parametrize("life", [3600.0, 600.0])
async def test_more_than_half_the_life_is_refused_with_the_maximum(life):
    """Also where the life is known from an expired token only."""
    async with running(options=Options(auto_approve=True, access_life=life)) as world:
        await world.login()
        fault = world.provider.faults.add(OUTAGE)
        await anyio.sleep(life * 2)
        world.provider.faults.remove(fault)
        with pytest.raises(BadRequest) as refused:
            await world.call("token", min_ttl=life / 2 + 1)
        assert refused.value.details["maximum"] == life / 2
        assert refused.value.hint == f"ask for at most {life / 2:g} s"


async def test_where_lives_turn_out_shorter_than_believed_the_maximum_is_told():
    """No token yet, and Spotify's life is believed in: one request, then the truth, and no more."""
    async with running(options=Options(auto_approve=True, access_life=600.0)) as world:
        begun = await world.call("login_start")
        address = world.agree(begun["url"])
        world.replies.append(
            httpx.Response(200, content=json.dumps({"refresh_token": "refresh-1"}))
        )
        await world.call("login_finish", login_id=begun["login_id"], redirect_url=address)
        world.replies.append(
            httpx.Response(200, content=json.dumps({"access_token": "access-1", "expires_in": 600}))
        )
        for _ in range(3):
            with pytest.raises(BadRequest) as refused:
                await world.call("token", min_ttl=1500.0)
            assert refused.value.details["maximum"] == 300
        assert len(world.requests) == 2


async def test_a_token_below_the_floor_is_served_where_no_newer_one_can_be_had():
    """It still meets what was asked for; the last second, and then no more."""
    async with running() as world:
        await world.login()
        world.provider.faults.add(OUTAGE)
        await anyio.sleep_until(3600 - 30)
        assert (await world.call("token"))["generation"] == 1
        assert (await world.call("token", min_ttl=20.0))["generation"] == 1
        with pytest.raises(Unavailable) as refused:
            await world.call("token", min_ttl=40.0)
        assert refused.value.retry_after is not None
        await anyio.sleep_until(3600)
        with pytest.raises(Unavailable):
            await world.call("token")


async def test_a_slow_answer_may_be_too_old_for_what_was_asked():
    """Lives of four seconds, an answer that takes three: unavailable rather than too short."""
    async with running(options=Options(auto_approve=True, access_life=4.0)) as world:
        await world.login()
        await anyio.sleep(10)
        await world.call("token")
        world.latency = 3.0
        await anyio.sleep(4.5)
        with pytest.raises(Unavailable):
            await world.call("token", min_ttl=1.5)


async def test_a_blocked_client_is_a_matter_of_the_configuration():
    """As long as the token lives it is served; then the code is ``misconfigured``."""
    async with running() as world:
        await world.login()
        world.provider.faults.add(Fault(kind=Kind.ANSWER, status=400, error="invalid_client"))
        await anyio.sleep(3000)
        assert (await world.call("token"))["generation"] == 1
        await anyio.sleep(601)
        with pytest.raises(Misconfigured) as refused:
            await world.call("token")
        assert "spotokend reload" in refused.value.hint


async def test_what_is_served_is_what_was_judged_while_an_answer_is_written():
    """The disk is slow: the state has the new token already, the board still the old one."""
    store = StubbornStore()
    async with running(store=store) as world:
        await world.login()
        store.slow["commit"] = 30.0
        await anyio.sleep_until(2705)
        assert isinstance(world.account().state, Unsaved)
        began = trio.current_time()
        token = await world.call("token", min_ttl=500.0)
        assert (token["generation"], trio.current_time()) == (1, began)
        token = await world.call("token", min_ttl=1000.0)
        assert token["generation"] == 2
        assert trio.current_time() > began + 20


async def test_a_store_that_can_not_be_read_makes_the_call_unavailable_and_not_the_status():
    """After a start: what is sealed stays so, and ``status`` says what there is."""
    store = StubbornStore()
    async with running(store=store) as before:
        await before.login()
        before.keeping.cancel()
        async with running(before=before) as world:
            store.troubles["load"] = FULL
            for method, arguments in (
                ("token", {}),
                ("refresh", {}),
                ("reject", {"generation": 1}),
                ("watch", {}),
            ):
                with pytest.raises(Unavailable, match="the disk is full"):
                    await world.call(method, **arguments)
            for arguments in ({}, {"account": "main"}):
                status = await world.call("status", **arguments)
                assert status["accounts"][0]["state"] == "sealed"
            store.troubles.clear()
            assert (await world.call("token"))["generation"] == 1


# --- the promise: never an expired token, never less than was asked for


MOMENTS = st.lists(
    st.tuples(
        st.floats(0, 2),  # how long until the next call, in lives
        st.floats(0, 0.5),  # min_ttl, in lives
        st.sampled_from(
            ["token", "token", "token", "refresh", "reject", "login", "outage", "disk"]
        ),
    ),
    max_size=12,
)


@settings(max_examples=50)
@given(life=st.sampled_from([2.0, 30.0, 600.0]), moments=MOMENTS, u=st.floats(0.2, 0.99))
def test_no_token_is_served_that_is_dead_or_dies_sooner_than_asked_for(life, moments, u):
    """Whatever happens in between: outages, full disks, reports, logins, hours of nothing."""
    backend, options = virtual_time()
    anyio.run(served_tokens, life, moments, u, backend=backend, backend_options=options)


async def served_tokens(life, moments, u):
    store = StubbornStore()
    options = Options(auto_approve=True, access_life=life)
    generations: dict[int, str] = {}
    async with running(store=store, options=options, u=u) as world:
        await world.login()
        for pause, share, what in moments:
            await anyio.sleep(pause * life)
            ledger = world.provider.ledger
            if what == "outage" and not world.provider.faults.to_json():
                world.provider.faults.add(OUTAGE)
            elif what == "outage":
                world.provider.faults.clear()
            elif what == "disk":
                store.troubles = {} if store.troubles else {"commit": FULL, "begin": FULL}
            with suppress(SpotokendError):
                if what == "login":
                    await world.login()
                wanted = share * int(life) if what == "token" else 0.0
                token = await ask(world, what, wanted)
                now = trio.current_time()
                theirs = ledger.access(token["access_token"])
                assert theirs is not None
                assert theirs.expires_at - now >= wanted
                assert token["expires_boot"] > now
                assert token["expires_boot"] <= theirs.expires_at
                text = generations.setdefault(token["generation"], token["access_token"])
                assert text == token["access_token"]
        store.troubles.clear()


async def ask(world: World, what: str, min_ttl: float) -> dict:
    if what == "refresh":
        return await world.call("refresh")
    if what == "reject":
        generation = world.account().state.generation
        token = await world.call("reject", generation=generation)
        assert token["generation"] > generation
        return token
    return await world.call("token", min_ttl=min_ttl)


# --- reject and refresh


async def test_a_report_that_joins_a_refresh_which_brings_nothing_gets_no_refused_token():
    """A later generation is promised: there is none, so it is said when to ask again.

    And what the API refused is of no use to anybody else either.
    """
    async with running() as world:
        await world.login()
        await anyio.sleep(2000)
        world.provider.faults.add(
            Fault(kind=Kind.ANSWER, status=429, retry_after="50", seconds=5.0, count=1)
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(try_to_call, world, "token", 1700.0)
            await anyio.sleep(1)
            with pytest.raises(Unavailable) as refused:
                await world.call("reject", generation=1)
        assert refused.value.retry_after == pytest.approx(50, abs=6)
        with pytest.raises(Unavailable):
            await world.call("token")
        await anyio.sleep(60)
        assert (await world.call("token"))["generation"] == 2


async def try_to_call(world: World, method: str, min_ttl: float) -> None:
    with suppress(SpotokendError):
        await world.call(method, min_ttl=min_ttl)


async def test_a_report_while_the_newer_token_is_written_waits_for_it():
    """The refused one is what the board still has."""
    store = StubbornStore()
    async with running(store=store) as world:
        await world.login()
        store.slow["commit"] = 30.0
        await anyio.sleep_until(2705)
        assert (await world.call("reject", generation=1))["generation"] == 2
        assert len(world.requests) == 2


async def test_a_report_of_a_token_that_never_was_is_a_bad_request():
    """Nobody is asked for anything."""
    async with running() as world:
        await world.login()
        with pytest.raises(BadRequest) as refused:
            await world.call("reject", generation=2)
        assert "no token of generation 2" in refused.value.message
        assert len(world.requests) == 1


async def test_a_forced_refresh_brings_a_new_token_or_says_why_there_is_none():
    """Never the old one under another name."""
    async with running() as world:
        await world.login()
        world.provider.faults.add(Fault(kind=Kind.ANSWER, status=403, count=1))
        with pytest.raises(Unavailable):
            await world.call("refresh")
        assert isinstance(world.account().state, Waiting)
        await anyio.sleep(31)
        assert (await world.call("refresh"))["generation"] == 3
        with pytest.raises(Busy) as refused:
            await world.call("refresh")
        assert refused.value.retry_after == pytest.approx(30, abs=1)


async def test_a_forced_refresh_while_an_answer_is_written_is_one_of_its_own():
    """What is on its way to the disk was asked for by somebody else."""
    store = StubbornStore()
    async with running(store=store) as world:
        await world.login()
        store.slow["commit"] = 5.0
        await anyio.sleep_until(2702)
        assert isinstance(world.account().state, Unsaved)
        assert (await world.call("refresh"))["generation"] == 3
        assert len(world.requests) == 3


# --- watch


async def test_a_watcher_gets_the_present_state_and_then_all_that_happens():
    """States, tokens, notices; each token once."""
    async with running() as world:
        await world.login()
        mailbox = Mailbox()
        present = await world.call("watch", mailbox)
        assert present == {
            "accounts": (await world.call("status"))["accounts"],
            "tokens": [await world.call("token")],
        }
        await anyio.sleep(2705)
        assert [token["generation"] for token in told(mailbox, "token")] == [2]
        states = [state["state"] for state in told(mailbox, "state")]
        assert states == ["refreshing", "unsaved", "fresh"]
        assert [notice["kind"] for notice in told(mailbox, "notice")] == ["token"]


async def test_a_watcher_can_leave_tokens_and_accounts_out():
    """``tokens = false``: none, neither now nor later; other accounts: nothing."""
    async with running(NOBODY_TO_ASK) as world:
        await world.login("one")
        await world.login("two")
        mailbox = Mailbox()
        present = await world.call("watch", mailbox, accounts=("one",), tokens=False)
        assert [account["account"] for account in present["accounts"]] == ["one"]
        assert present["tokens"] == []
        await anyio.sleep(2705)
        assert told(mailbox, "token") == []
        assert {state["account"] for state in told(mailbox, "state")} == {"one"}
        assert {notice["account"] for notice in told(mailbox, "notice")} == {"one"}
        everything = repr(mailbox.offered) + repr(present)
        assert "access" not in everything.replace("access_token", "")


async def test_a_second_watch_replaces_the_first():
    """One set a connection; an empty one hears of no account."""
    async with running(NOBODY_TO_ASK) as world:
        await world.login("one")
        await world.login("two")
        mailbox = Mailbox()
        await world.call("watch", mailbox, accounts=("one",))
        await world.call("watch", mailbox, accounts=("two",))
        await world.call("refresh", account="one")
        assert mailbox.offered == []
        await world.call("refresh", account="two")
        assert [token["account"] for token in told(mailbox, "token")] == ["two"]
        mailbox.offered.clear()
        assert await world.call("watch", mailbox, accounts=()) == {"accounts": [], "tokens": []}
        await world.call("reject", account="two", generation=1)
        assert mailbox.offered == []


async def test_a_watcher_that_closes_is_forgotten():
    """Nothing is encoded for it any more."""
    async with running() as world:
        await world.login()
        mailbox = Mailbox()
        await world.call("watch", mailbox)
        assert world.board.watched("main")
        mailbox.when_closed()
        assert not world.board.watched("main")
        await world.call("refresh")
        assert mailbox.offered == []


async def test_an_unknown_account_is_not_watched():
    """And what was watched before goes on."""
    async with running() as world:
        await world.login()
        mailbox = Mailbox()
        await world.call("watch", mailbox)
        with pytest.raises(UnknownAccount):
            await world.call("watch", mailbox, accounts=("main", "other"))
        await world.call("refresh")
        assert len(told(mailbox, "token")) == 1


async def test_an_expired_token_is_no_part_of_the_present_state():
    """A watcher would take it for good."""
    async with running() as world:
        await world.login()
        world.provider.faults.add(OUTAGE)
        await anyio.sleep(3601)
        present = await world.call("watch")
        assert present["tokens"] == []
        assert present["accounts"][0]["health"] == "failing"


async def test_accounts_that_come_later_are_watched_by_whoever_watches_all():
    """A login is news."""
    async with running() as world:
        mailbox = Mailbox()
        assert await world.call("watch", mailbox) == {"accounts": [], "tokens": []}
        await world.login()
        assert [token["account"] for token in told(mailbox, "token")] == ["main"]


# --- status


async def test_status_comes_in_pages():
    """Fifty by default, fewer if asked; each account once, in the order of their names."""
    names = [f"account-{n:03}" for n in range(101)]
    config = CONFIG + "".join(f'[accounts.{name}]\nclient = "pkce"\n' for name in names)
    async with running(config) as world:
        for arguments, sizes in (({}, [50, 50, 1]), ({"limit": 40}, [40, 40, 21])):
            pages, after = [], {}
            while True:
                status = await world.call("status", **arguments, **after)
                pages.append([account["account"] for account in status["accounts"]])
                if status["next"] is None:
                    break
                after = {"after": status["next"]}
            assert [len(page) for page in pages] == sizes
            assert list(chain(*pages)) == names
        status = await world.call("status", after="zzz")
        assert (status["accounts"], status["next"]) == ([], None)
        assert "why" not in (await world.call("status"))["accounts"][0]


async def test_status_of_one_account_tells_why_and_what_happened():
    """And only of that one; unknown ones are said to be."""
    async with running(NOBODY_TO_ASK) as world:
        await world.login("one")
        await world.login("two")
        await world.call("refresh", account="one")
        status = await world.call("status", account="one")
        (account,) = status["accounts"]
        assert account["account"] == "one"
        assert account["why"].startswith("ahead of the token's end; due in")
        assert [past["outcome"] for past in account["outcomes"]] == ["renewed"]
        with pytest.raises(UnknownAccount):
            await world.call("status", account="three")


async def test_status_after_a_start_shows_what_was_stored():
    """Unsealed for the page that is shown."""
    async with running() as before:
        await before.login()
        before.keeping.cancel()
        async with running(before=before) as world:
            assert (await world.call("status"))["accounts"][0]["state"] == "fresh"
            assert isinstance(world.account().state, Fresh)


# --- logins


async def test_the_methods_of_a_login_pass_on_what_they_are_given():
    """Account, client, scopes and redirect; finished, cancelled, logged out."""
    async with running() as world:
        begun = await world.call(
            "login_start",
            account="kitchen",
            client="pkce",
            scopes=("streaming",),
            redirect_uri="http://127.0.0.1:49152/callback",
        )
        assert "streaming" in begun["url"]
        done = await world.call(
            "login_finish", login_id=begun["login_id"], redirect_url=world.agree(begun["url"])
        )
        assert (done["account"], done["scope"]) == ("kitchen", ["user-read-private", "streaming"])
        begun = await world.call("login_start")
        assert await world.call("login_cancel", login_id=begun["login_id"]) is None
        assert await world.call("logout", account="kitchen") is None
        with pytest.raises(UnknownAccount):
            await world.call("logout", account="kitchen")
