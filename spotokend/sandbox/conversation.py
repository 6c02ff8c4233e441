"""One HTTP connection to the sandbox: h11 over a stream, bounded in size and time.

Reads requests, has them answered, and delivers the responses as they say: late, held back, cut.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from email.utils import formatdate

import anyio
import anyio.abc
import h11

from .messages import Cut, Request, Response, phrase_of, text_response


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What connections may cost; seconds and bytes."""

    connections: int = 1024
    header: int = 16 * 1024
    body: int = 1024 * 1024
    request_time: float = 10.0
    """From the first byte of a request to its last."""
    idle_time: float = 60.0
    """Until the first byte."""
    send_time: float = 30.0
    linger_time: float = 1.0
    """For a client to read why it is turned away, while it may still be sending."""


class _TooLarge(Exception):
    """The body is over the limit."""


class Conversation:
    """One connection. ``answer`` is the provider; ``released`` waits until a fault is removed."""

    def __init__(
        self,
        stream: anyio.abc.ByteStream,
        limits: Limits,
        *,
        answer: Callable[[Request], Response],
        released: Callable[[int], Awaitable[None]],
    ) -> None:
        self._stream = stream
        self._limits = limits
        self._answer = answer
        self._released = released
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.header)

    async def run(self) -> None:
        """Until either side ends it. Raises what the stream raises, and ``TimeoutError``."""
        try:
            while (request := await self._request()) is not None:
                # RFC 9110, 9.3.2: HEAD is GET without the body of the answer.
                head = request.method == "HEAD"
                response = self._answer(replace(request, method="GET") if head else request)
                if not await self._deliver(response, without_body=head):
                    return
                self._http.start_next_cycle()
        except h11.RemoteProtocolError as error:
            await self.turn_away(error.error_status_hint, "This is not a request.\n")
        except _TooLarge:
            await self.turn_away(413, f"At most {self._limits.body} bytes.\n")

    async def turn_away(self, status: int, words: str) -> None:
        """Answer without having read a request, and close."""
        await self._send(text_response(status, words), close=True)
        await self._stream.send_eof()
        # Closing with unread bytes in the buffer resets the connection, and the client would lose
        # the answer: so what it still sends is read, for a moment.
        with anyio.move_on_after(self._limits.linger_time):
            while await self._receive():
                pass

    async def _request(self) -> Request | None:
        """The next request; None where there is none, or none in time."""
        if not self._http.trailing_data[0]:
            with anyio.move_on_after(self._limits.idle_time) as idle:
                self._http.receive_data(await self._receive())
            if idle.cancelled_caught:
                return None
        with anyio.move_on_after(self._limits.request_time) as slow:
            return await self._whole_request()
        assert slow.cancelled_caught
        await self.turn_away(408, f"A request takes at most {self._limits.request_time:g} s.\n")
        return None

    async def _whole_request(self) -> Request | None:
        head = await self._event()
        if not isinstance(head, h11.Request):
            return None
        body = b""
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
            if len(body) > self._limits.body:
                raise _TooLarge
        return _request(head, body)

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                await self._stream.send(self._http.send(go_on) or b"")
            self._http.receive_data(await self._receive())
        return event

    async def _receive(self) -> bytes:
        try:
            return await self._stream.receive()
        except anyio.EndOfStream:
            return b""

    async def _deliver(self, response: Response, *, without_body: bool) -> bool:
        """Send it the way it asks for; whether the connection is good for another request."""
        if response.delay:
            await anyio.sleep(response.delay)
        if response.held_by is not None and not await self._wait(response.held_by):
            return False
        if response.cut is Cut.UNANSWERED:
            return False
        await self._send(response, without_body=without_body)
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _wait(self, fault_id: int) -> bool:
        """Until the fault is removed (True), or the client has gone (False)."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch, group.cancel_scope)
            await self._released(fault_id)
            group.cancel_scope.cancel()
            return True
        return False

    async def _watch(self, scope: anyio.CancelScope) -> None:
        try:
            # Somebody who sends the next request meanwhile isn't gone; that one request is kept.
            while data := await self._receive():
                self._http.receive_data(data)
                if len(self._http.trailing_data[0]) > self._limits.body:
                    break
        except anyio.BrokenResourceError:
            pass
        scope.cancel()

    async def _send(
        self, response: Response, *, without_body: bool = False, close: bool = False
    ) -> None:
        body = b"" if without_body or response.status in (204, 304) else response.body
        # Cut half-way, at least one byte of what is announced stays away.
        length = max(len(body), 1) if response.cut is Cut.HALFWAY else len(response.body)
        headers = [
            *response.headers,
            ("date", formatdate(usegmt=True)),
            ("server", "spotokend-sandbox"),
            *([] if response.status in (204, 304) else [("content-length", str(length))]),
            *([("connection", "close")] if close else []),
        ]
        head = h11.Response(
            status_code=response.status, headers=headers, reason=phrase_of(response.status)
        )
        data = self._http.send(head) or b""
        if response.cut is Cut.HALFWAY:
            data += self._http.send(h11.Data(data=body[: len(body) // 2])) or b""
        else:
            data += self._http.send(h11.Data(data=body)) or b""
            data += self._http.send(h11.EndOfMessage()) or b""
        with anyio.fail_after(self._limits.send_time):
            await self._stream.send(data)


def _request(head: h11.Request, body: bytes) -> Request:
    headers: dict[str, str] = {}
    for raw_name, raw_value in head.headers:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    # A client that takes the sandbox for a proxy sends the whole address (RFC 9112, 3.2.2).
    target = re.sub(r"^https?://[^/?]*", "", head.target.decode("latin-1"))
    path, _, query = target.partition("?")
    return Request(
        method=head.method.decode("ascii"),
        path=path or "/",
        query=query,
        headers=headers,
        body=body,
    )
