"""Stalls: how long the loop of a machine keeps everybody waiting while a mount is read for somebody."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from statistics import median, quantiles

from bench import messages
from bench.figure import Figure
from bench.process import Refused, ServerProcess
from bench.rounds import interleave
from bench.stage import Stage

# Five hundred questions a second: asked without a pause, what a loop is late by is its turn at the processor.
CONNECTIONS, EVERY_SECONDS = 16, 0.032
# What the primary commits meanwhile has to be let into the mount that is being read: fifty a second, far from all that
# it can, which would take the processor from whoever reads.
WRITING_CONNECTIONS, WRITING_SECONDS = 4, 0.08
STALL_P99_MS = 5.0
WRITTEN_SECONDS = 10.0
PERCENT = 100


def ticked(out: Path) -> list[str]:
    """What runs `litehouse` with a ticker, which writes `out`."""
    return [sys.executable, "-m", "bench.ticker", str(out)]


def stall(stage: Stage, where: str, primary: ServerProcess, ours: "Ticked", beside: "Ticked", name: str) -> Figure:
    """While quota is asked of it at fixed times and the primary commits."""

    def measure(ticked: Ticked) -> float:
        posting = stage.begin(
            primary,
            messages.one_event(ours.key),
            WRITING_CONNECTIONS,
            stage.extent.seconds,
            every=WRITING_SECONDS,
            numbers=1,
        )
        late = ticked.run(stage)
        stage.result(posting)
        return quantiles(late, n=PERCENT)[98]

    given = interleave(stage.extent.rounds, {"litehouse": lambda: measure(ours), name: lambda: measure(beside)})
    p99 = median(given["litehouse"])
    return Figure(
        f"{where}, the loop's stall at a replica, p99",
        p99,
        "ms",
        name,
        median(given[name]),
        aim=STALL_P99_MS,
        note=f"worst round {max(given['litehouse']):.1f} ms",
    )


class Ticked:
    """A server that was started by a ticker."""

    def __init__(self, server: ServerProcess, out: Path, key: str) -> None:
        self.key = key
        self._server = server
        self._out = out

    def run(self, stage: Stage) -> list[float]:
        """How late its loop came, in milliseconds, while it answered."""
        self._out.unlink(missing_ok=True)
        question = messages.get(f"{messages.QUOTA}?userId={messages.user_name(1)}", self.key)
        os.kill(self._server.pid, signal.SIGUSR1)
        stage.result(stage.begin(self._server, (question,), CONNECTIONS, stage.extent.seconds, every=EVERY_SECONDS))
        os.kill(self._server.pid, signal.SIGUSR2)
        until = time.monotonic() + WRITTEN_SECONDS
        while not self._out.exists():
            if time.monotonic() > until:
                raise Refused("the ticker did not write how late the loop came")
            time.sleep(0.01)
        late: list[float] = json.loads(self._out.read_text())
        return late
