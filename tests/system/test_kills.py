"""SIGKILL in the middle of a refresh of the real daemon, and what the next start makes of it.

The law: a grant may be lost only between the server's rotation and our write of its answer, and
then it is in quarantine with that cause. The provider's books and the store's files are the
witnesses. With a server that gives grace, and a start inside it, none is lost at all.

What no kill can show, because the kernel keeps what a killed process wrote, is seen in the order of
its system calls: nothing leaves before what it rests on is synced.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

import anyio
import httpx
import pytest
from forked_daemon import ForkedDaemon, ForkServer
from nightly import SEED, often
from real_servers import AuthorizationServer
from rotating import (
    CUT_OFF,
    GRACE,
    LIFE,
    LOST,
    TIMING,
    Rotating,
    SandboxBooks,
    Stored,
    answer,
    rotating,
)
from system_calls import Call, killed_at, record

from spotokend.adapters.store.base import Row, aside
from spotokend.adapters.store.sqlite import SqliteStore
from spotokend.errors import LoginRequired
from spotokend.sandbox import Options

pytestmark = [pytest.mark.usefixtures("strace"), pytest.mark.timeout(often(120, 3600))]

RANDOM_KILLS = often(28, 480)
"""With either kind of server."""
USERS = ("alice", "bob", "carol")
REDEEMS = '"grant_type=refresh_token'
LOG = "store.sqlite3-wal"
PAGE, FRAME, MOVED_AT = 4092, 4120, 1000
"""Bytes of a row that go on a page, and of a page in SQLite's log; pages at which that is moved."""


class Fate(StrEnum):
    """What became of a grant."""

    KEPT = "not rotated, kept"
    SAVED = "rotated, saved"
    GRACED = "rotated, regained by grace"
    LOST = "rotated, lost and told"


class OidcBooks:
    """Those of a server that nobody here wrote; of one user."""

    def __init__(self, server: AuthorizationServer) -> None:
        self._server = server

    def rotations(self, account: str) -> int:
        return self._server.counters()["refreshes"]

    def works(self, token: str) -> bool:
        headers = {"Authorization": f"Bearer {token}"}
        url = self._server.identity_url
        return httpx.get(url, headers=headers, trust_env=False, verify=False).is_success

    def agree(self, url: str, user: str) -> str:
        return self._server.log_in(f"{url}&login_hint={user}")


@pytest.fixture
def strict(short_path: Path, fork_server: ForkServer) -> Iterator[Rotating[SandboxBooks]]:
    """A refresh token works once, and presented again it ends the login.

    Of bob's this was seen, and is not said.
    """
    process = partial(ForkedDaemon, server=fork_server)
    kinds = dict.fromkeys(USERS, "strict") | {"bob": "auto"}
    with rotating(short_path, kinds, process=process) as world:
        yield world


@pytest.fixture
def forgiving(short_path: Path, fork_server: ForkServer) -> Iterator[Rotating[SandboxBooks]]:
    """A used refresh token is taken for a minute more."""
    options = Options(access_life=LIFE, auto_approve=True, rotation="always", grace=GRACE)
    process = partial(ForkedDaemon, server=fork_server)
    with rotating(short_path, dict.fromkeys(USERS, "grace"), options, process) as world:
        yield world


@pytest.fixture
def from_cold(short_path: Path) -> Iterator[Rotating[SandboxBooks]]:
    """As ``strict``; but each daemon loads all that it needs itself."""
    with rotating(short_path, dict.fromkeys(USERS, "strict")) as world:
        yield world


# ------------------------------------------------------------------------------------- the law


class Before:
    """What an account had before the kill."""

    def __init__(self, world: Rotating, account: str) -> None:
        self.rotations = world.provider.rotations(account)
        self.generation = world.ask("token", account=account)["generation"]


def survived(world: Rotating, accounts: Sequence[str], kill: Callable[[], None]) -> dict[str, Fate]:
    """Kill the daemon, start it, and hold it to the law; what became of each account."""
    before = {account: Before(world, account) for account in accounts}
    kill()
    stored = {account: world.stored(account) for account in accounts}
    world.daemon.start()
    return {name: judged(world, name, before[name], stored[name]) for name in accounts}


def judged(world: Rotating, account: str, before: Before, stored: Stored) -> Fate:
    """What became of the account, after the start."""
    saved = stored.generation > before.generation
    if stored.open_intent:
        assert not saved
        return doubted(world, account, before)
    token = world.ask("token", account=account)
    assert world.status(account)["state"] == "fresh"
    assert token["generation"] == before.generation + saved
    assert world.provider.works(token["access_token"])
    assert world.provider.rotations(account) == before.rotations + saved
    return Fate.SAVED if saved else Fate.KEPT


def doubted(world: Rotating, account: str, before: Before) -> Fate:
    """The intent was on the disk and no answer: nobody knows what the server did."""
    if world.status(account)["client"] == "grace":
        # It is asked again unasked, as its time runs.
        world.until(account, lambda status: status["state"] == "fresh")
        token = world.ask("token", account=account)
        assert token["generation"] > before.generation
        assert world.provider.works(token["access_token"])
        asked = world.provider.rotations(account) - before.rotations
        assert asked in {1, 2}
        return Fate.KEPT if asked == 1 else Fate.GRACED
    rotated = world.provider.rotations(account) > before.rotations
    token = world.ask("token", account=account)
    status = world.status(account)
    assert (status["state"], status["reason"]) == ("waiting", CUT_OFF)
    # Presented again now, the used one would take this token along.
    assert token["generation"] == before.generation
    assert world.provider.works(token["access_token"])
    try:
        token = world.ask("reject", account=account, generation=token["generation"])
    except LoginRequired as refused:
        assert rotated, "the server did not rotate, and the login is lost"
        assert LOST in str(refused)
        assert world.status(account)["state"] == "quarantined"
        world.log_in(account)
        return Fate.LOST
    assert not rotated
    assert world.provider.works(token["access_token"])
    return Fate.KEPT


def renewed(world: Rotating, *accounts: str) -> None:
    """All of them at once: what is stored of each is the living end of its family."""
    before = {account: Before(world, account) for account in accounts}
    for connection in [world.begin("refresh", account=account) for account in accounts]:
        token = answer(connection)
        assert token["generation"] == before[token["account"]].generation + 1
        assert world.provider.works(token["access_token"])


# ------------------------------------------------------------------------------ at a system call


@dataclass(frozen=True, slots=True)
class Step:
    """A system call of a refresh, as it was recorded."""

    call: Call
    main_thread: bool


class KillAt:
    """To refresh an account, and to die on the way."""

    def __init__(self, world: Rotating, account: str, step: Step) -> None:
        self.world = world
        self.account = account
        self.step = step
        self.reached = True
        """False if the call was not made this time: killed afterwards, then."""

    def __call__(self) -> None:
        call, daemon = self.step.call, self.world.daemon
        main_thread = self.step.main_thread
        with killed_at(daemon.pid, call.name, call.number, main_thread=main_thread):
            try:
                self.world.ask("refresh", account=self.account)
            except EOFError:
                assert daemon.wait() == -signal.SIGKILL
                return
        self.reached = False
        daemon.kill()


def recorded(world: Rotating, account: str) -> list[Step]:
    """The calls of one refresh, in their order."""
    pid = world.daemon.pid
    calls = record(pid, lambda: world.ask("refresh", account=account), world.daemon.folder)
    assert any(REDEEMS in call.shown for call in calls)
    return [Step(call, main_thread=call.thread == pid) for call in calls]


def killed_at_each(
    world: Rotating, account: str, steps: Sequence[Step]
) -> list[tuple[Step, Fate | None]]:
    """What became of the account; None where the call was not made another time."""
    fates = []
    for step in steps:
        renewed(world, account)  # this also loads what is loaded by the first refresh
        kill = KillAt(world, account, step)
        fate = survived(world, [account], kill)[account]
        fates.append((step, fate if kill.reached else None))
    renewed(world, account)
    return fates


def outside_of_the_window(fates: Sequence[tuple[Step, Fate | None]]) -> list[Step]:
    """Where a grant was lost other than between the request and the last write of its answer."""
    calls = [step.call for step, _ in fates]
    sent = next(number for number, call in enumerate(calls) if REDEEMS in call.shown)
    written = max(number for number, call in enumerate(calls) if call.name == "pwrite64")
    return [
        step
        for number, (step, fate) in enumerate(fates)
        if fate is Fate.LOST
        and not sent < number <= written
        # How often a thread reads what woke it up differs from run to run; see judged().
        and step.call.name != "recvfrom"
    ]


def counts(fates: Sequence[tuple[Step, Fate | None]]) -> Counter[Fate]:
    """How many of each."""
    return Counter(fate for _, fate in fates if fate is not None)


def in_words(fates: Counter[Fate]) -> str:
    """For the summary of the run."""
    return ", ".join(f"{count} {fate}" for fate, count in sorted(fates.items()))


def test_a_kill_at_each_system_call_of_a_refresh(
    strict: Rotating[SandboxBooks], record_property: Callable[[str, object], None]
):
    """With a strict server: lost between rotation and write, nowhere else, and never silently."""
    renewed(strict, "alice")
    fates = killed_at_each(strict, "alice", recorded(strict, "alice"))
    counted = counts(fates)
    record_property("figures", f"{counted.total()} kills, strict server: {in_words(counted)}")
    assert set(counted) == {Fate.KEPT, Fate.SAVED, Fate.LOST}
    assert outside_of_the_window(fates) == []
    assert counted.total() >= len(fates) * 3 // 4
    # Each of those lost was presented a second time, once, when that could do no more harm.
    assert strict.provider.ledger.double_redemptions == counted[Fate.LOST]


def test_a_kill_at_each_system_call_and_a_server_with_grace(
    forgiving: Rotating[SandboxBooks], record_property: Callable[[str, object], None]
):
    """Nothing at all is lost: the start is inside the grace, and asks again at once."""
    renewed(forgiving, "alice")
    steps = recorded(forgiving, "alice")
    synced = [number for number, step in enumerate(steps) if step.call.name == "fdatasync"]
    # Before the intent is there, and after the answer is, all servers are the same.
    fates = killed_at_each(forgiving, "alice", steps[synced[0] : synced[-1] + 1])
    counted = counts(fates)
    record_property("figures", f"{counted.total()} kills, grace: {in_words(counted)}")
    assert set(counted) == {Fate.KEPT, Fate.SAVED, Fate.GRACED}
    assert counted.total() >= len(fates) * 3 // 4
    assert len(forgiving.provider.ledger.grants) == len(USERS)
    assert forgiving.provider.grant("alice").revoked is None


def test_kills_with_a_server_that_nobody_here_wrote(
    authorization_servers: type[AuthorizationServer],
    short_path: Path,
    fork_server: ForkServer,
    record_property: Callable[[str, object], None],
):
    """oidc-provider says the same: before, inside and after the window."""
    with authorization_servers(access_token_life=LIFE) as server:
        config = f"""
            [clients.strict]
            client_id = "public"
            scopes = ["openid"]
            rotation = "strict"
            authorize_url = "{server.authorize_url}"
            token_url = "{server.token_url}"
            identity_url = "{server.identity_url}"
            [accounts.ada]
            {TIMING}
        """
        with ForkedDaemon(short_path, config, fork_server) as daemon:
            world = Rotating(OidcBooks(server), daemon)
            world.log_in("ada")
            renewed(world, "ada")
            steps = [
                step
                for step in recorded(world, "ada")
                if step.call.name in {"pwrite64", "fdatasync"} or REDEEMS in step.call.shown
            ]
            fates = killed_at_each(world, "ada", steps)
            counted = counts(fates)
            words = f"{counted.total()} kills, oidc-provider: {in_words(counted)}"
            record_property("figures", words)
            assert set(counted) == {Fate.KEPT, Fate.SAVED, Fate.LOST}
            assert outside_of_the_window(fates) == []
            assert server.counters()["double_redemptions"] == counted[Fate.LOST]


# ---------------------------------------------------------------------- while the log is moved


def fill_the_log(folder: Path) -> None:
    """Bring the log to where the commit of the next refresh moves it into the file.

    It is left as a killed daemon leaves it; nobody asks for what it is filled with.
    """
    path, kept = folder / "store.sqlite3", folder / "kept"
    log = folder / "store.sqlite3-wal"

    async def fill() -> None:
        store = await SqliteStore.open(str(path), now=0)
        store._connection.execute("PRAGMA wal_autocheckpoint = 0")
        rows = await store.scan()
        for number in itertools.count():
            filling = Row(
                account=f"filling-{number}",
                slot=aside("gone"),
                client="gone",
                fingerprint="gone",
                state="fresh",
                key_id=rows[0].key_id,
                sealed=bytes(980 * PAGE if number == 0 else 100),
            )
            await store.put(filling)
            # A refresh adds one page with its intent and two or three with its answer.
            if log.stat().st_size >= (MOVED_AT - 3) * FRAME:
                break
        kept.mkdir(exist_ok=True)
        for file in (path, log):
            shutil.copy(file, kept)
        await store.close()  # which would have moved it

    anyio.run(fill)
    for file in (path, log):
        os.replace(kept / file.name, file)


@pytest.mark.parametrize(
    ("name", "number"),
    [("pwrite64", 1), ("pwrite64", 2), ("pwrite64", 500), ("fdatasync", 1)],
)
def test_a_kill_while_the_log_moves_into_the_file(
    strict: Rotating[SandboxBooks], name: str, number: int
):
    """The file is half new and half old, and the log mends it: nothing is lost."""
    renewed(strict, "alice")
    assert strict.daemon.terminate() == 0
    fill_the_log(strict.folder)
    strict.daemon.start()
    path = strict.folder / "store.sqlite3"

    def kill() -> None:
        with killed_at(strict.daemon.pid, name, number, path=path), pytest.raises(EOFError):
            strict.ask("refresh", account="alice")
        assert strict.daemon.wait() == -signal.SIGKILL

    fates = survived(strict, ["alice"], kill)
    assert fates["alice"] in {Fate.KEPT, Fate.SAVED}
    renewed(strict, *USERS)
    assert "damaged" not in strict.daemon.written()


# ---------------------------------------------------------------------------------- at any moment


@pytest.mark.parametrize("server", ["strict", "forgiving"])
def test_kills_at_random_while_three_accounts_refresh(
    request: pytest.FixtureRequest, server: str, record_property: Callable[[str, object], None]
):
    """Each of the three is somewhere else in its refresh, and each is held to the law."""
    world: Rotating[SandboxBooks] = request.getfixturevalue(server)
    dice = random.Random(SEED)
    renewed(world, *USERS)
    counted = Counter[Fate]()
    for _ in range(RANDOM_KILLS):
        begun = time.monotonic()
        renewed(world, *USERS)
        kill = partial(kill_after, world, dice.random() * (time.monotonic() - begun))
        counted.update(survived(world, USERS, kill).values())
    renewed(world, *USERS)
    words = f"{RANDOM_KILLS} random kills of three refreshes at once, {server} server, seed {SEED}"
    record_property("figures", f"{words}: {in_words(counted)}")
    if server == "forgiving":
        assert counted[Fate.LOST] == 0
        assert len(world.provider.ledger.grants) == len(USERS)


def kill_after(world: Rotating, seconds: float) -> None:
    """Let all of them refresh, and kill the daemon so much later."""
    connections = [world.begin("refresh", account=account) for account in USERS]
    time.sleep(seconds)
    world.daemon.kill()
    for connection in connections:
        connection.close()


# -------------------------------------------------------------------------- before the power fails


def test_nothing_leaves_before_what_it_rests_on_is_synced(strict: Rotating[SandboxBooks]):
    """The intent before the request, the answer before it is served: else a power cut may lose it."""
    renewed(strict, "alice")
    unsynced, syncs = False, 0
    for step in recorded(strict, "alice"):
        shown = step.call.shown
        if step.call.name in {"pwrite64", "ftruncate"} and LOG in shown:
            unsynced = True
        elif step.call.name in {"fsync", "fdatasync"} and LOG in shown:
            assert shown.endswith("= 0")
            unsynced, syncs = False, syncs + 1
        elif step.call.name == "sendto" and step.main_thread:
            assert not unsynced, step
            to_the_provider = "HTTP/1.1" in shown or REDEEMS in shown
            assert syncs == (1 if to_the_provider else 2), step
    assert (unsynced, syncs) == (False, 2)


def test_nothing_is_loaded_while_an_answer_is_awaited(from_cold: Rotating[SandboxBooks]):
    """Also at the first refresh after a start: an import that fails there would lose the answer."""
    assert from_cold.daemon.terminate() == 0
    from_cold.daemon.start()
    calls = [step.call for step in recorded(from_cold, "alice")]
    begun = next(number for number, call in enumerate(calls) if call.name == "fdatasync")
    opened = [call.shown for call in calls if call.name == "openat"]
    assert any("httpx" in shown for shown in opened)
    store = str(from_cold.folder)
    late = [call.shown for call in calls[begun:] if call.name == "openat"]
    assert [shown for shown in late if store not in shown] == []
