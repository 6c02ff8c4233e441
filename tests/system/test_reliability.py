"""Each fault at each moment of a refresh, on the real daemon: what ``docs/reliability.md`` says.

The daemon is stopped at the moment, struck, and let go. A cell is made by a test of its own,
``test_a_fault_at_a_moment[FAULT-MOMENT]``; what is expected of it is data (``fault_matrix``).
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import pytest
from fault_matrix import MATRIX, PAGE, Effect, Fault, Moment, page
from faulty_line import Fault as LineFault
from faulty_line import Listens
from forked_daemon import ForkServer
from rotating import (
    CUT_OFF,
    GRACE,
    LIFE,
    LOST,
    SOON,
    Rotating,
    SandboxBooks,
    answer,
    configuration,
)
from stepped_daemon import SteppedDaemon, SteppedLine, Steps
from system_calls import failing

from spotokend.errors import LoginRequired, Unavailable
from spotokend.sandbox import Options, Rotation, running

ACCOUNTS = {"alice": "strict", "bob": "grace", "carol": "auto"}
OF_KIND = {kind: account for account, kind in ACCOUNTS.items()}
HOURS = 3 * 3600.0
A_WHILE = 0.5
"""Seconds."""


class World:
    """A provider of every kind, a line, and the daemon that is stopped and struck."""

    def __init__(self, folder: Path, fork_server: ForkServer, stack: ExitStack) -> None:
        options = Options(access_life=LIFE, auto_approve=True)
        sandbox = stack.enter_context(running(options))
        self.books = SandboxBooks(sandbox)
        self.steps = Steps(folder)
        stack.callback(self.steps.close)
        self.line = stack.enter_context(SteppedLine(("127.0.0.1", sandbox.port), self.steps))
        self.config = configuration(sandbox.url, ACCOUNTS, f"{self.line.url}/api/token")
        self.daemon = SteppedDaemon(folder, self.config, fork_server, self.steps)
        self.rotating = Rotating(self.books, self.daemon)
        self.daemon.start()
        stack.callback(self.end)

    def end(self) -> None:
        """Leave no process behind."""
        if self.running:
            self.daemon.kill()

    @property
    def running(self) -> bool:
        """Whether there is a daemon."""
        try:
            status = Path(f"/proc/{self.daemon.pid}/status").read_text()
        except FileNotFoundError:
            return False
        return "State:\tZ" not in status

    def prepare(self, kind: str) -> str:
        """Begin anew, whatever an earlier test has left; returns the account of that kind."""
        account = OF_KIND[kind]
        self.line.torn = False
        self.line.mend()
        self.daemon.set_wall(0.0)
        self.daemon.configure(self.config)
        provider = self.books.sandbox.provider
        provider.options = provider.options.changed(
            {
                "rotation": Rotation.NEVER if kind == "auto" else Rotation.ALWAYS,
                "grace": GRACE if kind == "grace" else 0.0,
            }
        )
        if not self.running:
            self.daemon.start()
        self.rotating.ask("reload")
        self.rotating.log_in(account)
        answer(self.rotating.begin("refresh", account=account))  # loads what is loaded late
        return account


class Strike:
    """One fault at one moment: what was before, and what is to be done when it has passed."""

    def __init__(self, world: World, fault: Fault, moment: Moment) -> None:
        self.world = world
        self.rotating = world.rotating
        self.daemon = world.daemon
        self.moment = moment
        self.account = world.prepare(fault.rotation)
        self.before = self.rotating.ask("token", account=self.account)
        self.rotations = self.redeemed()
        self.doubles = world.books.ledger.double_redemptions
        self.login = {}
        if fault is Fault.LOGIN:
            self.login = self.rotating.ask("login_start", account=self.account)
        self.generation: int = self.before["generation"]
        self.offset = 0.0
        """Of the daemon's civil time, seconds."""
        self.disk = ExitStack()
        """What is wrong with it, until it is closed."""
        self.caller = self.rotating.begin("hello")
        """The program that asks for the refresh."""
        self.asked: list[socket.socket] = []
        """What else was asked, and is not answered yet."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.disk.close()
        for connection in (self.caller, *self.asked):
            connection.close()

    def begin(self) -> None:
        """The refresh."""
        self.caller.close()
        self.caller = self.rotating.begin("refresh", account=self.account)

    def redeemed(self) -> int:
        """How often the provider has served a refresh."""
        return self.world.books.rotations(self.account)

    def ask(self, method: str, **arguments: object) -> None:
        """Have it done now where that is possible, or else as soon as the daemon goes on."""
        connection = self.rotating.begin(method, **arguments)
        self.asked.append(connection)
        if self.moment is not Moment.BEFORE_PUBLISH:
            connection.settimeout(A_WHILE)
            with suppress(TimeoutError):  # it waits for the end of the refresh
                connection.recv(1, socket.MSG_PEEK)
            connection.settimeout(SOON)

    def answered(self) -> list[dict[str, Any]]:
        """All that was asked has been done."""
        return [answer(connection) for connection in self.asked]

    def mend(self) -> None:
        """Disk and line are good again."""
        self.disk.close()
        self.world.line.torn = False
        self.world.line.mend()

    def restart(self) -> None:
        """The next daemon, in a world that is well again."""
        self.mend()
        self.daemon.start()

    def token(self) -> dict[str, Any]:
        """What a program gets, which is a token that works."""
        token = self.rotating.ask("token", account=self.account)
        assert self.world.books.works(token["access_token"])
        left = token["expires_boot"] - time.clock_gettime(time.CLOCK_BOOTTIME)
        assert 0 < left <= LIFE
        assert abs(token["expires_at"] - time.time() - self.offset - left) < 1
        return token

    def status(self) -> dict[str, Any]:
        return self.rotating.status(self.account)

    def until(self, state: str) -> dict[str, Any]:
        """Wait for that state of the account; its status."""
        return self.rotating.until(self.account, lambda status: status["state"] == state)


# ------------------------------------------------------------------------------------ the faults


def kill(strike: Strike) -> None:
    assert strike.daemon.kill() == -signal.SIGKILL


def terminate(strike: Strike) -> None:
    os.kill(strike.daemon.pid, signal.SIGTERM)


def reload(strike: Strike) -> None:
    strike.daemon.reload()
    strike.ask("reload")


def reregister(strike: Strike) -> None:
    other = strike.world.config.replace("sandbox-pkce-client", "another-client")
    strike.daemon.configure(other)
    strike.ask("reload")


def logout(strike: Strike) -> None:
    strike.ask("logout", account=strike.account)


def login(strike: Strike) -> None:
    address = strike.world.books.agree(strike.login["url"], strike.account)
    strike.ask("login_finish", login_id=strike.login["login_id"], redirect_url=address)


def reject(strike: Strike) -> None:
    strike.ask("reject", account=strike.account, generation=strike.generation)


def caller_gone(strike: Strike) -> None:
    strike.caller.close()


def second_daemon(strike: Strike) -> None:
    first = strike.daemon.pid
    other = strike.daemon._launch("run", "--config", str(strike.daemon.config))
    assert other.wait(SOON) == 2
    assert f"spotokend with process id {first} is running already" in strike.daemon.written()


def stopped(strike: Strike) -> None:
    os.kill(strike.daemon.pid, signal.SIGSTOP)
    time.sleep(A_WHILE)
    os.kill(strike.daemon.pid, signal.SIGCONT)


def wall_forward(strike: Strike) -> None:
    strike.offset = HOURS
    strike.daemon.set_wall(HOURS)


def wall_back(strike: Strike) -> None:
    strike.offset = -HOURS
    strike.daemon.set_wall(-HOURS)


def cut(strike: Strike) -> None:
    strike.world.line.torn = True
    strike.world.line.break_with(LineFault(listens=Listens.CLOSED))


def late(strike: Strike) -> None:
    time.sleep(2.0)


def full(strike: Strike) -> None:
    calls = failing(strike.daemon.pid, "ENOSPC", "pwrite64", below=strike.rotating.folder)
    strike.disk.enter_context(calls)


def broken(strike: Strike) -> None:
    calls = failing(strike.daemon.pid, "EIO", "fsync", "fdatasync", below=strike.rotating.folder)
    strike.disk.enter_context(calls)


STRIKES: dict[Fault, Callable[[Strike], None]] = {
    Fault.KILL: kill,
    Fault.KILL_GRACE: kill,
    Fault.KILL_KEEPS: kill,
    Fault.TERMINATE: terminate,
    Fault.RELOAD: reload,
    Fault.REREGISTER: reregister,
    Fault.LOGOUT: logout,
    Fault.LOGIN: login,
    Fault.REJECT: reject,
    Fault.CALLER_GONE: caller_gone,
    Fault.SECOND_DAEMON: second_daemon,
    Fault.STOPPED: stopped,
    Fault.WALL_FORWARD: wall_forward,
    Fault.WALL_BACK: wall_back,
    Fault.CUT: cut,
    Fault.CUT_GRACE: cut,
    Fault.LATE: late,
    Fault.FULL: full,
    Fault.FULL_KILLED: full,
    Fault.FULL_TERMINATED: full,
    Fault.BROKEN: broken,
}


def kill_once_told(strike: Strike) -> None:
    """The disk has refused what there was to write: now the program is killed."""
    with suppress(Unavailable):  # where nothing was sent
        answer(strike.caller)
    kill(strike)


def terminate_once_told(strike: Strike) -> None:
    """The same with SIGTERM, which ends it within seconds, full disk or not."""
    with suppress(Unavailable):
        answer(strike.caller)
    assert strike.daemon.terminate() == 0


AFTERWARDS: dict[Fault, Callable[[Strike], None]] = {
    Fault.FULL_KILLED: kill_once_told,
    Fault.FULL_TERMINATED: terminate_once_told,
}


# ----------------------------------------------------------------------------------- the effects


def renewed(strike: Strike) -> None:
    if strike.caller.fileno() >= 0:
        assert answer(strike.caller)["generation"] == strike.generation + 1
    strike.answered()
    assert strike.until("fresh")["durable"]
    assert strike.token()["generation"] == strike.generation + 1
    assert strike.redeemed() == strike.rotations + 1


def as_before(strike: Strike) -> None:
    strike.restart()
    assert strike.token()["access_token"] == strike.before["access_token"]
    assert strike.status()["state"] == "fresh"
    assert strike.redeemed() == strike.rotations


def not_sent(strike: Strike) -> None:
    status = strike.until("waiting")
    assert status["failures"] >= 1
    assert strike.token()["access_token"] == strike.before["access_token"]
    assert strike.redeemed() == strike.rotations
    strike.mend()
    strike.until("fresh")
    assert strike.token()["generation"] == strike.generation + 1
    assert strike.redeemed() == strike.rotations + 1


def in_doubt(strike: Strike) -> None:
    """The first half of two effects: nothing is presented while there is something to be lost."""
    if not strike.world.running:
        strike.restart()
        strike.token()
        assert strike.status()["reason"] == CUT_OFF
    status = strike.until("waiting")
    assert status["due_at"] >= strike.before["expires_at"] - 0.05 * LIFE - 1
    assert strike.token()["access_token"] == strike.before["access_token"]
    assert strike.world.books.ledger.double_redemptions == strike.doubles
    strike.mend()


def waited(strike: Strike) -> None:
    in_doubt(strike)
    assert strike.redeemed() == strike.rotations
    # As good as its end, and sooner: from now on it is of no use to anybody.
    token = strike.rotating.ask("reject", account=strike.account, generation=strike.generation)
    # After a kill not the next one: that may have been served before.
    assert token["generation"] > strike.generation
    assert strike.redeemed() == strike.rotations + 1


def lost(strike: Strike) -> None:
    in_doubt(strike)
    assert strike.redeemed() == strike.rotations + 1
    with pytest.raises(LoginRequired, match=LOST):
        strike.rotating.ask("reject", account=strike.account, generation=strike.generation)
    strike.daemon.kill()
    strike.restart()
    # Kept all the same: the provider may have been mistaken.
    status = strike.until("quarantined")
    assert LOST in status["reason"]
    assert status["hint"] == f"spotokend login {strike.account}"
    assert strike.rotating.stored(strike.account).sealed
    strike.rotating.log_in(strike.account)
    assert strike.status()["state"] == "fresh"


def again(strike: Strike) -> None:
    if not strike.world.running:
        strike.restart()
    strike.mend()
    strike.until("fresh")
    assert strike.token()["generation"] > strike.generation
    assert strike.redeemed() - strike.rotations in {1, 2}


def saved(strike: Strike) -> None:
    strike.restart()
    assert strike.token()["generation"] == strike.generation + 1
    assert strike.status()["durable"]
    assert strike.redeemed() == strike.rotations + 1


def finished(strike: Strike) -> None:
    assert strike.daemon.wait() == 0
    saved(strike)


def unsaved(strike: Strike) -> None:
    assert answer(strike.caller)["generation"] == strike.generation + 1
    status = strike.until("unsaved")
    assert not status["durable"]
    assert strike.token()["generation"] == strike.generation + 1
    assert (strike.rotating.spill / f"{strike.account}.spill").exists()
    assert strike.redeemed() == strike.rotations + 1
    strike.mend()
    assert strike.until("fresh")["durable"]
    assert not (strike.rotating.spill / f"{strike.account}.spill").exists()
    assert strike.redeemed() == strike.rotations + 1


def spilled(strike: Strike) -> None:
    assert (strike.rotating.spill / f"{strike.account}.spill").exists()
    saved(strike)
    assert not (strike.rotating.spill / f"{strike.account}.spill").exists()


def logged_out(strike: Strike) -> None:
    strike.answered()
    strike.until("needs_login")
    with pytest.raises(LoginRequired):
        strike.rotating.ask("token", account=strike.account)
    assert not strike.rotating.spill.exists() or list(strike.rotating.spill.iterdir()) == []
    strike.daemon.kill()
    strike.restart()
    assert strike.status()["state"] == "needs_login"


def new_login(strike: Strike) -> None:
    strike.answered()
    assert strike.until("fresh")["durable"]
    token = strike.token()
    grant = strike.world.books.grant(strike.account)
    assert strike.world.books.ledger.access(token["access_token"]).grant is grant
    strike.daemon.kill()
    strike.restart()
    assert strike.token()["access_token"] == token["access_token"]


def aside(strike: Strike) -> None:
    strike.answered()
    assert strike.until("needs_login")["reason"].startswith("its client is another registration")
    assert strike.redeemed() == strike.rotations + 1
    strike.daemon.configure(strike.world.config)
    strike.rotating.ask("reload")
    assert strike.status()["state"] == "fresh"
    assert strike.token()["generation"] == strike.generation + 1


EFFECTS: dict[Effect, Callable[[Strike], None]] = {
    Effect.RENEWED: renewed,
    Effect.AS_BEFORE: as_before,
    Effect.NOT_SENT: not_sent,
    Effect.WAITED: waited,
    Effect.AGAIN: again,
    Effect.LOST: lost,
    Effect.SAVED: saved,
    Effect.FINISHED: finished,
    Effect.UNSAVED: unsaved,
    Effect.SPILLED: spilled,
    Effect.LOGGED_OUT: logged_out,
    Effect.NEW_LOGIN: new_login,
    Effect.ASIDE: aside,
}


# ------------------------------------------------------------------------------------- the cells


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """One for all cells: each begins with a login."""
    with ExitStack() as stack:
        server = stack.enter_context(ForkServer("stepped_daemon"))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="spotokend-"))
        yield World(Path(folder), server, stack)


CELLS = [
    pytest.param(fault, moment, id=f"{fault.name.lower()}-{moment}")
    for fault, row in MATRIX.items()
    for moment, cell in row.items()
    if isinstance(cell, Effect)
]


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize(("fault", "moment"), CELLS)
def test_a_fault_at_a_moment(world: World, fault: Fault, moment: Moment):
    """What the matrix expects is what happens; and what is stored then is a grant that lives."""
    effect = MATRIX[fault][moment]
    assert isinstance(effect, Effect)
    with Strike(world, fault, moment) as strike:
        with world.steps.stopped_at(moment) as reached:
            strike.begin()
            assert reached.wait(SOON), strike.daemon.written()[-3000:]
            STRIKES[fault](strike)
        if fault in AFTERWARDS:
            AFTERWARDS[fault](strike)
        EFFECTS[effect](strike)
        if effect is not Effect.LOGGED_OUT:
            strike.mend()
            generation = strike.token()["generation"]
            token = strike.rotating.ask("refresh", account=strike.account)
            assert token["generation"] == generation + 1


# -------------------------------------------------------------------------------------- the page


def test_every_fault_and_effect_is_made():
    """The data names nothing that no test does; each moment of each fault has its cell."""
    used = {cell for row in MATRIX.values() for cell in row.values() if isinstance(cell, Effect)}
    assert used == set(Effect) == set(EFFECTS)
    assert {fault for fault, row in MATRIX.items() if Effect.RENEWED in row.values()} <= set(
        STRIKES
    )
    assert set(MATRIX) == set(Fault)
    assert all(set(row) == set(Moment) for row in MATRIX.values())


def test_the_page_says_what_the_tests_show():
    """To renew docs/reliability.md: python tests/fault_matrix.py"""
    assert PAGE.read_text() == page()
