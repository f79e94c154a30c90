"""The SQL that sums the ledger up again."""

from app.edge.database import Connection, Row

DIFFERENCES = 1_000

_MONTH = "unixepoch(occurred_at_ms / 1000, 'unixepoch', 'start of month') * 1000"
_SUMS = """sum(total_tokens) AS total, sum(input_tokens) AS input, sum(output_tokens) AS output,
           count(*) AS events, coalesce(sum(cost_micros), 0) AS cost"""
_BOTH = """coalesce(c.total_tokens, 0), coalesce(c.input_tokens, 0), coalesce(c.output_tokens, 0),
           coalesce(c.events, 0), coalesce(c.cost_micros, 0),
           coalesce(l.total, 0), coalesce(l.input, 0), coalesce(l.output, 0),
           coalesce(l.events, 0), coalesce(l.cost, 0)"""
_DIFFER = """c.total_tokens IS NOT l.total OR c.input_tokens IS NOT l.input OR c.output_tokens IS NOT l.output
           OR c.events IS NOT l.events OR c.cost_micros IS NOT l.cost"""


def list_period_differences(connection: Connection) -> list[Row]:
    """`(user, period, counted…, ledger…)` where the two disagree."""
    return connection.fetch(
        f"""WITH l AS (SELECT user_id, {_MONTH} AS at, {_SUMS} FROM usage_logs GROUP BY 1, 2)
            SELECT coalesce(c.user_id, l.user_id), coalesce(c.period_start_ms, l.at), {_BOTH}
            FROM l FULL JOIN usage_periods c ON c.user_id = l.user_id AND c.period_start_ms = l.at
            WHERE {_DIFFER} LIMIT ?""",
        DIFFERENCES,
    )


def list_rollup_differences(connection: Connection) -> list[Row]:
    """The same by day, session, model and endpoint."""
    return connection.fetch(
        f"""WITH l AS (
                SELECT user_id, occurred_at_ms - occurred_at_ms % 86400000 AS at, coalesce(session_id, '') AS session,
                       coalesce(model, 'unknown') AS model, coalesce(endpoint, '') AS endpoint, {_SUMS}
                FROM usage_logs GROUP BY 1, 2, 3, 4, 5)
            SELECT coalesce(c.user_id, l.user_id), coalesce(c.day_start_ms, l.at), {_BOTH}
            FROM l FULL JOIN usage_rollups c
                ON c.user_id = l.user_id AND c.day_start_ms = l.at AND c.session_id = l.session
                AND c.model = l.model AND c.endpoint = l.endpoint
            WHERE {_DIFFER} LIMIT ?""",
        DIFFERENCES,
    )


def list_day_differences(connection: Connection) -> list[Row]:
    """The same by day, of all users together."""
    return connection.fetch(
        f"""WITH l AS (SELECT occurred_at_ms - occurred_at_ms % 86400000 AS at, {_SUMS} FROM usage_logs GROUP BY 1)
            SELECT '', coalesce(c.day_start_ms, l.at), {_BOTH}
            FROM l FULL JOIN usage_days c ON c.day_start_ms = l.at
            WHERE {_DIFFER} LIMIT ?""",
        DIFFERENCES,
    )


def count_broken_links(connection: Connection) -> int:
    """Rows whose previous_id is not the row before it of that user and period."""
    row = connection.fetch_one(
        f"""SELECT count(*) FROM (
                SELECT previous_id, lag(id) OVER (PARTITION BY user_id, {_MONTH} ORDER BY id) AS before
                FROM usage_logs)
            WHERE previous_id IS NOT before"""
    )
    return int(row[0]) if row else 0


def count_rows(connection: Connection) -> tuple[int, int]:
    """`(ledger rows, counters)`."""
    row = connection.fetch_one(
        """SELECT (SELECT count(*) FROM usage_logs),
                  (SELECT count(*) FROM usage_periods) + (SELECT count(*) FROM usage_rollups)
                  + (SELECT count(*) FROM usage_days)"""
    )
    return (row[0], row[1]) if row else (0, 0)
