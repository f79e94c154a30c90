"""Alerts: the thresholds of a period that a user has passed, each noted once and told to the user's webhooks."""

from app.edge.clock import instant, sql_text
from app.edge.database import Transaction
from app.identity import queries as identity_queries
from app.usage import queries
from app.usage.period import period_of
from app.usage.plans import UNLIMITED, monthly_tokens
from app.usage.queries import Payer
from app.webhooks import outbox
from app.webhooks.subscriptions import USAGE_THRESHOLD

PERCENTS = (50, 80, 100)
FORECAST = "forecast"
# A forecast from less than a tenth of a month is noise, and asking at every twentieth of the quota is enough.
FORECAST_FROM = 0.1
FORECAST_STEPS = 20


def note(tx: Transaction, payer: Payer, period_start: int, before: int, after: int, now: int) -> None:
    """Note what `after` tokens have passed. A plan that shrank may have left thresholds behind `before`, too."""
    total = monthly_tokens(payer.plan_tokens, payer.token_quota)
    if total in (0, UNLIMITED) or after <= before:
        return
    passed = [str(percent) for percent in PERCENTS if total * percent <= after * 100]
    if _forecasts_overrun(period_start, before, after, total, now):
        passed.append(FORECAST)
    noted = queries.list_alerts(tx, payer.user_id, period_start) if passed else []
    for threshold in [each for each in passed if each not in noted]:
        queries.insert_alert(tx, payer.user_id, period_start, threshold, after, total, sql_text(now))
        _tell(tx, payer.user_id, period_start, threshold, after, total, now)


def _tell(tx: Transaction, user_id: str, period_start: int, threshold: str, used: int, total: int, now: int) -> None:
    account = identity_queries.find_account(tx, user_id)
    data = {
        "userId": account.public_id if account else user_id,
        "threshold": threshold,
        "used": used,
        "total": total,
        "periodStart": instant(period_start),
    }
    outbox.enqueue(tx, USAGE_THRESHOLD, user_id, data, now)


def _forecasts_overrun(period_start: int, before: int, after: int, total: int, now: int) -> bool:
    if before * FORECAST_STEPS // total == after * FORECAST_STEPS // total or after >= total:
        return False
    period = period_of(period_start)
    elapsed = (now - period.start_ms) / (period.end_ms - period.start_ms)
    return FORECAST_FROM <= elapsed <= 1 and after / elapsed > total
