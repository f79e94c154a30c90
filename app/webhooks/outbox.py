"""The outbox: what webhooks are owed, written in the transaction of what it tells of."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from app.edge.clock import instant
from app.edge.database import Connection, Transaction
from app.edge.http import encode_json
from app.errors import Conflict, NotFound
from app.identity.ids import new_id
from app.webhooks import outbox_queries as queries
from app.webhooks import subscription_queries, subscriptions
from app.webhooks.outbox_queries import Due
from app.webhooks.subscription_queries import Listener, Subscription

# Told in this process when something was written that is due at once.
TOPIC = "outbox"

PENDING, DELIVERED, FAILED = "pending", "delivered", "failed"
# After the first attempt and each that failed since; the last failure is final.
RETRY_SECONDS = (5, 300, 1_800, 7_200, 18_000, 36_000, 36_000)
GONE = 410
# A webhook that is so far behind is not told of more until it has caught up.
QUEUED_DELIVERIES = 10_000
DATA_BYTES = 64 << 10
FIELD_BYTES = 8 << 10
LOG_MS = 7 * 86_400_000
TRIM_ROWS = 1_000


class Event(NamedTuple):
    """What happened; `data` is a JSON object. A second event of the same id is the first."""

    id: str
    type: str
    at_ms: int
    data: str | bytes


class Outcome(NamedTuple):
    """How an attempt went: the receiver's status, or why there is none. `final` is why it is told nothing more."""

    status: int | None
    error: str | None
    final: str | None = None


def enqueue(tx: Transaction, event_type: str, user_id: str, data: object, now: int) -> None:
    """Owe an event of a user's account to that user's webhooks. Call it in the transaction of the fact."""
    listeners = subscription_queries.list_listeners_of_user(tx, user_id)
    _owe(tx, listeners, [Event(new_id("evt"), event_type, now, encode_json(data))], now)


def enqueue_instance_events(tx: Transaction, instance_id: str, events: Iterable[Event], now: int) -> None:
    """Owe what an instance's file has kept for the core. Idempotent: the file repeats what was not acknowledged."""
    placed = [event._replace(data=_placed(event.data, instance_id)) for event in events]
    _owe(tx, subscription_queries.list_listeners_of_instance(tx, instance_id), placed, now)


def settle(tx: Transaction, due: Due, outcome: Outcome, now: int) -> None:
    """Note how an attempt went: done, to be tried again later, or given up."""
    attempts = due.attempts + 1
    done = outcome.status is not None and 200 <= outcome.status < 300
    state, retry_at = DELIVERED if done else FAILED, None
    if not done and outcome.final is None and attempts <= len(RETRY_SECONDS):
        state, retry_at = PENDING, now + RETRY_SECONDS[attempts - 1] * 1_000
    queries.update_attempted(tx, due.id, state, attempts, retry_at, outcome.status, outcome.error, now)
    if outcome.final is not None:
        subscriptions.disable(tx, due.webhook_id, outcome.final, now)


def replay(tx: Transaction, subscription: Subscription, delivery_id: str, now: int) -> None:
    """Make a delivery once more, with the same webhook-id. Conflict while its webhook is disabled."""
    if subscription.disabled_reason is not None:
        raise Conflict("The webhook is disabled")
    if not queries.update_replayed(tx, subscription.id, delivery_id, now):
        raise NotFound("Delivery not found")
    _tell(tx)


def has_old(connection: Connection, now: int) -> bool:
    return queries.has_old(connection, now - LOG_MS)


def trim(tx: Transaction, now: int) -> int:
    """Forget up to TRIM_ROWS deliveries that were done long ago."""
    return queries.delete_old(tx, now - LOG_MS, TRIM_ROWS)


def _owe(tx: Transaction, listeners: Iterable[Listener], events: Sequence[Event], now: int) -> None:
    for listener in listeners:
        wanted = [event for event in events if event.type in listener.events]
        if not wanted:
            continue
        room = QUEUED_DELIVERIES - queries.count_pending(tx, listener.id, QUEUED_DELIVERIES)
        for event in wanted[:room]:
            queries.insert_event(tx, event.id, event.type, _payload(event))
        queries.insert_deliveries(tx, [(new_id("dlv"), listener.id, event.id) for event in wanted[:room]], now)
        if len(wanted) > room:
            subscription_queries.update_dropped(tx, listener.id, len(wanted) - room)
        _tell(tx)


def _tell(tx: Transaction) -> None:
    # Not a row of the feed: other nodes have nothing to forget, and the deliverer here looks by itself, too.
    tx.announced.append((TOPIC, ""))


def _payload(event: Event) -> str:
    """The body that is sent: `{type, timestamp, data}`, as the Standard Webhooks scheme has it."""
    data = msgspec.Raw(_fitted(event.data))
    return encode_json({"type": event.type, "timestamp": instant(event.at_ms), "data": data}).decode()


def _placed(data: str | bytes, instance_id: str) -> bytes:
    return encode_json({"instanceId": instance_id} | msgspec.json.decode(data, type=dict[str, msgspec.Raw]))


def _fitted(data: str | bytes) -> bytes:
    """The data; where it is too large without its large fields, which `omitted` names."""
    encoded = data.encode() if isinstance(data, str) else data
    if len(encoded) <= DATA_BYTES:
        return encoded
    fields = msgspec.json.decode(encoded, type=dict[str, msgspec.Raw])
    omitted = [name for name, held in fields.items() if memoryview(held).nbytes > FIELD_BYTES]
    return encode_json({name: held for name, held in fields.items() if name not in omitted} | {"omitted": omitted})
