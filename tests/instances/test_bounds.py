"""Bounds of an instance and a crowd at it: the last byte that fits, and a thousand who hear one change."""

import asyncio
import json
import resource
import time
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from app.edge.framing import TEXT
from app.instances.mailbox import Ask
from app.instances.protocol import INSTANCE_BYTES, VALUE_BYTES, Set
from tests.conftest import serving
from tests.edge.wire import Wire, connected, head
from tests.instances.conftest import fresh, joined
from tests.instances.live import CLOCKWORK, live
from tests.projects.conftest import Json
from tests.waiting import comes

pytestmark = pytest.mark.anyio

CROWD = 1_000
DESCRIPTORS = 8_192
CROWD_SECONDS = 20.0
AT_ONCE = 50


async def test_an_instance_takes_64_megabytes_and_not_a_byte_more(tmp_path: Path) -> None:
    async with live(tmp_path) as served, served.joined(await served.make("room"), prefix="none") as peer:
        hub = await served.hubs.open("room")
        value = msgspec.Raw(b'"' + b"x" * (VALUE_BYTES - 2) + b'"')
        number = 0
        while INSTANCE_BYTES - hub._state.bytes > 2 * VALUE_BYTES:
            await hub.change(Ask([Set(f"k{number:02}", value)], CLOCKWORK))
            number += 1
        # Two more: one that leaves little room, and one of which every byte counts.
        before = hub._state.bytes
        await hub.change(Ask([Set("half", value)], CLOCKWORK))
        await peer.say("set", key="last", value="")
        await comes(lambda: hub.seq == number + 2)
        room = INSTANCE_BYTES - hub._state.bytes
        assert 0 < room < VALUE_BYTES < INSTANCE_BYTES - before
        await peer.say("set", key="last", value="x" * (room + 1), opId="over")
        shown, error = await peer.hear(), await peer.hear()
        assert (shown["key"], shown["value"], error["code"], error["opId"]) == ("last", "", "TOO_LARGE", "over")
        assert error["error"] == f"Instance too large: {INSTANCE_BYTES + 1} bytes (max: {INSTANCE_BYTES})"
        await peer.say("set", key="last", value="x" * room, opId="full")
        assert (await peer.hear())["type"] == "ack"
        assert hub._state.bytes == INSTANCE_BYTES == 64 << 20
        await peer.say("set", key="z", value=0, opId="one more")
        assert [(await peer.hear())["type"], (await peer.hear())["code"]] == ["key_deleted", "TOO_LARGE"]
        await peer.say("delete", key="half", opId="room")
        await peer.say("set", key="z", value=0, opId="now")
        assert [(await peer.hear())["opId"], (await peer.hear())["opId"]] == ["room", "now"]


async def hear(wire: Wire) -> Json:
    """The next text; pings go by."""
    while (taken := await wire.receive())[0] != TEXT:
        continue
    frame: Json = json.loads(taken[1])
    return frame


async def test_a_thousand_connections_of_one_instance_hear_one_change(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, DESCRIPTORS)), hard))
    name, began = fresh(), time.monotonic()
    with serving(tmp_path / "data") as server:
        async with AsyncExitStack() as stack:

            async def join() -> Wire:
                wire = await stack.enter_async_context(connected(server.port, head(f"/sync/{name}")))
                assert [(await hear(wire))["type"], (await hear(wire))["type"]] == ["auth_success", "sync"]
                return wire

            crowd: list[Wire] = []
            while len(crowd) < CROWD:
                crowd += await asyncio.gather(*(join() for _ in range(AT_ONCE)))
            with joined(server, name) as writer:
                writer.say("set", key="news", value="read by all", opId="news")
                writer.until("ack")
            heard = await asyncio.gather(*map(hear, crowd))
        assert len(heard) == CROWD
        assert {(frame["type"], frame["key"], frame["value"], frame["seq"]) for frame in heard} == {
            ("key_updated", "news", "read by all", 1)
        }
    assert time.monotonic() - began < CROWD_SECONDS
