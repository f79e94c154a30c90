"""The doctor: what could be wrong with a machine, looked at beside a running server."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from app.edge import folder, integrity, migrate, sqlite
from app.edge.archive import Archive
from app.edge.clock import instant
from app.edge.mount import Mount
from app.edge.transaction import Connection, find_archived
from app.edge.writer import WAL_BYTES
from app.errors import AppError
from app.identity import demo
from app.ops import backup_checks, home_checks, machine_checks
from app.settings import SettingsError, read_settings, read_unchecked

MIB = 1 << 20
FREE_BYTES = 512 * MIB
# A writer refuses at WAL_BYTES; a quarter of it means that something keeps the checkpoints from ending.
LONG_WAL_BYTES = WAL_BYTES // 4
CLOCK_LEEWAY_MS = 60_000
# Before this code was written: a clock that says so was never set.
EARLIEST_MS = 1_767_225_600_000
# The settings that hold a secret, each of which may come from a file.
SECRETS = (
    "ADMIN_TOKEN",
    "ADMIN_KEY",
    "METRICS_TOKEN",
    "JWT_SECRET",
    "PEER_SECRET",
    "CLERK_SECRET_KEY",
    "CLERK_WEBHOOK_SECRET",
)


class Finding(NamedTuple):
    name: str
    ok: bool
    detail: str


Check = Callable[[], str]


class Wrong(Exception):
    """A check that found something; its words go to the operator."""


def examine(
    data_dir: Path,
    archive: Archive,
    newest_receipt: Callable[[], int | None],
    environ: Mapping[str, str],
    now: int,
    mount: Mount = Mount.NONE,
) -> Iterator[Finding]:
    """Every check, in the order in which one explains the next. `archive` knows where the database is, too."""
    database = archive.core
    settings = read_unchecked(environ, data_dir=str(data_dir))
    yield _look("sqlite", _check_sqlite)
    yield _look("settings", lambda: _check_settings(environ))
    yield _look("role", lambda: machine_checks.check_role(settings.regions))
    yield _look("lag", lambda: machine_checks.check_lag(settings.regions, database))
    yield _look("litefs port", lambda: machine_checks.check_closed(settings.regions, machine_checks.public_addresses()))
    yield _look("database", lambda: _check_exists(database))
    if database.exists():
        yield _look("mount", lambda: machine_checks.check_mount(settings, database))
        schema = _look("schema", lambda: _check_schema(database))
        yield schema
        # While a replica's whole file is read nothing arrives in it; the primary's is the same file.
        if mount is not Mount.REPLICA:
            yield _look("integrity", lambda: _check_none(integrity.quick_check(database)))
            yield _look("foreign keys", lambda: _check_none(integrity.foreign_key_check(database)))
        yield _look("wal", lambda: _check_wal(database))
        yield _look("clock", lambda: _check_clock(newest_receipt() if schema.ok else None, now))
        # It is the primary's: a replica has what the core says of it, and not the file.
        if schema.ok and mount is not Mount.REPLICA:
            yield _look("archive", lambda: _check_archive(archive))
    yield _look("ledger", lambda: machine_checks.check_ledger_place(settings, database, archive.path))
    yield _look("disk", lambda: _check_disk(database))
    yield _look("litestream", lambda: backup_checks.check_litestream(settings, database))
    yield _look("left behind", lambda: machine_checks.check_left_behind(data_dir))
    yield _look("certificates", lambda: machine_checks.check_bundle(settings, environ))
    if database.exists():
        yield _look("leftovers", lambda: home_checks.check_leftovers(settings, database))
    yield _look("old epochs", lambda: backup_checks.check_old_epochs(settings))
    yield _look("secret files", lambda: _check_secret_files(data_dir, environ))


def _look(name: str, check: Check) -> Finding:
    try:
        return Finding(name, True, check())
    except (Wrong, AppError, migrate.SchemaTooNew, RuntimeError, OSError, sqlite.Error) as error:
        return Finding(name, False, str(error))


def _check_sqlite() -> str:
    sqlite.assert_one_module()
    return f"{sqlite.VERSION}, the only one in the process"


def _check_settings(environ: Mapping[str, str]) -> str:
    try:
        settings = read_settings(environ)
    except SettingsError as error:
        raise Wrong("; ".join(error.problems)) from error
    return f"complete for {settings.environment}"


def _check_exists(database: Path) -> str:
    if not database.exists():
        raise Wrong(f"there is none at {database}: litehouse migrate makes it")
    return str(database)


def _check_schema(database: Path) -> str:
    version, known = integrity.schema_version(database)
    if version < known:
        raise Wrong(f"{version}, and this code needs {known}: litehouse migrate")
    return str(version)


def _check_none(problems: list[str]) -> str:
    if problems:
        raise Wrong("; ".join(problems))
    return "nothing found"


def _check_wal(database: Path) -> str:
    wal = database.with_name(f"{database.name}-wal")
    size = wal.stat().st_size if wal.exists() else 0
    if size > LONG_WAL_BYTES:
        raise Wrong(f"{size // MIB} MiB: something keeps it from being checkpointed")
    return f"{size / MIB:.1f} MiB"


def _check_clock(newest: int | None, now: int) -> str:
    if now < EARLIEST_MS:
        raise Wrong(f"it is {instant(now)} here: the clock was never set")
    if newest is not None and newest > now + CLOCK_LEEWAY_MS:
        raise Wrong(f"it is {instant(now)} here, but the ledger was written at {instant(newest)}")
    return instant(now)


def _check_archive(archive: Archive) -> str:
    raw = archive.open_both()
    try:
        archived = find_archived(Connection(raw))
    finally:
        raw.close()
    if archived is None:
        return "none: no row has left the database"
    _check_none(integrity.quick_check(archive.path))
    return f"{archive.path}, relied on up to commit {archived.moves}"


def _check_disk(database: Path) -> str:
    there = next(path for path in (database, *database.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < FREE_BYTES:
        raise Wrong(f"{free // MIB} MiB free, less than {FREE_BYTES // MIB}")
    return f"{free // MIB} MiB free"


def _check_secret_files(data_dir: Path, environ: Mapping[str, str]) -> str:
    named = [environ[f"{name}_FILE"] for name in SECRETS if environ.get(f"{name}_FILE")]
    files = [data_dir / folder.ADMIN_TOKEN_FILE, data_dir / demo.KEY_FILE, *map(Path, named)]
    found = [path for path in files if path.is_file()]
    open_to_others = [str(path) for path in found if not folder.is_private(path)]
    if open_to_others:
        raise Wrong(f"others can read {', '.join(open_to_others)}: chmod 600")
    return ", ".join(path.name for path in found) or "none"
