"""Periods: calendar months in UTC, and the days inside them. The one place that knows when quota resets."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

TIMEZONE = "UTC"
DAY_MS = 86_400_000


class Period(NamedTuple):
    """`[start_ms, end_ms)`; `end_ms` is the first instant of the next one."""

    start_ms: int
    end_ms: int


def period_of(ms: int) -> Period:
    """The month that holds an instant."""
    return _period_of_day(ms // DAY_MS)


@lru_cache(maxsize=4096)
def _period_of_day(day: int) -> Period:
    moment = datetime.fromtimestamp(day * DAY_MS / 1000, UTC)
    start = moment.replace(day=1)
    end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return Period(int(start.timestamp()) * 1000, int(end.timestamp()) * 1000)


def day_start(ms: int) -> int:
    return ms - ms % DAY_MS
