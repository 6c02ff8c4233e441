"""The refresh transaction: one grant redeemed once, and its answer on disk before anybody hears.

    begin (durable) → POST → judge → commit or settle (durable) → move → publish

What can go wrong between any two arrows is in the order of the lines below. Nothing that a client
does can cancel it: it runs in the keeper's tasks. From the last byte of the answer to the end of
publishing it is shielded even from the end of the program (openai/codex#26516). An answer is
committed first and judged later (stacklok/toolhive#6194).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

import anyio

from spotokend.adapters.spill import SpillError
from spotokend.adapters.store.base import Fenced, Lease, StoreError
from spotokend.adapters.store.base import Outcome as Settled
from spotokend.errors import Locked
from spotokend.rules import gate, oauth, renewal, schedule
from spotokend.rules.account import (
    Answered,
    Attempt,
    ChangedElsewhere,
    ClientRefused,
    Failed,
    GrantRefused,
    InDoubt,
    LoggedOut,
    NotSent,
    Outcome,
    Refreshing,
    RefreshStarted,
    Saved,
    SaveFailed,
    Sealed,
    Unsaved,
    Unsealed,
    Waiting,
)
from spotokend.rules.doubt import next_attempt
from spotokend.rules.gate import Refusals
from spotokend.rules.refusals import HINTS, Kind
from spotokend.rules.schedule import Boot, Wall

from . import defects
from .registry import Account, Client, Past, Registry
from .rows import Owner
from .vault import Vault


class Answer(Protocol):
    """A reply of the endpoint: :class:`spotokend.adapters.endpoint.Reply`, not imported so early."""

    @property
    def answer(self) -> object: ...
    @property
    def sent_at(self) -> Boot: ...


class TokenEndpoint(Protocol):
    """What the transaction needs of :class:`spotokend.adapters.endpoint.Endpoint`."""

    async def post(self, request: oauth.TokenRequest) -> Answer: ...


class Refresh:
    """See the module. The keeper decides when; this decides what."""

    def __init__(
        self,
        registry: Registry,
        vault: Vault,
        endpoint: Callable[[], Awaitable[TokenEndpoint]],
        *,
        new_id: Callable[[], str],
        log: Callable[..., None],
    ) -> None:
        self._registry = registry
        self._clock = registry.clock
        self._vault = vault
        self._endpoint = endpoint
        self._new_id = new_id
        self._log = log
        self._leases: dict[str, tuple[Owner, Lease]] = {}

    async def unseal(self, account: Account) -> None:
        """Read the account's secrets from the store, if they weren't yet."""
        if isinstance(account.state, Sealed):
            await self._read(account, Unsealed)

    async def run(self, account: Account) -> None:
        """One attempt, from the durable intent to the published outcome."""
        # Everything that could still have to be imported is, before anything is begun.
        endpoint = await self._endpoint()
        attempt = next_attempt(account.state, self._new_id(), self._clock.boot())
        # A login may move the account to another client: what comes back is this one's.
        client, owner = account.client, account.owner
        if not self._registry.apply(account, RefreshStarted(attempt)):
            return
        state = account.state
        assert isinstance(state, Refreshing)
        try:
            request = self._request(client, state)
        except Locked as locked:
            words = f"nothing was sent: {locked.message}"
            opens_at = self._close(account, client, gate.Failure(words, lacking=True))
            self._remember(account, "not sent", words)
            self._registry.apply(account, NotSent(attempt.id, words, opens_at))
            return
        if request is None:
            self._registry.apply(account, _no_grant(attempt))
            return
        with anyio.CancelScope(shield=True):
            lease = await self._begin(account, owner, attempt)
        if lease is None or not _is_at(account, attempt):
            return  # nothing was sent; or the disk was slow, and a login or logout came meanwhile
        reply = await endpoint.post(request)
        with anyio.CancelScope(shield=True):
            event = self._judge(account, client, state, attempt, reply)
            if not isinstance(event, Answered):
                await self._settle(account, owner, lease, attempt, event)
            elif self._registry.apply(account, event):
                self._leases[account.name] = owner, lease
                await self.save(account)
            else:
                self._log("refresh_fenced", account=account.name, level="info")

    def abandon(self, account: Account, error: Exception) -> None:
        """A defect ended the attempt: it is told, and the account is in doubt, not at a dead end."""
        name = defects.tell(self._log, "refresh", error, account=account.name)
        state = account.state
        words = f"a defect of spotokend, in the log under {name}"
        if isinstance(state, Refreshing):
            now = self._clock.boot()
            opens_at = Boot(now + account.client.policy.timing.backoff_cap)
            self._remember(account, "no answer", words)
            self._registry.apply(account, InDoubt(state.attempt.id, words, opens_at, now))
        elif isinstance(state, Unsaved):
            self._registry.apply(account, SaveFailed(state.attempt.id, words))

    async def save(self, account: Account) -> None:
        """Commit the answer that the account holds unsaved; where that fails, spill it."""
        state = account.state
        if not isinstance(state, Unsaved) or account.name not in self._leases:
            return
        owner, lease = self._leases[account.name]
        saved = Saved(state.attempt.id, lease.version + 1)
        after, gate_now = self._registry.next(account, saved), account.client.gate
        try:
            try:
                await self._vault.commit(owner, lease, after, gate=gate_now)
            except Fenced:
                # A login or logout came between, and it wins: what this brought is of no use.
                self._log("refresh_fenced", account=account.name, level="info")
                await self._read(account, ChangedElsewhere)
                self._leases.pop(account.name, None)
                return
        except StoreError as error:
            words, spilled = str(error), state.spilled
            if not spilled:
                try:
                    await self._vault.spill(owner, lease, after, gate=gate_now, reason=words)
                    spilled = True
                except SpillError as worse:
                    words += f"; and no copy could be put beside the socket: {worse}"
            self._remember(account, "not saved", words)
            if not self._registry.apply(account, SaveFailed(state.attempt.id, words, spilled)):
                await self._vault.forget_spilled(account.name)  # somebody logged in or out
        else:
            # A second call may have come while the disk was slow: it commits the same attempt.
            self._leases.pop(account.name, None)
            if self._registry.apply(account, saved):
                self._remember(account, "renewed", f"generation {state.generation}")

    def _request(self, client: Client, state: Refreshing) -> oauth.TokenRequest | None:
        if not client.policy.needs_grant:
            return oauth.client_credentials_request(client.registration)
        if state.grant is None:
            return None
        return oauth.refresh_request(client.registration, state.grant.refresh_token)

    async def _begin(self, account: Account, owner: Owner, attempt: Attempt) -> Lease | None:
        try:
            try:
                return await self._vault.begin(owner, account.state, attempt)
            except Fenced:
                await self._read(account, ChangedElsewhere)
        except StoreError as error:
            # The disk must take writes *before* the server may rotate: nothing is sent.
            state = account.state
            failures = state.failures + 1 if isinstance(state, Refreshing) else 1
            timing = account.client.policy.timing
            pause = schedule.backoff(failures, self._clock.rand(), waiting=False, timing=timing)
            words = f"nothing was sent, because the store takes no writes: {error}"
            self._remember(account, "not sent", words)
            opens_at = Boot(self._clock.boot() + max(pause, timing.backoff_base))
            self._registry.apply(account, NotSent(attempt.id, words, opens_at))
        return None

    def _judge(
        self, account: Account, client: Client, state: Refreshing, attempt: Attempt, reply: Answer
    ) -> Outcome:
        """What an answer means for the account, its client's gate and its endpoint."""
        now, answer = self._clock.boot(), reply.answer
        match answer:
            case oauth.Issued():
                self._note(account, client, refused=False)
                if answer.access_token is None:
                    # Kept, and asked again: but a server that goes on so must not be hammered.
                    self._close(account, client, gate.Failure("the answer held no access token"))
                else:
                    client.gate = gate.answered(client.gate, now)
                grant = state.grant and renewal.staged(
                    renewal.renewed(state.grant, answer),
                    now=self._clock.wall(),
                    grant_life=client.policy.grant_life,
                )
                access = renewal.access(
                    answer,
                    scopes=() if grant is None else grant.scopes,
                    sent_at=reply.sent_at,
                    generation=state.generation + 1,
                )
                return Answered(attempt.id, grant, access)
            case oauth.GrantRefused():
                if state.grant is None:
                    # Client credentials present no grant: what is refused is the client.
                    hint = HINTS[Kind.CONFIGURATION]
                    client.gate = gate.block(client.gate, answer.words, hint)
                    return ClientRefused(attempt.id, answer.words, hint)
                refusals = self._note(account, client, refused=True)
                client.gate = gate.answered(client.gate, now)
                age = None
                if state.grant.authorized_at is not None:
                    age = self._clock.wall() - state.grant.authorized_at
                doubtful = gate.incident(refusals, now=now, grant_age=age)
                return GrantRefused(attempt.id, answer.words, doubtful)
            case oauth.ClientRefused():
                self._refuse(account, client, answer)
                return ClientRefused(attempt.id, answer.words, answer.hint)
            case oauth.Transient():
                failure = gate.Failure(answer.words, answer.retry_after)
                opens_at = self._close(account, client, failure)
                if not answer.in_doubt:
                    return Failed(attempt.id, answer.words, opens_at)
                self._note(account, client, refused=False, trouble=True)
                return InDoubt(attempt.id, answer.words, opens_at, reply.sent_at)
        words = str(getattr(answer, "words", answer))
        return NotSent(attempt.id, words, self._close(account, client, gate.Failure(words)))

    def _refuse(self, account: Account, client: Client, answer: oauth.ClientRefused) -> None:
        """Block the gate; what looks like our own defect concerns that account alone."""
        if not answer.defect:
            client.gate = gate.block(client.gate, answer.words, answer.hint)
        elif client.gate.failures:
            # A probe that has not shown that anybody is served. At a start all accounts with that
            # defect are tried again: one after the other, however often it is started.
            pause = client.policy.timing.backoff_cap
            self._close(account, client, gate.Failure(answer.words, retry_after=pause))

    def _close(self, account: Account, client: Client, failure: gate.Failure) -> Boot:
        """Close the gate; returns when it opens.

        Also where the client is blocked meanwhile: then the account hears of that at that moment.
        """
        now = self._clock.boot()
        timing = client.policy.timing
        client.gate = gate.failed(
            client.gate,
            account.name,
            failure,
            now=now,
            u=self._clock.rand(),
            # Whoever was told to come back later does so within the longest back-off.
            waiting=now - client.wanted_at < timing.backoff_cap,
            timing=timing,
        )
        return Boot(max(now, client.gate.opens_at, client.gate.asked_until))

    def _note(
        self, account: Account, client: Client, *, refused: bool, trouble: bool = False
    ) -> Refusals:
        url = client.config.token_url
        refusals = gate.note(
            self._registry.refusals.get(url, Refusals()),
            account=account.name,
            refused=refused,
            trouble=trouble,
            now=self._clock.boot(),
        )
        self._registry.refusals[url] = refusals
        return refusals

    async def _settle(
        self, account: Account, owner: Owner, lease: Lease, attempt: Attempt, event: Outcome
    ) -> None:
        before = account.state
        after = self._registry.next(account, event)
        self._remember(account, _OUTCOMES[type(event)], str(getattr(event, "reason", "")))
        if after is before:
            return  # a login or logout came between
        kind = Settled.REFUSED if isinstance(event, _REFUSED) else Settled.NOT_SENT
        if isinstance(after, Waiting) and after.in_doubt:
            # Also a 429 to the second try: it says nothing of the first. A refused grant is in
            # quarantine, whatever became of its probe, and client credentials use nothing up.
            kind, attempt = Settled.IN_DOUBT, replace(attempt, tries=after.tries)
        try:
            try:
                version = await self._vault.settle(
                    owner, lease, kind, after, attempt, gate=account.client.gate
                )
                after = replace(after, version=version)
            except Fenced:
                # Another process replaced the grant: what was refused is none of its business.
                await self._read(account, ChangedElsewhere)
                return
        except StoreError as error:
            # The open intent stays on disk: a start reads it as doubt, which is the safe side.
            self._log("settle_failed", account=account.name, level="error", words=str(error))
        if account.state is before:
            self._registry.move(account, after)

    async def _read(self, account: Account, event: type[Unsealed | ChangedElsewhere]) -> None:
        """Take what the store holds, unless something happens to the account meanwhile."""
        before = account.state
        state = await self._vault.unseal(account.owner, account.client.policy)
        if account.state is not before or self._registry.accounts.get(account.name) is not account:
            return
        if isinstance(state, Unsaved):
            # The last daemon could not save it, and nor could this one when it began.
            self._leases[account.name] = (
                account.owner,
                Lease(account.name, state.attempt.id, state.version),
            )
        gone = LoggedOut(before.version, "its login is not in the store any more")
        self._registry.apply(account, gone if state is None else event(state))

    def _remember(self, account: Account, outcome: str, words: str) -> None:
        account.remember(Past(Wall(self._clock.wall()), outcome, words))
        level = "info" if outcome == "renewed" else "warning"
        self._log("refresh", account=account.name, level=level, outcome=outcome, words=words)


_OUTCOMES: dict[type[Outcome], str] = {
    NotSent: "not sent",
    Failed: "not served",
    InDoubt: "no answer",
    GrantRefused: "login refused",
    ClientRefused: "client refused",
}
_REFUSED = (GrantRefused, ClientRefused)


def _is_at(account: Account, attempt: Attempt) -> bool:
    return isinstance(account.state, Refreshing) and account.state.attempt.id == attempt.id


def _no_grant(attempt: Attempt) -> GrantRefused:
    return GrantRefused(attempt.id, "there is no refresh token to redeem", incident=False)
