"""The wiring: one list that opens everything in order and closes it in reverse."""

import asyncio
import gc
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from starlette.routing import Router as Lifespan
from starlette.types import ASGIApp, Receive, Scope, Send

from app.accounts.clerk_api import ClerkApi
from app.accounts.enrichment import Enrichment
from app.edge import backup, changes, expiring, origins, replication, sqlite
from app.edge.archive import Archive
from app.edge.changes import Changes
from app.edge.clock import now_ms
from app.edge.cors import Cors
from app.edge.database import Database, Group
from app.edge.front import Front
from app.edge.idempotency import Running
from app.edge.metrics import Metrics
from app.edge.node import Node
from app.edge.outbound import Outbound
from app.edge.peer_port import PeerPort
from app.edge.peers import POSITION, Peers
from app.edge.placer import HomeOf, Placer, nowhere
from app.edge.request_log import RequestLog
from app.edge.router import Router
from app.edge.transaction import read_position
from app.errors import AppError
from app.identity import api_keys, users
from app.identity import queries as identity_queries
from app.identity.authenticator import Authenticator
from app.identity.clerk import ClerkTokens
from app.identity.principal import Account
from app.instances.connection import Rooms
from app.instances.hubs import Hubs
from app.instances.store import Retention
from app.instances.tickets import Tickets
from app.ops.description import Description
from app.ops.machines import Machines
from app.projects import delegates, instances, webhooks
from app.projects import queries as project_queries
from app.projects.door import Entrance
from app.routes import OPEN_TO_ANY_ORIGIN, ROUTES
from app.settings import Settings
from app.usage import archive_queries
from app.usage.mover import Mover
from app.webhooks import outbox, signing
from app.webhooks.delivery import Deliverer

HOUSEKEEPING_SECONDS = 5.0
RETRY_SECONDS = 0.5
DEV_USER_SECONDS = 10.0

log = structlog.get_logger("main")


@dataclass
class _Placed:
    """How what lives elsewhere is found; `peers` only where there are any, `own_node` where it was handed in."""

    own_node: Node | None
    home_of: HomeOf
    home_of_stream: HomeOf
    peers: Peers | None = None


def create_app(
    settings: Settings, *, own_node: Node | None = None, home_of: HomeOf = nowhere, home_of_stream: HomeOf = nowhere
) -> ASGIApp:
    """The ASGI application of one node; `own_node` in place of the one that the settings describe."""
    cors = Cors(settings.allowed_origins, OPEN_TO_ANY_ORIGIN)
    metrics = Metrics()
    requests = RequestLog(enabled=settings.log_level in ("debug", "info"))
    answered = asyncio.Event()

    def observe(route: str | None, method: str, status: int, seconds: float) -> None:
        metrics.observe_request(route, method, status, seconds)
        answered.set()

    front: ASGIApp = Front(Router(ROUTES), cors, requests, observe)
    placed = _Placed(own_node, home_of, home_of_stream)
    if settings.regions.clustered:
        placed.peers = Peers(settings.regions, settings.regions.machine or secrets.token_hex(4))
        front = PeerPort(front, placed.peers, settings.regions.peer_port)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            state = await _open(settings, cors, metrics, requests, answered, placed, stack)
            _freeze()
            yield state

    starts = Lifespan(lifespan=lifespan)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (starts if scope["type"] == "lifespan" else front)(scope, receive, send)

    return app


async def _open(
    settings: Settings,
    cors: Cors,
    metrics: Metrics,
    requests: RequestLog,
    answered: asyncio.Event,
    placed: _Placed,
    stack: AsyncExitStack,
) -> dict[str, Any]:
    sqlite.assert_one_module()
    engine = replication.of(settings)
    node, mount = await replication.prepare(engine, settings)
    node = placed.own_node or node

    feed = Changes()

    def committed(group: Group) -> None:
        feed.committed(group)
        metrics.observe_group(group)
        if group.position is not None:
            node.advance(group.position)

    backed_up = backup.begin(settings)
    archive = Archive(settings.database_path, settings.ledger_path, archive_queries.VIEW)
    stack.callback(archive.close)
    db = Database(settings.database_path, committed, archive, mount)
    if backed_up is not None:
        stack.push_async_callback(backed_up.close)
        metrics.watch_backup(backed_up)
        backed_up.guard(db)
    db.open()
    stack.push_async_callback(db.close)
    metrics.watch(db)
    await feed.start(db)
    node.advance(await feed.catch_up(db))

    listed = asyncio.Event()
    feed.listen(origins.TOPIC, lambda _: listed.set())
    cors.set_rows(await db.read(origins.list_origins))

    outbound = Outbound(settings.outbound_allow)
    stack.push_async_callback(outbound.close)

    tokens = ClerkTokens(settings.clerk, outbound)
    stack.push_async_callback(tokens.close)
    clerk_api = ClerkApi(settings.clerk, outbound)
    enrichment = Enrichment(db, clerk_api)
    authenticator = Authenticator(db, settings, tokens, enrichment.offer)
    authenticator.listen(feed)
    entrance = Entrance(db, authenticator)
    deliverer = Deliverer(db, outbound, webhooks.may_hear)
    feed.listen(outbox.TOPIC, deliverer.wake)
    if node.is_primary:
        if await db.read(project_queries.list_creating):
            await db.write(instances.discard_unfinished)
        stack.push_async_callback(_write_uses, db, authenticator, entrance)

    retention = Retention(settings.history_days, settings.history_changes)
    hubs = Hubs(db, settings.instances_dir, retention, backup=backed_up)
    hubs.listen(feed)
    stack.push_async_callback(hubs.close)
    machines = Machines(settings.regions, node, hubs, backed_up, placed.peers)
    machines.measure(metrics)
    dev_user = await _find_dev_user(db, node) if settings.dev_user else None

    tasks = [
        hubs.sweep(),
        hubs.ship_leftovers(),
        requests.run(),
        engine.run(node, db, feed),
        _list_origins(db, cors, listed),
        _warm_up(answered, settings, tokens),
    ]
    if node.is_primary:
        tasks += [enrichment.run(), deliverer.run(), _keep_house(db, authenticator, entrance)]
        if settings.regions.replicated:
            tasks.append(Mover(db, archive).run())
    for task in tasks:
        running = asyncio.create_task(task)
        stack.push_async_callback(_end, running)
    if placed.peers is not None:
        # The first request that moves must not wait for a library.
        await placed.peers.session()
    return {
        "settings": settings,
        "db": db,
        "node": node,
        "backup": backed_up,
        "placer": _placer(settings, db, node, placed, stack),
        "metrics": metrics,
        "running": Running(),
        "authenticator": authenticator,
        "entrance": entrance,
        "hubs": hubs,
        "machines": machines,
        "tickets": Tickets(settings.jwt_secrets),
        "rooms": Rooms(db, hubs, entrance, dev_user, settings.regions.region),
        "clerk_api": clerk_api,
        "outbound": outbound,
        "description": Description(ROUTES),
    }


def _placer(settings: Settings, db: Database, node: Node, placed: _Placed, stack: AsyncExitStack) -> Placer | None:
    """What moves requests between machines; a machine alone moves none."""
    if placed.peers is None:
        return None
    stack.push_async_callback(placed.peers.close)

    async def position(question: bytes, machine: str) -> bytes:
        return str(await db.read(read_position)).encode()

    placed.peers.answers[POSITION] = position
    return Placer(node, placed.peers, settings.regions.replay, placed.home_of, placed.home_of_stream)


async def _find_dev_user(db: Database, node: Node) -> Account | None:
    """`dev-user`, which a replica's first start may have to wait for: the primary makes it after the tables."""
    try:
        async with asyncio.timeout(DEV_USER_SECONDS):
            while True:
                account = await db.read(identity_queries.find_account, users.DEV_USER)
                if account is not None or node.is_primary:
                    return account
                await asyncio.sleep(RETRY_SECONDS)
    except TimeoutError:
        return None


async def _warm_up(answered: asyncio.Event, settings: Settings, tokens: ClerkTokens) -> None:
    """Load what the first token and the first webhook would wait for, once somebody has been answered."""
    await answered.wait()
    try:
        await tokens.warm()
        if settings.clerk.webhook_secret:
            await signing.warm()
    except AppError as error:
        log.warning("not_warm", error=error.message)
    _freeze()


def _freeze() -> None:
    """Take what is here to stay out of the collector's sight: a full collection of it stops everybody for 20 ms."""
    gc.collect()
    gc.freeze()


async def _list_origins(db: Database, cors: Cors, listed: asyncio.Event) -> None:
    """Read the origins anew each time that they have changed."""
    while True:
        await listed.wait()
        listed.clear()
        try:
            cors.set_rows(await db.read(origins.list_origins))
        except AppError as error:
            log.warning("origins_not_read", error=error.message)
            listed.set()
            await asyncio.sleep(RETRY_SECONDS)


async def _keep_house(db: Database, authenticator: Authenticator, entrance: Entrance) -> None:
    """What has to happen now and then, each a short write, and none where there is nothing to do."""
    while True:
        await asyncio.sleep(HOUSEKEEPING_SECONDS)
        try:
            if await db.read(expiring.has_dead, now_ms()):
                await db.write(expiring.purge, now_ms())
            if await db.read(changes.has_surplus):
                await db.write(changes.trim)
            if await db.read(outbox.has_old, now_ms()):
                await db.write(outbox.trim, now_ms())
            await _write_uses(db, authenticator, entrance)
        except AppError as error:
            log.warning("chore_failed", error=error.message)


async def _write_uses(db: Database, authenticator: Authenticator, entrance: Entrance) -> None:
    if uses := authenticator.uses.take():
        await db.write(api_keys.write_uses, uses)
    if uses := entrance.secret_uses.take():
        await db.write(delegates.write_uses, uses)


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])
