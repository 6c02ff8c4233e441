"""Reading the vectors, and cutting their bytes: what every test that plays them needs."""

from __future__ import annotations

import json
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
Case = dict[str, Any]


@cache
def cases(side: str) -> dict[str, Case]:
    """All vectors for ``server`` or ``client``, by name."""
    paths = sorted((FOLDER / side).glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


@cache
def unhex(text: str) -> bytes:
    """The bytes of ``input``: hex in groups; ``6162*3`` is ``616261626162``."""
    groups = (group.partition("*") for group in text.split())
    return b"".join(bytes.fromhex(digits) * int(times or 1) for digits, _, times in groups)


def byte_by_byte(data: bytes) -> list[bytes]:
    """Each byte alone; of much data only at both ends, and odd pieces in between."""
    if len(data) <= 1000:
        edges = [*range(len(data) + 1)]
    else:
        edges = [
            *range(100),
            *range(100, len(data) - 100, 4093),
            *range(len(data) - 100, len(data)),
        ]
        edges.append(len(data))
    return [data[start:end] for start, end in pairwise(edges)]
