"""The relay: what an instance's file owes to webhooks, carried to the core and then forgotten in the file.

Both steps may be repeated: the core knows an event by its id, and the file keeps it until the core has it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from app.edge.changes import Changes
from app.edge.clock import now_ms
from app.edge.database import Connection, Database
from app.errors import AppError
from app.instances import queries
from app.instances.hub import Hub
from app.webhooks import outbox, subscription_queries, subscriptions
from app.webhooks.outbox import Event

EVENTS = 100
RETRY_SECONDS = 1.0

# Brings an instance's events to the core, or to where nothing of them is lost on the way there.
Enqueue = Callable[[str, Sequence[Event]], Awaitable[None]]

log = structlog.get_logger("relay")


class Relay:
    """One for the process; one task for each hub that owes something."""

    def __init__(self, db: Database, enqueue: Enqueue | None = None) -> None:
        self._db = db
        self._enqueue = enqueue or self._write
        self._running: dict[str, asyncio.Task[None]] = {}
        self._hubs: dict[str, Hub] = {}
        self._asking: asyncio.Task[None] | None = None
        self._unsure: set[str] = set()

    def listen(self, changes: Changes) -> None:
        """A webhook that comes or goes changes what instances have to tell."""
        changes.listen(subscriptions.TOPIC, lambda key: self._ask_soon(*self._hubs))

    def attach(self, hub: Hub) -> None:
        """Begin to carry for a hub that has just been opened, also what an earlier process left."""
        self._hubs[hub.id] = hub
        self._ask_soon(hub.id)
        hub.owing = self.carry
        self.carry(hub)

    async def detach(self, hub: Hub) -> None:
        """Leave the file alone: what it owes still is carried when it is opened again."""
        self._hubs.pop(hub.id, None)
        task = self._running.get(hub.id)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def carry(self, hub: Hub) -> None:
        # What a hub still commits while it stops stays in its file until it is opened again.
        if self._hubs.get(hub.id) is hub and hub.id not in self._running:
            task = asyncio.get_running_loop().create_task(self._carry(hub))
            self._running[hub.id] = task
            task.add_done_callback(lambda _: self._running.pop(hub.id, None))

    async def _carry(self, hub: Hub) -> None:
        while True:
            try:
                rows = await hub.read_file(queries.list_events, EVENTS)
                if not rows:
                    return
                events = [Event(row[1], row[2], row[3], row[4]) for row in rows]
                await self._enqueue(hub.id, events)
                await hub.read_file(queries.delete_events, rows[-1][0])
            except AppError as error:
                log.warning("events_not_carried", instance=hub.id, error=error.message)
                await asyncio.sleep(RETRY_SECONDS)

    async def _write(self, instance_id: str, events: Sequence[Event]) -> None:
        await self._db.write(outbox.enqueue_instance_events, instance_id, events, now_ms())

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    def _ask_soon(self, *instance_ids: str) -> None:
        """Ask again whether anybody listens. Until that is known every change is told: one too many is dropped on
        its way, one too few would be lost."""
        for instance_id in instance_ids:
            self._hubs[instance_id].tells = True
        self._unsure.update(instance_ids)
        if self._unsure and (self._asking is None or self._asking.done()):
            self._asking = asyncio.get_running_loop().create_task(self._ask())

    async def _ask(self) -> None:
        while self._unsure:
            instance_id = self._unsure.pop()
            try:
                listened = await self._db.read(_has_listeners, instance_id)
            except AppError as error:
                log.warning("listeners_not_read", instance=instance_id, error=error.message)
                self._unsure.add(instance_id)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            hub = self._hubs.get(instance_id)
            if hub is not None and instance_id not in self._unsure:
                hub.tells = listened


def _has_listeners(connection: Connection, instance_id: str) -> bool:
    return bool(subscription_queries.list_listeners_of_instance(connection, instance_id))
