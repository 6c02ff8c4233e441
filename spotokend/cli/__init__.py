"""The command line: words in, an exit status out; how every failure is told and counted.

==========  ====================================================================
exit        meaning
==========  ====================================================================
0           done
1           a defect, or the system refused something (a full disk, a permission)
2 to 7      as in :mod:`spotokend.errors`
130, 141    Ctrl-C; whoever read our output has gone
==========  ====================================================================
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module

from .. import __version__, paths
from ..errors import DaemonNotRunning, SpotokendError
from . import terminal

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself stays out of the start of ``spotokend token``
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; ``argv`` is without the program's name.

    Without it this is the process's own beginning, and settings of the process are made, too.
    """
    if argv is None:
        _keep_to_itself()
    terminal.prepare()
    try:
        status = _run(list(sys.argv[1:] if argv is None else argv))
        # Now, while it can still be told: a full disk or a closed pipe shows only here.
        terminal.flush()
    except SpotokendError as error:
        terminal.complain(error.message, _hint(error))
        return error.exit_status
    except KeyboardInterrupt:
        terminal.end_line()
        return 130
    except BrokenPipeError:
        terminal.settle()
        return 141
    except OSError as error:
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        terminal.complain(f"{where}{error.strerror or type(error).__name__}")
        terminal.settle()
        return 1
    except Exception as error:  # noqa: BLE001 - the last place that can tell it
        _tell_defect(error)
        return 1
    return status


def _keep_to_itself() -> None:
    """No core dump of a command, which may hold a token or a code; and no traceback with values."""
    import resource

    with suppress(OSError, ValueError):
        # The upper limit stays: a program that is started by a command may have dumps again.
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    sys.excepthook = lambda _kind, error, _trace: _tell_defect(error)
    sys.unraisablehook = lambda ignored: _tell_defect(ignored.exc_value or RuntimeError())


def _tell_defect(error: BaseException) -> None:
    terminal.complain(
        f"this is a defect of spotokend {__version__}: {_place(error)}",
        "please report it with this line and the command, without its tokens",
    )


def _run(words: list[str]) -> int:
    if words == ["--version"]:
        terminal.show(f"spotokend {__version__}")
        return 0
    from .parser import parse

    try:
        arguments = parse(words)
    except SystemExit:  # help was printed
        return 0
    command = import_module(f"{__name__}.{arguments.command[0]}")
    status: int = command.run(arguments)
    return status


def _hint(error: SpotokendError) -> str | None:
    nobody_listens = isinstance(error, DaemonNotRunning) and "socket" in error.details
    if nobody_listens and not os.path.exists(paths.config_path()):
        # Told to start a daemon, the user would only learn there that it has nothing to work with.
        return "spotokend login asks for all it takes, and starts the daemon"
    if error.hint is None and error.retry_after is not None:
        from ..rules.notice import in_words  # only for this error

        return f"try again in {in_words(error.retry_after)}"
    return error.hint


def _place(error: BaseException) -> str:
    # The kind and the line, and neither the text nor the values: those may hold a token.
    while isinstance(error, BaseExceptionGroup):  # of a task group: the defect lies inside
        error = error.exceptions[0]
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(error).__name__
    file = os.path.basename(trace.tb_frame.f_code.co_filename)
    return f"{type(error).__name__} at {file}:{trace.tb_lineno}"
