"""The SQL of the ledger, its counters and its reservations."""

from typing import NamedTuple

from app.edge.database import Connection, Row, Transaction


class Payer(NamedTuple):
    """Whose usage an event is, and where the current period stood before this batch."""

    user_id: str
    plan_tokens: int
    token_quota: int | None
    used: int


class Written(NamedTuple):
    """A ledger row, as a replay or an amendment needs it."""

    id: int
    content_hash: bytes
    user_id: str
    session_id: str | None
    model: str | None
    provider: str | None
    endpoint: str | None
    occurred_at_ms: int
    total: int
    input: int
    output: int
    amends_id: int | None


_QUOTA = """
    SELECT u.plan, p.monthly_tokens, u.token_quota, coalesce(c.total_tokens, 0),
           (SELECT coalesce(sum(r.max_tokens), 0) FROM reservations r
            WHERE r.user_id = u.id AND r.state = 'held' AND r.expires_at_ms > ?1)
    FROM users u
    JOIN plans p ON p.name = u.plan
    LEFT JOIN usage_periods c ON c.user_id = u.id AND c.period_start_ms = ?2
"""
# By Clerk's id or ours.
_USER_OF_ANY_ID = "coalesce((SELECT user_id FROM identities WHERE provider = 'clerk' AND subject = {0}), {0})"
_FIND_QUOTA = f"{_QUOTA} WHERE u.id = ?3"
_FIND_ANY_QUOTA = f"{_QUOTA} WHERE u.id = {_USER_OF_ANY_ID.format('?3')}"


class Standing(NamedTuple):
    """A plan, its tokens, the user's own in their place, and what is used and reserved."""

    plan: str
    plan_tokens: int
    token_quota: int | None
    used: int
    reserved: int


def find_quota(connection: Connection, user_id: str, period_start_ms: int, now: int) -> Standing | None:
    row = connection.fetch_one(_FIND_QUOTA, now, period_start_ms, user_id)
    return Standing(*row) if row else None


def find_any_quota(connection: Connection, any_id: str, period_start_ms: int, now: int) -> Standing | None:
    """The same by Clerk's id or ours."""
    row = connection.fetch_one(_FIND_ANY_QUOTA, now, period_start_ms, any_id)
    return Standing(*row) if row else None


_FIND_PAYER = f"""
    SELECT u.id, p.monthly_tokens, u.token_quota, coalesce(c.total_tokens, 0)
    FROM users u
    JOIN plans p ON p.name = u.plan
    LEFT JOIN usage_periods c ON c.user_id = u.id AND c.period_start_ms = ?2
    WHERE u.id = {_USER_OF_ANY_ID.format("?1")}
"""


def find_payer(connection: Connection, any_id: str, period_start_ms: int) -> Payer | None:
    """By Clerk's id or ours."""
    row = connection.fetch_one(_FIND_PAYER, any_id, period_start_ms)
    return Payer(*row) if row else None


def find_used(connection: Connection, user_id: str, period_start_ms: int) -> int:
    row = connection.fetch_one(
        "SELECT total_tokens FROM usage_periods WHERE user_id = ? AND period_start_ms = ?", user_id, period_start_ms
    )
    return row[0] if row else 0


_WRITTEN = """
    SELECT id, content_hash, user_id, session_id, model, provider, endpoint, occurred_at_ms,
           total_tokens, input_tokens, output_tokens, amends_id
    FROM usage_logs
"""


_FIND_WRITTEN = f"{_WRITTEN} WHERE event_key = ?"
_IS_ARCHIVED = "SELECT 1 FROM usage_logs WHERE event_key = ?"
_LIST_AMENDMENTS = "SELECT id, total_tokens, input_tokens, output_tokens FROM usage_logs WHERE amends_id = ?"


def find_written(tx: Transaction, event_key: bytes) -> Written | None:
    """Wherever the row is now."""
    rows = tx.fetch(_FIND_WRITTEN, event_key) or tx.fetch_archived(_FIND_WRITTEN, event_key)
    return Written(*rows[0]) if rows else None


def is_archived(tx: Transaction, event_key: bytes) -> bool:
    """Whether an event of that identity has left the core."""
    return bool(tx.fetch_archived(_IS_ARCHIVED, event_key))


def get_amended_sums(tx: Transaction, log_id: int) -> tuple[int, int, int]:
    """What the amendments of a row add to its totals until now."""
    # One that is on its way to the archive is in both files.
    found = {row[0]: row for row in (*tx.fetch_archived(_LIST_AMENDMENTS, log_id), *tx.fetch(_LIST_AMENDMENTS, log_id))}
    return (
        sum(row[1] for row in found.values()),
        sum(row[2] for row in found.values()),
        sum(row[3] for row in found.values()),
    )


# The trigger usage_logs_counted adds the row to its period and its roll-up.
INSERT_LOG = """
    INSERT INTO usage_logs (
        user_id, session_id, response_id, event_id, event_type, provider, model,
        total_tokens, input_tokens, output_tokens, input_token_details, output_token_details, metadata,
        created_at, source, occurred_at_ms, received_at_ms, api_key_id, endpoint, amends_id,
        event_key, content_hash, previous_id, cost_micros)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22,
        (SELECT last_log_id FROM usage_periods WHERE user_id = ?1 AND period_start_ms = ?23),
        (SELECT CAST(
             round((?9 * prompt_micros_per_million + ?10 * completion_micros_per_million) / 1000000.0) AS INTEGER)
         FROM prices WHERE provider = ?6 AND model = ?7 AND valid_from_ms <= ?16 AND ?8 = ?9 + ?10
         ORDER BY valid_from_ms DESC LIMIT 1))
    ON CONFLICT (event_key) DO NOTHING
"""


def insert_log(tx: Transaction, values: Row) -> bool:
    """False when an event of that identity is there already."""
    return tx.execute(INSERT_LOG, *values) > 0


def list_alerts(connection: Connection, user_id: str, period_start_ms: int) -> list[str]:
    """The thresholds that were noted in a period."""
    rows = connection.fetch(
        "SELECT threshold FROM usage_alerts WHERE user_id = ? AND period_start_ms = ?", user_id, period_start_ms
    )
    return [row[0] for row in rows]


def insert_alert(
    tx: Transaction, user_id: str, period_start_ms: int, threshold: str, used: int, total: int, created_at: str
) -> None:
    tx.execute(
        """INSERT INTO usage_alerts (user_id, period_start_ms, threshold, used, total, created_at)
           VALUES (?, ?, ?, ?, ?, ?)""",
        user_id,
        period_start_ms,
        threshold,
        used,
        total,
        created_at,
    )


class Reservation(NamedTuple):
    id: str
    user_id: str
    max_tokens: int
    ttl_seconds: int
    remaining: int
    state: str
    settled_tokens: int | None
    expires_at_ms: int
    first_expires_at_ms: int


def find_reservation(connection: Connection, reservation_id: str) -> Reservation | None:
    row = connection.fetch_one(
        """SELECT id, user_id, max_tokens, ttl_seconds, remaining, state, settled_tokens, expires_at_ms,
                  first_expires_at_ms
           FROM reservations WHERE id = ?""",
        reservation_id,
    )
    return Reservation(*row) if row else None


def insert_reservation(tx: Transaction, hold: Reservation, api_key_id: str | None, created_at: str) -> None:
    tx.execute(
        """INSERT INTO reservations (
               id, user_id, max_tokens, ttl_seconds, remaining, state, expires_at_ms, first_expires_at_ms,
               api_key_id, created_at, updated_at)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        hold.id,
        hold.user_id,
        hold.max_tokens,
        hold.ttl_seconds,
        hold.remaining,
        hold.state,
        hold.expires_at_ms,
        hold.first_expires_at_ms,
        api_key_id,
        created_at,
        created_at,
    )


def update_reservation_state(
    tx: Transaction, reservation_id: str, state: str, settled_tokens: int | None, updated_at: str
) -> None:
    tx.execute(
        "UPDATE reservations SET state = ?, settled_tokens = ?, updated_at = ? WHERE id = ?",
        state,
        settled_tokens,
        updated_at,
        reservation_id,
    )


def update_reservation_expiry(tx: Transaction, reservation_id: str, expires_at_ms: int, updated_at: str) -> None:
    tx.execute(
        "UPDATE reservations SET expires_at_ms = ?, updated_at = ? WHERE id = ?",
        expires_at_ms,
        updated_at,
        reservation_id,
    )


def list_history(connection: Connection, user_id: str, group: str, from_ms: int, to_ms: int, limit: int) -> list[Row]:
    """`(group, total, input, output, events, cost)` by day oldest first, else by the largest total."""
    column = {
        "day": "date(day_start_ms / 1000, 'unixepoch')",
        "model": "model",
        "session": "session_id",
        "endpoint": "endpoint",
    }[group]
    order = "1" if group == "day" else "2 DESC, 1"
    return connection.fetch(
        f"""SELECT {column}, sum(total_tokens), sum(input_tokens), sum(output_tokens), sum(events), sum(cost_micros)
            FROM usage_rollups WHERE user_id = ? AND day_start_ms >= ? AND day_start_ms < ?
            GROUP BY 1 ORDER BY {order} LIMIT ?""",
        user_id,
        from_ms,
        to_ms,
        limit,
    )


def list_chain_heads(connection: Connection, user_id: str, from_ms: int, to_ms: int) -> list[int]:
    """The newest row of each of a user's periods that touches `[from_ms, to_ms)`, newest period first."""
    rows = connection.fetch(
        """SELECT last_log_id FROM usage_periods
           WHERE user_id = ? AND period_start_ms >= ? AND period_start_ms < ? ORDER BY period_start_ms DESC""",
        user_id,
        from_ms,
        to_ms,
    )
    return [row[0] for row in rows]


EXPORTED = (
    "id", "user_id", "session_id", "response_id", "event_id", "event_type", "provider", "model", "total_tokens",
    "input_tokens", "output_tokens", "input_token_details", "output_token_details", "metadata", "created_at",
    "source", "occurred_at_ms", "received_at_ms", "cost_micros", "instance_id", "api_key_id", "endpoint",
)  # fmt: skip

SCAN_LOGS = f"SELECT {', '.join(EXPORTED)} FROM usage_logs WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"


def get_newest_log(connection: Connection) -> int:
    """The number of the ledger's last row, 0 while it is empty."""
    row = connection.fetch_one("SELECT coalesce(max(id), 0) FROM usage_logs")
    return int(row[0]) if row else 0


# Follows previous_id for a page; the last column leads to the next one. It asks for each row by itself, because
# usage_logs may be a view over two files, and a join would read all of it.
PAGE_CHAIN = f"""
    WITH RECURSIVE chain (id, step) AS (
        SELECT ?1, 1
        UNION ALL
        SELECT (SELECT previous_id FROM usage_logs WHERE id = chain.id), step + 1 FROM chain
        WHERE chain.id IS NOT NULL AND step < ?2)
    SELECT {", ".join(EXPORTED)}, previous_id
    FROM usage_logs WHERE id IN (SELECT id FROM chain) ORDER BY id DESC
"""
