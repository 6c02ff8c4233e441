"""The first run as a new user has it: the real command in a terminal of 80 by 24, or in a script."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from terminal_process import TerminalProcess

from spotokend.rules.config.parse import parse

SPOTOKEND = [sys.executable, "-m", "spotokend"]
ID = "0123456789abcdef0123456789abcdef"
ASKED = ("Client id: ", "Scopes [none]: ", "Run it as a service? [Y/n] ")
ANSWERS = (ID, "1 user-top-read", "n")
SCOPES = "user-read-playback-state user-read-currently-playing user-top-read"


class Home:
    """A clean home without anybody's settings, where all that is asked of the network is noticed."""

    def __init__(self, folder: Path, network: socket.socket) -> None:
        self.folder = folder
        self.config = folder / ".config" / "spotokend" / "config.toml"
        (folder / "run").mkdir(mode=0o700)
        (folder / "bin").mkdir()
        proxy = f"http://127.0.0.1:{network.getsockname()[1]}"
        kept = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
        self.environ = kept | {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "HTTPS_PROXY": proxy,
            "HTTP_PROXY": proxy,
        }

    def has_systemd(self) -> None:
        """A user's manager that does what it is told: ``restart`` runs the daemon."""
        program = self.folder / "bin" / "systemctl"
        run = " ".join(SPOTOKEND)
        program.write_text(
            "#!/bin/sh\n"
            'case "$*" in\n'
            "*Environment\\ spotokend.service) echo Environment= ;;\n"
            '*Environment) echo "Environment=HOME=$HOME XDG_RUNTIME_DIR=$XDG_RUNTIME_DIR" ;;\n'
            f'*restart*) setsid {run} run </dev/null >"$HOME/log" 2>&1 & ;;\n'
            "esac\n"
        )
        program.chmod(0o755)

    def contents(self) -> dict[str, bytes | None]:
        """Every file and folder in it."""
        return {
            str(path): path.read_bytes() if path.is_file() else None
            for path in self.folder.rglob("*")
        }

    def command(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run it without a terminal."""
        return subprocess.run(
            [*SPOTOKEND, *words],
            env=self.environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @contextmanager
    def daemon(self) -> Iterator[None]:
        """``spotokend run``, as in another terminal."""
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*SPOTOKEND, "run"], env=self.environ, stdin=subprocess.DEVNULL, stderr=log
            )
        try:
            yield
        finally:
            process.terminate()
            process.wait()


@pytest.fixture
def home(short_path: Path) -> Iterator[Home]:
    """Whatever looks for the network finds this: a proxy that nobody may have called."""
    with socket.create_server(("127.0.0.1", 0)) as network:
        yield Home(short_path, network)
        network.setblocking(False)
        with pytest.raises(BlockingIOError):
            network.accept()


def begun(written: str) -> dict[str, list[str]]:
    """What the login asks Spotify for, by the address that was shown."""
    address = re.search(r"https://accounts\.spotify\.com/authorize\?\S+", written)
    assert address is not None
    return parse_qs(urlsplit(address[0]).query)


def test_a_person_answers_and_the_login_goes_on(home: Home):
    """Two questions and a daemon in another terminal; nothing is broken in the middle of a word."""
    with TerminalProcess([*SPOTOKEND, "login"], home.environ) as terminal:
        terminal.expect(ASKED[0])
        # All that is needed to answer is on the screen, without scrolling back.
        assert terminal.shown.startswith("There is no configuration yet")
        terminal.type("https://developer.spotify.com/dashboard\n")
        terminal.expect("copy it from your app's page: https://developer.spotify.com/dashboard\r\n")
        terminal.type(f"\x1b[200~{ANSWERS[0]}\x1b[201~\n")
        terminal.expect(ASKED[1])
        assert "\nWhat may your programs do?" in terminal.shown
        terminal.type(f"{ANSWERS[1]}\n")
        terminal.expect("spotokend run\r\n")
        assert "\n    client_id = " in terminal.shown
        client = parse(home.config.read_text()).clients["spotify"]
        assert (client.client_id, " ".join(client.scopes)) == (ID, SCOPES)
        with home.daemon():
            terminal.expect("The daemon answers.\r\n")
            dialogue = terminal.written
            terminal.expect("code_challenge=")
            terminal.expect("aiting for the browser")
            terminal.type("\x03")
            assert terminal.wait() == 130
        asked = begun(terminal.written)

    assert asked["client_id"] == [ID]
    assert asked["scope"] == [SCOPES]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/callback", asked["redirect_uri"][0])
    lines = dialogue.split("\r\n")
    # A path is as long as it is; nothing else is as wide as the screen.
    assert [line for line in lines if len(line) > 80 and " " in line.strip(" \\")] == []


def test_answers_and_the_address_are_piped_in(home: Home):
    """Not a byte more is taken than the answers: what is to be pasted is still there for the login."""
    with subprocess.Popen(
        [*SPOTOKEND, "login", "--paste"],
        env=home.environ,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as login:
        assert login.stdin is not None
        assert login.stderr is not None
        login.stdin.write(f"{ANSWERS[0]}\n{ANSWERS[1]}\n")
        login.stdin.write("http://127.0.0.1/callback?code=code-1&state=state-1\n")
        login.stdin.close()
        said = ""
        while "spotokend run\n" not in said:
            said += login.stderr.readline()
        with home.daemon():
            said += login.stderr.read()
            status = login.wait(30)

    assert status == 3
    assert "Client id: \n" in said
    assert "Scopes [none]: \n" in said
    assert begun(said)["client_id"] == [ID]
    # The address was read, and isn't this login's; nothing comes after it.
    errors = re.findall(r"^spotokend: .*", said, re.MULTILINE)
    assert len(errors) == 2
    assert errors[-1] == "spotokend: the input ended before the address was pasted"


@pytest.mark.parametrize("key", ["\x03", "\x04"], ids=["Ctrl-C", "Ctrl-D"])
@pytest.mark.parametrize("question", range(len(ASKED)))
def test_a_person_may_leave_at_any_question(home: Home, key: str, question: int):
    """Also in the middle of an answer: nothing was made, not even a folder."""
    home.has_systemd()
    before = home.contents()
    with TerminalProcess([*SPOTOKEND, "login"], home.environ) as terminal:
        for asked, answer in zip(ASKED[:question], ANSWERS, strict=False):
            terminal.expect(asked)
            terminal.type(f"{answer}\n")
        terminal.expect(ASKED[question])
        terminal.type(f"half{key}" if key == "\x03" else key)
        status = terminal.wait()

    assert status == (130 if key == "\x03" else 4)
    assert home.contents() == before
    assert ("nothing has been written" in terminal.written) is (key == "\x04")


@pytest.mark.parametrize("answered", range(len(ASKED)))
def test_a_script_may_end_at_any_question(home: Home, answered: int):
    """As with Ctrl-D; and its words are ASCII where nothing else can be shown."""
    home.has_systemd()
    home.environ["PYTHONIOENCODING"] = "ascii"
    before = home.contents()
    done = home.command("login", stdin="".join(f"{line}\n" for line in ANSWERS[:answered]))

    assert (done.returncode, done.stdout) == (4, "")
    assert home.contents() == before
    assert done.stderr.isascii()
    assert f"{ASKED[answered]}\nspotokend: the input ended at " in done.stderr


def test_systemd_runs_the_daemon_and_the_login_goes_on(home: Home):
    """Three times Return, but for the client id; then there is a unit, a daemon, and a login."""
    home.has_systemd()
    with TerminalProcess([*SPOTOKEND, "login"], home.environ) as terminal:
        try:
            for asked, answer in zip(ASKED, (ID, "", ""), strict=True):
                terminal.expect(asked)
                terminal.type(f"{answer}\n")
            terminal.expect("code_challenge=")
            terminal.type("\x03")
            assert terminal.wait() == 130
            assert (home.folder / ".config" / "systemd" / "user" / "spotokend.service").exists()
            assert "spotokend run" not in terminal.written
        finally:
            stopped = home.command("stop")
    assert stopped.returncode == 0
    assert begun(terminal.written)["client_id"] == [ID]


def test_ctrl_c_ends_the_wait_and_the_next_login_goes_on_there(home: Home):
    """What was answered once isn't asked again."""
    with TerminalProcess([*SPOTOKEND, "login"], home.environ) as terminal:
        for asked, answer in zip(ASKED[:2], ANSWERS, strict=False):
            terminal.expect(asked)
            terminal.type(f"{answer}\n")
        terminal.expect("Ctrl-C ends the wait.")
        terminal.type("\x03")
        assert terminal.wait() == 130
    before = home.config.read_bytes()
    began = time.monotonic()
    assert home.command("login").returncode == 4
    assert time.monotonic() - began < 5  # a script is told at once
    with TerminalProcess([*SPOTOKEND, "login"], home.environ) as terminal:
        terminal.expect("spotokend run\r\n")
        with home.daemon():
            terminal.expect("code_challenge=")
            terminal.type("\x03")
            assert terminal.wait() == 130
    assert "Client id" not in terminal.written
    assert home.config.read_bytes() == before
