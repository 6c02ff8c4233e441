"""The lowest versions that pyproject.toml allows, as constraints for pip: for ``tests/run --lowest``.

Every requirement has a lower bound, and no other one: what is newer is taken to work until it is seen
not to, and what is older isn't tested.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)>=([0-9.]+)")


def requirements() -> list[str]:
    """Of the program, its extras and its tests; not those of these."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    return [*project["dependencies"], *(requirement for extra in extras for requirement in extra)]


def constraints() -> Iterator[str]:
    """``anyio==4.14`` for ``anyio>=4.14``.

    Raises:
        ValueError: a requirement has another form.
    """
    for requirement in requirements():
        match = _REQUIREMENT.fullmatch(requirement)
        if match is None:
            raise ValueError(f"{requirement}: write NAME>=VERSION, the lowest version that works")
        yield f"{match[1]}=={match[2]}"


if __name__ == "__main__":
    print("\n".join(constraints()))
