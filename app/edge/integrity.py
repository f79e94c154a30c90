"""Integrity: what SQLite itself says of a database file, read beside a running server."""

from pathlib import Path
from typing import Any

from app.edge import migrate, sqlite

MOST_PROBLEMS = 100


def quick_check(path: Path) -> list[str]:
    """What `PRAGMA quick_check` finds: broken pages, rows out of order, CHECKs that do not hold. Reads every page."""
    rows = _fetch(path, f"PRAGMA quick_check({MOST_PROBLEMS})")
    return [row[0] for row in rows if row[0] != "ok"]


def foreign_key_check(path: Path) -> list[str]:
    """The tables whose rows point at nothing."""
    rows = _fetch(path, 'SELECT "table", parent, count(*) FROM pragma_foreign_key_check GROUP BY 1, 2')
    return [f"{count} rows of {table} point at no row of {parent}" for table, parent, count in rows]


def schema_version(path: Path) -> tuple[int, int]:
    """`(the file's version, the newest that this code knows)`. Raises SchemaTooNew."""
    raw = sqlite.connect(path, read_only=True)
    try:
        migrate.check_readable(raw, "core")
        return migrate.read_version(raw)[0], migrate.list_migrations("core")[-1].version
    finally:
        raw.close()


def _fetch(path: Path, sql: str) -> list[tuple[Any, ...]]:
    # Opened with mode=ro, SQLite 3.53 leaves CHECK constraints out of its checks.
    raw = sqlite.connect(path)
    try:
        raw.execute("PRAGMA query_only = ON")
        rows: list[tuple[Any, ...]] = raw.execute(sql).fetchall()
        return rows
    finally:
        raw.close()
