"""Turns: nobody is served twice while another waits, and what is under way is bounded."""

from __future__ import annotations

import asyncio

import pytest

from spotokend.errors import Busy
from spotokend.service import turns as turns_module
from spotokend.service.turns import CARRIED_LIMIT, CROWD, Turns

pytestmark = pytest.mark.anyio


async def answer(gate: asyncio.Event) -> bytes:
    """A call that waits."""
    await gate.wait()
    return b"answered"


async def test_one_place_a_turn_of_the_loop_and_whoever_is_not_done_stands_at_the_end():
    """Three that want much more are served in turn, and the loop does other things in between."""
    turns, served = Turns(), []

    def taking(name: str, times: int):
        def turn() -> None:
            served.append(name)
            if served.count(name) < times:
                turns.line_up(turn)

        return turn

    for name, times in (("a", 3), ("b", 1), ("c", 3)):
        turns.line_up(taking(name, times))
    seen = []
    while len(served) < 7:
        await asyncio.sleep(0)
        seen.append(len(served))
    assert served == ["a", "b", "c", "a", "c", "a", "c"]
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    # The line was empty: it begins anew.
    turns.line_up(lambda: served.append("d"))
    await asyncio.sleep(0)
    assert served[-1] == "d"


async def test_a_call_runs_until_it_is_given_up():
    """The task gives the result; given up, it is cancelled."""
    turns, gate = Turns(), asyncio.Event()
    wanted = turns.start(answer(gate), carried=False)
    unwanted = turns.start(answer(gate), carried=False)
    await asyncio.sleep(0)
    turns.give_up(unwanted)
    await asyncio.wait([unwanted])
    assert unwanted.cancelled()
    assert turns.tasks == {wanted}
    gate.set()
    assert await wanted == b"answered"
    await asyncio.sleep(0)
    assert not turns.tasks


async def test_what_is_carried_goes_on_when_it_is_given_up():
    """A login, a logout, a reload."""
    turns, gate = Turns(), asyncio.Event()
    unwanted = turns.start(answer(gate), carried=True)
    await asyncio.sleep(0)
    turns.give_up(unwanted)
    gate.set()
    assert await unwanted == b"answered"


async def test_what_is_carried_is_bounded():
    """Clients that ask and go can't pile it up; when one has ended the next is taken."""
    turns, gate = Turns(), asyncio.Event()
    waits = [turns.start(answer(gate), carried=True) for _ in range(CARRIED_LIMIT)]
    refused = answer(gate)
    with pytest.raises(Busy) as caught:
        turns.start(refused, carried=True)
    assert caught.value.retry_after == 1.0
    assert refused.cr_frame is None  # closed: it is never awaited
    waits.append(turns.start(answer(gate), carried=False))
    gate.set()
    assert await asyncio.gather(*waits) == [b"answered"] * (CARRIED_LIMIT + 1)
    await asyncio.sleep(0)
    assert await turns.start(answer(gate), carried=True) == b"answered"


async def test_a_crowd(monkeypatch: pytest.MonkeyPatch):
    """So much is under way that nobody should have two; the figure is one that memory bears."""
    assert CROWD * 2.5 < 4096, "kilobytes"
    monkeypatch.setattr(turns_module, "CROWD", 2)
    turns, gate = Turns(), asyncio.Event()
    waits = [turns.start(answer(gate), carried=False)]
    assert not turns.crowded
    waits.append(turns.start(answer(gate), carried=False))
    assert turns.crowded
    gate.set()
    await asyncio.gather(*waits)
    await asyncio.sleep(0)
    assert not turns.crowded
