"""Who consented to what, and every code and token that came of it. The one place that judges them.

All tokens that stem from one consent are one *grant* (a family, RFC 9700, 4.14.2), with at most one
current refresh token. What was replaced is remembered, so that its second use is noticed.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from .options import Options, RefreshScope, Rotation

REPLACED_REMEMBERED = 100_000
"""Replaced refresh tokens that are still known as such; older ones are merely invalid."""
FORGET_EXPIRED = 3600.0
"""Seconds for which an expired access token or code is still told from an invalid one."""
REVOKED = "Refresh token revoked"


class Refused(Exception):
    """An error answer of the token endpoint (RFC 6749, 5.2), in Spotify's words."""

    def __init__(self, error: str, description: str | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.description = description


@dataclass(slots=True, kw_only=True)
class Grant:
    """One consent of one user to one app."""

    id: str
    client_id: str
    user: str
    scopes: tuple[str, ...]
    public: bool
    """Exchanged by PKCE alone, so that refreshing needs no secret either (RFC 6749, 6)."""
    authorized_at: float
    current: str = field(default="", repr=False)
    """The refresh token that is good now."""
    refreshes: int = 0
    revoked: str | None = None
    """Why this grant has ended, or None."""


@dataclass(slots=True, kw_only=True)
class Code:
    """An authorization code: what the user agreed to, waiting for its exchange."""

    client_id: str
    user: str
    scopes: tuple[str, ...]
    redirect_uri: str
    challenge: str | None
    issued_at: float
    used: bool = False


@dataclass(slots=True, kw_only=True)
class AccessToken:
    """One access token; without a grant it came of client credentials."""

    client_id: str
    grant: Grant | None
    scopes: tuple[str, ...]
    expires_at: float
    revoked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """What a successful token request hands out."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    """The one that is good now; None for client credentials."""
    replaced: bool = False
    """It differs from the one that was presented."""
    scopes: tuple[str, ...] = ()


@dataclass(slots=True)
class _RefreshToken:
    grant: Grant
    replaced_at: float | None = None


class Ledger:
    """Grants, codes and tokens, under :attr:`options`, which may be exchanged at any time."""

    def __init__(
        self, options: Options, *, now: Callable[[], float], random_text: Callable[[], str]
    ) -> None:
        self.options = options
        self.double_redemptions = 0
        """Replaced refresh tokens that were presented again,"""
        self.saved_by_grace = 0
        """and those among them that the grace let pass."""
        self.codes_reused = 0
        self.grants: dict[str, Grant] = {}
        self._now = now
        self._advanced = 0.0
        self._random_text = random_text
        self._numbers = 0
        self._codes: OrderedDict[str, Code] = OrderedDict()
        self._refresh_tokens: dict[str, _RefreshToken] = {}
        self._replaced: deque[str] = deque()
        self._access_tokens: OrderedDict[str, AccessToken] = OrderedDict()

    @property
    def now(self) -> float:
        """The sandbox's time: that of its host, and what it was advanced by."""
        return self._now() + self._advanced

    def advance(self, seconds: float) -> None:
        """Let time pass: codes, tokens and grants age by so much at once."""
        self._advanced += seconds

    # Consent and its exchange

    def consent(
        self,
        *,
        client_id: str,
        user: str,
        scopes: tuple[str, ...],
        redirect_uri: str,
        challenge: str | None,
    ) -> str:
        """The user agrees: an authorization code."""
        self._forget()
        text = self._text("code")
        self._codes[text] = Code(
            client_id=client_id,
            user=user,
            scopes=scopes,
            redirect_uri=redirect_uri,
            challenge=challenge,
            issued_at=self.now,
        )
        return text

    def exchange(
        self,
        text: str,
        *,
        client_id: str,
        redirect_uri: str,
        verifier: str | None,
        authenticated: bool,
    ) -> Issued:
        """A code for tokens; a new grant. Raises :class:`Refused`."""
        code = self._codes.get(text)
        if code is None or code.client_id != client_id:
            raise Refused("invalid_grant", "Invalid authorization code")
        if code.used:
            self.codes_reused += 1
            raise Refused("invalid_grant", "Invalid authorization code")
        if self.now >= code.issued_at + self.options.code_life:
            raise Refused("invalid_grant", "Authorization code expired")
        # RFC 6749, 4.1.3: identical to what the authorization request had, port included.
        if redirect_uri != code.redirect_uri:
            raise Refused("invalid_grant", "Invalid redirect URI")
        if verifier is None and (code.challenge is not None or not authenticated):
            raise Refused("invalid_request", "code_verifier required")
        # RFC 9700, 2.1.1: a verifier without a challenge is a sign of a downgrade, and refused.
        if verifier is not None and not (code.challenge and _matches(verifier, code.challenge)):
            raise Refused("invalid_grant", "code_verifier was incorrect")
        code.used = True
        self._numbers += 1
        grant = Grant(
            id=f"grant-{self._numbers}",
            client_id=client_id,
            user=code.user,
            scopes=code.scopes,
            public=not authenticated,
            # The consent counts, not the exchange.
            authorized_at=code.issued_at,
        )
        self.grants[grant.id] = grant
        self._new_refresh_token(grant)
        return Issued(
            access_token=self._new_access_token(client_id, grant, grant.scopes),
            refresh_token=grant.current,
            replaced=True,
            scopes=grant.scopes,
        )

    # Refreshing

    def refresh(self, text: str, *, client_id: str, authenticated: bool) -> Issued:
        """A refresh token for an access token, and perhaps a new refresh token.

        Raises :class:`Refused`; a replaced token that comes back ends the grant where the options
        say so.
        """
        token = self._refresh_tokens.get(text)
        if token is None or token.grant.client_id != client_id:
            raise Refused("invalid_grant", "Invalid refresh token")
        grant = token.grant
        if not authenticated and not grant.public:
            raise Refused("invalid_client", "Invalid client secret")
        self._judge_second_use(token)
        if grant.revoked is not None:
            raise Refused("invalid_grant", REVOKED)
        if self.now >= grant.authorized_at + self.options.grant_life:
            raise Refused("invalid_grant", "Refresh token expired")
        replaced = token.replaced_at is not None
        if not replaced and self._rotates(grant):
            token.replaced_at = self.now
            self._replaced.append(text)
            self._new_refresh_token(grant)
            replaced = True
        grant.refreshes += 1
        scopes = self._scopes_of_refresh(grant)
        return Issued(
            access_token=self._new_access_token(client_id, grant, scopes),
            refresh_token=grant.current,
            replaced=replaced,
            scopes=scopes,
        )

    def client_credentials(self, client_id: str) -> Issued:
        """An access token for the app itself."""
        return Issued(access_token=self._new_access_token(client_id, None, ()))

    def _judge_second_use(self, token: _RefreshToken) -> None:
        if token.replaced_at is None:
            return
        self.double_redemptions += 1
        grant = token.grant
        if grant.revoked is None and self.now < token.replaced_at + self.options.grace:
            self.saved_by_grace += 1
            return
        # RFC 9700, 4.14.2: one of the two who hold it is a thief, and nobody knows which.
        if self.options.revoke_family and grant.revoked is None:
            grant.revoked = "a replaced refresh token was presented again"
        raise Refused("invalid_grant", REVOKED)

    def _rotates(self, grant: Grant) -> bool:
        rotation = self.options.rotation
        return rotation is Rotation.ALWAYS or (
            rotation is Rotation.OPTIONAL and grant.refreshes % 2 == 1
        )

    def _scopes_of_refresh(self, grant: Grant) -> tuple[str, ...]:
        if self.options.refresh_scope is RefreshScope.ALL:
            return tuple(sorted(self.granted(grant.client_id, grant.user)))
        return grant.scopes

    # Looking things up

    def access(self, text: str) -> AccessToken | None:
        """A token that was issued and not revoked; it may have expired."""
        token = self._access_tokens.get(text)
        if token is None or token.revoked or (token.grant and token.grant.revoked):
            return None
        return token

    def granted(self, client_id: str, user: str) -> set[str]:
        """All scopes that the user granted the app and did not take back."""
        return {
            scope
            for grant in self.grants.values()
            if (grant.client_id, grant.user) == (client_id, user) and grant.revoked is None
            for scope in grant.scopes
        }

    def owner(self, text: str) -> tuple[str, str | None] | None:
        """Client id and user behind a code or token, good or not; None for an unknown one."""
        if (code := self._codes.get(text)) is not None:
            return code.client_id, code.user
        if (refresh := self._refresh_tokens.get(text)) is not None:
            return refresh.grant.client_id, refresh.grant.user
        if (access := self._access_tokens.get(text)) is not None:
            return access.client_id, access.grant.user if access.grant else None
        return None

    def living_access_tokens(self) -> Counter[str]:
        """How many access tokens work now, by the id of their grant."""
        return Counter(
            token.grant.id
            for token in self._access_tokens.values()
            if token.grant
            and not token.grant.revoked
            and not token.revoked
            and self.now < token.expires_at
        )

    # The user's side

    def select(
        self, *, grant: str | None = None, client: str | None = None, user: str | None = None
    ) -> Iterator[Grant]:
        """The grants that meet every condition given."""
        for candidate in self.grants.values():
            if (
                grant in (None, candidate.id)
                and client in (None, candidate.client_id)
                and user in (None, candidate.user)
            ):
                yield candidate

    def revoke(self, grant: Grant, why: str) -> None:
        """End a grant with all its tokens, as its user's new password would."""
        grant.revoked = grant.revoked or why

    def revoke_access_tokens(self, grant: Grant) -> None:
        """End a grant's access tokens before their time; the grant lives on."""
        for token in self._access_tokens.values():
            if token.grant is grant:
                token.revoked = True

    # Making texts

    def _text(self, kind: str) -> str:
        # Numbered and named, so that nobody takes one for real, and a log of two can be compared.
        self._numbers += 1
        return f"sandbox-{kind}-{self._numbers:06d}-{self._random_text()}"

    def _new_refresh_token(self, grant: Grant) -> None:
        grant.current = self._text("refresh")
        self._refresh_tokens[grant.current] = _RefreshToken(grant)
        while len(self._replaced) > REPLACED_REMEMBERED:
            del self._refresh_tokens[self._replaced.popleft()]

    def _new_access_token(
        self, client_id: str, grant: Grant | None, scopes: tuple[str, ...]
    ) -> str:
        self._forget()
        text = self._text("access")
        self._access_tokens[text] = AccessToken(
            client_id=client_id,
            grant=grant,
            scopes=scopes,
            expires_at=self.now + self.options.access_life,
        )
        return text

    def _forget(self) -> None:
        # Both tables are in order of issue: what is long over stands in front. Two at a time, for
        # each one issued, keep them short without ever taking long.
        long_ago = self.now - FORGET_EXPIRED
        for text, token in list(islice(self._access_tokens.items(), 2)):
            if token.expires_at < long_ago:
                del self._access_tokens[text]
        for text, code in list(islice(self._codes.items(), 2)):
            if code.issued_at + self.options.code_life < long_ago:
                del self._codes[text]


def _matches(verifier: str, challenge: str) -> bool:
    # RFC 7636, 4.1 and 4.6: 43 to 128 unreserved characters; BASE64URL(SHA256(ASCII(verifier))).
    if not re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", verifier):
        return False
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == challenge
