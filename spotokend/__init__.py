"""spotokend: Spotify access tokens that are always fresh, for every program on the machine.

    import spotokend

    token = spotokend.Client().token()      # a spotokend.Token
    headers = {"Authorization": token.authorization}

Names are loaded when first used, so that ``import spotokend`` costs nothing.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself stays out of a client's import
    from .async_client import AsyncClient
    from .client import Client
    from .errors import (
        BadRequest,
        Busy,
        DaemonNotRunning,
        Forbidden,
        InsufficientScope,
        InternalError,
        Locked,
        LoginRequired,
        Misconfigured,
        SpotokendError,
        Unavailable,
        UnknownAccount,
        UnknownMethod,
    )
    from .token import Token

__all__ = [
    "AsyncClient",
    "BadRequest",
    "Busy",
    "Client",
    "DaemonNotRunning",
    "Forbidden",
    "InsufficientScope",
    "InternalError",
    "Locked",
    "LoginRequired",
    "Misconfigured",
    "SpotokendError",
    "Token",
    "Unavailable",
    "UnknownAccount",
    "UnknownMethod",
    "__version__",
]

_HOME = {"AsyncClient": "async_client", "Client": "client", "Token": "token"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_HOME.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
