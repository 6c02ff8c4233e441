"""Where a call of an API goes: below the client's ``api_url``, whatever the command line says.

Pure. The address is put together from the parts of ``api_url``; what is given adds to its path and
its query, and nothing else. What two programs could understand in two ways is refused, not guessed.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, quote, unquote, urlsplit

from spotokend.errors import BadRequest, Misconfigured

# RFC 3986, 2.2, and the percent sign: what is encoded already stays as it is.
_AS_IT_IS = ":/?#[]@!$&'()*+,;=%"

LONGEST_SHOWN = 200
"""Characters of what was given, in an error."""


def address(api_url: str, path: str) -> str:
    """The address of a call: ``path`` below ``api_url``, whose path isn't repeated if it is there.

    ``path`` may be a whole address, if it is one of this API; letters beyond ASCII are encoded.
    Scheme, host and port of the result are those of ``api_url``, whatever ``path`` is.

    Raises:
        BadRequest: ``path`` leads elsewhere, or somebody may understand it so.
        Misconfigured: ``api_url`` would send tokens unencrypted.
    """
    base = urlsplit(api_url)
    if base.scheme != "https" and not (base.scheme == "http" and is_loopback(base.hostname)):
        raise Misconfigured(
            f"{api_url} would get tokens unencrypted",
            hint="write https://… as the client's api_url, then run: spotokend reload",
        )
    # Characters that nobody sees, and a slash that only some programs take for one.
    if not path.isprintable() or set(path) & {"\\", "#"}:
        raise _misleading(path, "has a control character, a backslash or a # in it")
    whole = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) is not None
    given = quote(path, safe=_AS_IT_IS)
    if not whole and not given.startswith("/"):
        # api.example/v1, https:evil.example
        if not re.match(r"[\w-]+(?:[/?]|$)", given, re.ASCII):
            raise _misleading(path, "is neither a path nor a whole address")
        given = f"/{given}"
    there = _split(given if whole else f"{base.scheme}://{base.netloc}{given}")
    if there is None or _origin(there) != _origin(base):
        raise _foreign(path, api_url)
    prefix = base.path.rstrip("/")
    inside = f"{there.path}/".startswith(f"{prefix}/")
    if whole and not inside:
        raise _foreign(path, api_url)
    segments = unquote(there.path).replace("\\", "/").split("/")
    if there.path.startswith("//") or {".", ".."} & set(segments):
        raise _misleading(path, "has // in front or dots between slashes, and may lead elsewhere")
    full = there.path if inside else prefix + there.path
    query = f"?{there.query}" if there.query else ""
    return f"{base.scheme}://{base.netloc}{full or '/'}{query}"


def _foreign(path: str, api_url: str) -> BadRequest:
    return BadRequest(
        f'"{path[:LONGEST_SHOWN]}" is not at the API of this account, {api_url}, and its token goes'
        " nowhere else",
        hint="name the path alone: spotokend api /v1/me",
    )


def _misleading(path: str, why: str) -> BadRequest:
    return BadRequest(
        f'"{path[:LONGEST_SHOWN]}" {why}',
        hint="a path begins with one slash, such as /v1/me; what else is meant is percent-encoded",
    )


def _split(url: str) -> SplitResult | None:
    """The parts of an address; None if it is none, or names a user."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a bracket that doesn't close, a port that is none
        return None
    return None if "@" in parts.netloc or port == 0 else parts


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    # RFC 6454, 4: scheme, host and port; the usual port needn't be written.
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def is_loopback(host: str | None) -> bool:
    """True for an address of this machine itself; a name is whatever a resolver says it is."""
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
