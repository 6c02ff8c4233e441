"""The pretended provider as one object: a request goes in, a response comes out.

No clock, no chance, no socket of its own. Every request is counted, meets the fault that is meant for
it, and is carried out unless that fault prevents it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from . import authorize, token_endpoint, web_api
from .credentials import read_bearer, read_credentials
from .faults import Faults, Kind
from .ledger import Ledger
from .messages import Malformed, Request, Response, text_response
from .options import Options
from .record import Entry, Record

TOKEN_PATH = "/api/token"  # noqa: S105 - an address, not a password
AUTHORIZE_PATH = "/authorize"


class Provider:
    """An authorization server with an API behind it.

    ``now`` gives seconds on any scale; ``random_text`` what makes tokens hard to guess; ``rand``
    a number in [0, 1), for faults with a probability.
    """

    def __init__(
        self,
        options: Options,
        *,
        now: Callable[[], float],
        random_text: Callable[[], str],
        rand: Callable[[], float] = random.random,
    ) -> None:
        self.ledger = Ledger(options, now=now, random_text=random_text)
        self.faults = Faults(rand)
        self.record = Record()

    @property
    def options(self) -> Options:
        """How it behaves from now on; may be exchanged."""
        return self.ledger.options

    @options.setter
    def options(self, options: Options) -> None:
        self.ledger.options = options

    def handle(self, request: Request) -> Response:
        """The response to any request whatever; raises nothing.

        Who delivers it heeds its ``delay``, ``held_by`` and ``cut``.
        """
        grant_type, client, user = self._asker(request)
        switched = self.faults.next_for(request, client=client, user=user)
        if switched is None:
            response = self._serve(request)
        else:
            response = switched.fault.apply(request, lambda: self._serve(request))
            if switched.fault.kind is Kind.HANG:
                response = replace(response, held_by=switched.id)
        self.record.add(
            Entry(
                at=self.ledger.now,
                endpoint=_endpoint(request),
                client=client if client and self.options.app(client) else None,
                user=user,
                grant_type=grant_type,
                outcome=response.outcome,
                note=response.note,
                fault=None if switched is None else switched.id,
            )
        )
        return response

    def _serve(self, request: Request) -> Response:
        if request.path == TOKEN_PATH:
            if request.method == "POST":
                return token_endpoint.answer(self.ledger, request)
            return text_response(405, "", note="not a POST")
        if request.path == AUTHORIZE_PATH:
            if request.method in ("GET", "POST"):
                return authorize.answer(self.ledger, request)
            return text_response(405, "", note="neither GET nor POST")
        if request.path.startswith(web_api.PREFIX):
            return web_api.answer(self.ledger, request)
        return text_response(404, "Not found; the page at / tells what there is.\n")

    def _asker(self, request: Request) -> tuple[str | None, str | None, str | None]:
        """Grant type, client id and user of a request, as far as it names them."""
        try:
            if request.path == TOKEN_PATH:
                return self._asker_for_token(request)
            if request.path == AUTHORIZE_PATH:
                return None, request.parameters().get("client_id"), None
        except Malformed:
            return None, None, None
        owner = self.ledger.owner(read_bearer(request) or "")
        return (None, *owner) if owner else (None, None, None)

    def _asker_for_token(self, request: Request) -> tuple[str | None, str | None, str | None]:
        form = request.form()
        grant_type = form.get("grant_type")
        if grant_type not in token_endpoint.GRANT_TYPES:
            grant_type = None
        credentials = read_credentials(request, form)
        owner = self.ledger.owner(form.get("refresh_token") or form.get("code") or "")
        return (
            grant_type,
            credentials.client_id if credentials else None,
            owner[1] if owner else None,
        )


def _endpoint(request: Request) -> str:
    path = request.path
    if path.startswith(web_api.TRACKS):
        path = f"{web_api.TRACKS}ID"
    known = (TOKEN_PATH, AUTHORIZE_PATH, f"{web_api.TRACKS}ID", *web_api.ROUTES)
    if path not in known or request.method not in ("GET", "POST", "PUT"):
        # Bounded on purpose: whoever asks for everything must not fill the memory with names.
        return "other"
    return f"{request.method} {path}"
