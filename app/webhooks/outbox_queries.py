"""The SQL of the outbox: events, and their deliveries to each webhook."""

from collections.abc import Sequence
from typing import NamedTuple

from app.edge.database import Connection, Transaction


class Due(NamedTuple):
    """A delivery with all that an attempt needs."""

    id: str
    webhook_id: str
    event_id: str
    payload: str
    attempts: int


class Delivery(NamedTuple):
    """A line of the log; times in milliseconds."""

    id: str
    event_id: str
    event_type: str
    state: str
    attempts: int
    response_status: int | None
    error: str | None
    created_at_ms: int
    attempted_at_ms: int | None
    next_attempt_ms: int | None
    position: int

    @property
    def sorted_by(self) -> int:
        return 0


def insert_event(tx: Transaction, event_id: str, event_type: str, payload: str) -> None:
    tx.execute(
        "INSERT INTO webhook_events (id, event_type, payload) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        event_id,
        event_type,
        payload,
    )


def insert_deliveries(tx: Transaction, rows: Sequence[tuple[str, str, str]], now: int) -> None:
    """`(id, webhook, event)`, due at once; an event is owed to a webhook once."""
    tx.executemany(
        """INSERT INTO webhook_deliveries (id, webhook_id, event_id, next_attempt_ms, created_at_ms)
           VALUES (?1, ?2, ?3, ?4, ?4) ON CONFLICT (webhook_id, event_id) DO NOTHING""",
        [(*row, now) for row in rows],
    )


def count_pending(connection: Connection, webhook_id: str, most: int) -> int:
    """How many deliveries wait, counted no further than `most`."""
    row = connection.fetch_one(
        """SELECT count(*) FROM (
               SELECT 1 FROM webhook_deliveries WHERE webhook_id = ? AND next_attempt_ms IS NOT NULL LIMIT ?)""",
        webhook_id,
        most,
    )
    return row[0] if row else 0


def list_due(connection: Connection, now: int, per_webhook: int, limit: int) -> list[str]:
    """The ids of deliveries that are due, the longest waiting first, at most `per_webhook` to one webhook.

    It steps from webhook to webhook along the index, so that a long queue costs no more than a short one.
    """
    rows = connection.fetch(
        """WITH RECURSIVE waiting (webhook_id) AS (
               SELECT min(webhook_id) FROM webhook_deliveries WHERE next_attempt_ms IS NOT NULL
               UNION ALL
               SELECT (SELECT min(d.webhook_id) FROM webhook_deliveries d
                       WHERE d.next_attempt_ms IS NOT NULL AND d.webhook_id > waiting.webhook_id)
               FROM waiting WHERE waiting.webhook_id IS NOT NULL)
           SELECT d.id FROM waiting JOIN webhook_deliveries d ON d.rowid IN (
               SELECT rowid FROM webhook_deliveries
               WHERE webhook_id = waiting.webhook_id AND next_attempt_ms <= ?1 ORDER BY next_attempt_ms LIMIT ?2)
           ORDER BY d.next_attempt_ms LIMIT ?3""",
        now,
        per_webhook,
        limit,
    )
    return [row[0] for row in rows]


def find_due(connection: Connection, delivery_id: str) -> Due | None:
    """A delivery that is still to be made."""
    row = connection.fetch_one(
        """SELECT d.id, d.webhook_id, d.event_id, e.payload, d.attempts
           FROM webhook_deliveries d JOIN webhook_events e ON e.id = d.event_id
           WHERE d.id = ? AND d.next_attempt_ms IS NOT NULL""",
        delivery_id,
    )
    return Due(*row) if row else None


def update_attempted(
    tx: Transaction,
    delivery_id: str,
    state: str,
    attempts: int,
    next_attempt_ms: int | None,
    response_status: int | None,
    error: str | None,
    now: int,
) -> None:
    tx.execute(
        """UPDATE webhook_deliveries SET state = ?, attempts = ?, next_attempt_ms = ?, response_status = ?, error = ?,
               attempted_at_ms = ? WHERE id = ?""",
        state,
        attempts,
        next_attempt_ms,
        response_status,
        error,
        now,
        delivery_id,
    )


def update_pending_failed(tx: Transaction, webhook_id: str, error: str) -> int:
    return tx.execute(
        """UPDATE webhook_deliveries SET state = 'failed', next_attempt_ms = NULL, error = ?
           WHERE webhook_id = ? AND next_attempt_ms IS NOT NULL""",
        error,
        webhook_id,
    )


def update_replayed(tx: Transaction, webhook_id: str, delivery_id: str, now: int) -> bool:
    """Make a delivery due once more, with all of its retries. False when it is not there."""
    changed = tx.execute(
        """UPDATE webhook_deliveries SET state = 'pending', attempts = 0, next_attempt_ms = ?
           WHERE id = ? AND webhook_id = ?""",
        now,
        delivery_id,
        webhook_id,
    )
    return changed > 0


def list_deliveries(connection: Connection, webhook_id: str, below: int, limit: int) -> list[Delivery]:
    """Newest first."""
    rows = connection.fetch(
        """SELECT d.id, d.event_id, e.event_type, d.state, d.attempts, d.response_status, d.error,
                  d.created_at_ms, d.attempted_at_ms, d.next_attempt_ms, d.rowid
           FROM webhook_deliveries d INDEXED BY webhook_deliveries_by_webhook
           JOIN webhook_events e ON e.id = d.event_id
           WHERE d.webhook_id = ? AND d.rowid < ? ORDER BY d.rowid DESC LIMIT ?""",
        webhook_id,
        below,
        limit,
    )
    return [Delivery(*row) for row in rows]


def has_old(connection: Connection, before_ms: int) -> bool:
    row = connection.fetch_one(
        "SELECT 1 FROM webhook_deliveries WHERE next_attempt_ms IS NULL AND created_at_ms < ? LIMIT 1", before_ms
    )
    return row is not None


def delete_old(tx: Transaction, before_ms: int, limit: int) -> int:
    """Delete what was done, oldest first; the trigger deletes events that nothing refers to any more."""
    return tx.execute(
        """DELETE FROM webhook_deliveries WHERE rowid IN (
               SELECT rowid FROM webhook_deliveries WHERE next_attempt_ms IS NULL AND created_at_ms < ?
               ORDER BY created_at_ms LIMIT ?)""",
        before_ms,
        limit,
    )
