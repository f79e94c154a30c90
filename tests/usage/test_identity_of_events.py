"""The identity of an event: `(source, id)` counts once for ever, and says the same for ever."""

import gzip
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.usage.conftest import Person, Relay, cloud, first, lines, native, response_done


def status_of(relay: Relay, event: Any) -> str:
    return str(first(relay.post(event))["status"])


def test_a_replay_counts_once(relay: Relay, person: Person) -> None:
    event = native(person, 5)
    assert [status_of(relay, event) for _ in range(3)] == ["accepted", "duplicate", "duplicate"]
    assert relay.quota(person)["used"] == 5


def test_a_replay_in_one_batch_counts_once(relay: Relay, person: Person) -> None:
    event = native(person, 5)
    answer = relay.post([event, event]).json()
    assert (answer["accepted"], answer["duplicates"]) == (1, 1)


def test_a_replay_counts_once_after_a_restart(tmp_path: Path) -> None:
    relay = Relay(tmp_path / "data")
    event = native(relay.bob, 5)
    relay.server.start()
    assert status_of(relay, event) == "accepted"
    relay.server.kill()
    relay.server.start()
    try:
        assert status_of(relay, event) == "duplicate"
    finally:
        relay.close()


def test_an_id_falls_back_to_the_response_and_then_to_the_event(relay: Relay, person: Person) -> None:
    base = {"userId": person.id, "totalTokens": 1}
    of_three = first(relay.post(base | {"id": f"i{person.id}", "responseId": "r", "event_id": "e"}))
    of_two = first(relay.post(base | {"responseId": f"r{person.id}", "event_id": "e"}))
    of_one = first(relay.post(base | {"event_id": f"e{person.id}"}))
    assert [each["id"][0] for each in (of_three, of_two, of_one)] == ["i", "r", "e"]


def test_a_raw_event_is_known_by_its_response(relay: Relay, person: Person) -> None:
    event = response_done(person)
    assert first(relay.post(event))["id"] == event["response"]["id"]
    assert status_of(relay, event | {"event_id": "event_of_a_second_delivery"}) == "duplicate"


def test_an_event_without_an_id_gets_one_and_is_new_each_time(relay: Relay, person: Person) -> None:
    event = {"userId": person.id, "totalTokens": 2}
    one, other = first(relay.post(event)), first(relay.post(event))
    assert (one["status"], other["status"]) == ("accepted", "accepted")
    assert one["id"] != other["id"]


def test_another_source_is_another_event(relay: Relay, person: Person) -> None:
    event = native(person, 5)
    assert [status_of(relay, event | {"source": source}) for source in ("one", "two", "one")] == [
        "accepted",
        "accepted",
        "duplicate",
    ]


def test_the_source_of_a_native_event_is_api_unless_given(relay: Relay, person: Person) -> None:
    event = native(person, 5)
    assert status_of(relay, event) == "accepted"
    assert status_of(relay, event | {"source": "api"}) == "duplicate"


def test_the_source_of_a_raw_event_is_openai_realtime_unless_given(relay: Relay, person: Person) -> None:
    event = response_done(person)
    assert status_of(relay, event) == "accepted"
    assert status_of(relay, event | {"source": "openai-realtime"}) == "duplicate"
    assert status_of(relay, event | {"source": "another"}) == "accepted"


def test_a_cloudevent_is_known_by_the_response_inside(relay: Relay, person: Person) -> None:
    event = response_done(person)
    assert status_of(relay, cloud(event)) == "accepted"
    assert status_of(relay, cloud(event, source="/another/relay")) == "duplicate"
    assert status_of(relay, event) == "duplicate"


def test_a_cloudevent_is_known_by_the_event_inside(relay: Relay, person: Person) -> None:
    inner = {"userId": person.id, "totalTokens": 3, "event_id": f"event_in_{person.id}"}
    assert first(relay.post(cloud(inner)))["id"] == inner["event_id"]
    assert status_of(relay, inner) == "duplicate"


def test_a_cloudevent_around_nameless_data_is_known_by_its_own_source_and_id(relay: Relay, person: Person) -> None:
    inner = {"userId": person.id, "totalTokens": 3}
    assert status_of(relay, cloud(inner, id=person.id, source="/a")) == "accepted"
    assert status_of(relay, cloud(inner, id=person.id, source="/a")) == "duplicate"
    assert status_of(relay, cloud(inner, id=person.id, source="/b")) == "accepted"
    assert relay.quota(person)["used"] == 6


@pytest.mark.parametrize(
    "change",
    [
        {"sessionId": "other"},
        {"model": "other"},
        {"provider": "other"},
        {"totalTokens": 11, "inputTokens": 7},
        {"totalTokens": None, "inputTokens": None},
        {"inputTokenDetails": {"textTokens": 5}},
        {"outputTokenDetails": {"audioTokens": 1}},
        {"occurredAt": "2026-02-02T10:00:00.001Z"},
        {"occurredAt": None},
    ],
    ids=lambda change: "+".join(change),
)
def test_the_same_id_with_another_body_is_a_conflict(relay: Relay, person: Person, change: dict[str, Any]) -> None:
    event = native(
        person, 10, inputTokens=6, outputTokens=4, sessionId="s", model="m", provider="p", inputTokenDetails={
            "textTokens": 6}, occurredAt="2026-02-02T10:00:00Z"
    )  # fmt: skip
    relay.accept(event)
    result = first(relay.post(event | change))
    assert (result["status"], result["code"], result["id"]) == ("rejected", "conflict", event["id"])
    assert result["storedHash"] != result["receivedHash"]
    (row,) = relay.ledger(person)
    assert (row["content_hash"].hex(), row["total_tokens"]) == (result["storedHash"], 10)


def test_the_same_id_of_another_user_is_a_conflict(relay: Relay, person: Person) -> None:
    event = native(person, 10)
    relay.accept(event)
    other = relay.person()
    assert first(relay.post(event | {"userId": other.id}))["code"] == "conflict"
    assert relay.ledger(other) == []


def test_what_equality_does_not_look_at_may_differ(relay: Relay, person: Person) -> None:
    event = native(person, 10)
    relay.accept(event)
    changed = {"metadata": {"try": 2}, "eventType": "again", "unknown": True}
    assert status_of(relay, event | changed) == "duplicate"


def test_equality_is_over_normal_fields_never_over_bytes(relay: Relay, person: Person) -> None:
    event = native(person, 10, inputTokens=6, outputTokens=4, occurredAt="2026-02-02T10:00:00Z")
    relay.accept(event)
    same: list[dict[str, Any]] = [
        dict(reversed(event.items())),
        event | {"userId": person.clerk_id},
        event | {"userId": None, "clerkId": person.clerk_id},
        event | {"totalTokens": None},
        event | {"occurredAt": "2026-02-02T11:00:00.000+01:00"},
        event | {"sessionId": None, "model": "", "metadata": None},
        event | {"inputTokenDetails": {}, "outputTokenDetails": {"textTokens": 0, "audioTokens": 0}},
    ]
    assert [status_of(relay, each) for each in same] == ["duplicate"] * len(same)
    loose = msgspec.json.format(msgspec.json.encode(event), indent=8)
    assert first(relay.send(loose))["status"] == "duplicate"
    assert first(relay.send(gzip.compress(loose), Content_Encoding="gzip"))["status"] == "duplicate"
    assert first(relay.send(lines(event), "application/x-ndjson"))["status"] == "duplicate"


def test_a_missing_detail_is_zero_too(relay: Relay, person: Person) -> None:
    event = native(person, 10, inputTokenDetails={"textTokens": 6})
    relay.accept(event)
    assert status_of(relay, event | {"inputTokenDetails": {"textTokens": 6, "audioTokens": 0}}) == "duplicate"


def test_a_raw_event_and_its_native_form_are_the_same(relay: Relay, person: Person) -> None:
    raw = response_done(person)
    usage = raw["response"]["usage"]
    in_details, out_details = usage["input_token_details"], usage["output_token_details"]
    form = {
        "userId": person.id,
        "source": "openai-realtime",
        "responseId": raw["response"]["id"],
        "sessionId": raw["sessionId"],
        "model": "unknown",
        "provider": "openai",
        "totalTokens": 253,
        "inputTokens": 132,
        "outputTokens": 121,
        "inputTokenDetails": {name + "Tokens": in_details[name + "_tokens"] for name in ("text", "audio", "cached")},
        "outputTokenDetails": {name + "Tokens": out_details[name + "_tokens"] for name in ("text", "audio")},
    }
    relay.accept(raw)
    assert status_of(relay, form) == "duplicate"


def test_a_null_character_cannot_make_two_identities_one(relay: Relay, person: Person) -> None:
    event = native(person, 1, id="b", source="a\0")
    assert first(relay.post(event))["code"] == "invalid"
