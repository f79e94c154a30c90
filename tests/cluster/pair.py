"""Two machines in one process, with routes of their own: a primary in fra and a replica in ams, and what each saw."""

import asyncio
import io
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn

from app.edge.cors import Cors
from app.edge.follower import Follower
from app.edge.front import Front
from app.edge.http_protocol import HttpProtocol
from app.edge.node import Node
from app.edge.peer_port import PeerPort
from app.edge.peers import Peers
from app.edge.placer import HomeOf, Placer, nowhere
from app.edge.request_log import RequestLog
from app.edge.router import Route, Router
from app.edge.sockets import Sockets
from app.edge.transaction import Position
from app.edge.websocket import protocol_of
from app.regions import FORWARD, Peer, Regions
from app.settings import Settings

SECRET = "between-machines-between-machines"
EPOCH = "e1"
ORIGIN = "https://app.example.com"
REST_SECONDS = 0.3


class Machine:
    """One server with a public port and a peer port."""

    def __init__(self, region: str, name: str, primary: bool) -> None:
        self.node = Node(region, name, is_primary=primary)
        self.node.position = Position(EPOCH, 1)
        self.listeners = [_bind(), _bind()]
        self.port, self.peer_port = (listener.getsockname()[1] for listener in self.listeners)
        self.url = f"http://127.0.0.1:{self.port}"
        self.observed: list[tuple[str | None, int]] = []
        self.log = io.StringIO()
        self.requests = RequestLog(enabled=True, out=self.log)
        self.state: dict[str, Any] = {"node": self.node}
        self.server: uvicorn.Server
        self.running: asyncio.Task[None]
        self.peers: Peers
        self.follower: Follower

    @property
    def peer(self) -> Peer:
        return Peer(self.node.region, self.node.machine, f"http://127.0.0.1:{self.peer_port}")

    def open(self, routes: Sequence[Route], regions: Regions, home_of: HomeOf) -> None:
        self.peers = Peers(regions, self.node.machine)
        self.follower = Follower(self.node, self.peers)
        front = Front(Router(routes), Cors([ORIGIN]), self.requests, self._observe)
        app = PeerPort(front, self.peers, regions.peer_port)
        self.state |= {
            "settings": Settings(regions=regions, behind_fly=regions.replay == "fly"),
            "placer": Placer(self.node, self.follower, regions.replay, home_of, home_of),
        }

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            scope["state"] = self.state
            await app(scope, receive, send)

        config = uvicorn.Config(
            with_state,
            lifespan="off",
            http=HttpProtocol,
            ws=protocol_of(Sockets()),
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        self.server = uvicorn.Server(config)
        self.running = asyncio.create_task(self.server.serve(self.listeners))

    async def close(self) -> None:
        self.server.should_exit = True
        await self.running
        await self.follower.close()
        await self.peers.close()

    def _observe(self, route: str | None, method: str, status: int, seconds: float) -> None:
        self.observed.append((route, status))


class Pair:
    def __init__(self, primary: Machine, replica: Machine) -> None:
        self.primary, self.replica = primary, replica


@asynccontextmanager
async def pair(
    routes: Sequence[Route],
    replay: str = FORWARD,
    home_of: HomeOf = nowhere,
    between: Callable[[int], int] = lambda port: port,
) -> AsyncIterator[Pair]:
    """Both are up inside the block. `between` gives the port at which the replica finds a machine's peer port."""
    primary, replica = Machine("fra", "m1", True), Machine("ams", "m2", False)
    seen = [Peer(m.node.region, m.node.machine, f"http://127.0.0.1:{between(m.peer_port)}") for m in (primary, replica)]
    for machine in (primary, replica):
        machine.open(
            routes,
            Regions(
                region=machine.node.region,
                machine=machine.node.machine,
                primary_region="fra",
                replay=replay,
                peer_port=machine.peer_port,
                peer_secrets=(SECRET,),
                peers=tuple(seen),
            ),
            home_of,
        )
    try:
        yield Pair(primary, replica)
    finally:
        await asyncio.gather(replica.close(), primary.close())


def client(machine: Machine, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=machine.url, headers=headers, timeout=30, trust_env=False)


async def at_rest(count: Callable[[], int]) -> int:
    """What is counted once it grows no more, all buffers on the way being full."""
    before = -1
    while before != (now := count()):
        before = now
        await asyncio.sleep(REST_SECONDS)
    return now


def _bind() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener
