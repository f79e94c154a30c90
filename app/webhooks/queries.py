"""The SQL of the webhook log."""

from typing import NamedTuple

from app.edge.clock import sql_text
from app.edge.database import Connection, Transaction


class Delivery(NamedTuple):
    """An event as it came in; `subject` is the provider's id of the user that it is about."""

    event_id: str
    event_type: str
    subject: str | None
    payload: str


class Entry(NamedTuple):
    """An event as the log has it."""

    id: int
    event_id: str
    event_type: str
    processing_status: str
    error_message: str | None
    outcome: str | None
    attempts: int
    created_at: str
    updated_at: str
    payload: str


def find_status(connection: Connection, event_id: str) -> str | None:
    row = connection.fetch_one("SELECT processing_status FROM webhook_logs WHERE event_id = ?", event_id)
    return row[0] if row else None


def find_entry(connection: Connection, any_id: str) -> Entry | None:
    row = connection.fetch_one(
        """SELECT id, event_id, event_type, processing_status, error_message, outcome, attempts, created_at,
                  updated_at, payload
           FROM webhook_logs WHERE event_id = ?1
           UNION ALL
           SELECT id, event_id, event_type, processing_status, error_message, outcome, attempts, created_at,
                  updated_at, payload
           FROM webhook_logs WHERE id = CAST(?1 AS INTEGER) AND CAST(id AS TEXT) = ?1
           LIMIT 1""",
        any_id,
    )
    return Entry(*row) if row else None


def upsert_log(
    tx: Transaction, delivery: Delivery, status: str, outcome: str | None, error: str | None, now: int
) -> None:
    """Write how an event went. What is a success stays one."""
    tx.execute(
        """INSERT INTO webhook_logs (
               event_id, event_type, subject, payload, processing_status, outcome, error_message,
               created_at, updated_at)
           VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)
           ON CONFLICT (event_id) DO UPDATE SET
               subject = excluded.subject, payload = excluded.payload,
               processing_status = excluded.processing_status, outcome = excluded.outcome,
               error_message = excluded.error_message, attempts = attempts + 1, updated_at = excluded.updated_at
           WHERE processing_status <> 'success'""",
        *delivery,
        status,
        outcome,
        error,
        sql_text(now),
    )


def update_logs_erased(tx: Transaction, subject: str, payload: str, now: int) -> int:
    """Take a user out of the log; what of theirs had failed has nothing left to do."""
    return tx.execute(
        """UPDATE webhook_logs SET subject = NULL, payload = ?2, error_message = NULL, updated_at = ?3,
               outcome = iif(processing_status = 'success', outcome, 'erased with its user'),
               processing_status = 'success'
           WHERE subject = ?1""",
        subject,
        payload,
        sql_text(now),
    )


# Read off the loop: a filter by type alone may pass over many rows.
LIST_LOGS = """
    SELECT id, event_id, event_type, processing_status, error_message, outcome, attempts, created_at, updated_at
    FROM webhook_logs
    WHERE (?1 IS NULL OR processing_status = ?1) AND (?2 IS NULL OR event_type = ?2)
    ORDER BY id DESC LIMIT ?3 OFFSET ?4
"""

COUNT_LOGS = """
    SELECT count(*) FROM webhook_logs
    WHERE (?1 IS NULL OR processing_status = ?1) AND (?2 IS NULL OR event_type = ?2)
"""

COUNT_LOGS_BY_TYPE = """
    SELECT event_type, processing_status, count(*), max(created_at)
    FROM webhook_logs GROUP BY event_type, processing_status ORDER BY event_type, processing_status LIMIT ?
"""
