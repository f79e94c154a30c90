"""Expiring values: found until their time, replaced, and purged a page at a time."""

import pytest

from app.edge import expiring
from app.edge.database import Database

pytestmark = pytest.mark.anyio


async def test_a_value_is_found_until_it_dies(db: Database) -> None:
    await db.write(lambda tx: expiring.put(tx, "code", "k", b"value", until_ms=1000))
    assert await db.read(lambda c: expiring.find(c, "code", "k", now_ms=999)) == b"value"
    assert await db.read(lambda c: expiring.find(c, "code", "k", now_ms=1000)) is None
    assert await db.read(lambda c: expiring.find(c, "session", "k", now_ms=999)) is None


async def test_a_value_is_replaced_with_its_time(db: Database) -> None:
    await db.write(lambda tx: expiring.put(tx, "code", "k", b"old", until_ms=1000))
    await db.write(lambda tx: expiring.put(tx, "code", "k", b"new", until_ms=2000))
    assert await db.read(lambda c: expiring.find(c, "code", "k", now_ms=1500)) == b"new"


async def test_a_purge_deletes_the_dead_and_no_more_than_a_page(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiring, "PURGE_ROWS", 2)
    for number in range(4):
        await db.write(lambda tx, n=number: expiring.put(tx, "code", str(n), b"", until_ms=100 + n))
    assert [await db.write(expiring.purge, 102) for _ in range(3)] == [2, 1, 0]
    assert await db.read(lambda c: expiring.find(c, "code", "3", now_ms=102)) == b""
