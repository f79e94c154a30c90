"""The generator's own figure: what it can drive, so that no other figure is its."""

from collections.abc import Iterator

from bench import fanout, messages, process
from bench.figure import Figure
from bench.rounds import interleave
from bench.stage import Stage

CONNECTIONS = 16
# The fastest of the servers must be able to be the slower side of the two.
CAPACITY = 25_000


def measure_generator(stage: Stage) -> Iterator[Figure]:
    asked = (messages.get(messages.QUOTA, "token"),)
    with process.canned(stage.folder / "canned.log") as canned:
        given = interleave(stage.extent.rounds, {"canned": lambda: stage.drive(canned, asked, CONNECTIONS).rate})
    rates = sorted(given["canned"])
    note = f"must be over {CAPACITY:,}" if rates[0] > CAPACITY else f"TOO SLOW: must be over {CAPACITY:,}"
    yield Figure("load generator, canned answers", rates[len(rates) // 2], "requests/s", note=note)
    yield fanout.measure_crowd(stage)
