"""The old database's dump: its users, its usage and its webhook log, under the names that it gave them.

The dump is first read into a database of its own, of which only tables and rows are taken; what it holds of
views, triggers or settings is never run.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from app.edge import sqlite
from app.edge.clock import now_ms, parse_instant, sql_text
from app.edge.database import Database, Transaction
from app.errors import AppError, Invalid
from app.identity import queries as identity_queries
from app.identity.ids import new_id
from app.usage import import_queries, imports
from app.usage.imports import Counts
from app.usage.mover import Mover
from app.usage.plans import NEW_USERS, UNLIMITED, read_slug
from app.usage.rows import Cell, Line, read_row
from app.usage.wire import Refused

TABLES = ("users", "usage_logs", "webhook_logs")
CLERK_PREFIX = "user_"
STATEMENT_BYTES = 64 << 20

_TAKEN = re.compile(r'\s*(?:CREATE\s+TABLE(?:\s+IF\s+NOT\s+EXISTS)?|INSERT\s+INTO)\s+["`\[]?(\w+)', re.IGNORECASE)
_STATUSES = {"success": "success", "failed": "failed"}

Row = Mapping[str, Cell]
# Told the table and how many of its rows are done.
Progress = Callable[[str, int], None]


class Stage(NamedTuple):
    """A dump as tables."""

    raw: Any
    counts: dict[str, int]

    def rows(self, table: str) -> Iterator[Row]:
        cursor = self.raw.execute(f"SELECT rowid AS _row, * FROM {table} ORDER BY rowid")
        names = [column[0] for column in cursor.description]
        for row in cursor:
            yield dict(zip(names, row, strict=True))


def stage(dump: Path, path: Path, progress: Callable[[int], None]) -> Stage:
    """Read a dump into a new database at `path`. Invalid when it holds none of the tables that are imported."""
    raw = sqlite.connect(path, mapped=True)
    raw.execute("PRAGMA foreign_keys = OFF")
    raw.execute("PRAGMA synchronous = OFF")
    raw.execute("BEGIN")
    with dump.open("rb") as file:
        for statement in _statements(file):
            _take(raw, statement)
            progress(file.tell())
    raw.execute("COMMIT")
    found = {row[0] for row in raw.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    counts = {table: raw.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES if table in found}
    if not counts:
        raise Invalid(f"The dump holds none of {', '.join(TABLES)}")
    return Stage(raw, counts)


def _statements(file: BinaryIO) -> Iterator[str]:
    current: list[str] = []
    size = 0
    for line in file:
        current.append(line.decode("utf-8", "replace"))
        size += len(line)
        if size > STATEMENT_BYTES:
            raise Invalid(f"A statement of the dump is longer than {STATEMENT_BYTES} bytes")
        if line.rstrip().endswith(b";") and sqlite.complete_statement("".join(current)):
            yield "".join(current)
            current, size = [], 0


def _take(raw: Any, statement: str) -> None:
    match = _TAKEN.match(statement)
    if match is None or match[1].lower() not in TABLES:
        return
    try:
        raw.execute(statement)
    except sqlite.Error as error:
        raise Invalid(f"A statement of the dump cannot be read: {statement.strip()[:80]}…") from error


async def import_stage(
    db: Database, staged: Stage, name: str, progress: Progress, mover: Mover | None = None
) -> dict[str, Counts]:
    """Import what was staged, users first. Usage has the source `d1:NAME` and each row's own id."""
    jobs: dict[str, Callable[[Transaction, list[Row]], Counts]] = {
        "users": partial(_users, provider=f"d1:{name}"),
        "usage_logs": partial(_usage, provider=f"d1:{name}"),
        "webhook_logs": _webhooks,
    }
    return {
        table: await imports.load(
            db,
            f"d1:{name} {table} {staged.counts[table]}",
            iter(staged.rows(table)),
            jobs[table],
            partial(progress, table),
            mover,
        )
        for table in TABLES
        if table in staged.counts
    }


def _users(tx: Transaction, batch: list[Row], provider: str) -> Counts:
    counts = Counts()
    for row in batch:
        subjects = _subjects(row, provider)
        if not subjects or any(_is_known(tx, *subject) for subject in subjects):
            counts = counts.plus(Counts(duplicates=1))
            continue
        counts = counts.plus(_insert_user(tx, row, subjects))
    return counts


def _subjects(row: Row, provider: str) -> list[tuple[str, str]]:
    """The ids under which the old database knew a user: Clerk's, and its own where that is another."""
    own = _text(row, "id")
    clerk = _text(row, "clerk_id", "clerk_user_id") or (own if own and own.startswith(CLERK_PREFIX) else None)
    found = [(identity_queries.CLERK, clerk)] if clerk else []
    return [*found, (provider, own)] if own and own != clerk else found


def _is_known(tx: Transaction, provider: str, subject: str) -> bool:
    known = identity_queries.find_user_id_by_subject(tx, provider, subject) is not None
    return known or identity_queries.has_tombstone(tx, provider, subject)


def _insert_user(tx: Transaction, row: Row, subjects: list[tuple[str, str]]) -> Counts:
    plan = read_slug(_text(row, "subscription", "plan", "subscription_plan") or NEW_USERS)
    tokens = import_queries.find_plan_tokens(tx, plan)
    errors = () if tokens is not None else (f"{subjects[0][1]}: unknown plan {plan!r}, now on {NEW_USERS}",)
    created = sql_text(_instant(row, "created_at"))
    import_queries.insert_imported_user(
        tx,
        (
            user_id := new_id("usr"),
            _text(row, "email"),
            _text(row, "first_name"),
            _text(row, "last_name"),
            _text(row, "image_url"),
            plan if tokens is not None else NEW_USERS,
            _quota(row, tokens),
            created,
            created,
        ),
    )
    for provider, subject in subjects:
        identity_queries.insert_identity(tx, provider, subject, user_id)
    return Counts(accepted=1, errors=errors)


def _quota(row: Row, plan_tokens: int | None) -> int | None:
    """An override only where it says something else than the plan."""
    text = _text(row, "token_quota", "tokenQuota") or ""
    if not text.removeprefix("-").isdigit():
        return None
    quota = int(text)
    return quota if quota != plan_tokens and (quota > 0 or quota == UNLIMITED) else None


def _usage(tx: Transaction, batch: list[Row], provider: str) -> Counts:
    lines: list[Line | Refused] = []
    for row in batch:
        number = _text(row, "id") or str(row["_row"])
        try:
            line = read_row({**row, "source": provider, "event_id": number}, provider, number)
        except AppError as error:
            lines.append(Refused(error.code, error.message, f"usage_logs {number}"))
            continue
        lines.append(line._replace(event=line.event._replace(user=_owner(tx, line.event.user, provider))))
    return imports.record_lines(tx, lines)


def _owner(tx: Transaction, old_id: str | None, provider: str) -> str | None:
    """Our id of an old row's user; one that the dump does not hold is made, a deleted one stays away."""
    if old_id is None:
        return None
    found = identity_queries.find_user_id(tx, old_id) or identity_queries.find_user_id_by_subject(tx, provider, old_id)
    subject = (identity_queries.CLERK if old_id.startswith(CLERK_PREFIX) else provider, old_id)
    if found is not None or identity_queries.has_tombstone(tx, *subject):
        return found or old_id
    user_id = new_id("usr")
    identity_queries.insert_user(tx, user_id, now=now_ms())
    identity_queries.insert_identity(tx, *subject, user_id)
    return user_id


def _webhooks(tx: Transaction, batch: list[Row]) -> Counts:
    counts = Counts()
    for row in batch:
        created = sql_text(_instant(row, "created_at"))
        new = import_queries.insert_imported_webhook(
            tx,
            (
                _text(row, "event_id", "svix_id") or f"d1-{row['_row']}",
                _text(row, "event_type") or "unknown",
                _STATUSES.get(_text(row, "processing_status", "status") or "", "pending"),
                _text(row, "error_message"),
                _text(row, "payload") or "{}",
                created,
                created,
            ),
        )
        counts = counts.plus(Counts(accepted=int(new), duplicates=int(not new)))
    return counts


def _text(row: Row, *names: str) -> str | None:
    """The first of these columns that holds something."""
    for name in names:
        cell = row.get(name)
        if cell is not None and cell != "":
            return str(cell).replace("\0", "")
    return None


def _instant(row: Row, name: str) -> int:
    text = _text(row, name)
    try:
        return parse_instant(text) if text else now_ms()
    except ValueError:
        return now_ms()
