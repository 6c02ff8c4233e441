"""The words: what is said of each state, what is told when it changes, and that no secret is in it."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
from account_states import (
    EVENTS,
    GENERATION,
    INCIDENT,
    MINE,
    NOW,
    PLANTED,
    POLICIES,
    REASON,
    REPETITION,
    ROTATED,
    STATES,
    WALL,
    access,
    attempt,
    grant,
    make,
)
from hypothesis import given
from hypothesis import strategies as st

from spotokend.errors import Locked, LoginRequired, Misconfigured, Unavailable
from spotokend.rules.account import (
    Answered,
    Blocked,
    ClientRefused,
    ClocksMoved,
    Elsewhere,
    EndpointBack,
    Failed,
    Fresh,
    GrantRefused,
    LoggedIn,
    LoggedOut,
    NeedsLogin,
    Policy,
    ProbeTaken,
    Quarantined,
    Reconfigured,
    Refreshing,
    RefreshStarted,
    Saved,
    SaveFailed,
    Sealed,
    TokenRejected,
    Unsaved,
    Unsealed,
    Waiting,
)
from spotokend.rules.gate import Gate
from spotokend.rules.lifecycle import advance
from spotokend.rules.notice import (
    NAMES,
    Change,
    Health,
    Level,
    Notice,
    ending,
    health,
    hint,
    in_words,
    login_command,
    notices,
    of_key,
    reason,
    refusal,
    why,
)
from spotokend.rules.schedule import NEVER, Boot, Timing, Wall

OK, DEGRADED, FAILING = Health
LOGIN = "spotokend login ada"
ROOM = "make room on the disk that holds the store, or make it writable"
OPEN = Gate()
CLOSED = Gate(failures=1, opens_at=Boot(NOW + 20.0), reason="503")
ASKED = Gate(asked_until=Boot(NOW + 600.0))
PASSED = Gate(asked_until=NOW)
PROBING = Gate(failures=1, opens_at=Boot(NOW - 1.0), reason="503", probe="other")
BLOCKED = Gate(blocked=True, reason="unknown client", hint="mend it")
GATES = [OPEN, CLOSED, ASKED, PROBING, BLOCKED]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5.0, "0 s"),
        (0.4, "0 s"),
        (40.0, "40 s"),
        (99.4, "99 s"),
        (99.5, "2 min"),
        (720.0, "12 min"),
        (5969.0, "99 min"),
        (5970.0, "2 h"),
        (13_749.0, "4 h"),
        (40.505 * 3600, "41 h"),
        (47 * 3600.0, "47 h"),
        (48 * 3600.0, "2 days"),
        (180 * 86_400.0, "180 days"),
    ],
)
def test_durations_are_said_in_the_unit_that_fits(seconds, words):
    """Nobody reads 13749 seconds."""
    assert in_words(seconds) == words


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_a_longer_duration_never_sounds_shorter(one, other):
    """Over all the borders between units, to half a unit."""
    sizes = {"s": 1, "min": 60, "h": 3600, "days": 86_400}
    said = [in_words(seconds).split() for seconds in sorted((one, other))]
    shorter, longer = (int(number) * sizes[unit] for number, unit in said)
    assert shorter <= longer * 1.4


def test_each_state_has_a_name():
    """That of the protocol; no two have the same."""
    assert NAMES.keys() == {type(state) for state in STATES.values()}
    assert len(set(NAMES.values())) == len(NAMES)


def test_what_to_type():
    """The command with the account in it."""
    assert login_command("ada") == LOGIN


LITTLE = access(left=500.0)
DEAD = access(left=-1.0)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (make(Sealed), OK),
        (make(NeedsLogin), FAILING),
        (make(Fresh), OK),
        (make(Fresh, due_at=NOW), OK),
        (make(Fresh, due_at=NOW, access=LITTLE), DEGRADED),
        (make(Fresh, due_at=NOW, access=DEAD), FAILING),
        (make(Fresh, due_at=NEVER, access=DEAD), OK),
        (make(Refreshing, access=DEAD), OK),
        (make(Refreshing, failures=3), OK),
        (make(Refreshing, failures=1, access=LITTLE), DEGRADED),
        (make(Refreshing, failures=1, access=DEAD), FAILING),
        (make(Refreshing, failures=1, access=None), FAILING),
        (make(Refreshing, quarantine=INCIDENT), FAILING),
        (make(Waiting, access=None), OK),
        (make(Waiting, failures=9), OK),
        (make(Waiting, failures=1, access=LITTLE), DEGRADED),
        (make(Waiting, failures=1, access=DEAD), FAILING),
        (make(Waiting, failures=1, access=None), FAILING),
        (make(Unsaved), OK),
        (make(Unsaved, failures=1), DEGRADED),
        (make(Unsaved, failures=1, access=LITTLE), DEGRADED),
        (make(Unsaved, failures=1, access=DEAD), FAILING),
        (make(Elsewhere, access=DEAD), OK),
        (make(Quarantined), FAILING),
        (make(Blocked), FAILING),
    ],
)
def test_the_health_of_each_state(state, expected):
    """Quiet while enough is left; failing when it can't serve or needs the user."""
    assert health(state, Policy(), NOW) is expected


@pytest.mark.parametrize(
    ("state", "expected", "cure"),
    [
        (make(Sealed), None, None),
        (make(NeedsLogin), REASON, LOGIN),
        (make(Fresh), None, None),
        (make(Refreshing), None, None),
        (make(Refreshing, failures=1), REASON, None),
        (make(Refreshing, quarantine=replace(INCIDENT, reason="refused")), "refused", LOGIN),
        (make(Waiting), None, None),
        (make(Waiting, failures=1), REASON, None),
        (make(Unsaved), None, None),
        (make(Unsaved, failures=1), f"the new token is not on disk yet: {REASON}", ROOM),
        (
            make(Unsaved, failures=1, spilled=True),
            f"the new token is not on disk yet: {REASON}; a sealed copy lies beside the socket",
            ROOM,
        ),
        (make(Elsewhere), None, None),
        (make(Quarantined), REASON, LOGIN),
        (make(Blocked), REASON, "mend it"),
    ],
)
def test_what_is_wrong_and_the_cure(state, expected, cure):
    """Of each state; None where nothing is, or where waiting mends it."""
    assert (reason(state), hint("ada", state)) == (expected, cure)


DOUBT = (
    "an answer was lost and the refresh token may be used up; next try in {}, "
    "when it does least harm"
)
TROUBLE = "the provider is not answering as it should ({}); next try in {}"
RELOAD = "the provider refuses this client; nothing is sent before a reload"


@pytest.mark.parametrize(
    ("state", "gate", "expected"),
    [
        (make(Sealed), OPEN, "stored; it is unsealed when somebody asks, or when it is due"),
        (make(NeedsLogin), OPEN, "there is nothing to refresh before a login"),
        (make(Refreshing), CLOSED, "a refresh is under way"),
        (make(Fresh), OPEN, "ahead of the token's end; due in 2 min"),
        (
            make(Fresh, due_at=NEVER),
            OPEN,
            "refreshed when somebody asks for it (schedule: on_demand)",
        ),
        (make(Fresh), BLOCKED, RELOAD),
        (make(Fresh, due_at=NOW), CLOSED, TROUBLE.format("503", "20 s")),
        (make(Fresh, due_at=NOW), PROBING, TROUBLE.format("503", "0 s")),
        (make(Fresh, due_at=NOW), ASKED, TROUBLE.format("it asked for a pause", "10 min")),
        (make(Fresh, due_at=NOW), PASSED, "ahead of the token's end; due in 0 s"),
        (make(Waiting, failures=1), OPEN, f"{REASON}; next try in 10 s"),
        (make(Waiting, reason=None), OPEN, "there is no token yet; next try in 10 s"),
        (make(Waiting, failures=1), CLOSED, TROUBLE.format("503", "20 s")),
        (make(Waiting, failures=1), BLOCKED, RELOAD),
        (make(Waiting, tries=1), OPEN, DOUBT.format("10 s")),
        (make(Waiting, tries=1), CLOSED, DOUBT.format("20 s")),
        (
            make(Unsaved),
            BLOCKED,
            "the answer is written again in 10 s; nothing is redeemed before",
        ),
        (make(Elsewhere), OPEN, "another host refreshes it; looked at again in 30 s"),
        (make(Elsewhere), BLOCKED, RELOAD),
        (
            make(Quarantined),
            BLOCKED,
            "the provider refused the login; it is not asked again before a new one",
        ),
        (INCIDENT, OPEN, "the refusal is doubtful; one more try in 30 min"),
        (REPETITION, OPEN, "the provider refused the login; it is asked once more in 30 min"),
        (INCIDENT, BLOCKED, RELOAD),
        (
            make(Blocked),
            OPEN,
            "nothing is sent before the configuration is mended and reloaded",
        ),
    ],
)
def test_why_the_next_refresh_is_when_it_is(state, gate, expected):
    """Of each state, before each kind of gate."""
    assert why(state, gate, NOW) == expected


def test_the_reason_is_always_a_duration_that_people_know():
    """Never an infinity, never a None."""
    for state, gate in product(STATES.values(), GATES):
        for words in (why(state, gate, NOW), refusal("ada", state, gate, NOW).message):
            assert "inf" not in words
            assert "nan" not in words
            assert "None" not in words


@pytest.mark.parametrize(
    ("state", "gate", "kind", "message", "cure", "retry_after"),
    [
        (make(NeedsLogin), OPEN, LoginRequired, REASON, LOGIN, None),
        (
            make(Quarantined),
            OPEN,
            LoginRequired,
            f"{REASON}; it is not tried again before a new login",
            LOGIN,
            None,
        ),
        (INCIDENT, OPEN, LoginRequired, f"{REASON}; tried once more in 30 min", LOGIN, 1800.0),
        (make(Blocked), OPEN, Misconfigured, REASON, "mend it", None),
        (make(Waiting), BLOCKED, Misconfigured, "unknown client", "mend it", None),
        (make(Waiting, failures=1), OPEN, Unavailable, f"{REASON}; next try in 10 s", ..., 10.0),
        (make(Waiting, failures=1), CLOSED, Unavailable, f"{REASON}; next try in 20 s", ..., 20.0),
        (
            make(Waiting, reason=None, retry_at=NOW),
            OPEN,
            Unavailable,
            "no token could be had yet; next try in 1 s",
            ...,
            1.0,
        ),
        (make(Fresh, access=DEAD), CLOSED, Unavailable, "503; next try in 20 s", ..., 20.0),
        (make(Fresh, access=DEAD), PROBING, Unavailable, "503; next try in 1 s", ..., 1.0),
        (
            make(Unsaved, failures=1, access=DEAD),
            OPEN,
            Unavailable,
            f"the new token is not on disk yet: {REASON}; next try in 10 s",
            ...,
            10.0,
        ),
        (
            make(Elsewhere, access=DEAD),
            OPEN,
            Unavailable,
            "no token could be had yet; next try in 30 s",
            ...,
            30.0,
        ),
    ],
)
def test_what_a_caller_is_told(state, gate, kind, message, cure, retry_after):
    """What happened, when it goes on, what the user can do; and never to ask again at once."""
    error = refusal("ada", state, gate, NOW)
    assert type(error) is kind
    assert error.message == f"ada: {message}"
    assert error.hint == ("spotokend status ada" if cure is ... else cure)
    assert error.retry_after == retry_after
    assert error.details["account"] == "ada"


# ------------------------------------------------------------------------------- what is told, once


class Account:
    """As the daemon keeps one: its state, and its health as it was last told."""

    def __init__(self, state, policy=POLICIES["never"]):
        self.state, self.policy, self.was = state, policy, health(state, policy, NOW)
        self.now = NOW

    def meets(self, *events, after=0.0):
        """What is told when these happen, each ``(kind, level)``."""
        told = []
        for event in events:
            self.now = Boot(self.now + after)
            before = self.state
            self.state = advance(before, event, now=self.now, wall=WALL, u=0.5, policy=self.policy)
            if self.state is before:
                continue
            change = Change("ada", self.was, before, self.state, self.policy, self.now, WALL)
            told += notices(change)
            passing = isinstance(self.state, Refreshing) or (
                isinstance(self.state, Unsaved) and not self.state.failures
            )
            if not passing:
                self.was = health(self.state, self.policy, self.now)
        return [(notice.kind, notice.level.value) for notice in told]


def renewal(id_="a", *, left=3600.0):
    """A refresh that works."""
    new = access(GENERATION + 1, left=left)
    return [RefreshStarted(attempt(id_)), Answered(id_, grant(), new), Saved(id_, 9)]


def a_failure(number):
    """A refresh that does not."""
    return [
        RefreshStarted(attempt(f"f{number}")),
        Failed(f"f{number}", "503", Boot(NOW)),
    ]


TOKEN = ("token", "debug")


def test_a_refresh_that_works_is_told_as_a_token():
    """Once, when it can be served; and nothing else of it is worth a word."""
    assert Account(make(Fresh)).meets(*renewal()) == [TOKEN]


def test_failures_are_quiet_while_the_token_lives_long_enough():
    """And the success after them is, too."""
    account = Account(make(Fresh))
    for number in range(5):
        assert account.meets(*a_failure(number)) == []
    assert account.meets(*renewal()) == [TOKEN]


def test_an_outage_is_told_once_and_its_end_once():
    """When it begins to matter: not at each try, and not when the token ends at last."""
    account = Account(make(Fresh, access=access(left=700.0)))
    told = [account.meets(*a_failure(number), after=30.0) for number in range(15)]
    assert [kinds for kinds in told if kinds] == [[("degraded", "warning")]]
    assert told.index([("degraded", "warning")]) == 1
    assert account.meets(*renewal(left=9000.0)) == [TOKEN, ("recovered", "info")]


def test_a_refused_login_is_told_once_with_the_command_and_when_it_is_tried_again():
    """Its probes are not told, whatever they meet; its end is."""
    account = Account(make(Refreshing))
    assert account.meets(GrantRefused(MINE, "revoked", incident=True)) == [
        ("login_required", "error"),
        ("incident", "warning"),
    ]
    for number in range(2):
        account.now = account.state.probe_at
        assert account.meets(*a_failure(number)) == []
        assert account.meets(RefreshStarted(attempt("p"))) == []
        assert account.meets(GrantRefused("p", "revoked", incident=False)) == []
    account.now = account.state.probe_at
    assert account.meets(*renewal(left=9e5)) == [TOKEN, ("recovered", "info")]


def test_the_notice_of_a_refused_login_says_what_and_when():
    """What happened, what comes next, the command."""
    change = Change("ada", OK, make(Refreshing), INCIDENT, Policy(), NOW, WALL)
    assert notices(change)[0] == Notice(
        "login_required",
        Level.ERROR,
        "ada",
        f"{REASON}; tried once more in 30 min",
        LOGIN,
        WALL,
    )


def test_a_refusal_that_turns_out_to_be_an_incident_is_told_as_one():
    """The login was told already."""
    account = Account(make(Refreshing, grant=ROTATED, quarantine=REPETITION))
    assert account.meets(GrantRefused(MINE, "revoked", incident=True)) == [("incident", "warning")]


def test_a_release_is_not_told_before_it_has_brought_a_token():
    """``recovered`` is what the user waits for."""
    account = Account(replace(INCIDENT, access=access(left=300.0)))
    assert account.meets(EndpointBack()) == []
    assert account.meets(*renewal()) == [TOKEN, ("recovered", "info")]


def test_a_refused_client_is_told_also_when_a_probe_met_it():
    """It is another trouble, with another cure."""
    for state in (make(Refreshing), make(Refreshing, quarantine=INCIDENT)):
        assert Account(state).meets(ClientRefused(MINE, "unknown client", "mend it")) == [
            ("blocked", "error")
        ]


def test_a_reload_that_mended_nothing_is_told_again():
    """It is a new answer to a new configuration."""
    account = Account(make(Blocked))
    assert account.meets(Reconfigured()) == []
    assert account.meets(
        RefreshStarted(attempt("a")), ClientRefused("a", "unknown client", "mend it")
    ) == [("blocked", "error")]


def test_login_and_logout_are_told_quietly():
    """They are the user's own acts."""
    account = Account(make(Fresh))
    assert account.meets(LoggedOut(9, "logged out")) == [("login_required", "info")]
    assert account.meets(LoggedOut(10, "logged out")) == []
    new = access(GENERATION + 1, left=3600.0)
    assert account.meets(LoggedIn(grant(), new, 11)) == [TOKEN]


@pytest.mark.parametrize("was", ["well", "in an outage"])
def test_a_token_that_is_not_on_disk_is_told_once(was):
    """Not at each write that is refused, and not because somebody reports it; then its end."""
    failures = 0 if was == "well" else 3
    state = make(Refreshing, failures=failures, access=access(left=300.0))
    account = Account(state)
    assert account.meets(Answered(MINE, grant(), access(6, left=3600.0))) == []
    full = SaveFailed(MINE, "the disk is full")
    assert account.meets(full) == [("not_durable", "error"), TOKEN]
    assert account.meets(full, full) == []
    assert account.meets(Saved(MINE, 9)) == [("recovered", "info")]


def test_a_new_token_is_told_when_it_is_served():
    """And not while it is being written: whoever asked then would get the one before."""
    account = Account(make(Refreshing))
    assert account.meets(Answered(MINE, grant(), access(6, left=3600.0))) == []
    assert account.meets(Saved(MINE, 9)) == [TOKEN]


def test_what_still_lies_beside_the_socket_is_told_at_a_start():
    """The disk has taken nothing since; the log of this start must say so, too."""
    taken_up = make(Unsaved, failures=1, spilled=True, generation=GENERATION + 1)
    account = Account(make(Sealed))
    assert account.meets(Unsealed(taken_up)) == [("not_durable", "error")]
    assert account.meets(SaveFailed(MINE, "the disk is full")) == []
    assert account.meets(Saved(MINE, 9)) == [("recovered", "info")]


DAYS = 86_400.0
LIFE = Policy().grant_life


def ends_in(days, **fields):
    """A grant with that much left."""
    return grant(authorized_at=Wall(WALL + days * DAYS - LIFE), **fields)


@pytest.mark.parametrize(
    ("days", "words"),
    [
        (31, None),
        (30, "the login ends in 30 days"),
        (6.1, "the login ends in 6 days"),
        (0.75, "the login ends in 18 h"),
        (0, "the login has reached its end; it is tried, and will be refused before long"),
        (-9, "the login has reached its end; it is tried, and will be refused before long"),
    ],
)
def test_a_login_that_ends_is_said_in_words(days, words):
    """From the first stage on, in whatever state the account is."""
    for kind in (Fresh, Waiting, Unsaved):
        assert ending(make(kind, grant=ends_in(days)), Policy(), WALL) == words


@pytest.mark.parametrize(
    ("state", "life"),
    [
        (make(Fresh, grant=None), LIFE),
        (make(Fresh, grant=grant(authorized_at=None)), LIFE),
        (make(Fresh, grant=ends_in(1)), math.inf),
        (make(Sealed), LIFE),
    ],
    ids=["client credentials", "unknown", "never", "sealed"],
)
def test_of_an_end_that_nobody_knows_nothing_is_said(state, life):
    """No guess."""
    assert ending(state, Policy(grant_life=life), WALL) is None


def renewed(before, after):
    """What the answer to a refresh tells of the login's end."""
    account = Account(make(Refreshing, grant=before), Policy())
    change = Change(
        "ada",
        OK,
        account.state,
        account.state,
        account.policy,
        NOW,
        WALL,
    )
    event = Answered(MINE, after, access(GENERATION + 1, left=3600.0))
    state = advance(account.state, event, now=NOW, wall=WALL, u=0.5, policy=account.policy)
    told = notices(replace(change, after=state))
    return [notice for notice in told if notice.kind == "grant_expiring"]


@pytest.mark.parametrize(
    ("stage", "level"),
    [
        (30, Level.INFO),
        (14, Level.INFO),
        (7, Level.WARNING),
        (3, Level.WARNING),
        (1, Level.WARNING),
    ],
)
def test_each_stage_of_a_logins_end_is_told_once(stage, level):
    """With the answer of the refresh in which it is reached; not with the next one."""
    login = ends_in(stage - 0.1)
    (notice,) = renewed(login, replace(login, stage=stage))
    assert (notice.level, notice.account, notice.hint) == (level, "ada", LOGIN)
    assert notice.message == ending(make(Fresh, grant=login), Policy(), WALL)
    assert renewed(replace(login, stage=stage), replace(login, stage=stage)) == []


def test_of_stages_that_were_passed_over_only_the_last_is_told():
    """The program was off; and a clock that goes back tells nothing at all."""
    login = ends_in(2)
    assert len(renewed(replace(login, stage=30), replace(login, stage=3))) == 1
    assert renewed(replace(login, stage=3), replace(login, stage=30)) == []
    assert renewed(replace(login, stage=3), replace(login, stage=None)) == []
    assert renewed(None, None) == []


def test_only_an_answer_tells_of_the_end():
    """Unsealing, locking, a failure: nobody hears of it again."""
    login = ends_in(2, stage=3)
    for before, event in (
        (make(Sealed), Unsealed(make(Fresh, grant=login))),
        (make(Refreshing, grant=login), Failed(MINE, "503", NOW)),
        (make(Unsaved, grant=login), SaveFailed(MINE, "full")),
        (make(Unsaved, grant=login), Saved(MINE, 9)),
    ):
        assert "grant_expiring" not in [kind for kind, _ in Account(before).meets(event)]


def test_a_report_tells_nothing_new_of_the_disk():
    """The token is another matter."""
    account = Account(make(Unsaved, failures=1))
    assert account.meets(TokenRejected(GENERATION)) == []


def test_what_is_unsealed_is_no_news_but_a_refusal_is():
    """A start does not tell of each stored token; it does of what needs the user."""
    account = Account(make(Sealed, generation=0))
    account.was = FAILING
    assert account.meets(Unsealed(make(Fresh))) == []
    assert Account(make(Sealed)).meets(Unsealed(make(Quarantined))) == [("login_required", "error")]


def test_a_first_token_that_can_not_be_had_is_told_at_once():
    """There is nothing to serve meanwhile."""
    account = Account(make(Waiting, grant=None, access=None, retry_at=NOW))
    assert account.meets(*a_failure(1)) == [("degraded", "warning")]


def test_a_notice_on_the_wire():
    """Plain values under the names of the protocol."""
    notice = Notice("blocked", Level.ERROR, "ada", "unknown client", "mend it", WALL)
    assert notice.to_wire() == {
        "kind": "blocked",
        "level": "error",
        "account": "ada",
        "message": "unknown client",
        "hint": "mend it",
        "at": WALL,
    }


def test_no_word_holds_a_secret():
    """Of any state, before any gate, after any event."""
    for state, gate in product(STATES.values(), GATES):
        error = refusal("ada", state, gate, NOW)
        words = [reason(state), hint("ada", state), why(state, gate, NOW), error.to_wire()]
        assert PLANTED not in str(words)
    for state, event, policy in product(STATES.values(), EVENTS, POLICIES.values()):
        after = advance(state, event, now=NOW, wall=WALL, u=0.5, policy=policy)
        for was in Health:
            change = Change("ada", was, state, after, policy, NOW, WALL)
            assert PLANTED not in str([notice.to_wire() for notice in notices(change)])
            assert PLANTED not in repr(change)


def test_a_locked_store_is_a_warning_with_the_cure_and_its_end_is_told():
    """To everybody: it concerns no single account."""
    locked = of_key(Locked("the keyring is locked", hint="open it"), Wall(1.0))

    assert locked == Notice(
        "locked", Level.WARNING, None, "the keyring is locked", "open it", Wall(1.0)
    )
    assert of_key(None, Wall(2.0)).kind == "unlocked"


def test_how_little_is_left_of_a_token_is_measured_by_the_configuration():
    """Its own margin, where it has another than the usual one."""
    patient = Policy(timing=Timing(quiet_margin=100.0))
    state = make(Waiting, failures=1, access=LITTLE)
    assert (health(state, Policy(), NOW), health(state, patient, NOW)) == (DEGRADED, OK)


@pytest.mark.parametrize(
    ("was", "before", "after", "expected"),
    [
        (
            OK,
            make(Refreshing),
            INCIDENT,
            (
                "incident",
                "the provider refuses logins that should be good; they are kept and tried again",
                None,
            ),
        ),
        (
            OK,
            make(Unsaved, access=None),
            make(Unsaved, access=None, failures=1),
            ("not_durable", f"the new token is not on disk yet: {REASON}", ROOM),
        ),
        (
            OK,
            make(Refreshing),
            make(Waiting, failures=1, access=None),
            ("degraded", REASON, "spotokend status ada"),
        ),
        (
            OK,
            make(Refreshing),
            make(Waiting, failures=1, access=None, reason=None),
            ("degraded", "no token", "spotokend status ada"),
        ),
        (
            FAILING,
            make(Unsaved),
            make(Fresh),
            ("recovered", "the token is fresh again", None),
        ),
        (
            OK,
            make(Unsaved, generation=GENERATION + 1),
            make(Fresh, generation=GENERATION + 1),
            ("token", "a new token, good for 15 min", None),
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_each_notice_says(was, before, after, expected):
    """Its words and its cure."""
    told = notices(Change("ada", was, before, after, Policy(), NOW, WALL))
    assert (told[-1].kind, told[-1].message, told[-1].hint) == expected


def test_an_incident_is_told_once_however_often_its_probe_is_put_off():
    """The clocks moved, or another account has probed in its place."""
    due = replace(INCIDENT, probe_at=NOW)
    assert Account(due).meets(ClocksMoved(), ProbeTaken()) == []
