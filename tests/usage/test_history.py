"""GET /api/usage/history: what was spent by day, model, session and endpoint."""

from typing import Any

import pytest

from app.edge.database import Transaction
from app.usage import plan_queries
from app.usage.plan_queries import Price
from tests.usage.conftest import EXPORT, HISTORY, Person, Relay, bearer, native

MARCH = {"from": "2026-03-01", "to": "2026-04-01"}


def history(relay: Relay, person: Person, **query: str) -> dict[str, Any]:
    answer = relay.get(HISTORY, person.key, **query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def spend_in_march(relay: Relay, person: Person) -> None:
    day = "2026-03-{:02d}T{}Z".format
    relay.accept(
        native(person, 10, inputTokens=6, outputTokens=4, model="a", sessionId="s1", occurredAt=day(1, "00:00:00")),
        native(
            person, 20, inputTokens=11, outputTokens=9, model="b", sessionId="s1", occurredAt=day(1, "23:59:59.999")
        ),
        native(person, 40, model="b", sessionId="s2", occurredAt=day(2, "00:00:00")),
        native(person, 80, occurredAt=day(31, "23:59:59.999")),
        native(person, 1_000, occurredAt="2026-02-28T23:59:59.999Z"),
        native(person, 2_000, occurredAt="2026-04-01T00:00:00Z"),
    )


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("day", {"2026-03-01": (30, 17, 13, 2), "2026-03-02": (40, 0, 0, 1), "2026-03-31": (80, 0, 0, 1)}),
        ("model", {"a": (10, 6, 4, 1), "b": (60, 11, 9, 2), "unknown": (80, 0, 0, 1)}),
        ("session", {"s1": (30, 17, 13, 2), "s2": (40, 0, 0, 1), "unknown": (80, 0, 0, 1)}),
        ("endpoint", {"unknown": (150, 17, 13, 4)}),
    ],
)
def test_history_sums_by_group_and_leaves_out_what_is_outside(
    relay: Relay, person: Person, group: str, expected: dict[str, tuple[int, ...]]
) -> None:
    spend_in_march(relay, person)
    body = history(relay, person, groupBy=group, **MARCH)
    found = {
        each["group"]: (each["totalTokens"], each["inputTokens"], each["outputTokens"], each["events"])
        for each in body["history"]
    }
    assert found == expected
    assert (body["from"], body["to"]) == ("2026-03-01T00:00:00.000Z", "2026-04-01T00:00:00.000Z")
    assert body["groupBy"] == group


def test_days_come_in_order(relay: Relay, person: Person) -> None:
    spend_in_march(relay, person)
    groups = [each["group"] for each in history(relay, person, **MARCH)["history"]]
    assert groups == sorted(groups)


def test_history_is_of_this_period_by_day_unless_told(relay: Relay, person: Person) -> None:
    spend_in_march(relay, person)
    relay.accept(native(person, 5), native(person, 6))
    body, period = history(relay, person), relay.quota(person)["period"]
    assert (body["from"], body["to"], body["groupBy"]) == (period["start"], period["end"], "day")
    assert sum(each["totalTokens"] for each in body["history"]) == 11


@pytest.mark.parametrize("group", ["day", "model", "session", "endpoint"])
def test_history_sums_up_to_what_quota_says_is_used(relay: Relay, person: Person, group: str) -> None:
    events = [native(person, number, model=f"m{number % 7}", sessionId=f"s{number % 5}") for number in range(100)]
    relay.accept(*events)
    relay.accept(native(person, 3, amends=events[50]["id"]))
    total = sum(each["totalTokens"] for each in history(relay, person, groupBy=group)["history"])
    assert total == relay.quota(person)["used"]


def test_history_tells_what_it_cost(relay: Relay, person: Person) -> None:
    relay.beside(price, "p1", "m1", 2_500_000, 10_000_000)
    event = native(person, 300, inputTokens=200, outputTokens=100, provider="p1", model="m1")
    relay.accept(event)
    assert history(relay, person)["history"][0]["costMicros"] == 200 * 2.5 + 100 * 10
    relay.accept(native(person, 180, inputTokens=150, outputTokens=30, amends=event["id"]))
    assert history(relay, person)["history"][0]["costMicros"] == 150 * 2.5 + 30 * 10


def test_a_cost_is_a_whole_number_however_large_the_count(relay: Relay, person: Person) -> None:
    relay.beside(price, "p2", "m2", 123_456_789, 123_456_789)
    tokens = 10**12 - 1
    relay.accept(native(person, tokens, inputTokens=tokens, outputTokens=0, provider="p2", model="m2"))
    (group,) = history(relay, person)["history"]
    assert group["costMicros"] == pytest.approx(tokens * 123.456789, rel=1e-9)


def test_an_unknown_price_is_not_a_price_of_nothing(relay: Relay, person: Person) -> None:
    relay.accept(native(person, 3, inputTokens=1, outputTokens=2, provider="p3", model="m3"))
    assert relay.ledger(person)[0]["cost_micros"] is None
    assert history(relay, person)["history"][0]["costMicros"] == 0


def price(tx: Transaction, provider: str, model: str, prompt: int, completion: int) -> None:
    plan_queries.upsert_price(tx, Price(provider, model, 0, prompt, completion))


def test_history_is_of_the_caller_only(relay: Relay, person: Person) -> None:
    relay.accept(native(relay.person(), 77), native(person, 5))
    assert [each["totalTokens"] for each in history(relay, person)["history"]] == [5]
    assert [each["totalTokens"] for each in history(relay, relay.person())["history"]] == []


@pytest.mark.parametrize(
    "query",
    [
        {"from": "yesterday"},
        {"to": "2026-13-01"},
        {"from": "2026-03-02", "to": "2026-03-01"},
        {"groupBy": "colour"},
        {"groupBy": ""},
        {"from": "1969-01-01"},
        {"from": "0001-01-01T00:00:00+23:59"},
    ],
    ids=str,
)
def test_a_query_that_makes_no_sense_is_400(relay: Relay, person: Person, query: dict[str, str]) -> None:
    answer = relay.get(HISTORY, person.key, **query)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")


@pytest.mark.parametrize("path", [HISTORY, EXPORT])
@pytest.mark.parametrize("end", ["9999-12-31", "9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59-23:59"])
def test_a_range_may_end_as_late_as_a_date_can_be_written(relay: Relay, person: Person, path: str, end: str) -> None:
    relay.accept(native(person, 5, sessionId="late-enough"))
    answer = relay.get(path, person.key, to=end)
    assert answer.status_code == 200, answer.text
    assert (",late-enough," in answer.text) if path == EXPORT else (answer.json()["to"] == "9999-12-31T00:00:00.000Z")


def test_a_range_that_begins_before_1970_is_told_so(relay: Relay, person: Person) -> None:
    answer = relay.get(HISTORY, person.key, **{"from": "0001-01-01"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert "since 1970" in answer.json()["error"]


def test_history_needs_a_credential_with_the_scope(relay: Relay, person: Person) -> None:
    assert relay.client.get(HISTORY).json()["error"] == "No token provided"
    writer = relay.new_key(person.id, ("write:usage",), by_operator=False)
    assert relay.get(HISTORY, writer).status_code == 403
    assert relay.get(HISTORY, relay.token(person.clerk_id)).status_code == 200


def test_an_unchanged_history_is_304(relay: Relay, person: Person) -> None:
    etag = relay.get(HISTORY, person.key).headers["etag"]
    held = {**bearer(person.key), "If-None-Match": etag}
    assert relay.client.get(HISTORY, headers=held).status_code == 304
    relay.accept(native(person, 5))
    assert relay.client.get(HISTORY, headers=held).status_code == 200
