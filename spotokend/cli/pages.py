"""The pages on which the browser ends: small, calm, and of one piece.

Each way for a login to end has a page of its own, that says what happened and what to do next.
Nothing is loaded from anywhere and nothing runs: no script, font, picture or stylesheet, and the
policy allows none but the one style that is in the page. Sizes are in rem and colours in the
system's schemes, so that a reader's own font size, dark mode, contrast and screen reader work; no
meaning is in a colour or a drawing alone. A page never holds a code, a state or a token.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from .terminal import clean

STYLE = """
:root { color-scheme: light dark; --ground: #f8f7f4; --text: #21211e; --quiet: #5d5c56;
  --line: #d8d6ce; --field: #efede6; --good: #23693f; --calm: #6d5312; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #181816; --text: #ebeae4; --quiet: #a9a79f; --line: #3c3b37; --field: #24231f;
    --good: #85cfa2; --calm: #dcbf76; }
}
@media (prefers-contrast: more) {
  :root { --ground: #fff; --text: #000; --quiet: #000; --line: #000; --field: #fff; --good: #000;
    --calm: #000; }
}
@media (prefers-contrast: more) and (prefers-color-scheme: dark) {
  :root { --ground: #000; --text: #fff; --quiet: #fff; --line: #fff; --field: #000; --good: #fff;
    --calm: #fff; }
}
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; align-items: center; justify-items: center;
  padding: clamp(1.5rem, 6vh, 5rem) min(1.5rem, 6vw); background: var(--ground);
  color: var(--text); font: 1rem/1.6 system-ui, sans-serif; overflow-wrap: anywhere; }
main { width: 100%; max-width: 34rem; }
svg { display: block; width: 2.75rem; height: 2.75rem; margin: 0 0 1.25rem; fill: none;
  stroke: var(--calm); stroke-width: 1.5; stroke-linecap: round; stroke-linejoin: round; }
.check svg { stroke: var(--good); }
h1 { margin: 0 0 .75rem; font-size: clamp(1.3rem, 1rem + 3vw, 1.9rem); line-height: 1.25;
  font-weight: 600; letter-spacing: -.01em; }
h2 { margin: 0 0 .5rem; font-size: 1rem; line-height: 1.4; font-weight: 600; }
p { margin: 0 0 .75rem; }
section { margin: 2rem 0 0; padding: 1.5rem 0 0; border-top: 1px solid var(--line); }
code { font: .9375em/1.5 ui-monospace, monospace; }
code { user-select: all; -webkit-user-select: all; padding: .1em .35em; border-radius: .3em;
  background: var(--field); border: 1px solid var(--line); box-decoration-break: clone;
  -webkit-box-decoration-break: clone; }
code span { display: inline-block; max-width: 100%; }
.command code { display: block; padding: .7em .9em; border-radius: .5em; }
footer { margin: 2rem 0 0; font-size: .875rem; color: var(--quiet); }
@media (forced-colors: active) { svg, .check svg { stroke: CanvasText; } }
"""
# Contrast of the palest text on its ground: 6.3:1 by day, 7.4:1 by night; WCAG 2.2 asks for 4.5:1.

POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src"
    f" 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
)
"""The Content-Security-Policy of every page (CSP 3): that one style, and nothing else."""

_CHECK, _CLOCK, _BAR = "check", "clock", "bar"
_MARKS = {
    _CHECK: '<circle cx="12" cy="12" r="10"/><path d="m7.5 12.5 3 3 6-6.5"/>',
    _CLOCK: '<circle cx="12" cy="12" r="10"/><path d="M12 6.5V12l3.5 2"/>',
    _BAR: '<circle cx="12" cy="12" r="10"/><path d="M7.5 12h9"/>',
}


class End(NamedTuple):
    """One way for a login to end, or not to: what is said, and what to do next."""

    status: int
    mark: str
    title: str
    said: str
    """Paragraphs, a line each; with the error's ``message`` where it knows more."""
    cure: str
    """Ends in the command, where there is one to type."""
    hinted: bool = False
    """Before the cure comes the error's hint."""


class Page:
    """One page: ``name`` is the last part of its address, ``status`` its HTTP status."""

    __slots__ = ("body", "name", "status")

    def __init__(self, name: str, end: End, said: Sequence[str], cure: Sequence[str]) -> None:
        self.name = name
        self.status = end.status
        self.body = (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
            f"<title>{_text(end.title)} – spotokend</title>\n<style>{STYLE}</style>\n</head>\n"
            f'<body>\n<main class="{end.mark}">\n'
            f'<svg viewBox="0 0 24 24" aria-hidden="true">{_MARKS[end.mark]}</svg>\n'
            f'<div role="status">\n<h1>{_text(end.title)}</h1>\n{_paragraphs(said)}</div>\n'
            f'<section aria-labelledby="next">\n<h2 id="next">What next</h2>\n{_paragraphs(cure)}'
            "</section>\n<footer>This page comes from spotokend, on this computer.</footer>\n"
            "</main>\n</body>\n</html>\n"
        ).encode()


def success(account: str, who: str, notes: Sequence[str]) -> Page:
    """The login is done; ``who`` is the person's name at the provider, or empty."""
    first = f"Logged in as {who}, account {account}." if who else f"Account {account} is logged in."
    return Page(
        "done",
        DONE,
        [first, *map(_sentence, notes)],
        [DONE.cure.format(command=f"spotokend status {account}")],
    )


def ended(outcome: str, message: str, hint: str | None, again: str) -> Page:
    """The page for an error of ``login_finish``, or for whatever else kept a login from its end.

    ``outcome`` is the error's; without a known one the page is in the daemon's words alone.
    ``again`` is the command that begins the login once more.
    """
    name = outcome if outcome in ENDS else UNFINISHED
    end = ENDS[name]
    said = end.said.format(message=_sentence(message)).split("\n")
    cure = [end.cure.format(command=again)] if end.cure else []
    # A hint that is a mere command says no more than ``again``.
    if end.hinted and hint and not hint.startswith("spotokend "):
        cure = [*map(_sentence, hint.split("; ")), *cure]
    return Page(name.replace("_", "-"), end, said, cure)


def used() -> Page:
    """The address came once more after the login's end: from a second tab, or the history."""
    return ended("used", "", None, "")


_UNCHANGED = "Nothing was changed: a login that was there before still works."
_AGAIN = "To begin again, type this in your terminal: `{command}`"

DONE = End(
    200,
    _CHECK,
    "You are logged in",
    "",
    "You can close this page. The programs on this computer can have tokens now. To see how the"
    " account is, type this in your terminal: `{command}`",
)
UNFINISHED = "unfinished"
ENDS = {
    "not_this_login": End(
        400,
        _CLOCK,
        "This is not the answer to your login",
        "The address that brought you here belongs to another attempt, or only a part of it has"
        " arrived.\nThe login in your terminal is not affected: it still waits.",
        "Go back to the tab that was opened last, and agree there; or open the address that your"
        " terminal shows.",
    ),
    "denied": End(
        403,
        _BAR,
        "You did not agree",
        f"The provider says that access was refused, so nothing was stored.\n{_UNCHANGED}",
        "If that was a mistake, type this in your terminal: `{command}`",
    ),
    "expired": End(
        410,
        _BAR,
        "This login took too long",
        "More time than is allowed passed between its beginning and your answer, so the answer is"
        f" no longer good.\n{_UNCHANGED}",
        "Type this in your terminal, and agree within a few minutes: `{command}`",
    ),
    "used": End(
        410,
        _BAR,
        "This login has ended already",
        "The address that brought you here works once, and was used.\n"
        "Your terminal says how the login ended.",
        "You can close this page. To see who is logged in, type this in your terminal:"
        " `spotokend status`",
    ),
    "cancelled": End(
        410,
        _BAR,
        "This login was cancelled",
        "It was ended before your answer came: in the terminal, or by the program that began it.\n"
        f"{_UNCHANGED}",
        _AGAIN,
    ),
    "unknown": End(
        410,
        _BAR,
        "This login was forgotten",
        f"The daemon was restarted after the login began, and no longer knows it.\n{_UNCHANGED}",
        _AGAIN,
    ),
    "other_user": End(
        409,
        _BAR,
        "This is another user",
        "{message}\nThe login that was there before is unchanged.",
        "",
        hinted=True,
    ),
    "client_changed": End(
        409,
        _BAR,
        "The settings were changed",
        "{message}\nSo your answer could not be used.",
        _AGAIN,
        hinted=True,
    ),
    "refused": End(
        502,
        _BAR,
        "The provider refused the login",
        f"{{message}}\n{_UNCHANGED}",
        _AGAIN,
        hinted=True,
    ),
    "unavailable": End(
        503,
        _BAR,
        "The login could not be finished",
        f"{{message}}\nYour answer could be used only once.\n{_UNCHANGED}",
        "After a little while, type this in your terminal: `{command}`",
    ),
    UNFINISHED: End(
        502,
        _BAR,
        "The login did not come to its end",
        "{message}",
        _AGAIN,
        hinted=True,
    ),
}
"""By ``details["outcome"]``, and one for an error that has none."""


def _paragraphs(lines: Sequence[str]) -> str:
    """What stands in backticks is a command, as in hints on the terminal.

    One at the end of a line is a block of its own, easily selected as a whole.
    """
    html = []
    for line in lines:
        words, _, command = line.removesuffix("`").rpartition("`")
        if not line.endswith("`"):
            words, command = line, ""
        inline = re.sub(r"`([^`]+)`", lambda match: _code(match[1]), _text(words.strip()))
        html.append(f"<p>{inline}</p>\n")
        if command:
            html.append(f'<p class="command">{_code(_text(command))}</p>\n')
    return "".join(html)


def _code(html: str) -> str:
    # Each word in one piece: browsers break lines after hyphens, also in --scope.
    return f"<code>{' '.join(f'<span>{word}</span>' for word in html.split())}</code>"


def _text(text: str) -> str:
    return escape(clean(text))


def _sentence(words: str) -> str:
    """Errors are worded without capital letter and full stop; and hints end in ``: COMMAND``."""
    words = re.sub(r": (spotokend [^`]+)$", r": `\1`", f"{words[:1].upper()}{words[1:]}")
    return words if words.endswith((".", "`")) else f"{words}."
