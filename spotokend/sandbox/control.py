"""``/sandbox/…``: looking into a running sandbox, and changing how it behaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from . import pages
from .checks import seconds, text
from .faults import Fault
from .messages import Malformed, Request, Response, json_response
from .provider import Provider

PREFIX = "/sandbox/"


def mine(path: str) -> bool:
    """Whether a path belongs here, not to the pretended provider."""
    return path == "/" or path.startswith(PREFIX)


class Control:
    """The control endpoints of one provider; ``url`` is where it is reached."""

    def __init__(self, provider: Provider, url: Callable[[], str]) -> None:
        self._provider = provider
        self._routes: dict[tuple[str, str], Callable[[Request], Response]] = {
            ("GET", "/"): lambda _: pages.index(provider.options, url()),
            ("GET", "/sandbox/state"): lambda _: json_response(200, self.state()),
            ("GET", "/sandbox/faults"): lambda _: json_response(200, provider.faults.to_json()),
            ("POST", "/sandbox/faults"): self._add_fault,
            ("PUT", "/sandbox/faults"): self._put_faults,
            ("DELETE", "/sandbox/faults"): self._remove_faults,
            ("POST", "/sandbox/revoke"): self._revoke,
            ("POST", "/sandbox/advance"): self._advance,
            ("POST", "/sandbox/options"): self._change_options,
        }

    def handle(self, request: Request) -> Response:
        """The answer; a mistake of the caller's is 400 and says what is wrong."""
        act = self._routes.get((request.method, request.path))
        if act is None:
            known = ", ".join(f"{method} {path}" for method, path in self._routes)
            return json_response(404, {"error": f"there are {known}"})
        try:
            return act(request)
        except (ValueError, RecursionError) as error:
            return json_response(400, {"error": str(error)})

    def state(self) -> dict[str, object]:
        """All that is to be seen; no token, code or secret among it."""
        ledger = self._provider.ledger
        living = ledger.living_access_tokens()
        return {
            "now": ledger.now,
            "requests": self._provider.record.to_json(),
            "double_redemptions": ledger.double_redemptions,
            "saved_by_grace": ledger.saved_by_grace,
            "codes_reused": ledger.codes_reused,
            "grants": [
                {
                    "id": grant.id,
                    "client": grant.client_id,
                    "user": grant.user,
                    "scopes": grant.scopes,
                    "authorized_at": grant.authorized_at,
                    "expires_at": grant.authorized_at + ledger.options.grant_life,
                    "refreshes": grant.refreshes,
                    "access_tokens": living[grant.id],
                    "revoked": grant.revoked,
                }
                for grant in ledger.grants.values()
            ],
            "faults": self._provider.faults.to_json(),
            "options": self._provider.options.to_json(),
            "log": self._provider.record.log(),
        }

    def _add_fault(self, request: Request) -> Response:
        return json_response(
            201, {"id": self._provider.faults.add(Fault.from_json(_json(request)))}
        )

    def _put_faults(self, request: Request) -> Response:
        wanted = _json(request)
        if not isinstance(wanted, list):
            raise ValueError("PUT takes a list of faults; POST takes one")
        faults = [Fault.from_json(value) for value in wanted]
        return json_response(200, {"ids": self._provider.faults.put(faults)})

    def _remove_faults(self, request: Request) -> Response:
        given = request.parameters()
        if not given:
            self._provider.faults.clear()
        elif set(given) != {"id"} or not given["id"].isdecimal():
            raise ValueError("DELETE takes ?id=N, or nothing to remove all")
        elif not self._provider.faults.remove(int(given["id"])):
            return json_response(404, {"error": f"no fault {given['id']}"})
        return json_response(200, {})

    def _revoke(self, request: Request) -> Response:
        given = _texts(request, "grant", "client", "user", "what")
        what = given.pop("what", "all")
        if what not in ("all", "access") or not given:
            raise ValueError("needed: grant, client or user; what is all or access")
        ledger = self._provider.ledger
        grants = list(ledger.select(**given))
        for grant in grants:
            if what == "access":
                ledger.revoke_access_tokens(grant)
            else:
                ledger.revoke(grant, "revoked through the control endpoint")
        return json_response(200, {"grants": [grant.id for grant in grants]})

    def _advance(self, request: Request) -> Response:
        given = _object(request, "seconds")
        self._provider.ledger.advance(seconds("seconds", given.get("seconds")))
        return json_response(200, {"now": self._provider.ledger.now})

    def _change_options(self, request: Request) -> Response:
        self._provider.options = self._provider.options.changed(_object(request))
        return json_response(200, self._provider.options.to_json())


def _json(request: Request) -> object:
    try:
        return json.loads(request.body)
    except ValueError as error:
        raise Malformed(f"the body isn't JSON: {error}") from error


def _object(request: Request, *names: str) -> Mapping[str, object]:
    value = _json(request)
    if not isinstance(value, dict):
        raise ValueError("the body has to be a JSON object")
    for name in value:
        if names and name not in names:
            raise ValueError(f"no {name!r} here; there are {', '.join(names)}")
    return value


def _texts(request: Request, *names: str) -> dict[str, str]:
    return {name: text(name, value) for name, value in _object(request, *names).items()}
