"""``spotokend demo``: sandbox, daemon and three accounts in a temporary folder, to look at.

Everything is the real thing but the provider: the daemon is a process of its own, started as a user
would start it, and this one asks its socket as any program would. The lives are short (20 s), and
between the first and the second refresh the provider fails for a while.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from spotokend.client import Client
from spotokend.errors import DaemonNotRunning, InternalError, Unavailable
from spotokend.sandbox import Body, Fault, Kind, Options, Sandbox, ready_configuration, running
from spotokend.sandbox.options import USERS
from spotokend.token import Token

from . import terminal
from .watch import describe

LIFE = 20.0
ROUNDS = 2
"""Refreshes of each account after which ``--once`` ends."""
OUTAGE = 4.0
"""Shorter than what is left of the tokens when they are due: nobody who asks notices it."""
START_TIMEOUT = 20.0
PATIENCE = 6 * LIFE
"""``--once`` has failed if it takes longer: two lives and the outage are 40 s."""
Event = tuple[str, dict[str, object]]


def run(arguments: argparse.Namespace) -> int:
    """Show until Ctrl-C, or with ``--once`` until each account was refreshed twice."""
    # As Ctrl-C, or the daemon would go on without its demo.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
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
            who = _login(client, account)
            terminal.say(f"logged in {account} as {who}")
        show = _Show(client, sandbox, once=arguments.once)
        show.run()
    terminal.say("The demo is over; its folder is removed.")
    return 0


class _Show:
    """What happens, line by line, and the outage in the middle of it."""

    def __init__(self, client: Client, sandbox: Sandbox, *, once: bool) -> None:
        self._client = client
        self._sandbox = sandbox
        self._once = once
        self._events: queue.Queue[Event | None] = queue.Queue()
        self._refreshes: dict[str, int] = {}
        self._tokens: dict[str, Token] = {}
        self._began = time.monotonic()
        self._outage_ends = 0.0
        self._outage_over = False

    def run(self) -> None:
        """Until it is over."""
        threading.Thread(target=self._listen, daemon=True).start()
        tick = time.monotonic()
        self._show_tokens()
        while not (self._once and self._seen_enough()):
            try:
                event = self._events.get(timeout=max(0.0, tick - time.monotonic()))
            except queue.Empty:
                tick += 2.0
                self._show_tokens()
                continue
            finally:
                self._act()
            if event is None:
                raise InternalError("the daemon of the demo has ended")
            self._tell(*event)

    def _seen_enough(self) -> bool:
        if time.monotonic() - self._began > PATIENCE:
            raise InternalError(
                f"the accounts were not refreshed {ROUNDS} times in {PATIENCE:.0f} s"
            )
        return (
            self._outage_over
            and len(self._refreshes) == 3
            and min(self._refreshes.values()) >= ROUNDS
        )

    def _listen(self) -> None:
        try:
            for event in self._client.watch(tokens=True):
                self._events.put(event)
        except (DaemonNotRunning, Unavailable):
            pass
        self._events.put(None)

    def _tell(self, method: str, event: dict[str, object]) -> None:
        account = str(event.get("account"))
        if method == "token":
            before, token = self._tokens.get(account), Token.from_wire(event)
            self._tokens[account] = token
            if before is not None and token.generation > before.generation:
                self._refreshes[account] = self._refreshes.get(account, 0) + 1
                self._line(
                    f"{account}: token {token.generation}, {max(0.0, before.remaining):.0f} s "
                    "before the end of the one before"
                )
        elif method == "notice" and event.get("kind") != "token":
            self._line(describe(method, event, time.time()))

    def _act(self) -> None:
        """The outage: it begins once everybody was refreshed, shortly before they are due again."""
        now = time.monotonic()
        if self._outage_ends:
            if now > self._outage_ends and not self._outage_over:
                self._outage_over = True
                self._fault(None)
                self._line("the provider is back")
        elif len(self._refreshes) == 3 and now - self._began > 1.3 * LIFE:
            self._outage_ends = now + OUTAGE
            self._fault(Fault(kind=Kind.ANSWER, status=503, body=Body.TEXT))
            self._line(f"the provider fails for {OUTAGE:.0f} s: each request is answered with 503")

    def _fault(self, fault: Fault | None) -> None:
        # Through its socket, as everybody does: the sandbox lives in another thread.
        body = "[]" if fault is None else json.dumps([fault.to_json()])
        connection = http.client.HTTPConnection("127.0.0.1", self._sandbox.port, timeout=5)
        connection.request("PUT", "/sandbox/faults", body, {"Content-Type": "application/json"})
        connection.getresponse().read()
        connection.close()

    def _show_tokens(self) -> None:
        parts = []
        for account, token in sorted(self._tokens.items()):
            left = max(0.0, token.remaining)
            full = round(left / LIFE * 10)
            parts.append(f"{account} {'█' * full}{'░' * (10 - full)} {left:2.0f} s")
        if parts:
            self._line("   ".join(parts))

    def _line(self, text: str) -> None:
        terminal.show(f"{time.monotonic() - self._began:5.1f} s  {terminal.clean(text)}")
        terminal.flush()


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
        process = subprocess.Popen(command, env=environment, stderr=log)
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


def _login(client: Client, account: str) -> str:
    """What a browser and a user who agrees would do."""
    begun: Any = client.call("login_start", account=account)
    url = urlsplit(str(begun["url"]))
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=5)
    connection.request("GET", f"{url.path}?{url.query}&login_hint={account}")
    end = connection.getresponse().getheader("Location") or ""
    connection.close()
    done: Any = client.call("login_finish", login_id=begun["login_id"], redirect_url=end)
    return str(done["display_name"])
