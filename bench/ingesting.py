"""Ingestion: single events, batches, and what quota feels of it."""

import time
from collections.abc import Iterator
from contextlib import closing
from statistics import median

from bench import messages, world
from bench.figure import Figure, compared
from bench.load import Run
from bench.process import Refused, ServerProcess
from bench.raw import RawRows
from bench.rounds import interleave
from bench.stage import Stage

EMPTY = "empty POST"
ONE_AT_A_TIME = "aiosqlite"
RAW = "raw rows"
EMPTY_SERVER = "empty server"
EMPTY_RATIO = 0.35
ONE_AT_A_TIME_RATIO = 2.5
RAW_RATIO = 0.3
# One connection never has two events to commit together: there the disk is measured, and no aim is set.
ALONE = 1
CONNECTIONS = (ALONE, 16, 64)
BATCH_CONNECTIONS = 16
FULL_CONNECTIONS = (16, 64)
# Asked at fixed times, a thousand times a second: asking as soon as it is answered would ask most when it is fast.
ASKING_CONNECTIONS = 50
ASKING_SECONDS = 0.05
QUOTA_P99_MS = 5.0
# The asking begins when ingestion is under way, and ends before it does.
HEAD_SECONDS = 0.3


def measure_single(stage: Stage) -> Iterator[Figure]:
    """One event a request, beside a server that does nothing and one that commits each by itself."""
    for connections in CONNECTIONS:
        yield from _single(stage, connections)


def measure_batch(stage: Stage) -> Iterator[Figure]:
    """Events a second in batches, beside the rows a second of `executemany`."""
    events = messages.BATCH_EVENTS
    with closing(RawRows(stage.folder / "raw.db")) as raw:
        subjects = {
            "litehouse": lambda: _ingest(stage, messages.batch(stage.key), BATCH_CONNECTIONS, events).rate * events,
            RAW: lambda: raw.rate(stage.extent.seconds),
        }
        given = interleave(stage.extent.rounds, subjects)
    yield compared(f"batches of {events}", "events/s", given["litehouse"], RAW, given[RAW], RAW_RATIO)


def measure_under(stage: Stage) -> Iterator[Figure]:
    """How long quota takes while others post as fast as they are answered, and an empty server as busy."""
    for connections in FULL_CONNECTIONS:
        yield _under(stage, connections)


def _single(stage: Stage, connections: int) -> Iterator[Figure]:
    templates = messages.one_event(stage.key)
    runs: list[Run] = []

    def measure() -> float:
        runs.append(_ingest(stage, templates, connections, 1))
        return runs[-1].rate

    subjects = {
        "litehouse": measure,
        EMPTY: lambda: stage.drive(stage.empty, templates, connections, numbers=1).rate,
        ONE_AT_A_TIME: lambda: stage.drive(stage.one_at_a_time, templates, connections, numbers=1).rate,
    }
    given = interleave(stage.extent.rounds, subjects)
    name = f"single events, {connections} connection{'s' if connections > 1 else ''}"
    waited = f"p50 {median(run.p50_ms for run in runs):.1f}, p99 {median(run.p99_ms for run in runs):.1f} ms"
    servers = (stage.litehouse, stage.one_at_a_time, stage.empty)
    ours, singly, empty = (stage.cost(server, stage.extent.rounds) for server in servers)
    cost = f"{ours:.0f} µs of processor, aiosqlite {singly:.0f}, empty {empty:.0f}"
    for baseline, aim, note in ((ONE_AT_A_TIME, ONE_AT_A_TIME_RATIO, waited), (EMPTY, EMPTY_RATIO, cost)):
        least = None if connections == ALONE else aim
        yield compared(name, "events/s", given["litehouse"], baseline, given[baseline], least, note)


def _ingest(stage: Stage, templates: tuple[bytes, ...], connections: int, events: int) -> Run:
    """Post for one round. Refused when the ledger has not grown by exactly what was acknowledged."""
    server = stage.litehouse
    before = world.count_rows(stage.database)
    run = stage.drive(server, templates, connections, numbers=events)
    grown = world.count_rows(stage.database) - before
    if grown != run.answers * events:
        raise Refused(f"{run.answers * events} events were acknowledged, the ledger has grown by {grown}")
    return run


def _under(stage: Stage, connections: int) -> Figure:
    seen: list[tuple[Run, Run]] = []

    def measure() -> float:
        seen.append(_ask_under_ingestion(stage, stage.litehouse, connections))
        return seen[-1][1].p99_ms

    subjects = {
        "litehouse": measure,
        EMPTY_SERVER: lambda: _ask_under_ingestion(stage, stage.empty, connections)[1].p99_ms,
    }
    given = interleave(stage.extent.rounds, subjects)
    rate = median(posted.rate for posted, _ in seen)
    p50 = median(asked.p50_ms for _, asked in seen)
    return Figure(
        f"quota p99, {connections} connections ingesting",
        median(given["litehouse"]),
        "ms",
        EMPTY_SERVER,
        median(given[EMPTY_SERVER]),
        aim=QUOTA_P99_MS,
        note=f"p50 {p50:.1f} ms, beside {rate:,.0f} events/s",
    )


def _ask_under_ingestion(stage: Stage, server: ServerProcess, connections: int) -> tuple[Run, Run]:
    seconds = stage.extent.seconds
    asked = messages.get(f"{messages.QUOTA}?userId={messages.user_name(1)}", stage.key)
    templates = messages.one_event(stage.key)
    posting = stage.begin(server, templates, connections, seconds + 2 * HEAD_SECONDS, numbers=1)
    time.sleep(HEAD_SECONDS)
    asking = stage.begin(server, (asked,), ASKING_CONNECTIONS, seconds, every=ASKING_SECONDS)
    return stage.result(posting), stage.result(asking)
