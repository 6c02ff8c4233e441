"""Questions on stderr, answers from stdin, and not a byte more of it than the answer."""

from __future__ import annotations

import errno
import io
import os
import sys

import pytest

from spotokend.cli import questions
from spotokend.errors import BadRequest
from spotokend.rules.config.readers import Wrong


def colour(answer):
    """A reader that takes one answer only."""
    if answer != "red":
        raise Wrong(f"{answer!r} is no colour", "type red")
    return answer


def test_an_answer_is_the_line_and_nothing_behind_it(piped, capsys):
    """What follows is still in the pipe: an address for the login, perhaps."""
    piped.write(b"one\ntwo\nhttp://127.0.0.1/callback?code=code-1")

    assert questions.ask("First", str) == "one"
    assert questions.ask("Second", str) == "two"
    assert piped.rest() == b"http://127.0.0.1/callback?code=code-1"
    assert capsys.readouterr() == ("", "First: \nSecond: \n")


def test_return_means_the_default(piped, capsys):
    """Which the question shows."""
    piped.give("", " ")

    assert questions.ask("Colour", str, default="red") == "red"
    assert questions.ask("Colour", str) == ""
    assert capsys.readouterr().err == "Colour [red]: \nColour: \n"


@pytest.mark.parametrize(
    "pasted",
    [
        b"  id-1\t\r\n",
        b"'id-1'\n",
        b'"id-1"\n',
        b"<id-1>\n",
        b"\x1b[200~id-1\x1b[201~\n",
        b"\x1b[200~ 'id-1' \x1b[201~\n",
        "\u00a0id-1\u00a0\n".encode(),
        b"id-1",
    ],
)
def test_what_a_paste_brings_along_is_dropped(piped, pasted):
    """Space, quotes, the marks of a bracketed paste; the last line may lack its newline."""
    piped.write(pasted)
    piped.end()

    assert questions.ask("Client id", str) == "id-1"


def test_bytes_that_are_no_text_are_an_answer_all_the_same(piped):
    """To be refused by whoever asked."""
    piped.write(b"\xff\xfeid\n")

    assert questions.ask("Client id", str) == "\ufffd\ufffdid"


def test_the_end_of_the_input_is_no_answer(piped, capsys):
    """Not even where there is a default: nobody has agreed to it."""
    piped.end()

    with pytest.raises(questions.EndOfInput, match=r"^Colour$"):
        questions.ask("Colour", str, default="red")
    assert capsys.readouterr().err == "Colour [red]: \n"


def test_ctrl_d_is_the_end_of_the_input(typed):
    """On a line of its own; behind half an answer it is the half that counts."""
    typed.end()
    with pytest.raises(questions.EndOfInput):
        questions.ask("Colour", str)

    typed.write(b"red\x04\x04")
    assert questions.ask("Colour", str) == "red"


def test_a_terminal_that_has_gone_is_the_end_of_the_input(typed, monkeypatch):
    """The window was closed and the hang-up ignored; or it never was this job's to read from."""
    typed.hang_up()
    with pytest.raises(questions.EndOfInput):
        questions.ask("Colour", str)

    def orphaned(descriptor, size):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(questions.os, "read", orphaned)
    with pytest.raises(questions.EndOfInput):
        questions.ask("Colour", str)


def test_there_may_be_no_stdin(monkeypatch):
    """``spotokend login <&-``; whatever has the descriptor 0 then isn't read."""
    monkeypatch.setattr(sys, "stdin", None)

    assert not questions.interactive()
    with pytest.raises(questions.EndOfInput):
        questions.ask("Colour", str)


def test_a_terminal_in_non_blocking_mode_is_waited_for(typed):
    """Another program may have left it so; the answer comes when it is typed."""
    os.set_blocking(sys.stdin.fileno(), False)
    typed.write(b"re")
    typed.give("d")

    assert questions.ask("Colour", str) == "red"


def test_a_wrong_answer_is_told_and_asked_again(piped, capsys):
    """With the reason and the cure."""
    piped.give("blue", "red")

    assert questions.ask("Colour", colour) == "red"
    assert capsys.readouterr().err == (
        "Colour: \nspotokend: 'blue' is no colour\n  → type red\nColour: \n"
    )


def test_a_script_has_three_tries(piped):
    """Nobody is there who could think again; the last reason is that of the end."""
    piped.give("blue", "green", "pink", "red")

    with pytest.raises(BadRequest, match="'pink' is no colour") as caught:
        questions.ask("Colour", colour)
    assert caught.value.hint == "type red"
    assert piped.rest() == b"red\n"


def test_a_person_may_try_as_often_as_they_like(typed):
    """Ctrl-C is there for those who don't."""
    typed.give("blue", "green", "pink", "white", "red")

    assert questions.ask("Colour", colour) == "red"


def test_an_answer_has_its_limit(piped):
    """One of just that length is read; a stream without an end isn't read to its end."""
    piped.write(b"x" * (questions.LONGEST - 1) + b"\n")
    assert len(questions.ask("Word", str)) == questions.LONGEST - 1

    piped.write(b"x" * (questions.LONGEST + 1) + b"\n")
    with pytest.raises(BadRequest, match='the answer to "Word" is longer than 4096 bytes'):
        questions.ask("Word", str)


@pytest.mark.parametrize(
    ("answer", "default", "meaning"),
    [
        ("y", False, True),
        ("Yes", False, True),
        ("n", True, False),
        ("NO", True, False),
        ("", True, True),
        ("", False, False),
    ],
)
def test_yes_and_no(piped, capsys, answer, default, meaning):
    """The capital letter is what Return means."""
    piped.give(answer)

    assert questions.confirm("Go on?", default=default) is meaning
    assert capsys.readouterr().err == f"Go on? [{'Y/n' if default else 'y/N'}] \n"


def test_what_is_neither_yes_nor_no_is_asked_again(piped, capsys):
    """Nothing is guessed from "maybe"."""
    piped.give("maybe", "y")

    assert questions.confirm("Go on?", default=False)
    assert "neither yes nor no\n  → type y or n\nGo on?" in capsys.readouterr().err


def test_on_a_terminal_the_echo_has_the_newline(typed, monkeypatch):
    """It isn't written a second time; but after Ctrl-D, which echoes nothing, it is."""

    class Screen(io.StringIO):
        def isatty(self):
            return True

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    typed.give("red")
    questions.ask("Colour", str)
    typed.end()
    with pytest.raises(questions.EndOfInput):
        questions.ask("Colour", str)

    assert screen.getvalue() == "Colour: Colour: \n"


def test_ctrl_c_leaves_the_cursor_on_a_new_line(piped, monkeypatch, capsys):
    """And passes through."""

    def interrupted(*descriptors):
        raise KeyboardInterrupt

    monkeypatch.setattr(questions.select, "select", interrupted)

    with pytest.raises(KeyboardInterrupt):
        questions.ask("Colour", str)
    assert capsys.readouterr().err == "Colour: \n"


def test_a_default_from_outside_is_written_without_its_escapes(piped, capsys):
    """It may be a variable's value."""
    piped.give("")

    questions.ask("Colour", str, default="\x1b[31mred")
    assert "\x1b" not in capsys.readouterr().err
