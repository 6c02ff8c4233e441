"""What every page has, and what no page may carry."""

import base64
import hashlib
import re

import pytest

from spotokend.sandbox import pages
from spotokend.sandbox.faults import FIELDS_OF
from spotokend.sandbox.options import CHANGEABLE, App, Options, User

EVIL = "<script>alert('\"x\"')</script>"
USER = User(id="alice", account_id="a", display_name=EVIL)
APP = App(client_id="app", name=EVIL, redirect_uris=("http://127.0.0.1/cb",))


def every_page():
    return [
        pages.refusal(EVIL, EVIL),
        pages.consent(APP, [EVIL], [USER], USER, f"/authorize?{EVIL}"),
        pages.index(Options(users=(USER,), apps=(APP,)), "http://127.0.0.1:1"),
    ]


@pytest.mark.parametrize("page", every_page())
def test_pages_carry_no_foreign_markup(page):
    """Whatever stands in names, scopes and queries."""
    assert "<script" not in page.body.decode()


@pytest.mark.parametrize("page", every_page())
def test_the_policy_allows_the_pages_own_style_and_nothing_else(page):
    """The hash is that of the style as sent; no external resources."""
    policy = dict(page.headers)["content-security-policy"]
    html = page.body.decode()
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{digest}'" in policy
    assert not re.search(r'(src|href)="', html)


@pytest.mark.parametrize("page", every_page())
def test_pages_say_language_width_and_heading(page):
    """What screen readers and small screens need."""
    html = page.body.decode()
    assert '<html lang="en">' in html
    assert 'name="viewport"' in html
    assert html.count("<h1>") == 1
    assert "prefers-color-scheme" in html


def test_the_index_names_everything():
    """Endpoints, users, apps, every option and every kind of fault."""
    html = pages.index(Options(), "http://127.0.0.1:1").body.decode()
    wanted = [
        *CHANGEABLE,
        *FIELDS_OF,
        "POST /api/token",
        "GET /sandbox/state",
        "sandbox-pkce-client",
        "carol",
        "curl http://127.0.0.1:1/sandbox/faults",
    ]
    assert [name for name in wanted if name not in html] == []
    assert "sandbox-client-secret" not in html
