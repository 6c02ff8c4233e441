"""``spotokend login``: the browser's half of a login; the daemon holds state, verifier and code.

The listener is bound before the address is shown. The browser's return and a pasted address race,
and the first one that the daemon recognises ends the login.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from .. import calls
from ..client import Client
from ..errors import BadRequest, Forbidden, LoginRequired, SpotokendError
from . import browser, pages, terminal
from .arrivals import Arrival, Arrivals
from .callback import Redirect
from .listener import Listener

REMIND = 60.0
"""Seconds of silence after which the likeliest reason is told: a redirect URI that the provider
doesn't know shows an error page and never comes back."""
LINGER = 3.0
"""Seconds for the browser to fetch its last page."""


def run(arguments: argparse.Namespace) -> int:
    """Log in to one account."""
    with ExitStack() as cleanup:
        login = _Login(Client(), arguments)
        cleanup.callback(login.cancel)
        listener = None if arguments.paste else login.listen(cleanup)
        _lead_there(login, listener, no_browser=arguments.no_browser)
        result = login.wait(listener)
        who = _who(result)
        scopes = " ".join(result["scope"])
        terminal.say(
            f"Logged in {result['account']}{f' as {who}' if who else ''}"
            f" ({f'scopes {scopes}' if scopes else 'no scopes'})."
        )
        for note in result["notes"]:
            terminal.say(note)
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
        stdin = None if sys.stdin is None else sys.stdin.fileno()
        arrivals = Arrivals(listener, stdin)
        remind_at = time.monotonic() + REMIND
        while (now := time.monotonic()) < self._deadline:
            arrival = arrivals.next(min(remind_at, self._deadline) - now)
            if arrival is not None:
                result = self._finish(arrival)
                if result is not None:
                    return result
            elif arrivals.exhausted:
                raise LoginRequired(
                    "the input ended before the address was pasted",
                    hint="type spotokend login again, in a terminal",
                )
            elif time.monotonic() >= remind_at:
                remind_at = math.inf  # once
                terminal.say(f"Still waiting; {self._advice()}")
        raise LoginRequired(
            "no answer came from the browser in time", hint=f"{self._advice()}; then log in again"
        )

    def _finish(self, arrival: Arrival) -> dict[str, Any] | None:
        try:
            result = self._call(
                "login_finish", login_id=self._login_id, redirect_url=arrival.address
            )
        except BadRequest as error:
            # Another login's address, or no address at all. It never ends this one: anybody can
            # make the browser visit the listener.
            arrival.answer(pages.wrong_state(error.message))
            terminal.complain(error.message, error.hint)
            terminal.say("Still waiting for the answer to this login.")
            return None
        except SpotokendError as error:
            self._login_id = None
            arrival.answer(_page(error, arrival.address))
            raise
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


def _page(error: SpotokendError, address: str) -> pages.Page:
    match error:
        # RFC 6749, 4.1.2.1: what the user's "no" looks like.
        case LoginRequired() if ("error", "access_denied") in parse_qsl(urlsplit(address).query):
            return pages.denied()
        case LoginRequired():
            return pages.over(error.message)
        case Forbidden():
            return pages.other_user(error.message, error.hint or "")
    return pages.unsuccessful(error.message, error.hint or "")


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
        terminal.say(
            "Agree there. The browser then ends on a page that may not load: "
            "copy its whole address and paste it here."
        )
    elif browser.remote(os.environ):
        host = "[::1]" if ":" in listener.redirect.host else listener.redirect.host
        bind = "[::1]:" if ":" in listener.redirect.host else ""
        terminal.say(
            "This is an SSH session, so there are two ways:\n"
            "- On your own computer run first, with HOST as you typed it for this session:\n"
            f"    ssh -N -L {bind}{listener.port}:{host}:{listener.port} HOST\n"
            "  and then open the address in your browser.\n"
            "- Or open the address and agree; the browser then ends on a page that can't be "
            "loaded: copy its whole address and paste it here."
        )
    else:
        terminal.say(
            "Waiting for the browser. If it runs on another computer, it ends on a page that "
            "can't be loaded: copy its whole address and paste it here."
        )
