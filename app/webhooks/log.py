"""The log: every event that a provider told us of, its effect had once, its failures kept for a retry."""

from collections.abc import Callable
from typing import NamedTuple

from app.edge.database import Connection, Transaction
from app.errors import NotFound
from app.webhooks import queries
from app.webhooks.queries import Delivery, Entry

SUCCESS, FAILED, PENDING = "success", "failed", "pending"
ERROR_CHARACTERS = 500
ERASED = "{}"


class Outcome(NamedTuple):
    """What an event did, in words for operators. `erase` when nobody may be named by it any more."""

    text: str
    erase: bool = False


Effect = Callable[[Transaction], Outcome]


def process_once(tx: Transaction, delivery: Delivery, effect: Effect, now: int) -> Outcome | None:
    """Have the effect and mark the event done, in one transaction; None when it was done before."""
    if queries.find_status(tx, delivery.event_id) == SUCCESS:
        return None
    outcome = effect(tx)
    if outcome.erase:
        delivery = _erase(tx, delivery, now)
    queries.upsert_log(tx, delivery, SUCCESS, outcome.text, None, now)
    return outcome


def record_failure(tx: Transaction, delivery: Delivery, error: str, now: int) -> None:
    """Keep an event that could not be processed; one that was done meanwhile stays done."""
    queries.upsert_log(tx, delivery, FAILED, None, error[:ERROR_CHARACTERS], now)


def get_entry(connection: Connection, any_id: str) -> Entry:
    """By the row's number or the event's id."""
    entry = queries.find_entry(connection, any_id)
    if entry is None:
        raise NotFound("Webhook log not found")
    return entry


def _erase(tx: Transaction, delivery: Delivery, now: int) -> Delivery:
    if delivery.subject is not None:
        queries.update_logs_erased(tx, delivery.subject, ERASED, now)
    return delivery._replace(subject=None, payload=ERASED)
