"""Moving: what it costs that a request is answered by another machine, over the stand-in for LiteFS.

Between the machines there is nothing but loopback: what is added is work, and a real line's delay comes on top.
"""

import http.client
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median, quantiles
from typing import NamedTuple

from app.edge.mount import Mount
from bench import messages, world
from bench.figure import Figure
from bench.mounted import PERCENT, arrival, free_peer_ports, reading, serve
from bench.process import Refused, ServerProcess
from bench.regions import READY
from bench.stage import Stage
from cluster.engines import StandIn
from cluster.fly_proxy import Backend, FlyProxy
from cluster.machines import AMS as REPLICA
from cluster.machines import PRIMARY, REGIONS

ASKED_A_ROUND = 100
READ_RATIO = 0.9
# Above what a replica may be behind: it answers nothing from its own rows.
TOO_OLD_MS = 1_000_000
TURNED_SECONDS = 10.0
PATH = f"{messages.QUOTA}?userId={messages.user_name(1)}"

Ask = Callable[[], float]


class Moving(NamedTuple):
    engine: StandIn
    primary: ServerProcess
    replica: ServerProcess
    key: str


def measure_moving(stage: Stage) -> Iterator[Figure]:
    """Reads at a replica beside a machine alone, how soon it sees a commit, and the milliseconds that a forward and a
    replay add."""
    with _machines(stage, "forward") as moving:
        yield reading(stage, "on the stand-in", moving.replica, moving.key, READ_RATIO)
        yield arrival(stage, "on the stand-in", moving.engine)
        moving.engine.say_lag(REPLICA, TOO_OLD_MS)
        _require_turned(moving.replica)
        yield _added(stage, "a forward", _kept(moving.primary, moving.key), _kept(moving.replica, moving.key))
    with _machines(stage, "fly") as moving:
        moving.engine.say_lag(REPLICA, TOO_OLD_MS)
        _require_turned(moving.replica)
        servers = {PRIMARY: moving.primary, REPLICA: moving.replica}
        proxy = FlyProxy([Backend(REGIONS[name], name, server.port) for name, server in servers.items()])
        try:
            near, far = (_fresh(proxy.port, REGIONS[name], moving.key) for name in servers)
            yield _added(stage, "a replay", near, far)
        finally:
            proxy.close()


@contextmanager
def _machines(stage: Stage, replay: str) -> Iterator[Moving]:
    engine = StandIn(stage.folder / f"moving-{replay}", [PRIMARY, REPLICA])
    ports = free_peer_ports()
    with ExitStack() as stack:
        stack.callback(engine.close)
        engine.start(PRIMARY)
        engine.start(REPLICA)
        key = world.make(engine.database(PRIMARY), Mount.PRIMARY)
        primary, replica = (stack.enter_context(serve(stage, engine, name, ports, REPLAY=replay)) for name in ports)
        yield Moving(engine, primary, replica, key)


def _require_turned(replica: ServerProcess) -> None:
    """Refused unless the replica takes itself for too old, which it looks at once a second."""
    until = time.monotonic() + TURNED_SECONDS
    while replica.ask(READY) != 503:
        if time.monotonic() > until:
            raise Refused("the replica still answers from its own rows")
        time.sleep(0.1)


def _added(stage: Stage, name: str, here: Ask, moved: Ask) -> Figure:
    """In turns, so that a busy moment of the machine meets both."""
    pairs = [(here(), moved()) for _ in range(stage.extent.rounds * ASKED_A_ROUND)][ASKED_A_ROUND // 2 :]
    cuts = quantiles((1000 * (there - direct) for direct, there in pairs), n=PERCENT)
    direct = 1000 * median(pair[0] for pair in pairs)
    return Figure(f"{name}, added, p50", cuts[49], "ms", note=f"p99 {cuts[98]:.1f} ms; unmoved {direct:.1f} ms")


def _kept(server: ServerProcess, key: str) -> Ask:
    """Asks on one connection that stays open."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    return lambda: _timed(connection, {"Authorization": f"Bearer {key}"})


def _fresh(port: int, near: str, key: str) -> Ask:
    """Asks on a connection of its own each time, as the stand-in for Fly's proxy takes them."""

    def ask() -> float:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        try:
            return _timed(connection, {"Authorization": f"Bearer {key}", "x-near": near})
        finally:
            connection.close()

    return ask


def _timed(connection: http.client.HTTPConnection, headers: dict[str, str]) -> float:
    begun = time.perf_counter()
    connection.request("GET", PATH, headers=headers)
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise Refused(f"GET {PATH} answered {answer.status}")
    return time.perf_counter() - begun
