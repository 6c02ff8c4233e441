"""What both clients share: reading answers, keeping tokens, opening sockets, patience."""

from __future__ import annotations

import errno
import os
import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import token_map

from spotokend import calls, errors, wire
from spotokend.token import Token


@pytest.fixture
def path(short_path):
    return str(short_path / "s")


@pytest.fixture
def listener(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen(0)
        yield listening


class TestOpenSocket:
    """Connecting, and every reason why it can't be."""

    def test_connects(self, listener, path):
        """A socket on which our own user listens is connected at once."""
        with calls.open_socket(path, known=False) as connected:
            assert connected.getpeername() == path
            assert calls.listener_uid(connected) == os.geteuid()

    @pytest.mark.parametrize("known", [False, True])
    def test_absent(self, path, known):
        """Nobody listens: final on first acquaintance, a reason to wait afterwards."""
        expected = calls.Lost if known else errors.DaemonNotRunning
        with pytest.raises(expected, match="spotokend is not running: nobody listens on"):
            calls.open_socket(path, known=known)

    def test_left_behind(self, listener, path):
        """A path that a killed daemon left behind is as good as none."""
        listener.close()
        with pytest.raises(errors.DaemonNotRunning, match="nobody listens on") as caught:
            calls.open_socket(path, known=False)
        assert caught.value.details["socket"] == path

    def test_no_folder(self, short_path):
        """What is no path at all is said in the words of the system."""
        (short_path / "file").touch()
        with pytest.raises(errors.DaemonNotRunning, match="can't be connected to: Not a dir"):
            calls.open_socket(str(short_path / "file" / "s"), known=False)

    def test_too_many_callers(self, listener, path):
        """A full queue of callers is a reason to wait, also at first."""
        waiting = [calls.open_socket(path, known=False)]
        with pytest.raises(calls.Lost) as caught:
            calls.open_socket(path, known=False)
        assert isinstance(caught.value.error, errors.Busy)
        waiting[0].close()

    def test_too_long(self, short_path):
        """A path of 107 bytes is tried, one of 108 is refused with the limit."""
        longest = f"{short_path}/".ljust(107, "x")
        with pytest.raises(errors.DaemonNotRunning):
            calls.open_socket(longest, known=False)
        with pytest.raises(errors.Misconfigured, match="longer than the 107 bytes") as caught:
            calls.open_socket(longest + "x", known=False)
        assert "SPOTOKEND_SOCK" in caught.value.hint

    @pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
    def test_not_allowed(self, path, monkeypatch, number):
        """A socket of another user says whose it should be; waiting wouldn't help."""

        class Refusing(socket.socket):
            def connect(self, _):
                raise OSError(number, os.strerror(number))

        monkeypatch.setattr(socket, "socket", Refusing)
        with pytest.raises(errors.Forbidden, match="may not open the socket") as caught:
            calls.open_socket(path, known=True)
        assert "run this as the user" in caught.value.hint

    @pytest.mark.parametrize(
        ("listening", "trusted"), [(0, True), (1000, True), (1001, False), (65534, False)]
    )
    def test_whose(self, listener, path, monkeypatch, listening, trusted):
        """Only root and the same user are trusted; nothing is sent to anybody else."""
        monkeypatch.setattr(calls, "listener_uid", lambda _: listening)
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        if trusted:
            calls.open_socket(path, known=False).close()
        else:
            with pytest.raises(errors.Forbidden, match=rf"another user's \(uid {listening}\)"):
                calls.open_socket(path, known=False)


class TestPatience:
    """How long a lost daemon is looked for."""

    def test_naps(self, monkeypatch):
        """At once, then at growing intervals up to a fifth of a second, for five seconds."""
        now = [100.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        patience = calls.Patience()
        lost = calls.Lost(errors.DaemonNotRunning("gone"))
        naps = []
        with pytest.raises(errors.DaemonNotRunning, match="gone"):
            while True:
                naps.append(patience.nap(lost))
                now[0] += naps[-1]

        assert naps[:8] == [0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.2, 0.2]
        assert now[0] - 100 == pytest.approx(5, abs=0.2)
        assert str(lost) == "gone"

    def test_time_spent_otherwise_counts(self, monkeypatch):
        """An attempt that takes long uses up the patience."""
        now = [0.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        patience = calls.Patience()
        lost = calls.Lost(errors.DaemonNotRunning("gone"))
        patience.nap(lost)
        now[0] = 5.0
        with pytest.raises(errors.DaemonNotRunning):
            patience.nap(lost)


class TestMessages:
    """Requests out, answers in."""

    def test_request(self):
        """A request is the wire's, up to the limit of what the daemon reads."""
        assert calls.request_bytes(1, "token", {}) == wire.request(1, "token", {})

        spare = wire.MESSAGE_LIMIT - len(calls.request_bytes(1, "x", {"a": "b" * 60_000}))
        calls.request_bytes(1, "x", {"a": "b" * (60_000 + spare)})
        with pytest.raises(errors.BadRequest, match="the arguments of x take 65537 bytes"):
            calls.request_bytes(1, "x", {"a": "b" * (60_001 + spare)})

    def test_msgid(self):
        """Message ids go round within what the wire knows."""
        assert calls.next_msgid(0) == 1
        assert calls.next_msgid(wire.MSGID_LIMIT) == 1

    def test_answer(self):
        """Responses are told from notifications, and both from anything else."""
        assert calls.read_answer([1, 7, None, "x"]) == (7, None, "x")
        assert calls.read_answer([2, "notice", [{}]]) is None

    @pytest.mark.parametrize(
        "message",
        [
            7,
            None,
            "GET",
            [],
            [1, 7, None],
            [1, None, [], None],
            [1, -1, None, 1],
            [0, 1, "x", []],
            [True, 7, None, "x"],
            [1.0, 7, None, "x"],
            [2.0, "notice", [{}]],
        ],
    )
    def test_no_answer(self, message):
        """Anything else is malformed."""
        with pytest.raises(wire.Malformed, match="neither a response nor a notification"):
            calls.read_answer(message)

    @given(st.recursive(st.none() | st.integers() | st.text() | st.binary(), st.lists))
    def test_any_message(self, message):
        """Whatever is decoded, it is an answer, none, or malformed."""
        try:
            answer = calls.read_answer(message)
        except wire.Malformed:
            return
        assert answer is None or wire.is_msgid(answer[0])

    def test_result(self):
        """A result is returned; an error is raised as the class of its code."""
        assert calls.result_of((None, 7)) == 7
        with pytest.raises(errors.Busy, match="later"):
            calls.result_of((["busy", "later", {}], None))

    def test_cut_off(self):
        """Only what may be repeated is to be asked again."""
        assert isinstance(calls.cut_off("/s", "token"), calls.Lost)
        assert isinstance(calls.cut_off("/s", "login_finish"), errors.Unavailable)

    def test_time_out(self):
        """The words name the method and the time."""
        error = calls.timed_out("token", 75.0)
        assert error.message == "spotokend has not answered token within 75 s"

    def test_values(self):
        """Tokens and maps are read; what is none comes from somebody else."""
        assert calls.read_token("/s", token_map(3)).generation == 3
        assert calls.read_map("/s", {"a": 1}) == {"a": 1}
        for read in (calls.read_token, calls.read_map):
            with pytest.raises(errors.DaemonNotRunning, match="answers on /s is not spotokend"):
                read("/s", [])


class TestArguments:
    """What a call means."""

    def test_account(self, monkeypatch):
        """Without another word the account is the environment's of now, or none."""
        assert calls.default_account() is None
        monkeypatch.setenv("SPOTOKEND_ACCOUNT", "eve")
        assert calls.default_account() == "eve"
        monkeypatch.setenv("SPOTOKEND_ACCOUNT", "")
        assert calls.default_account() is None

    def test_given(self):
        """What is None is left to the daemon; false and 0 are not None."""
        assert calls.given(a=None, b=0, c=False, d="") == {"b": 0, "c": False, "d": ""}

    def test_scopes(self):
        """A string of scopes is not a list of letters."""
        assert calls.listed("a b") == ["a", "b"]
        assert calls.listed(("a", "b")) == ["a", "b"]


class TestKept:
    """Tokens in the process."""

    @pytest.fixture
    def boot(self, monkeypatch):
        now = [1000.0]
        monkeypatch.setattr(
            time, "clock_gettime", lambda clock: {time.CLOCK_BOOTTIME: now[0]}[clock]
        )
        return now

    @pytest.mark.parametrize(
        ("life", "last"), [(3600.0, 3540.0), (1200.0, 1140.0), (100.0, 95.0), (0.0, 0.0)]
    )
    def test_floor(self, boot, life, last):
        """A token is kept until a minute is left, or a twentieth of what was when it came."""
        kept = {}
        token = Token.from_wire(token_map(expires_boot=1000.0 + life))
        calls.keep(kept, None, token)

        boot[0] = 1000.0 + last
        assert calls.find(kept, None, 0.0, []) is token
        boot[0] += 0.001
        assert calls.find(kept, None, 0.0, []) is None

    def test_dead_on_arrival(self, boot):
        """A token that came too late is not served a second time."""
        kept = {}
        calls.keep(kept, None, Token.from_wire(token_map(expires_boot=990.0)))
        assert calls.find(kept, None, 0.0, []) is None

    def test_min_ttl(self, boot):
        """It must have the time to live that is asked for; NaN is for the daemon to refuse."""
        kept = {}
        token = Token.from_wire(token_map(expires_boot=1600.0))
        calls.keep(kept, "a", token)

        assert calls.find(kept, "a", 600.0, []) is token
        assert calls.find(kept, "a", 600.1, []) is None
        assert calls.find(kept, "a", float("nan"), []) is None

    def test_scopes(self, boot):
        """It must have all scopes that are asked for."""
        kept = {}
        token = Token.from_wire(token_map(expires_boot=4600.0, scope=["a", "b"]))
        calls.keep(kept, "x", token)

        assert calls.find(kept, "x", 0.0, ["b", "a"]) is token
        assert calls.find(kept, "x", 0.0, ["a", "c"]) is None

    def test_account(self, boot):
        """Each account has its own; the default is one of them."""
        kept = {}
        calls.keep(kept, "a", Token.from_wire(token_map(expires_boot=4600.0)))
        assert calls.find(kept, None, 0.0, []) is None
        assert calls.find(kept, "b", 0.0, []) is None


class TestPages:
    """A status in parts."""

    def test_pages(self):
        """Accounts are added to the first page until there is no next one."""
        whole = {"accounts": [1], "next": "a"}
        assert calls.add_page("/s", whole, whole) == "a"
        assert calls.add_page("/s", whole, {"accounts": [2], "next": "b"}) == "b"
        assert calls.add_page("/s", whole, {"accounts": [3], "next": None}) is None
        assert whole == {"accounts": [1, 2, 3], "next": None}

    def test_an_end(self):
        """A page without accounts is the last, whatever it says."""
        whole = {"accounts": [], "next": "a"}
        assert calls.add_page("/s", whole, whole) is None

    @pytest.mark.parametrize("page", [{}, {"accounts": {}}])
    def test_no_page(self, page):
        """A status without accounts is not spotokend's."""
        with pytest.raises(errors.DaemonNotRunning, match="a status without accounts"):
            calls.add_page("/s", page, page)
        with pytest.raises(errors.DaemonNotRunning, match="a status without accounts"):
            calls.add_page("/s", {"accounts": []}, page)


class TestSubscription:
    """A watching connection's bytes as events."""

    STATE = wire.result_response(1, wire.pack({"accounts": [{"a": 1}], "tokens": [{"t": 1}]}))

    def subscription(self, accounts=None, *, tokens=True):
        subscription = calls.Subscription("/s", accounts, tokens=tokens)
        subscription.begin()
        return subscription

    def test_request(self):
        """Accounts only if some are named."""
        watch = calls.Subscription("/s", ("a", "b"), tokens=False)
        assert watch.begin() == wire.request(1, "watch", {"accounts": ["a", "b"], "tokens": False})
        watch = calls.Subscription("/s", None, tokens=True)
        assert watch.begin() == wire.request(1, "watch", {"tokens": True})

    @given(st.integers(0, 200))
    def test_any_cut(self, cut):
        """The same events, wherever the bytes are cut; notifications may come before the answer."""
        early, late = wire.notification("notice", {"n": 1}), wire.notification("token", {"n": 2})
        data = early + self.STATE + late
        watch = self.subscription()
        events = [*watch.feed(data[:cut]), *watch.feed(data[cut:])]

        assert events == [
            ("notice", {"n": 1}),
            ("state", {"a": 1}),
            ("token", {"t": 1}),
            ("token", {"n": 2}),
        ]

    def test_expecting(self):
        """Time counts until the answer has come, and within a message."""
        watch = self.subscription()
        assert watch.expecting
        list(watch.feed(self.STATE))
        assert not watch.expecting
        list(watch.feed(b"\x93"))
        assert watch.expecting

    def test_second_connection(self):
        """On a new connection nothing of the old one is left, and what is begins with a resync."""
        watch = self.subscription()
        list(watch.feed(self.STATE + b"\x93"))
        watch.begin()

        assert list(watch.feed(self.STATE)) == [
            ("resync", {"dropped": None}),
            ("state", {"a": 1}),
            ("token", {"t": 1}),
        ]

    def test_refused(self):
        """A refusal is raised as its class."""
        refusal = wire.error_response(1, errors.Forbidden("not you").to_wire())
        with pytest.raises(errors.Forbidden, match="not you"):
            list(self.subscription().feed(refusal))

    @pytest.mark.parametrize(
        "data",
        [
            b"\xc1",
            wire.pack([2, "notice", []]),
            wire.pack([2, "notice", ["x"]]),
            wire.pack([2.0, "notice", [{}]]),
            wire.pack([True, 1, None, {"accounts": [], "tokens": []}]),
            wire.pack([1, True, None, {"accounts": [], "tokens": []}]),
            wire.result_response(2, wire.pack({})),
            wire.result_response(1, wire.pack(None)),
            wire.result_response(1, wire.pack({})),
            wire.result_response(1, wire.pack({"accounts": [1], "tokens": []})),
            STATE + STATE,
        ],
    )
    def test_no_events(self, data):
        """Anything else is not spotokend's."""
        with pytest.raises(errors.DaemonNotRunning, match="is not spotokend"):
            list(self.subscription().feed(data))
