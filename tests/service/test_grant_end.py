"""The end of a login: told in stages, once each, also over restarts; tried at last, and renewed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import anyio
import pytest
from world import CONFIG, World, running, virtual_time

from spotokend.errors import LoginRequired, SpotokendError
from spotokend.rules.account import Fresh, Quarantined
from spotokend.rules.notice import Level, Notice
from spotokend.rules.schedule import DAY
from spotokend.sandbox import Fault, Kind, Options, Rotation

pytestmark = pytest.mark.anyio

LIFE = 31 * DAY
RESTED = """
[timing]
nap = "5m"
"""
"""Each nap of a month costs, also in virtual time."""
MONTH = CONFIG + 'grant_life = "31d"\n' + RESTED
# Tokens of half a day: a month of them is not too much for a test.
ENDS = Options(auto_approve=True, access_life=43_200.0, grant_life=LIFE, rotation=Rotation.ALWAYS)

TWO_DAYS = MONTH.replace("31d", "2d")
SOON = replace(ENDS, grant_life=2 * DAY)


@pytest.fixture
def anyio_backend():
    """A month passes in no time."""
    return virtual_time()


def told(world: World) -> list[Notice]:
    return [notice for notice in world.notices if notice.kind == "grant_expiring"]


def stages(world: World) -> list[tuple[str, Level]]:
    return [(notice.message, notice.level) for notice in told(world)]


async def status(world: World) -> dict[str, object]:
    return (await world.call("status", account="main"))["accounts"][0]


async def test_the_end_is_told_at_each_stage_once():
    """30, 14, 7, 3 and 1 days before it, with the command; a warning from a week on."""
    async with running(MONTH, options=ENDS) as world:
        await world.login()
        began = world.wall()
        await anyio.sleep(30.9 * DAY)
        assert [level for _, level in stages(world)] == [Level.INFO] * 2 + [Level.WARNING] * 3
        left = [(began + LIFE - notice.at) / DAY for notice in told(world)]
        assert left == pytest.approx([30, 14, 7, 3, 1], abs=0.6)
        words = [message for message, _ in stages(world)]
        assert words[:4] == [f"the login ends in {days} days" for days in (30, 14, 7, 3)] or words[
            :4
        ] == [f"the login ends in {days:.0f} days" for days in left[:4]]
        assert {notice.hint for notice in told(world)} == {"spotokend login main"}


async def test_no_restart_tells_a_stage_again_and_none_that_was_slept_through():
    """Restarted every day; and once after three weeks in a drawer."""
    async with running(MONTH, options=ENDS) as world:
        await world.login()
        await anyio.sleep(1.6 * DAY)
        assert len(told(world)) == 1
        await world.kill()
        for _ in range(3):
            async with running(MONTH, before=world) as after:
                await anyio.sleep(DAY)
                assert told(after) == []
                await after.kill()
        await anyio.sleep(21 * DAY)
        async with running(MONTH, before=world) as after:
            await anyio.sleep(DAY / 2)
            assert [level for _, level in stages(after)] == [Level.WARNING]
            await anyio.sleep(DAY)
            assert len(told(after)) == 1


async def test_status_says_so_and_health_stays_what_it_is():
    """The reason and the cure from a month before the end; it serves as well as ever."""
    async with running(MONTH, options=ENDS) as world:
        await world.login()
        account = await status(world)
        assert (account["reason"], account["hint"], account["health"]) == (None, None, "ok")
        assert account["grant_expires_at"] == pytest.approx(world.wall() + LIFE, abs=1)
        await anyio.sleep(28 * DAY)
        account = await status(world)
        assert account["reason"] == "the login ends in 3 days"
        assert (account["hint"], account["health"]) == ("spotokend login main", "ok")
        assert (await world.call("status"))["daemon"]["health"] == "ok"


async def test_at_its_end_it_is_tried_and_refused_it_is_over():
    """One request, no probes; the words say that the days are over; the token is served to its end."""
    async with running(TWO_DAYS, options=SOON) as world:
        await world.login()
        await anyio.sleep(2 * DAY - 60)
        assert isinstance(world.account().state, Fresh)
        await anyio.sleep(DAY / 2)
        state = world.account().state
        assert isinstance(state, Quarantined)
        assert state.reason.startswith("the login's 2 days are over")
        assert (state.incident, state.probe_at) == (False, None)
        asked = len(world.requests)
        await anyio.sleep(2 * DAY)
        assert len(world.requests) == asked
        with pytest.raises(LoginRequired) as refused:
            await world.call("token")
        assert "the login's 2 days are over" in refused.value.message
        await world.login()
        assert isinstance(world.account().state, Fresh)


async def test_all_that_ended_in_the_same_hour_are_no_incident():
    """Two accounts that logged in together: most are refused at once, and rightly so."""
    async with running(TWO_DAYS, options=SOON) as world:
        await world.login("one", "alice")
        await world.login("two", "bob")
        await anyio.sleep(3 * DAY)
        for name in ("one", "two"):
            state = world.account(name).state
            assert isinstance(state, Quarantined)
            assert (state.incident, state.probe_at) == (False, None)


async def test_a_login_renews_while_the_old_one_serves():
    """Nobody who asks notices; the end is a month further on, and is told anew when it nears."""
    async with running(MONTH, options=ENDS) as world:
        await world.login()
        await anyio.sleep(29 * DAY)
        begun = await world.call("login_start", account="main")
        assert (await world.call("token"))["access_token"]
        address = world.agree(begun["url"])
        served = []

        async def ask() -> None:
            for _ in range(100):
                served.append(await world.call("token"))
                await anyio.sleep(0.01)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            tasks.start_soon(
                lambda: world.call("login_finish", login_id=begun["login_id"], redirect_url=address)
            )
        generations = [token["generation"] for token in served]
        assert generations == sorted(generations)
        assert len(set(generations)) == 2
        assert served[-1]["grant_expires_at"] == pytest.approx(world.wall() + LIFE, abs=5)
        assert (await status(world))["reason"] is None
        before = len(told(world))
        await anyio.sleep(DAY)
        assert len(told(world)) == before
        await anyio.sleep(DAY)
        assert len(told(world)) == before + 1


async def test_on_demand_it_is_told_when_it_is_used():
    """Nobody asked for weeks: the stage that is reached by then, once."""
    async with running(
        CONFIG + 'grant_life = "31d"\nschedule = "on_demand"\n' + RESTED, options=ENDS
    ) as world:
        await world.login()
        await anyio.sleep(26 * DAY)
        assert told(world) == []
        assert (await status(world))["reason"] == "the login ends in 5 days"
        await world.call("token")
        assert stages(world) == [("the login ends in 5 days", Level.WARNING)]
        await anyio.sleep(DAY)
        await world.call("token")
        assert len(told(world)) == 1


async def test_a_stage_is_told_with_the_first_success_after_an_outage():
    """It is the account's least trouble before."""
    async with running(MONTH, options=ENDS) as world:
        await world.login()
        await anyio.sleep(5 * DAY)
        before = len(told(world))
        fault = Fault(kind=Kind.ANSWER, status=429, retry_after="86400")
        outage = world.provider.faults.add(fault)
        await anyio.sleep(20 * DAY)
        assert len(told(world)) == before
        world.provider.faults.remove(outage)
        await anyio.sleep(2 * DAY)
        assert len(told(world)) == before + 1


@pytest.mark.parametrize("life", ["none", "180d"])
async def test_a_login_that_does_not_end_soon_is_left_in_peace(life):
    """Half a year, or a server whose logins never end: nothing in a month."""
    async with running(CONFIG + f'grant_life = "{life}"\n' + RESTED, options=ENDS) as world:
        await world.login()
        await anyio.sleep(29 * DAY)
        assert told(world) == []
        assert (await status(world))["reason"] is None


async def test_a_clock_that_was_wrong_for_a_while_makes_no_stage_unsaid():
    """Set a month ahead and back again: what it told then is told when it is true."""
    async with running(MONTH, options=ENDS) as world:
        await world.login()
        world.offset += 27 * DAY
        await anyio.sleep(301)
        with suppress(SpotokendError):
            await world.call("refresh")
        assert stages(world) == [("the login ends in 4 days", Level.WARNING)]
        world.offset -= 27 * DAY
        await anyio.sleep(24.5 * DAY)
        assert [level for _, level in stages(world)][1:] == [
            Level.INFO,
            Level.INFO,
            Level.WARNING,
        ]
