"""The protocol's vectors, through the session, the real server and both clients of our own.

However the bytes are cut, the outcome is the same: each vector is fed whole, byte by byte, and with
a good request right behind it. Foreign clients play theirs in ``system/test_foreign_client.py``.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from daemon_process import DaemonProcess
from scripted import TOO_LONG, ScriptedServer
from served import OK, serving
from vectors.playing import (
    FOLLOWING,
    answering_with,
    broken_layer,
    converse,
    ways_to_answer,
    ways_to_send,
)
from vectors.reading import FOLDER, Case, byte_by_byte, cases, unhex

import spotokend
from spotokend import calls, errors, wire
from spotokend.rules import methods, session
from spotokend.rules.notice import Level, Notice
from spotokend.rules.schedule import Wall
from spotokend.rules.session import Session
from spotokend.sandbox import Options, ready_configuration, running
from spotokend.service import connection, logins

pytestmark = pytest.mark.timeout(60)

SERVER, CLIENT = cases("server"), cases("client")
WAYS_TO_SEND = ("whole", "byte by byte", "in one piece with more")
WAYS_TO_ANSWER = ("whole", "byte by byte")


def test_the_files_are_what_the_generator_writes():
    """Whoever changes a case changes the generator. To write them: tests/vectors/generate.py."""
    command = [sys.executable, str(FOLDER / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_notation_of_the_input():
    """Hex in groups, and a group may stand for many of its kind."""
    assert unhex("94 00 6162*3 c0*0") == b"\x94\x00ababab"


@pytest.mark.parametrize("size", [0, 1, 1000, 1001, 70_000])
def test_cutting_loses_nothing(size: int):
    """The pieces are the data, and the ends of it are cut byte by byte."""
    data = bytes(number % 251 for number in range(size))
    pieces = byte_by_byte(data)
    assert b"".join(pieces) == data
    assert {len(piece) for piece in pieces[:100] + pieces[-100:]} <= {1}


# --- the server's side ----------------------------------------------------------------------------


def expected_of_server(case: Case) -> dict[str, object]:
    """What a test is to find, for each way to send the vector."""
    replies = [
        {"msgid": reply["msgid"], "code": reply.get("code"), "details": reply.get("details", {})}
        for reply in case["replies"]
    ]
    return {"replies": replies, "afterwards": case["afterwards"]}


def found(case: Case, messages: Iterable[Any]) -> dict[str, object]:
    """The same of what came back; of details those that the vector names."""
    messages = list(messages)
    named = {key for reply in case["replies"] for key in reply.get("details", {})}
    replies = []
    for kind, msgid, error, _ in messages:
        assert kind == wire.RESPONSE
        code, message, details = error or (None, "", {})
        assert error is None or (message and details["hint"])
        shown = {key: thing for key, thing in details.items() if key in named}
        replies.append({"msgid": msgid, "code": code, "details": shown})
    following = [reply for reply in replies if reply["msgid"] == FOLLOWING]
    assert following in ([], [{"msgid": FOLLOWING, "code": None, "details": {}}])
    afterwards = "open" if following else "closed"
    return {
        # The order of replies is not promised.
        "replies": sorted(
            (reply for reply in replies if reply["msgid"] != FOLLOWING),
            key=lambda reply: reply["msgid"],
        ),
        "afterwards": "waiting" if case["afterwards"] == "waiting" else afterwards,
    }


@pytest.mark.parametrize("name", SERVER)
def test_session(name: str):
    """The pure session: calls, replies, and the layer that objected."""
    case = SERVER[name]
    wanted = expected_of_server(case) | {
        "calls": [
            (reply["msgid"], reply["method"], reply["arguments"])
            for reply in case["replies"]
            if "method" in reply
        ],
        "layer": case["expect"],
    }
    heard = {how: in_session(case, pieces) for how, pieces in ways_to_send(case).items()}
    assert heard == dict.fromkeys(WAYS_TO_SEND, wanted)


def in_session(case: Case, pieces: Iterable[bytes]) -> dict[str, object]:
    """Feed a session, and answer its calls as the vector wants it."""
    conversation, replies = Session(), calls.reply_decoder()
    heard, messages = [], []
    failures = {reply["msgid"]: reply for reply in case["replies"] if "code" in reply}
    for piece in pieces:
        conversation.receive(piece)
        while conversation.ready:
            while (call := conversation.next_call()) is not None:
                if call.msgid in case.get("unanswered", ()):
                    continue
                if call.msgid != FOLLOWING:
                    arguments = {
                        key: list(thing) if isinstance(thing, tuple) else thing
                        for key, thing in call.arguments.items()
                    }
                    heard.append((call.msgid, call.method, arguments))
                if call.msgid in failures:
                    failure = failures[call.msgid]
                    details = {"hint": "-"} | failure.get("details", {})
                    conversation.fail(call.msgid, errors.from_wire([failure["code"], "-", details]))
                else:
                    conversation.reply(call.msgid, OK)
            messages += replies.feed(conversation.take())
            conversation.unsent = 0
    if conversation.broken is not None:
        layer = broken_layer(conversation.broken)
    else:
        layer = _layer_of_errors(messages, {msgid for msgid, _, _ in heard})
    assert conversation.incomplete == (case["afterwards"] == "waiting")
    return found(case, messages) | {"calls": heard, "layer": layer}


def _layer_of_errors(messages: list[Any], called: set[int]) -> str:
    for _, msgid, error, _ in messages:
        if error is not None:
            if msgid in called:
                return "application"
            return "method" if error[0] == "unknown_method" else "arguments"
    return "none"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """The world of the server's vectors: ``machine`` has a token, ``alice`` no login."""
    folder = tmp_path_factory.mktemp("d")
    with running(Options(auto_approve=True)) as sandbox:
        options = sandbox.provider.options
        configuration = ready_configuration(sandbox.url, options, folder=str(folder))
        with DaemonProcess(folder, configuration) as daemon:
            with spotokend.Client(daemon.socket) as client:
                client.token("machine")
            yield daemon


@pytest.fixture(scope="module")
def login(daemon: DaemonProcess) -> dict[str, Any]:
    """What the daemon said while ``bob`` logged in."""
    with spotokend.Client(daemon.socket) as client:
        begun = client.call("login_start", account="bob")
        url = httpx.URL(begun["url"]).copy_merge_params({"login_hint": "bob"})
        end = httpx.get(url, trust_env=False).headers["location"]
        finished = client.call("login_finish", login_id=begun["login_id"], redirect_url=end)
    return {"begun": begun, "finished": finished}


@pytest.mark.parametrize("name", [name for name in SERVER if "unanswered" not in SERVER[name]])
def test_daemon(daemon: DaemonProcess, name: str):
    """The daemon as a process, asked by somebody who has no manners."""
    case = SERVER[name]
    path = str(daemon.socket)
    assert {
        how: found(case, converse(path, case, pieces)) for how, pieces in ways_to_send(case).items()
    } == {how: expected_of_server(case) for how in WAYS_TO_SEND}


@pytest.mark.anyio
@pytest.mark.parametrize("name", [name for name in SERVER if "unanswered" in SERVER[name]])
async def test_server_with_a_call_under_way(short_path: Path, name: str):
    """The real server, whose application never answers ``status``."""
    case = SERVER[name]

    def handle(connection: object, method: str, arguments: object) -> Any:
        return anyio.sleep_forever() if method == "status" else OK

    heard = {}
    async with serving(short_path, handle) as served:
        for how, pieces in ways_to_send(case).items():
            messages = await anyio.to_thread.run_sync(converse, served.path, case, pieces)
            heard[how] = found(case, messages)
    assert heard == dict.fromkeys(WAYS_TO_SEND, expected_of_server(case))


# --- the client's side ----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch):
    """A connection that ended is opened once more, and not for seconds."""
    monkeypatch.setattr(calls, "PATIENCE", 0.0)


def time_out(case: Case) -> float:
    """Seconds: so little where nothing will come."""
    return 0.1 if case["name"].startswith("time-out-") else TOO_LONG


def of_error(case: Case, error: spotokend.SpotokendError) -> dict[str, object]:
    """An error as far as the vector tells it, and the layer that objected."""
    assert error.message
    shown = {
        "code": error.code,
        "status": error.exit_status,
        "message": error.message,
        "details": error.details,
    }
    return {key: shown[key] for key in case["outcome"]} | {"layer": layer_of(error)}


def layer_of(error: spotokend.SpotokendError) -> str:
    """By what the client says of it."""
    if "ends each connection" in error.message or "has not answered" in error.message:
        return "transport"
    said = error.message.partition("is not spotokend: ")[2]
    if not said:
        return "application"
    return "result" if said.startswith("a token") else broken_layer(said)


def expected_of_client(case: Case) -> dict[str, object]:
    """What a test is to find, for each way to send the answer."""
    layer = case["expect"]
    if "access_token" in case["outcome"]:
        layer = "none"  # whatever came behind the answer
    elif layer == "error":
        layer = "application"  # a malformed error is one all the same
    return dict.fromkeys(WAYS_TO_ANSWER, case["outcome"] | {"layer": layer})


@pytest.mark.parametrize("name", CLIENT)
def test_client(short_path: Path, name: str):
    """The blocking client."""
    case, heard = CLIENT[name], {}
    for how, pieces in ways_to_answer(case).items():
        done = threading.Event()
        script = answering_with(case, pieces, done)
        with ScriptedServer(short_path / "socket", script) as server:
            with spotokend.Client(server.path, timeout=time_out(case)) as client:
                try:
                    token = client.token("main")
                    heard[how] = {"access_token": token.access_token, "layer": "none"}
                except spotokend.SpotokendError as error:
                    heard[how] = of_error(case, error)
                done.set()
    assert heard == expected_of_client(case)


@pytest.mark.anyio
@pytest.mark.parametrize("name", CLIENT)
async def test_async_client(short_path: Path, name: str):
    """The client for asyncio."""
    case, heard = CLIENT[name], {}
    for how, pieces in ways_to_answer(case).items():
        done = threading.Event()
        script = answering_with(case, pieces, done)
        with ScriptedServer(short_path / "socket", script) as server:
            async with spotokend.AsyncClient(server.path, timeout=time_out(case)) as client:
                try:
                    token = await client.token("main")
                    heard[how] = {"access_token": token.access_token, "layer": "none"}
                except spotokend.SpotokendError as error:
                    heard[how] = of_error(case, error)
                done.set()
    assert heard == expected_of_client(case)


# --- docs/protocol.md -----------------------------------------------------------------------------

PROTOCOL = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text(encoding="utf-8")


def table(name: str) -> list[list[str]]:
    """The rows of the table behind ``<!-- table: NAME -->``, without its head."""
    lines = PROTOCOL.partition(f"<!-- table: {name} -->\n")[2].splitlines()
    rows = list(takewhile(lambda line: line.startswith("|"), lines))
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def fields(name: str) -> dict[str, str]:
    """A table of fields: name and type."""
    return {row[0].strip("` *"): row[1] for row in table(name)}


def dumped(name: str) -> bytes:
    """The bytes behind ``<!-- bytes: NAME -->``."""
    block = PROTOCOL.partition(f"<!-- bytes: {name} -->\n```\n")[2].partition("```")[0]
    return bytes.fromhex(" ".join(line.strip().partition("  ")[0] for line in block.splitlines()))


def test_the_example_in_bytes():
    """What wire.py makes of the same, byte for byte."""
    arguments = {"account": "main", "min_ttl": 60}
    assert dumped("request") == wire.request(1, "token", arguments)
    token = spotokend.Token(
        account="main",
        access_token="access-1",
        token_type="Bearer",
        expires_at=1767229200.5,
        expires_boot=90012.25,
        scope=("user-read-playback-state",),
        generation=7,
    )
    assert dumped("response") == wire.result_response(1, wire.pack(token.to_wire()))
    error = errors.LoginRequired(
        "alice: nobody has logged in yet", account="alice", hint="spotokend login alice"
    )
    assert dumped("error") == wire.error_response(200, error.to_wire())


def test_the_limits_are_those_of_the_code():
    """Each figure, in the order of the table."""
    assert [int(row[1]) for row in table("limits")] == [
        wire.MESSAGE_LIMIT,
        wire.ARRAY_LIMIT,
        wire.MAP_LIMIT,
        wire.DEPTH_LIMIT,
        wire.MSGID_LIMIT,
        methods.TEXT_LIMIT,
        session.UNANSWERED_LIMIT,
        session.UNREAD_LIMIT,
        connection.UNREAD_TIMEOUT,
        connection.HALF_MESSAGE_TIMEOUT,
        session.NOTICE_LIMIT,
        session.KEYED_LIMIT,
        methods.PAGE,
        logins.MOST,
        wire.REPLY_LIMIT,
        wire.REPLY_ARRAY_LIMIT,
        wire.REPLY_MAP_LIMIT,
        wire.DEPTH_LIMIT,
        calls._PATH_LIMIT,
    ]


KINDS = {
    "name": methods.ACCOUNT_NAME,
    "names": methods.ACCOUNT_NAMES,
    "text": methods.TEXT,
    "texts": methods.TEXTS,
    "seconds": methods.SECONDS,
    "generation": methods.GENERATION,
    "page size": methods.PAGE_SIZE,
    "boolean": methods.BOOLEAN,
    "key source": methods.KEY_SOURCE,
}


def test_the_kinds_of_arguments_are_those_of_the_code():
    """In the words of the errors."""
    assert table("kinds") == [[name, kind.allowed] for name, kind in KINDS.items()]


@pytest.mark.parametrize("name", methods.METHODS)
def test_each_method_has_its_arguments(name: str):
    """Their names, kinds, and which are required."""
    assert f"\n### {name}\n" in PROTOCOL
    told = [(row[0], KINDS[row[1]]) for row in table(f"arguments of {name}")]
    assert told == [
        (f"`{argument.name}`{' *' if argument.required else ''}", argument.kind)
        for argument in methods.METHODS[name].arguments.values()
    ]


def test_each_code_has_its_exit_status():
    """All that there are, and no other."""
    told = {row[0].strip("`"): int(row[1]) for row in table("errors")}
    assert told == {code: kind.exit_status for code, kind in errors.BY_CODE.items()}


def test_each_detail_of_an_error_is_told():
    """Whatever the daemon puts into one."""
    kinds = {kind.__name__ for kind in errors.BY_CODE.values()}
    used = {
        keyword.arg
        for folder in ("rules", "service")
        for path in (Path(spotokend.__file__).parent / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in kinds
        for keyword in node.keywords
    }
    assert used - {None} == set(fields("details"))


def test_what_may_be_repeated_is_told():
    """As our own clients do."""
    sentence = re.search(r"What may be repeated: ([^.]*)\.", PROTOCOL)
    assert sentence is not None
    assert set(re.findall(r"\w+", sentence[1])) == calls.REPEATABLE


def test_the_outcomes_of_a_login_are_told():
    """All that the daemon knows."""
    texts = {
        node.value
        for name in ("logins", "identity")
        for node in ast.walk(
            ast.parse((Path(logins.__file__).parent / f"{name}.py").read_text(encoding="utf-8"))
        )
        if isinstance(node, ast.Constant)
    }
    assert set(fields("outcomes")) <= texts


def test_the_fields_of_a_notice_are_told():
    """Names and types."""
    check("notice", Notice("token", Level.DEBUG, None, "words", None, Wall(1.5)).to_wire())
    check("notice", Notice("token", Level.DEBUG, "main", "words", "hint", Wall(1.5)).to_wire())


def test_the_fields_of_results_are_told(daemon: DaemonProcess, login: dict[str, Any]):
    """What the daemon really answers has the fields of the tables, each of its type."""
    with spotokend.Client(daemon.socket) as client:
        check("result of hello", client.call("hello"))
        check("token", client.call("token", account="bob"))
        check("token", client.call("token", account="machine"))
        check("result of login_start", login["begun"])
        check("result of login_finish", login["finished"])
        check("result of reload", client.call("reload"))
        watched = client.call("watch")
        check("result of watch", watched)
        for token in watched["tokens"]:
            check("token", token)
        status = client.call("status")
        check("result of status", status)
        check("daemon", status["daemon"])
        for app in status["clients"].values():
            check("client", app)
            check("gate", app["gate"])
        for account in (*status["accounts"], *watched["accounts"]):
            check("account", account)
        check("token", client.call("refresh", account="bob"))
        [bob] = client.call("status", account="bob")["accounts"]
        check("story", {key: thing for key, thing in bob.items() if key not in fields("account")})
        [outcome] = bob["outcomes"]
        assert list(outcome) == ["at", "outcome", "words"]


def check(name: str, thing: dict[str, object]) -> None:
    """A map has the fields of a table."""
    told = fields(name)
    assert list(thing) == list(told), name
    assert [key for key, kind in told.items() if not is_a(kind, thing[key])] == [], name


def is_a(kind: str, thing: object) -> bool:
    """Whether a value is of a type, as the tables write it."""
    if kind.endswith(" or nil"):
        return thing is None or is_a(kind.removesuffix(" or nil"), thing)
    if kind.startswith("array of "):
        item = kind.removeprefix("array of ")
        return isinstance(thing, list) and all(is_a(item, element) for element in thing)
    types = {"str": str, "int": int, "float": float, "bool": bool, "map": dict}
    return type(thing) is types[kind]
