"""Both clocks and the dice, standing still until a test sets them."""

from __future__ import annotations

from account_states import NOW, WALL

from spotokend.service.clock import Clock


class SetClock:
    """Begins where the states of :mod:`account_states` are."""

    def __init__(self) -> None:
        self.boot = NOW
        self.wall = WALL
        self.u = 0.5
        self.clock = Clock(
            boot=lambda: self.boot, wall=lambda: self.wall, rand=lambda: self.u, boot_id="boot-1"
        )
