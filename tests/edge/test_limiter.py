"""The limiter: exact at once, bounded for ever, and patient with clocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.edge import limiter
from app.edge.limiter import Buckets, Rate, RollingHours, too_many

FIVE = Rate(per_minute=5, burst=5)


def test_thirty_calls_at_once_at_limit_five_let_exactly_five_through() -> None:
    buckets = Buckets()
    assert [buckets.take("u", FIVE, 100.0).allowed for _ in range(30)].count(True) == 5


@given(
    per_minute=st.integers(1, 1000),
    burst=st.integers(1, 1000),
    steps=st.lists(st.floats(-100, 100, allow_nan=False), max_size=200),
)
def test_never_more_than_the_burst_and_what_flowed_in(per_minute: int, burst: int, steps: list[float]) -> None:
    """Also when the clock goes back: only its way forward counts."""
    buckets, now, forward, allowed = Buckets(), 1000.0, 0.0, 0
    for step in steps:
        now += step
        forward += max(0.0, step)
        allowed += buckets.take("u", Rate(per_minute, burst), now).allowed
    assert allowed <= burst + forward * per_minute / 60 + 1e-6


@given(burst=st.integers(1, 50), gaps=st.lists(st.floats(0, 30), min_size=1, max_size=100))
def test_waiting_as_long_as_told_is_enough(burst: int, gaps: list[float]) -> None:
    buckets, now = Buckets(), 0.0
    for gap in gaps:
        now += gap
        decision = buckets.take("u", Rate(60, burst), now)
        if not decision.allowed:
            now += decision.retry_after
            assert buckets.take("u", Rate(60, burst), now).allowed


def test_a_clock_that_goes_back_costs_nobody_tokens() -> None:
    buckets = Buckets()
    assert buckets.take("u", FIVE, 1_000_000.0).remaining == 4
    assert buckets.take("u", FIVE, 10.0).remaining == 3
    assert buckets.take("u", FIVE, 22.0).remaining == 3


def test_keys_do_not_share_a_bucket() -> None:
    buckets = Buckets()
    for _ in range(6):
        buckets.take("a", FIVE, 0.0)
    assert buckets.take("b", FIVE, 0.0).allowed


def test_no_more_buckets_than_the_bound_and_the_busy_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter, "BUCKETS", 3)
    buckets = Buckets()
    for _ in range(5):
        buckets.take("busy", FIVE, 0.0)
    for number in range(100):
        buckets.take(f"stranger {number}", FIVE, 0.0)
        assert not buckets.take("busy", FIVE, 0.0).allowed
    assert len(buckets._levels) == 3


def test_the_headers_are_the_legacy_three_and_the_structured_two() -> None:
    decision = Buckets().take("u", Rate(per_minute=10, burst=20), 0.0)
    headers = {name.decode(): value.decode() for name, value in decision.headers(1000.0)}
    assert headers["ratelimit-policy"] == '"default";q=10;w=60;burst=20'
    # Remaining never exceeds the per-minute figure, however large the burst is.
    assert headers["x-ratelimit-limit"] == "10"
    assert headers["x-ratelimit-remaining"] == "10"
    assert headers["ratelimit"] == '"default";r=10;t=6'
    assert headers["x-ratelimit-reset"] == "1006"


def test_a_refusal_says_when_the_limit_and_the_actual_value() -> None:
    buckets = Buckets()
    for _ in range(5):
        buckets.take("u", FIVE, 0.0)
    decision = buckets.take("u", FIVE, 0.0)
    assert (decision.allowed, decision.remaining, decision.retry_after) == (False, 0, 12)
    refusal = too_many(decision.retry_after, 5, 6)
    assert refusal.status == 429
    assert refusal.headers == {"Retry-After": "12"}
    assert refusal.fields == {"retryAfter": 12, "limit": 5, "actual": 6}


@given(st.lists(st.floats(0, 4000), max_size=100), st.integers(1, 10))
def test_no_rolling_hour_holds_more_than_the_limit(gaps: list[float], limit: int) -> None:
    hours, now = RollingHours(), 0.0
    allowed: list[float] = []
    for gap in gaps:
        now += gap
        if hours.take("k", limit, now) == 0:
            allowed.append(now)
    for at in allowed:
        assert sum(at - 3600 < other <= at for other in allowed) <= limit


def test_a_rolling_hour_says_when_the_oldest_call_leaves_it() -> None:
    hours = RollingHours()
    assert [hours.take("k", 2, at) for at in (0.0, 600.0, 1000.0)] == [0, 0, 2600]
    assert hours.take("k", 2, 3600.0) == 0
    assert hours.take("other", 2, 1000.0) == 0
