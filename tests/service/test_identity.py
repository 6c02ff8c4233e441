"""Whose grant it is: the right user's, or nobody's; and where nobody can tell, that is told."""

from __future__ import annotations

import httpx
import pytest
from world import CONFIG, World, running, virtual_time

from spotokend.errors import Forbidden
from spotokend.rules.account import NeedsLogin
from spotokend.sandbox import Body, Fault, Kind

pytestmark = pytest.mark.anyio

SECTION = '[accounts.main]\nclient = "pkce"\n'


@pytest.fixture
def anyio_backend():
    """Hours pass in no time."""
    return virtual_time()


def grant_of(world: World, account: str = "main"):
    return world.account(account).state.grant


async def test_another_user_than_the_accounts_is_refused_and_costs_nothing():
    """Bob in Alice's account: hers goes on, his is not kept; the cure is told."""
    async with running() as world:
        await world.login(user="alice")
        before = grant_of(world)
        with pytest.raises(Forbidden) as refused:
            await world.login(user="bob")
        assert refused.value.message == (
            "account main belongs to user sandbox-account-alice, and Bob & Bobby"
            " (sandbox-account-bob) logged in"
        )
        assert refused.value.details["outcome"] == "other_user"
        for command in ("login main", "login NAME", "logout main"):
            assert f"`spotokend {command}`" in refused.value.hint
        assert grant_of(world) == before
        assert await world.vault.candidates() == []
        assert (await world.call("token"))["generation"] == 1
        assert (await world.call("refresh"))["generation"] == 2


async def test_the_user_of_the_configuration_is_the_one_that_is_wanted():
    """Already at the first login."""
    config = CONFIG + SECTION + 'user = "sandbox-account-alice"\n'
    async with running(config) as world:
        with pytest.raises(Forbidden) as refused:
            await world.login(user="bob")
        # A logout would change nothing: the configuration has the last word.
        assert "accounts.main.user" in refused.value.hint
        assert "logout" not in refused.value.hint
        assert isinstance(world.account().state, NeedsLogin)
        await world.login(user="alice")


async def test_one_user_is_not_two_accounts_of_a_client():
    """Said by the same daemon, and by the next, which has to look into the store for it."""
    async with running() as world:
        await world.login("main", "alice")
        await world.login("second", "bob")
        async with running(before=world) as after:
            for daemon in (world, after):
                with pytest.raises(Forbidden) as refused:
                    await daemon.login("third", "alice")
                assert "is account main already" in refused.value.message
                assert refused.value.details["outcome"] == "other_user"
                assert "`spotokend logout main`" in refused.value.hint
                assert "third" not in daemon.registry.accounts
                assert await daemon.vault.candidates() == []


async def test_after_a_logout_the_account_is_anybodys():
    """As the refusal said."""
    async with running(CONFIG + SECTION) as world:
        await world.login(user="alice")
        await world.call("logout", account="main")
        await world.login(user="bob")
        assert grant_of(world).user == "sandbox-account-bob"


@pytest.mark.parametrize(("status", "body"), [(403, Body.TEXT), (500, Body.JSON), (200, Body.HTML)])
async def test_where_it_can_not_be_said_who_it_is_the_login_is_taken_and_that_is_told(status, body):
    """Users who are not on the app's list are met with a 403 (zmb3/spotify#232)."""
    async with running() as world:
        world.provider.faults.add(Fault(kind=Kind.ANSWER, path="/v1/me", status=status, body=body))
        done = await world.login()
        assert (done["user"], done["display_name"]) == (None, None)
        assert len(done["notes"]) == 1
        assert (await world.call("token"))["generation"] == 1


async def test_where_there_is_nobody_to_ask_nobody_is_asked():
    """``identity_url = "none"``: no note, no request."""
    identity = 'identity_url = "http://127.0.0.1:1/v1/me"'
    async with running(CONFIG.replace(identity, 'identity_url = "none"')) as world:
        done = await world.login()
        assert (done["user"], done["notes"]) == (None, [])


async def test_a_refresh_token_alone_is_a_login_and_that_is_told():
    """Without an access token nobody can be asked; the refresh comes next."""
    async with running() as world:
        world.replies.append(httpx.Response(200, json={"refresh_token": "refresh-1"}))
        done = await world.login()
        assert "without an access token" in done["notes"][0]
        assert grant_of(world).scopes == ("user-read-private",)
        world.replies.append(httpx.Response(200, json={"access_token": "access-1"}))
        assert (await world.call("token"))["access_token"] == "access-1"


async def test_a_user_whose_other_account_does_not_open_is_no_obstacle():
    """Its row is damaged: whose it was is not known, and the login is the way out."""
    config = CONFIG + SECTION + '[accounts.second]\nclient = "pkce"\n'
    async with running(config) as world:
        await world.login("second", "alice")
        world.keeping.cancel()
        for row in world.store._rows.values():
            object.__setattr__(row, "sealed", b"rubbish")
        async with running(config, before=world) as after:
            assert (await after.login("main", "alice"))["user"] == "sandbox-account-alice"
