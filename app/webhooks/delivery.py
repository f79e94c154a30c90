"""Delivery: the outbox carried out, each event to its webhook until it is taken or given up.

At least once: an attempt whose answer was not written down, because the process or the disk failed, is made
again with the same webhook-id.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import structlog

from app.edge.clock import now_ms
from app.edge.database import Connection, Database
from app.edge.outbound import Outbound, is_forbidden
from app.errors import AppError, Upstream
from app.webhooks import outbox, outbox_queries, signing, subscriptions
from app.webhooks.outbox import GONE, Outcome
from app.webhooks.outbox_queries import Due
from app.webhooks.subscription_queries import Subscription

ATTEMPT_SECONDS = 15.0
AT_ONCE = 24
AT_ONCE_PER_WEBHOOK = 4
POLL_SECONDS = 1.0
UNWRITTEN_SECONDS = 5.0
USER_AGENT = "litehouse-webhooks/1"

NOT_ALLOWED = "Whoever made it is no longer an admin there"
GONE_AWAY = "The receiver answered 410"

# Whether the maker of a subscription may still hear what it is about.
MayHear = Callable[[Connection, Subscription, int], bool]

log = structlog.get_logger("webhooks")


class _Order(NamedTuple):
    """A delivery and where it goes; `allowed` is whether it may."""

    due: Due
    subscription: Subscription
    allowed: bool


class Deliverer:
    """One for the primary. `clock` is in milliseconds and decides what is due."""

    def __init__(self, db: Database, outbound: Outbound, may_hear: MayHear, clock: Callable[[], int] = now_ms) -> None:
        self._db = db
        self._outbound = outbound
        self._may_hear = may_hear
        self._clock = clock
        self._running: set[str] = set()
        self._woken = asyncio.Event()

    def wake(self, _: str = "") -> None:
        """Something may be due."""
        self._woken.set()

    async def run(self) -> None:
        """Deliver what is due, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._woken.clear()
                try:
                    await self._start(group)
                except AppError as error:
                    log.warning("outbox_not_read", error=error.message)
                await self._rest()

    async def deliver_due(self) -> int:
        """Make an attempt at what is due now, and wait for all of them; how many there were."""
        async with asyncio.TaskGroup() as group:
            return await self._start(group)

    async def _start(self, group: asyncio.TaskGroup) -> int:
        """Begin as many attempts as there is room for."""
        # What is running is still due, so it has to be read past.
        due = await self._db.read(outbox_queries.list_due, self._clock(), AT_ONCE_PER_WEBHOOK, 2 * AT_ONCE)
        begun = [each for each in due if each not in self._running][: AT_ONCE - len(self._running)]
        for delivery_id in begun:
            self._running.add(delivery_id)
            group.create_task(self._attempt(delivery_id))
        return len(begun)

    async def _rest(self) -> None:
        """Until something may be due: woken by a commit here, by an attempt that ended, or by the clock."""
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await self._woken.wait()

    async def _attempt(self, delivery_id: str) -> None:
        try:
            order = await self._db.read(self._order, delivery_id)
            if order is not None:
                outcome = await self._send(order)
                await self._db.write(outbox.settle, order.due, outcome, self._clock())
        except Exception as error:  # noqa: BLE001 - one that escaped would end all the others
            log.warning("delivery_not_settled", delivery=delivery_id, error=repr(error))
            await asyncio.sleep(UNWRITTEN_SECONDS)
        finally:
            self._running.discard(delivery_id)
            self.wake()

    def _order(self, connection: Connection, delivery_id: str) -> _Order | None:
        due = outbox_queries.find_due(connection, delivery_id)
        if due is None:
            return None
        subscription = subscriptions.get(connection, due.webhook_id)
        return _Order(due, subscription, self._may_hear(connection, subscription, self._clock()))

    async def _send(self, order: _Order) -> Outcome:
        due, subscription = order.due, order.subscription
        if not order.allowed:
            return Outcome(None, NOT_ALLOWED, NOT_ALLOWED)
        headers = await signing.sign(subscription.secret, due.event_id, self._clock(), due.payload)
        headers |= {"Content-Type": "application/json", "User-Agent": USER_AGENT}
        try:
            reply = await self._outbound.fetch(
                "POST",
                subscription.url,
                headers=headers,
                body=due.payload.encode(),
                seconds=ATTEMPT_SECONDS,
                status_only=True,
            )
        except Upstream as error:
            return Outcome(None, _reason(error))
        return _judge(reply.status)


def _judge(status: int) -> Outcome:
    """Only 2xx is a receipt: a redirect is not followed, and so is a failure."""
    if 200 <= status < 300:
        return Outcome(status, None)
    return Outcome(status, f"The receiver answered {status}", GONE_AWAY if status == GONE else None)


def _reason(error: Upstream) -> str:
    if is_forbidden(error):
        return "The address is internal"
    if isinstance(error.__cause__, TimeoutError):
        return f"No answer within {ATTEMPT_SECONDS:g} s"
    return "The connection failed"
