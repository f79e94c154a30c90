"""Shell: SQL that an operator types, on the one SQLite that boot has checked.

It is no `sqlite3` program on purpose: those that machines carry are older than 3.51.3, and beside a server that
writes and checkpoints they can corrupt the write-ahead log. What kills a replicated mount is refused here.
"""

import signal
import sys
from collections.abc import Iterator
from typing import Any

import click

from app.edge import sqlite
from app.edge.console import Console, Record

PROMPT, GOING_ON = "litehouse> ", "       ...> "
HELP = "Statements end with a semicolon. .tables, .schema [TABLE], .quit; Ctrl-C ends a statement that runs too long."
PROGRESS_STEPS = 20_000
OK, DENY = 0, 1
# Action codes of an authorizer: https://sqlite.org/c3ref/c_alter_table.html
PRAGMA, ATTACH = 19, 24
# Each of them, given a value, changes the file or the locks under everybody else.
FIXED_PRAGMAS = {"journal_mode", "locking_mode", "wal_checkpoint", "cache_spill", "writable_schema", "page_size"}

TABLES = """
    SELECT name, type FROM main.sqlite_schema WHERE type IN ('table', 'view') AND name NOT GLOB 'sqlite_*' ORDER BY name
"""
SCHEMA = "SELECT sql FROM main.sqlite_schema WHERE sql IS NOT NULL AND (?1 IS NULL OR tbl_name = ?1) ORDER BY tbl_name"


class Shell:
    """Runs statements on `raw` and shows at most `rows` rows of each."""

    def __init__(self, raw: Any, out: Console, rows: int) -> None:
        self._raw = raw
        self._out = out
        self._rows = rows
        raw.execute("PRAGMA cache_spill = OFF")
        raw.set_authorizer(_authorize)
        # Python sees Ctrl-C only where SQLite lets it run.
        raw.set_progress_handler(lambda: 0, PROGRESS_STEPS)

    def run(self, script: str) -> None:
        """Run the statements of a script; the first that fails ends it."""
        for statement in _statements(script):
            self._show(statement)

    def talk(self) -> None:
        """Ask for statements until there are no more. One that fails says why, and the next one is asked for."""
        import readline  # noqa: F401 - gives input() its history and its keys

        # Ctrl-C ends a statement, also where whoever started us has it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        click.echo(HELP)
        for statement in self._typed():
            try:
                self._command(statement) if statement.startswith(".") else self._show(statement)
            except sqlite.Error as error:
                click.echo(f"Error: {error}", err=True)

    def _typed(self) -> Iterator[str]:
        typed = ""
        while True:
            try:
                typed += input(GOING_ON if typed else PROMPT) + "\n"
            except KeyboardInterrupt:
                click.echo()
                typed = ""
                continue
            except EOFError:
                click.echo()
                return
            if typed.strip() == ".quit":
                return
            if not typed.strip():
                typed = ""
            elif typed.startswith(".") or sqlite.complete_statement(typed):
                yield typed.strip()
                typed = ""

    def _command(self, typed: str) -> None:
        word, _, name = typed.partition(" ")
        if word == ".tables":
            self._show(TABLES)
        elif word == ".schema":
            for (sql,) in self._raw.execute(SCHEMA, (name.strip() or None,)).fetchall():
                click.echo(f"{sql};")
        else:
            click.echo(HELP)

    def _show(self, statement: str) -> None:
        cursor = self._raw.execute(statement)
        if cursor.description is None:
            changed = max(cursor.rowcount, 0)
            self._out.say({"changed": changed}, f"{changed} rows changed.")
            return
        names = [column[0] for column in cursor.description]
        # Read at once and let go: a read that stays open keeps a replica's file from being replicated.
        rows = cursor.fetchmany(self._rows + 1)
        cursor.close()
        self._out.show_all([_record(names, row) for row in rows[: self._rows]], names)
        if len(rows) > self._rows:
            click.echo(f"Only the first {self._rows} rows: --rows shows more.", err=True)


def standing_input() -> str | None:
    """The script that was piped in; None where a person is typing."""
    return None if sys.stdin.isatty() else sys.stdin.read()


def _statements(script: str) -> Iterator[str]:
    """One by one, also where several share a line."""
    current = ""
    for part in script.split(";"):
        current += part + ";"
        if sqlite.complete_statement(current):
            if current.strip("; \n"):
                yield current.strip()
            current = ""
    if current.strip("; \n"):
        yield current.strip()


def _record(names: list[str], row: tuple[Any, ...]) -> Record:
    return {name: cell.hex() if isinstance(cell, bytes) else cell for name, cell in zip(names, row, strict=True)}


def _authorize(action: int, first: str | None, second: str | None, *_: object) -> int:
    """VACUUM attaches a file without a name."""
    if action == PRAGMA and second is not None and (first or "").lower() in FIXED_PRAGMAS:
        return DENY
    return DENY if action == ATTACH and not first else OK
