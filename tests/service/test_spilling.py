"""An answer that the disk refuses: no end of the program, and no start, loses or forgets it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import anyio
import httpx
import pytest
import trio
from stubborn_spill import StubbornSpill
from stubborn_store import FULL, StubbornStore
from world import CONFIG, World, running, virtual_time

from spotokend.adapters.spill import SpillError
from spotokend.adapters.store.base import Fenced, Intent, aside
from spotokend.errors import SpotokendError, Unavailable
from spotokend.rules.account import Fresh, NeedsLogin, Unsaved, Waiting
from spotokend.rules.config.parse import parse
from spotokend.rules.secret import Secret
from spotokend.sandbox import Options, Rotation
from spotokend.service.packing import unpack_row

pytestmark = pytest.mark.anyio

STRICT = Options(auto_approve=True, rotation=Rotation.ALWAYS, revoke_family=True)
NO_FILE = SpillError("the socket's folder is read-only")
SECTION = "{}\n[accounts.main]\n"
SECRET = {"pkce": Secret("sandbox-client-secret")}
OTHER_ID = CONFIG.replace("sandbox-pkce-client", "sandbox-secret-client")


@pytest.fixture
def anyio_backend():
    """Hours pass in no time."""
    return virtual_time()


async def unsaved(world: World, spill_error: SpillError | None = None) -> dict[str, object]:
    """Have an account whose answer the store does not take; its token."""
    await world.login()
    await anyio.sleep(2000)
    world.store.troubles["commit"] = FULL
    if spill_error:
        world.spill.troubles["write"] = spill_error
    return await world.call("token", account="main", min_ttl=1700.0)


def kinds(world: World) -> list[str]:
    return [notice.kind for notice in world.notices if notice.kind != "token"]


# --- while it runs


async def test_what_the_store_does_not_take_is_written_beside_the_socket_once():
    """Before anybody is served; sealed, with the attempt; and removed when the store has it."""
    async with running(store=StubbornStore(), options=STRICT) as world:
        token = await unsaved(world)
        assert world.account().state.spilled
        attempt, row = unpack_row(world.spill.files["main"])
        assert (attempt, row.version) == ((await world.intent()).attempt, 2)
        assert world.vault._rows.to_state(row, world.account().client.policy).generation == 2
        grant = world.account().state.grant
        for secret in (
            token["access_token"],
            grant.refresh_token.reveal(),
            grant.previous.reveal(),
        ):
            assert secret.encode() not in world.spill.files["main"]
        await anyio.sleep(120)
        assert world.spill.writes == ["main"]
        world.store.troubles.clear()
        await anyio.sleep(6)
        assert isinstance(world.account().state, Fresh)
        assert world.spill.files == {}


async def test_where_no_file_can_be_written_either_that_is_said_and_tried_again():
    """In log and status; each write of the answer tries the file, too."""
    async with running(store=StubbornStore()) as world:
        await unsaved(world, NO_FILE)
        (account,) = (await world.call("status", account="main"))["accounts"]
        assert "the disk is full; and no copy could be put beside the socket" in account["reason"]
        assert "read-only" in account["reason"]
        assert not world.account().state.spilled
        world.spill.troubles.clear()
        await anyio.sleep(6)
        assert world.account().state.spilled
        (account,) = (await world.call("status", account="main"))["accounts"]
        assert "a sealed copy lies beside the socket" in account["reason"]
        assert kinds(world) == ["not_durable"]


async def test_a_token_that_was_reported_does_not_come_back_from_the_file():
    """It is written anew without it."""
    store = StubbornStore()
    async with running(store=store, options=STRICT) as world:
        await unsaved(world)
        with pytest.raises(Unavailable):
            await world.call("reject", account="main", generation=2)
        await anyio.sleep(6)
        assert world.spill.writes == ["main", "main"]
        await world.kill()
        async with running(before=world) as after:
            with pytest.raises(Unavailable):
                await after.call("token", account="main")
            store.troubles.clear()
            await anyio.sleep(10)
            assert (await after.call("token", account="main"))["generation"] == 3
            assert world.provider.ledger.double_redemptions == 0


async def test_a_logout_takes_the_file_along():
    """What the user wants gone does not lie anywhere; nor does the next start bring it back."""
    store = StubbornStore()
    async with running(CONFIG + "[accounts.main]\n", store=store) as world:
        await unsaved(world)
        store.troubles["delete"] = FULL
        with pytest.raises(Unavailable):
            await world.call("logout", account="main")
        assert list(world.spill.files) == ["main"]
        del store.troubles["delete"]
        await world.call("logout", account="main")
        assert world.spill.files == {}
        await anyio.sleep(60)
        assert isinstance(world.account().state, NeedsLogin)
        await world.kill()
        async with running(CONFIG + "[accounts.main]\n", before=world) as after:
            assert isinstance(after.account().state, NeedsLogin)


async def test_a_login_takes_the_file_along():
    """The new grant is durable; the answer to the old one is of no use."""
    async with running(store=StubbornStore()) as world:
        await unsaved(world)
        await world.login()
        assert world.spill.files == {}
        await anyio.sleep(10)
        assert world.account().state.generation == 3
        assert isinstance(world.account().state, Fresh)


@pytest.mark.parametrize("who", ["login", "logout"])
async def test_a_login_or_logout_while_the_disk_refuses_leaves_no_file_behind(who):
    """It came between the write that failed and the file that was to take its place."""

    class Slow(StubbornSpill):
        async def write(self, account, data):
            await anyio.sleep(5)
            await super().write(account, data)

    config = CONFIG + "[accounts.main]\n"
    async with running(config, store=StubbornStore(), spill=Slow()) as world:
        await world.login()
        await anyio.sleep(2000)
        world.store.troubles["commit"] = FULL
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(try_token, world)
            await anyio.sleep(1)
            await (world.login() if who == "login" else world.call("logout", account="main"))
        assert world.spill.writes == ["main"]
        assert world.spill.files == {}
        assert type(world.account().state) is (Fresh if who == "login" else NeedsLogin)


async def try_token(world: World) -> None:
    with suppress(SpotokendError):
        await world.call("token", account="main", min_ttl=1700.0)


async def test_an_answer_that_was_fenced_out_takes_its_file_along():
    """Another process wrote the row."""
    async with running(store=StubbornStore()) as world:
        await unsaved(world)
        world.store.troubles["commit"] = Fenced("not now")
        await anyio.sleep(6)
        assert world.spill.files == {}
        assert world.events("refresh_fenced") != []


async def test_a_defect_in_the_writing_of_the_file_is_told_and_it_is_tried_again():
    """Nobody foresaw it; the account goes on."""
    async with running(store=StubbornStore()) as world:
        await unsaved(world, LookupError("access-2"))
        assert len(world.events("defect")) == 1
        assert "access-2" not in repr(world.logged)
        world.spill.troubles.clear()
        await anyio.sleep(40)
        assert world.account().state.spilled


async def test_a_file_that_can_not_be_removed_does_no_harm():
    """The store has the answer; the next start sees that."""
    store = StubbornStore()
    async with running(store=store) as world:
        await unsaved(world)
        world.spill.troubles["remove"] = NO_FILE
        store.troubles.clear()
        await anyio.sleep(6)
        assert isinstance(world.account().state, Fresh)
        await world.kill()
        world.spill.troubles.clear()
        async with running(before=world) as after:
            assert (await after.call("token"))["generation"] == 2
            assert world.spill.files == {}


# --- its end


async def test_the_program_ends_once_the_answer_lies_beside_the_socket():
    """SIGTERM with a full disk: told in the log, and no waiting for room."""
    async with running(store=StubbornStore()) as world:
        await unsaved(world)
        stopped = trio.current_time()
        world.keeper.stop()
    assert trio.current_time() == stopped
    (spilled,) = world.events("spilled")
    assert "a sealed copy lies beside the socket" in spilled["words"]
    assert world.events("stop_waits") == []


@pytest.mark.parametrize("room", ["store", "file"])
async def test_it_does_not_end_while_the_answer_is_in_memory_alone(room):
    """Nothing takes it: it waits, and says so; one of the two has room, and it ends."""
    async with running(store=StubbornStore(), options=STRICT) as world:
        await unsaved(world, NO_FILE)
        world.keeper.stop()
        (waits,) = world.events("stop_waits")
        assert "read-only" in waits["words"]
        for _ in range(60):
            await anyio.sleep(10)
            assert (await world.call("token", account="main"))["generation"] == 2
        (world.store if room == "store" else world.spill).troubles.clear()
        freed = trio.current_time()
    assert trio.current_time() - freed <= 6
    before = world
    before.store.troubles.clear()
    async with running(before=before) as after:
        assert (await after.call("token"))["generation"] == 2
        assert after.requests == []


async def test_an_end_in_the_middle_of_a_refresh_waits_for_the_file_that_it_takes():
    """SIGTERM, then the answer, then a full disk."""
    async with running(store=StubbornStore(), options=STRICT) as world:
        await world.login()
        await anyio.sleep(2000)
        world.store.troubles["commit"] = FULL
        world.latency = 20.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(try_token, world)
            await anyio.sleep(1)
            world.keeper.stop()
    assert list(world.spill.files) == ["main"]


# --- the next start


async def test_killed_with_an_unsaved_answer_the_next_start_has_it():
    """Committed before anything else: no request, and no second use of the old refresh token."""
    store = StubbornStore()
    async with running(store=store, options=STRICT) as world:
        token = await unsaved(world)
        await world.kill()
        store.troubles.clear()
        async with running(before=world) as after:
            assert kinds(after) == ["spill_saved"]
            assert await after.intent() is None
            assert (await after.call("token"))["access_token"] == token["access_token"]
            assert after.requests == []
            assert after.spill.files == {}
            await anyio.sleep(3600)
            assert (await after.call("token"))["generation"] >= 3
        assert world.provider.ledger.double_redemptions == 0


@pytest.mark.parametrize("boot", [{}, {"boot_id": "boot-2"}], ids=["same boot", "another"])
async def test_with_the_store_still_full_the_answer_is_served_and_written_until_it_is(boot):
    """Not forgotten, not asked for again: as if the daemon had never ended."""
    store = StubbornStore()
    async with running(store=store, options=STRICT) as world:
        token = await unsaved(world)
        await world.kill()
        for _ in range(3):
            async with running(before=world, **boot) as after:
                served = await after.call("token")
                assert served["access_token"] == token["access_token"]
                assert isinstance(after.account().state, Unsaved)
                (account,) = (await after.call("status", account="main"))["accounts"]
                assert (account["durable"], account["health"]) == (False, "degraded")
                assert kinds(after) == ["spill_waits", "not_durable"]
                await anyio.sleep(60)
                await after.kill()
                assert after.requests == []
        async with running(before=world, **boot) as after:
            await after.call("token")
            store.troubles.clear()
            await anyio.sleep(6)
            assert isinstance(after.account().state, Fresh)
            assert await after.intent() is None
            assert after.spill.files == {}
            await anyio.sleep(3600)
            assert (await after.call("token"))["generation"] >= 3
        assert world.provider.ledger.double_redemptions == 0


async def test_a_refresh_token_that_came_alone_is_not_forgotten_either():
    """Its successor is on its way when the store has room again."""
    store = StubbornStore()
    async with running(store=store) as world:
        await world.login()
        await anyio.sleep(2000)
        store.troubles["commit"] = FULL
        world.replies.append(httpx.Response(200, json={"refresh_token": "refresh-2"}))
        await try_token(world)
        await world.kill()
        async with running(before=world) as after:
            await after.call("token")
            state = after.account().state
            assert isinstance(state, Unsaved)
            assert (state.grant.refresh_token.reveal(), state.fruitless) == ("refresh-2", 1)
            store.troubles.clear()
            await anyio.sleep(0.2)
            row = await after.store.load("main")
            assert row.intent is None


@pytest.mark.parametrize("who", ["login", "logout"])
async def test_a_login_or_logout_after_a_start_with_a_full_store_wins(who):
    """What was taken up is let go of, file and all."""
    store = StubbornStore()
    config = CONFIG + "[accounts.main]\n"
    async with running(config, store=store) as world:
        await unsaved(world)
        await world.kill()
        async with running(config, before=world) as after:
            await after.call("token")
            await (after.login() if who == "login" else after.call("logout", account="main"))
            assert after.spill.files == {}
            store.troubles.clear()
            await anyio.sleep(60)
            assert type(after.account().state) is (Fresh if who == "login" else NeedsLogin)


async def test_a_damaged_file_is_put_aside_and_the_account_is_in_doubt_as_without_one():
    """Told; the strict server is not asked before the last use of the living token."""
    store = StubbornStore()
    async with running(store=store, options=STRICT) as world:
        await world.login()
        await world.call("refresh")
        await anyio.sleep(2000)
        store.troubles["commit"] = FULL
        await try_token(world)
        await world.kill()
        store.troubles.clear()
        world.spill.damaged.add("main")
        async with running(before=world) as after:
            assert kinds(after) == ["spill_aside"]
            assert list(after.spill.aside) == ["main.damaged"]
            await after.call("token")
            state = after.account().state
            assert isinstance(state, Waiting)
            assert state.in_doubt
            assert after.requests == []


async def test_a_row_whose_client_is_not_configured_gets_its_answer_all_the_same():
    """The store is served before the configuration is looked at."""
    store = StubbornStore()
    async with running(store=store, options=STRICT) as world:
        await unsaved(world)
        await world.kill()
        store.troubles.clear()
        renamed = CONFIG.replace("clients.pkce", "clients.renamed")
        async with running(renamed, before=world) as after:
            assert after.registry.accounts == {}
            assert (await store.load("main")).generation == 2


async def test_an_edit_of_the_client_puts_no_row_aside_without_its_answer():
    """Full at the start, and another client id: the old grant waits for the edit to be undone."""
    store = StubbornStore()
    fingerprint = parse(CONFIG).clients["pkce"].fingerprint
    async with running(SECTION.format(CONFIG), store=store, options=STRICT) as world:
        token = await unsaved(world)
        await world.kill()
        async with running(SECTION.format(OTHER_ID), before=world, secrets=SECRET) as after:
            assert isinstance(after.account().state, NeedsLogin)
            assert len(after.events("exchange")) == 1
            assert (await store.load("main")).intent is not None
            # Undone while it is still full: the row of old must not be used in the answer's place.
            await after.roster.reconfigure(world.config, {"pkce": None})
            assert isinstance(after.account().state, NeedsLogin)
            await after.roster.reconfigure(after.config, SECRET)
            assert len(after.events("exchange")) == 3
            store.troubles.clear()
            await after.roster.reconfigure(after.config, SECRET)
            assert await store.slots(aside(fingerprint)) == ["main"]
            assert after.spill.files == {}
            await after.roster.reconfigure(world.config, {"pkce": None})
            assert (await after.call("token"))["access_token"] == token["access_token"]
        assert world.provider.ledger.double_redemptions == 0


async def test_a_login_at_another_registration_keeps_the_answer_of_the_old_one():
    """What goes aside for it is the row with its last answer; and back it serves."""
    store = StubbornStore()
    async with running(SECTION.format(CONFIG), store=store, options=STRICT) as world:
        token = await unsaved(world)
        await world.kill()
        async with running(SECTION.format(OTHER_ID), before=world, secrets=SECRET) as after:
            with pytest.raises(Unavailable):
                await after.login()
            assert list(after.spill.files) == ["main"]
            store.troubles.clear()
            await after.login()
            assert (await after.call("token"))["generation"] == 3
            await after.roster.reconfigure(world.config, {"pkce": None})
            assert (await after.call("token"))["access_token"] == token["access_token"]
        assert world.provider.ledger.double_redemptions == 0


async def test_what_was_overtaken_while_the_store_could_not_be_written_is_not_served():
    """A login won before the kill; its file could not be removed, and the store is read-only now."""
    store = StubbornStore()
    async with running(store=store) as world:
        await unsaved(world)
        kept = dict(world.spill.files)
        await world.login()
        await world.kill()
        world.spill.files = kept
        async with running(before=world) as after:
            assert kinds(after) == ["spill_waits"]
            assert (await after.call("token"))["generation"] == 3
            store.troubles.clear()
            await after.kill()
        async with running(before=world) as after:
            assert kinds(after) == ["spill_overtaken"]
            assert (await after.call("token"))["generation"] == 3


async def test_a_put_aside_of_a_row_that_was_written_anew_forgets_the_file():
    """Another process has fenced the answer out: its row goes aside as it is."""
    store = StubbornStore()
    async with running(store=store) as world:
        await unsaved(world)
        row = await store.load("main")
        store._rows["", "main"] = replace(row, intent=Intent(attempt="other", started_at=0.0))
        store.troubles.clear()
        world.keeping.cancel()
        other = replace(world.account().owner, fingerprint="fingerprint-2")
        assert await world.vault.exchange(other, world.account().client.policy) is None
        assert world.spill.files == {}
        assert await store.slots(aside(world.account().owner.fingerprint)) == ["main"]


async def test_no_generation_is_given_twice():
    """Served from memory alone, and lost with the program: its number is not another token's later.

    The one before it lives on, is served again, and can be reported as ever.
    """
    store = StubbornStore()
    async with running(store=store) as world:
        served = await unsaved(world, NO_FILE)
        assert served["generation"] == 2
        await world.kill()
    store.troubles.clear()
    async with running(store=store, before=world) as after:
        assert (await after.call("token"))["generation"] == 1
        assert (await after.call("reject", generation=1))["generation"] == 3
