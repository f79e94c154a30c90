"""The backup as an operator sees it: what there is to restore, how far it has come, whether it can be trusted."""

import asyncio
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from app.edge import folder, integrity, litestream, replica, restoration, sqlite
from app.edge.backup import CORE, LEDGER, NOTES_FOLDER
from app.edge.clock import now_ms
from app.edge.control import Control
from app.edge.daemon import take_lock
from app.edge.database import Connection
from app.edge.homes import number_of
from app.edge.litestream import NoCopy, Shipped, replica_of
from app.errors import AppError, Conflict, Invalid, NotFound
from app.instances import restoration as instances
from app.instances.replicas import FOLDER
from app.instances.store import path_of
from app.settings import Settings
from app.usage import verify

# A server that writes on is caught between two commits within so many tries, or its counts are not compared.
COMPARISONS = 3


class Copy(NamedTuple):
    """A file of ours: its name, where it lives, and where its replica is."""

    name: str
    path: Path
    url: str

    @property
    def is_instance(self) -> bool:
        return self.name not in (CORE, LEDGER)


class Status(NamedTuple):
    """`held` while Litestream ships it; `behind` is how many transactions the replica lacks, where that is known."""

    file: str
    held: bool
    last_sync: str | None
    behind: int | None
    newest: str | None
    epochs: list[str]
    replica: str


class Verdict(NamedTuple):
    """What a copy holds, and what is wrong with it. `live` says how it stands to the file that is in use."""

    file: str
    ok: bool
    rows: int
    live: str
    problems: list[str]


class Restored(NamedTuple):
    file: str
    path: str
    kept: str | None
    problem: str | None


def list_copies(settings: Settings, url: str) -> list[Copy]:
    """Everything of which the replica has something."""
    found = replica.list_folders(url)
    copies = [_named(settings, url, name) for name in (CORE, LEDGER) if name in found]
    if FOLDER in found:
        copies += [_named(settings, url, name) for name in instances.list_instances(url)]
    return copies


def find_copy(settings: Settings, url: str, instance_id: str) -> Copy:
    if not instances.list_copies(url, instance_id):
        raise NotFound(f"The replica has no copy of instance {instance_id}")
    return _named(settings, url, instance_id)


def _named(settings: Settings, url: str, name: str) -> Copy:
    if name == CORE:
        return Copy(CORE, settings.database_path, replica_of(url, CORE))
    if name == LEDGER:
        return Copy(LEDGER, settings.ledger_path, replica_of(url, LEDGER))
    return Copy(name, path_of(settings.instances_dir, name), replica_of(url, FOLDER, name))


# -- status ------------------------------------------------------------------------------------------------


async def ask_status(copies: Iterable[Copy], url: str, socket: Path) -> list[Status]:
    """Of each file, beside a running Litestream or without one."""
    control = Control(socket)
    try:
        held = {one.path: one.synced_at for one in await control.list_files()}
    except AppError:
        held = {}
    try:
        return [await _status(copy, url, held, control) for copy in copies]
    finally:
        await control.close()


async def _status(copy: Copy, url: str, held: dict[str, str | None], control: Control) -> Status:
    epochs = instances.list_copies(url, copy.name) if copy.is_instance else []
    urls = [replica_of(copy.url, epoch) for epoch in epochs] or [copy.url]
    shipped: list[Shipped] = [one for each in urls for one in litestream.list_shipped(each)]
    key = str(copy.path.absolute())
    behind = None
    if key in held:
        synced = await control.sync(copy.path.absolute(), wait=False)
        behind = max(0, synced.local - synced.replica)
    newest = max((one.at for one in shipped), default=None)
    return Status(copy.name, key in held, held.get(key), behind, newest, epochs, copy.url.partition("?")[0])


# -- verify ------------------------------------------------------------------------------------------------


def verify_copies(copies: Iterable[Copy], url: str) -> Iterator[Verdict]:
    """Restore each into a folder that goes away again, and look at what came out."""
    with tempfile.TemporaryDirectory(prefix="litehouse-verify-") as scratch:
        for number, copy in enumerate(copies):
            path = Path(scratch) / f"{number}.db"
            try:
                yield _verify(copy, url, path)
            except AppError as error:
                # What was deleted long ago goes while this looks at the others.
                if isinstance(error, NoCopy) and copy.is_instance and not instances.list_copies(url, copy.name):
                    continue
                yield Verdict(copy.name, False, 0, "not compared", [error.message])
            finally:
                restoration.remove(path)


def _verify(copy: Copy, url: str, path: Path) -> Verdict:
    for _ in range(COMPARISONS):
        _fetch(copy, url, path, None)
        live, problems = _compare(copy, path)
        if not live.startswith("behind"):
            break
    if copy.name == CORE:
        problems += _check_ledger(path)
    return Verdict(copy.name, not problems, sum(integrity.count_rows(path).values()), live, problems)


def _check_ledger(path: Path) -> list[str]:
    with sqlite.snapshot(path) as raw:
        report = verify.verify(Connection(raw))
    if report.clean:
        return []
    return [f"{len(report.differences)} counters differ from the ledger, {report.broken_links} links are broken"]


def _compare(copy: Copy, path: Path) -> tuple[str, list[str]]:
    """How the copy stands to the live file: equal in every count, or behind by so many commits."""
    if not copy.path.exists():
        return "there is no live file", []
    epoch, sequence = _position_of(copy, path)
    live_epoch, live_sequence = _position_of(copy, copy.path)
    if epoch != live_epoch:
        return "of another epoch", []
    if sequence < live_sequence:
        return f"behind by {live_sequence - sequence}", []
    if sequence > live_sequence:
        return f"ahead by {sequence - live_sequence}", ["the live file has lost what the copy holds"]
    live, restored = integrity.count_rows(copy.path), integrity.count_rows(path)
    if _position_of(copy, copy.path) != (epoch, sequence):
        return "behind: it was written while it was compared", []
    differing = sorted(name for name in live.keys() | restored.keys() if live.get(name) != restored.get(name))
    return "differs" if differing else "equal", [f"{name} has another number of rows" for name in differing]


def _position_of(copy: Copy, path: Path) -> tuple[str | None, int]:
    """Which epoch a file is of, and how far it has come in it."""
    if copy.is_instance:
        return instances.read_position(path)
    # The ledger only grows.
    return restoration.read_position(path) if copy.name == CORE else ("", sum(integrity.count_rows(path).values()))


# -- restore -----------------------------------------------------------------------------------------------


def restore_to(copies: Iterable[Copy], url: str, target: Path, at_ms: int | None, root: Path) -> Iterator[Restored]:
    """Beside the data: each file as a new one below a folder, where it would be below the data's."""
    for copy in copies:
        path = target / (copy.path.relative_to(root) if copy.path.is_relative_to(root) else copy.path.name)
        restoration.require_free(path)
        yield _restore(copy, url, path, at_ms)


def restore_in_place(
    settings: Settings, copies: list[Copy], url: str, at_ms: int | None, *, force: bool
) -> Iterator[Restored]:
    """Where the server will look. Conflict while one runs, or where files are that may not go."""
    if settings.regions.replicated:
        raise Invalid("Files cannot be put into a mount: restore --to FOLDER, then litefs import")
    _take_over(settings)
    for copy in copies:
        if not force:
            restoration.require_free(copy.path)
    for copy in copies:
        yield _restore(copy, url, copy.path, at_ms)
        if not copy.is_instance:
            restoration.forget(settings.data_dir / NOTES_FOLDER / copy.name)


def _take_over(settings: Settings) -> None:
    """Be alone with the data for the rest of this process: no server, and no Litestream that one left behind."""
    if folder.try_lock(settings.data_dir / folder.SERVE_LOCK) is None:
        raise Conflict(f"A server runs on {settings.data_dir}: stop it first, or restore --to another folder")

    async def end_left_behind() -> None:
        control = Control(settings.backup_socket)
        try:
            await take_lock(settings.data_dir, control)
        finally:
            await control.close()

    asyncio.run(end_left_behind())


def _restore(copy: Copy, url: str, path: Path, at_ms: int | None) -> Restored:
    """Nothing is moved before the copy is there and whole; an instance that was not yet there then is put aside."""
    fresh = path.with_name(f"{path.name}.restoring")
    problem = None
    try:
        _fetch(copy, url, fresh, at_ms)
        _begin_epoch(copy, url, fresh)
        kept = restoration.put(fresh, path, now_ms())
    except NoCopy as error:
        if not copy.is_instance:
            raise
        problem, kept = error.message, restoration.set_aside(path, now_ms())
    finally:
        restoration.remove(fresh)
    return Restored(copy.name, str(path), str(kept) if kept else None, problem)


def _fetch(copy: Copy, url: str, path: Path, at_ms: int | None) -> None:
    if copy.is_instance:
        instances.fetch(url, copy.name, path, at_ms)
    else:
        restoration.fetch(copy.url, path, at_ms)


def _begin_epoch(copy: Copy, url: str, path: Path) -> None:
    if copy.is_instance:
        known = instances.list_copies(url, copy.name)
        instances.begin_epoch(path, now_ms(), max(map(number_of, known), default=0))
    elif copy.name == CORE:
        restoration.begin_epoch(path)
