"""Opening a graphical browser, where there is one; never a text browser in the user's terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

TEXT_BROWSERS = frozenset({"elinks", "links", "links2", "lynx", "w3m", "www-browser"})


def remote(environ: Mapping[str, str]) -> bool:
    """True in an SSH session: a browser opened here would appear on nobody's screen."""
    return any(environ.get(name) for name in ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"))


def graphical(environ: Mapping[str, str]) -> bool:
    """True where a window can appear before the user."""
    shown = environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")
    return bool(shown) and not remote(environ)


def open_browser(address: str, environ: Mapping[str, str] | None = None) -> bool:
    """Start the user's browser with ``address``; False where there is none to start.

    ``address`` stands in the argv of processes, readable for every user of the computer.
    """
    environ = os.environ if environ is None else environ
    if not graphical(environ):
        return False
    # The standard library's search offers text browsers only where TERM is set.
    passed = {key: value for key, value in environ.items() if key != "TERM"}
    chosen = passed.pop("BROWSER", "").split(os.pathsep)
    wanted = [command for command in chosen if _name(command) not in TEXT_BROWSERS]
    if any(wanted):
        passed["BROWSER"] = os.pathsep.join(wanted)
    # In a process of its own: some browsers stay in the foreground until their window is closed,
    # and some write into the terminal. Isolated (-I), or a webbrowser.py in the present folder runs.
    process = subprocess.Popen(
        [sys.executable, "-I", "-m", "webbrowser", address],
        env=passed,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # Never waited for, and not to be warned about: it may live as long as the browser's window.
    process.returncode = 0
    return True


def _name(command: str) -> str:
    words = command.split()
    return os.path.basename(words[0]) if words else ""
