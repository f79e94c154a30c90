"""Idle connections: what each of many costs in memory while nobody says anything."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from statistics import median

from bench import frames, hubs, process
from bench.crowd import JOINED, MORE_DESCRIPTORS, allow_descriptors
from bench.dialects import Dialect
from bench.figure import Figure
from bench.process import Refused, ServerProcess
from bench.stage import Stage

# Memory says the same each time.
STARTS = 3
CONNECTIONS = 1_000
INSTANCES = 100
CONNECTION_KIB = 4.0
KIB = 1 << 10
JOIN_SECONDS = 10.0
RECEIVE_BYTES = 65_536


def measure_connections(stage: Stage) -> Iterator[Figure]:
    """Resident memory of a fresh server before and after so many have come in."""
    yield _cost(stage, f"{CONNECTIONS:,} idle connections, one instance", 1, CONNECTION_KIB)
    yield _cost(stage, f"{CONNECTIONS:,} idle connections, {INSTANCES} instances", INSTANCES, None)


def _cost(stage: Stage, name: str, instances: int, aim: float | None) -> Figure:
    """Before, one connection is there already: what the first one loads is not what each costs."""
    instance_ids = [f"idle-{number}" for number in range(instances)]
    costs = []
    for number in range(STARTS):
        data = stage.folder / f"idle-{instances}-{number}"
        hubs.make(data, instance_ids)
        with process.litehouse(data, **stage.production()) as server:
            costs.append(_kib_of_each(stage, server, instance_ids))
    return Figure(name, median(costs), "KiB each", aim=aim, note="with its part of an open instance" if not aim else "")


def _kib_of_each(stage: Stage, server: ServerProcess, instance_ids: Sequence[str]) -> float:
    allow_descriptors(CONNECTIONS + MORE_DESCRIPTORS)
    dialects = [hubs.litehouse(stage, server, instance_id).dialect for instance_id in instance_ids]
    with ExitStack() as stack:
        stack.enter_context(_joined(server, dialects[0]))
        before = server.idle_bytes()
        for number in range(CONNECTIONS):
            stack.enter_context(_joined(server, dialects[number % len(dialects)]))
        return (server.idle_bytes() - before) / CONNECTIONS / KIB


def _joined(server: ServerProcess, dialect: Dialect) -> socket.socket:
    """A connection that has been greeted."""
    connection = socket.create_connection(("127.0.0.1", server.port), JOIN_SECONDS)
    connection.sendall(frames.upgrade(dialect.target))
    heard = b""
    while JOINED not in heard:
        data = connection.recv(RECEIVE_BYTES)
        if not data:
            raise Refused(f"a connection was not let in: {heard[:200]!r}")
        heard += data
    return connection
