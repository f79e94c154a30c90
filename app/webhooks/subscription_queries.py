"""The SQL of subscriptions."""

from typing import NamedTuple

import msgspec

from app.edge.clock import sql_text
from app.edge.database import Connection, Row, Transaction
from app.edge.http import encode_json


class Subscription(NamedTuple):
    """A webhook of an instance, of a project's instances, or, where both are None, of all that its user owns."""

    id: str
    user_id: str
    project_id: str | None
    instance_id: str | None
    url: str
    events: tuple[str, ...]
    secret: str
    disabled_reason: str | None
    dropped: int
    created_at: str
    updated_at: str
    position: int

    @property
    def sorted_by(self) -> int:
        return 0


class Listener(NamedTuple):
    """What an event needs to know of a subscription."""

    id: str
    events: tuple[str, ...]


_COLUMNS = """
    id, user_id, project_id, instance_id, url, events, secret, disabled_reason, dropped, created_at, updated_at, rowid
"""


def find_subscription(connection: Connection, webhook_id: str) -> Subscription | None:
    row = connection.fetch_one(f"SELECT {_COLUMNS} FROM webhooks WHERE id = ?", webhook_id)
    return _subscription(row) if row else None


def list_subscriptions_of_user(connection: Connection, user_id: str, below: int, limit: int) -> list[Subscription]:
    """Those that a user made, newest first."""
    rows = connection.fetch(
        f"SELECT {_COLUMNS} FROM webhooks WHERE user_id = ? AND rowid < ? ORDER BY rowid DESC LIMIT ?",
        user_id,
        below,
        limit,
    )
    return [_subscription(row) for row in rows]


def list_subscriptions_of_place(
    connection: Connection, project_id: str | None, instance_id: str | None, below: int, limit: int
) -> list[Subscription]:
    """Those of a project or of an instance, whoever made them, newest first."""
    rows = connection.fetch(
        f"""SELECT {_COLUMNS} FROM webhooks WHERE (project_id = ? OR instance_id = ?) AND rowid < ?
            ORDER BY rowid DESC LIMIT ?""",
        project_id,
        instance_id,
        below,
        limit,
    )
    return [_subscription(row) for row in rows]


def count_subscriptions(connection: Connection, user_id: str) -> int:
    row = connection.fetch_one("SELECT count(*) FROM webhooks WHERE user_id = ?", user_id)
    return row[0] if row else 0


def insert_subscription(tx: Transaction, made: Subscription, now: int) -> None:
    tx.execute(
        """INSERT INTO webhooks (id, user_id, project_id, instance_id, url, events, secret, created_at, updated_at)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?8, ?8)""",
        made.id,
        made.user_id,
        made.project_id,
        made.instance_id,
        made.url,
        encode_json(made.events).decode(),
        made.secret,
        sql_text(now),
    )


def update_subscription(tx: Transaction, changed: Subscription, now: int) -> None:
    tx.execute(
        "UPDATE webhooks SET url = ?, events = ?, secret = ?, disabled_reason = ?, updated_at = ? WHERE id = ?",
        changed.url,
        encode_json(changed.events).decode(),
        changed.secret,
        changed.disabled_reason,
        sql_text(now),
        changed.id,
    )


def update_disabled(tx: Transaction, webhook_id: str, reason: str, now: int) -> None:
    tx.execute(
        "UPDATE webhooks SET disabled_reason = ?, updated_at = ? WHERE id = ?", reason, sql_text(now), webhook_id
    )


def update_dropped(tx: Transaction, webhook_id: str, dropped: int) -> None:
    tx.execute("UPDATE webhooks SET dropped = dropped + ? WHERE id = ?", dropped, webhook_id)


def delete_subscription(tx: Transaction, webhook_id: str) -> int:
    return tx.execute("DELETE FROM webhooks WHERE id = ?", webhook_id)


def list_listeners_of_instance(connection: Connection, instance_id: str) -> list[Listener]:
    """The subscriptions that an event of this instance may be for."""
    rows = connection.fetch(
        """SELECT w.id, w.events FROM webhooks w WHERE w.instance_id = ?1 AND w.disabled_reason IS NULL
           UNION ALL
           SELECT w.id, w.events FROM instances i JOIN webhooks w ON w.project_id = i.project_id
           WHERE i.id = ?1 AND w.disabled_reason IS NULL
           UNION ALL
           SELECT w.id, w.events FROM instances i
           JOIN projects p ON p.id = i.project_id
           JOIN webhooks w ON w.user_id = p.owner_id AND w.project_id IS NULL AND w.instance_id IS NULL
           WHERE i.id = ?1 AND w.disabled_reason IS NULL""",
        instance_id,
    )
    return [_listener(row) for row in rows]


def list_listeners_of_user(connection: Connection, user_id: str) -> list[Listener]:
    """The subscriptions that an event of this user's account may be for."""
    rows = connection.fetch("SELECT id, events FROM webhooks WHERE user_id = ? AND disabled_reason IS NULL", user_id)
    return [_listener(row) for row in rows]


def _subscription(row: Row) -> Subscription:
    return Subscription(*row)._replace(events=_events(row[5]))


def _listener(row: Row) -> Listener:
    return Listener(row[0], _events(row[1]))


def _events(text: str) -> tuple[str, ...]:
    return msgspec.json.decode(text, type=tuple[str, ...])
