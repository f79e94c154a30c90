"""The outbox: who is owed which event, once, in the transaction of what it tells of."""

import msgspec
import pytest

from app.edge.clock import instant, now_ms
from app.edge.database import Connection, Database, Transaction
from app.errors import Invalid
from app.webhooks import outbox, subscriptions
from app.webhooks.outbox import DATA_BYTES, LOG_MS, Event
from tests.webhooks.conftest import INSTANCE, OTHER_INSTANCE, OWNER, PROJECT, happen, lines, listen

pytestmark = pytest.mark.anyio
URL = "https://example.com/hook"


async def owed(db: Database) -> list[tuple[str, str]]:
    return [(line.webhook_id, line.event_id) for line in await lines(db)]


def payloads(connection: Connection) -> list[dict[str, object]]:
    return [msgspec.json.decode(row[0]) for row in connection.fetch("SELECT payload FROM webhook_events")]


async def test_an_event_is_owed_to_all_who_listen_to_its_place(places: Database) -> None:
    of_instance = await listen(places, URL)
    of_project = await listen(places, URL, project=PROJECT, instance=None)
    of_account = await listen(places, URL, instance=None)
    await listen(places, URL, instance=OTHER_INSTANCE)
    await listen(places, URL, instance=None, user="usr_other")
    await happen(places, "evt_1")
    assert sorted(await owed(places)) == sorted((each, "evt_1") for each in (of_instance, of_project, of_account))


async def test_only_events_that_were_asked_for_are_owed(places: Database) -> None:
    deletions = await listen(places, URL, "key.deleted", "instance.cleared")
    await happen(places, "evt_1")
    await happen(places, "evt_2", event_type="key.deleted")
    assert await owed(places) == [(deletions, "evt_2")]


async def test_an_event_that_is_handed_over_again_is_owed_once(places: Database) -> None:
    first = await listen(places, URL)
    await happen(places, "evt_1", "evt_2")
    await happen(places, "evt_1", "evt_2", "evt_3")
    assert await owed(places) == [(first, "evt_1"), (first, "evt_2"), (first, "evt_3")]


async def test_nothing_is_owed_for_what_did_not_happen(places: Database) -> None:
    await listen(places, URL, "usage.threshold", instance=None)

    def refused(tx: Transaction) -> None:
        outbox.enqueue(tx, "usage.threshold", OWNER, {"threshold": "50"}, now_ms())
        raise Invalid("No")

    with pytest.raises(Invalid):
        await places.write(refused)
    assert await owed(places) == []


async def test_an_event_that_nobody_listens_to_leaves_nothing(places: Database) -> None:
    await happen(places, "evt_1")
    assert await places.read(payloads) == []


async def test_what_is_sent_says_type_time_and_place(places: Database) -> None:
    await listen(places, URL)
    event = Event("evt_1", "key.updated", 1_793_491_200_123, b'{"key":"a","value":[1.50]}')
    await places.write(outbox.enqueue_instance_events, INSTANCE, [event], now_ms())
    assert await places.read(payloads) == [
        {
            "type": "key.updated",
            "timestamp": instant(1_793_491_200_123),
            "data": {"instanceId": INSTANCE, "key": "a", "value": [1.5]},
        }
    ]


async def test_a_value_that_is_too_large_is_left_out_and_named(places: Database) -> None:
    await listen(places, URL)
    data = msgspec.json.encode({"key": "a", "value": "x" * DATA_BYTES})
    await places.write(outbox.enqueue_instance_events, INSTANCE, [Event("evt_1", "key.updated", 0, data)], now_ms())
    (payload,) = await places.read(payloads)
    assert payload["data"] == {"instanceId": INSTANCE, "key": "a", "omitted": ["value"]}


async def test_a_webhook_that_is_far_behind_is_told_no_more(places: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "QUEUED_DELIVERIES", 3)
    slow = await listen(places, URL)
    await happen(places, "evt_1", "evt_2")
    await happen(places, "evt_3", "evt_4", "evt_5")
    assert await owed(places) == [(slow, "evt_1"), (slow, "evt_2"), (slow, "evt_3")]
    assert (await places.read(subscriptions.get, slow)).dropped == 2


async def test_a_paused_webhook_is_owed_nothing(places: Database) -> None:
    paused = await listen(places, URL)
    await happen(places, "evt_1")
    await places.write(subscriptions.disable, paused, "Paused", now_ms())
    await happen(places, "evt_2")
    assert [(line.event_id, line.state, line.error) for line in await lines(places)] == [("evt_1", "failed", "Paused")]


async def test_what_was_done_long_ago_is_forgotten_with_its_event(places: Database) -> None:
    first, second = await listen(places, URL), await listen(places, URL, project=PROJECT, instance=None)
    await happen(places, "evt_1")
    later = now_ms() + LOG_MS + 60_000
    assert not await places.read(outbox.has_old, later)
    await places.write(subscriptions.disable, first, "Paused", now_ms())
    assert await places.read(outbox.has_old, later)
    assert not await places.read(outbox.has_old, now_ms())
    assert await places.write(outbox.trim, later) == 1
    assert await owed(places) == [(second, "evt_1")]
    assert len(await places.read(payloads)) == 1
    await places.write(subscriptions.disable, second, "Paused", now_ms())
    assert await places.write(outbox.trim, later) == 1
    assert await places.read(payloads) == []


async def test_all_of_it_goes_with_the_instance(places: Database) -> None:
    await listen(places, URL)
    await listen(places, URL)
    await happen(places, "evt_1")

    def delete(tx: Transaction) -> None:
        tx.execute("DELETE FROM instances WHERE id = ?", INSTANCE)

    await places.write(delete)
    assert (await owed(places), await places.read(payloads)) == ([], [])
