"""The spool: what this machine owes the primary, written before the answer and kept until it is acknowledged.

Items are sent in order, in batches of one kind; the primary takes each once, by its id. One that it would never take
is set aside with the reason, so that it holds up nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import uniform
from typing import NamedTuple

import structlog

from app.edge.clock import now_ms
from app.edge.database import Connection, Database, Transaction
from app.errors import AppError, Unavailable

SPOOL_ITEMS = 1_000_000
REFUSED_ITEMS = 10_000
BATCH_ITEMS = 500
BATCH_BYTES = 4 << 20
RETRY_SECONDS = (0.2, 5.0)

log = structlog.get_logger("spool")


class Item(NamedTuple):
    """Something owed. `item_id` is what makes a repeat of it a repeat."""

    item_id: str
    payload: bytes


class Waiting(NamedTuple):
    """About how many items wait, since when the oldest does, and how many the primary would never take."""

    items: int
    since_ms: int | None
    refused: int


class Batch(NamedTuple):
    """Items of one kind, in order, up to the row `last`."""

    kind: str
    items: list[Item]
    last: int


# Gives a batch to the primary: the reason of each item that it would never take. Unavailable: try again.
Send = Callable[[str, Sequence[Item]], Awaitable[Mapping[str, str]]]


class Spool:
    """One for a machine, on its own file. `run` sends until it is cancelled."""

    def __init__(self, db: Database, send: Send) -> None:
        self._db = db
        self._send = send
        self._woken = asyncio.Event()
        self._retry = RETRY_SECONDS[0]

    async def put(self, kind: str, items: Sequence[Item]) -> None:
        """Keep what is owed: it is on the disk when this returns. Unavailable when too much waits already."""
        await self._db.write(insert, kind, items, now_ms())
        self._woken.set()

    async def run(self) -> None:
        while True:
            self._woken.clear()
            try:
                sent = await self._send_some()
                self._retry = RETRY_SECONDS[0]
                if not sent:
                    await self._woken.wait()
            except AppError as error:
                log.warning("not_sent", error=error.message)
                await asyncio.sleep(uniform(self._retry / 2, self._retry))
                self._retry = min(self._retry * 2, RETRY_SECONDS[1])

    async def drain(self) -> None:
        """Send all that is there. Unavailable when that cannot be done now: it is sent after the next start."""
        while await self._send_some():
            pass

    async def look(self) -> Waiting:
        """What waits, read off the loop."""
        (row,) = await self._db.page(
            """SELECT coalesce(max(id) - min(id) + 1, 0), (SELECT at_ms FROM spool ORDER BY id LIMIT 1),
                      (SELECT count(*) FROM refused) FROM spool"""
        )
        return Waiting(*row)

    async def _send_some(self) -> bool:
        batch = await self._db.read(next_batch)
        if batch is None:
            return False
        refused = await self._send(batch.kind, batch.items)
        for item_id, reason in refused.items():
            log.error("refused", kind=batch.kind, item=item_id, reason=reason)
        await self._db.write(settle, batch, refused, now_ms())
        return True


def insert(tx: Transaction, kind: str, items: Sequence[Item], now: int) -> None:
    """Nothing is inserted twice: a kind's item that waits already is the same item."""
    row = tx.fetch_one("SELECT coalesce(max(id) - min(id) + 1, 0) FROM spool")
    waiting = row[0] if row else 0
    if waiting + len(items) > SPOOL_ITEMS:
        raise Unavailable(f"Too much waits for the primary: {waiting} of {SPOOL_ITEMS} items")
    tx.executemany(
        "INSERT INTO spool (kind, item_id, payload, at_ms) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [(kind, *item, now) for item in items],
    )


def next_batch(connection: Connection) -> Batch | None:
    """The oldest items, as many as follow each other in one kind, up to BATCH_ITEMS and about BATCH_BYTES."""
    rows = connection.fetch("SELECT id, kind, item_id, payload FROM spool ORDER BY id LIMIT ?", BATCH_ITEMS)
    if not rows:
        return None
    kind, last, size = rows[0][1], 0, 0
    items: list[Item] = []
    for row in rows:
        if row[1] != kind or (items and size + len(row[3]) > BATCH_BYTES):
            break
        items.append(Item(row[2], row[3]))
        last, size = row[0], size + len(row[3])
    return Batch(kind, items, last)


def settle(tx: Transaction, batch: Batch, refused: Mapping[str, str], now: int) -> None:
    """The primary has taken them, all but those that it never will."""
    tx.executemany(
        "INSERT INTO refused (kind, item_id, payload, reason, at_ms) VALUES (?, ?, ?, ?, ?)",
        [(batch.kind, *item, refused[item.item_id], now) for item in batch.items if item.item_id in refused],
    )
    tx.execute("DELETE FROM refused WHERE id <= (SELECT max(id) FROM refused) - ?", REFUSED_ITEMS)
    tx.execute("DELETE FROM spool WHERE id <= ?", batch.last)
