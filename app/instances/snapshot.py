"""Snapshots: an instance as `sync` sends it, encoded once for all who join, written in slices as each one reads.

Every entry is encoded for itself. A later snapshot takes over from an earlier one that is still being sent whatever
has not changed, so an instance is held once more while somebody joins, and not once for each who does.
"""

import asyncio
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from app.instances import protocol
from app.instances.draft import State
from app.instances.entry import Entry, sort

SLICE_BYTES = 64 << 10
# How long a snapshot is held that nobody is being sent any more: a crowd comes back within this time.
HELD_SECONDS = 1.0


class Part(NamedTuple):
    """An entry and its member of `sync`'s data."""

    entry: Entry
    encoded: bytes


class Snapshot:
    """The parts of one seq, in order, by key."""

    def __init__(self, instance_id: str, state: State, before: "Snapshot | None") -> None:
        self._instance_id = instance_id
        self.seq = state.seq
        known = before.parts if before is not None else {}
        self.parts: dict[str, Part] = {
            held.key: _part(held, known.get(held.key)) for held in sort(state.entries.values())
        }

    def slices(self, wants: Callable[[Entry], bool], reason: str | None) -> Iterator[bytes]:
        """The `sync` frame of those entries that somebody wants, in slices of SLICE_BYTES."""
        wanted = (part.encoded for part in self.parts.values() if wants(part.entry))
        # Yielded from here, so that the snapshot is there as long as somebody is being sent it.
        yield from slice_up(protocol.sync(wanted, self._instance_id, self.seq, reason))


class Snapshots:
    """The newest snapshot of one instance: there while somebody is being sent it, and HELD_SECONDS at least."""

    def __init__(self, instance_id: str) -> None:
        self._instance_id = instance_id
        self._newest: Callable[[], Snapshot | None] = _none
        self._held: Snapshot | None = None

    def take(self, state: State) -> Snapshot:
        newest = self._newest()
        if newest is None or newest.seq != state.seq:
            newest = Snapshot(self._instance_id, state, newest)
            self._newest = weakref.ref(newest)
        if self._held is None:
            asyncio.get_running_loop().call_later(HELD_SECONDS, self._let_go)
        self._held = newest
        return newest

    def _let_go(self) -> None:
        self._held = None


def slice_up(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in slices of SLICE_BYTES, each made when it is asked for."""
    gathered: list[bytes | memoryview] = []
    room = SLICE_BYTES
    for piece in pieces:
        rest = memoryview(piece)
        while len(rest) >= room:
            gathered.append(rest[:room])
            yield b"".join(gathered)
            rest, gathered, room = rest[room:], [], SLICE_BYTES
        gathered.append(rest)
        room -= len(rest)
    yield b"".join(gathered)


def _part(entry: Entry, before: Part | None) -> Part:
    if before is not None and before.entry is entry:
        return before
    return Part(entry, protocol.sync_entry(entry))


def _none() -> None:
    return None
