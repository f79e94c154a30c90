"""Amendments: corrections are new rows that hold the difference; nothing is updated in place."""

from typing import Any

from app.identity.ids import new_id
from tests.usage.conftest import HISTORY, RESERVATIONS, Person, Relay, differences, first, native, response_done


def amendment(person: Person, amends: str, total: int, **more: Any) -> dict[str, Any]:
    return native(person, total, amends=amends) | more


def totals(relay: Relay, person: Person) -> list[int]:
    return [row["total_tokens"] for row in relay.ledger(person)]


def test_an_amendment_stores_the_difference(relay: Relay, person: Person) -> None:
    event = native(person, 100, inputTokens=60, outputTokens=40)
    relay.accept(event, amendment(person, event["id"], 70, inputTokens=50, outputTokens=20))
    rows = relay.ledger(person)
    assert [(row["total_tokens"], row["input_tokens"], row["output_tokens"]) for row in rows] == [
        (100, 60, 40),
        (-30, -10, -20),
    ]
    assert relay.quota(person)["used"] == 70


def test_an_amendment_may_raise_and_may_make_it_nothing(relay: Relay, person: Person) -> None:
    event = native(person, 100)
    relay.accept(event, amendment(person, event["id"], 250))
    assert relay.quota(person)["used"] == 250
    relay.accept(amendment(person, event["id"], 0))
    assert relay.quota(person)["used"] == 0
    assert totals(relay, person) == [100, 150, -250]


def test_an_amendment_counts_in_the_amended_events_period_and_day(relay: Relay, person: Person) -> None:
    event = native(person, 100, occurredAt="2026-03-03T12:00:00Z", model="m", sessionId="s")
    relay.accept(event, native(person, 5))
    relay.accept(amendment(person, event["id"], 40, occurredAt="2026-04-04T12:00:00Z"))
    assert relay.quota(person)["used"] == 5
    march = relay.get(HISTORY, person.key, **{"from": "2026-03-01", "to": "2026-05-01"}).json()["history"]
    assert [(each["group"], each["totalTokens"], each["events"]) for each in march] == [("2026-03-03", 40, 2)]
    assert {(row["model"], row["session_id"]) for row in relay.ledger(person)[::2]} == {("m", "s")}
    assert differences(relay.path) == []


def test_an_amendment_that_is_sent_again_is_a_duplicate(relay: Relay, person: Person) -> None:
    event = native(person, 100)
    correction = amendment(person, event["id"], 40)
    relay.accept(event, correction)
    assert first(relay.post(correction))["status"] == "duplicate"
    assert first(relay.post(correction | {"totalTokens": 41}))["code"] == "conflict"
    assert relay.quota(person)["used"] == 40


def test_an_amendment_follows_its_event_in_one_batch(relay: Relay, person: Person) -> None:
    event = native(person, 100)
    answer = relay.post([event, amendment(person, event["id"], 40), amendment(person, event["id"], 60)]).json()
    assert answer["accepted"] == 3
    assert totals(relay, person) == [100, -60, 20]


def test_a_raw_event_is_amended_by_its_responses_id(relay: Relay, person: Person) -> None:
    event = response_done(person)
    relay.accept(event, amendment(person, event["response"]["id"], 3))
    assert relay.quota(person)["used"] == 3


def test_an_event_of_another_source_is_amended_with_that_source(relay: Relay, person: Person) -> None:
    event = native(person, 100, source="calls")
    relay.accept(event)
    assert first(relay.post(amendment(person, event["id"], 3)))["code"] == "invalid"
    relay.accept(amendment(person, event["id"], 3, source="calls"))
    assert relay.quota(person)["used"] == 3


def test_an_amendment_of_what_is_not_there_is_refused(relay: Relay, person: Person) -> None:
    result = first(relay.post(amendment(person, "nothing", 3)))
    assert (result["code"], "amends" in result["error"]) == ("invalid", True)


def test_an_amendment_of_another_users_event_is_refused(relay: Relay, person: Person) -> None:
    event = native(relay.person(), 100)
    relay.accept(event)
    assert first(relay.post(amendment(person, event["id"], 3)))["code"] == "invalid"
    assert relay.ledger(person) == []


def test_an_amendment_of_an_amendment_is_refused(relay: Relay, person: Person) -> None:
    event = native(person, 100)
    correction = amendment(person, event["id"], 40)
    relay.accept(event, correction)
    assert first(relay.post(amendment(person, correction["id"], 3)))["code"] == "invalid"


def test_the_right_totals_are_never_negative(relay: Relay, person: Person) -> None:
    event = native(person, 100)
    relay.accept(event)
    assert first(relay.post(amendment(person, event["id"], -1)))["code"] == "invalid"
    assert relay.quota(person)["used"] == 100


def test_only_an_operators_key_may_amend(relay: Relay, person: Person) -> None:
    event = native(person, 100)
    relay.accept(event)
    assert first(relay.post(amendment(person, event["id"], 0), key=person.key))["code"] == "forbidden"
    assert relay.quota(person)["used"] == 100


def test_a_users_key_cannot_amend_by_settling(relay: Relay, person: Person) -> None:
    event = native(person, 100)
    relay.accept(event)
    hold = relay.post({"maxTokens": 10}, key=person.key, url=RESERVATIONS).json()
    spent = {"totalTokens": 0, "amends": event["id"], "id": new_id("evt")}
    answer = relay.post(spent, key=person.key, url=f"{RESERVATIONS}/{hold['id']}/settle")
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert relay.quota(person)["used"] == 100


def test_nothing_is_updated_in_place(relay: Relay, person: Person) -> None:
    event = native(person, 100)
    relay.accept(event)
    before = relay.ledger(person)
    relay.accept(amendment(person, event["id"], 40))
    assert relay.ledger(person)[:1] == before
