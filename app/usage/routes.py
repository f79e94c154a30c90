"""The endpoints of metering."""

from starlette.requests import Request
from starlette.responses import Response

from app.edge import idempotency
from app.edge.clock import now_ms
from app.edge.http import cached_response, db_of, find_header, find_query, gunzip, query_choice, read_body
from app.edge.metrics import Metrics
from app.edge.openapi import ADMIN, API_KEY, BEARER, Query, operation
from app.errors import AppError, Forbidden, Invalid, NotFound
from app.identity.authenticator import authenticate
from app.identity.door import INGESTION, METERED
from app.identity.principal import Principal, account_of
from app.usage import ledger, quota, wire
from app.usage.events import UNSUPPORTED, Event, Unsupported, read_event
from app.usage.ledger import Outcome, Poster
from app.usage.wire import Refused

WRITE = "write:usage"
READ = "read:usage"


async def poster_of(request: Request) -> Poster:
    """The key that writes usage. Forbidden for a signed-in user: usage comes from a relay."""
    principal = await authenticate(request, INGESTION, WRITE)
    if principal.key is None or principal.account is None:
        raise Forbidden("An API key with scope write:usage is required")
    return Poster(principal.key.id, None if principal.key.by_operator else principal.account.user_id)


@operation(
    answer=Outcome,
    body=wire.Wire | list[wire.Wire],
    body_media=("application/json", wire.NDJSON, wire.CLOUDEVENT, wire.CLOUDEVENTS),
    query=(Query("atomic", {"type": "boolean"}, "All or nothing: 422 when any event is rejected."),),
    errors=(400, 401, 403, 409, 413, 422, 429, 503),
    credentials=(API_KEY,),
    example={"userId": "dev-user", "responseId": "resp_1", "model": "gpt-realtime", "totalTokens": 1200},
    idempotent=True,
)
async def ingest(request: Request) -> Response:
    """Record usage events.

    One event, an array or NDJSON, gzipped or not, at most 1 000 events or 5 MB. Each event is native, a raw event of
    OpenAI's Realtime API, or a CloudEvent of either. `(source, id)` counts once for ever.
    """
    poster = await poster_of(request)
    body = await _read_events_body(request)
    now = now_ms()
    items = [_normalise(item, now) for item in wire.read_items(body, _media(request))]
    atomic = query_choice(request, "atomic", ("false", "true")) == "true"
    once = await idempotency.write_once(
        request, poster.key_id or "", body, 200, ledger.record, items, poster, now, atomic
    )
    _count(request, once.value)
    return once.response


async def _read_events_body(request: Request) -> bytes:
    body = await read_body(request, wire.BODY_BYTES)
    encoding = (find_header(request, b"content-encoding") or b"identity").lower()
    if encoding == b"gzip":
        return gunzip(body, wire.BODY_BYTES)
    if encoding != b"identity":
        raise Invalid(f"Content-Encoding: expected gzip, got {encoding[:40].decode('latin-1')!r}")
    return body


def _count(request: Request, outcome: Outcome | None) -> None:
    metrics: Metrics = request.scope["state"]["metrics"]
    if outcome is not None:
        metrics.count_events(outcome.accepted, outcome.duplicates, outcome.rejected)


def _media(request: Request) -> str:
    held = find_header(request, b"content-type") or b""
    return held.partition(b";")[0].strip().lower().decode("latin-1")


def _normalise(item: wire.Wire | Refused, now: int) -> Event | Refused:
    if isinstance(item, Refused):
        return item
    try:
        return read_event(item, now)
    except AppError as error:
        code = UNSUPPORTED if isinstance(error, Unsupported) else error.code
        return Refused(code, error.message, item.id or item.responseId or item.event_id)


@operation(
    answer=quota.QuotaView,
    query=(Query("userId", {"type": "string"}, "Another user's quota, with an operator's credential."),),
    errors=(400, 401, 403, 404, 429, 503),
    credentials=(BEARER, API_KEY, ADMIN),
    cached=True,
)
async def show_quota(request: Request) -> Response:
    """What a user may spend in this period, has spent, and has left. Poll it: it has a strong ETag."""
    principal = await authenticate(request, METERED, READ, operators=True)
    asked = _asked_user(request, principal)
    if asked is None:
        found = await db_of(request).read_one(quota.read_quota, account_of(principal).user_id, now_ms())
    else:
        found = await db_of(request).read_one(quota.read_any_quota, asked, now_ms())
    if found is None:
        raise NotFound("User not found")
    return cached_response(request, quota.view(found))


def _asked_user(request: Request, principal: Principal) -> str | None:
    """Whose quota is asked for, with an operator's credential; None for the caller's own."""
    asked = find_query(request, "userId")
    if asked is None:
        if principal.account is None:
            raise Invalid("userId: an admin credential has no quota of its own")
        return None
    if not (principal.is_operator or (principal.key is not None and principal.key.by_operator)):
        raise Forbidden("Another user's quota needs an operator's credential")
    return asked
