"""What the errors of a token endpoint mean, as data: a row each, with where it was seen or defined.

What class an error has is decided by its status and its ``error`` alone. The description picks
nothing but the words for people: servers change it without telling. Sections are those of RFC 6749
unless another is named; ``owner/repo#N`` is an issue on GitHub.

At the end stands what keeps us from asking at all: certificates that prove nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Kind(Enum):
    """What a refusal asks for."""

    GRANT = auto()
    """A login."""
    CONFIGURATION = auto()
    """An edit by the user."""
    DEFECT = auto()
    """A repair of this program."""
    PASSING = auto()
    """Patience."""


HINTS = {
    Kind.CONFIGURATION: (
        "compare client_id, client_secret, flow, scopes and token_url with the dashboard of the"
        " app, then run: spotokend reload"
    ),
    Kind.DEFECT: (
        "please report this defect of spotokend with its line of the log;"
        " after an update, or to try once more, run: spotokend reload"
    ),
}
"""The cures that no login is."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An ``error``, and what it means with a description that holds ``says``."""

    error: str
    says: str
    """In lower case; empty fits any description, and none."""
    kind: Kind
    words: str
    source: str


REFUSALS = (
    Refusal(
        "invalid_grant",
        "redirect",
        Kind.GRANT,
        "the redirect URI is not the one that the code was made for: register exactly the"
        " configured redirect_uri in the dashboard of the app, then log in again",
        'spotify/web-api#1106: "Invalid redirect URI"',
    ),
    Refusal(
        "invalid_grant",
        "verifier",
        Kind.GRANT,
        "the code belongs to another login attempt (its PKCE verifier is wrong): log in again,"
        " and paste the address on which that attempt ends",
        'spotify/web-api-examples#126: "code_verifier was incorrect"',
    ),
    Refusal(
        "invalid_grant",
        "code expired",
        Kind.GRANT,
        "the authorization code has expired: log in again, and finish without a pause",
        '"Authorization code expired"; 4.1.2: after ten minutes at most',
    ),
    Refusal(
        "invalid_grant",
        "authorization code",
        Kind.GRANT,
        "the authorization code is wrong or was used before: log in again, and paste the address"
        " on which that attempt ends only once",
        'spotify/web-api#267: "Invalid authorization code"',
    ),
    Refusal(
        "invalid_grant",
        "revoked",
        Kind.GRANT,
        "the refresh token was revoked, as a new password or the removal of the app does",
        'home-assistant/core#124333: "Refresh token revoked"',
    ),
    Refusal(
        "invalid_grant",
        "token expired",
        Kind.GRANT,
        "the refresh token has expired: Spotify's live for six months from the login",
        'Spotify\'s blog of 2026-06-18: "Refresh token expired"',
    ),
    Refusal(
        "invalid_grant",
        "refresh token",
        Kind.GRANT,
        "the server does not know the refresh token, or no longer",
        '"Invalid refresh token": replaced by a newer one, or of another app',
    ),
    Refusal(
        "invalid_grant",
        "",
        Kind.GRANT,
        "the server refused the login that is stored, or the code, and did not say why",
        "5.2: the description is optional",
    ),
    Refusal(
        "invalid_client",
        "secret",
        Kind.CONFIGURATION,
        "the server does not accept the client secret",
        'novatorem/novatorem#42: "Invalid client secret"',
    ),
    Refusal(
        "invalid_client",
        "failed to get client",
        Kind.CONFIGURATION,
        "the server does not know the client id",
        '"Failed to get client"',
    ),
    Refusal(
        "invalid_client",
        "",
        Kind.CONFIGURATION,
        "the server does not accept the client id, or how it authenticates",
        'spotify/web-api#289: "Invalid client", or no description',
    ),
    Refusal(
        "unauthorized_client",
        "",
        Kind.CONFIGURATION,
        "the server does not let this client use this flow",
        "5.2",
    ),
    Refusal(
        "unsupported_grant_type",
        "",
        Kind.CONFIGURATION,
        "the server does not offer this flow, or not at this token_url",
        "5.2",
    ),
    Refusal(
        "invalid_scope",
        "",
        Kind.CONFIGURATION,
        "the server does not accept one of the scopes",
        "5.2",
    ),
    Refusal(
        "invalid_request",
        "",
        Kind.DEFECT,
        "the server finds the request malformed",
        '"refresh_token must be supplied", "code_verifier required": requests are made from'
        " checked values, so nothing that the user wrote can be missing",
    ),
    Refusal(
        "server_error",
        "",
        Kind.PASSING,
        "the server ran into an error of its own",
        "4.1.2.1: defined for redirects, which have no status; a 400 with it means the same",
    ),
    Refusal(
        "temporarily_unavailable",
        "",
        Kind.PASSING,
        "the server is overloaded or under repair",
        "4.1.2.1",
    ),
)
"""The first row that fits counts; the last one of an error fits all descriptions."""


def refusal(error: str, description: str | None) -> Refusal | None:
    """The row that fits; None for an error that isn't known."""
    said = (description or "").lower()
    return next((row for row in REFUSALS if row.error == error and row.says in said), None)


@dataclass(frozen=True, slots=True)
class Status:
    """What a status says that comes without an ``error``, or says enough by itself."""

    statuses: range
    in_doubt: bool
    """The refresh token may have been used up all the same."""
    words: str
    source: str


STATUSES = (
    Status(
        range(200, 300),
        True,
        "something else than the token endpoint answered, or its answer was cut",
        "a captive portal or a proxy; as likely an answer that was damaged on its way",
    ),
    Status(
        range(300, 400),
        False,
        "the answer leads elsewhere, as that of a network that wants a sign-in does",
        "RFC 9110, 15.4: not fulfilled, only told where to ask. Not followed: that would carry the"
        " refresh token to wherever the answer says",
    ),
    Status(
        range(403, 404),
        False,
        "this network is kept out of the server, as happens with a VPN or in some regions",
        '"Your client does not have permission to get URL /api/token from this server", in HTML',
    ),
    Status(
        range(404, 406),
        False,
        "there is no token endpoint at that address: compare token_url with the server's own word",
        "RFC 9110, 15.5.5 and 15.5.6",
    ),
    Status(
        range(407, 408),
        False,
        "the proxy wants a user name and a password: they belong into the proxy variable",
        "RFC 9110, 15.5.8: said by a proxy, which did not pass the request on",
    ),
    Status(
        range(429, 430),
        False,
        "the server wants fewer requests",
        "RFC 6585, 4: counted, not served",
    ),
    Status(
        range(400, 500),
        False,
        "the server refused the request without a reason that can be read",
        "RFC 9110, 15.5: it can't or won't process the request",
    ),
    Status(
        range(511, 512),
        False,
        "the network wants a sign-in first: open any page in a browser",
        "RFC 6585, 6: said by the network in between, never by the server itself",
    ),
    Status(
        range(1000),
        True,
        "the server has broken down, or something before it",
        "it may have done so after the rotation as well as before",
    ),
)
"""The first row that holds the status counts; the last one holds every status there is."""


def by_status(status: int) -> Status:
    """The row that holds the status."""
    return next((row for row in STATUSES if status in row.statuses), STATUSES[-1])


_ANOTHER_NAME = (
    "the certificate that is shown for {peer} is another's: sign in to this network, if it wants"
    " that, or correct the URLs of the client"
)
_UNKNOWN_AUTHORITY = (
    "the certificate of {peer} is not trusted ({said}): sign in to this network, if it wants that;"
    " if that authority is yours, name it in SSL_CERT_FILE and start the daemon anew"
)
CERTIFICATES = {
    9: "the certificate of {peer} is not valid yet: is this host's clock right? It says {today}",
    10: "the certificate of {peer} has expired, if this host's clock is right, which says {today}",
    62: _ANOTHER_NAME,
    64: _ANOTHER_NAME,
}
"""By OpenSSL's number of what is wrong (x509_vfy.h); 62 is of names, 64 of addresses.

All other numbers are about who has signed it.
"""


def certificate(number: int, *, peer: str, said: str, today: str) -> str:
    """Why the certificate of ``peer`` is not believed, and the cure; ``said`` by OpenSSL."""
    words = CERTIFICATES.get(number, _UNKNOWN_AUTHORITY)
    return words.format(peer=peer, said=said, today=today)
