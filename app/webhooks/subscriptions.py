"""Subscriptions: an address that is told of events, and the secret that they are signed with."""

import base64
import binascii
import secrets
from typing import Literal
from urllib.parse import urlsplit

from app.edge.changes import announce
from app.edge.database import Connection, Transaction
from app.errors import Conflict, Invalid, NotFound
from app.identity.ids import new_id
from app.webhooks import outbox_queries
from app.webhooks import subscription_queries as queries
from app.webhooks.subscription_queries import Subscription

# Told an id when a webhook is made, changed or disabled: instances without one write no outbox.
TOPIC = "webhook"

KEY_EVENTS = ("key.created", "key.updated", "key.deleted", "instance.cleared")
USAGE_THRESHOLD = "usage.threshold"
EventType = Literal["key.created", "key.updated", "key.deleted", "instance.cleared", "usage.threshold"]

WEBHOOKS_PER_USER = 100
URL_CHARACTERS = 2_048
SECRET_PREFIX = "whsec_"
# What the Standard Webhooks scheme asks of a secret.
SECRET_LEAST_BYTES, SECRET_BYTES, SECRET_MOST_BYTES = 24, 32, 64
NO_WEBHOOK = "Webhook not found"
PAUSED = "Paused"


def new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def check_secret(text: str) -> str:
    """Invalid for a secret that receivers' libraries could not use."""
    encoded = text.removeprefix(SECRET_PREFIX)
    try:
        size = len(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if encoded == text or not SECRET_LEAST_BYTES <= size <= SECRET_MOST_BYTES:
        raise Invalid(
            f"secret: expected {SECRET_PREFIX} and the base64 of {SECRET_LEAST_BYTES} to {SECRET_MOST_BYTES} bytes"
        )
    return text


def check_url(text: str) -> str:
    """Invalid for what is no address of the web. Where it leads is judged when it is called."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isascii() or not text.isprintable() or " " in text:
        raise Invalid("url: expected an address that begins with https:// or http://")
    if parts.username is not None or parts.password is not None:
        raise Invalid("url: expected an address without a name and password")
    return text


def get(connection: Connection, webhook_id: str) -> Subscription:
    found = queries.find_subscription(connection, webhook_id)
    if found is None:
        raise NotFound(NO_WEBHOOK)
    return found


def insert(
    tx: Transaction,
    user_id: str,
    project_id: str | None,
    instance_id: str | None,
    url: str,
    events: tuple[str, ...],
    secret: str | None,
    now: int,
) -> Subscription:
    """A new subscription; its secret is made where none is given. Conflict when its user has too many."""
    count = queries.count_subscriptions(tx, user_id)
    if count >= WEBHOOKS_PER_USER:
        raise Conflict(f"Too many webhooks: {count} (max: {WEBHOOKS_PER_USER})", limit=WEBHOOKS_PER_USER, actual=count)
    webhook_id = new_id("whk")
    made = Subscription(
        id=webhook_id,
        user_id=user_id,
        project_id=project_id,
        instance_id=instance_id,
        url=check_url(url),
        events=tuple(dict.fromkeys(events)),
        secret=new_secret() if secret is None else check_secret(secret),
        disabled_reason=None,
        dropped=0,
        created_at="",
        updated_at="",
        position=0,
    )
    queries.insert_subscription(tx, made, now)
    announce(tx, TOPIC, webhook_id)
    return get(tx, webhook_id)


def disable(tx: Transaction, webhook_id: str, reason: str, now: int) -> None:
    """Tell it of nothing more; what it is owed fails with the same reason."""
    queries.update_disabled(tx, webhook_id, reason, now)
    announce(tx, TOPIC, webhook_id)
    outbox_queries.update_pending_failed(tx, webhook_id, reason)
