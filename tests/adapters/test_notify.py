"""What systemd is told: each message as it is on the socket, and nothing where nobody listens."""

from __future__ import annotations

import os
import socket
import time

import pytest

from spotokend.adapters.notify import Notify


class Manager:
    """The other end of $NOTIFY_SOCKET."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(address)

    def heard(self):
        """The next message."""
        return self.socket.recv(4096).decode()


@pytest.fixture
def manager(short_path):
    """One that listens at ``short_path / "notify"``."""
    manager = Manager(str(short_path / "notify"))
    with manager.socket:
        yield manager


@pytest.fixture
def notify(manager, short_path):
    """Who tells it."""
    notify = Notify({"NOTIFY_SOCKET": str(short_path / "notify")})
    yield notify
    notify.close()


def test_each_message_is_as_sd_notify_has_it(manager, notify):
    """One datagram each."""
    for tell, message in (
        (notify.ready, "READY=1"),
        (notify.stopping, "STOPPING=1"),
        (notify.alive, "WATCHDOG=1"),
        (lambda: notify.extend(1.5), "EXTEND_TIMEOUT_USEC=1500000"),
        (lambda: notify.status("All\nis  well"), "STATUS=All is well"),
    ):
        tell()
        assert manager.heard() == message
    assert notify.heard


def test_a_reload_tells_when_it_began(manager, notify):
    """In microseconds of CLOCK_MONOTONIC."""
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notify.reloading()
    first, second = manager.heard().split("\n")

    assert first == "RELOADING=1"
    name, _, moment = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(moment) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_an_abstract_address_begins_with_an_at():
    """A zero byte on the socket."""
    name = f"spotokend-test-{os.getpid()}"
    manager = Manager(f"\0{name}")
    with manager.socket:
        notify = Notify({"NOTIFY_SOCKET": f"@{name}"})
        notify.ready()
        assert manager.heard() == "READY=1"
        notify.close()


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_without_a_manager_nothing_is_told(environ):
    """Nor is anything an error."""
    notify = Notify(environ)
    notify.ready()
    notify.close()

    assert not notify.heard


def test_a_manager_that_is_gone_or_does_not_read_holds_nobody_up(manager, notify, short_path):
    """The daemon goes on."""
    for _ in range(10_000):
        notify.alive()
    os.unlink(short_path / "notify")
    notify.alive()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_may_be_somebody_else_s(environ, seconds):
    """As of a shell that started us."""
    assert Notify(dict(environ)).watchdog == seconds


def test_children_do_not_hear_of_it():
    """What a secret's command tells systemd is not for us to answer for."""
    environ = {"NOTIFY_SOCKET": "", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/x"}
    Notify(environ)

    assert environ == {"HOME": "/x"}
