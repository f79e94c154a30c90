"""Hostile input: JSON that wants to hurt, and anything at all; never a 5xx, and nothing half written."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.usage.conftest import (
    EXPORT,
    HISTORY,
    QUOTA,
    RESERVATIONS,
    Person,
    Relay,
    cloud,
    differences,
    first,
    native,
    response_done,
)

NDJSON = "application/x-ndjson"
EXAMPLES = 120
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


# -- JSON that wants to hurt -------------------------------------------------------------------------------

DEPTH = 200_000


@pytest.mark.parametrize("where", ["body", "item", "metadata", "unknown", "data", "details"])
def test_deep_json_is_refused(relay: Relay, person: Person, where: str) -> None:
    deep = b"[" * DEPTH + b"]" * DEPTH
    user = person.id.encode()
    body = {
        "body": deep,
        "item": b"[" + deep + b"]",
        "metadata": b'{"userId":"%s","totalTokens":1,"metadata":{"a":%s}}' % (user, deep),
        "unknown": b'{"userId":"%s","totalTokens":1,"colour":%s}' % (user, deep),
        "data": b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":%s}' % deep,
        "details": b'[{"userId":"%s","totalTokens":1,"inputTokenDetails":%s}]' % (user, deep),
    }[where]
    answer = relay.send(body)
    assert answer.status_code == 400 or first(answer)["code"] == "invalid"
    assert relay.ledger(person) == []


@pytest.mark.parametrize(
    "text", [b"\\ud800", b"\\udc00x", b"\\ud800\\ud800", b"\xed\xa0\x80", b"\xff", b"\xc3", b"\\u12"]
)
@pytest.mark.parametrize("field", ["userId", "model", "metadata", "data", "unknown"])
def test_text_that_is_not_unicode_is_refused(relay: Relay, person: Person, field: str, text: bytes) -> None:
    user = person.id.encode()
    bad = {
        "userId": b'{"userId":"%s"}' % text,
        "model": b'{"userId":"%s","totalTokens":1,"model":"%s"}' % (user, text),
        "metadata": b'{"userId":"%s","totalTokens":1,"metadata":{"a":"%s"}}' % (user, text),
        "data": b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"userId":"%s","model":"%s"}}'
        % (user, text),
        "unknown": b'{"userId":"%s","totalTokens":1,"colour":"%s"}' % (user, text),
    }[field]
    for body, media in ((bad, "application/json"), (b"[" + bad + b"]", "application/json"), (bad, NDJSON)):
        answer = relay.send(body, media)
        assert answer.status_code in (200, 400)
        # What is not read is not judged: an unknown field may hold anything that ends.
        if field != "unknown":
            assert answer.status_code == 400 or first(answer)["code"] == "invalid"
    if field != "unknown":
        assert relay.ledger(person) == []


def test_a_bad_text_hurts_no_other_item(relay: Relay, person: Person) -> None:
    good = msgspec.json.encode(native(person, 2))
    answer = relay.send(b'[%s,{"userId":"%s","metadata":{"a":"\xff"}}]' % (good, person.id.encode())).json()
    assert [each["status"] for each in answer["results"]] == ["accepted", "rejected"]


def test_a_nul_in_metadata_stays_escaped(relay: Relay, person: Person) -> None:
    relay.accept(native(person, 1, metadata={"a\0": "b\0"}))
    assert relay.ledger(person)[0]["metadata"] == '{"a\\u0000":"b\\u0000"}'


def test_the_largest_counts_add_up_and_never_break_a_user(relay: Relay) -> None:
    rich = relay.person("unlimited")
    largest = 10**12
    for _ in range(2):
        relay.accept(*(native(rich, largest) for _ in range(1_000)))
    assert relay.quota(rich)["used"] == 2_000 * largest
    hold = relay.reserve(rich, largest)
    assert hold.status_code == 201


@pytest.mark.parametrize("path", ["x/settle", "x/release", "x/extend", ""])
@pytest.mark.parametrize("body", [b"{", b"[]", b"1", b"\xff", b"[" * 100_000])
def test_reservations_refuse_what_is_no_object(relay: Relay, path: str, body: bytes) -> None:
    answer = relay.send(body, url=f"{RESERVATIONS}/{path}".rstrip("/"))
    assert answer.status_code in (400, 404)


# -- anything ----------------------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=8
)
NAMES = (
    *("id", "source", "userId", "clerkId", "sessionId", "responseId", "model", "provider", "eventType", "metadata"),
    *("totalTokens", "inputTokens", "outputTokens", "inputTokenDetails", "outputTokenDetails", "occurredAt", "amends"),
    *("type", "event_id", "response", "usage", "specversion", "data"),
)
TYPES = ("response.done", "session.created", "conversation.item.input_audio_transcription.completed")
counts = st.none() | st.integers(-2, 2**54)


def items(user: str) -> st.SearchStrategy[Any]:
    """Anything, things with our field names, and events of which a few fields are off."""
    odd = st.dictionaries(st.sampled_from(NAMES), json_values, max_size=5)
    usage = st.fixed_dictionaries(
        {}, optional={"total_tokens": counts, "input_tokens": counts, "output_tokens": counts, "seconds": scalars}
    )
    near = st.fixed_dictionaries(
        {"userId": st.just(user)},
        optional={
            "totalTokens": counts,
            "inputTokens": counts,
            "outputTokens": counts,
            "id": st.text(max_size=3),
            "type": st.sampled_from(TYPES) | scalars,
            "response": st.fixed_dictionaries({}, optional={"usage": usage, "id": scalars}) | scalars,
            "usage": usage,
            "metadata": json_values,
            "occurredAt": st.datetimes().map(lambda moment: moment.isoformat() + "Z") | scalars,
        },
    )
    wrapped = near.map(lambda inner: cloud(inner)) | json_values.map(lambda inner: cloud(inner))
    return json_values | odd | near | wrapped | st.tuples(near, odd).map(lambda both: both[0] | both[1])


@given(data=st.data())
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=QUIET)
def test_whatever_arrives_every_item_has_a_result(relay: Relay, person: Person, data: st.DataObject) -> None:
    batch = data.draw(st.lists(items(person.id), max_size=8))
    before = len(relay.ledger(person))
    answer = relay.send(encode(batch))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert [each["index"] for each in body["results"]] == list(range(len(batch)))
    assert body["accepted"] + body["duplicates"] + body["rejected"] == len(batch)
    assert all("code" in each and each["error"] for each in body["results"] if each["status"] == "rejected")
    assert len(relay.ledger(person)) - before == body["accepted"]
    (counted,) = relay.rows("SELECT coalesce(sum(total_tokens), 0) FROM usage_periods WHERE user_id = ?", person.id)[0]
    assert counted == sum(row["total_tokens"] for row in relay.ledger(person))


@given(body=st.binary(max_size=200) | json_values.map(lambda value: encode(value)))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=QUIET)
@pytest.mark.parametrize("media", ["application/json", NDJSON, "application/cloudevents-batch+json"])
def test_whatever_bytes_arrive_it_answers(relay: Relay, media: str, body: bytes) -> None:
    assert relay.send(body, media).status_code in (200, 400)


def encode(value: Any) -> bytes:
    """JSON as a careless client writes it: lone surrogates and integers of any size included."""
    return json.dumps(value).encode()


@given(body=json_values.map(lambda value: encode(value)) | st.binary(max_size=50), more=st.data())
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=QUIET)
def test_whatever_is_reserved_or_settled_it_answers(
    relay: Relay, person: Person, body: bytes, more: st.DataObject
) -> None:
    near = st.dictionaries(
        st.sampled_from(("maxTokens", "ttlSeconds", "id", "totalTokens", "userId", "type", "amends")),
        st.integers(-1, 10**13) | st.text(max_size=3) | st.just(person.id),
    ).map(lambda value: encode(value))
    hold = relay.reserve(person, 0).json()["id"]
    for path in ("", f"/{hold}/settle", f"/{hold}/extend", f"/{hold}/release"):
        sent = more.draw(near | st.just(body))
        assert relay.send(sent, url=RESERVATIONS + path).status_code < 500, (path, sent)


@given(text=st.text(max_size=30) | st.datetimes().map(lambda moment: moment.isoformat()))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=QUIET)
def test_whatever_is_asked_it_answers(relay: Relay, person: Person, text: str) -> None:
    for url in (HISTORY, EXPORT):
        for name in ("from", "to", "groupBy", "format"):
            assert relay.get(url, person.key, **{name: text}).status_code in (200, 400)
    assert relay.get(QUOTA, relay.key, userId=text).status_code in (200, 404)


def test_after_all_of_it_the_counters_are_the_ledgers_sums(relay: Relay, person: Person) -> None:
    relay.accept(response_done(person))
    assert differences(relay.path) == []
    assert "unexpected" not in relay.server.log()
