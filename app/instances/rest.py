"""REST: what the endpoints of entries, history and transfer share on their way to a hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from app.edge.clock import now_ms
from app.edge.database import Connection
from app.edge.http import JsonResponse, db_of, encode_json, find_header, matches_etag
from app.errors import AppError, Forbidden, Invalid, TooLarge
from app.identity.api_keys import READ_INSTANCES, WRITE_INSTANCES
from app.identity.principal import Principal
from app.instances.draft import Caller, Refusal, caller_of
from app.instances.hub import Hub
from app.instances.hubs import Hubs
from app.instances.protocol import NO_PERMISSION, TOO_LARGE
from app.projects import access
from app.projects.access import Level
from app.projects.access_queries import Instance
from app.projects.door import enter

READ_ERRORS = (400, 401, 403, 404, 410, 429, 503)
WRITE_ERRORS = (400, 401, 403, 404, 408, 412, 413, 429, 503)
_KINDS: dict[str, type[AppError]] = {NO_PERMISSION: Forbidden, TOO_LARGE: TooLarge}


class Entered(NamedTuple):
    """Who asks, and the instance that is asked for."""

    principal: Principal
    level: Level
    instance: Instance

    @property
    def caller(self) -> Caller:
        return caller_of(self.principal, self.level)


async def enter_instance(request: Request, least: Level) -> Entered:
    """Whoever has at least `least` at the path's instance. NotFound, Forbidden, Unauthenticated."""
    principal = await enter(request, READ_INSTANCES if least <= Level.READ else WRITE_INSTANCES)
    instance_id: str = request.path_params["id"]
    level, instance = await db_of(request).read(_require, principal, instance_id, least, now_ms())
    return Entered(principal, level, instance)


def _require(
    connection: Connection, principal: Principal, instance_id: str, least: Level, now: int
) -> tuple[Level, Instance]:
    return access.require_instance(connection, principal, instance_id, least, now)


def hubs_of(request: Request) -> Hubs:
    hubs: Hubs = request.scope["state"]["hubs"]
    return hubs


@contextmanager
def in_http() -> Iterator[None]:
    """A hub's refusal is the answer that HTTP has for it."""
    try:
        yield
    except Refusal as refusal:
        kind = _KINDS.get(refusal.frame_code, Invalid)
        # What somebody may do rests on the core's rows, the rest on the instance's own file.
        certain = kind is not Forbidden
        if refusal.key is None:
            raise kind(refusal.message, certain=certain) from refusal
        raise kind(refusal.message, certain=certain, details=f"key {refusal.key}") from refusal


def etag_of(hub: Hub, seq: int) -> str:
    return f'"{hub.epoch}-{seq}"'


def etag_response(request: Request, value: object, etag: str, status: int = 200) -> Response:
    """A private answer under its place in the sequence; 304 to a GET of who holds it already."""
    headers = [(b"etag", etag.encode()), (b"cache-control", b"private, no-cache"), (b"vary", b"Authorization")]
    held = find_header(request, b"if-none-match")
    if request.method in ("GET", "HEAD") and held is not None and matches_etag(held.decode("latin-1"), etag):
        response = Response(None, 304)
        response.raw_headers.extend(headers)
        return response
    return JsonResponse(encode_json(value), status, headers)
