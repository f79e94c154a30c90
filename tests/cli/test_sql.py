"""litehouse sql."""

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.conftest import refusal, run
from tests.conftest import Server, rows_of
from tests.usage.books import Books, line, old
from tests.waiting import until

BUSY_TICKS = 10
WAIT_SECONDS = 20.0


@pytest.fixture
def stocked(tmp_path: Path) -> Server:
    """Data of which two ledger rows have left the core and two are in it; no server runs."""

    async def write() -> None:
        books = Books(tmp_path)
        ann = await books.user("user_ann")
        await books.record(old(ann, "a", 1), old(ann, "b", 2), line(ann, "c", 3), line(ann, "d", 4))
        assert await books.move() == 2
        await books.close()

    asyncio.run(write())
    return Server(tmp_path)


def pipe(server: Server, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli", "sql", *words, "--data", str(server.data_dir)]
    return subprocess.run(command, env=server.environ, input=text, capture_output=True, text=True, timeout=60)


def test_usage_logs_is_both_files_and_each_has_a_name_of_its_own(stocked: Server) -> None:
    count = "SELECT count(*) AS n, sum(total_tokens) AS tokens FROM"
    assert run(stocked, "sql", f"{count} usage_logs") == [{"n": 4, "tokens": 10}]
    assert run(stocked, "sql", f"{count} main.usage_logs") == [{"n": 2, "tokens": 7}]
    assert run(stocked, "sql", f"{count} archive.usage_logs") == [{"n": 2, "tokens": 3}]


def test_a_person_gets_a_table_and_a_script_several(stocked: Server) -> None:
    script = (
        "SELECT event_id, total_tokens AS tokens FROM usage_logs ORDER BY id;\nSELECT ';' AS x; SELECT 'it''s' AS y\n"
    )
    done = pipe(stocked, script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "event_id  tokens", "a         1", "b         2", "c         3", "d         4", "x", ";",
        "y", "it's",
    ]  # fmt: skip


def test_rows_are_bounded_and_that_is_said(stocked: Server) -> None:
    done = stocked.command("sql", "SELECT id FROM usage_logs ORDER BY id", "--rows", "3", "--json")
    assert json.loads(done.stdout) == [{"id": 1}, {"id": 2}, {"id": 3}]
    assert "Only the first 3 rows" in done.stderr


def test_bytes_are_shown_as_hex(stocked: Server) -> None:
    assert run(stocked, "sql", "SELECT x'00ff' AS key") == [{"key": "00ff"}]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM main.usage_logs",
        "DELETE FROM archive.usage_logs",
        "PRAGMA query_only = OFF; DELETE FROM main.usage_logs",
        "CREATE TABLE t (x)",
        "VACUUM",
    ],
)
def test_nothing_can_be_changed_unless_it_was_asked_for(stocked: Server, statement: str) -> None:
    before = rows_of(stocked.data_dir / "core.db", "SELECT count(*) FROM usage_logs, sqlite_schema")
    done = stocked.command("sql", statement)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert rows_of(stocked.data_dir / "core.db", "SELECT count(*) FROM usage_logs, sqlite_schema") == before


def test_write_changes_the_core_and_never_the_archive(stocked: Server) -> None:
    sql = "UPDATE users SET first_name = 'Ann'"
    assert run(stocked, "sql", sql, "--write") == {"changed": 1}
    assert rows_of(stocked.data_dir / "core.db", "SELECT first_name FROM users") == [("Ann",)]
    refused = stocked.command("sql", "DELETE FROM archive.usage_logs", "--write")
    assert (refused.returncode, "readonly" in refused.stderr) == (1, True)


@pytest.mark.parametrize(
    "statement",
    ["VACUUM", "PRAGMA journal_mode = DELETE", "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA locking_mode = EXCLUSIVE"],
)
def test_what_kills_a_replicated_mount_is_refused_also_for_writing(stocked: Server, statement: str) -> None:
    done = stocked.command("sql", statement, "--write")
    assert done.returncode == 1, done.stdout
    assert "not authorized" in done.stderr or "authorization" in done.stderr
    assert rows_of(stocked.data_dir / "core.db", "PRAGMA journal_mode") == [("wal",)]


def test_where_nothing_has_left_it_is_the_core_alone(server: Server) -> None:
    assert run(server, "sql", "SELECT count(*) AS n FROM usage_logs") == [{"n": 0}]


def test_a_missing_archive_is_said_in_one_line(stocked: Server) -> None:
    (stocked.data_dir / "ledger.db").rename(stocked.data_dir / "aside.db")
    assert refusal(stocked, "sql", "SELECT 1") == "ledger.db is missing"


def test_a_replica_has_the_core_alone_and_writes_nothing(stocked: Server) -> None:
    """The old rows are on the primary's volume: where that is lost, replicas are asked how far they have come."""
    (stocked.data_dir / "ledger.db").unlink()
    stocked.environ |= {"REPLICATION": "litefs", "PRIMARY_REGION": "fra", "FLY_REGION": "ams"}
    assert run(stocked, "sql", "SELECT count(*) AS n FROM usage_logs") == [{"n": 2}]
    (position,) = run(stocked, "sql", "SELECT epoch, sequence FROM replication_token")
    said = refusal(stocked, "sql", "--write", "UPDATE replication_token SET sequence = 0")
    assert said == "This is a replica: run this at the primary."
    assert run(stocked, "sql", "SELECT epoch, sequence FROM replication_token") == [position]


def test_a_wrong_statement_is_one_line(stocked: Server) -> None:
    assert refusal(stocked, "sql", "SELEC 1") == 'near "SELEC": syntax error'


class Terminal:
    """`litehouse sql` at a terminal."""

    def __init__(self, server: Server) -> None:
        self._end, child = pty.openpty()
        words = [sys.executable, "-m", "app.cli", "sql", "--data", str(server.data_dir)]
        environ = server.environ | {"TERM": "dumb"}
        self.process = subprocess.Popen(
            words, env=environ, stdin=child, stdout=child, stderr=child, start_new_session=True
        )
        os.close(child)
        os.set_blocking(self._end, False)
        self.seen = ""

    def expect(self, text: str) -> None:
        """Read on until `text` has come."""
        until(lambda: self._has_seen(text), WAIT_SECONDS, lambda: self.seen)
        self.seen = self.seen.partition(text)[2]

    def _has_seen(self, text: str) -> bool:
        if text not in self.seen:
            with suppress(BlockingIOError):
                self.seen += os.read(self._end, 4096).decode()
        return text in self.seen

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def until_busy(self) -> None:
        """Until a statement runs that takes the processor."""
        begun = self._ticks()
        until(lambda: self._ticks() >= begun + BUSY_TICKS, WAIT_SECONDS)

    def _ticks(self) -> int:
        """Of the processor, a hundredth of a second each."""
        return int(Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11])

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._end)


def test_a_person_can_talk_to_it(stocked: Server) -> None:
    terminal = Terminal(stocked)
    try:
        terminal.expect("litehouse> ")
        terminal.type("SELECT sum(total_tokens)\n")
        terminal.expect("...> ")
        terminal.type("AS tokens FROM usage_logs;\n")
        terminal.expect("10")
        terminal.type("SELEC;\n")
        terminal.expect("syntax error")
        terminal.type(".schema archived\n")
        terminal.expect("CREATE TABLE archived")
        terminal.type("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n;\n")
        terminal.expect("FROM n;")
        terminal.until_busy()
        terminal.process.send_signal(signal.SIGINT)
        terminal.expect("interrupted")
        terminal.type(".quit\n")
        assert terminal.process.wait(WAIT_SECONDS) == 0
    finally:
        terminal.close()
