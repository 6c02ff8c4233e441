"""The service under a real ``systemd --user``: activation, notifications, watchdog and sandbox."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from nightly import often
from user_manager import NEIGHBOUR, UserManager

from spotokend import wire
from spotokend.sandbox import Fault, Kind, Options, Sandbox, ready_configuration, running

WITHIN = 20.0
"""Seconds for what takes well under one on an idle machine."""
RUNNING = 0.5
"""Seconds between two restarts, in which some of the requests find a daemon that runs."""

CONFIG = UserManager.home / ".config" / "spotokend"
UNITS = UserManager.home / ".config" / "systemd" / "user"
SECRET = CONFIG / "confidential.secret"
OURS = UNITS / "spotokend.service.d" / "50-configuration.conf"
RUNTIME = UserManager.runtime / "spotokend"
SOCKET = RUNTIME / "spotokend.sock"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """The provider."""
    with running(Options(auto_approve=True)) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def service(
    user_manager: UserManager, sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> UserManager:
    """Installed, and alice is logged in."""
    folder = tmp_path_factory.mktemp("secrets")
    text = ready_configuration(sandbox.url, sandbox.provider.options, folder=str(folder))
    text = re.sub(r"\[accounts\.(bob|carol)\][^[]*", "", text)
    for file in folder.iterdir():
        user_manager.write(CONFIG / file.name, file.read_text())
    configuration = text.replace(str(folder), str(CONFIG)) + "\n[timing]\nforced_interval = 0\n"
    user_manager.write(CONFIG / "config.toml", configuration)
    # There is no journal in there.
    user_manager.write(
        UNITS / "spotokend.service.d" / "log.conf",
        f"[Service]\nStandardError=append:{UserManager.home}/log\n",
    )
    user_manager.call("spotokend", "service", "install")
    return user_manager


def log_in(service: UserManager, account: str) -> None:
    """As a user with a browser on the same machine."""
    command = service.command("spotokend", "login", account, "--no-browser")
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as login:
        assert login.stdout is not None
        visit = "import sys, urllib.request as r; r.urlopen(sys.argv[1]).read()"
        service.call("python3", "-c", visit, login.stdout.readline().strip())
        words = login.communicate(timeout=WITHIN)[1]
    assert login.returncode == 0, words


def until(condition: Callable[[], object], words: str) -> None:
    """Wait for what happens in another process."""
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline, words
        time.sleep(0.05)


@contextmanager
def drop_in(service: UserManager, *lines: str) -> Iterator[None]:
    """The service with these settings besides; afterwards as before."""
    path = UNITS / "spotokend.service.d" / "test.conf"
    service.write(path, "\n".join(["[Service]", *lines, ""]))
    try:
        service.systemctl("daemon-reload")
        service.systemctl("restart", "spotokend.service")
        yield
    finally:
        service.path(path).unlink()
        service.systemctl("daemon-reload")
        service.systemctl("restart", "spotokend.service")


@contextmanager
def configured(service: UserManager, change: Callable[[str], str]) -> Iterator[None]:
    """The configuration changed; afterwards as before, and read again."""
    path = service.path(CONFIG / "config.toml")
    before = path.read_text()
    try:
        path.write_text(change(before))
        yield
    finally:
        path.write_text(before)


# --------------------------------------------------------------------------------- a day with it


def test_a_login_outlives_the_user_s_manager(service: UserManager):
    """Installed, logged in, a token; another session: a token without a login, started by asking."""
    log_in(service, "alice")
    assert service.call("spotokend", "token", "alice").startswith("sandbox-access")
    pid = service.property("MainPID")
    service.stop()
    service.start()

    token = service.call("spotokend", "token", "alice")

    assert token.startswith("sandbox-access")
    assert service.property("MainPID") not in ("0", pid)
    shown = service.systemctl("status", "spotokend.service")
    assert "Active: active (running)" in shown
    until(
        lambda: service.property("StatusText") == "Keeps 2 accounts, all well",
        service.property("StatusText"),
    )


def test_the_status_line_tells_who_needs_what(service: UserManager):
    """With the command to type; and no more of it when it is mended."""
    service.call("spotokend", "logout", "alice")
    until(
        lambda: "(spotokend login alice)" in service.property("StatusText"),
        service.property("StatusText"),
    )
    assert service.property("StatusText").startswith("Keeps 2 accounts. alice: ")
    log_in(service, "alice")
    until(lambda: "all well" in service.property("StatusText"), service.property("StatusText"))


def test_a_client_starts_it_where_it_does_not_run(service: UserManager):
    """Socket activation: it was stopped, and the socket wasn't."""
    service.call("spotokend", "stop")
    until(lambda: service.property("ActiveState") == "inactive", "it has been stopped")

    assert service.call("spotokend", "token", "alice").startswith("sandbox-access")

    assert service.property("ActiveState") == "active"


def test_systemctl_reload_is_a_reload(service: UserManager):
    """And a broken configuration changes nothing."""
    pid = service.property("MainPID")
    with configured(service, lambda text: text + '\n[accounts.dave]\nclient = "pkce"\n'):
        service.systemctl("reload", "spotokend.service")
        until(lambda: "dave" in service.call("spotokend", "status"), "the new account")
    with configured(service, lambda text: text + "\nnonsense"):
        service.systemctl("reload", "spotokend.service")
        until(lambda: "reload_refused" in log(service), "the refusal")
    assert (service.property("MainPID"), service.property("ActiveState")) == (pid, "active")
    service.call("spotokend", "reload")


def log(service: UserManager) -> str:
    """What the daemons have written."""
    return service.path(UserManager.home / "log").read_text()


def test_a_broken_configuration_is_told_to_who_asks(service: UserManager):
    """Clients that wait at the socket get the reason, and none is left to start it for ever."""
    with configured(service, lambda text: text + "\nnonsense"):
        assert service.run("systemctl", "--user", "restart", "spotokend.service").returncode == 1
        for _ in range(2):
            asked = service.run("spotokend", "token", "alice")
            assert (asked.returncode, "config.toml" in asked.stderr) == (2, True), asked.stderr
        until(lambda: service.property("ActiveState") == "failed", "it has ended")
        assert service.property("StatusText").startswith("Not started: ")
        assert service.property("ActiveState", "spotokend.socket") == "active"
    assert service.call("spotokend", "token", "alice").startswith("sandbox-access")


# ------------------------------------------------------------------------------------ supervision


def test_a_daemon_that_hangs_is_killed_and_started_again(service: UserManager):
    """It feeds the watchdog for longer than its time; not after SIGSTOP, when it can't."""
    with drop_in(service, "WatchdogSec=3", "RestartSec=0"):
        pid = service.property("MainPID")
        for _ in range(4):
            fed = service.property(FED)
            until(lambda fed=fed: service.property(FED) != fed, "a sign of life")
        assert (service.property("MainPID"), service.property("NRestarts")) == (pid, "0")

        service.call("kill", "-STOP", pid)

        assert service.call("spotokend", "token", "alice").startswith("sandbox-access")
        assert service.property("MainPID") not in ("0", pid)
        assert service.property("NRestarts") == "1"


FED = "WatchdogTimestampMonotonic"


# ---------------------------------------------------------------------------------------- restarts

# Raw clients, without a second try: four of them, until standard input ends, each time with a new
# connection. At the end: how many replies, and what else came.
ASKERS = """
import json, socket, sys, threading, time
sys.path[:0] = ["/run/checkout", "/run/packages"]
from spotokend import wire

request = wire.request(1, "token", {"account": "machine"})
replies, trouble, over = [], [], threading.Event()

def ask():
    while not over.is_set():
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(30)
                client.connect(sys.argv[1])
                client.sendall(request)
                decoder, messages = wire.Decoder(message_limit=1 << 20), []
                while not messages:
                    data = client.recv(65536)
                    if not data:
                        raise EOFError("the end before the reply")
                    messages = list(decoder.feed(data))
                _, _, error, result = messages[0]
                (trouble if error else replies).append(error or result["generation"])
        except Exception as error:
            trouble.append(repr(error))
        time.sleep(0.01)

threads = [threading.Thread(target=ask) for _ in range(4)]
for thread in threads:
    thread.start()
sys.stdin.read()
over.set()
for thread in threads:
    thread.join()
print(json.dumps([len(replies), trouble]))
"""


def test_no_request_fails_through_restarts(service: UserManager, record_property):
    """A thousand and twenty at night: who asks meanwhile waits in line."""
    restarts, least = often(4, 20), often(100, 1000)
    with subprocess.Popen(
        service.command("python3", "-c", ASKERS, str(SOCKET)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as asking:
        began = time.monotonic()
        for _ in range(restarts):
            time.sleep(RUNNING)
            service.systemctl("restart", "spotokend.service")
        time.sleep(RUNNING)
        took = time.monotonic() - began
        out = asking.communicate(timeout=60)[0]

    replies, trouble = json.loads(out)
    record_property("figures", f"{replies} requests through {restarts} restarts in {took:.1f} s")
    assert trouble == []
    assert replies >= least


# A client with a request whose answer is on its way, and another that is idle.
WAITERS = """
import json, socket, sys
sys.path[:0] = ["/run/checkout", "/run/packages"]
from spotokend import wire

clients = [socket.socket(socket.AF_UNIX) for _ in range(2)]
said = []
for client in clients:
    client.settimeout(30)
    client.connect(sys.argv[1])
    client.sendall(wire.request(1, "hello", {}))
    client.recv(65536)
clients[0].sendall(wire.request(2, "refresh", {"account": "machine"}))
print("asked", flush=True)
for client in clients:
    data = b""
    while more := client.recv(65536):
        data += more
    said.append([bool(message[2] is None) for message in wire.Decoder().feed(data)])
print(json.dumps(said))
"""


def test_who_is_connected_at_a_restart_gets_the_reply_and_then_the_end(
    service: UserManager, sandbox: Sandbox
):
    """The provider takes its time, and the stop waits for it."""
    sandbox.provider.faults.add(Fault(kind=Kind.SLOW, count=1, seconds=1.5))
    with subprocess.Popen(
        service.command("python3", "-c", WAITERS, str(SOCKET)), stdout=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "asked\n"
        service.systemctl("restart", "spotokend.service")
        assert json.loads(waiting.communicate(timeout=WITHIN)[0]) == [[True], []]


# ------------------------------------------------------------------------------------- the sandbox

# What a program could try that was taken over by somebody. Run in the sandbox, and outside of it.
# PTRACE_SEIZE and not PTRACE_ATTACH, which would leave the other process stopped.
ATTEMPTS = """
import ctypes, json, os, pathlib, socket, subprocess, sys

home, neighbour, target = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
libc = ctypes.CDLL(None, use_errno=True)

def checked(result):
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def ask_the_manager():
    command = ["systemd-run", "--user", "--wait", "--quiet", "true"]
    subprocess.run(command, check=True, capture_output=True, timeout=20)

attempts = {
    "write in the home": lambda: (home / "evil").write_text("x"),
    "read a neighbour's file": lambda: open(neighbour).read(),
    "trace another process": lambda: checked(libc.ptrace(0x4206, target, 0, 0)),
    "read another process's memory": lambda: open(f"/proc/{target}/mem", "rb").close(),
    "read another process's environment": lambda: open(f"/proc/{target}/environ", "rb").read(),
    "a user namespace": lambda: checked(libc.unshare(0x10000000)),
    "a raw packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "a device": lambda: open("/dev/fuse", "rb").close(),
    "an executable page": lambda: __import__("mmap").mmap(-1, 4096, prot=7).close(),
    "set-user-id": lambda: os.chmod(sys.argv[4], 0o4700),
    "have the manager start something": ask_the_manager,
    "what it needs": lambda: pathlib.Path(sys.argv[4]).write_text("x"),
}
done = []
for name, attempt in attempts.items():
    try:
        attempt()
    except Exception as error:
        print(name, repr(error), file=sys.stderr)
    else:
        done.append(name)
pathlib.Path(sys.argv[4]).write_text(json.dumps(done))
"""


def test_whoever_takes_the_daemon_over_does_not_get_far(service: UserManager):
    """The same attempts outside succeed, so it is the sandbox that stops them."""
    service.write("/home/eve/diary", "mine", owner=NEIGHBOUR)
    service.write(UserManager.home / "attempts.py", ATTEMPTS)
    report = RUNTIME / "report"
    other = service.command("sh", "-c", "echo $$; cat")  # until its input ends, with this block
    with subprocess.Popen(
        other, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        target = process.stdout.readline().strip()
        command = f"/run/bin/python3 {UserManager.home}/attempts.py {UserManager.home} "
        command += f"/home/eve/diary {target} {report}"
        service.call("touch", str(report))
        service.call("sh", "-c", command + " 2>/dev/null")
        outside = json.loads(service.path(report).read_text())
        unit = service.path(UNITS / "spotokend.service").read_text()
        unit = re.sub(r"(?m)^(Type|Restart\w*|WatchdogSec|Requires|After)=.*\n", "", unit)
        unit = re.sub(r"(?m)^ExecStart=.*$", f"Type=oneshot\nExecStart={command}", unit)
        service.write(UNITS / "attempts.service", unit)
        service.systemctl("daemon-reload")
        service.systemctl("start", "attempts.service")
        inside = json.loads(service.path(report).read_text())

    assert inside == ["what it needs"]
    assert set(outside) >= {
        "write in the home",
        "read another process's environment",
        "a netlink socket",
        "an executable page",
        "set-user-id",
        "have the manager start something",
        "what it needs",
    }


def test_systemd_s_own_judgement(service: UserManager):
    """Nothing to complain of, and an exposure of 2.0 at most."""
    unit = str(UNITS / "spotokend.service")
    verified = service.run("systemd-analyze", "verify", "--user", unit)
    judged = service.run(
        "systemd-analyze", "security", "--user", "--offline=true", "--threshold=20", unit
    )

    assert (verified.stdout + verified.stderr, verified.returncode) == ("", 0)
    assert judged.returncode == 0, judged.stdout


def test_the_daemon_has_no_power_and_serves_nobody_else(service: UserManager):
    """No capability, no new ones, seccomp; root, who is another user in there, is refused."""
    status = service.call("cat", f"/proc/{service.property('MainPID')}/status")
    for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"):
        assert line in status
    assert "Seccomp:\t2" in status
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(service.path(SOCKET)))
        client.sendall(wire.request(1, "hello", {}))
        ((_, _, error, _),) = wire.Decoder().feed(client.recv(4096))
    assert error[0] == "forbidden"


def with_source(source: str) -> Callable[[str], str]:
    """The configuration with another source of the client secret."""
    pattern = r"client_secret = \{ .* \}"
    return lambda text: re.sub(pattern, lambda _: f"client_secret = {{ {source} }}", text)


def test_a_secret_that_systemd_passes(service: UserManager):
    """LoadCredential=: a file that the daemon itself could not see, in memory of its own."""
    with drop_in(service, f"LoadCredential=client-secret:{SECRET}"):
        with configured(service, with_source('credential = "client-secret"')):
            service.call("spotokend", "reload")
            service.call("spotokend", "refresh", "machine")


def test_a_store_elsewhere_and_a_secret_that_a_command_prints(service: UserManager):
    """The sandbox is opened for what the configuration names, when the service is installed anew."""
    elsewhere = UserManager.home / "else where"
    lines = f'[store]\npath = "{elsewhere}/store.sqlite3"\n'
    change = with_source(f'command = ["cat", "{SECRET}"]')
    with configured(service, lambda text: change(text) + lines):
        service.systemctl("stop", "spotokend.service")
        told = service.run("spotokend", "token", "machine")
        assert (told.returncode, "spotokend service install" in told.stderr) == (2, True)

        service.call("spotokend", "service", "install")

        assert service.call("spotokend", "token", "machine").startswith("sandbox-access")
        assert service.path(elsewhere / "store.sqlite3").exists()
        ours = service.path(OURS).read_text()
        assert "InaccessiblePaths=-%t/systemd/private\n" in ours  # and not the bus
    service.call("spotokend", "service", "install")
    assert not service.path(OURS).exists()


# ------------------------------------------------------------------------------------------ the end


def test_nothing_is_left(service: UserManager):
    """``uninstall --purge``, and systemd knows of no unit."""
    service.call("spotokend", "service", "uninstall", "--purge")

    assert not service.path(SOCKET).exists()
    assert not [path for path in service.path(UNITS).rglob("*spotokend*") if path.is_file()]
    assert service.property("LoadState") == "not-found"
    assert service.property("LoadState", "spotokend.socket") == "not-found"
