"""REPLICATION=none: one machine, which is its own primary."""

import secrets

from app.edge.changes import Changes
from app.edge.database import Database
from app.edge.mount import Mount
from app.edge.node import Node
from app.errors import Unavailable
from app.settings import Settings


class Single:
    """Nothing comes from another machine; what comes is from commands run beside the server."""

    def __init__(self, settings: Settings) -> None:
        self._regions = settings.regions
        self._path = settings.database_path

    async def find_role(self) -> tuple[Node, Mount]:
        if self._path.with_name(f"{self._path.name}-pos").exists():
            raise Unavailable(f"{self._path} is on a LiteFS mount: REPLICATION=litefs has to be set")
        return Node(self._regions.region, self._regions.machine or secrets.token_hex(4)), Mount.NONE

    async def run(self, node: Node, db: Database, feed: Changes) -> None:
        await feed.follow(db, node.advance)
