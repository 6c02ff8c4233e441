"""No restart resets a pause: crash loops and outages at the same time ask as rarely as one daemon."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import anyio
import pytest
import trio
from world import CONFIG, EPOCH, World, running, virtual_time

from spotokend.errors import SpotokendError
from spotokend.rules.account import Blocked, Fresh, Quarantined
from spotokend.rules.secret import Secret
from spotokend.sandbox import Fault, Kind, Options, Rotation

pytestmark = pytest.mark.anyio

MANY = CONFIG.replace('identity_url = "http://127.0.0.1:1/v1/me"', 'identity_url = "none"')
"""Any number of accounts for one user of the sandbox."""
OWN = """
[clients.own]
client_id = "sandbox-secret-client"
flow = "client_credentials"
client_secret = { env = "UNUSED" }
token_url = "http://127.0.0.1:1/api/token"
"""
SECRET = {"own": Secret("sandbox-client-secret")}
STRICT = Options(auto_approve=True, rotation=Rotation.ALWAYS, revoke_family=True)


@pytest.fixture
def anyio_backend():
    """Hours pass in no time."""
    return virtual_time()


async def log_in(world: World, accounts: int) -> None:
    for number in range(accounts):
        await world.login(f"account-{number}")


async def ask(world: World, seconds: float) -> None:
    """Somebody wants a token of every account, all the time."""
    ends = trio.current_time() + seconds
    while trio.current_time() < ends:
        for name in list(world.registry.accounts):
            with suppress(SpotokendError), anyio.move_on_after(0.2):
                await world.call("token", account=name)
        await anyio.sleep(1)


async def rest(_world: World, seconds: float) -> None:
    """Nobody asks for anything."""
    await anyio.sleep(seconds)


async def crash_loop(
    world: World,
    *,
    rounds: int,
    seconds: float,
    during: Callable[[World, float], Awaitable[None]] = rest,
    **options: object,
) -> list[float]:
    """One daemon after the other, each killed after so long; when each request came."""
    asked: list[float] = []
    for _ in range(rounds):
        async with running(before=world, **options) as after:
            await during(after, seconds)
            await after.kill()
        asked += after.requests
    return asked


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("seconds", [5.0, 45.0])
async def test_a_crash_loop_in_an_outage_goes_on_with_the_back_off_and_with_one_probe(
    status, seconds
):
    """Five minutes, six accounts: half a minute between two requests, as without a crash."""
    async with running(MANY) as world:
        await log_in(world, 6)
        await anyio.sleep(2500)
        outage = world.provider.faults.add(Fault(kind=Kind.ANSWER, status=status))
        await anyio.sleep(260)
        before = world.requests[-5:]
        await world.kill()
        rounds = int(300 / seconds)
        asked = await crash_loop(world, rounds=rounds, seconds=seconds, config=MANY)
        # A probe each half minute, as long as the dice show one half; at starts they are spread.
        assert 0 < len(asked) <= 300 / 30 + 1
        gaps = [b - a for a, b in zip([before[-1], *asked], asked, strict=False)]
        assert min(gaps) > 15
        world.provider.faults.remove(outage)
        async with running(MANY, before=world) as after:
            await anyio.sleep(120)
            assert {type(a.state) for a in after.registry.accounts.values()} == {Fresh}


async def test_a_crash_loop_with_somebody_always_waiting_asks_no_more_than_one_daemon():
    """Five seconds are the longest pause then: a probe in 2.5 s, if the dice show one half."""
    async with running(MANY) as world:
        await log_in(world, 12)
        await anyio.sleep(3700)
        await world.kill()
        world.provider.faults.add(Fault(kind=Kind.ANSWER, status=503))
        await anyio.sleep(3700)
        asked = await crash_loop(world, rounds=40, seconds=7.5, during=ask, config=MANY)
        assert len(asked) <= 300 / 2 + 8
        most = max(sum(1 for at in asked if begin <= at < begin + 5) for begin in asked)
        assert most <= 8


async def test_what_one_account_was_asked_to_wait_holds_for_all_after_a_restart():
    """``Retry-After`` of an hour: the others are due, and nothing is sent."""
    async with running(MANY) as world:
        await log_in(world, 3)
        await anyio.sleep(2500)
        fault = Fault(kind=Kind.ANSWER, status=429, retry_after="3600", count=1)
        world.provider.faults.add(fault)
        with suppress(SpotokendError):
            await world.call("refresh", account="account-1")
        until = trio.current_time() + 3600
        await world.kill()
        asked = await crash_loop(world, rounds=35, seconds=100, during=ask, config=MANY)
        assert asked == []
        async with running(MANY, before=world) as after:
            (told,) = (await after.call("status"))["clients"].values()
            assert told["gate"]["opens_at"] >= after.wall() + until - trio.current_time()
            await anyio.sleep(until - trio.current_time() + 60)
            assert len(after.requests) == 3


async def test_what_was_asked_for_by_a_wrong_clock_is_no_pause_of_years():
    """Another boot, and civil time at its beginning: one try, by one account."""
    async with running(MANY) as world:
        await log_in(world, 3)
        await anyio.sleep(2500)
        fault = Fault(kind=Kind.ANSWER, status=429, retry_after="3600", count=1)
        world.provider.faults.add(fault)
        with suppress(SpotokendError):
            await world.call("refresh", account="account-1")
        await world.kill()
        async with running(MANY, before=world, boot_id="boot-2", offset=0.0) as after:
            await anyio.sleep(120)
            assert {type(a.state) for a in after.registry.accounts.values()} == {Fresh}


@pytest.mark.parametrize("error", ["invalid_client", "invalid_request"])
async def test_a_refused_client_is_asked_about_once_a_minute_at_most_in_a_crash_loop(error):
    """Five minutes of it, four accounts, somebody always waiting: not once a start."""
    async with running(MANY) as world:
        await log_in(world, 4)
        await anyio.sleep(2500)
        fault = world.provider.faults.add(Fault(kind=Kind.ANSWER, status=400, error=error))
        await anyio.sleep(1000)
        assert {type(a.state) for a in world.registry.accounts.values()} == {Blocked}
        await world.kill()
        asked = await crash_loop(world, rounds=60, seconds=5.0, during=ask, config=MANY)
        assert 0 < len(asked) <= 5 + 1
        world.provider.faults.remove(fault)
        async with running(MANY, before=world) as after:
            await anyio.sleep(120)
            assert {type(a.state) for a in after.registry.accounts.values()} == {Fresh}


async def killed_while_asking(
    world: World, config: str, during: float, seconds: float = 600.0, **options: object
) -> list[float]:
    """A crash loop of ten minutes or less: each daemon is killed with the answer to its request on the way.

    So nothing can be written of how that ended; ``during`` is how long callers wait in each round.
    """
    began, asked = trio.current_time(), []
    while trio.current_time() < began + seconds:
        async with running(config, before=world, **options) as after:
            after.latency = 30.0
            ends = trio.current_time() + 60
            while not after.requests and trio.current_time() < ends:
                await (ask(after, during) if during else anyio.sleep(1))
            await after.kill()
        asked += after.requests
    return asked


@pytest.mark.parametrize("accounts", [1, 4])
async def test_a_crash_loop_that_dies_of_its_own_requests_backs_off(accounts):
    """1, 2, 4 … 60 s by the tries that it has written, halved by the dice; one account at a time."""
    async with running(MANY) as world:
        await log_in(world, accounts)
        await world.kill()
        await anyio.sleep(3700)
        asked = await killed_while_asking(world, MANY, during=0)
        # In the first two rounds all of them are on their way: a single crash is an accident.
        assert 5 <= len(asked) <= 3 * accounts + 600 / 30 + 12
        # The gate lets any of those go that are due, so one may still be at its short pauses late.
        late = [at for at in asked if at > asked[-1] - 300]
        assert len(late) <= 300 / 30 + 4 * (accounts - 1)
        if accounts == 1:
            assert min(b - a for a, b in itertools.pairwise(asked[-8:])) > 10


async def test_an_account_in_doubt_backs_off_in_it_whoever_waits():
    """Each try may use the refresh token up: nobody hastens that."""
    async with running(MANY) as world:
        await log_in(world, 1)
        await world.kill()
        await anyio.sleep(3700)
        asked = await killed_while_asking(world, MANY, during=1.0)
        assert 5 <= len(asked) <= 600 / 30 + 12


@pytest.mark.parametrize(("during", "pause"), [(0, 10), (1.0, 2)], ids=["nobody", "somebody"])
async def test_so_does_a_client_that_presents_no_grant(during, pause):
    """It is never in doubt; with somebody waiting five seconds are its longest pause, as ever."""
    async with running(OWN, secrets=SECRET) as world:
        await world.call("token")
        await world.kill()
        await anyio.sleep(3700)
        asked = await killed_while_asking(world, OWN, during, seconds=200.0, secrets=SECRET)
        assert min(b - a for a, b in itertools.pairwise(asked[-4:])) > pause
        async with running(OWN, secrets=SECRET, before=world) as after:
            await anyio.sleep(120)
            assert isinstance(after.account("own").state, Fresh)


async def test_a_restart_after_a_long_pause_waits_for_no_probe():
    """The outage is long over: two callers of two accounts are both served at once."""
    async with running(MANY) as world:
        await log_in(world, 2)
        await anyio.sleep(2500)
        outage = world.provider.faults.add(Fault(kind=Kind.ANSWER, status=503))
        await anyio.sleep(400)
        assert world.registry.clients["pkce"].gate.failures > 0
        await world.kill()
        world.provider.faults.remove(outage)
        await anyio.sleep(7200)
        async with running(MANY, before=world) as after:
            async with anyio.create_task_group() as tasks:
                for name in list(after.registry.accounts):
                    tasks.start_soon(lambda name=name: after.call("token", account=name))
            assert len(after.requests) == 2


async def test_the_probes_of_an_incident_go_on_as_one_daemon_would_make_them():
    """Four accounts, a restart each fifty minutes for two days: four probes, not four each."""
    async with running(MANY) as world:
        await log_in(world, 4)
        fault = world.provider.faults.add(
            Fault(kind=Kind.ANSWER, status=400, error="invalid_grant")
        )
        await anyio.sleep(2720)
        assert {type(a.state) for a in world.registry.accounts.values()} == {Quarantined}
        refused = trio.current_time()
        await world.kill()
        asked = await crash_loop(world, rounds=60, seconds=3000.0, config=MANY)
        waits = [at - refused for at in asked]
        assert len(asked) <= 5
        assert waits[0] == pytest.approx(1800, abs=60)
        assert waits[1] == pytest.approx(7200, abs=700)
        world.provider.faults.remove(fault)
        assert world.provider.ledger.double_redemptions == 0


async def test_a_refusal_is_judged_by_what_happened_before_the_restart():
    """Two of two refused within ten minutes, a restart between: that is an incident."""
    async with running(MANY) as world:
        await log_in(world, 2)
        for account in list(world.registry.accounts.values()):
            grant = replace(account.state.grant, authorized_at=None)  # its youth tells nothing
            state = replace(account.state, grant=grant)
            await world.vault.put(account.owner, state)
        await world.kill()
        async with running(MANY, before=world) as after:
            after.provider.faults.add(Fault(kind=Kind.ANSWER, status=400, error="invalid_grant"))
            with suppress(SpotokendError):
                await after.call("refresh", account="account-0")
            state = after.account("account-0").state
            assert (type(state), state.incident) == (Quarantined, False)
            await after.kill()
        await anyio.sleep(60)
        async with running(MANY, before=world) as after:
            with suppress(SpotokendError):
                await after.call("refresh", account="account-1")
            assert after.account("account-1").state.incident
            assert len(after.requests) == 1


async def test_an_intent_that_a_crash_left_open_on_a_strict_server_closes_the_gate_for_nobody():
    """That account waits for its hour; the others go on after a moment."""
    async with running(MANY, options=STRICT) as world:
        await log_in(world, 2)
        for name in list(world.registry.accounts):
            await world.call("refresh", account=name)  # it is seen that it rotates
        await anyio.sleep(2000)
        world.latency = 30.0
        with anyio.move_on_after(1):
            await world.call("token", account="account-0", min_ttl=1700.0)
        await world.kill()
        async with running(MANY, before=world) as after:
            await anyio.sleep(5)
            token = await after.call("token", account="account-1", min_ttl=1700.0)
            assert token["generation"] == 3
            assert (await after.call("token", account="account-0"))["generation"] == 2
            assert len(after.requests) == 1
        assert world.provider.ledger.double_redemptions == 0


async def test_an_account_that_nobody_asks_for_is_not_renewed_by_restarts():
    """``on_demand``: twenty starts, no request."""
    config = MANY + 'schedule = "on_demand"\n'
    async with running(config) as world:
        await log_in(world, 2)
        await world.kill()
        assert await crash_loop(world, rounds=20, seconds=600.0, config=config) == []


async def test_forced_refreshes_are_limited_within_one_run_alone():
    """A restart forgets them: each takes a person or a program that asks, and brings a token."""
    async with running() as world:
        await world.login()
        await world.call("refresh")
        await world.kill()
        async with running(before=world, offset=EPOCH) as after:
            assert (await after.call("refresh"))["generation"] == 3
