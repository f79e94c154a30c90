"""Who writes usage: an operator's key for anybody, a user's for that user, nobody else."""

from pathlib import Path

import pytest

from app.edge.clock import now_ms
from app.identity import api_keys
from app.identity.ids import new_live_key
from tests.conftest import serving
from tests.usage.conftest import (
    EVENTS,
    QUOTA,
    SEEN_SECONDS,
    Person,
    Relay,
    native,
)
from tests.waiting import until


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


def test_a_key_for_everything_still_writes_for_its_user_only(relay: Relay, person: Person) -> None:
    key = relay.new_key(person.id, ("admin:all",), by_operator=False)
    answer = relay.post([native(person, 3), native(relay.bob)], key=key)
    assert [each.get("code") for each in answer.json()["results"]] == [None, "forbidden"]
    assert relay.get(QUOTA, key).json()["used"] == 3
    assert relay.get(QUOTA, key, userId=relay.bob.id).status_code == 403


def test_a_revoked_key_is_refused_beside_another_process(relay: Relay, person: Person) -> None:
    assert relay.post([], key=person.key).status_code == 200
    (key_id,) = relay.rows("SELECT id FROM api_keys WHERE user_id = ?", person.id)[0]
    relay.beside(api_keys.revoke, key_id, now_ms())
    assert assert_soon_refused(relay, person) == "API key is revoked"


def test_a_users_key_cannot_tell_whether_another_user_exists(relay: Relay, person: Person) -> None:
    stranger = relay.person()
    answer = relay.post([native(stranger), native(stranger, userId="user_nobody")], key=person.key)
    one, other = answer.json()["results"]
    assert one["code"] == other["code"] == "forbidden"
    assert one["error"] == other["error"]
    assert relay.ledger(stranger) == []


def test_a_key_of_a_deleted_user_is_refused(relay: Relay, person: Person) -> None:
    assert relay.post(native(person), key=person.key).status_code == 200
    relay.delete(person)
    assert assert_soon_refused(relay, person) == "Invalid API key"


def assert_soon_refused(relay: Relay, person: Person) -> str:
    """What another process did was committed before the first look; the words of the refusal."""
    until(lambda: relay.post([], key=person.key).status_code == 401, SEEN_SECONDS)
    return str(relay.post([], key=person.key).json()["error"])
