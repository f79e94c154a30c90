"""The Clerk webhook: signed events in, each with its effect once, whatever Clerk repeats."""

import hashlib

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from app.accounts.clerk_events import Event, effect_of, read_event, subject_of
from app.edge.clock import now_ms
from app.edge.database import Database
from app.edge.http import db_of, json_response, read_body, settings_of
from app.edge.openapi import operation
from app.errors import AppError, Internal, Invalid, Unauthenticated, Unavailable
from app.settings import DEVELOPMENT
from app.webhooks import log as webhook_log
from app.webhooks import signing
from app.webhooks.log import SUCCESS, Outcome
from app.webhooks.queries import Delivery, Entry
from app.webhooks.signing import BadSignature

PLAIN_TEXT_PATH = "/api/auth/webhook/clerk"
INVALID_SIGNATURE = "Invalid signature"

log = structlog.get_logger("clerk_webhook")


class Received(msgspec.Struct, omit_defaults=True):
    """`duplicate` when an event of this id was processed before."""

    received: bool
    duplicate: bool = False


@operation(
    answer=Received,
    body=Event,
    errors=(400, 401, 413, 500, 503),
    example={"type": "user.created", "data": {"id": "user_2abc", "first_name": "Ada", "updated_at": 1764547200000}},
)
async def receive(request: Request) -> Response:
    """Take one event from Clerk, signed in Svix's headers. Repeating one has no second effect."""
    body = await read_body(request)
    try:
        event_id = await _verify(request, body)
    except BadSignature:
        return _refuse(request)
    event = read_event(body)
    outcome = await deliver(db_of(request), Delivery(event_id, event.type, subject_of(event), body.decode()), event)
    return json_response(Received(True, duplicate=outcome is None))


async def replay(db: Database, any_id: str) -> tuple[Entry, bool]:
    """Process a failed event from its stored payload; True beside it when it had been done before.

    NotFound; Internal when it fails again, and the log says why.
    """
    entry = await db.read(webhook_log.get_entry, any_id)
    if entry.processing_status == SUCCESS:
        return entry, True
    event = read_event(entry.payload.encode())
    outcome = await deliver(db, Delivery(entry.event_id, event.type, subject_of(event), entry.payload), event)
    return await db.read(webhook_log.get_entry, entry.event_id), outcome is None


async def deliver(db: Database, delivery: Delivery, event: Event) -> Outcome | None:
    """Process an event; None when it was done before. Internal, and a failed row, when it cannot be."""
    now = now_ms()
    try:
        return await db.write(webhook_log.process_once, delivery, effect_of(event, now), now)
    except Unavailable:
        raise
    except Exception as error:
        # Whatever it was, the provider has to send it again, and an operator has to find it.
        text = error.message if isinstance(error, AppError) else f"{type(error).__name__}: {error}"
        log.error("event_not_processed", event_id=delivery.event_id, type=delivery.event_type, error=text)
        await db.write(webhook_log.record_failure, delivery, text, now)
        if isinstance(error, Invalid):
            raise
        raise Internal("Processing failed") from error


async def _verify(request: Request, body: bytes) -> str:
    """The event's id. Without a secret, development takes an event's word for who it is."""
    settings = settings_of(request)
    if settings.clerk.webhook_secret is not None:
        return await signing.verify(settings.clerk.webhook_secret, body, request.headers)
    if settings.environment != DEVELOPMENT:
        raise Unavailable("CLERK_WEBHOOK_SECRET is not set: webhooks cannot be verified")
    given = request.headers.get(signing.EVENT_ID, "")[: signing.EVENT_ID_CHARACTERS]
    return given or f"unsigned_{hashlib.blake2b(body, digest_size=16).hexdigest()}"


def _refuse(request: Request) -> Response:
    if request.url.path == PLAIN_TEXT_PATH:
        return PlainTextResponse(INVALID_SIGNATURE, 401)
    raise Unauthenticated(INVALID_SIGNATURE, certain=True)
