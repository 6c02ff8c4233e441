"""A client secret in a keyring that is closed: what goes on without, and how it is taken later."""

from __future__ import annotations

import anyio
import pytest
from world import CONFIG, World, running, virtual_time

from spotokend.adapters import client_secrets
from spotokend.errors import Locked, Misconfigured, Unavailable
from spotokend.rules.account import Fresh, Waiting
from spotokend.rules.config.parse import parse
from spotokend.rules.secret import Secret
from spotokend.sandbox import Options
from spotokend.service import late_secrets
from spotokend.service.late_secrets import LateSecrets

pytestmark = pytest.mark.anyio

CLOSED = """
[clients.own]
client_id = "sandbox-secret-client"
flow = "client_credentials"
client_secret = { keyring = "own" }
token_url = "http://127.0.0.1:1/api/token"
[clients.web]
client_id = "sandbox-secret-client"
flow = "authorization_code"
client_secret = { keyring = "web" }
authorize_url = "http://127.0.0.1:1/authorize"
identity_url = "none"
token_url = "http://127.0.0.1:1/api/token"
[accounts.machine]
client = "own"
[accounts.main]
client = "pkce"
[accounts.user]
client = "web"
"""
SECRET = Secret("sandbox-client-secret")


@pytest.fixture
def anyio_backend():
    """Hours pass in no time."""
    return virtual_time()


class Keyring:
    """What the reading of a secret gives: an error, or the secret."""

    def __init__(self, monkeypatch) -> None:
        self.outcome: Secret | Exception = Locked("the keyring is locked", hint="unlock it")
        self.asked: list[tuple[str, str]] = []
        monkeypatch.setattr(late_secrets, "read_secret", self._read)
        # A thread has no part in virtual time.
        monkeypatch.setattr(late_secrets.to_thread, "run_sync", self._at_once)

    def _read(self, source, *, place):
        self.asked.append((source.value, place))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def _at_once(self, call):
        await anyio.lowlevel.checkpoint()
        return call()


@pytest.fixture
def keyring(monkeypatch):
    """Closed."""
    return Keyring(monkeypatch)


def late(world: World) -> LateSecrets:
    """Over that world's registry."""
    return LateSecrets(world.registry, kick=world.keeper.kick, log=world._log)


async def test_without_its_secret_a_client_sends_nothing_and_others_go_on(keyring):
    """The account waits, its callers hear why; a login is refused in the same words."""
    secrets: dict[str, Secret | None] = {"pkce": None, "own": None, "web": None}
    async with running(
        CONFIG + CLOSED, options=Options(auto_approve=True), secrets=secrets
    ) as world:
        await world.login("main")
        sent = len(world.requests)
        with pytest.raises(Unavailable, match="the secret of the client own is locked"):
            await world.call("token", account="machine")
        with pytest.raises(Locked, match="the client web is locked") as caught:
            await world.call("login_start", account="user")
        assert caught.value.hint == "unlock it: spotokend then goes on by itself"
        state = world.account("machine").state
        assert isinstance(state, Waiting)
        assert not state.in_doubt
        assert len(world.requests) == sent


async def test_the_secret_is_taken_when_the_keyring_opens(keyring):
    """Within seconds, and whoever waited is served at once; what is wrong is told once."""
    secrets: dict[str, Secret | None] = {"pkce": None, "own": None, "web": SECRET}
    async with running(
        CONFIG + CLOSED, options=Options(auto_approve=True), secrets=secrets
    ) as world:
        waiting = late(world)
        waiting.look()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiting.run)
            await anyio.sleep(300)
            assert isinstance(world.account("machine").state, Waiting)
            told = [fields["words"] for fields in world.events("client_secret")]
            assert told == ["the keyring is locked"]
            assert set(keyring.asked) == {("own", "clients.own.client_secret")}
            keyring.outcome = Misconfigured("the keyring has no own")
            await anyio.sleep(late_secrets.NAP)
            keyring.outcome = SECRET
            await anyio.sleep(late_secrets.NAP + 1)
            assert isinstance(world.account("machine").state, Fresh)
            assert world.account("machine").client.gate.answers == 1  # the server's own
            asked = len(keyring.asked)
            await anyio.sleep(3600)
            assert len(keyring.asked) == asked
            told = [fields["words"] for fields in world.events("client_secret")]
            assert told[1:] == [
                "the keyring has no own",
                "the keyring gave the secret of the client own",
            ]
            tasks.cancel_scope.cancel()


async def test_where_nothing_is_missing_nobody_looks(keyring):
    """Not even once."""
    async with running() as world:
        waiting = late(world)
        waiting.look()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiting.run)
            await anyio.sleep(3600)
            tasks.cancel_scope.cancel()
        assert keyring.asked == []


async def test_what_a_reload_changed_meanwhile_is_not_overwritten(keyring, monkeypatch):
    """The secret that was just read is the old source's."""
    secrets: dict[str, Secret | None] = {"pkce": None, "own": None, "web": SECRET}
    async with running(
        CONFIG + CLOSED, options=Options(auto_approve=True), secrets=secrets
    ) as world:
        client = world.registry.clients["own"]

        async def with_a_reload(call):
            config = parse(CONFIG + CLOSED.replace('"own" }', '"other" }')).clients["own"]
            client.configure(config, Secret("newer-1"), world.config.timing)
            return SECRET

        monkeypatch.setattr(late_secrets.to_thread, "run_sync", with_a_reload)
        waiting = late(world)
        waiting.look()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiting.run)
            await anyio.sleep(1)
            tasks.cancel_scope.cancel()
        assert client.secret == Secret("newer-1")


async def test_a_reload_with_a_closed_keyring_keeps_what_is_known(keyring):
    """Of the same source; another source's secret is unknown."""
    secrets: dict[str, Secret | None] = {"pkce": None, "own": SECRET, "web": SECRET}
    async with running(
        CONFIG + CLOSED, options=Options(auto_approve=True), secrets=secrets
    ) as world:
        changed = CLOSED.replace('keyring = "web"', 'keyring = "other"')
        known = late(world).known(parse(CONFIG + changed))
        assert known == {"pkce": None, "own": SECRET}
        assert client_secrets.place_of("own") == "clients.own.client_secret"
