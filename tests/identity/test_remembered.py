"""What the authenticator remembers: never what was read before a change and arrives after it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.edge import migrate
from app.edge.changes import Changes, announce
from app.edge.clock import now_ms
from app.edge.database import Database, Transaction
from app.edge.outbound import Outbound
from app.errors import Unauthenticated
from app.identity import api_keys, users
from app.identity.authenticator import Authenticator
from app.identity.clerk import ClerkTokens
from app.identity.door import Door
from app.identity.ids import Secret, new_ak_key, new_id
from app.identity.newcomers import Newcomers
from app.settings import Settings

pytestmark = pytest.mark.anyio

DOOR = Door("test", "missing", "invalid", "expired", None)
KEY_ID = new_id("key")


class SlowDatabase(Database):
    """As on a mount, time passes between a read and the moment when its reader goes on."""

    def __init__(self, path: Path, feed: Changes) -> None:
        super().__init__(path, feed.committed)
        self.held: asyncio.Event | None = None
        self.has_read = asyncio.Event()

    async def read(self, fn: Any, *args: Any) -> Any:
        found = await super().read(fn, *args)
        self.has_read.set()
        if self.held is not None:
            await self.held.wait()
        return found


class World:
    def __init__(self, db: SlowDatabase, authenticator: Authenticator, key: Secret) -> None:
        self.db = db
        self.authenticator = authenticator
        self.key = key

    async def identify(self) -> object:
        return await self.authenticator.identify(self.key.text, DOOR)

    async def while_reading(self, fn: Any, *args: Any) -> None:
        """Commit between what a request reads and what it remembers."""
        self.db.held = asyncio.Event()
        self.db.has_read.clear()
        asking = asyncio.create_task(self.identify())
        await self.db.has_read.wait()
        await self.db.write(fn, *args)
        self.db.held.set()
        self.db.held = None
        await asking


def populate(tx: Transaction, key: Secret) -> None:
    users.create(tx, "user_reader", None, now_ms())
    user_id = users.get(tx, "user_reader").id
    api_keys.issue(tx, key, api_keys.operator_key(KEY_ID, key, user_id, "a key", ("read:usage",), now_ms()))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    feed, outbound, settings = Changes(), Outbound(), Settings()
    migrate.migrate(tmp_path / "core.db", "core")
    db = SlowDatabase(tmp_path / "core.db", feed)
    db.open()
    key = new_ak_key()
    await db.write(populate, key)
    authenticator = Authenticator(
        db, settings, ClerkTokens(settings.clerk, outbound), Newcomers(db, lambda subject: None)
    )
    authenticator.listen(feed)
    yield World(db, authenticator, key)
    await outbound.close()
    await db.close()


async def test_a_key_that_is_revoked_while_it_is_read_is_not_remembered(world: World) -> None:
    await world.while_reading(api_keys.revoke, KEY_ID, now_ms())
    with pytest.raises(Unauthenticated):
        await world.identify()


async def test_a_user_that_is_suspended_while_its_account_is_read_is_not_remembered(world: World) -> None:
    await world.identify()
    # The key stays, and only the account is read again.
    await world.db.write(announce, "plan", "basic")
    await world.while_reading(users.suspend, "user_reader", True, now_ms())
    with pytest.raises(Unauthenticated):
        await world.identify()


async def test_what_nothing_has_changed_is_remembered(world: World) -> None:
    await world.identify()
    world.db.has_read.clear()
    await world.identify()
    assert not world.db.has_read.is_set()
