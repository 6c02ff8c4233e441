"""The house: which module stands where, what it may import, and what a client pays for it.

The folders are the floors. A module imports lower floors, and on its own floor only what stands
before it in :data:`HOUSE`. A new file is placed in that list deliberately, or the tests fail.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import msgpack
import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "spotokend"
LONGEST = 400
"""Lines of a module. What is longer holds two ideas."""

HOUSE = {
    "words": "errors paths token wire calls client async_client",
    "rules": """
        rules.secret rules.schedule rules.refusals rules.oauth
        rules.account rules.transitions rules.doubt rules.saving rules.lifecycle rules.renewal
        rules.gate rules.notice
        rules.config.values rules.config.readers rules.config.hook_readers rules.config.key_reader rules.config.problems
        rules.config.keys rules.config.parse rules.config.diff
        rules.hooks
        rules.sealing rules.methods rules.session
    """,
    "adapters": """
        adapters.hardening adapters.uncaught adapters.detach
        adapters.endpoint adapters.config_file adapters.client_secrets
        adapters.keys.file adapters.keys.credential adapters.keys.keyring adapters.keys.asking
        adapters.keys.passphrase
        adapters.store.base adapters.store.fences adapters.store.memory
        adapters.store.sqlite_schema adapters.store.sqlite_damage
        adapters.store.sqlite_file adapters.store.sqlite_info adapters.store.sqlite
        adapters.spill adapters.lockfile adapters.listener adapters.peercred adapters.logs adapters.notify
        adapters.systemd
    """,
    "service": """
        service.defects service.clock service.packing service.traces service.rows service.recovery
        service.vault service.keys service.places service.registry service.roster service.board service.refresh service.keeper
        service.identity service.logins service.status service.turns service.connection
        service.handlers
        service.server service.supervision service.late_secrets service.daemon
    """,
    "sandbox": """
        sandbox.checks sandbox.messages sandbox.record sandbox.options sandbox.configuration
        sandbox.faults sandbox.ledger sandbox.pages sandbox.authorize sandbox.credentials
        sandbox.token_endpoint sandbox.web_api sandbox.provider sandbox.control
        sandbox.conversation sandbox.server sandbox
    """,
    "edge": """
        cli.terminal cli.grammar cli.options cli.parser cli.questions cli.scopes
        cli.pages cli.callback cli.loopback_peer cli.listener cli.arrivals cli.browser
        cli.config_text cli.purge cli.service cli.first_run cli.config cli.login cli.logout
        cli.api_address cli.api_errors cli.api cli.refresh cli.reload cli.run
        cli.status_text cli.scene cli.frame cli.live cli.status cli.stop cli.store cli.unlock cli.token cli.watch cli.hooks cli.sandbox cli.demo
        cli __main__
    """,
}
FLOORS = {floor: names.split() for floor, names in HOUSE.items()}
ORDER = list(chain.from_iterable(FLOORS.values()))

FACE = "__init__"
"""The package's own face: it names what clients use, and loads it late. It has the version."""

APART = {FACE: "test_package.py", "__main__": "test_main.py"}
"""Test files of modules whose names name nothing."""

PROVEN = [FACE, *FLOORS["words"], *FLOORS["rules"]]
"""Each of these has every branch run by its own tests alone; see mirrored_coverage.py."""

# A client may be a script that runs for 20 ms; each of these costs a good part of that.
HEAVY = {
    "argparse",
    "asyncio",
    "dataclasses",
    "inspect",
    "json",
    "logging",
    "pathlib",
    "re",
    "ssl",
    "subprocess",
    "tempfile",
    "typing",
    "urllib",
}
# Where time, chance, files, sockets and the environment come from.
OUTSIDE = {
    "asyncio",
    "ctypes",
    "http",
    "importlib",
    "io",
    "logging",
    "os",
    "pathlib",
    "random",
    "secrets",
    "select",
    "shutil",
    "signal",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
}
OUTSIDE_BUILTINS = {"open", "print", "input", "exec", "eval", "breakpoint", "__import__"}

# Each library has its place: whoever replaces one knows where to look.
LIBRARIES = {
    "cryptography": "adapters.keys.passphrase rules.sealing",
    "daemon": "adapters.detach",
    "h11": "cli.callback cli.listener sandbox.conversation",
    "httpx": "adapters.endpoint cli.api",
    "jeepney": "adapters.client_secrets adapters.keys.keyring",
    "msgpack": "service.packing wire",
    "secretstorage": "adapters.client_secrets adapters.keys.keyring",
    "rich": "cli.api cli.frame cli.live cli.status",
    "structlog": "adapters.logs",
}


# ---------------------------------------------------------------------------- reading the source


def path_of(module):
    """The file of a module by its name below the package."""
    path = ROOT.joinpath(PACKAGE, *module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def mirror(module):
    """The file that holds a module's own tests.

    ``wire`` → ``tests/test_wire.py``, ``rules.gate`` → ``tests/rules/test_gate.py``, and deeper
    folders become part of the name: ``adapters.store.base`` → ``tests/adapters/test_store_base.py``.
    """
    if module in APART:
        return ROOT / "tests" / APART[module]
    folder, _, name = module.rpartition(".") if module.count(".") < 2 else module.partition(".")
    return ROOT / "tests" / folder / f"test_{name.replace('.', '_')}.py"


def modules():
    """Names of all modules that hold code; a package that is only a docstring holds none."""
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        relative = path.relative_to(ROOT / PACKAGE)
        if relative.name != "__init__.py":
            yield ".".join(relative.with_suffix("").parts)
        elif len(parsed(path).body) > 1:
            yield ".".join(relative.parent.parts) or FACE


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def for_types_alone(tree):
    """The nodes below ``if TYPE_CHECKING:``, which are never run."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from chain.from_iterable(ast.walk(statement) for statement in node.body)


def imports(module):
    """``(own modules, names of other packages)`` that a module imports, anywhere in its text.

    What is imported for types alone counts among the own modules: it is a dependency of the reader's.
    """
    path = path_of(module)
    tree = parsed(path)
    unrun = set(for_types_alone(tree))
    package = [PACKAGE, *path.relative_to(ROOT / PACKAGE).parent.parts]
    own, others = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            names = [f"{source}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            if top == PACKAGE:
                own.add(placed(rest))
            elif node not in unrun:
                others.add(name)
    return own - {module}, others


def placed(name):
    """The module that holds ``name``, a dotted name below the package."""
    while name and not path_of(name).is_file():
        name = name.rpartition(".")[0]
    return name or FACE


def floor_of(module):
    return next(floor for floor, names in FLOORS.items() if module in names)


def functions(path, prefix):
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(
            prefix
        ):
            yield node


UNREAD = {"__pycache__", "node_modules", "build", "dist", "htmlcov"}


def files(folder=".", pattern="*"):
    """Paths of the project's own files, relative to its root; not what tools leave behind."""
    found = []
    for place, folders, names in os.walk(ROOT / folder):
        folders[:] = [name for name in folders if name not in UNREAD and not hidden(name)]
        found += [Path(place, name) for name in names if not hidden(name)]
    return sorted(str(path.relative_to(ROOT)) for path in found if path.match(pattern))


def hidden(name):
    return name.startswith(".") and name not in (".ci", ".gitignore")


# ------------------------------------------------------------------------------- the house itself


def test_every_module_has_its_place():
    """The list names each module once, and none that isn't there."""
    assert sorted(ORDER) == sorted(set(modules()) - {FACE})


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_what_stands_before_it(module):
    """Lower floors, and earlier modules of its own floor."""
    before = {FACE, *ORDER[: ORDER.index(module)]}

    assert imports(module)[0] - before == set()


@pytest.mark.parametrize("module", FLOORS["adapters"])
def test_adapters_import_no_adapter(module):
    """Each touches one outside thing; only the parts of one (store.base, store.sqlite) know each other."""
    family = module.rpartition(".")[0]
    strangers = {
        name
        for name in imports(module)[0]
        if name.startswith("adapters.")
        and not (family != "adapters" and name.startswith(f"{family}."))
    }

    assert strangers == set()


@pytest.mark.parametrize("module", FLOORS["sandbox"])
def test_the_sandbox_shares_nothing_with_what_it_tests(module):
    """A misunderstanding of the protocol would otherwise be on both sides, and go unseen."""
    own, _ = imports(module)

    assert {name for name in own if floor_of(name) not in ("words", "sandbox")} == set()


@pytest.mark.parametrize("module", [FACE, *FLOORS["words"]])
def test_words_are_made_of_the_standard_library_and_msgpack(module):
    """And of its light parts only, as clients import them; asyncio where that is the purpose."""
    tops = {name.partition(".")[0] for name in imports(module)[1]}
    heavy = HEAVY - {"asyncio"} if module == "async_client" else HEAVY

    assert tops - sys.stdlib_module_names - {"msgpack"} == set()
    assert tops & heavy == set()


@pytest.mark.parametrize("module", FLOORS["rules"])
def test_rules_touch_nothing_outside(module):
    """No clock, chance, disk, socket or environment: the same arguments give the same result."""
    tops = {name.partition(".")[0] for name in imports(module)[1]}
    called = {
        node.func.id
        for node in ast.walk(parsed(path_of(module)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }

    assert tops & OUTSIDE == set()
    assert called & OUTSIDE_BUILTINS == set()


@pytest.mark.parametrize(("library", "places"), LIBRARIES.items())
def test_each_library_has_its_place(library, places):
    """Imported where the list says, and nowhere else."""
    users = [
        module
        for module in modules()
        if library in {name.partition(".")[0] for name in imports(module)[1]}
    ]

    assert users == sorted(places.split())


STARTING = re.compile(
    r"(anyio\.(open|run)_process|os\.(system|popen|fork\w*|exec\w+|spawn\w+|posix_spawn\w*)"
    r"|create_subprocess_\w+|import_module)"
)
"""Calls that start a program, besides those of subprocess; and what could hide such a one."""


def starts_programs(module):
    """Whether it could."""
    tops = {name.partition(".")[0] for name in imports(module)[1]}
    calls = {
        ast.unparse(node.func)
        for node in ast.walk(parsed(path_of(module)))
        if isinstance(node, ast.Call)
    }
    return bool(tops & {"subprocess", "multiprocessing", "pty"}) or any(map(STARTING.search, calls))


def test_the_daemon_starts_no_program_but_for_a_secret():
    """Of all modules that it is made of, those alone that ask a command for a secret or a passphrase.

    Hooks are started by a process of their own, outside of the daemon's sandbox.
    """
    daemon, new = set(), {"service.daemon"}
    while new:
        daemon |= new
        new = set().union(*(imports(module)[0] for module in new)) - daemon
    starting = {module for module in daemon if starts_programs(module)}

    assert {name for name in starting if not name.startswith("adapters.keys.")} - {FACE} == {
        "adapters.client_secrets"
    }
    assert starts_programs("cli.hooks")


def test_no_import_touches_the_network():
    """Not even by making a socket: of every module, with all that it imports."""
    program = (
        "import importlib, sys\n"
        "touched = []\n"
        "sys.addaudithook(lambda event, _: event.startswith('socket.') and touched.append(event))\n"
        f"for name in {[f'{PACKAGE}.{module}' for module in ORDER if module != '__main__']!r}:\n"
        "    importlib.import_module(name)\n"
        "before = list(touched)\n"
        "import socket; socket.socket().close()\n"
        "print(before, len(touched) - len(before) > 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == ("[] True\n", "")


# ----------------------------------------------------------------------------------- its manners


@pytest.mark.parametrize("path", files(PACKAGE, "*.py"))
def test_a_module_is_short_and_says_what_it_promises(path):
    """It opens with a docstring, and fits in a head."""
    text = (ROOT / path).read_text(encoding="utf-8")

    assert ast.get_docstring(ast.parse(text)), "no docstring"
    assert len(text.splitlines()) <= LONGEST


@pytest.mark.parametrize("module", [FACE, *ORDER])
def test_every_module_has_a_test_file_of_its_name(module):
    """So that it is known where to look, and what is without tests."""
    assert mirror(module).is_file(), f"{mirror(module).relative_to(ROOT)} is missing"


@pytest.mark.parametrize("path", files("tests", "test_*.py"))
def test_every_test_says_what_it_shows(path):
    """In a docstring; and one that is left out, or expected to fail, says why."""
    tree = parsed(ROOT / path)
    silent = [test.name for test in functions(ROOT / path, "test_") if not ast.get_docstring(test)]
    # `pytest.skip("why")` has its reason in front, the marks want it by name.
    marks = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and re.fullmatch(r"pytest\.mark\.(skip|skipif|xfail)", ast.unparse(node))
    ]
    reasons = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in marks
        and any(keyword.arg == "reason" for keyword in node.keywords)
    ]

    assert silent == []
    assert len(reasons) == len(marks), marks


def test_no_file_knows_the_machine_it_was_written_on():
    """No folder of one machine (tests may invent homes), and no address of a package registry."""
    # In pieces, as this file is read as well.
    machine = re.compile(r"(?<![\w.~$}/-])/(?:work|root|opt/venv)\b")
    home = re.compile(r"(?<![\w.~$}/-])/home/\w")
    registry = re.compile(
        r"pypi\.(?:org|python)|pythonhosted\.|npmjs\.(?:org|com)|debian\.(?:org|net)"
    )
    found = []
    for path in files():
        text = (ROOT / path).read_text(encoding="utf-8", errors="replace")
        forbidden = [machine, registry] if path.startswith("tests") else [machine, registry, home]
        for pattern in forbidden:
            found += [f"{path}: {match.group()}" for match in pattern.finditer(text)]

    assert found == []


# ------------------------------------------------------------------------------ what a client pays


def imported_by(statement):
    """What a fresh interpreter has imported after ``statement``: no site, no coverage, no .pth."""
    found = [str(ROOT), str(Path(msgpack.__file__).parents[1])]
    program = f"import sys; sys.path += {found!r}; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


DAEMONS_OWN = {
    "anyio",
    "cryptography",
    "daemon",
    "h11",
    "httpx",
    "rich",
    "sqlite3",
    "structlog",
    f"{PACKAGE}.rules",
    f"{PACKAGE}.adapters",
    f"{PACKAGE}.service",
    f"{PACKAGE}.cli",
}


def test_importing_the_package_costs_nothing():
    """Not even its own modules: a name is loaded when it is used."""
    assert {name for name in imported_by("import spotokend") if name.startswith(PACKAGE)} == {
        PACKAGE
    }


def test_a_client_imports_nothing_heavy():
    """None of what the daemon is made of, and none of the standard library's big modules."""
    loaded = imported_by("import spotokend; spotokend.Client; spotokend.Token")

    assert loaded & (DAEMONS_OWN | HEAVY) == set()


def test_an_async_client_imports_asyncio_and_nothing_of_the_daemon():
    """Its user has asyncio loaded already; the rest would be new."""
    assert imported_by("import spotokend; spotokend.AsyncClient") & DAEMONS_OWN == set()


def test_the_lock_of_the_servers_names_no_address():
    """Whoever installs them uses the registry of their own settings."""
    lock = json.loads(
        (ROOT / "tests" / "servers" / "package-lock.json").read_text(encoding="utf-8")
    )

    assert [name for name, package in lock["packages"].items() if "resolved" in package] == []
