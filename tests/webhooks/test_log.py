"""The log: an event has its effect once, and a failure leaves it to be done."""

import pytest

from app.edge.clock import now_ms
from app.edge.database import Database, Transaction
from app.errors import NotFound
from app.webhooks import queries
from app.webhooks.log import FAILED, SUCCESS, Outcome, get_entry, process_once, record_failure
from app.webhooks.queries import Delivery

EVENT = Delivery("msg_1", "user.updated", "user_1", '{"type":"user.updated","data":{"id":"user_1"}}')

pytestmark = pytest.mark.anyio


def put_origin(tx: Transaction) -> Outcome:
    tx.execute("INSERT INTO origins (origin, created_at) VALUES ('https://a.example', '2026-01-01 00:00:00')")
    return Outcome("done")


def put_origin_and_fail(tx: Transaction) -> Outcome:
    put_origin(tx)
    raise RuntimeError("broken")


async def test_a_second_delivery_has_no_second_effect(db: Database) -> None:
    assert await db.write(process_once, EVENT, put_origin, now_ms()) == Outcome("done")
    assert await db.write(process_once, EVENT, put_origin, now_ms()) is None


async def test_a_failure_keeps_neither_its_effect_nor_its_id(db: Database) -> None:
    with pytest.raises(RuntimeError):
        await db.write(process_once, EVENT, put_origin_and_fail, now_ms())
    assert await db.read(queries.find_status, "msg_1") is None
    assert await db.write(process_once, EVENT, put_origin, now_ms()) == Outcome("done")


async def test_a_failed_event_is_done_when_it_comes_again(db: Database) -> None:
    await db.write(record_failure, EVENT, "broken", now_ms())
    failed = await db.read(get_entry, "msg_1")
    assert (failed.processing_status, failed.error_message, failed.attempts) == (FAILED, "broken", 1)
    await db.write(process_once, EVENT, put_origin, now_ms())
    done = await db.read(get_entry, "msg_1")
    assert (done.processing_status, done.error_message, done.attempts) == (SUCCESS, None, 2)


async def test_a_late_failure_does_not_undo_a_success(db: Database) -> None:
    await db.write(process_once, EVENT, put_origin, now_ms())
    await db.write(record_failure, EVENT, "broken", now_ms())
    assert await db.read(queries.find_status, "msg_1") == SUCCESS


async def test_an_erasing_event_takes_its_user_out_of_all_rows(db: Database) -> None:
    await db.write(record_failure, EVENT, "user_1 is wrong", now_ms())
    await db.write(process_once, EVENT._replace(event_id="msg_2"), put_origin, now_ms())
    erasing = EVENT._replace(event_id="msg_3", event_type="user.deleted")
    await db.write(process_once, erasing, lambda tx: Outcome("user deleted", erase=True), now_ms())
    for event_id in ("msg_1", "msg_2", "msg_3"):
        assert "user_1" not in repr(await db.read(get_entry, event_id))
        assert await db.read(queries.find_status, event_id) == SUCCESS


async def test_an_entry_is_found_by_its_number_and_by_its_events_id(db: Database) -> None:
    await db.write(record_failure, EVENT, "broken", now_ms())
    entry = await db.read(get_entry, "msg_1")
    assert await db.read(get_entry, str(entry.id)) == entry
    for unknown in ("01", "1x", "", "msg_2", "9" * 30):
        with pytest.raises(NotFound):
            await db.read(get_entry, unknown)
