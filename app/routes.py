"""The contents page: every URL, its method, where it runs, and the room that answers."""

from app.accounts import clerk_webhook, keys, profile
from app.accounts import routes as accounts
from app.edge.placement import anywhere, at_home, at_primary, here
from app.edge.router import Route
from app.instances import history_routes as past
from app.instances import key_routes as entries
from app.instances import routes as live
from app.instances import transfer_routes as transfer
from app.ops import admin, description, health, metrics
from app.projects import delegate_routes as delegates
from app.projects import group_routes as groups
from app.projects import instance_routes as instances
from app.projects import project_routes as projects
from app.projects import share_routes as shares
from app.projects import webhook_routes as webhooks
from app.usage import export, history
from app.usage import reservation_routes as reservations
from app.usage import routes as usage

ROUTES = (
    # usage
    Route("POST", "/api/usage/events", at_primary, usage.ingest),
    Route("GET", "/api/usage/quota", anywhere, usage.show_quota),
    Route("GET", "/api/usage/history", anywhere, history.show_history),
    Route("GET", "/api/usage/export", at_primary, export.export),
    Route("POST", "/api/usage/reservations", at_primary, reservations.create),
    Route("POST", "/api/usage/reservations/{id:path}/settle", at_primary, reservations.settle),
    Route("POST", "/api/usage/reservations/{id:path}/release", at_primary, reservations.release),
    Route("POST", "/api/usage/reservations/{id:path}/extend", at_primary, reservations.extend),
    # projects
    Route("GET", "/api/projects", anywhere, projects.show_all),
    Route("POST", "/api/projects", at_primary, projects.create),
    Route("GET", "/api/projects/{id}", anywhere, projects.show),
    Route("PUT", "/api/projects/{id}", at_primary, projects.change),
    Route("DELETE", "/api/projects/{id}", at_primary, projects.delete),
    Route("GET", "/api/projects/{id}/instances", anywhere, instances.show_all),
    Route("POST", "/api/projects/{id}/instances", at_primary, instances.create),
    Route("GET", "/api/projects/{id}/shares", anywhere, shares.show_of_project),
    Route("POST", "/api/projects/{id}/shares", at_primary, shares.create_of_project),
    Route("GET", "/api/instances/{id}", anywhere, instances.show),
    Route("PATCH", "/api/instances/{id}", at_primary, instances.change),
    Route("DELETE", "/api/instances/{id}", at_primary, instances.delete),
    Route("GET", "/api/instances/{id}/shares", anywhere, shares.show_of_instance),
    Route("POST", "/api/instances/{id}/shares", at_primary, shares.create_of_instance),
    Route("DELETE", "/api/shares/{id}", at_primary, shares.delete),
    Route("GET", "/api/groups", anywhere, groups.show_all),
    Route("POST", "/api/groups", at_primary, groups.create),
    Route("GET", "/api/groups/{id}", anywhere, groups.show),
    Route("PUT", "/api/groups/{id}", at_primary, groups.rename),
    Route("DELETE", "/api/groups/{id}", at_primary, groups.delete),
    Route("GET", "/api/groups/{id}/members", anywhere, groups.show_members),
    Route("POST", "/api/groups/{id}/members", at_primary, groups.add_member),
    Route("DELETE", "/api/groups/{id}/members/{userId}", at_primary, groups.remove_member),
    Route("GET", "/api/delegates", anywhere, delegates.show_all),
    Route("POST", "/api/delegates", at_primary, delegates.create),
    Route("DELETE", "/api/delegates/{id}", at_primary, delegates.delete),
    Route("GET", "/api/delegates/{id}/secrets", anywhere, delegates.show_secrets),
    Route("POST", "/api/delegates/{id}/secrets", at_primary, delegates.create_secret),
    Route("DELETE", "/api/delegates/{id}/secrets/{secretId}", at_primary, delegates.revoke_secret),
    Route("GET", "/api/delegates/{id}/grants", anywhere, delegates.show_grants),
    Route("POST", "/api/delegates/{id}/grants", at_primary, delegates.grant),
    Route("DELETE", "/api/delegates/{id}/grants/{instanceId}", at_primary, delegates.withdraw),
    Route("GET", "/api/webhooks", anywhere, webhooks.show_all),
    Route("POST", "/api/webhooks", at_primary, webhooks.create),
    Route("GET", "/api/webhooks/{id}", anywhere, webhooks.show),
    Route("PUT", "/api/webhooks/{id}", at_primary, webhooks.change),
    Route("PATCH", "/api/webhooks/{id}", at_primary, webhooks.change),
    Route("DELETE", "/api/webhooks/{id}", at_primary, webhooks.delete),
    Route("GET", "/api/webhooks/{id}/deliveries", anywhere, webhooks.show_deliveries),
    Route("POST", "/api/webhooks/{id}/deliveries/{deliveryId}/replay", at_primary, webhooks.replay),
    # instances
    Route("POST", "/api/ws-token", at_primary, live.give_ticket),
    Route("WEBSOCKET", "/sync/{id}", at_home(by="path"), live.sync),
    Route("WEBSOCKET", "/sync", anywhere, live.require_instance_id),
    Route("WEBSOCKET", "/sync/", anywhere, live.require_instance_id),
    Route("GET", "/api/instances/{id}/keys", at_home(by="path"), entries.show_all),
    Route("GET", "/api/instances/{id}/keys/{key:path}", at_home(by="path"), entries.show),
    Route("PUT", "/api/instances/{id}/keys/{key:path}", at_home(by="path"), entries.put),
    Route("DELETE", "/api/instances/{id}/keys/{key:path}", at_home(by="path"), entries.delete),
    Route("GET", "/api/instances/{id}/history", at_home(by="path"), past.show),
    Route("POST", "/api/instances/{id}/revert", at_home(by="path"), past.revert),
    Route("POST", "/api/instances/{id}/undo", at_home(by="path"), past.undo),
    Route("GET", "/api/instances/{id}/export", at_home(by="path"), transfer.export),
    Route("POST", "/api/instances/{id}/import", at_home(by="path"), transfer.import_),
    Route("GET", "/admin/do/{id}", at_home(by="path"), live.introspect),
    Route("GET", "/admin/do/", anywhere, live.require_object_id),
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
    Route("GET", "/livez", here, health.live),
    Route("GET", "/readyz", here, health.ready),
    Route("GET", "/health", here, health.health),
    Route("GET", "/api/health", here, health.api_health),
    Route("GET", "/api/health/ping", here, health.ping),
    Route("GET", "/metrics", here, metrics.show),
    Route("GET", "/openapi.json", anywhere, description.show_document),
    Route("GET", "/docs", anywhere, description.show_page),
    Route("GET", "/docs/docs.css", anywhere, description.show_style),
    Route("GET", "/docs/docs.js", anywhere, description.show_script),
    Route("GET", "/admin", anywhere, admin.show),
    Route("POST", "/admin", at_primary, admin.enter),
    Route("POST", "/admin/leave", at_primary, admin.leave),
    Route("POST", "/admin/ws-token", at_primary, admin.give_ticket),
    Route("GET", "/admin/instances/{id}", at_home(by="path"), admin.show_instance),
    Route("GET", "/admin/instances/{id}/history", at_home(by="path"), admin.show_history),
    Route("GET", "/admin/instances/{id}/seqs", at_home(by="path"), admin.show_seqs),
    Route("GET", "/admin/admin.css", anywhere, admin.show_style),
    Route("GET", "/admin/admin.js", anywhere, admin.show_script),
)

# Paths that SDKs call from their customers' pages: any origin, no cookies.
OPEN_TO_ANY_ORIGIN = (
    "/api/projects",
    "/api/webhooks",
    "/api/instances",
    "/api/shares",
    "/api/groups",
    "/api/delegates",
    "/api/ws-token",
    "/api/keys",
)
