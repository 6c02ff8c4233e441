"""``service uninstall --purge``: which files are ours, and that no other is touched."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from spotokend import errors
from spotokend.adapters import listener
from spotokend.adapters.config_file import write_new_config
from spotokend.adapters.keys.passphrase import PassphraseKey
from spotokend.adapters.lockfile import StateLock
from spotokend.adapters.store.sqlite_file import open_database
from spotokend.adapters.store.sqlite_schema import STEPS
from spotokend.cli import purge
from spotokend.rules.config.parse import starter
from spotokend.rules.sealing import SealingKey, write_keys

CONFIG = starter("a" * 32, [])


class Home:
    """A user's home, made with the daemon's own adapters, with the folders where XDG has them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.units = folder / ".config" / "systemd" / "user"
        self.config = folder / ".config" / "spotokend" / "config.toml"
        self.state = folder / ".local" / "state" / "spotokend"
        self.socket = folder / "run" / "spotokend" / "spotokend.sock"
        self.environ = {"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder / "run")}
        self.units.mkdir(parents=True)

    def write(self, path: Path, text: str = "") -> Path:
        """A file, with its folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def configure(self, more: str = "") -> None:
        """A configuration that is right."""
        write_new_config(str(self.config), CONFIG + more)

    def inhabit(self) -> None:
        """Everything that an ordinary daemon leaves behind when it ends."""
        self.configure()
        make_store(self.state / "store.sqlite3")
        make_key(self.state / "key")
        make_dead_socket(self.socket)
        self.write(self.socket.with_name("main.reminded"))
        self.write(self.units / "spotokend.service")

    def look(self, **environ: str) -> purge.Inventory:
        """What is found there."""
        world = purge.World(self.environ | environ, str(self.folder))
        return purge.take_inventory(str(self.units), [world])

    def purge(self, **environ: str) -> purge.Inventory:
        """The same, removed; with nothing that could not be."""
        found = self.look(**environ)
        with purge.nobody_running(found):
            removed, refused = purge.remove(found)
        assert (removed, refused) == (found.files + found.folders, {})
        return found

    def files(self) -> set[str]:
        """What there is but for folders, relative to the home."""
        return {
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if path.is_symlink() or not path.is_dir()
        }


def make_store(path: Path) -> None:
    """An empty store, and the lock of whoever used it."""
    with StateLock(f"{path}.lock"):
        open_database(str(path), now=0.0)[0].close()


def make_key(path: Path) -> None:
    path.touch(0o600)
    path.write_bytes(write_keys([SealingKey(bytes(32))]))


def make_wrapped(path: Path) -> None:
    place = PassphraseKey(str(path), ("echo", "correct horse"), cost=2)
    anyio.run(place.save, [SealingKey(bytes(32))])


def make_dead_socket(path: Path) -> None:
    listener.bind(str(path)).close()


@pytest.fixture
def home(short_path, monkeypatch):
    """``~/`` in a configuration means this process's."""
    monkeypatch.setenv("HOME", str(short_path))
    return Home(short_path)


def test_nothing_of_an_ordinary_daemon_stays(home):
    """Files, and the folders that are ours; the shared ones above them stay."""
    home.inhabit()

    home.purge()

    assert home.files() == set()
    assert not home.config.parent.exists()
    assert not home.state.exists()
    assert not home.socket.parent.exists()
    assert home.units.exists()


def test_what_a_detached_daemon_left_goes_too(home):
    """Its log, the one before, and a PID file that a crash has left."""
    home.inhabit()
    for name in ("store.sqlite3.log", "store.sqlite3.log.1"):
        (home.state / name).touch()
    home.socket.with_name(f"{home.socket.name}.pid").write_text("77\n")

    home.purge()

    assert home.files() == set()
    assert not home.state.exists()
    assert not home.socket.parent.exists()


def test_a_second_time_there_is_nothing(home):
    """Neither to remove nor to tell."""
    home.inhabit()
    home.purge()

    assert home.look() == purge.Inventory(
        locks={str(home.state / "store.sqlite3.lock")},
        sockets={str(home.socket), str(home.state / "run" / "spotokend.sock")},
    )


def test_the_configuration_is_the_last_file_and_inner_folders_go_first(home):
    """Whoever is interrupted begins again, and still knows which other places there are."""
    home.inhabit()
    make_dead_socket(home.state / "run" / "spotokend.sock")

    found = home.look()

    assert found.files[0] == str(home.units / "spotokend.service")
    assert found.files[-1] == str(home.config)
    assert found.folders.index(str(home.state / "run")) < found.folders.index(str(home.state))


def test_what_damage_upgrades_and_crashes_leave_behind_is_known(home):
    """The names are those that the adapters give; here they have given them."""
    store = home.state / "store.sqlite3"
    open_database(str(home.write(store)), now=0.0, steps=STEPS)[0].close()
    more = ("CREATE TABLE another (name TEXT)",)
    open_database(str(store), now=1.0, steps=(*STEPS, more))[0].close()
    with store.open("r+b") as file:
        file.truncate(5000)
    open_database(str(store), now=2.0, steps=(*STEPS, more))[0].close()
    for name in (
        "store.sqlite3-wal",
        "store.sqlite3-shm",
        "store.sqlite3-journal",
        "store.sqlite3.salvaged",
        "store.sqlite3.salvaging",
        "store.sqlite3.salvaging-journal",
        "store.sqlite3.salvaging-copy-wal",
        "store.sqlite3.damaged-20260102T030405Z-3-wal",
        ".key-a_b3c4d5",
    ):
        home.write(home.state / name)
    home.write(home.config.with_name(".config-abcdefgh"))
    home.write(home.units / ".spotokend.service.4711")
    names = {path.name for path in home.state.iterdir()}
    assert {"store.sqlite3.schema-1-19700101T000001Z", "store.sqlite3.damaged-19700101T000002Z"} < (
        names
    )

    home.purge()

    assert home.files() == set()


@pytest.mark.parametrize(
    "name",
    [
        ".local/state/spotokend/store.sqlite3.bak",
        ".local/state/spotokend/store.sqlite3-walrus",
        ".local/state/spotokend/store.sqlite3.damaged-by-me",
        ".local/state/spotokend/my-store.sqlite3",
        ".local/state/spotokend/key.old",
        ".local/state/spotokend/.key-backup",
        ".config/spotokend/config.toml~",
        ".config/spotokend/.config-of-mine",
        ".config/systemd/user/spotokend.service.d/README",
        "run/spotokend/other.sock",
        "run/spotokend/spotokend.sock.unsaved/main.spill.bak",
    ],
)
def test_a_guest_in_a_folder_of_ours_is_left_and_named(home, name):
    """And with it its folder."""
    home.inhabit()
    guest = home.write(home.folder / name, "mine")

    found = home.purge()

    assert home.files() == {name}
    assert found.left == {str(guest): "spotokend doesn't use it"}
    assert guest.read_text() == "mine"


@pytest.mark.parametrize("socket", ["run/spotokend/spotokend.sock", "sock"])
def test_answers_that_were_never_saved_go_with_their_folder(home, socket):
    """Of any account, whole, half written, or put aside; also beside a socket elsewhere."""
    home.inhabit()
    home.config.unlink()
    home.configure(f'[daemon]\nsocket = "~/{socket}"\n')
    aside = "robot.spill.foreign-key-20260101T000000Z"
    for name in ("main.spill", "robot.draft", aside, f"{aside}-1"):
        home.write(home.folder / f"{socket}.unsaved" / name)

    home.purge()

    assert home.files() == set()
    assert not (home.folder / f"{socket}.unsaved").exists()


def test_what_is_beside_the_unit_is_nobody_s_business(home):
    """Other units, their drop-ins and links are neither touched nor told."""
    home.inhabit()
    others = {
        ".config/systemd/user/other.service",
        ".config/systemd/user/spotokend-other.socket",
        ".config/systemd/user/other.service.d/a.conf",
        ".config/systemd/user/default.target.wants/other.service",
    }
    for name in others:
        home.write(home.folder / name)
    enabled = home.units / "default.target.wants" / "spotokend.service"
    enabled.symlink_to(home.units / "spotokend.service")

    found = home.purge()

    assert home.files() == others
    assert found.left == {}


def test_the_user_s_drop_ins_and_all_enabling_links_go(home):
    """With their folders, where nothing else is in them."""
    home.inhabit()
    home.write(home.units / "spotokend.service.d" / "override.conf")
    home.write(home.units / "spotokend.socket.d" / "50-configuration.conf")
    home.write(home.units / "spotokend-hooks.service.d" / ".50-configuration.conf.17")
    for folder in ("default.target.wants", "player.service.requires"):
        (home.units / folder).mkdir()
        (home.units / folder / "spotokend.service").symlink_to(home.units / "spotokend.service")
    home.write(home.units / "spotokend.socket")
    (home.units / "sockets.target.wants").mkdir()
    (home.units / "sockets.target.wants" / "spotokend.socket").symlink_to("../spotokend.socket")

    home.purge()

    assert list(home.units.iterdir()) == []


def test_places_that_the_configuration_names_are_purged_too(home):
    """Relative to its folder, as the daemon takes them; the folders there are not ours."""
    home.inhabit()
    for text in ('[daemon]\nsocket = "~/sock"\n', '[store]\npath = "~/data/tokens"\nkey = "k"\n'):
        with home.config.open("a") as file:
            file.write(text)
    make_store(home.folder / "data" / "tokens")
    make_key(home.config.with_name("k"))
    make_dead_socket(home.folder / "sock")

    home.purge()

    assert home.files() == set()
    assert (home.folder / "data").is_dir()


@pytest.mark.parametrize("path", ["./tokens", "../link/../tokens", "../spotokend//tokens"])
def test_a_crooked_path_is_the_place_that_the_system_takes_it_for(home, path):
    """Told and counted once; and ``..`` behind a link is where the link leads to."""
    home.configure(f'[store]\npath = "{path}"\n')
    (home.config.parent / "inner").mkdir()
    (home.config.parents[1] / "link").symlink_to(home.config.parent / "inner")
    make_store(home.config.parent / "tokens")
    make_key(home.config.with_name("key"))
    decoy = home.write(home.config.parents[1] / "tokens", "not this one")

    found = home.purge()

    assert found.left == {str(home.config.parent / "inner"): "spotokend doesn't use it"}
    assert home.files() == {".config/tokens", ".config/link"}
    assert decoy.read_text() == "not this one"


def test_the_key_beside_a_store_that_is_named_belongs_to_it(home):
    """That is where the daemon makes it when only the store is named."""
    home.configure('[store]\npath = "~/data/tokens"\n')
    make_store(home.folder / "data" / "tokens")
    make_key(home.folder / "data" / "key")

    home.purge()

    assert home.files() == set()


@pytest.mark.parametrize("where", ["", "~/data/tokens"])
def test_the_keys_under_a_passphrase_belong_to_the_store_beside_them(home, where):
    """Also where nothing in the configuration names a passphrase any more."""
    home.configure(f'[store]\npath = "{where}"\n' if where else "")
    store = home.folder / "data" / "tokens" if where else home.state / "store.sqlite3"
    make_store(store)
    make_wrapped(store.with_name("key.wrapped"))

    found = home.purge()

    assert home.files() == set()
    assert found.left == {}


def test_what_only_has_the_name_of_wrapped_keys_is_left_elsewhere(home):
    """Its content is not ours."""
    home.configure('[store]\npath = "~/data/tokens"\nkey = { passphrase = "pinentry" }\n')
    make_store(home.folder / "data" / "tokens")
    mine = home.write(home.folder / "data" / "key.wrapped", "a present")

    found = home.purge()

    assert home.files() == {"data/key.wrapped"}
    assert found.left == {
        str(mine): "it is no file with keys under a passphrase of spotokend's",
    }


@pytest.mark.parametrize(
    ("source", "place", "words"),
    [
        (
            'keyring = "main"',
            "the key main in the keyring",
            "yours to remove: secret-tool clear application spotokend store main",
        ),
        (
            'credential = "store-key"',
            "the credential store-key",
            "yours to remove: the line LoadCredential=store-key of the unit, and what it names",
        ),
    ],
)
def test_a_key_that_is_in_no_file_of_ours_is_named(home, source, place, words):
    """With how to remove it: the keyring may be locked now, a credential is its owner's."""
    home.configure(f"[store]\nkey = {{ {source} }}\n")
    make_store(home.state / "store.sqlite3")

    found = home.purge()

    assert home.files() == set()
    assert found.left == {place: words}


def test_a_store_that_was_removed_by_hand_leaves_its_family_to_us(home):
    """The lock tells that it was one: it holds a process id."""
    home.configure('[store]\npath = "~/data/tokens"\n')
    make_store(home.folder / "data" / "tokens")
    (home.folder / "data" / "tokens").unlink()

    home.purge()

    assert home.files() == set()


def test_elsewhere_what_is_not_ours_by_its_content_is_left(home):
    """A slip of the pen in the configuration must not cost a database or a private key."""
    with closing(sqlite3.connect(home.folder / "photos.db")) as database:
        database.execute("CREATE TABLE photos (name TEXT)")
        database.commit()
    home.write(home.folder / "photos.db.lock", "4711")
    home.write(home.folder / "id_rsa", "no key of ours")
    home.write(home.folder / "thesis.txt", "text")
    home.configure(
        '[daemon]\nsocket = "~/thesis.txt"\n[store]\npath = "~/photos.db"\nkey = "~/id_rsa"\n'
    )
    before = {name: (home.folder / name).read_bytes() for name in home.files()}

    found = home.purge()

    assert {name: (home.folder / name).read_bytes() for name in home.files()} == {
        name: before[name] for name in ("photos.db", "photos.db.lock", "id_rsa", "thesis.txt")
    }
    assert found.left == {
        str(home.folder / "photos.db"): (
            "it is no store of spotokend's, nor what is called alike beside it"
        ),
        str(home.folder / "id_rsa"): "it is no key that spotokend could use",
        str(home.folder / "thesis.txt"): "it is no socket",
    }


@pytest.mark.parametrize("lock", [None, "a program's own lock"])
def test_names_alike_beside_a_store_that_never_was_stay(home, lock):
    """The configuration named a place that no daemon ever used."""
    home.configure('[store]\npath = "~/project/poetry"\n')
    if lock is not None:
        home.write(home.folder / "project" / "poetry.lock", lock)

    found = home.purge()

    assert home.files() == (set() if lock is None else {"project/poetry.lock"})
    assert found.left == {}


@pytest.mark.parametrize(("text", "stays"), [(CONFIG, False), ("no TOML", True)])
def test_a_configuration_elsewhere_goes_if_it_is_one(home, text, stays):
    """$SPOTOKEND_CONFIG may be relative, and may be wrong; the usual one isn't in effect then."""
    home.configure()
    home.write(home.folder / "my.toml", text).chmod(0o600)

    found = home.purge(SPOTOKEND_CONFIG="my.toml")

    assert (home.folder / "my.toml").exists() == stays
    assert (str(home.folder / "my.toml") in found.left) == stays
    assert found.left[str(home.config)] == "spotokend doesn't use it"


def test_a_broken_configuration_is_told_and_removed_and_the_usual_places_with_it(home):
    """In our own folder the name is enough."""
    home.inhabit()
    home.config.write_text("no TOML")

    found = home.purge()

    assert home.files() == set()
    assert "only the usual places are looked at" in found.notes[str(home.config)]
    assert "config.toml:1" in found.notes[str(home.config)]


@pytest.mark.parametrize("place", ["secret", ".config/spotokend/secret"])
def test_a_client_secret_s_file_is_the_user_s_own(home, place):
    """Left and named, wherever it is; one that isn't there is not spoken of."""
    path = home.write(home.folder / place, "secret-1")
    home.configure(
        "".join(
            f'[clients.{name}]\nclient_id = "{name}"\nflow = "authorization_code"\n'
            f'client_secret = {{ file = "{secret}" }}\n'
            for name, secret in (("two", path), ("three", "gone"))
        )
    )

    found = home.purge()

    assert home.files() == {place}
    assert found.left == {str(path): "the client secret of two is your own file"}


def test_a_link_in_the_place_of_our_folder_goes_and_its_target_stays(home):
    """Another disk, a repository of dotfiles: named, and not looked into."""
    home.inhabit()
    home.state.rename(home.folder / "disk")
    home.state.symlink_to(home.folder / "disk")
    kept = {name for name in home.files() if name.startswith("disk/")}

    found = home.purge()

    assert home.files() == kept
    assert found.left == {
        str(home.folder / "disk"): f"{home.state} was a link to it; see what is in it"
    }


def test_a_link_in_the_place_of_a_file_goes_and_its_target_stays(home):
    """Also where the configuration names it, and the target is ours by its content."""
    home.inhabit()
    home.config.rename(home.folder / "dotfile.toml")
    home.config.symlink_to(home.folder / "dotfile.toml")
    with (home.folder / "dotfile.toml").open("a") as file:
        file.write('[store]\nkey = "~/key"\n')
    make_key(home.folder / "deployed")
    (home.folder / "key").symlink_to("deployed")

    found = home.purge()

    assert home.files() == {"dotfile.toml", "deployed"}
    assert set(found.left) == {str(home.folder / "dotfile.toml"), str(home.folder / "deployed")}


def test_links_that_lead_to_nothing_worth_a_word(home):
    """A masked unit leads to /dev/null; another link to what is gone."""
    home.units.joinpath("spotokend.service").symlink_to("/dev/null")
    home.state.mkdir(parents=True)
    (home.state / "key").symlink_to(home.folder / "gone")

    found = home.purge()

    assert home.files() == set()
    assert found.left == {}


def test_a_link_in_the_place_of_the_socket_is_left(home):
    """The daemon makes none, and takes none."""
    home.write(home.folder / "other")
    home.socket.parent.mkdir(parents=True)
    home.socket.symlink_to(home.folder / "other")

    found = home.purge()

    assert home.files() == {"other", "run/spotokend/spotokend.sock"}
    assert found.left == {str(home.socket): "it is no socket"}


def test_what_belongs_to_another_user_is_left(home, monkeypatch):
    """Files and folders, though the names are ours."""
    home.inhabit()
    before = home.files()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    found = home.look()

    assert (found.files, found.folders) == ([], [])
    assert set(found.left.values()) == {f"it belongs to user {os.getuid()}"}
    assert str(home.state) in found.left
    assert home.files() == before


def test_a_folder_under_a_file_s_name_is_left(home):
    """Nothing is removed with what is in it."""
    home.write(home.state / "key" / "diary", "mine")

    found = home.purge()

    assert home.files() == {".local/state/spotokend/key/diary"}
    assert found.left == {str(home.state / "key"): "it is no regular file"}


def test_no_fifo_is_waited_for(home):
    """A store's, a key's and a configuration's name, and nobody writes at the other end."""
    for name in ("a", "b"):
        os.mkfifo(home.folder / name)
    home.configure('[store]\npath = "~/a"\nkey = "~/b"\n')

    found = home.purge()

    assert home.files() == {"a", "b"}
    assert set(found.left) == {str(home.folder / "a"), str(home.folder / "b")}


def test_two_worlds_are_looked_at_once_where_they_are_the_same(home):
    """The shell's and the service's; a lock taken twice would be refused the second time."""
    home.inhabit()
    home.folder.with_name(f"{home.folder.name}-link").symlink_to(home.folder)
    linked = Path(f"{home.folder}-link")
    worlds = [
        purge.World({**home.environ, "HOME": str(place)}, "/") for place in (home.folder, linked)
    ]

    try:
        found = purge.take_inventory(str(home.units), worlds)
        with purge.nobody_running(found):
            _, refused = purge.remove(found)
    finally:
        linked.unlink()

    assert refused == {}
    assert home.files() == set()


# ----------------------------------------------------------------------------- a daemon that runs


def test_a_daemon_that_holds_the_lock_is_named(home):
    """By the process id that it has written there."""
    home.inhabit()
    before = home.files()

    with StateLock(str(home.state / "store.sqlite3.lock")):
        with pytest.raises(errors.Misconfigured) as refused, purge.nobody_running(home.look()):
            pass

    assert refused.value.message.startswith(f"a daemon runs (process {os.getpid()})")
    assert refused.value.hint == f"spotokend stop; if that doesn't reach it: kill {os.getpid()}"
    assert home.files() == before


def test_a_holder_that_has_not_written_who_it_is(home):
    """Between taking the lock and writing there."""
    home.inhabit()
    lock = home.state / "store.sqlite3.lock"

    with StateLock(str(lock)):
        lock.write_text("")
        with pytest.raises(errors.Misconfigured, match="can't be seen from here"):
            purge.nobody_running(home.look()).__enter__()


def test_a_daemon_that_listens_is_named(home):
    """On a socket that only the configuration names, and without a lock to be seen."""
    home.configure('[daemon]\nsocket = "~/sock"\n')

    with listener.bind(str(home.folder / "sock")):
        with pytest.raises(errors.Misconfigured, match=re.escape(str(home.folder / "sock"))) as it:
            purge.nobody_running(home.look()).__enter__()

    assert f"(process {os.getpid()})" in it.value.message


def test_a_daemon_too_busy_to_answer_runs(home):
    """Its queue is full; who it is can't be asked."""
    home.socket.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as waiting:
        full.bind(str(home.socket))
        full.listen(0)
        waiting.connect(str(home.socket))

        with pytest.raises(errors.Misconfigured, match="can't be seen from here") as refused:
            purge.nobody_running(home.look()).__enter__()

    assert refused.value.hint == "spotokend stop"


def test_no_daemon_can_start_meanwhile(home):
    """The lock is ours until the last file has gone."""
    home.inhabit()

    with purge.nobody_running(home.look()):
        with pytest.raises(errors.Misconfigured, match="a daemon runs"):
            purge.nobody_running(home.look()).__enter__()


def test_looking_for_a_daemon_makes_nothing(home):
    """A lock that isn't there isn't made; one that can't be taken is for the removal to tell."""
    with purge.nobody_running(home.look()):
        assert home.files() == set()
    home.state.mkdir(parents=True)
    lock = home.state / "store.sqlite3.lock"
    lock.symlink_to(home.write(home.folder / "other", "mine"))

    home.purge()

    assert home.files() == {"other"}
    assert (home.folder / "other").read_text() == "mine"


# ------------------------------------------------------------------------ what can't be removed


def refusing(monkeypatch, function, *paths):
    """Have the system refuse this to us, which it wouldn't do to root."""
    real = getattr(os, function)

    def refuse(path, *arguments, **named):
        if str(path) in map(str, paths):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, function, refuse)


def test_one_file_that_stays_stops_no_other(home, monkeypatch):
    """Its folder stays with it, and isn't complained of."""
    home.inhabit()
    found = home.look()
    refusing(monkeypatch, "unlink", home.state / "key")

    removed, refused = purge.remove(found)

    assert refused == {str(home.state / "key"): "Permission denied"}
    assert home.files() == {".local/state/spotokend/key"}
    assert set(found.files + found.folders) - set(removed) == {
        str(home.state / "key"),
        str(home.state),
    }


def test_a_folder_that_can_not_be_read_is_told_once(home, monkeypatch):
    """What is in it nobody knows; the rest goes."""
    home.inhabit()
    refusing(monkeypatch, "listdir", home.state, home.state / "run")

    found = home.look()
    _, refused = purge.remove(found)

    assert refused == {str(home.state): "Permission denied"}
    assert {Path(name).parent for name in home.files()} == {Path(".local/state/spotokend")}


def test_a_file_that_can_not_be_looked_at_is_told(home, monkeypatch):
    """As in a folder that can be listed and not entered."""
    home.inhabit()
    refusing(monkeypatch, "lstat", home.state / "key")

    found = home.look()
    _, refused = purge.remove(found)

    assert refused == {str(home.state / "key"): "Permission denied"}
    assert found.left == {}


def test_what_somebody_else_removed_meanwhile_is_fine(home):
    """It is neither counted as removed nor complained of."""
    home.inhabit()
    found = home.look()
    (home.state / "key").unlink()

    removed, refused = purge.remove(found)

    assert refused == {}
    assert str(home.state / "key") not in removed
    assert home.files() == set()
