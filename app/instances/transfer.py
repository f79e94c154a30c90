"""Transfer: what an instance exports and what an import takes, as JSON or as Markdown."""

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from app.edge.clock import instant
from app.edge.http import decode_json, encode_json
from app.errors import AppError, Invalid
from app.instances import markdown, markdown_page
from app.instances.attributes import Attributes, read_attributes
from app.instances.entry import Entry, check_key, sort
from app.instances.markdown import Item

IMPORT_BYTES = 64 << 20

JSON: Final = "json"
MARKDOWN: Final = "markdown"
Format = Literal["json", "markdown"]
FORMATS: tuple[Format, ...] = (JSON, MARKDOWN)
MEDIA: dict[Format, str] = {JSON: "application/json", MARKDOWN: "text/markdown; charset=utf-8"}
_FORMAT_OF_MEDIA: dict[str, Format] = {
    "application/json": JSON,
    "text/markdown": MARKDOWN,
    "text/x-markdown": MARKDOWN,
}


class Exported(msgspec.Struct):
    """One key of the JSON form."""

    value: msgspec.Raw
    attributes: Attributes


class _Given(msgspec.Struct):
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    attributes: Attributes | None = None


def export(wanted: Format, name: str, entries: Iterable[Entry], now: int) -> bytes:
    """All entries by zIndex, then by name; `name` is the instance's, for the heading of a page."""
    ordered = sort(entries)
    if wanted == JSON:
        return encode_json({entry.key: Exported(entry.value, entry.attributes) for entry in ordered})
    return markdown.write(name, ordered, instant(now)[:10]).encode()


def read(body: bytes, media: str | None) -> list[Item]:
    """What a body sets, in its order. Invalid names the line or the key.

    Where `media` names neither format, a body that begins with a brace is JSON.
    """
    items = _read_json(body) if _format_of(body, media) == JSON else markdown_page.read(_text_of(body))
    _check(items)
    return items


def _format_of(body: bytes, media: str | None) -> Format:
    named = _FORMAT_OF_MEDIA.get((media or "").partition(";")[0].strip().lower())
    return named or (JSON if body.lstrip().startswith(b"{") else MARKDOWN)


def _text_of(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise Invalid(f"line {line}: byte {error.start} is not UTF-8") from error


def _read_json(body: bytes) -> list[Item]:
    return [_read_key(key, held) for key, held in decode_json(body, dict[str, msgspec.Raw]).items()]


def _read_key(key: str, held: msgspec.Raw) -> Item:
    try:
        given = decode_json(held, _Given)
    except Invalid as error:
        raise Invalid(f"key {key!r}: {error.message}") from error
    if isinstance(given.value, msgspec.UnsetType):
        raise Invalid(f"key {key!r}: value: expected any JSON, got nothing")
    return Item(key, given.value.copy(), given.attributes)


def _check(items: Sequence[Item]) -> None:
    """What the hub would refuse, refused with the key's name."""
    for item in items:
        try:
            check_key(item.key)
            decode_json(item.value, object)
            if item.attributes is not None:
                read_attributes(item.attributes)
        except AppError as error:
            raise Invalid(f"key {item.key[:80]!r}: {error.message}") from error
