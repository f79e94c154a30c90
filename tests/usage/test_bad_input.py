"""Bad input: whatever arrives at the ledger's door, it answers; never a 5xx, and nothing half written."""

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.usage.conftest import (
    EVENTS,
    RESERVATIONS,
    Person,
    Relay,
    bearer,
    cloud,
    differences,
    first,
    lines,
    native,
    response_done,
)

NDJSON = "application/x-ndjson"
MIB = 1 << 20
EXAMPLES = 120
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def assert_too_large(answer: httpx.Response, limit: int, actual: int | None = None) -> None:
    body = answer.json()
    assert (answer.status_code, body["code"], body["limit"]) == (413, "too_large", limit)
    assert body["actual"] > limit
    if actual is not None:
        assert body["actual"] == actual
    assert str(body["limit"]) in body["error"]
    assert str(body["actual"]) in body["error"]


# -- shapes ------------------------------------------------------------------------------------------------

MALFORMED = {
    "negative total": {"totalTokens": -1},
    "negative input": {"inputTokens": -1},
    "negative detail": {"inputTokenDetails": {"textTokens": -1}},
    "fraction": {"totalTokens": 1.5},
    "text for a number": {"totalTokens": "10"},
    "boolean for a number": {"totalTokens": True},
    "list for a number": {"totalTokens": [1]},
    "a number that no clock counts to": {"totalTokens": 2**63},
    "an unbelievable number": {"totalTokens": 2**53 - 1},
    "contradiction": {"totalTokens": 10, "inputTokens": 5, "outputTokens": 6},
    "number for a text": {"model": 5},
    "object for a text": {"sessionId": {}},
    "text for details": {"inputTokenDetails": "many"},
    "text for metadata": {"metadata": "blue"},
    "list for metadata": {"metadata": ["blue"]},
    "a metadata too large": {"metadata": {"a": "x" * (16 << 10)}},
    "an over-long id": {"id": "x" * 256},
    "an over-long source": {"source": "x" * 256},
    "an over-long user": {"userId": "x" * 256},
    "an over-long session": {"sessionId": "x" * 256},
    "an over-long model": {"model": "x" * 256},
    "NUL in an id": {"id": "a\0b"},
    "NUL in a user": {"userId": "a\0b"},
    "NUL in a session": {"sessionId": "\0"},
    "NUL in a model": {"model": "a\0"},
    "NUL in an amended id": {"amends": "a\0"},
    "occurred six minutes ahead": {"occurredAt": "2100-01-01T00:00:00Z"},
    "occurred before 1970": {"occurredAt": "1969-12-31T23:59:59Z"},
    "occurred in year 1": {"occurredAt": "0001-01-01T00:00:00+23:59"},
    "occurred in year 9999": {"occurredAt": "9999-12-31T23:59:59-23:59"},
    "occurred on no day": {"occurredAt": "2026-02-30T00:00:00Z"},
    "occurred at a number": {"occurredAt": 1_760_000_000},
    "occurred at an empty text": {"occurredAt": ""},
    "no user": {"userId": None},
    "an empty user": {"userId": ""},
    "list for a type": {"type": ["response.done"]},
    "number for a response": {"type": "response.done", "response": 5},
    "text for usage": {"type": "response.done", "response": {"usage": "much"}},
    "negative raw count": {"type": "response.done", "response": {"usage": {"input_tokens": -1}}},
    "negative seconds": {
        "type": "conversation.item.input_audio_transcription.completed",
        "usage": {"type": "duration", "seconds": -1},
    },
    "a number for a version": {"specversion": 1.0},
}


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_event_is_refused_by_item(relay: Relay, person: Person, change: dict[str, Any]) -> None:
    answer = relay.post([native(person, 1), native(person) | change, native(person, 2)])
    assert answer.status_code == 200, answer.text
    one, bad, other = answer.json()["results"]
    assert (one["status"], bad["status"], other["status"]) == ("accepted", "rejected", "accepted")
    assert bad["code"] == "invalid"
    assert bad["error"]
    assert relay.quota(person)["used"] == 3


@pytest.mark.parametrize("item", [None, True, 1, 1.5, "text", [], [[]], [{}]], ids=repr)
def test_an_item_that_is_no_object_is_refused(relay: Relay, person: Person, item: Any) -> None:
    answer = relay.post([native(person), item])
    assert [each.get("code") for each in answer.json()["results"]] == [None, "invalid"]


def test_an_event_up_to_five_minutes_ahead_is_taken(relay: Relay, person: Person) -> None:
    def ahead(seconds: int) -> str:
        (row,) = relay.rows("SELECT strftime('%Y-%m-%dT%H:%M:%SZ', 'now', ?)", f"+{seconds} seconds")
        return str(row[0])

    answer = relay.post([native(person, occurredAt=ahead(280)), native(person, occurredAt=ahead(320))])
    assert [each["status"] for each in answer.json()["results"]] == ["accepted", "rejected"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"[",
        b"[{},",
        b"nonsense",
        b"null",
        b"1",
        b'"text"',
        b"\xff\xfe{\0}\0",
        b"\xef\xbb\xbf{}",
        b"[]]",
    ],
)
def test_a_body_that_is_no_event_is_400(relay: Relay, body: bytes) -> None:
    answer = relay.send(body)
    assert answer.status_code in (200, 400)
    if answer.status_code == 200:
        assert first(answer)["code"] == "invalid"
    else:
        assert answer.json()["code"] == "invalid"


@pytest.mark.parametrize("body", [b"{", b"[{]", b"nonsense", b'{"userId": "a" "b"}'])
def test_bad_json_says_where(relay: Relay, body: bytes) -> None:
    answer = relay.send(body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert answer.json()["error"].startswith("Invalid JSON")


# -- sizes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["array", "ndjson", "cloudevents"])
def test_more_than_a_thousand_events_is_413(relay: Relay, person: Person, form: str) -> None:
    events = [native(person, 1) for _ in range(1_001)]
    if form == "ndjson":
        answer = relay.send(lines(*events), NDJSON)
    elif form == "cloudevents":
        answer = relay.send(
            msgspec.json.encode([cloud(event) for event in events]), "application/cloudevents-batch+json"
        )
    else:
        answer = relay.post(events)
    assert_too_large(answer, 1_000, 1_001)
    assert relay.ledger(person) == []


def test_a_thousand_and_one_items_of_which_some_are_bad_is_413(relay: Relay) -> None:
    assert_too_large(relay.post([1] * 1_001), 1_000, 1_001)


def test_a_thousand_events_are_taken(relay: Relay, person: Person) -> None:
    relay.accept(*(native(person, 1) for _ in range(1_000)))
    assert relay.quota(person)["used"] == 1_000


def test_five_megabytes_are_taken_and_a_byte_more_is_413(relay: Relay, person: Person) -> None:
    event = msgspec.json.encode(native(person, 3))
    full = event + b" " * (5 * MIB - len(event))
    assert relay.send(full).json()["accepted"] == 1
    assert_too_large(relay.send(full + b" "), 5 * MIB, 5 * MIB + 1)


def test_ten_megabytes_are_413_announced_or_not(relay: Relay) -> None:
    assert_too_large(relay.send(b" " * (10 * MIB)), 5 * MIB)

    def chunks() -> Iterator[bytes]:
        for _ in range(160):
            yield b" " * (64 << 10)

    with relay.server.client() as client:
        assert_too_large(client.post(EVENTS, content=chunks(), headers=bearer(relay.key)), 5 * MIB)


def test_a_gzip_bomb_is_413(relay: Relay) -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b"\0" * MIB) for _ in range(200)) + packer.flush()
    assert len(bomb) < MIB
    assert_too_large(relay.send(bomb, Content_Encoding="gzip"), 5 * MIB)
    assert relay.client.get("/livez").status_code == 200


def test_the_limit_of_gzip_is_after_decompression(relay: Relay, person: Person) -> None:
    event = msgspec.json.encode(native(person, 3))
    full = event + b" " * (5 * MIB - len(event))
    assert relay.send(gzip.compress(full), Content_Encoding="gzip").json()["accepted"] == 1
    assert_too_large(relay.send(gzip.compress(full + b" "), Content_Encoding="gzip"), 5 * MIB)


@pytest.mark.parametrize("body", [b"", b"plain", gzip.compress(b"[]")[:-4], gzip.compress(b"[]")[:5], b"\x1f\x8b"])
def test_gzip_that_is_none_is_400(relay: Relay, body: bytes) -> None:
    answer = relay.send(body, Content_Encoding="gzip")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert "gzip" in answer.json()["error"]


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "x"])
def test_another_encoding_is_400(relay: Relay, encoding: str) -> None:
    assert relay.send(b"[]", Content_Encoding=encoding).status_code == 400


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
    assert relay.quota(person)["used"] == sum(row["total_tokens"] for row in relay.ledger(person))


@given(body=st.binary(max_size=200) | json_values.map(lambda value: encode(value)))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=QUIET)
@pytest.mark.parametrize("media", ["application/json", NDJSON, "application/cloudevents-batch+json"])
def test_whatever_bytes_arrive_it_answers(relay: Relay, media: str, body: bytes) -> None:
    assert relay.send(body, media).status_code in (200, 400)


def encode(value: Any) -> bytes:
    """JSON as a careless client writes it: lone surrogates and integers of any size included."""
    return json.dumps(value).encode()


def test_after_all_of_it_the_counters_are_the_ledgers_sums(relay: Relay, person: Person) -> None:
    relay.accept(response_done(person))
    assert differences(relay.path) == []
    assert "unexpected" not in relay.server.log()
