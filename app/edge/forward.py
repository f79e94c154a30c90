"""Forward: a request goes on to the machine that must answer it, and its answer comes back, both as they stream.

Nothing is gathered on the way: who reads slowly is waited for at the other end. The limits are the destination's.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from app.edge.freshness import Freshness, parse_position
from app.edge.http import READING, method_of, target_of
from app.edge.peer_port import PASSPORT
from app.edge.peers import CONNECT_SECONDS, Peers, require_believed, unreachable
from app.edge.tunnel import dig
from app.regions import Peer

if TYPE_CHECKING:
    import aiohttp

# A body of more than this is sent once the other machine has asked for it: what it refuses does not travel.
UNASKED_BYTES = 64 << 10
# While no answer has begun, the other machine is asked from time to time whether it lives.
FIRST_CARE_SECONDS, CARE_SECONDS = 5.0, 5.0
ANSWER_SECONDS = 600.0
LENGTH_DIGITS = 15

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
# What the front adds to every answer, and the other machine's front has added already.
OF_THE_FRONT = (b"access-control-", b"x-request-id")
UPGRADING = ((b"connection", b"Upgrade"), (b"upgrade", b"websocket"))

Headers = list[tuple[bytes, bytes]]


class Forwarder:
    """Sends requests on to peers, and remembers how far their answers say that their callers have come."""

    def __init__(self, peers: Peers, freshness: Freshness) -> None:
        self._peers = peers
        self._freshness = freshness

    async def forward(self, peer: Peer, scope: Scope, receive: Receive, send: Send, waited: float) -> None:
        """Answer as `peer` does. Unavailable when it cannot be reached. The request has `waited` so many seconds."""
        headers = self._headers(scope, waited)
        if scope["type"] == "websocket":
            await dig(peer, scope, [*headers, *UPGRADING], send)
            return
        upload = _Upload(receive)
        if _length(scope["headers"]) == 0:
            upload.end()
        relay = asyncio.create_task(self._relay(peer, scope, headers, upload, send))
        gone = asyncio.create_task(upload.watch())
        try:
            await asyncio.wait((relay, gone), return_when=asyncio.FIRST_COMPLETED)
            if not relay.done():
                raise ClientDisconnect
            relay.result()
        finally:
            relay.cancel()
            gone.cancel()
            await asyncio.wait((relay, gone))

    def _headers(self, scope: Scope, waited: float) -> Headers:
        """The request's own, and the passport: who asks is known here."""
        passport = self._peers.passport(scope, waited)
        given = [field for field in _end_to_end(scope["headers"]) if field[0] not in (PASSPORT.encode(), b"expect")]
        return [*given, (PASSPORT.encode(), passport.encode())]

    async def _relay(self, peer: Peer, scope: Scope, headers: Headers, upload: "_Upload", send: Send) -> None:
        import aiohttp

        response: aiohttp.ClientResponse | None = None
        try:
            response = await self._ask(peer, scope, headers, upload)
            require_believed(peer, response.status, response.raw_headers)
            self._note(scope, response)
            kept = [field for field in _end_to_end(response.raw_headers) if not _is_of_the_front(field)]
            await send({"type": "http.response.start", "status": response.status, "headers": kept})
            async for chunk in response.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise unreachable(peer, heard=False) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise unreachable(peer) from error
        finally:
            # Once the answer is whole its connection has gone back already; a body that nobody wanted is let go.
            if response is not None:
                response.close()

    async def _ask(self, peer: Peer, scope: Scope, headers: Headers, upload: "_Upload") -> "aiohttp.ClientResponse":
        """The head of the answer, however long that takes, as long as the other machine lives."""
        asking = asyncio.create_task(self._request(peer, scope, headers, upload))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await asyncio.wait((asking,), timeout=FIRST_CARE_SECONDS)
                while not asking.done():
                    await self._peers.ping(peer)
                    await asyncio.wait((asking,), timeout=CARE_SECONDS)
            return asking.result()
        finally:
            asking.cancel()

    async def _request(self, peer: Peer, scope: Scope, headers: Headers, upload: "_Upload") -> "aiohttp.ClientResponse":
        import aiohttp
        import yarl
        from multidict import CIMultiDict

        method, length = method_of(scope), _length(scope["headers"])
        # What has no body at all is sent a second time where a connection turns out to be closed: a read may be.
        bodiless = None if method in READING else _nothing()
        return await (await self._peers.session()).request(
            method,
            yarl.URL(peer.url + target_of(scope).decode("latin-1"), encoded=True),
            headers=CIMultiDict((name.decode("latin-1"), _text(value)) for name, value in headers),
            data=bodiless if length == 0 else upload.chunks(),
            expect100=length is None or length > UNASKED_BYTES,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        )

    def _note(self, scope: Scope, response: "aiohttp.ClientResponse") -> None:
        position = parse_position(response.headers.get("X-Txid", "").encode("latin-1"))
        if position is not None:
            self._freshness.note(scope, position)


class _Upload:
    """The body of a request on its way, and after it the news that the client has gone."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._over = asyncio.Event()
        self._gone = False

    async def chunks(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._gone = True
                self._over.set()
                raise ClientDisconnect
            if message.get("body"):
                yield message["body"]
            more = message.get("more_body", False)
        self._over.set()

    async def watch(self) -> None:
        """Until the client has gone."""
        await self._over.wait()
        while not self._gone:
            self._gone = (await self._receive())["type"] == "http.disconnect"

    def end(self) -> None:
        """There is no body."""
        self._over.set()


async def _nothing() -> AsyncIterator[bytes]:
    """An empty body, which can be sent once, as every other."""
    return
    yield b""


def _text(value: bytes) -> str:
    """A header's value for a client that writes all of them in UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """What is told of the body's length; None when it comes in chunks."""
    length = 0
    for name, value in headers:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length" and value.isdigit() and len(value) <= LENGTH_DIGITS:
            length = int(value)
    return length


def _end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """What does not belong to one connection, with names in lower case (RFC 9110, 7.6.1)."""
    lowered = [(name.lower(), value) for name, value in headers]
    named = {part.strip().lower() for name, value in lowered if name == b"connection" for part in value.split(b",")}
    return [field for field in lowered if field[0] not in HOP_BY_HOP and field[0] not in named]


def _is_of_the_front(field: tuple[bytes, bytes]) -> bool:
    return field[0].startswith(OF_THE_FRONT) or field == (b"vary", b"Origin")
