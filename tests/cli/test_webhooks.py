"""litehouse webhooks, beside a running server that a provider has told of its users."""

from app.edge import sqlite
from tests.cli.conftest import follows, refusal, run
from tests.conftest import ADMIN_TOKEN, Server

DEMO_USER = "user_2demoAdaLovelace1815London"
BREAK = "CREATE TRIGGER broken BEFORE UPDATE OF plan ON users BEGIN SELECT RAISE(ABORT, 'broken'); END"
MEND = "DROP TRIGGER broken"


def execute(server: Server, statement: str) -> None:
    raw = sqlite.connect(server.data_dir / "core.db")
    raw.execute(statement)
    raw.close()


def send(server: Server, event_id: str, plan: str) -> int:
    data = {"id": "csub_1", "status": "active", "user_id": DEMO_USER, "plan": {"slug": f"{plan}_plan"}}
    with server.client(**{"svix-id": event_id}) as clerk:
        event = {"type": "subscriptionItem.active", "data": data}
        return clerk.post("/webhooks/clerk", json=event).status_code


def plan_of(server: Server) -> str:
    with server.client(**{"x-admin-token": ADMIN_TOKEN}) as client:
        plan: str = client.get("/api/usage/quota", params={"userId": DEMO_USER}).json()["plan"]
        return plan


def test_events_are_listed_newest_first_and_shown_with_their_payload(server: Server) -> None:
    assert [send(server, f"msg_{number}", "premium") for number in (1, 2)] == [200, 200]
    listed = run(server, "webhooks", "list")
    assert [(row["eventId"], row["status"]) for row in listed] == [("msg_2", "success"), ("msg_1", "success")]
    assert run(server, "webhooks", "list", "--limit", "1", "--offset", "1") == listed[1:]
    assert run(server, "webhooks", "list", "--type", "user.updated") == []
    shown = run(server, "webhooks", "show", "msg_1")
    assert shown == run(server, "webhooks", "show", str(listed[1]["id"]))
    assert shown["payload"]["data"]["user_id"] == DEMO_USER


def test_a_failed_event_is_retried_once_and_the_server_follows(server: Server) -> None:
    execute(server, BREAK)
    assert send(server, "msg_1", "premium") == 500
    assert refusal(server, "webhooks", "retry", "msg_1") == "Processing failed"
    execute(server, MEND)
    (failed,) = run(server, "webhooks", "list", "--status", "failed")
    assert (failed["attempts"], "broken" in failed["error"]) == (2, True)
    retried = run(server, "webhooks", "retry", str(failed["id"]))
    assert (retried["status"], retried["duplicate"]) == ("success", False)
    assert follows(lambda: plan_of(server) == "premium")
    assert run(server, "webhooks", "retry", "msg_1")["duplicate"] is True


def test_an_event_that_never_came_is_not_found(server: Server) -> None:
    assert refusal(server, "webhooks", "show", "msg_0") == "Webhook log not found"
    assert refusal(server, "webhooks", "retry", "msg_0") == "Webhook log not found"
    assert server.command("webhooks", "list", "--status", "odd").returncode == 2
