"""Migrations: a folder of NNNN_name.sql, applied in order by sqlite-utils, forward only.

`schema(version, readable_from)` says what the file is and the oldest code that may serve it, so that an
old machine that restarts in the middle of a deploy lives, and so does a rollback.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

from app.edge import sqlite

MIGRATIONS = Path(__file__).parent.parent.parent / "migrations"
_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


class Migration(NamedTuple):
    version: int
    name: str
    sql: str


class SchemaTooNew(RuntimeError):
    """The file was migrated by newer code that this code cannot read."""


def list_migrations(kind: str) -> list[Migration]:
    """The migrations of one kind of file ('core'), oldest first."""
    found = [(path, _NAME.fullmatch(path.name)) for path in sorted((MIGRATIONS / kind).glob("*.sql"))]
    return [Migration(int(match[1]), path.stem, path.read_text()) for path, match in found if match]


def newest(kind: str) -> int:
    """The version that this code brings a file to."""
    return list_migrations(kind)[-1].version


def read_version(raw: Any) -> tuple[int, int]:
    """`(version, readable_from)` of an open file; (0, 0) when it is new."""
    if not raw.execute("SELECT 1 FROM sqlite_schema WHERE name = 'schema'").fetchone():
        return (0, 0)
    version, readable_from = raw.execute("SELECT version, readable_from FROM schema").fetchone()
    return (version, readable_from)


def check_readable(raw: Any, kind: str) -> None:
    """Raise SchemaTooNew when the file's `readable_from` is beyond the newest migration that we know."""
    known = newest(kind)
    version, readable_from = read_version(raw)
    if readable_from > known:
        raise SchemaTooNew(
            f"The database has schema {version}, readable from {readable_from} on; this code knows {known}."
        )


def migrate(path: Path, kind: str) -> list[str]:
    """Apply what is pending to the file at `path`, made if it is missing; the names that were applied.

    One transaction for all steps: one that fails leaves nothing behind, and of two processes that start at
    once the second finds nothing to do.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = sqlite.connect(path)
    try:
        sqlite.enter_wal(raw)
        # As in the writer: a savepoint rolled back after a spill would kill a replicating file system.
        raw.execute("PRAGMA cache_spill = OFF")
        check_readable(raw, kind)
        if not _list_pending(raw, kind):
            return []
        raw.execute("BEGIN IMMEDIATE")
        pending = _list_pending(raw, kind)
        if pending:
            _apply(raw, kind, pending)
        raw.execute("COMMIT")
        return [step.name for step in pending]
    finally:
        raw.close()


def _list_pending(raw: Any, kind: str) -> list[Migration]:
    version, _ = read_version(raw)
    return [step for step in list_migrations(kind) if step.version > version]


def _apply(raw: Any, kind: str, pending: list[Migration]) -> None:
    from sqlite_utils import Database
    from sqlite_utils.migrations import Migrations

    steps = Migrations(kind)
    for step in pending:

        def run(db: Database, step: Migration = step) -> None:
            for statement in split_statements(step.sql):
                db.execute(statement)
            db.execute("UPDATE schema SET version = ?", [step.version])

        steps(name=step.name)(run)
    steps.apply(Database(raw))


def split_statements(script: str) -> list[str]:
    """The statements of a script, one by one, so that they can share a transaction."""
    statements, current = [], ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite.complete_statement(current):
            statements.append(current.strip())
            current = ""
    # What no semicolon ends runs too: a forgotten one must not drop a statement in silence.
    return [statement for statement in [*statements, current.strip()] if statement]
