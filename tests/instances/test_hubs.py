"""Hubs: so many instances are open at once, and nobody notices when one was closed in between."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import msgspec
import pytest
from websockets.exceptions import InvalidStatus

from app.edge.changes import announce
from app.edge.clock import now_ms
from app.edge.database import Database
from app.errors import Unavailable
from app.instances import relay
from app.instances.expiry import RETRY_MS
from app.instances.hub import Hub
from app.instances.hubs import IDLE_SECONDS, OPEN_INSTANCES
from app.instances.mailbox import Ask
from app.instances.protocol import Set
from app.instances.store import STORE_THREADS
from app.webhooks import subscriptions
from tests.instances.live import CLOCKWORK, Live, held, live
from tests.projects.conftest import Json
from tests.waiting import comes

pytestmark = pytest.mark.anyio

T = TypeVar("T")

INSTANCES = 2_000
AT_ONCE = 10
EXPIRES_MS = 50
# A file, its journal and its index.
DESCRIPTORS_A_FILE = 3
SPARE_DESCRIPTORS = 50


async def put(hub: Hub, key: str, value: object) -> int:
    return (await hub.change(Ask([Set(key, msgspec.Raw(msgspec.json.encode(value)))], CLOCKWORK))).seq


def opened(served: Live) -> list[str]:
    return [hub.id for hub in served.hubs.seen()]


async def test_when_all_are_taken_the_one_that_is_longest_without_connections_closes(tmp_path: Path) -> None:
    async with live(tmp_path, most_open=3) as served:
        for name in ("connected", "first", "second", "third"):
            await served.make(name)
        async with served.joined("connected") as peer:
            for name in ("first", "second"):
                async with served.hubs.use(name) as hub:
                    await put(hub, "a", name)
            async with served.hubs.use("first") as hub:
                assert await put(hub, "a", "again") == 2
            await served.hubs.open("third")
            assert opened(served) == ["connected", "first", "third"]
            await peer.alive()


async def test_an_expiry_that_cannot_be_stored_is_tried_again_after_a_second(tmp_path: Path) -> None:
    """Tried again at once it would take the loop from everybody else for as long as the fault lasts."""
    async with live(tmp_path) as served, served.hubs.use(await served.make("room")) as hub:
        tries: list[float] = []

        def check() -> None:
            tries.append(time.monotonic())
            if len(tries) == 1:
                raise Unavailable("Not now")

        brief = Set("brief", msgspec.Raw(b"1"), expires_at=now_ms() + EXPIRES_MS)
        await hub.change(Ask([brief], CLOCKWORK))
        hub.check = check
        await comes(lambda: hub.seq == 2)
        assert tries[1] - tries[0] > 0.9 * RETRY_MS / 1000


async def test_who_leaves_while_an_instance_is_opened_leaves_one_hub_behind_and_not_half_of_one(tmp_path: Path) -> None:
    """A handshake ends after some seconds; a file that comes from afar takes longer, and is there for the next."""
    async with live(tmp_path) as served:
        name = await served.make("room")
        thread = served.hubs._stores.thread_of(name)
        async with held(thread):
            first = asyncio.create_task(served.hubs.open(name))
            await comes(lambda: thread._work_queue.qsize() == 1)
            first.cancel()
            await asyncio.wait([first])
            second = asyncio.create_task(served.hubs.open(name))
            await asyncio.sleep(0)
            assert thread._work_queue.qsize() == 1, "it is being opened already"
        assert [await second] == served.hubs.seen()


async def test_when_none_can_close_the_answer_is_503_and_when_to_try_again(tmp_path: Path) -> None:
    async with live(tmp_path, most_open=2) as served, AsyncExitStack() as stack:
        for name in ("one", "two", "three"):
            await served.make(name)
        for name in ("one", "two"):
            await stack.enter_async_context(served.joined(name))
        with pytest.raises(InvalidStatus) as refused:
            await stack.enter_async_context(served.dial("three"))
        assert refused.value.response.status_code == 503
        assert int(refused.value.response.headers["Retry-After"]) > 0
        assert b"Too many instances are open: 2 of 2" in refused.value.response.body
        assert opened(served) == ["one", "two"]


async def test_many_that_are_opened_at_once_do_not_pass_the_bound(tmp_path: Path) -> None:
    async with live(tmp_path, most_open=5) as served:
        names = [await served.make(f"room-{number}") for number in range(30)]
        most = 0

        async def use(name: str) -> None:
            nonlocal most
            try:
                async with served.hubs.use(name) as hub:
                    most = max(most, len(opened(served)))
                    await put(hub, "a", 1)
            except Unavailable:
                return

        await asyncio.gather(*(use(name) for name in names))
        assert 0 < most <= 5


async def test_what_nobody_uses_is_closed_after_a_while_and_nobody_notices(tmp_path: Path) -> None:
    async with live(tmp_path) as served:
        name = await served.make("room")
        async with served.joined(name) as peer:
            await peer.say("set", key="a", value=[1, 2], attributes={"zIndex": 3})
            told = await peer.hear()
            await served.hubs.sweep_once(time.monotonic() + IDLE_SECONDS + 1)
            assert opened(served) == [name]
        await comes(lambda: not served.hubs.seen()[0].audience.members)
        await served.hubs.sweep_once(time.monotonic() + IDLE_SECONDS - 1)
        assert opened(served) == [name]
        await served.hubs.sweep_once(time.monotonic() + IDLE_SECONDS + 1)
        assert opened(served) == []
        async with served.dial(name, since=1) as later:
            greeting = await later.hear()
            assert greeting["seq"] == 1
            await later.say("set", key="a", value=[1, 2], attributes=told["attributes"], opId="same")
            assert await later.hear() == {"type": "ack", "opId": "same", "seq": 1}
        async with served.dial(name) as later:
            assert (await later.hear())["epoch"] == greeting["epoch"]
            held: Json = (await later.hear())["data"]["a"]
            assert held == {"value": [1, 2], "attributes": told["attributes"], "updatedAt": told["timestamp"]}


class Busy(Database):
    """Too busy once to say whether anybody listens."""

    refused = 0

    async def read(self, fn: Callable[..., T], *args: Any) -> T:
        if fn is relay._has_listeners and not self.refused:
            self.refused += 1
            raise Unavailable("The database is busy")
        return await super().read(fn, *args)


async def test_what_nobody_listens_to_owes_nothing_also_when_that_was_not_known_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every change would be carried to the core for nobody, for as long as it is open."""
    monkeypatch.setattr(relay, "RETRY_SECONDS", 0.01)
    async with live(tmp_path, Busy) as served:
        hub = await served.hubs.open(await served.make("room"))
        assert hub.tells, "nothing may be lost meanwhile"
        await comes(lambda: not hub.tells)
        assert isinstance(served.db, Busy) and served.db.refused == 1


class Slow(Database):
    """What it says of listeners is on its way until it is let through."""

    asked = 0
    let: asyncio.Semaphore

    async def read(self, fn: Callable[..., T], *args: Any) -> T:
        found = await super().read(fn, *args)
        if fn is relay._has_listeners:
            self.asked += 1
            await self.let.acquire()
        return found


async def test_what_was_read_before_somebody_began_to_listen_does_not_count(tmp_path: Path) -> None:
    """What is changed meanwhile would never be told."""
    Slow.let = asyncio.Semaphore(0)
    async with live(tmp_path, Slow) as served:
        hub, db = await served.hubs.open(await served.make("room")), served.db
        assert isinstance(db, Slow)
        await comes(lambda: db.asked == 1)
        await served.db.write(announce, subscriptions.TOPIC, "of somebody new")
        db.let.release()
        await comes(lambda: db.asked == 2)
        assert hub.tells
        db.let.release()
        await comes(lambda: not hub.tells)


async def test_a_hub_that_two_would_close_is_closed_once(tmp_path: Path) -> None:
    async with live(tmp_path) as served:
        for name in ("one", "two"):
            async with served.hubs.use(await served.make(name)) as hub:
                await put(hub, "a", 1)
        at = time.monotonic() + IDLE_SECONDS + 1
        await asyncio.gather(served.hubs.sweep_once(at), served.hubs.sweep_once(at))
        assert opened(served) == []


async def test_what_is_being_opened_when_the_server_stops_is_closed_too(tmp_path: Path) -> None:
    async with live(tmp_path) as served:
        names = [await served.make(f"room-{number}") for number in range(8)]
        opening = [asyncio.ensure_future(served.hubs.open(name)) for name in names]
        while not opened(served):
            await asyncio.sleep(0)
        await served.hubs.close()
        hubs = [hub for hub in await asyncio.gather(*opening, return_exceptions=True) if isinstance(hub, Hub)]
        assert opened(served) == []
        for hub in hubs:
            with pytest.raises(Unavailable):
                await hub.entries()
    assert list(tmp_path.rglob("room-*.db-wal")) == []


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: thousands of files wait long for a disk."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


async def test_thousands_of_instances_come_and_go_within_the_same_files_and_threads(quick_folder: Path) -> None:
    async with live(quick_folder) as served:
        names = await asyncio.gather(*(served.make(f"room-{number}") for number in range(INSTANCES)))
        files, threads, epochs = len(os.listdir("/proc/self/fd")), threading.active_count(), dict[str, str]()

        async def visit(number: int) -> None:
            async with served.hubs.use(names[number]) as hub:
                assert await put(hub, "number", number) == 1
                epochs[hub.id] = hub.epoch

        async def visit_again(number: int) -> None:
            async with served.hubs.use(names[number]) as hub:
                held = await hub.find("number")
                assert held is not None
                assert (bytes(held.value), held.seq, hub.seq, hub.epoch) == (b"%d" % number, 1, 1, epochs[hub.id])

        for visited in (visit, visit_again):
            for first in range(0, INSTANCES, AT_ONCE):
                await asyncio.gather(*map(visited, range(first, first + AT_ONCE)))
                assert len(opened(served)) <= OPEN_INSTANCES
            assert len(opened(served)) == OPEN_INSTANCES
            assert len(os.listdir("/proc/self/fd")) - files <= OPEN_INSTANCES * DESCRIPTORS_A_FILE + SPARE_DESCRIPTORS
            assert threading.active_count() - threads <= STORE_THREADS + 1
