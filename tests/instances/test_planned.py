"""What is planned alone: nobody's change comes between, and no plan takes the hub with it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.edge.clock import now_ms
from app.errors import Invalid, Unavailable
from app.identity.principal import Kind, Principal
from app.instances import store
from app.instances.draft import Caller
from app.instances.entry import Entry
from app.instances.hub import Hub
from app.instances.mailbox import Ask, Make, Result
from app.instances.protocol import Delete, Set
from app.instances.queries import Actor
from app.instances.store import Retention, Store
from app.projects.access import Level
from tests.waiting import comes

pytestmark = pytest.mark.anyio

SOMEBODY = Caller(Actor("user", "user_1"), "user_1", Principal(Kind.OPERATOR, None), Level.OWNER)
ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
async def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    """A hub whose file is read for a twentieth of a second at most."""
    monkeypatch.setattr(store, "READ_SECONDS", 0.05)
    with ThreadPoolExecutor(1) as thread:
        made = Hub("room", Store(tmp_path / "room.db", Retention()), thread, read_only=False)
        await made.start()
        yield made
        await made.stop(lambda: Unavailable("Closed"))


def setting(key: str, value: object, expires_at: int | None = None) -> Ask:
    return Ask([Set(key, msgspec.Raw(msgspec.json.encode(value)), expires_at=expires_at)], SOMEBODY)


async def values(hub: Hub) -> dict[str, Any]:
    entries, _ = await hub.entries()
    return {held.key: msgspec.json.decode(held.value) for held in entries}


def endless(raw: Any) -> Any:
    return raw.execute(ENDLESS).fetchall()


async def test_what_is_asked_meanwhile_comes_after_it(hub: Hub) -> None:
    await hub.change(setting("a", 1))
    planning, go_on = asyncio.Event(), asyncio.Event()

    async def work(entries: Mapping[str, Entry], make: Make) -> Result:
        planning.set()
        await go_on.wait()
        assert entries["a"].seq == 1
        return await make(setting("a", "planned"))

    planned = asyncio.create_task(hub.alone(work))
    await planning.wait()
    later = asyncio.create_task(hub.change(setting("a", "later")))
    await asyncio.sleep(0)
    go_on.set()
    assert (await planned, await later) == (Result(2, 1), Result(3, 1))
    assert await values(hub) == {"a": "later"}


async def test_a_plan_sees_nothing_that_has_expired(hub: Hub) -> None:
    soon = now_ms() + 20
    await hub.change(setting("a", 1, soon))

    async def wait(entries: Mapping[str, Entry], make: Make) -> None:
        await comes(lambda: now_ms() > soon)

    async def look(entries: Mapping[str, Entry], make: Make) -> list[str]:
        return list(entries)

    seen = await asyncio.gather(hub.alone(wait), hub.alone(look))
    assert seen[1] == []


async def refuse(entries: Mapping[str, Entry], make: Make) -> None:
    raise RuntimeError("no plan")


async def refuse_after_a_change(entries: Mapping[str, Entry], make: Make) -> None:
    await make(setting("made", 1))
    raise RuntimeError("no answer")


@pytest.mark.parametrize("work", [refuse, refuse_after_a_change])
async def test_a_plan_that_fails_is_its_own_failure(hub: Hub, work: Any) -> None:
    planned: list[Awaitable[Any]] = [hub.alone(work), hub.change(setting("after", 1))]
    failure, result = await asyncio.gather(*planned, return_exceptions=True)
    assert isinstance(failure, RuntimeError)
    assert isinstance(result, Result)
    assert (await values(hub))["after"] == 1


async def test_a_plan_that_reads_for_ever_is_broken_off(hub: Hub) -> None:
    async def work(entries: Mapping[str, Entry], make: Make) -> None:
        await hub.read_file(endless)

    planned: list[Awaitable[Any]] = [hub.alone(work), hub.change(setting("after", 1))]
    failure, result = await asyncio.gather(*planned, return_exceptions=True)
    assert isinstance(failure, Unavailable)
    assert result == Result(1, 1)
    assert await values(hub) == {"after": 1}


async def test_a_plan_whose_asker_has_gone_is_still_whole(hub: Hub) -> None:
    planning = asyncio.Event()

    async def work(entries: Mapping[str, Entry], make: Make) -> Result:
        planning.set()
        await asyncio.sleep(0)
        return await make(Ask([*setting("a", 1).changes, *setting("b", 1).changes], SOMEBODY))

    planned = asyncio.create_task(hub.alone(work))
    await planning.wait()
    planned.cancel()
    assert await values(hub) == {"a": 1, "b": 1}


async def test_a_refused_plan_changes_nothing(hub: Hub) -> None:
    await hub.change(setting("a", 1))

    async def work(entries: Mapping[str, Entry], make: Make) -> Result:
        return await make(Ask([Delete("a"), *setting("", 1).changes], SOMEBODY))

    with pytest.raises(Invalid, match="key: expected"):
        await hub.alone(work)
    assert await values(hub) == {"a": 1}
