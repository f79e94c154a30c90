"""Export: the ledger row by row, a user's own or all of it, a bounded page a transaction.

A slow reader holds no transaction open: the next page is read when the last one has gone. Rows that have left the
core are read from the archive, in the same order and without a seam; that file is the primary's, so this runs there.
"""

import csv
import io
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.edge.database import SCAN_PAGE_ROWS, Database, Row
from app.edge.http import db_of, encode_json, query_choice
from app.edge.openapi import ADMIN, API_KEY, BEARER, Query, operation
from app.identity.authenticator import authenticate
from app.identity.door import METERED
from app.usage import queries
from app.usage.history import ERRORS, INSTANT, LATEST_MS, read_range
from app.usage.period import period_of
from app.usage.routes import READ

OCCURRED = queries.EXPORTED.index("occurred_at_ms")

Pages = AsyncIterator[list[Row]]


@operation(
    answer=str,
    answer_media="text/csv",
    query=(
        Query("format", {"enum": ["csv", "ndjson"], "default": "csv"}),
        Query("from", INSTANT, "Everything unless given."),
        Query("to", INSTANT, "Exclusive."),
    ),
    errors=ERRORS,
    credentials=(BEARER, API_KEY, ADMIN),
)
async def export(request: Request) -> Response:
    """The ledger as CSV or NDJSON with its own column names.

    A user gets its own rows, newest first in each period; an admin header gets all of it, in the order of its ids.
    """
    principal = await authenticate(request, METERED, READ, operators=True)
    since, until = read_range(request, 0, LATEST_MS)
    form = query_choice(request, "format", ("csv", "ndjson"))
    db = db_of(request)
    if principal.account is None:
        pages = _all_rows(db, await db.read(queries.get_newest_log), since, until)
    else:
        first_period = period_of(since).start_ms
        heads = await db.read(queries.list_chain_heads, principal.account.user_id, first_period, until)
        pages = _own_rows(db, heads, since, until)
    headers = {
        "Cache-Control": "private, no-store",
        "Vary": "Authorization",
        "Content-Disposition": f'attachment; filename="usage.{form}"',
    }
    if form == "csv":
        return StreamingResponse(_as_csv(pages), headers=headers, media_type="text/csv; charset=utf-8")
    return StreamingResponse(_as_ndjson(pages), headers=headers, media_type="application/x-ndjson")


async def _all_rows(db: Database, newest: int, since: int, until: int) -> Pages:
    async for rows in db.scan(queries.SCAN_LOGS, after=0, until=newest, archived=True):
        yield [row for row in rows if since <= row[OCCURRED] < until]


async def _own_rows(db: Database, heads: list[int], since: int, until: int) -> Pages:
    """Each period's chain of rows, from its newest back."""
    for head in heads:
        at: int | None = head
        while at is not None:
            rows = await db.page_of_both(queries.PAGE_CHAIN, at, SCAN_PAGE_ROWS)
            yield [row[:-1] for row in rows if since <= row[OCCURRED] < until]
            at = rows[-1][-1] if rows else None


async def _as_csv(pages: Pages) -> AsyncIterator[str]:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(queries.EXPORTED)
    yield text.getvalue()
    async for page in pages:
        text.seek(0)
        text.truncate()
        writer.writerows(page)
        yield text.getvalue()


async def _as_ndjson(pages: Pages) -> AsyncIterator[bytes]:
    async for page in pages:
        yield b"".join(encode_json(dict(zip(queries.EXPORTED, row, strict=True))) + b"\n" for row in page)
