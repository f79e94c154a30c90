"""GET /api/usage/export: the caller's rows of the ledger, all of them and nobody else's."""

import csv
import io
from typing import Any

import httpx
import msgspec
import pytest

from tests.conftest import ADMIN_TOKEN
from tests.usage.conftest import EXPORT, Person, Relay, native, response_done

COLUMNS = [
    *("id", "user_id", "session_id", "response_id", "event_id", "event_type", "provider", "model"),
    *("total_tokens", "input_tokens", "output_tokens", "input_token_details", "output_token_details", "metadata"),
    *("created_at", "source", "occurred_at_ms", "received_at_ms", "cost_micros", "instance_id", "api_key_id"),
    "endpoint",
]
ROWS = 2_500


def ndjson(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return [msgspec.json.decode(line) for line in answer.content.splitlines()]


def test_csv_has_the_ledgers_columns_by_name(relay: Relay, person: Person) -> None:
    relay.accept(response_done(person), native(person, 5, metadata={"say": 'one, "two"\nthree', "z": "ü"}))
    answer = relay.get(EXPORT, person.key)
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert list(rows[0]) == COLUMNS
    stored = {str(row["id"]): row for row in relay.ledger(person)}
    assert {row["id"] for row in rows} == set(stored)
    for row in rows:
        expected = stored[row["id"]]
        assert row == {name: "" if expected[name] is None else str(expected[name]) for name in COLUMNS}


def test_ndjson_has_a_row_a_line(relay: Relay, person: Person) -> None:
    relay.accept(response_done(person), native(person, 5))
    answer = relay.get(EXPORT, person.key, format="ndjson")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    stored = {row["id"]: {name: row[name] for name in COLUMNS} for row in relay.ledger(person)}
    assert {row["id"]: row for row in ndjson(answer)} == stored


def test_every_row_comes_once_however_many_there_are(relay: Relay, person: Person) -> None:
    other = relay.person()
    for start in range(0, ROWS, 500):
        relay.accept(*(native(person, number) for number in range(start, start + 500)))
        relay.accept(native(other, 1), native(person, 0, occurredAt="2026-03-03T00:00:00Z"))
    rows = ndjson(relay.get(EXPORT, person.key, format="ndjson"))
    assert len(rows) == len({row["id"] for row in rows}) == ROWS + 5
    assert {row["user_id"] for row in rows} == {person.id}
    assert sum(row["total_tokens"] for row in rows) == sum(range(ROWS))
    assert len(relay.get(EXPORT, person.key).text.splitlines()) == ROWS + 5 + 1


def test_what_is_exported_sums_up_to_what_is_used(relay: Relay, person: Person) -> None:
    event = native(person, 100)
    relay.accept(event, native(person, 5), native(person, 40, amends=event["id"]))
    rows = ndjson(relay.get(EXPORT, person.key, format="ndjson"))
    assert sum(row["total_tokens"] for row in rows) == relay.quota(person)["used"] == 45


def test_from_is_inclusive_and_to_is_not(relay: Relay, person: Person) -> None:
    moments = ("2026-02-28T23:59:59.999Z", "2026-03-01T00:00:00Z", "2026-03-01T12:00:00Z", "2026-04-01T00:00:00Z")
    relay.accept(*(native(person, 2**number, occurredAt=moment) for number, moment in enumerate(moments)))

    def total(**query: str) -> int:
        return sum(row["total_tokens"] for row in ndjson(relay.get(EXPORT, person.key, format="ndjson", **query)))

    assert total() == 15
    assert total(**{"from": "2026-03-01", "to": "2026-04-01"}) == 6
    assert total(**{"from": "2026-03-01T00:00:00.001Z"}) == 12
    assert total(to="2026-03-01T12:00:00Z") == 3
    assert total(**{"from": "2026-03-01T12:00:00Z", "to": "2026-03-01T12:00:00.001Z"}) == 4
    assert total(**{"from": "2026-03-02", "to": "2026-03-03"}) == 0


def test_nobody_elses_rows_appear(relay: Relay, person: Person) -> None:
    stranger = relay.person()
    relay.accept(native(stranger, 5), native(person, 6), native(stranger, 7))
    assert [row["total_tokens"] for row in ndjson(relay.get(EXPORT, person.key, format="ndjson"))] == [6]
    assert ndjson(relay.get(EXPORT, person.key, format="ndjson", userId=stranger.id))[0]["total_tokens"] == 6
    assert ndjson(relay.get(EXPORT, relay.person().key, format="ndjson")) == []


def test_an_export_of_nothing_still_has_its_header(relay: Relay, person: Person) -> None:
    assert relay.get(EXPORT, person.key).text.strip() == ",".join(COLUMNS)


def test_an_export_is_never_stored_on_the_way(relay: Relay, person: Person) -> None:
    headers = relay.get(EXPORT, person.key).headers
    assert "no-store" in headers["cache-control"]


@pytest.mark.parametrize(
    "query", [{"format": "xml"}, {"from": "x"}, {"to": "x"}, {"from": "2026-02-02", "to": "2026-02-01"}]
)
def test_a_query_that_makes_no_sense_is_400(relay: Relay, person: Person, query: dict[str, str]) -> None:
    answer = relay.get(EXPORT, person.key, **query)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")


def test_an_export_needs_a_credential_with_the_scope(relay: Relay, person: Person) -> None:
    assert relay.client.get(EXPORT).json()["error"] == "No token provided"
    writer = relay.new_key(person.id, ("write:usage",), by_operator=False)
    assert relay.get(EXPORT, writer).status_code == 403
    assert relay.get(EXPORT, relay.token(person.clerk_id)).status_code == 200


def test_an_operator_gets_the_whole_ledger_in_order_over_many_pages(relay: Relay, person: Person) -> None:
    other = relay.person()
    for start in range(0, ROWS, 500):
        relay.accept(*(native(person, 1) for _ in range(start, start + 500)), native(other, 1))
    with relay.server.client(**{"X-Admin-Token": ADMIN_TOKEN}) as operator:
        rows = ndjson(operator.get(f"{EXPORT}?format=ndjson"))
    ids = [row["id"] for row in rows]
    assert ids == sorted(ids)
    assert len(ids) == len(set(ids)) == relay.rows("SELECT count(*) FROM usage_logs")[0][0]
    assert {person.id, other.id} <= {row["user_id"] for row in rows}
