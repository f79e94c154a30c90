"""Enrichment: what Clerk knows of users whom a token announced, fetched behind the requests."""

import asyncio

import structlog

from app.accounts import clerk_user
from app.accounts.clerk_api import ClerkApi
from app.edge.clock import now_ms
from app.edge.database import Database

WAITING_USERS = 1_000

log = structlog.get_logger("enrichment")


class Enrichment:
    """`offer` never waits and never fails: a user who does not fit in comes with the next webhook."""

    def __init__(self, db: Database, clerk: ClerkApi) -> None:
        self._db = db
        self._clerk = clerk
        self._queue: asyncio.Queue[str] = asyncio.Queue(WAITING_USERS)
        self._waiting: set[str] = set()

    def offer(self, clerk_id: str) -> None:
        """Have this user fetched, unless it waits already."""
        if not self._clerk.configured or clerk_id in self._waiting:
            return
        try:
            self._queue.put_nowait(clerk_id)
        except asyncio.QueueFull:
            log.warning("queue_full", users=WAITING_USERS)
        else:
            self._waiting.add(clerk_id)

    async def run(self) -> None:
        """Fetch one user after another until cancelled."""
        while True:
            clerk_id = await self._queue.get()
            try:
                await self._enrich(clerk_id)
            except Exception as error:  # noqa: BLE001 - one user's failure must not end the others' enrichment
                log.warning("user_not_enriched", error=str(error) or type(error).__name__)
            finally:
                self._waiting.discard(clerk_id)

    async def _enrich(self, clerk_id: str) -> None:
        user = await self._clerk.find_user(clerk_id)
        if user is not None:
            await self._db.write(clerk_user.record, user, now_ms())
