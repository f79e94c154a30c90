"""History: what was spent when, from the roll-ups."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from app.edge.clock import instant, now_ms
from app.edge.http import cached_response, db_of, query_choice, query_instant
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
# 9999-12-31: the last midnight that answers can name, so that a day which is rounded up to it has a name too.
LATEST_MS = 253_402_214_400_000
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
    since, until = read_range(request, period.start_ms, period.end_ms)
    group = query_choice(request, "groupBy", GROUPINGS)
    since, until = day_start(since), day_start(until + DAY_MS - 1)
    rows = await db_of(request).read(queries.list_history, account.user_id, group, since, until, GROUPS)
    history = [Spent(row[0] or UNNAMED, *row[1:]) for row in rows]
    return cached_response(
        request, HistoryView(from_=instant(since), to=instant(until), groupBy=group, history=history)
    )


def read_range(request: Request, since: int, until: int) -> tuple[int, int]:
    """`[from, to)` from the query, in milliseconds, up to LATEST_MS. Invalid when it ends before it begins."""
    since, until = query_instant(request, "from", since), min(query_instant(request, "to", until), LATEST_MS)
    if not 0 <= since <= until:
        raise Invalid("from, to: expected instants since 1970, and from to be no later than to")
    return since, until
