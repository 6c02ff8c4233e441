"""The long forms of tests, for ``tests/run --nightly``.

A test whose value grows with its length takes its figure from :func:`often`; one that makes sense
in its long form only has the mark ``nightly``, and isn't collected at other times.
"""

from __future__ import annotations

import os
import time

NIGHTLY = os.environ.get("SPOTOKEND_NIGHTLY") == "1"
SEED = int(os.environ.get("SPOTOKEND_SEED") or (time.time() if NIGHTLY else 1))
"""Of all dice: another one each night. A run that prints it can be had again."""
# Both are read when the tests are collected: what runs in them sees no settings of this kind.


def often(usual: int, nightly: int) -> int:
    """How often to do something: in the usual run, or in the nightly one."""
    return nightly if NIGHTLY else usual
