"""Bad input: whatever arrives at the ledger's door, it answers; never a 5xx, and nothing half written."""

import gzip
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from tests.usage.conftest import (
    EVENTS,
    Person,
    Relay,
    bearer,
    cloud,
    first,
    lines,
    native,
)

NDJSON = "application/x-ndjson"
MIB = 1 << 20


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


@pytest.mark.parametrize(
    "body",
    [b"", b"plain", gzip.compress(b"[]")[:-4], gzip.compress(b"[]")[:5], b"\x1f\x8b"],
    ids=["empty", "plain", "no sum", "half a head", "two bytes"],
)
def test_gzip_that_is_none_is_400(relay: Relay, body: bytes) -> None:
    answer = relay.send(body, Content_Encoding="gzip")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert "gzip" in answer.json()["error"]


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "x"])
def test_another_encoding_is_400(relay: Relay, encoding: str) -> None:
    assert relay.send(b"[]", Content_Encoding=encoding).status_code == 400
