"""The documents as the tests read them: sections, tables, blocks of code, and what is said of those."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))

_HEADING = re.compile(r"(#{1,6}) (.+)")
_COMMENT = re.compile(r"<!-- (.+?) -->")
_SPAN = re.compile(r"(`+)(.+?)\1(?!`)")
_ITEM = re.compile(r"\s*([-*]|\d+\.) ")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code. An indented one is of the language ``sh``."""

    page: str
    line: int
    """Its first one's number in the page."""
    language: str
    text: str
    comment: str
    """What an HTML comment directly before it says; else empty."""
    follows: bool
    """Nothing but blank lines lies between it and the block before."""

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return f"{self.page}:{self.line}"


def read(name: str) -> str:
    """The text of a page, named from the project's root."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str) -> list[Block]:
    """The blocks of code of a page, in their order."""
    lines = read(name).splitlines()
    found: list[Block] = []
    comment, in_item, follows = "", False, False
    number = 0
    while number < len(lines):
        line, start = lines[number], number
        if line.startswith("```"):
            number = lines.index("```", start + 1)
            text, language = lines[start + 1 : number], line[3:]
        elif line.startswith("    ") and not in_item:
            while number < len(lines) and (not lines[number] or lines[number][:4] == "    "):
                number += 1
            text, language = [line[4:] for line in lines[start:number]], "sh"
            number -= 1
        else:
            if line:
                said = _COMMENT.fullmatch(line)
                comment, follows = (said[1] if said else ""), False
                in_item = bool(_ITEM.match(line)) or (in_item and line.startswith(" "))
            number += 1
            continue
        found.append(
            Block(name, start + 1, language, "\n".join(text).rstrip() + "\n", comment, follows)
        )
        comment, in_item, follows = "", False, True
        number += 1
    return found


def prose(name: str) -> str:
    """A page without its blocks of code."""
    text = re.sub(r"^```.*?^```$", "", read(name), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"(?:^    .*\n)+", "", text, flags=re.MULTILINE)


def headings(name: str) -> list[str]:
    """The headings of a page, as written."""
    return [match[2] for line in prose(name).splitlines() if (match := _HEADING.fullmatch(line))]


def section(name: str, heading: str) -> str:
    """What stands below a heading, up to the next one of the same level or above."""
    lines = read(name).splitlines()
    start = next(n for n, line in enumerate(lines) if line.lstrip("#") == f" {heading}")
    level = lines[start].index(" ")
    text = []
    for line in lines[start + 1 :]:
        match = _HEADING.fullmatch(line)
        if match and len(match[1]) <= level:
            break
        text.append(line)
    return "\n".join(text)


def rows(text: str) -> list[list[str]]:
    """The rows of the tables in a text, without their heads; each a list of cells."""
    found: list[list[str]] = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        head = number + 1 < len(lines) and lines[number + 1].startswith("|---")
        if line.startswith("|") and not line.startswith("|---") and not head:
            found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


def spans(text: str) -> list[str]:
    """What stands in back quotes."""
    return [match[2].strip() for match in _SPAN.finditer(text)]


def slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
