"""Clocks that jump, sleep, and begin in 1970: nothing dead is served, nothing is lost, nobody waits."""

from __future__ import annotations

from contextlib import suppress

import anyio
import httpx
import pytest
import trio
from world import CONFIG, EPOCH, World, running, virtual_time

from spotokend.errors import SpotokendError, Unavailable
from spotokend.rules.account import Fresh, Waiting
from spotokend.sandbox import Fault, Kind, Options, Rotation

pytestmark = pytest.mark.anyio

HOUR = 3600.0
STRICT = Options(auto_approve=True, rotation=Rotation.ALWAYS, revoke_family=True)
NOT_YET_VALID = httpx.ConnectError("certificate verify failed: certificate is not yet valid")


@pytest.fixture
def anyio_backend():
    """Hours pass in no time."""
    return virtual_time()


def sleep_on(world: World, seconds: float) -> None:
    """Suspend: CLOCK_BOOTTIME and civil time go on, nothing else does."""
    world.booted -= seconds
    world.offset += seconds


@pytest.mark.parametrize(
    "jump", [-30 * 24 * HOUR, -5 * HOUR, -61.0, 61.0, 5 * HOUR, 30 * 24 * HOUR]
)
async def test_a_jump_of_civil_time_changes_nothing_but_what_is_said(jump):
    """The token lives as long as it does; within a nap replies tell its end in the new time."""
    async with running(options=STRICT) as world:
        await world.login()
        token = await world.call("token")
        due = world.account().state.due_at
        await anyio.sleep(100)
        world.offset += jump
        await anyio.sleep(31)
        moved = await world.call("token")
        assert moved["access_token"] == token["access_token"]
        assert moved["expires_boot"] == token["expires_boot"]
        assert moved["expires_at"] == pytest.approx(token["expires_at"] + jump, abs=1)
        assert world.account().state.due_at == due
        assert len(world.requests) == 1
        await anyio.sleep(due - trio.current_time() + 1)
        assert (await world.call("token"))["generation"] == 2
        assert len(world.requests) == 2


@pytest.mark.parametrize("jump", [-5 * HOUR, 5 * HOUR])
async def test_a_jump_between_two_daemons_of_one_boot_changes_nothing(jump):
    """What was stored is read by CLOCK_BOOTTIME."""
    async with running(options=STRICT) as before:
        await before.login()
        token = await before.call("token")
        due = before.account().state.due_at
        await before.kill()
        async with running(before=before, offset=EPOCH + jump) as world:
            served = await world.call("token")
            assert served["expires_boot"] == token["expires_boot"]
            assert world.account().state.due_at == due
            assert world.requests == []


@pytest.mark.parametrize("jump", [-30 * 24 * HOUR, -5 * HOUR, 5 * HOUR, 30 * 24 * HOUR])
async def test_another_boot_with_a_wrong_clock_costs_one_refresh_at_most(jump):
    """A token from the future, or one that seems to have ended: renewed, and no grant is lost."""
    async with running(options=STRICT) as before:
        await before.login()
        await before.kill()
        async with running(before=before, boot_id="boot-2", offset=EPOCH + jump) as world:
            assert (await world.call("token"))["generation"] == 2
            world.offset = EPOCH  # time comes
            await anyio.sleep(HOUR)
            assert isinstance(world.account().state, Fresh)
            assert 2 <= len(world.requests) <= 3
            await world.kill()
        async with running(before=before, boot_id="boot-3") as world:
            assert (await world.call("token"))["generation"] >= 2
        assert before.provider.ledger.double_redemptions == 0


async def test_a_host_whose_clock_begins_in_1970_waits_for_time_without_hammering():
    """No certificate is valid then: nothing is served that may be dead; then time comes."""
    async with running(options=STRICT) as before:
        await before.login()
        await before.kill()
        async with running(before=before, boot_id="boot-2", offset=0.0) as world:
            world.replies.extend([NOT_YET_VALID] * 1000)
            for _ in range(60):
                with pytest.raises(Unavailable):
                    await world.call("token")
                await anyio.sleep(5)
            asked = len(world.requests)
            # With somebody always waiting five seconds are the longest pause, halved by the dice.
            assert asked <= 300 / 2.5 + 5
            state = world.account().state
            assert isinstance(state, Waiting)
            assert not state.in_doubt
            assert state.grant is not None
            world.replies.clear()
            world.offset = EPOCH
            await anyio.sleep(31)
            with suppress(SpotokendError):
                await world.call("token")
            await anyio.sleep(5)
            token = await world.call("token")
            assert token["expires_at"] == pytest.approx(world.wall() + HOUR, abs=60)
            assert world.account().state.grant.authorized_at == EPOCH
        assert [n.kind for n in world.notices if n.kind not in {"token", "degraded"}] == [
            "recovered"
        ]


async def test_a_login_made_in_1970_is_believed_to_be_as_old_as_it_says_and_serves():
    """Its end is long past by then: it is said, and the login goes on for as long as it works."""
    async with running(options=Options(auto_approve=True)) as world:
        world.offset = 0.0
        await world.login()
        world.offset = EPOCH
        await anyio.sleep(HOUR)
        assert (await world.call("token"))["generation"] == 2
        (account,) = (await world.call("status", account="main"))["accounts"]
        assert "has reached its end" in account["reason"]
        assert account["health"] == "ok"


async def test_after_a_suspend_nothing_dead_is_served_and_what_is_overdue_is_renewed():
    """Two hours with the lid closed; the first caller joins the refresh."""
    async with running(options=STRICT) as world:
        await world.login()
        await anyio.sleep(600)
        sleep_on(world, 2 * HOUR)
        token = await world.call("token")
        assert token["generation"] == 2
        assert token["expires_boot"] - world.boot() > 3500
        await anyio.sleep(31)
        assert world.clocks_moved == [0.0]


async def test_a_suspend_in_the_middle_of_a_refresh_leaves_a_doubt_or_a_token():
    """The line is dead when the host wakes up: in doubt, and told when it is tried again."""
    async with running(options=STRICT) as world:
        await world.login()
        await world.call("refresh")  # it is seen that it rotates
        await anyio.sleep(2000)
        fault = Fault(kind=Kind.CUT, served=False, seconds=20, count=1)
        world.provider.faults.add(fault)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(try_token, world)
            await anyio.sleep(5)
            sleep_on(world, HOUR)
        state = world.account().state
        assert isinstance(state, Waiting)
        assert state.in_doubt
        # The token has ended in the suspend: nothing is left that a second try could kill.
        await anyio.sleep(60)
        assert (await world.call("token"))["generation"] == 3
        assert world.provider.ledger.double_redemptions == 0


async def try_token(world: World) -> None:
    with suppress(SpotokendError):
        await world.call("token", min_ttl=1700.0)


async def test_a_back_off_ends_in_a_suspend_and_no_caller_waits_for_it_twice():
    """Retry-After counts the time asleep."""
    async with running(CONFIG) as world:
        await world.login()
        await anyio.sleep(2000)
        fault = Fault(kind=Kind.ANSWER, status=429, retry_after="7000", count=1)
        world.provider.faults.add(fault)
        await try_token(world)
        sleep_on(world, 2 * HOUR)
        await anyio.sleep(40)
        assert (await world.call("token"))["generation"] == 2


@pytest.mark.parametrize("jump", [-5 * HOUR, 5 * HOUR])
async def test_no_jump_of_civil_time_shortens_or_lengthens_a_back_off(jump):
    """It is kept on the other clock."""
    async with running(CONFIG) as world:
        await world.login()
        await anyio.sleep(2000)
        fault = Fault(kind=Kind.ANSWER, status=429, retry_after="3000", count=1)
        world.provider.faults.add(fault)
        await try_token(world)
        until = world.requests[-1] + 3000
        world.offset += jump
        await anyio.sleep_until(until - 1)
        assert len(world.requests) == 2
        await anyio.sleep(60)
        assert (await world.call("token"))["generation"] == 2
