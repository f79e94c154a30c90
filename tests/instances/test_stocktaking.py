"""Stocktaking: what was deleted while a machine was away goes when it starts, and nothing else."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.edge.clock import now_ms
from app.edge.database import Database, Transaction
from app.identity import queries as identity
from app.instances.hubs import Hubs
from app.instances.stocktaking import take_stock
from app.instances.store import Retention, list_held
from app.projects import instances

pytestmark = pytest.mark.anyio

OWNER = "usr_1"


@pytest.fixture
async def hubs(db: Database, tmp_path: Path) -> AsyncIterator[Hubs]:
    """They are told of no change, as while a machine is away."""
    made = Hubs(db, tmp_path / "instances", Retention())
    yield made
    await made.close()


def add_owner(tx: Transaction) -> None:
    identity.insert_user(tx, OWNER, now=now_ms())


def delete(tx: Transaction, name: str) -> None:
    tx.execute("DELETE FROM instances WHERE id = ?", name)


def put_back(tx: Transaction, name: str) -> None:
    """As an operator does by hand, whom no tombstone stops."""
    tx.execute(
        """INSERT INTO instances (id, project_id, name, region, created_at, updated_at)
           SELECT ?, id, ?, '', created_at, updated_at FROM projects""",
        name,
        name,
    )


async def test_of_the_files_here_those_go_whose_instances_were_deleted(
    db: Database, hubs: Hubs, tmp_path: Path
) -> None:
    """The content of one that was put back is what it was put back for."""
    await db.write(add_owner)
    for name in ("kept", "gone", "back"):
        await db.write(instances.ensure, name, OWNER, "", now_ms())
        async with hubs.use(name):
            pass
    for name in ("gone", "back"):
        await db.write(delete, name)
    await db.write(put_back, "back")
    await take_stock(hubs, db, tmp_path / "instances", None)
    assert list_held(tmp_path / "instances") == ["back", "kept"]
