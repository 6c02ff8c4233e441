"""Every command, argument and option, as one table.

The parser, the help, and later the manual pages and the shells' completion are made from
:data:`COMMANDS`; nothing about the command line is written down twice. A command ``NAME`` is the
function ``run(arguments) -> int`` of the module ``spotokend.cli.NAME``, which is imported only when
it is the one that was asked for.
"""

from __future__ import annotations

from .grammar import Argument, Command, Option, port, seconds

_ACCOUNT = Argument(
    "account",
    "the account; else $SPOTOKEND_ACCOUNT, the configuration's default_account, or the only one",
    count="?",
    environ="SPOTOKEND_ACCOUNT",
)
_SCOPE = "--scope"
_CONFIG = Option(
    "--config",
    "FILE",
    "the configuration; else $SPOTOKEND_CONFIG, or spotokend/config.toml in $XDG_CONFIG_HOME",
)
_JSON = Option("--json", "", "JSON for programs")

COMMANDS: tuple[Command, ...] = (
    Command(
        "login",
        "log in to an account in the browser",
        detail="Opens the browser, waits for its answer on a loopback port, and also reads an "
        "address that is pasted here: over SSH, or where the browser runs on another machine. "
        "A login that exists serves on until the new one is stored.",
        arguments=(
            Argument(
                "account",
                "the account to log in to; else $SPOTOKEND_ACCOUNT, the configuration's "
                "default_account, the only one, or main",
                count="?",
                environ="SPOTOKEND_ACCOUNT",
            ),
        ),
        options=(
            Option("--client", "NAME", "the client (app) of the configuration to log in with"),
            Option(_SCOPE, "SCOPE", "ask for this scope in addition", repeatable=True),
            Option("--no-browser", "", "open no browser; the address alone goes to stdout"),
            Option("--paste", "", "don't listen; wait for the address to be pasted"),
        ),
        daily=True,
    ),
    Command(
        "token",
        "print a token that works",
        detail="Prints the access token and a newline, and nothing else. header: the whole "
        "Authorization line for curl -H. env: SPOTIFY_ACCESS_TOKEN=… quoted for a shell's eval. "
        "json: the token with its account, expiry, scopes and generation.",
        arguments=(_ACCOUNT,),
        options=(
            Option("--min-ttl", "S", "the token must live S more seconds", kind=seconds),
            Option(_SCOPE, "SCOPE", "the token must have this scope", repeatable=True),
            Option(
                "--format",
                "FORMAT",
                "raw (the default), header, json or env",
                default="raw",
                choices=("raw", "header", "json", "env"),
            ),
        ),
        daily=True,
    ),
    Command(
        "api",
        "call the provider's API as an account",
        detail="Sends one request with the account's token and prints the answer's body. A path "
        "begins with a slash, /v1/me; a whole address must be one of the account's own API, for "
        "the token goes nowhere else. A token that is refused is replaced, once. What the API "
        "objects to is explained on stderr, and nothing is printed on stdout; the exit status tells "
        "what kind of trouble it is.",
        arguments=(Argument("path", "what is asked for: /v1/me"),),
        options=(
            Option(
                "--method",
                "METHOD",
                "the method; else GET, or POST with --data",
                short="-X",
            ),
            Option(
                "--data",
                "DATA",
                "the body: JSON (or what a Content-Type header says), @FILE for what is in a file, "
                "@- for stdin",
                short="-d",
            ),
            Option(
                "--header",
                "NAME: VALUE",
                "send this header too; Authorization and Host are spotokend's own",
                short="-H",
                repeatable=True,
            ),
            Option(
                "--account",
                "NAME",
                "the account; else $SPOTOKEND_ACCOUNT, the configuration's default_account, or the "
                "only one",
                environ="SPOTOKEND_ACCOUNT",
            ),
        ),
        daily=True,
    ),
    Command(
        "status",
        "how all accounts are, or the story of one",
        detail="With --live it stays, and follows what happens; q leaves.",
        arguments=(Argument("account", "tell everything about this account", count="?"),),
        options=(Option("--live", "", "stay, and show what happens as it happens"), _JSON),
        daily=True,
    ),
    Command(
        "logout",
        "forget an account's login and delete its tokens",
        detail="Deletes what is stored here. The provider still lists the app among those that "
        "have access; revoke it there too if it shall have none.",
        arguments=(Argument("account", "the account; always by its name"),),
        daily=True,
    ),
    Command(
        "run",
        "run the daemon in the foreground",
        options=(
            _CONFIG,
            Option(
                "--log-level",
                "LEVEL",
                "debug, info, warning or error; else the configuration's",
                choices=("debug", "info", "warning", "error"),
            ),
            Option("--detach", "", "without systemd: be back when it answers in the background"),
        ),
    ),
    Command(
        "stop",
        "stop the daemon, and wait until it has ended",
        detail="A refresh under way is finished and stored first. Under systemd: "
        "systemctl --user stop spotokend.",
    ),
    Command(
        "reload",
        "read the configuration anew and say what changed",
        detail="A configuration with an error in it changes nothing.",
    ),
    Command(
        "refresh",
        "renew an account's token now",
        detail="For tests and suspicions: the daemon renews in time by itself.",
        arguments=(_ACCOUNT,),
    ),
    Command(
        "watch",
        "print what happens, one line an event",
        arguments=(Argument("accounts", "only these accounts", count="*"),),
        options=(Option("--tokens", "", "new tokens too, readable"), _JSON),
    ),
    Command(
        "hooks",
        "start the commands of [hooks.NAME] on what happens",
        options=(_CONFIG,),
    ),
    Command(
        "config",
        "check, start or show the configuration",
        commands=(
            Command(
                "check",
                "say whether the configuration is good, and everything that is wrong",
                options=(_CONFIG,),
            ),
            Command(
                "init",
                "write a first configuration; never edits one that exists",
                options=(
                    _CONFIG,
                    Option(
                        "--client-id",
                        "ID",
                        "the app's client id; else $SPOTIPY_CLIENT_ID, or it is asked for",
                    ),
                    Option(_SCOPE, "SCOPE", "ask for this scope at login", repeatable=True),
                ),
            ),
            Command(
                "show",
                "print the configuration in effect, with all defaults and without secrets",
                options=(_CONFIG,),
            ),
        ),
    ),
    Command(
        "store",
        "look at what the logins are kept in, or change its key",
        commands=(
            Command(
                "info",
                "say what the store is and holds, and which keys it needs",
                options=(_CONFIG, _JSON),
            ),
            Command(
                "rekey",
                "seal everything in the store with a new key",
                detail="The daemon goes on serving meanwhile. Whatever cuts it off loses nothing: "
                "the same command goes on. With --to the present key goes to another place, and "
                "what is left to do is said.",
                options=(
                    Option(
                        "--to",
                        "SOURCE",
                        "have the key in file=PATH, keyring=NAME, or under a (new) passphrase: "
                        "passphrase=pinentry, passphrase=systemd",
                    ),
                ),
            ),
        ),
    ),
    Command(
        "unlock",
        "have the daemon ask for the store's key again, now",
        detail="For a keyring that was locked, or a passphrase that was not given.",
    ),
    Command(
        "service",
        "run the daemon as a systemd user service",
        commands=(
            Command("install", "install the unit and start it, now and at each login"),
            Command(
                "uninstall",
                "stop it and remove the unit; configuration and logins stay",
                options=(
                    Option(
                        "--purge",
                        "",
                        "remove the configuration, the logins and their key too, and say what",
                    ),
                ),
            ),
        ),
    ),
    Command(
        "sandbox",
        "an offline stand-in for Spotify's accounts service",
        detail="Prints a configuration that uses it on stdout, and runs until Ctrl-C. Nothing "
        "leaves this machine.",
        options=(
            Option("--port", "PORT", "listen there; else on a free port", kind=port, default=0),
            Option("--auto-approve", "", "agree to every login without asking"),
            Option(
                "--token-life",
                "S",
                "seconds that an access token lives (3600)",
                kind=seconds,
                default=3600.0,
            ),
            Option(
                "--grant-life",
                "S",
                "seconds that a login lives (180 days)",
                kind=seconds,
                default=180 * 86_400.0,
            ),
            Option(
                "--rotation",
                "MODE",
                "new refresh tokens: never (the default, as Spotify), optional or always",
                default="never",
                choices=("never", "optional", "always"),
            ),
            Option(
                "--grace",
                "S",
                "seconds that a replaced refresh token still works (0)",
                kind=seconds,
                default=0.0,
            ),
            Option(
                "--keep-family",
                "",
                "a replaced refresh token that is used again is refused, and that is all; "
                "else it ends the whole login",
            ),
        ),
    ),
    Command(
        "demo",
        "sandbox, daemon and three accounts, to look at",
        detail="On a terminal the view of status --live, elsewhere lines; nothing leaves this "
        "machine, and nothing stays on it.",
        options=(
            Option(
                "--once",
                "",
                "end when all was seen: two refreshes of each account, an outage, a new login",
            ),
        ),
    ),
)
