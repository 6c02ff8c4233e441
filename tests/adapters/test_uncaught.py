"""Exceptions that nobody caught, in each of the four ways: told without their text."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading
from spotokend.adapters.uncaught import tell_instead
def tell(where, error):
    print(where, type(error).__name__, error.__traceback__ and error.__traceback__.tb_lineno)
loop = tell_instead(tell)
secret = "planted-1"
"""

WAYS = {
    "raise LookupError(secret)": "program LookupError 8",
    "raise BaseExceptionGroup(secret, [KeyboardInterrupt(secret)])": "program BaseExceptionGroup 8",
    "def work(): raise LookupError(secret)\n"
    "thread = threading.Thread(target=work, name=secret)\n"
    "thread.start(); thread.join()": "thread LookupError ",
    "class It:\n def __del__(self): raise LookupError(secret)\nit = It(); del it": (
        "finalizer LookupError 9"
    ),
    "def work(words): raise LookupError(words)\n"
    "loop = loop(); loop.call_soon(work, secret); loop.call_soon(loop.stop)\n"
    "loop.run_forever(); loop.close()": "event loop LookupError ",
    "loop = loop(); loop.call_exception_handler({'message': secret}); loop.close()": (
        "event loop RuntimeError None"
    ),
}


@pytest.mark.parametrize(("words", "told"), WAYS.items(), ids=range(len(WAYS)))
def test_the_kind_and_the_place_are_told(words, told):
    """And nothing else is printed anywhere."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + words],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert done.stdout.startswith(told)
    assert done.stdout.count("\n") == 1
    assert "planted-1" not in done.stdout + done.stderr
    assert done.stderr == ""


def test_the_loop_is_one_of_asyncio_s_own():
    """And runs."""
    program = (
        "import asyncio\nloop = loop()\n"
        "print(loop.run_until_complete(asyncio.sleep(0, 'done')))\nloop.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + program], capture_output=True, text=True, check=True
    )

    assert done.stdout == "done\n"
