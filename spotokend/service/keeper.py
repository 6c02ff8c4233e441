"""The keeper: one loop over a heap of due times, and the only place where refreshes start.

No task an account: with 100,000 accounts an entry in a heap is what one costs. The loop is woken by
time, by a kick, or by a jump of the clocks, and never sleeps longer than a nap, because a sleep
does not know of a suspend.

Callers that need a token join the account's refresh: at most one is under way. They wait for it and
can't cancel it: it runs in the keeper's own task group.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from itertools import count
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from spotokend.adapters.store.base import StoreError
from spotokend.errors import Busy
from spotokend.rules import gate, schedule
from spotokend.rules.account import (
    ClientRefused,
    ClocksMoved,
    Elsewhere,
    EndpointBack,
    Fresh,
    ProbeTaken,
    Quarantined,
    Refreshing,
    Sealed,
    State,
    TokenRejected,
    Unsaved,
    Waiting,
)
from spotokend.rules.doubt import TURN
from spotokend.rules.notice import in_words, reason, refusal
from spotokend.rules.schedule import NEVER, Boot, Wall
from spotokend.rules.transitions import due_at, later, need, usable

from .refresh import Refresh
from .registry import Account, Client, Registry

HOUR = 3600.0
_Task = Callable[[Account], Coroutine[Any, Any, None]]


class Keeper:
    """See the module."""

    def __init__(
        self,
        registry: Registry,
        refresh: Refresh,
        *,
        clocks_moved: Callable[[float], None],
        log: Callable[..., None],
    ) -> None:
        self._registry = registry
        self._refresh = refresh
        self._clock = registry.clock
        self._clocks_moved = clocks_moved
        self._log = log
        self._heap: list[tuple[Boot, int, Account]] = []
        self._serial = count(1)
        self._wake, self._looked = anyio.Event(), anyio.Event()
        self._tasks: TaskGroup | None = None
        self._stopping = False

    # What others call.

    def schedule(self, account: Account) -> None:
        """The account's state changed: its moment may have, too. O(log accounts)."""
        due = due_at(account.state)
        if due == NEVER:
            account.entry = 0
        else:
            self._push(account, due)

    def kick(self) -> None:
        """Look again now."""
        self._wake.set()

    async def looks(self) -> None:
        """Return when the loop has come round once more, or has ended: it isn't stuck."""
        if self._tasks is not None:  # else it waits for the store's key
            self.kick()
            await self._looked.wait()

    def stop(self) -> None:
        """Start nothing more; ``run`` returns once what is under way is finished and kept.

        Kept is what the store has, or a file beside the socket. Nothing else ends the wait.
        """
        self._stopping = True
        for account in self._registry.accounts.values():
            if _only_in_memory(account.state) and (why := reason(account.state)):
                words = f"the end waits until {account.name} can be kept: {why}"
                self._log("stop_waits", level="error", account=account.name, words=words)
        self.kick()

    async def unsealed(self, account: Account) -> State:
        """The account's state with its secrets at hand.

        Raises:
            SpotokendError: the store can't be read.
        """
        if isinstance(account.state, Sealed):
            await self._refresh.unseal(account)
        return account.state

    async def renew(self, account: Account, *, forced: bool = False) -> None:
        """Return when a refresh of the account has ended, one under way or one that starts now.

        Raises:
            LoginRequired, Misconfigured, Unavailable, Busy: none can start; why, when, the cure.
        """
        await self.unsealed(account)
        if not account.under_way:
            now = self._clock.boot()
            if forced:
                self._limit_forced(account, now)
            self._admit(account, now)
            if forced:
                account.forced_at = now
        await account.settled()

    async def reject(self, account: Account, generation: int) -> None:
        """An API refused the token of that generation; return when a newer one was tried for.

        Of many reports of one generation the first starts the one refresh. A report that is not
        accepted leaves the token usable: nobody can take it from others.

        Raises:
            Busy: too many reports.
            LoginRequired, Misconfigured, Unavailable: as ``renew``.
        """
        state = await self.unsealed(account)
        now = self._clock.boot()
        access = usable(state, now)
        if access is not None and access.generation == generation:
            if not account.under_way:
                self._limit_forced(account, now)
                account.forced_at = now
            self._limit_rejects(account, now)
            self._registry.apply(account, TokenRejected(generation))
        if not later(account.state, generation):
            await self.renew(account)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep all accounts fresh until :meth:`stop`; then finish what is under way."""
        boot, wall = self._clock.boot(), self._clock.wall()
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            task_status.started()
            while not (self._stopping and self._finished()):
                self._looked.set()
                self._wake, self._looked = anyio.Event(), anyio.Event()
                boot, wall = self._compare_clocks(boot, wall)
                self._consider_due()
                for client in self._registry.clients.values():
                    self._let_through(client)
                with anyio.move_on_after(self._sleep()):
                    await self._wake.wait()
        self._looked.set()
        for account in self._registry.accounts.values():
            if isinstance(account.state, Unsaved):
                words = f"{reason(account.state)}; the next start takes it up"
                self._log("spilled", level="warning", account=account.name, words=words)

    # The loop's parts.

    def _compare_clocks(self, boot: Boot, wall: Wall) -> tuple[Boot, Wall]:
        """A suspend, or civil time set: everything is looked at again, spread a little."""
        now, civil = self._clock.boot(), self._clock.wall()
        jump = schedule.jumped(boot_before=boot, wall_before=wall, boot=now, wall=civil)
        if jump or now - boot > 2 * self._registry.config.timing.nap:  # it was asleep
            for account in list(self._registry.accounts.values()):
                self._registry.apply(account, ClocksMoved())
            self._clocks_moved(jump)
        return now, civil

    def _consider_due(self) -> None:
        now = self._clock.boot()
        while self._heap and self._heap[0][0] <= now:
            _, entry, account = heapq.heappop(self._heap)
            if entry == account.entry:  # else it was scheduled anew since
                account.entry = 0
                self._consider(account, now)

    def _consider(self, account: Account, now: Boot) -> None:
        """The account's moment has come."""
        state, client = account.state, account.client
        if account.queued:
            return
        if isinstance(state, Unsaved):
            self._start(self._save, account)
        elif self._stopping:
            return
        elif isinstance(state, Sealed):
            self._start(self._unseal, account)
        elif client.gate.blocked:
            refused = ClientRefused("", client.gate.reason or "", client.gate.hint or "")
            self._registry.apply(account, refused)
        elif isinstance(state, Quarantined) and state.incident and self._turn_taken(state, client):
            self._registry.apply(account, ProbeTaken())
        elif isinstance(state, Waiting) and state.grace_until and now < state.grace_until:
            client.urgent[account.name] = account
        else:
            client.parked[account.name] = account

    def _let_through(self, client: Client) -> None:
        """Start what stands before the gate, as far as it lets them; the most pressing first."""
        now = self._clock.boot()
        if self._stopping or not _open(client, now):
            # Whoever queued while it was open hears now that it is not.
            client.send_away()
        if self._stopping:
            return
        for queue in (client.urgent, client.front, client.parked):
            urgent = queue is client.urgent
            while queue and gate.may_start(client.gate, now, client.policy.timing, urgent=urgent):
                account = queue.pop(next(iter(queue)))
                # A login, a logout or a reload may have come while it stood there.
                if account.queued or due_at(account.state) <= now:
                    self._begin(account)

    def _begin(self, account: Account) -> None:
        """The gate has let the account through."""
        client = account.client
        client.gate = gate.started(client.gate, account.name)
        account.queued = True
        if isinstance(account.state, Quarantined):
            url = client.config.token_url
            known = self._registry.refusals.get(url, gate.Refusals())
            self._registry.refusals[url] = replace(known, probed_at=self._clock.boot())
        self._start(self._attempt, account)

    def _start(self, task: _Task, account: Account) -> None:
        assert self._tasks is not None
        self._tasks.start_soon(self._guarded, task, account)

    async def _guarded(self, task: _Task, account: Account) -> None:
        """A defect costs the account a turn, and not all of them the daemon."""
        try:
            await task(account)
        except Exception as error:  # noqa: BLE001 - see above
            self._refresh.abandon(account, error)
            if not account.entry:
                self._push(account, Boot(self._clock.boot() + self._registry.config.timing.nap))

    async def _attempt(self, account: Account) -> None:
        client = account.client
        before, was_closed = account.state, client.gate.failures > 0
        try:
            await self._refresh.run(account)
        finally:
            client.gate = gate.ended(client.gate, account.name)
            account.queued = False
            account.wake()
            self.kick()
        if not account.entry:
            self.schedule(account)  # its moment may have come, and passed, while it was queued
        if isinstance(before, Quarantined) and account.state.generation > before.generation:
            self._release(client.config.token_url)
        if was_closed and client.gate.failures == 0:
            self._encourage(client, Waiting)

    async def _save(self, account: Account) -> None:
        await self._refresh.save(account)
        self.kick()

    async def _unseal(self, account: Account) -> None:
        try:
            await self._refresh.unseal(account)
        except StoreError as error:
            self._log("store_unreadable", level="error", account=account.name, words=str(error))
            self._push(account, Boot(self._clock.boot() + self._registry.config.timing.nap))

    def _push(self, account: Account, due: Boot) -> None:
        account.entry = next(self._serial)
        heapq.heappush(self._heap, (due, account.entry, account))
        if self._heap[0][2] is account:
            self.kick()

    def _release(self, token_url: str) -> None:
        """A probe had success: that ends the incident for all accounts of the endpoint.

        Only a probe's: that others are renewed as usual doesn't show that a refusal was a mistake.
        """
        for client in self._registry.clients.values():
            if client.config.token_url == token_url:
                self._encourage(client, Quarantined)

    def _encourage(self, client: Client, kind: type[Waiting | Quarantined]) -> None:
        for account in list(self._registry.accounts.values()):
            if account.client is client and isinstance(account.state, kind):
                self._registry.apply(account, EndpointBack())

    def _turn_taken(self, state: Quarantined, client: Client) -> bool:
        """Another account of the endpoint has tried, for all of them, when this one's turn came."""
        known = self._registry.refusals.get(client.config.token_url, gate.Refusals())
        return state.probe_at is not None and known.probed_at > state.probe_at - TURN

    def _finished(self) -> bool:
        return not any(
            account.queued
            or isinstance(account.state, Refreshing)
            or _only_in_memory(account.state)
            for account in self._registry.accounts.values()
        )

    def _sleep(self) -> float:
        """Seconds to the next moment at which there is something to do; a nap at most."""
        now = self._clock.boot()
        wake = Boot(now + self._registry.config.timing.nap)
        if self._heap:
            wake = min(wake, self._heap[0][0])
        for client in self._registry.clients.values():
            if client.urgent and client.gate.asked_until > now:
                wake = min(wake, client.gate.asked_until)
            if client.parked or client.front:
                wake = min(wake, gate.next_chance(client.gate, now))
        return max(0.0, wake - now)

    # Who may ask for how much.

    def _admit(self, account: Account, now: Boot) -> None:
        """Start a refresh that a caller asked for, or say why none can start."""
        client, state = account.client, account.state
        client.wanted_at = now
        if need(state) or client.gate.blocked or self._stopping:
            raise refusal(account.name, state, client.gate, now)
        shorter = gate.hurry(
            client.gate, now=now, u=self._clock.rand(), timing=client.policy.timing
        )
        if client.gate.failures:
            # The account whose token somebody wants is the one that should probe.
            client.gate = shorter
        if client.gate.failures or (isinstance(state, Waiting) and not state.failures):
            # Where nothing went wrong its moment only spreads the load.
            self._registry.apply(account, EndpointBack())
            state, now = account.state, self._clock.boot()
            self.kick()
        patient = isinstance(state, Waiting | Elsewhere) and due_at(state) > now
        if patient or not isinstance(state, Fresh | Waiting | Elsewhere):
            raise refusal(account.name, state, client.gate, now)
        if gate.may_start(client.gate, now, client.policy.timing):
            self._begin(account)
        elif _open(client, now):
            account.queued = True  # only the number in flight holds it back
            client.front[account.name] = account
        else:
            raise refusal(account.name, state, client.gate, now)

    def _limit_forced(self, account: Account, now: Boot) -> None:
        wait = account.forced_at + account.client.policy.timing.forced_interval - now
        if wait > 0:
            raise Busy(
                f"{account.name} was renewed on request a moment ago; again in {in_words(wait)}",
                account=account.name,
                retry_after=wait,
            )

    def _limit_rejects(self, account: Account, now: Boot) -> None:
        rejects = account.rejects = account.rejects or deque()
        while rejects and rejects[0] <= now - HOUR:
            rejects.popleft()
        most = account.client.policy.timing.rejects_per_hour
        if len(rejects) >= most:
            wait = rejects[0] + HOUR - now
            self._log(
                "anomaly",
                level="warning",
                account=account.name,
                words=f"more than {most} tokens an hour are reported as refused by the API",
            )
            raise Busy(
                f"{account.name}: {most} tokens were reported as refused within an hour, and each "
                f"replaced; the next report is taken in {in_words(wait)}",
                account=account.name,
                retry_after=wait,
                hint="the fault may lie with the program that reports them, or with its scopes",
            )
        rejects.append(now)


def _only_in_memory(state: State) -> bool:
    """An answer that would be lost with the program."""
    return isinstance(state, Unsaved) and not state.spilled


def _open(client: Client, now: Boot) -> bool:
    """Nothing but the number in flight may hold a refresh of the client back."""
    return not client.gate.failures and gate.closed_until(client.gate) <= now
