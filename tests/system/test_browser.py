"""``spotokend login`` with a real Chromium: what a person sees at each end of a login.

Daemon, command line and browser are the real ones; the sandbox is the provider. Only the window that
the command opens is opened by the test, at the address with which the command calls ``$BROWSER``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import browsers
import httpx
import pytest
from browsers import Window, contrasts, overflow
from daemon_process import DaemonProcess
from terminal_process import TerminalProcess

import spotokend
from spotokend.cli import pages
from spotokend.cli.callback import HEADERS
from spotokend.sandbox import Options, Sandbox, ready_configuration, running

PATIENCE = 15.0
"""Seconds for what takes a fraction of one on an idle machine."""
UNCHANGED = "Nothing was changed: a login that was there before still works."
AGAIN = "spotokend login alice"


# --- the world ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium():
    """One browser for all tests of this file."""
    with browsers.chromium() as browser:
        yield browser


@pytest.fixture
def window(chromium) -> Iterator[Window]:
    """A window of its own for each test."""
    with Window(chromium) as window:
        yield window


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A provider that asks its users."""
    with running(Options()) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def daemon(sandbox: Sandbox) -> Iterator[DaemonProcess]:
    """A daemon with alice's account; ``six`` is a client that redirects to ``[::1]``."""
    folder = tempfile.mkdtemp(prefix="spotokend-")
    text = ready_configuration(sandbox.url, sandbox.provider.options, folder=folder)
    client = text[text.index("[clients.pkce]") :].partition("\n\n")[0]
    six = client.replace("clients.pkce", "clients.six").replace(
        "127.0.0.1/callback", "[::1]/callback"
    )
    with DaemonProcess(Path(folder), f"{text}\n{six}\n") as daemon:
        yield daemon
    shutil.rmtree(folder)


def tell(sandbox: Sandbox, what: str, **fields: object) -> None:
    """Switch on a fault, or change an option."""
    httpx.post(f"{sandbox.url}/sandbox/{what}", json=fields, trust_env=False).raise_for_status()


class Login:
    """``spotokend login`` under way, and the address that it gave to the browser."""

    def __init__(self, daemon: DaemonProcess, *arguments: str) -> None:
        self._note = Path(tempfile.mkdtemp(dir=daemon.folder)) / "address"
        browser = self._note.with_name("browser")
        browser.write_text(
            f'#!/bin/sh\nprintf %s "$1" > {self._note}.new && mv {self._note}.new {self._note}\n'
        )
        browser.chmod(0o755)
        self.command = [sys.executable, "-m", "spotokend", "login", *arguments]
        self.environ = daemon.environ | {"DISPLAY": ":0", "BROWSER": str(browser)}
        for name in ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"):
            self.environ.pop(name, None)

    @property
    def address(self) -> str:
        """What the browser was started with, as soon as it was."""
        deadline = time.monotonic() + PATIENCE
        while not self._note.exists():
            assert time.monotonic() < deadline, "no browser was started"
            time.sleep(0.01)
        return self._note.read_text()


@contextmanager
def login(daemon: DaemonProcess, *arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The command in a process of its own, without a terminal, and the browser's first address."""
    begun = Login(daemon, *arguments)
    with subprocess.Popen(
        begun.command,
        env=begun.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield begun.address, process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The command's exit status, and what it said."""
    said = process.communicate(timeout=PATIENCE)[0]
    return process.returncode, said


def log_alice_in(daemon: DaemonProcess) -> None:
    """As she has done long ago."""
    with spotokend.Client(daemon.socket) as client:
        begun = client.call("login_start", account="alice")
        agreed = httpx.post(
            begun["url"], data={"user": "alice", "decision": "agree"}, trust_env=False
        )
        address = agreed.headers["location"]
        client.call("login_finish", login_id=begun["login_id"], redirect_url=address)


def agree(window: Window, address: str, user: str = "Alice") -> None:
    """Follow the command to the provider, and agree as one of its users; what follows may take time."""
    window.page.goto(address)
    window.page.get_by_label(user).check()
    window.page.get_by_role("button", name="Agree").dispatch_event("click")


def check_page(window: Window, name: str, status: int, heading: str, *said: str) -> None:
    """The tab shows that page, whole, of this machine alone, and nothing of the code or the state."""
    check_tab(window, window.page, name, status, heading, *said)


def check_tab(window: Window, page, name: str, status: int, heading: str, *said: str) -> None:
    """As :func:`check_page`, for any tab."""
    page.wait_for_url(f"**/callback/{name}")
    assert page.title() == f"{heading} – spotokend"
    assert page.get_by_role("heading", level=1).all_inner_texts() == [heading]
    shown = page.get_by_role("main").inner_text()
    for words in said:
        assert words in shown
    answer = window.answer(page)
    headers = answer.all_headers()
    assert answer.status == status
    assert {key.lower(): value for key, value in HEADERS}.items() <= headers.items()
    assert headers["content-security-policy"].startswith("default-src 'none';")
    # The style came through the policy, and nothing else was stopped by it.
    assert page.evaluate("getComputedStyle(document.querySelector('main')).maxWidth") == "544px"
    assert [words for words in window.complaints if "Content Security Policy" in words] == []
    ours = urlsplit(page.url)
    assert (ours.query, ours.fragment) == ("", "")
    for address in window.history(page):
        parts = urlsplit(address)
        assert parts.netloc != ours.netloc or parts.query == ""
    assert window.foreign() == set()


# --- the ends of a login --------------------------------------------------------------------------


def test_a_login_that_works_says_who_it_is(daemon: DaemonProcess, window: Window):
    """From ``/start`` over the consent to the page without the code; the terminal says the same."""
    with login(daemon, "alice") as (address, process):
        agree(window, address)
        check_page(
            window,
            "done",
            200,
            "You are logged in",
            "Logged in as Alice, account alice.",
            "You can close this page.",
            "spotokend status alice",
        )
        status, said = ended(process)

    assert status == 0
    assert "Logged in alice as Alice" in said
    # The browser's own start address, the provider's two, the redirect, the page: and nothing else.
    assert [urlsplit(url).path for url in window.requests] == [
        "/callback/start",
        "/authorize",
        "/authorize",
        "/callback",
        "/callback/done",
    ]


def test_ipv6_is_as_good(daemon: DaemonProcess, window: Window):
    """A redirect to ``http://[::1]``."""
    with login(daemon, "six", "--client", "six") as (address, process):
        assert address.startswith("http://[::1]:")
        agree(window, address, "Carol")
        check_page(window, "done", 200, "You are logged in", "account six.")
        assert ended(process)[0] == 0


def test_a_refusal_is_taken_as_one(daemon: DaemonProcess, window: Window):
    """Cancel at the provider's: nothing is stored, and the way back is told."""
    with login(daemon, "alice") as (address, process):
        window.page.goto(address)
        window.page.get_by_role("button", name="Cancel").dispatch_event("click")
        check_page(
            window,
            "denied",
            403,
            "You did not agree",
            "The provider says that access was refused, so nothing was stored.",
            UNCHANGED,
            AGAIN,
        )
        status, said = ended(process)

    assert status == spotokend.LoginRequired.exit_status
    assert "the user declined" in said


def test_a_wrong_state_ends_nothing(daemon: DaemonProcess, window: Window):
    """The tab of an older attempt comes back; then the right one does."""
    with login(daemon, "alice") as (address, process):
        callback = address.removesuffix("/start")
        window.page.goto(f"{callback}?code=code-of-another&state=of-another")
        check_page(
            window,
            "not-this-login",
            400,
            "This is not the answer to your login",
            "The login in your terminal is not affected: it still waits.",
            "Go back to the tab that was opened last",
        )
        agree(window, address)
        check_page(window, "done", 200, "You are logged in")
        status, said = ended(process)

    assert status == 0
    assert "that address belongs to another login attempt" in said
    assert "Still waiting for the answer to this login." in said


def test_a_code_that_was_too_old_is_told(daemon: DaemonProcess, sandbox: Sandbox, window: Window):
    """The provider gives a code ten minutes; here none."""
    tell(sandbox, "options", code_life=0)
    with login(daemon, "alice") as (address, process):
        agree(window, address)
        check_page(
            window,
            "expired",
            410,
            "This login took too long",
            "More time than is allowed passed",
            UNCHANGED,
            AGAIN,
        )
        status, said = ended(process)
    tell(sandbox, "options", code_life=600)

    assert status == spotokend.LoginRequired.exit_status
    assert "the authorization code has expired" in said


def test_a_browser_that_comes_back_after_the_time_is_told_so(
    sandbox: Sandbox, window: Window, short_path: Path
):
    """The consent page stood open too long: at a terminal the command is there for a minute more."""
    text = ready_configuration(sandbox.url, sandbox.provider.options, folder=str(short_path))
    with DaemonProcess(short_path, f"{text}\n[timing]\nlogin_timeout = 1\n") as daemon:
        begun = Login(daemon, "alice")
        with TerminalProcess(begun.command, begun.environ) as terminal:
            window.page.goto(begun.address)
            terminal.expect("The time for this login is over.")
            window.page.get_by_role("button", name="Agree").dispatch_event("click")
            check_page(window, "expired", 410, "This login took too long", UNCHANGED, AGAIN)
            terminal.expect("the time for this login was over before its answer came")
            assert terminal.wait() == spotokend.LoginRequired.exit_status


def test_the_same_address_in_a_second_tab_is_told_to_be_used(
    daemon: DaemonProcess, sandbox: Sandbox, window: Window
):
    """Opened again before the first tab has its page: one login, one code, two true pages."""
    with login(daemon, "alice") as (address, process):
        second = window.tab()
        with window.hold(window.page, "*/callback/done") as until_held:
            agree(window, address)
            until_held()
            (redirect,) = [url for url in window.requests if "?code=" in url]
            second.goto(redirect)
            check_tab(
                window,
                second,
                "used",
                410,
                "This login has ended already",
                "The address that brought you here works once, and was used.",
                "spotokend status",
            )
        check_page(window, "done", 200, "You are logged in")
        assert ended(process)[0] == 0
    assert sandbox.provider.ledger.codes_reused == 0


def test_a_page_that_is_loaded_once_more_is_there_as_long_as_the_command_is(
    daemon: DaemonProcess, window: Window
):
    """It waits for a second tab to fetch its page; meanwhile the first one is reloaded."""
    with login(daemon, "alice") as (address, process):
        second = window.tab()
        with window.hold(second, "*/callback/not-this-login") as until_held:
            another = f"{address.removesuffix('/start')}?code=of-another&state=of-another"
            second.evaluate("address => { location.href = address }", another)
            until_held()
            agree(window, address)
            window.page.wait_for_url("**/callback/done")
            window.page.reload()
            check_page(window, "done", 200, "You are logged in")
        check_tab(window, second, "not-this-login", 400, "This is not the answer to your login")
        assert ended(process)[0] == 0


def test_another_user_is_told_what_can_be_done(daemon: DaemonProcess, window: Window):
    """Bob agrees where Alice's account was meant: hers goes on, and three ways lead on."""
    log_alice_in(daemon)
    with login(daemon, "alice") as (address, process):
        agree(window, address, "Bob & Bobby")
        check_page(
            window,
            "other-user",
            409,
            "This is another user",
            "Account alice belongs to user sandbox-account-alice, and Bob & Bobby"
            " (sandbox-account-bob) logged in.",
            "The login that was there before is unchanged.",
            AGAIN,
            "spotokend login NAME",
            "spotokend logout alice",
        )
        status, said = ended(process)

    assert status == spotokend.Forbidden.exit_status
    assert "`spotokend logout alice`" in said
    assert daemon.run("token", "alice").returncode == 0


@pytest.mark.parametrize(
    ("error", "exit_status", "said"),
    [
        (
            {"error": "invalid_grant", "description": "Invalid authorization code"},
            spotokend.LoginRequired.exit_status,
            ["The authorization code is wrong or was used before"],
        ),
        (
            {"error": "invalid_client", "description": "Invalid client"},
            spotokend.Misconfigured.exit_status,
            ["The server does not accept the client id", "spotokend reload"],
        ),
    ],
    ids=["the code", "the client"],
)
def test_a_refusal_of_the_provider_is_explained(
    daemon: DaemonProcess, sandbox: Sandbox, window: Window, error, exit_status, said
):
    """In its meaning, with the cure."""
    tell(sandbox, "faults", kind="answer", status=400, count=1, **error)
    with login(daemon, "alice") as (address, process):
        agree(window, address)
        check_page(
            window, "refused", 502, "The provider refused the login", *said, UNCHANGED, AGAIN
        )
        assert ended(process)[0] == exit_status


def test_a_provider_that_is_down_is_no_refusal(
    daemon: DaemonProcess, sandbox: Sandbox, window: Window
):
    """503: later it may work."""
    tell(sandbox, "faults", kind="answer", status=503, count=1)
    with login(daemon, "alice") as (address, process):
        agree(window, address)
        check_page(
            window,
            "unavailable",
            503,
            "The login could not be finished",
            "The code could not be exchanged:",
            "After a little while, type this in your terminal:",
            AGAIN,
        )
        assert ended(process)[0] == spotokend.Unavailable.exit_status


def test_a_daemon_that_was_restarted_has_forgotten_the_login(daemon: DaemonProcess, window: Window):
    """While the consent page was open."""
    with login(daemon, "alice") as (address, process):
        window.page.goto(address)
        daemon.terminate()
        daemon.start()
        window.page.get_by_role("button", name="Agree").dispatch_event("click")
        check_page(window, "unknown", 410, "This login was forgotten", UNCHANGED, AGAIN)
        status, said = ended(process)

    assert status == spotokend.LoginRequired.exit_status
    assert "spotokend was restarted meanwhile" in said


# --- the pages themselves -------------------------------------------------------------------------

LONG = "a-name-without-any-place-to-break-it-" * 4
PAGES = [
    pages.success("main", f"Čarolína {LONG}", [f"a note about {LONG}"]),
    *(
        pages.ended(
            outcome,
            f"what {LONG} said",
            f"do this: `spotokend login {LONG}`; or that: `spotokend logout main`",
            "spotokend login main --client my --scope user-read-recently-played",
        )
        for outcome in pages.ENDS
    ),
]


def show(window: Window, page: pages.Page) -> None:
    """As the listener delivers it."""
    headers = {**dict(HEADERS), "Content-Type": "text/html; charset=utf-8"}
    address = f"http://127.0.0.1/callback/{page.name}"
    window.page.route(
        address, lambda route: route.fulfill(status=page.status, headers=headers, body=page.body)
    )
    window.page.goto(address)


def test_a_screen_reader_is_told_the_result_first(window: Window):
    """The accessibility tree: one main part, in it the status with the heading, then what next."""
    for page in PAGES:
        show(window, page)
        tree = window.page.locator("body").aria_snapshot().splitlines()
        heading = window.page.get_by_role("heading", level=1).inner_text()
        assert window.page.title() == f"{heading} – spotokend"
        assert tree[:3] == ["- main:", "  - status:", f'    - heading "{heading}" [level=1]']
        assert '  - region "What next":' in tree
        assert not any("img" in line for line in tree)


@pytest.mark.parametrize(("contrast", "least"), [("no-preference", 4.5), ("more", 7.0)])
def test_everything_can_be_read_by_day_and_by_night(window: Window, contrast, least):
    """Contrasts of what the browser has computed; drawings need 3:1 (WCAG 2.2, 1.4.3 and 1.4.11)."""
    for page in PAGES:
        show(window, page)
        for scheme in ("light", "dark"):
            window.page.emulate_media(color_scheme=scheme, contrast=contrast)
            found = contrasts(window.page)
            assert {"h1", "h2", "p", "footer"} <= found.keys()
            assert found.pop("svg") >= 3
            assert min(found.values()) >= least, (page.name, scheme, found)


def test_forced_colours_leave_nothing_out(window: Window):
    """Windows' high contrast: the drawing and the border of a command take the reader's colours."""
    window.page.emulate_media(forced_colors="active")
    show(window, PAGES[0])
    assert min(contrasts(window.page).values()) >= 4.5
    code = window.page.locator("code")
    assert code.evaluate("e => getComputedStyle(e).borderTopColor") == code.evaluate(
        "e => getComputedStyle(e).color"
    )


@pytest.mark.parametrize("enlarged", [False, True])
def test_nothing_is_wider_than_the_window(chromium, enlarged):
    """A narrow telephone (WCAG 2.2, 1.4.10), also of a reader with large fonts (1.4.4)."""
    with Window(chromium, viewport={"width": 320, "height": 640}) as window:
        if enlarged:
            window.enlarge(window.page)
        for page in PAGES:
            show(window, page)
            size = window.page.evaluate("getComputedStyle(document.body).fontSize")
            assert size == ("32px" if enlarged else "16px")
            assert overflow(window.page) == 0, page.name


def test_a_command_is_selected_as_a_whole(window: Window):
    """One click, and what is copied is what is to be typed, on one line."""
    window.page.set_viewport_size({"width": 320, "height": 640})
    show(window, PAGES[-1])
    window.page.locator(".command code").last.click()
    typed = "spotokend login main --client my --scope user-read-recently-played"
    assert window.page.evaluate("getSelection().toString()") == typed
