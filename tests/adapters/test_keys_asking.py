"""Asking for a passphrase: pinentry's protocol, a program's output, and every way to get none."""

from __future__ import annotations

import pytest

from spotokend.adapters.keys.asking import Declined, ask, confirm
from spotokend.errors import Misconfigured

pytestmark = pytest.mark.anyio

PINENTRY = """#!/bin/sh
echo "OK Pleased to meet you"
while read -r line; do
    echo "$line" >>"$0.heard"
    case $line in
        GETPIN) {answer} ;;
        OPTION*) echo "ERR 83886254 Unknown option" ;;
        *) echo OK ;;
    esac
done
"""


@pytest.fixture
def pinentry(tmp_path, monkeypatch):
    """Makes a pinentry that answers so; what it heard."""
    program = tmp_path / "pinentry"

    def make(answer):
        program.write_text(PINENTRY.format(answer=answer))
        program.chmod(0o700)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return program.with_name("pinentry.heard")

    return make


async def test_pinentry_is_asked_and_its_answer_decoded(pinentry):
    """With what was wrong before; a percent sign stands for itself on neither way."""
    heard = pinentry("echo 'D correct%25 horse'; echo OK")
    assert await ask("pinentry", "100 % of it", "That\nwas not it.") == b"correct% horse"
    lines = heard.read_text().splitlines()
    assert "SETDESC 100 %25 of it" in lines
    assert "SETERROR That%0Awas not it." in lines


@pytest.mark.parametrize("answer", ["echo 'ERR 83886179 Operation cancelled'", "exit 1", "echo OK"])
async def test_who_cancels_has_declined(pinentry, answer):
    """As has one that ends, and one that is left empty."""
    pinentry(answer)
    with pytest.raises(Declined):
        await ask("pinentry", "Passphrase")


async def test_a_new_one_is_asked_for_twice(pinentry):
    """And must be the same."""
    heard = pinentry("echo 'D horse'; echo OK")
    assert await confirm("pinentry", "Choose") == b"horse"
    assert heard.read_text().count("GETPIN") == 2
    pinentry('echo "D $$"; echo OK')
    with pytest.raises(Declined, match="not the same"):
        await confirm("pinentry", "Choose")


async def test_a_program_prints_it():
    """Without the end of the line; it is not asked twice."""
    assert await ask(("printf", "correct horse\n"), "Passphrase") == b"correct horse"
    assert await confirm(("printf", "horse\r\n"), "Choose") == b"horse"


@pytest.mark.parametrize("command", [("false",), ("true",)])
async def test_a_program_that_fails_or_prints_nothing_gives_none(command):
    """It may have a person behind it who said no."""
    with pytest.raises(Declined):
        await ask(command, "Passphrase")


async def test_the_agents_of_systemd_are_asked_by_its_program(tmp_path, monkeypatch):
    """For the user, and without a terminal."""
    program = tmp_path / "systemd-ask-password"
    program.write_text('#!/bin/sh\nprintf "%s" "$*"\n')
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert await ask("systemd", "Passphrase") == b"--user --no-tty --timeout=0 -n Passphrase:"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [("--user --system", Declined, "ended with status 1"), ("--no-tty", Misconfigured, "with 257")],
)
async def test_a_systemd_that_can_not_ask_users_is_told_from_one_that_was_cancelled(
    tmp_path, monkeypatch, options, error, words
):
    """Its own help says which options it has."""
    program = tmp_path / "systemd-ask-password"
    program.write_text(f'#!/bin/sh\n[ "$1" = --help ] && echo "{options}" && exit\nexit 1\n')
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(error, match=words):
        await ask("systemd", "Passphrase")


@pytest.mark.parametrize("asker", ["pinentry", ("not-there",)])
async def test_a_missing_program_is_named(asker, monkeypatch, tmp_path):
    """With what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Misconfigured, match="can't be started") as caught:
        await ask(asker, "Passphrase")
    assert "install" in caught.value.hint
