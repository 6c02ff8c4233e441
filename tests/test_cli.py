"""``main``: how each failure is told, what it counts as, and what a command's start costs."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest

from spotokend import __version__, cli, errors
from spotokend.cli import main


@pytest.fixture
def command(monkeypatch):
    """Puts a function in the place of ``spotokend stop``, which takes no arguments."""

    def replace(run):
        monkeypatch.setattr(cli, "import_module", lambda name: SimpleNamespace(run=run))

    return replace


def raising(error):
    def run(arguments):
        raise error

    return run


def spotokend(*words, environ=None, **options):
    return subprocess.run(
        [sys.executable, "-m", "spotokend", *words],
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        **options,
    )


def test_the_version_is_data(capsys):
    """``--version`` goes to stdout."""
    assert main(["--version"]) == 0
    assert capsys.readouterr() == (f"spotokend {__version__}\n", "")


def test_help_is_data(capsys):
    """Asked for, it goes to stdout, and nothing is wrong."""
    assert main(["--help"]) == 0
    assert "usage: spotokend COMMAND" in capsys.readouterr().out


def test_words_of_the_process_are_the_default(monkeypatch, capsys):
    """The script of the package calls ``main()`` without any."""
    monkeypatch.setattr(cli, "_keep_to_itself", lambda: None)  # this process is the tests'
    monkeypatch.setattr(sys, "argv", ["spotokend", "--version"])

    assert main() == 0
    assert capsys.readouterr().out == f"spotokend {__version__}\n"


def test_a_usage_error_has_a_message_and_a_cure(capsys):
    """An unknown command: status 2, and the nearest one that exists."""
    assert main(["tokne"]) == 2
    assert capsys.readouterr() == (
        "",
        "spotokend: there is no command tokne\n  → did you mean token?\n",
    )


def test_the_command_decides_the_status(command):
    """What ``run`` returns is what ``main`` returns."""
    command(lambda arguments: 5)

    assert main(["stop"]) == 5


@pytest.mark.parametrize("kind", errors.BY_CODE.values())
def test_each_error_has_its_exit_status(command, capsys, monkeypatch, tmp_path, kind):
    """Message and hint on stderr, the class's own status."""
    monkeypatch.setenv("SPOTOKEND_CONFIG", str(tmp_path))
    command(raising(kind("it is so", hint="do this")))

    assert main(["stop"]) == kind.exit_status
    assert capsys.readouterr() == ("", "spotokend: it is so\n  → do this\n")


def test_a_moment_to_try_again_is_a_hint(command, capsys):
    """Where there is no other."""
    command(raising(errors.Busy("too often", retry_after=30.0)))

    assert main(["stop"]) == 5
    assert capsys.readouterr().err == "spotokend: too often\n  → try again in 30 s\n"


def test_an_error_without_a_cure_is_only_a_message(command, capsys):
    """No empty hint."""
    command(raising(errors.Forbidden("not you")))

    assert main(["stop"]) == 7
    assert capsys.readouterr().err == "spotokend: not you\n"


def test_without_a_configuration_that_is_the_first_step(monkeypatch, tmp_path, capsys):
    """Nobody answers and nothing is configured: status 4, and the command that writes one."""
    monkeypatch.setenv("SPOTOKEND_SOCK", str(tmp_path / "socket"))
    monkeypatch.setenv("SPOTOKEND_CONFIG", str(tmp_path / "config.toml"))

    assert main(["token"]) == 4
    words = capsys.readouterr().err
    assert "spotokend is not running" in words
    assert "→ spotokend login asks for all it takes" in words


def test_with_a_configuration_the_daemon_is_to_be_started(monkeypatch, tmp_path, capsys):
    """The client's own hint says how."""
    monkeypatch.setenv("SPOTOKEND_SOCK", str(tmp_path / "socket"))
    monkeypatch.setenv("SPOTOKEND_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").touch()

    assert main(["token"]) == 4
    assert "spotokend run" in capsys.readouterr().err


def test_ctrl_c_is_quiet(command, capsys):
    """Whoever pressed it knows."""
    command(raising(KeyboardInterrupt()))

    assert main(["stop"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied", "file"), "file: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(), "OSError"),
    ],
)
def test_what_the_system_refuses_is_told_in_its_words(command, capsys, error, words):
    """With the file, where there is one."""
    command(raising(error))

    assert main(["stop"]) == 1
    assert capsys.readouterr().err == f"spotokend: {words}\n"


def test_a_defect_shows_its_place_and_no_value(command, capsys):
    """A token in the text of an exception doesn't reach the terminal, nor does a traceback."""
    command(raising(ValueError("access-1")))

    assert main(["stop"]) == 1
    words = capsys.readouterr().err
    assert "this is a defect of spotokend" in words
    assert "ValueError at test_cli.py:" in words
    assert "access-1" not in words
    assert "Traceback" not in words


def test_a_defect_without_a_traceback_is_told_by_its_kind():
    """An exception that never passed a frame."""
    assert cli._place(ValueError("access-1")) == "ValueError"


def test_whoever_stops_reading_is_left_in_peace():
    """``spotokend --help | true``: no traceback, no complaint of the interpreter at its end."""
    program = (
        "import sys, os; from spotokend.cli import main; r, w = os.pipe(); os.close(r);"
        "os.dup2(w, 1); sys.exit(main(['--help']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )

    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_is_noticed():
    """A token that could not be written must not look like one that was."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "spotokend", "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )

    assert (done.returncode, done.stderr) == (1, "spotokend: No space left on device\n")


def test_no_command_is_a_usage_error():
    """Words alone, so that nothing takes help for data."""
    done = spotokend()

    assert (done.returncode, done.stdout) == (2, "")
    assert "which command?" in done.stderr


def test_asking_for_a_token_is_cheap():
    """What it doesn't need isn't imported, not even to say that nobody answers."""
    program = (
        "import sys, json; from spotokend.cli import main; status = main(['token']);"
        "print(json.dumps([status, sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        env={"SPOTOKEND_SOCK": "/nonexistent/socket", "SPOTOKEND_CONFIG": "/dev/null"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    status, modules = json.loads(done.stdout)
    dear = {"rich", "asyncio", "httpx", "structlog", "anyio", "h11", "dataclasses", "typing"}

    assert status == 4
    assert {name for name in modules if name in dear} == set()
    assert not [name for name in modules if name.startswith(("spotokend.rules", "spotokend.ser"))]


@pytest.mark.parametrize(
    ("defect", "place"),
    [
        ("raise LookupError('planted-1')", "LookupError at <string>:"),
        ("raise BaseExceptionGroup('planted-1', [KeyboardInterrupt('planted-1')])", "Keyboard"),
        ("It()", "LookupError at <string>:"),
    ],
    ids=["exception", "group", "finalizer"],
)
def test_what_nobody_foresaw_shows_no_value_wherever_it_comes_up(defect, place):
    """As a process of its own: not even what ``main`` lets pass is printed with its text."""
    program = (
        "import sys\n"
        "from spotokend import cli\n"
        "class It:\n"
        "    def __del__(self): raise LookupError('planted-1')\n"
        f"def run(words):\n    {defect}\n    return 0\n"
        "cli._run = run\n"
        "sys.exit(cli.main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30
    )

    assert f"this is a defect of spotokend {__version__}: {place}" in done.stderr
    assert "planted-1" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_a_command_leaves_no_core():
    """It may hold a token; what it starts may raise its limit again."""
    program = (
        "import resource, sys\n"
        "from spotokend import cli\n"
        "cli.main()\n"
        "print(*resource.getrlimit(resource.RLIMIT_CORE))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30
    )

    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    assert done.stdout == f"0 {hard}\n"
