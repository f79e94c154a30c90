"""The outbox: whoever stops reading is let go, with all that was kept for it."""

import gc
import json
import time
import weakref
from pathlib import Path

import pytest

from app.edge import socket
from app.instances.member import Member
from app.instances.outbox import COALESCED_BYTES, SLOW_SECONDS
from tests.instances.live import Live, live
from tests.waiting import comes

pytestmark = pytest.mark.anyio

MIB = 1 << 20
CUT_OFF_SECONDS = 0.2


async def fill(served: Live, name: str, keys: int = 20) -> None:
    async with served.joined(name) as writer:
        for number in range(keys):
            await writer.say("set", key=f"k{number}", value="x" * MIB)
            await writer.hear()


async def until_congested(served: Live, member: Member) -> None:
    await comes(lambda: member.socket.congested)


async def test_a_joiner_that_vanishes_in_the_middle_of_its_sync_is_cut_off_and_its_memory_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "CLOSE_SECONDS", CUT_OFF_SECONDS)
    async with live(tmp_path) as served:
        name = await served.make("room")
        await fill(served, name)
        hub = await served.hubs.open(name)
        async with served.joined(name), served.wire(name) as wire:
            await comes(lambda: len(hub.audience.members) == 2)
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
            stays, stuck = hub.audience.members.values()
            await until_congested(served, stuck)
            assert stuck.socket.unfinished
            snapshot, member = weakref.ref(hub._snapshots.take(hub._state)), weakref.ref(stuck)
            hub.audience.drop_slow(time.monotonic() + SLOW_SECONDS - 1)
            assert stuck.socket.is_open
            hub.audience.drop_slow(time.monotonic() + SLOW_SECONDS + 1)
            assert not stuck.socket.is_open
            assert stays.socket.is_open
            del stuck
            await comes(lambda: list(hub.audience.members.values()) == [stays])
            await comes(lambda: hub._snapshots._held is None)
            gc.collect()
            assert (snapshot(), member()) == (None, None)


async def test_who_takes_something_now_and_then_is_not_too_slow(tmp_path: Path) -> None:
    async with live(tmp_path) as served:
        name = await served.make("room")
        await fill(served, name)
        hub = await served.hubs.open(name)
        async with served.wire(name) as wire:
            await comes(lambda: len(hub.audience.members) == 1)
            (slow,) = hub.audience.members.values()
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
            began = slow.socket.congested_at
            wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
            await wire.receive()
            for _ in range(100):
                await wire.receive_part()
            await comes(lambda: slow.socket.congested_at > began)
            hub.audience.drop_slow(began + SLOW_SECONDS)
            assert slow.socket.is_open


async def test_what_is_kept_for_a_connection_is_bounded_also_while_it_is_being_closed(tmp_path: Path) -> None:
    async with live(tmp_path) as served:
        name = await served.make("room")
        hub = await served.hubs.open(name)
        async with served.wire(name) as wire:
            await comes(lambda: len(hub.audience.members) == 1)
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
            (slow,) = hub.audience.members.values()
            while not slow.outbox.lags:
                slow.socket.write(b'"' + b"x" * MIB + b'"')
            for number in range(5 + 3 * COALESCED_BYTES // MIB):
                slow.outbox.send(json.dumps([number, "x" * MIB]).encode())
                assert slow.outbox._kept_bytes <= COALESCED_BYTES
            assert not slow.socket.is_open
            assert slow.outbox._kept == {}


async def test_answers_come_in_their_place_among_the_changes_that_were_kept(tmp_path: Path) -> None:
    async with live(tmp_path) as served:
        name = await served.make("room")
        await fill(served, name)
        hub = await served.hubs.open(name)
        async with served.dial(name) as slow, served.joined(name) as writer:
            assert (await slow.hear())["type"] == "auth_success"
            member = next(iter(hub.audience.members.values()))
            while not member.outbox.lags:
                member.socket.write(b'{"type":"padding","value":"%s"}' % (b"x" * MIB))
            for number in range(4):
                await writer.say("set", key=f"n{number % 2}", value=number)
                seq = (await writer.hear())["seq"]
                member.send(b'{"type":"ack","seq":%d}' % seq)
            await writer.say("clear", opId="clear")
            await writer.until("ack")
            await writer.say("set", key="n0", value="last")
            await writer.hear()
            heard = [await slow.hear()]
            while heard[-1].get("value") != "last":
                heard.append(await slow.hear())
            kept = [(frame["type"], frame["seq"]) for frame in heard if frame["type"] not in ("sync", "padding")]
            # The clear makes what was kept of keys useless, never an answer.
            assert kept == [*[("ack", seq) for seq in range(21, 25)], ("cleared", 25), ("key_updated", 26)]
