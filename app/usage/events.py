"""Events: what the ledger understands, whatever form it came in."""

import hashlib
from datetime import UTC
from typing import NamedTuple

import msgspec

from app.errors import Invalid
from app.identity.ids import new_id
from app.usage.wire import METADATA_BYTES, Details, RawDetails, RawUsage, Wire, unwrap

AHEAD_MS = 5 * 60_000
REALTIME, API = "openai-realtime", "api"
REALTIME_PROVIDER = "openai"
UNKNOWN_MODEL = "unknown"

RESPONSE_DONE = "response.done"
TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
SESSION_CREATED = "session.created"

UNSUPPORTED = "unsupported_event"

_encode = msgspec.json.Encoder(order="sorted").encode


class Unsupported(Invalid):
    """The type of a raw event is not one that is metered. Of an item, never of a whole request, UNSUPPORTED is said."""


class Event(NamedTuple):
    """One normalised event. `user` is as it was given; counts are in tokens."""

    id: str
    source: str
    user: str | None
    session_id: str | None
    response_id: str | None
    event_type: str | None
    provider: str | None
    model: str | None
    total: int
    input: int
    output: int
    input_details: str | None
    output_details: str | None
    metadata: str | None
    occurred_at_ms: int | None
    amends: str | None = None
    source_given: bool = True
    endpoint: str | None = None

    @property
    def key(self) -> bytes:
        """Who it is: 16 bytes of source and id."""
        return hashlib.blake2b(f"{self.source}\0{self.id}".encode(), digest_size=16).digest()

    def content_hash(self, user_id: str) -> bytes:
        """What it says, in normal form: the same event has the same hash in every form and key order."""
        said = (
            f"{user_id}\0{self.session_id}\0{self.model}\0{self.provider}\0{self.total}\0{self.input}\0"
            f"{self.output}\0{self.input_details}\0{self.output_details}\0{self.occurred_at_ms}\0{self.amends}"
        )
        return hashlib.blake2b(said.encode(), digest_size=16).digest()


def read_event(item: Wire, now: int) -> Event:
    """The event in a wire item. Invalid or Unsupported says what is wrong with it."""
    inner, envelope = unwrap(item) if item.specversion is not None else (item, None)
    event = _raw(inner) if inner.type is not None else _native(inner)
    own_id = inner.id or event.response_id or inner.event_id
    if envelope is not None and not (event.response_id or inner.event_id):
        event = event._replace(source=envelope.source or event.source, source_given=True)
        own_id = envelope.id
    event = event._replace(id=own_id or new_id("evt"))
    _check(event, now)
    return event


def _native(item: Wire) -> Event:
    total = _total(item.totalTokens, item.inputTokens, item.outputTokens)
    return Event(
        "",
        item.source or API,
        item.userId or item.clerkId,
        item.sessionId or None,
        item.responseId or None,
        item.eventType or None,
        item.provider or None,
        item.model or None,
        total,
        item.inputTokens or 0,
        item.outputTokens or 0,
        _details(item.inputTokenDetails),
        _details(item.outputTokenDetails),
        _metadata(item.metadata),
        _occurred(item),
        item.amends or None,
        item.source is not None,
    )


def _raw(item: Wire) -> Event:
    response = item.response
    if item.type == RESPONSE_DONE:
        usage = response.usage if response else None
    elif item.type == TRANSCRIBED:
        usage = item.usage
    elif item.type == SESSION_CREATED:
        usage = None
    else:
        raise Unsupported(f"type: {item.type!r} is not an event that is metered")
    usage = usage or RawUsage()
    timed = usage.type == "duration"
    counts = RawUsage() if timed else usage
    return Event(
        "",
        item.source or REALTIME,
        item.userId or item.clerkId,
        item.sessionId or None,
        item.responseId or (response.id if response else None) or None,
        item.type,
        item.provider or REALTIME_PROVIDER,
        (response.model if response else None) or item.model or UNKNOWN_MODEL,
        _total(counts.total_tokens, counts.input_tokens, counts.output_tokens),
        counts.input_tokens or 0,
        counts.output_tokens or 0,
        _details(counts.input_token_details),
        _details(counts.output_token_details),
        _encode({"seconds": usage.seconds}).decode() if timed else None,
        _occurred(item),
        None,
        item.source is not None,
    )


def _total(total: int | None, given_input: int | None, given_output: int | None) -> int:
    if total is None:
        return (given_input or 0) + (given_output or 0)
    if given_input is not None and given_output is not None and given_input + given_output != total:
        raise Invalid(f"totalTokens: {total} is not {given_input} + {given_output}")
    return total


def _details(details: Details | RawDetails | None) -> str | None:
    """JSON with the provider's own names, sorted, whichever form they came in; a part of 0 is a missing one."""
    if details is None:
        return None
    parts = {
        "audio_tokens": details.audio_tokens,
        "cached_tokens": details.cached_tokens,
        "text_tokens": details.text_tokens,
    }
    given = {name: count for name, count in parts.items() if count}
    return _encode(given).decode() if given else None


def _metadata(raw: msgspec.Raw) -> str | None:
    text = bytes(raw)
    if len(text) > METADATA_BYTES:
        raise Invalid(f"metadata: expected at most {METADATA_BYTES} bytes, got {len(text)}")
    if text in (b"", b"null"):
        return None
    if not text.startswith(b"{"):
        raise Invalid("metadata: expected object")
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"metadata: byte {error.start} is not UTF-8") from error


def _occurred(item: Wire) -> int | None:
    moment = item.occurredAt
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _check(event: Event, now: int) -> None:
    occurred = event.occurred_at_ms
    if occurred is not None and not 0 <= occurred <= now + AHEAD_MS:
        raise Invalid(f"occurredAt: expected an instant since 1970 and no more than {AHEAD_MS // 60_000} minutes ahead")
    texts = (event.id, event.source, event.user, event.session_id, event.response_id)
    for text in (*texts, event.event_type, event.provider, event.model, event.amends):
        if text is not None and "\0" in text:
            raise Invalid("A text holds a NUL character")
