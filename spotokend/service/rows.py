"""Accounts' states as rows of the store, and back.

Everything secret is in the envelope, sealed and bound to account, fingerprint and version, so that
no row can stand in for another. What else is worth keeping is in clear columns and ``facts``: enough
to schedule without the key, and to go on with every pause that the last daemon kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

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
from spotokend.rules.gate import Gate
from spotokend.rules.schedule import NEVER, Boot, Wall
from spotokend.rules.sealing import NONCE_BYTES, KeyRing, SealingError
from spotokend.rules.secret import Secret
from spotokend.rules.transitions import due_at

from .clock import Clock
from .packing import pack_facts, pack_secrets, read_facts, unpack_secrets
from .traces import CUT_OFF, told_of


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose row it is."""

    account: str
    client: str
    fingerprint: str


class Rows:
    """See the module."""

    def __init__(
        self, keys: KeyRing, clock: Clock, *, random_bytes: Callable[[int], bytes]
    ) -> None:
        self.keys = keys
        self.clock = clock
        self._random_bytes = random_bytes

    def under(self, keys: KeyRing) -> Rows:
        """The same with other keys."""
        return Rows(keys, self.clock, random_bytes=self._random_bytes)

    def sealed(self, row: Row, policy: Policy) -> Sealed:
        """The state of a row that is not unsealed yet, from its clear columns.

        What is overdue is spread, so that a start does not ask for everything at once; but an
        attempt cut off by the end of the program waits for nobody: its grace runs.
        """
        now, due = self.clock.boot(), self._due(row)
        # Neither has a moment in the store: a start is a new chance, or a new configuration.
        undecided = row.state == "blocked" or (row.state == "fresh" and policy.proactive)
        if row.intent is not None:
            due = now  # unsealing it decides when, by what is known of the server
        elif due <= now or (due == NEVER and undecided):
            due = Boot(now + schedule.spread(self.clock.rand(), policy.timing.start_spread))
        expires = None
        if row.expires_at is not None:
            expires = self.clock.moment(row.expires_at, row.expires_boot, row.boot_id)
        return Sealed(
            version=row.version, generation=row.generation, due_at=due, expires_at=expires
        )

    def to_row(self, owner: Owner, state: State, version: int, gate: Gate | None = None) -> Row:
        """The row of ``state``, sealed for that version; with what is to be kept of the gate."""
        now, wall = self.clock.boot(), self.clock.wall()
        due = due_at(state)
        access = state.access if isinstance(state, Holding) else None
        sealed = None
        if isinstance(state, Holding) and (state.grant or access):
            sealed = self.keys.seal(
                pack_secrets(state.grant, access),
                account=owner.account,
                fingerprint=owner.fingerprint,
                version=version,
                nonce=self._random_bytes(NONCE_BYTES),
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
            boot_id=self.clock.boot_id,
            due_boot=None if due == NEVER else due,
            expires_boot=None if access is None else access.expires_at,
            facts=pack_facts(state, told_of(gate, self.clock), wall),
            key_id=self.keys.newest.key_id,
            sealed=sealed,
        )

    def resealed(self, row: Row) -> Row:
        """The same row, sealed by the newest key.

        Raises:
            SealingError: its envelope doesn't open.
        """
        assert row.sealed is not None
        bound = {"account": row.account, "fingerprint": row.fingerprint}
        plaintext = self.keys.open(row.sealed, **bound, version=row.version)
        nonce = self._random_bytes(NONCE_BYTES)
        sealed = self.keys.seal(plaintext, **bound, version=row.version, nonce=nonce)
        return replace(row, sealed=sealed, key_id=self.keys.newest.key_id)

    def to_state(self, row: Row, policy: Policy) -> State:
        """What a row says, unsealed.

        A row whose envelope can't be opened is :class:`Blocked`, and stays in the store.
        """
        facts = read_facts(row.facts)
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
                since=self.clock.wall(),
            )
        now = self.clock.boot()
        due = self._due(row)
        if row.state == "quarantined":
            return self._quarantined(row, facts, grant, access, policy)
        if row.intent is not None and grant is not None:
            return self._cut_off(row, row.intent, grant, access, policy)
        if row.intent is not None:
            return self._cut_off_for_itself(row, row.intent, access, policy)
        if row.state == "fresh" and access is not None:
            if due == NEVER and policy.proactive:  # it was on_demand when this was written
                u = self.clock.rand()
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
        now, due = self.clock.boot(), self._due(row)
        incident, probes = facts.get("incident", False), facts.get("probes", 0)
        probe_at = None if due == NEVER else due
        if row.intent is not None:
            # A probe cut off by the end of the program is spent: no crash loop may repeat it.
            probes += incident
            probe_at = probe_after_refusal(policy, grant, incident=incident, probes=probes, now=now)
        return Quarantined(
            version=row.version,
            generation=_reached(row),
            grant=grant,
            access=access,
            reason=facts.get("reason", "the provider refused the login"),
            since=facts.get("since", self.clock.wall()),
            incident=incident,
            probe_at=probe_at,
            probes=probes,
            tries=facts.get("tries", 0),
        )

    def _cut_off(
        self, row: Row, intent: Intent, grant: Grant, access: Access | None, policy: Policy
    ) -> Waiting:
        """An attempt that was begun and whose outcome was never written: in doubt."""
        now, wall = self.clock.boot(), self.clock.wall()
        sent_at = self.clock.begun_at(intent)
        earliest = self.clock.after_a_crash(intent, policy.timing)
        if intent.not_before is not None:
            # Civil time may have been wrong, now or then: then all of the pause is still to come.
            # No doubt lasts longer than this.
            latest = now + schedule.DAY if access is None else access.expires_at
            pause = intent.not_before - max(wall, intent.started_at)
            settled = min(now + pause, max(latest, now + schedule.DAY))
            earliest = Boot(max(earliest, settled))
        retry_at = retry_after_doubt(
            policy,
            grant,
            access,
            tries=intent.tries,
            sent_at=sent_at,
            now=now,
            opens_at=earliest,
            u=self.clock.rand(),
        )
        grace_until = Boot(sent_at + policy.rotation_grace)
        in_grace = policy.rotation is Rotation.GRACE and intent.tries == 1 and now < grace_until
        return Waiting(
            version=row.version,
            generation=_reached(row),
            grant=grant,
            access=access,
            retry_at=now if in_grace else Boot(max(retry_at, earliest)),
            tries=intent.tries,
            failures=intent.tries,
            reason=CUT_OFF,
            since=Wall(intent.started_at),
            grace_until=grace_until if in_grace else None,
        )

    def _cut_off_for_itself(
        self, row: Row, intent: Intent, access: Access | None, policy: Policy
    ) -> Waiting:
        """The same of a client that presents no grant: nothing is in doubt, but it backs off."""
        return Waiting(
            version=row.version,
            generation=_reached(row),
            grant=None,
            access=access,
            retry_at=self.clock.after_a_crash(intent, policy.timing),
            failures=intent.tries,
            reason=CUT_OFF,
            since=Wall(intent.started_at),
        )

    def check(self, row: Row) -> None:
        """See that the row's envelope opens.

        Raises:
            SealingError: it doesn't, and why.
        """
        self._unsealed(row)

    def _unsealed(self, row: Row) -> tuple[Grant | None, Access | None]:
        if row.sealed is None:
            return None, None
        plaintext = self.keys.open(
            row.sealed,
            account=row.account,
            fingerprint=row.fingerprint,
            version=row.version,
        )
        grant, access = unpack_secrets(plaintext)
        return grant, self._access(row, access)

    def _access(self, row: Row, fields: dict[str, Any] | None) -> Access | None:
        if fields is None or row.expires_at is None or row.issued_at is None:
            return None
        now = self.clock.boot()
        life = row.expires_at - row.issued_at
        if not 0 < life < schedule.ABSURD_LIFE + 1:
            # No answer has such a life: the columns lie open, and a disk has bitten them.
            return None
        if row.boot_id == self.clock.boot_id and row.expires_boot is not None:
            expires = Boot(row.expires_boot)
        else:
            age = self.clock.wall() - row.issued_at
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
        now, wall = self.clock.boot(), self.clock.wall()
        if row.due_at is None:
            return NEVER
        due = self.clock.moment(row.due_at, row.due_boot, row.boot_id)
        if row.boot_id == self.clock.boot_id:
            return due
        before = row.issued_at
        if before is None:
            before = read_facts(row.facts).get("since")
        if before is None or row.state == "quarantined":
            return min(due, Boot(now + schedule.DAY))  # nothing of that kind is put off for longer
        return now if wall < before else due

    def intent(self, attempt: Attempt, not_before: Boot | None = None) -> Intent:
        """The durable form of an attempt."""
        offset = self.clock.wall() - self.clock.boot()
        return Intent(
            attempt=attempt.id,
            started_at=attempt.started_at + offset,
            tries=attempt.tries,
            not_before=None if not_before is None or not_before == NEVER else not_before + offset,
        )


def _reached(row: Row) -> int:
    """The last generation that may have been served: of tries whose answers nothing has kept, too."""
    return row.generation + (0 if row.intent is None else row.intent.tries)


_STORED_AS: dict[type[State], str] = {
    Fresh: "fresh",
    Waiting: "waiting",
    Quarantined: "quarantined",
    Blocked: "blocked",
}
