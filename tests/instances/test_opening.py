"""Hubs: which instances are open, when one is opened, closed and deleted at once."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.edge.changes import Changes
from app.edge.clock import now_ms
from app.edge.database import Database, Transaction
from app.errors import NotFound, Unavailable
from app.identity import queries as identity
from app.instances import queries
from app.instances.expiry import CLOCK
from app.instances.hub import Hub
from app.instances.hubs import Hubs
from app.instances.mailbox import Ask
from app.instances.protocol import Set
from app.instances.store import Retention, Store
from app.projects import instances
from tests.conftest import open_database
from tests.waiting import comes

pytestmark = pytest.mark.anyio

ROOM = "room"
GONE_SECONDS = 5.0
PAGES = 60


class Small(Store):
    """A file for which there is no more room than PAGES."""

    def _connected(self) -> Any:
        raw = super()._connected()
        raw.execute(f"PRAGMA max_page_count = {PAGES}")
        return raw


def add_room(tx: Transaction) -> None:
    identity.insert_user(tx, "usr_1", now=now_ms())
    instances.ensure(tx, ROOM, "usr_1", "local", now_ms())


def delete_room(tx: Transaction) -> None:
    instances.announce_deletion(tx, ROOM)
    tx.execute("DELETE FROM instances WHERE id = ?", ROOM)


@pytest.fixture
def feed() -> Changes:
    return Changes()


@pytest.fixture
async def db(tmp_path: Path, feed: Changes) -> AsyncIterator[Database]:
    """One that knows ROOM, and tells at once what was committed."""
    async with open_database(tmp_path / "core.db", committed=feed.committed) as database:
        await database.write(add_room)
        yield database


@pytest.fixture
async def hubs(db: Database, feed: Changes, tmp_path: Path) -> AsyncIterator[Hubs]:
    made = Hubs(db, tmp_path / "instances", Retention())
    made.listen(feed)
    yield made
    await made.close()


async def until_gone(folder: Path) -> None:
    await comes(lambda: not any(folder.glob("*/room.db*")), GONE_SECONDS)


async def test_an_instance_that_is_deleted_while_it_is_opened_is_not_open(
    db: Database, hubs: Hubs, tmp_path: Path
) -> None:
    """Who opens it has found its row before, and would acknowledge changes of what is deleted."""
    opening = asyncio.create_task(hubs.open(ROOM))
    while not hubs._starting:
        await asyncio.sleep(0)
    await db.write(delete_room)
    with pytest.raises(NotFound):
        await opening
    await until_gone(tmp_path / "instances")
    assert hubs.seen() == []
    assert not any((tmp_path / "instances").glob("*/room.db*"))


async def test_who_holds_the_hub_of_what_is_deleted_is_told_so_and_makes_no_file(
    db: Database, hubs: Hubs, tmp_path: Path
) -> None:
    hub = await hubs.open(ROOM)
    await db.write(delete_room)
    await until_gone(tmp_path / "instances")
    with pytest.raises(NotFound):
        await hub.change(Ask([Set("k")], CLOCK))
    with pytest.raises(NotFound):
        await hub.read_file(queries.get_position)
    assert not any((tmp_path / "instances").glob("*/room.db*"))


async def test_a_full_file_refuses_a_change_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    value = msgspec.Raw(b'"' + b"x" * 10_000 + b'"')
    thread = ThreadPoolExecutor(max_workers=1)
    hub = Hub(ROOM, Small(tmp_path / "room.db", Retention()), thread, read_only=False)
    await hub.start()
    stored = 0
    with pytest.raises(Unavailable, match="not stored"):
        for stored in range(PAGES):
            await hub.change(Ask([Set(f"k{stored}", value)], CLOCK))
    assert stored > 0
    held, seq = await hub.entries()
    assert ({one.key for one in held}, seq) == ({f"k{number}" for number in range(stored)}, stored)
    await hub.stop(lambda: Unavailable("Closed"))
    roomy = Hub(ROOM, Store(tmp_path / "room.db", Retention()), thread, read_only=False)
    await roomy.start()
    assert roomy.seq == stored
    assert (await roomy.change(Ask([Set("after", value)], CLOCK))).seq == stored + 1
    await roomy.stop(lambda: Unavailable("Closed"))
    thread.shutdown()
