"""What bad company costs a good client: its 99th percentile, alone and beside others.

    python tests/bench/hostile.py [--seconds S] [--rounds N]

One client asks the real daemon for a stored token, waits for it, and asks again (``load.c``), while
others do what each row says. Absolute figures are the machine's; the two ratios, taken in one run,
are what is promised: 1,000 silent connections at most double it, and 100 that never let a full
pipeline rest cost at most ten times what 50 good clients do.
"""

from __future__ import annotations

import argparse
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # for what the tests have in common

from bystander import at_rest, until  # noqa: E402
from daemon_process import DaemonProcess  # noqa: E402
from flood import CLIENTS, Flood  # noqa: E402

import spotokend  # noqa: E402
from spotokend import wire  # noqa: E402
from spotokend.sandbox import Options, ready_configuration, running  # noqa: E402

ACCOUNT = "machine"
ASKED = wire.request(1000, "token", {"account": ACCOUNT})
SILENT, GOOD = 1000, 50


class Bed:
    """A daemon with a stored token, and the load tool."""

    def __init__(self, folder: Path, daemon: DaemonProcess) -> None:
        self.folder, self.daemon = folder, daemon
        with spotokend.Client(str(daemon.socket)) as client:
            token = client.call("token", account=ACCOUNT)
        self._reply_size = len(wire.result_response(1000, wire.pack(token)))
        source = str(HERE / "load.c")
        subprocess.run(["cc", "-O2", "-Wall", "-o", folder / "load", source], check=True)
        (folder / "request").write_bytes(ASKED)

    def load(self, clients: int, seconds: float) -> subprocess.Popen[str]:
        """So many good clients, each without a pause."""
        words = [self.folder / "load", self.daemon.socket, clients, seconds, "keep"]
        words += [self.folder / "request", self._reply_size]
        return subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True)

    def measure(self, seconds: float) -> tuple[float, ...]:
        """Of one good client: requests a second, median and 99th percentile in microseconds."""
        words, _ = self.load(1, seconds).communicate()
        return tuple(map(float, words.split()))


@contextmanager
def nobody(_bed: Bed, _seconds: float) -> Iterator[None]:
    yield


@contextmanager
def silent(bed: Bed, _seconds: float) -> Iterator[None]:
    clients = [socket.socket(socket.AF_UNIX) for _ in range(SILENT)]
    for client in clients:
        client.connect(str(bed.daemon.socket))
    yield
    for client in clients:
        client.close()


@contextmanager
def good(bed: Bed, seconds: float) -> Iterator[None]:
    others = bed.load(GOOD, 2 * seconds + 10)
    yield
    others.terminate()
    others.communicate()


def flooding(kind: str) -> Callable[[Bed, float], AbstractContextManager[object]]:
    return lambda bed, _seconds: Flood(bed.daemon.socket, kind)


COMPANY: dict[str, Callable[[Bed, float], AbstractContextManager[object]]] = {
    "nobody": nobody,
    f"{SILENT} that are silent": silent,
    f"{GOOD} good ones": good,
} | {
    f"{CLIENTS}, without a pause: {kind}": flooding(kind)
    for kind in ("token", "status", "unknown method", "half a message, byte by byte")
}
NOBODY, SILENT_ONES, GOOD_ONES, FLOOD, *_ = COMPANY
WANTED = {SILENT_ONES: (NOBODY, 2.0), FLOOD: (GOOD_ONES, 10.0)}
"""Row, the one it is compared with, and the greatest ratio of their 99th percentiles."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5, help="the median of so many is shown")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    figures: dict[str, list[tuple[float, ...]]] = {row: [] for row in COMPANY}
    with tempfile.TemporaryDirectory() as name, running(Options()) as sandbox:
        folder = Path(name)
        configuration = ready_configuration(sandbox.url, sandbox.provider.options, folder=name)
        with DaemonProcess(folder, configuration) as daemon:
            bed = Bed(folder, daemon)
            for _ in range(options.rounds):
                # In turn, round by round: what else the machine does then hits all alike.
                for row, company in COMPANY.items():
                    until(lambda: at_rest(daemon))  # those before have gone
                    with company(bed, options.seconds):
                        figures[row].append(bed.measure(options.seconds))

    print(f"{'a good client beside':<50} {'requests':>10} {'median':>11} {'99 of 100':>11}")
    p99 = {}
    for row, rounds in figures.items():
        rate, middle, p99[row] = map(statistics.median, zip(*rounds, strict=True))
        print(f"{row:<50} {rate:>8,.0f}/s {middle / 1e3:>8.2f} ms {p99[row] / 1e3:>8.2f} ms")
    held = True
    for row, (other, most) in WANTED.items():
        ratio = p99[row] / p99[other]
        held = held and ratio <= most
        print(f"{f'{row}, to {other}':<62} {ratio:>6.2f} x, at most {most:g} x")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
