"""The wire: the three forms in which an event may arrive, and the items they become.

Native fields, a raw event of OpenAI's Realtime API and CloudEvents 1.0 share one shape, because their
names do not collide; what the shape does not name is ignored and never stored.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

import msgspec

from app.edge.http import decode_json, describe_mismatch
from app.errors import Invalid, TooLarge

EVENTS = 1_000
BODY_BYTES = 5 << 20
TEXT_CHARACTERS = 255
METADATA_BYTES = 16 << 10
LARGEST_COUNT = (1 << 53) - 1
# Nine million events of this size still add up to a number that SQLite can hold.
EVENT_TOKENS = 10**12

NDJSON = "application/x-ndjson"
CLOUDEVENT = "application/cloudevents+json"
CLOUDEVENTS = "application/cloudevents-batch+json"

Text = Annotated[str, msgspec.Meta(max_length=TEXT_CHARACTERS)]
Count = Annotated[int, msgspec.Meta(ge=0, le=EVENT_TOKENS)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]


class Details(msgspec.Struct, omit_defaults=True, rename="camel"):
    """What a count is made of; unknown parts are ignored."""

    text_tokens: Count | None = None
    audio_tokens: Count | None = None
    cached_tokens: Count | None = None


class RawDetails(msgspec.Struct, omit_defaults=True):
    text_tokens: Count | None = None
    audio_tokens: Count | None = None
    cached_tokens: Count | None = None


class RawUsage(msgspec.Struct):
    """`usage` of a provider's event, in tokens or as `{type:"duration",seconds}`."""

    type: str | None = None
    seconds: Seconds | None = None
    total_tokens: Count | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    input_token_details: RawDetails | None = None
    output_token_details: RawDetails | None = None


class RawResponse(msgspec.Struct):
    id: Text | None = None
    model: Text | None = None
    usage: RawUsage | None = None


class Wire(msgspec.Struct):
    """One event in any of the three forms."""

    # native, and what a relay adds to a raw event
    id: Text | None = None
    source: Text | None = None
    userId: Text | None = None
    clerkId: Text | None = None
    sessionId: Text | None = None
    responseId: Text | None = None
    model: Text | None = None
    provider: Text | None = None
    eventType: Text | None = None
    totalTokens: Count | None = None
    inputTokens: Count | None = None
    outputTokens: Count | None = None
    inputTokenDetails: Details | None = None
    outputTokenDetails: Details | None = None
    metadata: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    occurredAt: datetime | None = None
    amends: Text | None = None
    # OpenAI Realtime
    type: Text | None = None
    event_id: Text | None = None
    response: RawResponse | None = None
    usage: RawUsage | None = None
    # CloudEvents
    specversion: Text | None = None
    data: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class Refused(msgspec.Struct):
    """An item that does not come as far as the ledger, and why."""

    code: str
    error: str
    id: str | None = None


_one = msgspec.json.Decoder(Wire)
_many = msgspec.json.Decoder(list[Wire])


def read_items(body: bytes, media: str) -> list[Wire | Refused]:
    """The items of a body, in order; one that has the wrong shape is Refused and hurts no other.

    Invalid when the body as a whole is not JSON, TooLarge above EVENTS items.
    """
    if media == NDJSON:
        return _each(line for line in body.splitlines() if line.strip())
    if media != CLOUDEVENTS and body.lstrip()[:1] != b"[":
        return [_read(body, whole=True)]
    try:
        items: list[Wire | Refused] = list(_many.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        items = _each(decode_json(body, list[msgspec.Raw]))
    if len(items) > EVENTS:
        raise _too_many(len(items))
    return items


def unwrap(item: Wire) -> tuple[Wire, Wire | None]:
    """The event itself and the CloudEvent around it. Invalid when that lacks what CloudEvents 1.0 requires."""
    if item.specversion is None:
        return item, None
    if item.specversion != "1.0":
        raise Invalid(f"specversion: expected 1.0, got {item.specversion!r}")
    for name, value in (("id", item.id), ("source", item.source), ("type", item.type)):
        if not value:
            raise Invalid(f"{name}: a CloudEvent needs a text here")
    if not bytes(item.data):
        raise Invalid("data: a CloudEvent needs a JSON object here")
    return decode_json(item.data, Wire), item


def _each(texts: Iterable[bytes | msgspec.Raw]) -> list[Wire | Refused]:
    listed = list(texts)
    if len(listed) > EVENTS:
        raise _too_many(len(listed))
    return [_read(text) for text in listed]


def _read(text: bytes | msgspec.Raw, *, whole: bool = False) -> Wire | Refused:
    try:
        return _one.decode(text)
    except msgspec.ValidationError as error:
        return Refused("invalid", describe_mismatch(error), _find_id(text))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if whole:
            decode_json(text, Wire)
        return Refused("invalid", "The line is not JSON")


class _Named(msgspec.Struct):
    """As much of an item as tells which one it is."""

    id: Any = None
    responseId: Any = None
    event_id: Any = None


def _find_id(text: bytes | msgspec.Raw) -> str | None:
    """The id of an item whose other fields are wrong, so that its sender finds it again."""
    try:
        named = msgspec.json.decode(text, type=_Named)
    except msgspec.ValidationError:
        return None
    given = named.id or named.responseId or named.event_id
    return given if isinstance(given, str) and len(given) <= TEXT_CHARACTERS else None


def _too_many(events: int) -> TooLarge:
    return TooLarge(f"Too many events: {events} (max: {EVENTS})", limit=EVENTS, actual=events)
