"""Aging: what ingestion feels of the rows that have left the core, and what taking them there costs."""

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from app.edge.archive import Archive
from app.usage import archive_queries
from bench import messages, world
from bench.figure import Figure, compared
from bench.process import Refused, ServerProcess
from bench.rounds import interleave
from bench.stage import Stage

SHORT_ARCHIVE = 100_000
ARCHIVE_RATIO = 0.8
SINGLE_CONNECTIONS = 64
BATCH_CONNECTIONS = 16
# The difference is small, and a busy machine's is not.
ROUNDS = 2
# As the mover does: so many rows a commit.
MOVED_ROWS = 1_000


def measure_ledger_size(stage: Stage) -> Iterator[Figure]:
    """Ingestion beside a long archive, a short one and none; then rows into the long and the short one."""
    sizes = (stage.extent.archive, SHORT_ARCHIVE, 0)
    aged = {size: _Aged(stage, size) for size in sizes}
    long = f"{stage.extent.archive:,} rows archived"
    for connections, events in ((SINGLE_CONNECTIONS, 1), (BATCH_CONNECTIONS, messages.BATCH_EVENTS)):
        subjects = {str(size): aged[size].ingestion(connections, events) for size in sizes}
        rounds = ROUNDS * stage.extent.rounds
        given = interleave(rounds, subjects)
        what = f"batches of {events}" if events > 1 else f"single events, {connections} connections"
        costs = [stage.cost(aged[size].server, rounds) / events for size in sizes]
        cost = "{:.0f} µs of processor an event, short {:.0f}, none {:.0f}".format(*costs)
        for other, name in ((SHORT_ARCHIVE, f"{SHORT_ARCHIVE:,} rows"), (0, "none")):
            ours, theirs = given[str(sizes[0])], given[str(other)]
            yield compared(f"{what}, {long}", "events/s", ours, name, theirs, ARCHIVE_RATIO, cost)
    moved = interleave(stage.extent.rounds, {str(size): aged[size].moved for size in sizes if size})
    yield compared(
        f"rows moved, {long}", "rows/s", moved[str(sizes[0])], f"{SHORT_ARCHIVE:,} rows", moved[str(SHORT_ARCHIVE)]
    )


class _Aged:
    """A server whose archive holds so many rows."""

    def __init__(self, stage: Stage, rows: int) -> None:
        self._stage = stage
        data = stage.folder / f"aged-{rows}"
        self._database = data / "core.db"
        self._key = world.make(self._database)
        self._ledger = data / "ledger.db"
        if rows:
            world.age(self._database, self._ledger, rows)
        self.server: ServerProcess = stage.serve(data)
        self._ids = itertools.count(2 * rows + 1)

    def ingestion(self, connections: int, events: int) -> Callable[[], float]:
        made = messages.one_event(self._key) if events == 1 else messages.batch(self._key)

        def measure() -> float:
            before = world.count_rows(self._database)
            run = self._stage.drive(self.server, made, connections, numbers=events)
            grown = world.count_rows(self._database) - before
            if grown != run.answers * events:
                raise Refused(f"{run.answers * events} events were acknowledged, the ledger has grown by {grown}")
            return run.rate * events

        return measure

    def moved(self) -> float:
        """Rows a second that come into the archive, each on the disk before it would leave the core."""
        return asyncio.run(_move(self._database, self._ledger, self._ids, self._stage.extent.seconds))


async def _move(database: Path, ledger: Path, ids: Iterator[int], seconds: float) -> float:
    archive = Archive(database, ledger, archive_queries.VIEW)
    rows, begun = 0, time.monotonic()
    try:
        while (passed := time.monotonic() - begun) < seconds:
            page = [world.old_row(next(ids), secrets.token_bytes(16)) for _ in range(MOVED_ROWS)]
            await archive.add(archive_queries.insert_moved, page)
            rows += MOVED_ROWS
    finally:
        archive.close()
    return rows / passed
