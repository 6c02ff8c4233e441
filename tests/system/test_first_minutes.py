"""From nothing to the first answer of the API, as the README has it: a new user in a clean home.

What the user has is a terminal, a browser and an app registered at Spotify, whose place the sandbox
takes under Spotify's own names. What they type is all that is typed here.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from spotify_front import Front, front
from terminal_process import TerminalProcess

from spotokend.sandbox import Options, running
from spotokend.sandbox.options import APPS

pytestmark = pytest.mark.timeout(150)
SPOTOKEND = [sys.executable, "-m", "spotokend"]
CLIENT_ID = "0123456789abcdef0123456789abcdef"
"""Of the form of Spotify's own."""


@pytest.fixture
def spotify(short_path: Path) -> Iterator[Front]:
    """An app with the redirect URI that the first run asks for, and three people who may log in."""
    app = replace(APPS[0], client_id=CLIENT_ID)
    options = Options(apps=(app,), auto_approve=True)
    with running(options) as sandbox, front(sandbox.port, short_path) as there:
        yield there


@pytest.fixture
def environ(short_path: Path, spotify: Front) -> dict[str, str]:
    """A clean home, and nobody's settings."""
    (short_path / "run").mkdir(mode=0o700)
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG"}}
    measured = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
    home = {"HOME": str(short_path), "XDG_RUNTIME_DIR": str(short_path / "run")}
    return kept | measured | home | spotify.environ


def browser(address: str, spotify: Front) -> httpx.Response:
    """Open an address and go where it leads, as a browser does of a user who is logged in."""
    with httpx.Client(
        proxy=spotify.url,
        verify=ssl.create_default_context(cafile=spotify.environ["SSL_CERT_FILE"]),
        mounts={"all://127.0.0.1": None},
        follow_redirects=True,
    ) as client:
        return client.get(address)


def test_from_nothing_to_the_first_answer(
    short_path: Path, environ: dict[str, str], spotify: Front
):
    """``login``, three answers, ``run`` where it says so, the browser; then ``api /v1/me``."""
    began = time.monotonic()
    with TerminalProcess([*SPOTOKEND, "login"], environ) as login:
        login.expect("http://127.0.0.1/callback")
        login.expect("lient id")
        login.type(f"{CLIENT_ID}\n")
        login.expect("cope")
        login.type("1 user-read-private\n")
        login.expect("spotokend run")
        config = short_path / ".config" / "spotokend" / "config.toml"
        assert CLIENT_ID in config.read_text()

        with (short_path / "log").open("wb") as log:
            daemon = subprocess.Popen(
                [*SPOTOKEND, "run"], env=environ, stdin=subprocess.DEVNULL, stderr=log
            )
        try:
            login.expect("https://accounts.spotify.com/authorize?")
            login.expect("aiting for the browser")
            address = re.search(r"https://accounts\.spotify\.com/authorize\?\S+", login.written)
            assert address is not None
            page = browser(address[0], spotify)
            assert page.status_code == 200
            assert "You are logged in" in page.text
            login.expect("Logged in main as Alice")
            login.expect("To try it: spotokend api /v1/me")
            assert login.wait() == 0

            answer = subprocess.run(
                [*SPOTOKEND, "api", "/v1/me"],
                env=environ,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            assert answer.stderr == ""
            assert answer.returncode == 0
            assert json.loads(answer.stdout)["display_name"] == "Alice"
        finally:
            daemon.terminate()
            daemon.wait()
    assert time.monotonic() - began < 120
    assert spotify.refused == []
