"""Starting: from the exec of `litehouse serve` to its first answer, and what it holds when it has nothing to do."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench import process
from bench.figure import Figure
from bench.process import Refused, ServerProcess
from bench.stage import Stage

START_SECONDS = 0.7
IDLE_MB = 75.0
MB = 1_000_000


def measure_start(stage: Stage) -> Iterator[Figure]:
    """In development, as `scripts/serve` starts it: there a first start also seeds users and a key."""
    new, existing = [], []
    for number in range(stage.extent.starts):
        data = stage.folder / f"start-{number}"
        new.append(_start(stage, data))
        existing.append(_start(stage, data))
        shutil.rmtree(data)
    yield Figure("start, on a new database", median(new), "s", aim=START_SECONDS)
    yield Figure("start, on an existing one", median(existing), "s", aim=START_SECONDS)


def measure_memory(stage: Stage) -> Iterator[Figure]:
    """Resident and idle after one signed webhook."""
    held = []
    for number in range(stage.extent.starts):
        with _development(stage, stage.folder / f"memory-{number}") as server:
            held.append(_idle_after_webhook(stage, server))
    yield Figure("idle after one webhook", median(held), "MB", aim=IDLE_MB)


def _start(stage: Stage, data: Path) -> float:
    with _development(stage, data) as server:
        return server.seconds_to_first_answer


def _idle_after_webhook(stage: Stage, server: ServerProcess) -> float:
    status = server.ask(stage.clerk.webhook())
    if status != 200:
        raise Refused(f"the webhook answered {status}")
    return server.idle_bytes() / MB


def _development(stage: Stage, data: Path) -> ServerProcess:
    return process.litehouse(data, CLERK_WEBHOOK_SECRET=stage.clerk.webhook_secret)
