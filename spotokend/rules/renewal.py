"""What an answer of the token endpoint makes of a grant and an access token.

Validated already (``oauth.read_answer``); this is only about what replaces what. An absent refresh
token or scope means the old one (RFC 6749, sections 5.1 and 6): clients that stored such an answer
as it came lost their only refresh token (aome510/spotify-player#1040).
"""

from __future__ import annotations

from dataclasses import replace

from . import schedule
from .account import Access, Grant
from .oauth import Issued
from .schedule import Boot, Wall


def renewed(grant: Grant, issued: Issued) -> Grant:
    """The grant after a refresh.

    After a rotation the refresh token that worked so far is kept as ``previous`` until its
    successor has worked.
    """
    scopes = grant.scopes if issued.scopes is None else issued.scopes
    token = issued.refresh_token
    if token is None or token == grant.refresh_token:
        return replace(grant, previous=None, scopes=scopes)
    return replace(
        grant,
        refresh_token=token,
        previous=grant.refresh_token,
        scopes=scopes,
        rotation_seen=True,
    )


def staged(grant: Grant, *, now: Wall, grant_life: float) -> Grant:
    """The grant with the stage of its end that is reached by now: it is stored, and so told once."""
    end = schedule.grant_end(grant.authorized_at, grant_life)
    return replace(grant, stage=None if end is None else schedule.grant_stage(end - now))


def first(issued: Issued, *, asked: tuple[str, ...], authorized_at: Wall) -> Grant | None:
    """The grant of a login; None where the server sent no refresh token.

    Without ``scope`` in the answer the scopes are those asked for (RFC 6749, section 5.1).
    """
    if issued.refresh_token is None:
        return None
    return Grant(
        refresh_token=issued.refresh_token,
        scopes=asked if issued.scopes is None else issued.scopes,
        authorized_at=authorized_at,
    )


def access(
    issued: Issued, *, scopes: tuple[str, ...], sent_at: Boot, generation: int
) -> Access | None:
    """The access token of an answer, its life counted from the sending of the request.

    ``scopes`` is what counts where the answer names none.
    """
    if issued.access_token is None:
        return None
    return Access(
        token=issued.access_token,
        token_type=issued.token_type,
        scopes=scopes if issued.scopes is None else issued.scopes,
        issued_at=sent_at,
        expires_at=Boot(sent_at + issued.life),
        generation=generation,
    )
