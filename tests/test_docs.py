"""The documents say what the program does: what can be made from the code is, and compared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spotokend import errors
from spotokend.cli.options import COMMANDS
from spotokend.rules.methods import METHODS
from spotokend.rules.notice import NAMES
from spotokend.rules.transitions import TRANSITIONS
from spotokend.sandbox import Kind

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


def page(name: str) -> str:
    return (ROOT / name).read_text()


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


def test_the_diagram_is_that_of_the_code():
    """To renew it, put what this test shows into docs/accounts.md."""
    drawn = re.search(r"```mermaid\n(.*?)```", page("docs/accounts.md"), re.DOTALL)
    assert drawn is not None
    assert drawn[1].strip() == diagram()


@pytest.mark.parametrize("name", NAMES.values())
def test_every_state_is_explained(name: str):
    """In the table of docs/accounts.md."""
    assert f"| `{name}` |" in page("docs/accounts.md")


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_every_command_is_named(command: str):
    """In docs/usage.md."""
    assert re.search(rf"`{command}[ `]", page("docs/usage.md")), command


@pytest.mark.parametrize("code", sorted(errors.BY_CODE.keys() - {"no_daemon"}))
def test_every_code_has_its_exit_status(code: str):
    """In the table of docs/usage.md, in the row of its status."""
    status = errors.BY_CODE[code].exit_status
    row = next(row for row in page("docs/usage.md").splitlines() if f"`{code}`" in row)
    assert row.startswith(f"| {status} |")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_in_the_table_with_its_arguments(method: str):
    """In docs/clients.md; optional ones with a question mark."""
    row = next(row for row in page("docs/clients.md").splitlines() if f"| `{method}` |" in row)
    told = {word.strip() for word in row.split("|")[2].split(",")} - {""}
    assert told == {
        name if argument.required else f"{name}?"
        for name, argument in METHODS[method].arguments.items()
    }


@pytest.mark.parametrize("kind", list(Kind))
def test_every_fault_is_explained(kind: Kind):
    """In docs/sandbox.md."""
    assert f"`{kind.value}`" in page("docs/sandbox.md")


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str):
    """Links to files of the project."""
    targets = re.findall(r"\]\(([^)#:]+)\)", page(name))
    assert [to for to in targets if not ((ROOT / name).parent / to).exists()] == []
