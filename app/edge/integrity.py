"""Integrity: what SQLite itself says of a database file, read beside a running server."""

from pathlib import Path
from typing import Any

from app.edge import migrate, sqlite

MOST_PROBLEMS = 100


def quick_check(path: Path) -> list[str]:
    """What `PRAGMA quick_check` finds: broken pages, rows out of order, CHECKs that do not hold. Reads every page."""
    rows = _fetch(path, f"PRAGMA quick_check({MOST_PROBLEMS})")
    return [row[0] for row in rows if row[0] != "ok"]


def integrity_check(path: Path) -> list[str]:
    """The same and whether every index agrees with its table; several times as long."""
    rows = _fetch(path, f"PRAGMA integrity_check({MOST_PROBLEMS})")
    return [row[0] for row in rows if row[0] != "ok"]


def foreign_key_check(path: Path) -> list[str]:
    """The tables whose rows point at nothing."""
    rows = _fetch(path, 'SELECT "table", parent, count(*) FROM pragma_foreign_key_check GROUP BY 1, 2')
    return [f"{count} rows of {table} point at no row of {parent}" for table, parent, count in rows]


def count_rows(path: Path) -> dict[str, int]:
    """How many rows each table has, all of them in one snapshot. What Litestream keeps there itself is left out."""
    with sqlite.snapshot(path) as raw:
        named = raw.execute(
            r"""SELECT name FROM sqlite_schema WHERE type = 'table'
                AND name NOT LIKE 'sqlite\_%' ESCAPE '\' AND name NOT LIKE '\_litestream\_%' ESCAPE '\'"""
        )
        names = [row[0] for row in named]
        return {name: raw.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names}


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
