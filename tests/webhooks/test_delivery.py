"""Delivery: each event reaches its webhook at least once, signed, on schedule, and nothing internal."""

import asyncio
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from svix.webhooks import Webhook, WebhookVerificationError

from app.edge.clock import now_ms
from app.edge.database import Database, Transaction
from app.edge.outbound import Outbound
from app.projects.webhooks import may_hear
from app.usage import ledger
from app.usage.events import read_event
from app.usage.ledger import Poster
from app.usage.wire import Wire
from app.webhooks import delivery, outbox, subscriptions
from app.webhooks.delivery import Deliverer
from app.webhooks.outbox import RETRY_SECONDS
from tests.fakes.receiver import Received, Receiver, receiving
from tests.webhooks.conftest import (
    INSTANCE,
    OTHER_INSTANCE,
    OWNER,
    PROJECT,
    SECRET,
    Clock,
    disabled,
    happen,
    lines,
    listen,
)

pytestmark = pytest.mark.anyio

NODE_SECONDS = 30
WAIT_SECONDS = 10.0
A_MOMENT = 0.001
NAME = "hooks.example.com"
# Three of loopback's addresses: one that may be called here as the web may, one where nobody listens, one that is
# as internal as any.
OUTSIDE, CLOSED, INSIDE = "127.0.0.1", "127.0.0.2", "127.0.0.3"
# Ways to write 127.0.0.1 that the client takes for no address at all.
SHORTHAND = ("2130706433", "0177.0.0.1", "127.1")
INTERNAL_HOSTS = (
    *SHORTHAND,
    "127.0.0.1",
    "localhost",
    "0x7f000001",
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "[::]",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[fdaa::3]",
    "[fdaa:0:1::3]",
    "[fe80::1]",
)


def signature(received: Received) -> dict[str, str]:
    return {name: received.headers[name] for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}


async def test_an_event_arrives_signed(places: Database, deliverer: Deliverer, receiver: Receiver) -> None:
    await listen(places, f"{receiver.url}/hook?from=here")
    await happen(places, "evt_1")
    assert await deliverer.deliver_due() == 1
    (received,) = receiver.received
    assert received.headers["webhook-id"] == "evt_1"
    assert received.headers["content-type"] == "application/json"
    assert json.loads(received.body)["data"] == {"instanceId": INSTANCE, "key": "evt_1"}
    assert received.path == "/hook"
    (line,) = await lines(places)
    assert (line.state, line.attempts, line.response_status, line.error) == ("delivered", 1, 204, None)
    assert await deliverer.deliver_due() == 0


async def test_svix_believes_what_was_delivered_and_nothing_else(
    places: Database, deliverer: Deliverer, receiver: Receiver
) -> None:
    await listen(places, receiver.url)
    await happen(places, "evt_1")
    await deliverer.deliver_due()
    (received,) = receiver.received
    Webhook(SECRET).verify(received.body, signature(received))
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(received.body.replace("evt_1", "evt_2"), signature(received))


async def test_npms_svix_believes_what_was_delivered(
    places: Database, deliverer: Deliverer, receiver: Receiver, node_modules: Path
) -> None:
    await listen(places, receiver.url)
    await happen(places, "evt_1")
    await deliverer.deliver_due()
    (received,) = receiver.received
    asked = {"secret": SECRET, "headers": signature(received), "payload": received.body}
    verified = subprocess.run(
        ["node", "verify_webhook.mjs"],
        cwd=node_modules.parent,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=NODE_SECONDS,
    )
    assert verified.returncode == 0, verified.stderr
    assert json.loads(verified.stdout) == json.loads(received.body)


async def test_a_failure_is_tried_again_on_schedule_and_then_given_up(
    places: Database, deliverer: Deliverer, receiver: Receiver, clock: Clock
) -> None:
    receiver.status = 500
    await listen(places, receiver.url)
    await happen(places, "evt_1")
    assert await deliverer.deliver_due() == 1
    for attempts, wait in enumerate(RETRY_SECONDS, start=1):
        (line,) = await lines(places)
        assert (line.state, line.attempts, line.response_status) == ("pending", attempts, 500)
        clock.advance(wait - A_MOMENT)
        assert await deliverer.deliver_due() == 0
        clock.advance(A_MOMENT)
        assert await deliverer.deliver_due() == 1
    (line,) = await lines(places)
    assert (line.state, line.attempts, line.error) == ("failed", 8, "The receiver answered 500")
    clock.advance(1_000_000)
    assert await deliverer.deliver_due() == 0
    assert RETRY_SECONDS == (5, 300, 1_800, 7_200, 18_000, 36_000, 36_000)
    assert [each.headers["webhook-id"] for each in receiver.received] == ["evt_1"] * 8
    assert len({each.headers["webhook-timestamp"] for each in receiver.received}) == 8


async def test_a_receiver_that_comes_back_is_told_once_more_and_no_further(
    places: Database, deliverer: Deliverer, receiver: Receiver, clock: Clock
) -> None:
    receiver.statuses = [503, 429]
    await listen(places, receiver.url)
    await happen(places, "evt_1")
    for wait in (0, *RETRY_SECONDS):
        clock.advance(wait)
        await deliverer.deliver_due()
    assert len(receiver.received) == 3
    (line,) = await lines(places)
    assert (line.state, line.attempts, line.response_status, line.error) == ("delivered", 3, 204, None)


async def test_410_disables_the_webhook_and_what_it_is_owed(
    places: Database, deliverer: Deliverer, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "AT_ONCE_PER_WEBHOOK", 1)
    receiver.status = 410
    gone = await listen(places, receiver.url)
    await happen(places, "evt_1", "evt_2")
    assert await deliverer.deliver_due() == 1
    assert await disabled(places, gone) == "The receiver answered 410"
    assert [(line.state, line.attempts) for line in await lines(places)] == [("failed", 1), ("failed", 0)]
    await happen(places, "evt_3")
    assert await deliverer.deliver_due() == 0
    assert len(receiver.received) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_a_failure_and_is_not_followed(
    places: Database, deliverer: Deliverer, receiver: Receiver, status: int
) -> None:
    with receiving() as inside:
        receiver.status, receiver.location = status, f"{inside.url}/secret"
        await listen(places, receiver.url)
        await happen(places, "evt_1")
        await deliverer.deliver_due()
        assert inside.received == []
    (line,) = await lines(places)
    assert (line.state, line.response_status) == ("pending", status)


@pytest.mark.parametrize("host", INTERNAL_HOSTS)
async def test_nothing_internal_is_reached(places: Database, receiver: Receiver, clock: Clock, host: str) -> None:
    outbound = Outbound()
    await listen(places, receiver.url.replace("127.0.0.1", host))
    await happen(places, "evt_1")
    assert await Deliverer(places, outbound, may_hear, clock).deliver_due() == 1
    await outbound.close()
    assert receiver.received == []
    (line,) = await lines(places)
    assert (line.state, line.response_status) == ("pending", None)
    assert line.error == ("The connection failed" if host in SHORTHAND else "The address is internal")


def answer_with(monkeypatch: pytest.MonkeyPatch, *answers: tuple[str, ...]) -> None:
    """Have each look-up of NAME give the next of these answers."""
    real, coming = socket.getaddrinfo, list(answers)

    def resolve(host: str, *arguments: Any, **named: Any) -> list[Any]:
        addresses = coming.pop(0) if host == NAME else (host,)
        return [found for address in addresses for found in real(address, *arguments, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.fixture
def inside(receiver: Receiver) -> Iterator[socket.socket]:
    """Who listens where nobody may be sent, at the receiver's port."""
    with socket.socket() as listener:
        listener.bind((INSIDE, port_of(receiver)))
        listener.listen()
        listener.setblocking(False)
        yield listener


def port_of(receiver: Receiver) -> int:
    return int(receiver.url.rpartition(":")[2])


@pytest.mark.parametrize("answers", [[(OUTSIDE,), (INSIDE,)], [(OUTSIDE,), (INSIDE, OUTSIDE)]])
async def test_a_name_that_is_bound_anew_to_an_internal_address_is_not_followed(
    places: Database,
    receiver: Receiver,
    inside: socket.socket,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    answers: list[tuple[str, ...]],
) -> None:
    """It was an address of the web when the webhook was made, and at the first attempt."""
    answer_with(monkeypatch, *answers)
    receiver.status = 500
    await listen(places, f"http://{NAME}:{port_of(receiver)}/")
    await happen(places, "evt_1")
    for wait in (0, *RETRY_SECONDS[:1]):
        clock.advance(wait)
        # A client of its own for each attempt, because one remembers for a while what it has looked up.
        outbound = Outbound([f"{OUTSIDE}/32"])
        assert await Deliverer(places, outbound, may_hear, clock).deliver_due() == 1
        await outbound.close()
    with pytest.raises(BlockingIOError):
        inside.accept()
    (line,) = await lines(places)
    if OUTSIDE in answers[1]:
        assert (len(receiver.received), line.error) == (2, "The receiver answered 500")
    else:
        assert (len(receiver.received), line.error) == (1, "The address is internal")


async def test_a_name_with_an_internal_address_behind_one_that_does_not_answer_is_not_followed(
    places: Database, receiver: Receiver, inside: socket.socket, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, (CLOSED, INSIDE))
    outbound = Outbound([f"{CLOSED}/32"])
    await listen(places, f"http://{NAME}:{port_of(receiver)}/")
    await happen(places, "evt_1")
    assert await Deliverer(places, outbound, may_hear, clock).deliver_due() == 1
    await outbound.close()
    with pytest.raises(BlockingIOError):
        inside.accept()
    (line,) = await lines(places)
    assert (line.state, line.response_status) == ("pending", None)


async def test_a_redirect_to_an_internal_address_is_not_followed(
    places: Database, receiver: Receiver, inside: socket.socket, clock: Clock
) -> None:
    receiver.status, receiver.location = 307, f"http://{INSIDE}:{port_of(receiver)}/latest/meta-data"
    outbound = Outbound([f"{OUTSIDE}/32"])
    await listen(places, receiver.url)
    await happen(places, "evt_1")
    assert await Deliverer(places, outbound, may_hear, clock).deliver_due() == 1
    await outbound.close()
    assert len(receiver.received) == 1
    with pytest.raises(BlockingIOError):
        inside.accept()


async def test_a_receiver_that_does_not_answer_is_a_failure(
    places: Database, deliverer: Deliverer, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "ATTEMPT_SECONDS", 0.2)
    receiver.hold()
    await listen(places, receiver.url)
    await happen(places, "evt_1")
    await deliverer.deliver_due()
    (line,) = await lines(places)
    assert (line.state, line.error) == ("pending", "No answer within 0.2 s")


def test_an_attempt_may_take_fifteen_seconds() -> None:
    assert delivery.ATTEMPT_SECONDS == 15.0


async def test_nobody_listens_at_a_closed_port(places: Database, deliverer: Deliverer) -> None:
    with receiving() as closed:
        pass
    await listen(places, closed.url)
    await happen(places, "evt_1")
    await deliverer.deliver_due()
    (line,) = await lines(places)
    assert (line.state, line.error) == ("pending", "The connection failed")


async def test_whoever_is_no_admin_any_more_hears_nothing(
    places: Database, deliverer: Deliverer, receiver: Receiver
) -> None:
    """A revoked admin would otherwise go on reading through what it left behind."""
    of_instance = await listen(places, receiver.url, user="usr_other")
    of_project = await listen(places, receiver.url, user="usr_other", project=PROJECT, instance=None)
    await happen(places, "evt_1")
    await deliverer.deliver_due()
    assert receiver.received == []
    for webhook_id in (of_instance, of_project):
        assert await disabled(places, webhook_id) == "Whoever made it is no longer an admin there"
    assert [line.state for line in await lines(places)] == ["failed", "failed"]


async def test_one_slow_receiver_holds_up_nobody_else(
    places: Database, deliverer: Deliverer, receiver: Receiver
) -> None:
    receiver.hold()
    await listen(places, receiver.url)
    await happen(places, *(f"evt_{number}" for number in range(40)))
    running = asyncio.create_task(deliverer.run())
    try:
        await asyncio.to_thread(receiver.wait, delivery.AT_ONCE_PER_WEBHOOK)
        with receiving() as quick:
            await listen(places, quick.url, instance=OTHER_INSTANCE)
            await happen(places, "evt_quick", instance=OTHER_INSTANCE)
            deliverer.wake()
            await asyncio.to_thread(quick.wait, 1)
        assert len(receiver.received) == delivery.AT_ONCE_PER_WEBHOOK
        receiver.release()
        await asyncio.to_thread(receiver.wait, 40)
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert sorted(each.headers["webhook-id"] for each in receiver.received) == sorted(
        f"evt_{number}" for number in range(40)
    )
    assert receiver.most_at_once <= delivery.AT_ONCE_PER_WEBHOOK


async def test_all_attempts_together_are_bounded(
    places: Database, deliverer: Deliverer, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "AT_ONCE", 3)
    for _ in range(4):
        await listen(places, receiver.url)
    await happen(places, "evt_1", "evt_2")
    receiver.hold()
    running = asyncio.create_task(deliverer.run())
    try:
        await asyncio.to_thread(receiver.wait, 3)
        receiver.release()
        await asyncio.to_thread(receiver.wait, 8)
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert receiver.most_at_once == 3


async def test_a_replay_has_the_same_id_and_all_of_its_retries(
    places: Database, deliverer: Deliverer, receiver: Receiver
) -> None:
    webhook_id = await listen(places, receiver.url)
    await happen(places, "evt_1")
    await deliverer.deliver_due()
    (line,) = await lines(places)
    receiver.status = 500

    def replay(tx: Transaction) -> None:
        outbox.replay(tx, subscriptions.get(tx, webhook_id), line.id, now_ms())

    await places.write(replay)
    assert await deliverer.deliver_due() == 1
    assert [each.headers["webhook-id"] for each in receiver.received] == ["evt_1", "evt_1"]
    (line,) = await lines(places)
    assert (line.state, line.attempts) == ("pending", 1)


async def test_usage_that_passes_a_threshold_is_told(
    places: Database, deliverer: Deliverer, receiver: Receiver
) -> None:
    await listen(places, receiver.url, "usage.threshold", instance=None)
    at = now_ms()
    event = read_event(Wire(userId=OWNER, totalTokens=900_000), at)
    await places.write(ledger.record, [event], Poster(), at)
    await deliverer.deliver_due()
    told = [json.loads(each.body) for each in receiver.received]
    assert {each["type"] for each in told} == {"usage.threshold"}
    assert {"50", "80"} <= {each["data"]["threshold"] for each in told}
    assert {(each["data"]["userId"], each["data"]["used"], each["data"]["total"]) for each in told} == {
        (OWNER, 900_000, 1_000_000)
    }
