"""A user's threshold, from usage that is posted to a receiver that believes who tells it."""

import json
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tests.conftest import Server, serving
from tests.fakes.receiver import Receiver, receiving
from tests.waiting import until

TOTAL = 1_000
EVENTS, TOKENS = 100, 10
SENDERS = 4
NODE_SECONDS = 30


def post_all(server: Server) -> None:
    """Each event twice, as a relay does that had no answer; together they are the whole quota."""
    scope = ("--scope", "write:usage")
    made = server.command("keys", "create", "--user", "dev-user", "--name", "relay", *scope, "--json")
    with server.client(**{"X-API-Key": json.loads(made.stdout)["key"]}) as client:

        def post(number: int) -> int:
            event = {"userId": "dev-user", "responseId": f"resp_{number}", "totalTokens": TOKENS}
            answer = client.post("/api/usage/events", json=event)
            assert answer.status_code == 200, answer.text
            accepted: int = answer.json()["accepted"]
            return accepted

        with ThreadPoolExecutor(SENDERS) as pool:
            assert sum(pool.map(post, [*range(EVENTS), *range(EVENTS)])) == EVENTS


def settled(server: Server) -> list[dict[str, Any]]:
    """The deliveries, once all of them were taken."""
    with server.client() as client:
        (webhook,) = client.get("/api/webhooks").json()["webhooks"]

        def deliveries() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = client.get(f"/api/webhooks/{webhook['id']}/deliveries").json()["deliveries"]
            return found

        until(lambda: all(each["state"] == "delivered" for each in deliveries()), told=deliveries)
        return deliveries()


def believed_by_npm(secret: str, receiver: Receiver, node_modules: Path) -> list[Any]:
    told = []
    for received in receiver.received:
        asked = {"secret": secret, "headers": received.headers, "payload": received.body}
        verified = subprocess.run(
            ["node", "verify_webhook.mjs"],
            cwd=node_modules.parent,
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=NODE_SECONDS,
        )
        assert verified.returncode == 0, verified.stderr
        told.append(json.loads(verified.stdout))
    return told


def test_each_threshold_of_a_plan_is_told_exactly_once_and_signed(tmp_path: Path, node_modules: Path) -> None:
    with receiving() as receiver, serving(tmp_path / "data", OUTBOUND_ALLOW="127.0.0.0/8") as server:
        plan = ("--tokens", str(TOTAL), "--rpm", "0", "--burst", "0", "--price-cents", "0")
        assert server.command("plans", "set", "small", *plan).returncode == 0
        assert server.command("users", "plan", "dev-user", "small").returncode == 0
        with server.client() as client:
            made = client.post("/api/webhooks", json={"url": receiver.url, "events": ["usage.threshold"]}).json()
        post_all(server)
        deliveries = settled(server)
    told = [Webhook(made["secret"]).verify(each.body, each.headers) for each in receiver.received]
    thresholds = Counter(each["data"]["threshold"] for each in told)
    # Whether the forecast says more depends on the day of the month.
    assert thresholds.pop("forecast", 0) <= 1
    assert thresholds == {"50": 1, "80": 1, "100": 1}
    assert {each["data"]["total"] for each in told} == {TOTAL}
    assert all(each["data"]["used"] >= TOTAL // 2 for each in told if each["data"]["threshold"] != "forecast")
    assert sorted(each.headers["webhook-id"] for each in receiver.received) == sorted(
        each["eventId"] for each in deliveries
    )
    assert {each["attempts"] for each in deliveries} == {1}
    assert believed_by_npm(made["secret"], receiver, node_modules) == told
    first = receiver.received[0]
    with pytest.raises(WebhookVerificationError):
        Webhook(made["secret"]).verify(first.body.replace(f'"total":{TOTAL}', f'"total":{TOTAL + 1}'), first.headers)
