"""Signing: whether an event comes from who it says, and saying so of ours, by the Standard Webhooks scheme."""

import asyncio
import importlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from app.errors import Unavailable

LIBRARY = "standardwebhooks"

EVENT_ID = "svix-id"
TIMESTAMP = "svix-timestamp"
SIGNATURE = "svix-signature"
EVENT_ID_CHARACTERS = 255

_SECONDS = re.compile(r"[0-9]{1,12}")
# `v1,` and the base64 of an HMAC-SHA-256: a signature of another version or form is as good as none.
_V1 = re.compile(r"v1,[A-Za-z0-9+/]{43}=")


class BadSignature(Exception):
    """The headers are missing, malformed, older or newer than five minutes, or of another secret or body."""


async def warm() -> None:
    """Load what the first event would wait for."""
    await asyncio.to_thread(importlib.import_module, LIBRARY)


async def verify(secret: str, body: bytes, headers: Mapping[str, str]) -> str:
    """The event's id, once one of its signatures is found right for these bytes."""
    event_id, timestamp = headers.get(EVENT_ID, ""), headers.get(TIMESTAMP, "")
    signatures = [part for part in headers.get(SIGNATURE, "").split(" ") if _V1.fullmatch(part)]
    if not (0 < len(event_id) <= EVENT_ID_CHARACTERS and _SECONDS.fullmatch(timestamp) and signatures):
        raise BadSignature
    library = await asyncio.to_thread(importlib.import_module, LIBRARY)
    try:
        webhook = library.Webhook(secret)
    except (ValueError, library.webhooks.EmptyWebhookSecretError) as error:
        raise Unavailable("The webhook secret is not usable") from error
    named = {"webhook-id": event_id, "webhook-timestamp": timestamp, "webhook-signature": " ".join(signatures)}
    try:
        webhook.verify(body, named, json_parse=False)
    except (library.WebhookVerificationError, ValueError) as error:
        raise BadSignature from error
    return event_id


async def sign(secret: str, event_id: str, now: int, body: str) -> dict[str, str]:
    """The headers that say when this was sent, and by whom."""
    library = await asyncio.to_thread(importlib.import_module, LIBRARY)
    moment = datetime.fromtimestamp(now // 1_000, UTC)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(now // 1_000),
        "webhook-signature": library.Webhook(secret).sign(event_id, moment, body),
    }
