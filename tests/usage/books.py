"""Books: a core with an archive beside it, its mover, and rows as old as a test wants them."""

from pathlib import Path
from typing import Any

from app.edge import migrate
from app.edge.archive import Archive
from app.edge.clock import now_ms
from app.edge.database import Database, Row, Transaction
from app.identity import users
from app.usage import archive_queries, export, ledger, queries, verify
from app.usage.events import Event
from app.usage.history import GROUPINGS, LATEST_MS
from app.usage.ledger import Poster
from app.usage.mover import KEPT_DAYS, Mover
from app.usage.period import DAY_MS
from app.usage.rows import Line
from app.usage.wire import Refused
from tests.conftest import rows_of

OPERATOR = Poster("key_of_the_relay")


class Books:
    """`close` when done; `path` and `ledger_path` are the two files."""

    def __init__(self, folder: Path) -> None:
        self.path, self.ledger_path = folder / "core.db", folder / "ledger.db"
        migrate.migrate(self.path, "core")
        self.archive = Archive(self.path, self.ledger_path, archive_queries.VIEW)
        self.db = Database(self.path, archive=self.archive)
        self.db.open()
        self.mover = Mover(self.db, self.archive)

    async def close(self) -> None:
        await self.db.close()
        self.archive.close()

    async def user(self, clerk_id: str) -> str:
        return (await self.db.write(users.create, clerk_id, f"{clerk_id}@example.com", now_ms())).id

    async def record(self, *lines: Line) -> list[tuple[str, str | None]]:
        """Write lines, each received when it says; what became of each."""
        items: list[Line | Refused] = list(lines)
        outcome = await self.db.write(ledger.record_received, items, OPERATOR, now_ms())
        return [(result.status, result.code) for result in outcome.results]

    async def move(self, now: int | None = None) -> int:
        return await self.mover.move(now or now_ms())

    async def told(self, people: list[str]) -> dict[str, Any]:
        """All that anybody can read of the ledger, and what each of `people` can of its own."""
        with self.archive.snapshot() as connection:
            report = verify.verify(connection)
            whole = connection.fetch(f"SELECT {', '.join(archive_queries.COLUMNS)} FROM usage_logs ORDER BY id")
        newest = await self.db.read(queries.get_newest_log)
        return {
            "verified": report,
            "rows": whole,
            "counters": self.rows("SELECT * FROM usage_periods ORDER BY 1, 2"),
            "roll-ups": self.rows("SELECT * FROM usage_rollups ORDER BY 1, 2, 3, 4, 5"),
            "alerts": self.rows("SELECT user_id, period_start_ms, threshold FROM usage_alerts ORDER BY 1, 2, 3"),
            "export": await _flat(export._all_rows(self.db, newest, 0, LATEST_MS)),
            "own": [await self.own(person) for person in people],
            "history": [
                await self.db.read(queries.list_history, person, group, 0, LATEST_MS, 1_000)
                for person in people
                for group in GROUPINGS
            ],
        }

    async def own(self, user_id: str) -> list[Row]:
        heads = await self.db.read(queries.list_chain_heads, user_id, 0, LATEST_MS)
        return await _flat(export._own_rows(self.db, heads, 0, LATEST_MS))

    def rows(self, sql: str, *values: Any) -> list[Row]:
        return rows_of(self.path, sql, *values)

    def archived(self) -> int:
        """How many rows are in the archive."""
        if not self.ledger_path.exists():
            return 0
        return int(rows_of(self.ledger_path, "SELECT count(*) FROM usage_logs")[0][0])

    def kept(self) -> int:
        """How many rows are in the core."""
        return int(self.rows("SELECT count(*) FROM usage_logs")[0][0])


def line(user: str, event_id: str, total: int = 10, *, days_old: float = 0.0, **more: Any) -> Line:
    """A line that was received so many days ago."""
    received = now_ms() - round(days_old * DAY_MS)
    given: dict[str, Any] = {"session_id": None, "model": None, "occurred_at_ms": received} | more
    event = Event(
        id=event_id,
        source=given.pop("source", "api"),
        user=user,
        response_id=None,
        event_type=None,
        provider=None,
        total=total,
        input=total // 2,
        output=total - total // 2,
        input_details=None,
        output_details=None,
        metadata=None,
        **given,
    )
    return Line(event, received)


def old(user: str, event_id: str, total: int = 10, **more: Any) -> Line:
    """A line whose row has to leave the core."""
    return line(user, event_id, total, days_old=KEPT_DAYS + 1, **more)


def fill(tx: Transaction, user_id: str, rows: int, received: int) -> None:
    """Old rows by plain SQL, many at once, `bulk-0`, `bulk-1`, … in a chain."""
    lines: list[Line | Refused] = [
        Line(line(user_id, f"bulk-{number}").event._replace(occurred_at_ms=received), received)
        for number in range(rows)
    ]
    ledger.record_received(tx, lines, OPERATOR, now_ms())


async def _flat(pages: Any) -> list[Row]:
    return [row for page in [page async for page in pages] for row in page]
