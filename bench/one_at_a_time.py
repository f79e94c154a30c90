"""One transaction at a time: the ingestion that most would write, with aiosqlite behind the same HTTP front.

It spares itself much of what litehouse does: roll-ups, alerts, limits, a look at who the user is.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiosqlite
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.edge import sqlite
from app.edge.clock import sql_text
from app.edge.writer import CHECKPOINT_PAGES
from app.usage.period import period_of
from bench.messages import EVENTS

KEYS = {os.environ["BENCH_KEY"]: "relay"}


class Event(msgspec.Struct):
    userId: str
    sessionId: str
    responseId: str
    model: str
    provider: str
    totalTokens: int
    inputTokens: int
    outputTokens: int
    inputTokenDetails: dict[str, int]
    outputTokenDetails: dict[str, int]


INSERT = """
    INSERT INTO usage_logs (
        user_id, session_id, response_id, event_id, provider, model, total_tokens, input_tokens, output_tokens,
        input_token_details, output_token_details, created_at, source, occurred_at_ms, received_at_ms, api_key_id,
        event_key, content_hash)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'api', ?, ?, ?, ?, ?)
"""

COUNT = """
    INSERT INTO usage_periods (
        user_id, period_start_ms, total_tokens, input_tokens, output_tokens, events, cost_micros, last_log_id)
    VALUES (?, ?, ?, ?, ?, 1, 0, last_insert_rowid())
    ON CONFLICT (user_id, period_start_ms) DO UPDATE SET
        total_tokens = total_tokens + excluded.total_tokens,
        input_tokens = input_tokens + excluded.input_tokens,
        output_tokens = output_tokens + excluded.output_tokens,
        events = events + 1,
        last_log_id = excluded.last_log_id
"""

_decode = msgspec.json.Decoder(Event).decode
_encode = msgspec.json.encode


async def ingest(request: Request) -> Response:
    key = KEYS.get(request.headers.get("authorization", "").removeprefix("Bearer "))
    if key is None:
        return Response(status_code=401)
    event = _decode(await request.body())
    now = time.time_ns() // 1_000_000
    db: aiosqlite.Connection = request.state.db
    async with request.state.turn:
        await db.execute(INSERT, _row(event, key, now))
        await db.execute(COUNT, _counts(event, now))
        await db.commit()
    result = {"index": 0, "id": event.responseId, "status": "accepted"}
    answer = {"accepted": 1, "duplicates": 0, "rejected": 0, "results": [result]}
    return Response(_encode(answer), media_type="application/json")


def _row(event: Event, key: str, now: int) -> tuple[Any, ...]:
    return (
        event.userId,
        event.sessionId,
        event.responseId,
        event.responseId,
        event.provider,
        event.model,
        event.totalTokens,
        event.inputTokens,
        event.outputTokens,
        _encode(event.inputTokenDetails).decode(),
        _encode(event.outputTokenDetails).decode(),
        sql_text(now),
        now,
        now,
        key,
        hashlib.blake2b(event.responseId.encode(), digest_size=16).digest(),
        hashlib.blake2b(_encode(event), digest_size=16).digest(),
    )


def _counts(event: Event, now: int) -> tuple[Any, ...]:
    period = period_of(now).start_ms
    return (event.userId, period, event.totalTokens, event.inputTokens, event.outputTokens)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    async with aiosqlite.connect(os.environ["DATABASE_PATH"]) as db:
        # As litehouse's writer has them, so that only the design differs.
        await db.execute("PRAGMA synchronous = FULL")
        await db.execute(f"PRAGMA cache_size = -{sqlite.PAGE_CACHE_KIB}")
        await db.execute(f"PRAGMA mmap_size = {sqlite.MMAP_BYTES}")
        await db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        yield {"db": db, "turn": asyncio.Lock()}


app = Starlette(routes=[Route(EVENTS, ingest, methods=["POST"])], lifespan=lifespan)
