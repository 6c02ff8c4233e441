"""The pages on which the browser ends: whole, harmless, and readable by everybody."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from spotokend.cli import pages

AGAIN = "spotokend login main"
ENDED = [
    pages.ended(outcome, "the words of the daemon", "look here; or there", AGAIN)
    for outcome in pages.ENDS
]
PAGES = [pages.success("main", "Alice", ["the scope streaming was not granted"]), *ENDED]


class Outline(HTMLParser):
    """Every tag, every attribute, the text, and the commands in it."""

    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.attributes = {}
        self.text = ""
        self.commands = []
        self._in_code = False
        self.feed(page.body.decode())
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.update(attrs)
        if tag == "code":
            self._in_code = True
            self.commands.append("")

    def handle_endtag(self, tag):
        self._in_code = self._in_code and tag != "code"

    def handle_data(self, data):
        self.text += data
        if self._in_code:
            self.commands[-1] += data


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_runs_and_nothing_is_loaded(page):
    """No script, no link, no picture from elsewhere: what the policy forbids isn't there either."""
    outline = Outline(page)

    structure = {"html", "head", "meta", "title", "style", "body", "main", "div", "section"}
    drawing = {"svg", "circle", "path"}
    words = {"h1", "h2", "p", "code", "span", "footer"}
    assert set(outline.tags) <= structure | drawing | words
    assert not {"src", "href", "style", "onload"} & set(outline.attributes)
    assert b"url(" not in page.body
    assert b"@import" not in page.body


def test_the_policy_allows_the_one_style_of_the_pages_by_its_hash():
    """Hashed as a browser does it: what stands between the tags, byte by byte."""
    for page in PAGES:
        (style,) = re.findall(rb"<style>(.*?)</style>", page.body, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
        assert f"style-src 'sha256-{digest}'" in pages.POLICY
    assert pages.POLICY.startswith("default-src 'none'; ")
    assert "unsafe" not in pages.POLICY


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_screen_reader_finds_its_way(page):
    """A language, a title, one heading, one main part, what happened as a status."""
    outline = Outline(page)
    body = page.body.decode()

    assert outline.attributes["lang"] == "en"
    assert outline.attributes["role"] == "status"
    assert outline.attributes["aria-hidden"] == "true"  # the drawing says nothing of its own
    assert [outline.tags.count(tag) for tag in ("title", "main", "h1", "h2")] == [1, 1, 1, 1]
    (heading,) = re.findall("<h1>(.*?)</h1>", body)
    assert f"<title>{heading} – spotokend</title>" in body


def test_the_style_is_for_every_reader():
    """Both schemes, more contrast, forced colours; sizes that follow the reader's own."""
    for setting in (
        "prefers-color-scheme: dark",
        "prefers-contrast: more",
        "forced-colors: active",
    ):
        assert f"({setting})" in pages.STYLE
    assert re.findall(r"[\d.]+px", pages.STYLE) == ["1px", "1px"]  # of lines
    assert all(b"user-scalable" not in page.body for page in PAGES)


def test_each_page_has_an_address_and_a_title_of_its_own():
    """Names are plain parts of a path; no two ends look alike."""
    names = [page.name for page in PAGES]
    titles = [re.findall(b"<h1>(.*?)</h1>", page.body) for page in PAGES]

    assert len({*names}) == len(PAGES) == len({*map(str, titles)})
    assert all(name.replace("-", "").isalpha() for name in names)


def test_each_page_says_what_to_do_next():
    """Most with a command; where a login waits there is none to type."""
    commands = {page.name: Outline(page).commands for page in PAGES}

    assert commands.pop("done") == ["spotokend status main"]
    assert commands.pop("used") == ["spotokend status"]
    assert commands.pop("not-this-login") == []
    assert commands.pop("other-user") == []  # all in the hint
    assert all(typed == [AGAIN] for typed in commands.values())


def test_success_says_who_it_is():
    """The name at the provider and the account's; what else is to be known."""
    text = Outline(pages.success("main", "王小明", ["a note"])).text

    assert "Logged in as 王小明, account main." in text
    assert "A note." in text


def test_success_without_a_name():
    """Providers that don't say who it is."""
    assert "Account main is logged in." in Outline(pages.success("main", "", [])).text


def test_names_are_no_markup():
    """A display name is somebody else's text."""
    page = pages.success("main", "<script>alert(1)</script>\x1b", [])

    assert b"<script" not in page.body
    assert "<script>alert(1)</script>\ufffd" in Outline(page).text


def test_the_words_of_the_daemon_are_sentences_here():
    """On the terminal they have no capital letter and no full stop; braces are only text."""
    text = Outline(pages.ended("unavailable", "the server {x} has gone", None, AGAIN)).text

    assert "\nThe server {x} has gone.\n" in text


@pytest.mark.parametrize(
    ("hint", "said", "commands"),
    [
        (None, [], [AGAIN]),
        (AGAIN, [], [AGAIN]),
        ("wait a little", ["Wait a little."], [AGAIN]),
        (
            "mend it, then run: spotokend reload",
            ["Mend it, then run:"],
            ["spotokend reload", AGAIN],
        ),
        (
            "log out: `spotokend login main`; or do this: `spotokend logout main`",
            ["Log out:", "Or do this:"],
            ["spotokend login main", "spotokend logout main", AGAIN],
        ),
        (
            "look at `spotokend status` before",
            ["Look at spotokend status before."],
            ["spotokend status", AGAIN],
        ),
    ],
)
def test_a_hint_comes_before_the_command(hint, said, commands):
    """Each step a paragraph, each command a block; a hint that is a mere command says no more."""
    outline = Outline(pages.ended("refused", "no", hint, AGAIN))

    assert outline.commands == commands
    for words in said:
        assert f"\n{words}\n" in outline.text


def test_an_end_that_is_not_known_is_told_in_the_daemon_s_words():
    """A newer daemon's, or a connection that was lost."""
    page = pages.ended("something new", "the connection was lost", "look at the log", AGAIN)

    assert (page.name, page.status) == ("unfinished", 502)
    assert "The connection was lost." in Outline(page).text
    assert "Look at the log." in Outline(page).text


def test_used_is_a_page_without_the_daemon():
    """The login has ended, and the daemon need not be asked."""
    assert pages.used().body == pages.ended("used", "", None, "").body
