"""The SQL of groups and their members."""

from typing import NamedTuple

from app.edge.clock import sql_text
from app.edge.database import Connection, Transaction
from app.projects.page import Page


class ListedGroup(NamedTuple):
    id: str
    owner_id: str
    name: str
    created_at: str
    member_count: int
    position: int

    @property
    def sorted_by(self) -> int:
        return 0


class ListedMember(NamedTuple):
    """`user_id` is Clerk's id, where there is one."""

    user_id: str
    email: str | None
    name: str | None
    added_at: str
    position: int

    @property
    def sorted_by(self) -> int:
        return 0


_GROUP = """
    SELECT g.id, g.owner_id, g.name, g.created_at,
           (SELECT count(*) FROM group_members m WHERE m.group_id = g.id), g.rowid
    FROM groups g
"""
_MEMBER = """
    SELECT coalesce((SELECT subject FROM identities c WHERE c.user_id = u.id AND c.provider = 'clerk'), u.id),
           u.email, nullif(trim(coalesce(u.first_name, '') || ' ' || coalesce(u.last_name, '')), ''), m.added_at,
           m.rowid
    FROM group_members m JOIN users u ON u.id = m.user_id
"""


def list_groups(connection: Connection, user_id: str, page: Page) -> list[ListedGroup]:
    """Those that a user owns or is in, newest first, one more than the page."""
    rows = connection.fetch(
        f"""{_GROUP}
            WHERE (g.owner_id = ?1 OR g.id IN (SELECT group_id FROM group_members WHERE user_id = ?1))
              AND g.rowid < ?2
            ORDER BY g.rowid DESC LIMIT ?3""",
        user_id,
        page.position,
        page.limit + 1,
    )
    return [ListedGroup(*row) for row in rows]


def find_group(connection: Connection, group_id: str) -> ListedGroup | None:
    row = connection.fetch_one(f"{_GROUP} WHERE g.id = ?", group_id)
    return ListedGroup(*row) if row else None


def insert_group(tx: Transaction, group_id: str, owner_id: str, name: str, now: int) -> None:
    at = sql_text(now)
    tx.execute(
        "INSERT INTO groups (id, owner_id, name, created_at, updated_at) VALUES (?, ?, ?, ?, ?)",
        group_id,
        owner_id,
        name,
        at,
        at,
    )


def update_group(tx: Transaction, group_id: str, name: str, now: int) -> None:
    tx.execute("UPDATE groups SET name = ?, updated_at = ? WHERE id = ?", name, sql_text(now), group_id)


def delete_group(tx: Transaction, group_id: str) -> int:
    return tx.execute("DELETE FROM groups WHERE id = ?", group_id)


def has_member(connection: Connection, group_id: str, user_id: str) -> bool:
    return (
        connection.fetch_one("SELECT 1 FROM group_members WHERE group_id = ? AND user_id = ?", group_id, user_id)
        is not None
    )


def list_members(connection: Connection, group_id: str, page: Page) -> list[ListedMember]:
    """The last added first, one more than the page."""
    rows = connection.fetch(
        f"{_MEMBER} WHERE m.group_id = ? AND m.rowid < ? ORDER BY m.rowid DESC LIMIT ?",
        group_id,
        page.position,
        page.limit + 1,
    )
    return [ListedMember(*row) for row in rows]


def find_member(connection: Connection, group_id: str, user_id: str) -> ListedMember | None:
    row = connection.fetch_one(f"{_MEMBER} WHERE m.group_id = ? AND m.user_id = ?", group_id, user_id)
    return ListedMember(*row) if row else None


def insert_member(tx: Transaction, group_id: str, user_id: str, now: int) -> None:
    """One who is in stays in, since when they were added."""
    tx.execute(
        "INSERT INTO group_members (group_id, user_id, added_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        group_id,
        user_id,
        sql_text(now),
    )


def delete_member(tx: Transaction, group_id: str, user_id: str) -> int:
    return tx.execute("DELETE FROM group_members WHERE group_id = ? AND user_id = ?", group_id, user_id)
