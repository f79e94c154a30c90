"""Snapshots: one encoding for all who join, shared with the next one, gone when nobody is being sent it."""

import gc
import json
import weakref
from pathlib import Path

import msgspec
import pytest

from app.instances.draft import State
from app.instances.entry import Entry
from app.instances.snapshot import SLICE_BYTES, Snapshots, slice_up
from tests.instances.live import live
from tests.waiting import comes

pytestmark = pytest.mark.anyio

MIB = 1 << 20


def entry(key: str, value: object, seq: int) -> Entry:
    return Entry(key, msgspec.Raw(json.dumps(value).encode()), {"type": "text", "zIndex": 0}, 7, seq)


def everything(held: Entry) -> bool:
    return True


async def test_who_joins_at_the_same_seq_is_sent_the_same_encoding() -> None:
    snapshots, state = Snapshots("i"), State({"a": entry("a", 1, 1)}, 1, 0)
    assert snapshots.take(state) is snapshots.take(state)


async def test_a_later_snapshot_encodes_only_what_has_changed() -> None:
    snapshots, kept = Snapshots("i"), entry("a", "x" * MIB, 1)
    first = snapshots.take(State({"a": kept, "b": entry("b", 1, 2)}, 2, 0))
    later = snapshots.take(State({"a": kept, "b": entry("b", 2, 3)}, 3, 0))
    assert later.parts["a"].encoded is first.parts["a"].encoded
    told = [json.loads(b"".join(snapshot.slices(everything, None))) for snapshot in (first, later)]
    assert [(frame["seq"], frame["data"]["b"]["value"]) for frame in told] == [(2, 1), (3, 2)]


async def test_slices_are_what_was_to_be_sent() -> None:
    pieces = [b"a" * (SLICE_BYTES - 1), b"bc", b"", b"d" * 3 * SLICE_BYTES, b"e"]
    slices = list(slice_up(pieces))
    assert b"".join(slices) == b"".join(pieces)
    assert [len(one) for one in slices] == [SLICE_BYTES] * 4 + [2]
    assert list(slice_up([])) == [b""]


async def test_a_snapshot_is_there_while_somebody_is_being_sent_it_and_no_longer(tmp_path: Path) -> None:
    async with live(tmp_path) as served:
        name = await served.make("room")
        async with served.joined(name) as writer:
            for number in range(10):
                await writer.say("set", key=f"k{number}", value="x" * MIB)
                await writer.hear()
            hub = await served.hubs.open(name)
            (joined,) = hub.audience.members.values()
            snapshots, state = hub._snapshots, hub._state
            # What the writer was sent when the room was empty is gone by now, or soon.
            async with served.wire(name) as wire:
                await wire.receive()
                await comes(lambda: len(hub.audience.members) == 2)
                reader = next(member for member in hub.audience.members.values() if member is not joined)
                assert reader.socket.unfinished
                held = weakref.ref(snapshots.take(state))
                await comes(lambda: snapshots._held is None)
                assert held() is not None
                assert snapshots.take(state) is held()
                wire.vanish()
            await comes(lambda: len(hub.audience.members) == 1 and snapshots._held is None)
            del reader
            gc.collect()
            assert held() is None
