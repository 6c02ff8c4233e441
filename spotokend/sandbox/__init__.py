"""An offline Spotify on loopback: accounts service, the edge of the Web API, and faults on demand.

    from spotokend.sandbox import Fault, Kind, Options, running

    with running(Options(auto_approve=True)) as sandbox:
        ...                                   # everything of Spotify's is below sandbox.url

Asynchronous programs run :meth:`Sandbox.serve`; tests in virtual time put :meth:`Provider.handle`
behind a transport of their own, without a socket. The page at ``/`` describes every endpoint.

The sandbox shares no code with the daemon: whoever is tested against it is tested against somebody
else's reading of the documents.
"""

from __future__ import annotations

from .configuration import ready_configuration
from .conversation import Limits
from .faults import Body, Fault, Kind
from .messages import Cut, Request, Response
from .options import App, Kept, Options, RefreshScope, Rotation, User
from .provider import Provider
from .server import Sandbox, run, running

__all__ = [
    "App",
    "Body",
    "Cut",
    "Fault",
    "Kept",
    "Kind",
    "Limits",
    "Options",
    "Provider",
    "RefreshScope",
    "Request",
    "Response",
    "Rotation",
    "Sandbox",
    "User",
    "ready_configuration",
    "run",
    "running",
]
