"""The endpoints of transfer: an instance as a file, and a file as one batch of changes."""

import asyncio

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from app.edge.clock import now_ms
from app.edge.http import find_header, json_response, query_choice, read_body
from app.edge.openapi import Query, operation
from app.errors import Conflict
from app.instances import transfer
from app.instances.draft import Change
from app.instances.hub import Hub
from app.instances.markdown import Item
from app.instances.protocol import Delete, Set
from app.instances.rest import READ_ERRORS, WRITE_ERRORS, enter_instance, hubs_of, make, operation_of
from app.instances.transfer import FORMATS, IMPORT_BYTES, MEDIA
from app.projects.access import Level
from app.projects.project_routes import DELEGATED

MERGE, REPLACE = "merge", "replace"
# How often a replacement is computed anew because a key that it deletes was changed meanwhile.
ATTEMPTS = 5


class Imported(msgspec.Struct):
    """How many keys were changed."""

    changed: int
    seq: int
    success: bool = True


@operation(
    answer=dict[str, transfer.Exported],
    query=(Query("format", {"enum": list(FORMATS), "default": FORMATS[0]}),),
    errors=READ_ERRORS,
    credentials=DELEGATED,
)
async def export(request: Request) -> Response:
    """All entries, as JSON or as Markdown."""
    entered = await enter_instance(request, Level.READ)
    wanted = query_choice(request, "format", FORMATS)
    async with hubs_of(request).use(entered.instance.id) as hub:
        entries, _ = await hub.entries()
    body = await asyncio.to_thread(transfer.export, wanted, entered.instance.name, entries, now_ms())
    ending = "md" if wanted == transfer.MARKDOWN else "json"
    headers = {
        "Content-Type": MEDIA[wanted],
        "Content-Disposition": f'attachment; filename="{entered.instance.id}.{ending}"',
        "Cache-Control": "private, no-store",
        "Vary": "Authorization",
    }
    return Response(body, headers=headers)


@operation(
    answer=Imported,
    body=dict[str, transfer.Exported],
    body_media=("application/json", "text/markdown"),
    query=(Query("mode", {"enum": [MERGE, REPLACE], "default": MERGE}, "`replace` deletes every other key."),),
    errors=WRITE_ERRORS,
    credentials=DELEGATED,
    idempotent=True,
)
async def import_(request: Request) -> Response:
    """Set every key of a file, JSON or Markdown: all of them or none."""
    entered = await enter_instance(request, Level.WRITE)
    replace = query_choice(request, "mode", (MERGE, REPLACE)) == REPLACE
    body = await read_body(request, IMPORT_BYTES)
    media = (find_header(request, b"content-type") or b"").decode("latin-1")
    items = await asyncio.to_thread(transfer.read, body, media)
    async with hubs_of(request).use(entered.instance.id) as hub:
        for attempt in range(1, ATTEMPTS + 1):
            changes = await _changes(hub, items, replace=replace)
            try:
                result = await make(hub, changes, entered.caller, operation_of(request))
                break
            except Conflict:
                if attempt == ATTEMPTS:
                    raise
    return json_response(Imported(result.changed, result.seq))


async def _changes(hub: Hub, items: list[Item], *, replace: bool) -> list[Change]:
    sets: list[Change] = [Set(item.key, item.value, item.attributes) for item in items]
    if not replace:
        return sets
    named = {item.key for item in items}
    entries, _ = await hub.entries()
    return [*(Delete(held.key, held.seq) for held in entries if held.key not in named), *sets]
