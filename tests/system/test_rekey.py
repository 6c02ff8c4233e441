"""A change of keys that is killed at any moment loses nothing, and the next one goes on."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import anyio
import rekeying
from nightly import SEED, often

from spotokend.rules.sealing import KeyRing

ROOT = Path(__file__).parents[2]
KILLS = often(5, 200)
LONGEST = 0.12
"""Seconds from the start of the changes to the kill; one takes about a tenth of a second."""


async def fill(folder: Path) -> None:
    here = await rekeying.opened(folder)
    await here.keys.start()
    await here.fill()
    await here.vault.close()


async def look(folder: Path, *, finish: bool = False) -> int:
    """See that all is there; how many keys were."""
    here = await rekeying.opened(folder)
    if not finish:
        here.store.commit = rekeying._full
    await here.keys.start()
    kept = len(await here.place.load())
    assert await here.held() == rekeying.EXPECTED
    if finish:
        done = await here.keys.rekey()
        assert list(await here.store.sealed_by()) == [done["key"]]
        (key,) = await here.place.load()
        here.vault._rows.keys = KeyRing(key)  # which alone opens everything
        assert await here.held() == rekeying.EXPECTED
    await here.vault.close()
    return kept


def test_kills_at_random_moments_lose_nothing(tmp_path: Path, record_property):
    """Rows in use, put aside, not finished, and the answer that the store has not taken."""
    dice = random.Random(SEED)
    anyio.run(fill, tmp_path)
    between = 0
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.rekeying", str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "ready\n"
        time.sleep(dice.uniform(0, LONGEST))
        process.kill()
        process.communicate()
        between += anyio.run(look, tmp_path) > 1
    assert anyio.run(lambda: look(tmp_path, finish=True)) in {1, 2}
    record_property("figures", f"{KILLS} kills, {between} with both keys still needed")
    assert between
