"""Asking a person for a passphrase: pinentry, systemd's agents, or a program of the user's choice.

pinentry speaks the Assuan protocol over its standard input and output (a line a command, answered by
``OK``, ``ERR`` or ``D`` and data); see the manuals of pinentry and libassuan. The passphrase is in
nobody's arguments, environment or files.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from urllib.parse import quote_from_bytes, unquote_to_bytes

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from spotokend.errors import Misconfigured

LONGEST_LINE = 1002
"""Of Assuan, with its end of line."""
_MOST_BYTES = 64 * 1024

SYSTEMD = ("systemd-ask-password", "--user", "--no-tty", "--timeout=0", "-n")
"""Asks by the agents of the user's own session. They, and ``--user``, came with systemd 257: before,
the only agents are the system's, and asking those is root's (https://systemd.io/PASSWORD_AGENTS/,
"Unprivileged Per-User Password Agents")."""


class Declined(Exception):
    """Nobody gave one: cancelled, timed out, or the program ended so. The text says which."""


async def ask(asker: str | tuple[str, ...], prompt: str, wrong: str | None = None) -> bytes:
    """The passphrase; ``wrong`` says what was the matter with the last one.

    Raises:
        Declined: it was not given.
        Misconfigured: the program isn't there, or is none of that kind.
    """
    if asker == "pinentry":
        return await _pinentry(prompt, wrong)
    if asker == "systemd":
        try:
            return await _printed((*SYSTEMD, f"{wrong or ''} {prompt}:".strip()))
        except Declined:
            await _see_that_users_are_asked()  # else nobody was
            raise
    assert isinstance(asker, tuple)
    return await _printed(asker)


async def confirm(asker: str | tuple[str, ...], prompt: str) -> bytes:
    """A new passphrase, the same twice, where a person is asked.

    Raises:
        Declined: it was not given, or the two differ.
        Misconfigured: as :func:`ask`.
    """
    first = await ask(asker, prompt)
    if isinstance(asker, str) and await ask(asker, "Once more, the same passphrase") != first:
        raise Declined("the two were not the same")
    return first


async def _printed(command: tuple[str, ...]) -> bytes:
    """What the program prints, without the end of the line; no shell has a part in it."""
    try:
        done = await anyio.run_process(command, stderr=subprocess.DEVNULL, check=False)
    except OSError as error:
        raise _unstartable(command[0], error) from None
    if done.returncode != 0:
        raise Declined(f"{command[0]} ended with status {done.returncode}")
    return _given(done.stdout[:_MOST_BYTES].removesuffix(b"\n").removesuffix(b"\r"))


async def _see_that_users_are_asked() -> None:
    told = await anyio.run_process([SYSTEMD[0], "--help"], stderr=subprocess.DEVNULL, check=False)
    if b"--user" not in told.stdout:
        raise Misconfigured(
            "the systemd of this host can't ask its users for a passphrase: that came with 257",
            hint='under [store] key use passphrase = "pinentry", or a program that prints it',
        )


def _given(passphrase: bytes) -> bytes:
    if not passphrase:
        raise Declined("it was empty")
    return passphrase


async def _pinentry(prompt: str, wrong: str | None) -> bytes:
    try:
        process = await anyio.open_process(["pinentry"], stderr=subprocess.DEVNULL)
    except OSError as error:
        raise _unstartable("pinentry", error) from None
    async with process:  # whose end, also by our own, ends it
        try:
            talk = _Assuan(process)
            await talk.answer()
            for option, variable in (("ttyname", "GPG_TTY"), ("ttytype", "TERM")):
                if value := os.environ.get(variable):
                    await talk.say(f"OPTION {option}={value}", needed=False)
            await talk.say("SETTITLE spotokend", needed=False)
            await talk.say(f"SETDESC {_escaped(prompt)}")
            await talk.say("SETPROMPT Passphrase:", needed=False)
            if wrong is not None:
                await talk.say(f"SETERROR {_escaped(wrong)}")
            return _given(await talk.say("GETPIN"))
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.DelimiterNotFound, OSError):
            raise Declined("pinentry ended without an answer") from None
        finally:
            with suppress(ProcessLookupError):
                process.kill()


class _Assuan:
    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._out = process.stdin
        self._in = BufferedByteReceiveStream(process.stdout)

    async def say(self, line: str, *, needed: bool = True) -> bytes:
        await self._out.send(line.encode() + b"\n")
        return await self.answer(needed=needed)

    async def answer(self, *, needed: bool = True) -> bytes:
        data = b""
        while True:
            line = await self._in.receive_until(b"\n", LONGEST_LINE)
            if line.startswith(b"D "):
                data += unquote_to_bytes(line[2:])
            elif line == b"OK" or line.startswith(b"OK "):
                return data
            elif line.startswith(b"ERR"):
                if needed:
                    raise Declined("cancelled, or no way to ask here")
                return b""


def _escaped(text: str) -> str:
    # A percent sign and the two ends of a line; what is more is harmless.
    return quote_from_bytes(text.encode(), safe=b" !\"#$&'()*+,/:;=?@[]")


def _unstartable(program: str, error: OSError) -> Misconfigured:
    return Misconfigured(
        f"{program}, which asks for the passphrase, can't be started: {error.strerror}",
        hint=f"install {program}, or name another program under [store] key",
    )
