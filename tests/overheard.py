"""Whatever a program writes that a test starts is searched for secrets, however it was started.

- What goes into a pipe is searched as the test reads it, and what is left unread when it is closed.
- What goes where pytest itself writes, and what is logged, is in the sections of its reports, or
  was taken out of them by ``capsys`` and its like.
- Files are searched when their folder is removed, at the end of the run at the latest.
- Where the output would go anywhere else the program isn't started, but in a block of
  :func:`may_tell`, with which a test says that it sees to that itself, or asks for a token.

The test fails in which something was found. Standard output of ``spotokend token``, and of what
else is there to tell a token (:data:`TELLING`), is left alone; standard error never is.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import leaks
import pytest

TELLING = {"token", "api", "exec", "sandbox"}
"""Commands whose standard output may be a token, or a configuration with the sandbox's secrets."""

KEPT = ".secret"
"""The end of the name of a file that is there to hold one, such as a client secret."""
NOWHERE = {os.devnull, "/dev/full"}

_found: list[str] = []
_searched: set[str] = set()
"""Folders whose files are looked at when they go, or in the end."""
_allowed: list[str] = []


@contextmanager
def may_tell(why: str) -> Iterator[None]:
    """What is started in this block has its standard output to itself; ``why`` is for the reader."""
    _allowed.append(why)
    try:
        yield
    finally:
        _allowed.pop()


def _look(where: str, words: str | bytes) -> None:
    try:
        leaks.search(where, words)
    except AssertionError as error:
        _found.append(str(error))


def _look_into(folder: Path) -> None:
    for path in folder.rglob("*"):
        # What a test has made unreadable is nobody's to read.
        with suppress(OSError):
            if path.is_file() and not path.is_symlink() and path.suffix != KEPT:
                _look(str(path), path.read_bytes())


class _Overheard(io.RawIOBase):
    """The reading end of a pipe, with an ear at it."""

    def __init__(self, raw: io.FileIO, where: str) -> None:
        self._raw = raw
        self._where = where
        self._last = b""

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def readinto(self, buffer: Any) -> int | None:
        count = self._raw.readinto(buffer)
        if count:
            self._hear(bytes(buffer[:count]))
        return count

    def close(self) -> None:
        if not self.closed:
            with self._raw:
                os.set_blocking(self.fileno(), False)
                while data := self._raw.read(1 << 16):
                    self._hear(data)
        super().close()

    def _hear(self, data: bytes) -> None:
        data, before = self._last + data, len(_found)
        _look(self._where, data)
        self._last = b"" if len(_found) > before else data[-leaks.LONGEST :]


def _with_an_ear(stream: Any, where: str) -> Any:
    if isinstance(stream, io.TextIOWrapper):
        how = {"encoding": stream.encoding, "errors": stream.errors}
        return io.TextIOWrapper(_with_an_ear(stream.detach(), where), **how)
    if isinstance(stream, io.BufferedReader):
        return io.BufferedReader(_Overheard(stream.detach(), where))
    return _Overheard(stream, where)


def _seen(output: Any) -> bool:
    """Whether it is looked at what goes there: nowhere, to pytest, to us, to a file that is."""
    if output in (None, subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL):
        return True
    number = output if isinstance(output, int) else output.fileno()
    its = os.fstat(number)
    if any(os.path.samestat(its, other) for other in (os.fstat(1), os.fstat(2))):
        return True
    path = os.readlink(f"/proc/self/fd/{number}")
    return path in NOWHERE or (stat.S_ISREG(its.st_mode) and _is_searched(path))


def _is_searched(path: str) -> bool:
    return any(os.path.commonpath((path, folder)) == folder for folder in _searched)


_start_silently = subprocess.Popen.__init__
_communicate_silently = subprocess.Popen.communicate
_read_captured = pytest.CaptureFixture.readouterr
_make_folder = tempfile.mkdtemp
_remove_folder = shutil.rmtree
_clean_up = tempfile.TemporaryDirectory.cleanup


def _start(process: Any, args: Any, *more: Any, **named: Any) -> None:
    words = [args] if isinstance(args, str | bytes | os.PathLike) else list(args)
    outputs = {name: named.get(name) for name in ("stdout", "stderr")}
    for name, output in outputs.items():
        if not _allowed and not _seen(output):
            process.returncode = 0  # for its __del__
            raise AssertionError(f"nobody would search the {name} of {words[0]}; see overheard.py")
    _start_silently(process, args, *more, **named)
    process.silent = set()
    for name in outputs:
        stream = getattr(process, name)
        if name == "stdout" and (_allowed or not TELLING.isdisjoint(words)):
            process.silent.add(name)
        elif stream is not None:
            setattr(process, name, _with_an_ear(stream, f"{name} of {words}"))


def _communicate(process: Any, *more: Any, **named: Any) -> Any:
    # It reads where there is more than one pipe from the descriptors themselves.
    try:
        result = _communicate_silently(process, *more, **named)
    except subprocess.TimeoutExpired as error:
        _hear_all(process, error.stdout, error.stderr)
        raise
    _hear_all(process, *result)
    return result


def _hear_all(process: Any, *outputs: str | bytes | None) -> None:
    for name, words in zip(("stdout", "stderr"), outputs, strict=True):
        if words and name not in process.silent:
            _look(f"{name} of {process.args}", words)


def _readouterr(capture: pytest.CaptureFixture[Any]) -> Any:
    result = _read_captured(capture)
    for name, words in zip(("stdout", "stderr"), result, strict=True):
        _look(f"{name} of the test", words)
    return result


def _mkdtemp(*how: Any, **named: Any) -> Any:
    name = _make_folder(*how, **named)
    _searched.add(os.path.realpath(name))
    return name


def _rmtree(path: Any, *how: Any, **named: Any) -> Any:
    _goes(path)
    return _remove_folder(path, *how, **named)


def _cleanup(folder: Any) -> None:
    # It has the name rmtree from its import on, in some releases of Python.
    _goes(folder.name)
    _clean_up(folder)


def _goes(path: Any) -> None:
    name = os.path.realpath(path)
    if _is_searched(name):
        _look_into(Path(name))
        _searched.discard(name)


def pytest_configure(config: pytest.Config) -> None:
    """From here on; but not in the process that only hands the tests out to others."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        return
    patch = pytest.MonkeyPatch()
    patch.setattr(subprocess.Popen, "__init__", _start)
    patch.setattr(subprocess.Popen, "communicate", _communicate)
    patch.setattr(pytest.CaptureFixture, "readouterr", _readouterr)
    patch.setattr(tempfile, "mkdtemp", _mkdtemp)
    patch.setattr(shutil, "rmtree", _rmtree)
    patch.setattr(tempfile.TemporaryDirectory, "cleanup", _cleanup)
    config.add_cleanup(patch.undo)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """A test fails that was overheard."""
    return _judged((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    """So does a file."""
    return _judged((yield))


def _judged(report: Any) -> Any:
    for name, words in report.sections:
        if name.split()[-1] in {report.when, "stdout", "stderr"}:  # those of collection name none
            _look(name.lower(), words)
    if _found:
        report.outcome = "failed"
        report.longrepr = "\n".join(dict.fromkeys(_found))
        _found.clear()
    return report


@pytest.fixture(scope="session", autouse=True)
def searched_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Those in the tests' own folders, which nobody removes."""
    _searched.add(os.path.realpath(tmp_path_factory.getbasetemp()))
    yield
    for folder in _searched:
        _look_into(Path(folder))
