"""POST /api/usage/events: who may, what it answers, and what an answer promises."""

from concurrent.futures import ThreadPoolExecutor

from app.edge.clock import now_ms
from app.identity.ids import new_id
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


def test_a_repeat_inside_a_refused_batch_is_not_called_a_duplicate(relay: Relay, person: Person) -> None:
    event = native(person, 3)
    answer = relay.post([event, event, native(person, userId="user_nobody")], url=f"{EVENTS}?atomic=true")
    assert [each["code"] for each in answer.json()["results"]] == ["atomic", "atomic", "unknown_user"]
    assert relay.ledger(person) == []


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
