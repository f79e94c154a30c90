"""The endpoints of history: reading it, going back to a change, and undoing somebody's changes."""

from collections.abc import Mapping
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from app.edge.http import db_of, decode_json, find_query, query_int, read_body
from app.edge.openapi import Query, operation
from app.errors import Invalid
from app.identity import queries as identity_queries
from app.instances import history
from app.instances.entry import Entry
from app.instances.history import Asked
from app.instances.hub import Hub
from app.instances.planned import PLAN_ERRORS, Planned, hash_of, make_planned
from app.instances.protocol import Whole
from app.instances.queries import Told
from app.instances.rest import READ_ERRORS, enter_instance, etag_of, etag_response, hubs_of
from app.projects.access import Level
from app.projects.project_routes import DELEGATED

CHANGES, MOST_CHANGES = 100, 1_000
_BEGINNING = (1 << 53) - 1


class ActorView(msgspec.Struct, omit_defaults=True):
    """`kind` is user, key, delegate, ai or system."""

    kind: str
    id: str
    name: str | None = None


class PreviousView(msgspec.Struct):
    """What the key held before."""

    value: msgspec.Raw
    attributes: msgspec.Raw
    seq: int | None


class ChangeView(msgspec.Struct, omit_defaults=True):
    """One change; `at` in unix seconds, `key` null for a clear."""

    seq: int
    at: int
    op: str
    key: str | None
    actor: ActorView
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    attributes: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    previous: PreviousView | msgspec.UnsetType = msgspec.UNSET
    turnId: str | None = None
    opId: str | None = None


class HistoryView(msgspec.Struct):
    """Newest first, and the instance's last change."""

    history: list[ChangeView]
    seq: int


class Revert(msgspec.Struct):
    """The change after which it was as it is to be again; 0 is before the first."""

    seq: Whole


class Undo(msgspec.Struct):
    """Whose changes: one of an actor's id, a turn and an operation, or what all that are given have in common."""

    actor: str | None = None
    turnId: str | None = None
    opId: str | None = None
    sinceSeq: Whole | None = None


class Reverted(msgspec.Struct):
    """How many changes it took."""

    changed: int
    seq: int
    success: bool = True


class Undone(msgspec.Struct):
    """`skipped` are the keys that somebody else has changed since."""

    changed: int
    seq: int
    skipped: list[str]
    success: bool = True


@operation(
    answer=HistoryView,
    query=(
        Query("key", {"type": "string"}, "Only changes of this key."),
        Query("actor", {"type": "string"}, "Only changes of this id."),
        Query("since", {"type": "integer", "minimum": 0}, "Only changes after this seq."),
        Query("limit", {"type": "integer", "minimum": 1, "maximum": MOST_CHANGES, "default": CHANGES}),
        Query("cursor", {"type": "integer", "minimum": 1}, "From the `Link` of the page before."),
    ),
    errors=READ_ERRORS,
    credentials=DELEGATED,
    cached=True,
)
async def show(request: Request) -> Response:
    """Who changed what, newest first. A page ends early where its values are large."""
    entered = await enter_instance(request, Level.READ)
    limit = query_int(request, "limit", CHANGES, least=1, most=MOST_CHANGES)
    since = query_int(request, "since", 0, most=_BEGINNING)
    below = query_int(request, "cursor", _BEGINNING, least=1, most=_BEGINNING)
    key, actor = find_query(request, "key"), await _actor(request, find_query(request, "actor"))
    async with hubs_of(request).use(entered.instance.id) as hub:
        if find_query(request, "since") is not None:
            history.check_told(hub, since)
        seq = await hub.visit(lambda: hub.seq)
        told = await history.read_page(hub, key, actor, since, min(below, seq + 1), limit)
        response = etag_response(request, HistoryView(list(map(_view, told)), seq), etag_of(hub, seq))
        if told and await history.read_page(hub, key, actor, since, told[-1].seq, 1):
            response.raw_headers.append((b"link", _next(request, limit, told[-1].seq)))
    return response


@operation(
    answer=Reverted,
    body=Revert,
    errors=PLAN_ERRORS,
    credentials=DELEGATED,
    example={"seq": 12},
    idempotent=True,
)
async def revert(request: Request) -> Response:
    """Make the whole instance as it was after a change, by new changes."""
    entered = await enter_instance(request, Level.WRITE)
    body = await read_body(request)
    form = decode_json(body, Revert)

    async def plan(hub: Hub, entries: Mapping[str, Entry]) -> Planned:
        changes = await history.plan_revert(hub, entries, form.seq)
        return Planned(changes, lambda result: Reverted(result.changed, result.seq))

    return await make_planned(request, entered, hash_of(request, body), plan)


@operation(
    answer=Undone,
    body=Undo,
    errors=PLAN_ERRORS,
    credentials=DELEGATED,
    example={"actor": "user_1", "sinceSeq": 12},
    idempotent=True,
)
async def undo(request: Request) -> Response:
    """Take back changes of one actor, turn or operation, and leave what somebody else has changed since."""
    entered = await enter_instance(request, Level.WRITE)
    body = await read_body(request)
    form = decode_json(body, Undo)
    if form.actor is None and form.turnId is None and form.opId is None:
        raise Invalid("actor, turnId or opId required")
    asked = Asked(await _actor(request, form.actor), form.turnId, form.opId, form.sinceSeq)

    async def plan(hub: Hub, entries: Mapping[str, Entry]) -> Planned:
        found = await history.plan_undo(hub, entries, asked)
        return Planned(found.changes, lambda result: Undone(result.changed, result.seq, found.skipped))

    return await make_planned(request, entered, hash_of(request, body), plan)


async def _actor(request: Request, asked: str | None) -> str | None:
    """An actor's id as history holds it; a user may be asked for by either id."""
    return None if asked is None else await db_of(request).read_one(identity_queries.find_public_id, asked)


def _view(told: Told) -> ChangeView:
    view = ChangeView(
        told.seq,
        told.at_ms // 1000,
        told.op,
        told.key,
        ActorView(told.actor_kind, told.actor_id, told.actor_name),
        turnId=told.turn_id,
        opId=told.op_id,
    )
    if told.value is not None and told.attributes is not None:
        view.value, view.attributes = _raw(told.value), _raw(told.attributes)
    if told.previous_value is not None and told.previous_attributes is not None:
        view.previous = PreviousView(_raw(told.previous_value), _raw(told.previous_attributes), told.previous_seq)
    return view


def _raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


def _next(request: Request, limit: int, cursor: int) -> bytes:
    kept = {name: value for name, value in request.query_params.items() if name not in ("limit", "cursor")}
    return f'<{request.url.path}?{urlencode(kept | {"limit": limit, "cursor": cursor})}>; rel="next"'.encode()
