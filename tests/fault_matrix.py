"""What survives what: each fault at each moment of a refresh, and what is expected of the program.

The data of ``docs/reliability.md``, which is rendered from it, and of the tests that strike the real
daemon so: ``tests/system/test_reliability.py`` makes each cell. The other tables are of the tests that they
tell of: :func:`row`. After a change, write the page anew:

    python tests/fault_matrix.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FunctionType
from typing import TypeVar

SYSTEM = Path(__file__).parent / "system"
PAGE = Path(__file__).parent.parent / "docs" / "reliability.md"

Test = TypeVar("Test", bound=FunctionType)


class Moment(StrEnum):
    """The moments of a refresh, in their order: the columns."""

    BEFORE_INTENT = "before intent"
    AFTER_INTENT = "after intent"
    SENT = "sent"
    ROTATED = "server has rotated"
    READ = "answer read"
    BEFORE_COMMIT = "before commit"
    AFTER_COMMIT = "after commit"
    BEFORE_PUBLISH = "before publish"


MEANINGS: Mapping[Moment, str] = {
    Moment.BEFORE_INTENT: "it is decided that the token is to be renewed, and nothing was done yet",
    Moment.AFTER_INTENT: "that it is about to be is on the disk",
    Moment.SENT: "the request has left this host; the provider has not acted on it",
    Moment.ROTATED: "the provider has replaced the refresh token; its answer is on the way",
    Moment.READ: "the last byte of the answer is here, and nowhere else",
    Moment.BEFORE_COMMIT: "the answer is about to be written",
    Moment.AFTER_COMMIT: "it is on the disk",
    Moment.BEFORE_PUBLISH: "programs are about to get the new token",
}


class Effect(Enum):
    """What becomes of the account: its label in the table, and what that means."""

    def __init__(self, label: str, words: str) -> None:
        self.label = label
        self.words = words

    RENEWED = (
        "renewed",
        (
            "The refresh goes to its end as if nothing had happened: the new token is on the disk and"
            " is served."
        ),
    )
    AS_BEFORE = (
        "as before",
        (
            "Nothing had been done. The token that there is goes on being served, and is renewed in"
            " its time."
        ),
    )
    NOT_SENT = (
        "not sent",
        (
            "Nothing is sent, and the token that there is goes on being served. It is tried again by"
            " back-off, and renewed by itself once that is possible."
        ),
    )
    WAITED = (
        "in doubt",
        (
            "Nobody can know whether the provider acted. The token that there is is served to its last"
            " useful moment: presenting the refresh token again could end it. Then it is presented"
            " once more, and works."
        ),
    )
    AGAIN = (
        "asked again",
        (
            "Nobody can know whether the provider acted, but with this one asking again does no harm:"
            " it is asked once more at once, and the account is renewed."
        ),
    )
    LOST = (
        "**lost**",
        (
            "The successor of the refresh token was in an answer that never reached the disk, which"
            " nobody can prevent. The token that there is is served to its last useful moment, then"
            " the provider refuses, and the account is quarantined with that cause; a login mends it."
        ),
    )
    SAVED = (
        "saved",
        "The answer was on the disk: the next start serves the new token without a request.",
    )
    FINISHED = (
        "finished",
        (
            "The refresh is finished first; then the program ends with status 0. The next start serves"
            " the new token without a request."
        ),
    )
    UNSAVED = (
        "unsaved",
        (
            "The new token is served from memory, `status` says that it is not on disk, a sealed copy"
            " lies beside the socket, and nothing more is redeemed. It is saved by itself as soon as"
            " the disk takes it."
        ),
    )
    SPILLED = (
        "spilled",
        (
            "The sealed copy beside the socket is saved by the next start before anything else, which"
            " then serves the new token without a request."
        ),
    )
    LOGGED_OUT = (
        "logged out",
        "The logout wins. What the refresh brings is dropped, and nothing of the login is left.",
    )
    NEW_LOGIN = (
        "new login",
        (
            "The login wins. What the refresh of the old one brings is dropped; the new one is renewed"
            " as ever."
        ),
    )
    ASIDE = (
        "kept aside",
        (
            "The refresh is finished with the old registration, which alone its refresh token is sent"
            " to. Then the login is kept aside; it comes back renewed when the edit is undone."
        ),
    )


class Senseless:
    """Not an effect: why there can be none."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


Cell = Effect | Senseless


class Fault(Enum):
    """What happens: the rows. ``words`` for people, ``rotation`` is the provider's kind."""

    def __init__(self, words: str, rotation: str = "strict") -> None:
        self.words = words
        self.rotation = rotation

    KILL = ("`kill -9`",)
    KILL_GRACE = ("`kill -9`; the provider gives grace", "grace")
    KILL_KEEPS = ("`kill -9`; the provider keeps its refresh tokens, as Spotify does", "auto")
    TERMINATE = ("SIGTERM, `spotokend stop`",)
    RELOAD = ("SIGHUP, `spotokend reload`",)
    REREGISTER = ("a reload that makes the client another registration",)
    LOGOUT = ("`spotokend logout`",)
    LOGIN = ("a login is finished",)
    REJECT = ("a program reports the old token as refused by the API",)
    CALLER_GONE = ("the program that asked for it is gone",)
    SECOND_DAEMON = ("a second daemon is started; it refuses, and names the first",)
    STOPPED = ("the process stands still for a while (SIGSTOP)",)
    WALL_FORWARD = ("civil time jumps ahead by 3 hours",)
    WALL_BACK = ("civil time jumps back by 3 hours",)
    CUT = ("the line is cut",)
    CUT_GRACE = ("the line is cut; the provider gives grace", "grace")
    LATE = ("the provider takes its time to answer",)
    FULL = ("the disk is full, and later has room again",)
    FULL_KILLED = ("the disk is full, then `kill -9`",)
    FULL_TERMINATED = ("the disk is full, then SIGTERM",)
    BROKEN = ("fsync fails (EIO), and later works again",)


E, M = Effect, Moment
_ALL = tuple(Moment)


def _row(*effects: Cell) -> dict[Moment, Cell]:
    """One effect for all moments, or one for each."""
    return dict(zip(_ALL, effects * (len(_ALL) // len(effects)), strict=True))


_NO_ANSWER = Senseless("no answer is awaited at that moment")

MATRIX: Mapping[Fault, Mapping[Moment, Cell]] = {
    Fault.KILL: _row(E.AS_BEFORE, E.WAITED, E.LOST, E.LOST, E.LOST, E.LOST, E.SAVED, E.SAVED),
    Fault.KILL_GRACE: _row(
        E.AS_BEFORE, E.AGAIN, E.AGAIN, E.AGAIN, E.AGAIN, E.AGAIN, E.SAVED, E.SAVED
    ),
    Fault.KILL_KEEPS: _row(
        E.AS_BEFORE, E.AGAIN, E.AGAIN, E.AGAIN, E.AGAIN, E.AGAIN, E.SAVED, E.SAVED
    ),
    Fault.TERMINATE: _row(E.FINISHED),
    Fault.RELOAD: _row(E.RENEWED),
    Fault.REREGISTER: _row(E.ASIDE),
    Fault.LOGOUT: _row(E.LOGGED_OUT),
    Fault.LOGIN: _row(E.NEW_LOGIN),
    Fault.REJECT: _row(E.RENEWED),
    Fault.CALLER_GONE: _row(E.RENEWED),
    Fault.SECOND_DAEMON: _row(E.RENEWED),
    Fault.STOPPED: _row(E.RENEWED),
    Fault.WALL_FORWARD: _row(E.RENEWED),
    Fault.WALL_BACK: _row(E.RENEWED),
    Fault.CUT: _row(
        E.NOT_SENT, E.NOT_SENT, E.WAITED, E.LOST, E.RENEWED, E.RENEWED, E.RENEWED, E.RENEWED
    ),
    Fault.CUT_GRACE: _row(
        E.NOT_SENT, E.NOT_SENT, E.AGAIN, E.AGAIN, E.RENEWED, E.RENEWED, E.RENEWED, E.RENEWED
    ),
    Fault.LATE: _row(_NO_ANSWER) | {M.SENT: E.RENEWED, M.ROTATED: E.RENEWED},
    Fault.FULL: _row(
        E.NOT_SENT, E.UNSAVED, E.UNSAVED, E.UNSAVED, E.UNSAVED, E.UNSAVED, E.RENEWED, E.RENEWED
    ),
    Fault.FULL_KILLED: _row(
        E.AS_BEFORE, E.SPILLED, E.SPILLED, E.SPILLED, E.SPILLED, E.SPILLED, E.SAVED, E.SAVED
    ),
    Fault.FULL_TERMINATED: _row(
        E.AS_BEFORE, E.SPILLED, E.SPILLED, E.SPILLED, E.SPILLED, E.SPILLED, E.SAVED, E.SAVED
    ),
    Fault.BROKEN: _row(
        E.NOT_SENT, E.UNSAVED, E.UNSAVED, E.UNSAVED, E.UNSAVED, E.UNSAVED, E.RENEWED, E.RENEWED
    ),
}


# ------------------------------------------------------------------------------------- the page


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the other tables: what happens, and what becomes of it, in words."""

    fault: str
    expected: str


def row(fault: str, expected: str) -> Callable[[Test], Test]:
    """The decorated test's line; they stand in its module's ``ROWS``, in their order."""

    def put(test: Test) -> Test:
        test.__globals__.setdefault("ROWS", []).append(Row(fault, expected))
        return test

    return put


SECTIONS = (
    ("The disk", ("test_disk_faults.py", "test_damaged_store.py")),
    ("The network", ("test_network_faults.py",)),
    ("The clocks", ("test_clock_faults.py",)),
    ("The programs that ask", ("test_hostile_clients.py", "test_bounds.py")),
)
"""Title, and the tests that make it."""

INTRO = """\
# What survives what

<!-- made from tests/fault_matrix.py, and from the tables of the tests that it names -->

A login is a refresh token. Some providers replace it at each refresh, and then the only copy of the
new one is on its way through a cable, a process and a disk, all of which fail. This page tells what
becomes of it. It is rendered from the expectations of tests that do these things to the real
program, and fails with them.

One window nobody can close: from the moment at which the provider replaces a refresh token to the
moment at which its answer is on this disk. If the program is killed there, or the line is cut, and
the provider neither keeps the old one good (as Spotify does) nor gives a grace, that login is lost.
It is said so, with the cause, and a new login mends it. Nothing else loses one.

"""

MATRIX_INTRO = """
Where nothing else is said the provider is strict: a refresh token works once, and presented again it
ends the login. Each cell is a test of `tests/system/test_reliability.py`:
`test_a_fault_at_a_moment[FAULT-MOMENT]`.

"""

KILLS = """
Besides, the program is killed at each system call of a refresh, and at random while three accounts
refresh at once: a hundred times in each run of the tests, a thousand times in a nightly one. What the
next start says is compared with the provider's books. And in the order of its system calls it is seen
that nothing leaves before what it rests on is synced, so that a power cut finds it there
(`tests/system/test_kills.py`).
"""


def page() -> str:
    """The whole of ``docs/reliability.md``."""
    parts = [INTRO, "## A fault in the middle of a refresh\n\nA refresh has these moments:\n\n"]
    parts += [f"{number}. **{it}**: {MEANINGS[it]}\n" for number, it in enumerate(Moment, 1)]
    parts += [MATRIX_INTRO, _matrix(), "\nWhat that means:\n\n"]
    parts += [f"- {effect.label}: {effect.words}\n" for effect in Effect]
    parts += [f"- –: {reason}\n" for reason in _reasons()]
    parts.append(KILLS)
    for title, files in SECTIONS:
        lines = [(row.fault, row.expected) for row in rows_of(files)]
        table = _table([("what happens", "what becomes of it"), *lines])
        parts.append(f"\n## {title}\n\n{table}")
    return "".join(parts)


def rows_of(files: Iterable[str]) -> list[Row]:
    """The tables of those tests."""
    found: list[Row] = []
    for name in files:
        path = SYSTEM / name
        spec = spec_from_file_location(f"rows_of_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[spec.name] = module_from_spec(spec)
        spec.loader.exec_module(module)
        found += module.ROWS
    return found


def _matrix() -> str:
    lines = [
        (
            fault.words,
            *(cell.label if isinstance(cell, Effect) else "–" for cell in row.values()),
        )
        for fault, row in MATRIX.items()
    ]
    return _table([("", *Moment), *lines])


def _reasons() -> list[str]:
    """Why some cells are empty, each with its rows."""
    reasons: dict[str, list[str]] = {}
    for fault, row in MATRIX.items():
        for cell in row.values():
            if isinstance(cell, Senseless) and fault.words not in reasons.get(cell.reason, []):
                reasons.setdefault(cell.reason, []).append(fault.words)
    return [f"{reason} ({', '.join(faults)})" for reason, faults in reasons.items()]


def _table(lines: Sequence[Sequence[str]]) -> str:
    head, *rest = (f"| {' | '.join(cell.replace('|', '&#124;') for cell in it)} |" for it in lines)
    return "\n".join((head, "|---" * len(lines[0]) + "|", *rest)) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
