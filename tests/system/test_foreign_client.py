"""Programs that know MessagePack-RPC and nothing of spotokend: they are served as they are.

The client is pynvim's, written for an editor: it greets with a notification nobody here knows,
sends the names of methods as it likes, as str or bin, and shows an error's second element.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
from daemon_process import DaemonProcess
from pynvim.msgpack_rpc import socket_session
from pynvim.msgpack_rpc.session import Session

import spotokend
from spotokend.sandbox import Options, ready_configuration, running


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
    # It lets go of its socket only while its loop runs: the daemon's end makes it.
    daemon.terminate()
    with pytest.raises(EOFError):
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
