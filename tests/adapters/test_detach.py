"""Detaching: what the caller hears, what the daemon is, its PID file and its log."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import time

import pytest

from spotokend.adapters import detach
from spotokend.adapters.detach import LogFile, PidFile, refuse_under_systemd
from spotokend.errors import Misconfigured

PATIENCE = 15.0


def until(true):
    """Wait until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# ------------------------------------------------------------------------------ under systemd


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"NOTIFY_SOCKET": "/run/x"}, "$NOTIFY_SOCKET"),
        ({"INVOCATION_ID": "0123"}, "$INVOCATION_ID"),
        ({"INVOCATION_ID": "0123", "SYSTEMD_EXEC_PID": str(os.getpid())}, "$INVOCATION_ID"),
        (
            {"NOTIFY_SOCKET": "@x", "LISTEN_PID": str(os.getpid())},
            "$NOTIFY_SOCKET, $LISTEN_PID",
        ),
    ],
)
def test_what_systemd_has_started_does_not_detach(environ, named):
    """It would be taken for ended; the hint says how a unit is written."""
    with pytest.raises(Misconfigured) as caught:
        refuse_under_systemd(environ)

    assert f"({named} is set)" in caught.value.message
    assert "ExecStart=" in caught.value.hint


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"INVOCATION_ID": "0123", "SYSTEMD_EXEC_PID": "1"},
        {"LISTEN_PID": "1"},
        {"NOTIFY_SOCKET": ""},
    ],
)
def test_what_a_shell_or_cron_has_inherited_is_no_obstacle(environ):
    """A desktop's terminals and cron's jobs are below units of systemd."""
    refuse_under_systemd(environ)


# ------------------------------------------------------------------------------- the PID file


def test_the_pid_file_is_there_while_the_block_runs(tmp_path):
    """With the own process id, for its user alone; its folder is made."""
    path = tmp_path / "spotokend" / "pid"
    with PidFile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


def test_a_stale_pid_file_is_no_obstacle(tmp_path):
    """The lock tells who lives, and a longer number leaves no digits."""
    path = tmp_path / "pid"
    path.write_text("123456789012\n")
    with PidFile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize(("content", "who"), [("77\n", "77"), ("", "unknown")])
def test_a_second_one_is_told_who_has_it(tmp_path, content, who):
    """And leaves the file as it is."""
    path = tmp_path / "pid"
    path.write_text(content)
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Misconfigured, match=f"runs already: process {who} holds {path}"):
            PidFile(str(path)).__enter__()
    assert path.read_text() == content


def test_a_file_that_is_just_being_removed_is_made_anew(tmp_path, monkeypatch):
    """Its holder ended between the opening and the locking: that lock would be nobody's."""
    path = tmp_path / "pid"
    before, real = PidFile(str(path)), fcntl.flock
    before.__enter__()

    def late(file, operation):
        monkeypatch.setattr(detach.fcntl, "flock", real)
        before.__exit__(None, None, None)
        real(file, operation)

    monkeypatch.setattr(detach.fcntl, "flock", late)
    with PidFile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_link_is_not_followed(tmp_path):
    """It may lead to a file of the user's, which would be emptied."""
    (tmp_path / "pid").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Misconfigured, match="can't be made: Too many levels of symbolic links"):
        PidFile(str(tmp_path / "pid")).__enter__()


# ------------------------------------------------------------------------------------ the log


@pytest.fixture
def log(tmp_path, monkeypatch):
    """A log of 100 bytes at most, whose descriptor isn't the tests' own standard error."""
    monkeypatch.setattr(detach, "LOG_LIMIT", 100)
    path = str(tmp_path / "log")
    monkeypatch.setattr(LogFile, "DESCRIPTOR", LogFile.open(path))
    yield LogFile(path)
    os.close(LogFile.DESCRIPTOR)


def test_the_log_keeps_within_its_limit(log, tmp_path):
    """What is full is moved aside, once; both are for their user alone."""
    for number in range(30):
        print(f"{number:019}", file=log)

    assert {path.name for path in tmp_path.iterdir()} == {"log", "log.1"}
    assert (tmp_path / "log.1").read_text().split() == [f"{n:019}" for n in range(20, 25)]
    assert (tmp_path / "log").read_text().split() == [f"{n:019}" for n in range(25, 30)]
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_what_comes_by_the_descriptor_counts_too(log, tmp_path):
    """The interpreter's own last words; and halves of characters are no obstacle."""
    os.write(LogFile.DESCRIPTOR, b"x" * 99)
    print("\ud800", file=log)

    assert (tmp_path / "log").read_text() == "\\ud800\n"
    assert not log.isatty()


# ------------------------------------------------------------------------------- the detaching

PROGRAM = """
import os, sys, time
from spotokend.adapters.detach import detached
from spotokend.errors import Misconfigured, Unavailable
def serve(ready):
    SERVE
try:
    status = detached(serve, pid_path=sys.argv[1] + "/run/pid", log_path=sys.argv[1] + "/state/log")
except Unavailable as error:
    print("late:", error, file=sys.stderr)
    sys.exit(5)
except Exception as error:
    print(type(error).__name__, error, error.hint, error.exit_status)
    sys.exit(2)
if status is not None:
    sys.exit(status)
print("it answers")
"""


def run(folder, serve, **options):
    """What the caller prints and how it ends; ``serve`` is the body of the daemon's function."""
    program = PROGRAM.replace("SERVE", serve.replace("\n", "\n    "))
    return subprocess.run(
        [sys.executable, "-c", program, folder],
        text=True,
        check=False,
        timeout=PATIENCE,
        **{"stdin": subprocess.DEVNULL, "capture_output": True, **options},
    )


TELL = """
fields = (os.getpid(), os.getsid(0), os.getcwd(), os.umask(0), sorted(os.listdir("/proc/self/fd")))
draft = sys.argv[1] + "/draft"
open(draft, "w").write(repr(fields)); os.rename(draft, sys.argv[1] + "/told")
ready()
print("nobody reads this")
print("the last words", file=sys.stderr)
while not os.path.exists(sys.argv[1] + "/end"): time.sleep(0.01)
return 0
"""


def test_the_caller_is_back_when_it_answers(tmp_path):
    """And the daemon is one: a session of its own, no folder, no terminal, nothing open of before."""
    (tmp_path / "open").touch()
    with (tmp_path / "open").open() as inherited:
        done = run(tmp_path, TELL, pass_fds=[inherited.fileno()])
    assert (done.returncode, done.stdout, done.stderr) == (0, "it answers\n", "")
    pid, session, folder, umask, descriptors = eval((tmp_path / "told").read_text())
    assert (folder, umask) == ("/", 0o077)
    assert session != pid  # not its leader, so that no terminal becomes its own
    assert session != os.getsid(0)
    # Null, null, the log; the pipe to the caller; the PID file; and the one by which it looks.
    assert len(descriptors) == 6
    assert (tmp_path / "run" / "pid").read_text() == f"{pid}\n"
    (tmp_path / "end").touch()
    until(lambda: not (tmp_path / "run" / "pid").exists())
    assert (tmp_path / "state" / "log").read_text() == "the last words\n"
    assert stat.S_IMODE((tmp_path / "state" / "log").stat().st_mode) == 0o600


def test_why_it_could_not_start_is_told_by_the_caller(tmp_path):
    """Message, hint and status are those that the daemon would have had in the foreground."""
    done = run(tmp_path, 'raise Misconfigured("no such luck", hint="buy a ticket")')

    assert (done.returncode, done.stdout) == (2, "Misconfigured no such luck buy a ticket 2\n")
    assert (tmp_path / "state" / "log").read_text() == ""


def test_an_end_without_a_word_is_told_too(tmp_path):
    """With where to look."""
    done = run(tmp_path, "os._exit(3)")

    assert done.stdout == (
        "SpotokendError the daemon ended before it answered "
        f"its last words: tail {tmp_path}/state/log 1\n"
    )


def test_what_is_wrong_later_is_in_the_log(tmp_path):
    """The caller has gone by then."""
    done = run(tmp_path, 'ready(); raise Unavailable("no disk")')

    assert (done.returncode, done.stdout) == (0, "it answers\n")
    until(lambda: (tmp_path / "state" / "log").read_text() == "late: no disk\n")


def test_no_log_no_daemon(tmp_path):
    """It is told before anything runs."""
    (tmp_path / "state").touch()

    done = run(tmp_path, "ready()")

    assert done.stdout.startswith(f"Misconfigured the log {tmp_path}/state/log can't be opened: ")


def test_a_program_without_standard_streams_detaches(tmp_path):
    """As some start scripts have it: each was closed before."""
    done = run(
        tmp_path,
        TELL,
        stdin=None,
        capture_output=False,
        preexec_fn=lambda: os.closerange(0, 3),
    )

    assert done.returncode == 0
    (tmp_path / "end").touch()
    until(lambda: not (tmp_path / "run" / "pid").exists())
