"""Health: whether this process lives, whether it is ready, and what it is."""

from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

import app
from app.edge.clock import instant, now_ms
from app.edge.database import Connection
from app.edge.http import db_of, json_response, settings_of
from app.edge.node import Node
from app.errors import AppError

MESSAGE = "litehouse: the backend of an AI app in one process"


async def root(request: Request) -> Response:
    """What this service is, and where its parts are."""
    return json_response(
        {
            "status": "healthy",
            "service": "litehouse",
            "message": MESSAGE,
            "version": app.__version__,
            "environment": settings_of(request).environment,
            "timestamp": instant(now_ms()),
            "endpoints": {
                "health": "/api/health",
                "quota": "/api/usage/quota",
                "profile": "/api/user/profile",
                "usage": "/api/usage/events",
                "openapi": "/openapi.json",
                "docs": "/docs",
            },
        }
    )


async def live(request: Request) -> Response:
    """The process answers; nothing else is asked."""
    return PlainTextResponse("ok")


async def ready(request: Request) -> Response:
    """The database can be read; 503 when not."""
    await db_of(request).read(_probe)
    return PlainTextResponse("ready")


async def ping(request: Request) -> Response:
    return PlainTextResponse("pong")


async def health(request: Request) -> Response:
    """A short word for clients that only want to know that somebody is there."""
    return json_response(
        {"status": "ok", "environment": settings_of(request).environment, "timestamp": instant(now_ms())}
    )


async def api_health(request: Request) -> Response:
    """The long form, with this machine's place; 503 and the same body when the database does not answer."""
    settings = settings_of(request)
    node: Node = request.scope["state"]["node"]
    healthy = await _database_answers(request)
    body: dict[str, Any] = {
        "status": "ok" if healthy else "error",
        "environment": settings.environment,
        "domain": request.headers.get("host", ""),
        "timestamp": instant(now_ms()),
        "services": {
            "database": "healthy" if healthy else "unhealthy",
            "kv_storage": "healthy" if healthy else "error",
        },
        "version": app.__version__,
        "api_endpoints": {
            "development": "http://localhost:8787",
            "production": str(request.base_url).rstrip("/"),
        },
        "region": node.region,
        "machine": node.machine,
        "primary": node.is_primary,
        "lagMs": node.lag_ms,
    }
    return json_response(body, 200 if healthy else 503)


async def _database_answers(request: Request) -> bool:
    try:
        await db_of(request).read(_probe)
    except AppError:
        return False
    return True


def _probe(connection: Connection) -> None:
    connection.fetch_one("SELECT sequence FROM replication_token")
