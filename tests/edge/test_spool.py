"""The spool: what is owed arrives in order and once, whoever is away meanwhile and whoever is killed."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest

from app.edge import spool
from app.edge.database import Database, written_position
from app.edge.spool import BATCH_BYTES, BATCH_ITEMS, Item, Spool
from app.errors import Unavailable
from tests.conftest import open_database

pytestmark = pytest.mark.anyio

KILLS = 10


class Primary:
    """Takes what it is sent, by id, while it is there."""

    def __init__(self) -> None:
        self.there = True
        self.batches: list[tuple[str, list[str]]] = []
        self.refuses: dict[str, str] = {}
        self.loses_answers = 0

    async def take(self, kind: str, items: Sequence[Item]) -> Mapping[str, str]:
        if not self.there:
            raise Unavailable("The primary is away")
        self.batches.append((kind, [item.item_id for item in items]))
        if self.loses_answers:
            self.loses_answers -= 1
            raise Unavailable("The answer was lost")
        return {item.item_id: self.refuses[item.item_id] for item in items if item.item_id in self.refuses}

    @property
    def taken(self) -> list[str]:
        return [item_id for _, batch in self.batches for item_id in batch]


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "machine.db", "machine") as database:
        yield database


@pytest.fixture
def primary() -> Primary:
    return Primary()


def items(*names: object) -> list[Item]:
    return [Item(str(name), b"{}") for name in names]


async def test_what_is_owed_arrives_in_order_and_is_then_forgotten(machine: Database, primary: Primary) -> None:
    owed = Spool(machine, primary.take)
    await owed.put("usage", items(*range(BATCH_ITEMS + 1)))
    await owed.put("uses", items("a"))
    await owed.put("usage", items("b"))
    await owed.drain()
    assert [(kind, len(batch)) for kind, batch in primary.batches] == [
        ("usage", BATCH_ITEMS),
        ("usage", 1),
        ("uses", 1),
        ("usage", 1),
    ]
    assert primary.taken == [*map(str, range(BATCH_ITEMS + 1)), "a", "b"]
    assert (await owed.look()).items == 0


async def test_a_batch_is_bounded_in_bytes(machine: Database, primary: Primary) -> None:
    owed = Spool(machine, primary.take)
    await owed.put("usage", [Item(str(number), bytes(BATCH_BYTES // 2 + 1)) for number in range(3)])
    await owed.drain()
    assert [batch for _, batch in primary.batches] == [["0"], ["1"], ["2"]]


async def test_a_repeat_that_still_waits_is_one_item(machine: Database, primary: Primary) -> None:
    owed = Spool(machine, primary.take)
    await owed.put("usage", items("a"))
    await owed.put("usage", items("a"))
    await owed.put("uses", items("a"))
    await owed.drain()
    assert primary.batches == [("usage", ["a"]), ("uses", ["a"])]


async def test_a_primary_that_was_away_gets_everything_when_it_is_back(machine: Database, primary: Primary) -> None:
    primary.there = False
    owed = Spool(machine, primary.take)
    running = asyncio.create_task(owed.run())
    for number in range(20):
        await owed.put("usage", items(number))
    assert (await owed.look()).items == 20
    primary.there = True
    async with asyncio.timeout(10):
        while (await owed.look()).items:
            await asyncio.sleep(0.01)
    running.cancel()
    assert primary.taken == [str(number) for number in range(20)]


async def test_what_the_primary_may_have_taken_is_sent_again(machine: Database, primary: Primary) -> None:
    owed = Spool(machine, primary.take)
    await owed.put("usage", items("a", "b"))
    primary.loses_answers = 1
    with pytest.raises(Unavailable):
        await owed.drain()
    await owed.drain()
    assert primary.taken == ["a", "b", "a", "b"]


async def test_what_will_never_be_taken_is_set_aside_and_holds_up_nothing(machine: Database, primary: Primary) -> None:
    primary.refuses = {"b": "No such user"}
    owed = Spool(machine, primary.take)
    await owed.put("usage", items("a", "b", "c"))
    await owed.drain()
    assert (await owed.look()).items == 0
    assert (await owed.look()).refused == 1
    rows = await machine.read(lambda connection: connection.fetch("SELECT kind, item_id, reason FROM refused"))
    assert rows == [("usage", "b", "No such user")]


async def test_a_full_spool_says_so_and_loses_nothing(
    machine: Database, primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "SPOOL_ITEMS", 3)
    owed = Spool(machine, primary.take)
    await owed.put("usage", items(1, 2, 3))
    with pytest.raises(Unavailable, match="3 of 3"):
        await owed.put("usage", items(4))
    await owed.drain()
    assert primary.taken == ["1", "2", "3"]
    await owed.put("usage", items(4))


async def test_a_machines_own_file_has_no_position_for_clients(machine: Database, primary: Primary) -> None:
    written_position.set(None)
    await Spool(machine, primary.take).put("usage", items("a"))
    assert written_position.get() is None


WRITER = """
import asyncio, sys
from pathlib import Path
import app
from app.edge import migrate
from app.edge.database import Database
from app.edge.spool import Item, Spool

async def main(path: Path, first: int) -> None:
    migrate.migrate(path, "machine")
    db = Database(path)
    db.open()
    async def never(kind, items):
        raise AssertionError
    spool = Spool(db, never)
    number = first
    while True:
        await spool.put("usage", [Item(str(number), b"{}")])
        print(number, flush=True)
        number += 1

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


async def test_what_was_kept_is_there_after_kill_9(tmp_path: Path, primary: Primary) -> None:
    path, kept = tmp_path / "machine.db", 0
    for _ in range(KILLS):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(kept)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        for _ in range(25):
            kept = int(writer.stdout.readline()) + 1
        writer.kill()
        # What it still said before it died counts too.
        kept = max([kept, *(int(line) + 1 for line in writer.stdout.read().splitlines())])
        writer.wait()
        writer.stdout.close()
    async with open_database(path, "machine") as database:
        await Spool(database, primary.take).drain()
    assert [int(taken) for taken in primary.taken[:kept]] == list(range(kept)), "an acknowledged item was lost"
