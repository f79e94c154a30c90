"""/api/keys: MindCache clients list, make and delete their keys; a secret is shown once and kept as a hash."""

import hashlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from app.edge import sqlite
from tests.conftest import Server, serving
from tests.usage.conftest import EVENTS, QUOTA, Person, Relay, bearer, native
from tests.waiting import until

KEYS = "/api/keys"
# Uses are written every five seconds.
USES_SECONDS = 15.0
NOBODY = "no-such-key"


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    made = Relay(tmp_path_factory.mktemp("keys") / "data")
    try:
        made.server.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def person(relay: Relay) -> Person:
    return relay.person()


def make(relay: Relay, person: Person, **form: Any) -> dict[str, Any]:
    answer = relay.post({"name": "Laptop", "permissions": ["read"]} | form, url=KEYS, key=relay.token(person.clerk_id))
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def listed(relay: Relay, person: Person) -> list[dict[str, Any]]:
    answer = relay.get(KEYS, relay.token(person.clerk_id))
    assert answer.status_code == 200, answer.text
    keys: list[dict[str, Any]] = answer.json()["keys"]
    # The one with which the cast came.
    return [key for key in keys if key["key_prefix"].startswith("mc_")]


def delete(relay: Relay, person: Person, key_id: str) -> httpx.Response:
    return relay.client.delete(f"{KEYS}/{key_id}", headers=bearer(relay.token(person.clerk_id)))


def test_a_new_key_is_shown_in_full_once(relay: Relay, person: Person) -> None:
    made = make(relay, person, name="My laptop", scopeType="account", permissions=["read", "write"])
    assert re.fullmatch(r"mc_live_[A-Za-z0-9]{32}", made["key"])
    assert made == {
        "id": made["id"],
        "name": "My laptop",
        "key": made["key"],
        "keyPrefix": made["key"][:12],
        "scopeType": "account",
        "permissions": ["read", "write"],
    }
    assert made["key"] not in relay.get(KEYS, relay.token(person.clerk_id)).text


def test_only_a_hash_of_the_secret_is_kept(relay: Relay, person: Person) -> None:
    made = make(relay, person)
    (row,) = relay.rows("SELECT * FROM api_keys WHERE id = ?", made["id"])
    assert hashlib.sha256(made["key"].encode()).digest() in row
    assert made["key"] not in [str(cell) for cell in row]
    assert relay.rows("SELECT count(*) FROM expiring WHERE instr(value, ?)", made["key"].encode()) == [(0,)]


def test_the_list_speaks_as_its_clients_expect(relay: Relay, person: Person) -> None:
    made = make(relay, person, name="First", permissions=["read", "write"])
    before = time.time()
    (key,) = listed(relay, person)
    assert 0 <= before - key.pop("created_at") < 10
    assert msgspec.json.decode(key.pop("permissions")) == ["read", "write"]
    assert key == {
        "id": made["id"],
        "name": "First",
        "key_prefix": made["keyPrefix"],
        "scope_type": "account",
        "scope_id": None,
        "last_used_at": None,
    }


def test_the_newest_key_is_listed_first(relay: Relay, person: Person) -> None:
    for name in ("one", "two", "three"):
        make(relay, person, name=name)
    assert [key["name"] for key in listed(relay, person)] == ["three", "two", "one"]


def test_keys_are_their_owners_alone(relay: Relay, person: Person) -> None:
    made = make(relay, person)
    stranger = relay.person()
    assert listed(relay, stranger) == []
    answer = delete(relay, stranger, made["id"])
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert [key["id"] for key in listed(relay, person)] == [made["id"]]


def test_an_unknown_key_is_404(relay: Relay, person: Person) -> None:
    assert delete(relay, person, NOBODY).status_code == 404


def test_a_deleted_key_is_refused_at_once(relay: Relay, person: Person) -> None:
    made = make(relay, person)
    assert relay.get(QUOTA, made["key"]).status_code == 403
    answer = delete(relay, person, made["id"])
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    refused = relay.get(QUOTA, made["key"])
    assert (refused.status_code, refused.json()["error"]) == (401, "Invalid API key")
    assert listed(relay, person) == []
    assert delete(relay, person, made["id"]).status_code == 404


def test_a_mindcache_key_opens_no_door_of_metering(relay: Relay, person: Person) -> None:
    made = make(relay, person, permissions=["read", "write", "admin"])
    assert relay.post(native(person), key=made["key"]).status_code == 403
    assert relay.get(QUOTA, made["key"]).status_code == 403
    assert relay.ledger(person) == []


def test_a_key_makes_no_keys(relay: Relay, person: Person) -> None:
    for key in (make(relay, person)["key"], person.key, relay.key):
        assert relay.get(KEYS, key).status_code == 403
        assert relay.post({"name": "x"}, url=KEYS, key=key).status_code == 403


@pytest.mark.parametrize(
    "form",
    [
        {"name": ""},
        {"name": "  "},
        {"name": "x" * 101},
        {"name": "a\0"},
        {"name": 5},
        {"permissions": []},
        {"permissions": ["fly"]},
        {"permissions": "read"},
        {"scopeType": "planet"},
    ],
    ids=str,
)
def test_a_malformed_key_is_400(relay: Relay, person: Person, form: dict[str, Any]) -> None:
    body = {"name": "Laptop", "permissions": ["read"]} | form
    answer = relay.post(body, url=KEYS, key=relay.token(person.clerk_id))
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert listed(relay, person) == []


@pytest.mark.parametrize("scope", ["project", "instance"])
def test_a_key_of_what_is_not_there_is_404(relay: Relay, person: Person, scope: str) -> None:
    body = {"name": "x", "scopeType": scope, "scopeId": "nothing", "permissions": ["read"]}
    assert relay.post(body, url=KEYS, key=relay.token(person.clerk_id)).status_code == 404


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({}, "Authorization required"),
        ({"Authorization": "Bearer nothing"}, "Invalid token"),
        ({"Authorization": "Bearer mc_live_x"}, "Invalid API key"),
        ({"Authorization": "Bearer mc_live_" + "x" * 32}, "Invalid API key"),
    ],
)
def test_without_a_good_credential_it_is_401(relay: Relay, headers: dict[str, str], text: str) -> None:
    for answer in (
        relay.client.get(KEYS, headers=headers),
        relay.client.post(KEYS, json={"name": "x"}, headers=headers),
        relay.client.delete(f"{KEYS}/{NOBODY}", headers=headers),
    ):
        assert (answer.status_code, answer.json()["error"]) == (401, text)


def test_in_development_the_keys_are_the_development_users(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server, server.client() as client:
        made = client.post(KEYS, json={"name": "x", "permissions": ["read"]}).json()
        assert [key["id"] for key in client.get(KEYS).json()["keys"]] == [made["id"]]


def test_a_users_keys_go_with_the_user(relay: Relay, person: Person) -> None:
    made = make(relay, person)
    relay.delete(person)
    assert relay.rows("SELECT count(*) FROM api_keys WHERE id = ?", made["id"]) == [(0,)]


def test_a_list_of_keys_is_the_callers_own_to_cache(relay: Relay, person: Person) -> None:
    headers = relay.get(KEYS, relay.token(person.clerk_id)).headers
    assert "private" in headers["cache-control"]
    assert "authorization" in headers["vary"].lower()


def test_pages_of_any_origin_may_call_without_cookies(relay: Relay) -> None:
    headers = {"Origin": "https://somebody.example", "Access-Control-Request-Headers": "authorization"}
    answer = relay.client.options(KEYS, headers={**headers, "Access-Control-Request-Method": "POST"})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] in ("*", "https://somebody.example")
    assert "access-control-allow-credentials" not in answer.headers


def test_the_last_use_is_written_after_a_while(relay: Relay, person: Person) -> None:
    assert relay.client.post(EVENTS, json=[], headers={"X-API-Key": person.key}).status_code == 200
    sql = "SELECT last_used_at_ms FROM api_keys WHERE user_id = ? AND last_used_at_ms IS NOT NULL"
    rows = until(lambda: relay.rows(sql, person.id), USES_SECONDS)
    assert 0 <= time.time() * 1000 - rows[0][0] < USES_SECONDS * 1000
    keys = relay.get(KEYS, relay.token(person.clerk_id)).json()["keys"]
    assert [key["last_used_at"] for key in keys] == [rows[0][0] // 1000]


def test_a_name_is_unique_to_nobody(relay: Relay, person: Person) -> None:
    assert make(relay, person, name="same")["id"] != make(relay, person, name="same")["id"]
    with pytest.raises(sqlite.IntegrityError):
        duplicate_hash(relay)


def duplicate_hash(relay: Relay) -> None:
    raw = sqlite.connect(relay.path)
    try:
        raw.execute(
            """INSERT INTO api_keys (id, user_id, name, key_prefix, key_hash, created_at, updated_at)
               SELECT id || 'x', user_id, name, key_prefix, key_hash, created_at, updated_at FROM api_keys LIMIT 1"""
        )
    finally:
        raw.close()


def test_a_repeated_request_makes_no_second_key_and_its_secret_is_not_kept(server: Server) -> None:
    with server.client() as client:
        headers = {"Idempotency-Key": "make-once"}
        first = client.post("/api/keys", json={"name": "once"}, headers=headers)
        again = client.post("/api/keys", json={"name": "once"}, headers=headers)
        assert (first.status_code, again.status_code) == (201, 409)
        named = [key for key in client.get("/api/keys").json()["keys"] if key["name"] == "once"]
        assert len(named) == 1
    raw = sqlite.connect(server.data_dir / "core.db", read_only=True)
    kept = raw.execute("SELECT value FROM expiring").fetchall()
    raw.close()
    assert len(kept) == 1
    assert first.json()["key"].encode() not in kept[0][0]


def test_the_last_use_of_a_key_is_not_lost_with_a_stop(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        words = ("keys", "create", "--user", "dev-user", "--scope", "read:usage", "--name", "k", "--json")
        key = msgspec.json.decode(server.command(*words).stdout)
        with server.client(**{"X-API-Key": key["key"]}) as client:
            assert client.get("/api/usage/quota").status_code == 200
        assert server.stop() == 0
        raw = sqlite.connect(server.data_dir / "core.db", read_only=True)
        used = raw.execute("SELECT last_used_at_ms FROM api_keys WHERE id = ?", (key["id"],)).fetchone()[0]
        raw.close()
    assert used is not None
