"""The documents say what the program does: what can be made from the code is, and compared."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from functools import cache

import documents
import lowest
import pytest
from documents import PAGES, ROOT

import spotokend
from spotokend import errors
from spotokend.cli import first_run
from spotokend.cli.api_errors import MEANINGS
from spotokend.cli.grammar import Argument, Command
from spotokend.cli.options import COMMANDS
from spotokend.cli.pages import ENDS, UNFINISHED
from spotokend.cli.scopes import PURPOSES
from spotokend.rules.config.keys import SECTIONS
from spotokend.rules.methods import METHODS
from spotokend.rules.notice import KINDS, NAMES
from spotokend.rules.refusals import REFUSALS, STATUSES
from spotokend.rules.transitions import TRANSITIONS
from spotokend.sandbox import Kind, Options
from spotokend.sandbox.faults import FIELDS_OF, FIELDS_OF_ALL
from spotokend.sandbox.options import CHANGEABLE
from spotokend.service.refresh import _OUTCOMES

EVERYTHING = (*PAGES, "CHANGELOG.md", "SECURITY.md")
PLACEHOLDER = "…"


def leaves() -> Iterator[tuple[str, Command]]:
    """Each command that can be typed, with all of its name: ``config check``."""
    for command in COMMANDS:
        if command.commands:
            yield from ((f"{command.name} {inner.name}", inner) for inner in command.commands)
        else:
            yield command.name, command


def usage(name: str, command: Command) -> str:
    """A command and its arguments, as its heading has them."""
    return " ".join(["spotokend", name, *map(shown, command.arguments)])


def shown(argument: Argument) -> str:
    """An argument: ``PATH``, ``[ACCOUNT]``, ``[ACCOUNT]…``."""
    word = argument.name.removesuffix("s").upper()
    return {"": word, "?": f"[{word}]", "*": f"[{word}]…"}[argument.count]


@cache
def trees() -> dict[str, ast.Module]:
    """The package's modules, parsed."""
    package = ROOT / "spotokend"
    return {
        str(path.relative_to(package)): ast.parse(path.read_text())
        for path in package.rglob("*.py")
    }


@cache
def sayings() -> str:
    """All text in the package's source, with a placeholder for each value that is put in."""
    found = []
    for tree in trees().values():
        inside = {
            id(part)
            for node in ast.walk(tree)
            if isinstance(node, ast.JoinedStr)
            for part in node.values
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(map(_piece, node.values)))
            elif isinstance(node, ast.Constant) and id(node) not in inside:
                found.append(_piece(node))
    return re.sub(r"{\w+}", PLACEHOLDER, "\n".join(found))


def _piece(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else PLACEHOLDER


def diagram() -> str:
    """The transitions as Mermaid draws them; what always wins and what changes no state left out."""
    lines = ["stateDiagram-v2"]
    for state, events in TRANSITIONS.items():
        by_target: dict[str, list[str]] = {}
        for event, targets in events.items():
            if event.__name__ in {"LoggedIn", "LoggedOut", "ChangedElsewhere"}:
                continue
            for target in targets - {state}:
                by_target.setdefault(NAMES[target], []).append(event.__name__)
        lines += [
            f"    {NAMES[state]} --> {target}: {', '.join(sorted(names))}"
            for target, names in sorted(by_target.items())
        ]
    return "\n".join(lines)


# The command line.


@pytest.mark.parametrize(("name", "command"), list(leaves()))
def test_every_command_has_its_section(name: str, command: Command):
    """In docs/commands.md, with the arguments in the heading and a row for each option."""
    section = documents.section("docs/commands.md", f"`{usage(name, command)}`")
    told = {tuple(documents.spans(row[0])) for row in documents.rows(section)} - {()}
    assert told == {
        tuple(filter(None, (option.short, f"{option.flag} {option.metavar}".rstrip())))
        for option in command.options
    }


@pytest.mark.parametrize(("name", "command"), list(leaves()))
def test_every_choice_of_an_option_is_named(name: str, command: Command):
    """In the option's row, and its default where it has one."""
    section = documents.section("docs/commands.md", f"`{usage(name, command)}`")
    for option in command.options:
        row = next(row for row in documents.rows(section) if option.flag in row[0])
        assert set(option.choices) <= set(documents.spans(row[1]))


@pytest.mark.parametrize("code", sorted(errors.BY_CODE))
def test_every_code_has_its_exit_status(code: str):
    """In the table of docs/commands.md, in the row of its status."""
    table = documents.rows(documents.section("docs/commands.md", "Exit statuses"))
    statuses = [row[0] for row in table if code in documents.spans(row[1])]
    assert statuses == [str(errors.BY_CODE[code].exit_status)]


def test_every_variable_of_ours_is_explained():
    """Each that the package's source names, in docs/commands.md."""
    table = documents.rows(documents.section("docs/commands.md", "Variables"))
    told = {name for row in table for name in documents.spans(row[0])}
    named = {*re.findall(r"\bSPOTOKEND_[A-Z]+\b", sayings()), *first_run.CLIENT_IDS}
    assert named | {first_run.REDIRECT} == {name for name in told if name.startswith("SPOT")}


@pytest.mark.parametrize("page", EVERYTHING)
def test_every_command_that_is_mentioned_can_be_typed(page: str):
    """Its name and its options; in prose, where nobody runs it."""
    messages = quotes() if page == "docs/trouble.md" else []
    for span in documents.spans(documents.prose(page)):
        words = span.split()
        if words[:1] != ["spotokend"] or not words[1:] or span in messages:
            continue
        if words[1] in {"COMMAND", "--version"}:
            continue
        found = [
            command
            for name, command in leaves()
            if words[1 : 1 + len(name.split())] == name.split()
        ]
        assert found or words[1] in {c.name for c in COMMANDS if c.commands}, span
        flags = {flag for c in found for o in c.options for flag in (o.flag, o.short)}
        asked = {word for word in words if word.startswith("-") and word != "--help"}
        assert asked <= flags, span


# The daemon.


def test_the_diagram_is_that_of_the_code():
    """To renew it, put what this test shows into docs/accounts.md."""
    drawn = [b.text for b in documents.blocks("docs/accounts.md") if b.language == "mermaid"]
    assert drawn == [diagram() + "\n"]


@pytest.mark.parametrize("name", NAMES.values())
def test_every_state_is_explained(name: str):
    """In the table of docs/accounts.md."""
    assert f"| `{name}` |" in documents.read("docs/accounts.md")


def test_every_notice_is_explained():
    """In docs/accounts.md: each kind that the source makes, and no other."""
    told = documents.rows(documents.section("docs/accounts.md", "What you are told"))
    kinds = {name for row in told if len(row) == 3 for name in documents.spans(row[0])}
    assert kinds == set(notice_kinds()) == set(KINDS)


def notice_kinds() -> Iterator[str]:
    """The first of each tuple that rules/notice.py yields, of each Notice, and of what makes one."""
    for node in ast.walk(trees()["rules/notice.py"]):
        if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
            yield ast.literal_eval(node.value.elts[0])
    for tree in trees().values():
        for node in ast.walk(tree):
            function = getattr(node, "func", None)
            if isinstance(node, ast.Call) and (
                getattr(function, "id", "") == "Notice"
                or getattr(function, "attr", "") == "_notice"
            ):
                kind = node.args[0]
                if isinstance(kind, ast.Constant):
                    yield str(kind.value)


def test_every_outcome_of_a_refresh_is_explained():
    """In docs/accounts.md, as ``spotokend status ACCOUNT`` names them."""
    told = documents.rows(documents.section("docs/accounts.md", "What you are told"))
    outcomes = {name for row in told if len(row) == 2 for name in documents.spans(row[0])}
    assert outcomes == {*_OUTCOMES.values(), "renewed", "not saved"}


def test_every_end_of_a_login_is_explained():
    """In docs/login.md: each ``details["outcome"]`` that has a page for the browser."""
    table = documents.rows(documents.section("docs/login.md", "How a login can end"))
    assert {documents.spans(row[0])[0] for row in table} == ENDS.keys() - {UNFINISHED}


def test_every_purpose_of_scopes_is_named():
    """In docs/login.md, with its number, its meaning and its scopes, as the first run offers them."""
    table = documents.rows(documents.section("docs/login.md", "More scopes"))
    assert [(*row[:3], documents.spans(row[3])) for row in table] == [
        (str(number), f"`{purpose.word}`", purpose.meaning, list(purpose.scopes))
        for number, purpose in enumerate(PURPOSES, 1)
    ]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_explained_with_its_arguments(method: str):
    """In docs/protocol.md, below the method's heading; required ones with an asterisk."""
    section = documents.section("docs/protocol.md", method)
    table = section.partition(f"<!-- table: arguments of {method} -->")[2].partition("\n\n")[0]
    assert {row[0] for row in documents.rows(table)} == {
        f"`{name}` *" if argument.required else f"`{name}`"
        for name, argument in METHODS[method].arguments.items()
    }


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_explained(section: str):
    """In docs/configuration.md, with the default that the parser has."""
    table = documents.rows(documents.section("docs/configuration.md", section.capitalize()))
    told = {documents.spans(row[0])[0]: documents.spans(row[1]) for row in table}
    assert told == {
        name: [] if key.default is None else [key.default]
        for name, key in SECTIONS[section].items()
    }
    assert all(row[2] for row in table)


# Security.


def test_every_test_that_is_named_exists():
    """In docs/security.md, as ``tests/FILE.py::NAME``, or a file of tests as a whole."""
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", documents.read("docs/security.md"))
    assert named
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / file).is_file()
        or (name and f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8"))
    ]
    assert missing == []


def test_every_threat_is_shown_or_said_not_to_be_stopped():
    """In the table of docs/security.md: who, what they can do, what stops them, the test, the rest."""
    table = documents.rows(documents.section("docs/security.md", "Who can do what"))
    assert table
    assert [row[0] for row in table if len(row) != 5 or not (row[3] or row[4])] == []


def test_every_package_that_is_needed_is_explained():
    """In docs/security.md: those that pyproject.toml names, the extras' too, and no others."""
    table = documents.rows(documents.section("docs/security.md", "What it is made of"))
    told = {documents.spans(row[0])[0] for row in table}
    project = tomllib.loads(documents.read("pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    needed = [
        *project["dependencies"],
        *(r for name in extras if name != "test" for r in extras[name]),
    ]
    assert told == {requirement.partition(">=")[0] for requirement in needed}


def test_every_requirement_has_a_lower_bound_that_is_tested():
    """``tests/run --lowest`` installs exactly those."""
    assert [
        version.replace("==", ">=") for version in lowest.constraints()
    ] == lowest.requirements()


# Programming.


@pytest.mark.parametrize(
    "name", [name for name in spotokend.__all__ if name in dir(errors) or name == "SpotokendError"]
)
def test_every_exception_is_explained(name: str):
    """In docs/clients.md."""
    assert f"`{name}`" in documents.section("docs/clients.md", "What can go wrong")


def test_all_of_a_token_is_explained():
    """In docs/clients.md: its attributes and its properties, and no others."""
    section = documents.section("docs/clients.md", "Python")
    table = section[section.index("| of a token |") : section.index("When the API answers 401")]
    told = {name for row in documents.rows(table) for name in documents.spans(row[0])}
    assert told == {*spotokend.Token.__slots__, "authorization", "remaining"}


@pytest.mark.parametrize("kind", list(Kind))
def test_every_fault_is_explained_with_its_fields(kind: Kind):
    """In docs/sandbox.md; the fields that all have stand below the table."""
    section = documents.section("docs/sandbox.md", "Faults")
    row = next(row for row in documents.rows(section) if row[0] == f"`{kind.value}`")
    assert set(documents.spans(row[2])) == set(FIELDS_OF[kind])
    assert set(FIELDS_OF_ALL) - {"kind"} <= set(documents.spans(documents.prose("docs/sandbox.md")))


def test_every_option_of_the_sandbox_is_explained():
    """In docs/sandbox.md, with its default."""
    section = documents.section("docs/sandbox.md", "From Python")
    table = {documents.spans(row[0])[0]: documents.spans(row[1]) for row in documents.rows(section)}
    defaults = {
        item.name: [json.dumps(item.default)] for item in fields(Options) if item.name in CHANGEABLE
    }
    defaults["unlisted"], defaults["scopes"] = ["[]"], []  # tuples in Python; and all of Spotify's
    assert table == defaults


# It doesn't work.


def quotes() -> list[str]:
    """The messages of docs/trouble.md: in its headings and in the first cells of its tables."""
    page = documents.prose("docs/trouble.md")
    cells = [row[0] for row in documents.rows(page)]
    return [
        span
        for text in (*documents.headings("docs/trouble.md"), *cells)
        for span in documents.spans(text)
    ]


@pytest.mark.parametrize("quote", quotes())
def test_every_message_that_is_explained_exists(quote: str):
    """Each part between placeholders is text of the source, so that the page can't rot."""
    parts = [part.strip(" .:;,()`") for part in quote.split(PLACEHOLDER)]
    distinctive = [part for part in parts if len(part) > 6]
    assert distinctive
    assert [part for part in distinctive if part not in sayings()] == []


@pytest.mark.parametrize("words", sorted({row.words for row in (*REFUSALS, *STATUSES, *MEANINGS)}))
def test_every_refusal_of_a_provider_is_explained(words: str):
    """In docs/trouble.md: the beginning is quoted of what its token endpoint and its API say."""
    said = re.sub(r"{\w+}", PLACEHOLDER, words)
    assert [quote for quote in quotes() if said.startswith(quote.removesuffix(PLACEHOLDER).strip())]


def test_every_exit_status_of_api_is_explained():
    """In docs/commands.md, in the section of ``spotokend api``."""
    section = documents.section("docs/commands.md", "`spotokend api PATH`")
    told = {row[0] for row in documents.rows(section)}
    assert {str(row.kind.exit_status) for row in MEANINGS} <= told


# The pages themselves.


@pytest.mark.parametrize("page", EVERYTHING)
def test_every_link_leads_somewhere(page: str):
    """Files of the project, and headings in them."""
    for target in re.findall(r"\]\(([^)\s]+)\)", documents.prose(page)):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert file.is_file(), target
        if anchor:
            name = str(file.relative_to(ROOT))
            assert anchor in map(documents.slug, documents.headings(name)), target


def test_every_page_is_led_to():
    """From the README."""
    readme = documents.read("README.md")
    assert [page for page in PAGES[1:] if f"({page})" not in readme] == []


def test_the_readme_has_two_screens():
    """And not a third."""
    assert len(documents.read("README.md").splitlines()) <= 80


@pytest.mark.parametrize("page", EVERYTHING)
def test_examples_fit_on_a_screen_and_nothing_is_left_to_do(page: str):
    """No line of code that a reader has to scroll; no note to oneself."""
    lines = [line for block in documents.blocks(page) for line in block.text.splitlines()]
    assert [line for line in lines if len(line) > 100] == []
    assert re.findall(r"\b(TODO|FIXME|XXX|TBD)\b", documents.read(page)) == []
