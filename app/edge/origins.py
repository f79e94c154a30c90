"""Origins: the rows that list who may call from a browser, changed by an operator without a deploy."""

from app.edge.changes import announce
from app.edge.clock import now_ms, sql_text
from app.edge.database import Connection, Transaction

TOPIC = "origin"


def list_origins(connection: Connection) -> list[str]:
    return [row[0] for row in connection.fetch("SELECT origin FROM origins ORDER BY origin")]


def add(tx: Transaction, origin: str) -> bool:
    """False when it was listed already."""
    announce(tx, TOPIC, origin)
    return (
        tx.execute(
            "INSERT INTO origins (origin, created_at) VALUES (?, ?) ON CONFLICT DO NOTHING",
            origin,
            sql_text(now_ms()),
        )
        > 0
    )


def remove(tx: Transaction, origin: str) -> bool:
    """False when it was not listed."""
    announce(tx, TOPIC, origin)
    return tx.execute("DELETE FROM origins WHERE origin = ?", origin) > 0
