"""The sandbox over real loopback connections, as a program under test meets it."""

import os
import signal
import socket
import threading

import anyio
import httpx
import pytest

from spotokend.errors import Misconfigured
from spotokend.sandbox import Fault, Kind, Limits, Options, Sandbox, run, running

pytestmark = pytest.mark.anyio
SECRET = ("sandbox-secret-client", "sandbox-client-secret")
MACHINE = {"grant_type": "client_credentials"}
TOKEN = "POST /api/token"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    """Whatever the program under test runs on."""
    return request.param


@pytest.fixture
async def sandbox():
    """One that listens, and lets nobody wait for long."""
    limits = Limits(request_time=0.2, linger_time=0.2)
    sandbox = Sandbox(Options(rotation="always", auto_approve=True), limits=limits)
    async with anyio.create_task_group() as group:
        await group.start(sandbox.serve)
        yield sandbox
        group.cancel_scope.cancel()


@pytest.fixture
async def client(sandbox):
    many = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=sandbox.url, trust_env=False, timeout=20, limits=many
    ) as client:
        yield client


@pytest.fixture
async def login(client, world):
    """A PKCE login over the wire: its tokens."""

    async def login():
        redirect = await client.get("/authorize", params=world().parameters())
        code = httpx.URL(redirect.headers["location"]).params["code"]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": world.REDIRECT}
        form |= {"client_id": world.PKCE, "code_verifier": world.VERIFIER}
        return (await client.post("/api/token", data=form)).json()

    return login


def refresh_form(tokens):
    return {
        "grant_type": "refresh_token",
        "refresh_token": tokens["refresh_token"],
        "client_id": "sandbox-pkce-client",
    }


async def raw(sandbox, data):
    """What comes back for these bytes, until the other side ends."""
    received = b""
    async with await anyio.connect_tcp("127.0.0.1", sandbox.port) as stream:
        await stream.send(data)
        with anyio.fail_after(5):
            try:
                while True:
                    received += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return received


async def test_a_whole_life(client, login):
    """Login, call, refresh, call, and the second use that ends it all."""
    tokens = await login()
    bearer = {"authorization": f"Bearer {tokens['access_token']}"}
    assert (await client.get("/v1/me", headers=bearer)).json()["id"] == "alice"
    renewed = await client.post("/api/token", data=refresh_form(tokens))
    assert renewed.headers["cache-control"] == "no-store"
    assert renewed.json()["refresh_token"] != tokens["refresh_token"]
    assert (await client.post("/api/token", data=refresh_form(tokens))).status_code == 400
    assert (await client.get("/v1/me", headers=bearer)).status_code == 401
    state = (await client.get("/sandbox/state")).json()
    assert state["double_redemptions"] == 1
    assert state["requests"]["by_endpoint"][TOKEN] == 3


async def test_consent_by_form(client, world):
    """The page is got, its form posted back to where it says, and the redirect followed up."""
    await client.post("/sandbox/options", json={"auto_approve": False})
    page = await client.get("/authorize", params=world().parameters(show_dialog="true"))
    assert "default-src 'none'" in page.headers["content-security-policy"]
    action = page.text.partition('action="')[2].partition('"')[0].replace("&amp;", "&")
    answer = await client.post(action, data={"user": "carol", "decision": "agree"})
    assert answer.status_code == 303
    parameters = httpx.URL(answer.headers["location"]).params
    assert set(parameters) == {"code", "state"}


async def test_two_hundred_at_once(client, sandbox):
    """Each gets a token of its own."""
    seen = set()

    async def ask():
        answer = await client.post("/api/token", data=MACHINE, auth=SECRET)
        seen.add(answer.json()["access_token"])

    async with anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(ask)
    assert len(seen) == 200
    assert sandbox.provider.record.by_endpoint[TOKEN] == 200


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "cut"}, "disconnected without sending a response"),
        ({"kind": "break"}, "closed connection without sending complete message body"),
    ],
)
async def test_broken_connections(client, login, fault, error):
    """As the client's library sees them; only one that was served has used the grant up."""
    tokens = await login()
    await client.post("/sandbox/faults", json=fault | {"count": 1})
    with pytest.raises(httpx.RemoteProtocolError, match=error):
        await client.post("/api/token", data=refresh_form(tokens))
    again = await client.post("/api/token", data=refresh_form(tokens))
    assert again.status_code == (200 if fault["kind"] == "cut" else 400)


async def test_cut_after_the_grant_was_used(client, login):
    """The one loss that no client can prevent."""
    tokens = await login()
    await client.post("/sandbox/faults", json={"kind": "cut", "served": True, "count": 1})
    with pytest.raises(httpx.RemoteProtocolError):
        await client.post("/api/token", data=refresh_form(tokens))
    again = await client.post("/api/token", data=refresh_form(tokens))
    assert again.json()["error_description"] == "Refresh token revoked"


@pytest.mark.parametrize(
    ("fault", "status", "content_type"),
    [
        ({"kind": "answer", "status": 503, "body": "html"}, 503, "text/html; charset=utf-8"),
        ({"kind": "answer", "status": 500}, 500, "application/json"),
        ({"kind": "answer", "status": 502, "body": "text"}, 502, "text/plain"),
        ({"kind": "answer", "status": 200, "body": "html"}, 200, "text/html; charset=utf-8"),
        ({"kind": "answer", "status": 200, "body": "empty"}, 200, "text/plain"),
        ({"kind": "slow", "seconds": 0.01}, 200, "application/json"),
        ({"kind": "truncate"}, 200, "application/json"),
    ],
)
async def test_wrong_answers(client, fault, status, content_type):
    """From the wire: the status and type of each, and afterwards the truth again."""
    await client.post("/sandbox/faults", json=fault | {"count": 1})
    answer = await client.post("/api/token", data=MACHINE, auth=SECRET)
    assert (answer.status_code, answer.headers["content-type"]) == (status, content_type)
    if fault["kind"] == "truncate":
        with pytest.raises(ValueError, match=r"Unterminated string|Expecting"):
            answer.json()
    assert (await client.post("/api/token", data=MACHINE, auth=SECRET)).json()["expires_in"] == 3600


async def test_too_many_requests(client):
    """429 with its Retry-After, in the API's shape."""
    fault = {"kind": "answer", "status": 429, "retry_after": 13749, "path": "/v1/"}
    await client.post("/sandbox/faults", json=fault)
    answer = await client.get("/v1/me")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "13749")
    assert answer.json() == {"error": {"status": 429, "message": "Too Many Requests"}}


@pytest.mark.parametrize("remove", ["over the wire", "in the same loop"])
async def test_a_hang_lasts_until_it_is_switched_off(client, sandbox, remove):
    """Then the answer comes; meanwhile others are served."""
    number = sandbox.faults.add(Fault(kind=Kind.HANG, served=True, count=1))
    answers = []

    async def ask():
        answers.append(await client.post("/api/token", data=MACHINE, auth=SECRET))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        while not (await client.get("/sandbox/faults")).json()[0]["struck"]:
            pass
        # Another fault's end is not this one's.
        sandbox.faults.remove(sandbox.faults.add(Fault(kind=Kind.CUT, path="/nowhere")))
        assert (await client.post("/api/token", data=MACHINE, auth=SECRET)).status_code == 200
        assert answers == []
        if remove == "over the wire":
            await client.delete("/sandbox/faults", params={"id": number})
        else:
            sandbox.faults.clear()
    assert [answer.status_code for answer in answers] == [200]


async def test_garbage_and_oversize_cost_their_own_connection_only(client, sandbox):
    """Each is told what was wrong; the next one is served."""
    assert b" 400 " in await raw(sandbox, b"\x00\xff\r\n\r\n")
    assert b" 431 " in await raw(sandbox, b"GET /" + b"x" * 20_000)
    big = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9999999\r\n\r\n" + b"x" * 1_100_000
    assert b" 413 " in await raw(sandbox, big)
    assert (await client.get("/")).status_code == 200


async def test_a_slow_loris_is_turned_away(sandbox):
    """Half a request, and then nothing."""
    assert b" 408 " in await raw(sandbox, b"GET / HTTP/1.1\r\nhost:")


async def test_a_reset_connection_harms_nobody(client, sandbox):
    """An exception out of one handler would end the listener."""
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", sandbox.port)) as rude:
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            rude.sendall(b"GET / HTTP/1.1\r\n")
    assert (await client.get("/sandbox/state")).status_code == 200


async def test_connections_are_bounded():
    """One too many is told so, and there is room again once another has left."""
    sandbox = Sandbox(limits=Limits(connections=1))
    async with anyio.create_task_group() as group:
        await group.start(sandbox.serve)
        get = b"GET /sandbox/faults HTTP/1.1\r\nhost: a\r\n\r\n"
        first = await anyio.connect_tcp("127.0.0.1", sandbox.port)
        await first.send(get)
        assert b" 200 " in await first.receive()
        assert b" 503 " in await raw(sandbox, b"")
        await first.aclose()
        with anyio.fail_after(5):
            while b" 200 " not in await raw(
                sandbox, get.replace(b"a\r\n", b"a\r\nconnection: close\r\n")
            ):
                pass
        group.cancel_scope.cancel()


async def test_both_loopback_addresses():
    """On the same port."""
    sandbox = Sandbox(ipv6=True)
    async with anyio.create_task_group() as group:
        await group.start(sandbox.serve)
        for host in ("127.0.0.1", "[::1]"):
            async with httpx.AsyncClient(trust_env=False) as client:
                answer = await client.get(f"http://{host}:{sandbox.port}/sandbox/faults")
                assert answer.json() == []
        group.cancel_scope.cancel()


@pytest.mark.parametrize("ipv6", [False, True])
def test_a_taken_port_is_told_with_the_cure(ipv6):
    """Before anything is served, and nothing stays bound."""
    host, family = ("::1", socket.AF_INET6) if ipv6 else ("127.0.0.1", socket.AF_INET)
    with socket.create_server((host, 0), family=family) as taken:
        sandbox = Sandbox(port=taken.getsockname()[1], ipv6=ipv6)
        with pytest.raises(Misconfigured, match="can't be used") as caught:
            sandbox.bind()
    assert caught.value.hint == "choose another port; 0 takes a free one"
    sandbox.bind()
    sandbox._close()


def test_a_port_that_cannot_be():
    """Out of range is a configuration's mistake, too."""
    with pytest.raises(Misconfigured, match="port 70000"):
        Sandbox(port=70000).bind()


def test_running_in_a_thread():
    """For tests that aren't asynchronous; the port is free again afterwards."""
    with running(Options(user="bob")) as sandbox:
        state = httpx.get(f"{sandbox.url}/sandbox/state", trust_env=False).json()
        assert state["options"]["user"] == "bob"
    with socket.create_server(("127.0.0.1", sandbox.port)):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_ends_by_signal(number):
    """``ready`` is called once it is reachable, and a signal ends it in order."""
    reached = []

    def ready(sandbox):
        def visit():
            reached.append(httpx.get(sandbox.url, trust_env=False).status_code)
            os.kill(os.getpid(), number)

        threading.Thread(target=visit).start()

    run(Options(), port=0, ready=ready)
    assert reached == [200]


def test_run_says_when_the_port_is_taken():
    """As itself, not within a group of exceptions."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Misconfigured):
        run(Options(), port=taken.getsockname()[1], ready=lambda _: None)
