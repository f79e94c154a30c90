"""The SQL of the operator's page. Whatever reads more than a few rows is read off the loop."""

from typing import NamedTuple

from app.edge.database import Database

# Beyond this a number says no more than that there are many.
COUNTED = 10_000


class Day(NamedTuple):
    """What all users spent on one day, UTC."""

    start_ms: int
    tokens: int
    events: int
    cost_micros: int


class Counts(NamedTuple):
    """None of them goes beyond COUNTED."""

    users: int
    keys: int
    projects: int
    instances: int


class Listed(NamedTuple):
    """An instance as the list shows it."""

    id: str
    name: str
    project: str
    owner_id: str
    region: str
    is_readonly: int
    updated_at_ms: int


async def list_days(db: Database, since_ms: int) -> list[Day]:
    """Days since then on which there was any usage, oldest first."""
    rows = await db.page(
        """SELECT day_start_ms, total_tokens, events, cost_micros FROM usage_days
           WHERE day_start_ms >= ? ORDER BY day_start_ms""",
        since_ms,
    )
    return [Day(*row) for row in rows]


async def get_counts(db: Database) -> Counts:
    rows = await db.page(
        """SELECT (SELECT count(*) FROM (SELECT 1 FROM users LIMIT :most)),
                  (SELECT count(*) FROM (SELECT 1 FROM api_keys WHERE status = 'active' LIMIT :most)),
                  (SELECT count(*) FROM (SELECT 1 FROM projects LIMIT :most)),
                  (SELECT count(*) FROM (SELECT 1 FROM instances LIMIT :most))""".replace(":most", str(COUNTED))
    )
    return Counts(*rows[0])


async def list_instances(db: Database, after: str, limit: int) -> list[Listed]:
    """Instances after an id, in the order of ids."""
    rows = await db.page(
        """SELECT i.id, i.name, p.name, p.owner_id, i.region, i.is_readonly,
                  unixepoch(i.updated_at) * 1000
           FROM instances i JOIN projects p ON p.id = i.project_id WHERE i.id > ? ORDER BY i.id LIMIT ?""",
        after,
        limit,
    )
    return [Listed(*row) for row in rows]
