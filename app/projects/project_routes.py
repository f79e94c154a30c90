"""The endpoints of projects."""

from starlette.requests import Request
from starlette.responses import Response

from app.edge import idempotency
from app.edge.clock import now_ms
from app.edge.http import (
    LANDED,
    cached_response,
    db_of,
    decode_json,
    json_response,
    query_choice,
    read_body,
    read_json,
)
from app.edge.node import Node
from app.edge.openapi import ADMIN, API_KEY, BEARER, DELEGATE, Query, operation
from app.errors import Unauthenticated
from app.identity.api_keys import WRITE_INSTANCES
from app.identity.door import MINDCACHE
from app.identity.principal import Kind
from app.projects import page, projects
from app.projects.access import NO_PROJECT, Done, Level, check_id
from app.projects.door import enter, user_of
from app.projects.page import page_response, read_page
from app.projects.projects import NewProject, ProjectChange, ProjectMade, ProjectsView, ProjectView

CREDENTIALS = (BEARER, API_KEY, ADMIN)
# Where a delegate may do something, too.
DELEGATED = (*CREDENTIALS, DELEGATE)
READ_ERRORS = (400, 401, 403, 404, 429, 503)
WRITE_ERRORS = (400, 401, 403, 404, 408, 409, 413, 422, 429, 503)
INCLUDE = Query("include", {"type": "string", "enum": ["own", "public"], "default": "own"}, "Public projects too.")


@operation(
    answer=ProjectsView,
    query=(INCLUDE, *page.PARAMETERS),
    errors=READ_ERRORS,
    credentials=DELEGATED,
    cached=True,
)
async def show_all(request: Request) -> Response:
    """The projects that the caller owns or was let into, the last changed first."""
    principal = await enter(request)
    public = query_choice(request, "include", ("own", "public")) == "public"
    if principal.kind is Kind.ANONYMOUS and not public:
        raise Unauthenticated(MINDCACHE.missing, certain=True)
    asked = read_page(request)
    rows = await db_of(request).read(projects.list_all, principal, public, asked)
    return page_response(request, asked, rows, ProjectsView([projects.view(row) for row in rows[: asked.limit]]))


@operation(
    answer=ProjectMade,
    status=201,
    body=NewProject,
    errors=WRITE_ERRORS,
    credentials=CREDENTIALS,
    example={"name": "Garden"},
    idempotent=True,
)
async def create(request: Request) -> Response:
    """Make a project, with its first instance `main`."""
    principal = await enter(request, WRITE_INSTANCES)
    account = user_of(principal, Level.WRITE)
    body = await read_body(request)
    form = decode_json(body, NewProject)
    once = await idempotency.write_once(
        request, principal.id, body, 201, projects.create, account.user_id, form, region_of(request), now_ms()
    )
    return once.response


@operation(answer=ProjectView, errors=READ_ERRORS, credentials=CREDENTIALS, cached=True)
async def show(request: Request) -> Response:
    """One project."""
    principal = await enter(request)
    project = await db_of(request).read(projects.get, principal, id_of(request), now_ms())
    return cached_response(request, project)


@operation(
    answer=Done, body=ProjectChange, errors=WRITE_ERRORS, credentials=CREDENTIALS, example={"name": "Kitchen garden"}
)
async def change(request: Request) -> Response:
    """Change the name or the description. The owner's alone."""
    principal = await enter(request, WRITE_INSTANCES)
    form = await read_json(request, ProjectChange)
    await db_of(request).write(projects.change, principal, id_of(request), form, now_ms())
    return json_response(Done())


@operation(answer=Done, errors=WRITE_ERRORS, credentials=CREDENTIALS)
async def delete(request: Request) -> Response:
    """Delete a project, its instances and what is in them. The owner's alone."""
    principal = await enter(request, WRITE_INSTANCES)
    await db_of(request).write(projects.delete, principal, id_of(request), now_ms())
    return json_response(Done())


def id_of(request: Request, name: str = "id", absent: str = NO_PROJECT) -> str:
    text: str = request.path_params[name]
    check_id(text, absent)
    return text


def region_of(request: Request) -> str:
    """Where the caller landed, wherever its request was taken from there."""
    node: Node = request.scope["state"]["node"]
    landed: str = request.scope.get(LANDED, "")
    return landed or node.region
