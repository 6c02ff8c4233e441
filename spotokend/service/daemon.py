"""The daemon: the one place where its parts are put together, started and stopped.

Read :meth:`Daemon.publish` to know who hears of a change. The order of a start: configuration,
lock, key, store, socket, loops; the first stored token is served before httpx and structlog are
loaded. The order of a stop: nothing new is begun, what is under way is finished and saved, replies
are flushed, the socket goes last.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from spotokend import paths
from spotokend.adapters.client_secrets import read_secrets
from spotokend.adapters.config_file import read_config
from spotokend.adapters.hardening import harden
from spotokend.adapters.listener import listening
from spotokend.adapters.lockfile import AlreadyRunning, StateLock
from spotokend.adapters.logs import Log
from spotokend.adapters.notify import Notify
from spotokend.adapters.spill import SpillFolder
from spotokend.adapters.store.base import StoreError
from spotokend.adapters.store.sqlite import SqliteStore
from spotokend.adapters.uncaught import tell_instead
from spotokend.errors import Misconfigured, SpotokendError, Unavailable
from spotokend.rules.config.diff import changes
from spotokend.rules.config.values import Config
from spotokend.rules.notice import Change, Level, Notice, notices, of_key
from spotokend.rules.schedule import Boot, Wall
from spotokend.rules.sealing import KeyRing
from spotokend.rules.secret import Secret

from . import defects
from .board import Board
from .clock import Clock, boot_id
from .handlers import Handlers
from .keeper import Keeper
from .keys import KeyPlace, Keys
from .late_secrets import LateSecrets
from .logins import Logins
from .places import place_of_key, place_of_socket, place_of_store
from .refresh import Refresh
from .registry import Account, Registry
from .roster import Roster
from .rows import Rows
from .server import Server
from .status import Status
from .supervision import Supervision, supervised
from .vault import Vault

if TYPE_CHECKING:
    from spotokend.adapters.endpoint import Endpoint


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run(
    config_path: str,
    *,
    log_level: str | None = None,
    ready: Callable[[], None] = lambda: None,
) -> int:
    """Run the daemon in the foreground until it is told to stop; returns the exit status.

    ``ready`` is called as soon as it answers.

    Raises:
        Misconfigured: nothing was started; the message names the place and the cure.
    """
    os.umask(0o077)  # nothing that it makes is ever readable by others, not even for a moment
    hardened = harden()  # before there is a secret in this process
    return supervised(partial(_run, config_path, log_level, ready, hardened))


def _run(
    config_path: str,
    log_level: str | None,
    ready: Callable[[], None],
    hardened: Mapping[str, str],
    /,
    *,
    notify: Notify,
    held: socket.socket | None,
) -> int:
    config = read_config(config_path)
    client_secrets = read_secrets(config)
    log = Log(log_level or config.daemon.log_level, config.daemon.log_format)
    log("hardened", level="debug", **hardened)
    event_loop = tell_instead(partial(defects.tell, log))
    for warning in config.warnings:
        log("configuration", level="warning", words=warning)
    store_path = place_of_store(config)
    key_place = place_of_key(config)
    socket_path = place_of_socket(config) if held is None else held.getsockname()
    if held is not None and socket_path != place_of_socket(config):
        words = f"systemd's socket is {socket_path}, and not {place_of_socket(config)}"
        log("configuration", level="warning", words=words, hint="spotokend service install")
    daemon = Daemon(
        config, config_path, socket_path, log, log_level=log_level, ready=ready, notify=notify
    )
    # The socket accepts clients, and so shows that somebody is here, before the loop can heed a
    # signal: one that comes in between waits.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        with StateLock(f"{store_path}.lock"), listening(socket_path, held) as listener:
            anyio.run(
                daemon.serve,
                store_path,
                key_place,
                listener,
                client_secrets,
                backend_options={"loop_factory": event_loop},
            )
    except AlreadyRunning as error:
        raise Misconfigured(str(error)) from None
    except StoreError as error:
        raise Misconfigured(f"the store can't be used: {error}") from None
    finally:
        log.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # a start may have ended before the loop
    return 0


class Daemon:
    """See the module."""

    def __init__(
        self,
        config: Config,
        config_path: str,
        socket_path: str,
        log: Log,
        *,
        log_level: str | None = None,
        ready: Callable[[], None] = lambda: None,
        notify: Notify | None = None,
    ) -> None:
        self._ready = ready
        self._notify = notify or Notify({})
        self._log_level = log_level
        """Asked for on the command line: it outlives a reload."""
        self._config_path = config_path
        self._socket_path = socket_path
        self._log = log
        self._stop = anyio.Event()
        self._begun = anyio.Event()
        self._keeping: TaskGroup
        self._reloading = anyio.Lock()
        self._endpoint_lock = anyio.Lock()
        self._endpoint: Endpoint | None = None
        self.clock = Clock(
            boot=lambda: Boot(time.clock_gettime(time.CLOCK_BOOTTIME)),
            wall=lambda: Wall(time.time()),
            rand=random.SystemRandom().random,
            boot_id=boot_id(),
        )
        self.registry = Registry(config, self.clock, publish=self.publish)
        self.board = Board(self.clock)
        self._supervision = Supervision(self._notify, self.registry)

    def publish(self, account: Account, change: Change) -> None:
        """An account's state changed: everybody who hears of it, in this order."""
        self.keeper.schedule(account)
        self.board.apply(account, change.before)
        self._supervision.heard(account)
        if self.board.watched(account.name):
            self.board.tell_state(account.name, self.status.account(account))
        for notice in notices(change):
            self.tell(notice)

    def tell(self, notice: Notice) -> None:
        """A notice: to those that watch, and to the log."""
        self.board.tell(notice)
        self._log(
            notice.kind,
            level=notice.level.value,
            account=notice.account,
            words=notice.message,
            hint=notice.hint,
        )

    async def serve(
        self,
        store_path: str,
        key_place: KeyPlace,
        listener: socket.socket,
        client_secrets: Mapping[str, Secret | None],
    ) -> None:
        """Compose the parts and run them until :meth:`stop`."""
        store = await SqliteStore.open(store_path, now=self.clock.wall())
        for note in store.notes:
            self._log("store", level="warning", words=note)
        ring = KeyRing()
        vault = Vault(
            store,
            Rows(ring, self.clock, random_bytes=secrets.token_bytes),
            SpillFolder(paths.unsaved_dir(self._socket_path)),
        )
        keys = Keys(
            key_place,
            ring,
            vault,
            random_bytes=secrets.token_bytes,
            place_at=partial(place_of_key, self.registry.config),
            unlocked=self._unlocked,
            tell=lambda error: self.tell(of_key(error, self.clock.wall())),
        )
        for notice in await keys.start():
            self.tell(notice)
        refresh = Refresh(
            self.registry,
            vault,
            self.endpoint,
            new_id=lambda: secrets.token_hex(8),
            log=self._log,
        )
        self.keeper = Keeper(self.registry, refresh, clocks_moved=self._clocks_moved, log=self._log)
        self._late_secrets = LateSecrets(self.registry, kick=self.keeper.kick, log=self._log)
        self._roster = Roster(self.registry, vault, log=self._log)
        logins = Logins(
            self.registry,
            vault,
            self.endpoint,
            random_bytes=secrets.token_bytes,
            log=self._log,
        )
        self.status = Status(
            self.registry,
            socket=self._socket_path,
            config_path=self._config_path,
            store={"backend": "sqlite", "path": store_path},
            connections=lambda: server.connections,
            locked=lambda: keys.reason,
        )
        handlers = Handlers(
            self.registry,
            self.board,
            self.keeper,
            logins,
            self.status,
            keys=keys,
            reload=self.reload,
            stop=self.stop,
            store_info=keys.store_info,
        )
        server = Server(handlers, own_uid=os.getuid(), log=self._log)
        await self._roster.populate(client_secrets)
        self._late_secrets.look()
        try:
            async with anyio.create_task_group() as around:
                await around.start(self._heed_signals)
                async with anyio.create_task_group() as serving:
                    await serving.start(server.serve, listener)
                    around.start_soon(self._load_the_slow_parts, logins, keys)
                    around.start_soon(self._late_secrets.run)
                    async with anyio.create_task_group() as keeping:
                        if keys.ready:
                            await keeping.start(self.keeper.run)
                        else:
                            around.start_soon(keys.wait)
                        self._keeping = keeping
                        self._begun.set()
                        self._log("ready", pid=os.getpid(), socket=self._socket_path)
                        self._ready()
                        self._notify.ready()
                        around.start_soon(self._supervision.tell_status)
                        around.start_soon(self._supervision.feed_watchdog, self.keeper, server)
                        await self._stop.wait()
                        self._log("stopping")
                        around.start_soon(self._supervision.ask_for_time)
                        self.keeper.stop()
                        keys.stop()
                    await server.close()
                around.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                if self._endpoint is not None:
                    await self._endpoint.aclose()
                await vault.close()

    def stop(self) -> None:
        """Finish what is under way, then end."""
        self._stop.set()

    async def reload(self) -> dict[str, object]:
        """Read the configuration again: all of it is applied, or nothing; the ``reload`` result.

        Raises:
            Misconfigured: it can't be used; everything goes on as before.
        """
        async with self._reloading, self._supervision.reload():
            old = self.registry.config
            new = await to_thread.run_sync(read_config, self._config_path)
            known = self._late_secrets.known(new)
            client_secrets = await to_thread.run_sync(read_secrets, new, known)
            found = changes(old, new)
            # What is looked at once, at the start, stays as it is until the next.
            daemon = replace(new.daemon, socket=old.daemon.socket, log_format=old.daemon.log_format)
            applied = replace(new, daemon=daemon, store=old.store, timing=old.timing)
            self._log.set_level(self._log_level or applied.daemon.log_level)
            try:
                await self._roster.reconfigure(applied, client_secrets)
            except StoreError as error:
                raise Unavailable(
                    f"the store can't be read, and not all is applied: {error}",
                    hint="mend that, then: spotokend reload",
                ) from None
            finally:
                self._encode_anew()
                self._late_secrets.look()
                self.keeper.kick()
        words = [change.words for change in found]
        self._log("reloaded", changes=words)
        return {"changes": words, "warnings": list(new.warnings)}

    async def endpoint(self) -> Endpoint:
        """The HTTP side, loaded when it is first needed: httpx costs as much as the whole start."""
        async with self._endpoint_lock:
            if self._endpoint is None:
                make = await to_thread.run_sync(_import_endpoint)
                self._endpoint = make(
                    timing=self.registry.config.timing,
                    boot=self.clock.boot,
                    wall=self.clock.wall,
                )
        return self._endpoint

    async def _unlocked(self, notices: list[Notice]) -> None:
        """The key is there, later than at the start: go on with what waited for it."""
        for notice in notices:
            self.tell(notice)
        await self._roster.unlocked()
        for account in list(self.registry.accounts.values()):
            if self.board.watched(account.name):
                await self.keeper.unsealed(account)
        await self._begun.wait()
        if not self._stop.is_set():
            await self._keeping.start(self.keeper.run)

    async def _load_the_slow_parts(self, logins: Logins, keys: Keys) -> None:
        await to_thread.run_sync(self._log.open)
        await keys.opened()
        try:
            await logins.resume()
        except StoreError as error:
            self._log("store", level="error", words=str(error))
        except Exception as error:  # noqa: BLE001 - it would end everybody's daemon
            defects.tell(self._log, "resume", error)

    async def _heed_signals(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        with anyio.open_signal_receiver(*SIGNALS) as received:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            task_status.started()
            async with anyio.create_task_group() as reloads:
                async for number in received:
                    if number == signal.SIGHUP:
                        # It may wait for a late answer, and SIGTERM must not wait for it.
                        reloads.start_soon(self._reload_or_say_why)
                    else:
                        self.stop()

    async def _reload_or_say_why(self) -> None:
        try:
            await self.reload()
        except SpotokendError as error:
            self._log("reload_refused", level="error", words=error.message, hint=error.hint)
        except Exception as error:  # noqa: BLE001 - it would end everybody's daemon
            defects.tell(self._log, "reload", error)

    def _encode_anew(self) -> None:
        """What prepared replies tell besides the token is another now."""
        for account in self.registry.accounts.values():
            self.board.prepare(account)

    def _clocks_moved(self, jump: float) -> None:
        self._encode_anew()
        words = f"civil time was set by {jump:+.0f} s" if jump else "this host was asleep"
        self.tell(Notice("clock_moved", Level.INFO, None, words, None, self.clock.wall()))


def _import_endpoint() -> Callable[..., Endpoint]:
    from spotokend.adapters.endpoint import Endpoint

    return Endpoint
