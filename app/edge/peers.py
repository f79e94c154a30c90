"""Peers: the other machines, where each is, and how one of them is asked.

A question is a signed POST to `/peer/…` on the peer port; `edge/peer_port.py` is where it arrives.
"""

import asyncio
import importlib
import socket
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog
from starlette.requests import HTTPConnection
from starlette.types import Scope

from app.edge.http import client_address, method_of, target_of
from app.edge.placement import Destination
from app.edge.seal import Seal
from app.errors import Unavailable
from app.regions import Peer, Regions

if TYPE_CHECKING:
    import aiohttp

CONNECT_SECONDS = 2.0
ASK_SECONDS = 5.0
PING_SECONDS = 1.5
ANSWER_BYTES = 16 << 20
CONNECTIONS = 4_000
# Shorter than uvicorn keeps an idle connection, so that none is used that is just being closed.
IDLE_SECONDS = 3.0
FIELD_BYTES = 64 << 10
# A peer that is cut off says nothing: the kernel asks after it, and gives up within so many seconds.
PROBE_AFTER_SECONDS, PROBE_EVERY_SECONDS, PROBES = 10, 5, 3

PREFIX = "/peer/"
PING = "/peer/ping"
POSITION = "/peer/position"
SIGNATURE = "litehouse-signature"

# What the peer port says to whom it does not believe.
STRANGER = {"WWW-Authenticate": "litehouse-peer"}

# Answers a question of the machine named.
Answer = Callable[[bytes, str], Awaitable[bytes]]

log = structlog.get_logger("peers")


class Unreachable(Unavailable):
    """Nobody answered there; `heard` where somebody may have been told nevertheless."""

    heard = True


class Peers:
    """Where the machines are, from settings; `answers` holds what this one says to whom, by path."""

    def __init__(self, regions: Regions, machine: str) -> None:
        self._regions = regions
        self._session: aiohttp.ClientSession | None = None
        self.seal = Seal(regions.peer_secrets, machine, regions.region)
        self.answers: dict[str, Answer] = {PING: _pong}

    @property
    def primary(self) -> Destination:
        """Exactly one machine stands in the primary region."""
        return Destination(self._regions.primary_region or self._regions.region)

    def at(self, to: Destination) -> Peer:
        """Where a machine is asked. Unavailable when nobody is known there."""
        regions = self._regions
        if regions.on_fly:
            name = f"{to.machine}.vm" if to.machine else to.region
            return Peer(
                to.region,
                to.machine or "",
                f"http://{name}.{regions.app_name}.internal:{regions.peer_port}",
            )
        for peer in regions.peers:
            if peer.machine == to.machine or (to.machine is None and peer.region == to.region):
                return peer
        raise Unavailable(f"No machine is known in {to.region}")

    def passport(self, scope: Scope, waited: float) -> str:
        """What goes with a request that has `waited` so many seconds here, and is answered elsewhere."""
        client = client_address(HTTPConnection(scope))
        return self.seal.passport(method_of(scope), target_of(scope), client, scope["request_id"], round(waited * 1000))

    async def ask(self, peer: Peer, path: str, body: bytes = b"", *, seconds: float = ASK_SECONDS) -> bytes:
        """What a peer answers to a question. Unavailable when it cannot be reached, is not ready or refuses."""
        session = await self.session()
        import aiohttp

        signed = {SIGNATURE: self.seal.signature("POST", path.encode(), body)}
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS)
        try:
            async with session.post(peer.url + path, data=body, headers=signed, timeout=timeout) as reply:
                answer = await _read_bounded(reply)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise unreachable(peer) from error
        if reply.status != 200:
            log.warning("peer_refused", peer=peer.machine or peer.region, path=path, status=reply.status)
            raise Unavailable("Another machine could not answer")
        return answer

    async def ping(self, peer: Peer) -> None:
        """Unavailable unless the peer answers within PING_SECONDS."""
        await self.ask(peer, PING, seconds=PING_SECONDS)

    async def session(self) -> "aiohttp.ClientSession":
        """What all requests to peers are made with. No cookies, no proxies, no decompression."""
        if self._session is None:
            aiohttp = await asyncio.to_thread(importlib.import_module, "aiohttp")
            if self._session is None:
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(
                        limit=CONNECTIONS, keepalive_timeout=IDLE_SECONDS, socket_factory=_probed_socket
                    ),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    auto_decompress=False,
                    trust_env=False,
                    max_line_size=FIELD_BYTES,
                    max_field_size=FIELD_BYTES,
                    skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
                )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def unreachable(peer: Peer, *, heard: bool = True) -> Unreachable:
    error = Unreachable(f"The machine in {peer.region} cannot be reached")
    error.heard = heard
    return error


def require_believed(peer: Peer, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Unavailable when a peer does not know this machine: another secret, or a clock that is minutes off."""
    refused = [(name.lower().encode(), value.encode()) for name, value in STRANGER.items()]
    if status == HTTPStatus.UNAUTHORIZED and any((name.lower(), value) in refused for name, value in headers):
        log.error("not_believed", peer=peer.machine or peer.region)
        raise unreachable(peer)


def _probed_socket(info: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, _ = info
    made = socket.socket(family, kind, protocol)
    probe(made)
    return made


def probe(connection: socket.socket) -> None:
    """Have the kernel find out when the other machine has gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    given_up_ms = (PROBE_AFTER_SECONDS + PROBE_EVERY_SECONDS * PROBES) * 1000
    for option, value in (
        ("TCP_KEEPIDLE", PROBE_AFTER_SECONDS),
        ("TCP_KEEPINTVL", PROBE_EVERY_SECONDS),
        ("TCP_KEEPCNT", PROBES),
        ("TCP_USER_TIMEOUT", given_up_ms),
    ):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


async def _read_bounded(reply: "aiohttp.ClientResponse") -> bytes:
    answer = bytearray()
    async for chunk in reply.content.iter_any():
        answer += chunk
        if len(answer) > ANSWER_BYTES:
            raise Unavailable(f"Another machine's answer is larger than {ANSWER_BYTES} bytes")
    return bytes(answer)


async def _pong(question: bytes, machine: str) -> bytes:
    return b"pong"
