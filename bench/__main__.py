"""The bench's command: scripts/bench [--quick] [--only NAME] [--json FILE] [--profile NAME]"""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import msgspec

from bench import (
    aging,
    failover,
    fanout,
    generator,
    idle,
    ingesting,
    mounted,
    moving,
    opening,
    profile,
    reading,
    report,
    starting,
)
from bench.figure import Figure, Missing
from bench.process import Refused
from bench.stage import QUICK, Extent, Stage, set_up

FIGURES: dict[str, Callable[[Stage], Iterator[Figure]]] = {
    "generator": generator.measure_generator,
    "quota": reading.measure_quota,
    "tokens": reading.measure_tokens,
    "profile": reading.measure_profile,
    "single": ingesting.measure_single,
    "batch": ingesting.measure_batch,
    "under": ingesting.measure_under,
    "length": reading.measure_length,
    "start": starting.measure_start,
    "memory": starting.measure_memory,
    "fan-out": fanout.measure_fan_out,
    "connections": idle.measure_connections,
    "opening": opening.measure_opening,
    "ledger-size": aging.measure_ledger_size,
    "moving": moving.measure_moving,
    "failover": failover.measure_failover,
    "litefs": mounted.measure_litefs,
}
# What takes minutes and gigabytes is measured when it is named.
NAMED_ONLY = {"ledger-size"}


@click.command()
@click.option("--quick", is_flag=True, help="Shorter rounds and a shorter ledger: a look, not a figure to keep.")
@click.option("--only", "names", multiple=True, type=click.Choice(list(FIGURES)), help="This figure; may be repeated.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Keep the figures there.")
@click.option("--profile", "profiled", type=click.Choice(list(profile.LOADS)), help="Show where the time goes instead.")
def main(quick: bool, names: tuple[str, ...], json_path: Path | None, profiled: str | None) -> None:
    """How fast litehouse is, beside simpler servers in the same run (docs/bench.md)."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with set_up(QUICK if quick else Extent()) as stage:
        if profiled is not None:
            profile.show(stage, profiled)
            return
        taken = _measure(stage, names or _all_that_can_be())
    report.print_table(taken)
    if json_path is not None:
        json_path.write_bytes(msgspec.json.format(msgspec.json.encode(report.as_json(taken))))
    if any(isinstance(figure, Missing) for figure in taken):
        sys.exit(1)


def _all_that_can_be() -> tuple[str, ...]:
    """All figures but those that have to be named, and without LiteFS's where that program is not."""
    left_out = NAMED_ONLY if mounted.can_be_measured() else NAMED_ONLY | {"litefs"}
    return tuple(name for name in FIGURES if name not in left_out)


def _measure(stage: Stage, names: tuple[str, ...]) -> list[Figure | Missing]:
    taken: list[Figure | Missing] = []
    for name in names:
        begun = time.monotonic()
        try:
            # One by one: what was taken before a refusal is kept.
            for figure in FIGURES[name](stage):
                taken.append(figure)
        except (Refused, OSError) as failed:
            taken.append(Missing(name, str(failed) or type(failed).__name__))
        click.echo(f"{name}: {time.monotonic() - begun:.1f} s", err=True)
    return taken


if __name__ == "__main__":
    main()
