"""The host's clocks, and which of the moments that were stored are believed.

In the boot in which it was stored CLOCK_BOOTTIME decides, whatever civil time did since; in another
one only civil time can tell, and that may be wrong, then or now.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from spotokend.adapters.store.base import Intent
from spotokend.rules import schedule
from spotokend.rules.gate import LONG_AGO
from spotokend.rules.schedule import Boot, Timing, Wall


@dataclass(frozen=True, slots=True)
class Clock:
    """Both clocks, the dice, and the name of this boot."""

    boot: Callable[[], Boot]
    wall: Callable[[], Wall]
    rand: Callable[[], float]
    boot_id: str

    def moment(self, wall: float, boot: float | None, boot_id: str) -> Boot:
        """A stored moment: ``wall`` in Unix seconds, ``boot`` as it was in the boot of that name."""
        if boot is not None and boot_id == self.boot_id:
            return Boot(boot)
        return Boot(self.boot() + (wall - self.wall()))

    def begun_at(self, intent: Intent) -> Boot:
        """When an attempt was begun. Of a moment still to come nobody can say how long ago it was."""
        age = self.wall() - intent.started_at
        return Boot(self.boot() - age) if age >= 0 else LONG_AGO

    def after_a_crash(self, intent: Intent, timing: Timing) -> Boot:
        """The first moment for the next attempt: a crash loop, too, backs off.

        Each of its rounds has raised ``tries``, and none has lived to write when to go on.
        """
        now, begun_at = self.boot(), self.begun_at(intent)
        pause = schedule.backoff(intent.tries, self.rand(), waiting=False, timing=timing)
        return Boot(max(now, (now if begun_at == LONG_AGO else begun_at) + pause))


def boot_id() -> str:
    """The kernel's name for this boot; without one no stored CLOCK_BOOTTIME is believed."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return secrets.token_hex(16)
