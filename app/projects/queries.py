"""The SQL of projects and of their instances' rows."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

from app.edge.clock import sql_text
from app.edge.database import Connection, Transaction
from app.projects.access_queries import CREATING, READY, Instance, Project
from app.projects.page import Page


class ListedProject(NamedTuple):
    """`level` is the strongest that the lister has."""

    id: str
    name: str
    description: str | None
    created_at: str
    updated_at: str
    level: int
    sorted_by: int
    position: int


class ListedInstance(NamedTuple):
    id: str
    project_id: str
    name: str
    is_readonly: int
    created_at: str
    updated_at: str
    position: int

    @property
    def sorted_by(self) -> int:
        return 0


_SHARED = "CASE s.permission WHEN 'admin' THEN 3 WHEN 'write' THEN 2 ELSE 1 END"
_LISTED = """
    SELECT p.id, p.name, p.description, p.created_at, p.updated_at, max(granted.level), p.updated_at_ms, p.rowid
    FROM granted JOIN projects p ON p.id = granted.project_id
"""
_PAGE = "GROUP BY p.id ORDER BY p.updated_at_ms DESC, p.rowid DESC LIMIT ?7"


def list_projects(
    connection: Connection,
    user_id: str | None,
    key_id: str | None,
    public: bool,
    project_id: str | None,
    page: Page,
) -> list[ListedProject]:
    """Owned and shared, and public ones too if asked for; one more than the page, which tells that there is another.

    Only `project_id`, where it is given.
    """
    rows = connection.fetch(
        f"""WITH granted (project_id, level) AS (
                SELECT id, 4 FROM projects WHERE owner_id = ?1
                UNION ALL
                SELECT s.project_id, {_SHARED} FROM shares s WHERE s.target_user_id = ?1
                UNION ALL
                SELECT s.project_id, {_SHARED} FROM group_members m JOIN shares s ON s.target_group_id = m.group_id
                WHERE m.user_id = ?1
                UNION ALL
                SELECT s.project_id, {_SHARED} FROM shares s WHERE s.target_key_id = ?2
                UNION ALL
                SELECT s.project_id, {_SHARED} FROM shares s WHERE ?3 AND s.target_type = 'public')
            {_LISTED}
            WHERE (?4 IS NULL OR p.id = ?4) AND (p.updated_at_ms, p.rowid) < (?5, ?6)
            {_PAGE}""",
        user_id,
        key_id,
        public,
        project_id,
        page.sorted_by,
        page.position,
        page.limit + 1,
    )
    return [ListedProject(*row) for row in rows]


def insert_project(tx: Transaction, project: Project, now: int) -> None:
    tx.execute(
        """INSERT INTO projects (id, owner_id, name, description, created_at, updated_at, updated_at_ms)
           VALUES (?, ?, ?, ?, ?, ?, ?)""",
        *project,
        now,
    )


def update_project(tx: Transaction, project_id: str, name: str, description: str | None, now: int) -> None:
    tx.execute(
        "UPDATE projects SET name = ?, description = ?, updated_at = ?, updated_at_ms = ? WHERE id = ?",
        name,
        description,
        sql_text(now),
        now,
        project_id,
    )


def delete_project(tx: Transaction, project_id: str) -> int:
    return tx.execute("DELETE FROM projects WHERE id = ?", project_id)


def list_instance_ids(connection: Connection, project_id: str) -> list[str]:
    rows = connection.fetch("SELECT id FROM instances WHERE project_id = ? ORDER BY rowid", project_id)
    return [row[0] for row in rows]


def list_instances(connection: Connection, project_id: str, page: Page) -> list[ListedInstance]:
    """Newest first, one more than the page."""
    rows = connection.fetch(
        """SELECT id, project_id, name, is_readonly, created_at, updated_at, rowid
           FROM instances WHERE project_id = ? AND rowid < ? ORDER BY rowid DESC LIMIT ?""",
        project_id,
        page.position,
        page.limit + 1,
    )
    return [ListedInstance(*row) for row in rows]


def insert_instance(
    tx: Transaction, instance_id: str, project_id: str, name: str, region: str, state: str, now: int
) -> None:
    at = sql_text(now)
    tx.execute(
        """INSERT INTO instances (id, project_id, name, region, state, created_at, updated_at)
           VALUES (?, ?, ?, ?, ?, ?, ?)""",
        instance_id,
        project_id,
        name,
        region,
        state,
        at,
        at,
    )


def update_instance(tx: Transaction, instance: Instance, now: int) -> None:
    """Write its name and flag."""
    tx.execute(
        "UPDATE instances SET name = ?, is_readonly = ?, updated_at = ? WHERE id = ?",
        instance.name,
        int(instance.is_readonly),
        sql_text(now),
        instance.id,
    )


def update_instance_ready(tx: Transaction, instance_id: str) -> int:
    return tx.execute("UPDATE instances SET state = ? WHERE id = ? AND state = ?", READY, instance_id, CREATING)


def delete_instance(tx: Transaction, instance_id: str) -> int:
    return tx.execute("DELETE FROM instances WHERE id = ?", instance_id)


def find_region(connection: Connection, instance_id: str) -> str | None:
    """Where an instance was made; None where there is none."""
    row = connection.fetch_one("SELECT region FROM instances WHERE id = ?", instance_id)
    return row[0] if row else None


def list_made_elsewhere(connection: Connection, names: Sequence[str], region: str) -> list[tuple[str, str]]:
    """Those of `names` that were made for another region than this, each with its own."""
    marks = ", ".join("?" * len(names))
    rows = connection.fetch(f"SELECT id, region FROM instances WHERE id IN ({marks}) AND region <> ?", *names, region)
    return [(row[0], row[1]) for row in rows]


def update_region(tx: Transaction, instance_id: str, region: str) -> None:
    tx.execute("UPDATE instances SET region = ? WHERE id = ?", region, instance_id)


def list_creating(connection: Connection) -> list[str]:
    return [row[0] for row in connection.fetch("SELECT id FROM instances WHERE state = 'creating'")]


def has_tombstone(connection: Connection, instance_id: str) -> bool:
    return connection.fetch_one("SELECT 1 FROM instance_tombstones WHERE instance_id = ?", instance_id) is not None


def list_deleted(connection: Connection, names: Sequence[str], before_ms: int = sys.maxsize) -> list[str]:
    """Those of `names` that were deleted, before an instant or ever, and are nothing else's."""
    marks = ", ".join("?" * len(names))
    rows = connection.fetch(
        f"""SELECT instance_id FROM instance_tombstones WHERE instance_id IN ({marks}) AND deleted_at_ms < ?
            EXCEPT SELECT id FROM instances WHERE id IN ({marks})""",
        *names,
        before_ms,
        *names,
    )
    return [row[0] for row in rows]


def find_first_project(connection: Connection, user_id: str) -> str | None:
    """The oldest project of a user."""
    row = connection.fetch_one("SELECT id FROM projects WHERE owner_id = ? ORDER BY rowid LIMIT 1", user_id)
    return row[0] if row else None
