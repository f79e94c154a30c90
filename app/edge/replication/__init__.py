"""Replication: how the core comes to this machine, one module for each engine that can bring it.

An engine tells the node its role, position and lag, and wakes the feed of changes. It is found by one setting and
nothing else in the app knows which one it is, because LiteFS may have to be replaced one day.
"""

import asyncio
from pathlib import Path
from typing import Any, Protocol

from app.edge import beginning, migrate, sqlite
from app.edge.changes import Changes
from app.edge.database import Database
from app.edge.mount import Mount
from app.edge.node import Node
from app.edge.replication.single import Single
from app.errors import Unavailable
from app.settings import Settings

ARRIVAL_SECONDS = 60.0
LOOK_SECONDS = 0.1


class Replication(Protocol):
    """One engine: `find_role`, then the database is opened, then `run`."""

    async def find_role(self) -> tuple[Node, Mount]:
        """Who this machine is. Unavailable when the engine does not say."""
        ...

    async def run(self, node: Node, db: Database, feed: Changes) -> None:
        """Keep the node up to date and the feed awake, until cancelled."""
        ...


def of(settings: Settings) -> Replication:
    if not settings.regions.replicated:
        return Single(settings)
    # It brings an HTTP client along, which a machine alone has no use for.
    from app.edge.replication.litefs import LiteFS

    return LiteFS(settings)


async def prepare(engine: Replication, settings: Settings) -> tuple[Node, Mount]:
    """Who this machine is, with a core that can be opened: only the primary makes one or brings it up to date.

    Unavailable when none has come to a replica in time; SchemaTooNew when this code cannot read the one there is;
    Conflict when there is none and the backup holds one.
    """
    node, mount = await engine.find_role()
    if mount is Mount.REPLICA:
        node.schema_fits = await _wait_for_arrival(settings.database_path)
    else:
        beginning.require_free(settings.database_path, settings.backup_url)
        migrate.migrate(settings.database_path, "core")
    return node, mount


async def _wait_for_arrival(path: Path) -> bool:
    """Whether the core that has come is as new as this code."""
    try:
        async with asyncio.timeout(ARRIVAL_SECONDS):
            while True:
                if version := await asyncio.to_thread(_arrived_version, path):
                    return version >= migrate.newest("core")
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError as error:
        raise Unavailable(f"No database has come to {path} within {ARRIVAL_SECONDS:g} s") from error


def _arrived_version(path: Path) -> int:
    """The schema of the file at `path`; 0 while there is none, or none that can be read."""
    try:
        if not path.exists():
            return 0
        raw: Any = sqlite.connect(path, read_only=True)
        try:
            migrate.check_readable(raw, "core")
            return migrate.read_version(raw)[0]
        finally:
            raw.close()
    except (sqlite.Error, OSError) as error:
        if sqlite.passing_fault(error) is None:
            raise
        return 0
