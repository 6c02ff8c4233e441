"""A client secret from each source, and each way in which it can't be had."""

import json
import os
import sys
import time
from types import SimpleNamespace

import pytest

from spotokend.adapters import client_secrets
from spotokend.adapters.client_secrets import read_secret, read_secrets
from spotokend.errors import Locked, Misconfigured
from spotokend.rules.config.parse import parse
from spotokend.rules.config.values import SecretSource, SourceKind
from spotokend.rules.secret import Secret

PLACE = "clients.spotify.client_secret"


def read(kind, value):
    """What the source gives."""
    return read_secret(SecretSource(kind, value), place=PLACE)


def python(program):
    """A source that runs a program."""
    return (sys.executable, "-c", program)


def refusal(kind, value):
    """Message without the place, and hint; neither holds what the tests plant."""
    with pytest.raises(Misconfigured) as caught:
        read(kind, value)
    error = caught.value
    assert "planted-1" not in error.message + str(error.details) + repr(error.__context__)
    assert error.message.startswith(f"{PLACE}: ")
    return error.message.removeprefix(f"{PLACE}: "), error.hint


def write(path, text, mode=0o600):
    """A file with that text and mode; its path as str."""
    path.write_bytes(text.encode())
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("text", ["planted-1", "planted-1\n", "planted-1\r\n"])
def test_a_file(tmp_path, text):
    """One line's end, which editors add, isn't of the secret."""
    assert read(SourceKind.FILE, write(tmp_path / "s", text)) == Secret("planted-1")


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_file_that_others_may_read(tmp_path, mode):
    """Refused, with the command that mends it."""
    path = write(tmp_path / "a b", "planted-1", mode)
    assert refusal(SourceKind.FILE, path) == (
        f"others than its owner may read {path} (mode {mode:04o})",
        f"chmod 600 '{path}'",
    )


def test_a_file_in_a_folder_that_everybody_writes(tmp_path):
    """Whoever renames another file over it decides what is sent to the server."""
    folder = tmp_path / "a b"
    folder.mkdir()
    path = write(folder / "s", "planted-1")
    folder.chmod(0o1777)  # as /tmp is: nobody can replace another's file
    assert read(SourceKind.FILE, path) == Secret("planted-1")
    folder.chmod(0o757)
    assert refusal(SourceKind.FILE, path) == (
        f"everybody can write in {folder}, and put another secret in place of yours",
        f"chmod o-w '{folder}'",
    )


def test_a_file_that_is_missing(tmp_path):
    """The cure is a command that makes it with the right mode."""
    path = str(tmp_path / "s")
    assert refusal(SourceKind.FILE, path) == (
        f"{path} can't be read: No such file or directory",
        f"put the secret there: install -m 600 /dev/stdin {path}",
    )


def test_no_regular_file(tmp_path):
    """Neither a folder nor a pipe, which isn't waited for."""
    assert refusal(SourceKind.FILE, str(tmp_path))[0] == f"{tmp_path} can't be read: Is a directory"
    os.mkfifo(tmp_path / "pipe")
    assert refusal(SourceKind.FILE, str(tmp_path / "pipe"))[0].endswith("is no regular file")


@pytest.mark.parametrize("text", ["", "\n"])
def test_an_empty_secret(tmp_path, text):
    """It would be sent as one, and refused by the server in words about something else."""
    path = write(tmp_path / "s", text)
    assert refusal(SourceKind.FILE, path)[0] == f"{path} is empty"


@pytest.mark.parametrize("text", ["planted-1\n\n", "planted-1\nmore", "planted-1\0", "pläntéd"])
def test_what_is_no_secret(tmp_path, text):
    """More lines than one, and characters that no secret has (RFC 6749, A.2)."""
    path = write(tmp_path / "s", text)
    assert refusal(SourceKind.FILE, path)[0] == (
        f"{path} has more than one line, or characters that no client secret has"
    )


def test_the_configuration_itself():
    """It is checked as the others are."""
    assert read(SourceKind.LITERAL, Secret("planted-1")) == Secret("planted-1")
    assert refusal(SourceKind.LITERAL, Secret("planted-1\t"))[0].startswith(
        "what stands in the configuration has more than one line"
    )


def test_a_variable(monkeypatch):
    """Of the daemon's environment."""
    monkeypatch.setenv("A_SECRET", "planted-1")
    assert read(SourceKind.ENV, "A_SECRET") == Secret("planted-1")
    monkeypatch.setenv("A_SECRET", "")
    assert refusal(SourceKind.ENV, "A_SECRET")[0] == "$A_SECRET is empty"
    monkeypatch.delenv("A_SECRET")
    assert refusal(SourceKind.ENV, "A_SECRET") == (
        "$A_SECRET isn't set where the daemon was started",
        "set A_SECRET in the daemon's environment, or use file or command",
    )


def test_a_credential(tmp_path, monkeypatch):
    """Of the systemd unit; the mode that systemd shows isn't taken for what it looks like."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    write(tmp_path / "s", "planted-1", 0o440)
    assert read(SourceKind.CREDENTIAL, "s") == Secret("planted-1")
    hint = "in the unit's [Service] section: LoadCredential=t:/path/to/the/secret"
    assert refusal(SourceKind.CREDENTIAL, "t") == (
        f"{tmp_path / 't'} can't be read: No such file or directory",
        hint,
    )
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert refusal(SourceKind.CREDENTIAL, "t") == (
        "$CREDENTIALS_DIRECTORY isn't set, so systemd passed no credential t",
        f"{hint}; outside of systemd use file, command or env",
    )


def test_a_command():
    """Its words reach it as they are: no shell looks at them."""
    program = "import sys; print(sys.argv[1])"
    assert read(SourceKind.COMMAND, (*python(program), "$HOME;`a`")) == Secret("$HOME;`a`")


def test_a_command_reads_nothing():
    """One that asks on its stdin gets an end at once."""
    assert read(SourceKind.COMMAND, python("print(len(input.__name__) + len(open(0).read()))")) == (
        Secret("5")
    )


def test_a_command_inherits_no_secret(monkeypatch):
    """The variables that hold another client's; the rest is what the daemon has."""
    monkeypatch.setenv("A_SECRET", "planted-1")
    monkeypatch.setenv("A_SETTING", "setting-1")
    program = "import os; print(os.environ.get('A_SECRET'), os.environ.get('A_SETTING'))"
    read_by = read_secrets(
        parse(
            f"""
            [clients.command]
            client_id = "client-1"
            flow = "client_credentials"
            client_secret = {{ command = {json.dumps(python(program))} }}
            [clients.variable]
            client_id = "client-2"
            flow = "client_credentials"
            client_secret = {{ env = "A_SECRET" }}
            [clients.public]
            client_id = "client-3"
            """
        )
    )
    assert read_by == {
        "command": Secret("None setting-1"),
        "variable": Secret("planted-1"),
        "public": None,
    }


# ----------------------------------------------------------------------------------- the keyring


class Service:
    """The part of SecretStorage that is used; the real keyring is in tests/system/test_keyring.py."""

    class SecretStorageException(Exception):
        """As there."""

    class LockedException(SecretStorageException):
        """As there."""

    def __init__(self, monkeypatch):
        self.items = []
        self.collections = [False]
        """Whether each is locked."""
        self.asked = []
        self.error = None
        self.send_and_get_reply = self.close = lambda *arguments, **more: None
        monkeypatch.setitem(sys.modules, "secretstorage", self)
        monkeypatch.setitem(
            sys.modules, "jeepney", SimpleNamespace(DBusErrorResponse=ZeroDivisionError)
        )

    def dbus_init(self):
        if self.error is not None:
            raise self.error
        return self

    def search_items(self, connection, attributes):
        self.asked.append(attributes)
        return iter(self.items)

    def get_all_collections(self, connection):
        return [
            SimpleNamespace(is_locked=lambda locked=locked: locked) for locked in self.collections
        ]


def item(secret, *, locked=False):
    """One of the keyring's."""
    return SimpleNamespace(is_locked=lambda: locked, get_secret=lambda: secret)


@pytest.fixture
def service(monkeypatch):
    """A keyring that is open and empty."""
    return Service(monkeypatch)


def test_a_keyring(service):
    """The open item of that name, in whichever collection."""
    service.items = [item(b"another", locked=True), item(b"planted-1\n")]
    assert read(SourceKind.KEYRING, "spotify") == Secret("planted-1")
    assert service.asked == [{"service": "spotokend", "username": "spotify"}]


def test_a_keyring_without_it(service):
    """Nothing is locked, so it isn't there; the cure is the command that puts it there."""
    assert refusal(SourceKind.KEYRING, "spotify") == (
        "the keyring has no spotify of spotokend's",
        "secret-tool store --label 'spotokend: spotify' service spotokend username spotify",
    )


@pytest.mark.parametrize(
    ("items", "collections"), [([item(b"planted-1", locked=True)], [True]), ([], [False, True])]
)
def test_a_locked_keyring(service, items, collections):
    """That may have it: whether or not it tells what it has."""
    service.items, service.collections = items, collections
    with pytest.raises(Locked, match="the keyring is locked") as caught:
        read(SourceKind.KEYRING, "spotify")
    assert caught.value.message.startswith(PLACE)
    assert caught.value.hint == "unlock it: spotokend then goes on by itself"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Service.SecretStorageException("no such bus\n"), "no such bus"),
        (TimeoutError(), "TimeoutError"),
        (ZeroDivisionError("the bus's own"), "the bus's own"),
    ],
)
def test_a_keyring_that_does_not_answer(service, error, words):
    """At the start of a session it may just not be there yet."""
    service.error = error
    with pytest.raises(Locked, match=rf"no keyring answers \({words}\)"):
        read(SourceKind.KEYRING, "spotify")


def test_a_keyring_without_its_library(monkeypatch):
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "secretstorage", None)
    assert refusal(SourceKind.KEYRING, "spotify") == (
        "the library for the keyring isn't installed",
        "pip install 'spotokend[keyring]' (Debian: python3-secretstorage)",
    )


def test_a_locked_keyring_costs_the_others_nothing(service, monkeypatch):
    """What is known of it still holds, and what isn't is read later."""
    monkeypatch.setenv("A_SECRET", "planted-1")
    service.collections = [True]
    config = parse(
        """
        [clients.closed]
        client_id = "client-1"
        flow = "client_credentials"
        client_secret = { keyring = "spotify" }
        [clients.variable]
        client_id = "client-2"
        flow = "client_credentials"
        client_secret = { env = "A_SECRET" }
        """
    )
    assert read_secrets(config) == {"closed": None, "variable": Secret("planted-1")}
    known = {"closed": Secret("known-1")}
    assert read_secrets(config, known)["closed"] == Secret("known-1")


@pytest.mark.parametrize("kind", ["file", "command", "credential", "keyring"])
def test_each_source_is_read_anew_each_time(service, tmp_path, monkeypatch, kind):
    """A reload takes a renewed secret; only the environment of a process stays what it is."""
    path = tmp_path / "s"
    program = f"print(open({str(path)!r}).read())"
    source = {
        "file": f'"{path}"',
        "command": json.dumps(python(program)),
        "credential": '"s"',
        "keyring": '"s"',
    }[kind]
    config = parse(
        f"""
        [clients.own]
        client_id = "client-1"
        flow = "client_credentials"
        client_secret = {{ {kind} = {source} }}
        """
    )
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for secret in ("planted-1", "planted-2"):
        write(path, secret)
        service.items = [item(secret.encode())]
        assert read_secrets(config) == {"own": Secret(secret)}


def test_a_command_that_ends_badly():
    """The first line of what it complained is told; what it printed isn't."""
    program = (
        "import sys; print('planted-1'); sys.stderr.write('\\nno\\x1b[1m such entry\\nmore\\n'); "
        "sys.exit(3)"
    )
    message, hint = refusal(SourceKind.COMMAND, python(program))
    assert message == f"{sys.executable} ended with status 3: no?[1m such entry"
    assert hint == (
        "try that command in a terminal; what asks for a password must be unlocked before"
    )


def test_a_command_that_says_nothing():
    """Its status or its signal is all there is to tell; of its words only the first is."""
    quiet = (*python("import sys; sys.exit(1)"), "planted-1")
    assert refusal(SourceKind.COMMAND, quiet)[0] == f"{sys.executable} ended with status 1"
    killed = python("import os; os.kill(os.getpid(), 9)")
    assert refusal(SourceKind.COMMAND, killed)[0] == f"{sys.executable} ended with signal 9"


def test_a_command_that_complains_at_length():
    """Two hundred characters are told."""
    message, _ = refusal(SourceKind.COMMAND, python("import sys; sys.exit('x' * 5000)"))
    assert message.count("x") - sys.executable.count("x") == 200


def test_a_command_that_is_not_there(tmp_path):
    """Missing, or no program."""
    missing = str(tmp_path / "missing")
    assert refusal(SourceKind.COMMAND, (missing,))[0] == (
        f"{missing} can't be started: No such file or directory"
    )
    plain = write(tmp_path / "plain", "")
    assert (
        refusal(SourceKind.COMMAND, (plain,))[0] == f"{plain} can't be started: Permission denied"
    )


def test_a_command_that_does_not_end(monkeypatch):
    """It is ended, and what it had printed isn't told."""
    monkeypatch.setattr(client_secrets, "COMMAND_TIMEOUT", 0.2)
    started = time.monotonic()
    program = "import time; print('planted-1', flush=True); time.sleep(50)"
    assert refusal(SourceKind.COMMAND, python(program))[0] == (
        f"{sys.executable} had not ended after 0.2 s"
    )
    assert time.monotonic() - started < 30
