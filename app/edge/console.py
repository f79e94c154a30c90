"""The console: what every command shares. Its options, its database, its answers, its words when it fails."""

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import click
import msgspec

from app.edge import logs, migrate, sqlite
from app.edge.archive import Archive
from app.edge.clock import instant, parse_instant
from app.edge.database import Database
from app.edge.mount import Mount, mount_of
from app.errors import AppError
from app.settings import SettingsError, read_paths, read_place

T = TypeVar("T")

ROWS = 100
MOST_ROWS = 1_000
GAP = "  "
NOTHING = "-"

Record = dict[str, object]


class Console(NamedTuple):
    """What a command was started with: where the data is, and who reads its answer."""

    data_dir: Path
    database_path: Path
    ledger_path: Path
    replicated: bool
    as_json: bool
    mount: Mount = Mount.NONE

    def write(self, fn: Callable[..., T], *args: object) -> T:
        """`Database.write` beside a running server: it waits its turn, and the server sees what it announces."""
        return asyncio.run(self.use(lambda db: db.write(fn, *args)))

    def read(self, fn: Callable[..., T], *args: object) -> T:
        return asyncio.run(self.use(lambda db: db.read(fn, *args)))

    def require_primary(self) -> None:
        """Refuse on a replica: it cannot be written, and while a long read is open nothing arrives there."""
        if self.mount is Mount.REPLICA:
            raise click.ClickException("This is a replica: run this at the primary.")

    async def use(self, work: Callable[[Database], Awaitable[T]], archive: Archive | None = None) -> T:
        """Open the database for as long as `work` takes; with its archive, where `work` asks for rows that left."""
        require_current(self.database_path)
        db = Database(self.database_path, archive=archive, mount=self.mount)
        try:
            db.open()
            return await work(db)
        finally:
            await db.close()
            if archive is not None:
                archive.close()

    def show(self, record: Record) -> None:
        """One thing: a JSON object, or a line for each of its fields."""
        if self.as_json:
            click.echo(encode(record))
        else:
            click.echo(align([[name, plain(value)] for name, value in record.items()]))

    def show_all(self, records: Iterable[Record], columns: Sequence[str]) -> None:
        """A list: a JSON array, or a table of `columns`, drawn where a terminal can show it."""
        listed = list(records)
        rows = [[plain(record[name]) for name in columns] for record in listed]
        if self.as_json:
            click.echo(encode(listed))
        elif sys.stdout.isatty():
            draw(columns, rows)
        else:
            click.echo(align([columns, *rows]))

    def say(self, record: Record, sentence: str) -> None:
        """What was done: a JSON object, or a sentence."""
        click.echo(encode(record) if self.as_json else sentence)


def options(fn: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--data` and `--json`, a Console to begin with, and one line on stderr when it fails."""

    @click.option("--data", "data_dir", metavar="DIR", help="Where the databases are.  [default: $DATA_DIR or ./data]")
    @click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
    @functools.wraps(fn)
    def command(*args: object, data_dir: str | None, as_json: bool, **given: object) -> None:
        # What a command has to say it says itself.
        logs.configure("critical")
        with errors_in_one_line():
            fn(Console(*read_paths(data_dir=data_dir), as_json, mount_of(read_place())), *args, **given)

    return command


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """What an operator can mend is one line on stderr and exit 1; a fault of ours keeps its traceback."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (AppError, SettingsError, migrate.SchemaTooNew, OSError, UnicodeEncodeError, sqlite.Error) as error:
        raise click.ClickException(str(error)) from error


def require_current(path: Path) -> None:
    """Refuse a database that is not there, or that this code has to migrate first or cannot read."""
    if not path.exists():
        raise click.ClickException(f"There is no database at {path}: `litehouse migrate` makes it.")
    raw = sqlite.connect(path, read_only=True)
    try:
        migrate.check_readable(raw, "core")
        version, _ = migrate.read_version(raw)
    finally:
        raw.close()
    if version < migrate.list_migrations("core")[-1].version:
        raise click.ClickException(f"The database has schema {version}: `litehouse migrate` brings it up to date.")


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error where somebody watches; it is told how much of `total` is done."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console as Terminal
    from rich.progress import Progress

    with Progress(console=Terminal(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done)


def encode(value: Record | list[Record]) -> str:
    return msgspec.json.encode(value).decode()


def instant_of(sql_text: str) -> str:
    """`created_at` as answers give instants."""
    return instant(parse_instant(sql_text))


def instant_or_none(ms: int | None) -> str | None:
    return None if ms is None else instant(ms)


def plain(value: object) -> str:
    """A value as a person reads it in a column."""
    if value is None or value == "" or value == []:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns, each as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def draw(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console as Terminal
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Terminal(markup=False, highlight=False).print(table)
