"""REPLICATION=litefs: role and news from LiteFS's stream of events, lag from its file `.lag`.

The stream says `init` once, `tx` for each transaction and `primaryChange`; none of them carries a position of
ours, and an idle one says nothing, so it is only a reason to look. The lag alone says whether a replica is fresh.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import aiohttp
import msgspec
import structlog

from app.edge import migrate
from app.edge.changes import Changes
from app.edge.database import Connection, Database, Position
from app.edge.mount import Mount
from app.edge.node import Node
from app.errors import Unavailable
from app.settings import Settings

ROLE_SECONDS = 20.0
CONNECT_SECONDS = 5.0
FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 2.0
LAG_SECONDS = 1.0
# What LiteFS writes before the first replication is complete: https://fly.io/docs/litefs/proxy/
LAG_UNKNOWN_MS = (1 << 31) - 1
LINE_BYTES = 65_536

log = structlog.get_logger("litefs")


class Role(msgspec.Struct):
    isPrimary: bool


class Event(msgspec.Struct):
    type: str
    data: msgspec.Raw = msgspec.Raw(b"null")


_role = msgspec.json.Decoder(Role).decode
_event = msgspec.json.Decoder(Event).decode


def end_process() -> None:
    """Stop as the platform would stop us: what was accepted is finished."""
    os.kill(os.getpid(), signal.SIGTERM)


class LiteFS:
    """The adapter. What it was at start a process stays: when that has changed it ends, to be started anew."""

    def __init__(self, settings: Settings, end: Callable[[], None] = end_process) -> None:
        self._regions = settings.regions
        self._url = settings.regions.litefs_url
        self._schema = migrate.newest("core")
        self._lag_path = settings.database_path.parent / ".lag"
        self._end = end
        self._looking: asyncio.Future[int | None] | None = None

    async def find_role(self) -> tuple[Node, Mount]:
        is_primary = await self._ask_role()
        if is_primary != self._regions.in_primary_region:
            # Others send their writes to the region that the settings name, and the core is shipped from there alone.
            said = "the primary" if is_primary else "a replica"
            raise Unavailable(
                f"LiteFS calls this machine in {self._regions.region} {said}, and PRIMARY_REGION is "
                f"{self._regions.primary_region}: exactly the machine there has to be `candidate` in litefs.yml"
            )
        node = Node(self._regions.region, self._regions.machine or "", is_primary=is_primary)
        if not is_primary:
            node.lag_ms = None
            await self.read_lag(node)
        return node, Mount.PRIMARY if is_primary else Mount.REPLICA

    async def _ask_role(self) -> bool:
        wait = FIRST_RETRY_SECONDS
        try:
            async with asyncio.timeout(ROLE_SECONDS), self._session() as session:
                while True:
                    try:
                        async with session.get(f"{self._url}/info") as answer:
                            return _role(await answer.read()).isPrimary
                    except (aiohttp.ClientError, OSError, msgspec.MsgspecError) as error:
                        log.info("litefs_not_there", error=repr(error))
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, LONGEST_RETRY_SECONDS)
        except TimeoutError as error:
            raise Unavailable(f"LiteFS did not answer at {self._url} within {ROLE_SECONDS:g} s") from error

    async def run(self, node: Node, db: Database, feed: Changes) -> None:
        feed.when_lost(self._end)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(node, feed))
            group.create_task(feed.follow(db, lambda position: self._advance(node, position)))
            if not node.is_primary:
                group.create_task(self._keep_watch(node, db))

    def _advance(self, node: Node, position: Position) -> None:
        if node.position is not None and node.position.epoch != position.epoch:
            # What is cached, and how far the feed was read, belong to a database that is no more.
            log.warning("database_restored", was=str(node.position), now=str(position))
            self._end()
        node.advance(position)

    # -- the stream of events --------------------------------------------------------------------------

    async def _listen(self, node: Node, feed: Changes) -> None:
        wait = FIRST_RETRY_SECONDS
        while True:
            try:
                # An idle stream says nothing for as long as it likes, so only the connecting is timed.
                async with self._session() as session, session.get(f"{self._url}/events") as answer:
                    answer.raise_for_status()
                    async for line in answer.content:
                        self._hear(_event(line), node, feed)
                        wait = FIRST_RETRY_SECONDS
                log.info("events_ended")
            except Exception as error:  # noqa: BLE001 - a machine that no longer listened would not know its role
                log.warning("events_lost", error=repr(error))
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_RETRY_SECONDS)

    def _session(self) -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_connect=CONNECT_SECONDS)
        return aiohttp.ClientSession(timeout=timeout, read_bufsize=LINE_BYTES, trust_env=False)

    def _hear(self, event: Event, node: Node, feed: Changes) -> None:
        if event.type in ("init", "primaryChange") and _role(event.data).isPrimary != node.is_primary:
            log.warning("role_changed", was_primary=node.is_primary)
            self._end()
        # The primary's own commits are known here before the stream tells of them.
        if not node.is_primary:
            feed.wake()

    # -- once a second ---------------------------------------------------------------------------------

    async def _keep_watch(self, node: Node, db: Database) -> None:
        while True:
            await self.read_lag(node)
            try:
                node.schema_fits = await db.read(_schema_fits, self._schema)
            except Exception as error:  # noqa: BLE001 - as above, of its lag
                log.warning("schema_not_read", error=repr(error))
            await asyncio.sleep(LAG_SECONDS)

    async def read_lag(self, node: Node) -> None:
        """Set `node.lag_ms`; None when the file is not there, does not say, or the mount does not answer."""
        if self._looking is None:
            self._looking = asyncio.get_running_loop().run_in_executor(None, lag_of, self._lag_path)
        # A mount that hangs keeps one thread, not one more each second.
        done, _ = await asyncio.wait([self._looking], timeout=LAG_SECONDS)
        node.lag_ms = self._looking.result() if done else None
        if done:
            self._looking = None


def lag_of(path: Path) -> int | None:
    """What a mount's `.lag` says, in milliseconds; None when it is not there, or does not know."""
    try:
        lag = int(path.read_text())
    except (OSError, ValueError):
        return None
    return None if lag >= LAG_UNKNOWN_MS else max(lag, 0)


def _schema_fits(connection: Connection, known: int) -> bool:
    version, readable_from = migrate.read_version(connection.raw)
    return readable_from <= known <= version
