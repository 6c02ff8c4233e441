"""``spotokend demo``: sandbox, daemon and three accounts in a temporary folder, to look at.

Everything is the real thing but the provider: the daemon is a process of its own, started as a user
would start it, and this one asks its socket as any program would. The lives are short (20 s); when
the second refresh is due the provider is in trouble, and then one account logs in again. On a
terminal it is the view of ``status --live``; elsewhere it is told in lines.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from spotokend.client import Client
from spotokend.errors import DaemonNotRunning, InternalError
from spotokend.sandbox import Body, Fault, Kind, Options, Sandbox, ready_configuration, running
from spotokend.sandbox.options import USERS

from . import live, terminal
from .scene import Happening, Scene
from .status_text import left, life_bar

LIFE = 20.0
ROUNDS = 2
"""Refreshes of each account after which ``--once`` ends."""
OUTAGE = 4.0
"""Half of it lies ahead of the first refresh that meets it."""
FAILURES = 2
"""As many of an app at most. With the back-off between them they take 3 s, and the tokens have 4 s
left when they are due: no program notices the outage."""
READING = 3.0
"""Seconds that a caption needs."""
BARS_EVERY = 2.0
START_TIMEOUT = 20.0
PATIENCE = 6 * LIFE
"""``--once`` has failed if it takes longer: two lives and the new login are some 40 s."""


def run(arguments: argparse.Namespace) -> int:
    """Show until it is left, or with ``--once`` until everything was to be seen."""
    # As Ctrl-C, or the daemon would go on without its demo.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    options = Options(access_life=LIFE, users=USERS[:2], auto_approve=True)
    with (
        tempfile.TemporaryDirectory(prefix="spotokend-demo-") as folder,
        running(options) as sandbox,
        _daemon(folder, sandbox) as client,
    ):
        terminal.say(
            f"A sandbox plays Spotify at {sandbox.url}; the daemon listens at "
            f"{client.socket_path}.\n"
            f"Access tokens live {LIFE:.0f} s here instead of an hour. Ctrl-C ends the demo."
        )
        for account in ("alice", "bob"):
            who = _agree(client, account, _ask_to_login(client, account))
            terminal.say(f"logged in {account} as {who}")
        play = _Play(client, sandbox, once=arguments.once)
        if live.obstacle() is not None:
            _tell(client, play)
        elif not live.follow(client, direct=play.direct) and arguments.once:
            raise KeyboardInterrupt  # it was left before everything was to be seen
    terminal.say("The demo is over; its folder is removed.")
    return 0


class _Play:
    """What happens besides refreshes, act by act; told by the scene's caption."""

    def __init__(self, client: Client, sandbox: Sandbox, *, once: bool) -> None:
        self._client = client
        self._sandbox = sandbox
        self._once = once
        self._ends = time.monotonic() + PATIENCE
        self._scene = Scene()
        self._acts = self._play()

    def direct(self, scene: Scene, _now: float) -> bool:
        """Let happen what is due; True once all of it has, and once is enough."""
        if scene.away_since is not None:
            raise InternalError("the daemon of the demo has ended")
        self._scene = scene
        if next(self._acts, "the end") is None:
            if self._once and time.monotonic() > self._ends:
                raise InternalError(
                    f"the accounts were not refreshed {ROUNDS} times in {PATIENCE:.0f} s"
                )
            return False
        return self._once

    def _play(self) -> Iterator[None]:
        """Runs to the next point where something is waited for, each time it is asked."""
        self._scene.caption = "each token is renewed ahead of its end, at the mark in its bar"
        while not (self._refreshed(1) and self._until_due() < OUTAGE / 2):
            yield
        self._scene.caption = "the provider is in trouble: it answers requests with 503"
        told = self._scene.told
        self._put_faults(
            Fault(
                kind=Kind.ANSWER, status=503, body=Body.TEXT, client=app.client_id, count=FAILURES
            )
            for app in self._sandbox.provider.options.apps
        )
        yield from _pause(OUTAGE)
        # Whoever was about to be refreshed may have been so before the trouble began.
        while not any("503" in happening.words for happening in self._scene.untold(told)):
            yield
        self._put_faults([])
        self._scene.caption = "the provider is back"
        # A new token now would only put off the second refresh.
        while self._scene.refreshes["alice"] < ROUNDS:
            yield
        self._scene.caption = "alice logs in again, in the browser; the old login serves meanwhile"
        begun = _ask_to_login(self._client, "alice")
        yield from _pause(READING)
        generation = self._client.token("alice").generation
        self._scene.tell(
            Happening(time.time(), "alice", "info", f"token {generation} is handed out meanwhile")
        )
        _agree(self._client, "alice", begun)
        self._scene.caption = "alice is logged in again, and no program has noticed"
        yield from _pause(READING)
        while not self._refreshed(ROUNDS):
            yield
        self._scene.caption = "that was all there is to see"

    def _refreshed(self, times: int) -> bool:
        refreshes = self._scene.refreshes
        return all(refreshes[account] >= times for account in self._scene.accounts)

    def _until_due(self) -> float:
        """Seconds to the next refresh; while one is under way nobody knows."""
        accounts = self._scene.accounts.values()
        if any(account["state"] != "fresh" for account in accounts):
            return math.inf
        return min(float(account["due_at"]) for account in accounts) - time.time()

    def _put_faults(self, faults: Iterable[Fault]) -> None:
        # Through its socket, as everybody does: the sandbox lives in another thread.
        body = json.dumps([fault.to_json() for fault in faults])
        connection = http.client.HTTPConnection("127.0.0.1", self._sandbox.port, timeout=5)
        connection.request("PUT", "/sandbox/faults", body, {"Content-Type": "application/json"})
        connection.getresponse().read()
        connection.close()


def _pause(seconds: float) -> Iterator[None]:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        yield


def _tell(client: Client, play: _Play) -> None:
    """The play in lines, each with the seconds since the beginning."""
    began = bars_at = time.time()
    told, caption, over = 0, "", False
    with live.Feed(client) as feed:
        while not over:
            feed.settle()
            now = time.time()
            with feed.lock:
                over = play.direct(feed.scene, now)
                lines = [str(happening) for happening in feed.scene.untold(told)]
                told = feed.scene.told
                if feed.scene.caption != caption:
                    caption = feed.scene.caption
                    lines.append(caption)
                if now >= bars_at:
                    bars_at += BARS_EVERY
                    lines.append(_bars(feed.scene, now))
            for line in lines:
                terminal.show(f"{now - began:5.1f} s  {line}")
            terminal.flush()
            time.sleep(live.LEAST_PAUSE)


def _bars(scene: Scene, now: float) -> str:
    return "   ".join(
        f"{name} {''.join(life_bar(account, now, 10))} {left(account, now)}"
        for name, account in sorted(scene.accounts.items())
    )


@contextmanager
def _daemon(folder: str, sandbox: Sandbox) -> Iterator[Client]:
    """A daemon of its own world: nothing of the user's is read or written."""
    config = os.path.join(folder, "config.toml")
    with open(os.open(config, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
        file.write(ready_configuration(sandbox.url, sandbox.provider.options, folder=folder))
    socket_path = os.path.join(folder, "spotokend.sock")
    environment = os.environ | {
        "SPOTOKEND_SOCK": socket_path,
        "XDG_STATE_HOME": os.path.join(folder, "state"),
    }
    log_path = os.path.join(folder, "log")
    command = [sys.executable, "-m", "spotokend", "run", "--config", config]
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=log,
            process_group=0,  # a key pressed here is not meant for it
        )
    try:
        client = Client(socket_path)
        _wait_until_ready(client, process, log_path)
        with client:
            yield client
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(client: Client, process: subprocess.Popen[bytes], log_path: str) -> None:
    ends = time.monotonic() + START_TIMEOUT
    while True:
        try:
            client.hello()
        except DaemonNotRunning:
            if process.poll() is not None or time.monotonic() > ends:
                with open(log_path, encoding="utf-8") as log:
                    raise InternalError(f"the daemon did not start: {log.read()[-2000:]}") from None
            time.sleep(0.05)
        else:
            return


def _ask_to_login(client: Client, account: str) -> Any:
    return client.call("login_start", account=account)


def _agree(client: Client, account: str, begun: Any) -> str:
    """What a browser and a user who agrees would do; who it is."""
    url = urlsplit(str(begun["url"]))
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=5)
    connection.request("GET", f"{url.path}?{url.query}&login_hint={account}")
    end = connection.getresponse().getheader("Location") or ""
    connection.close()
    done: Any = client.call("login_finish", login_id=begun["login_id"], redirect_url=end)
    return str(done["display_name"])
