"""Starts and reloads: no grant is lost, asked for twice, or sent to another registration."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from random import Random

import anyio
import httpx
import pytest
import trio
from stubborn_store import FULL, StubbornStore
from world import CONFIG, EPOCH, World, running, virtual_time

from spotokend.adapters.store.base import StoreError, aside
from spotokend.errors import LoginRequired, SpotokendError, Unavailable
from spotokend.rules.account import Blocked, Fresh, NeedsLogin, Quarantined, Sealed, Waiting
from spotokend.rules.config.parse import parse
from spotokend.rules.secret import Secret
from spotokend.sandbox import Fault, Kind, Options, Rotation
from spotokend.service.roster import CHANGED, GONE

pytestmark = pytest.mark.anyio

STRICT = Options(auto_approve=True, rotation=Rotation.ALWAYS, revoke_family=True)
OTHER_ID = CONFIG.replace("sandbox-pkce-client", "sandbox-secret-client")
TWO = CONFIG + OTHER_ID.replace("clients.pkce", "clients.second")
OWN = """
[clients.own]
client_id = "sandbox-secret-client"
flow = "client_credentials"
client_secret = { env = "UNUSED" }
token_url = "http://127.0.0.1:1/api/token"
"""
SECRET = Secret("sandbox-client-secret")


@pytest.fixture
def anyio_backend():
    """Hours pass in no time."""
    return virtual_time()


def section(client: str, name: str = "main") -> str:
    return f'[accounts.{name}]\nclient = "{client}"\n'


async def reload(world: World, text: str) -> None:
    config = parse(text)
    secrets = {
        name: SECRET if "secret" in client.client_id else None
        for name, client in config.clients.items()
    }
    await world.roster.reconfigure(config, secrets)


async def try_token(world: World, **arguments) -> None:
    with suppress(SpotokendError):
        await world.call("token", **arguments)


# --- starts


async def test_a_good_stored_token_is_served_without_a_request():
    """The next daemon, in the same boot: the same token, the same end, the same moment it is due."""
    async with running() as before:
        await before.login()
        token = await before.call("token")
        due = before.account().state.due_at
        await anyio.sleep(600)
        await before.kill()
        async with running(before=before) as world:
            assert isinstance(world.account().state, Sealed)
            assert await world.call("token") == token
            assert world.account().state.due_at == due
            assert world.requests == []


async def test_after_another_boot_what_is_left_of_the_token_counts_by_civil_time():
    """CLOCK_BOOTTIME began anew; two thirds of the life are over."""
    async with running() as before:
        await before.login()
        await before.kill()
        await anyio.sleep(2400)
        async with running(before=before, boot_id="boot-2", booted=2390.0) as world:
            token = await world.call("token")
            assert token["expires_boot"] == pytest.approx(1200 + 10, abs=1)
            assert token["expires_at"] == pytest.approx(EPOCH + 3600, abs=1)
            assert world.requests == []


async def test_with_a_clock_before_the_issue_a_stored_token_is_not_served():
    """Another boot, and civil time in the past: renewed at once rather than served for too long."""
    async with running() as before:
        await before.login()
        await before.kill()
        async with running(before=before, boot_id="boot-2", offset=EPOCH - 86_400) as world:
            assert (await world.call("token"))["generation"] == 2
            assert len(world.requests) == 1


async def test_an_expired_token_is_never_served_by_the_next_daemon():
    """It was away for too long; and the provider is, too."""
    async with running() as before:
        await before.login()
        await before.kill()
        await anyio.sleep(3601)
        async with running(before=before) as world:
            world.replies.extend(httpx.ConnectError("no network") for _ in range(9))
            with pytest.raises(Unavailable):
                await world.call("token")


async def test_what_is_overdue_at_a_start_is_spread_over_thirty_seconds():
    """A hundred accounts after a long stop don't ask in the same instant."""
    identity = 'identity_url = "http://127.0.0.1:1/v1/me"'
    config = CONFIG.replace(identity, 'identity_url = "none"')
    async with running(config) as before:
        for number in range(20):
            await before.login(f"account-{number}")
        await before.kill()
        await anyio.sleep(86_400)
        began = trio.current_time()
        async with running(config, before=before, rand=Random(1).random) as world:
            await anyio.sleep(40)
        waits = [at - began for at in world.requests]
        assert len(waits) == 20
        assert 20 < max(waits) <= 30
        assert len({round(wait) for wait in waits}) > 10


async def test_an_intent_that_a_crash_left_open_is_doubt():
    """Killed while the answer was on its way: a server that rotates isn't asked too early."""
    async with running(options=STRICT) as before:
        await before.login()
        await before.call("refresh")  # it is seen that it rotates
        await anyio.sleep(2000)
        before.latency = 30.0
        with anyio.move_on_after(1):
            await before.call("token", min_ttl=1700.0)
        await before.kill()
        async with running(before=before) as world:
            token = await world.call("token")
            assert token["generation"] == 2
            state = world.account().state
            assert isinstance(state, Waiting)
            assert (state.in_doubt, state.tries) == (True, 1)
            await anyio.sleep_until(state.access.expires_at - 61)
            assert world.requests == []
            await anyio.sleep(3)
            assert len(world.requests) == 1


async def test_a_quarantine_survives_and_nobody_is_asked_again():
    """The refusal, its reason and since when; and the plan of its probes."""
    async with running() as before:
        await before.login()
        before.provider.faults.add(Fault(kind=Kind.ANSWER, status=400, error="invalid_grant"))
        await anyio.sleep(2710)
        was = before.account().state
        assert isinstance(was, Quarantined)
        await before.kill()
        for _ in range(5):  # a crash loop
            async with running(before=before) as world:
                await anyio.sleep(120)
                await world.call("status")
                state = world.account().state
                assert isinstance(state, Quarantined)
                assert (state.reason, state.since, state.probe_at) == (
                    was.reason,
                    was.since,
                    was.probe_at,
                )
                assert world.requests == []
                await world.kill()


async def test_a_back_off_survives():
    """Retry-After of hours is no shorter for a restart."""
    async with running() as before:
        await before.login()
        before.provider.faults.add(
            Fault(kind=Kind.ANSWER, status=429, retry_after="13749", count=1)
        )
        await anyio.sleep(2701)
        until = before.requests[-1] + 13_749
        await before.kill()
        async with running(before=before) as world:
            with pytest.raises(Unavailable) as refused:
                await world.call("token", min_ttl=1000.0)
            assert refused.value.retry_after == pytest.approx(until - trio.current_time(), abs=2)
            await anyio.sleep_until(until - 1)
            assert world.requests == []
            await anyio.sleep(60)
            assert (await world.call("token"))["generation"] == 2


async def test_a_row_that_was_tampered_with_is_blocked_and_kept():
    """Neither asked for nor overwritten; ``login`` is the cure that is told."""
    async with running() as before:
        await before.login()
        await before.kill()
        row = await before.store.load("main")
        damaged = replace(row, sealed=row.sealed[:-1] + bytes([row.sealed[-1] ^ 1]))
        before.store._rows["", "main"] = damaged
        async with running(before=before) as world:
            with pytest.raises(SpotokendError) as refused:
                await world.call("token")
            assert refused.value.code == "misconfigured"
            assert refused.value.hint == "spotokend login main"
            await anyio.sleep(86_400)
            await reload(world, CONFIG)
            assert isinstance(world.account().state, Blocked)
            assert await world.store.load("main") == damaged
            assert world.requests == []
            await world.login()
            assert (await world.call("token"))["generation"] == 2


async def test_a_row_whose_client_is_not_configured_waits_in_the_store():
    """A start with another configuration: told in the log, and nothing is lost."""
    other = CONFIG.replace("clients.pkce", "clients.renamed")
    async with running() as before:
        await before.login()
        await before.kill()
        async with running(other, before=before) as world:
            assert world.registry.accounts == {}
            assert [fields["words"] for fields in world.events("client_gone")] == [GONE]
            await reload(world, CONFIG)
            assert (await world.call("token"))["generation"] == 1


async def test_a_client_edited_between_two_starts_gets_no_grant_of_the_old_one():
    """Put aside at the start, and back at the start after the edit is undone."""
    async with running() as before:
        await before.login()
        await before.kill()
        async with running(OTHER_ID, before=before, secrets={"pkce": SECRET}) as world:
            assert world.account().state.reason == CHANGED
            await anyio.sleep(10_000)
            assert world.requests == []
            await world.kill()
        async with running(before=before) as world:
            assert (await world.call("token"))["generation"] == 2


# --- clients of their own


async def test_a_client_with_its_own_tokens_is_an_account_unless_one_names_it():
    """Nobody can log in there, so it would never come into being otherwise."""
    async with running(OWN, secrets={"own": SECRET}) as world:
        assert list(world.registry.accounts) == ["own"]
        assert (await world.call("token"))["generation"] == 1
        await reload(world, OWN)
        assert list(world.registry.accounts) == ["own"]
    async with running(OWN + section("own", "robot"), secrets={"own": SECRET}) as world:
        assert list(world.registry.accounts) == ["robot"]
        assert (await world.call("token"))["generation"] == 1
    async with running(CONFIG + OWN + section("pkce", "own"), secrets={"own": SECRET}) as world:
        assert {account.client.config.name for account in world.registry.accounts.values()} == {
            "pkce"
        }


async def test_a_client_of_its_own_goes_with_its_section_and_comes_back_with_it():
    """Its token waits in the store."""
    async with running(CONFIG + OWN, secrets={"own": SECRET}) as world:
        await world.call("token")
        await reload(world, CONFIG)
        assert world.registry.accounts == {}
        await anyio.sleep(60)
        await reload(world, CONFIG + OWN)
        assert (await world.call("token"))["generation"] == 1
        assert len(world.requests) == 1


# --- reloads


async def test_a_client_added_and_removed_leaves_the_others_alone():
    """No account of another client notices; those of the removed one wait in the store."""
    async with running() as world:
        await world.login()
        state = world.account().state
        await reload(world, TWO)
        await world.login("other", "bob", client="second")
        await reload(world, CONFIG)
        assert world.account().state is state
        assert list(world.registry.accounts) == ["main"]
        assert list(world.registry.clients) == ["pkce"]
        await reload(world, TWO)
        assert (await world.call("token", account="other"))["generation"] == 1
        assert len(world.requests) == 2


@pytest.mark.parametrize("sections", ["", section("pkce")], ids=["no section", "a section"])
async def test_an_undone_edit_of_the_client_brings_the_grant_back(sections):
    """Another client id: the login is asked for; the old id again: the old token serves."""
    async with running(CONFIG + sections) as world:
        await world.login()
        token = await world.call("token")
        await reload(world, OTHER_ID + sections)
        with pytest.raises(LoginRequired):
            await world.call("token")
        await anyio.sleep(100)
        await reload(world, CONFIG + sections)
        assert (await world.call("token"))["access_token"] == token["access_token"]
        await anyio.sleep(3000)
        assert (await world.call("token"))["generation"] == 2
        assert len(world.requests) == 2


async def test_generations_go_on_over_edits_and_logins_there_and_back():
    """No number ever names two tokens."""
    named: dict[int, str] = {}

    async def take(world: World) -> None:
        token = await world.call("token", account="main")
        generation = token["generation"]
        assert named.setdefault(generation, token["access_token"]) == token["access_token"]

    config = CONFIG + section("pkce")
    other = OTHER_ID + section("pkce")
    async with running(config) as world:
        await world.login()
        await take(world)
        await reload(world, other)
        await world.login()
        await take(world)
        await world.call("refresh")
        await take(world)
        await reload(world, config)
        await take(world)
        await anyio.sleep(40)
        await world.kill()
        async with running(config, before=world) as after:
            await take(after)
            await after.call("refresh")
            await take(after)
            await reload(after, other)
            await take(after)
    assert len(named) == 4


async def test_a_login_at_the_new_registration_does_not_cost_the_old_one():
    """Both clients under other names and ids, logged in at each: each comes back with its own."""
    second = OTHER_ID.replace("clients.pkce", "clients.second")
    async with running() as world:
        await world.login()
        first = await world.call("token")
        await reload(world, second)
        await world.login()
        await reload(world, CONFIG)
        assert (await world.call("token"))["access_token"] == first["access_token"]
        await reload(world, second)
        assert (await world.call("token"))["generation"] == 2


async def test_no_refresh_token_is_sent_to_another_registration():
    """The reload comes when a refresh is due, and the disk is slow at every step."""
    store = StubbornStore()
    presented = []
    async with running(store=store) as world:
        await world.login()
        await anyio.sleep(2699)  # due in a second, in the midst of it
        deliver = world.provider.handle

        def noted(request):
            if request.path == "/api/token":
                presented.append(request.form().get("client_id"))
            return deliver(request)

        world.provider.handle = noted
        store.slow = dict.fromkeys(("scan", "load", "put", "delete", "begin"), 1.0)
        await reload(world, OTHER_ID)
        await anyio.sleep(600)
        assert presented == []
        assert await store.load("main") is None
        assert await store.slots(aside(parse(CONFIG).clients["pkce"].fingerprint)) == ["main"]


@pytest.mark.parametrize(
    "edited", [OTHER_ID, CONFIG.replace("clients.pkce", "clients.renamed")], ids=["id", "name"]
)
async def test_a_refresh_under_way_is_finished_under_the_configuration_it_began_with(edited):
    """The rotated token comes after the reload was asked for, and is there when it is undone."""
    async with running(options=STRICT) as world:
        await world.login()
        await anyio.sleep(2000)
        world.latency = 20.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(try_token, world)
            tasks.start_soon(lambda: try_token(world, min_ttl=1700.0))
            await anyio.sleep(1)
            await reload(world, edited)
        world.latency = 0.05
        await reload(world, CONFIG)
        assert (await world.call("token"))["generation"] == 2
        await anyio.sleep(3000)
        assert (await world.call("token"))["generation"] == 3
        assert world.provider.ledger.double_redemptions == 0


async def test_a_reload_that_would_lose_an_unsaved_answer_is_refused_whole():
    """The disk is full and the grant only in memory: nothing is applied until it is on disk."""
    store = StubbornStore()
    async with running(store=store, options=STRICT) as world:
        await world.login()
        await anyio.sleep(2000)
        store.troubles["commit"] = FULL
        await world.call("token", min_ttl=1700.0)
        config = world.registry.config
        with pytest.raises(Unavailable) as refused:
            await reload(world, OTHER_ID)
        assert "main is not on disk yet" in refused.value.message
        assert world.registry.config is config
        await reload(world, CONFIG + "rotation_grace = 20\n")  # this one concerns no grant
        store.troubles.clear()
        await anyio.sleep(6)
        await reload(world, OTHER_ID)
        await reload(world, CONFIG)
        assert (await world.call("token"))["generation"] == 2


@pytest.mark.parametrize("existing", [False, True], ids=["new client", "existing client"])
async def test_an_account_moved_to_another_client_needs_a_login_there(existing):
    """Undone, it has its old grant again."""
    async with running((TWO if existing else CONFIG) + section("pkce")) as world:
        await world.login()
        await reload(world, TWO + section("second"))
        account = world.account()
        assert account.client.config.name == "second"
        assert isinstance(account.state, NeedsLogin)
        assert account.state.reason == CHANGED
        await world.login()
        await reload(world, TWO + section("pkce"))
        assert (await world.call("token"))["generation"] == 1
        assert world.account().client.config.name == "pkce"


async def test_an_account_moved_to_a_client_that_is_registered_alike_keeps_its_grant():
    """Only the name of the client is another; what stood before the old one's gate goes on."""
    alike = CONFIG + CONFIG.replace("clients.pkce", "clients.alike")
    async with running(alike + section("pkce")) as world:
        await world.login()
        world.provider.faults.add(Fault(kind=Kind.ANSWER, status=429, retry_after="600", count=1))
        await anyio.sleep(2701)
        await reload(world, alike + section("alike"))
        assert world.account().client.config.name == "alike"
        assert (await world.call("token"))["generation"] == 1
        await anyio.sleep(620)
        assert (await world.call("token"))["generation"] == 2


async def test_a_due_account_before_a_closed_gate_goes_on_under_the_new_name_of_its_client():
    """The old client is gone with its queue: nobody else would ever look at the account again."""
    config = TWO + section("pkce") + section("pkce", "other")
    moved = config.replace("pkce]", "alike]").replace('"pkce"', '"alike"')
    async with running(config) as world:
        await world.login("main", "alice")
        await anyio.sleep(5)
        await world.login("other", "bob")
        world.provider.faults.add(
            Fault(kind=Kind.ANSWER, user="alice", status=429, retry_after="600", count=1)
        )
        await anyio.sleep(2710)
        assert "other" in world.registry.clients["pkce"].parked
        await reload(world, moved)
        await anyio.sleep(700)
        assert world.account("other").state.generation == 2
        assert world.account("main").state.generation == 2


async def test_changed_scopes_and_addresses_keep_the_grant():
    """The user is told to log in for more; nothing else happens."""
    async with running() as world:
        await world.login()
        state = world.account().state
        edited = CONFIG.replace("user-read-private", "streaming").replace("/authorize", "/a2")
        await reload(world, edited + 'redirect_uri = "http://127.0.0.1/other"\n')
        assert world.account().state is state
        assert (await world.call("token"))["scope"] == ["user-read-private"]
        begun = await world.call("login_start")
        assert "/a2?" in begun["url"]
        assert "streaming" in begun["url"]


async def test_a_reload_releases_what_was_blocked_and_asks_at_once():
    """``invalid_client``, and the secret is right now."""
    async with running() as world:
        await world.login()
        world.provider.faults.add(
            Fault(kind=Kind.ANSWER, status=400, error="invalid_client", count=1)
        )
        await anyio.sleep(3000)
        assert isinstance(world.account().state, Blocked)
        await reload(world, CONFIG)
        await anyio.sleep(1)
        assert isinstance(world.account().state, Fresh)
        assert world.registry.clients["pkce"].gate.reason is None


async def test_the_same_configuration_again_asks_for_nothing():
    """Ten reloads at once: no request, no write, no state changes."""
    store = StubbornStore()
    async with running(store=store) as world:
        await world.login()
        state = world.account().state
        store.calls.clear()
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(reload, world, CONFIG)
        assert world.account().state is state
        assert store.calls == []
        assert len(world.requests) == 1


async def test_a_user_and_a_section_come_and_go():
    """A configured account without a login is there; without its section it is not."""
    async with running() as world:
        await reload(world, CONFIG + section("pkce") + 'user = "alice"\n')
        assert world.account().user == "alice"
        assert isinstance(world.account().state, NeedsLogin)
        await reload(world, CONFIG)
        assert world.registry.accounts == {}
        await world.login()
        await reload(world, CONFIG + section("pkce"))
        await reload(world, CONFIG)
        assert world.account().user is None
        assert (await world.call("token"))["generation"] == 1


async def test_a_store_that_fails_in_a_reload_costs_no_grant():
    """The account whose row can't be exchanged asks for a login; the next reload brings it back."""
    store = StubbornStore()
    async with running(CONFIG + section("pkce"), store=store) as world:
        await world.login()
        store.troubles["put"] = FULL
        await reload(world, OTHER_ID + section("pkce"))
        assert isinstance(world.account().state, NeedsLogin)
        assert len(world.events("exchange")) == 1
        store.troubles.clear()
        await reload(world, OTHER_ID + section("pkce"))
        assert isinstance(world.account().state, NeedsLogin)
        store.troubles["scan"] = StoreError("unreadable")
        with pytest.raises(StoreError):
            await reload(world, CONFIG + section("pkce"))
        assert (await world.call("token"))["generation"] == 1


async def test_a_login_during_a_reload_is_not_logged_out_by_it():
    """The account was just being looked up in the store when the user came back."""
    store = StubbornStore()
    async with running(store=store) as world:
        begun = await world.call("login_start")
        store.slow["load"] = 5.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reload, world, CONFIG + section("pkce"))
            await anyio.sleep(1)
            assert "main" in world.registry.accounts
            address = world.agree(begun["url"])
            tasks.start_soon(
                lambda: world.call("login_finish", login_id=begun["login_id"], redirect_url=address)
            )
        assert isinstance(world.account().state, Fresh)
        assert (await world.call("token"))["generation"] == 1


async def test_rows_that_are_known_already_are_not_taken_in_twice():
    """Two reloads at once, the first just reading the store: each account is there once."""
    store = StubbornStore()
    async with running(store=store) as world:
        await world.login()
        await reload(world, CONFIG.replace("clients.pkce", "clients.renamed"))
        store.slow["scan"] = 1.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reload, world, CONFIG)
            tasks.start_soon(reload, world, CONFIG)
        assert list(world.registry.accounts) == ["main"]
        assert (await world.call("token"))["generation"] == 1
