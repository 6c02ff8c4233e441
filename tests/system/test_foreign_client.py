"""Clients that share no code with spotokend: they are served as they are, and play the vectors.

One is pynvim's, written for an editor: it greets with a notification nobody here knows, sends the
names of methods as it likes, as str or bin, and shows an error's second element. The others are the
examples of docs/examples, made from docs/protocol.md alone: one in Node, one in bash.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgpack
import pytest
from daemon_process import DaemonProcess
from overheard import may_tell
from pynvim.msgpack_rpc import socket_session
from pynvim.msgpack_rpc.session import Session
from scripted import TOO_LONG, ScriptedServer, answering, token_map
from vectors.playing import answering_with, ways_to_answer
from vectors.reading import Case, cases, unhex

import spotokend
from spotokend.sandbox import Options, ready_configuration, running

pytestmark = pytest.mark.timeout(60)

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
VECTORS = cases("client")


@pytest.fixture
def daemon(short_path: Path) -> Iterator[DaemonProcess]:
    """A daemon whose account ``machine`` needs no login, and whose ``alice`` had none yet."""
    with running(Options()) as sandbox:
        configuration = ready_configuration(
            sandbox.url, sandbox.provider.options, folder=str(short_path)
        )
        with DaemonProcess(short_path, configuration) as daemon:
            yield daemon


@pytest.fixture
def session(daemon: DaemonProcess) -> Iterator[Session]:
    """pynvim's session, which has greeted already when it is returned."""
    session = socket_session(str(daemon.socket))
    yield session
    daemon.terminate()
    end(session)


ENDED = (EOFError, ConnectionError)
"""What it raises when the connection has ended; the second if it was just about to send."""


def end(session: Session) -> None:
    """Close it. It lets go of its socket only while its loop runs: the server's end makes it."""
    with pytest.raises(ENDED):
        while session.next_message():
            pass
    session.close()


def test_pynvim_gets_a_token(daemon: DaemonProcess, session: Session):
    """The map of the protocol, with the token that everybody gets."""
    token = session.request("token", {"account": "machine"})

    assert token["access_token"] == daemon.run("token", "machine").stdout.rstrip("\n")
    assert spotokend.Token.from_wire(token).remaining > 0


def test_pynvim_shows_the_message_of_an_error(daemon: DaemonProcess, session: Session):
    """What happened, in the words that our own client has for it; the connection goes on."""
    with spotokend.Client(daemon.socket) as client:
        with pytest.raises(spotokend.LoginRequired) as required:
            client.token("alice")

    with pytest.raises(Exception) as shown:  # noqa: PT011 - pynvim raises no narrower class
        session.request("token", {"account": "alice"})

    assert str(shown.value) == required.value.message
    assert session.request("token", {"account": "machine"})["account"] == "machine"


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("nvim_get_api_info", [], "there is no method 'nvim_get_api_info'"),
        ("token", ["machine"], "params must hold one map of named arguments, or nothing"),
        ("token", [{}, {}], "params must hold one map of named arguments, or nothing"),
    ],
)
def test_what_an_editor_would_be_asked_is_refused_in_words(
    session: Session, method: str, arguments: list[object], message: str
):
    """A wrong call is answered, and costs nothing but itself."""
    with pytest.raises(Exception) as shown:  # noqa: PT011 - pynvim raises no narrower class
        session.request(method, *arguments)

    assert str(shown.value) == message
    assert session.request("hello")["protocol"] == 1


def test_notifications_of_a_client_have_no_effect(daemon: DaemonProcess, session: Session):
    """Whatever they are called and hold, they are dropped; the next request is answered."""
    for method in ("nvim_set_client_info", "token", "stop", b"\xff"):
        session.request(method, {"account": "machine"}, 1.5, None, [[[]]], async_=True)

    assert session.request("hello")["protocol"] == 1
    assert daemon.run("token", "machine").returncode == 0


def test_pynvim_hears_of_a_refresh_that_it_watches_for(daemon: DaemonProcess, session: Session):
    """Our notifications are in the form that it expects, and come between its requests."""
    before = session.request("token", {"account": "machine"})
    session.request("watch", {"accounts": ["machine"]})
    assert daemon.run("refresh", "machine").returncode == 0

    heard = {}
    while "token" not in heard:
        message = session.next_message()
        assert message.type == "notification"
        heard[message.name] = message.args[0]

    assert heard["token"]["generation"] == before["generation"] + 1
    assert heard["state"]["account"] == "machine"
    assert session.request("token", {"account": "machine"}) == heard["token"]


@pytest.mark.parametrize("use_bin_type", [True, False], ids=["bin", "raw"])
def test_names_may_come_as_bytes(daemon: DaemonProcess, session: Session, use_bin_type: bool):
    """UTF-8 in bin, as pynvim sends bytes, and in the raw of MessagePack before it had bin."""
    asked = b"token", [{b"account": b"machine", b"min_ttl": 1}]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(daemon.socket))
        connection.sendall(msgpack.packb([0, 7, *asked], use_bin_type=use_bin_type))
        answers = msgpack.Unpacker()
        while (answer := next(answers, None)) is None:
            answers.feed(connection.recv(4096))

    assert answer == [1, 7, None, session.request(asked[0], *asked[1])]


# --- pynvim and the vectors -----------------------------------------------------------------------


def concerns_pynvim(case: Case) -> bool:
    """Whether the vector is about what a library for any MessagePack-RPC promises.

    ``none``, ``application``: it must get every answer and every error across. ``transport``: it
    must notice the end; time-outs are left to its callers. Not ``messagepack`` and ``limits``: it
    reads extension types and has limits of its own. Not ``rpc``: it skips what it doesn't
    understand. Not ``result`` and ``error``: what a result or an error holds is for its callers.
    """
    return case["expect"] in ("none", "application") or (
        case["expect"] == "transport" and case["then"] == "ends"
    )


@pytest.mark.parametrize("name", [name for name in VECTORS if concerns_pynvim(VECTORS[name])])
def test_pynvim_plays_the_vectors(short_path: Path, name: str):
    """It makes of them what a client must, as far as it can know."""
    case, heard = VECTORS[name], {}
    for how, pieces in ways_to_answer(case).items():
        done = threading.Event()
        with ScriptedServer(short_path / "socket", answering_with(case, pieces, done)) as server:
            session = socket_session(server.path)
            heard[how] = asked_of(session)
            done.set()
        end(session)
    wanted = {key: case["outcome"].get(key) for key in ("access_token", "message")}
    assert heard == {"whole": wanted, "byte by byte": wanted}


def asked_of(session: Session) -> dict[str, object]:
    """The token, or the words of the error; neither if the connection has ended."""
    words, token = None, {}
    try:
        token = session.request("token", {"account": "main"})
    except ENDED:
        pass
    except Exception as error:  # noqa: BLE001 - pynvim raises no narrower class
        words = str(error)
    return {"access_token": token.get("access_token"), "message": words}


# --- Node -----------------------------------------------------------------------------------------

PLAYER = """
    import { createInterface } from "node:readline";
    const { token } = await import(process.env.CLIENT);
    for await (const line of createInterface({ input: process.stdin })) {
        const { path, timeout } = JSON.parse(line);
        process.env.SPOTOKEND_SOCK = path;
        console.log(JSON.stringify(await token("main", { timeout }).catch(
            ({ code, status, message, details }) => ({ code, status, message, details }))));
    }
"""


class Player:
    """A Node that imports the example, and asks whom it is told to."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [there("node"), "--input-type=module", "--eval", PLAYER],
            env=os.environ | {"CLIENT": str(EXAMPLES / "client.mjs")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def token(self, path: str, timeout: float) -> dict[str, Any]:
        """The token's map, or code, status, message and details of the error."""
        print(json.dumps({"path": path, "timeout": timeout}), file=self._process.stdin)
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """It ends with its input."""
        self._process.communicate(timeout=TOO_LONG)


def there(program: str) -> str:
    """Where a program is; without it what needs it is left out."""
    return shutil.which(program) or pytest.skip(f"there is no {program} here")


@pytest.fixture(scope="module")
def player() -> Iterator[Player]:
    """One for all vectors: Node takes its time to start."""
    player = Player()
    yield player
    player.close()


@pytest.mark.parametrize("name", VECTORS)
def test_the_node_client_plays_the_vectors(short_path: Path, player: Player, name: str):
    """All of them: it is a client of spotokend's."""
    case, heard = VECTORS[name], {}
    # Where an answer is due there is time for it, whatever it says.
    timeout = 0.1 if name.startswith("time-out-") else TOO_LONG
    for how, pieces in ways_to_answer(case).items():
        done = threading.Event()
        with ScriptedServer(short_path / "socket", answering_with(case, pieces, done)) as server:
            outcome = player.token(server.path, timeout)
            done.set()
        heard[how] = {key: outcome.get(key) for key in case["outcome"]}
    assert heard == {"whole": case["outcome"], "byte by byte": case["outcome"]}


def test_the_node_client_is_short():
    """It is read, not only run."""
    assert len((EXAMPLES / "client.mjs").read_text().splitlines()) <= 60


# --- the examples as commands ---------------------------------------------------------------------

COMMANDS = {
    "node": ("node", "client.mjs"),
    "bash, nc": ("bash", "client.sh", "od", "nc"),
    "bash, socat": ("bash", "client.sh", "od", "socat"),
}
"""Interpreter, example, and the only other programs that are there."""


class Command:
    """An example as a user runs it, where only the programs are that it needs."""

    def __init__(self, folder: Path, interpreter: str, example: str, *tools: str) -> None:
        self._interpreter = there(interpreter)
        self._example = str(EXAMPLES / example)
        self._path = folder / "bin"
        self._path.mkdir()
        self.arguments = folder / "arguments"
        """What the tools were called with, a line a call."""
        self.arguments.touch()
        for tool in tools:
            wrapper = self._path / tool
            told = f'printf "%s\\n" "$*" >>{self.arguments}'
            wrapper.write_text(f'#!/bin/sh\n{told}\nexec {there(tool)} "$@"\n')
            wrapper.chmod(0o755)

    def run(self, environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        with may_tell("the examples print a token"):
            return subprocess.run(
                [self._interpreter, self._example, *arguments],
                env={**environ, "PATH": str(self._path)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )


@pytest.fixture(scope="module")
def world() -> Iterator[DaemonProcess]:
    """A daemon as above, for tests that leave it as it was."""
    with tempfile.TemporaryDirectory(prefix="spotokend-") as folder, running(Options()) as sandbox:
        options = sandbox.provider.options
        configuration = ready_configuration(sandbox.url, options, folder=folder)
        with DaemonProcess(Path(folder), configuration) as daemon:
            yield daemon


@pytest.fixture(params=COMMANDS.values(), ids=COMMANDS)
def command(request: pytest.FixtureRequest, tmp_path: Path) -> Command:
    """One after the other."""
    return Command(tmp_path, *request.param)


def at(path: Path | str) -> dict[str, str]:
    """An environment in which the socket is there."""
    return {"SPOTOKEND_SOCK": str(path)}


def test_an_example_prints_the_token(world: DaemonProcess, command: Command):
    """The token and a newline, and nothing else; it is in nobody's arguments."""
    token = world.run("token", "machine").stdout
    done = command.run(at(world.socket), "machine")
    assert (done.returncode, done.stdout, done.stderr) == (0, token, "")
    assert token.strip() not in command.arguments.read_text()


def test_an_example_finds_socket_and_account(world: DaemonProcess, command: Command):
    """In the usual variables; an argument goes before them."""
    environ = {"XDG_RUNTIME_DIR": str(world.folder / "run"), "SPOTOKEND_ACCOUNT": "machine"}
    assert command.run(environ).returncode == 0
    assert command.run(environ, "alice").returncode == 3


@pytest.mark.parametrize("arguments", [("alice",), ("nobody",), ("no/name",), ()], ids=str)
def test_an_example_tells_what_the_daemon_tells(
    world: DaemonProcess, command: Command, arguments: tuple[str, ...]
):
    """The status of ``spotokend token``, and on stderr its words with what helps."""
    ours, theirs = world.run("token", *arguments), command.run(at(world.socket), *arguments)
    assert (theirs.returncode, theirs.stdout) == (ours.returncode, "")
    words, hint = ours.stderr.removeprefix("spotokend: ").split("\n  → ")
    assert words in theirs.stderr
    assert hint.strip() in theirs.stderr


def test_an_example_says_that_nobody_is_there(short_path: Path, command: Command):
    """And what to start."""
    done = command.run(at(short_path / "none"), "main")
    assert (done.returncode, done.stdout) == (4, "")
    assert "spotokend run" in done.stderr


@pytest.mark.parametrize("size", [31, 32, 255, 256, 5000])
def test_an_example_reads_tokens_of_any_length(short_path: Path, command: Command, size: int):
    """Their lengths are told in up to two bytes."""
    access_token = ("access-1 \\x41 %s é $HOME " * size)[:size]
    script = answering(lambda method, arguments: token_map(access_token=access_token))
    with ScriptedServer(short_path / "socket", script) as server:
        done = command.run(at(server.path), "main")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{access_token}\n", "")


def test_an_example_in_node_asks_for_a_time_to_live(world: DaemonProcess, tmp_path: Path):
    """The second argument, in seconds; the daemon has the last word on it."""
    command = Command(tmp_path, *COMMANDS["node"])
    assert command.run(at(world.socket), "machine", "1800").returncode == 0
    assert command.run(at(world.socket), "machine", "1801").returncode == 2


def test_bash_needs_nc_or_socat(world: DaemonProcess, tmp_path: Path):
    """Without either it says so."""
    done = Command(tmp_path, "bash", "client.sh", "od").run(at(world.socket), "machine")
    assert (done.returncode, done.stdout) == (2, "")
    assert "nc (that of OpenBSD) or socat" in done.stderr


SHORT = 1500
"""Bytes of a vector that bash reads in no time."""


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, case in VECTORS.items()
        if (concerns_pynvim(case) or case["expect"] == "error")
        and len(unhex(case["input"])) < SHORT
    ],
)
def test_bash_plays_the_vectors(short_path: Path, tmp_path: Path, name: str):
    """Those of good and bad answers; it doesn't judge what spotokend never sends."""
    case = VECTORS[name]
    command = Command(tmp_path, *COMMANDS["bash, nc"])
    [pieces, _] = ways_to_answer(case).values()
    script = answering_with(case, pieces, threading.Event())
    with ScriptedServer(short_path / "socket", script) as server:
        done = command.run(at(server.path), "main")
    outcome = case["outcome"]
    assert done.returncode == outcome.get("status", 0)
    assert done.stdout == ("access-1\n" if "access_token" in outcome else "")
    assert outcome.get("message", "") in done.stderr
