"""The map of the machines: what this one says of itself, and what it hears of the others when somebody looks.

Nothing is kept: who asks waits ASK_SECONDS at most, and a machine that has not answered by then is shown as such.
"""

import asyncio
import socket
from typing import NamedTuple

import msgspec

from app.edge.backup import Backup
from app.edge.metrics import Metrics
from app.edge.node import Node
from app.edge.peers import Peers
from app.errors import Unavailable
from app.instances.hubs import Hubs
from app.regions import Peer, Regions

STATUS = "/peer/status"
ASK_SECONDS = 2.0
MOST_MACHINES = 100


class Status(msgspec.Struct, frozen=True):
    """One machine, as it says itself. `lag_ms` and `backup_age_ms` are None while that is not known."""

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


class Seen(NamedTuple):
    """A machine of which is known that it is there; `status` is None when it did not answer."""

    region: str
    machine: str
    status: Status | None


class Machines:
    """One for the process. `peers` only where there are others."""

    def __init__(self, regions: Regions, node: Node, hubs: Hubs, backup: Backup | None, peers: Peers | None) -> None:
        self._regions = regions
        self._node = node
        self._hubs = hubs
        self._backup = backup
        self._peers = peers
        if peers is not None:
            peers.answers[STATUS] = self._answer

    @property
    def here(self) -> Status:
        node, backup = self._node, self._backup
        hubs = self._hubs.seen()
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
        )

    def measure(self, metrics: Metrics) -> None:
        """Have the collector see what the operator's page shows."""
        node = self._node
        metrics.measure("litehouse_primary", "1 on the machine that writes the core.", lambda: node.is_primary)
        metrics.measure(
            "litehouse_lag_seconds",
            "How far the core here is behind the primary's; -1 while that is not known.",
            lambda: -1 if node.lag_ms is None else node.lag_ms / 1000,
        )
        metrics.measure(
            "litehouse_position_sequence",
            "How many commits the core here has, in its epoch.",
            lambda: node.position.sequence if node.position else 0,
        )
        metrics.measure("litehouse_instances_open", "Instances open here.", lambda: self.here.instances)
        metrics.measure("litehouse_connections", "Connections of instances here.", lambda: self.here.connections)

    async def ask_all(self) -> list[Seen]:
        """Every machine, the primary first."""
        here = self.here
        until = asyncio.get_running_loop().time() + ASK_SECONDS
        asked = [(peer, asyncio.create_task(self._ask(peer, until))) for peer in await self._others(until)]
        seen = [Seen(here.region, here.machine, here)]
        for peer, task in asked:
            status = await task
            seen.append(Seen(peer.region, peer.machine, None) if status is None else _seen(status))
        return sorted(seen, key=lambda one: (not (one.status and one.status.is_primary), one.region, one.machine))

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


def _seen(status: Status) -> Seen:
    return Seen(status.region, status.machine, status)
