"""Alerts: at 50, 80 and 100 % of a period and on a forecast overrun, once per threshold and period."""

import pytest

from app.edge.database import Connection, Database, Transaction
from app.identity import queries as identity
from app.usage import ledger
from app.usage.events import read_event
from app.usage.ledger import Poster
from app.usage.wire import Wire

TOTAL = 1_000_000
NOVEMBER = 1_793_491_200_000
DAY = 86_400_000
# So late in a month that no forecast says more than the tokens themselves.
LATE = NOVEMBER + 29 * DAY


@pytest.fixture(autouse=True)
async def users(db: Database) -> None:
    await db.write(add_users)


def add_users(tx: Transaction) -> None:
    for user_id, plan in (("u", "free"), ("v", "free"), ("rich", "enterprise"), ("big", "basic")):
        identity.insert_user(tx, user_id, plan=plan, now=NOVEMBER)
    identity.insert_identity(tx, identity.CLERK, "user_u", "u")


def post(tx: Transaction, user: str, totals: list[int], now: int, atomic: bool = False) -> None:
    events = [read_event(Wire(userId=user, totalTokens=total), now) for total in totals]
    ledger.record(tx, list(events), Poster(), now, atomic)


def alerts(connection: Connection, user_id: str = "u") -> list[tuple[str, int, int]]:
    return [
        (row[0], row[1], row[2])
        for row in connection.fetch(
            "SELECT threshold, used, total FROM usage_alerts WHERE user_id = ? ORDER BY id", user_id
        )
    ]


async def thresholds(db: Database, user_id: str = "u") -> list[str]:
    return [alert[0] for alert in await db.read(alerts, user_id)]


@pytest.mark.anyio
async def test_each_threshold_is_noted_when_it_is_reached(db: Database) -> None:
    for total, expected in ((499_999, []), (1, ["50"]), (299_999, ["50"]), (1, ["50", "80"]), (200_000, [*"x"])):
        await db.write(post, "u", [total], LATE)
        assert await thresholds(db) == (expected if expected != ["x"] else ["50", "80", "100"])
    assert await db.read(alerts) == [("50", 500_000, TOTAL), ("80", 800_000, TOTAL), ("100", TOTAL, TOTAL)]


@pytest.mark.anyio
async def test_one_event_may_reach_them_all(db: Database) -> None:
    await db.write(post, "u", [5 * TOTAL], LATE)
    assert await thresholds(db) == ["50", "80", "100"]


@pytest.mark.anyio
async def test_a_batch_reaches_what_its_events_reach_together(db: Database) -> None:
    await db.write(post, "u", [100_000] * 6, LATE)
    assert await db.read(alerts) == [("50", 600_000, TOTAL)]


@pytest.mark.anyio
async def test_a_batch_that_names_a_user_in_two_ways_reaches_the_same(db: Database) -> None:
    events = [read_event(Wire(userId=name, totalTokens=100_000), LATE) for name in ("u", "user_u", "u", "user_u", "u")]
    await db.write(ledger.record, events, Poster(), LATE)
    assert await thresholds(db) == ["50"]


@pytest.mark.anyio
async def test_a_threshold_is_noted_once_in_a_period(db: Database) -> None:
    first = read_event(Wire(userId="u", totalTokens=600_000, id="e"), LATE)
    back = read_event(Wire(userId="u", totalTokens=0, amends="e"), LATE)
    await db.write(ledger.record, [first], Poster(), LATE)
    await db.write(ledger.record, [back], Poster(), LATE)
    await db.write(post, "u", [600_000], LATE)
    assert await thresholds(db) == ["50"]


@pytest.mark.anyio
async def test_a_threshold_is_noted_again_in_the_next_period(db: Database) -> None:
    await db.write(post, "u", [600_000], LATE)
    await db.write(post, "u", [600_000], LATE + 30 * DAY)
    assert await thresholds(db) == ["50", "50"]


@pytest.mark.anyio
async def test_a_late_event_notes_the_threshold_of_its_own_period(db: Database) -> None:
    event = read_event(Wire(userId="u", totalTokens=600_000), LATE)._replace(occurred_at_ms=NOVEMBER)
    await db.write(ledger.record, [event], Poster(), LATE + 30 * DAY)
    assert await db.read(periods) == [NOVEMBER]


def periods(connection: Connection) -> list[int]:
    return [row[0] for row in connection.fetch("SELECT period_start_ms FROM usage_alerts")]


@pytest.mark.anyio
async def test_a_smaller_plan_notes_what_was_passed_already(db: Database) -> None:
    await db.write(post, "big", [900_000], LATE)
    assert await thresholds(db, "big") == []
    await db.write(identity.update_plan, "big", "free", LATE)
    await db.write(post, "big", [1], LATE)
    assert await thresholds(db, "big") == ["50", "80"]


@pytest.mark.anyio
async def test_an_unlimited_plan_has_no_thresholds(db: Database) -> None:
    await db.write(post, "rich", [10**12], LATE)
    assert await thresholds(db, "rich") == []


@pytest.mark.anyio
async def test_one_users_usage_alerts_nobody_else(db: Database) -> None:
    await db.write(post, "u", [TOTAL], LATE)
    assert await thresholds(db, "v") == []


@pytest.mark.anyio
async def test_nothing_is_noted_of_a_batch_that_was_refused(db: Database) -> None:
    events = [read_event(Wire(userId=name, totalTokens=TOTAL), LATE) for name in ("u", "nobody")]
    with pytest.raises(ledger.Unprocessable):
        await db.write(ledger.record, events, Poster(), LATE, True)
    assert await thresholds(db) == []


@pytest.mark.anyio
async def test_a_forecast_overrun_is_noted_before_the_tokens_are_spent(db: Database) -> None:
    """A fifth of the month, a third of the tokens."""
    await db.write(post, "u", [333_000], NOVEMBER + 6 * DAY)
    assert await thresholds(db) == ["forecast"]
    await db.write(post, "u", [60_000], NOVEMBER + 6 * DAY)
    assert await thresholds(db) == ["forecast"]


@pytest.mark.anyio
async def test_a_pace_that_lasts_is_no_overrun(db: Database) -> None:
    for day in range(3, 30):
        await db.write(post, "v", [TOTAL // 31], NOVEMBER + day * DAY)
    assert "forecast" not in await thresholds(db, "v")
