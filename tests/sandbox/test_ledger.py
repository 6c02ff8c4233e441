"""Grants and tokens over time; the rotation of refresh tokens beside a plain model."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from spotokend.sandbox import ledger as ledger_module
from spotokend.sandbox.ledger import Ledger, Refused
from spotokend.sandbox.options import Options, RefreshScope, Rotation

CLIENT = "sandbox-secret-client"
REDIRECT = "https://app.example.test/callback"


class Place:
    """A ledger, its clock and one confidential client."""

    def __init__(self, **options):
        self.time = 0.0
        self.ledger = Ledger(Options(**options), now=lambda: self.time, random_text=lambda: "r")

    def login(self, user="alice", scopes=("streaming",)):
        code = self.ledger.consent(
            client_id=CLIENT, user=user, scopes=scopes, redirect_uri=REDIRECT, challenge=None
        )
        return self.ledger.exchange(
            code, client_id=CLIENT, redirect_uri=REDIRECT, verifier=None, authenticated=True
        )

    def refresh(self, token):
        return self.ledger.refresh(token, client_id=CLIENT, authenticated=True)

    def refused(self, token):
        with pytest.raises(Refused) as caught:
            self.refresh(token)
        assert caught.value.error == "invalid_grant"
        return caught.value.description


def test_a_grant_dies_six_months_after_the_consent():
    """Refreshing does not extend it, and its last access token lives out its hour."""
    place = Place(rotation=Rotation.ALWAYS)
    issued = place.login()
    place.time = 180 * 86400.0 - 1
    issued = place.refresh(issued.refresh_token)
    place.time += 1
    assert place.refused(issued.refresh_token) == "Refresh token expired"
    assert place.ledger.access(issued.access_token).expires_at > place.time


def test_advancing_ages_everything():
    """As if the time had passed."""
    place = Place()
    issued = place.login()
    place.ledger.advance(180 * 86400.0)
    assert place.ledger.now == 180 * 86400.0
    assert place.refused(issued.refresh_token) == "Refresh token expired"


def test_a_second_use_ends_the_family():
    """The used one, its successor, and every access token."""
    place = Place(rotation=Rotation.ALWAYS)
    first = place.login()
    second = place.refresh(first.refresh_token)
    assert place.refused(first.refresh_token) == "Refresh token revoked"
    assert place.refused(second.refresh_token) == "Refresh token revoked"
    assert place.ledger.access(first.access_token) is None
    assert place.ledger.access(second.access_token) is None
    assert place.ledger.double_redemptions == 1


def test_a_second_use_may_leave_the_family_alone():
    """Spotify's own PKCE rotation: the used one is dead, its successor lives."""
    place = Place(rotation=Rotation.ALWAYS, revoke_family=False)
    first = place.login()
    second = place.refresh(first.refresh_token)
    assert place.refused(first.refresh_token) == "Refresh token revoked"
    assert place.refresh(second.refresh_token).replaced


def test_within_the_grace_a_used_token_gets_the_newest_one():
    """However many rotations ago it was used; after it the family ends."""
    place = Place(rotation=Rotation.ALWAYS, grace=10)
    first = place.login()
    second = place.refresh(first.refresh_token)
    third = place.refresh(second.refresh_token)
    place.time = 9.9
    again = place.refresh(first.refresh_token)
    assert (again.refresh_token, again.replaced) == (third.refresh_token, True)
    assert (place.ledger.double_redemptions, place.ledger.saved_by_grace) == (1, 1)
    place.time = 10
    assert place.refused(first.refresh_token) == "Refresh token revoked"
    assert (place.ledger.double_redemptions, place.ledger.saved_by_grace) == (2, 1)


def test_no_grace_after_a_revocation():
    """A grant that its user ended stays ended."""
    place = Place(rotation=Rotation.ALWAYS, grace=10)
    first = place.login()
    place.refresh(first.refresh_token)
    (grant,) = place.ledger.select(user="alice")
    place.ledger.revoke(grant, "changed password")
    assert place.refused(first.refresh_token) == "Refresh token revoked"
    assert place.ledger.saved_by_grace == 0
    assert grant.revoked == "changed password"


def test_optional_rotation_replaces_at_every_second_refresh():
    """So a client meets both within one grant."""
    place = Place(rotation=Rotation.OPTIONAL)
    issued = place.login()
    seen = []
    for _ in range(4):
        issued = place.refresh(issued.refresh_token)
        seen.append(issued.replaced)
    assert seen == [False, True, False, True]


def test_grants_live_side_by_side():
    """Two authorizations of one user are two families (spotify/web-api#911)."""
    place = Place(rotation=Rotation.ALWAYS)
    one, two = place.login(), place.login()
    place.refresh(one.refresh_token)
    place.refused(one.refresh_token)
    assert place.refresh(two.refresh_token).replaced


def test_revoked_grants_count_no_longer_as_granted():
    """What the user took back is not in a wider scope."""
    place = Place(refresh_scope=RefreshScope.ALL)
    place.login(scopes=("streaming",))
    later = place.login(scopes=("user-top-read",))
    assert place.refresh(later.refresh_token).scopes == ("streaming", "user-top-read")
    first = next(place.ledger.select(grant="grant-2"))
    place.ledger.revoke(first, "taken back")
    assert place.refresh(later.refresh_token).scopes == ("user-top-read",)


def test_access_tokens_can_be_ended_alone():
    """Early 401s, while the grant goes on."""
    place = Place()
    issued, other = place.login(), place.login("bob")
    (grant,) = place.ledger.select(client=CLIENT, user="alice")
    place.ledger.revoke_access_tokens(grant)
    assert place.ledger.access(issued.access_token) is None
    assert place.ledger.access(other.access_token) is not None
    assert place.ledger.access(place.refresh(issued.refresh_token).access_token) is not None
    assert place.ledger.living_access_tokens() == {"grant-2": 1, "grant-6": 1}


def test_owners_are_known_for_every_kind_of_token():
    """Faults are aimed, and the log is written, by who stands behind a token."""
    place = Place()
    code = place.ledger.consent(
        client_id=CLIENT, user="bob", scopes=(), redirect_uri=REDIRECT, challenge=None
    )
    issued = place.login()
    machine = place.ledger.client_credentials(CLIENT)
    assert place.ledger.owner(code) == (CLIENT, "bob")
    assert place.ledger.owner(issued.refresh_token) == (CLIENT, "alice")
    assert place.ledger.owner(issued.access_token) == (CLIENT, "alice")
    assert place.ledger.owner(machine.access_token) == (CLIENT, None)
    assert place.ledger.owner("unknown") is None


def test_what_is_long_over_is_forgotten():
    """An expired token is told as such for an hour, then it is as good as unknown."""
    place = Place(access_life=10)
    issued = place.login()
    place.time = 10 + 3600 + 600
    assert place.ledger.access(issued.access_token) is not None
    for _ in range(3):
        place.refresh(issued.refresh_token)
    assert place.ledger.access(issued.access_token) is None
    assert not place.ledger._codes
    assert len(place.ledger._access_tokens) == 3


def test_replaced_tokens_are_remembered_within_bounds(monkeypatch):
    """The oldest of too many are merely invalid, without harm to the family."""
    monkeypatch.setattr(ledger_module, "REPLACED_REMEMBERED", 2)
    place = Place(rotation=Rotation.ALWAYS)
    first = issued = place.login()
    for _ in range(3):
        issued = place.refresh(issued.refresh_token)
    assert place.refused(first.refresh_token) == "Invalid refresh token"
    assert place.refresh(issued.refresh_token).replaced


def test_texts_look_like_what_they_are():
    """Nobody takes them for real ones."""
    issued = Place().login()
    assert issued.access_token == "sandbox-access-000004-r"
    assert issued.refresh_token == "sandbox-refresh-000003-r"
    assert "sandbox-access" not in repr(issued)


class Rotations(RuleBasedStateMachine):
    """Any order of logins, refreshes with any token, time and revocations, beside a plain model."""

    tokens = Bundle("tokens")

    def __init__(self):
        super().__init__()
        self.place = Place()
        self.current = {}  # grant id → its good refresh token
        self.used_at = {}  # replaced refresh token → when
        self.family = {}  # refresh token → grant id
        self.authorized = {}
        self.dead = set()
        self.redeemed_twice = 0

    @rule(
        rotation=st.sampled_from(Rotation),
        grace=st.sampled_from([0.0, 10.0]),
        revoke_family=st.booleans(),
    )
    def change(self, rotation, grace, revoke_family):
        ledger = self.place.ledger
        ledger.options = ledger.options.changed(
            {
                "rotation": rotation,
                "grace": grace,
                "revoke_family": revoke_family,
                "grant_life": 500,
                "access_life": 100,
            }
        )

    @rule(target=tokens, user=st.sampled_from(["alice", "bob"]))
    def login(self, user):
        token = self.place.login(user).refresh_token
        grant = list(self.place.ledger.grants)[-1]
        self.current[grant] = token
        self.family[token] = grant
        self.authorized[grant] = self.place.time
        return token

    @rule(seconds=st.sampled_from([1.0, 9.0, 10.0, 100.0]))
    def pass_time(self, seconds):
        self.place.time += seconds

    @precondition(lambda self: self.current)
    @rule(data=st.data())
    def revoke(self, data):
        grant = data.draw(st.sampled_from(sorted(self.current)))
        self.place.ledger.revoke(self.place.ledger.grants[grant], "by the user")
        self.dead.add(grant)

    @rule(target=tokens, token=tokens)
    def refresh(self, token):
        options, now, grant = self.place.ledger.options, self.place.time, self.family[token]
        used_at = self.used_at.get(token)
        in_grace = used_at is not None and now < used_at + options.grace
        ended = now >= self.authorized[grant] + options.grant_life
        self.redeemed_twice += used_at is not None
        good = grant not in self.dead and not ended and (used_at is None or in_grace)
        try:
            issued = self.place.refresh(token)
        except Refused as refused:
            assert not good
            assert refused.error == "invalid_grant"
            if used_at is not None and not in_grace and options.revoke_family:
                self.dead.add(grant)
            return token
        assert good
        assert self.place.ledger.access(issued.access_token) is not None
        if used_at is not None:
            assert issued.refresh_token == self.current[grant]
        elif issued.replaced:
            assert options.rotation is not Rotation.NEVER
            assert issued.refresh_token not in self.family
            self.used_at[token] = now
            self.current[grant] = issued.refresh_token
            self.family[issued.refresh_token] = grant
        else:
            assert options.rotation is not Rotation.ALWAYS
            assert issued.refresh_token == token
        return issued.refresh_token

    @invariant()
    def one_current_token_a_grant(self):
        ledger = self.place.ledger
        assert {grant.id: grant.current for grant in ledger.grants.values()} == self.current

    @invariant()
    def nothing_lives_in_a_dead_family(self):
        ledger = self.place.ledger
        assert {grant.id for grant in ledger.grants.values() if grant.revoked} == self.dead
        assert not set(ledger.living_access_tokens()) & self.dead

    @invariant()
    def every_second_use_is_counted(self):
        assert self.place.ledger.double_redemptions == self.redeemed_twice


TestRotations = Rotations.TestCase
TestRotations.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
