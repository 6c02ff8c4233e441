"""What each method does: arguments that were checked in, a packed result out.

A good stored token is answered at once, in the same turn of the loop; everything else is a
coroutine. Callers wait here, and being cancelled only ends their waiting.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from spotokend import __version__, wire
from spotokend.adapters.store.base import StoreError
from spotokend.errors import BadRequest, InsufficientScope, Locked, SpotokendError, Unavailable
from spotokend.rules import schedule
from spotokend.rules.account import Unsaved
from spotokend.rules.methods import METHODS, PAGE
from spotokend.rules.notice import refusal
from spotokend.rules.transitions import later

from .board import Board, Mailbox, Prepared, Watcher
from .keeper import Keeper
from .keys import Keys
from .logins import Logins
from .registry import Account, Registry
from .status import Status

NOTHING = wire.pack(None)

NEED_KEY = frozenset(
    ("token", "reject", "refresh", "login_start", "login_finish", "reload", "rekey")
)
"""Methods that are ``locked`` without the store's key. The others say how things are, or end them."""


class Connection(Mailbox, Protocol):
    """The part of a connection that a handler may need."""

    when_closed: Callable[[], None] | None


class Handlers:
    """See the module."""

    def __init__(
        self,
        registry: Registry,
        board: Board,
        keeper: Keeper,
        logins: Logins,
        status: Status,
        *,
        keys: Keys,
        reload: Callable[[], Awaitable[dict[str, object]]],
        stop: Callable[[], None],
        store_info: Callable[[], Awaitable[dict[str, object]]],
    ) -> None:
        self._registry = registry
        self._boot = registry.clock.boot
        self._board = board
        self._keeper = keeper
        self._logins = logins
        self._status_of = status
        self._keys = keys
        self._reload = reload
        self._stop = stop
        self._store_info = store_info
        self._methods: dict[
            str,
            Callable[[Connection, dict[str, Any]], bytes | Coroutine[Any, Any, bytes]],
        ] = {
            "hello": self._hello,
            "token": self._token,
            "reject": self._reject,
            "refresh": self._refresh,
            "watch": self._watch,
            "status": self._status,
            "login_start": self._login_start,
            "login_finish": self._login_finish,
            "login_cancel": self._login_cancel,
            "logout": self._logout,
            "reload": self._reload_now,
            "stop": self._stop_now,
            "unlock": self._unlock,
            "rekey": self._rekey,
            "store_info": self._tell_of_store,
        }
        assert self._methods.keys() == METHODS.keys()

    def handle(
        self, connection: Connection, method: str, arguments: dict[str, Any]
    ) -> bytes | Coroutine[Any, Any, bytes]:
        """The packed result, or a coroutine that returns it.

        Raises:
            SpotokendError: also from the coroutine; the protocol's errors.
        """
        if not self._keys.ready and method in NEED_KEY:
            self._keys.check()
        return self._methods[method](connection, arguments)

    def _hello(self, _connection: Connection, _arguments: dict[str, Any]) -> bytes:
        return wire.pack(
            {
                "server": f"spotokend {__version__}",
                "protocol": wire.PROTOCOL,
                "methods": list(METHODS),
            }
        )

    def _token(
        self, _connection: Connection, arguments: dict[str, Any]
    ) -> bytes | Coroutine[Any, Any, bytes]:
        name = self._registry.name(arguments.get("account"))
        min_ttl = arguments.get("min_ttl", 0.0)
        scopes = arguments.get("scopes")
        prepared = self._board.get(name)
        if (
            prepared is not None
            and prepared.expires_at - self._boot() >= max(prepared.floor, min_ttl)
            and min_ttl <= schedule.most_min_ttl(prepared.life)
            and (not scopes or prepared.scopes.issuperset(scopes))
        ):
            return prepared.packed
        return self._token_after_renewal(self._registry.find(name), min_ttl, scopes or ())

    async def _token_after_renewal(
        self, account: Account, min_ttl: float, scopes: tuple[str, ...]
    ) -> bytes:
        await self._unsealed(account)
        self._check_min_ttl(account, min_ttl)
        held = self._held(account, min_ttl)
        if held is not None and not held.scopes.issuperset(scopes):
            # A login widens scopes; a refresh only by what was granted elsewhere meanwhile.
            raise _insufficient(account, held.scopes, scopes)
        if held is None or held.expires_at - self._boot() < held.floor:
            try:
                await self._keeper.renew(account)
            except SpotokendError:
                # Whatever the refresh met: a token that still meets what was asked for is served.
                if self._held(account, min_ttl) is None:
                    raise
        return self._answer(account, min_ttl, scopes)

    def _held(self, account: Account, min_ttl: float) -> Prepared | None:
        """What is on the board, if it has that long to live.

        Not what the state holds: while an answer is written that is another token.
        """
        now = self._boot()
        prepared = self._board.usable(account.name, now)
        if prepared is None or prepared.expires_at - now < min_ttl:
            return None
        return prepared

    def _answer(self, account: Account, min_ttl: float, scopes: tuple[str, ...]) -> bytes:
        held = self._held(account, min_ttl)
        if held is None:
            self._check_min_ttl(account, min_ttl)  # the first token tells how long they live
            raise refusal(account.name, account.state, account.client.gate, self._boot())
        if not held.scopes.issuperset(scopes):
            raise _insufficient(account, held.scopes, scopes)
        return held.packed

    async def _unsealed(self, account: Account) -> None:
        try:
            await self._keeper.unsealed(account)
        except StoreError as error:
            raise Unavailable(
                f"{account.name}: the store can't be read: {error}", account=account.name
            ) from None

    async def _written(self, account: Account) -> None:
        """Return when the answer that is just being written, if one is, is on the board."""
        if isinstance(account.state, Unsaved):
            await account.settled()

    def _check_min_ttl(self, account: Account, min_ttl: float) -> None:
        prepared = self._board.get(account.name)
        life = account.client.policy.timing.default_life if prepared is None else prepared.life
        most = schedule.most_min_ttl(life)
        if min_ttl > most:
            raise BadRequest(
                f"min_ttl is {min_ttl:g} s, and a token of {account.name} lives {life:g} s",
                account=account.name,
                maximum=most,
                hint=f"ask for at most {most:g} s",
            )

    async def _reject(self, _connection: Connection, arguments: dict[str, Any]) -> bytes:
        account = self._registry.find(arguments.get("account"))
        await self._unsealed(account)
        await self._written(account)  # else the refused token is what the board still has
        generation = arguments["generation"]
        if generation > account.state.generation:
            raise BadRequest(
                f"{account.name} has had no token of generation {generation} yet",
                account=account.name,
                hint="report the generation that came with the refused token",
            )
        await self._keeper.reject(account, generation)
        if not later(account.state, generation):
            # It joined a refresh that was under way, and that brought nothing.
            raise refusal(account.name, account.state, account.client.gate, self._boot())
        return self._answer(account, 0.0, ())

    async def _refresh(self, _connection: Connection, arguments: dict[str, Any]) -> bytes:
        account = self._registry.find(arguments.get("account"))
        await self._unsealed(account)
        await self._written(account)  # else this joins a refresh that is counted already
        before = account.state.generation
        await self._keeper.renew(account, forced=True)
        if account.state.generation == before:
            raise refusal(account.name, account.state, account.client.gate, self._boot())
        return self._answer(account, 0.0, ())

    async def _watch(self, connection: Connection, arguments: dict[str, Any]) -> bytes:
        names = arguments.get("accounts")
        accounts = (
            list(self._registry.accounts.values())
            if names is None
            else [self._registry.find(name) for name in names]
        )
        for account in accounts:
            with suppress(Locked):  # it hears of them when there is a key
                await self._unsealed(account)
        tokens = arguments.get("tokens", True)
        watched = None if names is None else frozenset(account.name for account in accounts)
        self._board.watch(Watcher(connection, watched, tokens=tokens))
        connection.when_closed = lambda: self._board.forget(connection)
        now = self._boot()
        held: list[Prepared | None] = []
        if tokens:
            held = [self._board.usable(account.name, now) for account in accounts]
        return wire.pack(
            {
                "accounts": [self._status_of.account(account) for account in accounts],
                "tokens": [wire.unpack(prepared.packed) for prepared in held if prepared],
            }
        )

    async def _status(self, _connection: Connection, arguments: dict[str, Any]) -> bytes:
        name = arguments.get("account")
        registry = self._registry
        if name is not None:
            page, following = [registry.find(name)], None
        else:
            limit, after = arguments.get("limit", PAGE), arguments.get("after", "")
            names = sorted(known for known in registry.accounts if known > after)
            page = [registry.accounts[known] for known in names[:limit]]
            following = names[limit - 1] if len(names) > limit else None
        for account in page:
            # Just while the store can't be read somebody wants to know how things are.
            with suppress(StoreError, Locked):
                await self._keeper.unsealed(account)
        return wire.pack(self._status_of.page(page, following, whole_story=name is not None))

    async def _login_start(self, _connection: Connection, arguments: dict[str, Any]) -> bytes:
        return wire.pack(
            await self._logins.start(
                arguments.get("account"),
                arguments.get("client"),
                tuple(arguments.get("scopes") or ()),
                arguments.get("redirect_uri"),
            )
        )

    async def _login_finish(self, _connection: Connection, arguments: dict[str, Any]) -> bytes:
        return wire.pack(
            await self._logins.finish(arguments["login_id"], arguments["redirect_url"])
        )

    def _login_cancel(self, _connection: Connection, arguments: dict[str, Any]) -> bytes:
        self._logins.cancel(arguments["login_id"])
        return NOTHING

    async def _logout(self, _connection: Connection, arguments: dict[str, Any]) -> bytes:
        await self._logins.logout(self._registry.find(arguments["account"]))
        return NOTHING

    async def _reload_now(self, _connection: Connection, _arguments: dict[str, Any]) -> bytes:
        return wire.pack(await self._reload())

    def _stop_now(self, _connection: Connection, _arguments: dict[str, Any]) -> bytes:
        self._stop()
        return NOTHING

    async def _unlock(self, _connection: Connection, _arguments: dict[str, Any]) -> bytes:
        with _store_readable():
            await self._keys.unlock()
        return NOTHING

    async def _rekey(self, _connection: Connection, arguments: dict[str, Any]) -> bytes:
        to = arguments.get("to")
        return wire.pack(await (self._keys.rekey() if to is None else self._keys.move(to)))

    async def _tell_of_store(self, _connection: Connection, _arguments: dict[str, Any]) -> bytes:
        with _store_readable():
            return wire.pack(await self._store_info())


@contextmanager
def _store_readable() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise Unavailable(f"the store can't be read: {error}") from None


def _insufficient(
    account: Account, granted: frozenset[str], wanted: tuple[str, ...]
) -> InsufficientScope:
    missing = sorted(set(wanted) - granted)
    options = " ".join(f"--scope {scope}" for scope in missing)
    return InsufficientScope(
        f"the login of {account.name} lacks {', '.join(missing)}",
        account=account.name,
        missing=missing,
        hint=f"spotokend login {account.name} {options}",
    )
