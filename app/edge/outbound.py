"""Outbound: the only HTTP client, which no request can lead to an internal address.

The address is judged where the socket is made, so a redirect, a second look-up, a decimal address or an
IPv4 address inside an IPv6 one changes nothing.
"""

import asyncio
import importlib
import ipaddress
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from app.errors import Upstream

if TYPE_CHECKING:
    import aiohttp

CONNECT_SECONDS = 3.0
TOTAL_SECONDS = 10.0
ANSWER_BYTES = 4 << 20
CONNECTIONS = 32

_EMBEDDING_V4 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


class Forbidden(OSError):
    """The address is not one that this server may be sent to."""


class Reply(NamedTuple):
    status: int
    body: bytes


def is_forbidden(error: BaseException | None) -> bool:
    """Whether an Upstream came of an internal address."""
    while error is not None and not isinstance(error, Forbidden):
        error = error.__cause__ or error.__context__
    return error is not None


def is_internal(address: str) -> bool:
    """Whether an address is private, link-local, loopback, of the platform, or holds one that is."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.is_site_local:
            return True
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and any(ip in network for network in _EMBEDDING_V4):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
        if inner is not None:
            return is_internal(str(inner))
    return not ip.is_global or ip.is_multicast or ip.is_reserved


class Outbound:
    """`fetch` for addresses from settings (`trusted`) and for addresses that users gave."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = [ipaddress.ip_network(network) for network in allowed]
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        trusted: bool = False,
        seconds: float = TOTAL_SECONDS,
        status_only: bool = False,
    ) -> Reply:
        """One request, no redirects, at most ANSWER_BYTES back, none with `status_only`.

        Raises Upstream, whose cause says why.
        """
        aiohttp = await asyncio.to_thread(importlib.import_module, "aiohttp")
        session = self._session(trusted)
        timeout = aiohttp.ClientTimeout(total=seconds, connect=CONNECT_SECONDS)
        try:
            async with session.request(
                method, url, headers=headers, data=body, timeout=timeout, allow_redirects=False
            ) as response:
                if status_only:
                    response.close()
                    return Reply(response.status, b"")
                answer = await response.content.read(ANSWER_BYTES + 1)
                while len(answer) <= ANSWER_BYTES and (more := await response.content.read(ANSWER_BYTES)):
                    answer += more
                if len(answer) > ANSWER_BYTES:
                    raise Upstream(f"The answer is larger than {ANSWER_BYTES} bytes")
                return Reply(response.status, answer)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise Upstream("The other service did not answer") from error

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    def _session(self, trusted: bool) -> "aiohttp.ClientSession":
        import aiohttp

        session = self._sessions.get(trusted)
        if session is None:
            connector = aiohttp.TCPConnector(
                limit=CONNECTIONS, socket_factory=_plain_socket if trusted else self._guarded_socket
            )
            # No cookies: one caller's request must not carry what another's answer has set.
            session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
            self._sessions[trusted] = session
        return session

    def _guarded_socket(self, info: tuple[Any, ...]) -> socket.socket:
        address = info[4][0]
        allowed = any(ipaddress.ip_address(address.partition("%")[0]) in network for network in self._allowed)
        if is_internal(address) and not allowed:
            raise Forbidden(f"{address} is an internal address")
        return _plain_socket(info)


def _plain_socket(info: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, _ = info
    return socket.socket(family, kind, protocol)
