"""What an answer of an API means that is no success: the error that says it, with the cure.

Pure, and for whatever the world may send: nothing here raises; what the API says is cleaned and cut
before it is shown; and no command that is proposed holds a word of the API's that a shell would run.

The knowledge is the table :data:`MEANINGS`. The API's words decide, not the status alone: Spotify's
403 alone means eight different things, and for each another person can do something about it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from spotokend.errors import (
    BadRequest,
    Busy,
    Forbidden,
    InsufficientScope,
    LoginRequired,
    SpotokendError,
    Unavailable,
)
from spotokend.rules.oauth import json_object, outside_text
from spotokend.rules.schedule import DAY

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110, 9.2.1): nobody minds whether they were carried out."""

IN_DOUBT = "it may have been carried out all the same"
LOOK_FIRST = "look whether it was, before you repeat it"
"""What is said of a call that may have changed something although nothing shows it."""

LONGEST_PAUSE = 366 * DAY
"""A ``Retry-After`` beyond this is no promise of anything."""
MOST_SCOPES = 20
MOST_METHODS = 9
_SOME_SCOPE = "--scope SCOPE (the API's reference names it, on the page of this call)"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, as far as it is needed to explain it."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    """Its beginning."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """Statuses, what the API says with them, and what that means."""

    statuses: Collection[int]
    says: str
    """A pattern for the API's words in lower case; empty fits any, and none."""
    kind: type[SpotokendError]
    words: str
    hint: str
    source: str
    in_doubt: bool = False
    """The call may have been carried out all the same."""


_PAGE = "<page>"
"""What an answer says that is a page for a browser: nothing of the API's own."""

MEANINGS = (
    Meaning(
        (401, 403),
        r"insufficient_scope|insufficient client scope|permissions missing|not satisfy scope",
        InsufficientScope,
        "the login of {account} lacks a scope that this call needs",
        "spotokend login {account} {scopes}",
        'RFC 6750, 3.1; Spotify: 403 "Insufficient client scope", and for the player 401'
        ' "Permissions missing" (spotipy-dev/spotipy#684)',
    ),
    Meaning(
        (401,),
        r"user authentication required",
        BadRequest,
        "this call is about a user, and {account} has none: it stands for the app itself",
        "name an account that a user has logged in to, with --account",
        'Spotify\'s "Valid user authentication required" to tokens of client credentials',
    ),
    Meaning(
        (401,),
        "",
        LoginRequired,
        "the API refuses even the newest token of {account}",
        "spotokend login {account}\n"
        "if that changes nothing, these tokens are not for this API: compare api_url",
        "RFC 6750, 3.1: expired, revoked, or invalid for other reasons",
    ),
    Meaning(
        (403,),
        _PAGE,
        Unavailable,
        "this network is kept out of the API, as happens with a VPN or in some regions",
        "try it without the VPN, or from another network",
        '"Your client does not have permission to get URL ...", in HTML',
    ),
    Meaning(
        (403,),
        r"not (be )?registered|not approved for app",
        Forbidden,
        "the user of {account} is not on the app's list of users",
        "the app's owner adds the user at https://developer.spotify.com/dashboard, User Management:"
        " at most 5; no new login is needed",
        "zmb3/spotify#232, spotipy-dev/spotipy#688; Spotify has worded it in at least four ways",
    ),
    Meaning(
        (403,),
        r"premium subscription required for the owner",
        Forbidden,
        "the owner of the app has no Spotify Premium, and so Spotify has stopped the app",
        "the owner subscribes; it can then take some hours until calls are let through",
        "zmb3/spotify#301; blog 2026-02-06",
    ),
    Meaning(
        (403,),
        r"premium",
        Forbidden,
        "only users with Spotify Premium can do that, and the one of {account} is none",
        "subscribe; neither the token nor a scope is the matter",
        'spotify/web-api#1238: "reason": "PREMIUM_REQUIRED"',
    ),
    Meaning(
        (403,),
        r"restriction violated",
        Forbidden,
        "the player can't do that just now",
        "it plays or pauses already, there is nothing before or after, or the track can't be played",
        "spotify/web-api#1433",
    ),
    Meaning(
        (403,),
        "",
        Forbidden,
        "the API does not let {account} do that",
        "Spotify has closed some calls to apps in development mode: see the call's own page in the"
        " API's reference",
        "15.5.4; spotipy-dev/spotipy#1173",
    ),
    Meaning(
        (404,),
        r"no.active.device",
        BadRequest,
        "nothing is playing anywhere, so there is nothing to control",
        "open Spotify on a device and let it play, or name one as ?device_id=ID:"
        " spotokend api /v1/me/player/devices",
        'ShyykoSerhiy/vscode-spotify#160: "reason": "NO_ACTIVE_DEVICE"',
    ),
    Meaning(
        (404, 410),
        "",
        BadRequest,
        "the API has nothing there",
        "compare the path with the API's reference; Spotify's begin with /v1/",
        "15.5.5 and 15.5.11",
    ),
    Meaning(
        (405,),
        "",
        BadRequest,
        "the API does not take this method there",
        "it takes {methods}; -X chooses",
        "15.5.6",
    ),
    Meaning(
        (407,),
        "",
        Unavailable,
        "the proxy wants a user name and a password",
        "they belong into the proxy variable: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT",
        "15.5.8",
    ),
    Meaning(
        (408,),
        "",
        Unavailable,
        "the API did not get the whole request in time",
        "try it again",
        "15.5.9",
    ),
    Meaning(
        (429,),
        r"quota_exceeded",
        Busy,
        "the quota of the Web API is used up, which all apps of one developer account share",
        "wait, and let all of these apps call less often",
        "Spotify's blog of 2026-07-23",
    ),
    Meaning(
        (429,),
        "",
        Busy,
        "the API wants fewer calls",
        "wait a minute, and call less often",
        "RFC 6585, 4; spotify/web-api#1402",
    ),
    Meaning(
        range(400, 500),
        "",
        BadRequest,
        "the API does not accept the call",
        "compare path and data with the API's reference",
        "15.5: the client seems to have erred",
    ),
    Meaning(
        (304,),
        "",
        BadRequest,
        "nothing has changed since what the call names, so nothing is sent",
        "leave the If-… header out to have it all the same",
        "15.4.5",
    ),
    Meaning(
        range(300, 400),
        "",
        BadRequest,
        "the API sends this call elsewhere{elsewhere}, and the token does not go there",
        "compare the path, and the client's api_url, with the API's reference",
        "15.4: not followed, the token would reach whoever the answer names",
    ),
    Meaning(
        (511,),
        "",
        Unavailable,
        "the network wants a sign-in first",
        "open any page in a browser",
        "RFC 6585, 6: said by the network in between, never by the API",
    ),
    Meaning(
        range(1000),
        "",
        Unavailable,
        "the API has broken down, or something before it",
        "try again in a minute",
        "15.6: before it acted or after",
        in_doubt=True,
    ),
)
"""The first row that fits counts. Sections are those of RFC 9110 unless another is named;
``owner/repo#N`` is an issue on GitHub."""


def token_refused(answer: Answer) -> bool:
    """True if the API objects to the token itself, so that another one may do.

    A 401 that is about scopes, or about the kind of account, would only use up a token.
    """
    return _meaning(answer).kind is LoginRequired


def explain(answer: Answer, *, method: str, account: str, now: float) -> SpotokendError:
    """The error for an answer; ``now`` is Unix time. Raises nothing, whatever came."""
    meaning = _meaning(answer)
    reason, message = _said(answer)
    said = outside_text(message or reason)
    missing = _named_scopes(answer) if meaning.kind is InsufficientScope else []
    values = {
        "account": account,
        "scopes": " ".join(f"--scope {scope}" for scope in missing) or _SOME_SCOPE,
        "methods": _allowed_methods(answer),
        "elsewhere": _elsewhere(answer),
    }
    what = f"{answer.status}: {said}" if said else str(answer.status)
    words = f"{meaning.words.format_map(values)} ({what})"
    hint = meaning.hint.format_map(values)
    pause = _pause(answer, now) if issubclass(meaning.kind, Unavailable) else None
    if pause is not None:
        hint = f"again in {_span(pause)}"
    if meaning.in_doubt and method not in SAFE:
        words += f"; {IN_DOUBT}"
        hint = f"{LOOK_FIRST}\n{hint}"
    return meaning.kind(
        words,
        hint=hint,
        account=account,
        status=answer.status,
        retry_after=pause,
        missing=missing or None,
    )


def _meaning(answer: Answer) -> Meaning:
    says = _PAGE if _is_page(answer) else " ".join((_challenge(answer, "error"), *_said(answer)))
    fitting = (
        row
        for row in MEANINGS
        if answer.status in row.statuses and re.search(row.says, says.lower())
    )
    return next(fitting, MEANINGS[-1])


def _is_page(answer: Answer) -> bool:
    kind = answer.headers.get("content-type", "").lower()
    return "html" in kind or answer.body.lstrip().startswith(b"<")


def _said(answer: Answer) -> tuple[str, str]:
    """The API's word for the cause, and what it says to people; either may be empty."""
    fields = json_object(answer.body)
    if not fields:
        return "", "" if _is_page(answer) else answer.body.decode(errors="replace")
    error = fields.get("error")
    inner = error if isinstance(error, dict) else {}
    reason = _first_text(inner.get("reason"), fields.get("reason"))
    message = _first_text(
        inner.get("message"),
        # RFC 6750, 3.1 in the body; RFC 9457; and what other APIs write.
        fields.get("error_description"),
        fields.get("message"),
        fields.get("detail"),
        fields.get("title"),
        error,
    )
    return reason, message


def _first_text(*values: object) -> str:
    return next((value for value in values if isinstance(value, str) and value), "")


def _challenge(answer: Answer, name: str) -> str:
    """A parameter of ``WWW-Authenticate`` (RFC 6750, 3), or nothing."""
    header = answer.headers.get("www-authenticate", "")
    found = re.search(rf'\b{name}\s*=\s*(?:"([^"]*)"|([\w.-]+))', header, re.IGNORECASE)
    return (found[1] or found[2] or "") if found else ""


def _named_scopes(answer: Answer) -> list[str]:
    """The scopes that the API says are needed; without those that have a meaning to a shell."""
    names = _challenge(answer, "scope").split()
    return [name for name in names if re.fullmatch(r"[A-Za-z0-9][\w:/.-]{0,99}", name, re.ASCII)][
        :MOST_SCOPES
    ]


def _allowed_methods(answer: Answer) -> str:
    names = re.findall(r"\b[A-Z]{3,10}\b", answer.headers.get("allow", ""))[:MOST_METHODS]
    return ", ".join(names) or "another one"


def _elsewhere(answer: Answer) -> str:
    """The host to which a redirect leads: the rest may hold a code or a token."""
    try:
        host = urlsplit(answer.headers.get("location", "")).hostname or ""
    except ValueError:  # no address at all
        return ""
    plain = re.fullmatch(r"[\w.:-]+", host, re.ASCII) and outside_text(host) == host
    return f", to {host}" if plain else ""


def _pause(answer: Answer, now: float) -> float | None:
    """Seconds of a ``Retry-After``: a number, or a date (10.2.3); None where it makes no sense."""
    value = answer.headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value, re.ASCII):
        seconds = float(value)
    else:
        try:
            date = parsedate_to_datetime(value)
            # 5.6.7: one form of a date names no zone; all are UTC.
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return None
    # Not 0: whoever takes that at its word asks in a loop.
    return max(1.0, math.ceil(seconds)) if seconds <= LONGEST_PAUSE else None


def _span(seconds: float) -> str:
    """``3 h 49 min``: of hours, the minutes count for whoever waits for them."""
    from spotokend.rules.notice import in_words  # a sixth of this command's start, for this error

    hours, minutes = divmod(round(seconds / 60), 60)
    exactly = minutes and 100 * 60 <= seconds < 48 * 3600
    return f"{hours} h {minutes} min" if exactly else in_words(seconds)
