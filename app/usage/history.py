"""History and export: what was spent when, from the roll-ups, and row by row from the ledger."""

import csv
import io
from collections.abc import AsyncIterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.edge.clock import instant, now_ms
from app.edge.database import SCAN_PAGE_ROWS, Database, Row
from app.edge.http import cached_response, db_of, encode_json, query_choice, query_instant
from app.edge.openapi import API_KEY, BEARER, Query, operation
from app.errors import Invalid
from app.identity.authenticator import authenticate
from app.identity.door import METERED
from app.identity.principal import account_of
from app.usage import queries
from app.usage.period import DAY_MS, day_start, period_of
from app.usage.routes import READ

GROUPS = 1_000
GROUPINGS = ("day", "model", "session", "endpoint")
LATEST_MS = 253_402_300_800_000
UNNAMED = "unknown"
INSTANT = {"type": "string", "format": "date-time"}
ERRORS = (400, 401, 403, 429, 503)


class Spent(msgspec.Struct, frozen=True):
    group: str
    totalTokens: int
    inputTokens: int
    outputTokens: int
    events: int
    costMicros: int


class HistoryView(msgspec.Struct, frozen=True):
    """`[from, to)` in whole UTC days, at most 1 000 groups."""

    from_: str = msgspec.field(name="from")
    to: str
    groupBy: str
    history: list[Spent]


@operation(
    answer=HistoryView,
    query=(
        Query("from", INSTANT, "First day; the start of this period unless given."),
        Query("to", INSTANT, "The day after the last; the end of this period unless given."),
        Query("groupBy", {"enum": list(GROUPINGS), "default": "day"}),
    ),
    errors=ERRORS,
    credentials=(BEARER, API_KEY),
    cached=True,
)
async def show_history(request: Request) -> Response:
    """What was spent by day, model, session or endpoint, for plots."""
    account = account_of(await authenticate(request, METERED, READ))
    period = period_of(now_ms())
    since, until = _range(request, period.start_ms, period.end_ms)
    group = query_choice(request, "groupBy", GROUPINGS)
    since, until = day_start(since), day_start(until + DAY_MS - 1)
    rows = await db_of(request).read(queries.list_history, account.user_id, group, since, until, GROUPS)
    history = [Spent(row[0] or UNNAMED, *row[1:]) for row in rows]
    return cached_response(
        request, HistoryView(from_=instant(since), to=instant(until), groupBy=group, history=history)
    )


@operation(
    answer=str,
    answer_media="text/csv",
    query=(
        Query("format", {"enum": ["csv", "ndjson"], "default": "csv"}),
        Query("from", INSTANT, "Everything unless given."),
        Query("to", INSTANT, "Exclusive."),
    ),
    errors=ERRORS,
    credentials=(BEARER, API_KEY),
)
async def export(request: Request) -> Response:
    """The caller's ledger rows, newest first in each period, as CSV or NDJSON with the ledger's column names."""
    account = account_of(await authenticate(request, METERED, READ))
    since, until = _range(request, 0, LATEST_MS)
    form = query_choice(request, "format", ("csv", "ndjson"))
    db = db_of(request)
    first_period = period_of(since).start_ms
    heads = await db.read(queries.list_chain_heads, account.user_id, first_period, until)
    pages = _pages(db, heads, since, until)
    headers = {
        "Cache-Control": "private, no-store",
        "Vary": "Authorization",
        "Content-Disposition": f'attachment; filename="usage.{form}"',
    }
    if form == "csv":
        return StreamingResponse(_as_csv(pages), headers=headers, media_type="text/csv; charset=utf-8")
    return StreamingResponse(_as_ndjson(pages), headers=headers, media_type="application/x-ndjson")


def _range(request: Request, since: int, until: int) -> tuple[int, int]:
    since, until = query_instant(request, "from", since), query_instant(request, "to", until)
    if not 0 <= since <= until <= LATEST_MS:
        raise Invalid("from, to: expected from to be no later than to")
    return since, until


async def _pages(db: Database, heads: list[int], since: int, until: int) -> AsyncIterator[list[Row]]:
    """The rows of each period's chain, a bounded page a transaction; a slow reader holds none open."""
    occurred = queries.EXPORTED.index("occurred_at_ms")
    for head in heads:
        at: int | None = head
        while at is not None:
            rows = await db.page(queries.PAGE_CHAIN, at, SCAN_PAGE_ROWS)
            yield [row[:-1] for row in rows if since <= row[occurred] < until]
            at = rows[-1][-1] if rows else None


async def _as_csv(pages: AsyncIterator[list[Row]]) -> AsyncIterator[str]:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(queries.EXPORTED)
    yield text.getvalue()
    async for page in pages:
        text.seek(0)
        text.truncate()
        writer.writerows(page)
        yield text.getvalue()


async def _as_ndjson(pages: AsyncIterator[list[Row]]) -> AsyncIterator[bytes]:
    async for page in pages:
        yield b"".join(encode_json(dict(zip(queries.EXPORTED, row, strict=True))) + b"\n" for row in page)
