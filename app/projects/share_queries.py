"""The SQL of shares and of whom they are made to."""

from typing import NamedTuple

from app.edge.clock import sql_text
from app.edge.database import Connection, Transaction
from app.projects.page import Page


class Place(NamedTuple):
    """What is shared: a project or an instance, the other is None."""

    project_id: str | None
    instance_id: str | None


class Target(NamedTuple):
    """Whom a share is made to; `id` is None for the public."""

    type: str
    id: str | None


class ListedShare(NamedTuple):
    """`target_id` of a user is Clerk's, where there is one."""

    id: str
    target_type: str
    target_id: str | None
    permission: str
    created_at: str
    target_email: str | None
    target_name: str | None
    position: int

    @property
    def sorted_by(self) -> int:
        return 0


_LISTED = """
    SELECT s.id, s.target_type,
           coalesce((SELECT subject FROM identities c WHERE c.user_id = s.target_user_id AND c.provider = 'clerk'),
                    s.target_id),
           s.permission, s.created_at, u.email,
           coalesce(nullif(trim(coalesce(u.first_name, '') || ' ' || coalesce(u.last_name, '')), ''), g.name, k.name),
           s.rowid
    FROM shares s
    LEFT JOIN users u ON u.id = s.target_user_id
    LEFT JOIN groups g ON g.id = s.target_group_id
    LEFT JOIN api_keys k ON k.id = s.target_key_id
"""


def list_shares(connection: Connection, place: Place, page: Page) -> list[ListedShare]:
    """Newest first, one more than the page."""
    rows = connection.fetch(
        f"""{_LISTED} WHERE (s.project_id = ?1 OR s.instance_id = ?2) AND s.rowid < ?3
            ORDER BY s.rowid DESC LIMIT ?4""",
        *place,
        page.position,
        page.limit + 1,
    )
    return [ListedShare(*row) for row in rows]


def find_share(connection: Connection, share_id: str) -> ListedShare | None:
    row = connection.fetch_one(f"{_LISTED} WHERE s.id = ?", share_id)
    return ListedShare(*row) if row else None


def find_place(connection: Connection, share_id: str) -> Place | None:
    """What a share is of."""
    row = connection.fetch_one("SELECT project_id, instance_id FROM shares WHERE id = ?", share_id)
    return Place(*row) if row else None


def find_share_id(connection: Connection, place: Place, target: Target) -> str | None:
    row = connection.fetch_one(
        """SELECT id FROM shares
           WHERE (project_id = ?1 OR instance_id = ?2) AND target_type = ?3 AND ifnull(target_id, '') = ?4""",
        *place,
        target.type,
        target.id or "",
    )
    return row[0] if row else None


def insert_share(tx: Transaction, share_id: str, place: Place, target: Target, permission: str, now: int) -> None:
    tx.execute(
        """INSERT INTO shares (id, project_id, instance_id, target_type, target_id, permission, created_at)
           VALUES (?, ?, ?, ?, ?, ?, ?)""",
        share_id,
        *place,
        *target,
        permission,
        sql_text(now),
    )


def update_share(tx: Transaction, share_id: str, permission: str) -> None:
    tx.execute("UPDATE shares SET permission = ? WHERE id = ?", permission, share_id)


def delete_share(tx: Transaction, share_id: str) -> int:
    return tx.execute("DELETE FROM shares WHERE id = ?", share_id)


def list_places_of_group(connection: Connection, group_id: str) -> list[Place]:
    rows = connection.fetch("SELECT project_id, instance_id FROM shares WHERE target_group_id = ?", group_id)
    return [Place(*row) for row in rows]


def find_user_by_email(connection: Connection, email: str) -> str | None:
    """The user with an address, as written or in lower case. Of several it is Clerk's, whose address is verified,
    and of those the oldest."""
    row = connection.fetch_one(
        """SELECT u.id FROM users u WHERE u.email IN (?1, lower(?1)) AND u.suspended = 0
           ORDER BY EXISTS (SELECT 1 FROM identities c WHERE c.user_id = u.id AND c.provider = 'clerk') DESC, u.rowid
           LIMIT 1""",
        email,
    )
    return row[0] if row else None


def has_key(connection: Connection, key_id: str) -> bool:
    return connection.fetch_one("SELECT 1 FROM api_keys WHERE id = ?", key_id) is not None
