"""The commands of metering: `usage`, `verify-usage` and `import-d1`."""

import asyncio
import re
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from app.edge import console
from app.edge.archive import Archive
from app.edge.clock import instant, now_ms
from app.edge.console import Console, Record
from app.edge.database import Connection, Database
from app.errors import NotFound
from app.usage import archive_queries, d1, imports, quota, verify
from app.usage.imports import Counts
from app.usage.mover import Mover
from app.usage.verify import Difference

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
DIFFERENCE_COLUMNS = ("where", "userId", "at", "counted", "ledger")


@click.group("usage")
def usage_group() -> None:
    """What users have spent."""


@usage_group.command("show")
@click.argument("any_id", metavar="ID")
@console.options
def show_usage(out: Console, any_id: str) -> None:
    """Show a user's quota in this period. ID is ours or Clerk's."""
    out.show(out.read(_read_quota, any_id, now_ms()))


def _read_quota(connection: Connection, any_id: str, now: int) -> Record:
    found = quota.read_any_quota(connection, any_id, now)
    if found is None:
        raise NotFound(f"User not found: {any_id}")
    return {"user": any_id, **msgspec.to_builtins(quota.view(found))}


@usage_group.command("import")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@console.options
def import_usage(out: Console, path: Path) -> None:
    """Import NDJSON events, or CSV with usage_logs' columns, beside a running server.

    Interrupted, it goes on where it was; a second time it finds only duplicates.
    """
    with console.progress(path.name, path.stat().st_size) as told:
        counts = _load(out, lambda db, mover: imports.import_file(db, path, told, mover))
    _report(out, {"usage": counts})


@click.command("import-d1")
@click.argument("dump", metavar="FILE.sql", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", metavar="DATABASE", help="The old database's name; the file's unless given.")
@console.options
def import_d1(out: Console, dump: Path, name: str | None) -> None:
    """Import the old database's dump: users, usage_logs and webhook_logs. A second run changes nothing."""
    database = name or dump.stem
    if not _NAME.fullmatch(database):
        raise click.ClickException(f"--name: expected up to 64 of A-Z a-z 0-9 _ . -, got {database[:40]!r}")
    with tempfile.TemporaryDirectory() as folder:
        with console.progress(dump.name, dump.stat().st_size) as told:
            staged = d1.stage(dump, Path(folder) / "staged.db", told)
        with console.progress("rows", sum(staged.counts.values())) as told:
            counts = _load(out, lambda db, mover: d1.import_stage(db, staged, database, _by_table(told), mover))
        staged.raw.close()
    _report(out, counts)


def _load(out: Console, work: Callable[[Database, Mover | None], Awaitable[T]]) -> T:
    """Run an import, which asks the archive too, and where there are other regions leaves old rows there."""
    archive = _archive(out)
    return asyncio.run(out.use(lambda db: work(db, Mover(db, archive) if out.replicated else None), archive))


def _archive(out: Console) -> Archive:
    return Archive(out.database_path, out.ledger_path, archive_queries.VIEW)


@click.command("verify-usage")
@console.options
def verify_usage(out: Console) -> None:
    """Compute the counters again from the ledger, wherever its rows are; exit 1 where the two differ."""
    out.require_primary()
    console.require_current(out.database_path)
    with _archive(out).snapshot() as connection:
        report = verify.verify(connection)
    if out.as_json or report.clean:
        record: Record = {"rows": report.rows, "counters": report.counters, "brokenLinks": report.broken_links}
        record["differences"] = [_difference(found) for found in report.differences]
        sentence = f"{report.counters} counters agree with {report.rows} ledger rows: zero difference."
        out.say(record, sentence)
    else:
        out.show_all(map(_difference, report.differences), DIFFERENCE_COLUMNS)
        click.echo(f"{len(report.differences)} differences, {report.broken_links} broken links.", err=True)
    if not report.clean:
        sys.exit(1)


def _difference(found: Difference) -> Record:
    return {
        "where": found.where,
        "userId": found.user_id,
        "at": instant(found.at_ms),
        "counted": list(found.counted),
        "ledger": list(found.ledger),
    }


def _by_table(told: Callable[[int], None]) -> d1.Progress:
    """One bar for all tables, from the lines done of each."""
    done: dict[str, int] = {}

    def progress(table: str, lines: int) -> None:
        done[table] = lines
        told(sum(done.values()))

    return progress


def _report(out: Console, counts: dict[str, Counts]) -> None:
    rows: list[Record] = [
        {"what": what, **each._asdict(), "errors": list(each.errors)} for what, each in counts.items()
    ]
    if out.as_json:
        out.say({"imported": rows}, "")
    else:
        out.show_all(rows, ("what", "accepted", "duplicates", "rejected"))
        for error in (error for each in counts.values() for error in each.errors):
            click.echo(error, err=True)
