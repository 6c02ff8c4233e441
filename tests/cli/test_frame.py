"""A frame: whatever the scene holds, it fits; and what matters most is on it."""

from __future__ import annotations

import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from spotokend.cli.frame import draw
from spotokend.cli.scene import Happening, Scene

NOW = 2_000.0
ANYTHING = st.text(max_size=90) | st.sampled_from(
    [
        "",
        "x" * 60,
        "王小明的很長很長很長的名字",
        "Čarolína Žluťoučká 🎧🎧🎧",
        "👨‍👩‍👧‍👦" * 9,
        "a\x1b[2J\nb",
        "[red]A[/]",
    ]
)
MOMENT = st.none() | st.floats(-1e6, 4e9)
ACCOUNT = st.fixed_dictionaries(
    {
        "account": ANYTHING,
        "client": st.sampled_from(["spotify", "machine", "gone"]),
        "state": st.sampled_from(["fresh", "waiting", "quarantined", "needs_login"]) | ANYTHING,
        "health": st.sampled_from(["ok", "degraded", "failing"]) | ANYTHING,
        "user": st.none() | ANYTHING,
        "display_name": st.none() | ANYTHING,
        "scope": st.lists(ANYTHING, max_size=3),
        "generation": st.integers(0, 10**9),
        "issued_at": MOMENT,
        "expires_at": MOMENT,
        "due_at": MOMENT,
        "authorized_at": MOMENT,
        "grant_expires_at": MOMENT,
        "since": MOMENT,
        "reason": st.none() | ANYTHING,
        "hint": st.none() | ANYTHING,
        "durable": st.booleans(),
    }
)
NOTICE = st.fixed_dictionaries(
    {
        "kind": ANYTHING,
        "level": st.sampled_from(["debug", "info", "warning", "error"]) | ANYTHING,
        "account": st.none() | ANYTHING,
        "message": ANYTHING,
        "hint": st.none() | ANYTHING,
        "at": st.floats(0, 4e9),
    }
)
EVENT = st.one_of(
    st.tuples(st.just("state"), ACCOUNT),
    st.tuples(st.just("notice"), NOTICE),
    st.tuples(st.just("resync"), st.just({"dropped": 3})),
    st.tuples(ANYTHING.filter(lambda name: name not in {"state", "notice", "resync"}), st.just({})),
)
GATE = st.fixed_dictionaries(
    {
        "state": st.sampled_from(["open", "closed", "blocked"]) | ANYTHING,
        "opens_at": MOMENT,
        "reason": st.none() | ANYTHING,
    }
)
CLIENT = st.fixed_dictionaries(
    {"flow": st.sampled_from(["pkce", "client_credentials"]), "gate": GATE}
)


def shown(scene, width=80, height=24, hint="", now=NOW):
    """The frame's lines as they appear."""
    console = Console(width=width, height=height, file=io.StringIO(), legacy_windows=False)
    return [line.plain for line in draw(scene, now, console, hint)]


def styles(scene):
    """The words that have a colour, and which."""
    console = Console(width=80, height=24, file=io.StringIO(), legacy_windows=False)
    found = {}
    for line in draw(scene, NOW, console):
        found[line.plain.strip()] = str(line.style)
        found |= {line.plain[part.start : part.end].strip(): str(part.style) for part in line.spans}
    return found


@pytest.fixture
def scene_of(status_map):
    """Makes a scene of some accounts."""

    def make(*accounts, only=None, **told):
        scene = Scene(only)
        scene.learn(status_map(*accounts, **told), NOW, whole=True)
        return scene

    return make


@given(
    accounts=st.lists(ACCOUNT, max_size=30),
    events=st.lists(EVENT, max_size=12),
    clients=st.dictionaries(ANYTHING | st.just("spotify"), CLIENT, max_size=3),
    warnings=st.lists(ANYTHING, max_size=2),
    caption=ANYTHING,
    hint=st.sampled_from(["", "q leaves"]),
    away=st.booleans(),
    only=st.booleans(),
    size=st.tuples(st.integers(1, 130), st.integers(1, 50)),
)
def test_a_frame_fits_whatever_the_scene_holds(
    accounts, events, clients, warnings, caption, hint, away, only, size
):
    """No line is wider than the terminal, there are no more than it has, and none moves the cursor."""
    width, height = size
    daemon = {"version": "0.1.0", "pid": 1, "started_at": 0.0, "health": "ok", "accounts": 30}
    status = {"daemon": {**daemon, "warnings": warnings}, "clients": clients}
    scene = Scene()
    if only and accounts:
        accounts = [{**accounts[0], "why": "so", "outcomes": []}]
        scene = Scene(accounts[0]["account"])
        events = [event for event in events if event[0] != "state"]
    scene.learn({**status, "accounts": accounts}, NOW, whole=True)
    for method, event in events:
        scene.hear(method, event, NOW)
    scene.caption = caption
    if away:
        scene.miss(NOW)

    lines = shown(scene, width, height, hint)

    assert len(lines) <= height
    assert max(cell_len(line) for line in lines) <= width
    assert "".join(lines).isprintable() or not {"\x1b", "\n", "\r"} & set("".join(lines))


def test_a_frame_of_80_columns(scene_of, account_map):
    """Head, caption, accounts with their bars, happenings."""
    robot = {"user": None, "display_name": None, "authorized_at": None, "grant_expires_at": None}
    scene = scene_of(account_map(), account_map(account="robot", generation=17, **robot))
    scene.caption = "all is calm"
    scene.tell(Happening(NOW, "main", "info", "token 4"))

    assert shown(scene, hint="q leaves") == [
        "spotokend 0.1.0 · ✓ ok · 2 accounts · running for 17 min · process 1    q leaves",
        "all is calm",
        "",
        "  ACCOUNT  AS     STATE        TOKEN             LEFT    REFRESH     LOGIN   NO.",
        "✓ main     Alice  fresh        ━━━┿━━━━━━╾───  43 min  in 28 min   30 days     4",
        "✓ robot           fresh        ━━━┿━━━━━━╾───  43 min  in 28 min   unknown    17",
        "",
        f"{time.strftime('%H:%M:%S', time.localtime(NOW))}  main: token 4",
    ]


@pytest.mark.parametrize(
    ("width", "titles"),
    [
        (120, "ACCOUNT AS STATE TOKEN LEFT REFRESH LOGIN NO."),
        (80, "ACCOUNT AS STATE TOKEN LEFT REFRESH LOGIN"),
        (70, "ACCOUNT STATE TOKEN LEFT REFRESH LOGIN"),
        (60, "ACCOUNT STATE TOKEN LEFT REFRESH"),
        (45, "ACCOUNT STATE TOKEN LEFT"),
        (40, "ACCOUNT TOKEN LEFT"),
        (20, "ACCOUNT LEFT"),
        (15, "ACCOUNT"),
        (5, "AC…"),
    ],
)
def test_columns_give_way(scene_of, account_map, width, titles):
    """The least telling first."""
    lines = shown(scene_of(account_map(display_name="Alice Liddell")), width)

    assert lines[2].split() == titles.split()


def test_a_display_name_is_cut_before_it_goes(scene_of, account_map):
    """Its beginning tells who it is; of less than eight letters too little would be left."""
    scene = scene_of(account_map(display_name="Alice Liddell"))

    assert "main     Alice Lid…  fresh" in shown(scene, 77)[3]
    assert "main     Alice L…  fresh" in shown(scene, 75)[3]
    assert "main     fresh" in shown(scene, 74)[3]


def test_names_share_the_line(scene_of, account_map):
    """A long one is cut rather than that the others lose their columns."""
    lines = shown(scene_of(account_map(account="x" * 60, display_name="y" * 60)))

    assert lines[3].startswith(f"✓ {'x' * 15}…  fresh")
    assert max(cell_len(line) for line in lines) == 80


def test_health_has_a_sign_a_colour_and_words(scene_of, account_map):
    """So that nobody has to see colours."""
    scene = scene_of(
        account_map(account="a"),
        account_map(account="b", state="waiting", health="degraded"),
        account_map(account="c", state="quarantined", health="failing"),
        account_map(account="d", health="new"),
        health="failing",
    )
    lines, coloured = shown(scene), styles(scene)

    assert lines[0].startswith("spotokend 0.1.0 · ✗ failing · 4 accounts")
    assert [line[0] for line in lines[3:]] == ["✓", "!", "✗", "?"]
    assert [" ".join(line.split()[2:4]) for line in lines[4:6]] == ["Alice will", "Alice refused"]
    assert coloured["✓"] == "green"
    assert coloured["!"] == coloured["will retry"] == "yellow"
    assert coloured["✗"] == coloured["refused"] == "red"


def test_a_refresh_is_pointed_at(scene_of, account_map):
    """For two seconds: it takes some milliseconds itself."""
    scene = scene_of(account_map())
    scene.hear("state", account_map(generation=5), NOW)

    assert "refreshed" in shown(scene, now=NOW + 1.9)[3]
    assert "fresh  " in shown(scene, now=NOW + 2)[3]


def test_troubles_stand_below_the_accounts(scene_of, account_map):
    """Folded where they are long; the cure stands out."""
    scene = scene_of(
        account_map(reason="the provider said something that is really long, " * 3, hint="log in"),
        gate={"state": "closed", "reason": "429", "opens_at": NOW + 30},
        warnings=["a secret stands in the file"],
    )
    scene.tell(Happening(NOW, None, "error", "no"))

    assert shown(scene)[4:-2] == [
        "",
        "warning: a secret stands in the file",
        "client spotify: not asked for a while: 429",
        "  next try in 30 s",
        "main: the provider said something that is really long, the provider said",
        "    something that is really long, the provider said something that is really",
        "    long,",
        "  → log in",
    ]
    assert styles(scene)["→ log in"] == "bold"
    assert styles(scene)["no"] == "red"


def test_happenings_are_folded_below_their_words(scene_of, account_map):
    """And the oldest go, none by halves."""
    scene = scene_of(account_map())
    scene.tell(Happening(NOW, "main", "info", "long ago"))
    scene.tell(Happening(NOW, "main", "info", "a long story " * 8))
    scene.tell(Happening(NOW, "main", "info", "lately"))
    at = time.strftime("%H:%M:%S", time.localtime(NOW))

    assert shown(scene, height=8)[4:] == [
        "",
        f"{at}  main: a long story a long story a long story a long story a long story",
        "          a long story a long story a long story",
        f"{at}  main: lately",
    ]
    assert shown(scene, height=7)[4:] == ["", f"{at}  main: lately"]


def test_of_many_accounts_some_are_counted(scene_of, account_map):
    """What is in trouble is among those that are shown, with its cure."""
    accounts = [account_map(account=f"account-{number:03}") for number in range(141)]
    ill = account_map(account="zoe", health="failing", reason="refused", hint="spotokend login zoe")
    lines = shown(scene_of(*accounts, ill))

    assert lines[3].startswith("✗ zoe ")
    assert lines[13:] == ["  and 132 more", "", "zoe: refused", "  → spotokend login zoe"]
    assert shown(scene_of(*accounts), height=12)[-1] == "  and 138 more"


def test_without_accounts_the_first_step_is_told(scene_of):
    """No empty table."""
    assert shown(scene_of())[1:] == ["", "No account yet.", "  → spotokend login"]


def test_a_daemon_that_is_away(scene_of, account_map):
    """Since when; what was known last is shown, and paled."""
    scene = scene_of(account_map())
    scene.miss(NOW)
    at = time.strftime("%H:%M:%S", time.localtime(NOW))
    lines = shown(scene)

    assert lines[0] == f"spotokend 0.1.0 · ✗ doesn't answer since {at}; waiting for it"
    assert lines[3].startswith("✓ main")
    assert styles(scene)[lines[3].strip()] == "dim"


def test_one_account_has_its_story(scene_of, account_map):
    """Below its row, everything that is known."""
    outcome = {"at": NOW, "outcome": "renewed", "words": "generation 4"}
    lines = shown(scene_of(account_map(why="it is due then", outcomes=[outcome]), only="main"))

    assert lines[0].startswith("spotokend 0.1.0 · ✓ ok · 1 account · ")
    assert lines[3].startswith("✓ main")
    assert lines[4:6] == [
        "",
        f"  state         fresh, since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(1500))} (8 min)",
    ]
    assert "  because       it is due then" in lines
    assert lines[-1].endswith("  main: renewed: generation 4")
