"""No test can start a program that prints a secret, without being told so."""

from __future__ import annotations

import ast
import base64
import os
import re
import subprocess
import sys
from pathlib import Path

import leaks
import pytest

TESTS = Path(__file__).parent

# What starts a program, or copies this one, past subprocess.Popen and its pipes.
ELSEWHERE = {
    "create_subprocess_exec",
    "create_subprocess_shell",
    "fork",
    "forkpty",
    "open_process",
    "posix_spawn",
    "posix_spawnp",
    "run_process",
    "subprocess_exec",
    "subprocess_shell",
}
SERVER = TESTS / "forked_daemon.py"
"""Forks, but not in pytest's own process; where the output goes is a daemon's file of errors."""

START = """
import os, pytest, subprocess, sys, tempfile
from pathlib import Path
from overheard import may_tell

SECRET = "-".join(["sandbox", "refresh", "000001", "0123456789abcdef"])
SAY = "import sys; print(*sys.argv[1:]); print(*sys.argv[1:], file=sys.stderr)"
program = [sys.executable, "-c", SAY]
DROP = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
"""
LEAKS = {
    "inherited": "subprocess.run([*program, SECRET], stderr=subprocess.DEVNULL)",
    "inherited-error": "subprocess.run([*program, SECRET], stdout=subprocess.DEVNULL)",
    "system": "os.system(f'echo {SECRET}')",
    "piped": "subprocess.run([*program, SECRET], **DROP | {'stdout': subprocess.PIPE})",
    "piped-error": "subprocess.run([*program, SECRET], **DROP | {'stderr': subprocess.PIPE})",
    "token-error": "subprocess.run([*program, 'token', SECRET], capture_output=True)",
    "both": "subprocess.run([*program, SECRET], capture_output=True, text=True)",
    "one-pipe": "subprocess.run([*program, SECRET], stdout=-1, stderr=subprocess.STDOUT)",
    "a-line": "with subprocess.Popen([*program, SECRET], stdout=-1, stderr=-3, text=True) as it:\n"
    "        it.stdout.readline()",
    "unbuffered": "with subprocess.Popen([*program, SECRET], bufsize=0, stdout=-1, stderr=-3) as it:\n"
    "        it.stdout.read(30), it.stdout.read(30)",
    "unread": "with subprocess.Popen([*program, SECRET], stdout=-1, stderr=-3) as it: it.wait()",
    "too-slow": "with pytest.raises(subprocess.TimeoutExpired):\n"
    "        slow = f'echo {SECRET}; exec sleep 60'\n"
    "        subprocess.run(slow, shell=True, stdout=-1, stderr=-1, timeout=0.3)",
    "file": "(tmp_path / 'a' / 'b').mkdir(parents=True); out = tmp_path / 'a' / 'b' / 'log'\n"
    "    with out.open('w') as file: subprocess.run([*program, SECRET], stdout=file, stderr=file)",
    "removed": "with tempfile.TemporaryDirectory() as name, open(f'{name}/log', 'w') as file:\n"
    "        subprocess.run([*program, SECRET], stdout=file, stderr=file)",
    "elsewhere": "read, write = os.pipe(); subprocess.run([*program, SECRET], stdout=write)",
    "captured": "print(SECRET); capsys.readouterr()",
    "logged": "__import__('logging').warning(SECRET)",
}
CLEAN = {
    "words": "subprocess.run([*program, 'words'], capture_output=True)",
    "asked": "subprocess.run([*program[:2], 'print(1)', 'token', SECRET], capture_output=True)",
    "allowed": "with may_tell('it is asked for'):\n"
    "        echo = ['echo', SECRET]\n"
    "        assert subprocess.run(echo, stdout=-1, text=True).stdout == SECRET + '\\n'",
    "kept": "(tmp_path / 'client.secret').write_text(SECRET)",
    "nowhere": "with open('/dev/full', 'w') as full: subprocess.run(['echo', SECRET], stdout=full,"
    " stderr=subprocess.DEVNULL)",
    "text": "it = subprocess.run(['printf', 'ä\\\\n%s', 'b'], stdout=-1, stderr=-1, text=True)\n"
    "    assert it.stdout == 'ä\\nb'",
}


def run(folder: Path, tests: dict[str, str]) -> str:
    """Of a suite with these tests, what pytest says in short of each; without their output."""
    functions = (
        f"def test_{name.replace('-', '_')}(tmp_path, capsys):\n    {body}\n"
        for name, body in tests.items()
    )
    (folder / "test_inside.py").write_text(START + "\n".join(functions))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "conftest", "-p", "no:cacheprovider"),
            *("-r", "fE", "--tb=no", "--show-capture=no", "--rootdir", folder),
            *("--basetemp", folder / "base", folder),
        ],
        env={**os.environ, "PYTHONPATH": str(TESTS), "COLUMNS": "1000"},
        capture_output=True,
        text=True,
        check=False,
    )
    # What these tests have left is found in here, too.
    for path in (folder / "base").rglob("*"):
        if path.is_file():
            path.unlink()
    return done.stdout


def test_each_kind_of_leak_fails_the_test_in_which_it_is(short_path: Path):
    """However a program is started, and wherever it writes; files that are kept, in the end."""
    said = run(short_path, LEAKS)
    failed = re.findall(r"^FAILED .*::test_(\w+) - (.*)$", said, re.MULTILINE)
    assert [name.replace("_", "-") for name, _ in failed] == [
        name for name in LEAKS if name != "file"
    ]
    for name, words in failed:
        assert "holds a secret" in words or name == "elsewhere", words
    [(_, words)] = re.findall(r"^ERROR .*::test_(\w+) - (.*)$", said, re.MULTILINE)
    assert re.search(r"/a/b/log holds a secret", words)


def test_who_is_asked_for_a_token_may_tell_it(short_path: Path):
    """And whoever tells nothing is left in peace."""
    said = run(short_path, CLEAN)
    assert said.splitlines()[-1].startswith(f"{len(CLEAN)} passed in "), said


def test_a_secret_is_known_in_disguise():
    """In hexadecimal and in base64, wherever it stands in there; and what is none isn't."""
    secret = "sandbox-access-000001-0123456789abcdef"
    for disguise in (
        secret,
        secret.encode().hex(),
        *(
            base64.b64encode((before + secret).encode()).decode()
            for before in ("", "i", "id", "id:")
        ),
    ):
        with pytest.raises(AssertionError, match=r"the log holds a secret: so: \w{,4}\[...\]\.$"):
            leaks.search("the log", f"so: {disguise}.")
    leaks.search("the log", "sandbox-access-000001 and nothing of it")


def test_no_test_starts_programs_past_what_is_overheard():
    """In the tests' own process: other ways than ``subprocess`` would need ears of their own."""
    found = set()
    for path in TESTS.rglob("*.py"):
        text = path.read_text()
        if path in {SERVER, Path(__file__)} or not any(name in text for name in ELSEWHERE):
            continue
        calls = [node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        found |= {
            f"{path.name}: {name}"
            for call in calls
            if (name := getattr(call, "attr", getattr(call, "id", ""))) in ELSEWHERE
        }
    assert found == set()
