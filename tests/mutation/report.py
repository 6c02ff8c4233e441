"""What mutmut found in one module: how many changes its tests noticed, and those that they did not.

Run by tests/mutation/run, inside of the copy that was changed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

NOTICED = {1, 3}
"""Exit statuses of pytest: a test failed, or could not be run."""
ENDLESS = {24, -24, 36, 152, 255}
"""The tests did not end any more, which is noticed, too."""


def main(module: str) -> None:
    """Print the rate, and each survivor as a difference."""
    results = json.loads(Path("mutants", f"{module}.meta").read_text())["exit_code_by_key"]
    kinds = Counter(
        "noticed" if code in NOTICED else "endless" if code in ENDLESS else "survived"
        for code in results.values()
    )
    noticed = kinds["noticed"] + kinds["endless"]
    print(
        f"{module}: {noticed} of {len(results)} noticed, {100 * noticed / len(results):.1f} %"
        f" ({kinds['endless']} of them endless), {kinds['survived']} survived"
    )
    for name, code in results.items():
        if code not in NOTICED | ENDLESS:
            shown = subprocess.run(
                [f"{sys.prefix}/bin/mutmut", "show", name],
                capture_output=True,
                text=True,
                check=False,
            )
            changed = [
                line
                for line in shown.stdout.splitlines()
                if line.startswith(("-", "+")) and not line.startswith(("---", "+++"))
            ]
            print(f"\n{name.rpartition('.')[2]} (status {code})", *changed, sep="\n")
    print(flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
