"""The SQL of what operators look at."""

from app.edge.database import Connection


def find_newest_receipt_ms(connection: Connection) -> int | None:
    """When the ledger's newest row was received."""
    row = connection.fetch_one("SELECT received_at_ms FROM usage_logs ORDER BY id DESC LIMIT 1")
    return row[0] if row else None
