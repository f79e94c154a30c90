"""Expiring values: what must be forgotten after a while, kept in the core database."""

from app.edge.database import Connection, Transaction

PURGE_ROWS = 1_000


def put(tx: Transaction, kind: str, key: str, value: bytes, *, until_ms: int) -> None:
    """Keep `value` until `until_ms`; a value that is there already is replaced."""
    tx.execute(
        """INSERT INTO expiring (kind, key, value, expires_at_ms) VALUES (?, ?, ?, ?)
           ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value, expires_at_ms = excluded.expires_at_ms""",
        kind,
        key,
        value,
        until_ms,
    )


def find(connection: Connection, kind: str, key: str, *, now_ms: int) -> bytes | None:
    row = connection.fetch_one(
        "SELECT value FROM expiring WHERE kind = ? AND key = ? AND expires_at_ms > ?", kind, key, now_ms
    )
    return row[0] if row else None


def has_dead(connection: Connection, now_ms: int) -> bool:
    return connection.fetch_one("SELECT 1 FROM expiring WHERE expires_at_ms <= ? LIMIT 1", now_ms) is not None


def purge(tx: Transaction, now_ms: int) -> int:
    """Delete up to PURGE_ROWS values that have died; how many there were."""
    return tx.execute(
        """DELETE FROM expiring WHERE rowid IN
           (SELECT rowid FROM expiring WHERE expires_at_ms <= ? ORDER BY expires_at_ms LIMIT ?)""",
        now_ms,
        PURGE_ROWS,
    )
