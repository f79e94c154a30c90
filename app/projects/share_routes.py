"""The endpoints of shares."""

from starlette.requests import Request
from starlette.responses import Response

from app.edge import idempotency
from app.edge.clock import now_ms
from app.edge.http import db_of, decode_json, json_response, read_body
from app.edge.openapi import operation
from app.identity.api_keys import WRITE_INSTANCES
from app.projects import page, shares
from app.projects.access import NO_INSTANCE, Done
from app.projects.door import enter
from app.projects.page import page_response, read_page
from app.projects.project_routes import CREDENTIALS, DELEGATED, READ_ERRORS, WRITE_ERRORS, id_of
from app.projects.share_queries import Place
from app.projects.shares import NO_SHARE, NewShare, ShareMade, SharesView

EXAMPLE = {"targetType": "public", "permission": "read"}


@operation(answer=SharesView, query=page.PARAMETERS, errors=READ_ERRORS, credentials=CREDENTIALS, cached=True)
async def show_of_project(request: Request) -> Response:
    """Who was let into a project, newest first. For its admins."""
    return await _show_all(request, Place(id_of(request), None))


@operation(answer=SharesView, query=page.PARAMETERS, errors=READ_ERRORS, credentials=DELEGATED, cached=True)
async def show_of_instance(request: Request) -> Response:
    """Who was let into an instance by itself, newest first. For its admins."""
    return await _show_all(request, Place(None, id_of(request, absent=NO_INSTANCE)))


@operation(
    answer=ShareMade,
    status=201,
    body=NewShare,
    errors=WRITE_ERRORS,
    credentials=CREDENTIALS,
    example=EXAMPLE,
    idempotent=True,
)
async def create_of_project(request: Request) -> Response:
    """Let somebody into a project and all of its instances. A second share to the same target replaces the first."""
    return await _create(request, Place(id_of(request), None))


@operation(
    answer=ShareMade,
    status=201,
    body=NewShare,
    errors=WRITE_ERRORS,
    credentials=DELEGATED,
    example=EXAMPLE,
    idempotent=True,
)
async def create_of_instance(request: Request) -> Response:
    """Let somebody into one instance; what they may do there goes before what the project's shares say."""
    return await _create(request, Place(None, id_of(request, absent=NO_INSTANCE)))


@operation(answer=Done, errors=WRITE_ERRORS, credentials=DELEGATED)
async def delete(request: Request) -> Response:
    """Take a share back; open connections that rested on it end."""
    principal = await enter(request, WRITE_INSTANCES)
    await db_of(request).write(shares.delete, principal, id_of(request, absent=NO_SHARE), now_ms())
    return json_response(Done())


async def _show_all(request: Request, place: Place) -> Response:
    principal = await enter(request)
    asked = read_page(request)
    rows = await db_of(request).read(shares.list_all, principal, place, asked, now_ms())
    return page_response(request, asked, rows, SharesView([shares.view(row) for row in rows[: asked.limit]]))


async def _create(request: Request, place: Place) -> Response:
    principal = await enter(request, WRITE_INSTANCES)
    body = await read_body(request)
    form = decode_json(body, NewShare)
    once = await idempotency.write_once(
        request, principal.id, body, 201, shares.create, principal, place, form, now_ms()
    )
    return once.response
