"""The backlog: what was read and is not answered yet is bounded in bytes, and nothing of it is lost."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from app.errors import Unavailable
from app.instances.backlog import FRAME_BYTES_IN_FLIGHT, Backlog
from app.instances.mailbox import MAILBOX, TURN_BYTES, TURN_CHANGES, Ask, Mailbox
from tests.instances.live import CLOCKWORK, held, live
from tests.waiting import comes

pytestmark = pytest.mark.anyio

LIMIT = 300_000
VALUE = "x" * 50_000
FRAME_BYTES = 51_000
SETS = 40
WRITERS = 3


async def test_sockets_that_bring_more_are_not_read_until_the_backlog_has_fallen(tmp_path: Path) -> None:
    async with live(tmp_path, backlog=Backlog(LIMIT)) as served, AsyncExitStack() as stack:
        name, backlog = await served.make("room"), served.hubs.backlog
        peers = [await stack.enter_async_context(served.joined(name)) for _ in range(WRITERS)]
        hub = await served.hubs.open(name)
        async with held(hub._thread):
            await peers[0].say("set", key="first", value=0)
            for number in range(SETS):
                for writer, peer in enumerate(peers):
                    await peer.say("set", key=f"k{writer}", value=f"{number} {VALUE}")
            await comes(lambda: backlog.bytes > LIMIT)
            for _ in range(3):
                async with served.dial(await served.make("elsewhere")) as other:
                    await other.alive()
            # One message each was on its way when it was full.
            assert backlog.bytes <= LIMIT + (WRITERS + 1) * FRAME_BYTES
        for peer in peers:
            heard = [await peer.hear() for _ in range(1 + SETS * WRITERS)]
            assert [frame["seq"] for frame in heard] == list(range(1, 2 + SETS * WRITERS))
        assert backlog.bytes == 0


async def test_a_frame_that_came_before_its_sender_had_joined_is_in_the_backlog_too(tmp_path: Path) -> None:
    async with live(tmp_path) as served:
        name, backlog = await served.make("room"), served.hubs.backlog
        hub = await served.hubs.open(name)
        async with (
            held(hub._thread),
            served.dial(name, None, since=0) as early,
            served.dial(name, None, since=0) as gone,
        ):
            for peer in (early, gone):
                await peer.say("set", key="k", value=VALUE)
            await comes(lambda: 2 * len(VALUE) < backlog.bytes <= 2 * FRAME_BYTES)
            gone.socket.transport.abort()
        async with served.joined(name) as peer:
            await comes(lambda: backlog.bytes == 0)
            await peer.alive()
            assert (await hub.find("k")) is not None


def test_a_turn_is_bounded_in_changes_and_in_bytes() -> None:
    mailbox = Mailbox()
    for _ in range(TURN_CHANGES + 1):
        mailbox.put(Ask((), CLOCKWORK))
    assert [len(mailbox.take_asks()), len(mailbox.take_asks())] == [TURN_CHANGES, 1]
    for _ in range(4):
        mailbox.put(Ask((), CLOCKWORK, size=TURN_BYTES // 2))
    assert [len(mailbox.take_asks()), len(mailbox.take_asks())] == [2, 2]
    mailbox.put(Ask((), CLOCKWORK, size=10 * TURN_BYTES))
    assert len(mailbox.take_asks()) == 1


def test_the_process_has_256_megabytes_of_frames_in_flight_at_most() -> None:
    backlog = Backlog()
    backlog.take(256 << 20)
    assert FRAME_BYTES_IN_FLIGHT == backlog.limit == 256 << 20
    assert not backlog.is_full
    backlog.take(1)
    assert backlog.is_full


async def test_a_hub_that_has_too_much_to_do_says_so_and_goes_on(tmp_path: Path) -> None:
    async with live(tmp_path) as served:
        name = await served.make("room")
        async with served.joined(name) as peer:
            hub = await served.hubs.open(name)
            (member,) = hub.audience.members.values()
            async with held(hub._thread):
                await peer.say("set", key="k", value=1)
                await peer.alive()
                for _ in range(MAILBOX):
                    hub.post(member, (), None)
                await peer.say("set", key="k", value=2, opId="late")
                error = await peer.hear()
                assert (error["code"], error["opId"]) == ("UNAVAILABLE", "late")
            assert (await peer.hear())["value"] == 1
            await peer.say("set", key="k", value=2, opId="late")
            assert [frame["type"] for frame in await peer.until("ack")] == ["key_updated", "ack"]


async def test_a_hub_that_has_too_much_to_do_is_closed_all_the_same(tmp_path: Path) -> None:
    """One that went on would write the file under whoever opens it next."""
    async with live(tmp_path) as served:
        name = await served.make("room")
        async with served.joined(name) as peer:
            hub = await served.hubs.open(name)
            (member,) = hub.audience.members.values()
            async with held(hub._thread):
                await peer.say("set", key="k", value=1)
                await peer.alive()
                for _ in range(MAILBOX):
                    hub.post(member, (), None)
                served.hubs.fence()
                await comes(lambda: not served.hubs.seen())
                # The next one waits for this one.
                opening = asyncio.create_task(served.hubs.open(name))
                await asyncio.sleep(0)
                assert not opening.done()
            assert await opening is not hub
            with pytest.raises(Unavailable, match="being closed"):
                hub.post(member, (), None)
            with pytest.raises(Unavailable, match="being closed"):
                await hub.entries()
