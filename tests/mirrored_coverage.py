"""Is what ought to be tested, tested? Run by tests/run, after a run of all tests under coverage.

1. Everything together: at least 95 % of lines and branches.
2. Floors 0 and 1, where the rules of the program live: every line and branch of a module by the
   tests in the file of its own name, run alone. What only a distant test covers is found by nobody.

    python tests/mirrored_coverage.py [MODULE...]     # such as rules.gate: only these, and only 2.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from coverage import Coverage
from test_architecture import PROVEN, ROOT, mirror, path_of

TOGETHER = 95
AT_ONCE = 2
"""Runs side by side: as many as the smallest machine has processors."""


def together() -> bool:
    """Report on the run that has been; False if too little of the package was covered."""
    measured = Coverage(config_file=str(ROOT / "pyproject.toml"))
    measured.combine()
    measured.save()
    covered = measured.report()
    enough = covered >= TOGETHER
    print(f"Everything together: {covered:.1f} %, {'' if enough else 'NOT '}at least {TOGETHER} %.")
    return enough


def alone(module: str) -> str | None:
    """What a module's own tests leave out, in words; None if nothing."""
    own = mirror(module)
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder, "coverage"))
        command = [sys.executable, "-m", "coverage", "run", "--data-file", data]
        command += ["-m", "pytest", "-q", "--no-header", str(own)]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            return f"{own.relative_to(ROOT)} alone:\n{run.stdout}{run.stderr}"
        measured = Coverage(data_file=data, config_file=str(ROOT / "pyproject.toml"))
        measured.combine()
        words = io.StringIO()
        covered = measured.report(include=[str(path_of(module))], file=words)
    if covered == 100:
        return None
    return f"{own.relative_to(ROOT)} alone does not cover its module:\n{words.getvalue()}"


def main(modules: list[str]) -> int:
    """0 if all is covered, 1 with words if not."""
    enough = bool(modules) or together()
    modules = modules or PROVEN
    with ThreadPoolExecutor(AT_ONCE) as pool:
        left = [words for words in pool.map(alone, modules) if words is not None]
    print(*left, sep="\n", end="\n" if left else "")
    print(f"By their own tests alone: {len(modules) - len(left)} of {len(modules)} modules whole.")
    return 0 if enough and not left else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
