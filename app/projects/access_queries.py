"""The SQL that access rests on: each a look-up by an index."""

from typing import NamedTuple

from app.edge.database import Connection

CREATING, READY = "creating", "ready"


class Instance(NamedTuple):
    """The row of an instance; `owner_id` is its project's."""

    id: str
    project_id: str
    owner_id: str
    name: str
    is_readonly: bool
    region: str
    state: str
    created_at: str
    updated_at: str


class Project(NamedTuple):
    id: str
    owner_id: str
    name: str
    description: str | None
    created_at: str
    updated_at: str


class Grant(NamedTuple):
    """What a delegate may do at one instance. The user is the one that it acts for."""

    user_id: str
    can_read: bool
    can_write: bool
    can_system: bool
    permission: str
    until_ms: int | None


def find_instance(connection: Connection, instance_id: str) -> Instance | None:
    row = connection.fetch_one(
        """SELECT i.id, i.project_id, p.owner_id, i.name, i.is_readonly, i.region, i.state, i.created_at, i.updated_at
           FROM instances i JOIN projects p ON p.id = i.project_id WHERE i.id = ?""",
        instance_id,
    )
    return Instance(*row)._replace(is_readonly=bool(row[4])) if row else None


def find_project(connection: Connection, project_id: str) -> Project | None:
    row = connection.fetch_one(
        "SELECT id, owner_id, name, description, created_at, updated_at FROM projects WHERE id = ?", project_id
    )
    return Project(*row) if row else None


def list_shares_for(
    connection: Connection, project_id: str, instance_id: str | None, user_id: str | None, key_id: str | None
) -> list[tuple[str, bool, str]]:
    """`(named, api_key or public; whether it is of the instance; permission)` of each share that says something."""
    rows = connection.fetch(
        """WITH targets (kind, type, id) AS (
               VALUES ('named', 'user', ?3), ('api_key', 'api_key', ?4), ('public', 'public', '')
               UNION ALL SELECT 'named', 'group', group_id FROM group_members WHERE user_id = ?3)
           SELECT t.kind, 0, s.permission FROM targets t CROSS JOIN shares s
           WHERE s.project_id = ?1 AND s.target_type = t.type AND ifnull(s.target_id, '') = t.id
           UNION ALL
           SELECT t.kind, 1, s.permission FROM targets t CROSS JOIN shares s
           WHERE s.instance_id = ?2 AND s.target_type = t.type AND ifnull(s.target_id, '') = t.id""",
        project_id,
        instance_id,
        user_id,
        key_id,
    )
    return [(row[0], bool(row[1]), row[2]) for row in rows]


def find_grant(connection: Connection, delegate_id: str, secret_id: str, instance_id: str, now: int) -> Grant | None:
    """None when the secret is revoked, or the delegate, its user or the grant is gone or has expired."""
    row = connection.fetch_one(
        """SELECT d.user_id, d.can_read, d.can_write, d.can_system, g.permission, d.expires_at_ms, g.expires_at_ms
           FROM delegates d
           JOIN users u ON u.id = d.user_id AND u.suspended = 0
           JOIN delegate_secrets s ON s.delegate_id = d.delegate_id AND s.secret_id = ?2 AND s.revoked_at_ms IS NULL
           JOIN do_permissions g ON g.delegate_id = d.delegate_id AND g.instance_id = ?3
           WHERE d.delegate_id = ?1 AND (d.expires_at_ms IS NULL OR d.expires_at_ms > ?4)
             AND (g.expires_at_ms IS NULL OR g.expires_at_ms > ?4)""",
        delegate_id,
        secret_id,
        instance_id,
        now,
    )
    if row is None:
        return None
    ends = [at for at in row[5:] if at is not None]
    return Grant(row[0], bool(row[1]), bool(row[2]), bool(row[3]), row[4], min(ends, default=None))
