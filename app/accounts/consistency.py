"""Consistency: whether what is kept twice agrees, on a sample that stays small however long the ledger."""

import msgspec

from app.accounts import queries
from app.accounts.queries import Counted
from app.edge.clock import instant
from app.edge.database import Database
from app.identity.users import DEV_USER
from app.webhooks.log import FAILED
from app.webhooks.queries import COUNT_LOGS

SAMPLE_ROWS = 1_000
SAMPLE_PERIODS = 20
SAMPLE_CHAIN_ROWS = 5_000
USERS_NAMED = 20


class WithoutIdentity(msgspec.Struct):
    """Users that no sign-in leads to, such as those a command made."""

    count: int
    sample: list[str]


class Difference(msgspec.Struct):
    userId: str
    periodStart: str
    counter: int
    ledger: int


class Counters(msgspec.Struct):
    """Counters of recent periods against the sums of their rows; `skipped` have too many rows for a sample."""

    checked: int
    skipped: int
    differences: list[Difference]


class ConsistencyView(msgspec.Struct):
    """`consistent` when every counter that was checked is right and no event waits for a retry."""

    status: str
    timestamp: str
    usersWithoutIdentity: WithoutIdentity
    counters: Counters
    failedWebhooks: int


async def check(db: Database, now: int) -> ConsistencyView:
    without = await db.page(queries.LIST_WITHOUT_IDENTITY, DEV_USER, USERS_NAMED)
    compared = await db.page(queries.COMPARE_COUNTERS, SAMPLE_ROWS, SAMPLE_PERIODS, SAMPLE_CHAIN_ROWS)
    counters = _counters([Counted(*row) for row in compared])
    failed = (await db.page(COUNT_LOGS, FAILED, None))[0][0]
    return ConsistencyView(
        status="inconsistent" if counters.differences or failed else "consistent",
        timestamp=instant(now),
        usersWithoutIdentity=WithoutIdentity(without[0][1] if without else 0, [row[0] for row in without]),
        counters=counters,
        failedWebhooks=failed,
    )


def _counters(compared: list[Counted]) -> Counters:
    summed = [one for one in compared if one.summed is not None]
    differences = [
        Difference(one.user_id, instant(one.period_start_ms), one.counted, one.summed or 0)
        for one in summed
        if one.summed != one.counted
    ]
    return Counters(len(summed), len(compared) - len(summed), differences)
