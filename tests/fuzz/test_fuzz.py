"""Bytes of strangers: only declared errors, within bounds of memory and time.

The usual run takes some thousand inputs, always the same ones; ``tests/run --nightly`` a million, and
others each night. They are made of what lies in ``corpus/TARGET``: valid examples, and all that was ever
found. A failure shows its input as small as it could be made: that goes there as a file, too.
"""

from __future__ import annotations

import random
import time
import tracemalloc
from itertools import islice

import pytest
from fuzz.inputs import inputs, smallest
from fuzz.targets import CORPUS, TARGETS, Target, corpus
from nightly import SEED, often

pytestmark = pytest.mark.timeout(often(60, 3600))

MEASURED = 25
"""The memory of one input in so many is measured, which takes five times as long as reading it."""
SECONDS = 2.0
"""Of the processor, for one input of at most 72 KB: quadratic time would take minutes."""


def shares() -> dict[str, int]:
    """How many inputs each target gets: fewer where one takes longer."""
    parts = {name: 1 / target.effort for name, target in TARGETS.items()}
    whole = sum(parts.values())
    return {name: round(often(10_000, 1_000_000) * part / whole) for name, part in parts.items()}


def measured(target: Target, data: bytes) -> None:
    """Read it, and see what memory that took."""
    tracemalloc.start()
    try:
        target.read(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < target.memory + target.times * len(data)


def timed(target: Target, data: bytes) -> None:
    """Read it, and see how long that took."""
    begun = time.thread_time()
    target.read(data)
    assert time.thread_time() - begun < SECONDS


def is_find(target: Target, data: bytes) -> bool:
    """Whether it is read as it must not be."""
    try:
        timed(target, data)
        measured(target, data)
    except Exception:  # noqa: BLE001 - any is one that nobody has declared
        return True
    return False


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_read(name: str):
    """Valid examples and all that was ever found."""
    target = TARGETS[name]
    for _, data in corpus(name):
        timed(target, data)
    for _, data in corpus(name):
        measured(target, data)  # what is imported late is no input's fault


def test_each_folder_of_the_corpus_belongs_to_a_target():
    """A find in a folder that nobody reads would be replayed by nobody."""
    assert {folder.name for folder in CORPUS.iterdir()} == TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_bytes_of_strangers(name: str):
    """Changed examples: only what is declared is raised."""
    target, many = TARGETS[name], shares()[name]
    known = [data for _, data in corpus(name)]
    print(f"{name}: {many} inputs, SPOTOKEND_SEED={SEED}")
    dice = random.Random(f"{name} {SEED}")
    made = inputs(known, target.words, target.longest, dice, message=target.message)
    for number, data in enumerate(islice(made, many)):
        try:
            timed(target, data)
            if number % MEASURED == 0:
                measured(target, data)
        except Exception as error:
            small = smallest(data, lambda less: is_find(target, less))
            error.add_note(f"a find: put these bytes into {CORPUS / name}: {small!r}")
            raise


def test_a_find_is_made_small():
    """What does not matter is taken out, and what is left is still one."""
    assert (
        smallest(b"before " * 50 + b"find" + b" after" * 50, lambda data: b"find" in data)
        == b"find"
    )


def test_the_same_seed_makes_the_same_inputs():
    """Or no failure could be had again."""
    known, words = [b"one", b"another"], [b"word"]
    first, again, other = (
        list(islice(inputs(known, words, 10, random.Random(seed)), 50)) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert max(map(len, first)) <= 10
