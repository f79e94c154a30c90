"""The contents page: every URL, its method, where it runs, and the room that answers."""

from app.accounts import clerk_webhook, keys, profile
from app.accounts import routes as accounts
from app.edge.placement import anywhere, at_primary
from app.edge.router import Route
from app.ops import description, health, metrics
from app.usage import export, history
from app.usage import reservation_routes as reservations
from app.usage import routes as usage

ROUTES = (
    # usage
    Route("POST", "/api/usage/events", at_primary, usage.ingest),
    Route("GET", "/api/usage/quota", anywhere, usage.show_quota),
    Route("GET", "/api/usage/history", anywhere, history.show_history),
    Route("GET", "/api/usage/export", anywhere, export.export),
    Route("POST", "/api/usage/reservations", at_primary, reservations.create),
    Route("POST", "/api/usage/reservations/{id}/settle", at_primary, reservations.settle),
    Route("POST", "/api/usage/reservations/{id}/release", at_primary, reservations.release),
    Route("POST", "/api/usage/reservations/{id}/extend", at_primary, reservations.extend),
    # accounts
    Route("GET", "/api/user/profile", anywhere, profile.show),
    Route("POST", "/api/auth/webhook/clerk", at_primary, clerk_webhook.receive),
    Route("POST", "/webhooks/clerk", at_primary, clerk_webhook.receive),
    Route("GET", "/api/auth/webhook-logs", anywhere, accounts.show_logs),
    Route("GET", "/api/auth/webhook-stats", anywhere, accounts.show_stats),
    Route("POST", "/api/auth/webhook-logs/{id}/retry", at_primary, accounts.retry),
    Route("POST", "/api/auth/sync-user/{userId}", at_primary, accounts.sync_user),
    Route("POST", "/api/auth/sync-all-users", at_primary, accounts.sync_all_users),
    Route("GET", "/api/health/data-consistency", anywhere, accounts.show_consistency),
    Route("GET", "/api/keys", anywhere, keys.show_all),
    Route("POST", "/api/keys", at_primary, keys.create),
    Route("DELETE", "/api/keys/{id}", at_primary, keys.delete),
    # ops
    Route("GET", "/", anywhere, health.root),
    Route("GET", "/livez", anywhere, health.live),
    Route("GET", "/readyz", anywhere, health.ready),
    Route("GET", "/health", anywhere, health.health),
    Route("GET", "/api/health", anywhere, health.api_health),
    Route("GET", "/api/health/ping", anywhere, health.ping),
    Route("GET", "/metrics", anywhere, metrics.show),
    Route("GET", "/openapi.json", anywhere, description.show_document),
    Route("GET", "/docs", anywhere, description.show_page),
    Route("GET", "/docs/docs.css", anywhere, description.show_style),
    Route("GET", "/docs/docs.js", anywhere, description.show_script),
)

# Paths that SDKs call from their customers' pages: any origin, no cookies.
OPEN_TO_ANY_ORIGIN = ("/api/keys",)
