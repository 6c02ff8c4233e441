"""Which hook hears which notice, and that nothing in a notice is more than words to whom it reaches."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotokend.rules import hooks
from spotokend.rules.config.values import HookConfig
from spotokend.rules.notice import Level, Notice
from spotokend.rules.schedule import Wall

NOTICE = Notice(
    "login_required", Level.ERROR, "main", "it was refused", "spotokend login main", Wall(1.25)
)
EVERYTHING = HookConfig(name="everything", command=("true",))
DESKTOP = HookConfig(name="desktop", desktop=True)


def test_a_notice_comes_back_from_the_wire():
    """As it was told."""
    assert hooks.heard(NOTICE.to_wire()) == NOTICE


def test_a_notice_need_not_concern_an_account_nor_have_a_cure():
    """Such as that the clock was set."""
    bare = replace(NOTICE, account=None, hint=None)
    assert hooks.heard(bare.to_wire()) == bare


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": 1},
        {"level": "shouted"},
        {"account": 1},
        {"message": None},
        {"hint": 1},
        {"at": "now"},
    ],
)
def test_what_is_of_another_form_is_no_notice(changed):
    """Nothing is guessed."""
    assert hooks.heard(NOTICE.to_wire() | changed) is None


def test_a_map_without_the_fields_is_no_notice():
    """As of a daemon to come."""
    assert hooks.heard({}) is None


@pytest.mark.parametrize(
    ("hook", "notice", "wanted"),
    [
        (EVERYTHING, NOTICE, True),
        (EVERYTHING, replace(NOTICE, account=None), True),
        (EVERYTHING, replace(NOTICE, kind="token", level=Level.DEBUG), False),
        (
            replace(EVERYTHING, kinds=("token",)),
            replace(NOTICE, kind="token", level=Level.DEBUG),
            True,
        ),
        (replace(EVERYTHING, kinds=("token",)), NOTICE, False),
        (replace(EVERYTHING, accounts=("work", "main")), NOTICE, True),
        (replace(EVERYTHING, accounts=("work",)), NOTICE, False),
        (replace(EVERYTHING, accounts=("main",)), replace(NOTICE, account=None), False),
    ],
)
def test_a_hook_hears_what_it_is_for(hook, notice, wanted):
    """By kind and account; without kinds all but what is told each hour."""
    assert list(hooks.wanting([hook], notice)) == ([hook] if wanted else [])


def test_every_hook_that_is_for_it_hears_it():
    """In the order of the file."""
    assert list(hooks.wanting([DESKTOP, EVERYTHING], NOTICE)) == [DESKTOP, EVERYTHING]


def test_the_fields_of_a_notice():
    """Each under its name."""
    assert hooks.fields(NOTICE) == {
        "SPOTOKEND_KIND": "login_required",
        "SPOTOKEND_LEVEL": "error",
        "SPOTOKEND_ACCOUNT": "main",
        "SPOTOKEND_MESSAGE": "it was refused",
        "SPOTOKEND_HINT": "spotokend login main",
        "SPOTOKEND_AT": "1.250",
    }


def test_what_a_notice_lacks_is_empty():
    """And not what the hooks' own process has inherited under that name."""
    told = hooks.fields(replace(NOTICE, account=None, hint=None))
    assert [told["SPOTOKEND_ACCOUNT"], told["SPOTOKEND_HINT"]] == ["", ""]


@given(text=st.text())
def test_no_field_holds_what_a_terminal_would_obey(text):
    """Whatever a provider says: each is one printable line, which every environment can hold."""
    told = hooks.fields(replace(NOTICE, kind=text, account=text, message=text, hint=text))
    assert all(value.isprintable() for value in told.values())


def test_a_command_is_started_as_it_is_written():
    """The notice adds nothing to its arguments."""
    hook = HookConfig(name="light", command=("light", "$SPOTOKEND_KIND"))
    assert hooks.command(hook, NOTICE) == ("light", "$SPOTOKEND_KIND")


def test_the_desktop_shows_the_command_to_type():
    """And whose login it is."""
    assert hooks.command(DESKTOP, NOTICE) == (
        "notify-send",
        "--app-name=spotokend",
        "--urgency=critical",
        "--",
        "spotokend: main",
        "it was refused\nspotokend login main",
    )


@pytest.mark.parametrize(
    ("level", "urgency"),
    [("debug", "low"), ("info", "low"), ("warning", "normal"), ("error", "critical")],
)
def test_the_desktop_is_told_as_loudly_as_it_matters(level, urgency):
    """Critical ones stay until they are looked at."""
    assert f"--urgency={urgency}" in hooks.command(DESKTOP, replace(NOTICE, level=Level(level)))


def test_the_desktop_takes_no_word_for_an_option_or_for_markup():
    """A provider's description is text, and stays it."""
    message = "--help <b>&\x1b</b>"
    told = hooks.command(DESKTOP, replace(NOTICE, account=None, message=message, hint=None))
    assert told[3:] == ("--", "spotokend", "--help &lt;b&gt;&amp;\ufffd&lt;/b&gt;")
