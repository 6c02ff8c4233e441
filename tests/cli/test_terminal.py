"""The law of the terminal: where words go, and what they can't do there."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotokend.cli import terminal


class Terminal(io.StringIO):
    """Text that believes to be seen."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    "outside",
    ["\x1b[2J", "a\rb", "a\nb", "\x9b31m", "\x7f", "\u202egnp.exe", "\u2066x", "\u2028", "\ud800"],
)
def test_control_characters_stay_outside(outside):
    """What moves the cursor, recolours the screen or turns text around becomes U+FFFD."""
    cleaned = terminal.clean(outside)

    assert "\ufffd" in cleaned
    assert len(cleaned) == len(outside)


@pytest.mark.parametrize(
    "name", ["王小明", "Žluťoučká 🎧", "👩\u200d👩\u200d👧", "می\u200cخواهم", "a b"]
)
def test_names_of_people_stay_as_they_are(name):
    """Wide letters, emoji and the joiners that several scripts need."""
    assert terminal.clean(name) == name


@given(st.text())
def test_cleaned_text_is_one_line_without_escapes(text):
    """Whatever comes in."""
    cleaned = terminal.clean(text)

    assert "\x1b" not in cleaned
    assert len(cleaned.splitlines()) <= 1
    assert cleaned.encode().decode() == cleaned


def test_data_and_words_don_t_mix(capsys):
    """Data to stdout; words to stderr, their lines kept and cleaned."""
    terminal.show("data")
    terminal.say("some\nwords\x1b")
    terminal.complain("one\ntwo", "three\nfour")

    assert capsys.readouterr() == (
        "data\n",
        "some\nwords\ufffd\nspotokend: one\ntwo\n  → three\n  → four\n",
    )


def test_the_label_of_an_error_is_red_on_a_terminal(monkeypatch):
    """And only the label."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)

    terminal.complain("no")

    assert screen.getvalue() == "\x1b[31mspotokend:\x1b[0m no\n"


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colour_can_be_refused(monkeypatch, setting):
    """By NO_COLOR, and by a terminal that has none."""
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in setting.items():
        monkeypatch.setenv(name, value)

    assert not terminal.colourful(Terminal())


def test_a_pipe_gets_no_colour(monkeypatch):
    """Nor does a file."""
    monkeypatch.delenv("NO_COLOR", raising=False)

    assert not terminal.colourful(io.StringIO())


def test_a_terminal_without_the_letters_gets_something_readable():
    """An encoding that lacks a character ends nothing with an exception."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from spotokend.cli import terminal as t; t.prepare(); t.show('王'); t.say('→')",
        ],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        timeout=30,
        check=True,
    )

    assert (done.stdout, done.stderr) == (b"\\u738b\n", b"\\u2192\n")


def test_a_replaced_stream_is_left_alone(monkeypatch):
    """One that isn't a text file of the interpreter's."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())

    terminal.prepare()

    assert sys.stdout.getvalue() == ""


def test_there_may_be_no_stdout(monkeypatch):
    """``spotokend token >&-``."""
    monkeypatch.setattr(sys, "stdout", None)

    terminal.flush()
    terminal.settle()

    assert sys.stdout is None


def test_what_can_t_be_written_is_given_up():
    """The rest goes nowhere, and the interpreter ends without a word."""
    program = (
        "import sys, os; from spotokend.cli import terminal as t; r, w = os.pipe(); os.close(r);"
        "os.dup2(w, 1); t.show('data'); t.settle()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        capture_output=True,
        timeout=30,
        check=True,
    )

    assert done.stderr == b""


def test_a_moment_is_told_in_local_time():
    """As the clock on the wall shows it, and in an order that sorts."""
    done = subprocess.run(
        [sys.executable, "-c", "from spotokend.cli.terminal import civil; print(civil(1e9))"],
        env={**os.environ, "TZ": "UTC-2"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert done.stdout == "2001-09-09 03:46:40\n"


@pytest.mark.parametrize(("terminal_there", "written"), [(True, "\n"), (False, "")])
def test_after_ctrl_c_the_prompt_gets_its_own_line(monkeypatch, terminal_there, written):
    """On a terminal, where ``^C`` was echoed; a log needs no empty line."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal_there, raising=False)
    monkeypatch.setattr("sys.stderr", stream)

    terminal.end_line()

    assert stream.getvalue() == written


def test_a_long_sentence_is_broken_between_words(capsys):
    """Within 79 characters; but an address stays whole, and escapes stay out."""
    address = f"http://127.0.0.1/{'x' * 90}"
    terminal.tell(f"{'word ' * 20}\x1b{address}")

    lines = capsys.readouterr().err.split("\n")
    assert lines == [("word " * 16).strip(), ("word " * 4).strip(), f"\ufffd{address}", ""]
