"""The contents page: every URL, its method, where it runs, and the room that answers."""

from app.edge.placement import anywhere, at_primary
from app.edge.router import Route
from app.ops import health

ROUTES = (
    # ops
    Route("GET", "/", anywhere, health.root),
    Route("GET", "/livez", anywhere, health.live),
    Route("GET", "/readyz", anywhere, health.ready),
    Route("GET", "/health", anywhere, health.health),
    Route("GET", "/api/health", anywhere, health.api_health),
    Route("GET", "/api/health/ping", anywhere, health.ping),
)
_ = at_primary
