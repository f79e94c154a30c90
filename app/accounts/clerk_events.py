"""Clerk's events: whom each is about, and what it changes."""

import re
from typing import Annotated, Any

import msgspec

from app.accounts import clerk_user, queries
from app.accounts.clerk_user import GONE, STALE, ClerkUser
from app.accounts.subscription import put_on_plan
from app.edge.database import Transaction
from app.edge.http import decode_json, describe_mismatch
from app.errors import Invalid
from app.identity.queries import CLERK, has_tombstone
from app.usage.plans import NEW_USERS
from app.webhooks.log import Effect, Outcome

SUBJECT_CHARACTERS = 255
LARGEST_INSTANT_MS = (1 << 53) - 1

CHANGED = ("user.created", "user.updated")
DELETED = "user.deleted"
SUBSCRIBED = ("subscription.created", "subscription.updated", "subscription.active")
ITEM_SUBSCRIBED = ("subscriptionItem.created", "subscriptionItem.updated", "subscriptionItem.active")
ENDED = ("subscription.deleted", "subscriptionItem.deleted")
ACTIVE = "active"

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

Fields = dict[str, Any]


class Event(msgspec.Struct):
    """An event as Clerk sends it. `data` is the object that it is about, of a shape for each type."""

    type: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    data: Fields


def read_event(body: bytes) -> Event:
    """Invalid when the body is not the JSON of an event, or holds a text that cannot be stored."""
    if _NUL.search(body):
        raise Invalid("data: a text holds a NUL character")
    event = decode_json(body, Event)
    if len(subject_of(event) or "") > SUBJECT_CHARACTERS:
        raise Invalid(f"data: a user's id has more than {SUBJECT_CHARACTERS} characters")
    return event


def subject_of(event: Event) -> str | None:
    """Clerk's id of the user that an event is about."""
    data = event.data
    return (
        _text(data, "user_id")
        or (_text(data, "id") if event.type.startswith("user.") else None)
        or _text(data, "payer", "user_id")
        or _text(data, "subscription", "user_id")
        or _text(data, "metadata", "user_id")
    )


def effect_of(event: Event, now: int) -> Effect:
    """What an event does when it is processed. Invalid when a user in it has another shape than Clerk's."""
    subject = subject_of(event)
    kind = event.type.partition(".")[0]
    if subject is None:
        return lambda tx: Outcome("ignored: names no user")
    if event.type in CHANGED:
        user = _read_user(event.data, subject)
        return lambda tx: clerk_user.record(tx, user, now)
    if event.type == DELETED:
        return lambda tx: clerk_user.delete(tx, subject, now)
    if kind == "session":
        return lambda tx: _note_seen(tx, subject, event.data, now)
    if kind in ("subscription", "subscriptionItem"):
        return lambda tx: _follow_subscription(tx, subject, event, now)
    return lambda tx: GONE if has_tombstone(tx, CLERK, subject) else Outcome("ignored: changes nothing")


def _read_user(data: Fields, subject: str) -> ClerkUser:
    try:
        user = msgspec.convert({**data, "id": subject, "updated_at": _instant(data)}, ClerkUser)
    except msgspec.ValidationError as error:
        raise Invalid(f"data.{describe_mismatch(error)}") from error
    return user


def _note_seen(tx: Transaction, subject: str, data: Fields, now: int) -> Outcome:
    user_id = clerk_user.ensure(tx, subject, now)
    if user_id is None:
        return GONE
    active = data.get("last_active_at")
    queries.update_seen(tx, user_id, min(active, now) if isinstance(active, int) and active > 0 else now)
    return Outcome("seen")


def _follow_subscription(tx: Transaction, subject: str, event: Event, now: int) -> Outcome:
    user_id = clerk_user.ensure(tx, subject, now)
    if user_id is None:
        return GONE
    ended = event.type in ENDED
    # What has ended never changes again, so where Clerk does not say when, nothing can be newer.
    updated_at = _instant(event.data) or (LARGEST_INSTANT_MS if ended else None)
    object_id = _text(event.data, "id")
    if object_id and updated_at and not queries.upsert_object(tx, CLERK, object_id, user_id, updated_at):
        return STALE
    slug = NEW_USERS if ended else _slug(event)
    return Outcome(put_on_plan(tx, user_id, slug, now) if slug else "ignored: no active plan in it")


def _slug(event: Event) -> str | None:
    """The plan that an event puts its user on; None when it changes nothing."""
    data = event.data
    if event.type in ITEM_SUBSCRIBED:
        implied = ACTIVE if event.type.endswith(".active") else None
        return _item_slug(data) if data.get("status", implied) == ACTIVE else None
    if event.type not in SUBSCRIBED or data.get("status", ACTIVE) != ACTIVE:
        return None
    items = data.get("items")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and item.get("status") == ACTIVE:
            return _item_slug(item) or _text(data, "metadata", "plan")
    return _text(data, "metadata", "plan")


def _item_slug(item: Fields) -> str | None:
    return _text(item, "plan", "slug") or _text(item, "price", "metadata", "plan") or _text(item, "metadata", "plan")


def _text(fields: Any, *names: str) -> str | None:
    """The text at a path; what is absent, empty or no text is None."""
    for name in names:
        fields = fields.get(name) if isinstance(fields, dict) else None
    return fields if isinstance(fields, str) and fields else None


def _instant(data: Fields) -> int | None:
    told = data.get("updated_at")
    known = isinstance(told, int) and not isinstance(told, bool) and 0 < told <= LARGEST_INSTANT_MS
    return told if known else None
