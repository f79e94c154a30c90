"""Live instances in this process: real files, real sockets, hubs whose bounds a test may set and look into."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect

from app.edge import migrate
from app.edge.changes import Changes
from app.edge.clock import now_ms
from app.edge.database import Database
from app.edge.placement import anywhere
from app.edge.router import Route
from app.edge.sockets import Sockets
from app.edge.upgrade import WEBSOCKET
from app.edge.websocket import protocol_of
from app.identity import queries, users
from app.identity.principal import Kind, Principal
from app.instances import routes
from app.instances.admission import Rooms
from app.instances.draft import Caller
from app.instances.hubs import Hubs
from app.instances.queries import Actor
from app.instances.store import Retention
from app.instances.tickets import Tickets
from app.projects import instances
from app.projects.access import Level
from app.projects.first_use import FirstUse
from tests.edge.conftest import WAIT_SECONDS, Site, site
from tests.edge.wire import Wire, connected, head
from tests.projects.conftest import Json

OPERATOR = Principal(Kind.OPERATOR, None)
CLOCKWORK = Caller(Actor("user", "test"), "test", OPERATOR, Level.OWNER)


class LivePeer:
    """One socket of `websockets`."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def hear(self) -> Json:
        async with asyncio.timeout(WAIT_SECONDS):
            frame: Json = json.loads(await self.socket.recv())
            return frame

    async def until(self, kind: str) -> list[Json]:
        heard = [await self.hear()]
        while heard[-1]["type"] != kind:
            heard.append(await self.hear())
        return heard

    async def alive(self) -> None:
        """Until the server has answered: it had its turn."""
        await self.say("ping")
        await self.until("pong")


class Live:
    """The server, its hubs and the rows behind them."""

    def __init__(self, db: Database, changes: Changes, hubs: Hubs) -> None:
        self.db = db
        self.changes = changes
        self.hubs = hubs
        self.tickets = Tickets(("secret",))
        self.site: Site

    async def make(self, instance_id: str) -> str:
        await self.db.write(instances.ensure, instance_id, users.DEV_USER, "here", now_ms())
        return instance_id

    def token(self, instance_id: str, principal: Principal = OPERATOR) -> str:
        return self.tickets.issue(instance_id, Level.ADMIN, principal, now_ms()).token

    @asynccontextmanager
    async def dial(
        self, instance_id: str, principal: Principal | None = OPERATOR, **query: Any
    ) -> AsyncIterator[LivePeer]:
        """A peer that has heard nothing yet: somebody with a ticket, or the developer without one."""
        if principal is not None:
            query["token"] = self.token(instance_id, principal)
        address = f"ws://127.0.0.1:{self.site.port}/sync/{instance_id}?{urlencode(query)}"
        async with connect(address, proxy=None, max_size=None, compression=None, close_timeout=1) as socket:
            yield LivePeer(socket)

    @asynccontextmanager
    async def joined(self, instance_id: str, principal: Principal = OPERATOR, **query: Any) -> AsyncIterator[LivePeer]:
        async with self.dial(instance_id, principal, **query) as peer:
            await peer.hear()
            await peer.hear()
            yield peer

    @asynccontextmanager
    async def wire(self, instance_id: str) -> AsyncIterator[Wire]:
        """A connection that reads only what a test reads."""
        request = head(f"/sync/{instance_id}?token={self.token(instance_id)}")
        async with connected(self.site.port, request) as wire:
            assert wire.status == 101
            yield wire


@asynccontextmanager
async def live(tmp_path: Path, database: type[Database] = Database, **bounds: Any) -> AsyncIterator[Live]:
    path = tmp_path / "core.db"
    migrate.migrate(path, "core")
    changes = Changes()
    db = database(path, changes.committed)
    db.open()
    await changes.start(db)
    await db.write(users.ensure_dev_user, now_ms())
    dev_user = await db.read(queries.find_account, users.DEV_USER)
    made = Live(db, changes, Hubs(db, tmp_path / "instances", Retention(), **bounds))
    made.hubs.listen(changes)
    rooms = Rooms(db, made.hubs, None, dev_user, FirstUse(db, "here"))  # type: ignore[arg-type]
    state = {"db": db, "hubs": made.hubs, "rooms": rooms, "tickets": made.tickets}
    served = (Route(WEBSOCKET, "/sync/{id}", anywhere, routes.sync),)
    try:
        async with site(served, state, ws=protocol_of(Sockets())) as (_, made.site):
            yield made
    finally:
        await made.hubs.close()
        await db.close()


@asynccontextmanager
async def held(thread: Executor) -> AsyncIterator[None]:
    """Inside the block an instance's file answers nothing: what is asked of its hub, or of who opens it, gathers."""
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert leave.wait(WAIT_SECONDS)

    holding = thread.submit(hold)
    assert await asyncio.to_thread(entered.wait, WAIT_SECONDS)
    try:
        yield
    finally:
        leave.set()
        await asyncio.wrap_future(holding)
