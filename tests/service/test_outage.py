"""Five minutes without the provider, fifty accounts of one client, somebody always waiting.

Whatever the outage looks like, few requests are sent, and soon after its end everybody has a token.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import anyio
import httpx
import pytest
import trio
from world import CONFIG, World, running, virtual_time

from spotokend.errors import SpotokendError
from spotokend.sandbox import Fault, Kind, Options, Rotation

pytestmark = pytest.mark.anyio

ACCOUNTS = [f"account-{number}" for number in range(50)]
MANY = CONFIG.replace('identity_url = "http://127.0.0.1:1/v1/me"', 'identity_url = "none"')
LIFE = 60.0
OUTAGE = 300.0
LATENCY = 1.0
"""Seconds that the provider takes for an answer: seven rounds of eight for all accounts."""

# The figures that are promised.
MOST_REQUESTS = 450
MOST_IN_A_SECOND = 5
MOST_IN_FLIGHT = 8
SECONDS_TO_RECOVER = 10.0


@pytest.fixture
def anyio_backend():
    """Minutes pass in no time."""
    return virtual_time()


FAULTS = {
    "down": Fault(kind=Kind.ANSWER, status=503),
    "slow down": Fault(kind=Kind.ANSWER, status=429),
    "a page": Fault(kind=Kind.ANSWER, status=403, body="html"),
    "a portal": Fault(kind=Kind.ANSWER, status=200, body="html"),
    "cut": Fault(kind=Kind.CUT),
    "no answer": Fault(kind=Kind.HANG),
}


@contextmanager
def outage(world: World, how: str) -> Iterator[None]:
    """Inside of it the provider can't be had."""
    if how == "no network":
        refused = httpx.ConnectError("nobody listens")
        world.replies = [refused] * 10_000
        yield
        world.replies.clear()
    else:
        number = world.provider.faults.add(FAULTS[how])
        yield
        world.provider.faults.remove(number)


async def insist(
    world: World, account: str, pause: float, dice: random.Random, got: dict[str, float]
) -> None:
    """Ask for the account's token again and again; note the first one after ``got`` was cleared."""
    while True:
        with suppress(SpotokendError):
            token = await world.call("token", account=account)
            assert token["expires_boot"] > trio.current_time()
            got.setdefault(account, trio.current_time())
        await anyio.sleep(pause * dice.uniform(0.5, 1.5))


def most_at_once(moments: list[float], seconds: float) -> int:
    """The most of ``moments`` that lie within so many seconds."""
    return max(
        (sum(1 for other in moments if 0 <= other - moment < seconds) for moment in moments),
        default=0,
    )


@pytest.mark.parametrize("how", ["no network", *FAULTS])
async def test_few_requests_while_it_lasts_and_soon_a_token_for_everybody(how):
    """450 requests and 5 in any second; 10 s after the first success all have one, 8 at a time."""
    dice = random.Random(how)
    async with running(MANY, options=options(), rand=dice.random) as world:
        for account in ACCOUNTS:
            await world.login(account)
        got: dict[str, float] = {}
        async with anyio.create_task_group() as clients:
            for account in ACCOUNTS:
                clients.start_soon(insist, world, account, 4.0, dice, got)
            clients.start_soon(insist, world, ACCOUNTS[0], 0.2, dice, {})
            await anyio.sleep(LIFE)
            with outage(world, how):
                begun = trio.current_time()
                await anyio.sleep(OUTAGE)
                during = [moment for moment in world.requests if moment >= begun]
                assert 300 / 70 <= len(during) <= MOST_REQUESTS
                assert most_at_once(during, 1.0) <= MOST_IN_A_SECOND
            world.latency = LATENCY
            got.clear()
            after = len(world.requests)
            await anyio.sleep(2 * SECONDS_TO_RECOVER)
            assert got.keys() == set(ACCOUNTS)
            assert max(got.values()) - min(got.values()) <= SECONDS_TO_RECOVER
            assert most_at_once(world.requests[after:], LATENCY) <= MOST_IN_FLIGHT
            clients.cancel_scope.cancel()


@pytest.mark.parametrize("how", ["no network", "down", "no answer"])
async def test_all_tokens_dead_and_everybody_asking_when_it_begins(how):
    """As after a night's sleep, on a train: also in the first second no more than five requests."""
    on_demand = MANY + 'schedule = "on_demand"\n'
    async with running(on_demand, options=options(), rand=random.Random(how).random) as world:
        for account in ACCOUNTS:
            await world.login(account)
        await anyio.sleep(2 * LIFE)
        world.latency = LATENCY
        begun = len(world.requests)
        with outage(world, how):
            async with anyio.create_task_group() as clients:
                for account in ACCOUNTS:
                    clients.start_soon(insist, world, account, 4.0, random.Random(account), {})
                await anyio.sleep(30)
                clients.cancel_scope.cancel()
        assert 0 < most_at_once(world.requests[begun:], 1.0) <= MOST_IN_A_SECOND


def options() -> Options:
    return Options(auto_approve=True, access_life=LIFE, rotation=Rotation.NEVER)
