"""Restoration of an instance's file: of the copies of its owners, the one whose owner came last."""

import secrets
from pathlib import Path

from app.edge import replica, restoration, sqlite
from app.edge.homes import epoch_of, number_of
from app.edge.litestream import NoCopy, replica_of
from app.instances import queries
from app.instances.replicas import FOLDER
from app.instances.store import EPOCH_BYTES


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


def continues(path: Path, earlier: Path) -> bool:
    """Whether a file tells all that another does: an owner after that one's began where it had ended."""
    with sqlite.snapshot(earlier) as raw:
        known, seq = queries.list_epochs(raw), queries.get_position(raw)[0]
    with sqlite.snapshot(path) as raw:
        told = queries.list_epochs(raw)
    return told[: len(known)] == known and len(told) > len(known) and seq < told[len(known)][1]


def _began_ms(path: Path, epoch: str) -> int:
    with sqlite.snapshot(path) as raw:
        return queries.get_epoch_start(raw, epoch)
