"""The keeper in virtual time: fresh ahead of the end, one at a time, backed off, and never idle."""

from __future__ import annotations

import anyio
import pytest
import trio
from world import CONFIG, running, virtual_time

from spotokend.errors import Busy, LoginRequired, Misconfigured, SpotokendError, Unavailable
from spotokend.rules.account import Blocked, Fresh, Quarantined, Waiting
from spotokend.rules.secret import Secret
from spotokend.sandbox import Fault, Kind, Options, Rotation

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    """Hours pass in no time."""
    return virtual_time()


def user_options(**options) -> Options:
    return Options(auto_approve=True, **options)


async def test_a_day_of_tokens_is_always_fresh_with_no_more_refreshes_than_needed():
    """Asked each minute for a day: never less than the floor, about a refresh each 45 minutes."""
    async with running() as world:
        await world.login()
        for _ in range(24 * 60):
            token = await world.call("token")
            assert token["expires_boot"] - trio.current_time() >= 60
            await anyio.sleep(60)
        refreshes = len(world.requests) - 1
        assert 24 * 3600 / (3600 * 0.80) - 1 <= refreshes <= 24 * 3600 / (3600 * 0.70) + 1
        assert world.account().state.generation == refreshes + 1


async def test_a_min_ttl_within_half_the_life_is_met_by_a_refresh_when_needed():
    """Half the life is given to whoever asks for it; more is refused with the maximum."""
    async with running() as world:
        await world.login()
        await anyio.sleep(1900)
        token = await world.call("token", min_ttl=1800.0)
        assert token["expires_boot"] - trio.current_time() >= 1800
        assert token["generation"] == 2
        with pytest.raises(SpotokendError) as refused:
            await world.call("token", min_ttl=1801.0)
        assert refused.value.code == "bad_request"
        assert refused.value.details["maximum"] == 1800.0


async def test_a_thousand_callers_join_one_refresh():
    """Single flight: whoever comes while one is under way gets its result."""
    async with running() as world:
        await world.login()
        await anyio.sleep(2000)
        tokens = []

        async def ask() -> None:
            tokens.append(await world.call("token", min_ttl=1700.0))

        async with anyio.create_task_group() as tasks:
            for _ in range(1000):
                tasks.start_soon(ask)
        assert [token["generation"] for token in tokens] == [2] * 1000
        assert len(world.requests) == 2


async def test_a_caller_that_goes_away_cancels_only_its_waiting():
    """The refresh that it started goes on, and its answer is stored (openai/codex#26516)."""
    async with running() as world:
        await world.login()
        await anyio.sleep(2000)
        world.latency = 10.0
        with anyio.move_on_after(1):
            await world.call("token", min_ttl=1700.0)
        await anyio.sleep(20)
        assert world.account().state.generation == 2
        assert (await world.store.counters("main"))[1] == 2


async def test_of_a_thousand_reports_of_one_generation_one_refreshes():
    """``reject`` without a stampede; all get the next token."""
    async with running() as world:
        await world.login()
        tokens = []

        async def report() -> None:
            tokens.append(await world.call("reject", generation=1))

        async with anyio.create_task_group() as tasks:
            for _ in range(1000):
                tasks.start_soon(report)
        assert {token["generation"] for token in tokens} == {2}
        assert len(world.requests) == 2


async def test_a_report_of_an_older_generation_gets_the_present_token_without_a_request():
    """The reporter was late: nothing is wrong with the token that is served now."""
    async with running() as world:
        await world.login()
        await world.call("reject", generation=1)
        token = await world.call("reject", generation=1)
        assert token["generation"] == 2
        assert len(world.requests) == 2
        with pytest.raises(SpotokendError) as refused:
            await world.call("reject", generation=3)
        assert refused.value.code == "bad_request"


async def test_reports_beyond_the_limit_are_busy_and_take_the_token_from_nobody():
    """Three an hour are believed; more are an anomaly, and others are still served."""
    async with running() as world:
        await world.login()
        for generation in (1, 2, 3):
            await world.call("reject", generation=generation)
            await anyio.sleep(31)
        with pytest.raises(Busy) as refused:
            await world.call("reject", generation=4)
        assert refused.value.retry_after == pytest.approx(3600 - 93, abs=2)
        assert (await world.call("token"))["generation"] == 4
        assert len(world.events("anomaly")) == 1
        await anyio.sleep(refused.value.retry_after + 1)
        current = world.account().state.generation
        assert (await world.call("reject", generation=current))["generation"] == current + 1


async def test_a_forced_refresh_is_granted_once_in_thirty_seconds():
    """``refresh`` twice: the second is busy, and says when."""
    async with running() as world:
        await world.login()
        assert (await world.call("refresh"))["generation"] == 2
        with pytest.raises(Busy) as refused:
            await world.call("refresh")
        assert refused.value.retry_after == pytest.approx(30, abs=1)
        await anyio.sleep(refused.value.retry_after)
        assert (await world.call("refresh"))["generation"] == 3


async def test_an_outage_is_backed_off_probed_by_one_account_and_ends_by_itself():
    """Thirty seconds without the provider at lives of five seconds."""
    options = user_options(access_life=5.0)
    async with running(options=options) as world:
        for number, user in enumerate(("alice", "bob", "carol")):
            await world.login(f"account-{number}", user)
        fault = world.provider.faults.add(Fault(kind=Kind.ANSWER, status=503))
        began, asked = trio.current_time(), len(world.requests)
        refused: list[Unavailable] = []
        while trio.current_time() < began + 30:
            for number in range(3):
                try:
                    token = await world.call("token", account=f"account-{number}")
                    assert token["expires_boot"] > trio.current_time()
                except Unavailable as error:
                    assert error.retry_after is not None
                    refused.append(error)
            await anyio.sleep(0.25)
        assert refused
        during = world.requests[asked:]
        # The first failure closes the gate; from then on one account at a time asks.
        assert len(during) <= 3 + 30 / 1.0
        world.provider.faults.remove(fault)
        await anyio.sleep(5)
        for number in range(3):
            assert (await world.call("token", account=f"account-{number}"))["access_token"]
        assert {notice.kind for notice in world.notices} >= {"degraded", "recovered"}


async def test_an_outage_that_outlasts_the_token_is_told_once_and_so_is_its_end():
    """Quiet while the token lives long enough, then ``degraded``, and ``recovered`` at last."""
    async with running() as world:
        await world.login()
        fault = world.provider.faults.add(Fault(kind=Kind.ANSWER, status=503))
        await anyio.sleep(2900)
        assert [n.kind for n in world.notices if n.kind != "token"] == []
        await anyio.sleep(900)
        assert [n.kind for n in world.notices if n.kind != "token"] == ["degraded"]
        world.provider.faults.remove(fault)
        await anyio.sleep(61)
        assert [n.kind for n in world.notices if n.kind != "token"] == ["degraded", "recovered"]


async def test_the_sleep_taken_is_the_back_off_computed():
    """Between the probes of an outage lies what the gate says (hashicorp/vault#26382)."""
    async with running(options=user_options(access_life=600.0)) as world:
        await world.login()
        world.latency = 0.0
        world.provider.faults.add(Fault(kind=Kind.ANSWER, status=429))
        await anyio.sleep(420 + 35)
        asked = len(world.requests)
        gate = world.account().client.gate
        await anyio.sleep(gate.opens_at - trio.current_time() - 0.01)
        assert len(world.requests) == asked
        await anyio.sleep(0.02)
        assert len(world.requests) == asked + 1
        waits = [b - a for a, b in zip(world.requests[1:], world.requests[2:], strict=False)]
        assert waits == pytest.approx([0.5 * min(60, 2**n) for n in range(len(waits))], abs=0.01)


async def test_retry_after_is_a_floor_that_no_caller_shortens():
    """Somebody always waits, and still nothing is sent for the thirteen thousand seconds asked."""
    async with running() as world:
        await world.login()
        fault = Fault(kind=Kind.ANSWER, status=429, retry_after="13749", count=1)
        world.provider.faults.add(fault)
        await anyio.sleep(2700 + 1)
        assert len(world.requests) == 2
        until = world.requests[-1] + 13749
        while trio.current_time() < until - 60:
            try:
                await world.call("token", min_ttl=1000.0)
            except Unavailable as error:
                assert error.retry_after == pytest.approx(until - trio.current_time(), abs=2)
            await anyio.sleep(50)
        assert len(world.requests) == 2
        await anyio.sleep(120)
        assert (await world.call("token"))["generation"] == 2


async def test_a_refused_grant_is_asked_once_told_once_and_cured_by_a_login():
    """``invalid_grant``: one request, then none; the token is served to its end; ``login`` cures."""
    async with running() as world:
        await world.login()
        for grant in world.provider.ledger.grants.values():
            world.provider.ledger.revoke(grant, "a new password")
        await anyio.sleep(2700 + 1)
        state = world.account().state
        assert isinstance(state, Quarantined)
        assert len(world.requests) == 2
        await anyio.sleep(1790)
        assert len(world.requests) == 2
        with pytest.raises(LoginRequired) as refused:
            await world.call("token")
        assert refused.value.hint == "spotokend login main"
        status = (await world.call("status", account="main"))["accounts"][0]
        assert status["state"] == "quarantined"
        assert status["since"] == pytest.approx(world.wall() - 1790, abs=5)
        assert status["hint"] == "spotokend login main"
        assert [n.kind for n in world.notices].count("login_required") == 1
        await world.login()
        assert (await world.call("token"))["generation"] == 2
        assert isinstance(world.account().state, Fresh)


async def test_a_false_refusal_in_an_incident_is_probed_and_released_by_one_success():
    """Two of two accounts refused at once: probed after half an hour, by one of them."""
    options = user_options()
    async with running(options=options) as world:
        await world.login("one", "alice")
        await world.login("two", "bob")
        fault = world.provider.faults.add(
            Fault(kind=Kind.ANSWER, status=400, error="invalid_grant")
        )
        await anyio.sleep(2700 + 10)
        assert {type(a.state) for a in world.registry.accounts.values()} == {Quarantined}
        asked = len(world.requests)
        await anyio.sleep(1780)
        assert len(world.requests) == asked
        await anyio.sleep(60)
        assert len(world.requests) == asked + 1
        world.provider.faults.remove(fault)
        await anyio.sleep(7200)
        assert {type(a.state) for a in world.registry.accounts.values()} == {Fresh}


async def test_the_success_of_others_does_not_have_a_refused_grant_asked_again():
    """A revoked grant beside one that is renewed as usual: refused once, then left in peace."""
    async with running() as world:
        await world.login("one", "alice")
        await world.login("two", "bob")
        ledger = world.provider.ledger
        ledger.revoke(next(iter(ledger.grants.values())), "a new password")
        await anyio.sleep(2700 + 10)
        asked = len(world.requests)
        await world.call("refresh", account="two")
        await anyio.sleep(1700)
        assert len(world.requests) == asked + 1
        assert isinstance(world.account("one").state, Quarantined)
        assert isinstance(world.account("two").state, Fresh)


async def test_a_clients_own_token_is_there_before_anybody_asks():
    """Client credentials need no login: the first token is due at the start."""
    own = (
        CONFIG
        + """
[clients.machine]
client_id = "sandbox-secret-client"
flow = "client_credentials"
client_secret = { env = "UNUSED" }
authorize_url = "http://127.0.0.1:1/authorize"
token_url = "http://127.0.0.1:1/api/token"
"""
    )
    async with running(own, secrets={"machine": Secret("sandbox-client-secret")}) as world:
        await anyio.sleep(2)
        assert world.account("machine").state.generation == 1
        await anyio.sleep(3600)
        assert world.account("machine").state.generation == 2


async def test_a_refused_client_stops_all_its_accounts_until_a_reload():
    """``invalid_client``: nothing is sent for anybody of that client."""
    async with running() as world:
        await world.login("one", "alice")
        await world.login("two", "bob")
        fault = world.provider.faults.add(
            Fault(kind=Kind.ANSWER, status=400, error="invalid_client")
        )
        await anyio.sleep(3 * 3600)
        assert len(world.requests) == 3
        assert {type(a.state) for a in world.registry.accounts.values()} == {Blocked}
        with pytest.raises(Misconfigured):
            await world.call("token", account="one")
        world.provider.faults.remove(fault)
        await world.roster.reconfigure(world.config, {"pkce": None})
        assert (await world.call("token", account="one"))["generation"] == 2
        assert (await world.call("token", account="two"))["generation"] == 2


async def test_a_lost_answer_of_a_rotating_server_is_not_repeated_while_the_token_lives():
    """Strict by what was seen: the old refresh token would kill its successor."""
    options = user_options(rotation=Rotation.ALWAYS, revoke_family=True)
    async with running(options=options) as world:
        await world.login()
        await anyio.sleep(2750)  # the first refresh shows that the server rotates
        assert world.account().state.grant.rotation_seen
        world.provider.faults.add(Fault(kind=Kind.CUT, served=False, count=1))
        asked = len(world.requests)
        await anyio.sleep(2700)
        state = world.account().state
        assert isinstance(state, Waiting)
        assert state.in_doubt
        assert len(world.requests) == asked + 1
        assert (await world.call("token"))["generation"] == 2
        expires = state.access.expires_at
        await anyio.sleep(expires - 60 - trio.current_time() - 1)
        assert len(world.requests) == asked + 1
        await anyio.sleep(3)
        assert (await world.call("token"))["generation"] == 3


async def test_a_lost_answer_of_a_server_that_keeps_tokens_is_asked_again_soon():
    """Nothing can be used up, so nobody waits for a long time."""
    async with running() as world:
        await world.login()
        world.provider.faults.add(Fault(kind=Kind.CUT, served=True, count=1))
        await anyio.sleep(2700 + 10)
        assert world.account().state.generation == 2
        assert len(world.requests) == 3


async def test_a_retry_inside_a_known_grace_passes_a_gate_closed_by_back_off():
    """``rotation = "grace"``: what comes after the grace is lost, so this can't wait."""
    config = CONFIG + 'rotation = "grace"\nrotation_grace = 10\n'
    options = user_options(rotation=Rotation.ALWAYS, grace=10.0, revoke_family=True)
    async with running(config, options=options) as world:
        world.u = 0.999
        await world.login()
        await anyio.sleep(2000)
        world.provider.faults.add(Fault(kind=Kind.CUT, served=True, count=1))
        with pytest.raises(Unavailable):
            await world.call("token", min_ttl=1700.0)
        await anyio.sleep(10)
        assert world.account().state.generation == 2
        assert isinstance(world.account().state, Fresh)


async def test_on_demand_accounts_are_renewed_when_somebody_asks_and_not_before():
    """``schedule = "on_demand"``: a day of silence costs no request."""
    async with running(CONFIG + 'schedule = "on_demand"\n') as world:
        await world.login()
        await anyio.sleep(86_400)
        assert len(world.requests) == 1
        assert (await world.call("token"))["generation"] == 2
        assert len(world.requests) == 2


async def test_three_in_flight_then_six_then_eight_and_the_others_wait_their_turn():
    """The limit of one client's refreshes; whoever comes after them still gets a token."""
    users = [("alice", n) for n in range(20)]
    async with running(
        CONFIG.replace('identity_url = "http://127.0.0.1:1/v1/me"\n', 'identity_url = "none"\n')
    ) as world:
        for user, number in users:
            await world.login(f"account-{number}", user)
        await anyio.sleep(2000)
        world.latency = 5.0
        most: list[int] = []

        async def ask(number: int) -> None:
            assert (await world.call("token", account=f"account-{number}", min_ttl=1700.0))[
                "generation"
            ] == 2

        async with anyio.create_task_group() as tasks:
            for _, number in users:
                tasks.start_soon(ask, number)
            for _ in range(4):
                await anyio.sleep(1.0)
                most.append(world.registry.clients["pkce"].gate.in_flight)
                await anyio.sleep(4.0)
        assert most == [3, 6, 8, 3]
        assert world.registry.clients["pkce"].gate.in_flight == 0


async def test_a_suspend_is_noticed_and_what_is_overdue_is_spread():
    """Naps are short: a jump of the clocks re-evaluates everything, and tells the board."""
    async with running() as world:
        await world.login()
        world.offset += 7200
        await anyio.sleep(31)
        assert world.clocks_moved == [pytest.approx(7200, abs=1)]


async def test_an_idle_hour_wakes_the_keeper_at_most_three_times_a_minute():
    """The nap is all that wakes it."""
    async with running() as world:
        await world.login()
        await anyio.sleep(100)
        wakes = 0
        original = world.keeper._compare_clocks

        def counted(*clocks):
            nonlocal wakes
            wakes += 1
            return original(*clocks)

        world.keeper._compare_clocks = counted
        await anyio.sleep(1800)
        assert wakes <= 30 * 3


async def test_the_loop_shows_that_it_comes_round():
    """At once, whatever it sleeps for; and for nobody's sake any more once it has ended."""
    async with running() as world:
        await world.login()
        before = trio.current_time()
        await world.keeper.looks()
        assert trio.current_time() == before
        world.keeper.stop()
        await anyio.sleep(1)
        with anyio.fail_after(1):
            await world.keeper.looks()


async def test_a_loop_that_is_stuck_does_not_come_round():
    """Which is what the watchdog is there for."""
    async with running() as world:
        await world.login()
        world.keeping.cancel()
        await anyio.sleep(1)
        with anyio.move_on_after(60) as waited:
            await world.keeper.looks()
        assert waited.cancelled_caught


async def test_a_defect_in_one_refresh_is_told_and_costs_nobody_else_anything(monkeypatch):
    """The account is in doubt for a while, the daemon goes on."""
    async with running() as world:
        await world.login("one", "alice")
        await world.login("two", "bob")
        post = world._endpoint.post
        broken = [True]

        async def post_once(request):
            if broken.pop() if broken else False:
                raise LookupError("access-1")
            return await post(request)

        monkeypatch.setattr(world._endpoint, "post", post_once)
        await anyio.sleep(2700 + 0.5)
        assert world.account("two").state.generation == 2
        state = world.account("one").state
        assert isinstance(state, Waiting)
        assert state.in_doubt
        assert "defect" in state.reason
        assert len(world.events("defect")) == 1
        await anyio.sleep(5)
        assert world.account("one").state.generation == 2


async def test_who_queues_behind_those_in_flight_is_sent_away_by_a_stop():
    """And the stop waits for the three, not for ever."""
    async with running(
        CONFIG.replace('identity_url = "http://127.0.0.1:1/v1/me"', 'identity_url = "none"')
    ) as world:
        for number in range(9):
            await world.login(f"account-{number}")
        await anyio.sleep(2000)
        world.latency = 30.0
        refused = []

        async def ask(number: int) -> None:
            try:
                await world.call("token", account=f"account-{number}", min_ttl=1700.0)
            except Unavailable as error:
                refused.append(error)

        async with anyio.create_task_group() as tasks:
            for number in range(9):
                tasks.start_soon(ask, number)
            await anyio.sleep(1)
            world.keeper.stop()
        assert len(refused) == 6
    assert trio.current_time() < 2000 + 60


async def test_stopping_waits_for_the_refresh_under_way_and_saves_it():
    """SIGTERM in the middle of a refresh loses nothing."""
    async with running() as world:
        await world.login()
        await anyio.sleep(2000)
        world.latency = 20.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: world.call("token", min_ttl=1700.0))
            await anyio.sleep(1)
            world.keeper.stop()
    assert (await world.store.counters("main"))[1] == 2
