"""The endpoints of transfer: an instance as a file, and a file as one batch of changes."""

import asyncio
from collections.abc import Mapping

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from app.edge.clock import now_ms
from app.edge.http import find_header, query_choice, read_body
from app.edge.openapi import Query, operation
from app.instances import transfer
from app.instances.draft import Change
from app.instances.entry import Entry
from app.instances.hub import Hub
from app.instances.planned import PLAN_ERRORS, Planned, hash_of, make_planned
from app.instances.protocol import Delete, Set
from app.instances.rest import READ_ERRORS, enter_instance, hubs_of
from app.instances.transfer import FORMATS, IMPORT_BYTES, MEDIA
from app.projects.access import Level
from app.projects.project_routes import DELEGATED

MERGE, REPLACE = "merge", "replace"


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
    errors=PLAN_ERRORS,
    credentials=DELEGATED,
    idempotent=True,
)
async def import_(request: Request) -> Response:
    """Set every key of a file, JSON or Markdown: all of them or none."""
    entered = await enter_instance(request, Level.WRITE)
    replace = query_choice(request, "mode", (MERGE, REPLACE)) == REPLACE
    body = await read_body(request, IMPORT_BYTES)
    media = (find_header(request, b"content-type") or b"").decode("latin-1")
    items, asked = await asyncio.to_thread(lambda: (transfer.read(body, media), hash_of(request, body)))
    sets: list[Change] = [Set(item.key, item.value, item.attributes) for item in items]

    async def plan(hub: Hub, entries: Mapping[str, Entry]) -> Planned:
        named = {item.key for item in items}
        gone = [Delete(key) for key in entries if replace and key not in named]
        return Planned([*gone, *sets], lambda result: Imported(result.changed, result.seq))

    return await make_planned(request, entered, asked, plan)
