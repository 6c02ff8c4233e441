"""Who stands beside the provider, sees each request, and knows what was promised.

Of the program it reads what it holds (states, rows, files, the gate); what is right it knows from the
provider's books alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qs

import pytest
import trio
from world import World

from spotokend.adapters.store.memory import MemoryStore
from spotokend.rules import gate, schedule
from spotokend.rules.account import Grant, Holding, Refreshing, Rotation, Unsaved
from spotokend.rules.doubt import strictness
from spotokend.rules.gate import Gate
from spotokend.sandbox import Cut, Provider, Request, Response
from spotokend.sandbox.ledger import Grant as Consent
from spotokend.service.packing import unpack_row
from spotokend.service.traces import gate_of

ANSWER_TIMEOUT = 60.0
MOST_IN_A_SECOND = 8
"""Refreshes of three accounts: one each, and the tries of a gate, a quarter of a second apart."""
MOST_IN_FLIGHT = 8
CLIENT = "pkce"


@dataclass
class Known:
    """What the witness knows of an account, whatever the program believes."""

    consent: Consent | None = None
    """Of the last login that came through; None: logged out, or never in."""
    lost: bool = False
    """Its refresh token was replaced by an answer that never came whole, or never onto a disk."""
    under_way: bool = False
    """An answer has left the provider, and was not seen in the program yet."""
    served: dict[int, str] = field(default_factory=dict)
    """Access tokens by generation."""
    newest: int = 0
    """The generation that was served last."""
    reported: set[str] = field(default_factory=set)
    leaving: bool = False
    """A logout was begun; whether it came through is not known yet."""
    refused: bool = False
    """The provider has refused it at least once, rightly or not."""


class Witness:
    """See the module. :attr:`world` is the daemon that lives now."""

    world: World

    def __init__(self) -> None:
        self.accounts: dict[str, Known] = {}
        self._sent: deque[float] = deque(maxlen=MOST_IN_A_SECOND + 1)
        """When the last refreshes were sent."""
        self._computed: list[tuple[float, Gate]] = []
        """Each closed or opened gate, and when it was computed."""
        self._broken: list[AssertionError] = []
        """What was seen where raising it would tell nobody."""
        self._provider: Provider | None = None

    def attend(self, world: World) -> None:
        """Stand beside that daemon from now on, and beside its provider."""
        self.world = world
        if self._provider is not world.provider:
            self._provider = world.provider
            self._answer, world.provider.handle = world.provider.handle, self.handle

    def known(self, account: str) -> Known:
        """What is known of it."""
        return self.accounts.setdefault(account, Known())

    # What happens.

    def handle(self, request: Request) -> Response:
        """In the place of the provider's own."""
        ledger = self.world.provider.ledger
        form = parse_qs(request.body.decode())
        presented = ledger._refresh_tokens.get(form.get("refresh_token", [""])[0])
        if presented is not None:
            try:
                self._look_at_request(presented.grant, presented.replaced_at)
            except AssertionError as broken:
                # The endpoint takes whatever its transport raises for trouble on the line.
                self._broken.append(broken)
        before = {grant.id: grant.current for grant in ledger.grants.values()}
        response = self._answer(request)
        for known in self.accounts.values():
            consent = known.consent
            if consent is None:
                continue
            if presented is not None and presented.grant is consent and response.status == 400:
                known.refused = True
            if consent.current != before[consent.id]:
                known.under_way = True
                known.lost |= not _comes_whole(response)
        return response

    def logged_in(self, account: str) -> None:
        """A login came through: its grant is the one that counts now."""
        state = self.world.account(account).state
        assert isinstance(state, Holding)
        assert state.grant is not None
        token = self.world.provider.ledger._refresh_tokens[state.grant.refresh_token.reveal()]
        old = self.known(account)
        # Generations go on, whoever logs in.
        self.accounts[account] = Known(consent=token.grant, served=old.served, newest=old.newest)

    def logged_out(self, account: str) -> None:
        """Nothing is kept of it any more, but the generations."""
        old = self.known(account)
        self.accounts[account] = Known(served=old.served, newest=old.newest)

    def served(
        self, account: str, token: dict[str, object], min_ttl: float, asked_at: float
    ) -> None:
        """Look at a token that a caller got."""
        text, generation = str(token["access_token"]), token["generation"]
        known, now = self.known(account), trio.current_time()
        theirs = self.world.provider.ledger._access_tokens[text]
        assert isinstance(generation, int)
        assert theirs.expires_at > now, "an expired token was served"
        assert theirs.expires_at - asked_at >= min_ttl
        assert self.world.boot() < token["expires_boot"] <= theirs.expires_at - self.world.booted
        assert known.served.setdefault(generation, text) == text, "one generation, two tokens"
        assert generation >= known.newest, "an older token was served"
        known.newest = generation

    def killed(self) -> None:
        """What was under way, or in memory alone, is lost: that is the window."""
        for name, known in self.accounts.items():
            if known.under_way and not self._holds_current(name, durably=True):
                known.lost = True
            known.under_way = False
            account = self.world.registry.accounts.get(name)
            if account and isinstance(account.state, Unsaved) and not account.state.spilled:
                # Neither store nor spill took it: the one before it, which lives on, is served again.
                row = self.world.store._rows.get(("", name))
                known.newest = min(known.newest, 0 if row is None else row.generation)

    def ended(self) -> None:
        """The daemon is gone: the next one has to go on with the pauses that are written down."""
        for name in [name for name, known in self.accounts.items() if known.leaving]:
            self.logged_out(name)  # or it was cut off: nothing is promised of it any more
        assert isinstance(self.world.store, MemoryStore)
        self._computed.clear()
        # The pause after a crash is thrown anew by each daemon: this is the least that it may be.
        clock = replace(self.world.clock, rand=lambda: 0.0)
        timing = self.world.config.timing
        for row in self.world.store._rows.values():
            told = gate_of(row, clock, timing)
            if told.failures or told.asked_until > clock.boot():
                self._computed.append((trio.current_time(), told))
        self._computed.sort(key=lambda entry: max(entry[1].opens_at, entry[1].asked_until))

    # What is promised.

    def _look_at_request(self, consent: Consent, replaced_at: float | None) -> None:
        """Of a refresh, in the moment in which it comes to the provider."""
        now = trio.current_time()
        sent_at = now - self.world.latency
        self._sent.append(sent_at)
        lately = [moment for moment in self._sent if moment > sent_at - 1.0]
        assert len(lately) <= MOST_IN_A_SECOND, "too many in a second"
        name = next((n for n, k in self.accounts.items() if k.consent is consent), None)
        if name is None:
            return  # of a login that another one has overtaken since
        state = self.world.account(name).state
        client = self.world.registry.clients[CLIENT]
        assert client.gate.in_flight <= MOST_IN_FLIGHT
        urgent = isinstance(state, Refreshing) and sent_at < (state.grace_until or 0.0)
        self._look_at_pause(sent_at, urgent=urgent)
        if replaced_at is not None and isinstance(state, Refreshing):
            self._look_at_second_use(name, state, replaced_at, now)

    def _look_at_pause(self, sent_at: float, *, urgent: bool) -> None:
        """The back-off that was computed last was slept (hashicorp/vault#26382)."""
        present = next((closed for at, closed in reversed(self._computed) if at <= sent_at), None)
        if present is not None:
            assert sent_at >= present.asked_until, "before the server's Retry-After"
            if present.failures and not urgent:
                assert sent_at >= present.opens_at, "a back-off was computed and not slept"

    def _look_at_second_use(
        self, name: str, state: Refreshing, replaced_at: float, now: float
    ) -> None:
        """A used refresh token comes again: it must have been allowed."""
        known = self.known(name)
        assert known.lost, "presented again although its answer came"
        policy = self.world.registry.clients[CLIENT].policy
        kind = strictness(policy, state.grant)
        in_grace = kind is Rotation.GRACE and now < replaced_at + policy.rotation_grace + 1
        if kind is Rotation.NEVER or in_grace:
            return
        ledger = self.world.provider.ledger
        for text in set(known.served.values()) - known.reported:
            access = ledger.access(text)
            if access is not None and access.grant is known.consent:
                floor = schedule.serving_floor(ledger.options.access_life, policy.timing)
                assert access.expires_at - now <= floor + 1, "a retry that kills a living token"

    def look(self) -> None:
        """At all accounts: what the provider holds, the program holds too; and on a disk."""
        for broken in self._broken:
            raise broken
        assert self.world.events("defect") == []
        for name, known in self.accounts.items():
            account = self.world.registry.accounts.get(name)
            consent = known.consent
            if consent is None:
                continue
            if account is None:
                assert known.leaving, f"{name} is gone, and nobody has logged out"
                continue
            if consent.revoked:
                assert known.lost, f"{name} was ended by ourselves: {consent.revoked}"
            elif known.lost and self._holds_current(name, durably=True):
                known.lost = False  # a retry inside the grace has brought it after all
            if known.leaving or known.lost or consent.revoked:
                continue
            if isinstance(account.state, Refreshing):
                continue
            known.under_way = isinstance(account.state, Unsaved) and not account.state.spilled
            assert self._holds_current(name, durably=False), f"the grant of {name} is lost"
            assert known.under_way or self._holds_current(name, durably=True), "not on a disk"

    def _holds_current(self, name: str, *, durably: bool) -> bool:
        consent = self.known(name).consent
        assert consent is not None
        kept = [] if durably else [self.world.account(name).state]
        rows, store = self.world.vault._rows, self.world.store
        assert isinstance(store, MemoryStore)
        policy = self.world.registry.clients[CLIENT].policy
        row = store._rows.get(("", name))
        if row is not None:
            kept.append(rows.to_state(row, policy))
        data = self.world.spill.files.get(name)
        if data is not None:
            kept.append(rows.to_state(unpack_row(data)[1], policy))
        held = [state.grant for state in kept if isinstance(state, Holding)]
        return any(isinstance(grant, Grant) and _has(grant, consent.current) for grant in held)

    @contextmanager
    def watching_the_gate(self) -> Iterator[None]:
        """Take down what is computed there."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("failed", "hurry", "answered", "block"):
                patch.setattr(gate, name, self._noting(getattr(gate, name)))
            yield

    def _noting(self, compute):
        def noting(*arguments, **named):
            closed = compute(*arguments, **named)
            self._computed.append((trio.current_time(), closed))
            return closed

        return noting


def _has(grant: Grant, text: str) -> bool:
    return text in {grant.refresh_token.reveal(), grant.previous and grant.previous.reveal()}


def _comes_whole(response: Response) -> bool:
    return (
        response.cut is Cut.NO
        and response.held_by is None
        and response.delay < ANSWER_TIMEOUT
        and response.body.endswith(b"}")
    )
