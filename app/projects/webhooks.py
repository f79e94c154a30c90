"""Webhooks: who may have an address told of an instance, a project or an account, and what it was told."""

from typing import Annotated

import msgspec

from app.edge.changes import announce
from app.edge.clock import unix_seconds
from app.edge.database import Connection, Transaction
from app.edge.limiter import Rate
from app.errors import Invalid, NotFound
from app.identity import queries as identity_queries
from app.identity.principal import Account, Kind, Principal, account_of
from app.projects.access import Level, level_of, level_of_project
from app.projects.door import user_of
from app.projects.page import Page
from app.projects.share_queries import Place
from app.projects.shares import require_admin
from app.webhooks import outbox, outbox_queries, subscription_queries, subscriptions
from app.webhooks.outbox_queries import Delivery
from app.webhooks.subscription_queries import Subscription
from app.webhooks.subscriptions import NO_WEBHOOK, PAUSED, URL_CHARACTERS, EventType

Url = Annotated[str, msgspec.Meta(min_length=1, max_length=URL_CHARACTERS)]
Secret = Annotated[str, msgspec.Meta(max_length=128)]
Events = Annotated[tuple[EventType, ...], msgspec.Meta(min_length=1, max_length=16)]
Id = Annotated[str, msgspec.Meta(max_length=64)]

NOWHERE = Place(None, None)


class NewWebhook(msgspec.Struct):
    """Of one instance, or of all instances of a project; of neither, it is of the caller's account: its usage and
    all instances of the projects that it owns. `secret` is `whsec_…`, made where it is absent."""

    url: Url
    events: Events
    instanceId: Id | None = None
    projectId: Id | None = None
    secret: Secret | None = None


class WebhookChange(msgspec.Struct):
    """What is absent stays. `enabled` takes up again what was disabled, or pauses it."""

    url: Url | msgspec.UnsetType = msgspec.UNSET
    events: Events | msgspec.UnsetType = msgspec.UNSET
    secret: Secret | msgspec.UnsetType = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET


class WebhookView(msgspec.Struct):
    """`droppedEvents` are those that came while too many others waited; times in unix seconds."""

    id: str
    url: str
    instanceId: str | None
    projectId: str | None
    events: tuple[str, ...]
    enabled: bool
    disabledReason: str | None
    droppedEvents: int
    created_at: int
    updated_at: int


class WebhookMade(WebhookView, kw_only=True):
    """The secret is in this answer and in no other."""

    secret: str


class WebhooksView(msgspec.Struct):
    webhooks: list[WebhookView]


class DeliveryView(msgspec.Struct):
    """`eventId` is the webhook-id that was sent; times in unix seconds."""

    id: str
    eventId: str
    type: str
    state: str
    attempts: int
    responseStatus: int | None
    error: str | None
    created_at: int
    attempted_at: int | None
    next_attempt_at: int | None


class DeliveriesView(msgspec.Struct):
    deliveries: list[DeliveryView]


def list_all(connection: Connection, principal: Principal, place: Place, page: Page, now: int) -> list[Subscription]:
    """Those of a place, for its admins; without one, those that the caller made."""
    if place == NOWHERE:
        user_id = user_of(principal, Level.ADMIN).user_id
        return subscription_queries.list_subscriptions_of_user(connection, user_id, page.position, page.limit + 1)
    require_admin(connection, principal, place, now)
    return subscription_queries.list_subscriptions_of_place(connection, *place, page.position, page.limit + 1)


def create(tx: Transaction, principal: Principal, form: NewWebhook, now: int) -> WebhookMade:
    """Invalid for an address or a secret that cannot be used."""
    if form.instanceId is not None and form.projectId is not None:
        raise Invalid("instanceId, projectId: expected one of them, got both")
    place = Place(form.projectId, form.instanceId)
    account = user_of(principal, Level.ADMIN) if place == NOWHERE else account_of(principal)
    require_admin(tx, principal, place, now)
    made = subscriptions.insert(tx, account.user_id, *place, form.url, form.events, form.secret, now)
    return WebhookMade(**msgspec.structs.asdict(view(made)), secret=made.secret)


def get(connection: Connection, principal: Principal, webhook_id: str, now: int) -> Subscription:
    """For its maker, and for the admins of its place. NotFound."""
    found = subscriptions.get(connection, webhook_id)
    place = Place(found.project_id, found.instance_id)
    if principal.kind is Kind.USER and account_of(principal).user_id == found.user_id:
        return found
    if place == NOWHERE and user_of(principal, Level.ADMIN).user_id != found.user_id:
        raise NotFound(NO_WEBHOOK)
    require_admin(connection, principal, place, now, absent=NO_WEBHOOK)
    return found


def change(tx: Transaction, principal: Principal, webhook_id: str, form: WebhookChange, now: int) -> None:
    """Whoever made it must still be an admin there."""
    found = get(tx, principal, webhook_id, now)
    require_admin(tx, principal, Place(found.project_id, found.instance_id), now)
    changed = found
    if not isinstance(form.url, msgspec.UnsetType):
        changed = changed._replace(url=subscriptions.check_url(form.url))
    if not isinstance(form.events, msgspec.UnsetType):
        changed = changed._replace(events=tuple(dict.fromkeys(form.events)))
    if not isinstance(form.secret, msgspec.UnsetType):
        changed = changed._replace(secret=subscriptions.check_secret(form.secret))
    if form.enabled is True:
        changed = changed._replace(disabled_reason=None)
    subscription_queries.update_subscription(tx, changed, now)
    announce(tx, subscriptions.TOPIC, webhook_id)
    if form.enabled is False and found.disabled_reason is None:
        subscriptions.disable(tx, webhook_id, PAUSED, now)


def delete(tx: Transaction, principal: Principal, webhook_id: str, now: int) -> None:
    """What it is owed goes with it."""
    get(tx, principal, webhook_id, now)
    subscription_queries.delete_subscription(tx, webhook_id)


def list_deliveries(
    connection: Connection, principal: Principal, webhook_id: str, page: Page, now: int
) -> list[Delivery]:
    get(connection, principal, webhook_id, now)
    return outbox_queries.list_deliveries(connection, webhook_id, page.position, page.limit + 1)


def replay(tx: Transaction, principal: Principal, webhook_id: str, delivery_id: str, now: int) -> None:
    found = get(tx, principal, webhook_id, now)
    require_admin(tx, principal, Place(found.project_id, found.instance_id), now)
    outbox.replay(tx, found, delivery_id, now)


def may_hear(connection: Connection, subscription: Subscription, now: int) -> bool:
    """Whether the maker of a subscription is still an admin of what it is about."""
    maker = Principal(Kind.USER, Account(subscription.user_id, None, False, Rate(0, 0)))
    if subscription.instance_id is not None:
        return level_of(connection, maker, subscription.instance_id, now).level >= Level.ADMIN
    if subscription.project_id is not None:
        return level_of_project(connection, maker, subscription.project_id, now).level >= Level.ADMIN
    return identity_queries.is_user_active(connection, subscription.user_id)


def view(row: Subscription) -> WebhookView:
    return WebhookView(
        row.id,
        row.url,
        row.instance_id,
        row.project_id,
        row.events,
        row.disabled_reason is None,
        row.disabled_reason,
        row.dropped,
        unix_seconds(row.created_at),
        unix_seconds(row.updated_at),
    )


def view_delivery(row: Delivery) -> DeliveryView:
    return DeliveryView(
        row.id,
        row.event_id,
        row.event_type,
        row.state,
        row.attempts,
        row.response_status,
        row.error,
        row.created_at_ms // 1_000,
        _seconds(row.attempted_at_ms),
        _seconds(row.next_attempt_ms),
    )


def _seconds(ms: int | None) -> int | None:
    return None if ms is None else ms // 1_000
