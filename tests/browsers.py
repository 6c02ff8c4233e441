"""A real browser for the tests: Chromium, driven by playwright, on loopback alone.

Where Chromium or playwright is missing the tests that ask for it are left out, and say how to get it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Response

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",  # of its own: continuous integration runs as root, and opens only our pages
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 15_000.0
"""Milliseconds; what is waited for takes a few hundred on an idle machine."""
TWICE_THE_SIZE = {"standard": 32, "fixed": 26}
"""A reader's own font sizes, in pixels; 16 and 13 are what browsers come with."""


class Window:
    """A window with a profile of its own; a context manager. It takes down what it does."""

    def __init__(self, browser: Browser, **settings: Any) -> None:
        """``settings`` as for ``browser.new_context``: ``viewport``, ``color_scheme`` …"""
        self._context: BrowserContext = browser.new_context(**settings)
        self._context.set_default_timeout(PATIENCE)
        self.requests: list[str] = []
        """The address of every request of every tab."""
        self.complaints: list[str] = []
        """What stands as an error in the console."""
        self._answers: dict[str, Response] = {}
        self._context.on("request", lambda request: self.requests.append(request.url))
        self._context.on("response", self._take)
        self._context.on("console", lambda words: self.complaints.append(words.text))
        self.page = self.tab()

    def tab(self) -> Page:
        """One more tab."""
        return self._context.new_page()

    def answer(self, page: Page) -> Response:
        """The last response for the address that a tab shows."""
        return self._answers[page.url]

    def foreign(self) -> set[str]:
        """Hosts that were asked for anything, and aren't this machine."""
        hosts = {urlsplit(address).hostname for address in self.requests}
        return {str(host) for host in hosts - {"127.0.0.1", "::1"}}

    def history(self, page: Page) -> list[str]:
        """The addresses to which a tab's Back and Forward lead, and its own."""
        session = self._context.new_cdp_session(page)
        entries = session.send("Page.getNavigationHistory")["entries"]
        session.detach()
        return [entry["url"] for entry in entries]

    @contextmanager
    def hold(self, page: Page, pattern: str) -> Iterator[Callable[[], None]]:
        """Keep a tab's requests that fit the pattern from going out, also after a redirect.

        Gives a function that returns once there is one; the end of the block lets them go.
        """
        session = self._context.new_cdp_session(page)
        held: list[str] = []
        session.on("Fetch.requestPaused", lambda event: held.append(event["requestId"]))
        session.send("Fetch.enable", {"patterns": [{"urlPattern": pattern}]})

        def until_held() -> None:
            deadline = time.monotonic() + PATIENCE / 1000
            while not held:
                assert time.monotonic() < deadline, f"{pattern} was not asked for"
                page.wait_for_timeout(10)  # playwright hears of events only meanwhile

        yield until_held
        for request in held:
            session.send("Fetch.continueRequest", {"requestId": request})

    def enlarge(self, page: Page) -> None:
        """Let a tab's reader have set their fonts to twice the usual size."""
        self._context.new_cdp_session(page).send("Page.setFontSizes", {"fontSizes": TWICE_THE_SIZE})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._context.close()

    def _take(self, response: Response) -> None:
        self._answers[response.url] = response


@contextmanager
def _trap() -> Iterator[int]:
    """The port of a proxy that lets nothing through: Chromium has errands of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:  # closed: the tests are over
                    return
                connection.close()

        thread = threading.Thread(target=refuse)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


@contextmanager
def _as_user(executable: str, uid: int) -> Iterator[str]:
    """A program that starts it as somebody else, whose the profile then is, too."""
    with tempfile.TemporaryDirectory(prefix="spotokend-") as folder:
        Path(folder).chmod(0o755)
        program = Path(folder, "chromium")
        program.write_text(
            "#!/bin/sh\n"
            "for word; do case $word in --user-data-dir=*) profile=${word#*=}; esac; done\n"
            f'chown -R {uid}:{uid} "$profile"\n'
            f"exec setpriv --reuid={uid} --regid={uid} --clear-groups --"
            f' env HOME="$profile" {shlex.quote(executable)} "$@"\n'
        )
        program.chmod(0o755)
        yield str(program)


@contextmanager
def chromium(uid: int | None = None) -> Iterator[Browser]:
    """Chromium with a new profile; from it nothing can be reached that isn't loopback.

    It can be another user's, which takes root: who logs in must be who opens the browser.
    For the tests of one file, not for the whole session: while playwright runs, this thread has a
    running event loop, and tests of other files want one of their own.
    """
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip("a real browser: Chromium isn't installed (Debian: chromium)")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="a real browser: playwright isn't installed (pip: playwright)"
    )
    program = nullcontext(executable) if uid is None else _as_user(executable, uid)
    with _trap() as port, program as executable, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=executable,
            args=[*FLAGS, f"--proxy-server=http://127.0.0.1:{port}"],
        )
        yield browser
        browser.close()


# --- what a reader sees ---------------------------------------------------------------------------

_COLOURS = """() => {
    const solid = colour => !/^rgba\\(.*, 0\\)$|^transparent$/.test(colour);
    const ground = element => {
        while (element && !solid(getComputedStyle(element).backgroundColor))
            element = element.parentElement;
        return getComputedStyle(element || document.documentElement).backgroundColor;
    };
    return [...document.body.querySelectorAll('*')].flatMap(element => {
        const words = [...element.childNodes].some(
            node => node.nodeType === Node.TEXT_NODE && node.data.trim());
        const style = getComputedStyle(element);
        if (words) return [[element.tagName, style.color, ground(element)]];
        if (element.tagName === 'svg') return [['svg', style.stroke, ground(element)]];
        return [];
    });
}"""


def contrasts(page: Page) -> dict[str, float]:
    """By tag, the least contrast of text, or of a drawing's lines, with what is behind (WCAG 2.2)."""
    found: dict[str, float] = {}
    for tag, colour, ground in page.evaluate(_COLOURS):
        ratio = _contrast(_luminance(colour), _luminance(ground))
        found[tag.lower()] = min(ratio, found.get(tag.lower(), ratio))
    return found


def _contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def _luminance(colour: str) -> float:
    """The relative luminance of a computed ``rgb(r, g, b)``."""
    shares = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def overflow(page: Page) -> int:
    """Pixels by which a page is wider than its window."""
    wider: int = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return wider
