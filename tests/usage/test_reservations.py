"""POST /api/usage/reservations: tokens held before they are spent, so that nobody passes the limit together."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from app.edge.clock import now_ms, parse_instant
from tests.usage.conftest import RESERVATIONS, Person, Relay, bearer, differences, native
from tests.usage.test_settlements import held, settle

AT_ONCE = 200
THREADS = 40
TOTAL = 1_000_000
TOLERANCE_MS = 5_000


# -- create ------------------------------------------------------------------------------------------------


def test_a_reservation_is_granted_whole_and_tells_what_remains(relay: Relay, person: Person) -> None:
    relay.accept(native(person, 100))
    relay.reserve(person, 1_000)
    before = now_ms()
    answer = relay.reserve(person, 5_000, ttlSeconds=60)
    body = answer.json()
    assert answer.status_code == 201
    assert set(body) == {"id", "granted", "remaining", "expiresAt"}
    assert (body["granted"], body["remaining"]) == (5_000, TOTAL - 100 - 1_000 - 5_000)
    assert 0 <= parse_instant(body["expiresAt"]) - before - 60_000 < TOLERANCE_MS
    assert "x-txid" in answer.headers


def test_a_hold_lives_for_five_minutes_unless_it_says_otherwise(relay: Relay, person: Person) -> None:
    before = now_ms()
    expires = parse_instant(relay.reserve(person, 1).json()["expiresAt"])
    assert 0 <= expires - before - 300_000 < TOLERANCE_MS


def test_more_than_is_left_is_402_and_says_what_fits(relay: Relay, person: Person) -> None:
    relay.accept(native(person, 100))
    relay.reserve(person, 1_000)
    answer = relay.reserve(person, TOTAL)
    body = answer.json()
    assert (answer.status_code, body["code"]) == (402, "quota_exceeded")
    assert body["error"] == body["message"]
    told = {name: body[name] for name in ("plan", "total", "used", "reserved", "requested", "fits")}
    assert told == {
        "plan": "roomy",
        "total": TOTAL,
        "used": 100,
        "reserved": 1_000,
        "requested": TOTAL,
        "fits": TOTAL - 1_100,
    }
    assert body["resetDate"] == relay.quota(person)["resetDate"]
    assert relay.quota(person)["reserved"] == 1_000


def test_what_fits_is_granted_to_the_last_token(relay: Relay, person: Person) -> None:
    fits = relay.reserve(person, TOTAL + 1).json()["fits"]
    assert relay.reserve(person, fits).json()["remaining"] == 0
    assert relay.reserve(person, 1).json()["fits"] == 0


def test_a_plan_of_nothing_grants_nothing(relay: Relay) -> None:
    answer = relay.reserve(relay.person("fallback"), 1)
    assert (answer.status_code, answer.json()["total"], answer.json()["fits"]) == (402, 0, 0)


def test_an_unlimited_plan_grants_everything(relay: Relay) -> None:
    answer = relay.reserve(relay.person("enterprise"), 10**12)
    assert (answer.status_code, answer.json()["remaining"]) == (201, -1)


def test_the_same_id_gets_the_first_answer(relay: Relay, person: Person) -> None:
    first_answer = relay.reserve(person, 500, id=f"mine-{person.id}")
    relay.accept(native(person, 100))
    again = relay.reserve(person, 500, id=f"mine-{person.id}")
    assert (again.status_code, again.json()) == (201, first_answer.json())
    assert relay.quota(person)["reserved"] == 500


@pytest.mark.parametrize("change", [{"maxTokens": 501}, {"ttlSeconds": 301}, {"userId": "user_bob"}])
def test_the_same_id_with_other_values_is_409(relay: Relay, person: Person, change: dict[str, Any]) -> None:
    body = {"userId": person.id, "maxTokens": 500, "id": f"mine-{person.id}"}
    assert relay.post(body, url=RESERVATIONS).status_code == 201
    answer = relay.post(body | change, url=RESERVATIONS)
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_an_idempotency_key_holds_once(relay: Relay, person: Person) -> None:
    body = {"userId": person.id, "maxTokens": 500}
    one, other = (relay.post(body, url=RESERVATIONS, Idempotency_Key=f"k-{person.id}") for _ in range(2))
    assert one.json() == other.json()
    assert relay.quota(person)["reserved"] == 500


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"maxTokens": -1},
        {"maxTokens": 1.5},
        {"maxTokens": "10"},
        {"maxTokens": 2**63},
        {"maxTokens": 1, "ttlSeconds": 3_601},
        {"maxTokens": 1, "ttlSeconds": 0},
        {"maxTokens": 1, "ttlSeconds": -1},
        {"maxTokens": 1, "id": "x" * 256},
        {"maxTokens": 1, "id": "a\0"},
        {"maxTokens": 1, "userId": 5},
    ],
    ids=str,
)
def test_a_malformed_reservation_is_400(relay: Relay, person: Person, body: dict[str, Any]) -> None:
    answer = relay.post({"userId": person.id} | body, url=RESERVATIONS)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert relay.quota(person)["reserved"] == 0


def test_an_hour_is_the_longest_hold(relay: Relay, person: Person) -> None:
    assert relay.reserve(person, 1, ttlSeconds=3_600).status_code == 201


# -- who ---------------------------------------------------------------------------------------------------


def test_an_operators_key_reserves_for_anybody_whom_it_names(relay: Relay, person: Person) -> None:
    assert relay.post({"userId": person.clerk_id, "maxTokens": 5}, url=RESERVATIONS).status_code == 201
    assert relay.quota(person)["reserved"] == 5
    assert relay.post({"userId": "user_nobody", "maxTokens": 5}, url=RESERVATIONS).status_code == 404


def test_a_users_key_reserves_for_that_user_only(relay: Relay, person: Person) -> None:
    assert relay.post({"maxTokens": 5}, url=RESERVATIONS, key=person.key).status_code == 201
    answers = [
        relay.post({"maxTokens": 5, "userId": named}, url=RESERVATIONS, key=person.key)
        for named in (relay.bob.id, "user_nobody")
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(403, "forbidden")] * 2
    assert answers[0].json()["error"] == answers[1].json()["error"]


def test_a_users_key_does_not_reach_anothers_hold(relay: Relay, person: Person) -> None:
    hold = held(relay, relay.bob, 5)
    for how in ("settle", "release", "extend"):
        answer = relay.post({"totalTokens": 5}, url=f"{RESERVATIONS}/{hold}/{how}", key=person.key)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["", "/x/settle", "/x/release", "/x/extend"])
def test_every_door_of_reservations_needs_the_scope(relay: Relay, person: Person, path: str) -> None:
    reader = relay.new_key(person.id, ("read:usage",), by_operator=False)
    body = {"maxTokens": 1, "totalTokens": 1}
    assert relay.post(body, url=RESERVATIONS + path, key=reader).status_code == 403
    assert relay.post(body, url=RESERVATIONS + path, key=relay.token(person.clerk_id)).status_code == 403
    assert relay.client.post(RESERVATIONS + path, json=body).json()["error"] == "No token provided"


# -- at once -----------------------------------------------------------------------------------------------


def reserve_at_once(relay: Relay, person: Person, tokens: int, **more: Any) -> list[httpx.Response]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda _: relay.reserve(person, tokens, **more), range(AT_ONCE)))


def test_two_hundred_at_once_get_exactly_as_many_as_fit(relay: Relay, person: Person) -> None:
    used, tokens = 300_000, 9_000
    relay.accept(native(person, used))
    answers = reserve_at_once(relay, person, tokens)
    granted = [answer.json() for answer in answers if answer.status_code == 201]
    refused = [answer.json() for answer in answers if answer.status_code == 402]
    assert len(granted) + len(refused) == AT_ONCE
    assert len(granted) == (TOTAL - used) // tokens
    assert sum(each["granted"] for each in granted) <= TOTAL - used
    assert sorted(each["remaining"] for each in granted) == [
        TOTAL - used - tokens * number for number in range(len(granted), 0, -1)
    ]
    assert {each["fits"] for each in refused} <= set(range(tokens))
    assert relay.quota(person)["reserved"] == tokens * len(granted)


def test_holds_and_usage_at_once_never_pass_the_limit_together(relay: Relay, person: Person) -> None:
    tokens = 20_000

    def call(_: int) -> int:
        answer = relay.reserve(person, tokens)
        if answer.status_code == 402:
            return 0
        return int(settle(relay, answer.json()["id"], tokens)["settled"])

    with ThreadPoolExecutor(THREADS) as pool:
        spent = sum(pool.map(call, range(AT_ONCE)))
    assert relay.quota(person)["used"] == spent == TOTAL
    assert differences(relay.path) == []


def test_one_id_at_once_holds_once(relay: Relay, person: Person) -> None:
    answers = reserve_at_once(relay, person, 9_000, id=f"one-{person.id}")
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert relay.quota(person)["reserved"] == 9_000


def test_one_hold_settled_at_once_counts_once(relay: Relay, person: Person) -> None:
    hold = held(relay, person, 9_000)
    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(lambda _: settle(relay, hold, 8_000), range(AT_ONCE)))
    assert answers == [{"id": hold, "settled": 8_000, "overshoot": 0}] * AT_ONCE
    assert relay.quota(person)["used"] == 8_000


def test_an_answer_about_a_hold_is_json(relay: Relay, person: Person) -> None:
    hold = held(relay, person, 10)
    answer = relay.client.post(f"{RESERVATIONS}/{hold}/release", headers=bearer(relay.key))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
