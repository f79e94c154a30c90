"""The commands of metering: `usage`, `verify-usage` and `import-d1`."""

import asyncio
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from app.edge import console, sqlite
from app.edge.clock import instant, now_ms
from app.edge.console import Console, Record
from app.edge.database import Connection
from app.errors import NotFound
from app.identity import users
from app.usage import d1, imports, quota, verify
from app.usage.imports import Counts
from app.usage.verify import Difference

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
    found = quota.read_quota(connection, users.get(connection, any_id).id, now)
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
    with _progress(path.name, path.stat().st_size) as told:
        counts = asyncio.run(out.use(lambda db: imports.import_file(db, path, told)))
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
        with _progress(dump.name, dump.stat().st_size) as told:
            staged = d1.stage(dump, Path(folder) / "staged.db", told)
        with _progress("rows", sum(staged.counts.values())) as told:
            counts = asyncio.run(out.use(lambda db: d1.import_stage(db, staged, database, _by_table(told))))
        staged.raw.close()
    _report(out, counts)


@click.command("verify-usage")
@console.options
def verify_usage(out: Console) -> None:
    """Compute the counters again from the ledger; exit 1 where the two differ."""
    out.require_primary()
    console.require_current(out.database_path)
    with sqlite.snapshot(out.database_path) as raw:
        report = verify.verify(Connection(raw))
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


@contextmanager
def _progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error where somebody watches."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console as Terminal
    from rich.progress import Progress

    with Progress(console=Terminal(stderr=True)) as bar:
        task: Any = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done)
