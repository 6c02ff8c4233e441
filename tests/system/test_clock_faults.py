"""Clocks that are set, that begin in 1970, that sleep: the real daemon process and real shims.

Civil time is moved under living processes by libfaketime, which reads it from a file at each look;
CLOCK_BOOTTIME and CLOCK_MONOTONIC stay the kernel's. No test can put its host to sleep: there
(:data:`SLEEPER`) CLOCK_BOOTTIME and civil time leap ahead of CLOCK_MONOTONIC, as a suspend has it.
What is expected of each is a row of docs/reliability.md.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any, Self

import pytest
import trustme
from daemon_process import DaemonProcess
from fault_matrix import row
from faulty_line import Fault, Line, Listens
from network_rows import reply
from watched_daemon import SOON, Watched, boot, fresh, in_trouble

import spotokend
from spotokend.sandbox import Options, Rotation, Sandbox, ready_configuration, running

pytestmark = [pytest.mark.timeout(120), pytest.mark.anyio]

HOUR = 3600.0
DAY = 24 * HOUR
SLACK = 5.0
"""Seconds that the machine may be late by."""
NAP = 0.5
TIMING = f"""
    [timing]
    nap = {NAP}
    start_spread = 0
    backoff_base = 0.25
    backoff_cap = 1
    backoff_cap_waiting = 1
"""


# --- civil time, set -----------------------------------------------------------------------------


class CivilTime:
    """Civil time as the processes with :attr:`environ` see it."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._file = folder / "civil-time"
        self.ahead = 0.0
        self.set(0)
        self.environ = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Else the interpreter's own lock is waited for in a loop without a pause.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "NO_FAKE_STAT": "1",
        }

    def set(self, ahead: float) -> None:
        """So many seconds ahead of the true one, or behind; for living processes, too."""
        self.ahead = ahead
        written = self._file.with_suffix(".new")
        written.write_text(f"{ahead:+.0f}")
        written.replace(self._file)  # read at any moment, it is whole

    def now(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def civil_time(short_path: Path) -> CivilTime:
    """True at first."""
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
    if library is None:
        pytest.skip("civil time that is set: libfaketime isn't installed (Debian: libfaketime)")
    return CivilTime(library, short_path)


@contextmanager
def provider(life: float, **options: Any) -> Iterator[Sandbox]:
    """With one user and one app."""
    usual = Options()
    chosen = Options(
        access_life=life,
        auto_approve=True,
        users=usual.users[:1],
        apps=usual.apps[:1],
        **options,
    )
    with running(chosen) as sandbox:
        yield sandbox


ACCOUNT = "alice"


def configuration(sandbox: Sandbox, token_url: str | None = None, *, timing: str = "") -> str:
    ready = ready_configuration(sandbox.url, sandbox.provider.options)
    if token_url is not None:
        ready = ready.replace(f"{sandbox.url}/api/token", f"{token_url}/api/token")
    return ready.replace(f"{sandbox.url}/v1/me", "none") + TIMING + timing


def token_requests(sandbox: Sandbox) -> int:
    """That the provider has seen; the login's among them."""
    by_endpoint: Any = sandbox.provider.record.by_endpoint
    return by_endpoint["POST /api/token"]


@row(
    "Civil time is set forward by 3 h, then back by 6 h, under a living daemon.",
    "Nothing that is dead is served, and nothing is refreshed for it more than once: expiry counts"
    " on CLOCK_BOOTTIME. `expires_at` in replies follows within a nap.",
)
async def test_civil_time_leaps(civil_time: CivilTime, short_path: Path):
    """Forward, and further back."""
    life = 3.0
    with provider(life) as sandbox:
        daemon = DaemonProcess(short_path, configuration(sandbox))
        daemon.environ |= civil_time.environ
        with daemon:
            async with Watched(daemon.socket) as watched:
                await watched.log_in(ACCOUNT)
                for ahead in (3 * HOUR, -3 * HOUR):
                    before, begun = token_requests(sandbox), boot()
                    civil_time.set(ahead)
                    told = 0.0
                    while boot() < begun + 1.5 * life:
                        token = await watched.token(ACCOUNT)  # which looks that it lives
                        believed = token.expires_at - civil_time.now()
                        if abs(believed - token.remaining) < 0.5:
                            told = told or boot()
                        await asyncio.sleep(0.05)
                    assert told - begun < NAP + SLACK
                    # Refreshed at 70 to 80 % of the life: 2 in one and a half, and one for the leap.
                    assert 1 <= token_requests(sandbox) - before <= 3
                status = await watched.status(ACCOUNT)
                assert {past["outcome"] for past in status["outcomes"]} == {"renewed"}
        assert "civil time was set by +10800 s" in daemon.written()
        assert "civil time was set by -21600 s" in daemon.written()


# --- 1970, another boot, the future --------------------------------------------------------------


def forget_the_boot(daemon: DaemonProcess) -> None:
    """What is in the store was written in another boot."""
    store = sqlite3.connect(daemon.folder / "home/.local/state/spotokend/store.sqlite3")
    with store:
        store.execute("UPDATE rows SET boot_id = 'another'")
    store.close()


@pytest.fixture(scope="module")
def stored() -> Iterator[tuple[Sandbox, Path]]:
    """A folder in which a daemon has stored a login, with a token of a day; and its provider."""
    with provider(DAY) as sandbox, tempfile.TemporaryDirectory(prefix="spotokend-") as name:
        folder = Path(name)

        async def log_in() -> None:
            async with Watched(daemon.socket) as watched:
                await watched.log_in(ACCOUNT)

        with DaemonProcess(folder, configuration(sandbox)) as daemon:
            asyncio.run(log_in())
        yield sandbox, folder


@dataclass(frozen=True)
class Start:
    """How a daemon finds the world again."""

    name: str
    rebooted: bool
    ahead: float
    """Of civil time since the token was stored, seconds."""
    served: bool
    """The stored token is."""


STARTS = (
    Start("same boot", rebooted=False, ahead=0, served=True),
    Start("same boot, set forward", rebooted=False, ahead=2 * DAY, served=True),
    Start("same boot, set back", rebooted=False, ahead=-2 * DAY, served=True),
    Start("another boot", rebooted=True, ahead=0, served=True),
    Start("another boot, later", rebooted=True, ahead=2 * HOUR, served=True),
    Start("another boot, after the end", rebooted=True, ahead=2 * DAY, served=False),
    Start("another boot, token from the future", rebooted=True, ahead=-2 * HOUR, served=False),
    Start("another boot, in 1970", rebooted=True, ahead=60 - time.time(), served=False),
)


@row(
    "The daemon is started again: in the same boot or another, with civil time right, wrong, before"
    " the token's issue, or in 1970.",
    "In the same boot CLOCK_BOOTTIME decides, and the stored token is served without a request. In"
    " another one civil time decides; a token that it calls dead, or from the future, is not served"
    " but renewed first, by one request.",
)
@pytest.mark.parametrize("start", STARTS, ids=lambda start: start.name)
async def test_a_start(
    stored: tuple[Sandbox, Path], civil_time: CivilTime, short_path: Path, start: Start
):
    """Served or renewed, by what can be known of the stored token's end."""
    sandbox, folder = stored
    shutil.copytree(folder / "home", short_path / "home")
    daemon = DaemonProcess(short_path, configuration(sandbox))
    daemon.environ |= civil_time.environ
    if start.rebooted:
        forget_the_boot(daemon)
    civil_time.set(start.ahead)
    before = token_requests(sandbox)
    with daemon:
        async with Watched(daemon.socket) as watched:
            token = await watched.token(ACCOUNT)
            state = await watched.until(ACCOUNT, lambda it: it["state"] == "fresh")
    asked = token_requests(sandbox) - before
    assert (token.generation, asked) == ((1, 0) if start.served else (2, 1))
    passed = start.ahead if start.rebooted and start.served else 0.0
    assert abs(token.remaining - (DAY - passed)) < HOUR / 2
    assert abs(token.expires_at - civil_time.now() - token.remaining) < SLACK
    assert state["health"] == "ok"


@row(
    "A host without a clock of its own starts in 1970, and gets the time later; the provider is"
    " asked over TLS.",
    "No certificate is valid in 1970: nothing is sent, `status` says what this host's clock says,"
    " and a caller gets `unavailable` with `retry_after`, not the stored token. Once time has come"
    " it is renewed by itself.",
)
async def test_1970_until_time_comes(civil_time: CivilTime, short_path: Path):
    """A start without time, and without harm."""
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(str(short_path / "authority.pem"))
    with provider(HOUR) as sandbox, Line(("127.0.0.1", sandbox.port), tls=tls) as line:
        daemon = DaemonProcess(short_path, configuration(sandbox, line.url))
        daemon.environ |= civil_time.environ | {"SSL_CERT_FILE": str(short_path / "authority.pem")}
        with daemon:
            async with Watched(daemon.socket) as watched:
                await watched.log_in(ACCOUNT)
            daemon.terminate()
            forget_the_boot(daemon)
            civil_time.set(60 - time.time())
            daemon.start()
            async with Watched(daemon.socket) as watched:
                told = await watched.until(ACCOUNT, in_trouble)
                words = "is not valid yet: is this host's clock right? It says 1970-01-01"
                assert words in told["reason"]
                with pytest.raises(spotokend.Unavailable) as refusal:
                    await watched.token(ACCOUNT)
                assert words in refusal.value.message
                assert 1 <= refusal.value.retry_after <= 2
                assert token_requests(sandbox) == 1
                civil_time.set(0)
                await watched.until(ACCOUNT, fresh(2))
                token = await watched.token(ACCOUNT)
        assert abs(token.expires_at - time.time() - HOUR) < 3 * SLACK
        assert token_requests(sandbox) == 2


@row(
    "A host in 1970 is told by 503 to come back at a date.",
    "The pause is the one between the server's own two dates, not between 1970 and now.",
)
async def test_a_pause_until_a_date(civil_time: CivilTime, short_path: Path):
    """Believed as it was meant."""
    with provider(3.0) as sandbox, Line(("127.0.0.1", sandbox.port)) as line:

        def busy(_: bytes) -> bytes:
            now, then = (formatdate(time.time() + wait, usegmt=True) for wait in (0, 3))
            dates = (f"Date: {now}", f"Retry-After: {then}")
            return reply(b"", *dates, status="503 Service Unavailable")

        daemon = DaemonProcess(short_path, configuration(sandbox, line.url))
        daemon.environ |= civil_time.environ
        civil_time.set(60 - time.time())
        line.break_with(Fault(served=False, answer=busy, count=1), after=1)
        with daemon:
            async with Watched(daemon.socket) as watched:
                await watched.log_in(ACCOUNT)
                await watched.until(ACCOUNT, fresh(2))
        _, refused, again, *_ = (request.at for request in line.requests)
        assert 3 <= again - refused < 3 + SLACK


# --- sleep ---------------------------------------------------------------------------------------

SLEEPER = """
import runpy, sys, time
path, *sys.argv = sys.argv[1:]
clock_gettime, civil = time.clock_gettime, time.time

def slept():
    with open(path) as file:
        return float(file.read())

time.clock_gettime = lambda clock: clock_gettime(clock) + slept() * (clock == time.CLOCK_BOOTTIME)
time.time = lambda: civil() + slept()
if sys.argv[0] == "-c":
    exec(sys.argv[1])
else:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""A program whose host has slept for as long as a file says: its argument, then a module or ``-c``."""


class Sleep:
    """How long the host has slept since the test began."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "slept"
        self.seconds = 0.0
        self.fall_asleep_for(0)

    def fall_asleep_for(self, seconds: float) -> None:
        """And awake again."""
        self.seconds += seconds
        written = self._file.with_suffix(".new")
        written.write_text(str(self.seconds))
        written.replace(self._file)

    def command(self, *arguments: str) -> list[str]:
        """A program on that host."""
        return [sys.executable, "-c", SLEEPER, str(self._file), *arguments]

    def boot(self) -> float:
        """Its CLOCK_BOOTTIME."""
        return boot() + self.seconds


class DaemonThatSleeps(DaemonProcess):
    """The daemon on a host that can be put to sleep."""

    def __init__(self, folder: Path, config: str) -> None:
        self.sleep = Sleep(folder)
        super().__init__(folder, config)

    def _command(self, *arguments: str) -> list[str]:
        return self.sleep.command("spotokend", *arguments)

    def left(self, token: spotokend.Token) -> float:
        """Seconds that the token has."""
        return token.expires_boot - self.sleep.boot()


async def ask(watched: Watched) -> spotokend.Token:
    """From the daemon; whoever asks looks at its end himself."""
    return spotokend.Token.from_wire(await watched.client.call("token", account=ACCOUNT))


@row(
    "The host sleeps for 2 h, and the network is there again a little later than it.",
    "The dead token is served to nobody, not even to who asks in the instant of waking up. Renewed"
    " by itself, by one request once the network is there.",
)
async def test_the_host_sleeps(short_path: Path):
    """And nobody had asked for a refresh yet."""
    with provider(HOUR) as sandbox, Line(("127.0.0.1", sandbox.port)) as line:
        with DaemonThatSleeps(short_path, configuration(sandbox, line.url)) as daemon:
            async with Watched(daemon.socket) as watched:
                await watched.log_in(ACCOUNT)
                first = await ask(watched)
                line.break_with(Fault(listens=Listens.CLOSED))
                daemon.sleep.fall_asleep_for(2 * HOUR)
                with pytest.raises(spotokend.Unavailable) as refusal:
                    await ask(watched)
                assert "Connection refused" in refusal.value.message
                line.mend()
                await watched.until(ACCOUNT, fresh(2))
                token = await ask(watched)
                assert daemon.left(first) < 0 < daemon.left(token)
                assert token_requests(sandbox) == 2
        assert "this host was asleep" in daemon.written()


@row(
    "The same, and nobody asks.",
    "Renewed within a nap and the 5 s over which such refreshes are spread.",
)
async def test_the_host_sleeps_and_nobody_asks(short_path: Path):
    """The keeper sees it by itself."""
    with provider(HOUR) as sandbox:
        with DaemonThatSleeps(short_path, configuration(sandbox)) as daemon:
            async with Watched(daemon.socket) as watched:
                await watched.log_in(ACCOUNT)
                daemon.sleep.fall_asleep_for(2 * HOUR)
                begun = boot()
                await watched.until(ACCOUNT, fresh(2))
                assert boot() - begun < NAP + 5 + SLACK
                assert token_requests(sandbox) == 2


@row(
    "The host sleeps for 2 h while a strict provider's answer is on its way.",
    "The answer is used: the successor of the refresh token is not lost. Its access token is dead"
    " by then, is not served, and is renewed.",
)
async def test_the_host_sleeps_in_the_middle_of_a_refresh(short_path: Path):
    """A life counts from the sending, on the clock that goes on."""
    with provider(HOUR, rotation=Rotation.ALWAYS) as sandbox:
        with Line(("127.0.0.1", sandbox.port)) as line:
            config = configuration(sandbox, line.url)
            with DaemonThatSleeps(short_path, config) as daemon:
                async with Watched(daemon.socket) as watched:
                    await watched.log_in(ACCOUNT)
                    line.break_with(Fault(late=1.5, count=1))
                    refreshing = asyncio.create_task(
                        watched.client.call("refresh", account=ACCOUNT)
                    )
                    await asyncio.to_thread(line.wait_for, 2)
                    daemon.sleep.fall_asleep_for(2 * HOUR)
                    await asyncio.gather(refreshing, return_exceptions=True)
                    await watched.until(ACCOUNT, fresh(3))
                    assert daemon.left(await ask(watched)) > HOUR / 2
                    status = await watched.status(ACCOUNT)
        assert {past["outcome"] for past in status["outcomes"]} == {"renewed"}
        assert sandbox.provider.ledger.double_redemptions == 0


@row(
    "The daemon is stopped (SIGSTOP) for longer than the token lives, and goes on.",
    "What was asked meanwhile is answered with a token that lives.",
)
async def test_the_daemon_is_stopped_and_goes_on(short_path: Path):
    """As by a debugger, a frozen cgroup, or a virtual machine's pause."""
    with provider(2.0) as sandbox:
        with DaemonProcess(short_path, configuration(sandbox)) as daemon:
            async with Watched(daemon.socket) as watched:
                await watched.log_in(ACCOUNT)
                first = await watched.token(ACCOUNT)
                os.kill(daemon.pid, signal.SIGSTOP)
                try:
                    asked = asyncio.create_task(ask(watched))
                    await asyncio.sleep(first.expires_boot - boot() + 0.5)
                    before = token_requests(sandbox)
                finally:
                    os.kill(daemon.pid, signal.SIGCONT)
                going_on = boot()
                token = await asked
                assert token.expires_boot > boot()
                assert token.generation > 1
                assert boot() - going_on < SLACK
                assert token_requests(sandbox) == before + 1


# --- shims ---------------------------------------------------------------------------------------

SHIMS = {
    "sync": """
import json, sys, time, spotokend
client = spotokend.Client()
for line in sys.stdin:
    token = client.token()
    left = token.expires_boot - time.clock_gettime(time.CLOCK_BOOTTIME)
    print(json.dumps([token.generation, left, token.remaining]), flush=True)
""",
    "async": """
import asyncio, json, sys, time, spotokend
async def main():
    client = spotokend.AsyncClient()
    for line in iter(sys.stdin.readline, ""):
        token = await client.token()
        left = token.expires_boot - time.clock_gettime(time.CLOCK_BOOTTIME)
        print(json.dumps([token.generation, left, token.remaining]), flush=True)
asyncio.run(main())
""",
}
"""Programs that take a token from their shim for each line on standard input."""


class Program:
    """A process with a shim; a context manager."""

    def __init__(self, command: list[str], environ: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def token(self) -> int:
        """The generation of a token that its shim gives it, and which lives."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        generation, left, remaining = json.loads(self._process.stdout.readline())
        assert left > 0
        assert abs(left - remaining) < SLACK
        return generation

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.communicate(timeout=SOON)


@row(
    "Civil time leaps by hours, both ways, under a program with a kept token.",
    "The shim serves what it keeps without asking, and to its end; nothing that is dead.",
)
@pytest.mark.parametrize("kind", SHIMS)
async def test_civil_time_leaps_under_a_shim(civil_time: CivilTime, short_path: Path, kind: str):
    """The blocking shim, and that of asyncio."""
    with provider(3.0) as sandbox:
        with DaemonProcess(short_path, configuration(sandbox)) as daemon:
            async with Watched(daemon.socket) as watched:
                await watched.log_in(ACCOUNT)
                environ = daemon.environ | civil_time.environ
                with Program([sys.executable, "-c", SHIMS[kind]], environ) as program:
                    generation = await asyncio.to_thread(program.token)
                    for ahead in (3 * HOUR, -3 * HOUR):
                        civil_time.set(ahead)
                        os.kill(daemon.pid, signal.SIGSTOP)  # who asks it now gets no answer
                        try:
                            assert await asyncio.to_thread(program.token) == generation
                        finally:
                            os.kill(daemon.pid, signal.SIGCONT)
                    kept = generation
                    for _ in range(int(SOON / 0.05)):
                        generation = await asyncio.to_thread(program.token)
                        if generation > kept:
                            break
                        await asyncio.sleep(0.05)
                    assert generation > kept


@row(
    "The host sleeps for 2 h while a program keeps a token.",
    "The shim does not serve it; it asks the daemon, which renews.",
)
@pytest.mark.parametrize("kind", SHIMS)
async def test_the_host_sleeps_under_a_shim(short_path: Path, kind: str):
    """The blocking shim, and that of asyncio."""
    with provider(HOUR) as sandbox:
        with DaemonThatSleeps(short_path, configuration(sandbox)) as daemon:
            async with Watched(daemon.socket) as watched:
                await watched.log_in(ACCOUNT)
                command = daemon.sleep.command("-c", SHIMS[kind])
                with Program(command, daemon.environ) as program:
                    assert await asyncio.to_thread(program.token) == 1
                    daemon.sleep.fall_asleep_for(2 * HOUR)
                    assert await asyncio.to_thread(program.token) == 2
                assert token_requests(sandbox) == 2
