"""Hubs: which instances are open here. Opened on first use, closed a minute after the last connection left."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import structlog

from app.edge import sqlite
from app.edge.backup import Backup
from app.edge.changes import Changes
from app.edge.database import Database
from app.edge.flights import Flights
from app.edge.homes import Home, Machine
from app.edge.keeper import Keeper
from app.edge.lease import Fenced
from app.edge.peers import Peers
from app.errors import AppError, NotFound, Unavailable
from app.instances import endings
from app.instances.arrivals import Arrivals
from app.instances.backlog import Backlog
from app.instances.doubts import Look
from app.instances.hub import Hub
from app.instances.relay import Enqueue, Relay
from app.instances.replicas import Replicas
from app.instances.reviews import Reviews
from app.instances.store import Retention, Store, Stores
from app.projects import access_queries, instances
from app.projects.access import NO_INSTANCE

OPEN_INSTANCES = 300
IDLE_SECONDS = 60.0
SWEEP_SECONDS = 5.0
# Longer than a last commit and the rest of a file wait for a replica that does not answer.
CLOSE_SECONDS = 15.0

log = structlog.get_logger("hubs")


class Hubs:
    """One for the process. `most_open` files are open at most; the longest unused closes first."""

    def __init__(
        self,
        db: Database,
        folder: Path,
        retention: Retention,
        *,
        most_open: int = OPEN_INSTANCES,
        backlog: Backlog | None = None,
        backup: Backup | None = None,
        keeper: Keeper | None = None,
        peers: Peers | None = None,
        enqueue: Enqueue | None = None,
        look: Look | None = None,
    ) -> None:
        self.backlog = backlog or Backlog()
        self.reviews = Reviews(db, self.seen)
        self.replicas = Replicas(backup)
        self._db = db
        self._stores = Stores(folder, retention)
        # Where every instance has a home, only that opens it.
        self._keeper = keeper
        # Told of each instance that was closed because nobody used it.
        self.hibernated: Callable[[str], None] = lambda instance_id: None
        self._arrivals = Arrivals(keeper, peers, self._stores, backup) if keeper and peers else None
        self.parcels = self._arrivals.parcels if self._arrivals is not None else None
        self._relay = Relay(db, enqueue)
        # How a hub whose core may lag comes as far as the primary is, before it refuses.
        self._look = look
        self._most_open = most_open
        self._open: dict[str, Hub] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._starting = 0
        self._opening = Flights[str, None]()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    def listen(self, changes: Changes) -> None:
        """Close what was deleted, and ask again what each member may do when that has changed."""
        self._relay.listen(changes)
        self.reviews.listen(changes)
        changes.listen(instances.TOPIC, lambda key: self._soon(self.delete(key)))

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
        while (hub := self._open.get(instance_id)) is None:
            # Who asked may leave meanwhile. Half open the hub would go on by itself, and begun anew with each who comes
            # back a large file might never be here.
            await self._opening.join(instance_id, partial(self._open_alone, instance_id))
        self._check(hub)
        return hub

    async def clone(self, source_id: str, new_id: str) -> None:
        """Copy what is committed of one instance into another, which has nothing yet."""
        async with self.use(source_id) as source:
            await self.receive(new_id, source.copy)

    async def receive(self, new_id: str, write: Callable[[Path], Awaitable[None]]) -> None:
        """Have `write` make the file of an instance that has none yet."""
        await write(self._stores.path(new_id))
        if self._arrivals is not None:
            await self._arrivals.receive(new_id)
        await self.replicas.ship_new(new_id, self._stores.store(new_id), self._stores.thread_of(new_id))

    @asynccontextmanager
    async def closed(self, instance_id: str) -> AsyncIterator[Store]:
        """The file of an instance that nobody opens here meanwhile. Unavailable where it is in use."""
        async with self._lock(instance_id):
            store = self._stores.store(instance_id)
            if instance_id in self._open or self.replicas.holds(store.path):
                raise Unavailable("The file is in use")
            yield store

    def seen(self) -> list[Hub]:
        return list(self._open.values())

    async def sweep(self) -> None:
        """Close what nobody uses, drop who reads too slowly, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await self.sweep_once(time.monotonic())

    async def sweep_once(self, now: float) -> None:
        """`now` is of the monotonic clock."""
        for hub in self.seen():
            hub.audience.drop_slow(now)
            if hub.idle and now - hub.audience.left_at > IDLE_SECONDS:
                await self._hibernate(hub)

    async def hand_over(self, instance_id: str, to: Machine) -> Home:
        """Close an instance here and give it to another machine, which has the file from this one. Unavailable."""
        if self._keeper is None:
            raise Unavailable("This machine is alone")
        async with self._lock(instance_id):
            # What was never opened has no file that could be given.
            hub = self._open.get(instance_id) or await self._start(instance_id)
            home = await self._keeper.require(instance_id)
            hub.audience.send_away()
            await self._stop(hub, _is_closing)
            if self.replicas.holds(self._stores.path(instance_id)):
                # Its next owner may come to need the replica's copy.
                raise Unavailable("Not all of it is in the backup yet")
            return await self._keeper.hand_over(home, to)

    def fence(self) -> None:
        """Close all that is open, with no acknowledgement: it may be another machine's by now."""
        for hub in self.seen():
            self._abandon_soon(hub)

    async def close(self) -> None:
        """Tell everybody that it goes away, finish what was accepted, close the files."""
        self._closing = True
        await self.reviews.close()
        ending = [*self._tasks, *self._opening.tasks()]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        for hub in self.seen():
            hub.audience.send_away()
        # All at once, so that a slow replica is waited for once; also what is just being opened.
        await asyncio.gather(*map(self._close_one, {*self._open, *self._locks}))
        await self._relay.close()
        self._stores.close()

    async def _open_alone(self, instance_id: str) -> None:
        async with self._lock(instance_id):
            if instance_id in self._open:
                return
            hub = await self._start(instance_id)
            try:
                # What was announced while it was being opened, nobody has told it.
                await self.reviews.review_hub(hub)
            except AppError:
                await self._stop(hub, _is_closing)
                raise

    async def _start(self, instance_id: str) -> Hub:
        if self._closing:
            raise Unavailable("The server is shutting down")
        row = await self._db.read(access_queries.find_instance, instance_id)
        if row is None:
            raise NotFound(NO_INSTANCE)
        store, thread = self._stores.store(instance_id), self._stores.thread_of(instance_id)
        hub = Hub(instance_id, store, thread, read_only=row.is_readonly, backlog=self.backlog, look=self._look)
        self._starting += 1
        try:
            await self._make_room()
            arrived = await self._arrivals.bring(instance_id) if self._arrivals is not None else None
            if arrived is not None:
                hub.check = arrived.check
            await hub.start(arrived.epoch if arrived is not None else None)
            hub.broken = self._abandon_soon
            await self.replicas.hold(hub, store)
        except BaseException as error:
            await hub.stop(_is_closing)
            if isinstance(error, (sqlite.Error, OSError)):
                raise Unavailable("The instance cannot be opened now") from error
            raise
        finally:
            self._starting -= 1
        self._open[instance_id] = hub
        self._relay.attach(hub)
        return hub

    async def _make_room(self) -> None:
        if len(self._open) + self._starting <= self._most_open:
            return
        idle = min((hub for hub in self._open.values() if hub.idle), key=lambda hub: hub.audience.left_at, default=None)
        if idle is None:
            raise Unavailable(f"Too many instances are open: {len(self._open)} of {self._most_open}")
        await self._hibernate(idle)

    async def _hibernate(self, hub: Hub) -> None:
        """Close what nobody uses. Who opens it meanwhile waits, and reads what it wrote last."""
        async with self._lock(hub.id):
            if hub.idle:
                await self._stop(hub, _is_closing)
                self.hibernated(hub.id)

    def _check(self, hub: Hub) -> None:
        try:
            hub.check()
        except Fenced:
            self._abandon_soon(hub)
            raise

    def _abandon_soon(self, hub: Hub) -> None:
        self._soon(self._abandon(hub))

    async def _abandon(self, hub: Hub) -> None:
        """Its state may not be the file's: everybody comes back to one that is read anew."""
        async with self._lock(hub.id):
            hub.audience.close_all(endings.TRY_AGAIN, endings.TRY_AGAIN_REASON)
            await self._stop(hub, _is_closing)

    async def _close_one(self, instance_id: str) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS), self._lock(instance_id):
                if instance_id in self._open:
                    await self._stop(self._open[instance_id], _is_closing)
        except (AppError, TimeoutError) as error:
            log.error("not_closed", instance=instance_id, error=repr(error))

    async def _stop(self, hub: Hub, why: Callable[[], AppError]) -> None:
        # Whoever is first stops it: a sweep may come to a hub that was closed for another's sake meanwhile.
        if self._open.get(hub.id) is hub:
            del self._open[hub.id]
            await self._relay.detach(hub)
            await hub.stop(why)

    def _lock(self, instance_id: str) -> asyncio.Lock:
        """Whoever opens an instance or deletes it is alone with it."""
        return self._locks.setdefault(instance_id, asyncio.Lock())

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def delete(self, instance_id: str) -> None:
        """What was deleted in the core is closed, and its file goes."""
        if self._keeper is not None:
            self._keeper.forget(instance_id)
        # Who is opening it has found its row before, and would make the file again behind this.
        async with self._lock(instance_id):
            hub = self._open.get(instance_id)
            if hub is not None:
                hub.audience.close_all(endings.DELETED, endings.DELETED_REASON)
                await self._stop(hub, _is_gone)
            store = self._stores.store(instance_id)
            await asyncio.get_running_loop().run_in_executor(self._stores.thread_of(instance_id), store.delete)


def _is_gone() -> AppError:
    return NotFound(NO_INSTANCE)


def _is_closing() -> AppError:
    return Unavailable("The instance is being closed")
