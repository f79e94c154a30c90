"""The wiring: one list that opens everything in order and closes it in reverse."""

import asyncio
import gc
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import structlog
from starlette.routing import Router as Lifespan
from starlette.types import ASGIApp, Receive, Scope, Send

from app.accounts.clerk_api import ClerkApi
from app.accounts.enrichment import Enrichment
from app.edge import background, backup, membership, origins, replication, sqlite
from app.edge.archive import Archive
from app.edge.changes import Changes
from app.edge.cors import Cors
from app.edge.database import Database, Group, at_start
from app.edge.front import Front
from app.edge.idempotency import Running
from app.edge.membership import Membership
from app.edge.metrics import Metrics
from app.edge.node import Node
from app.edge.outbound import Outbound
from app.edge.peer_port import PeerPort
from app.edge.peers import Peers
from app.edge.placer import Placer
from app.edge.request_log import RequestLog
from app.edge.router import Router
from app.errors import AppError
from app.identity import demo
from app.identity.authenticator import Authenticator
from app.identity.clerk import ClerkTokens
from app.identity.newcomers import Newcomers
from app.instances import neighbours
from app.instances.admission import CATCH_UP_SECONDS, Rooms
from app.instances.adoption import adopt
from app.instances.hubs import Hubs
from app.instances.remains import Remains
from app.instances.store import Retention
from app.instances.tickets import Tickets
from app.ops import chores, gauges, owed
from app.ops.description import Description
from app.ops.machines import Machines
from app.projects import instances, webhooks
from app.projects import queries as project_queries
from app.projects.door import Entrance
from app.projects.first_use import FirstUse
from app.routes import OPEN_TO_ANY_ORIGIN, ROUTES
from app.settings import Settings
from app.usage import archive_queries
from app.usage.mover import Mover
from app.webhooks import outbox, signing
from app.webhooks.delivery import Deliverer

RETRY_SECONDS = 0.5

log = structlog.get_logger("main")


def create_app(settings: Settings) -> ASGIApp:
    """The ASGI application of one node."""
    cors = Cors(settings.allowed_origins, OPEN_TO_ANY_ORIGIN)
    metrics = Metrics()
    requests = RequestLog(enabled=settings.log_level in ("debug", "info"))
    answered = asyncio.Event()

    def observe(route: str | None, method: str, status: int, seconds: float) -> None:
        metrics.observe_request(route, method, status, seconds)
        answered.set()

    front: ASGIApp = Front(Router(ROUTES), cors, requests, observe)
    peers = None
    if settings.regions.clustered:
        peers = Peers(settings.regions, settings.regions.machine or secrets.token_hex(4))
        front = PeerPort(front, peers, settings.regions.peer_port)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            state = await _open(settings, cors, metrics, requests, answered, peers, stack)
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
    peers: Peers | None,
    stack: AsyncExitStack,
) -> dict[str, Any]:
    sqlite.assert_one_module()
    engine = replication.of(settings)
    node, mount = await replication.prepare(engine, settings)

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
        gauges.measure_backup(metrics, backed_up)
        backed_up.guard(db)
    db.open()
    stack.push_async_callback(db.close)
    metrics.watch(db)
    node.advance(await feed.start(db))

    listed = asyncio.Event()
    feed.listen(origins.TOPIC, lambda _: listed.set())
    cors.set_rows(await at_start(db.read, origins.list_origins))

    outbound = Outbound(settings.outbound_allow)
    stack.push_async_callback(outbound.close)

    tokens = ClerkTokens(settings.clerk, outbound)
    stack.push_async_callback(tokens.close)
    clerk_api = ClerkApi(settings.clerk, outbound)
    enrichment = Enrichment(db, clerk_api)
    member = await _join(settings, db, node, peers, stack)
    follower = member.follower if member is not None else None
    # Elsewhere the primary is asked to write.
    asked = None if node.is_primary else follower
    newcomers, first_use = Newcomers(db, enrichment.offer, asked), FirstUse(db, settings.regions.region, asked)
    if peers is not None and node.is_primary:
        peers.answers |= newcomers.answers() | (first_use.answers() if settings.dev_user else {})
    authenticator = Authenticator(db, settings, tokens, newcomers)
    authenticator.listen(feed)
    entrance = Entrance(db, authenticator)
    deliverer = Deliverer(db, outbound, webhooks.may_hear)
    feed.listen(outbox.TOPIC, deliverer.wake)
    if node.is_primary:
        if await db.read(project_queries.list_creating):
            await db.write(instances.discard_unfinished)
        stack.push_async_callback(chores.write_uses, db, authenticator, entrance)

    retention = Retention(settings.history_days, settings.history_changes)
    spool = None
    if peers is not None:
        spool = await owed.open_spool(db, node, peers, settings.machine_path, stack)
    hubs = Hubs(
        db,
        settings.instances_dir,
        retention,
        backup=backed_up,
        keeper=member.keeper if member is not None else None,
        peers=peers,
        enqueue=owed.enqueue_in(spool) if spool is not None else None,
        look=partial(follower.catch_up, CATCH_UP_SECONDS) if follower is not None else None,
    )
    if follower is not None:
        follower.settle = hubs.reviews.settle
    copier, tasks = neighbours.begin(hubs, member, peers, db, settings.instances_dir, stack)
    hubs.listen(feed)
    stack.push_async_callback(hubs.close)
    lease = member.lease if member is not None else None
    machines = Machines(settings.regions, node, hubs, db, backup=backed_up, peers=peers, lease=lease, spool=spool)
    gauges.measure(metrics, machines)
    dev_user = await demo.find_dev_user(db, node) if settings.dev_user else None

    tasks += [
        hubs.sweep(),
        machines.run(),
        requests.run(),
        engine.run(node, db, feed),
        _list_origins(db, cors, listed),
        _warm_up(answered, settings, tokens),
    ]
    if spool is not None:
        tasks += [spool.run(), chores.keep_spool(spool, authenticator, entrance)]
        stack.push_async_callback(chores.spool_uses, spool, authenticator, entrance)
    if node.is_primary:
        tasks += [enrichment.run(), deliverer.run(), chores.keep_house(db, authenticator, entrance)]
        tasks.append(owed.take_own(db, settings.machine_path))
        if backed_up is not None:
            tasks.append(Remains(db, backed_up.url).run())
        if settings.regions.replicated:
            shipped = partial(backed_up.ship, settings.ledger_path) if backed_up is not None else None
            tasks.append(Mover(db, archive, shipped).run())
    background.run(stack, tasks)
    if peers is not None:
        # The first request that moves must not wait for a library.
        await peers.session()
    return {
        "settings": settings,
        "db": db,
        "node": node,
        "placer": _placer(settings, node, member),
        "metrics": metrics,
        "running": Running(),
        "authenticator": authenticator,
        "entrance": entrance,
        "hubs": hubs,
        "machines": machines,
        "copier": copier,
        "tickets": Tickets(settings.jwt_secrets),
        "rooms": Rooms(db, hubs, entrance, dev_user, first_use, asked),
        "clerk_api": clerk_api,
        "description": Description(ROUTES),
    }


async def _join(
    settings: Settings, db: Database, node: Node, peers: Peers | None, stack: AsyncExitStack
) -> Membership | None:
    """What this machine is to the others; a machine alone is the home of all it holds."""
    if peers is None:
        return None
    stack.push_async_callback(peers.close)
    restorable = settings.backup_url is not None
    member = await membership.join(db, node, peers, project_queries.find_region, takes_away=restorable)
    stack.push_async_callback(member.close)
    if node.is_primary:
        await adopt(member, settings.instances_dir)
    return member


def _placer(settings: Settings, node: Node, member: Membership | None) -> Placer | None:
    """What moves requests between machines; a machine alone moves none."""
    if member is None:
        return None
    home_of = member.home_or_here if settings.dev_user else member.keeper.home_of
    return Placer(node, member.follower, settings.regions.replay, home_of, suspect=member.keeper.suspect)


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
            cors.set_rows(await at_start(db.read, origins.list_origins))
        except AppError as error:
            log.warning("origins_not_read", error=error.message)
            listed.set()
            await asyncio.sleep(RETRY_SECONDS)
