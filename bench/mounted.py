"""Mounted: what litehouse makes of a core that lies on LiteFS, where that program is."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

from app.edge import sqlite
from app.edge.mount import Mount
from bench import messages, stalls, world
from bench.figure import Figure, compared
from bench.process import Refused, ServerProcess
from bench.raw import RawRows
from bench.regions import SECRET
from bench.rounds import interleave
from bench.stage import Stage
from cluster import machines
from cluster.engines import Engine, LiteFS, why_not_litefs
from cluster.machines import AMS as REPLICA
from cluster.machines import PRIMARY
from cluster.ports import free_port

CONNECTIONS = 16
ONE_ROW = "one-row commits"
# A commit on the mount costs what it costs: only many in one make it worth having.
GROUP_RATIO = 20.0
ALONE = "a machine alone"
READ_RATIO = 0.25
SEEN_P99_MS = 100.0
ARRIVAL_SECONDS = 10.0
COMMITS_A_ROUND = 100
PERCENT = 100


def measure_litefs(stage: Stage) -> Iterator[Figure]:
    """Ingestion at the primary beside single commits on the same mount, reads at a replica beside a machine alone, and
    how soon a replica sees a commit."""
    reason = why_not_litefs()
    if reason is not None:
        raise Refused(reason)
    with _mounts(stage.folder / "litefs") as engine:
        key = world.make(engine.database(PRIMARY), Mount.PRIMARY)
        ports = free_peer_ports()
        with serve(stage, engine, PRIMARY, ports) as server:
            yield _ingestion(stage, engine, server, key)
            with serve(stage, engine, REPLICA, ports) as replica:
                yield reading(stage, "on LiteFS", replica, key, READ_RATIO)
            yield _stall(stage, engine, server, ports, key)
        yield arrival(stage, "on LiteFS", engine)


def can_be_measured() -> bool:
    return why_not_litefs() is None


@contextmanager
def _mounts(folder: Path) -> Iterator[LiteFS]:
    engine = LiteFS(folder, [PRIMARY, REPLICA])
    try:
        engine.start(PRIMARY)
        engine.start(REPLICA)
        yield engine
    finally:
        engine.close()


def _ingestion(stage: Stage, engine: LiteFS, server: ServerProcess, key: str) -> Figure:
    database = engine.database(PRIMARY)
    templates, events = messages.batch(key), messages.BATCH_EVENTS
    with closing(RawRows(database.with_name("raw.db"), mounted=True)) as raw:

        def ingest() -> float:
            before = world.count_rows(database)
            run = stage.drive(server, templates, CONNECTIONS, numbers=events)
            grown = world.count_rows(database) - before
            if grown != run.answers * events:
                raise Refused(f"{run.answers * events} events were acknowledged, the ledger has grown by {grown}")
            return run.rate * events

        subjects = {"litehouse": ingest, ONE_ROW: lambda: raw.rate(stage.extent.seconds, rows=1)}
        given = interleave(stage.extent.rounds, subjects)
    name = f"on LiteFS, batches of {events}"
    return compared(name, "events/s", given["litehouse"], ONE_ROW, given[ONE_ROW], GROUP_RATIO)


def reading(stage: Stage, where: str, replica: ServerProcess, key: str, aim: float) -> Figure:
    """The same question at a replica, where its read leaves the loop, and at a machine alone."""

    def ask(server: ServerProcess, key: str) -> float:
        question = messages.get(f"{messages.QUOTA}?userId={messages.user_name(1)}", key)
        return stage.drive(server, (question,), CONNECTIONS).rate

    subjects = {"litehouse": lambda: ask(replica, key), ALONE: lambda: ask(stage.litehouse, stage.key)}
    given = interleave(stage.extent.rounds, subjects)
    return compared(f"{where}, quota at a replica", "requests/s", given["litehouse"], ALONE, given[ALONE], aim)


def _stall(stage: Stage, engine: LiteFS, primary: ServerProcess, ports: dict[str, int], key: str) -> Figure:
    """How late the loop of a replica comes, and that of a machine alone, which reads its core on the loop."""
    here, there = engine.folder / "late.json", stage.folder / "ticked" / "late.json"
    alone = world.make(there.with_name("core.db"))
    words = [*stalls.ticked(there), "serve", "--port", "{port}", "--data", str(there.parent)]
    with (
        serve(stage, engine, REPLICA, ports, stalls.ticked(here)) as replica,
        ServerProcess(words, there.with_name("server.log"), **stage.production()) as other,
    ):
        return stalls.stall(
            stage, "on LiteFS", primary, stalls.Ticked(replica, here, key), stalls.Ticked(other, there, alone), ALONE
        )


def free_peer_ports() -> dict[str, int]:
    return {machine: free_port() for machine in (PRIMARY, REPLICA)}


def serve(
    stage: Stage,
    engine: Engine,
    machine: str,
    peer_ports: dict[str, int],
    program: Sequence[str] = (sys.executable, "-m", "app.cli"),
    **more: str,
) -> ServerProcess:
    """One machine whose core comes by `engine`, as in production; `peer_ports` is where it and the other hear peers."""
    data, peers = engine.folder / machine / "data", machines.peers(peer_ports)
    told = machines.settings(engine, machine, data, peer_ports[machine], peers, SECRET)
    words = [*program, "serve", "--port", "{port}"]
    return ServerProcess(words, engine.folder / f"{machine}.log", **stage.production() | told | more)


def arrival(stage: Stage, where: str, engine: Engine) -> Figure:
    """From the end of a commit to the moment when a reader on the other machine finds it."""
    writing = sqlite.connect(engine.database(PRIMARY))
    reading = sqlite.connect(engine.database(REPLICA), read_only=True)
    waits = []
    try:
        for _ in range(stage.extent.rounds * COMMITS_A_ROUND):
            (wanted,) = writing.execute(
                "UPDATE replication_token SET sequence = sequence + 1 RETURNING sequence"
            ).fetchall()[0]
            waits.append(_wait(reading, wanted))
    finally:
        reading.close()
        writing.close()
    cuts = quantiles(waits, n=PERCENT)
    note = f"p50 {1000 * cuts[49]:.1f} ms of {len(waits)} commits"
    return Figure(f"{where}, a commit seen elsewhere, p99", 1000 * cuts[98], "ms", aim=SEEN_P99_MS, note=note)


def _wait(reading: Any, wanted: int) -> float:
    begun = time.perf_counter()
    while True:
        (found,) = reading.execute("SELECT sequence FROM replication_token").fetchone()
        waited = time.perf_counter() - begun
        if found >= wanted:
            return waited
        if waited > ARRIVAL_SECONDS:
            raise Refused(f"a commit has not come to the replica within {ARRIVAL_SECONDS:g} s")
