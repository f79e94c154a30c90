"""The clock: wall time in milliseconds UTC, and the text form that operators' SQL reads."""

import time
from datetime import UTC, datetime
from functools import lru_cache


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def sql_text(ms: int) -> str:
    """`YYYY-MM-DD HH:MM:SS` UTC, as `created_at` and `updated_at` are stored."""
    return _sql_text(ms // 1000)


@lru_cache(maxsize=256)
def _sql_text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def instant(ms: int) -> str:
    """`2026-12-01T00:00:00.000Z`, as answers give instants."""
    return f"{sql_text(ms).replace(' ', 'T')}.{ms % 1000:03d}Z"


def unix_seconds(text: str) -> int:
    """Seconds of a time as it is stored."""
    return parse_instant(text) // 1000


def parse_instant(text: str) -> int:
    """Milliseconds UTC of an ISO-8601 text; one without a zone is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)
