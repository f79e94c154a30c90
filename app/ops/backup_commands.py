"""The commands of the backup: `status`, `verify` and `restore`."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import click

from app.edge import console
from app.edge.backup import CORE
from app.edge.clock import parse_instant
from app.edge.console import Console, Record
from app.edge.mount import Mount
from app.errors import NotFound
from app.ops import backup
from app.ops.backup import Copy, Restored
from app.settings import Settings, read_unchecked

T = TypeVar("T")

STATUS_COLUMNS = ("file", "held", "lastSync", "behind", "newest", "epochs")
VERDICT_COLUMNS = ("file", "ok", "rows", "live", "problems")
RESTORED_COLUMNS = ("file", "path", "kept", "problem")


@click.group("backup")
def backup_group() -> None:
    """What is kept in LITESTREAM_REPLICA_URL: how far it is, whether it is whole, and how to get it back."""


@backup_group.command("status")
@click.option("--instance", "instance_id", metavar="ID", help="This instance alone.")
@console.options
def status(out: Console, instance_id: str | None) -> None:
    """Show each file: whether Litestream holds it, its last sync, what the replica lacks, its newest object.

    Exit 1 when the core, or what was asked for, is not held or is behind. The primary alone holds the core.
    """
    settings, url = _settings(out)
    copies = _copies(settings, url, instance_id)
    states = asyncio.run(backup.ask_status(copies, url, settings.backup_socket))
    records: list[Record] = [
        {
            "file": state.file,
            "held": state.held,
            "lastSync": state.last_sync,
            "behind": state.behind,
            "newest": state.newest,
            "epochs": list(state.epochs),
            "replica": state.replica,
        }
        for state in states
    ]
    out.show_all(records, STATUS_COLUMNS)
    # What was asked for, or the core, has to be held; of a replica's files none has to.
    due = instance_id or (None if out.mount is Mount.REPLICA else CORE)
    if not all(state.held and not state.behind for state in states if state.held or state.file == due):
        click.get_current_context().exit(1)


@backup_group.command("verify")
@click.option("--instance", "instance_id", metavar="ID", help="This instance alone.")
@console.options
def verify(out: Console, instance_id: str | None) -> None:
    """Restore everything into a folder that goes away again, and check what came out.

    Integrity, foreign keys, the counters against the ledger, and every table's count against the live file where
    nobody writes meanwhile. Beside a running server. Exit 1 when something is wrong.
    """
    settings, url = _settings(out)
    copies = _copies(settings, url, instance_id)
    verdicts = _with_progress("verify", backup.verify_copies(copies, url), len(copies))
    records: list[Record] = [
        {"file": one.file, "ok": one.ok, "rows": one.rows, "live": one.live, "problems": list(one.problems)}
        for one in verdicts
    ]
    out.show_all(records, VERDICT_COLUMNS)
    if not all(one.ok for one in verdicts):
        click.get_current_context().exit(1)


@backup_group.command("restore")
@click.option("--at", metavar="TIME", help="As it was then: 2026-12-01T12:00:00Z.  [default: the newest]")
@click.option("--instance", "instance_id", metavar="ID", help="This instance alone.")
@click.option("--to", "target", metavar="DIR", type=click.Path(path_type=Path), help="Into another folder.")
@click.option("--force", is_flag=True, help="Keep the files that are there beside the restored ones.")
@console.options
def restore(out: Console, at: str | None, instance_id: str | None, target: Path | None, force: bool) -> None:
    """Bring the files back: where the server looks, which must not run meanwhile, or below another folder.

    Nothing is overwritten: with --force, what is there gets another name. What comes back begins a new epoch, so
    clients do not take its past for their own.
    """
    settings, url = _settings(out)
    at_ms = _parse(at)
    copies = _copies(settings, url, instance_id)
    if target is not None:
        steps = backup.restore_to(copies, url, target, at_ms, settings.data_dir)
    else:
        steps = backup.restore_in_place(settings, copies, url, at_ms, force=force)
    restored = _with_progress("restore", steps, len(copies))
    out.show_all(map(_record, restored), RESTORED_COLUMNS)


def _settings(out: Console) -> tuple[Settings, str]:
    settings = read_unchecked(os.environ, data_dir=click.get_current_context().params.get("data_dir"))
    if settings.backup_url is None:
        raise click.ClickException("LITESTREAM_REPLICA_URL is not set: there is no backup.")
    return settings, settings.backup_url


def _copies(settings: Settings, url: str, instance_id: str | None) -> list[Copy]:
    if instance_id is not None:
        return [backup.find_copy(settings, url, instance_id)]
    copies = backup.list_copies(settings, url)
    if not copies:
        raise NotFound(f"There is nothing at {url.partition('?')[0]}")
    return copies


def _parse(at: str | None) -> int | None:
    if at is None:
        return None
    try:
        return parse_instant(at)
    except ValueError as error:
        raise click.BadParameter(f"{at!r} is not a time such as 2026-12-01T12:00:00Z", param_hint="--at") from error


def _with_progress(label: str, steps: Iterator[T], total: int) -> list[T]:
    done: list[T] = []
    with console.progress(label, total) as told:
        for step in steps:
            done.append(step)
            told(len(done))
    return done


def _record(one: Restored) -> Record:
    return {"file": one.file, "path": one.path, "kept": one.kept, "problem": one.problem}
