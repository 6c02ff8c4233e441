"""What nobody caught: told by its kind and its place, and not by its text, which may quote a token.

Python would print the text to stderr, in four ways: for the program, for a thread, for what is
raised where nobody can catch it, and, through ``logging``, for the event loop. Libraries' own
exceptions may show requests and messages.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

Tell = Callable[[str, BaseException], object]
"""Gets where it came from, and the exception, of which it may tell the kind and the traceback."""


def tell_instead(tell: Tell) -> Callable[[], asyncio.AbstractEventLoop]:
    """Have ``tell`` called instead; returns how to make an event loop that does so, too."""

    def hook(where: str, information: Any) -> None:
        tell(where, information.exc_value or RuntimeError())

    sys.excepthook = lambda _kind, error, _trace: tell("program", error)
    sys.unraisablehook = partial(hook, "finalizer")
    threading.excepthook = partial(hook, "thread")
    return partial(_event_loop, tell)


def _event_loop(tell: Tell) -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()

    def handle(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # The context's message shows the arguments of callbacks, such as the bytes received.
        tell("event loop", context.get("exception") or RuntimeError())

    loop.set_exception_handler(handle)
    return loop
