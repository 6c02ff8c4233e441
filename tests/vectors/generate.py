"""Write the vectors, one JSON file a case, or see whether the files are what this would write.

    python tests/vectors/generate.py            # write them, and remove what is none any more
    python tests/vectors/generate.py --check    # exit status 1 and the names, if they differ

README.md says what is in them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import client_cases
import server_cases

FOLDER = Path(__file__).parent


def wanted() -> Iterator[tuple[Path, str]]:
    """What each file ought to hold."""
    for side in (server_cases, client_cases):
        names = set()
        for case in side.cases():
            assert case["name"] not in names, case["name"]
            names.add(case["name"])
            yield FOLDER / case["side"] / f"{case['name']}.json", in_lines(case)


def in_lines(case: dict[str, object]) -> str:
    """JSON with a line a field, so that a difference between two versions is a line."""
    lines = (f"  {json.dumps(key)}: {in_line(value)}" for key, value in case.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def in_line(value: object) -> str:
    """A field; of a list of several maps each has a line of its own."""
    if isinstance(value, list) and len(value) > 1 and isinstance(value[0], dict):
        return "[\n    " + ",\n    ".join(map(in_line, value)) + "\n  ]"
    return json.dumps(value, ensure_ascii=False)


def main() -> int:
    """Write or check; the exit status."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--check", action="store_true", help="write nothing")
    check = options.parse_args().check
    files = dict(wanted())
    stray = set(FOLDER.glob("*/*.json")) - files.keys()
    changed = [
        path
        for path, text in files.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path in sorted([*changed, *stray]):
        print(path.relative_to(FOLDER))
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
            if path in files:
                path.write_text(files[path], encoding="utf-8")
    return 1 if check and (changed or stray) else 0


if __name__ == "__main__":
    sys.exit(main())
