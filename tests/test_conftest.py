"""The switch of ``tests/run --nothing-left-out`` bites."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FILES = {
    "test_inside.py": "def test(): pytest.skip('no such program')",
    "test_marked.py": "@pytest.mark.skip(reason='no such program')\ndef test(): pass",
    "test_whole_file.py": "pytest.skip('no such program', allow_module_level=True)",
    "test_expected.py": "@pytest.mark.xfail(reason='known')\ndef test(): assert False",
}


@pytest.mark.parametrize(
    ("switch", "closing_line"),
    [("1", "1 failed, 1 xfailed, 2 errors in "), ("0", "3 skipped, 1 xfailed in ")],
)
def test_what_is_left_out_fails_where_nothing_may_be(tmp_path, switch, closing_line):
    """However it is skipped; a test that is expected to fail has been run, and doesn't count."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(f"import pytest\n{text}\n")

    command = [sys.executable, "-m", "pytest", "-q", "-p", "conftest", tmp_path]
    done = subprocess.run(
        [*command, "--rootdir", tmp_path, "--continue-on-collection-errors"],
        env={**os.environ, "PYTHONPATH": str(TESTS), "SPOTOKEND_NOTHING_LEFT_OUT": switch},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.splitlines()[-1].startswith(closing_line), done.stdout
