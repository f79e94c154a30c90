"""Delivery through a real server: at start, at once, and after a kill -9 with the same webhook-id."""

import json
from pathlib import Path

from svix.webhooks import Webhook

from app.edge import sqlite
from tests.conftest import Server, serving
from tests.fakes.receiver import Receiver, receiving
from tests.waiting import until

# More than half of the premium plan.
TOKENS = 30_000_000


def subscribed(server: Server, receiver: Receiver) -> str:
    """A webhook of the development user's account; its secret."""
    with server.client() as client:
        made = client.post("/api/webhooks", json={"url": receiver.url, "events": ["usage.threshold"]})
        assert made.status_code == 201, made.text
        secret: str = made.json()["secret"]
        return secret


def use_half(server: Server) -> None:
    """Have the development user pass the first threshold."""
    scope = ("--scope", "write:usage")
    made = server.command("keys", "create", "--user", "dev-user", "--name", "relay", *scope, "--json")
    with server.client() as client:
        event = {"userId": "dev-user", "responseId": "resp_1", "totalTokens": TOKENS}
        key = {"X-API-Key": json.loads(made.stdout)["key"]}
        answer = client.post("/api/usage/events", json=event, headers=key)
        assert answer.json()["accepted"] == 1, answer.text


def test_an_event_is_delivered_by_the_server(tmp_path: Path) -> None:
    with receiving() as receiver, serving(tmp_path / "data", OUTBOUND_ALLOW="127.0.0.0/8") as server:
        secret = subscribed(server, receiver)
        use_half(server)
        (received, *_) = receiver.wait(1)
    Webhook(secret).verify(received.body, received.headers)
    assert json.loads(received.body)["data"]["userId"] == "dev-user"


def test_an_event_whose_receipt_was_not_written_down_is_delivered_again_after_a_kill(tmp_path: Path) -> None:
    """Without the outbox the event would be lost: the process that knew of it is gone."""
    with receiving() as receiver, serving(tmp_path / "data", OUTBOUND_ALLOW="127.0.0.0/8") as server:
        receiver.hold()
        secret = subscribed(server, receiver)
        use_half(server)
        told = {each.headers["webhook-id"] for each in receiver.wait(1)}
        server.kill()
        before = len(receiver.received)
        receiver.release()
        server.start()
        again = receiver.wait(before + len(told))[before:]
        assert told <= {each.headers["webhook-id"] for each in again}
    for received in again:
        Webhook(secret).verify(received.body, received.headers)


def test_without_the_allow_list_loopback_is_never_called(tmp_path: Path) -> None:
    with receiving() as receiver, serving(tmp_path / "data") as server, server.client() as client:
        subscribed(server, receiver)
        use_half(server)
        wait_for_an_attempt(server)
        (webhook,) = client.get("/api/webhooks").json()["webhooks"]
        deliveries = client.get(f"/api/webhooks/{webhook['id']}/deliveries").json()["deliveries"]
        assert {each["error"] for each in deliveries if each["attempts"]} == {"The address is internal"}
        assert receiver.received == []


def wait_for_an_attempt(server: Server) -> None:
    raw = sqlite.connect(server.data_dir / "core.db", read_only=True)
    try:
        until(lambda: raw.execute("SELECT 1 FROM webhook_deliveries WHERE attempts > 0").fetchall())
    finally:
        raw.close()
