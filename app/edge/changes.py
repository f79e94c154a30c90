"""Changes: the feed of what caches must forget, written in the transaction that makes them stale.

A commit of this process evicts before anybody hears of it; one of another machine when its transaction has
arrived, and one of another process (a command run beside the server) within FOLLOW_SECONDS.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable

import structlog

from app.edge.database import Connection, Database, Group, Position, Transaction, at_start

FOLLOW_SECONDS = 0.2
KEPT_CHANGES = 10_000

Listener = Callable[[str], None]
# Told how far the core has come, once everybody has heard of all that was changed up to there.
CaughtUp = Callable[[Position], None]

log = structlog.get_logger("changes")


def announce(tx: Transaction, topic: str, key: str) -> None:
    """Say, in this transaction, that what is cached of `key` under `topic` is stale."""
    tx.execute("INSERT INTO changes (topic, key) VALUES (?, ?)", topic, key)
    tx.announced.append((topic, key))


def has_surplus(connection: Connection) -> bool:
    row = connection.fetch_one("SELECT count(*) > ? FROM changes", KEPT_CHANGES)
    return bool(row and row[0])


def trim(tx: Transaction) -> int:
    """Delete all but the newest KEPT_CHANGES; a node that was away for longer starts with empty caches."""
    return tx.execute("DELETE FROM changes WHERE sequence <= (SELECT max(sequence) FROM changes) - ?", KEPT_CHANGES)


class Changes:
    """Hands each change to those that cache its topic."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Listener]] = defaultdict(list)
        self._sequence = 0
        self._lost: Callable[[], None] = lambda: None
        self._woken = asyncio.Event()
        self._reading = asyncio.Lock()

    def listen(self, topic: str, listener: Listener) -> None:
        self._listeners[topic].append(listener)

    def when_lost(self, act: Callable[[], None]) -> None:
        """What to do when changes were trimmed that nobody here has heard: no cache can be trusted any more."""
        self._lost = act

    def committed(self, group: Group) -> None:
        """Evict what a group of our own writer announced. Where that fails, `catch_up` tells it again."""
        for topic, key in group.announced:
            self._tell(topic, key)

    async def start(self, db: Database) -> Position:
        """Begin with the newest change: call this before any cache is filled. How far the core had come then."""
        self._sequence = await at_start(db.read, _newest)
        return await at_start(self.catch_up, db)

    def wake(self) -> None:
        """Something may have changed: look now."""
        self._woken.set()

    async def follow(self, db: Database, caught_up: CaughtUp = lambda position: None) -> None:
        """Evict what others announce, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FOLLOW_SECONDS):
                    await self._woken.wait()
            self._woken.clear()
            try:
                caught_up(await self.catch_up(db))
            except Exception as error:  # noqa: BLE001 - a feed that ended would leave revoked keys in the caches
                log.warning("feed_not_read", error=repr(error))
                await asyncio.sleep(FOLLOW_SECONDS)

    async def catch_up(self, db: Database) -> Position:
        """Tell what is new; how far the core had come when it was read."""
        async with self._reading:
            position, rows = await db.read(_since, self._sequence)
            # No sequence is ever left out: a transaction that is rolled back gives its numbers back.
            if rows and rows[0][0] > self._sequence + 1:
                log.warning("changes_lost", after=self._sequence, before=rows[0][0])
                self._lost()
            for sequence, topic, key in rows:
                self._tell(topic, key)
                # After it was told, so that a change which a listener failed on is read once more.
                self._sequence = sequence
            return position

    def _tell(self, topic: str, key: str) -> None:
        for listener in self._listeners[topic]:
            listener(key)


def _newest(connection: Connection) -> int:
    row = connection.fetch_one("SELECT coalesce(max(sequence), 0) FROM changes")
    return int(row[0]) if row else 0


def _since(connection: Connection, sequence: int) -> tuple[Position, list[tuple[int, str, str]]]:
    token = connection.fetch_one("SELECT epoch, sequence FROM replication_token")
    rows = connection.fetch("SELECT sequence, topic, key FROM changes WHERE sequence > ? ORDER BY sequence", sequence)
    return Position(*token) if token else Position("", 0), [(int(row[0]), row[1], row[2]) for row in rows]
