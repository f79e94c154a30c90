"""What operators ask of accounts: the log of Clerk's events, synchronisation, consistency."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from app.accounts import clerk_webhook, consistency, synchronisation
from app.accounts.clerk_api import ClerkApi
from app.accounts.consistency import ConsistencyView
from app.accounts.synchronisation import SyncedUser, SyncedUsers
from app.edge.clock import instant, now_ms, parse_instant
from app.edge.database import Row
from app.edge.http import db_of, json_response, query_int
from app.edge.openapi import ADMIN, BEARER, Query, operation
from app.errors import Invalid
from app.identity.authenticator import authenticate_operator
from app.webhooks import queries as webhook_queries
from app.webhooks.log import FAILED, PENDING, SUCCESS

LOGS_LISTED = 50
LOGS_MOST = 200
OFFSET_MOST = 1_000_000
TYPES_COUNTED = 1_000
STATUSES = (PENDING, SUCCESS, FAILED)
CREDENTIALS = (BEARER, ADMIN)
ERRORS = (400, 401, 403, 429, 503)
PRIVATE = {"Cache-Control": "no-store"}


class LogView(msgspec.Struct):
    """An event as the log has it, but for its payload."""

    id: int
    event_id: str
    event_type: str
    processing_status: str
    error_message: str | None
    outcome: str | None
    attempts: int
    created_at: str
    updated_at: str


class Pagination(msgspec.Struct):
    total: int
    limit: int
    offset: int
    hasMore: bool


class LogsView(msgspec.Struct):
    logs: list[LogView]
    pagination: Pagination


class TypeCount(msgspec.Struct):
    event_type: str
    total: int = 0
    success: int = 0
    failed: int = 0
    pending: int = 0


class StatsView(msgspec.Struct):
    total: int
    success: int
    failed: int
    pending: int
    lastReceivedAt: str | None
    byType: list[TypeCount]


class RetryView(msgspec.Struct):
    """`duplicate` when the event had been processed before: then nothing was done."""

    success: bool
    duplicate: bool
    log: LogView


@operation(
    answer=LogsView,
    query=(
        Query("limit", {"type": "integer", "minimum": 1, "maximum": LOGS_MOST, "default": LOGS_LISTED}),
        Query("offset", {"type": "integer", "minimum": 0, "default": 0}),
        Query("status", {"type": "string", "enum": list(STATUSES)}),
        Query("event_type", {"type": "string"}, "Such as `user.updated`."),
    ),
    errors=ERRORS,
    credentials=CREDENTIALS,
)
async def show_logs(request: Request) -> Response:
    """Clerk's events, newest first, with what became of each."""
    await authenticate_operator(request)
    limit = query_int(request, "limit", LOGS_LISTED, least=1, most=LOGS_MOST)
    offset = query_int(request, "offset", 0, most=OFFSET_MOST)
    filters = (_status(request), request.query_params.get("event_type"))
    rows = await db_of(request).page(webhook_queries.LIST_LOGS, *filters, limit, offset)
    total = (await db_of(request).page(webhook_queries.COUNT_LOGS, *filters))[0][0]
    pagination = Pagination(total, limit, offset, offset + len(rows) < total)
    return json_response(LogsView([_log_view(row) for row in rows], pagination), headers=PRIVATE)


@operation(answer=StatsView, errors=ERRORS, credentials=CREDENTIALS)
async def show_stats(request: Request) -> Response:
    """How many of Clerk's events came, by type, and how many failed."""
    await authenticate_operator(request)
    rows = await db_of(request).page(webhook_queries.COUNT_LOGS_BY_TYPE, TYPES_COUNTED)
    return json_response(_stats(rows), headers=PRIVATE)


@operation(answer=RetryView, errors=(*ERRORS, 404, 500), credentials=CREDENTIALS)
async def retry(request: Request) -> Response:
    """Process a failed event from its stored payload. One that was done is left as it is."""
    await authenticate_operator(request)
    entry, duplicate = await clerk_webhook.replay(db_of(request), request.path_params["id"])
    return json_response(RetryView(True, duplicate, _log_view(entry)), headers=PRIVATE)


@operation(answer=SyncedUser, errors=(*ERRORS, 404, 502), credentials=CREDENTIALS)
async def sync_user(request: Request) -> Response:
    """Bring one user, by Clerk's id or ours, up to what Clerk's API says."""
    await authenticate_operator(request)
    synced = await synchronisation.sync_user(db_of(request), _clerk_of(request), request.path_params["userId"])
    return json_response(synced, headers=PRIVATE)


@operation(
    answer=SyncedUsers,
    query=(Query("offset", {"type": "integer", "minimum": 0, "default": 0}, "Where an earlier answer ended."),),
    errors=(*ERRORS, 502),
    credentials=CREDENTIALS,
)
async def sync_all_users(request: Request) -> Response:
    """Bring users up to what Clerk's API says, oldest first, at most 10 000 in one request."""
    await authenticate_operator(request)
    offset = query_int(request, "offset", 0, most=OFFSET_MOST)
    synced = await synchronisation.sync_users(db_of(request), _clerk_of(request), offset)
    return json_response(synced, headers=PRIVATE)


@operation(answer=ConsistencyView, errors=ERRORS, credentials=CREDENTIALS)
async def show_consistency(request: Request) -> Response:
    """Whether counters agree with the ledger, users have identities, and no event has failed."""
    await authenticate_operator(request)
    return json_response(await consistency.check(db_of(request), now_ms()), headers=PRIVATE)


def _clerk_of(request: Request) -> ClerkApi:
    clerk: ClerkApi = request.scope["state"]["clerk_api"]
    return clerk


def _status(request: Request) -> str | None:
    text = request.query_params.get("status")
    if text is not None and text not in STATUSES:
        raise Invalid(f"status: expected one of {', '.join(STATUSES)}, got {text[:40]!r}")
    return text


def _log_view(row: Row) -> LogView:
    """From the first nine columns of an entry."""
    times = [instant(parse_instant(text)) for text in row[7:9]]
    return LogView(*row[:7], *times)


def _stats(rows: list[Row]) -> StatsView:
    by_type: dict[str, TypeCount] = {}
    totals = dict.fromkeys(STATUSES, 0)
    for event_type, status, count, _ in rows:
        counted = by_type.setdefault(event_type, TypeCount(event_type))
        setattr(counted, status, count)
        counted.total += count
        totals[status] += count
    last = max((row[3] for row in rows), default=None)
    return StatsView(
        total=sum(totals.values()),
        success=totals[SUCCESS],
        failed=totals[FAILED],
        pending=totals[PENDING],
        lastReceivedAt=instant(parse_instant(last)) if last else None,
        byType=list(by_type.values()),
    )
