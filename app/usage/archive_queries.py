"""The SQL of the ledger's way into the archive: the same rows, the same columns, the same ids."""

from collections.abc import Sequence

from app.edge.database import Connection, Row, Transaction

COLUMNS = (
    "id", "user_id", "session_id", "response_id", "event_id", "event_type", "provider", "model", "total_tokens",
    "input_tokens", "output_tokens", "input_token_details", "output_token_details", "metadata", "created_at",
    "source", "occurred_at_ms", "received_at_ms", "cost_micros", "instance_id", "api_key_id", "endpoint",
    "amends_id", "previous_id", "event_key", "content_hash",
)  # fmt: skip
_ID, _KEY = COLUMNS.index("id"), COLUMNS.index("event_key")
_LISTED = ", ".join(COLUMNS)

# One table of both files. A row on its way is in both, and is shown from the core, which is read first: a row that
# leaves it meanwhile is in the archive by then.
VIEW = f"""
    CREATE TEMP VIEW usage_logs AS
    SELECT {_LISTED} FROM main.usage_logs
    UNION ALL
    SELECT {_LISTED} FROM archive.usage_logs AS moved
    WHERE NOT EXISTS (SELECT 1 FROM main.usage_logs AS kept WHERE kept.id = moved.id)
"""

# Of the ?2 rows after ?1 the ids of all and the rows that were received before ?3. The newest row never leaves:
# the number of the next one follows from it.
LIST_OLD = f"""
    SELECT {_LISTED} FROM (SELECT {_LISTED} FROM usage_logs WHERE id > ?1 ORDER BY id LIMIT ?2)
    WHERE received_at_ms < ?3 AND id < (SELECT max(id) FROM usage_logs)
"""


def find_page_end(connection: Connection, after: int, rows: int) -> int | None:
    """The id of the last of the `rows` rows after `after`; None where there is none."""
    row = connection.fetch_one(
        "SELECT max(id) FROM (SELECT id FROM usage_logs WHERE id > ? ORDER BY id LIMIT ?)", after, rows
    )
    return row[0] if row else None


def insert_moved(tx: Transaction, rows: Sequence[Row]) -> list[int]:
    """Put rows into the archive. The ids of those that are there, from now or from before."""
    values = ", ".join("?" * len(COLUMNS))
    new = tx.executemany(f"INSERT INTO usage_logs ({_LISTED}) VALUES ({values}) ON CONFLICT DO NOTHING", rows)
    if new == len(rows):
        return [row[_ID] for row in rows]
    return [row[_ID] for row in rows if _is_there(tx, row[_ID], row[_KEY])]


def _is_there(tx: Transaction, log_id: int, event_key: bytes) -> bool:
    return tx.fetch_one("SELECT 1 FROM usage_logs WHERE id = ? AND event_key = ?", log_id, event_key) is not None


def delete_moved(tx: Transaction, ids: Sequence[int]) -> None:
    tx.executemany("DELETE FROM usage_logs WHERE id = ?", [(log_id,) for log_id in ids])
