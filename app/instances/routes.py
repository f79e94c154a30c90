"""The endpoints of instances: `/sync`, tickets for it, and what an operator sees of one."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from app.edge.clock import now_ms
from app.edge.database import Connection as Connected
from app.edge.http import cached_response, db_of, find_query, json_response, read_json
from app.edge.node import Node
from app.edge.openapi import ADMIN, operation
from app.edge.upgrade import Upgrade
from app.errors import Invalid, Unauthenticated
from app.identity.authenticator import authenticate_operator
from app.identity.credential import read_presented
from app.identity.principal import Principal
from app.instances import queries
from app.instances.admission import NO_ACCESS_TEXT, Admitted, Rooms, admit, admit_dev_user, admit_up_to
from app.instances.connection import Connection, Wish
from app.instances.resume import Since
from app.instances.tickets import Tickets
from app.projects import access
from app.projects.access import NO_INSTANCE, Level, check_id
from app.projects.door import enter
from app.projects.project_routes import DELEGATED

ERRORS = (400, 401, 403, 404, 413, 429, 503)


class TicketAsked(msgspec.Struct):
    """`permission` is read, write or admin; the real grant unless given."""

    instanceId: str | None = None
    permission: str | None = None


class TicketGiven(msgspec.Struct):
    """`expiresAt` in unix seconds; the token is for one socket."""

    token: str
    expiresAt: int
    instanceId: str
    permission: str


PERMISSIONS = {None: Level.ADMIN, "read": Level.READ, "write": Level.WRITE, "admin": Level.ADMIN}


@operation(answer=TicketGiven, body=TicketAsked, errors=ERRORS, credentials=DELEGATED)
async def give_ticket(request: Request) -> Response:
    """A ticket for one socket of an instance, good for a minute and capped to what the caller may do."""
    principal = await enter(request)
    form = await read_json(request, TicketAsked)
    if not form.instanceId:
        raise Invalid("instanceId required")
    wanted = PERMISSIONS.get(form.permission)
    if wanted is None:
        raise Invalid(f"permission: expected read, write or admin, got {form.permission!r}")
    level = min(wanted, await db_of(request).read(_readable_level, principal, form.instanceId, now_ms()))
    tickets: Tickets = request.scope["state"]["tickets"]
    issued = tickets.issue(form.instanceId, level, principal, now_ms())
    given = TicketGiven(issued.token, issued.expires_at_ms // 1000, form.instanceId, level.permission)
    return json_response(given, 200, {"Cache-Control": "no-store"})


def _readable_level(connection: Connected, principal: Principal, instance_id: str, now: int) -> Level:
    return access.require_instance(connection, principal, instance_id, Level.READ, now, absent=NO_ACCESS_TEXT)[0]


@operation(status=101, errors=(400, 401, 403, 404, 503), credentials=DELEGATED)
async def sync(request: Request) -> Response:
    """Live entries over a WebSocket: `auth_success`, `sync`, then every change as it is committed.

    `?token=` a ticket, `?apiKey=`, an Authorization header, or an `auth` frame within five seconds. `?since=` and
    `?epoch=` resume; `?prefix=`, `?tag=` filter; `?echo=0` leaves out one's own changes.
    """
    instance_id: str = request.path_params["id"]
    check_id(instance_id, NO_INSTANCE)
    rooms: Rooms = request.scope["state"]["rooms"]
    admitted = await _admit(request, rooms, instance_id)
    if admitted is not None:
        # What cannot be opened now is 503 with Retry-After; a socket that is open could only be closed.
        await rooms.hubs.open(instance_id)
    wish = _wish(request, instance_id)
    return Upgrade(lambda socket: Connection(socket, rooms, wish, admitted))


@operation(errors=(400,))
async def require_instance_id(request: Request) -> Response:
    """An address of a socket that names no instance."""
    raise Invalid("Instance ID required")


@operation(errors=(400, 401, 403, 429, 503), credentials=(ADMIN,))
async def require_object_id(request: Request) -> Response:
    """An address of an operator's that names no instance."""
    await authenticate_operator(request)
    raise Invalid("Object ID required")


@operation(errors=(400, 401, 403, 404, 429, 503), credentials=(ADMIN,))
async def introspect(request: Request) -> Response:
    """What an instance holds and who is connected, for an operator."""
    await authenticate_operator(request)
    instance_id: str = request.path_params["id"]
    check_id(instance_id, NO_INSTANCE)
    rooms: Rooms = request.scope["state"]["rooms"]
    node: Node = request.scope["state"]["node"]
    async with rooms.hubs.use(instance_id) as hub:
        entries, seq = await hub.entries()
        keys = {
            held.key: {"value": held.value, "attributes": held.attributes, "updatedAt": held.updated_at_ms}
            for held in entries
        }
        body = {
            "keys": keys,
            "region": node.region,
            "machine": node.machine,
            "connections": len(hub.audience.members),
            "seq": seq,
        }
    return cached_response(request, body, vary="X-Admin-Token")


async def _admit(request: Request, rooms: Rooms, instance_id: str) -> Admitted | None:
    """Who a handshake lets in; None when the first frame has to say so. A refusal is plain HTTP."""
    token, api_key = find_query(request, "token"), find_query(request, "apiKey")
    presented = read_presented(request)
    if token is not None:
        return await _redeem(request, rooms, instance_id, token)
    if api_key is not None:
        principal = await rooms.entrance.identify(api_key)
    elif not presented.is_empty:
        principal = await rooms.entrance.admit(request)
    else:
        return await admit_dev_user(rooms, instance_id) if rooms.dev_user is not None else None
    return await admit(rooms, principal, instance_id)


async def _redeem(request: Request, rooms: Rooms, instance_id: str, token: str) -> Admitted:
    """Use a ticket up: one socket, also when two bring it at once."""
    tickets: Tickets = request.scope["state"]["tickets"]
    now = now_ms()
    ticket = tickets.read(token, instance_id, now)
    admitted = await admit_up_to(rooms, ticket.principal, instance_id, Level(ticket.level))
    async with rooms.hubs.use(instance_id) as hub:
        if not await hub.read_file(queries.redeem, ticket.id, ticket.expires_at_ms, now):
            raise Unauthenticated("Invalid token", certain=True)
    return admitted


def _wish(request: Request, instance_id: str) -> Wish:
    since, epoch = find_query(request, "since"), find_query(request, "epoch")
    known = Since(int(since), epoch) if since is not None and since.isdecimal() and len(since) < 16 else None
    echo = find_query(request, "echo") != "0"
    return Wish(instance_id, known, echo, find_query(request, "prefix"), find_query(request, "tag"))
