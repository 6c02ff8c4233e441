"""``spotokend api``: what is sent where, what comes out, and how its failures are told."""

from __future__ import annotations

import errno
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from overheard import may_tell

from spotokend.cli import api, main
from spotokend.errors import Busy, UnknownAccount

SILENT = object()
"""An answer that never comes."""


class Api:
    """An API on loopback that gives the answers that are written down, and keeps the requests."""

    def __init__(self):
        self.answers = []
        """``(status, headers, body)``; a body cut short is told by its Content-Length. None: the
        connection is closed."""
        self.requests = []
        self.over = threading.Event()
        there = self

        class Handler(BaseHTTPRequestHandler):
            def __getattr__(self, name):
                if name.startswith("do_"):
                    return self.answer
                raise AttributeError(name)

            def answer(self):
                length = int(self.headers.get("Content-Length", 0))
                there.requests.append(
                    (self.command, self.path, self.headers, self.rfile.read(length))
                )
                given = there.answers.pop(0) if there.answers else (200, {}, b"{}")
                self.close_connection = True
                if given is SILENT:
                    there.over.wait(10)
                elif given is not None:
                    status, headers, body = given
                    self.send_response(status)
                    for name, value in ({"Content-Length": len(body)} | headers).items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *words):
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self):
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def remote():
    """The API."""
    remote = Api()
    yield remote
    remote.close()


@pytest.fixture
def served(daemon, remote, token_map, status_map, account_map):
    """A daemon with one account, whose API that is."""
    status = status_map(account_map())
    status["clients"]["spotify"]["api_url"] = remote.url
    daemon.answers["status"] = status
    daemon.answers["token"] = token_map
    daemon.answers["reject"] = token_map | {"access_token": "access-2", "generation": 5}
    return daemon


def asked(remote):
    return [(method, path, body) for method, path, _, body in remote.requests]


# --- what is sent ---------------------------------------------------------------------------------


def test_the_body_is_passed_on_as_it_is(served, remote, capsysbinary):
    """Every byte, and nothing added; the token goes where it belongs."""
    body = b'{"a":1,\r\n\t"b":"\xc3\xa9"}'
    remote.answers = [(200, {"Content-Type": "application/json"}, body)]

    assert main(["api", "/v1/me"]) == 0
    assert capsysbinary.readouterr() == (body, b"")
    [(method, path, headers, sent)] = remote.requests
    assert (method, path, sent) == ("GET", "/v1/me", b"")
    assert headers["Authorization"] == "Bearer access-1"
    assert headers["Accept"] == "application/json"
    assert headers["User-Agent"].startswith("spotokend/")
    assert headers["Content-Type"] is None


def test_the_account_that_is_named(served, remote, monkeypatch, token_map):
    """By the option, by the variable, or by the daemon; its name is asked for, not guessed."""
    served.answers["token"] = lambda arguments: token_map | arguments
    main(["api", "/v1/me", "--account", "work"])
    monkeypatch.setenv("SPOTOKEND_ACCOUNT", "home")
    main(["api", "/v1/me"])
    monkeypatch.delenv("SPOTOKEND_ACCOUNT")
    main(["api", "/v1/me"])

    assert [each.get("account") for each in served.asked("token")] == ["work", "home", None, "main"]
    assert [each.get("account") for each in served.asked("status")] == [
        "work",
        "home",
        None,
        "main",
    ]
    assert len(remote.requests) == 3


@pytest.mark.parametrize(
    ("words", "method", "body", "kind"),
    [
        (["-X", "delete"], "DELETE", b"", None),
        (["-d", '{"a": 1}'], "POST", b'{"a": 1}', "application/json"),
        (["-X", "PUT", "--data", "[]"], "PUT", b"[]", "application/json"),
        (["-d", '"é"'], "POST", '"é"'.encode(), "application/json"),
        (["-d", "a=b", "-H", "content-type:x/y"], "POST", b"a=b", "x/y"),
        (["-d", "{}", "-H", "Content-Type: a/b"], "POST", b"{}", "a/b"),
        (["-d", ""], "POST", b"", None),
        (["-X", "PUT"], "PUT", b"", None),
    ],
)
def test_methods_and_data(served, remote, words, method, body, kind):
    """POST where there are data; JSON where nothing else is said."""
    assert main(["api", "/v1/x", *words]) == 0
    [(sent_method, _, headers, sent)] = remote.requests
    assert (sent_method, sent, headers["Content-Type"]) == (method, body, kind)
    # Spotify answers 411 to a PUT or POST that doesn't say that it is empty.
    assert method == "DELETE" or headers["Content-Length"] == str(len(body))


def test_headers(served, remote):
    """Those that are given replace the program's own, and may be repeated."""
    main(
        ["api", "/x", "-H", "X-A: 1", "-H", "x-a:2", "-H", "ACCEPT: text/x", "-H", "User-Agent: me"]
    )
    [(_, _, headers, _)] = remote.requests

    assert headers.get_all("X-A") == ["1", "2"]
    assert headers.get_all("Accept") == ["text/x"]
    assert headers.get_all("User-Agent") == ["me"]


def test_data_from_a_file(served, remote, tmp_path):
    """``@FILE``: its bytes."""
    file = tmp_path / "data"
    file.write_bytes(b'{"a": "\xc3\xa9"}\n')

    assert main(["api", "/x", "-d", f"@{file}"]) == 0
    assert asked(remote) == [("POST", "/x", file.read_bytes())]


def test_data_from_stdin(served, remote):
    """``@-``: to the end of what comes."""
    done = subprocess.run(
        [sys.executable, "-m", "spotokend", "api", "/x", "-d", "@-"],
        input=b'{"a": 1}',
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, b"")
    assert asked(remote) == [("POST", "/x", b'{"a": 1}')]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["/x", "-X", "GET IT"], "GET IT is no method"),
        (["/x", "-X", ""], " is no method"),
        (["/x", "-X", "ſ"], "ſ is no method"),
        (["/x", "-X", "connect"], "CONNECT is a matter between programs"),
        (["/x", "-X", "TRACE"], "TRACE is a matter between programs"),
        (["/x", "-d", "a=b"], "the data is no JSON"),
        (["/x", "-d", "[" * 100_000], "the data is no JSON"),
        (["/x", "-d", "\udcff"], "the data is no JSON"),
        (["/x", "-d", "@/nonexistent/file"], "--data @/nonexistent/file: No such file"),
        (["/x", "-d", "@"], "--data @: No such file"),
        (["/x", "-d", "@/"], "--data @/: Is a directory"),
        (["/x", "-d", "@/dev/zero"], "--data @/dev/zero: more than"),
        (["/x", "-H", "Accept"], "that is no header"),
        (["/x", "-H", ": x"], "that is no header"),
        (["/x", "-H", "A B: x"], "that is no header"),
        (["/x", "-H", "X: access-9\r\nHost: evil.example"], "the header X holds what"),
        (["/x", "-H", "X: ü"], "the header X holds what"),
        (["/x", "-H", "authorization: Bearer access-9"], "the header authorization is spotokend's"),
        (["/x", "-H", "Host: evil.example"], "the header Host is spotokend's own"),
        (["/x", "-H", "Content-Length: 3"], "the header Content-Length is spotokend's own"),
        (["https://evil.example/x"], "and its token goes nowhere else"),
        (["//evil.example/x"], "may lead elsewhere"),
    ],
)
def test_what_can_not_be_sent(served, remote, monkeypatch, capsys, words, said):
    """Status 2, with no token asked for and nothing sent; what may be a secret isn't repeated."""
    monkeypatch.setattr(api, "DATA_LIMIT", 10_000_000)

    assert main(["api", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "access-9" not in err
    assert remote.requests == []
    assert served.asked("token") == []


def test_of_several_apis_each_may_be_meant(served, remote, token_map):
    """Whose a whole address is shows only with the account; another account's is refused then."""
    clients = served.answers["status"]["clients"]
    clients["other"] = clients["spotify"] | {"api_url": "https://other.example"}
    clients["none"] = clients["spotify"] | {"api_url": None}

    assert main(["api", f"{remote.url}/v1/me"]) == 0
    assert main(["api", "https://other.example/v1/me"]) == 2
    assert len(served.asked("token")) == 3
    assert main(["api", "https://evil.example/v1/me"]) == 2
    assert len(served.asked("token")) == 3
    assert asked(remote) == [("GET", "/v1/me", b"")]


@pytest.mark.parametrize("account", [[], ["--account", "main"]])
def test_an_account_without_an_api(served, remote, capsys, account):
    """Another provider's, for which none is configured: the key to set."""
    served.answers["status"]["clients"]["spotify"]["api_url"] = None

    assert main(["api", "/v1/me", *account]) == 2
    assert capsys.readouterr().err == (
        "spotokend: it isn't known where tokens of main may go: clients.spotify.api_url is missing\n"
        '  → add api_url = "https://…" to [clients.spotify], then run: spotokend reload\n'
    )


def test_an_unknown_account(served, remote):
    """The daemon's own answer."""
    served.answers["status"] = UnknownAccount("there is no account nobody")

    assert main(["api", "/v1/me", "--account", "nobody"]) == 7
    assert remote.requests == []


# --- tokens that are refused ----------------------------------------------------------------------

EXPIRED = (401, {}, b'{"error":{"status":401,"message":"The access token expired"}}')


def test_a_refused_token_is_replaced(served, remote, capsys):
    """Reported, and the same call made once more with the next one."""
    remote.answers = [EXPIRED, (201, {}, b'{"id":1}')]

    assert main(["api", "/x", "-d", "{}"]) == 0
    assert capsys.readouterr() == ('{"id":1}', "")
    assert asked(remote) == [("POST", "/x", b"{}")] * 2
    assert [headers["Authorization"] for _, _, headers, _ in remote.requests] == [
        "Bearer access-1",
        "Bearer access-2",
    ]
    assert served.asked("reject") == [{"account": "main", "generation": 4}]


def test_a_new_token_that_is_refused_too_ends_it(served, remote, capsys):
    """Status 3, after two requests and no more."""
    remote.answers = [EXPIRED] * 5

    assert main(["api", "/x"]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "the API refuses even the newest token of main (401: The access token expired)" in err
    assert "→ spotokend login main" in err
    assert len(remote.requests) == 2
    assert len(served.asked("reject")) == 1


def test_a_daemon_without_a_newer_token_says_so(served, remote, capsys):
    """Its own error: when to come again is known only there."""
    remote.answers = [EXPIRED]
    served.answers["reject"] = Busy("too many reports", retry_after=60.0)

    assert main(["api", "/x"]) == 5
    assert capsys.readouterr().err == "spotokend: too many reports\n  → try again in 60 s\n"
    assert len(remote.requests) == 1


@pytest.mark.parametrize(
    ("said", "status"),
    [("Permissions missing", 6), ("Valid user authentication required", 2)],
)
def test_what_no_other_token_mends_costs_none(served, remote, said, status):
    """A 401 about scopes or the kind of account isn't reported to the daemon."""
    body = json.dumps({"error": {"status": 401, "message": said}}).encode()
    remote.answers = [(401, {}, body)]

    assert main(["api", "/x"]) == status
    assert len(remote.requests) == 1
    assert served.asked("reject") == []


# --- what comes back ------------------------------------------------------------------------------


def test_nothing_is_printed_of_an_error(served, remote, capsys):
    """Words and cure on stderr, the status of its kind."""
    remote.answers = [(404, {}, b'{"error":{"status":404,"message":"Resource not found"}}')]

    assert main(["api", "/v1/x"]) == 2
    assert capsys.readouterr() == (
        "",
        (
            "spotokend: the API has nothing there (404: Resource not found)\n"
            "  → compare the path with the API's reference; Spotify's begin with /v1/\n"
        ),
    )


def test_of_an_error_only_the_beginning_is_read(served, remote, monkeypatch, capsys):
    """A page without end explains nothing; one that is cut short is explained by its status."""
    monkeypatch.setattr(api, "ERROR_LIMIT", 5)
    remote.answers = [(400, {}, b"12345678"), (400, {"Content-Length": 9}, b"123")]

    assert main(["api", "/x"]) == main(["api", "/x"]) == 2
    assert "(400: 12345)" in (err := capsys.readouterr().err)
    assert "(400: 123)" in err


def test_redirects_are_not_followed(served, remote, capsys):
    """The token would go along."""
    remote.answers = [(302, {"Location": f"{remote.url}/elsewhere"}, b"")]

    assert main(["api", "/x"]) == 2
    assert "sends this call elsewhere, to 127.0.0.1" in capsys.readouterr().err
    assert len(remote.requests) == 1


@pytest.mark.parametrize("status", [204, 202])
def test_nothing_comes_of_nothing(served, remote, capsys, monkeypatch, status):
    """An empty answer is a good one, on a terminal too."""
    remote.answers = [(status, {}, b"")] * 2
    assert main(["api", "/x", "-X", "PUT"]) == 0
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["api", "/x", "-X", "PUT"]) == 0
    assert capsys.readouterr() == ("", "")


def test_head(served, remote, capsys):
    """A success or an error by its status alone."""
    remote.answers = [(200, {"Content-Length": 5}, b""), (404, {"Content-Length": 5}, b"")]

    assert main(["api", "/x", "-X", "head"]) == 0
    assert main(["api", "/x", "-X", "head"]) == 2
    assert "(404)" in capsys.readouterr().err


def test_without_a_stdout(served, remote):
    """As cron jobs are started sometimes: the call is made."""
    remote.answers = [(200, {}, b"{}")]
    done = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m spotokend api /x -X PUT >&-"],
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, b"")
    assert len(remote.requests) == 1


@pytest.fixture
def on_terminal(monkeypatch, capsys):
    """What ``main`` shows there."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")

    def show():
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        assert main(["api", "/x"]) == 0
        return capsys.readouterr()

    return show


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"b":[1,{}],"a":null}', '{\n  "b": [\n    1,\n    {}\n  ],\n  "a": null\n}\n'),
        (b'"x"', '"x"\n'),
        ('{"a":"é王🎧"}'.encode(), '{\n  "a": "é王🎧"\n}\n'),
        (
            rb'{"a":"\u001b[31m\u202e\ud800\u2028"}',
            '{\n  "a": "\\u001b[31m\ufffd\ufffd\ufffd"\n}\n',
        ),
        (b'{"a":"\xc2\x9b31m[red]"}', '{\n  "a": "\ufffd31m[red]"\n}\n'),
        (b"plain\ttext\r\nof \x1b[31m lines\n", "plain   text\nof \ufffd[31m lines\n"),
        (b'{"cut', '{"cut\n'),
        (b"[" * 2000, "[" * 2000 + "\n"),
        (b"\n", ""),
    ],
)
def test_a_terminal_shows_it_readable_and_harmless(on_terminal, remote, served, body, shown):
    """JSON indented, other text as it is, and no character that a terminal would obey."""
    remote.answers = [(200, {}, body)]

    assert on_terminal() == (shown, "")


def test_a_terminal_does_not_get_what_is_no_text(on_terminal, remote, served):
    """Its size and kind, and how to have it."""
    remote.answers = [
        (200, {"Content-Type": "image/jpeg"}, b"\xff\xd8\xff\x00"),
        (200, {}, b"\xff"),
    ]

    assert on_terminal() == (
        "",
        "4 bytes of image/jpeg came; to have them, send stdout to a file.\n",
    )
    assert on_terminal().err.startswith("1 bytes of no type came")


def test_colours_on_a_terminal(on_terminal, remote, served, monkeypatch):
    """Where they are welcome, for JSON of bearable size; without a break in long lines."""
    monkeypatch.delenv("NO_COLOR")
    long = json.dumps({"key": "x" * 500}).encode()
    remote.answers = [(200, {}, long), (200, {}, b"text"), (200, {}, long)]

    painted = on_terminal().out
    assert "\x1b[" in painted
    assert "x" * 500 in painted
    assert on_terminal().out == "text\n"
    monkeypatch.setattr(api, "COLOUR_LIMIT", 100)
    assert "\x1b" not in on_terminal().out


# --- when nothing comes back ----------------------------------------------------------------------


def test_an_answer_that_breaks_off(served, remote, capsys):
    """What came is out already; the status and the words say that it isn't all."""
    remote.answers = [(200, {"Content-Length": 100}, b'{"a":')]

    assert main(["api", "/x"]) == 5
    out, err = capsys.readouterr()
    assert out == '{"a":'
    assert "the answer of 127.0.0.1 broke off after 5 bytes" in err


@pytest.mark.parametrize(("method", "doubt"), [("GET", False), ("POST", True), ("DELETE", True)])
def test_a_connection_that_is_cut(served, remote, capsys, method, doubt):
    """Nobody knows whether it was carried out; it matters where something is changed."""
    remote.answers = [None]

    assert main(["api", "/x", "-X", method]) == 5
    err = capsys.readouterr().err
    assert "the connection to 127.0.0.1 broke off before there was an answer" in err
    assert ("it may have been carried out all the same" in err) is doubt
    assert ("→ look whether it was, before you repeat it" in err) is doubt
    assert len(remote.requests) == 1


def test_an_answer_that_does_not_come(served, remote, monkeypatch, capsys):
    """In time."""
    monkeypatch.setattr(api, "ANSWER_TIMEOUT", 0.1)
    remote.answers = [SILENT]

    assert main(["api", "/x", "-X", "PUT"]) == 5
    err = capsys.readouterr().err
    assert "no answer from 127.0.0.1 within 0.1 s; it may have been carried out" in err


def test_nobody_there(served, remote, capsys):
    """Refused by the host: nothing was carried out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    served.answers["status"]["clients"]["spotify"]["api_url"] = f"http://127.0.0.1:{port}"

    assert main(["api", "/x", "-X", "PUT"]) == 5
    assert capsys.readouterr().err == (
        "spotokend: nobody listens at 127.0.0.1, or at its proxy\n  → is it the right address?\n"
    )


def chained(outer, inner):
    outer.__cause__ = inner
    return outer


UNTRUSTED = ssl.SSLCertVerificationError(1, "certificate verify failed")
UNTRUSTED.verify_message = "self-signed certificate"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            chained(httpx.ConnectError("x"), UNTRUSTED),
            "the certificate of 127.0.0.1 is not trusted (self-signed certificate)",
        ),
        (
            chained(httpx.ConnectError("x"), socket.gaierror(-2, "unknown")),
            "the name 127.0.0.1 can't be resolved",
        ),
        (
            chained(httpx.ConnectError("x"), OSError(errno.ENETUNREACH, "unreachable")),
            "no connection to 127.0.0.1, or none that is encrypted",
        ),
        (httpx.ConnectTimeout("x"), "no connection to 127.0.0.1 within 5 s"),
        (
            httpx.ProxyError("407 \x1b access-1"),
            "the proxy gives no way to 127.0.0.1: 407 access-1",
        ),
        (httpx.InvalidURL("x"), "the address at 127.0.0.1 is too long"),
    ],
)
def test_what_keeps_a_call_from_being_sent(served, remote, monkeypatch, capsys, error, said):
    """Each in its words, status 5, and without a doubt whether it was carried out."""

    def fail(request):
        raise error

    monkeypatch.setattr(
        api, "_connect", lambda url: httpx.Client(transport=httpx.MockTransport(fail))
    )

    assert main(["api", "/x", "-X", "PUT"]) == 5
    err = capsys.readouterr().err
    assert said in err
    assert "  → " in err
    assert "carried out" not in err


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY", "SSL_CERT_FILE"])
def test_variables_that_can_not_be_used(served, remote, monkeypatch, capsys, name):
    """A bad proxy or a missing file of certificates: status 2, before a token is used."""
    served.answers["status"]["clients"]["spotify"]["api_url"] = "https://api.example"
    monkeypatch.setenv(name, "/nonexistent://x")

    assert main(["api", "/x"]) == 2
    assert "(HTTPS_PROXY, ALL_PROXY) or certificates" in capsys.readouterr().err
    assert len(served.asked("token")) == 1  # the one that told the account


def test_loopback_is_asked_without_a_proxy(served, remote, monkeypatch):
    """Which would look for it on its own host."""
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    assert main(["api", "/x"]) == 0
    assert len(remote.requests) == 1


def test_a_proxy_is_used_for_the_rest(served, remote, monkeypatch, capsys):
    """It is asked for a tunnel; the request itself, and the token, it doesn't see."""
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def refuse():
            connection, _ = proxy.accept()
            with connection:
                heard.append(connection.recv(4096))
                connection.sendall(b"HTTP/1.1 403 Not for you\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        served.answers["status"]["clients"]["spotify"]["api_url"] = "https://api.example"

        assert main(["api", "/x", "-X", "PUT"]) == 5
        thread.join()
    assert heard[0].startswith(b"CONNECT api.example:443 ")
    assert b"access-1" not in heard[0]
    err = capsys.readouterr().err
    assert "the proxy gives no way to api.example: 403 Not for you" in err
    assert "carried out" not in err


def test_no_token_in_an_error(served, remote, token_map, monkeypatch, capsys):
    """Whatever the API echoes, and also from a defect."""
    token = "access-" + "0123456789abcdef" * 2
    served.answers["token"] = token_map | {"access_token": token}
    body = json.dumps({"error": {"message": f"no: Bearer {token}"}, "token": token}).encode()
    remote.answers = [(status, {"Location": f"https://{token}/"}, body) for status in (400, 302)]
    assert main(["api", "/x"]) == main(["api", "/x"]) == 2
    monkeypatch.setattr(api, "explain", lambda answer, **_: 1 / 0)
    remote.answers = [(400, {}, body)]
    assert main(["api", "/x"]) == 1
    assert token not in capsys.readouterr().err


def test_whoever_stops_reading_is_left_in_peace(served, remote):
    """``spotokend api … | head -1``: 141, and no complaint."""
    remote.answers = [(200, {}, b"x" * 1_000_000)]
    read, write = os.pipe()
    os.close(read)
    with may_tell("nobody reads it"):
        done = subprocess.run(
            [sys.executable, "-m", "spotokend", "api", "/x"],
            stdout=write,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    os.close(write)

    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk_is_noticed(served, remote):
    """What was not written must not look as if it were."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "spotokend", "api", "/x"],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )

    assert (done.returncode, done.stderr) == (1, b"spotokend: No space left on device\n")
