"""Migrations: in order, all or nothing, and never by code that is too old."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from app.edge import migrate, sqlite
from app.edge.migrate import SchemaTooNew, list_migrations, split_statements
from tests.edge.conftest import tell

FIRST = """
CREATE TABLE schema (version INTEGER NOT NULL, readable_from INTEGER NOT NULL) STRICT;
INSERT INTO schema (version, readable_from) VALUES (0, 1);
CREATE TABLE steps (name TEXT NOT NULL) STRICT;
INSERT INTO steps (name) VALUES ('first; with a semicolon');
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Migrations of a kind `test`, of which there is one."""
    monkeypatch.setattr(migrate, "MIGRATIONS", tmp_path / "migrations")
    made = tmp_path / "migrations" / "test"
    made.mkdir(parents=True)
    (made / "0001_first.sql").write_text(FIRST)
    return made


def ask(path: Path, sql: str) -> list[tuple[object, ...]]:
    raw = sqlite.connect(path)
    try:
        rows: list[tuple[object, ...]] = raw.execute(sql).fetchall()
        return rows
    finally:
        raw.close()


def test_migrations_run_once_and_in_order(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.db"
    (folder / "0003_third.sql").write_text("INSERT INTO steps (name) VALUES ('third');")
    (folder / "0002_second.sql").write_text("INSERT INTO steps (name) VALUES ('second');")
    assert migrate.migrate(path, "test") == ["0001_first", "0002_second", "0003_third"]
    assert migrate.migrate(path, "test") == []
    assert ask(path, "SELECT name FROM steps") == [("first; with a semicolon",), ("second",), ("third",)]
    assert ask(path, "SELECT version, readable_from FROM schema") == [(3, 1)]
    assert ask(path, "SELECT name FROM _sqlite_migrations") == [("0001_first",), ("0002_second",), ("0003_third",)]


def test_what_is_added_later_is_applied_alone(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    migrate.migrate(path, "test")
    (folder / "0002_second.sql").write_text(
        "CREATE TABLE more (x INTEGER) STRICT;\nUPDATE schema SET readable_from = 2;"
    )
    assert migrate.migrate(path, "test") == ["0002_second"]
    assert ask(path, "SELECT version, readable_from FROM schema") == [(2, 2)]


def test_a_failing_migration_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    (folder / "0002_second.sql").write_text("CREATE TABLE half (x INTEGER) STRICT;\nINSERT INTO missing VALUES (1);")
    with pytest.raises(sqlite.Error, match="missing"):
        migrate.migrate(path, "test")
    assert ask(path, "SELECT name FROM sqlite_schema") == []
    (folder / "0002_second.sql").write_text("CREATE TABLE whole (x INTEGER) STRICT;")
    assert migrate.migrate(path, "test") == ["0001_first", "0002_second"]


def test_a_last_statement_without_a_semicolon_is_not_dropped() -> None:
    assert split_statements("CREATE TABLE a (x);\n-- why; not\nCREATE TABLE b (y)") == [
        "CREATE TABLE a (x);",
        "-- why; not\nCREATE TABLE b (y)",
    ]


def test_a_file_that_needs_newer_code_is_refused_untouched(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    migrate.migrate(path, "test")
    ask(path, "UPDATE schema SET version = 9, readable_from = 2")
    with pytest.raises(SchemaTooNew, match="schema 9, readable from 2 on; this code knows 1"):
        migrate.migrate(path, "test")
    assert ask(path, "SELECT version, readable_from FROM schema") == [(9, 2)]


def test_a_newer_file_that_this_code_can_read_opens(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    migrate.migrate(path, "test")
    ask(path, "UPDATE schema SET version = 9")
    assert migrate.migrate(path, "test") == []
    assert ask(path, "SELECT version FROM schema") == [(9,)]


MIGRATES = """
import sys
from pathlib import Path
import app
from app.edge import migrate
print("ready", flush=True)
sys.stdin.readline()
print(migrate.migrate(Path(sys.argv[1]), "core"), flush=True)
"""


@pytest.mark.anyio
async def test_of_two_processes_that_start_at_once_one_migrates(
    tmp_path: Path, beside: Callable[..., "subprocess.Popen[str]"]
) -> None:
    path = tmp_path / "core.db"
    both = [beside(MIGRATES, path) for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=20) for process in both]
    assert [errors for _, errors in said] == ["", ""]
    assert sorted(answer for answer, _ in said) == sorted(
        [f"{[step.name for step in list_migrations('core')]}\n", "[]\n"]
    )


@pytest.mark.anyio
async def test_migrating_waits_for_a_lock_that_another_process_holds(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: Callable[..., "subprocess.Popen[str]"]
) -> None:
    path = tmp_path / "file.db"
    migrate.migrate(path, "test")
    (folder / "0002_second.sql").write_text("CREATE TABLE more (x INTEGER) STRICT;")
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    other = beside(LOCKS, path)
    assert await tell(other) == "locked"
    with pytest.raises(sqlite.Error, match="locked"):
        migrate.migrate(path, "test")
    assert await tell(other) == "free"
    assert migrate.migrate(path, "test") == ["0002_second"]


LOCKS = """
import sys
from pathlib import Path
import app
from app.edge import sqlite
raw = sqlite.connect(Path(sys.argv[1]))
sys.stdin.readline()
raw.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
raw.execute("COMMIT")
print("free", flush=True)
"""


def test_the_core_is_strict_tables_with_whole_foreign_keys(tmp_path: Path) -> None:
    path = tmp_path / "core.db"
    migrate.migrate(path, "core")
    tables = ask(path, "SELECT name, strict FROM pragma_table_list WHERE type = 'table' AND schema = 'main'")
    ours = {name: strict for name, strict in tables if not str(name).startswith(("sqlite_", "_sqlite_"))}
    assert len(ours) > 10
    assert [name for name, strict in ours.items() if not strict] == []
    for name in ours:
        for target, column in ask(path, f'SELECT "table", "to" FROM pragma_foreign_key_list(\'{name}\')'):
            keys = [
                row[0]
                for row in ask(path, f"SELECT name FROM pragma_table_info('{target}') WHERE pk OR name = '{column}'")
            ]
            assert column in keys, f"{name} refers to {target}.{column}"
    assert ask(path, "PRAGMA foreign_key_check") == []
