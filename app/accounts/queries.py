"""The SQL of profiles, and of what a provider last said of its objects."""

from typing import NamedTuple

from app.edge.clock import sql_text
from app.edge.database import Connection, Transaction


class UserRow(NamedTuple):
    """A user as the profile shows it and as a provider's event changes it."""

    email: str | None
    first_name: str | None
    last_name: str | None
    image_url: str | None
    plan: str
    token_quota: int | None
    suspended: bool
    created_at: str
    updated_at: str


def find_user(connection: Connection, user_id: str) -> UserRow | None:
    row = connection.fetch_one(
        """SELECT email, first_name, last_name, image_url, plan, token_quota, suspended, created_at, updated_at
           FROM users WHERE id = ?""",
        user_id,
    )
    return UserRow(*row)._replace(suspended=bool(row[6])) if row else None


def find_clerk_id(connection: Connection, any_id: str) -> str | None:
    """Clerk's id of a user, from ours or from itself."""
    row = connection.fetch_one(
        """SELECT subject FROM identities WHERE provider = 'clerk' AND subject = ?1
           UNION ALL SELECT subject FROM identities WHERE user_id = ?1 AND provider = 'clerk' LIMIT 1""",
        any_id,
    )
    return row[0] if row else None


def has_plan(connection: Connection, name: str) -> bool:
    return connection.fetch_one("SELECT 1 FROM plans WHERE name = ?", name) is not None


def update_profile(
    tx: Transaction,
    user_id: str,
    email: str | None,
    first_name: str | None,
    last_name: str | None,
    image_url: str | None,
    now: int,
) -> int:
    return tx.execute(
        "UPDATE users SET email = ?, first_name = ?, last_name = ?, image_url = ?, updated_at = ? WHERE id = ?",
        email,
        first_name,
        last_name,
        image_url,
        sql_text(now),
        user_id,
    )


def update_seen(tx: Transaction, user_id: str, seen_ms: int) -> int:
    return tx.execute("UPDATE users SET seen_at_ms = max(coalesce(seen_at_ms, 0), ?) WHERE id = ?", seen_ms, user_id)


def upsert_object(tx: Transaction, provider: str, object_id: str, user_id: str, updated_at_ms: int) -> bool:
    """Note when an object was changed at its provider. False when something newer of it is known already."""
    return (
        tx.execute(
            """INSERT INTO provider_objects (provider, object_id, user_id, updated_at_ms) VALUES (?, ?, ?, ?)
               ON CONFLICT (provider, object_id) DO UPDATE SET
                   user_id = excluded.user_id, updated_at_ms = excluded.updated_at_ms
               WHERE excluded.updated_at_ms >= provider_objects.updated_at_ms""",
            provider,
            object_id,
            user_id,
            updated_at_ms,
        )
        > 0
    )


class Counted(NamedTuple):
    """A period's counter, and the sum of its rows in the ledger; None where they were too many to sum."""

    user_id: str
    period_start_ms: int
    counted: int
    summed: int | None


# Users without a sign-in, the development user aside; read off the loop.
LIST_WITHOUT_IDENTITY = """
    SELECT id, count(*) OVER () FROM users u
    WHERE id <> ?1 AND NOT EXISTS (SELECT 1 FROM identities i WHERE i.user_id = u.id)
    ORDER BY created_at DESC LIMIT ?2
"""

# The periods that the newest ?1 rows of the ledger fall into, at most ?2, each summed along its chain of rows
# and compared with its counter. A chain that is longer than ?3 rows, or leads into the archive, is left out: summed
# is NULL.
COMPARE_COUNTERS = """
    WITH RECURSIVE newest AS (SELECT user_id, occurred_at_ms FROM usage_logs ORDER BY id DESC LIMIT ?1),
    sample AS (
        SELECT DISTINCT p.user_id, p.period_start_ms, p.total_tokens, p.events, p.last_log_id
        FROM newest n JOIN usage_periods p ON p.user_id = n.user_id
            AND p.period_start_ms = unixepoch(n.occurred_at_ms / 1000, 'unixepoch', 'start of month') * 1000
        LIMIT ?2),
    chain (user_id, period_start_ms, id, total_tokens) AS (
        SELECT s.user_id, s.period_start_ms, l.previous_id, l.total_tokens
        FROM sample s JOIN usage_logs l ON l.id = s.last_log_id WHERE s.events <= ?3
        UNION ALL
        SELECT c.user_id, c.period_start_ms, l.previous_id, l.total_tokens
        FROM chain c JOIN usage_logs l ON l.id = c.id)
    SELECT s.user_id, s.period_start_ms, s.total_tokens,
        iif(max(c.id IS NOT NULL AND EXISTS (SELECT 1 FROM archived)
                AND NOT EXISTS (SELECT 1 FROM usage_logs l WHERE l.id = c.id)), NULL, sum(c.total_tokens))
    FROM sample s
    LEFT JOIN chain c ON c.user_id = s.user_id AND c.period_start_ms = s.period_start_ms
    GROUP BY s.user_id, s.period_start_ms
"""
