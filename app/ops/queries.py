"""The SQL of what operators look at."""

from app.edge.database import Connection


def get_sequence(connection: Connection) -> int:
    """How many commits the database has had: the shortest question that its pages must answer."""
    return int(connection.fetch("SELECT sequence FROM replication_token")[0][0])


def find_newest_receipt_ms(connection: Connection) -> int | None:
    """When the ledger's newest row was received."""
    row = connection.fetch_one("SELECT received_at_ms FROM usage_logs ORDER BY id DESC LIMIT 1")
    return row[0] if row else None
