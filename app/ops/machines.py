"""The map of the machines: what this one says of itself, and what it hears of the others when somebody looks.

Of the others nothing is kept: who asks waits ASK_SECONDS at most, and a machine that has not answered by then is shown
as such. What this one has to read from files it reads every LOOK_SECONDS, so that nobody waits for a file system.
"""

import asyncio
import socket
from typing import NamedTuple

import msgspec
import structlog

from app.edge.backup import Backup
from app.edge.clock import now_ms
from app.edge.database import Database
from app.edge.lease import Lease
from app.edge.node import Node
from app.edge.peers import Peers
from app.edge.spool import Spool, Waiting
from app.errors import AppError, Unavailable
from app.instances.hubs import Hubs
from app.ops import queries
from app.regions import Peer, Regions

STATUS = "/peer/status"
ASK_SECONDS = 2.0
LOOK_SECONDS = 2.0
MOST_MACHINES = 100

log = structlog.get_logger("machines")


class Kept(msgspec.Struct, frozen=True):
    """How one kind of files stands in the backup: since when something of them may not be in it, and whether all was
    when it was last asked."""

    files: int
    ageMs: int
    shipped: bool


class Status(msgspec.Struct, frozen=True):
    """One machine, as it says itself; what is not known, or what a machine has none of, is None.

    Machines of two releases read each other's: what was added later has a default.
    """

    region: str
    machine: str
    is_primary: bool
    lag_ms: int | None
    epoch: str | None
    sequence: int | None
    instances: int
    connections: int
    backed_up: bool
    backup_age_ms: int | None
    homes: int | None = None
    lease_ms: int | None = None
    spool_items: int | None = None
    spool_age_ms: int | None = None
    spool_refused: int | None = None
    backup: dict[str, Kept] | None = None


class Seen(NamedTuple):
    """A machine of which is known that it is there, and how many instances live on it; `status` is None when it did
    not answer, `homes` where there is only one machine."""

    region: str
    machine: str
    status: Status | None
    homes: int | None


class Machines:
    """One for the process. `peers` and `lease` only where there are others, `spool` where this one owes the primary."""

    def __init__(
        self,
        regions: Regions,
        node: Node,
        hubs: Hubs,
        db: Database,
        *,
        backup: Backup | None = None,
        peers: Peers | None = None,
        lease: Lease | None = None,
        spool: Spool | None = None,
    ) -> None:
        self._regions = regions
        self._node = node
        self._hubs = hubs
        self._db = db
        self._backup = backup
        self._peers = peers
        self._lease = lease
        self._spool = spool
        self._homes: int | None = None
        self._waiting: Waiting | None = None
        if peers is not None:
            peers.answers[STATUS] = self._answer

    @property
    def owes(self) -> bool:
        """Whether what arises here goes to the primary by way of a spool."""
        return self._spool is not None

    @property
    def here(self) -> Status:
        """What is known without asking anybody and without reading anything."""
        node, backup, lease, waiting = self._node, self._backup, self._lease, self._waiting
        kept = backup.look() if backup is not None else None
        hubs = self._hubs.seen()
        since_ms = waiting.since_ms if waiting is not None else None
        return Status(
            region=node.region,
            machine=node.machine,
            is_primary=node.is_primary,
            lag_ms=node.lag_ms,
            epoch=node.position.epoch if node.position else None,
            sequence=node.position.sequence if node.position else None,
            instances=len(hubs),
            connections=sum(len(hub.audience.members) for hub in hubs),
            backed_up=backup is not None,
            backup_age_ms=backup.age_ms if backup is not None else None,
            homes=self._homes,
            lease_ms=round(1000 * lease.seconds_left) if lease is not None else None,
            spool_items=waiting.items if waiting is not None else None,
            spool_age_ms=None if since_ms is None else max(0, now_ms() - since_ms),
            spool_refused=waiting.refused if waiting is not None else None,
            backup=None if kept is None else {kind: Kept(*one) for kind, one in kept.items()},
        )

    async def run(self) -> None:
        """Read what is in files, again and again, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Read it once. What cannot be read is not known any more."""
        homes, waiting = None, None
        try:
            if self._peers is not None:
                homes = await queries.count_homes_of(self._db, self._node.machine)
            if self._spool is not None:
                waiting = await self._spool.look()
        except AppError as error:
            log.warning("not_looked", error=error.message)
        self._homes, self._waiting = homes, waiting

    async def ask_all(self) -> list[Seen]:
        """Every machine, the primary first, and those that are gone while something still lives on them."""
        until = asyncio.get_running_loop().time() + ASK_SECONDS
        asked = [(peer, asyncio.create_task(self._ask(peer, until))) for peer in await self._others(until)]
        owners = {} if self._peers is None else {owner.machine: owner for owner in await queries.list_owners(self._db)}
        statuses: list[tuple[str, str, Status | None]] = [(self._node.region, self._node.machine, self.here)]
        for peer, task in asked:
            status = await task
            statuses.append((status.region, status.machine, status) if status else (peer.region, peer.machine, None))
        known = {machine for _, machine, _ in statuses}
        statuses += [(owner.region, owner.machine, None) for owner in owners.values() if owner.machine not in known]
        seen = [Seen(*one, self._count(owners, one[1])) for one in statuses]
        return sorted(seen, key=lambda one: (not (one.status and one.status.is_primary), one.region, one.machine))

    def _count(self, owners: dict[str, queries.Owner], machine: str) -> int | None:
        if self._peers is None:
            return None
        return owners[machine].homes if machine in owners else 0

    async def _answer(self, question: bytes, machine: str) -> bytes:
        return msgspec.json.encode(self.here)

    async def _ask(self, peer: Peer, until: float) -> Status | None:
        assert self._peers is not None
        try:
            async with asyncio.timeout_at(until):
                return msgspec.json.decode(await self._peers.ask(peer, STATUS), type=Status)
        except (Unavailable, TimeoutError, msgspec.MsgspecError):
            return None

    async def _others(self, until: float) -> list[Peer]:
        """As the settings list them; on Fly its names give the addresses of all machines that run."""
        regions = self._regions
        if self._peers is None:
            return []
        if not regions.on_fly:
            return [peer for peer in regions.peers if peer.machine != self._node.machine][:MOST_MACHINES]
        try:
            async with asyncio.timeout_at(until):
                found = await asyncio.get_running_loop().getaddrinfo(
                    f"{regions.app_name}.internal", regions.peer_port, family=socket.AF_INET6, type=socket.SOCK_STREAM
                )
        except (OSError, TimeoutError):
            return []
        others = sorted({str(one[4][0]) for one in found} - {regions.private_address})
        return [Peer("", other, f"http://[{other}]:{regions.peer_port}") for other in others[:MOST_MACHINES]]
