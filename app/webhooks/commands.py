"""The commands of the webhook log: `webhooks list` and `webhooks show`."""

import asyncio

import click
import msgspec

from app.edge import console
from app.edge.console import Console, Record, instant_of
from app.edge.database import Row
from app.webhooks import log, queries
from app.webhooks.log import FAILED, PENDING, SUCCESS
from app.webhooks.queries import Entry

COLUMNS = ("id", "eventId", "eventType", "status", "attempts", "outcome", "error", "createdAt")


@click.group("webhooks")
def webhooks_group() -> None:
    """The events that providers told us of.

    Each is found by its number in the log or by the event's id.
    """


@webhooks_group.command("list")
@click.option("--status", type=click.Choice((PENDING, SUCCESS, FAILED)), help="Only these.")
@click.option("--type", "event_type", help="Only these, such as user.updated.")
@click.option("--limit", type=click.IntRange(1, console.MOST_ROWS), default=console.ROWS, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0)
@console.options
def list_logs(out: Console, status: str | None, event_type: str | None, limit: int, offset: int) -> None:
    """Show events, newest first."""
    rows = asyncio.run(out.use(lambda db: db.page(queries.LIST_LOGS, status, event_type, limit, offset)))
    out.show_all(map(log_record, rows), COLUMNS)


@webhooks_group.command("show")
@click.argument("any_id", metavar="ID")
@console.options
def show_log(out: Console, any_id: str) -> None:
    """Show an event with its payload."""
    entry = out.read(log.get_entry, any_id)
    payload: object = msgspec.json.decode(entry.payload) if out.as_json else entry.payload
    out.show({**log_record(entry), "payload": payload})


def log_record(row: Row | Entry) -> Record:
    """From the first nine columns of an entry."""
    number, event_id, event_type, status, error, outcome, attempts, created_at, updated_at = row[:9]
    return {
        "id": number,
        "eventId": event_id,
        "eventType": event_type,
        "status": status,
        "attempts": attempts,
        "outcome": outcome,
        "error": error,
        "createdAt": instant_of(created_at),
        "updatedAt": instant_of(updated_at),
    }
