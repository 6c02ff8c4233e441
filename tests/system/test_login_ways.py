"""``spotokend login`` where no browser can be opened: over SSH, in a container, and by pasting.

The command runs in a terminal of its own, as a person would have it; daemon and sandbox are the real
ones. Whatever is pasted ends in a login, or in words that lead to one.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from daemon_process import DaemonProcess
from terminal_process import TerminalProcess

import spotokend
from spotokend.sandbox import Options, Sandbox, ready_configuration, running

SSH = {"SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 22", "SSH_TTY": "/dev/pts/0"}
PASTE = "copy its whole address, paste it here and press Return."
DONE = "Logged in alice as Alice"
LINE = 4095
"""Characters of a line that a terminal hands over."""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A provider whose users agree to everything."""
    with running(Options(auto_approve=True)) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def daemon(sandbox: Sandbox) -> Iterator[DaemonProcess]:
    """A daemon with alice's account, and an environment without a window system."""
    folder = Path(tempfile.mkdtemp(prefix="spotokend-"))
    text = ready_configuration(sandbox.url, sandbox.provider.options, folder=str(folder))
    with DaemonProcess(folder, text) as daemon:
        for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "SSH_CLIENT", *SSH):
            daemon.environ.pop(name, None)
        yield daemon
    shutil.rmtree(folder)


class Login(TerminalProcess):
    """``spotokend login alice`` in a terminal; ``environ`` is what is special about it."""

    def __init__(self, daemon: DaemonProcess, *options: str, **environ: str) -> None:
        super().__init__(
            [sys.executable, "-m", "spotokend", "login", "alice", *options],
            daemon.environ | environ,
        )
        # The address is on the terminal before it is explained what to do with it.
        self.expect(PASTE)
        (self.url,) = re.findall(r"http://127\.0\.0\.1:\d+/authorize\S+", self.written)

    def agree(self) -> str:
        """A browser somewhere: the address on which it ends."""
        return httpx.get(self.url, trust_env=False).headers["location"]

    def paste(self, text: str) -> None:
        """As it is, and the Return key."""
        self.type(f"{text}\r")

    def ends_well(self) -> bool:
        """It says who logged in, and its status is 0."""
        self.expect(DONE)
        return self.wait() == 0


# --- where there is no browser --------------------------------------------------------------------


def test_over_ssh_both_ways_are_told_and_the_paste_works(daemon: DaemonProcess):
    """No window is tried; the address that the far browser ended on is pasted."""
    with Login(daemon, **SSH) as login:
        assert "This is an SSH session, so there are two ways:" in login.written
        login.paste(login.agree())
        assert login.ends_well()


def test_over_ssh_the_forwarded_port_works(daemon: DaemonProcess):
    """The command to type has the port on which this login listens; what comes by it is answered."""
    with Login(daemon, **SSH) as login:
        address = login.agree()
        port = httpx.URL(address).port
        assert f"ssh -N -L {port}:127.0.0.1:{port} HOST" in login.written
        page = httpx.get(address, follow_redirects=True, trust_env=False)
        assert "Logged in as Alice, account alice." in page.text
        assert login.ends_well()


def test_in_a_container_without_a_browser_the_address_is_shown(daemon: DaemonProcess):
    """Neither a display nor a program that could open anything."""
    programs = daemon.folder / "bin"
    programs.mkdir()
    (programs / "setsid").symlink_to(shutil.which("setsid"))
    with Login(daemon, PATH=str(programs)) as login:
        assert "Open this address in a browser:" in login.written
        assert "SSH" not in login.written
        login.paste(login.agree())
        assert login.ends_well()


@pytest.mark.parametrize("option", ["--paste", "--no-browser"])
def test_by_choice_nothing_is_opened(daemon: DaemonProcess, option: str):
    """With ``--paste`` nobody listens, so that the registered address is the one that comes back."""
    with Login(daemon, option, DISPLAY=":0", BROWSER="/bin/false") as login:
        address = login.agree()
        assert (httpx.URL(address).port is None) is (option == "--paste")
        login.paste(address)
        assert login.ends_well()


# --- what people paste ----------------------------------------------------------------------------


def halves(address: str) -> tuple[str, str]:
    """Broken in the middle of the code."""
    middle = address.index("code=") + 20
    return address[:middle], address[middle:]


@pytest.mark.parametrize(
    "pasted",
    [
        pytest.param("\r".join, id="over two lines"),
        pytest.param("\r   ".join, id="over two lines, indented"),
        pytest.param(lambda parts: f"'{''.join(parts)}'", id="in quotes"),
        pytest.param(lambda parts: f'"{"".join(parts)}"', id="in double quotes"),
        pytest.param(lambda parts: f"<{''.join(parts)}>", id="in angle brackets"),
        pytest.param(lambda parts: f"  {''.join(parts)}  \r\n\r\n", id="with blanks and lines"),
        pytest.param(lambda parts: f"\x1b[200~{''.join(parts)}\x1b[201~", id="bracketed paste"),
        pytest.param(lambda parts: f"\x1b[200~{chr(10).join(parts)}\n\x1b[201~", id="both"),
        pytest.param(lambda parts: "".join(parts).partition("?")[2], id="the query"),
        pytest.param(lambda parts: f"?{''.join(parts).partition('?')[2]}", id="from ? on"),
        pytest.param(lambda parts: "".join(parts).removeprefix("http://"), id="without http"),
        pytest.param(lambda parts: "".join(parts).replace("&", "&amp;"), id="with &amp;"),
        pytest.param(lambda parts: f"It says: {''.join(parts)}", id="with words before it"),
        pytest.param(lambda parts: f"{''.join(parts)}&pad={'x' * (LINE - 600)}", id="very long"),
    ],
)
def test_an_address_is_good_however_it_was_copied(daemon: DaemonProcess, pasted):
    """What terminals, mail programs and hands do to it."""
    with Login(daemon, "--paste") as login:
        login.paste(pasted(halves(login.agree())))
        assert login.ends_well()
        assert "spotokend:" not in login.written.partition(PASTE)[2]


def test_what_is_no_answer_leads_on_to_one(daemon: DaemonProcess):
    """Each has words that say what to paste instead; the login goes on, and ends well."""
    with Login(daemon, "--paste") as older, Login(daemon, "--paste") as login:
        address = login.agree()
        code = httpx.URL(address).params["code"]
        for pasted, words in (
            ("what now?", "that is not the address of this login: copy the one that begins with"),
            (code, "that address has no state: copy all of it"),
            (login.url, "that is not the address of this login"),
            (older.agree(), "that address belongs to another login attempt"),
            ("&".join([address] * 90), "the terminal cuts a line off after 4095 characters"),
            ("\r".join(f"{i}={'x' * 3000}" for i in range(4)), "that is too long"),
        ):
            login.paste(pasted)
            login.expect(words)
            if "cuts a line" not in words:
                login.expect("Still waiting for the answer to this login.")
        login.paste(address)
        assert login.ends_well()


def test_the_address_of_an_older_attempt_does_not_spoil_the_right_one(daemon: DaemonProcess):
    """Both in the same paste, or the right one without its beginning after it."""
    with Login(daemon, "--paste") as older:
        stale = older.agree()
    with Login(daemon, "--paste") as login:
        login.paste(f"{stale}\r{login.agree()}")
        assert login.ends_well()
        assert "that address belongs to another login attempt" in login.written
    with Login(daemon, "--paste") as login:
        login.paste(stale)
        login.expect("Still waiting for the answer to this login.")
        login.paste(login.agree().partition("?")[2])
        assert login.ends_well()


def test_an_address_that_is_too_long_for_a_line_comes_in_shorter_ones(daemon: DaemonProcess):
    """The terminal drops the rest of a line without a word; the command has some."""
    with Login(daemon, "--paste") as login:
        address = f"{login.agree()}&pad={'x' * LINE}"
        login.paste(address)
        login.expect("break the address into shorter lines, and paste them all at once")
        login.paste(f"{address[:3000]}\r{address[3000:]}")
        assert login.ends_well()


# --- leaving --------------------------------------------------------------------------------------


def test_the_end_of_the_input_is_told_with_the_command(daemon: DaemonProcess):
    """Ctrl-D: nothing can come any more."""
    with Login(daemon, "--paste") as login:
        login.type("\x04")
        login.expect("the input ended before the address was pasted")
        login.expect("`spotokend login alice --paste`")
        assert login.wait() == spotokend.LoginRequired.exit_status


def test_ctrl_c_ends_it_also_for_the_browser(daemon: DaemonProcess):
    """The next attempt is a new one; an answer to the old one is told so."""
    with Login(daemon) as login:
        stale = login.agree()
        login.type("\x03")
        assert login.wait() == 130
    with Login(daemon) as login:
        login.paste(stale)
        login.expect("that address belongs to another login attempt")
        login.paste(login.agree())
        assert login.ends_well()
