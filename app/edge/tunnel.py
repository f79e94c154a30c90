"""A tunnel: a WebSocket whose other end is on another machine.

The handshake is the other machine's to judge. Once it has accepted, bytes pass as they are in both directions, so
that frames, pings, close codes and reasons are the two ends' own. Who reads slowly holds the other up.
"""

import asyncio
import ssl
from typing import Any
from urllib.parse import urlsplit

import httptools
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Scope, Send
from websockets.frames import CloseCode

from app.edge import framing
from app.edge.framing import Frames
from app.edge.http import target_of
from app.edge.peers import CONNECT_SECONDS, probe, require_believed, unreachable
from app.edge.upgrade import opening_of
from app.regions import Peer

ANSWER_SECONDS = 7.0
HEAD_BYTES = 64 << 10
REFUSAL_BYTES = 1 << 20
HIGH_WATER_BYTES, LOW_WATER_BYTES = 64 << 10, 16 << 10
CLOSE_SECONDS = 5.0

# What each server of the two says of its own connection.
_OWN = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"upgrade",
        b"transfer-encoding",
        b"sec-websocket-accept",
        b"sec-websocket-protocol",
        b"x-request-id",
    )
)

Headers = list[tuple[bytes, bytes]]


async def dig(peer: Peer, scope: Scope, headers: Headers, send: Send) -> None:
    """Ask `peer` for the upgrade; pass its refusal on, or join the two connections. Unavailable without an answer."""
    far = await _connect(peer)
    joined = False
    try:
        far.ask(target_of(scope), headers)
        async with asyncio.timeout(ANSWER_SECONDS):
            await far.answered
        require_believed(peer, far.status, far.headers)
        if far.status == 101:
            await send({"type": "websocket.accept", "subprotocol": far.subprotocol, "headers": far.kept_headers()})
            near = Near(far)
            opening_of(scope).open().hand_over(near)
            near.begin()
            joined = True
        else:
            await _refusal(far)(scope, _nothing, send)
    except TimeoutError as error:
        raise unreachable(peer) from error
    finally:
        if not joined:
            far.transport.abort()


async def _connect(peer: Peer) -> "Far":
    loop = asyncio.get_running_loop()
    url = urlsplit(peer.url)
    secure = ssl.create_default_context() if url.scheme == "https" else None
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            transport, far = await loop.create_connection(
                lambda: Far(peer), url.hostname or "", url.port or (443 if secure else 80), ssl=secure
            )
    except (OSError, TimeoutError) as error:
        raise unreachable(peer) from error
    probe(transport.get_extra_info("socket"))
    return far


class Far(asyncio.Protocol):
    """The connection to the other machine: first an answer in HTTP, then frames for the client."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._near: Near | None = None
        self.early = b""
        self.status = 0
        self.headers: Headers = []
        self.body = b""
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport

    @property
    def subprotocol(self) -> str | None:
        chosen = [value for name, value in self.headers if name == b"sec-websocket-protocol"]
        return chosen[0].decode("latin-1") if chosen else None

    def kept_headers(self) -> Headers:
        return [field for field in self.headers if field[0] not in _OWN]

    def ask(self, target: bytes, headers: Headers) -> None:
        lines = b"".join([b"%b: %b\r\n" % field for field in headers])
        self.transport.write(b"GET %b HTTP/1.1\r\n%b\r\n" % (target, lines))

    def join(self, near: "Near") -> None:
        """From now on what comes is the client's."""
        self._near = near
        early, self.early = self.early, b""
        # First, so that a client who does not take even this can stop it again.
        self.transport.resume_reading()
        if early:
            near.pass_on(early)

    # -- the answer ------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if not self.answered.done() and self.status >= 200:
            self.answered.set_result(None)

    # -- asyncio's protocol ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.transport.set_write_buffer_limits(HIGH_WATER_BYTES, LOW_WATER_BYTES)

    def data_received(self, data: bytes) -> None:
        if self._near is not None:
            self._near.pass_on(data)
        elif self._parser is not None:
            self._parse(self._parser, data)
        else:
            self.early += data

    def _parse(self, parser: httptools.HttpResponseParser, data: bytes) -> None:
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgraded:
            self._parser = None
            self.transport.pause_reading()
            self.early = data[upgraded.args[0] :]
            if not self.answered.done():
                self.answered.set_result(None)
        except httptools.HttpParserError:
            self._fail()
        if len(self.body) > REFUSAL_BYTES or sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES:
            self._fail()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail()
        if self._near is not None:
            self._near.far_lost()

    def pause_writing(self) -> None:
        if self._near is not None and not self._near.transport.is_closing():
            self._near.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._near is not None and not self._near.transport.is_closing():
            self._near.transport.resume_reading()

    def _fail(self) -> None:
        if not self.answered.done():
            self.answered.set_exception(unreachable(self._peer))
        self.transport.abort()


class Near(asyncio.Protocol):
    """The connection to the client, which the server knows as one of its own."""

    def __init__(self, far: Far) -> None:
        self._far = far
        self._frames = Frames()
        self._ending = False
        self.transport: asyncio.Transport
        self._connections: set[Any] = set()

    def take(self, transport: asyncio.Transport, connections: set[Any]) -> None:
        """What `Socket.hand_over` calls: `connections` are the server's."""
        self.transport, self._connections = transport, connections
        transport.set_protocol(self)
        connections.add(self)

    def begin(self) -> None:
        if self.transport.is_closing():
            self.connection_lost(None)
            return
        self._far.join(self)
        self.transport.resume_reading()

    def pass_on(self, data: bytes) -> None:
        """Frames of the other machine."""
        if not self._ending:
            self._frames.feed(data)
            self.transport.write(data)

    def far_lost(self) -> None:
        """The other machine is gone: it has said why, or the client hears it from us."""
        if self._frames.closed:
            self.transport.close()
        else:
            self._end(CloseCode.TRY_AGAIN_LATER, "the other machine is gone")

    def shutdown(self) -> None:
        """What uvicorn calls when the server stops."""
        self._end(CloseCode.SERVICE_RESTART, "restart")
        self._far.transport.close()

    def _end(self, code: int, reason: str) -> None:
        if self._ending:
            return
        self._ending = True
        if self._frames.closed or self.transport.is_closing():
            self.transport.close()
            return
        if not self._frames.between:
            # In the middle of a frame there is no room for a word of ours.
            self.transport.abort()
            return
        self.transport.write(framing.frame_close(code, reason))
        # Hanging up with bytes unread would take the Close frame with it.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        asyncio.get_running_loop().call_later(CLOSE_SECONDS, self.transport.abort)

    # -- asyncio's protocol ----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self._ending:
            self._far.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._ending = True
        self._far.transport.close()

    def pause_writing(self) -> None:
        if not self._far.transport.is_closing():
            self._far.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self._far.transport.is_closing():
            self._far.transport.resume_reading()


def _refusal(far: Far) -> Response:
    response = Response(far.body, far.status)
    response.raw_headers = far.kept_headers()
    return response


async def _nothing() -> Any:
    raise ClientDisconnect
