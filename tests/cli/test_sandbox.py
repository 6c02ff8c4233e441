"""``spotokend sandbox``: started with its options, it prints a configuration that works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
import urllib.request

import pytest

from spotokend.cli import main, sandbox
from spotokend.rules.config.parse import parse
from spotokend.sandbox import Options, Rotation


@pytest.fixture
def started(monkeypatch):
    """Takes note of how the sandbox was started, instead of starting it."""
    calls = []
    monkeypatch.setattr(
        sandbox, "run_sandbox", lambda options, *, port, ready: calls.append((options, port))
    )
    return calls


def test_the_defaults_are_the_sandbox_s_own(started):
    """Those of Spotify."""
    assert main(["sandbox"]) == 0
    assert started == [(Options(), 0)]


def test_options_are_passed_on(started):
    """Each of them."""
    lives = ["--token-life", "5", "--grant-life", "60"]
    reuse = ["--rotation", "always", "--grace", "2", "--keep-family"]
    main(["sandbox", "--port", "4000", "--auto-approve", *lives, *reuse])

    assert started == [
        (
            Options(
                access_life=5.0,
                grant_life=60.0,
                rotation=Rotation.ALWAYS,
                grace=2.0,
                revoke_family=False,
                auto_approve=True,
            ),
            4000,
        )
    ]


def test_what_makes_no_sense_is_a_usage_error(started, capsys):
    """In the sandbox's own words, status 2."""
    assert main(["sandbox", "--token-life", "0"]) == 2
    assert "access_life" in capsys.readouterr().err


def test_it_prints_a_configuration_and_serves_until_it_is_told_to_end():
    """The configuration alone on stdout; SIGTERM ends it in peace."""
    with subprocess.Popen(
        [sys.executable, "-m", "spotokend", "sandbox"],
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            words = "".join(process.stderr.readline() for _ in range(3))
            url = words.split(" at ")[1].partition(",")[0]
            with urllib.request.urlopen(url, timeout=10) as page:
                assert page.status == 200
        finally:
            process.send_signal(signal.SIGTERM)
        text, _ = process.communicate(timeout=20)

    assert process.returncode == 0
    assert "spotokend run --config FILE" in words
    assert parse(text).clients
    assert url in str(tomllib.loads(text))
