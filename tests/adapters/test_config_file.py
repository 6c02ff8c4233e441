"""The configuration file: what can be wrong with it on disk, and that it is made once and whole."""

import errno
import os
import stat

import pytest

from spotokend.adapters.config_file import LIMIT, check_place, read_config, write_new_config
from spotokend.errors import Misconfigured
from spotokend.rules.config.parse import starter

ID = "0123456789abcdef" * 2
TEXT = starter(ID, ["streaming"])
BARE = (
    f'[clients.a]\nclient_id = "{ID}"\nflow = "authorization_code"\nclient_secret = "planted-1"\n'
)


def write(path, text, mode=0o600):
    """A file with that text and mode; its path as str."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return str(path)


def refusal(path):
    """Message and hint, and that no exception behind them holds the file."""
    with pytest.raises(Misconfigured) as caught:
        read_config(path)
    assert not isinstance(caught.value.__context__, ValueError)
    assert "planted-1" not in caught.value.message + str(caught.value.details)
    return caught.value.message, caught.value.hint


def test_reads_what_was_written(tmp_path):
    """``config init`` and then ``run``."""
    path = str(tmp_path / "config.toml")
    write_new_config(path, TEXT)
    assert read_config(path).clients["spotify"].scopes == ("streaming",)


def test_paths_begin_at_the_files_folder_or_at_home(tmp_path, monkeypatch):
    """The daemon's own working folder means nothing to who wrote the file."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    write(
        tmp_path / "config.toml",
        f"""
        [daemon]
        socket = "/run/s.sock"
        [store]
        path = "~/store.sqlite3"
        [clients.a]
        client_id = "{ID}"
        flow = "authorization_code"
        client_secret = {{ file = "secret" }}
        [clients.b]
        client_id = "{ID}"
        flow = "authorization_code"
        client_secret = {{ env = "secret" }}
        """,
    )
    config = read_config("config.toml")
    assert config.daemon.socket == "/run/s.sock"
    assert config.store.path == str(tmp_path / "home" / "store.sqlite3")
    assert config.store.key is None
    assert config.clients["a"].client_secret.value == str(tmp_path / "secret")
    assert config.clients["b"].client_secret.value == "secret"


def test_a_byte_order_mark_is_passed_over(tmp_path):
    """Some editors put one before UTF-8."""
    assert read_config(write(tmp_path / "c", b"\xef\xbb\xbf" + TEXT.encode())).clients.keys() == {
        "spotify"
    }


CURE = (
    "make one: spotokend login, which asks for all it takes "
    "(spotokend config init: without logging in)"
)


def test_a_missing_file(tmp_path):
    """The cure is to make one."""
    path = str(tmp_path / "missing" / "config.toml")
    assert refusal(path) == (f"there is no configuration at {path}", CURE)


def test_a_link_to_nothing(tmp_path):
    """It is in the way of a new file, and so it is named."""
    path = tmp_path / "config.toml"
    path.symlink_to(tmp_path / "nowhere")
    assert refusal(str(path)) == (
        f"there is no configuration at {path}, which links to nothing",
        f"remove the link, then {CURE}",
    )


def test_a_folder(tmp_path):
    """It is no file."""
    assert refusal(str(tmp_path))[0] == f"{tmp_path} is a folder"


def test_a_pipe(tmp_path):
    """It isn't waited for."""
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    assert refusal(path)[0] == f"{path} is no regular file"


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    """Said with the system's reason, and how to look; root, as which tests may run, reads all."""

    def refuse(path, flags):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    path = write(tmp_path / "a b", TEXT)
    monkeypatch.setattr("spotokend.adapters.config_file.os.open", refuse)
    assert refusal(path) == (
        f"{path} can't be read: Permission denied",
        f"see who may: ls -l '{path}'",
    )


def test_a_file_that_is_not_utf8(tmp_path):
    """Its line is told, and nothing of its contents."""
    path = write(tmp_path / "c", BARE.encode() + b'user = "\xe4"')
    assert refusal(path) == (f"{path}:5: this isn't UTF-8", "save the file as UTF-8 in your editor")


def test_a_file_that_is_too_large(tmp_path):
    """Some other file was named; one of just the limit is read."""
    path = write(tmp_path / "c", TEXT + "#" * (LIMIT + 1 - len(TEXT)))
    assert refusal(path)[0] == f"{path} is larger than 1024 KiB, and so hardly a configuration"
    write(tmp_path / "c", TEXT + "#" * (LIMIT - len(TEXT)))
    assert read_config(path).clients.keys() == {"spotify"}


def test_mistakes_name_the_file(tmp_path):
    """So that an editor can jump there."""
    path = write(tmp_path / "c", "a = b")
    assert refusal(path)[0].startswith(f"{path}:1: this is no TOML")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_bare_secret_that_others_may_read(tmp_path, mode):
    """Refused, with the command that mends it."""
    path = write(tmp_path / "c d", BARE, mode)
    assert refusal(path) == (
        (
            f"{path} holds the client secret of a, and others than its owner may read it "
            f"(mode {mode:04o})"
        ),
        f"chmod 600 '{path}'",
    )


def test_who_may_read_which_file(tmp_path):
    """A bare secret in a file of the owner's is allowed; without one the mode doesn't matter."""
    assert len(read_config(write(tmp_path / "c", BARE)).warnings) == 1
    assert read_config(write(tmp_path / "d", TEXT, 0o644)).warnings == ()


def test_a_new_file_is_its_owners_alone(tmp_path):
    """Folder 0700, file 0600, whatever the umask; and nothing else is left there."""
    path = tmp_path / "new" / "spotokend" / "config.toml"
    before = os.umask(0)
    try:
        write_new_config(str(path), "é\n")
    finally:
        os.umask(before)
    assert path.read_bytes() == "é\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == ["config.toml"]


def test_a_file_that_exists_is_left_as_it_is(tmp_path):
    """Not even a broken link is replaced."""
    path = write(tmp_path / "config.toml", "mine")
    with pytest.raises(Misconfigured, match="exists already and is left as it is"):
        write_new_config(path, TEXT)
    assert (tmp_path / "config.toml").read_text() == "mine"
    link = tmp_path / "link.toml"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(Misconfigured, match="exists already"):
        write_new_config(str(link), TEXT)
    assert sorted(os.listdir(tmp_path)) == ["config.toml", "link.toml"]


def test_a_place_is_looked_at_before_the_writing(tmp_path, monkeypatch):
    """Free, taken, or where nothing can be made; and looking makes nothing."""
    check_place(str(tmp_path / "new" / "spotokend" / "config.toml"))
    assert os.listdir(tmp_path) == []
    path = write(tmp_path / "config.toml", "mine")
    with pytest.raises(Misconfigured, match="exists already and is left as it is"):
        check_place(path)
    (tmp_path / "link.toml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Misconfigured, match="exists already"):
        check_place(str(tmp_path / "link.toml"))

    # Root, as which tests may run, may write everywhere.
    monkeypatch.setattr("spotokend.adapters.config_file.os.access", lambda path, mode: False)
    with pytest.raises(Misconfigured) as caught:
        check_place(str(tmp_path / "new" / "spotokend" / "config.toml"))
    assert caught.value.message.endswith(f"can't be written: {tmp_path} takes no new files")
    assert "$SPOTOKEND_CONFIG" in caught.value.hint


def test_a_folder_that_is_a_file(tmp_path):
    """That is another mistake than a configuration that exists."""
    path = f"{write(tmp_path / 'file', '')}/config.toml"
    with pytest.raises(Misconfigured, match="can't be written: File exists"):
        write_new_config(path, TEXT)
    with pytest.raises(Misconfigured, match="file takes no new files"):
        check_place(path)


def test_a_disk_that_takes_nothing(tmp_path, monkeypatch):
    """The reason and the cure are told, and half a file is not left."""

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("spotokend.adapters.config_file.os.fsync", full)
    path = str(tmp_path / "config.toml")
    with pytest.raises(Misconfigured) as caught:
        write_new_config(path, TEXT)
    assert caught.value.message == f"{path} can't be written: No space left on device"
    assert caught.value.hint is not None
    assert os.listdir(tmp_path) == []


def test_the_file_and_then_its_name_are_made_durable(tmp_path, monkeypatch):
    """Both are flushed; a file system that can't flush folders is no error."""
    flushed = []

    def fsync(descriptor):
        flushed.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        if flushed[-1]:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr("spotokend.adapters.config_file.os.fsync", fsync)
    write_new_config(str(tmp_path / "config.toml"), TEXT)
    assert flushed == [False, True]
