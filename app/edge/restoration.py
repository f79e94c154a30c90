"""Restoration: a file from the replica, looked at before it is let in, and put in the place of what was there."""

import os
import shutil
from pathlib import Path

from app.edge import integrity, litestream, sqlite
from app.edge.clock import sql_text
from app.edge.transaction import Position
from app.errors import Conflict, Internal

SUFFIXES = ("", "-wal", "-shm")


def fetch(url: str, path: Path, at_ms: int | None = None) -> None:
    """Write a file from the replica, and refuse one that is broken. NoCopy, Unavailable, Internal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(path)
    litestream.restore(url, path, at_ms)
    problems = check(path)
    if problems:
        raise Internal(f"What the replica holds is broken: {'; '.join(problems)}")


def check(path: Path) -> list[str]:
    return [*integrity.integrity_check(path), *integrity.foreign_key_check(path)]


def read_position(path: Path) -> Position:
    """How far a core has come."""
    with sqlite.snapshot(path) as raw:
        return Position(*raw.execute("SELECT epoch, sequence FROM replication_token").fetchone())


def begin_epoch(path: Path) -> None:
    """Make a restored core one of its own: a token of the commits that it has lost means nothing to it."""
    raw = sqlite.connect(path)
    try:
        raw.execute("UPDATE replication_token SET epoch = lower(hex(randomblob(4)))")
    finally:
        raw.close()


def require_free(path: Path) -> None:
    """Raises Conflict where there is a file already."""
    if path.exists():
        raise Conflict(f"There is a file at {path}: with --force it is kept beside the restored one")


def put(fresh: Path, path: Path, now: int) -> Path | None:
    """Move a restored file into its place; where what was there is now, if anything was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _sync(fresh)
    kept = set_aside(path, now)
    fresh.rename(path)
    _sync(path.parent)
    return kept


def set_aside(path: Path, now: int) -> Path | None:
    """Give a file another name; None where there is none.

    Litestream's notes on it go: it finds by itself how far the replica has come.
    """
    kept = None
    if path.exists():
        stamp = sql_text(now).translate(str.maketrans(" ", "T", ":-"))
        kept = path.with_name(f"{path.name}.before-{stamp}Z")
    for suffix in SUFFIXES:
        old = Path(f"{path}{suffix}")
        if kept is not None and old.exists():
            old.rename(f"{kept}{suffix}")
        old.unlink(missing_ok=True)
    forget(litestream.notes_of(path))
    return kept


def forget(notes: Path) -> None:
    """Take Litestream's notes on a file away."""
    shutil.rmtree(notes, ignore_errors=True)


def remove(path: Path) -> None:
    for suffix in SUFFIXES:
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """What was written into a file is only safe once that is on the disk, and a rename once its folder is."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
