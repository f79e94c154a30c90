"""Where rows leave: in a server that has other regions, and in an import beside one."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.edge.clock import now_ms
from cluster.engines import Process
from cluster.ports import free_port
from tests.conftest import ADMIN_TOKEN, Server, rows_of, serving
from tests.usage.books import Books, fill, line, old
from tests.usage.conftest import import_file, write_events
from tests.waiting import until

REPLICATED = {
    "REPLICATION": "litefs",
    "PRIMARY_REGION": "fra",
    "FLY_REGION": "fra",
    "FLY_MACHINE_ID": "m1",
    "PEER_SECRET": "a-peer-secret-of-at-least-thirty-two-characters",
    "JWT_SECRET": "a-jwt-secret-of-at-least-thirty-two-characters",
}
LINES = 20_000
OLD = "2025-03-01T00:00:00Z"
WAIT_SECONDS = 20.0


def count(path: Path) -> int:
    return int(rows_of(path, "SELECT count(*) FROM usage_logs")[0][0]) if path.exists() else 0


@contextmanager
def primary_engine(folder: Path) -> Iterator[str]:
    """Where a server whose core lies in `folder` is told that it is the primary."""
    port, log = free_port(), folder / "standin.log"
    process = Process([sys.executable, "-m", "cluster.standin", "m1", str(folder), str(port)], log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.end()


def test_a_server_with_other_regions_moves_what_is_old(tmp_path: Path) -> None:
    mount, volume = tmp_path / "mount", tmp_path / "volume"
    where = {"DATABASE_PATH": str(mount / "core.db"), "DATA_DIR": str(volume)}

    async def write() -> str:
        books = Books(mount)
        ann = await books.user("user_ann")
        await books.db.write(fill, ann, 3_000, old(ann, "old").received_at_ms)
        await books.record(line(ann, "recent"), line(ann, "newest"))
        await books.close()
        return ann

    ann = asyncio.run(write())
    with primary_engine(mount) as litefs, serving(volume, LITEFS_HTTP=litefs, **REPLICATED, **where) as server:
        until(lambda: count(mount / "core.db") <= 2, WAIT_SECONDS, server.log)
        assert count(volume / "ledger.db") == 3_000
        with server.client(**{"X-Admin-Token": ADMIN_TOKEN}) as client:
            exported = client.get("/api/usage/export?format=ndjson")
        ids = [json.loads(row)["id"] for row in exported.text.splitlines()]
        assert ids == list(range(1, 3_003))
        verified = server.command("verify-usage", "--json")
        assert json.loads(verified.stdout)["rows"] == 3_002, verified.stdout
        assert verified.returncode == 0
    assert rows_of(mount / "core.db", "SELECT sum(events) FROM usage_periods WHERE user_id = ?", ann) == [(3_002,)]


def test_an_import_of_closed_periods_leaves_nothing_but_the_newest_row_in_the_core(
    server: Server, tmp_path: Path
) -> None:
    server.environ |= REPLICATED
    write_events(tmp_path / "events.ndjson", 2_500, OLD)
    first = import_file(server, tmp_path / "events.ndjson")
    second = import_file(server, tmp_path / "events.ndjson")
    assert (first["accepted"], first["duplicates"]) == (2_500, 0)
    assert (second["accepted"], second["duplicates"]) == (0, 2_500)
    assert (count(server.data_dir / "core.db"), count(server.data_dir / "ledger.db")) == (1, 2_499)
    verified = server.command("verify-usage", "--json")
    assert json.loads(verified.stdout)["rows"] == 2_500
    with server.client() as client:
        own = client.get("/api/usage/export?format=ndjson")
        assert len(own.text.splitlines()) == 2_500
        posted = client.get(f"/api/usage/history?from={OLD}&to=2025-04-01T00:00:00Z").json()
        assert [(day["totalTokens"], day["events"]) for day in posted["history"]] == [(7_500, 2_500)]


def test_an_import_of_this_month_stays_in_the_core(server: Server, tmp_path: Path) -> None:
    server.environ |= REPLICATED
    write_events(tmp_path / "events.ndjson", 300, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_ms() / 1000)))
    assert import_file(server, tmp_path / "events.ndjson")["accepted"] == 300
    assert count(server.data_dir / "core.db") == 300
    assert not (server.data_dir / "ledger.db").exists()


def test_the_old_database_comes_straight_into_the_archive(server: Server, tmp_path: Path) -> None:
    server.environ |= REPLICATED
    rows = ",\n".join(f"({number},'user_ann',10,4,6,'2025-03-01 10:00:00')" for number in range(1, 1_201))
    (tmp_path / "dump.sql").write_text(
        "CREATE TABLE usage_logs (id INTEGER PRIMARY KEY, user_id TEXT, total_tokens INTEGER, input_tokens INTEGER,"
        f" output_tokens INTEGER, created_at TEXT);\nINSERT INTO usage_logs VALUES {rows};\n"
    )
    for accepted, duplicates in ((1_200, 0), (0, 1_200)):
        done = server.command("import-d1", str(tmp_path / "dump.sql"), "--name", "prod", "--json")
        assert done.returncode == 0, done.stderr
        (imported,) = json.loads(done.stdout)["imported"]
        assert (imported["accepted"], imported["duplicates"]) == (accepted, duplicates)
        assert (count(server.data_dir / "core.db"), count(server.data_dir / "ledger.db")) == (1, 1_199)


def test_an_import_killed_in_the_middle_goes_on_and_loses_nothing(server: Server, tmp_path: Path) -> None:
    server.environ |= REPLICATED
    path = tmp_path / "events.ndjson"
    write_events(path, LINES, OLD)
    ledger = server.data_dir / "ledger.db"
    words = [sys.executable, "-m", "app.cli", "usage", "import", str(path), "--data", str(server.data_dir)]
    with subprocess.Popen(words, env=server.environ) as importing:
        deadline = time.monotonic() + WAIT_SECONDS
        while not ledger.exists() or not rows_of(server.data_dir / "core.db", "SELECT 1 FROM archived WHERE moves > 2"):
            assert time.monotonic() < deadline
        importing.send_signal(signal.SIGKILL)
    before = count(server.data_dir / "core.db") + count(ledger)
    assert 0 < before < LINES, f"{before} of {LINES} rows were in when the import was killed"
    resumed = import_file(server, path)
    assert resumed["duplicates"] == 0, "the second run began where the first had committed"
    verified = json.loads(server.command("verify-usage", "--json").stdout)
    assert (verified["rows"], verified["differences"], verified["brokenLinks"]) == (LINES, [], 0)
