"""The cast of webhooks: a user with a project and an instance, who told an address to listen."""

from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import pytest

from app.edge.clock import now_ms
from app.edge.database import Connection, Database, Transaction
from app.edge.outbound import Outbound
from app.identity import queries as identity
from app.projects import queries as project_queries
from app.projects.access_queries import READY, Project
from app.projects.webhooks import may_hear
from app.webhooks import outbox, subscriptions
from app.webhooks.delivery import Deliverer
from app.webhooks.outbox import Event
from tests.fakes.receiver import Receiver, receiving

OWNER, PROJECT, INSTANCE, OTHER_INSTANCE = "usr_owner", "prj_1", "ins_1", "ins_2"
AHEAD_MS = 60_000
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Line(NamedTuple):
    """A delivery as it stands in the outbox."""

    id: str
    webhook_id: str
    event_id: str
    state: str
    attempts: int
    next_attempt_ms: int | None
    response_status: int | None
    error: str | None


class Clock:
    """Milliseconds that pass only when they are told to; a little ahead, so that what has just happened is due."""

    def __init__(self) -> None:
        self.now = now_ms() + AHEAD_MS

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * 1_000)


def subscribe(
    tx: Transaction,
    url: str,
    *events: str,
    project: str | None = None,
    instance: str | None = None,
    user: str = OWNER,
) -> str:
    return subscriptions.insert(tx, user, project, instance, url, events or ("key.updated",), SECRET, now_ms()).id


async def listen(
    db: Database,
    url: str,
    *events: str,
    project: str | None = None,
    instance: str | None = INSTANCE,
    user: str = OWNER,
) -> str:
    """Have an address told of events of INSTANCE, unless another place is given; the webhook's id."""

    def job(tx: Transaction) -> str:
        return subscribe(tx, url, *events, project=project, instance=instance, user=user)

    return await db.write(job)


async def happen(db: Database, *ids: str, event_type: str = "key.updated", instance: str = INSTANCE) -> None:
    """Events of these ids, as an instance's file hands them over."""
    events = [Event(each, event_type, now_ms(), f'{{"key":"{each}"}}') for each in ids]
    await db.write(outbox.enqueue_instance_events, instance, events, now_ms())


def _lines(connection: Connection) -> list[Line]:
    return [
        Line(*row)
        for row in connection.fetch(
            """SELECT id, webhook_id, event_id, state, attempts, next_attempt_ms, response_status, error
               FROM webhook_deliveries ORDER BY rowid"""
        )
    ]


async def lines(db: Database) -> list[Line]:
    return await db.read(_lines)


def _disabled(connection: Connection, webhook_id: str) -> str | None:
    return subscriptions.get(connection, webhook_id).disabled_reason


async def disabled(db: Database, webhook_id: str) -> str | None:
    return await db.read(_disabled, webhook_id)


def _add_places(tx: Transaction, now: int) -> None:
    identity.insert_user(tx, OWNER, now=now)
    identity.insert_user(tx, "usr_other", now=now)
    project_queries.insert_project(tx, Project(PROJECT, OWNER, "garden", None, "2026-12-01", "2026-12-01"), now)
    for instance_id in (INSTANCE, OTHER_INSTANCE):
        project_queries.insert_instance(tx, instance_id, PROJECT, "main", "local", READY, now)


@pytest.fixture
async def places(db: Database) -> Database:
    """The database with OWNER's PROJECT and its two instances."""
    await db.write(_add_places, now_ms())
    return db


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def deliverer(places: Database, clock: Clock) -> AsyncIterator[Deliverer]:
    """One that may reach loopback."""
    outbound = Outbound(["127.0.0.0/8"])
    yield Deliverer(places, outbound, may_hear, clock)
    await outbound.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made
