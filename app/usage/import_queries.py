"""The SQL of imports: how far each has come, and what an old database brings beside its ledger."""

from app.edge.clock import now_ms, sql_text
from app.edge.database import Connection, Row, Transaction


def find_position(connection: Connection, name: str) -> int:
    """Lines of this import that are committed; 0 for one that is new or has ended."""
    row = connection.fetch_one("SELECT position FROM imports WHERE source = ?", name)
    return row[0] if row else 0


def upsert_position(tx: Transaction, name: str, position: int) -> None:
    tx.execute(
        """INSERT INTO imports (source, position, updated_at) VALUES (?, ?, ?)
           ON CONFLICT (source) DO UPDATE SET position = excluded.position, updated_at = excluded.updated_at""",
        name,
        position,
        sql_text(now_ms()),
    )


def delete_position(tx: Transaction, name: str) -> None:
    tx.execute("DELETE FROM imports WHERE source = ?", name)


def find_plan_tokens(connection: Connection, plan: str) -> int | None:
    row = connection.fetch_one("SELECT monthly_tokens FROM plans WHERE name = ?", plan)
    return row[0] if row else None


def insert_imported_user(tx: Transaction, values: Row) -> None:
    tx.execute(
        """INSERT INTO users (
               id, email, first_name, last_name, image_url, plan, token_quota, created_at, updated_at)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        *values,
    )


def insert_imported_webhook(tx: Transaction, values: Row) -> bool:
    """False when that event was logged before. Its subject is read from the payload: a deletion erases by it."""
    return (
        tx.execute(
            """INSERT INTO webhook_logs (
                   event_id, event_type, processing_status, error_message, payload, created_at, updated_at, subject)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, iif(json_valid(?5), coalesce(
                   json_extract(?5, '$.data.user_id'), json_extract(?5, '$.data.payer.user_id'),
                   iif(?2 LIKE 'user.%', json_extract(?5, '$.data.id'), NULL)), NULL))
               ON CONFLICT (event_id) DO NOTHING""",
            *values,
        )
        > 0
    )
