"""Hubs: which instances are open here. Opened on first use, closed a minute after the last connection left."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import uniform

import structlog

from app.edge import sqlite
from app.edge.changes import Changes
from app.edge.clock import now_ms
from app.edge.database import Connection, Database
from app.errors import AppError, NotFound, Unavailable
from app.identity.principal import Principal
from app.instances import protocol
from app.instances.hub import DELETED, DELETED_REASON, GOING_AWAY, GOING_AWAY_REASON, Hub
from app.instances.member import Member
from app.instances.relay import Relay
from app.instances.store import Store, Stores
from app.projects import access, access_queries, instances
from app.projects.access import NO_INSTANCE, Level

OPEN_INSTANCES = 300
IDLE_SECONDS = 60.0
SWEEP_SECONDS = 5.0
AWAY_MS = (200, 2_000)
REVOKED, REVOKED_REASON = 4403, "Access revoked"

log = structlog.get_logger("hubs")


class Hubs:
    """One for the process. `OPEN_INSTANCES` files are open at most; the longest unused closes first."""

    def __init__(self, db: Database, folder: Path) -> None:
        self._db = db
        self._stores = Stores(folder)
        self._relay = Relay(db)
        self._open: dict[str, Hub] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._closing = False
        # Of two reads the one that began first may end last: what is held to must be what was read last.
        self._asking = asyncio.Lock()

    def listen(self, changes: Changes) -> None:
        """Close what was deleted, and ask again what each member may do when that has changed."""
        self._relay.listen(changes)
        loop = asyncio.get_running_loop()
        changes.listen(instances.TOPIC, lambda key: self._soon(loop, self._delete(key)))
        for topic in (access.TOPIC, "user", "key"):
            changes.listen(topic, lambda key: self._soon(loop, self._review()))
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def use(self, instance_id: str) -> AsyncIterator[Hub]:
        """The instance's hub, which stays open meanwhile."""
        hub = await self.open(instance_id)
        hub.users += 1
        try:
            yield hub
        finally:
            hub.users -= 1
            hub.audience.left_at = time.monotonic()

    async def open(self, instance_id: str) -> Hub:
        """The hub of an instance that is there; opened when it is not. NotFound, Unavailable."""
        hub = self._open.get(instance_id)
        if hub is not None:
            return hub
        lock = self._opening.setdefault(instance_id, asyncio.Lock())
        async with lock:
            hub = self._open.get(instance_id) or await self._start(instance_id)
        self._opening.pop(instance_id, None)
        return hub

    async def clone(self, source_id: str, new_id: str) -> None:
        """Copy what is committed of one instance into another, which has nothing yet."""
        async with self.use(source_id) as source:
            await source.copy(self._stores.path(new_id))

    def seen(self) -> list[Hub]:
        return list(self._open.values())

    async def sweep(self) -> None:
        """Close what nobody uses, drop who reads too slowly, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            for hub in self.seen():
                hub.audience.drop_slow(now)
                if hub.idle and now - hub.audience.left_at > IDLE_SECONDS:
                    await self._stop(hub)

    async def close(self) -> None:
        """Tell everybody that it goes away, finish what was accepted, close the files."""
        self._closing = True
        for task in list(self._tasks):
            task.cancel()
        for hub in self.seen():
            hub.audience.close_all(GOING_AWAY, GOING_AWAY_REASON, protocol.going_away(away_ms()))
            await self._stop(hub)
        await self._relay.close()
        self._stores.close()

    async def _start(self, instance_id: str) -> Hub:
        if self._closing:
            raise Unavailable("The server is shutting down")
        row = await self._db.read(access_queries.find_instance, instance_id)
        if row is None:
            raise NotFound(NO_INSTANCE)
        await self._make_room()
        store = Store(self._stores.path(instance_id))
        hub = Hub(instance_id, store, self._stores.thread_of(instance_id), read_only=row.is_readonly)
        try:
            await hub.start()
        except (sqlite.Error, OSError) as error:
            raise Unavailable("The instance cannot be opened now") from error
        self._open[instance_id] = hub
        self._relay.attach(hub)
        return hub

    async def _make_room(self) -> None:
        if len(self._open) < OPEN_INSTANCES:
            return
        idle = sorted((hub for hub in self._open.values() if hub.idle), key=lambda hub: hub.audience.left_at)
        if not idle:
            raise Unavailable(f"Too many instances are open: {len(self._open)} of {OPEN_INSTANCES}")
        await self._stop(idle[0])

    async def _stop(self, hub: Hub) -> None:
        self._open.pop(hub.id, None)
        await self._relay.detach(hub)
        await hub.stop()

    def _soon(self, loop: asyncio.AbstractEventLoop, work: "asyncio.Future[None] | object") -> None:
        task: asyncio.Task[None] = loop.create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _delete(self, instance_id: str) -> None:
        hub = self._open.get(instance_id)
        if hub is not None:
            hub.audience.close_all(DELETED, DELETED_REASON)
            await self._stop(hub)
        store = Store(self._stores.path(instance_id))
        await asyncio.get_running_loop().run_in_executor(self._stores.thread_of(instance_id), store.delete)

    async def _review(self) -> None:
        """Ask again what every member may do: downgraded in place, or closed."""
        for hub in self.seen():
            async with self._asking:
                row = await self._db.read(access_queries.find_instance, hub.id)
                hub.read_only = row.is_readonly if row is not None else True
            for member in list(hub.audience.members.values()):
                await self.review(hub, member)

    async def review(self, hub: Hub, member: Member) -> None:
        """Ask again what a member may do."""
        try:
            async with self._asking:
                self._hold_to(member, await self._db.read(_level, member.caller.asked, hub.id, now_ms()))
        except AppError as error:
            log.warning("access_not_reviewed", instance=hub.id, error=error.message)

    def _hold_to(self, member: Member, level: Level) -> None:
        level = min(level, member.cap)
        if level < Level.READ:
            member.socket.close(REVOKED, REVOKED_REASON)
        elif level != member.caller.level:
            member.caller = member.caller._replace(level=level)


def away_ms() -> int:
    """How long a client waits before it comes back, so that not all come at once."""
    return round(uniform(*AWAY_MS))


def _level(connection: Connection, principal: Principal, instance_id: str, now: int) -> Level:
    return access.level_of(connection, principal, instance_id, now).level
