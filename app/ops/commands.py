"""The commands of operations: `doctor` and `sql`."""

import os

import click

from app.edge import console, shell
from app.edge.archive import Archive
from app.edge.clock import now_ms
from app.edge.console import Console
from app.edge.mount import Mount
from app.edge.shell import Shell
from app.ops import doctor, queries
from app.usage import archive_queries

FINDING_COLUMNS = ("check", "ok", "detail")
SQL_ROWS = 1_000
MOST_SQL_ROWS = 1_000_000


@click.command("doctor")
@console.options
def doctor_command(out: Console) -> None:
    """Look for what is wrong with this machine.

    Exit 1 when something is. It reads the whole database, beside a running server and without stopping it.
    """
    findings = list(
        doctor.examine(
            out.data_dir,
            _archive(out),
            lambda: out.read(queries.find_newest_receipt_ms),
            os.environ,
            now_ms(),
            out.mount,
        )
    )
    out.show_all(
        ({"check": finding.name, "ok": finding.ok, "detail": finding.detail} for finding in findings), FINDING_COLUMNS
    )
    if not all(finding.ok for finding in findings):
        click.get_current_context().exit(1)


@click.command("sql")
@click.argument("statement", required=False)
@click.option("--write", is_flag=True, help="Allow changes. They are announced to nobody: prefer the other commands.")
@click.option(
    "--rows", type=click.IntRange(1, MOST_SQL_ROWS), default=SQL_ROWS, show_default=True, help="Show at most so many."
)
@console.options
def sql_command(out: Console, statement: str | None, write: bool, rows: int) -> None:
    """Run SQL, or open a shell.

    It reads the core and, where old rows of the ledger have left it, `usage_logs` over both files: `main.usage_logs` is
    the core's part, `archive.usage_logs` the other. A replica has the core alone, and only reads it. STATEMENT may be
    piped in.
    """
    console.require_current(out.database_path)
    if write:
        out.require_primary()
    archive = _archive(out)
    raw = archive.open_core() if out.mount is Mount.REPLICA else archive.open_both(write=write)
    try:
        opened = Shell(raw, out, rows)
        script = statement if statement is not None else shell.standing_input()
        if script is None:
            opened.talk()
        else:
            opened.run(script)
    finally:
        raw.close()


def _archive(out: Console) -> Archive:
    return Archive(out.database_path, out.ledger_path, archive_queries.VIEW)
