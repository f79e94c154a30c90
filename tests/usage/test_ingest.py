"""POST /api/usage/events: who may, what it answers, and what an answer promises."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from app.edge.clock import now_ms
from app.identity.ids import new_id, new_live_key
from tests.conftest import serving
from tests.usage.conftest import (
    EVENTS,
    Person,
    Relay,
    bearer,
    cloud,
    differences,
    first,
    native,
    response_done,
    transcribed,
)

AT_ONCE = 100
THREADS = 25


def test_the_answer_counts_and_lists_every_item_in_order(relay: Relay, person: Person) -> None:
    good, bad = native(person), native(person, totalTokens=-1)
    answer = relay.post([good, good, bad])
    body = answer.json()
    assert answer.status_code == 200
    assert {name: body[name] for name in ("accepted", "duplicates", "rejected")} == {
        "accepted": 1,
        "duplicates": 1,
        "rejected": 1,
    }
    assert [(each["index"], each["status"]) for each in body["results"]] == [
        (0, "accepted"),
        (1, "duplicate"),
        (2, "rejected"),
    ]
    assert body["results"][0] == {"index": 0, "id": good["id"], "status": "accepted"}
    assert body["results"][2]["code"] == "invalid"
    assert "totalTokens" in body["results"][2]["error"]


def test_one_event_an_array_and_nothing_are_bodies(relay: Relay, person: Person) -> None:
    assert relay.post(native(person)).json()["accepted"] == 1
    assert relay.post([native(person), native(person)]).json()["accepted"] == 2
    assert relay.post([]).json() == {"accepted": 0, "duplicates": 0, "rejected": 0, "results": []}


def test_an_answer_comes_after_the_commit_and_names_its_position(relay: Relay, person: Person) -> None:
    answer = relay.post(native(person, 41))
    assert relay.ledger(person)[0]["total_tokens"] == 41
    epoch, sequence = relay.rows("SELECT epoch, sequence FROM replication_token")[0]
    assert answer.headers["x-txid"] == f"{epoch}-{sequence}"


def test_a_row_holds_what_operators_query(relay: Relay, person: Person) -> None:
    before = now_ms()
    relay.accept(
        native(
            person,
            30,
            id="evt-columns",
            source="calls",
            sessionId="s1",
            responseId="r1",
            model="m1",
            provider="p1",
            eventType="call",
            inputTokens=20,
            outputTokens=10,
            inputTokenDetails={"textTokens": 15, "audioTokens": 5, "cachedTokens": 4},
            outputTokenDetails={"textTokens": 7, "audioTokens": 3},
            metadata={"room": "blue"},
            occurredAt="2026-01-31T23:59:59.999Z",
        )
    )
    (row,) = relay.ledger(person)
    assert {name: row[name] for name in ("session_id", "response_id", "event_id", "event_type", "source")} == {
        "session_id": "s1",
        "response_id": "r1",
        "event_id": "evt-columns",
        "event_type": "call",
        "source": "calls",
    }
    assert (row["model"], row["provider"]) == ("m1", "p1")
    assert (row["total_tokens"], row["input_tokens"], row["output_tokens"]) == (30, 20, 10)
    assert row["input_token_details"] == '{"audio_tokens":5,"cached_tokens":4,"text_tokens":15}'
    assert row["metadata"] == '{"room":"blue"}'
    assert row["occurred_at_ms"] == 1_769_903_999_999
    assert before <= row["received_at_ms"] <= now_ms()
    assert row["api_key_id"] is not None
    same = "SELECT 1 FROM usage_logs WHERE id = ? AND created_at = datetime(received_at_ms / 1000, 'unixepoch')"
    assert relay.rows(same, row["id"]) == [(1,)]


def test_a_user_is_named_by_either_id(relay: Relay, person: Person) -> None:
    relay.accept(
        native(person, 1),
        native(person, 2, userId=person.clerk_id),
        {"clerkId": person.clerk_id, "totalTokens": 4, "id": new_id("evt")},
    )
    assert relay.quota(person)["used"] == 7


def test_an_unknown_user_is_refused_for_that_event_only(relay: Relay, person: Person) -> None:
    answer = relay.post([native(person), native(person, userId="user_nobody"), native(person)])
    statuses = [(each["status"], each.get("code")) for each in answer.json()["results"]]
    assert statuses == [("accepted", None), ("rejected", "unknown_user"), ("accepted", None)]


def test_a_deleted_user_is_unknown_and_the_rows_stay(relay: Relay, person: Person) -> None:
    relay.accept(native(person, 5))
    relay.delete(person)
    for named in (person.id, person.clerk_id):
        assert first(relay.post(native(person, userId=named)))["code"] == "unknown_user"
    assert [row["total_tokens"] for row in relay.ledger(person)] == [5]
    assert relay.rows("SELECT count(*) FROM usage_logs WHERE user_id = ?", person.clerk_id) == [(0,)]


def test_a_key_of_a_deleted_user_is_refused(relay: Relay, person: Person) -> None:
    assert relay.post(native(person), key=person.key).status_code == 200
    relay.delete(person)
    assert_soon_refused(relay, person)


def assert_soon_refused(relay: Relay, person: Person) -> None:
    """Another process deleted the user: the feed of changes is read five times a second."""
    deadline = now_ms() + 2_000
    while (answer := relay.post(native(person), key=person.key)).status_code != 401:
        assert now_ms() < deadline
    assert answer.json()["error"] == "Invalid API key"


def test_atomic_writes_nothing_when_an_event_is_rejected(relay: Relay, person: Person) -> None:
    known = native(person, 3)
    relay.accept(known)
    answer = relay.post([native(person), known, native(person, userId="user_nobody")], url=f"{EVENTS}?atomic=true")
    body = answer.json()
    assert answer.status_code == 422
    assert body["code"] == "unprocessable"
    assert body["error"] == body["message"]
    assert (body["accepted"], body["duplicates"], body["rejected"]) == (0, 1, 2)
    assert [(each["status"], each.get("code")) for each in body["results"]] == [
        ("rejected", "atomic"),
        ("duplicate", None),
        ("rejected", "unknown_user"),
    ]
    assert relay.quota(person)["used"] == 3
    assert len(relay.ledger(person)) == 1


def test_atomic_takes_duplicates(relay: Relay, person: Person) -> None:
    known = native(person, 3)
    relay.accept(known)
    answer = relay.post([known, native(person, 4)], url=f"{EVENTS}?atomic=true")
    assert answer.status_code == 200
    assert (answer.json()["accepted"], answer.json()["duplicates"]) == (1, 1)
    assert relay.quota(person)["used"] == 7


def test_atomic_is_true_or_false(relay: Relay, person: Person) -> None:
    assert relay.post([native(person)], url=f"{EVENTS}?atomic=false").status_code == 200
    answer = relay.post([native(person)], url=f"{EVENTS}?atomic=maybe")
    assert answer.status_code == 400
    assert "atomic" in answer.json()["error"]


@pytest.mark.parametrize(
    ("headers", "status", "text"),
    [
        ({}, 401, "No token provided"),
        ({"Authorization": "Bearer " + "ak_" + "0" * 48}, 401, "Invalid API key"),
        ({"X-API-Key": "ak_" + "0" * 48}, 401, "Invalid API key"),
        ({"Authorization": "Bearer ak_short"}, 401, "Invalid API key format"),
        ({"Authorization": f"Bearer {new_live_key().text}"}, 401, "Invalid API key"),
        ({"Authorization": "Bearer something"}, 401, "Invalid token"),
    ],
)
def test_without_a_good_key_it_is_401(relay: Relay, headers: dict[str, str], status: int, text: str) -> None:
    answer = relay.client.post(EVENTS, json=[], headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (status, text)
    assert answer.json()["code"] == "unauthenticated"


def test_development_has_no_user_who_writes_usage(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server, server.client() as client:
        answer = client.post(EVENTS, json=[])
        assert client.get("/api/usage/quota").json()["plan"] == "premium"
    assert (answer.status_code, answer.json()["error"]) == (401, "No token provided")


def test_a_signed_in_user_may_not_write_usage(relay: Relay, person: Person) -> None:
    answer = relay.post([native(person)], key=relay.token(person.clerk_id))
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert relay.ledger(person) == []


def test_a_key_without_the_scope_may_not_write_usage(relay: Relay, person: Person) -> None:
    reader = relay.new_key(person.id, ("read:usage",), by_operator=False)
    for key in (relay.bare_key, reader):
        answer = relay.post([native(person)], key=key)
        assert answer.status_code == 403
        assert "write:usage" in answer.json()["error"]


def test_a_users_key_writes_for_that_user_only(relay: Relay, person: Person) -> None:
    mine, named, unnamed = native(person, 1), native(person, 2, userId=person.clerk_id), {"totalTokens": 4}
    answer = relay.post([mine, named, unnamed], key=person.key)
    assert answer.json()["accepted"] == 3
    assert relay.quota(person)["used"] == 7


def test_a_users_key_cannot_tell_whether_another_user_exists(relay: Relay, person: Person) -> None:
    stranger = relay.person()
    answer = relay.post([native(stranger), native(stranger, userId="user_nobody")], key=person.key)
    one, other = answer.json()["results"]
    assert one["code"] == other["code"] == "forbidden"
    assert one["error"] == other["error"]
    assert relay.ledger(stranger) == []


def test_the_same_event_a_hundred_times_at_once_counts_once(relay: Relay, person: Person) -> None:
    event = native(person, 7)

    def post(_: int) -> str:
        return str(first(relay.post(event))["status"])

    with ThreadPoolExecutor(THREADS) as pool:
        statuses = list(pool.map(post, range(AT_ONCE)))
    assert (statuses.count("accepted"), statuses.count("duplicate")) == (1, AT_ONCE - 1)
    assert relay.quota(person)["used"] == 7
    assert len(relay.ledger(person)) == 1


def test_events_of_many_clients_at_once_are_all_counted(relay: Relay, person: Person) -> None:
    def post(number: int) -> None:
        relay.accept(native(person, number), native(person, number))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(post, range(AT_ONCE)))
    assert relay.quota(person)["used"] == AT_ONCE * (AT_ONCE - 1)
    assert differences(relay.path) == []


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
        relay.server.stop()
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


def test_transcripts_are_not_stored(relay: Relay, person: Person) -> None:
    event = transcribed(person, {"type": "tokens", "total_tokens": 3, "input_tokens": 1, "output_tokens": 2})
    spoken = response_done(person)
    spoken["response"]["output"] = [{"content": [{"transcript": "a secret between friends"}]}]
    relay.accept(event, spoken, cloud(transcribed(person, {"type": "duration", "seconds": 3.5})))
    rows = relay.ledger(person)
    assert len(rows) == 3
    assert "secret between" not in str(rows)


def test_only_post_is_allowed(relay: Relay) -> None:
    answer = relay.client.get(EVENTS, headers=bearer(relay.key))
    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"]
