"""Fencing: a machine whose lease is over acknowledges nothing, whether it ends before a commit or during it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from app.edge.lease import Fenced
from app.instances.hub import Hub
from tests.instances.live import Live, LivePeer, live
from tests.waiting import comes

pytestmark = pytest.mark.anyio


def over_after(looks: int) -> Callable[[], None]:
    """A lease that is over once it has been asked for so often."""
    left = iter(range(looks))

    def check() -> None:
        if next(left, None) is None:
            raise Fenced

    return check


def once_over() -> Callable[[], None]:
    """A lease that is over the first time it is asked, and held again afterwards."""
    over = iter([Fenced()])

    def check() -> None:
        for error in over:
            raise error

    return check


async def told_until_closed(peer: LivePeer) -> list[dict[str, Any]]:
    heard = []
    with pytest.raises(ConnectionClosed):
        while True:
            heard.append(await peer.hear())
    return heard


async def reopened(served: Live, before: Hub) -> list[str]:
    """The keys that the file holds."""
    await comes(lambda: before not in served.hubs.seen())
    async with served.hubs.use(before.id) as hub:
        return [entry.key for entry in (await hub.entries())[0]]


@pytest.mark.parametrize(("looks", "stored"), [(0, []), (1, ["a"])])
async def test_a_lease_that_ends_before_or_during_a_commit_is_the_end_of_the_hub(
    tmp_path: Path, looks: int, stored: list[str]
) -> None:
    """Asked before the commit, it is not made; asked again after it, nobody hears of it: they come back."""
    async with live(tmp_path) as served:
        name = await served.make("room")
        async with served.joined(name) as writer, served.joined(name) as listener:
            (hub,) = served.hubs.seen()
            hub.check = over_after(looks)
            await writer.say("set", key="a", value=1, opId="in vain", timestamp=0)
            # Its writer hears at most that it was refused: what the key holds, another machine may have changed.
            told = await told_until_closed(writer)
            assert [(frame["type"], frame["code"]) for frame in told] == [("error", "UNAVAILABLE")]
            assert await told_until_closed(listener) == []
            assert (writer.socket.close_code, listener.socket.close_code) == (1013, 1013)
            assert await reopened(served, hub) == stored


async def test_without_a_lease_nobody_is_let_in_and_nothing_is_read(tmp_path: Path) -> None:
    async with live(tmp_path) as served:
        async with served.hubs.use(await served.make("room")) as hub:
            hub.check = over_after(0)
            for read in (hub.entries(), hub.find("a"), hub.copy(tmp_path / "copy.db")):
                with pytest.raises(Fenced):
                    await read
            with pytest.raises(Fenced):
                await served.hubs.open("room")
        assert await reopened(served, hub) == []


async def test_a_hub_that_has_ended_says_nothing_more_of_what_a_key_holds(tmp_path: Path) -> None:
    """What it refuses for another reason it would answer with what the key held, and the lease may be back by now."""
    async with live(tmp_path) as served:
        name = await served.make("room")
        async with served.joined(name) as writer:
            await writer.say("set", key="a", value=1, opId="stored")
            await writer.until("ack")
            (hub,) = served.hubs.seen()
            ended: list[Hub] = []
            hub.broken = ended.append
            hub.check = once_over()
            await writer.say("set", key="a", value=2, opId="in vain")
            await comes(lambda: ended == [hub])
            await writer.say("set", key="a", opId="misshapen")
            await writer.say("delete", key="b", opId="late")
            heard = [await writer.hear() for _ in range(3)]
            assert {frame["type"] for frame in heard} == {"error"}
            assert [frame["opId"] for frame in heard] == ["in vain", "misshapen", "late"]
            assert (await hub.entries())[1] == 1
