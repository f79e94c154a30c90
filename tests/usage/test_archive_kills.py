"""The archive beside a real server: kills, a file that goes away, a machine that has no other regions."""

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.edge import sqlite
from app.edge.archive import Archive
from app.usage import archive_queries, verify
from app.usage.mover import KEPT_DAYS
from app.usage.period import DAY_MS
from tests.conftest import rows_of
from tests.usage.books import Books, line, old
from tests.usage.conftest import EVENTS, Relay, native
from tests.usage.test_faults import Poster, posting, wait_for

KILLS = 25
MOVED_BEFORE_A_KILL = 300
WAIT_SECONDS = 20.0

# A mover in a process of its own, which may be killed; to it everything is old but the newest row.
MOVER = f"""
import asyncio, sys
from pathlib import Path
from app.edge.archive import Archive
from app.edge.clock import now_ms
from app.edge.database import Database
from app.usage import archive_queries
from app.usage.mover import Mover

async def main():
    core, ledger = map(Path, sys.argv[1:])
    archive = Archive(core, ledger, archive_queries.VIEW)
    db = Database(core, archive=archive)
    db.open()
    while True:
        await Mover(db, archive).move(now_ms() + {KEPT_DAYS + 1} * {DAY_MS})

asyncio.run(main())
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Relay]:
    """A relay with a server of its own, which a test may kill; not yet started."""
    made = Relay(tmp_path / "data")
    try:
        yield made
    finally:
        made.close()


def start_mover(relay: Relay) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", MOVER, str(relay.path), str(relay.path.with_name("ledger.db"))]
    return subprocess.Popen(words, env=relay.server.environ)


def archived(relay: Relay) -> int:
    path = relay.path.with_name("ledger.db")
    try:
        return int(rows_of(path, "SELECT count(*) FROM usage_logs")[0][0]) if path.exists() else 0
    except sqlite.Error:
        # Seen before its tables were there.
        return 0


def wait_for_moves(relay: Relay, mover: subprocess.Popen[bytes], rows: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while archived(relay) < rows:
        assert mover.poll() is None, "the mover ended by itself"
        assert time.monotonic() < deadline, f"{archived(relay)} of {rows} rows were moved"


def in_both(relay: Relay) -> int:
    ids = "SELECT id FROM usage_logs"
    here, there = rows_of(relay.path, ids), rows_of(relay.path.with_name("ledger.db"), ids)
    return len({*here} & {*there})


def resend(relay: Relay, posters: list[Poster]) -> dict[str, int]:
    """Everything that was acknowledged once more; what became of it."""
    totals = {"accepted": 0, "duplicates": 0, "rejected": 0}
    events = [
        {"id": event, "userId": relay.bob.id, "totalTokens": tokens}
        for poster in posters
        for event, tokens in poster.acknowledged.items()
    ]
    for first in range(0, len(events), 500):
        answer = relay.post(events[first : first + 500])
        assert answer.status_code == 200, answer.text
        totals = {name: count + answer.json()[name] for name, count in totals.items()}
    return totals


def test_nothing_is_lost_or_doubled_by_twenty_five_kills_of_a_mover_under_load(own: Relay) -> None:
    halfway = 0
    own.server.start()
    with posting(own) as (posters, up, progress):
        up.set()
        for number in range(KILLS):
            mover = start_mover(own)
            # Right after rows have come into the archive is when they are on their way.
            wait_for_moves(own, mover, archived(own) + random.randrange(1, MOVED_BEFORE_A_KILL))
            mover.kill()
            mover.wait()
            halfway += in_both(own) > 0
            if number % 5 == 4:
                up.clear()
                own.server.kill()
                own.server.start()
                up.set()
            wait_for(posters, progress, sum(len(poster.acknowledged) for poster in posters) + 1)
        for poster in posters:
            poster.ask_to_end()
            poster.end()
            assert poster.problem is None, poster.problem
        acknowledged = sum(len(poster.acknowledged) for poster in posters)
        assert resend(own, posters) == {"accepted": 0, "duplicates": acknowledged, "rejected": 0}
    told = f"{halfway} of {KILLS} kills with rows on their way; {acknowledged} acknowledged, {archived(own)} moved"
    assert halfway >= KILLS // 5, told
    archive = Archive(own.path, own.path.with_name("ledger.db"), archive_queries.VIEW)
    with archive.snapshot() as connection:
        rows = connection.fetch("SELECT event_id, total_tokens FROM usage_logs")
        report = verify.verify(connection)
    assert report.clean, told
    present = dict(rows)
    assert len(present) == len(rows), told
    assert all(present.get(event) == tokens for poster in posters for event, tokens in poster.acknowledged.items())
    assert present.keys() <= set().union(*(poster.sent for poster in posters))


def test_without_its_archive_a_server_answers_503_to_usage_and_serves_the_rest(own: Relay) -> None:
    own.server.start()
    own.accept(native(own.alice, id="gone"), native(own.alice, id="here"))
    mover = start_mover(own)
    wait_for_moves(own, mover, 1)
    mover.kill()
    mover.wait()
    own.path.with_name("ledger.db").rename(own.path.with_name("aside.db"))
    refused = own.post([native(own.alice, id="gone"), native(own.alice, id="new")])
    assert refused.status_code == 503
    assert refused.headers["Retry-After"]
    assert own.quota(own.alice)["used"] == 20
    assert own.reserve(own.alice, 5).status_code == 201
    assert own.server.command("doctor").returncode in (0, 1)
    own.path.with_name("aside.db").rename(own.path.with_name("ledger.db"))
    deadline = time.monotonic() + WAIT_SECONDS
    while (answer := own.post([native(own.alice, id="gone"), native(own.alice, id="new")])).status_code == 503:
        assert time.monotonic() < deadline
    assert (answer.json()["duplicates"], answer.json()["accepted"]) == (1, 1)
    assert own.client.post(EVENTS).status_code in (401, 400)


def test_a_machine_alone_has_no_archive_and_moves_nothing(own: Relay) -> None:
    async def write() -> None:
        books = Books(own.path.parent)
        await books.record(*(old(own.bob.id, f"e{number}") for number in range(3)), line(own.bob.id, "new"))
        await books.close()

    asyncio.run(write())
    own.server.start()
    own.accept(native(own.bob))
    assert own.server.stop() == 0
    assert own.rows("SELECT count(*) FROM usage_logs") == [(5,)]
    assert own.rows("SELECT count(*) FROM archived") == [(0,)]
    assert not own.path.with_name("ledger.db").exists()
