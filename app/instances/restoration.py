"""Restoration of an instance's file: of the copies of its owners, the one whose owner came last."""

import secrets
from pathlib import Path
from typing import NamedTuple

import structlog

from app.edge import replica, restoration, sqlite
from app.edge.homes import epoch_of, number_of
from app.edge.litestream import NoCopy, replica_of
from app.instances import queries
from app.instances.replicas import FOLDER
from app.instances.store import EPOCH_BYTES, path_of

log = structlog.get_logger("restoration")


def list_instances(url: str) -> list[str]:
    """The ids of which the replica has copies."""
    return replica.list_folders(replica_of(url, FOLDER))


def list_copies(url: str, instance_id: str) -> list[str]:
    """The epochs of which the replica has copies, in no order."""
    return replica.list_folders(replica_of(url, FOLDER, instance_id))


def fetch(url: str, instance_id: str, path: Path, at_ms: int | None = None) -> str:
    """Write the newest state, or that of an instant; the epoch of the copy that has it. NoCopy, Unavailable."""
    found: tuple[tuple[int, int], str] | None = None
    path.parent.mkdir(parents=True, exist_ok=True)
    for epoch in sorted(list_copies(url, instance_id), key=number_of, reverse=True):
        if found is not None and number_of(epoch) < found[0][0]:
            break
        candidate = path.with_name(f"{path.name}.{epoch}")
        try:
            restoration.fetch(replica_of(url, FOLDER, instance_id, epoch), candidate, at_ms)
        except NoCopy:
            continue
        began = number_of(epoch), _began_ms(candidate, epoch)
        if found is None or began > found[0]:
            found = began, epoch
            candidate.rename(path)
        restoration.remove(candidate)
    if found is None:
        raise NoCopy(f"The replica has no copy of instance {instance_id} of that time")
    return found[1]


def begin_epoch(path: Path, now: int, number: int = 0) -> None:
    """A client that has heard more than was restored gets everything anew; the others go on.

    `number` is that of the last home of which there is a copy: its next one takes the file for the newest.
    """
    mark = secrets.token_hex(EPOCH_BYTES)
    raw = sqlite.connect(path)
    try:
        seq, _ = queries.get_position(raw)
        queries.insert_epoch(raw, epoch_of(number, mark) if number else mark, seq + 1, now)
    finally:
        raw.close()


def read_position(path: Path) -> tuple[str | None, int]:
    """`(epoch, seq)` of a file."""
    with sqlite.snapshot(path) as raw:
        return queries.find_epoch(raw), queries.get_position(raw)[0]


class Extent(NamedTuple):
    """How far a file goes: its last change, and the epoch that this was made in; "" where nothing was changed."""

    epoch: str
    seq: int


def read_extent(path: Path) -> Extent:
    """An epoch that was begun in the file, and in which nothing was changed, adds nothing to it."""
    with sqlite.snapshot(path) as raw:
        seq, _ = queries.get_position(raw)
        changed = [epoch for epoch, first_seq in queries.list_epochs(raw) if first_seq <= seq]
    return Extent(changed[-1], seq) if changed else Extent("", seq)


def read_epochs(path: Path) -> list[tuple[str, int]]:
    """`(epoch, first_seq)` of a file, oldest first."""
    with sqlite.snapshot(path) as raw:
        return queries.list_epochs(raw)


def covers(epochs: list[tuple[str, int]], extent: Extent) -> bool:
    """Whether a file with these epochs has all that another one has: each epoch has one writer, so it has a change of
    it when the next epoch begins behind that change."""
    names = [epoch for epoch, _ in epochs]
    if extent.seq == 0:
        return True
    if extent.epoch not in names[:-1]:
        return False
    return epochs[names.index(extent.epoch) + 1][1] > extent.seq


def read_number(folder: Path, instance_id: str) -> int:
    """The number of the home that the file of an instance has known last; 0 also for one that cannot be read."""
    try:
        return number_of(read_position(path_of(folder, instance_id))[0] or "")
    except (sqlite.Error, OSError) as error:
        log.warning("not_read", instance=instance_id, error=str(error))
        return 0


def _began_ms(path: Path, epoch: str) -> int:
    with sqlite.snapshot(path) as raw:
        return queries.get_epoch_start(raw, epoch)
