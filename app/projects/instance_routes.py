"""The endpoints of instances' rows."""

from starlette.requests import Request
from starlette.responses import Response

from app.edge import idempotency
from app.edge.clock import now_ms
from app.edge.http import cached_response, db_of, decode_json, json_response, read_body, read_json
from app.edge.openapi import operation
from app.identity.api_keys import WRITE_INSTANCES
from app.identity.ids import new_id
from app.identity.principal import Principal
from app.projects import instances, page
from app.projects.access import NO_INSTANCE, Done
from app.projects.door import enter
from app.projects.instances import (
    Copier,
    InstanceChange,
    InstanceMade,
    InstancesView,
    InstanceView,
    NewInstance,
)
from app.projects.page import page_response, read_page
from app.projects.project_routes import CREDENTIALS, DELEGATED, READ_ERRORS, WRITE_ERRORS, id_of, region_of


@operation(answer=InstancesView, query=page.PARAMETERS, errors=READ_ERRORS, credentials=CREDENTIALS, cached=True)
async def show_all(request: Request) -> Response:
    """The instances of a project, newest first."""
    principal = await enter(request)
    asked = read_page(request)
    rows = await db_of(request).read(instances.list_all, principal, id_of(request), asked, now_ms())
    view = InstancesView([instances.row_view(row) for row in rows[: asked.limit]])
    return page_response(request, asked, rows, view)


@operation(
    answer=InstanceMade,
    status=201,
    body=NewInstance,
    errors=WRITE_ERRORS,
    credentials=CREDENTIALS,
    example={"name": "draft"},
    idempotent=True,
)
async def create(request: Request) -> Response:
    """Make an instance, empty or as a copy of another, in a region or where the caller landed."""
    principal = await enter(request, WRITE_INSTANCES)
    body = await read_body(request)
    form = decode_json(body, NewInstance)
    if form.cloneFrom is not None:
        return await _create_copy(request, principal, body, form)
    arguments = (principal, id_of(request), form, new_id("ins"), region_of(request), now_ms())
    once = await idempotency.write_once(request, principal.id, body, 201, instances.create, *arguments)
    return once.response


async def _create_copy(request: Request, principal: Principal, body: bytes, form: NewInstance) -> Response:
    """The row is `creating` until its content is there; only then is the answer written, which may be an earlier
    request's. Without it the row is taken back."""
    db = db_of(request)
    arguments = (principal, id_of(request), form, new_id("ins"), region_of(request), now_ms())
    made = await db.write(instances.create, *arguments)
    finished = False
    try:
        await _copier_of(request).clone(form.cloneFrom or "", made.id)
        once = await idempotency.write_once(request, principal.id, body, 201, instances.finish, made)
        finished = once.value is not None
        return once.response
    finally:
        if not finished:
            await db.write(instances.discard, made.id)


def _copier_of(request: Request) -> Copier:
    copier: Copier = request.scope["state"]["copier"]
    return copier


@operation(answer=InstanceView, errors=READ_ERRORS, credentials=DELEGATED, cached=True)
async def show(request: Request) -> Response:
    """One instance, and what the caller may do in it."""
    principal = await enter(request)
    instance = await db_of(request).read(instances.get, principal, id_of(request, absent=NO_INSTANCE), now_ms())
    return cached_response(request, instance)


@operation(
    answer=InstanceView,
    body=InstanceChange,
    errors=WRITE_ERRORS,
    credentials=DELEGATED,
    example={"name": "final", "is_readonly": 1},
)
async def change(request: Request) -> Response:
    """Rename an instance, or make it read-only, which needs an admin."""
    principal = await enter(request, WRITE_INSTANCES)
    form = await read_json(request, InstanceChange)
    arguments = (principal, id_of(request, absent=NO_INSTANCE), form, now_ms())
    return json_response(await db_of(request).write(instances.change, *arguments))


@operation(answer=Done, errors=WRITE_ERRORS, credentials=DELEGATED)
async def delete(request: Request) -> Response:
    """Delete an instance and what is in it. Its id stays refused."""
    principal = await enter(request, WRITE_INSTANCES)
    await db_of(request).write(instances.delete, principal, id_of(request, absent=NO_INSTANCE), now_ms())
    return json_response(Done())
