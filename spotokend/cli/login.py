"""``spotokend login``: the browser's half of a login; the daemon holds state, verifier and code.

The listener is bound before the address is shown. The browser's return and a pasted address race,
and the first one that the daemon recognises ends the login. Whatever its end, the browser is shown a
page about it as long as this process is there.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
import time
from contextlib import ExitStack, suppress
from typing import Any

from .. import calls
from ..client import Client
from ..errors import BadRequest, LoginRequired, SpotokendError
from ..rules.methods import TEXT_LIMIT
from . import browser, first_run, pages, questions, terminal
from .arrivals import Arrival, Arrivals
from .callback import Redirect
from .listener import Listener
from .parser import PROGRAM

REMIND = 60.0
"""Seconds of silence after which the likeliest reason is told: a redirect URI that the provider
doesn't know shows an error page and never comes back."""
LINGER = 3.0
"""Seconds for the browser to fetch its last page."""
LATE = 60.0
"""Seconds that the command stays after a login's time, where somebody sits who reads why: a browser
that comes back from the consent page only then is told so, and doesn't find nobody."""

PASTE = "copy its whole address, paste it here and press Return."


def run(arguments: argparse.Namespace) -> int:
    """Log in to one account."""
    client = Client()
    first = first_run.prepare(arguments, client)
    with ExitStack() as cleanup:
        login = _Login(client, arguments)
        cleanup.callback(login.cancel)
        listener = None if arguments.paste else login.listen(cleanup)
        _lead_there(login, listener, no_browser=arguments.no_browser)
        result = login.wait(listener)
        who = _who(result)
        scopes = " ".join(result["scope"])
        terminal.tell(
            f"Logged in {result['account']}{f' as {who}' if who else ''}"
            f" ({f'scopes {scopes}' if scopes else 'no scopes'})."
        )
        for note in result["notes"]:
            terminal.tell(note)
        if first:
            terminal.say(f"To try it: {PROGRAM} api /v1/me")
    return 0


class _Login:
    """One login under way at the daemon, from ``login_start`` on."""

    def __init__(self, client: Client, arguments: argparse.Namespace) -> None:
        self._client = client
        self._asked = {
            "account": arguments.account,
            "client": arguments.client,
            "scopes": arguments.scope,
        }
        self._again = _command(arguments)
        self._remind_at = time.monotonic() + REMIND
        self._login_id: str | None = None
        self.url = ""
        self._start()
        self.registered = self.redirect

    def _start(self, redirect_uri: str | None = None) -> None:
        asked = {**self._asked, "redirect_uri": redirect_uri}
        started = self._call("login_start", **{k: v for k, v in asked.items() if v})
        self._login_id = started["login_id"]
        self.url = str(started["url"])
        self.redirect = Redirect(str(started["redirect_uri"]))
        # On the clock that nobody sets while the user looks for a password.
        self._deadline = time.monotonic() + started["expires_at"] - time.time()

    def _call(self, method: str, **arguments: object) -> dict[str, Any]:
        answer: dict[str, Any] = calls.read_map(
            self._client.socket_path, self._client.call(method, **arguments)
        )
        return answer

    def cancel(self) -> None:
        """Tell the daemon that nobody waits any more, if it doesn't know."""
        if self._login_id is not None:
            with suppress(SpotokendError):  # it forgets the login by itself, in time
                self._client.call("login_cancel", login_id=self._login_id)
            self._login_id = None

    def listen(self, cleanup: ExitStack) -> Listener | None:
        """A listener on the redirect URI; None, with the reason in words, where there can't be one.

        ``cleanup`` will close it, once the browser has its last page.
        """
        if not self.redirect.loopback:
            terminal.say(f"{self.redirect.uri} isn't an address at which this program can listen.")
            return None
        try:
            listener = Listener(self.redirect)
        except OSError as error:
            terminal.say(f"Can't listen at {self.redirect.uri}: {error.strerror}.")
            return None
        cleanup.callback(listener.close)
        cleanup.callback(listener.linger, LINGER)
        if self.redirect.port is None:
            # Which URI is registered only the daemon knows, which port is free only we: so the
            # login is begun once more, with both.
            self.cancel()
            self._start(listener.redirect.uri)
        listener.authorize_url = self.url
        return listener

    def wait(self, listener: Listener | None) -> dict[str, Any]:
        """The result of the login.

        Raises:
            LoginRequired: no answer came in time, or the user said no.
            SpotokendError: what else the daemon says that ends a login.
        """
        arrivals = Arrivals(listener, None if sys.stdin is None else sys.stdin.fileno())
        result = self._next_answer(arrivals, self._deadline)
        if result is None and listener is not None and questions.interactive():
            self._remind_at = math.inf
            terminal.say(
                "The time for this login is over. For another minute a browser that comes back is "
                "told so; Ctrl-C ends that."
            )
            with suppress(KeyboardInterrupt):
                result = self._next_answer(arrivals, time.monotonic() + LATE)
        if result is None:
            raise LoginRequired(
                "no answer came from the browser in time",
                hint=f"{self._advice()}; to log in again: `{self._again}`",
            )
        return result

    def _next_answer(self, arrivals: Arrivals, deadline: float) -> dict[str, Any] | None:
        """The result of the first arrival that answers this login; None: none came in time."""
        while (now := time.monotonic()) < deadline:
            arrival = arrivals.next(min(self._remind_at, deadline) - now)
            if arrival is not None:
                result = self._finish(arrival)
                if result is not None:
                    return result
            elif arrivals.exhausted:
                raise LoginRequired(
                    "the input ended before the address was pasted",
                    hint=f"in a terminal: `{self._again}`",
                )
            elif time.monotonic() >= self._remind_at:
                self._remind_at = math.inf  # once
                terminal.say(f"Still waiting; {self._advice()}")
        return None

    def _finish(self, arrival: Arrival) -> dict[str, Any] | None:
        try:
            if len(arrival.address) > TEXT_LIMIT:
                raise BadRequest(
                    "that is too long to be the address on which the browser ended",
                    outcome="not_this_login",
                    hint="paste that address, and nothing else",
                )
            result = self._call(
                "login_finish", login_id=self._login_id, redirect_url=arrival.address
            )
        except SpotokendError as error:
            outcome = str(error.details.get("outcome"))
            arrival.answer(pages.ended(outcome, error.message, error.hint, self._again))
            if outcome != "not_this_login":
                self._login_id = None
                raise
            # It never ends this login: anybody can make the browser visit the listener.
            terminal.complain(error.message, error.hint)
            terminal.say("Still waiting for the answer to this login.")
            return None
        self._login_id = None
        arrival.answer(pages.success(result["account"], _who(result), result["notes"]))
        return result

    def _advice(self) -> str:
        return (
            "if the browser shows an error page of the provider: the app's redirect URIs, in the "
            f"provider's dashboard, must hold exactly {self.registered.uri}"
        )


def _who(result: dict[str, Any]) -> str:
    return str(result["display_name"] or result["user"] or "")


def _command(arguments: argparse.Namespace) -> str:
    """What was typed, for the next attempt."""
    words = [PROGRAM, "login"]
    words += [arguments.account] if arguments.account else []
    words += ["--client", arguments.client] if arguments.client else []
    for scope in arguments.scope:
        words += ["--scope", scope]
    words += ["--no-browser"] if arguments.no_browser else []
    words += ["--paste"] if arguments.paste else []
    return shlex.join(words)


def _lead_there(login: _Login, listener: Listener | None, *, no_browser: bool) -> None:
    """Open the browser, or say how to get there, and what to do where that doesn't work."""
    if no_browser:
        terminal.show(login.url)
        terminal.flush()
    elif listener is not None and browser.open_browser(listener.start_address):
        terminal.say(f"Your browser opens. If it doesn't, open this address:\n\n{login.url}\n")
    else:
        terminal.say(f"Open this address in a browser:\n\n{login.url}\n")
    if listener is None:
        terminal.say(f"Agree there. The browser then ends on a page that may not load: {PASTE}")
    elif browser.remote(os.environ):
        host = "[::1]" if ":" in listener.redirect.host else listener.redirect.host
        bind = "[::1]:" if ":" in listener.redirect.host else ""
        terminal.say(
            "This is an SSH session, so there are two ways:\n"
            "- On your own computer run first, with HOST as you typed it for this session:\n"
            f"    ssh -N -L {bind}{listener.port}:{host}:{listener.port} HOST\n"
            "  and then open the address in your browser.\n"
            "- Or open the address and agree; the browser then ends on a page that can't be "
            f"loaded: {PASTE}"
        )
    else:
        terminal.say(
            "Waiting for the browser. If it runs on another computer, it ends on a page that "
            f"can't be loaded: {PASTE}"
        )
