"""Look for finds with atheris, which knows what code an input leads into, and prefers what is new.

    python tests/fuzz/hunt.py TARGET [OPTIONS OF LIBFUZZER...]

Such as ``-max_total_time=600``. atheris is no dependency: ``pip install atheris`` into the environment
that has the others. Inputs that led somewhere are kept in a folder of their own, named at the start; a
find is named at the end: make a file of it in the corpus, and test_fuzz.py shows it and repeats it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

HERE = Path(__file__).parent


def main(name: str, *options: str) -> None:
    """Does not return."""
    sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]
    with atheris.instrument_imports(include=["spotokend", "h11", "tomllib"]):
        from fuzz.targets import CORPUS, TARGETS
    target = TARGETS[name]
    kept = tempfile.mkdtemp(prefix=f"spotokend-fuzz-{name}-")
    print(f"what leads somewhere new is kept in {kept}")
    words = Path(kept).with_suffix(".words")
    escaped = ("".join(f"\\x{byte:02x}" for byte in word[:60]) for word in target.words)
    words.write_text("".join(f'"{word}"\n' for word in escaped))
    arguments = [f"-dict={words}", f"-max_len={target.longest}", *options, kept, str(CORPUS / name)]
    atheris.Setup([sys.argv[0], *arguments], target.read)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
