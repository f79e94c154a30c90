"""The command of operations: `doctor`."""

import os

import click

from app.edge import console
from app.edge.clock import now_ms
from app.edge.console import Console
from app.ops import doctor, queries

FINDING_COLUMNS = ("check", "ok", "detail")


@click.command("doctor")
@console.options
def doctor_command(out: Console) -> None:
    """Look for what is wrong with this machine.

    Exit 1 when something is. It reads the whole database, beside a running server and without stopping it.
    """
    findings = list(
        doctor.examine(
            out.data_dir,
            out.database_path,
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
