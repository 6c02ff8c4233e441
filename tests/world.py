"""The daemon's parts put together in virtual time, with the sandbox's core in the provider's place.

Everything is the real thing but the sockets: registry, vault, refresh, keeper, board, logins and
handlers over a store in memory; the HTTP adapter over a transport that hands each request to
:class:`spotokend.sandbox.Provider`. Under trio's autojump clock an hour passes in no time.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import trio
from anyio.abc import TaskStatus
from kept_keys import KeptKeys
from stubborn_spill import StubbornSpill
from trio.testing import MockClock

from spotokend import wire
from spotokend.adapters.endpoint import Endpoint
from spotokend.adapters.store.base import Intent, Store
from spotokend.adapters.store.memory import MemoryStore
from spotokend.rules.config.parse import parse
from spotokend.rules.notice import Change, Notice, notices
from spotokend.rules.schedule import Boot, Wall
from spotokend.rules.sealing import KeyRing
from spotokend.rules.secret import Secret
from spotokend.sandbox import Cut, Options, Provider, Request
from spotokend.service.board import Board
from spotokend.service.clock import Clock
from spotokend.service.handlers import Handlers
from spotokend.service.keeper import Keeper
from spotokend.service.keys import Keys
from spotokend.service.logins import Logins
from spotokend.service.refresh import Refresh
from spotokend.service.registry import Account, Registry
from spotokend.service.roster import Roster
from spotokend.service.rows import Rows
from spotokend.service.status import Status
from spotokend.service.vault import Vault

EPOCH = 1_790_000_000.0


def virtual_time() -> tuple[str, dict[str, Any]]:
    """The parameters of anyio's pytest plugin for a clock that jumps over every sleep."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}


class Mailbox:
    """A watcher's end that keeps what it is offered."""

    def __init__(self) -> None:
        self.offered: list[tuple[str | None, Any]] = []
        self.when_closed: Callable[[], None] | None = None

    def offer(self, key: str | None, data: bytes) -> None:
        self.offered.append((key, wire.unpack(data)))


class World:
    """One daemon and one provider.

    With ``before`` it is the next daemon over that one's store, at the same provider; in another
    boot, if ``boot_id`` is another, that began ``booted`` in virtual seconds.
    """

    def __init__(
        self,
        config: str,
        *,
        store: Store,
        options: Options,
        spill: StubbornSpill | None = None,
        u: float = 0.5,
        rand: Callable[[], float] | None = None,
        before: World | None = None,
        boot_id: str = "boot-1",
        booted: float = 0.0,
        key: bytes = bytes(32),
    ) -> None:
        self._numbers: Iterator[int] = itertools.count(1) if before is None else before._numbers
        numbers = self._numbers
        self.booted = booted
        self.provider: Provider = (
            Provider(options, now=trio.current_time, random_text=self._text, rand=lambda: 0.0)
            if before is None
            else before.provider
        )
        self.store = store
        self.spill: StubbornSpill = spill or (StubbornSpill() if before is None else before.spill)
        self.u = u
        self.offset = EPOCH
        """What lies between civil and virtual time: change it to set the clock."""
        self.replies: list[httpx.Response | Exception] = []
        """What the next requests to the token endpoint meet in place of the provider."""
        self.keeping = anyio.CancelScope()
        """Around the keeper: cancel it, and the daemon has been killed."""
        self.requests: list[float] = []
        """When each request to the token endpoint came, in virtual seconds."""
        self.latency = 0.05
        self.notices: list[Notice] = []
        self.logged: list[tuple[str, dict[str, object]]] = []
        self.clocks_moved: list[float] = []
        self.config = parse(config)
        self.clock = Clock(self.boot, self.wall, rand or (lambda: self.u), boot_id)
        self.registry = Registry(self.config, self.clock, publish=self._publish)
        ring = KeyRing()
        self.place = KeptKeys(key)
        self.vault = Vault(
            store,
            Rows(
                ring,
                self.clock,
                random_bytes=lambda size: next(numbers).to_bytes(size, "big"),
            ),
            self.spill,
        )
        self.board = Board(self.clock)
        self._endpoint = Endpoint(
            timing=self.config.timing,
            boot=self.boot,
            wall=self.wall,
            transport=httpx.MockTransport(self._deliver),
        )
        self.refresh = Refresh(
            self.registry, self.vault, self._get_endpoint, new_id=self._text, log=self._log
        )
        self.keeper = Keeper(
            self.registry, self.refresh, clocks_moved=self._clocks_moved, log=self._log
        )
        self.roster = Roster(self.registry, self.vault, log=self._log)
        self.logins = Logins(
            self.registry,
            self.vault,
            self._get_endpoint,
            random_bytes=lambda size: next(numbers).to_bytes(size, "big"),
            log=self._log,
        )
        self.status = Status(
            self.registry,
            socket="/socket",
            config_path="/config",
            store={"backend": "memory", "path": ""},
            connections=lambda: 0,
        )
        self.keys = Keys(
            self.place,
            ring,
            self.vault,
            random_bytes=lambda size: next(numbers).to_bytes(size, "big"),
            place_at=lambda _: self.place,
            unlocked=self._unlocked,
            tell=lambda _: None,
        )
        self.reloads = 0
        self.stops = 0
        self.handlers = Handlers(
            self.registry,
            self.board,
            self.keeper,
            self.logins,
            self.status,
            keys=self.keys,
            reload=self._reload,
            stop=self._stop,
            store_info=self.keys.store_info,
        )

    def boot(self) -> Boot:
        return Boot(trio.current_time() - self.booted)

    def wall(self) -> Wall:
        return Wall(trio.current_time() + self.offset)

    async def call(self, method: str, mailbox: Mailbox | None = None, **arguments: Any) -> Any:
        """A method as a client would call it."""
        answer = self.handlers.handle(mailbox or Mailbox(), method, arguments)
        return wire.unpack(answer if isinstance(answer, bytes) else await answer)

    async def login(self, account: str = "main", user: str | None = None, **more: Any) -> Any:
        """A login by a user who agrees to everything."""
        begun = await self.call("login_start", account=account, **more)
        return await self.call(
            "login_finish", login_id=begun["login_id"], redirect_url=self.agree(begun["url"], user)
        )

    def agree(self, url: str, user: str | None = None) -> str:
        """Where the browser ends."""
        parts = httpx.URL(url)
        if user is not None:
            parts = parts.copy_merge_params({"login_hint": user})
        request = Request(method="GET", path=parts.path, query=parts.query.decode())
        return str(dict(self.provider.handle(request).headers)["location"])

    async def keep(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run the keeper until it is stopped, or killed."""
        with self.keeping:
            await self.keeper.run(task_status=task_status)

    async def kill(self) -> None:
        """kill -9, as far as the keeper is concerned."""
        self.keeping.cancel()
        await anyio.sleep(0.001)

    async def intent(self, account: str = "main") -> Intent | None:
        """What the store says is open."""
        row = await self.store.load(account)
        return None if row is None else row.intent

    def account(self, name: str = "main") -> Account:
        return self.registry.accounts[name]

    def events(self, name: str) -> list[dict[str, object]]:
        return [fields for event, fields in self.logged if event == name]

    def _text(self) -> str:
        return f"{next(self._numbers):06}"

    async def _get_endpoint(self) -> Endpoint:
        return self._endpoint

    async def _deliver(self, request: httpx.Request) -> httpx.Response:
        """The network: takes its time, and knows what the provider wants done on the wire."""
        if request.url.path == "/api/token":
            self.requests.append(trio.current_time())
            if self.replies:
                reply = self.replies.pop(0)
                if isinstance(reply, Exception):
                    raise reply
                return reply
        await anyio.sleep(self.latency)
        response = self.provider.handle(
            Request(
                method=request.method,
                path=request.url.path,
                query=request.url.query.decode(),
                headers=dict(request.headers),
                body=request.content,
            )
        )
        await anyio.sleep(response.delay)
        if response.cut is not Cut.NO:
            raise httpx.RemoteProtocolError("the server hung up", request=request)
        if response.held_by is not None:
            await anyio.sleep(3600)
        return httpx.Response(response.status, headers=response.headers, content=response.body)

    def _publish(self, account: Account, change: Change) -> None:
        self.keeper.schedule(account)
        self.board.apply(account, change.before)
        if self.board.watched(account.name):
            self.board.tell_state(account.name, self.status.account(account))
        for notice in notices(change):
            self.notices.append(notice)
            self.board.tell(notice)

    def _clocks_moved(self, jump: float) -> None:
        self.clocks_moved.append(jump)
        for account in self.registry.accounts.values():
            self.board.prepare(account)

    def _log(self, event: str, *, level: str = "info", **fields: object) -> None:
        self.logged.append((event, {"level": level, **fields}))

    async def _unlocked(self, notices: list[Notice]) -> None:
        self.notices += notices

    async def _reload(self) -> dict[str, object]:
        self.reloads += 1
        return {"changes": [], "warnings": []}

    def _stop(self) -> None:
        self.stops += 1


CONFIG = """
[clients.pkce]
client_id = "sandbox-pkce-client"
scopes = ["user-read-private"]
authorize_url = "http://127.0.0.1:1/authorize"
token_url = "http://127.0.0.1:1/api/token"
identity_url = "http://127.0.0.1:1/v1/me"
"""


@asynccontextmanager
async def running(
    config: str = CONFIG,
    *,
    store: Store | None = None,
    options: Options | None = None,
    secrets: dict[str, Secret | None] | None = None,
    before: World | None = None,
    offset: float = EPOCH,
    **boot: Any,
) -> AsyncIterator[World]:
    """A world whose keeper runs."""
    if store is None:
        store = MemoryStore() if before is None else before.store
    world = World(
        config,
        store=store,
        options=Options(auto_approve=True) if options is None else options,
        before=before,
        **boot,
    )
    world.offset = offset
    given = dict.fromkeys(world.config.clients) | (secrets or {})
    world.notices += await world.keys.start()
    await world.roster.populate(given)
    async with anyio.create_task_group() as tasks:
        await tasks.start(world.keep)
        yield world
        world.keeper.stop()
