"""The listening socket: private at once, and never taken from the living."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys

import pytest

from spotokend.adapters.listener import (
    BACKLOG,
    PATH_LIMIT,
    AlreadyListening,
    bind,
    listening,
    passed,
    remove,
)
from spotokend.errors import Misconfigured


@pytest.fixture
def path(short_path):
    """Where to listen."""
    return str(short_path / "spotokend" / "spotokend.sock")


def mode(path):
    """The permissions."""
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture(autouse=True)
def umask():
    """The loosest there is; and it is the same afterwards."""
    before = os.umask(0)
    yield
    assert os.umask(before) == 0


class TestBind:
    """Making one."""

    def test_listens(self, path):
        """Clients can connect; the folder and the socket are the user's alone."""
        with bind(path) as listener, socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            listener.accept()[0].close()
            assert (mode(os.path.dirname(path)), mode(path)) == (0o700, 0o600)
            assert not os.get_inheritable(listener.fileno())
            assert not listener.getblocking()

    def test_first_instant(self, path, monkeypatch):
        """The mode is right before anybody can connect: at the bind itself."""
        seen = []

        def listen(_, backlog):
            seen.append((mode(path), backlog))

        monkeypatch.setattr(socket.socket, "listen", listen)
        bind(path).close()
        assert seen == [(0o600, BACKLOG)]

    def test_folders_in_between(self, short_path):
        """All folders that had to be made are private."""
        path = str(short_path / "a" / "b" / "socket")
        with bind(path):
            assert (mode(short_path / "a"), mode(short_path / "a" / "b")) == (0o700, 0o700)

    def test_in_the_working_directory(self, short_path, monkeypatch):
        """A path without a folder is in the present one."""
        monkeypatch.chdir(short_path)
        with bind("socket"):
            assert mode("socket") == 0o600

    @pytest.mark.parametrize(("name", "expected"), [("spotokend", 0o700), ("other", 0o755)])
    def test_existing_folder(self, short_path, name, expected):
        """The program's own folder is made private; anybody else's mode is not changed."""
        folder = short_path / name
        folder.mkdir(mode=0o755)
        with bind(str(folder / "socket")):
            assert mode(folder) == expected

    def test_folder_for_everybody(self, short_path):
        """Where everybody can write, everybody could replace the socket; not under a sticky bit."""
        folder = short_path / "tmp"
        folder.mkdir()
        folder.chmod(0o777)
        with pytest.raises(Misconfigured, match="everybody can write in") as caught:
            bind(str(folder / "socket"))
        assert caught.value.hint.startswith(f"chmod o-w {folder}, or set [daemon] socket")
        folder.chmod(0o1777)
        bind(str(folder / "socket")).close()


class TestTaken:
    """What is at the path already."""

    def test_stale(self, path):
        """What a killed daemon left is removed."""
        bind(path).close()
        assert os.path.exists(path)
        with bind(path), socket.socket(socket.AF_UNIX) as client:
            client.connect(path)

    def test_living(self, path):
        """A living daemon keeps its path; the error names its process."""
        with bind(path) as living:
            with pytest.raises(AlreadyListening) as caught:
                bind(path)
            assert caught.value.message == f"process {os.getpid()} already listens at {path}"
            assert caught.value.pid == os.getpid()
            living.accept()[0].close()
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)

    def test_busy(self, path):
        """A daemon that doesn't accept just now is alive, too: nobody waits for it."""
        with bind(path) as living:
            living.listen(0)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                with pytest.raises(AlreadyListening, match="another process already listens"):
                    bind(path)

    def test_other_kind(self, path):
        """A socket of another kind belongs to somebody."""
        os.mkdir(os.path.dirname(path))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
            datagrams.bind(path)
            with pytest.raises(AlreadyListening):
                bind(path)

    @pytest.mark.parametrize("make", ["file", "folder", "link"])
    def test_no_socket(self, path, make):
        """What is no socket is never removed."""
        os.mkdir(os.path.dirname(path))
        if make == "file":
            open(path, "x").close()
        elif make == "folder":
            os.mkdir(path)
        else:
            os.symlink("elsewhere", path)
        with pytest.raises(Misconfigured, match="is no socket"):
            bind(path)
        assert os.path.lexists(path)

    def test_gone_meanwhile(self, path, monkeypatch):
        """A path that vanishes between two looks is free."""
        bind(path).close()
        lstat = os.lstat

        def last_look(path):
            status = lstat(path)
            os.unlink(path)
            return status

        monkeypatch.setattr(os, "lstat", last_look)
        bind(path).close()

    def test_not_permitted(self, path, monkeypatch):
        """A socket that may not be asked is left alone, with the system's own reason."""
        bind(path).close()
        monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: 13)
        with pytest.raises(Misconfigured, match=f"no socket can be made at {path}: Permission"):
            bind(path)
        assert os.path.exists(path)


class TestImpossible:
    """Paths at which nothing can be made."""

    def test_too_long(self, short_path):
        """A path that the kernel can't hold is refused in words; one byte less is fine."""
        folder = short_path / "x"
        longest = str(folder / ("s" * (PATH_LIMIT - len(str(folder)) - 1)))
        bind(longest).close()
        with pytest.raises(Misconfigured, match="108 bytes, and the system allows 107") as caught:
            bind(f"{longest}s")
        assert "$SPOTOKEND_SOCK" in caught.value.hint

    def test_bytes_count(self, short_path):
        """The limit is of bytes, not of characters."""
        with pytest.raises(Misconfigured, match="the system allows"):
            bind(str(short_path / ("ü" * 60)))

    def test_no_folder(self, short_path):
        """A folder that can't be made is named."""
        (short_path / "file").touch()
        with pytest.raises(Misconfigured, match=r"no socket can be made at .*: Not a directory"):
            bind(str(short_path / "file" / "x" / "socket"))

    def test_bind_refused(self, path, monkeypatch):
        """Nothing stays open when the bind itself is refused."""
        made = []
        monkeypatch.setattr(socket.socket, "bind", lambda self, _: made.append(self) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            bind(path)
        assert [listener.fileno() for listener in made] == [-1]


class TestRemove:
    """Afterwards."""

    def test_own(self, path):
        """What a closed listener left is removed; doing it twice is no error."""
        bind(path).close()
        remove(path)
        assert not os.path.exists(path)
        remove(path)

    def test_of_the_living(self, path):
        """What another has put there stays."""
        with bind(path):
            remove(path)
            assert os.path.exists(path)

    def test_no_socket(self, path):
        """And so does what is no socket."""
        os.mkdir(path := os.path.dirname(path))
        remove(path)
        assert os.path.exists(path)


# What a child does with the descriptors that it inherits; what it prints is looked at.
CHILD = """
import os, sys
from spotokend.adapters.listener import passed
from spotokend.errors import Misconfigured
for passed_as in (3, 4):
    os.dup2(int(sys.argv[2]), passed_as)
os.environ["LISTEN_PID"] = sys.argv[1].replace("mine", str(os.getpid()))
try:
    held = passed(os.environ)
except Misconfigured as error:
    print(error.message)
else:
    print(held and (held.getsockname(), held.getblocking(), os.get_inheritable(held.fileno())))
print(*[name for name in os.environ if name.startswith("LISTEN_")])
"""


def told(listener, pid="mine", count="1", names=""):
    """What :func:`passed` makes of this socket as descriptor 3, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, pid, str(listener.fileno())],
        env=os.environ | {"LISTEN_FDS": count, "LISTEN_FDNAMES": names},
        pass_fds=[listener.fileno()],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.rstrip("\n")


class TestPassed:
    """By systemd, or so it is said."""

    @pytest.mark.parametrize(
        ("count", "names"), [("1", ""), ("1", "spotokend"), ("2", "other:spotokend")]
    )
    def test_it_is_taken(self, path, count, names):
        """As it is; children get neither it nor the variables."""
        with bind(path) as listener:
            assert told(listener, count=count, names=names) == str((path, False, False))

    @pytest.mark.parametrize(
        ("pid", "count"), [("1", "1"), ("", "1"), ("mine", "0"), ("mine", "x")]
    )
    def test_it_is_not_for_us(self, path, pid, count):
        """The variables are of another process, or nothing was passed."""
        with bind(path) as listener:
            assert told(listener, pid=pid, count=count) == "None"

    @pytest.mark.parametrize("kind", ["datagrams", "internet", "abstract", "deaf"])
    def test_it_is_no_socket_of_that_kind(self, short_path, kind):
        """Said in words: a unit of one's own has another ListenStream=."""
        family = socket.AF_INET if kind == "internet" else socket.AF_UNIX
        form = socket.SOCK_DGRAM if kind == "datagrams" else socket.SOCK_STREAM
        with socket.socket(family, form) as other:
            if kind == "internet":
                other.bind(("127.0.0.1", 0))
            else:
                other.bind(f"\0{short_path}" if kind == "abstract" else str(short_path / "x"))
            if kind in ("internet", "abstract"):
                other.listen()
            assert told(other) == ("what systemd passed is no Unix socket that listens at a path")

    def test_without_systemd(self):
        """Nothing at all."""
        assert passed({}) is None


class TestListening:
    """Whose socket it is decides what stays."""

    def test_own(self, path):
        """Made, and removed in the end."""
        with listening(path, None) as listener:
            assert os.path.exists(path)
            listener.close()
        assert not os.path.exists(path)

    def test_held(self, path):
        """The one that was passed goes on, whatever becomes of ours."""
        with bind(path) as held:
            with listening("elsewhere", held) as listener:
                listener.close()
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
            assert os.path.exists(path)
