"""Where things are: socket, configuration and state, by the XDG Base Directory Specification.

Nothing is read at import, and nothing is created here.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself stays out of a client's import
    from collections.abc import Mapping

NAME = "spotokend"


def socket_path(environ: Mapping[str, str] | None = None) -> str:
    """``$SPOTOKEND_SOCK``, else ``spotokend/spotokend.sock`` in :func:`runtime_dir`."""
    environ = os.environ if environ is None else environ
    return environ.get("SPOTOKEND_SOCK") or os.path.join(runtime_dir(environ), f"{NAME}.sock")


def config_path(environ: Mapping[str, str] | None = None) -> str:
    """``$SPOTOKEND_CONFIG``, else ``$XDG_CONFIG_HOME/spotokend/config.toml``."""
    environ = os.environ if environ is None else environ
    return environ.get("SPOTOKEND_CONFIG") or os.path.join(
        _base(environ, "XDG_CONFIG_HOME", ".config"), NAME, "config.toml"
    )


def state_dir(environ: Mapping[str, str] | None = None) -> str:
    """``$XDG_STATE_HOME/spotokend``: the store, its lock and the key file."""
    environ = os.environ if environ is None else environ
    return os.path.join(_base(environ, "XDG_STATE_HOME", os.path.join(".local", "state")), NAME)


def runtime_dir(environ: Mapping[str, str] | None = None) -> str:
    """``$XDG_RUNTIME_DIR/spotokend``: a folder of the user's that ends with the session.

    Without the variable (cron, ``su``, many containers) the folder that a login manager would
    have made, if it exists, so that both sides still meet; else ``run`` in the state folder.
    """
    environ = os.environ if environ is None else environ
    base = environ.get("XDG_RUNTIME_DIR")
    if base and os.path.isabs(base):
        return os.path.join(base, NAME)
    usual = f"/run/user/{os.getuid()}"
    if os.path.isdir(usual) and os.access(usual, os.W_OK | os.X_OK):
        return os.path.join(usual, NAME)
    return os.path.join(state_dir(environ), "run")


def unsaved_dir(socket: str) -> str:
    """Where answers lie that the disk with the store does not take: beside the socket."""
    return f"{socket}.unsaved"


def _base(environ: Mapping[str, str], variable: str, default: str) -> str:
    value = environ.get(variable)
    # "All paths set in these environment variables must be absolute": a relative one is ignored.
    if value and os.path.isabs(value):
        return value
    home = environ.get("HOME") or os.path.expanduser("~")
    return os.path.join(home, default)
