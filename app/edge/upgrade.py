"""An upgrade: the answer that makes a request a WebSocket, and the request that asks for it.

The endpoint of a WebSocket is an endpoint like any other: who, what, rule, answer. A refusal is an answer too.
"""

from collections.abc import Callable
from typing import Protocol

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.edge.listener import Listener
from app.edge.socket import Socket
from app.errors import AppError

# The method of a route that answers upgrades, and the name under which the server hands a connection over.
WEBSOCKET = "WEBSOCKET"
EXTENSION = "litehouse.socket"


class Opening(Protocol):
    """What a scope carries as EXTENSION."""

    @property
    def problem(self) -> AppError | None:
        """Why the handshake cannot be accepted, whatever the endpoint says."""

    def open(self) -> Socket:
        """The connection, after `websocket.accept`. ClientDisconnect when the client has gone meanwhile."""


class Handshake(Request):
    """A request to become a WebSocket: it has no body. Raises what is wrong with it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        HTTPConnection.__init__(self, scope)
        self._receive = receive
        self._send = send
        problem = opening_of(scope).problem
        if problem is not None:
            raise problem

    @property
    def subprotocols(self) -> list[str]:
        """What the client offers, in its order of preference."""
        offered: list[str] = self.scope["subprotocols"]
        return offered


class Upgrade(Response):
    """Accept, and give the open socket to whoever `listener_of` makes for it. Nothing else remains of the request."""

    def __init__(self, listener_of: Callable[[Socket], Listener], subprotocol: str | None = None) -> None:
        self.status_code = 101
        self.background = None
        self.body = b""
        self.raw_headers = []
        self._listener_of = listener_of
        self._subprotocol = subprotocol

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept", "subprotocol": self._subprotocol, "headers": self.raw_headers})
        socket = opening_of(scope).open()
        socket.listen(self._listener_of(socket))


def opening_of(scope: Scope) -> Opening:
    opening: Opening = scope["extensions"][EXTENSION]
    return opening
