"""Health: whether this process lives, whether it is ready, and what it is."""

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

import app
from app.edge.clock import instant, now_ms
from app.edge.http import db_of, json_response, settings_of
from app.edge.node import MAX_LAG_SECONDS, Node
from app.edge.openapi import operation
from app.errors import AppError, Unavailable
from app.ops import queries
from app.ops.machines import Kept, Machines

MESSAGE = "litehouse: the backend of an AI app in one process"
DEVELOPMENT_URL = "http://localhost:8787"
ENDPOINTS = {
    "health": "/api/health",
    "quota": "/api/usage/quota",
    "profile": "/api/user/profile",
    "usage": "/api/usage/events",
    "openapi": "/openapi.json",
    "docs": "/docs",
}


class ServiceView(msgspec.Struct):
    status: str
    service: str
    message: str
    version: str
    environment: str
    timestamp: str
    endpoints: dict[str, str]


class ShortHealth(msgspec.Struct):
    status: str
    environment: str
    timestamp: str


class Parts(msgspec.Struct):
    database: str
    kv_storage: str


class Addresses(msgspec.Struct):
    development: str
    production: str


class HealthView(msgspec.Struct):
    """`lagMs` is how far this machine is behind the primary, `backupAgeMs` since when something of it may not be
    in the backup; null while that is not known, or there is none. `position` is how far its database has come, as
    `X-Txid` says it; `instances` and `connections` are those that are open on it.

    `homes` are the instances that live on it, open or not, `leaseMs` for how long it may acknowledge for them if the
    primary answers no more; null on a machine alone. `spoolItems` wait on it for the primary, the oldest for
    `spoolAgeMs`, and `spoolRefused` are those that the primary would never take; null where nothing is owed. `backup`
    says of the core, the ledger and the instances that it holds whether all of them was shipped when last asked."""

    status: str
    environment: str
    domain: str
    timestamp: str
    services: Parts
    version: str
    api_endpoints: Addresses
    region: str
    machine: str
    primary: bool
    lagMs: int | None
    backupAgeMs: int | None
    position: str | None
    instances: int
    connections: int
    homes: int | None
    leaseMs: int | None
    spoolItems: int | None
    spoolAgeMs: int | None
    spoolRefused: int | None
    backup: dict[str, Kept] | None


@operation(answer=ServiceView)
async def root(request: Request) -> Response:
    """What this service is, and where its parts are."""
    environment = settings_of(request).environment
    return json_response(
        ServiceView("healthy", "litehouse", MESSAGE, app.__version__, environment, instant(now_ms()), ENDPOINTS)
    )


@operation(answer=str, answer_media="text/plain")
async def live(request: Request) -> Response:
    """The process answers; nothing else is asked."""
    return PlainTextResponse("ok")


@operation(answer=str, answer_media="text/plain", errors=(503,))
async def ready(request: Request) -> Response:
    """The database can be read, and is not too far behind the primary's; 503 when not."""
    node: Node = request.scope["state"]["node"]
    if not node.is_fresh:
        raise Unavailable(f"This replica is not known to be less than {MAX_LAG_SECONDS} s behind the primary")
    await db_of(request).read(queries.get_sequence)
    return PlainTextResponse("ready")


@operation(answer=str, answer_media="text/plain")
async def ping(request: Request) -> Response:
    """The word `pong`."""
    return PlainTextResponse("pong")


@operation(answer=ShortHealth)
async def health(request: Request) -> Response:
    """A short word for clients that only want to know that somebody is there."""
    return json_response(ShortHealth("ok", settings_of(request).environment, instant(now_ms())))


@operation(answer=HealthView, also={503: HealthView})
async def api_health(request: Request) -> Response:
    """The long form, with this machine's place; 503 and the same body when the database does not answer."""
    node: Node = request.scope["state"]["node"]
    machines: Machines = request.scope["state"]["machines"]
    here = machines.here
    healthy = await _database_answers(request)
    view = HealthView(
        status="ok" if healthy else "error",
        environment=settings_of(request).environment,
        domain=request.headers.get("host", ""),
        timestamp=instant(now_ms()),
        services=Parts("healthy", "healthy") if healthy else Parts("unhealthy", "error"),
        version=app.__version__,
        api_endpoints=Addresses(DEVELOPMENT_URL, str(request.base_url).rstrip("/")),
        region=here.region,
        machine=here.machine,
        primary=here.is_primary,
        lagMs=here.lag_ms,
        backupAgeMs=here.backup_age_ms,
        position=str(node.position) if node.position else None,
        instances=here.instances,
        connections=here.connections,
        homes=here.homes,
        leaseMs=here.lease_ms,
        spoolItems=here.spool_items,
        spoolAgeMs=here.spool_age_ms,
        spoolRefused=here.spool_refused,
        backup=here.backup,
    )
    return json_response(view, 200 if healthy else 503)


async def _database_answers(request: Request) -> bool:
    try:
        await db_of(request).read(queries.get_sequence)
    except AppError:
        return False
    return True
