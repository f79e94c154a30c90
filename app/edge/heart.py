"""The heart of a machine that owns something: it beats once a second, and its lease lasts from beat to beat."""

import asyncio
import secrets
from collections.abc import Callable

import structlog

from app.edge.desk import Desk
from app.edge.lease import HEARTBEAT_SECONDS, TICK_SECONDS
from app.edge.ownership import Ownership

SESSION_BYTES = 8

log = structlog.get_logger("heart")


class Heart:
    """`fence` closes all that is open, without an acknowledgement: it may be somebody else's by now."""

    def __init__(self, owning: Ownership, desk: Desk, fence: Callable[[], None]) -> None:
        self._owning = owning
        self._desk = desk
        self._fence = fence
        self._held = False

    async def run(self) -> None:
        """Beat until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick())
            group.create_task(self._beat_on())

    async def _tick(self) -> None:
        while True:
            self._owning.lease.tick()
            await asyncio.sleep(TICK_SECONDS)

    async def _beat_on(self) -> None:
        while True:
            try:
                await self._beat()
            except Exception as error:  # noqa: BLE001 - a heart that stood still would let go of everything it owns
                log.warning("not_heard", error=repr(error))
            self._watch()
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _beat(self) -> None:
        """One heartbeat, or the beginning of a session where there is none. Unavailable."""
        owning, lease = self._owning, self._owning.lease
        session, sent_at = lease.session, lease.sending()
        if session is None:
            session = secrets.token_hex(SESSION_BYTES)
            position = await self._desk.begin(owning.me, session)
            owning.begin(session, sent_at, position)
        elif await self._desk.beat(owning.me, session):
            lease.renew(session, sent_at)
        else:
            log.warning("session_ended", machine=owning.me.machine)
            lease.end()

    def _watch(self) -> None:
        held = self._owning.lease.held
        if self._held and not held:
            log.warning("lease_over", machine=self._owning.me.machine)
            self._fence()
        self._held = held
