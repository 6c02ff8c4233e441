"""Lives of accounts by chance, in virtual time, with the promises looked at in every moment.

Hypothesis makes the story: what the provider, the disk, the clocks, the user and the callers do.
Registry, keeper, refresh, vault and logins are the real ones (tests/world.py), the provider is the
sandbox's, and witness.py knows what must not happen.
"""

from __future__ import annotations

import random
from contextlib import suppress

import anyio
import pytest
import trio
from anyio.abc import TaskGroup
from fuzz.witness import Witness
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from nightly import NIGHTLY, SEED, often
from stubborn_store import FULL, StubbornStore
from world import EPOCH, World, running, virtual_time

from spotokend.adapters.spill import SpillError
from spotokend.adapters.store.base import StoreError
from spotokend.errors import SpotokendError
from spotokend.rules.account import Fresh, Quarantined
from spotokend.sandbox import Fault, Kind, Options

pytestmark = pytest.mark.timeout(often(120, 3600))

USERS = {"one": "alice", "two": "bob", "three": "carol"}
LIFE = 600.0
GRACE = 10.0
HOUR = 3600.0
LOOKS = 4
"""In the course of a wait."""

CONFIG = """
[clients.pkce]
client_id = "sandbox-pkce-client"
scopes = ["user-read-private"]
authorize_url = "http://127.0.0.1:1/authorize"
token_url = "http://127.0.0.1:1/api/token"
identity_url = "none"
"""
STRICT = {"rotation": "always", "revoke_family": True}
SERVERS: dict[str, tuple[str, dict[str, object]]] = {
    "never rotates": ('rotation = "never"', {"rotation": "never"}),
    "unknown, never rotates": ("", {"rotation": "never"}),
    "unknown, rotates": ("", STRICT),
    "strict": ('rotation = "strict"', STRICT),
    "grace": (f'rotation = "grace"\nrotation_grace = {GRACE}', STRICT | {"grace": GRACE}),
}
"""What is configured, and what the server does."""
FAULTS = {
    "down": Fault(kind=Kind.ANSWER, status=503),
    "slow down": Fault(kind=Kind.ANSWER, status=429, retry_after="30"),
    "a portal": Fault(kind=Kind.ANSWER, status=200, body="html"),
    "cut": Fault(kind=Kind.CUT),
    "answer lost": Fault(kind=Kind.CUT, served=True, count=1),
    "answer cut": Fault(kind=Kind.BREAK, count=1),
    "half an answer": Fault(kind=Kind.TRUNCATE, count=1),
    "late": Fault(kind=Kind.SLOW, seconds=40.0, count=2),
    "too late": Fault(kind=Kind.SLOW, seconds=90.0, count=1),
    "silent": Fault(kind=Kind.HANG, count=2),
    "refused": Fault(kind=Kind.ANSWER, status=400, error="invalid_grant", count=2),
    "client refused": Fault(kind=Kind.ANSWER, status=401, error="invalid_client", count=1),
    "no such error": Fault(kind=Kind.ANSWER, status=400, error="what_is_this", count=1),
}

NAMES = st.sampled_from(sorted(USERS))
WRITES = ["begin", "commit", "settle", "put", "delete"]
STEPS = st.one_of(
    st.tuples(
        st.just("wait"), st.sampled_from([0.02, 0.3, 5.0, 31.0, 200.0, LIFE, 4000.0, 25 * HOUR])
    ),
    st.tuples(st.just("wait"), st.floats(0.001, 2 * LIFE)),
    st.tuples(st.just("ask"), NAMES, st.sampled_from([0.0, 60.0, LIFE / 2])),
    st.tuples(st.just("refresh"), NAMES),
    st.tuples(st.just("report"), NAMES),
    st.tuples(st.just("log in"), NAMES),
    st.tuples(st.just("log out"), NAMES),
    st.tuples(st.just("fault"), st.sampled_from(sorted(FAULTS))),
    st.tuples(st.just("well")),
    st.tuples(st.just("full disk"), st.sampled_from([*WRITES, "load"])),
    st.tuples(st.just("no spill")),
    st.tuples(st.just("disk is well")),
    st.tuples(st.just("slow disk"), st.sampled_from(WRITES)),
    st.tuples(st.just("clock"), st.sampled_from([0.0, EPOCH - 7200.0, EPOCH + 7200.0])),
    st.tuples(st.just("reload")),
    st.tuples(st.just("kill")),
    st.tuples(st.just("restart")),
)
STORIES = st.lists(STEPS, min_size=5, max_size=30)


@settings(
    max_examples=often(40, 3000),
    derandomize=not NIGHTLY,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@seed(SEED)
@given(server=st.sampled_from(sorted(SERVERS)), story=STORIES, dice=st.integers(0, 1000))
def test_the_promises_hold_in_every_life(server, story, dice):
    """No dead token, no lost grant, no forbidden retry, no flood, no pause cut short."""
    backend, options = virtual_time()
    anyio.run(live, server, story, dice, backend=backend, backend_options=options)


async def live(server: str, story: list[tuple], dice: int) -> None:
    """One story, over all the daemons that it takes."""
    configured, behaviour = SERVERS[server]
    options = Options(auto_approve=True, access_life=LIFE, **behaviour)
    store, rand = StubbornStore(), random.Random(dice)
    witness, before = Witness(), None
    steps = [("log in", "one"), ("log in", "two"), *story, ("the end",)]
    with witness.watching_the_gate():
        while steps:
            async with running(
                CONFIG + configured,
                store=store,
                options=options,
                before=before,
                rand=rand.random,
                offset=EPOCH if before is None else before.offset,
            ) as world:
                witness.attend(world)
                async with anyio.create_task_group() as callers:
                    step = Step(world, store, witness, callers)
                    while steps:
                        kind, *more = steps.pop(0)
                        await step.take(kind, *more)
                        witness.look()
                        if kind in {"kill", "restart"}:
                            break
                    callers.cancel_scope.cancel()
            witness.ended()
            before = world


class Step:
    """What a line of the story does."""

    def __init__(
        self, world: World, store: StubbornStore, witness: Witness, callers: TaskGroup
    ) -> None:
        self._world = world
        self._store = store
        self._witness = witness
        self._callers = callers

    async def take(self, kind: str, *more) -> None:
        """Do it; what a caller does goes on beside the next ones."""
        if kind in CALLS:
            self._callers.start_soon(self._patiently, CALLS[kind], *more)
            await anyio.sleep(0.01)
        elif kind in TURNS:
            TURNS[kind](self, *more)
        else:
            await PASSAGES[kind](self, *more)

    # What callers and the user do.

    async def _patiently(self, act, *arguments) -> None:
        # What is said in place of a token is others' business.
        with suppress(SpotokendError, StoreError):
            await act(self, *arguments)

    async def _call(self, method: str, account: str, *, min_ttl: float = 0.0, **more) -> None:
        asked_at = trio.current_time()
        arguments = {"min_ttl": min_ttl} if min_ttl else {}
        token = await self._world.call(method, account=account, **arguments, **more)
        self._witness.served(account, token, min_ttl, asked_at)

    async def ask(self, account: str, min_ttl: float) -> None:
        await self._call("token", account, min_ttl=min_ttl)

    async def refresh(self, account: str) -> None:
        await self._call("refresh", account)

    async def report(self, account: str) -> None:
        known = self._witness.known(account)
        if known.served:
            generation = max(known.served)
            known.reported.add(known.served[generation])
            await self._call("reject", account, generation=generation)

    async def log_in(self, account: str) -> None:
        await self._world.login(account, USERS[account])
        self._witness.logged_in(account)

    async def log_out(self, account: str) -> None:
        known = self._witness.known(account)
        known.leaving = True
        try:
            await self._world.call("logout", account=account)
        except SpotokendError:
            known.leaving = False
            raise
        self._witness.logged_out(account)

    # What turns out otherwise from now on.

    def fault(self, name: str) -> None:
        self._world.provider.faults.put([FAULTS[name]])

    def well(self) -> None:
        self._world.provider.faults.clear()

    def full_disk(self, call: str) -> None:
        self._store.troubles[call] = FULL

    def no_spill(self) -> None:
        self._world.spill.troubles["write"] = SpillError("the socket's folder is read-only")

    def slow_disk(self, call: str) -> None:
        self._store.slow[call] = 3.0

    def mend(self) -> None:
        self._store.troubles.clear()
        self._store.slow.clear()
        self._world.spill.troubles.clear()

    def set_clock(self, offset: float) -> None:
        self._world.offset = offset

    # What takes its time.

    async def wait(self, seconds: float) -> None:
        for _ in range(LOOKS):
            await anyio.sleep(seconds / LOOKS)
            self._witness.look()

    async def reload(self) -> None:
        with suppress(StoreError, SpotokendError):
            await self._world.roster.reconfigure(self._world.config, {"pkce": None})
        self._world.keeper.kick()

    async def kill(self) -> None:
        self._witness.killed()
        self.mend()  # or the next one can't begin
        await self._world.kill()

    async def restart(self) -> None:
        self._world.keeper.stop()
        await anyio.sleep(5)
        self.mend()  # it waits for the disk

    async def end(self) -> None:
        """All is well again: whoever can have a token gets one, within two days."""
        self.mend()
        self.well()
        self.set_clock(EPOCH)
        await self.reload()
        for _ in range(48):
            await self.wait(HOUR)
            waiting = [name for name in self._entitled() if not self._is_fresh(name)]
            if not waiting:
                break
        for name in self._entitled():
            await self.ask(name, 0.0)
        self._witness.look()

    def _entitled(self) -> list[str]:
        """Not logged out, not lost, and not refused so often that the program has given up."""
        return [
            name
            for name, known in self._witness.accounts.items()
            if known.consent is not None
            and not known.lost
            and not (known.refused and self._has_given_up(name))
        ]

    def _has_given_up(self, name: str) -> bool:
        state = self._world.account(name).state
        return isinstance(state, Quarantined) and state.probe_at is None

    def _is_fresh(self, name: str) -> bool:
        return isinstance(self._world.account(name).state, Fresh)


CALLS = {
    "ask": Step.ask,
    "refresh": Step.refresh,
    "report": Step.report,
    "log in": Step.log_in,
    "log out": Step.log_out,
}
TURNS = {
    "fault": Step.fault,
    "well": Step.well,
    "full disk": Step.full_disk,
    "no spill": Step.no_spill,
    "slow disk": Step.slow_disk,
    "disk is well": Step.mend,
    "clock": Step.set_clock,
}
PASSAGES = {
    "wait": Step.wait,
    "reload": Step.reload,
    "kill": Step.kill,
    "restart": Step.restart,
    "the end": Step.end,
}
