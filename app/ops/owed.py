"""Owed: what arises on a machine that is not the primary and belongs into the core. It waits in the spool.

The primary takes each item once: an event and a webhook's event by their ids, the last use of a key because a repeat
says the same again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import msgspec
import structlog

from app.edge import desk, migrate
from app.edge.clock import now_ms
from app.edge.database import Database, Transaction
from app.edge.node import Node
from app.edge.peers import Peers
from app.edge.spool import Item, Spool
from app.errors import AppError, Unavailable
from app.identity import api_keys
from app.instances.relay import Enqueue
from app.projects import delegates
from app.usage import ledger
from app.usage.ledger import Poster
from app.usage.rows import Line
from app.webhooks import outbox
from app.webhooks.outbox import Event

SPOOL = "/peer/spool"
SPOOL_SECONDS = 10.0
REST_SECONDS = 5.0
EVENTS, KEY_USES, SECRET_USES, USAGE = "events", "key-uses", "secret-uses", "usage"

Refusals = dict[str, str]

log = structlog.get_logger("owed")

_encode = msgspec.msgpack.encode
_events = msgspec.msgpack.Decoder(tuple[str, str, str, int, bytes])
_uses = msgspec.msgpack.Decoder(tuple[int, str])
_usage = msgspec.msgpack.Decoder(tuple[Line, Poster])


async def open_spool(db: Database, node: Node, peers: Peers, path: Path, stack: AsyncExitStack) -> Spool | None:
    """Where what this machine owes waits; None on the primary, which takes it from the others."""
    if node.is_primary:
        peers.answers |= answers(db)
        return None
    machine = await _open(path)
    stack.push_async_callback(machine.close)

    async def send(kind: str, items: Sequence[Item]) -> Refusals:
        return await desk.ask(peers, peers.primary, SPOOL, Refusals, kind, items, seconds=SPOOL_SECONDS)

    spool = Spool(machine, send)
    stack.push_async_callback(_send_rest, spool)
    return spool


async def take_own(db: Database, path: Path) -> None:
    """What this machine owed before it became the primary is its own to write now. Until cancelled."""
    if not await asyncio.to_thread(path.exists):
        return
    machine = await _open(path)
    try:
        await Spool(machine, partial(_take_batch, db)).run()
    finally:
        await machine.close()


def answers(db: Database) -> dict[str, Callable[[bytes, str], Awaitable[bytes]]]:
    """What the primary says to those that owe it something."""
    return {SPOOL: desk.answer_of(partial(_take_batch, db), tuple[str, list[Item]])}


def enqueue_in(spool: Spool) -> Enqueue:
    """What carries the events of instances by way of a spool."""

    async def enqueue(instance_id: str, told: Sequence[Event]) -> None:
        await spool.put(EVENTS, events(instance_id, told))

    return enqueue


def events(instance_id: str, told: Iterable[Event]) -> list[Item]:
    return [Item(event.id, _encode((instance_id, *event[:3], _as_bytes(event.data)))) for event in told]


def uses(used: Iterable[tuple[int, str]]) -> list[Item]:
    return [Item(f"{key_id}@{at}", _encode((at, key_id))) for at, key_id in used]


def usage(lines: Iterable[Line], poster: Poster) -> list[Item]:
    return [Item(line.event.key.hex(), _encode((line, poster))) for line in lines]


def take(tx: Transaction, kind: str, items: Sequence[Item], now: int) -> Refusals:
    """Write a batch of one kind; why an item is refused for ever. Unavailable for a kind of later code."""
    job = _JOBS.get(kind)
    if job is None:
        raise Unavailable(f"This primary does not know what {kind} is")
    refused = Refusals()
    for item in items:
        try:
            reason = job(tx, item.payload, now)
        except msgspec.MsgspecError as error:
            reason = str(error)
        if reason is not None:
            refused[item.item_id] = reason
    return refused


async def _send_rest(spool: Spool) -> None:
    """A machine that ends may be one that does not come back."""
    try:
        async with asyncio.timeout(REST_SECONDS):
            await spool.drain()
    except (AppError, TimeoutError) as error:
        log.warning("rest_not_sent", error=repr(error))


async def _open(path: Path) -> Database:
    await asyncio.to_thread(migrate.migrate, path, "machine")
    machine = Database(path)
    machine.open()
    return machine


async def _take_batch(db: Database, kind: str, items: Sequence[Item]) -> Refusals:
    return await db.write(take, kind, items, now_ms())


def _take_event(tx: Transaction, payload: bytes, now: int) -> str | None:
    instance_id, event_id, kind, at_ms, data = _events.decode(payload)
    outbox.enqueue_instance_events(tx, instance_id, [Event(event_id, kind, at_ms, data)], now)
    return None


def _take_key_use(tx: Transaction, payload: bytes, now: int) -> str | None:
    api_keys.write_uses(tx, [_uses.decode(payload)])
    return None


def _take_secret_use(tx: Transaction, payload: bytes, now: int) -> str | None:
    delegates.write_uses(tx, [_uses.decode(payload)])
    return None


def _take_usage(tx: Transaction, payload: bytes, now: int) -> str | None:
    line, poster = _usage.decode(payload)
    result = ledger.record_received(tx, [line], poster, now).results[0]
    return result.error if result.status == "rejected" else None


def _as_bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data


_JOBS: dict[str, Callable[[Transaction, bytes, int], str | None]] = {
    EVENTS: _take_event,
    KEY_USES: _take_key_use,
    SECRET_USES: _take_secret_use,
    USAGE: _take_usage,
}
