"""What the loopback listener answers: a pure table of one login's addresses, and one HTTP exchange.

========================  =======================================================================
``GET REDIRECT/start``    303 to the provider: the browser is started with this address, so that the
                          ``state`` in the provider's never stands in a process's argv
``GET REDIRECT?…``        the answer to the login; 303 to a page without the code in its address
``GET REDIRECT/NAME``     such a page
anything else             404
========================  =======================================================================

REDIRECT is the path of the redirect URI (RFC 8252, section 7.3). The ``Host`` must be the redirect
URI's own: a page on the web that reaches this port under a name of its own (DNS rebinding) gets 404.
"""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import urlsplit

import h11

from .pages import POLICY, Page

HEADERS = (
    ("Cache-Control", "no-store"),
    ("Referrer-Policy", "no-referrer"),
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    # One exchange a connection: then a silent one can be dropped without losing anything.
    ("Connection", "close"),
)

HEAD_LIMIT = 32 * 1024
"""Bytes of a request's head. A code has some hundred; cookies of other loopback sites come along."""


class Redirect:
    """The redirect URI, taken apart: where to listen, and which requests are meant."""

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        self._uri = parts
        self.host = parts.hostname or ""
        self.port = parts.port
        """None: any free one, as the provider allows for a loopback literal without a port."""
        self.path = parts.path or "/"

    @property
    def loopback(self) -> bool:
        """True where a listener here can receive it. TLS on a loopback address isn't for us."""
        # RFC 8252, 7.3 has these two literals; a port of the user's choice goes with no other.
        return self._uri.scheme == "http" and self.host in {"127.0.0.1", "::1"}

    @property
    def authority(self) -> str:
        """What stands in the ``Host`` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        # RFC 9110, 7.2 and 4.2.3: a client leaves the scheme's own port out.
        return host if self.port in {None, 80} else f"{host}:{self.port}"

    @property
    def uri(self) -> str:
        """The URI itself."""
        return self._uri.geturl()

    def at(self, port: int) -> Redirect:
        """The same with a port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return Redirect(self._uri._replace(netloc=f"{host}:{port}").geturl())

    def address(self, name: str) -> str:
        """The absolute address of a page of ours."""
        return f"http://{self.authority}{self.beside(name)}"

    def beside(self, name: str) -> str:
        """The path of a page of ours: below the redirect's, so that the two can't be the same."""
        return f"{self.path.rstrip('/')}/{name}"

    def path_asked(self, request: h11.Request) -> str | None:
        """The path of a request that is for us, or None."""
        headers = dict(request.headers)  # h11 refuses a second Host
        host = headers.get(b"host", b"").decode("latin-1")
        accepted = {self.authority, f"{self.authority}:80"} if self.port == 80 else {self.authority}
        if request.method != b"GET" or host.lower() not in accepted:
            return None
        return request.target.decode("latin-1").partition("?")[0]


class Exchange:
    """One HTTP request and its response, as bytes (h11 has the grammar)."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)
        self._request: h11.Request | None = None

    def receive(self, data: bytes) -> h11.Request | None:
        """The request once it is complete; ``b""`` is the end of what the browser sends.

        Raises:
            h11.RemoteProtocolError: this isn't HTTP, or too long, or ended in the middle.
        """
        self._http.receive_data(data)
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                self._request = event
            elif isinstance(event, h11.EndOfMessage):
                return self._request
            elif not isinstance(event, h11.Data):  # NEED_DATA, PAUSED, ConnectionClosed
                return None

    def page(self, page: Page) -> bytes:
        """The response that shows a page."""
        return self._response(page.status, page.body, ("Content-Type", "text/html; charset=utf-8"))

    def see_other(self, address: str) -> bytes:
        """The response that leads elsewhere, with GET; the tab's history doesn't show this address."""
        return self._response(HTTPStatus.SEE_OTHER, b"", ("Location", address))

    def not_found(self) -> bytes:
        """The response to what isn't for us."""
        return self._response(
            HTTPStatus.NOT_FOUND, b"Not found.\n", ("Content-Type", "text/plain; charset=utf-8")
        )

    def _response(self, status: int, body: bytes, header: tuple[str, str]) -> bytes:
        headers = [*HEADERS, header, ("Content-Length", str(len(body)))]
        reason = HTTPStatus(status).phrase.encode()
        response = h11.Response(status_code=status, headers=headers, reason=reason)
        head = self._request is not None and self._request.method == b"HEAD"
        events = [response, h11.Data(data=b"" if head else body), h11.EndOfMessage()]
        return b"".join(self._http.send(event) or b"" for event in events)
