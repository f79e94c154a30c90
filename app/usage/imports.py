"""Imports: files of the ledger's lines, read in short commits so that a running server never waits for them.

How far a file has come is written with its rows; an import that was interrupted goes on there, and one that
had ended reads everything again and finds only duplicates.

Where the ledger's old rows are kept in the archive, those of closed periods go there with the commit that brought
them: they are counted and numbered in the core like any others, and never stay in it.
"""

import csv
import hashlib
import io
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO, TypeVar

import msgspec

from app.edge.clock import now_ms
from app.edge.database import Database, Transaction
from app.errors import AppError, Invalid
from app.usage import import_queries, ledger, queries
from app.usage.events import read_event
from app.usage.ledger import Poster
from app.usage.mover import Mover
from app.usage.rows import Cell, Line, read_row
from app.usage.wire import Refused, Wire

SOURCE = "import"
COMMIT_SECONDS = 0.05
FIRST_LINES = 100
MOST_LINES = 2_000
ERRORS_KEPT = 10
HEAD_BYTES = 1 << 20

T = TypeVar("T")
# Told how much of the file has been read, in bytes.
Progress = Callable[[int], None]


class Counts(NamedTuple):
    """What became of a file's lines; `errors` are the first few, with the number of their line."""

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    errors: tuple[str, ...] = ()

    def plus(self, other: "Counts") -> "Counts":
        errors = (*self.errors, *other.errors)[:ERRORS_KEPT]
        return Counts(
            self.accepted + other.accepted,
            self.duplicates + other.duplicates,
            self.rejected + other.rejected,
            errors,
        )


async def import_file(db: Database, path: Path, progress: Progress, mover: Mover | None = None) -> Counts:
    """Import NDJSON or, with a header of `usage_logs`' columns, CSV. Invalid for any other file."""
    with path.open("rb") as file:
        name = _fingerprint(file)
        text = io.TextIOWrapper(file, "utf-8-sig", newline="")
        lines = _read_csv(text) if path.suffix.lower() == ".csv" else _read_ndjson(file)
        return await load(db, f"usage {name}", lines, record_lines, lambda done: progress(file.tell()), mover)


async def load(
    db: Database,
    name: str,
    lines: Iterator[T],
    job: Callable[[Transaction, list[T]], Counts],
    progress: Callable[[int], None],
    mover: Mover | None = None,
) -> Counts:
    """Give `lines` to `job` in commits of at most COMMIT_SECONDS, from where an interrupted import stopped.

    `progress` is told how many are done.
    """
    done = await db.read(import_queries.find_position, name)
    lines = islice(lines, done, None)
    counts, size = Counts(), FIRST_LINES
    while batch := list(islice(lines, size)):
        done += len(batch)
        newest = await db.read(queries.get_newest_log)
        begun = time.monotonic()
        counts = counts.plus(await db.write(_load_batch, name, done, job, batch))
        size = _next_size(size, time.monotonic() - begun)
        if mover is not None:
            # From the newest row of before, which had to stay as long as it was the newest.
            await mover.move_imported(newest - 1, now_ms())
        progress(done)
    await db.write(import_queries.delete_position, name)
    return counts


def _load_batch(
    tx: Transaction, name: str, done: int, job: Callable[[Transaction, list[T]], Counts], batch: list[T]
) -> Counts:
    counts = job(tx, batch)
    import_queries.upsert_position(tx, name, done)
    return counts


def _next_size(size: int, seconds: float) -> int:
    """Half as many lines where a commit took too long, more where it was over at once."""
    if seconds > COMMIT_SECONDS / 2:
        return max(1, size // 2)
    return min(MOST_LINES, size + size // 4 + 1)


def record_lines(tx: Transaction, batch: list[Line | Refused]) -> Counts:
    outcome = ledger.record_received(tx, batch, Poster(), now_ms())
    errors = tuple(f"{result.id}: {result.error}" for result in outcome.results if result.status == "rejected")
    return Counts(outcome.accepted, outcome.duplicates, outcome.rejected, errors[:ERRORS_KEPT])


def _fingerprint(file: BinaryIO) -> str:
    """A name for a file's contents, so that another file of the same name starts at its beginning."""
    head = hashlib.blake2b(file.read(HEAD_BYTES), digest_size=16)
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    return f"{head.hexdigest()}-{size}"


def _read_csv(text: TextIO) -> Iterator[Line | Refused]:
    rows = csv.DictReader(text)
    if not {"total_tokens", "created_at"} <= set(rows.fieldnames or ()):
        raise Invalid("The file has no header with usage_logs' columns (total_tokens, created_at, …)")
    for number, row in enumerate(rows, 2):
        yield _line(number, partial(read_row, row, SOURCE, row.get("id") or f"line {number}"))


def _read_ndjson(file: BinaryIO) -> Iterator[Line | Refused]:
    for number, text in enumerate(file, 1):
        if text.strip():
            yield _line(number, partial(_read_object, text, number))


def _read_object(text: bytes, number: int) -> Line:
    """A row of an export, by its column names, or an event as ingestion takes it."""
    try:
        row = msgspec.json.decode(text, type=dict[str, Cell | dict[str, object] | list[object]])
        if "total_tokens" in row and "type" not in row:
            cells = {name: cell for name, cell in row.items() if not isinstance(cell, dict | list)}
            return read_row(cells, SOURCE, str(row.get("id") or f"line {number}"))
        event = read_event(msgspec.json.decode(text, type=Wire), now_ms())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"not an event: {error}") from error
    return Line(event, now_ms() if event.occurred_at_ms is None else event.occurred_at_ms)


def _line(number: int, read: Callable[[], Line]) -> Line | Refused:
    try:
        return read()
    except AppError as error:
        return Refused(error.code, error.message, f"line {number}")
