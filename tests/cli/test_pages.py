"""The pages on which the browser ends: whole, harmless, and readable by everybody."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from spotokend.cli import pages

PAGES = [
    pages.success("main", "Alice", ["The scope streaming was not granted."]),
    pages.denied(),
    pages.wrong_state("that address has no state"),
    pages.over("The code is too old."),
    pages.used(),
    pages.other_user("This is Bob.", "Log in as Alice."),
    pages.unsuccessful("The provider does not answer.", "Try again later."),
]


class Outline(HTMLParser):
    """Every tag, every attribute, and the text."""

    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.attributes = {}
        self.text = ""
        self.feed(page.body.decode())
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.update(attrs)

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_runs_and_nothing_is_loaded(page):
    """No script, no link, no picture: what the policy forbids isn't there either."""
    outline = Outline(page)

    assert set(outline.tags) <= {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "h1",
        "p",
    }
    assert not {"src", "href", "style", "onload"} & set(outline.attributes)
    assert b"url(" not in page.body
    assert b"@import" not in page.body


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_screen_reader_finds_its_way(page):
    """A language, a title, one heading, one main part; sizes that follow the reader's own."""
    outline = Outline(page)
    body = page.body.decode()

    assert outline.attributes["lang"] == "en"
    assert [outline.tags.count(tag) for tag in ("title", "main", "h1")] == [1, 1, 1]
    assert "prefers-color-scheme:dark" in body
    assert "px" not in body
    assert "user-scalable" not in body


def test_each_page_has_an_address_of_its_own():
    """Their names differ, and are plain parts of a path."""
    names = [page.name for page in PAGES]

    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").isalpha() for name in names)


def test_success_says_who_it_is():
    """The name at the provider and the account's; what else is to be known."""
    text = Outline(pages.success("main", "王小明", ["A note."])).text

    assert "Logged in as 王小明, account main." in text
    assert "A note." in text


def test_success_without_a_name():
    """Providers that don't say who it is."""
    assert "Logged in account main." in Outline(pages.success("main", "", [])).text


def test_names_are_no_markup():
    """A display name is somebody else's text."""
    page = pages.success("main", "<script>alert(1)</script>\x1b", [])

    assert b"<script" not in page.body
    assert "<script>alert(1)</script>\ufffd" in Outline(page).text


def test_what_to_do_next_is_told():
    """In the daemon's words where it has some, else where to look."""
    assert "Try again later." in Outline(PAGES[-1]).text
    assert "Your terminal says" in Outline(pages.unsuccessful("No.", "")).text
