"""The adapter of LiteFS: a role that does not change, news that are heard again, a lag that may be unknown."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from app.edge import migrate, replication, sqlite
from app.edge.changes import Changes
from app.edge.database import Position
from app.edge.mount import Mount
from app.edge.node import MAX_LAG_SECONDS, Node
from app.edge.replication import litefs
from app.edge.replication.litefs import LiteFS
from app.edge.replication.single import Single
from app.errors import Unavailable
from app.regions import Regions
from app.settings import Settings
from tests.conftest import open_database
from tests.waiting import comes

pytestmark = pytest.mark.anyio

SOON_SECONDS = 10.0
INIT = '{"type":"init","data":{"isPrimary":false,"hostname":"m-fra"}}\n'
TX = '{"type":"tx","db":"core.db","data":{"txID":"0000000000000002","commit":96}}\n'
OTHER = '{"type":"something new","data":[1]}\n'


class Speaker:
    """The HTTP side of LiteFS on loopback. Each connection to `/events` is told the next of `scripts`."""

    def __init__(self, *, is_primary: bool = False) -> None:
        self.is_primary = is_primary
        self.scripts: list[str] = []
        self.connected = 0
        self.cut = asyncio.Event()

    async def info(self, _: web.Request) -> web.Response:
        return web.json_response({"isPrimary": self.is_primary, "candidate": self.is_primary, "path": "/"})

    async def events(self, request: web.Request) -> web.StreamResponse:
        self.connected += 1
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write((self.scripts.pop(0) if self.scripts else INIT).encode())
        if self.scripts:
            return answer
        await self.cut.wait()
        return answer


@asynccontextmanager
async def speaking(speaker: Speaker, tmp_path: Path) -> AsyncIterator[Settings]:
    """Settings of a machine beside it, whose core is in `tmp_path`."""
    site = web.Application()
    site.add_routes([web.get("/info", speaker.info), web.get("/events", speaker.events)])
    runner = web.AppRunner(site, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    served = web.TCPSite(runner, "127.0.0.1", 0)
    await served.start()
    port = runner.addresses[0][1]
    regions = Regions(
        region="ams",
        machine="m-ams",
        primary_region="fra",
        replication="litefs",
        litefs_url=f"http://127.0.0.1:{port}",
    )
    try:
        yield Settings(database_path=tmp_path / "core.db", regions=regions)
    finally:
        speaker.cut.set()
        await runner.cleanup()


class Running:
    """A replica's adapter at work on a core of its own, and whether it wanted the process to end."""

    def __init__(self, settings: Settings, node: Node) -> None:
        self.settings = settings
        self.node = node
        self.feed = Changes()
        self.ended = 0
        self.adapter = LiteFS(settings, self.end)

    def end(self) -> None:
        self.ended += 1


@asynccontextmanager
async def following(speaker: Speaker, tmp_path: Path, *, is_primary: bool = False) -> AsyncIterator[Running]:
    async with speaking(speaker, tmp_path) as settings:
        mount = Mount.PRIMARY if is_primary else Mount.REPLICA
        async with open_database(settings.database_path, mount=mount) as db:
            running = Running(settings, Node("ams", "m-ams", is_primary=is_primary))
            await running.feed.start(db)
            task = asyncio.create_task(running.adapter.run(running.node, db, running.feed))
            try:
                yield running
            finally:
                task.cancel()
                await asyncio.wait([task])


def change(path: Path, statement: str) -> None:
    """As the file system changes a replica's file: from outside."""
    raw = sqlite.connect(path)
    raw.execute(statement)
    raw.close()


async def test_the_role_is_what_litefs_says(tmp_path: Path) -> None:
    async with speaking(Speaker(), tmp_path) as settings:
        node, mount = await replication.of(settings).find_role()
        assert (node.region, node.machine, node.is_primary, node.lag_ms) == ("ams", "m-ams", False, None)
        assert mount is Mount.REPLICA
    async with speaking(Speaker(is_primary=True), tmp_path) as settings:
        there = replace(settings, regions=replace(settings.regions, region="fra"))
        node, mount = await replication.of(there).find_role()
        assert (node.is_primary, node.lag_ms, mount) == (True, 0, Mount.PRIMARY)


@pytest.mark.parametrize(("region", "is_primary", "said"), [("ams", True, "the primary"), ("fra", False, "a replica")])
async def test_a_role_that_the_settings_give_to_another_region_is_refused(
    tmp_path: Path, region: str, is_primary: bool, said: str
) -> None:
    """Its writes would go to the other one, and nobody would ship its core."""
    async with speaking(Speaker(is_primary=is_primary), tmp_path) as settings:
        there = replace(settings, regions=replace(settings.regions, region=region))
        with pytest.raises(Unavailable, match=f"in {region} {said}, and PRIMARY_REGION is fra"):
            await replication.of(there).find_role()


async def test_a_core_on_litefs_is_not_served_as_if_it_were_a_file(tmp_path: Path) -> None:
    (tmp_path / "core.db-pos").write_text("0000000000000001/0000000000000000\n")
    settings = Settings(database_path=tmp_path / "core.db")
    with pytest.raises(Unavailable, match="REPLICATION=litefs has to be set"):
        await replication.prepare(replication.of(settings), settings)
    assert not settings.database_path.exists()


async def test_a_machine_alone_is_its_own_primary() -> None:
    engine = replication.of(Settings())
    assert isinstance(engine, Single)
    node, mount = await engine.find_role()
    assert (node.is_primary, node.lag_ms, node.reads_here, mount) == (True, 0, True, Mount.NONE)


async def test_an_engine_that_does_not_answer_in_time_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litefs, "ROLE_SECONDS", 0.3)
    regions = Regions(replication="litefs", litefs_url="http://127.0.0.1:9")
    with pytest.raises(Unavailable, match="LiteFS did not answer"):
        await LiteFS(Settings(database_path=tmp_path / "core.db", regions=regions)).find_role()


async def test_the_stream_is_asked_for_again_however_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litefs, "LONGEST_RETRY_SECONDS", 0.01)
    speaker = Speaker()
    speaker.scripts = [INIT, INIT + TX, "this is no JSON\n", OTHER, "x" * 300_000, INIT + TX + "half a li", INIT]
    scripts = len(speaker.scripts)
    async with following(speaker, tmp_path) as running:
        await comes(lambda: speaker.connected == scripts)
        assert running.ended == 0


async def test_news_wake_the_feed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.edge.changes.FOLLOW_SECONDS", 60)
    speaker = Speaker()
    async with following(speaker, tmp_path) as running:
        heard: list[str] = []
        running.feed.listen("key", heard.append)
        await comes(lambda: running.node.position is not None)
        change(running.settings.database_path, "INSERT INTO changes (topic, key) VALUES ('key', 'k1')")
        change(running.settings.database_path, "UPDATE replication_token SET sequence = sequence + 7")
        before = running.node.position
        assert before is not None
        waiting = asyncio.create_task(running.node.wait_for(Position(before.epoch, before.sequence + 7), SOON_SECONDS))
        # The next connection says `init`, which is no news by itself, and is looked at all the same.
        speaker.cut.set()
        assert await waiting
        assert heard == ["k1"]


async def test_whoever_hears_of_a_position_has_heard_of_its_changes(tmp_path: Path) -> None:
    """Or a client that sends its position back would be answered from what should have been forgotten."""
    async with following(Speaker(), tmp_path) as running:
        await comes(lambda: running.node.position is not None)
        here = running.node.position
        assert here is not None
        known_when_told: list[Position | None] = []
        running.feed.listen("key", lambda key: known_when_told.append(running.node.position))
        path = running.settings.database_path
        raw = sqlite.connect(path)
        raw.execute("BEGIN IMMEDIATE")
        raw.execute("INSERT INTO changes (topic, key) VALUES ('key', 'k1')")
        raw.execute("UPDATE replication_token SET sequence = sequence + 1")
        raw.execute("COMMIT")
        raw.close()
        await comes(lambda: running.node.has(Position(here.epoch, here.sequence + 1)))
        assert known_when_told == [here]


@pytest.mark.parametrize("is_primary", [False, True])
async def test_a_process_whose_role_has_changed_ends(tmp_path: Path, is_primary: bool) -> None:
    speaker = Speaker(is_primary=is_primary)
    speaker.scripts = [json.dumps({"type": "primaryChange", "data": {"isPrimary": not is_primary}}) + "\n", INIT]
    async with following(speaker, tmp_path, is_primary=is_primary) as running:
        await comes(lambda: running.ended)


async def test_a_primary_that_goes_away_changes_no_replicas_role(tmp_path: Path) -> None:
    speaker = Speaker()
    lost = '{"type":"primaryChange","data":{"isPrimary":false}}\n'
    speaker.scripts = [INIT + lost + lost, INIT]
    async with following(speaker, tmp_path) as running:
        await comes(lambda: speaker.connected == 2)
        assert running.ended == 0


async def test_a_process_whose_database_was_restored_ends(tmp_path: Path) -> None:
    async with following(Speaker(), tmp_path) as running:
        await comes(lambda: running.node.position is not None)
        change(running.settings.database_path, "UPDATE replication_token SET epoch = 'restored'")
        await comes(lambda: running.ended)


async def test_a_process_that_was_away_for_longer_than_changes_are_kept_ends(tmp_path: Path) -> None:
    """What it holds in its caches nobody can tell it to forget."""
    async with following(Speaker(), tmp_path) as running:
        path = running.settings.database_path
        heard: list[str] = []
        running.feed.listen("key", heard.append)
        for sequence in (1, 2):
            change(path, f"INSERT INTO changes (sequence, topic, key) VALUES ({sequence}, 'key', 'k{sequence}')")
        await comes(lambda: len(heard) == 2)
        assert running.ended == 0
        change(path, "INSERT INTO changes (sequence, topic, key) VALUES (4, 'key', 'k4')")
        await comes(lambda: running.ended)


def test_the_process_ends_as_the_platform_would_end_it() -> None:
    stopped: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    try:
        litefs.end_process()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stopped == [signal.SIGTERM]


@pytest.mark.parametrize(
    ("text", "lag"),
    [
        ("+000000204\n", 204),
        ("+000000000\n", 0),
        ("-000000003\n", 0),
        ("+2147483647", None),
        ("", None),
        ("nonsense", None),
        (None, None),
    ],
)
async def test_the_lag_is_what_the_file_says_or_unknown(tmp_path: Path, text: str | None, lag: int | None) -> None:
    if text is not None:
        (tmp_path / ".lag").write_text(text)
    node = Node("ams", "m-ams", is_primary=False)
    await LiteFS(Settings(database_path=tmp_path / "core.db")).read_lag(node)
    assert node.lag_ms == lag


async def test_the_lag_of_a_mount_that_hangs_is_unknown_and_costs_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe that nobody writes to is opened for as long as a mount that does not answer."""
    import os
    import threading

    monkeypatch.setattr(litefs, "LAG_SECONDS", 0.05)
    os.mkfifo(tmp_path / ".lag")
    node = Node("ams", "m-ams", is_primary=False)
    node.lag_ms = 5
    adapter = LiteFS(Settings(database_path=tmp_path / "core.db"))
    threads = threading.active_count()
    for _ in range(5):
        await adapter.read_lag(node)
        assert node.lag_ms is None
    assert threading.active_count() <= threads + 1
    (await asyncio.to_thread((tmp_path / ".lag").open, "w")).close()
    await comes(lambda: adapter._looking is None or adapter._looking.done())


async def test_a_replica_is_fresh_below_the_bound_and_a_primary_always() -> None:
    replica = Node("ams", "m-ams", is_primary=False)
    for lag, fresh in ((0, True), (MAX_LAG_SECONDS * 1000 - 1, True), (MAX_LAG_SECONDS * 1000, False), (None, False)):
        replica.lag_ms = lag
        assert replica.is_fresh is fresh
        assert replica.reads_here is fresh
    replica.lag_ms, replica.schema_fits = 0, False
    assert (replica.is_fresh, replica.reads_here) == (True, False)
    assert Node("fra", "m-fra").reads_here


async def test_a_position_that_is_told_late_does_not_go_back() -> None:
    node = Node("ams", "m-ams", is_primary=False)
    node.advance(Position("a", 5))
    node.advance(Position("a", 4))
    assert node.position == Position("a", 5)
    node.advance(Position("b", 1))
    assert node.position == Position("b", 1)


class Replica(Single):
    """An engine that says that this machine is a replica."""

    async def find_role(self) -> tuple[Node, Mount]:
        return Node("ams", "m-ams", is_primary=False), Mount.REPLICA


Prepared = Awaitable[tuple[Node, Mount]]


async def test_a_replica_waits_for_a_core_with_a_schema_and_makes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(database_path=tmp_path / "core.db")
    looked = asyncio.Queue[int]()
    loop, look = asyncio.get_running_loop(), replication._arrived_version

    def looking(path: Path) -> int:
        version = look(path)
        loop.call_soon_threadsafe(looked.put_nowait, version)
        return version

    monkeypatch.setattr(replication, "_arrived_version", looking)
    preparing = asyncio.create_task(replication.prepare(Replica(settings), settings))
    assert await looked.get() == 0
    assert not settings.database_path.exists()
    raw = sqlite.connect(settings.database_path)
    sqlite.enter_wal(raw)
    raw.close()
    assert [await looked.get() for _ in range(2)] == [0, 0]
    migrate.migrate(settings.database_path, "core")
    node, _ = await asyncio.wait_for(preparing, SOON_SECONDS)
    assert node.schema_fits


async def test_a_core_that_does_not_come_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "ARRIVAL_SECONDS", 0.1)
    settings = Settings(database_path=tmp_path / "core.db")
    with pytest.raises(Unavailable, match="No database has come"):
        await replication.prepare(Replica(settings), settings)


async def test_a_replica_that_is_newer_than_its_core_reads_elsewhere_until_the_core_is_as_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litefs, "LAG_SECONDS", 0.1)
    (tmp_path / ".lag").write_text("+000000001\n")
    path = tmp_path / "core.db"
    migrate.migrate(path, "core")
    change(path, "UPDATE schema SET version = version - 1")
    settings = Settings(database_path=path)
    node, _ = await replication.prepare(Replica(settings), settings)
    assert node.schema_fits is False
    async with following(Speaker(), tmp_path) as running:
        await comes(lambda: not running.node.schema_fits)
        assert running.node.is_fresh
        change(path, "UPDATE schema SET version = version + 1")
        await comes(lambda: running.node.reads_here)
        change(path, "UPDATE schema SET readable_from = 10000")
        await comes(lambda: not running.node.reads_here)


async def test_a_replica_refuses_to_start_on_a_core_that_needs_newer_code(tmp_path: Path) -> None:
    path = tmp_path / "core.db"
    migrate.migrate(path, "core")
    change(path, "UPDATE schema SET readable_from = 10000")
    settings = Settings(database_path=path)
    with pytest.raises(migrate.SchemaTooNew):
        await replication.prepare(Replica(settings), settings)
