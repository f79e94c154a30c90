"""A site whose sockets are watched: what each was told, beside the client that told it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from app.edge.placement import anywhere
from app.edge.router import Route
from app.edge.socket import Socket
from app.edge.sockets import Limits, Sockets
from app.edge.upgrade import WEBSOCKET, Upgrade
from app.edge.websocket import protocol_of
from tests.edge.conftest import Site, site
from tests.edge.echoing import Echo
from tests.edge.wire import WAIT_SECONDS, Wire, connected
from tests.waiting import comes


class Watched(Echo):
    """An echo that remembers. `silent` it says nothing back; at message number `pause_at` it stops reading."""

    __slots__ = ("closed", "drained", "heard", "pause_at", "shut_down", "silent")

    def __init__(self, connection: Socket, others: set[Echo]) -> None:
        super().__init__(connection, others)
        self.silent = False
        self.pause_at = 0
        self.heard: list[str | bytes] = []
        self.drained = asyncio.Event()
        self.shut_down = asyncio.Event()
        self.closed: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def on_message(self, message: str | bytes) -> None:
        self.heard.append(message)
        if len(self.heard) == self.pause_at:
            self.socket.pause_reading()
        if not self.silent:
            super().on_message(message)

    def on_drain(self) -> None:
        self.drained.set()

    def on_shutdown(self) -> None:
        self.shut_down.set()
        super().on_shutdown()

    def on_close(self, code: int) -> None:
        super().on_close(code)
        # Fails when it is told twice.
        self.closed.set_result(code)

    async def hears(self, count: int) -> None:
        """Until `count` messages have been heard."""
        await comes(lambda: len(self.heard) >= count)

    async def closed_with(self) -> int:
        return await asyncio.wait_for(asyncio.shield(self.closed), WAIT_SECONDS)


class Watch:
    """The site and its sockets, newest last."""

    def __init__(self, sockets: Sockets) -> None:
        self.sockets = sockets
        self.listeners: list[Watched] = []
        self.site: Site

    async def echo(self, request: Request) -> Response:
        """Say back what is heard."""
        return Upgrade(self._listener_of)

    def _listener_of(self, connection: Socket) -> Watched:
        self.listeners.append(Watched(connection, set()))
        return self.listeners[-1]

    @asynccontextmanager
    async def wire(self) -> AsyncIterator[tuple[Wire, Watched]]:
        """A client, and the listener at the other end."""
        async with connected(self.site.port) as wire:
            assert wire.status == 101
            # Made before the answer left, so the newest is the one at the other end.
            yield wire, self.listeners[-1]


@asynccontextmanager
async def watched(limits: Limits | None = None, **config: Any) -> AsyncIterator[Watch]:
    watch = Watch(Sockets(limits) if limits else Sockets())
    routes = (Route(WEBSOCKET, "/echo", anywhere, watch.echo),)
    async with site(routes, ws=protocol_of(watch.sockets), **config) as (_, watch.site):
        yield watch
