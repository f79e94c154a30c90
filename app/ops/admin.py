"""The endpoints of the operator's page: usage, instances, and one instance as it changes."""

from urllib.parse import parse_qs

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app.edge.clock import now_ms
from app.edge.http import db_of, find_query, json_response, query_int, read_body, read_json
from app.edge.openapi import ADMIN, Query, operation
from app.errors import Invalid, NotFound, Unauthenticated
from app.identity.principal import Kind, Principal
from app.instances import history
from app.instances.hubs import Hubs
from app.instances.queries import Told
from app.instances.routes import TicketGiven
from app.instances.tickets import Tickets
from app.ops import admin_door, admin_page, admin_plot, admin_queries
from app.ops.asset import read_asset
from app.ops.machines import Machines
from app.projects import access_queries
from app.projects.access import NO_INSTANCE, Level, check_id

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    # With `no-referrer` a form would be sent with `Origin: null`.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
FORM = "application/x-www-form-urlencoded"
FORM_BYTES = 4 << 10
NEWEST = 2**53 - 1
OPERATOR = Principal(Kind.OPERATOR, None, is_operator=True)
BEFORE = Query("before", {"type": "integer", "minimum": 0}, "Only changes before this seq.")


class Entry(msgspec.Struct):
    """What the form of the entry sends."""

    token: str


class TicketWanted(msgspec.Struct):
    instanceId: str


class Seqs(msgspec.Struct):
    seqs: dict[str, int]


@operation(
    answer=str,
    answer_media="text/html",
    query=(Query("after", {"type": "string"}, "Instances after this id."),),
    errors=(401, 503),
    credentials=(ADMIN,),
)
async def show(request: Request) -> Response:
    """The operator's overview; asks for the admin token where its cookie is missing."""
    if not admin_door.is_inside(request):
        return _page(admin_page.sign_in(wrong=False), 401)
    db, now, after = db_of(request), now_ms(), find_query(request, "after") or ""
    days = await admin_queries.list_days(db, admin_plot.first_day_ms(now))
    counts = await admin_queries.get_counts(db)
    listed = await admin_queries.list_instances(db, after, admin_page.INSTANCES_PAGE + 1)
    connections = {hub.id: len(hub.audience.members) for hub in _hubs(request).seen()}
    machines: Machines = request.scope["state"]["machines"]
    seen = await machines.ask_all()
    return _page(admin_page.overview(days, counts, seen, machines.here.machine, listed, connections, after, now))


@operation(
    answer=str,
    answer_media="text/html",
    status=303,
    body=Entry,
    body_media=(FORM,),
    errors=(400, 401, 403, 408, 413, 429),
)
async def enter(request: Request) -> Response:
    """Take the admin token once, and keep a signed cookie for this page in its place."""
    token = _token_of(await read_body(request, FORM_BYTES))
    if not admin_door.open_door(request, token):
        return _page(admin_page.sign_in(wrong=True), 401)
    response = RedirectResponse("/admin", 303, HEADERS)
    admin_door.remember(request, response)
    return response


@operation(answer=str, answer_media="text/html", status=303, errors=(401, 403), credentials=(ADMIN,))
async def leave(request: Request) -> Response:
    """Forget the cookie."""
    admin_door.require_inside(request)
    response = RedirectResponse("/admin", 303, HEADERS)
    admin_door.forget(request, response)
    return response


@operation(answer=str, answer_media="text/html", query=(BEFORE,), errors=(400, 401, 404, 503), credentials=(ADMIN,))
async def show_instance(request: Request) -> Response:
    """One instance: its keys as they change, to be edited, and who wrote what."""
    if not admin_door.is_inside(request):
        return _page(admin_page.sign_in(wrong=False), 401)
    before = query_int(request, "before", NEWEST, most=NEWEST)
    told = await _told(request, before)
    row = await db_of(request).read(access_queries.find_instance, request.path_params["id"])
    if row is None:
        raise NotFound(NO_INSTANCE)
    return _page(admin_page.instance(row, told, now_ms(), newest=before == NEWEST))


@operation(answer=str, answer_media="text/html", errors=(401, 404, 503), credentials=(ADMIN,))
async def show_history(request: Request) -> Response:
    """The newest changes of one instance, as the piece of the page that shows them."""
    if not admin_door.is_inside(request):
        return _page("", 401)
    return _page(admin_page.history(request.path_params["id"], await _told(request, NEWEST), now_ms()))


@operation(answer=Seqs, errors=(401, 404, 503), credentials=(ADMIN,))
async def show_seqs(request: Request) -> Response:
    """The change that each key was last written by, for the `ifSeq` of the page's edits."""
    if not admin_door.is_inside(request):
        raise Unauthenticated("Unauthorized")
    instance_id: str = request.path_params["id"]
    check_id(instance_id, NO_INSTANCE)
    async with _hubs(request).use(instance_id) as hub:
        entries, _ = await hub.entries()
    return json_response(Seqs({held.key: held.seq for held in entries}), 200, {"Cache-Control": "no-store"})


@operation(answer=TicketGiven, body=TicketWanted, errors=(400, 401, 403, 404, 408, 413), credentials=(ADMIN,))
async def give_ticket(request: Request) -> Response:
    """A ticket for one socket of the page, with an operator's level."""
    admin_door.require_inside(request)
    form = await read_json(request, TicketWanted)
    check_id(form.instanceId, NO_INSTANCE)
    if await db_of(request).read(access_queries.find_instance, form.instanceId) is None:
        raise NotFound(NO_INSTANCE)
    tickets: Tickets = request.scope["state"]["tickets"]
    issued = tickets.issue(form.instanceId, Level.ADMIN, OPERATOR, now_ms())
    given = TicketGiven(issued.token, issued.expires_at_ms // 1000, form.instanceId, Level.ADMIN.permission)
    return json_response(given, 200, {"Cache-Control": "no-store"})


@operation(answer=str, answer_media="text/css", cached=True)
async def show_style(request: Request) -> Response:
    """The style sheet of the operator's page."""
    return read_asset("admin.css", "text/css").answer(request)


@operation(answer=str, answer_media="text/javascript", cached=True)
async def show_script(request: Request) -> Response:
    """The script of the operator's page: keys that follow their socket."""
    return read_asset("admin.js", "text/javascript").answer(request)


def _token_of(body: bytes) -> str:
    try:
        given = parse_qs(body.decode(), max_num_fields=8).get("token")
    except ValueError as error:
        raise Invalid("The form cannot be read") from error
    if not given:
        raise Invalid("token: missing")
    return given[0]


async def _told(request: Request, before: int) -> list[Told]:
    instance_id: str = request.path_params["id"]
    check_id(instance_id, NO_INSTANCE)
    async with _hubs(request).use(instance_id) as hub:
        return await history.read_page(hub, None, None, 0, before, admin_page.HISTORY_PAGE)


def _hubs(request: Request) -> Hubs:
    hubs: Hubs = request.scope["state"]["hubs"]
    return hubs


def _page(text: str, status: int = 200) -> Response:
    return HTMLResponse(text, status, HEADERS)
