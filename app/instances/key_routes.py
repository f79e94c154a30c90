"""The endpoints of entries: the keys of an instance, with ETags and preconditions."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from app.edge.http import find_header, find_query, json_response, read_json
from app.edge.openapi import Query, operation
from app.errors import Invalid, NotFound, PreconditionFailed
from app.instances import entry
from app.instances.attributes import Attributes
from app.instances.draft import Draft
from app.instances.entry import CLOCK_KEYS, Entry, check_key
from app.instances.hub import Hub
from app.instances.mailbox import Around, Ask, Result
from app.instances.protocol import FRAME_BYTES, Delete, Set, Whole
from app.instances.rest import (
    READ_ERRORS,
    WRITE_ERRORS,
    enter_instance,
    etag_of,
    etag_response,
    hubs_of,
    in_http,
)
from app.projects.access import Done, Level
from app.projects.project_routes import DELEGATED

NO_KEY = "Key not found"
CHANGED = "The key has changed since"


class Left(NamedTuple):
    """What a change has left of its key, and whether it was there before."""

    entry: Entry | None
    was_there: bool


class Held(msgspec.Struct):
    """One entry of a list; `updatedAt` in unix milliseconds."""

    value: msgspec.Raw
    attributes: Attributes
    updatedAt: int
    seq: int


class KeysView(msgspec.Struct):
    """Entries by zIndex, then by name, and the instance's last change."""

    keys: dict[str, Held]
    seq: int


class KeyView(msgspec.Struct):
    """One entry; `updatedAt` in unix milliseconds."""

    key: str
    value: msgspec.Raw
    attributes: Attributes
    updatedAt: int
    seq: int


class KeySet(msgspec.Struct):
    """Absent attributes are the stored ones; `expiresAt` in unix milliseconds, 0 for never."""

    value: msgspec.Raw
    attributes: Attributes | None = None
    expiresAt: Whole | None = None


@operation(
    answer=KeysView,
    query=(
        Query("prefix", {"type": "string"}, "Only keys that begin so."),
        Query("tag", {"type": "string"}, "Only keys with this content tag."),
    ),
    errors=READ_ERRORS,
    credentials=DELEGATED,
    cached=True,
)
async def show_all(request: Request) -> Response:
    """The entries of an instance."""
    entered = await enter_instance(request, Level.READ)
    prefix, tag = find_query(request, "prefix") or "", find_query(request, "tag")
    async with hubs_of(request).use(entered.instance.id) as hub:
        entries, seq = await hub.entries()
    keys = {
        held.key: Held(held.value, held.attributes, held.updated_at_ms, held.seq)
        for held in entries
        if held.key.startswith(prefix) and (tag is None or entry.has_tag(held, tag))
    }
    return etag_response(request, KeysView(keys, seq), etag_of(hub, seq))


@operation(answer=KeyView, errors=READ_ERRORS, credentials=DELEGATED, cached=True)
async def show(request: Request) -> Response:
    """One entry."""
    entered = await enter_instance(request, Level.READ)
    async with hubs_of(request).use(entered.instance.id) as hub:
        return _entry_response(request, hub, await hub.find(request.path_params["key"]))


@operation(
    answer=KeyView,
    body=KeySet,
    errors=WRITE_ERRORS,
    credentials=DELEGATED,
    example={"value": "Tomatoes", "attributes": {"type": "text"}},
    also={201: KeyView},
)
async def put(request: Request) -> Response:
    """Set an entry: 201 where it was not there. `If-Match` and `If-None-Match: *` hold it to what the caller knows."""
    entered = await enter_instance(request, Level.WRITE)
    key = _key_to_set(request)
    form = await read_json(request, KeySet, FRAME_BYTES)
    change = Set(key, form.value, form.attributes, expires_at=form.expiresAt)
    async with hubs_of(request).use(entered.instance.id) as hub:
        with in_http():
            result = await hub.change(Ask([change], entered.caller, around=_if_known(request, hub, key)))
        return _entry_response(request, hub, result.left.entry, 200 if result.left.was_there else 201)


@operation(answer=Done, errors=WRITE_ERRORS, credentials=DELEGATED)
async def delete(request: Request) -> Response:
    """Delete an entry, with `If-Match` only as the caller knows it."""
    entered = await enter_instance(request, Level.WRITE)
    key: str = request.path_params["key"]
    async with hubs_of(request).use(entered.instance.id) as hub:
        with in_http():
            result = await hub.change(Ask([Delete(key)], entered.caller, around=_if_known(request, hub, key)))
    if not result.left.was_there:
        raise NotFound(NO_KEY, certain=True)
    return json_response(Done())


def _key_to_set(request: Request) -> str:
    key: str = request.path_params["key"]
    check_key(key)
    if key in CLOCK_KEYS:
        raise Invalid(f"key: {key} is every client's own clock and is not stored")
    return key


def _if_known(request: Request, hub: Hub, key: str) -> Around:
    """Makes changes of a key where it is as the caller knows it, and says what they left of it."""

    def around(draft: Draft, apply: Callable[[], Result]) -> Result:
        before = draft.get(key)
        if not _is_known(request, None if before is None else etag_of(hub, before.seq)):
            raise PreconditionFailed(CHANGED, certain=True)
        return apply()._replace(left=Left(draft.get(key), before is not None))

    return around


def _is_known(request: Request, etag: str | None) -> bool:
    """Whether the preconditions hold of what is there; None is nothing."""
    match, none_match = find_header(request, b"if-match"), find_header(request, b"if-none-match")
    if match is not None and (etag is None or not _names(match, etag)):
        return False
    return none_match is None or etag is None or not _names(none_match, etag)


def _names(header: bytes, etag: str) -> bool:
    # Strong comparison: a weak tag names nothing (RFC 9110, 13.1.1).
    text = header.decode("latin-1").strip()
    return text == "*" or etag in (item.strip() for item in text.split(","))


def _entry_response(request: Request, hub: Hub, held: Entry | None, status: int = 200) -> Response:
    if held is None:
        raise NotFound(NO_KEY, certain=True)
    view = KeyView(held.key, held.value, held.attributes, held.updated_at_ms, held.seq)
    return etag_response(request, view, etag_of(hub, held.seq), status)
