"""Logins: from the address to a durable grant of the right user, and never at another's cost."""

from __future__ import annotations

import json
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx
import pytest
from stubborn_store import FULL, StubbornStore
from world import CONFIG, World, running, virtual_time

from spotokend.adapters.store.base import CANDIDATE, StoreError
from spotokend.errors import (
    BadRequest,
    Busy,
    LoginRequired,
    Misconfigured,
    SpotokendError,
    Unavailable,
)
from spotokend.rules.account import Fresh, Quarantined, Waiting
from spotokend.rules.config.parse import parse
from spotokend.rules.secret import Secret
from spotokend.sandbox import Fault, Kind, Options, Rotation
from spotokend.service.logins import MOST, REMEMBERED, REMEMBERED_FOR

pytestmark = pytest.mark.anyio

WITH_SECRET = (
    CONFIG.replace("sandbox-pkce-client", "sandbox-secret-client")
    + 'flow = "authorization_code"\nclient_secret = { env = "UNUSED" }\n'
)
SECRET = {"pkce": Secret("sandbox-client-secret")}
SECTION = '[accounts.main]\nclient = "pkce"\n'
STRICT = Options(auto_approve=True, rotation=Rotation.ALWAYS, revoke_family=True)


@pytest.fixture
def anyio_backend():
    """Hours pass in no time."""
    return virtual_time()


async def start(world: World, **arguments) -> dict:
    return await world.call("login_start", **arguments)


async def finish(world: World, begun: dict, user: str | None = None) -> dict:
    """The browser ends where the user agreed, and the command line hands that over."""
    return await end(world, begun, world.agree(begun["url"], user))


async def end(world: World, begun: dict, address: str) -> dict:
    return await world.call("login_finish", login_id=begun["login_id"], redirect_url=address)


def asked(begun: dict) -> dict[str, str]:
    """The query of the address that the user opens."""
    return {name: value for name, (value,) in parse_qs(urlsplit(begun["url"]).query).items()}


def grant_of(world: World, account: str = "main"):
    return world.account(account).state.grant


# --- the ways to log in


@pytest.mark.parametrize(
    ("config", "secrets", "public"),
    [
        pytest.param(CONFIG, {}, True, id="PKCE"),
        pytest.param(WITH_SECRET, SECRET, False, id="a secret, and PKCE too"),
    ],
)
async def test_a_login_ends_with_a_durable_grant_of_its_user(config, secrets, public):
    """State, challenge and scopes in the address; the code exchanged; the user known by name."""
    async with running(config, secrets=secrets) as world:
        begun = await start(world)
        query = asked(begun)
        assert query["response_type"] == "code"
        assert query["scope"] == "user-read-private"
        assert query["code_challenge_method"] == "S256"
        assert query["show_dialog"] == "true"
        assert query["redirect_uri"] == begun["redirect_uri"] == "http://127.0.0.1/callback"
        assert begun["expires_at"] == world.wall() + 600
        assert begun.keys() == {"login_id", "url", "redirect_uri", "expires_at"}
        assert await finish(world, begun, "bob") == {
            "account": "main",
            "user": "sandbox-account-bob",
            "display_name": "Bob & Bobby",
            "scope": ["user-read-private"],
            "notes": [],
        }
        (theirs,) = world.provider.ledger.grants.values()
        assert theirs.public is public
        assert grant_of(world).refresh_token.reveal() == theirs.current
        stored = await world.vault.unseal(world.account().owner, world.account().client.policy)
        assert stored.grant == grant_of(world)
        assert await world.vault.candidates() == []
        token = await world.call("token")
        assert token["generation"] == 1
        assert token["grant_expires_at"] == grant_of(world).authorized_at + 180 * 86_400


async def test_no_two_logins_share_a_secret():
    """State, verifier and id are made anew for each."""
    async with running() as world:
        logins = [await start(world) for _ in range(5)]
        for values in (
            [begun["login_id"] for begun in logins],
            [asked(begun)["state"] for begun in logins],
            [asked(begun)["code_challenge"] for begun in logins],
        ):
            assert len(set(values)) == 5


async def test_the_address_of_another_attempt_ends_no_login():
    """A wrong or missing state, and what is no address at all; then the right one."""
    async with running() as world:
        first, second = await start(world), await start(world)
        strangers = [
            world.agree(second["url"]),
            "http://127.0.0.1/callback?code=code-1",
            "http://127.0.0.1/callback?code=code-1&state=wrong",
            "http://127.0.0.1/callback?error=access_denied&state=wrong",
            "nonsense",
        ]
        for address in strangers:
            with pytest.raises(BadRequest) as refused:
                await end(world, first, address)
            assert refused.value.details["outcome"] == "not_this_login"
            assert "code-1" not in str(refused.value.to_wire())
        assert world.requests == []
        assert (await finish(world, first))["account"] == "main"


async def test_an_address_that_was_pasted_by_hand_is_good_enough():
    """Broken over lines, in quotes; the bare query."""
    async with running() as world:
        begun = await start(world)
        address = world.agree(begun["url"])
        await end(world, begun, f' "{address[:30]}\n  {address[30:]}" \n')
        begun = await start(world)
        await end(world, begun, world.agree(begun["url"]).partition("?")[2])
        assert (await world.call("token"))["generation"] == 2


@pytest.mark.parametrize(
    ("error", "words", "outcome"),
    [
        ("access_denied", "the user declined", "denied"),
        ("invalid_scope", "invalid_scope", "refused"),
        ("server_error", "an error of its own", "unavailable"),
        ("temporarily_unavailable", "overloaded or under repair", "unavailable"),
    ],
)
async def test_a_login_that_is_declined_is_over(error, words, outcome):
    """Said why, with the command to begin anew; the same address again finds no login."""
    async with running() as world:
        begun = await start(world)
        address = f"http://127.0.0.1/callback?error={error}&state={asked(begun)['state']}"
        with pytest.raises(LoginRequired) as refused:
            await end(world, begun, address)
        assert words in refused.value.message
        assert refused.value.details["outcome"] == outcome
        assert refused.value.hint == "spotokend login main"
        with pytest.raises(LoginRequired, match="came already") as refused:
            await end(world, begun, address)
        assert refused.value.details["outcome"] == "used"
        assert world.registry.accounts == {}


async def test_a_code_is_exchanged_once():
    """The browser's request and the pasted address arrive at the same time."""
    async with running() as world:
        begun = await start(world)
        address = world.agree(begun["url"])
        ends = []

        async def try_to_end() -> None:
            try:
                ends.append((await end(world, begun, address))["account"])
            except LoginRequired as error:
                ends.append(error.details["outcome"])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(try_to_end)
            tasks.start_soon(try_to_end)
        assert sorted(ends) == ["main", "used"]
        assert len(world.requests) == 1
        assert world.provider.ledger.codes_reused == 0


async def outcome(world: World, begun: dict, address: str) -> str:
    """What an answer that comes too late is told, each time with what to type."""
    with pytest.raises(LoginRequired) as over:
        await end(world, begun, address)
    assert over.value.hint.startswith("spotokend login")
    return str(over.value.details["outcome"])


async def test_an_answer_to_a_login_that_has_ended_is_told_how():
    """By its time, by being cancelled, by its answer; an id that nobody gave out is unknown."""
    async with running() as world:
        late, cancelled, used = await start(world), await start(world), await start(world)
        address = world.agree(late["url"])
        await world.call("login_cancel", login_id=cancelled["login_id"])
        await world.call("login_cancel", login_id=cancelled["login_id"])
        assert await outcome(world, cancelled, world.agree(cancelled["url"])) == "cancelled"
        assert await outcome(world, {"login_id": "nobody's"}, address) == "unknown"
        answer = world.agree(used["url"])
        await end(world, used, answer)
        made = len(world.requests)
        assert await outcome(world, used, answer) == "used"
        await anyio.sleep(600)
        assert await outcome(world, late, address) == "expired"
        assert await outcome(world, used, answer) == "used"
        assert len(world.requests) == made


async def test_a_daemon_that_was_restarted_says_so():
    """It knows nothing of the logins before; that nobody has to guess."""
    async with running() as world:
        begun = await start(world)
        address = world.agree(begun["url"])
        world.keeping.cancel()
        async with running(before=world) as after:
            with pytest.raises(LoginRequired, match="was restarted meanwhile") as over:
                await end(after, begun, address)
            assert over.value.details == {"outcome": "unknown", "hint": "spotokend login"}


async def test_how_logins_ended_is_known_of_the_last_ones_for_an_hour():
    """Whoever begins logins and cancels them costs no memory; nor does a tab that stays open."""
    async with running() as world:
        begun = [await start(world)]
        address = world.agree(begun[0]["url"])
        for _ in range(REMEMBERED + 1):
            await world.call("login_cancel", login_id=begun[-1]["login_id"])
            begun.append(await start(world))
        assert await outcome(world, begun[0], address) == "unknown"
        assert await outcome(world, begun[1], address) == "cancelled"
        await anyio.sleep(REMEMBERED_FOR - 1)
        assert await outcome(world, begun[-2], address) == "cancelled"
        await anyio.sleep(1)
        assert await outcome(world, begun[-2], address) == "unknown"


async def test_there_are_only_so_many_logins_at_once():
    """Each is a person before a browser; those that ended make room."""
    async with running() as world:
        for _ in range(MOST - 1):
            await start(world)
        last = await start(world)
        with pytest.raises(Busy) as refused:
            await start(world)
        assert refused.value.retry_after == 60
        await world.call("login_cancel", login_id=last["login_id"])
        await start(world)
        with pytest.raises(Busy):
            await start(world)
        await anyio.sleep(601)
        await start(world)


@pytest.mark.parametrize(
    ("configured", "asked_for", "good"),
    [
        ("http://127.0.0.1/callback", "http://127.0.0.1:49152/callback", True),
        ("http://[::1]/callback", "http://[::1]:49152/callback", True),
        ("http://127.0.0.1/callback", "http://127.0.0.1/callback", True),
        ("http://127.0.0.1:8888/callback", "http://127.0.0.1:8888/callback", True),
        ("http://127.0.0.1:8888/callback", "http://127.0.0.1:9999/callback", False),
        ("http://127.0.0.1/callback", "http://127.0.0.1:49152/other", False),
        ("http://127.0.0.1/callback", "http://127.0.0.1:0/callback", False),
        ("http://127.0.0.1/callback", "http://127.0.0.1:65536/callback", False),
        ("http://127.0.0.1/callback", "http://user@127.0.0.1:49152/callback", False),
        ("http://127.0.0.1/callback", "http://127.0.0.1:49152/callback#x", False),
        ("http://127.0.0.1/callback", "http://127.0.0.2:49152/callback", False),
        ("http://127.0.0.1/callback", "http://[::1", False),
        ("http://127.0.0.1/callback", "https://example.test/callback", False),
        ("https://app.example.test/callback", "https://app.example.test:1/callback", False),
    ],
)
async def test_only_the_port_of_a_loopback_redirect_is_the_callers(configured, asked_for, good):
    """RFC 8252, 7.3; everything else must match exactly, or the code goes elsewhere."""
    async with running(CONFIG + f'redirect_uri = "{configured}"\n') as world:
        if good:
            begun = await start(world, redirect_uri=asked_for)
            assert asked(begun)["redirect_uri"] == begun["redirect_uri"] == asked_for
        else:
            with pytest.raises(BadRequest) as refused:
                await start(world, redirect_uri=asked_for)
            assert configured in refused.value.hint


async def test_a_login_with_a_port_of_its_own_is_exchanged_with_that():
    """RFC 6749, 4.1.3: identical in both requests."""
    async with running() as world:
        begun = await start(world, redirect_uri="http://127.0.0.1:49152/callback")
        assert (await finish(world, begun))["account"] == "main"


# --- scopes


async def test_scopes_are_added_to_those_configured_and_those_granted():
    """Each login asks for all that the account has, also when the daemon has just started."""
    async with running() as world:
        await world.login(scopes=("streaming",))
        begun = await start(world, scopes=("user-top-read", "streaming"))
        assert asked(begun)["scope"] == "user-read-private streaming user-top-read"
        world.keeping.cancel()
        async with running(before=world) as after:
            assert asked(await start(after))["scope"] == "user-read-private streaming"
    async with running(CONFIG + SECTION + 'scopes = ["user-library-read"]\n') as world:
        assert asked(await start(world))["scope"] == "user-library-read"


async def test_a_store_that_can_not_be_read_starts_no_login_that_would_lose_scopes():
    """It alone knows them."""
    store = StubbornStore()
    async with running(store=store) as before:
        await before.login()
        before.keeping.cancel()
        async with running(before=before) as world:
            store.troubles["load"] = FULL
            with pytest.raises(Unavailable, match="the disk is full"):
                await start(world)


# --- exchanges that fail


def refusal(status: int, error: str, description: str | None = None) -> httpx.Response:
    """An error of the token endpoint (RFC 6749, 5.2)."""
    fields = {"error": error, "error_description": description}
    return httpx.Response(status, json={name: value for name, value in fields.items() if value})


@pytest.mark.parametrize(
    ("reply", "kind", "outcome", "words"),
    [
        (
            httpx.Response(200, json={"access_token": "access-1"}),
            Misconfigured,
            "refused",
            "no refresh",
        ),
        (refusal(400, "invalid_grant"), LoginRequired, "refused", "refused the login"),
        (
            refusal(400, "invalid_grant", "Authorization code expired"),
            LoginRequired,
            "expired",
            "has expired",
        ),
        (
            refusal(400, "invalid_grant", "Invalid authorization code"),
            LoginRequired,
            "refused",
            "wrong or was used before",
        ),
        (
            refusal(400, "invalid_client"),
            Misconfigured,
            "refused",
            "does not accept the client id",
        ),
        (httpx.Response(503), Unavailable, "unavailable", "could not be exchanged"),
        (
            httpx.Response(429, headers={"retry-after": "7"}),
            Unavailable,
            "unavailable",
            "fewer requests",
        ),
        (httpx.ConnectError("no network"), Unavailable, "unavailable", "could not be exchanged"),
    ],
    ids=[
        "no refresh token",
        "code refused",
        "code expired",
        "code wrong or used",
        "client refused",
        "503",
        "429",
        "no network",
    ],
)
async def test_an_exchange_that_brings_no_grant_says_why_and_leaves_nothing(
    reply, kind, outcome, words
):
    """The old grant serves on, and no candidate lies about."""
    async with running() as world:
        await world.login()
        before = world.account().state
        begun = await start(world)
        address = world.agree(begun["url"])
        world.replies.append(reply)
        with pytest.raises(kind) as refused:
            await end(world, begun, address)
        assert words in refused.value.message
        assert refused.value.details["outcome"] == outcome
        assert refused.value.hint
        assert "access-1" not in str(refused.value.to_wire())
        if words == "fewer requests":
            assert refused.value.retry_after == 7
        assert world.account().state is before
        assert await world.vault.candidates() == []


async def test_a_caller_that_goes_away_ends_no_exchange():
    """The browser was closed, the terminal too: the code is used up, so the grant is kept."""
    async with running() as world:
        begun = await start(world)
        address = world.agree(begun["url"])
        world.latency = 5.0
        with anyio.move_on_after(1):
            await end(world, begun, address)
        assert (await world.call("token"))["generation"] == 1


# --- renewals


async def test_a_login_renews_while_the_old_grant_serves():
    """Six months are nearly over: no moment without a token, the age counts from now."""
    async with running(options=STRICT) as world:
        await world.login()
        await anyio.sleep(1000)
        begun = await start(world)
        address = world.agree(begun["url"])
        world.latency = 10.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end, world, begun, address)
            await anyio.sleep(5)
            assert (await world.call("token"))["generation"] == 1
        token = await world.call("token")
        assert token["generation"] == 2
        assert token["grant_expires_at"] == pytest.approx(world.wall() + 180 * 86_400, abs=30)
        assert (await world.call("refresh"))["generation"] == 3


async def test_a_login_mends_a_quarantine():
    """The refused grant is replaced, and the refusal forgotten, also by the next daemon."""
    async with running() as world:
        await world.login()
        world.provider.faults.add(
            Fault(kind=Kind.ANSWER, status=400, error="invalid_grant", count=1)
        )
        await anyio.sleep(2710)
        assert isinstance(world.account().state, Quarantined)
        await world.login()
        assert isinstance(world.account().state, Fresh)
        world.keeping.cancel()
        async with running(before=world) as after:
            assert (await after.call("token"))["generation"] == 2
            assert isinstance(after.account().state, Fresh)


async def test_of_two_logins_to_one_account_the_last_one_counts():
    """Both agreed, both exchanged; neither is lost in the middle."""
    async with running() as world:
        first, second = await start(world), await start(world)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(finish, world, first)
            tasks.start_soon(finish, world, second)
        state = world.account().state
        stored = await world.vault.unseal(world.account().owner, world.account().client.policy)
        assert stored.grant == state.grant
        assert list(world.registry.accounts) == ["main"]
        assert (await world.call("refresh"))["generation"] == state.generation + 1


async def test_a_login_moves_an_account_to_another_client_and_keeps_what_it_had():
    """``--client``: the old grant lies aside for the day on which it goes back."""
    config = CONFIG + CONFIG.replace("clients.pkce", "clients.second").replace(
        "sandbox-pkce", "sandbox-secret"
    )
    async with running(config) as world:
        await world.login(client="pkce")
        old = world.account().client.config.fingerprint
        await world.login(client="second")
        assert world.account().client.config.name == "second"
        assert await world.vault.put_aside(old) == ["main"]
        assert (await world.call("refresh"))["generation"] == 3


# --- crashes


async def test_the_grant_is_durable_before_anybody_is_asked_whose_it_is():
    """The order of the writes: candidate, identity, the account's row, and the candidate goes."""
    store = StubbornStore()
    async with running(store=store) as world:
        world.latency = 1.0
        begun = await start(world)
        address = world.agree(begun["url"])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end, world, begun, address)
            await anyio.sleep(1.5)  # the code is exchanged, the identity asked for
            assert store.calls == [("put", "main", CANDIDATE)]
        assert store.calls == [
            ("put", "main", CANDIDATE),
            ("put", "main", ""),
            ("delete", "main", CANDIDATE),
        ]


async def crash_before_promotion(world: World, user: str = "alice", **arguments) -> None:
    """A daemon that dies while it asks whose the grant is."""
    begun = await start(world, **arguments)
    world.provider.faults.add(Fault(kind=Kind.SLOW, path="/v1/me", seconds=30.0, count=1))
    async with anyio.create_task_group() as tasks:
        # What happens after its death must not be written any more.
        tasks.start_soon(finish_and_die, world, begun, user)
        await anyio.sleep(5)
        world.vault.put = None
        world.vault.drop_candidate = None
    world.keeping.cancel()


async def finish_and_die(world: World, begun: dict, user: str) -> None:
    with suppress(TypeError):
        await finish(world, begun, user)


async def test_a_login_cut_off_by_a_crash_is_finished_by_the_next_daemon():
    """Nobody has to agree again."""
    async with running() as world:
        await crash_before_promotion(world)
        async with running(before=world) as after:
            assert "main" not in after.registry.accounts
            await after.logins.resume()
            assert (await after.call("token"))["generation"] == 1
            assert grant_of(after).user == "sandbox-account-alice"
            assert await after.vault.candidates() == []
            await after.logins.resume()
            assert after.account().state.generation == 1


async def test_a_login_cut_off_is_finished_with_all_its_checks():
    """It was another user's: refused, told in the log, and gone."""
    async with running() as world:
        await world.login(user="alice")
        await crash_before_promotion(world, "bob")
        async with running(before=world) as after:
            await after.logins.resume()
            assert (await after.call("token"))["generation"] == 1
            assert "belongs to user" in after.events("login_cut_off")[0]["words"]
            assert await after.vault.candidates() == []


async def test_a_login_cut_off_waits_for_its_client_to_come_back():
    """Its registration is not in this configuration: kept, and never sent to another."""
    other = CONFIG.replace("sandbox-pkce-client", "sandbox-secret-client")
    async with running() as world:
        await crash_before_promotion(world)
        async with running(other, before=world, secrets=SECRET) as after:
            await after.logins.resume()
            assert after.requests == []
            assert after.registry.accounts == {}
            assert len(await after.vault.candidates()) == 1
        async with running(before=world) as last:
            await last.logins.resume()
            assert (await last.call("token"))["generation"] == 1


async def test_a_candidate_that_does_not_open_is_left_where_it_is():
    """Nothing can be done with it, and nothing else suffers."""
    async with running() as world:
        await crash_before_promotion(world)
        row = world.store._rows[CANDIDATE, "main"]
        object.__setattr__(row, "sealed", b"rubbish")
        async with running(before=world) as after:
            await after.logins.resume()
            assert len(await after.vault.candidates()) == 1


async def test_a_store_that_fails_while_logins_are_finished_keeps_them():
    """For the next start."""
    store = StubbornStore()
    async with running(store=store) as world:
        await crash_before_promotion(world)
        async with running(before=world) as after:
            store.troubles["put"] = FULL
            await after.logins.resume()
            assert "the disk is full" in after.events("login_cut_off")[0]["words"]
            assert len(await after.vault.candidates()) == 1


@pytest.mark.parametrize("refreshed", [False, True])
async def test_a_candidate_that_was_in_use_already_takes_nothings_place(refreshed):
    """It could not be removed; since then a rotation has used up its refresh token."""
    store = StubbornStore()
    async with running(store=store, options=STRICT) as world:
        store.troubles[f"delete {CANDIDATE}"] = FULL
        await world.login()
        assert len(world.events("candidate")) == 1
        if refreshed:
            await world.call("refresh")
        store.troubles.clear()
        world.keeping.cancel()
        async with running(before=world) as after:
            grants = len(after.provider.ledger.grants)
            await after.logins.resume()
            assert await after.vault.candidates() == []
            await anyio.sleep(40)
            assert (await after.call("refresh"))["generation"] == (3 if refreshed else 2)
            assert after.provider.ledger.double_redemptions == 0
            assert len(after.provider.ledger.grants) == grants


@pytest.mark.parametrize("slot", [CANDIDATE, ""], ids=["candidate", "row"])
async def test_a_login_that_can_not_be_written_says_so_and_leaves_the_old_one(slot):
    """The disk is full at the first write, or at the second."""

    class Full(StubbornStore):
        full = False

        async def put(self, row):
            if self.full and row.slot == slot:
                raise StoreError("the disk is full")
            return await super().put(row)

    store = Full()
    async with running(store=store) as world:
        await world.login()
        before = world.account().state
        store.full = True
        with pytest.raises(Unavailable, match="the disk is full") as refused:
            await world.login()
        assert refused.value.details["outcome"] == "unavailable"
        assert world.account().state is before
        store.full = False
        await world.login()
        assert (await world.call("token"))["generation"] == 2


# --- edits of the configuration meanwhile


async def edit(world: World, text: str) -> None:
    await world.roster.reconfigure(parse(text), {"pkce": None, "second": None})


@pytest.mark.parametrize(
    ("edited", "kind"),
    [
        (CONFIG.replace("/api/token", "/other"), LoginRequired),
        (CONFIG.replace("clients.pkce", "clients.second"), BadRequest),
        (
            CONFIG
            + CONFIG.replace("clients.pkce", "clients.second")
            + '[accounts.main]\nclient = "second"\n',
            BadRequest,
        ),
    ],
    ids=["changed", "gone", "another's"],
)
@pytest.mark.parametrize("moment", ["before the exchange", "while the provider is asked"])
async def test_a_client_that_changes_during_a_login_ends_it(edited, kind, moment):
    """Neither its code nor its grant is sent to the other registration."""
    async with running() as world:
        begun = await start(world)
        address = world.agree(begun["url"])
        refused: list[SpotokendError] = []

        async def try_to_end() -> None:
            with pytest.raises(kind) as error:
                await end(world, begun, address)
            assert error.value.details["outcome"] == "client_changed"
            refused.append(error.value)

        async with anyio.create_task_group() as tasks:
            if moment == "before the exchange":
                await edit(world, edited)
                tasks.start_soon(try_to_end)
            else:
                world.latency = 1.0
                tasks.start_soon(try_to_end)
                await anyio.sleep(1.5)
                await edit(world, edited)
        assert len(refused) == 1
        assert len(world.requests) == (0 if moment == "before the exchange" else 1)
        assert await world.vault.candidates() == []
        assert not isinstance(
            getattr(world.registry.accounts.get("main"), "state", None), Fresh | Waiting
        )


async def test_a_client_that_changes_while_the_login_is_written_gets_no_grant_of_the_old_one():
    """The row goes aside with the next look, and is back when the edit is undone."""
    store = StubbornStore()
    async with running(store=store) as world:
        begun = await start(world)
        address = world.agree(begun["url"])
        store.slow["put"] = 5.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(try_to_finish, world, begun, address)
            await anyio.sleep(7)  # the candidate is written, the row is being written
            await edit(world, CONFIG.replace("/api/token", "/other"))
        store.slow.clear()
        assert "main" not in world.registry.accounts
        await edit(world, CONFIG)
        assert (await world.call("token"))["generation"] == 1


async def try_to_finish(world: World, begun: dict, address: str) -> None:
    with suppress(SpotokendError):
        await end(world, begun, address)


# --- logout, and clients without logins


async def test_a_logout_deletes_the_grant_and_the_account_goes_unless_it_is_configured():
    """In memory and on disk; generations go on."""
    async with running() as world:
        await world.login()
        assert await world.call("logout", account="main") is None
        assert world.registry.accounts == {}
        assert await world.store.scan() == []
        await world.login()
        assert (await world.call("token"))["generation"] == 2
    async with running(CONFIG + SECTION) as world:
        await world.login()
        await world.call("logout", account="main")
        assert world.account().state.reason == "logged out"


async def test_a_logout_ends_what_a_crash_left_unfinished():
    """Else the next start would log the user in again."""
    async with running() as world:
        await world.login()
        await crash_before_promotion(world)
        async with running(before=world) as after:
            await after.call("logout", account="main")
            await after.logins.resume()
            assert after.registry.accounts == {}


async def test_a_logout_that_can_not_be_written_did_not_happen():
    """Said so; the token still serves."""
    store = StubbornStore()
    async with running(store=store) as world:
        await world.login()
        store.troubles["delete"] = FULL
        with pytest.raises(Unavailable, match="the disk is full"):
            await world.call("logout", account="main")
        assert (await world.call("token"))["generation"] == 1


async def test_a_client_of_its_own_has_no_login_and_no_logout():
    """Refused, each with the cure."""
    own = """
[clients.own]
client_id = "sandbox-secret-client"
flow = "client_credentials"
client_secret = { env = "UNUSED" }
token_url = "http://127.0.0.1:1/api/token"
"""
    async with running(own, secrets={"own": SECRET["pkce"]}) as world:
        with pytest.raises(BadRequest) as refused:
            await start(world, account="own")
        assert refused.value.hint == "spotokend token own"
        with pytest.raises(BadRequest) as refused:
            await world.call("logout", account="own")
        assert "spotokend reload" in refused.value.hint


async def test_nothing_secret_is_logged():
    """Neither codes nor tokens, states or verifiers: searched in all that was told."""
    async with running(options=STRICT) as world:
        begun = await start(world)
        address = world.agree(begun["url"])
        await end(world, begun, address)
        await world.call("refresh")
        told = repr(world.logged) + repr(world.notices) + json.dumps(await world.call("status"))
        for secret in (
            asked(begun)["state"],
            parse_qs(urlsplit(address).query)["code"][0],
            grant_of(world).refresh_token.reveal(),
            grant_of(world).previous.reveal(),
            (await world.call("token"))["access_token"],
        ):
            assert secret not in told
