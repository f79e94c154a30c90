"""Idempotency-Key on what is posted: the first answer, stored with its effect, again and again."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.usage.conftest import (
    Person,
    Relay,
    native,
)

AT_ONCE = 100
THREADS = 25


def test_an_idempotency_key_gets_the_first_answer_again(relay: Relay, person: Person) -> None:
    events = [{"userId": person.id, "totalTokens": 6}]
    one = relay.post(events, Idempotency_Key="k-same")
    other = relay.post(events, Idempotency_Key="k-same")
    assert one.json() == other.json()
    assert (one.status_code, other.status_code) == (200, 200)
    assert relay.quota(person)["used"] == 6


def test_an_idempotency_key_with_another_body_is_422(relay: Relay, person: Person) -> None:
    relay.post(native(person, 6), Idempotency_Key="k-other")
    answer = relay.post(native(person, 7), Idempotency_Key="k-other")
    assert (answer.status_code, answer.json()["code"]) == (422, "unprocessable")
    assert relay.quota(person)["used"] == 6


def test_an_idempotency_key_is_its_principals_own(relay: Relay, person: Person) -> None:
    relay.post({"userId": person.id, "totalTokens": 1}, Idempotency_Key="k-shared")
    other = relay.post({"userId": person.id, "totalTokens": 2}, key=person.key, Idempotency_Key="k-shared")
    assert other.status_code == 200
    assert relay.quota(person)["used"] == 3


def test_an_idempotency_key_is_kept_over_a_restart(tmp_path: Path) -> None:
    relay = Relay(tmp_path / "data")
    events = [{"userId": relay.bob.id, "totalTokens": 9}]
    relay.server.start()
    one = relay.post(events, Idempotency_Key="k-kept")
    relay.server.kill()
    relay.server.start()
    try:
        other = relay.post(events, Idempotency_Key="k-kept")
    finally:
        relay.close()
    assert one.json() == other.json()
    assert relay.rows("SELECT sum(total_tokens) FROM usage_logs") == [(9,)]


def test_one_idempotency_key_at_once_counts_once(relay: Relay, person: Person) -> None:
    def post(_: int) -> httpx.Response:
        return relay.post({"userId": person.id, "totalTokens": 8}, Idempotency_Key="k-at-once")

    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(post, range(AT_ONCE)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert len({answer.text for answer in answers if answer.status_code == 200}) == 1
    assert relay.quota(person)["used"] == 8
