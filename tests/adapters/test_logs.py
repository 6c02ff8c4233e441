"""The log: one line an event in order, nothing lost before it is open, no secret, no exception."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import subprocess
import sys
import threading

import pytest

from spotokend.adapters.logs import KEPT, LEVELS, MINUTE, REPEATS, Log
from spotokend.rules.secret import Secret

ESCAPE = "\x1b"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Full(io.StringIO):
    """A redirection to a disk without room, until there is some."""

    full = True

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(autouse=True)
def colours_as_the_user_left_them(monkeypatch: pytest.MonkeyPatch):
    """No setting of whoever runs the tests."""
    monkeypatch.delenv("NO_COLOR", raising=False)


def opened(stream: io.StringIO, level: str = "info", style: str = "json") -> Log:
    log = Log(level, style, stream=stream)
    log.open()
    return log


def events(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


# --- the two styles


def test_json_is_an_object_a_line_with_the_fields_as_they_are(stream: io.StringIO):
    """For machines: event, level, moment, and what the event brings."""
    opened(stream)("ready", level="warning", pid=7, changes=["one", "two"], words="a\nb")
    (event,) = events(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(event.pop("timestamp")))
    assert event == {
        "event": "ready",
        "level": "warning",
        "pid": 7,
        "changes": ["one", "two"],
        "words": "a\nb",
    }


@pytest.mark.parametrize(("style", "first"), [("json", "{"), ("text", "2")])
def test_where_the_journal_reads_each_line_begins_with_its_priority(
    tmp_path, monkeypatch, style, first
):
    """As syslog(3) numbers them; the lines of a defect's traces, too."""
    with (tmp_path / "journal").open("w+") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        log = Log("debug", style, stream=stream)
        log.open()
        for level in LEVELS:
            log("event", level=level)
        log("event", level="error", exception="one\ntwo")
        stream.seek(0)
        lines = stream.read().splitlines()
    begin = [f"<{priority}>{first}" for priority in (7, 6, 4, 3)]
    assert [line[:4] for line in lines[:4]] == begin
    assert {line[:3] for line in lines[4:]} == {"<3>"}


@pytest.mark.parametrize("told", ["0:0", "", None])
def test_a_redirection_is_no_journal(tmp_path, monkeypatch, told):
    """The variable is inherited by whatever a service starts."""
    if told is not None:
        monkeypatch.setenv("JOURNAL_STREAM", told)
    with (tmp_path / "file").open("w+") as stream:
        log = Log("info", "json", stream=stream)
        log.open()
        log("event")
        stream.seek(0)
        assert stream.read(1) == "{"


def test_text_is_a_line_for_people(stream: io.StringIO):
    """The same, to be read; what has several lines stays on one."""
    opened(stream, style="text")("ready", pid=7, words="a\nb")
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z \[info +\] ready ", text)
    assert "pid=7" in text
    assert r"words='a\nb'" in text


def test_an_event_is_stamped_with_the_moment_it_happened(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
):
    """In UTC with milliseconds, and not when it is written."""
    log = Log("info", "json", stream=stream)
    monkeypatch.setattr("spotokend.adapters.logs.time.time", lambda: 1_700_000_000.0625)
    log("early")
    monkeypatch.undo()
    log.open()
    assert events(stream)[0]["timestamp"] == "2023-11-14T22:13:20.062Z"


@pytest.mark.parametrize(
    ("style", "terminal", "is_json"),
    [
        ("auto", True, False),
        ("auto", False, True),
        ("json", True, True),
        ("text", False, False),
    ],
)
def test_the_style_is_the_asked_one_or_fits_the_stream(style, terminal, is_json):
    """``auto``: text on a terminal, else JSON."""
    stream = Terminal() if terminal else io.StringIO()
    opened(stream, style=style)("ready")
    assert stream.getvalue().startswith("{") is is_json


@pytest.mark.parametrize(
    ("terminal", "no_color", "colours"),
    [(True, None, True), (True, "", True), (True, "1", False), (False, None, False)],
)
def test_colours_are_for_terminals_whose_user_wants_them(
    terminal, no_color, colours, monkeypatch: pytest.MonkeyPatch
):
    """NO_COLOR counts when it is not empty (no-color.org)."""
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    stream = Terminal() if terminal else io.StringIO()
    opened(stream, style="text")("ready", pid=7)
    assert (ESCAPE in stream.getvalue()) is colours


def test_without_a_stream_of_its_own_it_is_stderr(capsys: pytest.CaptureFixture[str]):
    """Words are for stderr; stdout is for data."""
    log = Log("info", "json")
    log("ready")
    log.open()
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["event"] == "ready"


# --- what is told


@pytest.mark.parametrize("least", LEVELS)
def test_what_is_less_important_than_the_level_is_left_out(stream: io.StringIO, least: str):
    """And what is as important, or more so, is told."""
    log = opened(stream, level=least)
    for level in LEVELS:
        log(level, level=level)
    assert [event["event"] for event in events(stream)] == list(LEVELS[LEVELS.index(least) :])


def test_the_level_can_be_changed(stream: io.StringIO):
    """From the next event on; what was left out stays so."""
    log = opened(stream, level="error")
    log("before")
    log.set_level("debug")
    log("after", level="debug")
    assert [event["event"] for event in events(stream)] == ["after"]


def test_fields_that_are_none_are_left_out(stream: io.StringIO):
    """A notice without a hint has no empty one; what is false or zero is told."""
    opened(stream)("notice", hint=None, account="main", number=0, durable=False, words="")
    (event,) = events(stream)
    assert event.keys() == {
        "event",
        "level",
        "timestamp",
        "account",
        "number",
        "durable",
        "words",
    }


@pytest.mark.parametrize("style", ["json", "text"])
def test_a_secret_shows_its_placeholder(stream: io.StringIO, style: str):
    """Handed over by mistake, bare or in something: its value isn't told."""
    secret = Secret("planted-token")
    opened(stream, style=style)("mistake", token=secret, pair=[secret], named={"token": secret})
    assert "planted" not in stream.getvalue()
    assert stream.getvalue().count("Secret(***)") == 3


def test_a_traceback_has_no_values_of_variables(stream: io.StringIO):
    """Should ever one be logged: the places are told, and not what the frames hold."""
    log = opened(stream, style="text")
    token = "planted-token".upper()
    try:
        {}[len(token)]
    except KeyError as error:
        log("defect", exc_info=error)
    assert "test_logs.py" in stream.getvalue()
    assert token not in stream.getvalue()


# --- floods


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, at rest."""
    now = [1000.0]
    monkeypatch.setattr("spotokend.adapters.logs.time.monotonic", lambda: now[0])
    return now


def test_what_repeats_itself_is_counted(stream: io.StringIO, clock: list[float]):
    """Ten lines a minute, then one that says how many more there were; then it begins anew."""
    log = opened(stream)
    for _ in range(1000):
        log("refused", level="warning", account="main", words="too many", pid=7)
    assert len(events(stream)) == REPEATS
    clock[0] += MINUTE
    log("refused", level="warning", account="main", words="too many", pid=7)
    *_, repeated, last = events(stream)
    assert len(events(stream)) == REPEATS + 2
    del repeated["timestamp"]
    assert repeated == {
        "event": "repeated",
        "level": "warning",
        "of": "refused",
        "times": 1000 - REPEATS,
        "account": "main",
        "words": "too many",
    }
    assert last["event"] == "refused"


def test_what_differs_is_told(stream: io.StringIO, clock: list[float]):
    """An outage of many accounts is a line for each, whatever else repeats itself."""
    log = opened(stream)
    for number in range(100):
        log("degraded", account=f"account-{number}", words="no answer")
        log("degraded", account="main", words=f"try {number}")
        log(f"event-{number}")
        log("refused")
    names = [event["event"] for event in events(stream)]
    assert names.count("degraded") == 200
    assert names.count("refused") == REPEATS
    assert len(names) == 300 + REPEATS


def test_what_was_counted_is_told_at_the_end(stream: io.StringIO, clock: list[float]):
    """Whoever looks for the flood that ended the program finds it."""
    log = opened(stream)
    for _ in range(REPEATS + 1):
        log("refused")
    log.close()
    repeated = events(stream)[-1]
    assert (repeated["of"], repeated["times"]) == ("refused", 1)
    assert repeated.keys() == {"event", "level", "timestamp", "of", "times"}
    log.close()
    assert len(events(stream)) == REPEATS + 1


# --- before it is open, and at the end


def test_what_happens_before_it_is_open_is_told_then_in_order(stream: io.StringIO):
    """The start doesn't wait for structlog, and loses nothing."""
    log = Log("info", "json", stream=stream)
    for number in range(5):
        log(f"event-{number}")
    assert stream.getvalue() == ""
    log.open()
    log("event-5")
    assert [event["event"] for event in events(stream)] == [f"event-{n}" for n in range(6)]


def test_nothing_is_lost_or_told_twice_while_another_thread_opens_it():
    """The daemon goes on while structlog is loaded beside it."""
    for _ in range(20):
        stream = io.StringIO()
        log = Log("info", "json", stream=stream)
        opener = threading.Thread(target=log.open)
        opener.start()
        for number in range(100):
            log(f"event-{number}")
        opener.join()
        told = sorted(str(event["event"]) for event in events(stream))
        assert told == sorted(f"event-{number}" for number in range(100))


def test_what_waits_is_bounded_and_the_newest_of_it(stream: io.StringIO):
    """A start that hangs doesn't eat the memory."""
    log = Log("info", "json", stream=stream)
    for number in range(KEPT + 3):
        log(f"event-{number}")
    log.open()
    told = [event["event"] for event in events(stream)]
    assert told == [f"event-{n}" for n in range(3, KEPT + 3)]


def test_the_end_writes_what_was_kept(stream: io.StringIO):
    """A start that fails early is just what somebody wants to read about."""
    log = Log("info", "json", stream=stream)
    log("refused")
    log.close()
    assert [event["event"] for event in events(stream)] == ["refused"]
    log.close()
    assert len(events(stream)) == 1


def test_what_has_nothing_to_say_does_not_load_structlog():
    """Neither making a log, nor keeping an event, nor ending without one: it costs as much as a start."""
    program = (
        "import io, sys; from spotokend.adapters.logs import Log\n"
        "Log('info', 'json', stream=io.StringIO()).close()\n"
        "Log('info', 'json', stream=io.StringIO())('kept')\n"
        "print('structlog' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout == "False\n"


# --- streams that are no more


@pytest.mark.parametrize("style", ["json", "text", "auto"])
def test_a_closed_stream_is_harmless(style: str):
    """Closed before the log was made, or since."""
    stream = io.StringIO()
    since = opened(stream, style=style)
    stream.close()
    since("unheard")
    before = Log("info", style, stream=stream)
    before("unheard")
    before.close()


@pytest.mark.parametrize("style", ["json", "text"])
def test_a_full_disk_costs_the_lines_and_nothing_else(style: str):
    """Once there is room, what happens from then on is told."""
    stream = Full()
    log = opened(stream, style=style)
    log("lost")
    stream.full = False
    log("told")
    assert "lost" not in stream.getvalue()
    assert "told" in stream.getvalue()


def test_a_device_without_room_is_harmless():
    """The kernel's own word for it."""
    with io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True) as stream:
        opened(stream)("lost")


def test_without_stderr_nothing_is_told_anywhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Its descriptor was closed before the start: Python has None there; stdout isn't taken for it."""
    monkeypatch.setattr(sys, "stderr", None)
    log = Log("info", "auto")
    log("unheard")
    log.open()
    log("unheard")
    log.close()
    assert capsys.readouterr().out == ""
