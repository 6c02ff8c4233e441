"""What systemd hears: how it is in words, signs of life for real work only, more time at the end."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager

import anyio
import pytest
import trio
from world import CONFIG, running, virtual_time

from spotokend import wire
from spotokend.adapters.listener import bind
from spotokend.adapters.notify import Notify
from spotokend.errors import Misconfigured
from spotokend.service import supervision
from spotokend.service.supervision import Supervision, supervised

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    """Hours pass in no time."""
    return virtual_time()


class Told(Notify):
    """Keeps what it is told, and when."""

    def __init__(self, watchdog=None):
        super().__init__({})
        self.messages = []
        self.watchdog = watchdog

    @property
    def heard(self):
        return True

    def _tell(self, *assignments):
        self.messages.append((trio.current_time(), assignments[0]))

    def of(self, name):
        """What was told under this name, without the times."""
        return [words.partition("=")[2] for _, words in self.messages if words.startswith(name)]


TWO = (
    CONFIG
    + """
[accounts.main]
client = "pkce"
[accounts.other]
client = "pkce"
"""
)


@asynccontextmanager
async def supervising(told, config=TWO):
    """A world of which ``told`` hears."""
    async with running(config) as world:
        supervision = Supervision(told, world.registry)
        publish = world.registry._publish

        def also(account, change):
            publish(account, change)
            supervision.heard(account)

        world.registry._publish = also
        yield world, supervision


async def test_the_status_line_follows_the_accounts():
    """At most once a second, and never for nothing."""
    told = Told()
    async with supervising(told) as (world, supervision), anyio.create_task_group() as tasks:
        tasks.start_soon(supervision.tell_status)
        await anyio.sleep(3)
        await world.login("main", "alice")
        await anyio.sleep(3)
        await world.login("other", "bob")
        await anyio.sleep(100)
        tasks.cancel_scope.cancel()
    words = told.of("STATUS")
    assert words[0] == "Keeps 2 accounts. Not well: main, other (spotokend status)"
    assert words[1] == ("Keeps 2 accounts. other: nobody has logged in yet (spotokend login other)")
    assert words[-1] == "Keeps 2 accounts, all well"
    assert len(words) <= 6


async def test_many_in_trouble_are_counted():
    """And one account is an account."""
    told = Told()
    sections = "".join(f'[accounts.a{number}]\nclient = "pkce"\n' for number in range(5))
    async with supervising(told, CONFIG + sections) as (_, supervision):
        async with supervision.reload():
            pass
        assert supervision.words() == (
            "Keeps 5 accounts. Not well: a0, a1, a2 and 2 more (spotokend status)"
        )
    async with supervising(told, CONFIG) as (world, supervision):
        assert supervision.words() == "No account yet: spotokend login"
        await world.login("main", "alice")
        assert supervision.words() == "Keeps 1 account, all well"


async def test_a_reload_is_told_from_its_beginning_to_its_end_whatever_comes():
    """Else systemd would wait for ever."""
    told = Told()
    async with supervising(told) as (_, supervision):
        with pytest.raises(ZeroDivisionError):
            async with supervision.reload():
                assert [words for _, words in told.messages] == ["RELOADING=1"]
                raise ZeroDivisionError
    assert [words for _, words in told.messages] == ["RELOADING=1", "READY=1"]


class Part:
    """A keeper and a server in one, which is stuck or isn't."""

    def __init__(self):
        self.stuck = False
        self.asked = []

    async def looks(self):
        await self._go_on("keeper")

    async def answers(self):
        await self._go_on("server")

    async def _go_on(self, name):
        self.asked.append(name)
        if self.stuck:
            await anyio.sleep_forever()


@pytest.mark.parametrize("hangs", ["keeper", "server", None])
async def test_the_watchdog_is_fed_while_both_loops_go_round(hangs):
    """Three times in its time; one that is stuck ends it."""
    told = Told(watchdog=180.0)
    keeper, server = Part(), Part()
    async with supervising(told) as (_, supervision), anyio.create_task_group() as tasks:
        began = trio.current_time()
        tasks.start_soon(supervision.feed_watchdog, keeper, server)
        await anyio.sleep(130)
        {"keeper": keeper, "server": server}.get(hangs, Part()).stuck = True
        await anyio.sleep(120)
        tasks.cancel_scope.cancel()
    times = [round(when - began) for when, words in told.messages if words == "WATCHDOG=1"]
    assert times == [0, 60, 120] + ([] if hangs else [180, 240])


async def test_without_a_watchdog_nothing_wakes():
    """Nor where nobody listens at all."""
    keeper = Part()
    silent = Notify({})
    async with supervising(Told()) as (world, supervision):
        await supervision.feed_watchdog(keeper, keeper)
        await Supervision(silent, world.registry).tell_status()
        await Supervision(silent, world.registry).ask_for_time()
    assert keeper.asked == []


async def test_the_end_is_told_and_more_time_is_asked_for():
    """Well before what was given is over."""
    told = Told()
    async with supervising(told) as (_, supervision), anyio.create_task_group() as tasks:
        tasks.start_soon(supervision.ask_for_time)
        await anyio.sleep(99)
        tasks.cancel_scope.cancel()
    assert told.messages[0][1] == "STOPPING=1"
    times = [when for when, words in told.messages[1:]]
    assert told.of("EXTEND_TIMEOUT_USEC") == ["60000000"] * 5
    assert times[-1] - times[0] == pytest.approx(80)


# -------------------------------------------------------------------------------- how it is started


class TestSupervised:
    """Around the daemon's whole run; in real time."""

    @pytest.fixture
    def anyio_backend(self):
        """As in production."""
        return "asyncio"

    def test_what_systemd_passed_is_handed_on(self, monkeypatch):
        """Nothing, here; and the status is the run's."""
        given = []

        def start(*, notify, held):
            given.append((notify.heard, held))
            return 7

        assert supervised(start) == 7
        assert given == [(False, None)]

    def test_a_start_that_fails_is_told(self, short_path, monkeypatch):
        """To systemd, and to those who wait at its socket."""
        path = str(short_path / "socket")
        told = []
        monkeypatch.setattr(Notify, "status", lambda self, words: told.append(words))

        def start(*, notify, held):
            raise Misconfigured("no client is configured")

        with bind(path) as held, socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(wire.request(1, "token"))
            monkeypatch.setattr(supervision, "passed", lambda environ: held.dup())
            with pytest.raises(Misconfigured):
                supervised(start)
            ((_, _, error, _),) = wire.Decoder().feed(client.recv(4096))
        assert error[:2] == ["misconfigured", "no client is configured"]
        assert told == ["Not started: no client is configured"]

    def test_without_a_socket_only_systemd_is_told(self, monkeypatch):
        """There is nobody else."""
        told = []
        monkeypatch.setattr(Notify, "status", lambda self, words: told.append(words))

        def start(*, notify, held):
            raise Misconfigured("no")

        with pytest.raises(Misconfigured):
            supervised(start)
        assert told == ["Not started: no"]
