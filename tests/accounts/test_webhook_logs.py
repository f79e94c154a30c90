"""GET /api/auth/webhook-logs, /api/auth/webhook-stats, POST /api/auth/webhook-logs/:id/retry."""

import time

import pytest

from tests.accounts.conftest import ClerkServer, new_clerk_id, new_event_id
from tests.fakes.clerk import session_claims, user

LOGS, STATS = "/api/auth/webhook-logs", "/api/auth/webhook-stats"
BREAK = "CREATE TRIGGER broken BEFORE UPDATE OF plan ON users BEGIN SELECT RAISE(ABORT, 'broken'); END"
MEND = "DROP TRIGGER broken"


def send_and_fail(clerk: ClerkServer, clerk_id: str, event_id: str) -> None:
    clerk.execute(BREAK)
    try:
        told = user(clerk_id, public_metadata={"subscription": "premium"})
        assert clerk.send("user.created", told, event_id=event_id).status_code == 500
    finally:
        clerk.execute(MEND)


def test_the_log_is_listed_newest_first_in_pages(clerk: ClerkServer) -> None:
    kind = "session.ended"
    sent = [new_event_id() for _ in range(3)]
    for event_id in sent:
        clerk.send(kind, {"id": "sess_1", "user_id": new_clerk_id()}, event_id=event_id)
    first = clerk.operator("GET", LOGS, event_type=kind, limit=2).json()
    rest = clerk.operator("GET", LOGS, event_type=kind, limit=2, offset=2).json()
    assert [row["event_id"] for row in first["logs"] + rest["logs"]] == sent[::-1]
    assert first["pagination"] == {"total": 3, "limit": 2, "offset": 0, "hasMore": True}
    assert rest["pagination"] == {"total": 3, "limit": 2, "offset": 2, "hasMore": False}
    assert "payload" not in first["logs"][0]


def test_the_log_says_what_an_event_did_not_do(clerk: ClerkServer) -> None:
    event_id = new_event_id()
    data = {"id": "csub_odd", "status": "active", "user_id": new_clerk_id(), "plan": {"slug": "platinum_plan"}}
    clerk.send("subscriptionItem.active", data, event_id=event_id)
    listed = clerk.operator("GET", LOGS, event_type="subscriptionItem.active").json()["logs"]
    assert listed[0]["outcome"] == "unknown plan 'platinum': kept"
    assert listed[0]["processing_status"] == "success"


def test_a_failed_event_is_listed_counted_and_retried_once(clerk: ClerkServer) -> None:
    ada, event_id = new_clerk_id(), new_event_id()
    send_and_fail(clerk, ada, event_id)
    failed = clerk.operator("GET", LOGS, status="failed").json()["logs"]
    assert [row["event_id"] for row in failed] == [event_id]
    assert clerk.operator("GET", STATS).json()["failed"] == 1
    first = clerk.operator("POST", f"{LOGS}/{failed[0]['id']}/retry").json()
    again = clerk.operator("POST", f"{LOGS}/{event_id}/retry").json()
    assert (first["success"], first["duplicate"], first["log"]["processing_status"]) == (True, False, "success")
    assert (again["success"], again["duplicate"], again["log"]["attempts"]) == (True, True, 2)
    assert clerk.profile(ada).json()["user"]["subscription"] == "premium"
    assert clerk.operator("GET", STATS).json()["failed"] == 0


def test_a_retry_does_not_undo_what_came_after_it(clerk: ClerkServer) -> None:
    ada, event_id = new_clerk_id(), new_event_id()
    send_and_fail(clerk, ada, event_id)
    clerk.send("user.updated", user(ada, first_name="Newer", updated_at=int(time.time() * 1000)))
    retried = clerk.operator("POST", f"{LOGS}/{event_id}/retry").json()
    assert retried["log"]["outcome"] == "ignored: something newer is known"
    assert clerk.profile(ada).json()["user"]["firstName"] == "Newer"


def test_a_retry_that_fails_again_says_so_and_stays_to_be_done(clerk: ClerkServer) -> None:
    ada, event_id = new_clerk_id(), new_event_id()
    send_and_fail(clerk, ada, event_id)
    clerk.execute(BREAK)
    try:
        retried = clerk.operator("POST", f"{LOGS}/{event_id}/retry")
    finally:
        clerk.execute(MEND)
    assert (retried.status_code, retried.json()["error"]) == (500, "Processing failed")
    assert clerk.operator("POST", f"{LOGS}/{event_id}/retry").json()["log"]["attempts"] == 3


def test_an_unknown_event_cannot_be_retried(clerk: ClerkServer) -> None:
    response = clerk.operator("POST", f"{LOGS}/none/retry")
    assert (response.status_code, response.json()["error"]) == (404, "Webhook log not found")


@pytest.mark.parametrize("query", ["limit=abc", "limit=-1", "limit=0", "offset=x", "status=done"])
def test_a_wrong_query_is_400(clerk: ClerkServer, query: str) -> None:
    assert clerk.operator("GET", f"{LOGS}?{query}").status_code == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", LOGS),
        ("GET", STATS),
        ("POST", f"{LOGS}/1/retry"),
        ("POST", "/api/auth/sync-user/user_1"),
        ("POST", "/api/auth/sync-all-users"),
        ("GET", "/api/health/data-consistency"),
    ],
)
def test_only_operators_are_let_in(clerk: ClerkServer, method: str, path: str) -> None:
    assert clerk.client.request(method, path).status_code == 401
    assert clerk.client.request(method, path, headers={"X-Admin-Token": "wrong"}).status_code == 401
    token = clerk.key.sign(session_claims(time.time(), sub=new_clerk_id()))
    signed_in = clerk.client.request(method, path, headers={"Authorization": f"Bearer {token}"})
    assert (signed_in.status_code, signed_in.json()["code"]) == (403, "forbidden")


def test_who_guesses_at_an_admin_token_is_held_to_the_rate_of_an_address(clerk: ClerkServer) -> None:
    beside: list[dict[str, str]] = [{}, {"Authorization": "Bearer junk"}]
    guesses = [
        clerk.client.get(STATS, headers={"X-Admin-Token": f"guess-{number}", **beside[number % 2]})
        for number in range(70)
    ]
    assert {answer.status_code for answer in guesses} == {401, 429}
    refused = guesses[-1]
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert refused.headers["x-ratelimit-limit"] == "60"
    assert clerk.operator("GET", STATS).status_code == 200
