"""The prober: tries the port of a machine that has fallen silent. Only one that refuses says that nobody is there."""

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

from app.edge.homes import Machine
from app.edge.liveness import Liveness
from app.edge.peers import Peers
from app.edge.placement import Destination
from app.edge.registry import Registry
from app.errors import Unavailable

PROBE_SECONDS = 0.25
CONNECT_SECONDS = 1.0


class Prober:
    """One, on the primary. `run` until cancelled."""

    def __init__(self, registry: Registry, liveness: Liveness, peers: Peers) -> None:
        self._registry = registry
        self._liveness = liveness
        self._peers = peers

    async def run(self) -> None:
        while True:
            await asyncio.gather(*map(self.probe, self._registry.silent()))
            await asyncio.sleep(PROBE_SECONDS)

    async def probe(self, machine: Machine) -> None:
        tried_at = self._liveness.now
        if await self._is_refused(machine):
            self._liveness.refuses(machine.machine, tried_at)
        else:
            self._liveness.accepts(machine.machine)

    async def _is_refused(self, machine: Machine) -> bool:
        with suppress(Unavailable, OSError, TimeoutError):
            address = urlsplit(self._peers.at(Destination(machine.region, machine.machine)).url)
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    _, writer = await asyncio.open_connection(address.hostname, address.port)
            except ConnectionRefusedError:
                return True
            writer.close()
        return False
