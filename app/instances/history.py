"""History: what was changed when and by whom, and the changes that take it back."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from app.edge.clock import now_ms
from app.errors import Gone, NotFound, TooLarge
from app.instances import history_queries
from app.instances.draft import Change
from app.instances.entry import NEVER_MS, Entry
from app.instances.history_queries import Before
from app.instances.hub import Hub
from app.instances.protocol import INSTANCE_BYTES, Delete, Set
from app.instances.queries import Told

NO_CHANGE = "Change not found"
PAGE_BYTES = 16 << 20


class Asked(NamedTuple):
    """Whose changes are undone: all that is named must be true of them."""

    actor: str | None
    turn_id: str | None
    op_id: str | None
    since: int | None


class Undone(NamedTuple):
    """The changes that undo, and the keys that somebody else has changed since."""

    changes: list[Change]
    skipped: list[str]


def check_told(hub: Hub, since: int) -> None:
    """Gone when not every change after `since` is kept."""
    if since + 1 < hub.told_from:
        raise Gone(f"Changes before {hub.told_from} are kept no longer", certain=True)


async def read_page(hub: Hub, key: str | None, actor: str | None, since: int, below: int, limit: int) -> list[Told]:
    """Changes newest first, at most `limit` and about PAGE_BYTES."""
    return await hub.read_file(history_queries.list_told, key, actor, since, below, limit, PAGE_BYTES)


async def plan_revert(hub: Hub, entries: Mapping[str, Entry], seq: int) -> list[Change]:
    """What makes it again as it was after `seq`. NotFound for a change that is yet to come, Gone for an old one."""
    if seq > hub.seq:
        raise NotFound(NO_CHANGE, certain=True)
    check_told(hub, seq)
    return _restored(await hub.read_file(history_queries.list_before, seq), entries)


async def plan_undo(hub: Hub, entries: Mapping[str, Entry], asked: Asked) -> Undone:
    """What takes back the changes that are asked for, key by key down to the last change of somebody else."""
    if asked.since is not None:
        check_told(hub, asked.since)
    return await hub.read_file(_undo, entries, asked)


def _undo(raw: Any, stored: Mapping[str, Entry], asked: Asked) -> Undone:
    steps = history_queries.list_steps(raw, asked.actor, asked.turn_id, asked.op_id, asked.since or 0)
    if not any(mine for _, _, mine in steps):
        raise NotFound(NO_CHANGE, certain=True)
    first, skipped = _first_steps(raw, steps)
    return Undone(_restored([history_queries.get_before(raw, seq, key) for key, seq in first.items()], stored), skipped)


def _first_steps(raw: Any, steps: Sequence[tuple[int, str | None, bool]]) -> tuple[dict[str, int], list[str]]:
    """The first change of each key that nobody else's has followed, and the keys without one."""
    first: dict[str, int] = {}
    foreign: set[str] = set()
    skipped: dict[str, None] = {}
    all_foreign = False
    for seq, changed, mine in steps:
        keys = [changed] if changed is not None else [held.key for held in history_queries.list_cleared(raw, seq)]
        if not mine:
            foreign.update(keys)
            all_foreign = all_foreign or changed is None
            continue
        for key in keys:
            if key not in foreign and not all_foreign:
                first[key] = seq
            elif key not in first:
                skipped[key] = None
    return first, sorted(skipped)


def _restored(held: Sequence[Before], stored: Mapping[str, Entry]) -> list[Change]:
    """Deletions first, then what shrinks, so that nothing is too large on the way."""
    size = sum(len(before.value or "") for before in held)
    if size > INSTANCE_BYTES:
        raise TooLarge(f"Too much to restore: {size} bytes (max: {INSTANCE_BYTES})", limit=INSTANCE_BYTES, actual=size)
    now = now_ms()
    gone: list[Change] = []
    sets: list[tuple[int, Set]] = []
    for before in held:
        there = stored.get(before.key)
        expired = before.expires_at_ms is not None and before.expires_at_ms <= now
        if before.value is not None and before.attributes is not None and not expired:
            grown = len(before.value) - (memoryview(there.value).nbytes if there is not None else 0)
            sets.append((grown, _set_of(before)))
        elif there is not None:
            gone.append(Delete(before.key))
    return [*gone, *(change for _, change in sorted(sets, key=lambda sized: sized[0]))]


def _set_of(before: Before) -> Set:
    attributes = msgspec.json.decode(before.attributes or "{}", type=dict[str, object])
    value = msgspec.Raw((before.value or "null").encode())
    return Set(before.key, value, attributes, expires_at=before.expires_at_ms or NEVER_MS)
