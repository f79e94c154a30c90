"""The SQL of delegates, their secrets and their grants."""

from typing import NamedTuple

from app.edge.clock import sql_text
from app.edge.database import Connection, Transaction
from app.identity.principal import Delegate
from app.projects.page import Page


class DelegateRow(NamedTuple):
    delegate_id: str
    name: str
    can_read: bool
    can_write: bool
    can_system: bool
    created_at: str
    expires_at_ms: int | None
    position: int = 0

    @property
    def sorted_by(self) -> int:
        return 0


class SecretRow(NamedTuple):
    secret_id: str
    name: str
    created_at: str
    last_used_at_ms: int | None
    revoked_at_ms: int | None
    position: int

    @property
    def sorted_by(self) -> int:
        return 0


class GrantRow(NamedTuple):
    instance_id: str
    permission: str
    granted_at: str
    expires_at_ms: int | None
    position: int

    @property
    def sorted_by(self) -> int:
        return 0


def list_delegates(connection: Connection, user_id: str, page: Page) -> list[DelegateRow]:
    """Newest first, one more than the page."""
    rows = connection.fetch(
        """SELECT delegate_id, name, can_read, can_write, can_system, created_at, expires_at_ms, rowid
           FROM delegates WHERE user_id = ? AND rowid < ? ORDER BY rowid DESC LIMIT ?""",
        user_id,
        page.position,
        page.limit + 1,
    )
    return [DelegateRow(row[0], row[1], bool(row[2]), bool(row[3]), bool(row[4]), *row[5:]) for row in rows]


def has_delegate(connection: Connection, delegate_id: str, user_id: str) -> bool:
    return (
        connection.fetch_one("SELECT 1 FROM delegates WHERE delegate_id = ? AND user_id = ?", delegate_id, user_id)
        is not None
    )


def insert_delegate(tx: Transaction, delegate: DelegateRow, user_id: str) -> None:
    tx.execute(
        """INSERT INTO delegates (
               delegate_id, name, can_read, can_write, can_system, created_at, expires_at_ms, user_id)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
        *delegate[:7],
        user_id,
    )


def delete_delegate(tx: Transaction, delegate_id: str) -> int:
    return tx.execute("DELETE FROM delegates WHERE delegate_id = ?", delegate_id)


def find_by_secret(connection: Connection, delegate_id: str, secret_hash: bytes, now: int) -> Delegate | None:
    """None when the secret is unknown or revoked, or the delegate has expired, or its user is suspended."""
    row = connection.fetch_one(
        """SELECT d.delegate_id, d.user_id, s.secret_id, d.name
           FROM delegate_secrets s
           JOIN delegates d ON d.delegate_id = s.delegate_id
           JOIN users u ON u.id = d.user_id AND u.suspended = 0
           WHERE s.secret_hash = ?1 AND s.delegate_id = ?2 AND s.revoked_at_ms IS NULL
             AND (d.expires_at_ms IS NULL OR d.expires_at_ms > ?3)""",
        secret_hash,
        delegate_id,
        now,
    )
    return Delegate(*row) if row else None


def list_secrets(connection: Connection, delegate_id: str, page: Page) -> list[SecretRow]:
    """Newest first, one more than the page; the revoked ones too."""
    rows = connection.fetch(
        """SELECT secret_id, name, created_at, last_used_at_ms, revoked_at_ms, rowid
           FROM delegate_secrets WHERE delegate_id = ? AND rowid < ? ORDER BY rowid DESC LIMIT ?""",
        delegate_id,
        page.position,
        page.limit + 1,
    )
    return [SecretRow(*row) for row in rows]


def insert_secret(tx: Transaction, secret_id: str, delegate_id: str, name: str, secret_hash: bytes, now: int) -> None:
    tx.execute(
        """INSERT INTO delegate_secrets (secret_id, delegate_id, name, secret_hash, created_at)
           VALUES (?, ?, ?, ?, ?)""",
        secret_id,
        delegate_id,
        name,
        secret_hash,
        sql_text(now),
    )


def update_secret_revoked(tx: Transaction, delegate_id: str, secret_id: str, now: int) -> int:
    """One that was revoked before keeps the time of that; 0 when there is none."""
    return tx.execute(
        """UPDATE delegate_secrets SET revoked_at_ms = coalesce(revoked_at_ms, ?)
           WHERE delegate_id = ? AND secret_id = ?""",
        now,
        delegate_id,
        secret_id,
    )


def update_secrets_used(tx: Transaction, uses: list[tuple[int, str]]) -> None:
    tx.executemany("UPDATE delegate_secrets SET last_used_at_ms = ? WHERE secret_id = ?", uses)


def list_grants(connection: Connection, delegate_id: str, page: Page) -> list[GrantRow]:
    """Newest first, one more than the page."""
    rows = connection.fetch(
        """SELECT instance_id, permission, granted_at, expires_at_ms, rowid
           FROM do_permissions WHERE delegate_id = ? AND rowid < ? ORDER BY rowid DESC LIMIT ?""",
        delegate_id,
        page.position,
        page.limit + 1,
    )
    return [GrantRow(*row) for row in rows]


def upsert_grant(
    tx: Transaction, delegate_id: str, instance_id: str, permission: str, expires_at_ms: int | None, now: int
) -> None:
    tx.execute(
        """INSERT INTO do_permissions (delegate_id, instance_id, permission, expires_at_ms, granted_at)
           VALUES (?, ?, ?, ?, ?)
           ON CONFLICT (delegate_id, instance_id) DO UPDATE SET
               permission = excluded.permission, expires_at_ms = excluded.expires_at_ms,
               granted_at = excluded.granted_at""",
        delegate_id,
        instance_id,
        permission,
        expires_at_ms,
        sql_text(now),
    )


def delete_grant(tx: Transaction, delegate_id: str, instance_id: str) -> int:
    return tx.execute("DELETE FROM do_permissions WHERE delegate_id = ? AND instance_id = ?", delegate_id, instance_id)
