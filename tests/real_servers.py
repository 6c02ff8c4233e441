"""Servers that nobody here wrote, for the tests: started on loopback, stopped with the tests.

A test asks for the fixture ``authorization_server`` (or ``authorization_servers``, for settings of
its own). Where Node.js or the packages are missing such a test is left out, and says how to get
them; ``tests/run`` installs them.
"""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import httpx
import pytest

FOLDER = Path(__file__).parent / "servers"
READY_WITHIN = 30.0
"""Seconds. It takes 1.5 on an idle machine."""


class AuthorizationServer:
    """``oidc-provider`` in a process of its own; a context manager.

    Refresh tokens rotate, and one that is presented twice takes its successor with it. Two clients:
    ``public`` (PKCE) and ``confidential`` (secret in :attr:`client_secret`); both redirect to any
    port of ``http://127.0.0.1/callback``. To log somebody else in than ``ada``, add
    ``?login_hint=NAME`` to :attr:`authorize_url`.
    """

    client_secret = "the-secret-of-the-confidential-client"
    redirect_uri = "http://127.0.0.1/callback"

    def __init__(
        self,
        *,
        access_token_life: float = 60,
        refresh_token_life: float = 86_400,
        rotate: bool = True,
    ) -> None:
        """Start it and wait until it answers. Lives in seconds."""
        settings = {
            "accessTokenLife": access_token_life,
            "refreshTokenLife": refresh_token_life,
            "rotate": rotate,
        }
        self._process = subprocess.Popen(
            ["node", FOLDER / "oidc_provider.mjs", json.dumps(settings)],
            # Its end is the server's order to stop, also when the tests die.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.issuer: str = json.loads(self._first_line())["issuer"]
        except BaseException:
            self.stop()
            raise
        self.authorize_url = f"{self.issuer}/auth"
        self.token_url = f"{self.issuer}/token"
        self.identity_url = f"{self.issuer}/me"
        """Answers with ``sub``, to a token that has the scope ``openid``."""

    def _first_line(self) -> str:
        output = self._process.stdout
        assert output is not None
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=lambda: lines.put(output.readline()), daemon=True).start()
        try:
            line = lines.get(timeout=READY_WITHIN)
        except queue.Empty:
            raise TimeoutError(f"oidc-provider wasn't ready within {READY_WITHIN:.0f} s") from None
        if not line:
            raise ChildProcessError(f"oidc-provider ended with status {self._process.wait()}")
        return line

    def counters(self) -> dict[str, int]:
        """What the token endpoint has seen so far.

        ``token_requests``, and of these ``codes_redeemed``, ``client_credentials``, ``refreshes`` and
        ``refused``; ``double_redemptions``: refresh tokens that were presented a second time.
        """
        answer = httpx.get(f"{self.issuer}/_counters", trust_env=False)
        counters: dict[str, int] = answer.raise_for_status().json()
        return counters

    def log_in(self, url: str) -> str:
        """Follow an authorization URL as a browser would; the address it ends at, with the code."""
        with httpx.Client(trust_env=False) as browser:  # it keeps the cookies
            while url.startswith(f"{self.issuer}/"):
                answer = browser.get(url)
                if answer.next_request is None:
                    raise AssertionError(f"{url} answered {answer.status_code}: {answer.text}")
                url = str(answer.next_request.url)
        return url

    def stop(self) -> None:
        """End the process, and wait until it is gone."""
        try:
            self._process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


@pytest.fixture(scope="session")
def authorization_servers() -> type[AuthorizationServer]:
    """The class itself, once it is known that it can run here: for servers with settings of one's own."""
    if shutil.which("node") is None:
        pytest.skip("the authorization server: Node.js isn't installed (Debian: nodejs, npm)")
    if not (FOLDER / "node_modules" / "oidc-provider").is_dir():
        pytest.skip("the authorization server: run tests/run once, or `npm ci` in tests/servers")
    return AuthorizationServer


@pytest.fixture
def authorization_server(
    authorization_servers: type[AuthorizationServer],
) -> Iterator[AuthorizationServer]:
    """A running server of its own for each test: lives of 60 s, rotation, counters at nought."""
    with authorization_servers() as server:
        yield server
