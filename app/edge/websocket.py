"""The WebSocket protocol class of this server: uvicorn's `ws=`.

It lives from the upgrade until the app has accepted or refused, which runs as ordinary ASGI; then the connection
belongs to a Socket, and the task, the scope and this object are gone.
"""

import asyncio
import base64
import binascii
from http import HTTPStatus
from typing import Any, ClassVar, cast
from urllib.parse import unquote

import httptools
import structlog
from starlette.requests import ClientDisconnect
from starlette.types import Message, Scope
from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState
from websockets.frames import CloseCode
from websockets.utils import accept_key

from app.edge.socket import Socket
from app.edge.sockets import Sockets
from app.edge.upgrade import EXTENSION
from app.errors import AppError, Invalid, MethodNotAllowed, Unavailable

KEY_BYTES = 16
VERSION = b"13"

Headers = list[tuple[bytes, bytes]]

log = structlog.get_logger("websocket")


def protocol_of(sockets: Sockets) -> type[asyncio.Protocol]:
    """The protocol class of one server, whose open connections share `sockets`."""

    class ProtocolOfServer(WebSocketProtocol):
        shared = sockets

    return ProtocolOfServer


class WebSocketProtocol(asyncio.Protocol):
    """One handshake. Nothing is read while it lasts: what the client sends early waits in the kernel."""

    shared: ClassVar[Sockets]

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        self._config = config
        self._app = config.loaded_app
        self._app_state = app_state
        self._connections: set[Any] = server_state.connections
        self._tasks = server_state.tasks
        self._default_headers = server_state.default_headers
        self._key = ""
        self._gone = asyncio.Event()
        self._connected = False
        self._stopping = False
        self._denial: Message | None = None
        self._answered = False
        self._socket: Socket | None = None
        self.problem: AppError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not of this class, only like it.
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        self._transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        """The head of the request, as uvicorn's HTTP protocol hands it over; called once."""
        method, url, headers = _read_head(data)
        self.problem = self._find_problem(method, headers)
        task = asyncio.get_running_loop().create_task(self._run(self._scope(url, headers)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def eof_received(self) -> None:
        """Nothing is read here, so this is never told; the transport closes itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._gone.set()

    def shutdown(self) -> None:
        """What uvicorn calls when the server stops: what is not accepted yet will be refused."""
        self._stopping = True

    def open(self) -> Socket:
        """The accepted connection. ClientDisconnect when there is none, because the client has gone."""
        if self._socket is None:
            raise ClientDisconnect
        return self._socket

    async def _run(self, scope: Scope) -> None:
        try:
            await self._app(scope, self._receive, self._send)
        except Exception:
            log.exception("handshake_failed")
        if self._socket is not None:
            if not self._socket.has_listener:
                self._socket.close(CloseCode.INTERNAL_ERROR)
        elif not self._answered:
            self._respond(500, [(b"content-length", b"0")], b"")

    async def _receive(self) -> Message:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        await self._gone.wait()
        return {"type": "websocket.disconnect", "code": CloseCode.ABNORMAL_CLOSURE}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if self._answered:
            raise RuntimeError(f"{kind}: the handshake has been answered already")
        if kind == "websocket.accept":
            self._accept(message.get("subprotocol"), list(message.get("headers", ())))
        elif kind == "websocket.close":
            self._respond(403, [(b"content-length", b"0")], b"")
        elif kind == "websocket.http.response.start":
            self._denial = {**message, "body": b""}
        elif kind == "websocket.http.response.body" and self._denial is not None:
            self._denial["body"] += message.get("body", b"")
            if not message.get("more_body", False):
                self._respond(self._denial["status"], list(self._denial["headers"]), self._denial["body"])
        else:
            raise RuntimeError(f"{kind}: not expected before the handshake is answered")

    def _accept(self, subprotocol: str | None, headers: Headers) -> None:
        if self._stopping:
            raise Unavailable("The server is stopping")
        self._answered = True
        self._connections.discard(self)
        if self._transport.is_closing():
            return
        headers += [
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-accept", accept_key(self._key).encode()),
        ]
        if subprotocol is not None:
            headers.append((b"sec-websocket-protocol", subprotocol.encode()))
        self._transport.write(_head(101, self._default_headers + headers))
        self._socket = Socket(self._transport, self._connections, self.shared)

    def _respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer over HTTP and hang up."""
        self._answered = True
        self._transport.write(_head(status, [*self._default_headers, *headers, (b"connection", b"close")]) + body)
        self._transport.close()

    def _find_problem(self, method: str, headers: Headers) -> AppError | None:
        limit = self._config.limit_concurrency
        if limit is not None and len(self._connections) > limit:
            return Unavailable("Too many connections")
        if method != "GET":
            return MethodNotAllowed("A WebSocket is opened with GET", headers={"Allow": "GET"})
        if _values(headers, b"sec-websocket-version") != [VERSION]:
            said = {"Sec-WebSocket-Version": VERSION.decode()}
            return Invalid(f"Sec-WebSocket-Version: expected {VERSION.decode()}", headers=said)
        keys = _values(headers, b"sec-websocket-key")
        if len(keys) != 1 or not _is_key(keys[0]):
            return Invalid(f"Sec-WebSocket-Key: expected {KEY_BYTES} bytes in base64")
        self._key = keys[0].decode()
        return None

    def _read_target(self, url: bytes) -> tuple[bytes, bytes]:
        """The path and the query of a request's target."""
        try:
            parsed = httptools.parse_url(url)
        except httptools.HttpParserInvalidURLError:
            self.problem = Invalid("The target of the request is not a URL")
            return b"/", b""
        return parsed.path or b"/", parsed.query or b""

    def _scope(self, url: bytes, headers: Headers) -> Scope:
        raw_path, query = self._read_target(url)
        root_path = self._config.root_path
        offered = b",".join(_values(headers, b"sec-websocket-protocol")).decode("latin-1")
        return {
            "type": "websocket",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(self._transport) else "ws",
            "server": get_local_addr(self._transport),
            "client": get_remote_addr(self._transport),
            "root_path": root_path,
            "path": root_path + unquote(raw_path.decode("latin-1")),
            "raw_path": root_path.encode() + raw_path,
            "query_string": query,
            "headers": headers,
            "subprotocols": [name.strip() for name in offered.split(",") if name.strip()],
            "state": self._app_state.copy(),
            "extensions": {"websocket.http.response": {}, EXTENSION: self},
        }


def _read_head(head: bytes) -> tuple[str, bytes, Headers]:
    """Method, target and headers. Their form is certain: the HTTP parser has read them and uvicorn has written
    them anew, with names in lower case."""
    first, *lines = head.split(b"\r\n")
    method, _, rest = first.partition(b" ")
    fields = (line.partition(b": ") for line in lines if line)
    return method.decode(), rest.rpartition(b" ")[0], [(name, value) for name, _, value in fields]


def _values(headers: Headers, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name == wanted]


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == KEY_BYTES
    except binascii.Error:
        return False


def _head(status: int, headers: Headers) -> bytes:
    fields = b"".join([b"%b: %b\r\n" % field for field in headers])
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, HTTPStatus(status).phrase.encode(), fields)
