"""The SQL of what operators look at."""

from typing import NamedTuple

from app.edge.database import Connection, Database

MACHINES = 1_000


class Owner(NamedTuple):
    """A machine that is the home of anything, as this machine's core has it."""

    machine: str
    region: str
    homes: int


def get_sequence(connection: Connection) -> int:
    """How many commits the database has had: the shortest question that its pages must answer."""
    return int(connection.fetch("SELECT sequence FROM replication_token")[0][0])


def find_newest_receipt_ms(connection: Connection) -> int | None:
    """When the ledger's newest row was received."""
    row = connection.fetch_one("SELECT received_at_ms FROM usage_logs ORDER BY id DESC LIMIT 1")
    return row[0] if row else None


async def count_homes_of(db: Database, machine: str) -> int:
    """How many instances live on a machine."""
    rows = await db.page("SELECT count(*) FROM homes WHERE machine = ?", machine)
    return int(rows[0][0])


async def list_owners(db: Database) -> list[Owner]:
    """Every machine on which an instance lives, whether it is there or not."""
    rows = await db.page(
        "SELECT machine, max(region), count(*) FROM homes GROUP BY machine ORDER BY machine LIMIT ?", MACHINES
    )
    return [Owner(*row) for row in rows]
