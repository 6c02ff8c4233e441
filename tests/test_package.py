"""``import spotokend``: cheap, and every public name is there."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata, resources

import pytest

import spotokend


@pytest.mark.parametrize("name", spotokend.__all__)
def test_names(name, monkeypatch):
    """Each public name leads to what it says, at first use and afterwards."""
    if name != "__version__":
        monkeypatch.delitem(vars(spotokend), name, raising=False)
    value = getattr(spotokend, name)

    assert getattr(value, "__name__", name) == name
    assert vars(spotokend)[name] is value


def test_no_such_name():
    """Any other name is refused as in every module."""
    with pytest.raises(AttributeError, match="module 'spotokend' has no attribute 'Tokens'"):
        spotokend.Tokens  # noqa: B018 - the access is the test


def test_dir():
    """What help and completion see is what there is."""
    assert dir(spotokend) == sorted(spotokend.__all__)


def test_errors_are_complete():
    """Each exception class of the socket is a public name."""
    from spotokend.errors import BY_CODE

    assert {kind.__name__ for kind in BY_CODE.values()} <= set(spotokend.__all__)


def test_version():
    """The version is the distribution's, and one that installers can compare."""
    assert metadata.version("spotokend") == spotokend.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", spotokend.__version__)


def test_typed():
    """Type checkers are told that the package has types (PEP 561)."""
    assert resources.files(spotokend).joinpath("py.typed").is_file()


def test_import_loads_nothing():
    """The package alone brings no module of its own."""
    program = "import sys, spotokend; print(*(n for n in sys.modules if n.startswith('spotokend')))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.split() == ["spotokend"]
