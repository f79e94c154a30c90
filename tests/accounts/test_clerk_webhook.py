"""POST /api/auth/webhook/clerk and /webhooks/clerk."""

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.accounts.conftest import (
    WEBHOOK_SECRET,
    ClerkServer,
    new_clerk_id,
    new_event_id,
    serving_clerk,
    signed,
)
from tests.conftest import ADMIN_TOKEN, serving
from tests.fakes.clerk import SigningKey, user

PATHS = ("/api/auth/webhook/clerk", "/webhooks/clerk")
NODE = Path(__file__).parents[1] / "node"
NODE_SECONDS = 30
CONCURRENT = 30


@pytest.mark.parametrize("path", PATHS)
def test_a_signed_event_is_received_once(clerk: ClerkServer, path: str) -> None:
    ada, event_id = new_clerk_id(), new_event_id()
    first = clerk.send("user.created", user(ada, "ada@example.com"), event_id=event_id, path=path)
    again = clerk.send("user.updated", user(ada, "other@example.com"), event_id=event_id, path=path)
    assert (first.status_code, first.json()) == (200, {"received": True})
    assert (again.status_code, again.json()) == (200, {"received": True, "duplicate": True})
    assert clerk.profile(ada).json()["user"]["email"] == "ada@example.com"


def test_a_wrong_signature_is_401_in_the_words_of_its_path(clerk: ClerkServer) -> None:
    body = json.dumps({"type": "user.created", "data": user(new_clerk_id())})
    headers = signed(body, new_event_id()) | {"svix-timestamp": str(int(time.time()) + 1)}
    plain = clerk.client.post(PATHS[0], content=body, headers=headers)
    assert (plain.status_code, plain.text) == (401, "Invalid signature")
    assert plain.headers["content-type"].startswith("text/plain")
    shaped = clerk.client.post(PATHS[1], content=body, headers=headers)
    assert (shaped.status_code, shaped.json()["error"]) == (401, "Invalid signature")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"svix-id": "msg_1"},
        {"svix-id": "msg_1", "svix-timestamp": "NaN", "svix-signature": "v1,AAAA"},
        {"svix-id": "msg_1", "svix-timestamp": "9" * 400, "svix-signature": ","},
        {"svix-id": "msg_1", "svix-timestamp": "1764600000", "svix-signature": "v1,***"},
    ],
)
def test_malformed_headers_are_401_and_never_500(clerk: ClerkServer, path: str, headers: dict[str, str]) -> None:
    assert clerk.client.post(path, json={"type": "user.created", "data": {}}, headers=headers).status_code == 401


@pytest.mark.parametrize("seconds", [-310, 310])
def test_a_signature_older_or_newer_than_five_minutes_is_401(clerk: ClerkServer, seconds: int) -> None:
    body = json.dumps({"type": "user.created", "data": user(new_clerk_id())})
    headers = signed(body, new_event_id(), at=time.time() + seconds)
    assert clerk.client.post(PATHS[1], content=body, headers=headers).status_code == 401


def test_the_raw_bytes_are_signed_not_the_json_in_them(clerk: ClerkServer) -> None:
    ada = new_clerk_id()
    body = f' {{ "type" : "user.created",\n"data":{{"id":"{ada}","first_name":"Zo\u00eb"}} }} '
    response = clerk.client.post(PATHS[1], content=body.encode(), headers=signed(body, new_event_id()))
    assert response.status_code == 200
    assert clerk.profile(ada).json()["user"]["firstName"] == "Zoë"


@pytest.mark.parametrize(
    "body",
    [
        "not json",
        "[]",
        '{"type":"user.created","data":{"id":"user_nul","first_name":"a\\u0000b"}}',
        '{"type":"user.created","data":{"id":"user_half","bio":"\\ud800"}}',
        '{"type":"user.created","data":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"type":"user.created","data":{"id":"user_shape","email_addresses":"none"}}',
    ],
)
def test_a_signed_body_that_is_no_event_is_400(clerk: ClerkServer, body: str) -> None:
    response = clerk.client.post(PATHS[1], content=body, headers=signed(body, new_event_id()))
    assert (response.status_code, response.json()["code"]) == (400, "invalid")


def test_a_body_of_10_mb_is_413(clerk: ClerkServer) -> None:
    body = json.dumps({"type": "user.created", "data": {"id": "user_big", "bio": "a" * (10 << 20)}})
    response = clerk.client.post(PATHS[1], content=body, headers=signed(body, new_event_id()))
    assert response.status_code == 413
    assert response.json()["limit"] == 1 << 20


def test_one_id_30_times_at_once_has_one_effect(clerk: ClerkServer) -> None:
    ada, event_id = new_clerk_id(), new_event_id()
    told = user(ada, public_metadata={"tokenQuota": 5_000})
    with ThreadPoolExecutor(CONCURRENT) as threads:
        sent = [threads.submit(clerk.send, "user.created", told, event_id=event_id) for _ in range(CONCURRENT)]
        answers = [response.result().json() for response in sent]
    assert answers.count({"received": True}) == 1
    assert answers.count({"received": True, "duplicate": True}) == CONCURRENT - 1
    (user_id,) = clerk.execute("SELECT user_id FROM identities WHERE subject = ?", ada)[0]
    assert clerk.execute("SELECT count(*) FROM changes WHERE topic = 'user' AND key = ?", user_id) == [(1,)]


def test_a_failing_event_is_500_and_is_processed_when_it_comes_again(clerk: ClerkServer) -> None:
    ada, event_id = new_clerk_id(), new_event_id()
    told = user(ada, "ada@example.com", public_metadata={"subscription": "premium"})
    clerk.execute("CREATE TRIGGER broken BEFORE UPDATE OF plan ON users BEGIN SELECT RAISE(ABORT, 'broken'); END")
    try:
        failed = clerk.send("user.created", told, event_id=event_id)
    finally:
        clerk.execute("DROP TRIGGER broken")
    assert (failed.status_code, failed.json()["error"]) == (500, "Processing failed")
    assert "broken" not in failed.text
    assert clerk.execute("SELECT 1 FROM identities WHERE subject = ?", ada) == []
    status = "SELECT processing_status, attempts FROM webhook_logs WHERE event_id = ?"
    assert clerk.execute(status, event_id) == [("failed", 1)]
    assert clerk.send("user.created", told, event_id=event_id).json() == {"received": True}
    assert clerk.execute(status, event_id) == [("success", 2)]
    assert clerk.profile(ada).json()["user"]["subscription"] == "premium"


def test_nothing_is_lost_or_done_twice_by_a_kill_between_delivery_and_retry(
    tmp_path: Path, signing_key: SigningKey
) -> None:
    ada = new_clerk_id()
    done, failed = new_event_id(), new_event_id()
    with serving_clerk(tmp_path / "data", signing_key) as clerk:
        assert clerk.send("user.created", user(ada, first_name="Once"), event_id=done).status_code == 200
        clerk.execute("CREATE TRIGGER broken BEFORE UPDATE OF plan ON users BEGIN SELECT RAISE(ABORT, 'no'); END")
        told = user(ada, first_name="Once", public_metadata={"subscription": "basic"})
        assert clerk.send("user.updated", told, event_id=failed).status_code == 500
        clerk.server.kill()
        clerk.execute("DROP TRIGGER broken")
        clerk.server.start()
        again = clerk.send("user.updated", user(ada, first_name="Twice"), event_id=done)
        assert again.json() == {"received": True, "duplicate": True}
        assert clerk.send("user.updated", told, event_id=failed).json() == {"received": True}
        profile = clerk.profile(ada).json()["user"]
    assert (profile["firstName"], profile["subscription"]) == ("Once", "basic")


def test_a_deleted_user_does_not_come_back_by_an_old_token(clerk: ClerkServer) -> None:
    ada = new_clerk_id()
    session = clerk.session(ada)
    assert clerk.client.get("/api/user/profile", headers=session).status_code == 200
    assert clerk.send("user.deleted", {"id": ada, "object": "user", "deleted": True}).status_code == 200
    for path in ("/api/user/profile", "/api/usage/quota"):
        refused = clerk.client.get(path, headers=session)
        assert (refused.status_code, refused.json()["error"]) == (401, "Invalid token")
    clerk.send("user.updated", user(ada))
    assert clerk.profile(ada).status_code == 401
    assert clerk.execute("SELECT 1 FROM identities WHERE subject = ?", ada) == []


def test_a_remembered_user_is_refused_as_soon_as_a_ban_is_acknowledged(clerk: ClerkServer) -> None:
    ada = new_clerk_id()
    session = clerk.session(ada)
    for banned, status in ((False, 200), (True, 401), (False, 200), (True, 401)):
        assert clerk.send("user.updated", user(ada, banned=banned)).status_code == 200
        assert clerk.client.get("/api/user/profile", headers=session).status_code == status


def test_a_new_plan_is_seen_at_once_and_usage_stays(clerk: ClerkServer) -> None:
    ada = new_clerk_id()
    assert clerk.profile(ada).json()["quota"]["total"] == 1_000_000
    clerk.send(
        "subscriptionItem.active", {"id": ada, "status": "active", "user_id": ada, "plan": {"slug": "basic_plan"}}
    )
    profile = clerk.profile(ada)
    assert profile.json()["quota"]["total"] == 10_000_000
    assert profile.headers["x-ratelimit-limit"] == "60"


def test_what_npms_svix_signs_is_believed(clerk: ClerkServer, node_modules: Path) -> None:
    event_id, at = new_event_id(), int(time.time())
    body = json.dumps({"type": "user.created", "data": user(new_clerk_id(), first_name="Zoë")}, ensure_ascii=False)
    asked = {"secret": WEBHOOK_SECRET, "id": event_id, "timestamp": at, "payload": body}
    signature = subprocess.run(
        ["node", "sign_webhook.mjs"],
        cwd=node_modules.parent,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
        timeout=NODE_SECONDS,
    ).stdout
    headers = {"svix-id": event_id, "svix-timestamp": str(at), "svix-signature": signature}
    assert clerk.client.post(PATHS[0], content=body.encode(), headers=headers).json() == {"received": True}


def test_without_a_secret_only_development_takes_an_event_unsigned(tmp_path: Path) -> None:
    event = {"type": "user.created", "data": user(new_clerk_id())}
    with serving(tmp_path / "development") as server, server.client() as client:
        assert client.post(PATHS[1], json=event).json() == {"received": True}
        assert client.post(PATHS[1], json=event).json() == {"received": True, "duplicate": True}
    production = {"ENVIRONMENT": "production", "JWT_SECRET": "s" * 32}
    with serving(tmp_path / "production", **production) as server, server.client() as client:
        refused = client.post(PATHS[1], json=event)
        logs = client.get("/api/auth/webhook-logs", headers={"X-Admin-Token": ADMIN_TOKEN})
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert logs.json()["logs"] == []
