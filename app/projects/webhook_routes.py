"""The endpoints of webhooks."""

from starlette.requests import Request
from starlette.responses import Response

from app.edge import idempotency
from app.edge.clock import now_ms
from app.edge.http import cached_response, db_of, decode_json, find_query, json_response, read_body, read_json
from app.edge.openapi import Query, operation
from app.identity.api_keys import WRITE_INSTANCES
from app.projects import page, webhooks
from app.projects.access import Done
from app.projects.door import enter
from app.projects.page import page_response, read_page
from app.projects.project_routes import CREDENTIALS, READ_ERRORS, WRITE_ERRORS, id_of
from app.projects.share_queries import Place
from app.projects.webhooks import (
    DeliveriesView,
    NewWebhook,
    WebhookChange,
    WebhookMade,
    WebhooksView,
    WebhookView,
)
from app.webhooks.subscriptions import NO_WEBHOOK

EXAMPLE = {"url": "https://example.com/hook", "events": ["usage.threshold"]}
PLACES = (
    Query("instanceId", {"type": "string"}, "Those of this instance, whoever made them."),
    Query("projectId", {"type": "string"}, "Those of this project."),
)


@operation(
    answer=WebhooksView, query=(*PLACES, *page.PARAMETERS), errors=READ_ERRORS, credentials=CREDENTIALS, cached=True
)
async def show_all(request: Request) -> Response:
    """The webhooks that the caller made, or those of one place for its admins, newest first, without secrets."""
    principal = await enter(request)
    asked = read_page(request)
    place = Place(find_query(request, "projectId"), find_query(request, "instanceId"))
    rows = await db_of(request).read(webhooks.list_all, principal, place, asked, now_ms())
    return page_response(request, asked, rows, WebhooksView([webhooks.view(row) for row in rows[: asked.limit]]))


@operation(
    answer=WebhookMade,
    status=201,
    body=NewWebhook,
    errors=WRITE_ERRORS,
    credentials=CREDENTIALS,
    example=EXAMPLE,
    idempotent=True,
)
async def create(request: Request) -> Response:
    """Have an address told of events. Its secret is in this answer and in no other."""
    principal = await enter(request, WRITE_INSTANCES)
    body = await read_body(request)
    form = decode_json(body, NewWebhook)
    once = await idempotency.write_once(request, principal.id, body, 201, webhooks.create, principal, form, now_ms())
    once.response.headers["Cache-Control"] = "no-store"
    return once.response


@operation(answer=WebhookView, errors=READ_ERRORS, credentials=CREDENTIALS, cached=True)
async def show(request: Request) -> Response:
    """One webhook, without its secret."""
    principal = await enter(request)
    found = await db_of(request).read(webhooks.get, principal, _id_of(request), now_ms())
    return cached_response(request, webhooks.view(found))


@operation(answer=Done, body=WebhookChange, errors=WRITE_ERRORS, credentials=CREDENTIALS, example={"enabled": True})
async def change(request: Request) -> Response:
    """Change the address, the events or the secret, pause it, or take it up again."""
    principal = await enter(request, WRITE_INSTANCES)
    form = await read_json(request, WebhookChange)
    await db_of(request).write(webhooks.change, principal, _id_of(request), form, now_ms())
    return json_response(Done())


@operation(answer=Done, errors=WRITE_ERRORS, credentials=CREDENTIALS)
async def delete(request: Request) -> Response:
    """Delete a webhook with what it is owed and its log."""
    principal = await enter(request, WRITE_INSTANCES)
    await db_of(request).write(webhooks.delete, principal, _id_of(request), now_ms())
    return json_response(Done())


@operation(answer=DeliveriesView, query=page.PARAMETERS, errors=READ_ERRORS, credentials=CREDENTIALS, cached=True)
async def show_deliveries(request: Request) -> Response:
    """What a webhook was told in the last seven days and how it went, newest first."""
    principal = await enter(request)
    asked = read_page(request)
    rows = await db_of(request).read(webhooks.list_deliveries, principal, _id_of(request), asked, now_ms())
    views = [webhooks.view_delivery(row) for row in rows[: asked.limit]]
    return page_response(request, asked, rows, DeliveriesView(views))


@operation(answer=Done, errors=WRITE_ERRORS, credentials=CREDENTIALS)
async def replay(request: Request) -> Response:
    """Make a delivery once more, with the same webhook-id and all of its retries."""
    principal = await enter(request, WRITE_INSTANCES)
    delivery_id = id_of(request, "deliveryId", "Delivery not found")
    await db_of(request).write(webhooks.replay, principal, _id_of(request), delivery_id, now_ms())
    return json_response(Done())


def _id_of(request: Request) -> str:
    return id_of(request, absent=NO_WEBHOOK)
