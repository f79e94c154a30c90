"""The forms of an event: native, raw from OpenAI's Realtime API, CloudEvents; as JSON, NDJSON, gzip."""

import gzip
from typing import Any

import msgspec
import pytest

from tests.usage.conftest import EVENTS, Person, Relay, cloud, first, lines, native, response_done, transcribed

NDJSON = "application/x-ndjson"
CLOUDEVENT = "application/cloudevents+json"
CLOUDEVENTS = "application/cloudevents-batch+json"


def only_row(relay: Relay, person: Person, event: Any) -> dict[str, Any]:
    """The row that an event became."""
    result = first(relay.post(event))
    assert result["status"] == "accepted", result
    (row,) = relay.ledger(person)
    return row


# -- native ------------------------------------------------------------------------------------------------


def test_a_missing_total_is_input_and_output(relay: Relay, person: Person) -> None:
    row = only_row(relay, person, {"userId": person.id, "inputTokens": 3, "outputTokens": 4})
    assert row["total_tokens"] == 7


def test_a_missing_count_is_zero(relay: Relay, person: Person) -> None:
    row = only_row(relay, person, {"userId": person.id, "totalTokens": 9, "inputTokens": 3})
    assert (row["total_tokens"], row["input_tokens"], row["output_tokens"]) == (9, 3, 0)


def test_three_counts_that_contradict_are_refused(relay: Relay, person: Person) -> None:
    result = first(relay.post(native(person, 9, inputTokens=3, outputTokens=4)))
    assert (result["status"], result["code"]) == ("rejected", "invalid")


def test_sums_of_details_are_not_checked(relay: Relay, person: Person) -> None:
    details = {"textTokens": 500, "audioTokens": 500, "cachedTokens": 500}
    assert only_row(relay, person, native(person, 9, inputTokens=9, outputTokens=0, inputTokenDetails=details))


def test_unknown_fields_are_ignored(relay: Relay, person: Person) -> None:
    event = native(person, 9, colour="blue", nested={"deep": [1, None]}, inputTokenDetails={"imageTokens": "many"})
    assert only_row(relay, person, event)["input_token_details"] is None


def test_a_null_is_a_field_that_was_not_sent(relay: Relay, person: Person) -> None:
    names = ("source", "sessionId", "model", "inputTokens", "inputTokenDetails", "metadata", "occurredAt", "amends")
    row = only_row(relay, person, native(person, 9, **dict.fromkeys(names)))
    assert (row["source"], row["model"], row["metadata"], row["total_tokens"]) == ("api", None, None, 9)


def test_a_late_event_counts_in_the_period_of_its_occurrence(relay: Relay, person: Person) -> None:
    relay.accept(native(person, 100, occurredAt="2026-01-31T23:59:59.999Z"), native(person, 7))
    assert relay.quota(person)["used"] == 7
    months = relay.rows(
        "SELECT date(period_start_ms / 1000, 'unixepoch'), total_tokens FROM usage_periods WHERE user_id = ?"
        " ORDER BY 1 LIMIT 1",
        person.id,
    )
    assert months == [("2026-01-01", 100)]


@pytest.mark.parametrize(
    ("written", "day"),
    [
        ("2026-02-01T00:30:00+01:00", "2026-01-31"),
        ("2026-01-31T23:30:00-01:00", "2026-02-01"),
        ("2026-01-31T23:30:00", "2026-01-31"),
        ("2026-01-31t23:30:00.123456789z", "2026-01-31"),
    ],
)
def test_an_occurrence_is_taken_in_utc(relay: Relay, person: Person, written: str, day: str) -> None:
    relay.accept(native(person, 1, occurredAt=written))
    sql = "SELECT date(day_start_ms / 1000, 'unixepoch') FROM usage_rollups WHERE user_id = ?"
    assert relay.rows(sql, person.id) == [(day,)]


# -- raw ---------------------------------------------------------------------------------------------------


def test_response_done_counts_what_the_provider_reported(relay: Relay, person: Person) -> None:
    event = response_done(person, model="gpt-realtime")
    row = only_row(relay, person, event)
    assert (row["total_tokens"], row["input_tokens"], row["output_tokens"]) == (253, 132, 121)
    assert row["input_token_details"] == '{"audio_tokens":13,"cached_tokens":64,"text_tokens":119}'
    assert row["response_id"] == row["event_id"] == event["response"]["id"]
    assert (row["source"], row["event_type"]) == ("openai-realtime", "response.done")
    assert (row["session_id"], row["model"]) == ("sess_relay", "gpt-realtime")


def test_the_model_of_the_response_goes_before_the_relays(relay: Relay, person: Person) -> None:
    event = response_done(person, model="relay-says")
    event["response"]["model"] = "gpt-realtime-mini"
    assert only_row(relay, person, event)["model"] == "gpt-realtime-mini"


def test_a_raw_event_without_a_model_is_of_model_unknown(relay: Relay, person: Person) -> None:
    assert only_row(relay, person, response_done(person))["model"] == "unknown"


def test_a_transcription_counts_its_tokens(relay: Relay, person: Person) -> None:
    usage = {"type": "tokens", "total_tokens": 22, "input_tokens": 13, "output_tokens": 9}
    row = only_row(relay, person, transcribed(person, usage))
    assert (row["total_tokens"], row["input_tokens"], row["output_tokens"]) == (22, 13, 9)


def test_a_transcription_by_duration_counts_no_tokens_and_keeps_the_seconds(relay: Relay, person: Person) -> None:
    row = only_row(relay, person, transcribed(person, {"type": "duration", "seconds": 4.25}))
    assert row["total_tokens"] == 0
    assert msgspec.json.decode(row["metadata"]) == {"seconds": 4.25}


@pytest.mark.parametrize("response", [{"status": "failed"}, {"status": "cancelled", "usage": None}, None])
def test_response_done_without_usage_counts_nothing(relay: Relay, person: Person, response: Any) -> None:
    row = only_row(relay, person, response_done(person, response=response))
    assert row["total_tokens"] == 0


def test_session_created_counts_nothing(relay: Relay, person: Person) -> None:
    event = {"userId": person.id, "type": "session.created", "event_id": f"event_{person.id}", "session": {"id": "s"}}
    assert only_row(relay, person, event)["total_tokens"] == 0


@pytest.mark.parametrize("kind", ["response.created", "error", "rate_limits.updated", "session.updated", "x" * 255])
def test_other_types_are_refused_by_item(relay: Relay, person: Person, kind: str) -> None:
    answer = relay.post([{"userId": person.id, "type": kind, "event_id": "e1"}, native(person)])
    refused, good = answer.json()["results"]
    assert (refused["status"], refused["code"], refused["id"]) == ("rejected", "unsupported_event", "e1")
    assert good["status"] == "accepted"


def test_raw_counts_follow_the_same_rules(relay: Relay, person: Person) -> None:
    event = response_done(person)
    event["response"]["usage"] = {"input_tokens": 5, "output_tokens": 6}
    assert only_row(relay, person, event)["total_tokens"] == 11
    contradiction = response_done(person)
    contradiction["response"]["usage"] = {"total_tokens": 1, "input_tokens": 5, "output_tokens": 6}
    assert first(relay.post(contradiction))["code"] == "invalid"


# -- CloudEvents -------------------------------------------------------------------------------------------


def test_a_structured_cloudevent_is_its_data(relay: Relay, person: Person) -> None:
    body = msgspec.json.encode(cloud(native(person, 12, model="m1"), id="ce-1", source="/relay/structured"))
    assert first(relay.send(body, CLOUDEVENT)) == {"index": 0, "id": "ce-1", "status": "accepted"}
    (row,) = relay.ledger(person)
    assert (row["total_tokens"], row["model"], row["source"]) == (12, "m1", "/relay/structured")


def test_a_batch_of_cloudevents_may_hold_each_form(relay: Relay, person: Person) -> None:
    batch = [cloud(native(person, 1)), cloud(response_done(person)), cloud({"userId": person.id, "type": "error"})]
    answer = relay.send(msgspec.json.encode(batch), CLOUDEVENTS).json()
    assert [each["status"] for each in answer["results"]] == ["accepted", "accepted", "rejected"]
    assert relay.quota(person)["used"] == 254


def test_cloudevents_mix_with_the_other_forms_in_an_array(relay: Relay, person: Person) -> None:
    relay.accept(native(person, 1), cloud(native(person, 2)), response_done(person))
    assert relay.quota(person)["used"] == 256


@pytest.mark.parametrize("media", [CLOUDEVENT, CLOUDEVENTS])
def test_a_cloudevents_media_type_takes_its_own_shape_only(relay: Relay, person: Person, media: str) -> None:
    event = cloud(native(person))
    body = msgspec.json.encode(event if media == CLOUDEVENTS else [event])
    assert relay.send(body, media).status_code in ((200,) if media == CLOUDEVENT else (400,))


@pytest.mark.parametrize("lost", ["id", "source", "type", "data"])
def test_a_cloudevent_without_what_it_must_have_is_refused(relay: Relay, person: Person, lost: str) -> None:
    event = cloud(native(person))
    del event[lost]
    result = first(relay.post(event))
    assert (result["status"], result["code"]) == ("rejected", "invalid")
    assert lost in result["error"]


@pytest.mark.parametrize("version", ["0.3", "1.1", ""])
def test_another_version_of_cloudevents_is_refused(relay: Relay, person: Person, version: str) -> None:
    result = first(relay.post(cloud(native(person), specversion=version)))
    assert (result["code"], "specversion" in result["error"]) == ("invalid", True)


@pytest.mark.parametrize("data", [None, "text", [], 1, [{"totalTokens": 1}]])
def test_data_that_is_no_object_is_refused(relay: Relay, data: Any) -> None:
    assert first(relay.post(cloud(data)))["code"] == "invalid"


# -- NDJSON and gzip ---------------------------------------------------------------------------------------


def test_ndjson_is_an_event_a_line(relay: Relay, person: Person) -> None:
    body = lines(native(person, 1), response_done(person), cloud(native(person, 2)))
    answer = relay.send(body, f"{NDJSON}; charset=utf-8").json()
    assert answer["accepted"] == 3
    assert relay.quota(person)["used"] == 256


def test_ndjson_may_have_blank_lines_carriage_returns_and_no_last_newline(relay: Relay, person: Person) -> None:
    one, other = lines(native(person, 1)).strip(), lines(native(person, 2)).strip()
    answer = relay.send(b"\n" + one + b"\r\n  \n\n" + other, NDJSON).json()
    assert [each["index"] for each in answer["results"]] == [0, 1]
    assert answer["accepted"] == 2


def test_a_bad_line_is_refused_and_hurts_no_other(relay: Relay, person: Person) -> None:
    bad = [b"{", b"nonsense", b"[]", b"null", b"1", b'"text"', b"{}}", b"\xff\xfe", b"{'userId':1}"]
    body = b"\n".join([lines(native(person, 1)).strip(), *bad, lines(native(person, 2)).strip()])
    answer = relay.send(body, NDJSON)
    results = answer.json()["results"]
    assert answer.status_code == 200
    assert [each["status"] for each in results] == ["accepted", *["rejected"] * len(bad), "accepted"]
    assert {each["code"] for each in results[1:-1]} == {"invalid"}
    assert relay.quota(person)["used"] == 3


@pytest.mark.parametrize("media", ["application/json", NDJSON])
def test_gzip_is_accepted(relay: Relay, person: Person, media: str) -> None:
    answer = relay.send(gzip.compress(lines(native(person, 21))), media, Content_Encoding="gzip")
    assert answer.json()["accepted"] == 1
    assert relay.quota(person)["used"] == 21


def test_gzip_of_several_members_is_refused_whole(relay: Relay, person: Person) -> None:
    body = gzip.compress(lines(native(person, 1))) + gzip.compress(lines(native(person, 2)))
    assert relay.send(body, NDJSON, Content_Encoding="gzip").status_code == 400
    assert relay.ledger(person) == []


def test_the_media_type_may_be_left_out(relay: Relay, person: Person) -> None:
    headers = {"Authorization": f"Bearer {relay.key}"}
    answer = relay.client.post(EVENTS, content=msgspec.json.encode(native(person)), headers=headers)
    assert answer.json()["accepted"] == 1
