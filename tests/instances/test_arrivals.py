"""Arrivals: a file is opened under the session in which its home was found, and under no later one."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.edge import keeper
from app.edge.clock import now_ms
from app.edge.database import Database
from app.edge.homes import Home, Machine
from app.edge.keeper import Keeper
from app.edge.lease import Fenced, Lease
from app.edge.liveness import Liveness
from app.edge.node import Node
from app.edge.ownership import Ownership
from app.edge.peers import Peers
from app.edge.placement import Destination
from app.edge.registry import Registry
from app.errors import Unavailable
from app.instances.arrivals import FOLDER, Arrivals
from app.instances.store import Retention, Stores
from app.regions import Regions
from tests.waiting import comes

pytestmark = pytest.mark.anyio

HERE, THERE = Machine("m3", "nrt"), Machine("m2", "ams")
ROOM = "room"
CLIENTS = 100


class Line(Registry):
    """Answers that are on their way for as long as `held` is shut."""

    held: asyncio.Event | None = None
    answered = False
    asked = 0

    async def claim(self, name: str, asker: Machine) -> Home:
        self.asked += 1
        home = await super().claim(name, asker)
        self.answered = True
        if asker == HERE and self.held is not None:
            await self.held.wait()
        return home


class Owner:
    """The machine `HERE` with a registry at hand, whose replica holds all that was committed."""

    def __init__(self, db: Database, folder: Path) -> None:
        self.registry = Line(db, Liveness({}), lambda connection, name: HERE.region)
        self.node = Node(HERE.region, HERE.machine, is_primary=False)
        self.owning = Ownership(HERE, Lease(), self.node)
        self.stores = Stores(folder, Retention())
        self.keeper = Keeper(db, self.owning, self.registry)
        self.arrivals = Arrivals(self.keeper, Peers(Regions(machine=HERE.machine), HERE.machine), self.stores, None)

    async def begin(self, session: str) -> None:
        position = await self.registry.begin(HERE, session)
        self.node.advance(position)
        self.owning.begin(session, self.owning.lease.sending(), position)

    async def lose(self) -> None:
        """Somebody else becomes the home, and this machine begins anew."""
        await self.registry.begin(THERE, "theirs")
        await self.registry.lose(HERE.machine)
        assert (await self.registry.claim(ROOM, THERE)).machine == THERE.machine
        await self.begin("second")


@pytest.fixture
async def owner(db: Database, tmp_path: Path) -> AsyncIterator[Owner]:
    made = Owner(db, tmp_path / "instances")
    await made.begin("first")
    yield made
    await made.keeper.close()
    made.stores.close()


async def test_a_home_that_was_found_in_a_session_that_ended_meanwhile_is_not_opened(owner: Owner) -> None:
    """The file was looked at for long; somebody else acknowledges for the instance by now."""
    home = await owner.registry.claim(ROOM, HERE)
    thread, go = owner.stores.thread_of(ROOM), threading.Event()
    store = owner.stores.store(ROOM)
    thread.submit(store.open, now_ms(), home.epoch)
    thread.submit(store.close)
    await owner.registry.raise_number(await owner.registry.mark_opened(home), 0)
    thread.submit(go.wait, 10)
    bringing = asyncio.create_task(owner.arrivals.bring(ROOM))
    await comes(thread._work_queue.qsize)
    await owner.lose()
    go.set()
    with pytest.raises(Fenced):
        await bringing


async def test_what_a_killed_process_was_fetching_goes_with_the_next(
    owner: Owner, db: Database, tmp_path: Path
) -> None:
    """The instance may never be opened here again, and nobody would look for half of its file."""
    half = tmp_path / "instances" / FOLDER / ROOM
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half of it")
    Owner(db, tmp_path / "instances").stores.close()
    assert not half.exists()


async def test_an_answer_that_was_on_its_way_while_a_session_ended_is_worth_nothing(owner: Owner) -> None:
    owner.registry.held = asyncio.Event()
    requiring = asyncio.create_task(owner.keeper.require(ROOM))
    await comes(lambda: owner.registry.answered)
    await owner.lose()
    owner.registry.held.set()
    with pytest.raises(Unavailable):
        await requiring


async def test_all_that_look_for_a_home_that_is_lost_ask_together_and_hear_of_the_next(owner: Owner) -> None:
    """A thousand clients come back at once; who asks is answered with what is so after it asked."""
    await owner.keeper.require(ROOM)
    await owner.lose()
    owner.keeper.suspect(THERE.machine)
    owner.registry.asked, owner.registry.held = 0, asyncio.Event()
    first = asyncio.create_task(owner.keeper.home_of(ROOM))
    await comes(lambda: owner.registry.asked == 1)
    await owner.registry.lose(THERE.machine)
    others = [asyncio.create_task(owner.keeper.home_of(ROOM)) for _ in range(CLIENTS)]
    await asyncio.sleep(0)
    owner.registry.held.set()
    assert set(await asyncio.gather(*others)) == {Destination(HERE.region, HERE.machine)}
    assert await first == Destination(THERE.region, THERE.machine)
    assert owner.registry.asked == 2


async def test_who_asks_behind_a_question_that_is_not_answered_waits_no_longer_than_for_its_own(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.registry.held = asyncio.Event()
    first = asyncio.create_task(owner.keeper.home_of(ROOM))
    await comes(lambda: owner.registry.asked == 1)
    owner.keeper.suspect(HERE.machine)
    monkeypatch.setattr(keeper, "ASK_SECONDS", 0.01)
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable):
            await owner.keeper.home_of(ROOM)
    owner.registry.held.set()
    assert await first == Destination(HERE.region, HERE.machine)
