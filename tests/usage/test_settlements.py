"""POST /api/usage/reservations/{id}/settle, release and extend: how a hold ends."""

from typing import Any
from urllib.parse import quote

import httpx
import pytest

from app.edge.clock import now_ms, parse_instant
from app.edge.database import Transaction
from tests.usage.conftest import RESERVATIONS, Person, Relay, cloud, first, native, response_done

TOTAL = 1_000_000
TOLERANCE_MS = 5_000


def end(relay: Relay, reservation: str, how: str, **body: Any) -> httpx.Response:
    return relay.post(body, url=f"{RESERVATIONS}/{reservation}/{how}")


def settle(relay: Relay, reservation: str, tokens: int, **event: Any) -> dict[str, Any]:
    answer = end(relay, reservation, "settle", totalTokens=tokens, **event)
    assert answer.status_code == 200, answer.text
    settled: dict[str, Any] = answer.json()
    return settled


def held(relay: Relay, person: Person, tokens: int, **more: Any) -> str:
    answer = relay.reserve(person, tokens, **more)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def lapse(tx: Transaction, reservation: str) -> None:
    tx.execute("UPDATE reservations SET expires_at_ms = ? WHERE id = ?", now_ms() - 1, reservation)


# -- settle ------------------------------------------------------------------------------------------------


def test_settling_records_what_was_spent_and_ends_the_hold(relay: Relay, person: Person) -> None:
    hold = held(relay, person, 5_000)
    assert settle(relay, hold, 1_200, model="m1", sessionId="s1") == {"id": hold, "settled": 1_200, "overshoot": 0}
    found = relay.quota(person)
    assert (found["used"], found["reserved"]) == (1_200, 0)
    (row,) = relay.ledger(person)
    assert (row["model"], row["session_id"], row["total_tokens"]) == ("m1", "s1", 1_200)


@pytest.mark.parametrize("how", ["settle", "release", "extend"])
@pytest.mark.parametrize("hold", ["call/{}", "{}/settle", "a b?c#{}", "ü%2F{}"])
def test_a_hold_is_reached_whatever_its_id(relay: Relay, person: Person, hold: str, how: str) -> None:
    hold = hold.format(how)
    assert held(relay, person, 5, id=hold) == hold
    answer = end(relay, quote(hold, safe=""), how, totalTokens=1)
    assert (answer.status_code, answer.json().get("id")) == (200, hold)


def test_settling_more_than_was_held_is_recorded_in_full(relay: Relay, person: Person) -> None:
    hold = held(relay, person, TOTAL)
    assert settle(relay, hold, TOTAL + 7) == {"id": hold, "settled": TOTAL + 7, "overshoot": 7}
    assert (relay.quota(person)["used"], relay.quota(person)["remaining"]) == (TOTAL + 7, 0)


def test_settling_again_gets_the_same_answer(relay: Relay, person: Person) -> None:
    hold = held(relay, person, 5_000)
    once = settle(relay, hold, 6_000)
    assert settle(relay, hold, 6_000) == settle(relay, hold, 1) == once
    assert relay.quota(person)["used"] == 6_000


def test_a_hold_is_settled_after_its_release(relay: Relay, person: Person) -> None:
    hold = held(relay, person, 5_000)
    assert end(relay, hold, "release").json() == {"id": hold, "released": True}
    settle(relay, hold, 70)
    assert (relay.quota(person)["used"], relay.quota(person)["reserved"]) == (70, 0)


def test_a_hold_is_settled_after_its_expiry(relay: Relay, person: Person) -> None:
    hold = held(relay, person, 5_000)
    relay.beside(lapse, hold)
    settle(relay, hold, 70)
    assert relay.quota(person)["used"] == 70


def test_settling_takes_a_raw_event(relay: Relay, person: Person) -> None:
    hold = held(relay, person, 5_000)
    event = response_done(person)
    assert end(relay, hold, "settle", **event).json()["settled"] == 253
    assert relay.quota(person)["used"] == 253


@pytest.mark.parametrize("form", ["native", "raw", "cloudevent"])
def test_an_event_that_settles_and_is_posted_too_counts_once(relay: Relay, person: Person, form: str) -> None:
    hold = held(relay, person, 5_000)
    raw = response_done(person)
    event = {"native": native(person, 253), "raw": raw, "cloudevent": cloud(raw)}[form]
    assert end(relay, hold, "settle", **event).status_code == 200
    assert first(relay.post(event))["status"] == "duplicate"
    assert relay.quota(person)["used"] == 253


def test_an_event_that_was_posted_before_it_settles_counts_once(relay: Relay, person: Person) -> None:
    hold = held(relay, person, 5_000)
    event = response_done(person)
    relay.accept(event)
    assert end(relay, hold, "settle", **event).json()["settled"] == 253
    found = relay.quota(person)
    assert (found["used"], found["reserved"]) == (253, 0)


def test_a_settlement_is_always_of_the_holds_own_user(relay: Relay, person: Person) -> None:
    hold = held(relay, person, 5_000)
    settle(relay, hold, 10, userId=relay.bob.id)
    assert relay.quota(person)["used"] == 10


@pytest.mark.parametrize("body", [{}, {"totalTokens": -1}, {"totalTokens": "1"}, {"totalTokens": 1, "inputTokens": -1}])
def test_a_malformed_settlement_is_400_and_keeps_the_hold(relay: Relay, person: Person, body: dict[str, Any]) -> None:
    hold = held(relay, person, 5_000)
    assert end(relay, hold, "settle", **body).status_code == 400
    assert relay.quota(person)["reserved"] == 5_000


# -- release and extend ------------------------------------------------------------------------------------


def test_releasing_gives_the_tokens_back(relay: Relay, person: Person) -> None:
    hold = held(relay, person, TOTAL)
    assert relay.reserve(person, 1).status_code == 402
    for _ in range(2):
        assert end(relay, hold, "release").json() == {"id": hold, "released": True}
    assert relay.reserve(person, TOTAL).status_code == 201


def test_a_settled_hold_is_not_released(relay: Relay, person: Person) -> None:
    hold = held(relay, person, 10)
    settle(relay, hold, 10)
    assert end(relay, hold, "release").status_code == 409
    assert relay.quota(person)["used"] == 10


def test_an_expired_hold_is_released_by_itself(relay: Relay, person: Person) -> None:
    hold = held(relay, person, TOTAL)
    relay.beside(lapse, hold)
    assert relay.quota(person)["reserved"] == 0
    assert relay.reserve(person, TOTAL).status_code == 201


def test_extending_lets_a_hold_live_from_now(relay: Relay, person: Person) -> None:
    hold = held(relay, person, 10, ttlSeconds=1)
    before = now_ms()
    body = end(relay, hold, "extend", ttlSeconds=900).json()
    assert body["id"] == hold
    assert 0 <= parse_instant(body["expiresAt"]) - before - 900_000 < TOLERANCE_MS


def test_an_ended_hold_is_not_extended(relay: Relay, person: Person) -> None:
    lapsed, released = held(relay, person, 10), held(relay, person, 10)
    relay.beside(lapse, lapsed)
    end(relay, released, "release")
    assert [end(relay, hold, "extend").status_code for hold in (lapsed, released)] == [409, 409]


@pytest.mark.parametrize("how", ["settle", "release", "extend"])
def test_an_unknown_hold_is_404(relay: Relay, how: str) -> None:
    answer = end(relay, "rsv_nothing", how, totalTokens=1)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
