"""The first run: from nothing to a daemon that answers, by way of a few questions.

``spotokend login`` comes by here before anything else, and finds a daemon: that is all then. Else it
is asked what is missing: the app and its scopes, where there is no configuration yet, and whether
systemd may run the daemon. Nothing is written or started before the last answer, so that whoever
leaves at a question leaves everything as it was; and a configuration that exists is never touched.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping

from .. import calls, paths
from ..adapters import systemd
from ..adapters.config_file import check_place, read_config, write_new_config
from ..client import Client
from ..errors import DaemonNotRunning, Misconfigured
from ..rules.config import readers
from ..rules.config.parse import DASHBOARD, SPOTIFY_CLIENT_ID, parse, starter
from ..rules.config.values import REDIRECT_URI
from . import browser, questions, scopes, service, terminal
from .parser import PROGRAM

CLIENT_IDS = ("SPOTIPY_CLIENT_ID", "SPOTIFY_CLIENT_ID")
"""Where other programs keep the app's client id: spotipy, and most of the rest."""
REDIRECT = "SPOTIPY_REDIRECT_URI"
CLIENT = "spotify"
"""What the client of a first configuration is called."""

BY_SERVICE = 20.0
BY_HAND = 600.0
UNATTENDED = 5.0
"""Seconds for the daemon to answer: one that systemd has just started, one that somebody is to
start in another terminal, and one that a script may have started just before."""
LOOK = 0.1
"""Seconds between two looks at the socket."""

# What decides where the daemon's things are, and may be set in one shell alone.
_VARIABLES = (
    "SPOTOKEND_CONFIG",
    "SPOTOKEND_SOCK",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
)


def prepare(arguments: argparse.Namespace, client: Client) -> bool:
    """Return when a daemon answers on the client's socket; where one does already, at once.

    True: there was no configuration before, and so nothing has been tried yet.

    Raises:
        DaemonNotRunning: nobody answers: nobody is there to be asked, or the input ended at a
            question, or the daemon wasn't started in time.
        Misconfigured: the configuration is broken, can't be written, or systemd objects.
        BadRequest: an answer that was piped in can't be used.
    """
    absent = _absence(client)
    if absent is None:
        return False
    path = paths.config_path()
    text = None
    try:
        if os.path.lexists(path):
            _check_existing(path, client)
            if not questions.interactive():
                raise absent
        else:
            _check_client(arguments.client)
            text = compose(path, arguments.scope)
        by_systemd = systemd.available() and _offer_service()
    except questions.EndOfInput as end:
        raise DaemonNotRunning(
            f'the input ended at "{end}"; nothing has been written',
            hint=f"{PROGRAM} login in a terminal, or with all answers piped in, a line each",
        ) from None
    if text is not None:
        write(path, text)
    if by_systemd:
        _run_by_systemd(client)
    else:
        _run_by_hand(client)
    terminal.say("The daemon answers.\n")
    return text is not None


def compose(path: str, wanted: Iterable[str]) -> str:
    """Ask for what a first configuration takes; its text. Scopes that are ``wanted`` aren't asked.

    Raises:
        Misconfigured: it could not be written to ``path``.
        EndOfInput: the input ended at a question.
        BadRequest: an answer that was piped in can't be used.
    """
    check_place(path)
    redirect_uri = known_redirect_uri()
    _explain_app(redirect_uri)
    known, variable = known_client_id()
    if SPOTIFY_CLIENT_ID.fullmatch(known):
        terminal.say(f"Return takes the one of ${variable}.")
    else:
        known = ""
    client_id = questions.ask("Client id", _client_id_reader(), default=known)
    wanted = tuple(wanted)
    if not wanted:
        terminal.say(
            "\nWhat may your programs do? Answer with numbers or words of this list, with\n"
            'Spotify\'s own scopes (user-top-read), or with "all". More can be added later.\n\n'
            f"{scopes.table()}\n"
        )
        wanted = questions.ask("Scopes", scopes.read, default=scopes.NONE)
    return starter(client_id, wanted, redirect_uri)


def write(path: str, text: str) -> None:
    """Write a first configuration, and show it.

    Raises:
        Misconfigured: it can't be written; or one was made there meanwhile, and is left as it is.
    """
    write_new_config(path, text)
    terminal.say(f"\nThis is your configuration now, in\n{path}\n")
    terminal.say("\n".join(f"    {line}".rstrip() for line in text.rstrip("\n").split("\n")))
    for warning in parse(text, source=path).warnings:
        terminal.say("")
        terminal.tell(f"warning: {warning}")


def known_client_id() -> tuple[str, str]:
    """The client id of the environment, and the variable that holds it; both empty: there is none."""
    found = ((os.environ.get(name, "").strip(), name) for name in CLIENT_IDS)
    return next((pair for pair in found if pair[0]), ("", ""))


def known_redirect_uri() -> str:
    """The redirect URI of the environment, if Spotify takes it; else, and that is said, ours."""
    known = os.environ.get(REDIRECT, "").strip()
    if not known:
        return REDIRECT_URI
    try:
        return str(readers.redirect_uri(known))
    except readers.Wrong as wrong:
        terminal.tell(
            f"${REDIRECT} isn't used: {wrong.message}. Since November 2025 Spotify takes https "
            "alone, or http with 127.0.0.1 or [::1]."
        )
        terminal.say("")
    return REDIRECT_URI


def _explain_app(redirect_uri: str) -> None:
    port = (
        "It has no port, so that a login may use any that is free."
        if redirect_uri == REDIRECT_URI
        else f"It is that of ${REDIRECT}."
    )
    terminal.say(
        "There is no configuration yet, so a few questions come first.\n\n"
        "Spotify wants an app of your own. To register one, or to adapt one you have:\n"
        f" 1. Open {DASHBOARD} and log in. The account\n"
        "    that owns the app needs Premium.\n"
        " 2. Create an app. Name and description are yours to choose; the redirect URI\n"
        "    must be exactly\n\n"
        f"        {redirect_uri}\n\n"
        f"    {port}\n"
        ' 3. Tick "Web API", agree to the terms, and save.\n'
        " 4. Copy the client id from the app's page. The client secret isn't needed.\n"
    )


def _client_id_reader() -> Callable[[str], str]:
    """Reads a client id; one that is not of Spotify's form is doubted once, where a person answers."""
    doubted = ""

    def read(answer: str) -> str:
        nonlocal doubted
        cure = f"copy it from your app's page: {DASHBOARD}"
        if not answer:
            raise readers.Wrong("a client id is needed", cure)
        if "://" in answer:
            raise readers.Wrong("that is an address, and no client id", cure)
        spotifys = SPOTIFY_CLIENT_ID.fullmatch(answer) is not None
        if not spotifys and questions.interactive() and answer != doubted:
            doubted = answer
            raise readers.Wrong(
                "that doesn't look like a client id: 32 digits and letters a to f",
                f"{cure}\nor type the same again, to take it all the same",
            )
        return readers.client_id(answer)

    return read


def _check_client(name: str | None) -> None:
    """Before any question: the login that comes after them would not find that client."""
    if name not in (None, CLIENT):
        raise Misconfigured(
            f"there is no configuration yet, and so no client {name}",
            hint=f"leave out --client: the first one is called {CLIENT}",
        )


def _check_existing(path: str, client: Client) -> None:
    elsewhere = read_config(path).daemon.socket
    # The daemon goes by the variable before it goes by the configuration, which clients don't read.
    if elsewhere and not os.environ.get("SPOTOKEND_SOCK") and elsewhere != client.socket_path:
        raise DaemonNotRunning(
            f"nobody listens on {client.socket_path}, and the configuration has the socket at "
            f"{elsewhere}",
            hint=f"tell this shell, too: export SPOTOKEND_SOCK={shlex.quote(elsewhere)}",
        )


def _offer_service() -> bool:
    terminal.say(
        "\nThe daemon, which keeps the tokens fresh, isn't running. systemd can run it for\n"
        "you, now and with each of your sessions."
    )
    unseen = _settings(without=systemd.environment())
    if unseen:
        names = " and ".join(f"${name}" for name in unseen)
        terminal.tell(f"But it would not see {names} of this shell, and so look elsewhere.")
    return questions.confirm("Run it as a service?", default=not unseen)


def _run_by_systemd(client: Client) -> None:
    terminal.say("")
    for sentence in service.install():
        terminal.tell(sentence)
    if not browser.graphical(os.environ) and not systemd.lingers():
        terminal.say(
            "There is no desktop here: the service ends with your last session, unless you\n"
            "allow it to stay. Once, as this user:\n\n"
            "    loginctl enable-linger\n"
        )
    if _answers(client, BY_SERVICE):
        return
    done = systemd.run_systemctl(["systemctl", "--user", "status", "--lines=5", systemd.UNIT])
    for line in done.stdout.splitlines():
        terminal.tell(line)
    raise DaemonNotRunning(
        f"the service was started, and still nobody answers on\n{client.socket_path}",
        hint="its log: journalctl --user -u spotokend",
    )


def _run_by_hand(client: Client) -> None:
    command = _command()
    one_line = " ".join(command)
    shown = one_line if len(one_line) <= terminal.WIDTH - 4 else " \\\n    ".join(command)
    attended = questions.interactive()
    terminal.say(
        "\nNow start the daemon, which keeps the tokens fresh, in another terminal:\n\n"
        f"    {shown}\n\n"
        "and let it run. This login goes on as soon as it answers."
    )
    if attended:
        terminal.say(
            "Ctrl-C ends the wait. Without another terminal press it, type the command with\n"
            f'" &" behind it, and then {PROGRAM} login again.'
        )
    if not _answers(client, BY_HAND if attended else UNATTENDED):
        raise DaemonNotRunning(
            f"nobody answers on\n{client.socket_path}",
            hint=f"start the daemon: {one_line}\nthen log in: {PROGRAM} login",
        )


def _absence(client: Client) -> DaemonNotRunning | None:
    try:
        calls.open_socket(client.socket_path, known=False).close()
    except DaemonNotRunning as absent:
        return absent
    except calls.Lost:  # more callers wait than it admits: somebody is there
        return None
    return None


def _answers(client: Client, seconds: float) -> bool:
    ends = time.monotonic() + seconds
    while _absence(client) is not None:
        if time.monotonic() >= ends:
            return False
        time.sleep(LOOK)
    return True


def _command() -> list[str]:
    """The words of what starts the daemon in another terminal, which may lack what this one has set."""
    program = PROGRAM
    if shutil.which(program) is None:  # in an environment that isn't activated there, perhaps
        called = os.path.abspath(sys.argv[0])
        is_script = os.path.basename(called) == PROGRAM
        program = shlex.join([called] if is_script else [sys.executable, "-m", PROGRAM])
    settings = [
        # The other one may be in another folder.
        f"{name}={shlex.quote(os.path.abspath(value))}"
        for name, value in _settings(without={}).items()
    ]
    return [*settings, f"{program} run"]


def _settings(*, without: Mapping[str, str]) -> dict[str, str]:
    """Those of this shell's variables that decide where things are, and aren't the same there."""
    here = _places(os.environ)
    return {
        name: os.environ[name]
        for name in _VARIABLES
        if os.environ.get(name) != without.get(name)
        and _places({other: os.environ[other] for other in os.environ if other != name}) != here
    }


def _places(environ: Mapping[str, str]) -> tuple[str, ...]:
    return paths.config_path(environ), paths.socket_path(environ), paths.state_dir(environ)
