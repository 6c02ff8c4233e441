"""What an account's row tells of the pauses that all accounts of a client, or of an endpoint, keep.

A restart resets none of them: not the back-off, not what the server asked for by ``Retry-After``,
not the turn of the probes; and what a refusal is judged by is remembered, too. That lies open in
the rows of those that met it, and is put together again at a start.
"""

from __future__ import annotations

from dataclasses import replace

from spotokend.adapters.store.base import Row
from spotokend.rules.gate import INCIDENT_WINDOW, LONG_AGO, Gate, Refusals
from spotokend.rules.schedule import Boot, Timing

from .clock import Clock
from .packing import known_facts, read_facts

CUT_OFF = "the program ended while a refresh was under way"


def told_of(gate: Gate | None, clock: Clock) -> dict[str, object] | None:
    """What a start must know of a gate that is closed; None of an open one."""
    now, wall = clock.boot(), clock.wall()
    if gate is None or (not gate.failures and gate.asked_until <= now):
        return None
    return {
        "failures": gate.failures,
        "reason": gate.reason,
        "opens_at": wall + (gate.opens_at - now),
        "opens_boot": gate.opens_at,
        "asked_until": wall + (gate.asked_until - now),
        "asked_boot": gate.asked_until,
    }


def gate_of(row: Row, clock: Clock, timing: Timing) -> Gate:
    """The gate as the row tells of it; :func:`~spotokend.rules.gate.resumed` takes it from there."""
    facts = read_facts(row.facts)
    told = known_facts(facts.get("gate"))
    gate = Gate(
        failures=told.get("failures", 0),
        opens_at=clock.moment(told.get("opens_at", LONG_AGO), told.get("opens_boot"), row.boot_id),
        asked_until=clock.moment(
            told.get("asked_until", LONG_AGO), told.get("asked_boot"), row.boot_id
        ),
        reason=told.get("reason"),
    )
    if row.state == "blocked":
        # One try after a start, by one account, and none sooner than after the longest back-off,
        # whoever waits.
        since = clock.moment(facts.get("since", LONG_AGO), None, row.boot_id)
        gate = replace(
            gate,
            failures=1,
            opens_at=Boot(max(clock.boot(), since + timing.backoff_cap)),
            hurried=True,
            reason=facts.get("reason"),
        )
    intent = row.intent
    # A single crash is an accident, and the account backs off by itself.
    if intent is not None and intent.tries > max(gate.failures, 1):
        opens_at = clock.after_a_crash(intent, timing)
        gate = replace(gate, failures=intent.tries, opens_at=opens_at, reason=CUT_OFF)
    return gate


def refusals_of(row: Row, clock: Clock) -> Refusals:
    """How the endpoint took the account's last attempt, as far as the row tells and it counts."""
    begun_at = LONG_AGO if row.intent is None else clock.begun_at(row.intent)
    if row.state == "quarantined":
        facts = read_facts(row.facts)
        at = _past(clock.moment(facts.get("at", LONG_AGO), None, row.boot_id), clock)
        refusals = _tried(row, at, clock, refused=True)
        if not facts.get("incident"):
            return refusals
        return replace(refusals, probed_at=max(begun_at, at if facts.get("probes") else LONG_AGO))
    if row.intent is not None:
        return Refusals(trouble_at=begun_at)
    if row.expires_at is None or row.issued_at is None:
        return Refusals()
    expires_at = clock.moment(row.expires_at, row.expires_boot, row.boot_id)
    issued_at = Boot(expires_at - (row.expires_at - row.issued_at))
    return _tried(row, _past(issued_at, clock), clock, refused=False)


def _tried(row: Row, at: Boot, clock: Clock, *, refused: bool) -> Refusals:
    if at <= clock.boot() - INCIDENT_WINDOW:
        return Refusals()  # with many accounts nearly all are
    return Refusals(tried=((at, row.account, refused),))


def _past(moment: Boot, clock: Clock) -> Boot:
    """``moment``, unless it is still to come: then civil time was wrong, and it tells nothing."""
    return moment if moment <= clock.boot() else LONG_AGO
