"""Every example of the documents runs: as it is written, in a home of its own, under Spotify's names.

The blocks of a page run in their order, each by a shell or an interpreter of its own, in a home in
which ``main`` is logged in and a daemon runs; what one of them undid is there again for the next. The
sandbox answers for ``https://accounts.spotify.com`` and ``https://api.spotify.com``, and a browser
stands by that agrees. A block of ``text`` is what the block before it prints.

HTML comments directly before a block say what else is to be done with it: ``not run: WHY``, and
``file: NAME``, where the block is saved for those that follow.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import documents
import httpx
import pytest
from daemon_process import DaemonProcess
from documents import PAGES, Block
from overheard import may_tell
from spotify_front import front

from spotokend.client import Client
from spotokend.errors import DaemonNotRunning
from spotokend.rules.config.parse import parse, starter
from spotokend.rules.config.values import SPOTIFY_SCOPES
from spotokend.sandbox import Options, Sandbox, running
from spotokend.sandbox.options import APPS

CLIENT_ID = "0123456789abcdef0123456789abcdef"
"""Of the form of Spotify's own; the one that the documents show."""
SANDBOX = "http://127.0.0.1:8080"
"""Where a sandbox is in the documents; here it has the port that was free."""
PEOPLE = ("alice", "bob", "carol")
"""Who is logged in at the browser, one after the other within a block."""
PATIENCE = 30
"""Seconds for a block."""
PROGRAMS = ("bash", "curl", "jq", "tar")
"""What the shell's examples call besides spotokend."""

RUN = {"sh": ["bash", "-euo", "pipefail"], "python": ["python3"]}
DRAWN = {"mermaid", "text"}
"""Languages of diagrams and of what is printed: the ones tests/test_docs.py reads, the others are
compared with what the block before them prints."""
BYTES = "bytes: "
"""How the comment before the protocol's example in bytes begins; its own test takes it apart."""

NOT_RUN = {
    "makes an environment; a test of its own runs the demo": 1,
    "is what runs this": 1,
    "installs packages": 5,
    "needs systemd": 4,
    "needs a container engine": 2,
    "runs until Ctrl-C": 3,
    "waits for a browser elsewhere": 1,
    "a line of a crontab": 2,
}
"""Why a block may stay unrun, and how many may for that reason."""

EVERY = [block for page in PAGES for block in documents.blocks(page)]


def unrun(block: Block) -> str | None:
    """Why the block isn't run; None: it is."""
    kind, _, why = block.comment.partition(": ")
    return why if kind == "not run" else None


class Home:
    """Somebody's home: ``main`` is logged in, the daemon runs, Spotify is where it always is."""

    def __init__(self, daemon: DaemonProcess, sandbox: Sandbox, spotify: httpx.Client) -> None:
        self.daemon = daemon
        self.path = Path(daemon.environ["HOME"])
        self._sandbox = sandbox
        self._spotify = spotify
        self._people = daemon.folder / "people"

    def prepare(self) -> None:
        """Undo what an example may have done: ended the daemon, logged out, let things fail."""
        if not self.daemon.config.exists():
            self.daemon.config.parent.mkdir(parents=True, exist_ok=True)
            self.daemon.configure(starter(CLIENT_ID, SPOTIFY_SCOPES))
        self._spotify.delete("/sandbox/faults")
        self._spotify.post("/sandbox/options", json={"unlisted": []})
        self._people.write_text("\n".join(PEOPLE) + "\n")
        with Client(self.daemon.socket) as client:
            try:
                status = client.status()
            except DaemonNotRunning:
                self.daemon.start()
                status = client.status()
            accounts: Any = status["accounts"]
            for account in accounts:
                client.call("logout", account=account["account"])
            begun: Any = client.call("login_start", account="main")
            # Straight to the sandbox, which agrees at once: this login is no example.
            agreed = self._spotify.get(begun["url"].removeprefix("https://accounts.spotify.com"))
            client.call(
                "login_finish",
                login_id=begun["login_id"],
                redirect_url=agreed.headers["Location"],
            )

    def run(self, block: Block) -> tuple[int | None, str, str]:
        """Run it as it is written: its status, None if it had to be ended; what it wrote."""
        self.prepare()
        script = self.daemon.folder / "script"
        script.write_text(block.text.replace(SANDBOX, self._sandbox.url))
        with may_tell("some of them print a token"):
            process = subprocess.Popen(
                [*RUN[block.language], str(script)],
                cwd=self.path,
                env=self.daemon.environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        try:
            return process.wait(PATIENCE), *process.communicate()
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with all that it has started
            return None, *process.communicate()


@contextmanager
def a_home(folder: Path) -> Iterator[Home]:
    """A home in ``folder``, with nothing in it but the first configuration, at its usual place."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (Debian: apt-get install them)")
    app = replace(APPS[0], client_id=CLIENT_ID)
    with ExitStack() as cleanup:
        options = Options(apps=(app,), auto_approve=True)
        sandbox = cleanup.enter_context(running(options))
        there = cleanup.enter_context(front(sandbox.port, folder))
        daemon = DaemonProcess(folder, "")
        for name in ("SPOTOKEND_CONFIG", "SPOTOKEND_SOCK", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
            del daemon.environ[name]
        home = Path(daemon.environ["HOME"])
        daemon.config = home / ".config" / "spotokend" / "config.toml"
        daemon.config.parent.mkdir(parents=True)
        daemon.configure(starter(CLIENT_ID, SPOTIFY_SCOPES))
        daemon.environ |= there.environ | {
            # curl's own variable wins over the one that all others read.
            "CURL_CA_BUNDLE": there.environ["SSL_CERT_FILE"],
            "PATH": f"{programs(folder)}:{os.environ['PATH']}",
            "DISPLAY": ":0",
            "BROWSER": str(folder / "bin" / "browser"),
        }
        for name in ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"):
            daemon.environ.pop(name, None)
        cleanup.enter_context(daemon)
        # Loopback only; and its certificates would take longer to load than all else here.
        spotify = httpx.Client(base_url=sandbox.url, verify=False, trust_env=False)
        yield Home(daemon, sandbox, cleanup.enter_context(spotify))
        assert there.refused == [], "an example asks for something besides Spotify"


def programs(folder: Path) -> Path:
    """The commands that examples call by name, and a browser whose user agrees to everything."""
    (folder / "bin").mkdir()
    scripts = {
        "spotokend": f'exec "{sys.executable}" -m spotokend "$@"',
        "python3": f'exec "{sys.executable}" "$@"',
        "browser": f"""cd "{folder}"
address=$(curl -sS -o /dev/null -w '%{{redirect_url}}' "$1")
curl -sSL -o page "$address&login_hint=$(head -n 1 people)"
sed -i 1d people""",
    }
    for name, text in scripts.items():
        path = folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(stat.S_IRWXU)
    return folder / "bin"


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.page == page and b.language in RUN for b in EVERY)]
)
def test_the_examples_of_a_page_run(page: str, short_path: Path):
    """With status 0, and with the output that the page shows where it shows one."""
    wrong = []
    printed = ""
    with a_home(short_path) as home:
        for block in documents.blocks(page):
            kind, _, name = block.comment.partition(": ")
            if kind == "file":
                (home.path / name).write_text(block.text)
            elif block.language in RUN and unrun(block) is None:
                status, printed, said = home.run(block)
                if status != 0:
                    wrong.append(f"{block.place}: status {status}\n{said}")
            elif block.language == "text" and block.follows and not printed_as(block, printed):
                wrong.append(f"{block.place}: it prints\n{printed}")
    assert wrong == [], "\n".join(wrong)


def printed_as(block: Block, printed: str) -> bool:
    """Whether that was printed; an ellipsis in the block stands for anything."""
    pattern = ".*".join(map(re.escape, block.text.strip().split("…")))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


def check_toml(block: Block, _folder: Path) -> None:
    """The daemon's own parser takes it without a warning; a part of one, together with a client."""
    text = block.text
    if "[clients." not in text:
        text += starter(CLIENT_ID, [])
    assert parse(text, source=block.place).warnings == ()


def check_json(block: Block, _folder: Path) -> None:
    """Whole, not a sketch of it."""
    json.loads(block.text)


def check_unit(block: Block, folder: Path) -> None:
    """``systemd-analyze verify`` has no complaint."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze isn't installed (Debian: systemd)")
    unit = folder / "example.service"
    unit.write_text(block.text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


CHECKED = {"ini": check_unit, "json": check_json, "toml": check_toml}
"""Languages of what isn't run, and who reads it."""


@pytest.mark.parametrize(
    "block", [b for b in EVERY if b.language in CHECKED], ids=lambda block: block.place
)
def test_what_is_not_a_program_is_good(block: Block, tmp_path: Path):
    """Configurations, units and JSON, each to whoever reads such."""
    CHECKED[block.language](block, tmp_path)


def test_every_block_is_of_a_language_that_a_test_reads():
    """Or nobody would notice that it is wrong."""
    known = {*RUN, *CHECKED, *DRAWN}
    unknown = [block for block in EVERY if block.language not in known]
    assert [block.place for block in unknown if not block.comment.startswith(BYTES)] == []


def test_what_is_not_run_is_little_and_says_why():
    """For the reasons that are allowed, and not more often."""
    reasons = Counter(why for block in EVERY if (why := unrun(block)) is not None)
    assert reasons == Counter(NOT_RUN)


def test_the_demo_of_the_readme_is_the_one_that_is_tested():
    """All but the environment that its line makes: tests/cli/test_demo.py runs that command."""
    [line] = [b.text for b in documents.blocks("README.md") if "demo" in b.text]
    assert line.endswith("&& .venv/bin/spotokend demo --once\n")
    assert line.count("\n") == 1
