"""Quota: what a plan allows, less what the ledger says was spent, less what is reserved."""

from functools import lru_cache
from typing import NamedTuple

import msgspec

from app.edge.clock import instant
from app.edge.database import Connection
from app.usage import queries
from app.usage.period import TIMEZONE, Period, period_of
from app.usage.plans import UNLIMITED, monthly_tokens


class Quota(NamedTuple):
    """Tokens of one user in one period. `total` is UNLIMITED (-1) where the plan sets no limit."""

    plan: str
    total: int
    used: int
    reserved: int
    period: Period

    @property
    def remaining(self) -> int:
        """Never below 0, not lessened by holds, -1 when unlimited."""
        return UNLIMITED if self.total == UNLIMITED else max(0, self.total - self.used)

    @property
    def free(self) -> int | None:
        """What could be reserved now; None when unlimited."""
        return None if self.total == UNLIMITED else max(0, self.total - self.used - self.reserved)


def read_quota(connection: Connection, user_id: str, now: int) -> Quota | None:
    """One indexed read, however long the ledger; None for a user that is not there."""
    period = period_of(now)
    return _as_quota(queries.find_quota(connection, user_id, period.start_ms, now), period)


def read_any_quota(connection: Connection, any_id: str, now: int) -> Quota | None:
    """The same, by Clerk's id or ours."""
    period = period_of(now)
    return _as_quota(queries.find_any_quota(connection, any_id, period.start_ms, now), period)


def _as_quota(found: queries.Standing | None, period: Period) -> Quota | None:
    if found is None:
        return None
    total = monthly_tokens(found.plan_tokens, found.token_quota)
    return Quota(found.plan, total, found.used, found.reserved, period)


class QuotaSummary(msgspec.Struct, frozen=True):
    """What the profile and the quota endpoint both give. -1 is unlimited."""

    total: int
    used: int
    remaining: int
    resetDate: str


class PeriodView(msgspec.Struct, frozen=True):
    start: str
    end: str
    timezone: str


class QuotaView(QuotaSummary, frozen=True):
    plan: str
    period: PeriodView
    reserved: int


def summary(quota: Quota) -> QuotaSummary:
    return QuotaSummary(quota.total, quota.used, quota.remaining, _period_view(quota.period).end)


def view(quota: Quota) -> QuotaView:
    """The summary, with the plan, the period and what is reserved."""
    period = _period_view(quota.period)
    return QuotaView(quota.total, quota.used, quota.remaining, period.end, quota.plan, period, quota.reserved)


@lru_cache(maxsize=16)
def _period_view(period: Period) -> PeriodView:
    return PeriodView(instant(period.start_ms), instant(period.end_ms), TIMEZONE)
