"""Accounts' states as rows of the store, and back.

The only place where grants and access tokens become bytes. Everything secret is in the envelope,
sealed and bound to account, fingerprint and version, so that no row can stand in for another. What
else is worth keeping is in clear columns and ``facts``: enough to schedule without the key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack

from spotokend.adapters.store.base import Intent, Row
from spotokend.rules import schedule
from spotokend.rules.account import (
    Access,
    Attempt,
    Blocked,
    Fresh,
    Grant,
    Holding,
    Policy,
    Quarantined,
    Rotation,
    Sealed,
    State,
    Waiting,
)
from spotokend.rules.doubt import probe_after_refusal, retry_after_doubt
from spotokend.rules.gate import LONG_AGO
from spotokend.rules.schedule import NEVER, Boot, Wall
from spotokend.rules.sealing import SealingError, SealingKey, open_envelope, seal
from spotokend.rules.secret import Secret
from spotokend.rules.transitions import due_at


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose row it is."""

    account: str
    client: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Clock:
    """The host's clocks, the dice, and the name of this boot."""

    boot: Callable[[], Boot]
    wall: Callable[[], Wall]
    rand: Callable[[], float]
    boot_id: str


class Rows:
    """See the module."""

    def __init__(
        self, key: SealingKey, clock: Clock, *, random_bytes: Callable[[int], bytes]
    ) -> None:
        self.key = key
        self._clock = clock
        self._random_bytes = random_bytes

    def sealed(self, row: Row, policy: Policy) -> Sealed:
        """The state of a row that is not unsealed yet, from its clear columns.

        What is overdue is spread, so that a start does not ask for everything at once; but an
        attempt cut off by the end of the program waits for nobody: its grace runs.
        """
        now, due = self._clock.boot(), self._due(row)
        # Neither has a moment in the store: a start is a new chance, or a new configuration.
        undecided = row.state == "blocked" or (row.state == "fresh" and policy.proactive)
        if row.intent is not None:
            due = now  # unsealing it decides when, by what is known of the server
        elif due <= now or (due == NEVER and undecided):
            due = Boot(now + schedule.spread(self._clock.rand(), policy.timing.start_spread))
        expires = None
        if row.expires_at is not None:
            expires = self._moment(row.expires_at, row.expires_boot, row)
        return Sealed(
            version=row.version, generation=row.generation, due_at=due, expires_at=expires
        )

    def to_row(self, owner: Owner, state: State, version: int) -> Row:
        """The row of ``state``, sealed for that version."""
        now, wall = self._clock.boot(), self._clock.wall()
        due = due_at(state)
        access = state.access if isinstance(state, Holding) else None
        sealed = None
        if isinstance(state, Holding) and (state.grant or access):
            sealed = seal(
                self.key,
                _pack_secrets(state.grant, access),
                account=owner.account,
                fingerprint=owner.fingerprint,
                version=version,
                nonce=self._random_bytes(12),
            )
        return Row(
            account=owner.account,
            client=owner.client,
            fingerprint=owner.fingerprint,
            version=version,
            generation=state.generation,
            state=_STORED_AS.get(type(state), "fresh"),
            due_at=None if due == NEVER else wall + (due - now),
            expires_at=None if access is None else wall + (access.expires_at - now),
            issued_at=None if access is None else wall + (access.issued_at - now),
            boot_id=self._clock.boot_id,
            due_boot=None if due == NEVER else due,
            expires_boot=None if access is None else access.expires_at,
            facts=msgpack.packb(_facts(state)),
            key_id=self.key.key_id,
            sealed=sealed,
        )

    def to_state(self, row: Row, policy: Policy) -> State:
        """What a row says, unsealed.

        A row whose envelope can't be opened is :class:`Blocked`, and stays in the store.
        """
        facts = _read_facts(row.facts)
        try:
            grant, access = self._unsealed(row)
        except SealingError as error:
            return Blocked(
                version=row.version,
                generation=row.generation,
                grant=None,
                access=None,
                reason=f"the stored login can't be unsealed: {error}",
                hint=f"spotokend login {row.account}",
                since=self._clock.wall(),
            )
        now = self._clock.boot()
        due = self._due(row)
        if row.state == "quarantined":
            return self._quarantined(row, facts, grant, access, policy)
        if row.intent is not None and grant is not None:
            return self._cut_off(row, row.intent, grant, access, policy)
        if row.state == "fresh" and access is not None:
            if due == NEVER and policy.proactive:  # it was on_demand when this was written
                u = self._clock.rand()
                due = Boot(access.issued_at + schedule.due_after(access.life, u, policy.timing))
            return Fresh(
                version=row.version,
                generation=row.generation,
                grant=grant,
                access=access,
                due_at=due,
            )
        # What was waiting goes on waiting as long as it would have. What was blocked is tried
        # once: a restart comes with the configuration read anew.
        return Waiting(
            version=row.version,
            generation=row.generation,
            grant=grant,
            access=access,
            retry_at=now if due == NEVER else due,
            failures=facts.get("failures", 0),
            reason=facts.get("reason"),
            since=facts.get("since"),
        )

    def _quarantined(
        self,
        row: Row,
        facts: dict[str, Any],
        grant: Grant | None,
        access: Access | None,
        policy: Policy,
    ) -> Quarantined:
        now, due = self._clock.boot(), self._due(row)
        incident, probes = facts.get("incident", False), facts.get("probes", 0)
        probe_at = None if due == NEVER else due
        if row.intent is not None:
            # A probe cut off by the end of the program is spent: no crash loop may repeat it.
            probes += incident
            probe_at = probe_after_refusal(policy, grant, incident=incident, probes=probes, now=now)
        return Quarantined(
            version=row.version,
            generation=row.generation,
            grant=grant,
            access=access,
            reason=facts.get("reason", "the provider refused the login"),
            since=facts.get("since", self._clock.wall()),
            incident=incident,
            probe_at=probe_at,
            probes=probes,
            tries=facts.get("tries", 0),
        )

    def _cut_off(
        self, row: Row, intent: Intent, grant: Grant, access: Access | None, policy: Policy
    ) -> Waiting:
        """An attempt that was begun and whose outcome was never written: in doubt."""
        now, wall = self._clock.boot(), self._clock.wall()
        # Of a moment that is still to come nobody can say how long ago it was: then no grace.
        age = wall - intent.started_at
        sent_at = Boot(now - age) if age >= 0 else LONG_AGO
        earliest = now
        if intent.not_before is not None:
            # Civil time may have been wrong, now or then. No doubt lasts longer than this.
            latest = now + schedule.DAY if access is None else access.expires_at
            earliest = Boot(min(now + (intent.not_before - wall), max(latest, now + schedule.DAY)))
        retry_at = retry_after_doubt(
            policy,
            grant,
            access,
            tries=intent.tries,
            sent_at=sent_at,
            now=now,
            opens_at=earliest,
            u=self._clock.rand(),
        )
        grace_until = Boot(sent_at + policy.rotation_grace)
        in_grace = policy.rotation is Rotation.GRACE and intent.tries == 1 and now < grace_until
        return Waiting(
            version=row.version,
            generation=row.generation,
            grant=grant,
            access=access,
            # A crash loop backs off too: each round raised ``tries``.
            retry_at=now if in_grace else Boot(max(retry_at, earliest)),
            tries=intent.tries,
            failures=intent.tries,
            reason="the program ended while a refresh was under way",
            since=Wall(intent.started_at),
            grace_until=grace_until if in_grace else None,
        )

    def _unsealed(self, row: Row) -> tuple[Grant | None, Access | None]:
        if row.sealed is None:
            return None, None
        plaintext = open_envelope(
            self.key,
            row.sealed,
            account=row.account,
            fingerprint=row.fingerprint,
            version=row.version,
        )
        secrets: dict[str, dict[str, Any]] = msgpack.unpackb(plaintext)
        return _unpack_grant(secrets.get("grant")), self._access(row, secrets.get("access"))

    def _access(self, row: Row, fields: dict[str, Any] | None) -> Access | None:
        if fields is None or row.expires_at is None or row.issued_at is None:
            return None
        now = self._clock.boot()
        life = row.expires_at - row.issued_at
        if row.boot_id == self._clock.boot_id and row.expires_boot is not None:
            expires = Boot(row.expires_boot)
        else:
            age = self._clock.wall() - row.issued_at
            if age < 0:
                return None  # the clock is before the issue: it can't tell when the token ends
            expires = Boot(now + life - age)
        return Access(
            token=Secret(fields["token"]),
            token_type=fields["token_type"],
            scopes=tuple(fields["scopes"]),
            issued_at=Boot(expires - life),
            expires_at=expires,
            generation=fields["generation"],
        )

    def _due(self, row: Row) -> Boot:
        """When the row's next step is due.

        After another boot only civil time can tell, and a host without a clock of its own starts
        in the past: what it would put off until its clock is right again is due now.
        """
        now, wall = self._clock.boot(), self._clock.wall()
        if row.due_at is None:
            return NEVER
        due = self._moment(row.due_at, row.due_boot, row)
        if row.boot_id == self._clock.boot_id:
            return due
        if row.issued_at is None or row.state == "quarantined":
            return min(due, Boot(now + schedule.DAY))  # nothing of that kind is put off for longer
        return now if wall < row.issued_at else due

    def _moment(self, wall: float, boot: float | None, row: Row) -> Boot:
        if boot is not None and row.boot_id == self._clock.boot_id:
            return Boot(boot)
        return Boot(self._clock.boot() + (wall - self._clock.wall()))

    def intent(self, attempt: Attempt, not_before: Boot | None = None) -> Intent:
        """The durable form of an attempt."""
        offset = self._clock.wall() - self._clock.boot()
        return Intent(
            attempt=attempt.id,
            started_at=attempt.started_at + offset,
            tries=attempt.tries,
            not_before=None if not_before is None or not_before == NEVER else not_before + offset,
        )


_STORED_AS: dict[type[State], str] = {
    Fresh: "fresh",
    Waiting: "waiting",
    Quarantined: "quarantined",
    Blocked: "blocked",
}


def _facts(state: State) -> dict[str, object]:
    match state:
        case Waiting():
            return {"reason": state.reason, "since": state.since, "failures": state.failures}
        case Quarantined():
            return {
                "reason": state.reason,
                "since": state.since,
                "incident": state.incident,
                "probes": state.probes,
                "tries": state.tries,
            }
        case Blocked():
            return {"reason": state.reason, "since": state.since}
    return {}


_FACTS: dict[str, tuple[type, ...]] = {
    "reason": (str,),
    "since": (float, int),
    "failures": (int,),
    "incident": (bool,),
    "probes": (int,),
    "tries": (int,),
}


def _read_facts(packed: bytes) -> dict[str, Any]:
    """What can be read of them: they lie open, and damage there must not cost the grant."""
    try:
        facts = msgpack.unpackb(packed)
    except ValueError:
        return {}
    if not isinstance(facts, dict):
        return {}
    return {name: facts[name] for name, kinds in _FACTS.items() if type(facts.get(name)) in kinds}


def _pack_secrets(grant: Grant | None, access: Access | None) -> bytes:
    secrets: dict[str, object] = {}
    if grant is not None:
        secrets["grant"] = {
            "refresh_token": grant.refresh_token.reveal(),
            "previous": None if grant.previous is None else grant.previous.reveal(),
            "scopes": list(grant.scopes),
            "user": grant.user,
            "display_name": grant.display_name,
            "authorized_at": grant.authorized_at,
            "rotation_seen": grant.rotation_seen,
        }
    if access is not None:
        secrets["access"] = {
            "token": access.token.reveal(),
            "token_type": access.token_type,
            "scopes": list(access.scopes),
            "generation": access.generation,
        }
    packed: bytes = msgpack.packb(secrets)
    return packed


def _unpack_grant(fields: dict[str, Any] | None) -> Grant | None:
    if fields is None:
        return None
    previous = fields["previous"]
    return Grant(
        refresh_token=Secret(fields["refresh_token"]),
        previous=None if previous is None else Secret(previous),
        scopes=tuple(fields["scopes"]),
        user=fields["user"],
        display_name=fields["display_name"],
        authorized_at=fields["authorized_at"],
        rotation_seen=fields["rotation_seen"],
    )
