"""The limiter: token buckets and rolling hours, exact because one thread counts.

Counted on each machine by itself; what must be exact everywhere is the quota, not the rate.
"""

import math
from collections import deque
from typing import NamedTuple

from app.errors import RateLimited

BUCKETS = 100_000
MINUTE = 60.0
HOUR_SECONDS = 3_600.0

Headers = list[tuple[bytes, bytes]]


class Rate(NamedTuple):
    """`per_minute` tokens flow in, at most `burst` are held. 0 a minute is no limit."""

    per_minute: int
    burst: int


class Decision(NamedTuple):
    allowed: bool
    rate: Rate
    remaining: int
    retry_after: int

    def headers(self, now: float) -> Headers:
        """`RateLimit` and `RateLimit-Policy` (IETF structured fields) and the legacy three."""
        per_minute, burst = self.rate
        left = min(self.remaining, per_minute)
        full = math.ceil((burst - self.remaining) * MINUTE / per_minute)
        return [
            (b"ratelimit-policy", b'"default";q=%d;w=60;burst=%d' % (per_minute, burst)),
            (b"ratelimit", b'"default";r=%d;t=%d' % (left, full)),
            (b"x-ratelimit-limit", b"%d" % per_minute),
            (b"x-ratelimit-remaining", b"%d" % left),
            (b"x-ratelimit-reset", b"%d" % (now + full)),
        ]


class Buckets:
    """Token buckets by key, the least recently used forgotten first when there are too many."""

    def __init__(self) -> None:
        self._levels: dict[str, tuple[float, float]] = {}

    def take(self, key: str, rate: Rate, now: float) -> Decision:
        """Take one token. `now` is any clock in seconds; where it goes back, nothing flows in."""
        level, at = self._levels.pop(key, (float(rate.burst), now))
        level = min(float(rate.burst), level + max(0.0, now - at) * rate.per_minute / MINUTE)
        allowed = level >= 1
        if allowed:
            level -= 1
        if len(self._levels) >= BUCKETS:
            del self._levels[next(iter(self._levels))]
        self._levels[key] = (level, now)
        wait = 0 if allowed else max(1, math.ceil((1 - level) * MINUTE / rate.per_minute))
        return Decision(allowed, rate, int(level), wait)


class RollingHours:
    """How many calls each key made in the last hour, counted exactly; the least recently used is forgotten first."""

    def __init__(self) -> None:
        self._calls: dict[str, deque[float]] = {}

    def take(self, key: str, limit: int, now: float) -> int:
        """Count one call; 0, or the seconds until the next would be allowed."""
        calls = self._calls.pop(key, None) or deque()
        if len(self._calls) >= BUCKETS:
            del self._calls[next(iter(self._calls))]
        self._calls[key] = calls
        while calls and calls[0] <= now - HOUR_SECONDS:
            calls.popleft()
        if len(calls) >= limit:
            return max(1, math.ceil(calls[0] + HOUR_SECONDS - now)) if calls else int(HOUR_SECONDS)
        calls.append(now)
        return 0


def too_many(retry_after: int, limit: int, actual: int) -> RateLimited:
    return RateLimited(
        "Too many requests",
        headers={"Retry-After": str(retry_after)},
        retryAfter=retry_after,
        limit=limit,
        actual=actual,
    )
