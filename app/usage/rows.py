"""Rows: the ledger's lines as files hold them, under the column names that operators' SQL knows."""

from collections.abc import Mapping
from typing import NamedTuple

from app.edge.clock import parse_instant
from app.errors import Invalid
from app.usage.events import Event
from app.usage.wire import EVENT_TOKENS, TEXT_CHARACTERS

Cell = str | int | float | None
MS_FROM = 100_000_000_000


class Line(NamedTuple):
    """One event and when it was received, which imported rows keep."""

    event: Event
    received_at_ms: int


def read_row(row: Mapping[str, Cell], source: str, fallback_id: str) -> Line:
    """An event from a row. Its id is `event_id`, else `response_id`, else the row's own. Invalid names the column."""
    counts = [_count(row, name) for name in ("total_tokens", "input_tokens", "output_tokens")]
    total = counts[0] if counts[0] is not None else (counts[1] or 0) + (counts[2] or 0)
    received = _instant(row, "created_at")
    if received is None:
        raise Invalid("created_at: expected a time")
    occurred = _instant(row, "occurred_at_ms")
    event = Event(
        id=_text(row, "event_id") or _text(row, "response_id") or fallback_id,
        source=_text(row, "source") or source,
        user=_text(row, "user_id") or _text(row, "clerk_id"),
        session_id=_text(row, "session_id"),
        response_id=_text(row, "response_id"),
        event_type=_text(row, "event_type"),
        provider=_text(row, "provider"),
        model=_text(row, "model"),
        total=total,
        input=counts[1] or 0,
        output=counts[2] or 0,
        input_details=_long(row, "input_token_details"),
        output_details=_long(row, "output_token_details"),
        metadata=_long(row, "metadata"),
        occurred_at_ms=received if occurred is None else occurred,
        endpoint=_text(row, "endpoint"),
    )
    return Line(event, received)


def _text(row: Mapping[str, Cell], name: str) -> str | None:
    text = _long(row, name)
    if text is not None and len(text) > TEXT_CHARACTERS:
        raise Invalid(f"{name}: expected at most {TEXT_CHARACTERS} characters, got {len(text)}")
    return text


def _long(row: Mapping[str, Cell], name: str) -> str | None:
    cell = row.get(name)
    if cell is None or cell == "":
        return None
    text = str(cell)
    if "\0" in text:
        raise Invalid(f"{name}: a text holds a NUL character")
    return text


def _count(row: Mapping[str, Cell], name: str) -> int | None:
    text = _long(row, name)
    if text is None:
        return None
    try:
        count = int(text)
    except ValueError as error:
        raise Invalid(f"{name}: expected a whole number, got {text[:40]!r}") from error
    # A correction is a row of its own, and may be negative.
    if abs(count) > EVENT_TOKENS:
        raise Invalid(f"{name}: expected at most {EVENT_TOKENS}, got {count}")
    return count


def _instant(row: Mapping[str, Cell], name: str) -> int | None:
    """Milliseconds from a text in UTC, or from a number of seconds or milliseconds."""
    text = _long(row, name)
    if text is None:
        return None
    try:
        if text.isdigit():
            number = int(text)
            return number if number >= MS_FROM else number * 1000
        ms = parse_instant(text)
    except (ValueError, OverflowError) as error:
        raise Invalid(f"{name}: expected a time, got {text[:40]!r}") from error
    if ms < 0:
        raise Invalid(f"{name}: expected a time after 1970, got {text[:40]!r}")
    return ms
