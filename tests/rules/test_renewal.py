"""What of an answer replaces what: nothing is lost that the answer does not mention."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from account_states import NOW, ROTATED, WALL, grant
from hypothesis import given
from hypothesis import strategies as st

from spotokend.rules import renewal
from spotokend.rules.account import Access, Grant
from spotokend.rules.oauth import Issued
from spotokend.rules.schedule import DAY, Boot, Wall
from spotokend.rules.secret import Secret

TOKENS = st.none() | st.sampled_from(["planted-refresh-1", "planted-refresh-2", "new"]).map(Secret)
SCOPES = st.none() | st.just(("streaming", "user-read-email"))


def issued(**fields) -> Issued:
    """An answer of an hour."""
    given_ = {"access_token": Secret("access-1"), "scopes": None, "refresh_token": None}
    return Issued(token_type="Bearer", life=3600.0, **(given_ | fields))


@pytest.mark.parametrize("token", [None, grant().refresh_token], ids=["absent", "the same"])
def test_an_answer_without_a_new_refresh_token_keeps_the_old_one(token):
    """It has worked now, so the one before it is of no more use."""
    after = renewal.renewed(ROTATED, issued(refresh_token=token and ROTATED.refresh_token))
    assert (after.refresh_token, after.previous) == (ROTATED.refresh_token, None)
    assert after.rotation_seen is True


def test_a_new_refresh_token_is_taken_and_the_one_that_worked_is_kept():
    """Until the successor has worked; and that this server rotates is remembered."""
    after = renewal.renewed(grant(1), issued(refresh_token=Secret("new")))
    assert (after.refresh_token, after.previous) == (Secret("new"), grant(1).refresh_token)
    assert after.rotation_seen is True


def test_a_second_rotation_lets_go_of_the_first():
    """The one that has just worked is the one to fall back to."""
    after = renewal.renewed(ROTATED, issued(refresh_token=Secret("new")))
    assert (after.refresh_token, after.previous) == (Secret("new"), ROTATED.refresh_token)


def test_no_rotation_no_claim_that_there_are_some():
    """``auto`` stays as it was."""
    assert renewal.renewed(grant(), issued()).rotation_seen is False


@given(st.sampled_from([grant(), ROTATED]), TOKENS, SCOPES)
def test_whatever_the_answer_the_grant_stays_usable(before, token, scopes):
    """The token that has just worked is in the grant, in front or behind; who it is, is kept."""
    after = renewal.renewed(before, issued(refresh_token=token, scopes=scopes))
    assert after.refresh_token == (token or before.refresh_token)
    assert before.refresh_token in {after.refresh_token, after.previous}
    assert after.scopes == (before.scopes if scopes is None else scopes)
    assert (after.user, after.authorized_at) == (before.user, before.authorized_at)
    assert after.rotation_seen >= before.rotation_seen


def test_the_grant_of_a_login_has_what_was_granted():
    """The scopes of the answer, where it names them, and the moment of the consent."""
    answer = issued(refresh_token=Secret("new"), scopes=("streaming",))
    found = renewal.first(answer, asked=("streaming", "user-read-email"), authorized_at=WALL)
    assert found == Grant(refresh_token=Secret("new"), scopes=("streaming",), authorized_at=WALL)


def test_without_scopes_in_the_answer_those_asked_for_were_granted():
    """RFC 6749, section 5.1."""
    found = renewal.first(issued(refresh_token=Secret("new")), asked=("a", "b"), authorized_at=WALL)
    assert found is not None
    assert found.scopes == ("a", "b")


def test_without_a_refresh_token_there_is_no_grant():
    """Some servers want a scope for it; that is said elsewhere."""
    assert renewal.first(issued(), asked=(), authorized_at=WALL) is None


@pytest.mark.parametrize(
    ("in_answer", "scopes"), [(None, ("streaming",)), (("user-read-email",), ("user-read-email",))]
)
def test_the_life_of_an_access_token_counts_from_the_sending(in_answer, scopes):
    """However long the answer took."""
    found = renewal.access(
        issued(scopes=in_answer), scopes=("streaming",), sent_at=NOW, generation=7
    )
    assert found == Access(
        token=Secret("access-1"),
        token_type="Bearer",
        scopes=scopes,
        issued_at=NOW,
        expires_at=Boot(NOW + 3600.0),
        generation=7,
    )


def test_without_an_access_token_there_is_none():
    """The refresh token that came alone is kept all the same."""
    answer = issued(access_token=None, refresh_token=Secret("new"))
    assert renewal.access(answer, scopes=(), sent_at=NOW, generation=7) is None
    assert renewal.renewed(grant(), answer).refresh_token == Secret("new")


@pytest.mark.parametrize(
    ("left", "stage"),
    [(31, None), (30, 30), (20, 30), (14, 14), (7.5, 14), (7, 7), (3, 3), (1, 1), (0, 1), (-9, 1)],
)
def test_a_renewed_grant_knows_how_near_its_end_is(left, stage):
    """In days; also when it went further away, because a clock or a configuration was wrong."""
    life = 180 * DAY
    login = grant(stage=3, authorized_at=Wall(WALL + left * DAY - life))
    assert renewal.staged(login, now=WALL, grant_life=life) == replace(login, stage=stage)


@pytest.mark.parametrize(
    ("authorized_at", "life"), [(None, 180 * DAY), (Wall(0.0), math.inf)], ids=["unknown", "none"]
)
def test_an_end_that_nobody_knows_is_never_near(authorized_at, life):
    """An imported grant, or a server whose grants don't end."""
    login = grant(stage=3, authorized_at=authorized_at)
    assert renewal.staged(login, now=WALL, grant_life=life).stage is None


def test_the_kind_of_a_token_is_the_answers():
    """It goes into a header in front of the token."""
    answer = replace(issued(), token_type="DPoP")
    kept = renewal.access(answer, scopes=(), sent_at=NOW, generation=1)
    assert kept is not None
    assert kept.token_type == "DPoP"
