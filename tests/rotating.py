"""The real daemon with a provider that replaces each refresh token and forgives nothing.

For tests of what survives a fault: they look at what the provider holds, at what the daemon says,
and at what lies on the disk, and compare.
"""

from __future__ import annotations

import shutil
import socket
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import httpx
import msgpack
from daemon_process import DaemonProcess

from spotokend.errors import from_wire
from spotokend.sandbox import Options, Sandbox, running
from spotokend.sandbox.ledger import Grant

SOON = 20.0
"""Seconds within which whatever is waited for happens, on a busy machine too."""
LIFE = 600.0
"""Of an access token, seconds: none is due by itself while a test runs."""
GRACE = 60.0
CUT_OFF = "the program ended while a refresh was under way"
LOST = "an earlier answer was lost; it may have carried the successor"
"""What is said of a grant that was lost in the one window that nobody can close."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store's files say of an account."""

    generation: int
    open_intent: bool
    sealed: bool
    """There is an envelope."""


TIMING = """
    [timing]
    forced_interval = 0
    rejects_per_hour = 60
    backoff_base = 0.01
    backoff_cap = 1
    backoff_cap_waiting = 0.2
    start_spread = 0
"""
"""Nothing here is about pauses, and a test that waits for one takes as long."""


def configuration(url: str, accounts: Mapping[str, str], token_url: str | None = None) -> str:
    """``accounts``: the ``rotation`` by account; a client of that name has it.

    ``url`` is the provider's, ``token_url`` its token endpoint if that is elsewhere.
    """
    clients = "".join(
        f"""
        [clients.{rotation}]
        client_id = "sandbox-pkce-client"
        scopes = ["user-read-private"]
        rotation = "{rotation}"
        rotation_grace = {GRACE}
        authorize_url = "{url}/authorize"
        token_url = "{token_url or f"{url}/api/token"}"
        identity_url = "{url}/v1/me"
        """
        for rotation in sorted(set(accounts.values()))
    )
    owned = "".join(f'[accounts.{name}]\nclient = "{kind}"\n' for name, kind in accounts.items())
    return clients + owned + TIMING


class Provider(Protocol):
    """The provider's books: what it holds, whatever we believe."""

    def rotations(self, account: str) -> int:
        """How often a refresh token of the user's was replaced."""

    def works(self, token: str) -> bool:
        """Whether an API would accept the access token."""

    def agree(self, url: str, user: str) -> str:
        """The user agrees to everything: the address that the browser ends at."""


class SandboxBooks:
    """Those of a sandbox in this process."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.ledger = sandbox.provider.ledger

    def grant(self, account: str) -> Grant:
        """The last consent of the user."""
        return [grant for grant in self.ledger.grants.values() if grant.user == account][-1]

    def rotations(self, account: str) -> int:
        return self.grant(account).refreshes

    def works(self, token: str) -> bool:
        return self.ledger.access(token) is not None

    def agree(self, url: str, user: str) -> str:
        asked = httpx.URL(url).copy_merge_params({"login_hint": user})
        # Without TLS there are no authorities to be loaded, which takes longer than all the rest.
        return httpx.get(asked, trust_env=False, verify=False).headers["location"]


P = TypeVar("P", bound=Provider)


class Rotating(Generic[P]):
    """A provider, and a daemon that keeps some accounts there."""

    def __init__(self, provider: P, daemon: DaemonProcess) -> None:
        self.provider = provider
        self.daemon = daemon
        self.folder = Path(daemon.environ["XDG_STATE_HOME"], "spotokend")
        """Where the store is."""

    # The daemon's side. Each question is asked once, on a connection of its own: a client that
    # asks again after a kill would begin another refresh.

    def begin(self, method: str, **arguments: object) -> socket.socket:
        """Ask, and don't wait; the connection on which the answer comes."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(SOON)
        connection.connect(str(self.daemon.socket))
        connection.sendall(msgpack.packb([0, 1, method, [arguments]]))
        return connection

    def ask(self, method: str, **arguments: object) -> dict[str, Any]:
        """The answer. Raises what the daemon answers with, and ``EOFError`` where it is gone."""
        return answer(self.begin(method, **arguments))

    def status(self, account: str) -> dict[str, Any]:
        """What is told of one account."""
        status: dict[str, Any] = self.ask("status", account=account)["accounts"][0]
        return status

    def log_in(self, account: str) -> dict[str, Any]:
        """What its user's browser does."""
        begun = self.ask("login_start", account=account)
        address = self.provider.agree(begun["url"], account)
        return self.ask("login_finish", login_id=begun["login_id"], redirect_url=address)

    def until(self, account: str, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until that is so of the account's status, which is returned."""
        deadline = time.monotonic() + SOON
        while not is_so(status := self.status(account)):
            assert time.monotonic() < deadline, (status, self.daemon.written()[-2000:])
            time.sleep(0.01)
        return status

    # The disk's side.

    @property
    def spill(self) -> Path:
        """Where the files of unsaved answers are."""
        return Path(f"{self.daemon.socket}.unsaved")

    def stored(self, account: str) -> Stored:
        """What a start would find there: of a daemon that was killed, nothing is changed by this."""
        with tempfile.TemporaryDirectory() as folder:
            for name in ("store.sqlite3", "store.sqlite3-wal"):
                with suppress(FileNotFoundError):
                    shutil.copy(self.folder / name, folder)
            copy = sqlite3.connect(f"{folder}/store.sqlite3")
            generation, attempt, sealed = copy.execute(_STORED, (account,)).fetchone()
            copy.close()
        return Stored(generation, attempt is not None, sealed is not None)


_STORED = "SELECT generation, intent_attempt, sealed FROM rows WHERE slot = '' AND account = ?"


def answer(connection: socket.socket) -> dict[str, Any]:
    """The answer to :meth:`Rotating.begin`, which raises as :meth:`Rotating.ask` does."""
    answers = msgpack.Unpacker()
    with connection:
        while True:
            try:
                data = connection.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError
            answers.feed(data)
            for _, _, error, result in answers:
                if error is not None:
                    raise from_wire(error)
                found: dict[str, Any] = result
                return found


@contextmanager
def rotating(
    folder: Path,
    accounts: Mapping[str, str],
    options: Options | None = None,
    process: Callable[[Path, str], DaemonProcess] = DaemonProcess,
) -> Iterator[Rotating[SandboxBooks]]:
    """A sandbox, and a daemon whose daemon runs, and all of whose users have logged in."""
    options = options or Options(access_life=LIFE, auto_approve=True, rotation="always")
    with running(options) as sandbox:
        with process(folder, configuration(sandbox.url, accounts)) as daemon:
            world = Rotating(SandboxBooks(sandbox), daemon)
            for account in accounts:
                world.log_in(account)
            yield world
