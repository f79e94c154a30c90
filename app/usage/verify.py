"""Verification: the counters and roll-ups, computed again from the ledger."""

from typing import NamedTuple

from app.edge.database import Connection
from app.usage import verify_queries


class Difference(NamedTuple):
    """One counter that is not what the ledger says: `(total, input, output, events, cost)` of each."""

    where: str
    user_id: str
    at_ms: int
    counted: tuple[int, ...]
    ledger: tuple[int, ...]


class Report(NamedTuple):
    rows: int
    counters: int
    broken_links: int
    differences: list[Difference]

    @property
    def clean(self) -> bool:
        return not self.differences and not self.broken_links


def verify(connection: Connection) -> Report:
    """Compare all of it in one snapshot. On a large ledger this takes seconds and blocks nobody."""
    differences = [
        Difference(where, row[0], row[1], tuple(row[2:7]), tuple(row[7:12]))
        for where, rows in (
            ("usage_periods", verify_queries.list_period_differences(connection)),
            ("usage_rollups", verify_queries.list_rollup_differences(connection)),
            ("usage_days", verify_queries.list_day_differences(connection)),
        )
        for row in rows
    ]
    rows, counters = verify_queries.count_rows(connection)
    return Report(rows, counters, verify_queries.count_broken_links(connection), differences)
