"""The store's files cut anywhere, or with a bit flipped: what can be read goes on, and no more.

Over the real store and the real envelopes, in this process: a start on each of some hundred files.
Whatever it finds, the start ends well or says why not; what it goes on with is what was once
written; and what was damaged lies aside as it was.
"""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from account_states import access, grant, make
from fault_matrix import row
from nightly import SEED, often
from set_clock import SetClock

from spotokend.adapters.store.base import Damaged, StoreError
from spotokend.adapters.store.sqlite import SqliteStore
from spotokend.rules.account import Blocked, Fresh, Holding, Policy
from spotokend.rules.sealing import KeyRing, SealingKey
from spotokend.service.rows import Owner, Rows

pytestmark = pytest.mark.timeout(often(60, 3600))

ACCOUNTS = [f"account-{number:02}" for number in range(24)]
RENEWED = ACCOUNTS[:10]
"""Those whose last renewal is in the log alone."""
SECTOR = 512
PAGE = 4096
ROOT_ENDS = 2 * PAGE
"""Where the page ends that leads to those with the rows; the first holds the schema."""
FLIPS = often(100, 5000)
NOW = 1_790_000_000.0
IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # a thousand starts sync as often

# Of an account: the version of its row, and its refresh token; None where its envelope is damaged.
Found = dict[str, tuple[int, str | None]]


@dataclass(frozen=True, slots=True)
class Files:
    """A store as a killed daemon leaves it, and all that was ever written to it."""

    store: bytes
    log: bytes
    written: dict[tuple[str, int], str]
    envelopes: dict[tuple[str, int], bytes]
    newest: Found


@dataclass(frozen=True, slots=True)
class Start:
    """What a start on some files has come to."""

    found: Found
    notes: list[str]
    aside: list[bytes]


def rows() -> Rows:
    """The view of a daemon, always at the same moment."""
    random_bytes = random.Random(1).randbytes
    return Rows(KeyRing(SealingKey(bytes(32))), SetClock().clock, random_bytes=random_bytes)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """All have logged in and were renewed once, some of them twice."""
    path = tmp_path_factory.mktemp("sound") / "spotokend" / "store.sqlite3"
    written: dict[tuple[str, int], str] = {}
    envelopes: dict[tuple[str, int], bytes] = {}
    form = rows()

    async def put(store: SqliteStore, account: str, version: int) -> None:
        login = grant(number=100 * version + ACCOUNTS.index(account))
        state = make(Fresh, grant=login, access=access(version), generation=version)
        row = form.to_row(Owner(account, "spotify", "fingerprint-1"), state, version)
        await store.put(row)
        assert row.sealed is not None
        envelopes[account, version] = row.sealed
        written[account, version] = login.refresh_token.reveal()

    async def fill() -> None:
        store = await SqliteStore.open(str(path), now=NOW)
        for version in (1, 2):
            for account in ACCOUNTS:
                await put(store, account, version)
        await store.close()  # which moves all of it into the file
        store = await SqliteStore.open(str(path), now=NOW)
        for account in RENEWED:
            await put(store, account, 3)
        left.extend(file.read_bytes() for file in (path, Path(f"{path}-wal")))
        await store.close()

    left: list[bytes] = []
    anyio.run(fill)
    store, log = left
    newest = {account: 3 if account in RENEWED else 2 for account in ACCOUNTS}
    return Files(
        store,
        log,
        written,
        envelopes,
        {account: (version, written[account, version]) for account, version in newest.items()},
    )


def start(store: bytes, log: bytes | None) -> Start:
    """What a daemon makes of these files, and the next one after it.

    Raises:
        StoreError: it refuses to start, and has changed nothing.
    """
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        path = Path(folder, "spotokend", "store.sqlite3")
        path.parent.mkdir()
        path.write_bytes(store)
        if log is not None:
            Path(f"{path}-wal").write_bytes(log)
        try:
            found, notes = anyio.run(open_and_write, str(path))
        except StoreError as error:
            assert not isinstance(error, Damaged)
            # SQLite moves a log into the file that it closes.
            assert log is not None or path.read_bytes() == store
            raise
        if notes:
            assert anyio.run(open_and_write, str(path)) == (found, [])
        aside = [kept.read_bytes() for kept in sorted(path.parent.glob("*.damaged-*"))]
        return Start(found, notes, aside)


async def open_and_write(path: str) -> tuple[Found, list[str]]:
    """All that is found, by account; a login is taken as well."""
    form = rows()
    found: Found = {}
    store = await SqliteStore.open(path, now=NOW)
    for clear in await store.scan():
        form.sealed(clear, Policy())
        row = await store.load(clear.account)
        assert row is not None
        state = form.to_state(row, Policy())
        assert isinstance(state, Holding)
        if isinstance(state, Blocked) or state.grant is None:
            found[row.account] = row.version, None
        else:
            found[row.account] = row.version, state.grant.refresh_token.reveal()
    login = Owner("another", "spotify", "fingerprint-1")
    version, _ = await store.counters("another")
    await store.put(form.to_row(login, make(Fresh, version=version), version + 1))
    await store.close()
    found.pop("another", None)
    return found, store.notes


def cuts(content: bytes) -> range:
    """Where it is cut: at each sector."""
    return range(0, len(content), SECTOR)


@row(
    "The store's file is cut short, at any length.",
    "The damaged file is kept under a name that says when; all rows that can be read go on,"
    " and the log says how many. Of an empty file nothing is left, and that is said as well.",
)
@pytest.mark.parametrize("with_log", [True, False])
def test_a_store_that_was_cut(files: Files, with_log: bool):
    """No row is invented, none that is there is lost, and the rest lies aside, untouched."""
    log = files.log if with_log else None
    complete = start(files.store, log).found
    for length in cuts(files.store):
        cut = files.store[:length]
        begun = start(cut, log)
        whole = cut[: length // PAGE * PAGE] + (log or b"")
        for account, newest in complete.items():
            version, token = begun.found.get(account, (0, None))
            if length >= ROOT_ENDS and files.envelopes[account, newest[0]] in whole:
                assert (version, token) == newest, length
            else:  # of one that was on the last, half page, the envelope does not open
                assert token in {None, files.written.get((account, version))}, length
        if begun.found != complete:
            assert begun.notes != [], length
        if begun.notes and (length or with_log):
            assert (cut if length else files.log) in begun.aside


@row(
    "The store's log (`-wal`) is cut short, at any length.",
    "Each account goes on with the last of its rows that is whole. One that was renewed"
    " since is known to the provider by a newer refresh token: refused and quarantined.",
)
def test_a_log_that_was_cut(files: Files):
    """Each account has the last of its rows that is whole; the log is read up to the cut."""
    before = start(files.store, None).found
    latest = before
    for length in cuts(files.log):
        begun = start(files.store, files.log[:length])
        assert begun.notes == []
        for account, (version, token) in begun.found.items():
            assert token == files.written[account, version]
            assert version >= latest[account][0]  # a longer log never tells less
        latest = begun.found
    assert before != latest


@row(
    "A bit of the store is flipped, anywhere.",
    "A damaged row is carried over or lost as above; one whose envelope does not open any"
    " more is blocked, and its account alone has to log in again. No wrong secret is used.",
)
@pytest.mark.parametrize("part", ["store", "log"])
def test_a_flipped_bit(files: Files, part: str):
    """It is noticed, or does no harm: no other secret comes out than one that went in."""
    dice = random.Random(SEED)
    told = 0
    for _ in range(FLIPS):
        content = bytearray(getattr(files, part))
        place = dice.randrange(len(content))
        content[place] ^= 1 << dice.randrange(8)
        damaged = {"store": files.store, "log": files.log} | {part: bytes(content)}
        try:
            begun = start(damaged["store"], damaged["log"])
        except StoreError:
            told += 1
            continue
        told += bool(begun.notes)
        for account, (version, token) in begun.found.items():
            assert token in {None, files.written.get((account, version))}, (place, account)
        if begun.notes and part == "store":
            assert bytes(content) in begun.aside
    assert told or part == "log"
