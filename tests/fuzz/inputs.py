"""Bytes that are nearly right: examples with a few changes, and the smallest of those that are a find.

Nothing random but ``dice``: the same seed makes the same inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import msgpack

_MOST_CHANGES = 6
_MOST_REPEATS = 3000


def inputs(
    known: Sequence[bytes],
    words: Sequence[bytes],
    longest: int,
    dice: Random,
    *,
    message: int | None = None,
) -> Iterator[bytes]:
    """Without end, each of at most ``longest`` bytes.

    ``message``: from that byte on the known ones are a value of MessagePack, in which others are put.
    """
    while True:
        data = dice.choice(known)
        if message is not None and dice.random() < 0.5:
            data = data[:message] + _other_values(data[message:], dice)
            if dice.random() < 0.5:
                yield data[:longest]
                continue
        if dice.random() < 0.1:
            data = _joined(data, dice.choice(known), dice)
        for _ in range(dice.randint(1, _MOST_CHANGES)):
            data = dice.choice(_CHANGES)(data, words, dice)[:longest]
        yield data


def smallest(data: bytes, is_find: Callable[[bytes], bool]) -> bytes:
    """``data`` without what it takes not to be a find: people have to read it."""
    size = len(data) // 2
    while size:
        start = 0
        while start < len(data):
            less = data[:start] + data[start + size :]
            if is_find(less):
                data = less
            else:
                start += size
        size //= 2
    return data


def _other_values(data: bytes, dice: Random) -> bytes:
    """The same with up to three of its values exchanged."""
    try:
        value = msgpack.unpackb(data, strict_map_key=False)
    except ValueError:
        return data
    for _ in range(dice.randint(1, 3)):
        value = _exchanged(value, dice)
    packed: bytes = msgpack.packb(value)
    return packed


def _exchanged(value: Any, dice: Random) -> Any:
    if not isinstance(value, list | dict) or not value or dice.random() < 0.1:
        return dice.choice(_VALUES)
    if isinstance(value, list):
        at = dice.randrange(len(value))
        return [*value[:at], _exchanged(value[at], dice), *value[at + 1 :]]
    key = dice.choice(list(value))
    return value | {key: _exchanged(value[key], dice)}


_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, -7, 2, 2**31, 2**63 - 1, 2**64 - 1, -(2**63)),
    *(0.0, -1.0, 1e9, 1.79e9, 1e300, -1e300, math.inf, -math.inf, math.nan),
    *("", "main", "\x1b[2J", "é" * 300, b"", b"main", b"\xff" * 40),
    *([], [[]], ["main"], {}, {"a": 1}, {1: {}}),
)


def _joined(one: bytes, other: bytes, dice: Random) -> bytes:
    return one[: dice.randint(0, len(one))] + other[dice.randint(0, len(other)) :]


def _put_in(data: bytes, words: Sequence[bytes], dice: Random) -> bytes:
    at = dice.randint(0, len(data))
    return data[:at] + dice.choice(words) + data[at:]


def _written_over(data: bytes, words: Sequence[bytes], dice: Random) -> bytes:
    at, word = dice.randint(0, len(data)), dice.choice(words)
    return data[:at] + word + data[at + len(word) :]


def _taken_out(data: bytes, _words: Sequence[bytes], dice: Random) -> bytes:
    at = dice.randint(0, len(data))
    return data[:at] + data[at + dice.randint(1, 16) :]


def _cut_off(data: bytes, _words: Sequence[bytes], dice: Random) -> bytes:
    return data[: dice.randint(0, len(data))]


def _moved(data: bytes, _words: Sequence[bytes], dice: Random) -> bytes:
    start, end = sorted((dice.randint(0, len(data)), dice.randint(0, len(data))))
    at = dice.randint(0, len(data))
    return data[:at] + data[start : min(end, start + 64)] + data[at:]


def _one_bit(data: bytes, _words: Sequence[bytes], dice: Random) -> bytes:
    if not data:
        return data
    at = dice.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]


def _one_byte(data: bytes, _words: Sequence[bytes], dice: Random) -> bytes:
    at = dice.randint(0, len(data))
    return data[:at] + bytes([dice.choice(_EDGES)]) + data[at + 1 :]


def _many(data: bytes, words: Sequence[bytes], dice: Random) -> bytes:
    if dice.random() < 0.8:  # long ones take long
        return _put_in(data, words, dice)
    at = dice.randint(0, len(data))
    return data[:at] + dice.choice(words) * dice.randint(2, _MOST_REPEATS) + data[at:]


_EDGES = (*b"\0\x01\x7f\x80\xfe\xff09aAzZ %&=<>'\"\\{}[]:;,./?#+-\r\n\t", *range(0x90, 0xE0, 4))
_CHANGES = (_put_in, _written_over, _taken_out, _cut_off, _moved, _one_bit, _one_byte, _many)
