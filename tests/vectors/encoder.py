"""MessagePack by hand: each form of each type, as hex text that people can read.

A library chooses the form of a value, and could share a mistake with what is tested; here the form
is named. Source: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

import struct

NIL, FALSE, TRUE = "c0", "c2", "c3"
NEVER_USED = "c1"

_TEXT = {8: "d9", 16: "da", 32: "db"}
_BINARY = {8: "c4", 16: "c5", 32: "c6"}
_ARRAY = {16: "dc", 32: "dd"}
_MAP = {16: "de", 32: "df"}
_UINT = {8: "cc", 16: "cd", 32: "ce", 64: "cf"}
_INT = {8: "d0", 16: "d1", 32: "d2", 64: "d3"}


def uint(value: int, bits: int) -> str:
    """uint 8, 16, 32 or 64."""
    return _UINT[bits] + _number(value, bits)


def sint(value: int, bits: int) -> str:
    """int 8, 16, 32 or 64, two's complement."""
    return _INT[bits] + _number(value % 2**bits, bits)


def float32(value: float) -> str:
    return "ca" + struct.pack(">f", value).hex()


def float64(value: float) -> str:
    return "cb" + struct.pack(">d", value).hex()


def text(value: str | bytes, bits: int = 0) -> str:
    """str 8, 16 or 32; without ``bits`` the shortest. Bytes need not be UTF-8."""
    data = value.encode() if isinstance(value, str) else value
    if not bits and len(data) < 32:
        return f"{0xA0 | len(data):02x}" + data.hex()
    bits = bits or _enough(len(data))
    return _TEXT[bits] + _number(len(data), bits) + data.hex()


def long_text(count: int, character: str = "x") -> str:
    """str 32 of one character ``count`` times, in the short notation."""
    data = character.encode()
    return f"{_TEXT[32]}{_number(len(data) * count, 32)} {data.hex()}*{count}"


def binary(value: str | bytes, bits: int = 0) -> str:
    """bin 8, 16 or 32; without ``bits`` the shortest."""
    data = value.encode() if isinstance(value, str) else value
    bits = bits or _enough(len(data))
    return _BINARY[bits] + _number(len(data), bits) + data.hex()


def array_header(count: int, bits: int = 0) -> str:
    """The header of an array; without ``bits`` the shortest."""
    if not bits and count < 16:
        return f"{0x90 | count:02x}"
    bits = bits or max(16, _enough(count))
    return _ARRAY[bits] + _number(count, bits)


def map_header(count: int, bits: int = 0) -> str:
    """The header of a map; without ``bits`` the shortest."""
    if not bits and count < 16:
        return f"{0x80 | count:02x}"
    bits = bits or max(16, _enough(count))
    return _MAP[bits] + _number(count, bits)


def array(*items: str, bits: int = 0) -> str:
    """An array of what is encoded already."""
    return " ".join((array_header(len(items), bits), *items))


def mapping(*pairs: tuple[str, str], bits: int = 0) -> str:
    """A map, in the given order; a key may stand in it twice."""
    return " ".join((map_header(len(pairs), bits), *(part for pair in pairs for part in pair)))


def value(thing: object) -> str:
    """Any Python value in its shortest form; floats as float 64."""
    match thing:
        case None:
            return NIL
        case bool():
            return TRUE if thing else FALSE
        case int():
            return _shortest(thing)
        case float():
            return float64(thing)
        case str():
            return text(thing)
        case bytes():
            return binary(thing)
        case list():
            return array(*map(value, thing))
        case dict():
            return mapping(*((value(key), value(item)) for key, item in thing.items()))
    raise TypeError(thing)


def nested(levels: int) -> str:
    """Arrays in arrays, so many; the innermost is empty."""
    return f"91*{levels - 1} 90" if levels > 1 else "90"


def size(encoded: str) -> int:
    """Bytes, without making them."""
    total = 0
    for group in encoded.split():
        digits, _, times = group.partition("*")
        total += len(digits) // 2 * int(times or 1)
    return total


def _shortest(number: int) -> str:
    if 0 <= number < 128:
        return f"{number:02x}"
    if -32 <= number < 0:
        return f"{number % 256:02x}"
    if number > 0:
        return uint(number, _enough(number))
    return sint(number, next(bits for bits in _INT if number >= -(2 ** (bits - 1))))


def _enough(number: int) -> int:
    return next(bits for bits in _UINT if number < 2**bits)


def _number(number: int, bits: int) -> str:
    return number.to_bytes(bits // 8, "big").hex()
