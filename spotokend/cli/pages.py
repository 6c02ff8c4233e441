"""The pages on which the browser ends: small, calm, and of one piece.

Nothing is loaded from anywhere and nothing runs: no script, font, picture or stylesheet. Sizes are
in rem and colours in the system's two schemes, so that a reader's own font size, dark mode and
screen reader work. A page never holds a code, a state or a token.
"""

from __future__ import annotations

from html import escape

from .terminal import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

STYLE = (
    ":root{color-scheme:light dark}"
    "body{margin:0;min-height:100vh;display:grid;place-items:center;"
    "font:1rem/1.6 system-ui,sans-serif;background:#f6f6f4;color:#1d1d1b}"
    "main{box-sizing:border-box;max-width:36rem;width:100%;padding:2.5rem 1.5rem}"
    "h1{margin:0 0 1rem;font-size:1.6rem;line-height:1.25;font-weight:600}"
    "p{margin:0 0 1rem;overflow-wrap:anywhere}"
    "p.next{padding-left:.9rem;border-left:.2rem solid #2f7d4f}"
    "p.from{margin:2.5rem 0 0;font-size:.875rem;color:#5c5c57}"
    "@media(prefers-color-scheme:dark){body{background:#181917;color:#ecece7}"
    "p.next{border-color:#6cc08b}p.from{color:#a3a39c}}"
)
# Contrast of the palest text on its ground: 6.2:1 by day, 6.9:1 by night; WCAG AA asks for 4.5:1.


class Page:
    """One page: ``name`` is the last part of its address, ``status`` its HTTP status."""

    __slots__ = ("body", "name", "status")

    def __init__(
        self, name: str, status: int, title: str, paragraphs: Sequence[str], cure: str = ""
    ) -> None:
        self.name = name
        self.status = status
        lines = [f"<p>{_text(paragraph)}</p>" for paragraph in paragraphs]
        if cure:
            lines.append(f'<p class="next">{_text(cure)}</p>')
        self.body = (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
            f"<title>{_text(title)} – spotokend</title>\n<style>{STYLE}</style>\n</head>\n"
            f"<body>\n<main>\n<h1>{_text(title)}</h1>\n"
            + "\n".join(lines)
            + '\n<p class="from">spotokend, on this computer</p>\n</main>\n</body>\n</html>\n'
        ).encode()


def _text(text: str) -> str:
    return escape(clean(text))


def success(account: str, who: str, notes: Sequence[str]) -> Page:
    """The login is done; ``who`` is the person's name at the provider, or empty."""
    name = f"as {who}, account {account}" if who else f"account {account}"
    return Page(
        "done",
        200,
        "You are logged in",
        [f"Logged in {name}.", *notes],
        "You can close this page. Programs on this computer can now ask spotokend for tokens.",
    )


def denied() -> Page:
    """The person said no."""
    return Page(
        "denied",
        403,
        "You did not agree",
        ["The provider says that access was refused, so nothing was stored."],
        "If that was a mistake, type the login command again in your terminal.",
    )


def wrong_state(message: str) -> Page:
    """This address doesn't belong to the login that is waiting, which goes on."""
    return Page(
        "not-this-login",
        400,
        "This page belongs to another login",
        [message, "The login in your terminal is not affected: it still waits."],
        "Go back to the tab that your terminal opened last, or open the address it shows.",
    )


def over(message: str) -> Page:
    """It was this login's answer, but too late, or one whose code is good no more."""
    return Page(
        "over",
        410,
        "This login is over",
        [message, "Nothing was changed: a login that was there before still works."],
        "Type the login command again in your terminal.",
    )


def used() -> Page:
    """The address came once more: reloaded, or from the history."""
    return Page(
        "used",
        410,
        "This login has ended already",
        ["The address that brought you here works once, and was used."],
        "Your terminal says how the login ended. You can close this page.",
    )


def other_user(message: str, cure: str) -> Page:
    """Somebody logged in, but not the one who holds this account."""
    return Page(
        "other-user",
        409,
        "This is another user",
        [message, "The login that was there before is unchanged."],
        cure,
    )


def unsuccessful(message: str, cure: str) -> Page:
    """Everything else, in the daemon's own words."""
    return Page(
        "not-logged-in",
        502,
        "You are not logged in yet",
        [message],
        cure or "Your terminal says what can be done.",
    )
