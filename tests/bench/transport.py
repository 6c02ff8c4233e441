"""A trial: which transport should drive the session, anyio's streams or an asyncio protocol?

    python tests/bench/transport.py [--seconds S] [--rounds N]

Both servers run the same pure :class:`spotokend.rules.session.Session` with a prepared reply, each
in a process of its own, and are loaded in turn by ``load.c`` from another. Absolute figures are the
machine's; the ratios, taken in one run, are what decided for ``spotokend/service/server.py``. The
processor time a request is the steadier of the two where the machine has other things to do.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import anyio.abc

from spotokend import wire
from spotokend.rules.session import Session

REQUEST = wire.request(1000, "token", {"account": "main"})
RESULT = wire.pack(
    {
        "account": "main",
        "access_token": "x" * 150,
        "token_type": "Bearer",
        "expires_at": 1.8e9,
        "expires_boot": 1e5,
        "scope": ["user-read-private"],
        "generation": 7,
        "grant_expires_at": 1.9e9,
    }
)
LOADS = ((1, "keep"), (50, "keep"), (10, "connect"))


def answer(session: Session, data: bytes) -> bytes:
    """What both servers do between reading and writing."""
    session.receive(data)
    while (call := session.next_call()) is not None:
        session.reply(call.msgid, RESULT)
    out = session.take()
    session.unsent = 0
    return out


async def serve_anyio_streams(path: str) -> None:
    spare: list[wire.Decoder] = []

    async def converse(stream: anyio.abc.SocketStream) -> None:
        session = Session(spare=spare)
        async with stream:
            try:
                async for data in stream:
                    await stream.send(answer(session, data))
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return

    await (await anyio.create_unix_listener(path)).serve(converse)


async def serve_asyncio_protocol(path: str) -> None:
    spare: list[wire.Decoder] = []

    class Conversation(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport
            self.session = Session(spare=spare)

        def data_received(self, data: bytes) -> None:
            self.transport.write(answer(self.session, data))

    server = await asyncio.get_running_loop().create_unix_server(Conversation, path)
    await server.serve_forever()


SERVERS: dict[str, Callable[[str], Awaitable[None]]] = {
    "anyio streams": serve_anyio_streams,
    "asyncio protocol": serve_asyncio_protocol,
}


def measure(
    name: str, folder: Path, seconds: float, clients: int, mode: str
) -> tuple[float, float]:
    """Requests a second that the server of that name answers, and its microseconds for each."""
    path = folder / "server.sock"
    server = subprocess.Popen([sys.executable, __file__, "--serve", name, "--socket", path])
    try:
        while not path.exists():
            if server.poll() is not None:
                raise SystemExit(f"the server on {name} ended with status {server.returncode}")
            time.sleep(0.01)
        reply_size = len(wire.result_response(1000, RESULT))
        command = [folder / "load", path, clients, seconds, mode, folder / "request", reply_size]
        before = processor_seconds(server.pid)
        words = subprocess.run(
            [str(word) for word in command], check=True, capture_output=True, text=True
        ).stdout
        rate = float(words.split()[0])
        return rate, (processor_seconds(server.pid) - before) / (rate * seconds) * 1e6
    finally:
        server.terminate()
        server.wait()
        path.unlink(missing_ok=True)


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far; see proc(5), fields 14 and 15 of stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5, help="the median of so many is shown")
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    parser.add_argument("--socket", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        anyio.run(SERVERS[options.serve], options.socket)
        return

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = Path(__file__).with_name("load.c")
        subprocess.run(["cc", "-O2", "-Wall", "-o", folder / "load", source], check=True)
        (folder / "request").write_bytes(REQUEST)
        print(f"{'load':<20}", *(f"{server:>24}" for server in SERVERS), f"{'ratios':>13}")
        for clients, mode in LOADS:
            # In turn, round by round: what else the machine does then hits both alike.
            rounds = [
                [measure(server, folder, options.seconds, clients, mode) for server in SERVERS]
                for _ in range(options.rounds)
            ]
            columns = [
                [statistics.median(values) for values in zip(*column, strict=True)]
                for column in zip(*rounds, strict=True)
            ]
            (streams_rate, streams_cost), (protocol_rate, protocol_cost) = columns
            print(
                f"{f'{clients} clients, {mode}':<20}",
                *(f"{rate:>12,.0f}/s {cost:>6.1f} us" for rate, cost in columns),
                f"{protocol_rate / streams_rate:>6.2f} {protocol_cost / streams_cost:>6.2f}",
            )


if __name__ == "__main__":
    main()
