"""The endpoints of reservations."""

from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from app.edge import idempotency
from app.edge.clock import now_ms
from app.edge.http import decode_json, read_body
from app.edge.metrics import Metrics
from app.edge.openapi import API_KEY, operation
from app.errors import Invalid, QuotaExceeded
from app.usage import ledger, reservations
from app.usage.events import Event, read_event
from app.usage.reservations import LONGEST_TTL_SECONDS, TTL_SECONDS, Asked, Extended, Granted, Released, Settled
from app.usage.routes import poster_of
from app.usage.wire import Count, Text, Wire

Ttl = Annotated[int, msgspec.Meta(ge=1, le=LONGEST_TTL_SECONDS)]
ERRORS = (400, 401, 403, 404, 409, 413, 422, 429, 503)


class NewReservation(msgspec.Struct):
    maxTokens: Count
    userId: Text | None = None
    ttlSeconds: Ttl = TTL_SECONDS
    id: Text | None = None


class Extension(msgspec.Struct):
    ttlSeconds: Ttl = TTL_SECONDS


@operation(
    answer=Granted,
    status=201,
    body=NewReservation,
    errors=(402, *ERRORS),
    credentials=(API_KEY,),
    example={"userId": "dev-user", "maxTokens": 5000},
    idempotent=True,
)
async def create(request: Request) -> Response:
    """Hold tokens before they are spent: all of `maxTokens` or nothing. 402 says how many would fit."""
    poster = await poster_of(request)
    body = await read_body(request)
    form = decode_json(body, NewReservation)
    asked = Asked(form.userId, form.maxTokens, form.ttlSeconds, _plain(form.id))
    try:
        once = await idempotency.write_once(
            request, poster.key_id or "", body, 201, reservations.reserve, asked, poster, now_ms()
        )
    except QuotaExceeded:
        metrics: Metrics = request.scope["state"]["metrics"]
        metrics.count_quota_refusal()
        raise
    return once.response


@operation(
    answer=Settled,
    body=Wire,
    errors=ERRORS,
    credentials=(API_KEY,),
    example={"totalTokens": 1200, "model": "gpt-realtime"},
    idempotent=True,
)
async def settle(request: Request) -> Response:
    """Record what a reserved call has spent, in full, and end its hold. The event's fields are those of ingestion."""
    poster = await poster_of(request)
    body = await read_body(request)
    event = _read_settlement(body)
    once = await idempotency.write_once(
        request, poster.key_id or "", body, 200, reservations.settle, _id(request), event, poster, now_ms()
    )
    return once.response


@operation(answer=Released, errors=ERRORS, credentials=(API_KEY,), idempotent=True)
async def release(request: Request) -> Response:
    """Give a hold back; nothing was spent."""
    poster = await poster_of(request)
    body = await read_body(request)
    once = await idempotency.write_once(
        request, poster.key_id or "", body, 200, reservations.release, _id(request), poster, now_ms()
    )
    return once.response


@operation(answer=Extended, body=Extension, errors=ERRORS, credentials=(API_KEY,), idempotent=True)
async def extend(request: Request) -> Response:
    """Let a hold live for another `ttlSeconds` from now."""
    poster = await poster_of(request)
    body = await read_body(request)
    form = decode_json(body or b"{}", Extension)
    once = await idempotency.write_once(
        request, poster.key_id or "", body, 200, reservations.extend, _id(request), form.ttlSeconds, poster, now_ms()
    )
    return once.response


def _id(request: Request) -> str:
    reservation_id: str = request.path_params["id"]
    return reservation_id


def _plain(text: str | None) -> str | None:
    if text is not None and "\0" in text:
        raise Invalid("id: a text holds a NUL character")
    return text or None


def _read_settlement(body: bytes) -> Event:
    """The event that a settlement records; without a name of its own it has the reservation's."""
    item = decode_json(body, Wire)
    if item.type is None and item.specversion is None and item.totalTokens is None:
        raise Invalid("totalTokens: expected the tokens that were spent")
    event = read_event(item, now_ms())
    if item.id or event.response_id or item.event_id:
        return event
    return event._replace(id="", source=item.source or ledger.RESERVATION)
