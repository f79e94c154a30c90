"""Rates: a token bucket per user with the plan's burst, exact under concurrency."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from app.usage.plan_queries import Plan
from tests.conftest import ADMIN_TOKEN
from tests.usage.conftest import (
    EVENTS,
    EXPORT,
    HISTORY,
    QUOTA,
    RESERVATIONS,
    SEEN_SECONDS,
    Person,
    Relay,
    add_plan,
    native,
)
from tests.waiting import until

NARROW = Plan("narrow", 1_000_000, 5, 5, None)
CALLS = 30
LIMIT_HEADERS = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit", "ratelimit-policy")


@pytest.fixture(scope="module", autouse=True)
def narrow(relay: Relay) -> None:
    relay.beside(add_plan, NARROW)


def at_once(relay: Relay, key: str) -> list[httpx.Response]:
    with ThreadPoolExecutor(CALLS) as pool:
        return list(pool.map(lambda _: relay.get(QUOTA, key), range(CALLS)))


def statuses(answers: list[httpx.Response]) -> dict[int, int]:
    found = [answer.status_code for answer in answers]
    return {status: found.count(status) for status in found}


def test_thirty_at_once_at_limit_five_let_exactly_five_through(relay: Relay) -> None:
    person = relay.person("narrow")
    assert statuses(at_once(relay, person.key)) == {200: 5, 429: 25}


def test_thirty_at_once_with_a_token_let_exactly_five_through(relay: Relay) -> None:
    person = relay.person("narrow")
    assert statuses(at_once(relay, relay.token(person.clerk_id))) == {200: 5, 429: 25}


def test_a_refusal_says_when_to_come_back(relay: Relay) -> None:
    person = relay.person("narrow")
    answer = [each for each in at_once(relay, person.key) if each.status_code == 429][-1]
    body = answer.json()
    assert (body["error"], body["code"]) == ("Too many requests", "rate_limited")
    assert 1 <= body["retryAfter"] <= 12
    assert answer.headers["retry-after"] == str(body["retryAfter"])
    assert body["limit"] == 5
    assert body["actual"] > 5
    assert answer.headers["x-ratelimit-remaining"] == "0"


def test_the_headers_tell_the_figure_per_minute_and_the_burst_in_the_policy(relay: Relay) -> None:
    person = relay.person("free")
    answer = relay.get(QUOTA, person.key)
    headers = answer.headers
    assert headers["x-ratelimit-limit"] == "10"
    assert headers["x-ratelimit-remaining"] == "10"
    assert 0 <= int(headers["x-ratelimit-reset"]) - time.time() <= 121
    assert "q=10" in headers["ratelimit-policy"]
    assert "20" in headers["ratelimit-policy"]
    assert "r=10" in headers["ratelimit"]


def test_remaining_falls_and_never_exceeds_the_limit(relay: Relay) -> None:
    person = relay.person("free")
    left = [int(relay.get(QUOTA, person.key).headers["x-ratelimit-remaining"]) for _ in range(20)]
    assert left == sorted(left, reverse=True)
    assert (left[0], left[-1]) == (10, 0)


def test_a_burst_is_the_size_of_the_bucket(relay: Relay) -> None:
    person = relay.person("free")
    assert statuses(at_once(relay, person.key)) == {200: 20, 429: 10}


def test_an_unlimited_plan_has_no_headers(relay: Relay) -> None:
    answers = at_once(relay, relay.person("unlimited").key)
    assert statuses(answers) == {200: CALLS}
    assert not [name for answer in answers for name in LIMIT_HEADERS if name in answer.headers]


def test_one_bucket_holds_all_of_a_users_metered_routes(relay: Relay) -> None:
    person = relay.person("narrow")
    assert [relay.get(url, person.key).status_code for url in (QUOTA, HISTORY, EXPORT)] == [200] * 3
    assert relay.post(native(person), key=person.key).status_code == 200
    assert relay.post({"maxTokens": 1}, key=person.key, url=RESERVATIONS).status_code == 201
    assert relay.post(native(person), key=person.key).status_code == 429
    assert relay.get(QUOTA, relay.token(person.clerk_id)).status_code == 429


def test_another_users_bucket_is_another(relay: Relay) -> None:
    at_once(relay, relay.person("narrow").key)
    assert relay.get(QUOTA, relay.person("narrow").key).status_code == 200


def test_an_operators_key_ingests_and_reserves_uncounted(relay: Relay) -> None:
    owner, person = relay.person("narrow"), relay.person()
    key = relay.new_key(owner.id, ("write:usage",), by_operator=True)
    answers = [relay.post(native(person), key=key) for _ in range(CALLS)]
    holds = [relay.post({"userId": person.id, "maxTokens": 1}, key=key, url=RESERVATIONS) for _ in range(CALLS)]
    assert statuses(answers) == {200: CALLS}
    assert statuses(holds) == {201: CALLS}
    assert not [name for name in LIMIT_HEADERS if name in answers[-1].headers]


def test_options_health_and_operators_are_not_counted(relay: Relay) -> None:
    person = relay.person("narrow")
    at_once(relay, person.key)
    held = {"Authorization": f"Bearer {person.key}"}
    assert relay.client.options(QUOTA, headers=held).status_code in (200, 204)
    assert relay.client.get("/health", headers=held).status_code == 200
    query = {"userId": person.id}
    answers = [relay.client.get(QUOTA, params=query, headers={"X-Admin-Token": ADMIN_TOKEN}) for _ in range(CALLS)]
    assert statuses(answers) == {200: CALLS}


def test_a_key_has_a_limit_of_its_own_over_a_rolling_hour(relay: Relay, person: Person) -> None:
    key = relay.new_key(person.id, ("read:usage",), by_operator=False, rate_limit=7)
    answers = at_once(relay, key)
    assert statuses(answers) == {200: 7, 429: 23}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert 3_500 <= refused.json()["retryAfter"] <= 3_600
    assert relay.get(QUOTA, person.key).status_code == 200


def test_an_operators_key_with_a_limit_of_its_own_is_held_to_it(relay: Relay, person: Person) -> None:
    key = relay.new_key(person.id, ("write:usage",), by_operator=True, rate_limit=3)
    assert [relay.post([], key=key).status_code for _ in range(4)] == [200, 200, 200, 429]


def test_a_refused_request_writes_nothing(relay: Relay) -> None:
    person = relay.person("narrow")
    at_once(relay, person.key)
    assert relay.post(native(person), key=person.key, url=EVENTS).status_code == 429
    assert relay.ledger(person) == []


def test_a_new_rate_is_seen_beside_another_process(relay: Relay) -> None:
    person = relay.person("narrow")
    at_once(relay, person.key)
    relay.change_plan(person, "unlimited")
    assert_let_in(relay, person)


def test_a_plans_new_rate_is_seen_beside_another_process(relay: Relay) -> None:
    plan = Plan("changing", 1_000_000, 1, 1, None)
    relay.beside(add_plan, plan)
    person = relay.person("changing")
    at_once(relay, person.key)
    relay.beside(add_plan, plan._replace(requests_per_minute=0, burst=0))
    assert_let_in(relay, person)


def assert_let_in(relay: Relay, person: Person) -> None:
    until(lambda: relay.get(QUOTA, person.key).status_code != 429, SEEN_SECONDS)
