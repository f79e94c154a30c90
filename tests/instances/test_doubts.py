"""Doubts: a frame is refused for want of a permission once that is certain, and in its order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from app.edge.clock import now_ms
from app.errors import Unavailable
from app.instances.hub import Hub
from app.instances.mailbox import MAILBOX, Ask
from app.instances.protocol import Set
from app.projects.access import Level
from tests.instances.live import CLOCKWORK, OPERATOR, Live, LivePeer, held, live
from tests.waiting import comes

pytestmark = pytest.mark.anyio


class Primary:
    """What a hub looks at before it refuses: it answers when it is let."""

    def __init__(self) -> None:
        self.looks = 0
        self.let = asyncio.Semaphore(0)

    async def look(self) -> None:
        self.looks += 1
        await self.let.acquire()


@asynccontextmanager
async def writer(served: Live, name: str) -> AsyncIterator[LivePeer]:
    """Somebody who may write, where that is not an admin's alone."""
    token = served.tickets.issue(name, Level.WRITE, OPERATOR, now_ms()).token
    async with served.dial(name, None, token=token) as peer:
        await peer.hear()
        await peer.hear()
        yield peer


@asynccontextmanager
async def asking(folder: Path, mark: str) -> AsyncIterator[tuple[Live, Hub, LivePeer, Primary]]:
    """A change that a hub would refuse, were it not for what the primary says of it."""
    primary = Primary()
    async with live(folder, look=primary.look) as served:
        name = await served.make("room")
        async with writer(served, name) as peer:
            hub = await served.hubs.open(name)
            hub.read_only = True
            await peer.say("set", key="a", value=1, opId=mark)
            await comes(lambda: primary.looks == 1)
            yield served, hub, peer, primary


async def until_ack(peer: LivePeer, mark: str) -> list[tuple[str, object]]:
    """Types and operations up to an acknowledgement."""
    heard: list[tuple[str, object]] = []
    while not heard or heard[-1] != ("ack", mark):
        frame = await peer.hear()
        heard.append((frame["type"], frame.get("opId")))
    return heard


async def test_what_came_after_the_question_is_not_refused_by_its_answer(tmp_path: Path) -> None:
    async with asking(tmp_path, "before") as (served, hub, peer, primary):
        await peer.say("set", key="b", value=2, opId="after")
        await peer.say("set", key="b", value=3, opId="last")
        await peer.alive()
        primary.let.release()
        # The first is refused for certain; the second is asked about anew, and the third waits behind it.
        await comes(lambda: primary.looks == 2)
        hub.read_only = False
        primary.let.release()
        heard = await until_ack(peer, "last")
        assert [one for one in heard if one[0] in ("error", "ack")] == [
            ("error", "before"),
            ("ack", "after"),
            ("ack", "last"),
        ]
        assert (await hub.find("a"), (await hub.entries())[1]) == (None, 2)
        assert served.hubs.backlog.bytes == 0


async def test_what_cannot_be_asked_is_refused_by_what_is_known(tmp_path: Path) -> None:
    async def look() -> None:
        raise Unavailable("The primary is away")

    async with live(tmp_path, look=look) as served:
        name = await served.make("room")
        async with writer(served, name) as peer:
            (await served.hubs.open(name)).read_only = True
            await peer.say("set", key="a", value=1, opId="mine")
            assert (await peer.until("error"))[-1]["code"] == "NO_PERMISSION"


async def test_what_waited_is_decided_though_the_hub_has_too_much_to_do(tmp_path: Path) -> None:
    """It was let in once; turned away now, it would wait for ever."""
    async with asking(tmp_path, "mine") as (_, hub, peer, primary):
        hub.read_only = False
        (member,) = hub.audience.members.values()
        async with held(hub._thread):
            other = asyncio.create_task(hub.change(Ask([Set("b", msgspec.Raw(b"1"))], CLOCKWORK)))
            await comes(lambda: hub._thread._work_queue.qsize() == 1)
            for _ in range(MAILBOX):
                hub.post(member, (), None)
            primary.let.release()
            await comes(lambda: len(hub._mailbox) > MAILBOX)
        await other
        assert ("ack", "mine") in await until_ack(peer, "mine")


async def test_a_hub_that_closes_lets_go_of_what_was_not_decided(tmp_path: Path) -> None:
    primary = Primary()
    async with live(tmp_path, look=primary.look) as served:
        name = await served.make("room")
        async with writer(served, name) as peer:
            (await served.hubs.open(name)).read_only = True
            await peer.say("set", key="a", value="x" * 1000, opId="mine")
            await comes(lambda: primary.looks == 1)
            assert served.hubs.backlog.bytes > 1000
            await served.hubs.close()
            assert served.hubs.backlog.bytes == 0
            primary.let.release()
            frames = [frame["type"] for frame in await peer.until("going_away")]
            assert frames == ["going_away"]
