"""What the package offers to users and to the rest of spotokend."""

import subprocess
import sys

import spotokend.sandbox


def test_public_names():
    """Every name is there; the list is what may be relied on."""
    names = spotokend.sandbox.__all__
    assert names == sorted(names)
    assert [name for name in names if not hasattr(spotokend.sandbox, name)] == []


def test_it_loads_nothing_of_the_daemon():
    """Whoever tests against it tests against another reading of the documents."""
    code = (
        "import sys, spotokend.sandbox;"
        "print(*(n for n in sys.modules if n.startswith('spotokend.')"
        " and not n.startswith('spotokend.sandbox')))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.split() == ["spotokend.errors"]
