"""A defect of the program, met while it serves: told in the log under an id, and nowhere else."""

from __future__ import annotations

import secrets
import traceback
from collections.abc import Callable


def tell(log: Callable[..., None], what: str, error: BaseException, **fields: object) -> str:
    """Log an exception that nobody foresaw; returns the id under which it stands there.

    Its class and where it happened, but not its text: that may quote a token.
    """
    name = secrets.token_hex(4)
    log(
        "defect",
        level="error",
        id=name,
        what=what,
        kind=type(error).__name__,
        where="".join(traceback.format_tb(error.__traceback__)),
        **fields,
    )
    return name
