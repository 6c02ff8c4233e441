"""OAuth 2 as data: the requests to an authorization server, and what its answers mean.

Nothing here sends anything. :func:`read_answer` and :func:`read_redirect` take whatever the world
may send, raise nothing, and put no secret into the words that they make. What errors mean is the
table of :mod:`.refusals`.

Sections are those of RFC 6749 unless another is named.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum
from urllib.parse import parse_qsl, quote, quote_plus, urlencode, urlsplit

from .refusals import HINTS, Kind, by_status, refusal
from .schedule import Timing, Wall, clamp_life, clamp_retry_after
from .secret import Secret


class Flow(StrEnum):
    """How a client gets its tokens; the values are those of the configuration."""

    PKCE = "pkce"
    """For a user, with proof of possession (RFC 7636), usually without a client secret."""
    AUTHORIZATION_CODE = "authorization_code"
    """For a user, with a client secret, and PKCE all the same (RFC 9700, 2.1.1)."""
    CLIENT_CREDENTIALS = "client_credentials"
    """The client for itself: no user, no refresh token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """One client at one server, as its requests need it."""

    client_id: str
    client_secret: Secret | None
    flow: Flow
    redirect_uri: str
    authorize_url: str
    token_url: str


# --- requests -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """A POST to the token endpoint: a form, and HTTP Basic credentials of a confidential client."""

    url: str
    form: tuple[tuple[str, str | Secret], ...]
    basic: tuple[str, Secret] | None
    """Client id and secret."""
    grant_type: str


def code_challenge(verifier: Secret) -> str:
    """The S256 challenge of a verifier (RFC 7636, 4.2)."""
    digest = hashlib.sha256(verifier.reveal().encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def authorization_url(
    reg: Registration,
    *,
    scopes: Iterable[str],
    state: Secret,
    verifier: Secret | None,
    redirect_uri: str,
) -> str:
    """The address that the user opens to agree (4.1.1).

    ``redirect_uri`` is the registered one with the port that is listened on.
    """
    ours = {
        "client_id": reg.client_id,
        "response_type": "code",
        "redirect_uri": redirect_uri,
        "scope": " ".join(scopes),
        "state": state.reveal(),
        # Without it Spotify sends back whoever is signed in to the browser, unasked: the wrong
        # user where accounts are shared.
        "show_dialog": "true",
    }
    if verifier is not None:
        ours |= {"code_challenge_method": "S256", "code_challenge": code_challenge(verifier)}
    address = urlsplit(reg.authorize_url)
    # 3.1: a query that the endpoint has is retained, and no parameter may occur twice.
    theirs = [
        pair for pair in parse_qsl(address.query, keep_blank_values=True) if pair[0] not in ours
    ]
    # An empty scope isn't one (3.3). %20 is read alike by all servers, "+" is not.
    query = urlencode([*theirs, *((k, v) for k, v in ours.items() if v)], quote_via=quote)
    return address._replace(query=query, fragment="").geturl()


def code_request(
    reg: Registration, *, code: Secret, verifier: Secret | None, redirect_uri: str
) -> TokenRequest:
    """The exchange of an authorization code (4.1.3); ``redirect_uri`` as in the authorization URL."""
    proof = () if verifier is None else (("code_verifier", verifier),)
    return _request(
        reg, "authorization_code", ("code", code), ("redirect_uri", redirect_uri), *proof
    )


def refresh_request(reg: Registration, refresh_token: Secret) -> TokenRequest:
    """The redemption of a refresh token (section 6); the scope is left out: all that was granted."""
    return _request(reg, "refresh_token", ("refresh_token", refresh_token))


def client_credentials_request(reg: Registration) -> TokenRequest:
    """A token for the client itself (4.4.2)."""
    return _request(reg, "client_credentials")


def _request(reg: Registration, grant_type: str, *fields: tuple[str, str | Secret]) -> TokenRequest:
    form = (("grant_type", grant_type), *fields)
    if reg.client_secret is None:
        # 3.2.1: a public client names itself in the form.
        form, basic = (*form, ("client_id", reg.client_id)), None
    else:
        # 2.3: never more than one way of authentication in a request.
        basic = (reg.client_id, reg.client_secret)
    return TokenRequest(url=reg.token_url, form=form, basic=basic, grant_type=grant_type)


def basic_credentials(client_id: str, client_secret: Secret) -> Secret:
    """What follows ``Basic`` in the Authorization header.

    2.3.1: both are form-encoded before they are joined; node-oidc-provider decodes them so and
    refuses what isn't. Spotify's are hexadecimal, which encodes to itself.
    """
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret.reveal())}"
    return Secret(base64.b64encode(pair.encode()).decode())


# --- the redirect ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Code:
    """The user agreed."""

    code: Secret


@dataclass(frozen=True, slots=True)
class Denied:
    """The server sent the user back with an error (4.1.2.1): the login is over."""

    error: str
    description: str | None


@dataclass(frozen=True, slots=True)
class NotThis:
    """Not the end of this login, which goes on waiting; ``words`` say why."""

    words: str


ADDRESS_LIMIT = 32 * 1024
"""Characters of a pasted address; a real one has some hundred."""
# Mail programs make the other quotes of straight ones.
_AROUND = "<>\"'`“”‘’«»"


def read_redirect(url: str, *, redirect_uri: str, state: Secret) -> Code | Denied | NotThis:
    """What the address says on which the browser ended; as pasted by hand, or asked for over HTTP.

    White space and line breaks inside, quotes and angle brackets around are forgiven, host and
    port aren't looked at (the state is the proof); the bare query is enough.
    """
    if len(url) > ADDRESS_LIMIT:
        return NotThis("that is too long to be the address that the browser ended on")
    text = "".join(c for c in url if c.isprintable() and not c.isspace()).strip(_AROUND)
    head, mark, query = text.partition("#")[0].partition("?")
    if not mark:
        query = head
    elif _path(head) != _path(redirect_uri.partition("?")[0]):
        return NotThis(
            f"that is not the address of this login: copy the one that begins with {redirect_uri}"
        )
    pairs = parse_qsl(query, keep_blank_values=True)
    values = dict(pairs)
    if len(values) != len(pairs):
        return NotThis("that address says something twice: copy it again, once")  # 3.1
    if "state" not in values:
        return NotThis("that address has no state: copy all of it, from http to the last character")
    if Secret(values["state"]) != state:
        return NotThis(
            "that address belongs to another login attempt:"
            " open the link that was shown last, and copy where it ends"
        )
    if values.get("error"):
        return Denied(outside_text(values["error"]) or "error", _description(values))
    if not values.get("code"):
        return NotThis("that address has no code: copy all of it, from http to the last character")
    return Code(Secret(values["code"]))


def _path(address: str) -> str:
    """By hand: ``urlsplit`` raises for some host names, and these needn't make sense here."""
    return "/" + address.rpartition("://")[2].partition("/")[2]


# --- the answer of the token endpoint -------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """Tokens (5.1)."""

    access_token: Secret | None
    """None: only a refresh token came; it is kept, and the next refresh brings the other."""
    token_type: str
    life: float
    """Seconds from the sending of the request."""
    scopes: tuple[str, ...] | None
    """None: as before, or as asked for."""
    refresh_token: Secret | None
    """None: the old one stays good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantRefused:
    """``invalid_grant``: the refresh token or the code is no good; the user has to log in."""

    error: str
    description: str | None
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRefused:
    """Neither time nor a login helps, only another configuration or, for a ``defect``, program."""

    error: str
    description: str | None
    words: str
    hint: str
    defect: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Transient:
    """No answer to the question; later perhaps."""

    words: str
    in_doubt: bool
    """The refresh token may have been used up all the same."""
    retry_after: float | None
    """Seconds, at least."""
    status: int | None


Answer = Issued | GrantRefused | ClientRefused | Transient


UNKNOWN_REFUSAL_PAUSE = 300.0
"""Seconds after an ``error`` that isn't known: it may pass, and mustn't be asked for every minute."""


def read_answer(
    status: int, headers: Mapping[str, str], body: bytes, *, timing: Timing, now: Wall
) -> Answer:
    """What the token endpoint said; never raises. Header names are in lower case."""
    fields = json_object(body)
    if 200 <= status < 300 and (issued := _issued(fields, timing)):
        return issued
    wait = _retry_after(headers, timing, now)
    error = fields.get("error")
    # Some servers send errors with 200; what 429 and 5xx say weighs more than their bodies: a
    # server that is down has called good grants invalid (metabrainz/listenbrainz-server#1921).
    if isinstance(error, str) and error and status // 100 in (2, 4) and status != 429:
        return _refused(status, error, _description(fields), wait)
    row = by_status(status)
    words = f"{row.words} (status {status})"
    return Transient(words=words, in_doubt=row.in_doubt, retry_after=wait, status=status)


def _issued(fields: Mapping[str, object], timing: Timing) -> Issued | None:
    access_token, refresh_token = _token(fields, "access_token"), _token(fields, "refresh_token")
    if access_token is not None and not re.fullmatch(r"[!-~]+", access_token.reveal()):
        # RFC 6750, 2.1: it has to fit into a header. A refresh token only has to fit into a form.
        access_token = None
    if access_token is None and refresh_token is None:
        return None
    kind = fields.get("token_type")
    # 5.1: REQUIRED, in any case of letters; what is no name (A.13) could break a header in two.
    if not isinstance(kind, str) or not re.fullmatch(r"[\w.-]{1,40}", kind, re.ASCII):
        kind = "bearer"
    scope = fields.get("scope")
    if isinstance(scope, list):  # against 3.3, but seen
        scope = " ".join(item for item in scope if isinstance(item, str))
    return Issued(
        access_token=access_token,
        token_type="Bearer" if kind.lower() == "bearer" else kind,
        life=clamp_life(fields.get("expires_in"), timing),
        scopes=_scopes(scope),
        refresh_token=refresh_token,
    )


def _scopes(scope: object) -> tuple[str, ...] | None:
    """The names in a ``scope`` (3.3), each once; None where there is none worth the name."""
    if not isinstance(scope, str):
        return None
    names = (name for name in scope.split() if re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+", name))
    return tuple(dict.fromkeys(names)) or None


def _token(fields: Mapping[str, object], name: str) -> Secret | None:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        return None
    # A lone surrogate stands for bytes that weren't UTF-8: no token, but a damaged one.
    return None if re.search(r"[\ud800-\udfff]", value) else Secret(value)


def _refused(status: int, error: str, description: str | None, wait: float | None) -> Answer:
    row = refusal(error, description)
    if row is None:
        # Letters only: the words must not carry a token that a server puts in the wrong place.
        name = error if re.fullmatch(r"[a-z_]{1,40}", error) else "one without a proper name"
        words = f"the server refused with an error that is not known here: {name}"
        wait = max(wait or 0.0, UNKNOWN_REFUSAL_PAUSE)
        return Transient(words=words, in_doubt=False, retry_after=wait, status=status)
    if row.kind is Kind.PASSING:
        return Transient(words=row.words, in_doubt=True, retry_after=wait, status=status)
    if row.kind is Kind.GRANT:
        return GrantRefused(error=error, description=description, words=row.words)
    return ClientRefused(
        error=error,
        description=description,
        words=row.words,
        hint=HINTS[row.kind],
        defect=row.kind is Kind.DEFECT,
    )


def json_object(body: bytes) -> dict[str, object]:
    """The members of the object in ``body``; empty where there is none. Never raises."""
    try:
        # Bytes that aren't UTF-8 may stand beside a good token.
        value = json.loads(body.decode("utf-8-sig", "surrogateescape"), parse_int=_whole_number)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _whole_number(digits: str) -> float:
    # The conversion of an integer of 5000 digits raises, and would take the tokens with it.
    return int(digits) if len(digits) < 20 else float(digits)


def _retry_after(headers: Mapping[str, str], timing: Timing, now: Wall) -> float | None:
    """Seconds, or a date (RFC 9110, 10.2.3); of several, as when a proxy adds its own, the longest."""
    waits = [wait.strip() for wait in headers.get("retry-after", "").split(",")]
    if all(re.fullmatch(r"\d+(\.\d+)?", wait, re.ASCII) for wait in waits):
        return clamp_retry_after(max(map(float, waits)), timing)
    until, sent = (_date(headers.get(name, "")) for name in ("retry-after", "date"))
    # The server's two dates, where it sends both: this host's clock may be years away.
    return None if until is None else clamp_retry_after(until - (sent or now), timing)


def _date(value: str) -> float | None:
    """Unix time of an HTTP date; one of its forms names no zone, all are UTC (RFC 9110, 5.6.7)."""
    try:
        date = parsedate_to_datetime(value)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _description(fields: Mapping[str, object]) -> str | None:
    value = fields.get("error_description")
    return outside_text(value) if isinstance(value, str) else None


def outside_text(text: str) -> str | None:
    """Text of a server made fit to be shown; None if nothing remains.

    One line of at most 200 characters, without control characters (a terminal would obey them),
    and without what is long and dense enough to be a token.
    """
    # Masked before anything is cut off: half a token wouldn't be long enough.
    text = re.sub(r"[\w.~+/=-]{24,}", "…", text)[:10_000]
    text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())[:200] or None
