"""``python -m spotokend`` is the command ``spotokend``."""

from __future__ import annotations

import runpy
import sys
from types import SimpleNamespace

import pytest


def test_the_module_ends_with_the_status_of_the_command_line(monkeypatch):
    """What ``main`` returns becomes the exit status."""
    monkeypatch.setitem(sys.modules, "spotokend.cli", SimpleNamespace(main=lambda: 7))

    with pytest.raises(SystemExit) as ended:
        runpy.run_module("spotokend", run_name="__main__")

    assert ended.value.code == 7
