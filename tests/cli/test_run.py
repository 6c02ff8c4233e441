"""``spotokend run`` hands over to the daemon."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from spotokend import paths, service
from spotokend.cli import main


@pytest.fixture
def started(monkeypatch):
    """A daemon that only takes note of how it was started, and ends with 6."""
    calls = []

    def run(config_path, *, log_level):
        calls.append((config_path, log_level))
        return 6

    stand_in = SimpleNamespace(run=run)
    monkeypatch.setitem(sys.modules, "spotokend.service.daemon", stand_in)
    monkeypatch.setattr(service, "daemon", stand_in, raising=False)
    return calls


def test_the_usual_configuration_is_the_default(started):
    """The daemon's status is the command's."""
    assert main(["run"]) == 6
    assert started == [(paths.config_path(), None)]


def test_another_file_and_level_can_be_named(started):
    """For this run only."""
    main(["run", "--config", "FILE", "--log-level", "debug"])

    assert started == [("FILE", "debug")]
