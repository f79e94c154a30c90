"""The profile: where a loaded server's time goes, in microseconds a request, by file and by function.

Time of the clock is what a request waits; time of the processor is what the code costs. The difference is
the disk, the other thread, or another process on the machine.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table

from bench import fanout, messages, world
from bench.process import ServerProcess
from bench.stage import Stage

CONNECTIONS = 16
FULL_CONNECTIONS = 64
WRITE_SECONDS = 10.0
LOOK_SECONDS = 0.02
FILES = 20
FUNCTIONS = 40
WIDTH = 130
MICROSECONDS = 1_000_000


class Load(NamedTuple):
    """What drives a server, and gives how much of `what` it did a second."""

    drive: Callable[[Stage, ServerProcess], float]
    what: str = "request"


def _drive(
    templates: Callable[[Stage], tuple[bytes, ...]], connections: int = CONNECTIONS, numbers: int = 0
) -> Callable[[Stage, ServerProcess], float]:
    """Requests a second."""
    return lambda stage, server: stage.drive(server, templates(stage), connections, numbers=numbers).rate


LOADS = {
    "quota": Load(_drive(lambda stage: (messages.get(f"{messages.QUOTA}?userId={messages.user_name(1)}", stage.key),))),
    "tokens": Load(_drive(lambda stage: (messages.get(messages.QUOTA, stage.reader),))),
    "profile": Load(_drive(lambda stage: (messages.get(messages.PROFILE, stage.reader),))),
    "single": Load(_drive(lambda stage: messages.one_event(stage.key), FULL_CONNECTIONS, 1)),
    "batch": Load(_drive(lambda stage: messages.batch(stage.key), CONNECTIONS, messages.BATCH_EVENTS)),
    "fan-out": Load(lambda stage, server: fanout.changes_rate(stage, server, fanout.LARGEST), "change"),
    "fan-out-1": Load(lambda stage, server: fanout.changes_rate(stage, server, fanout.LARGEST_ONE), "change"),
    "senders": Load(lambda stage, server: fanout.changes_rate(stage, server, fanout.SENDERS), "change"),
}


class Place(msgspec.Struct, array_like=True):
    file: str
    function: str
    seconds: float
    cpu_seconds: float


class Thread(msgspec.Struct):
    """What the sampler saw of one thread: each place by itself, and with all that it calls."""

    own: list[Place]
    whole: list[Place]


def show(stage: Stage, name: str) -> None:
    """Print the profile of one load."""
    load, out = LOADS[name], stage.folder / "profile.json"
    assert stage.key
    world.add_instances(stage.database, [scene.instance_id for scene in fanout.SCENES])
    words = [sys.executable, "-m", "bench.sampler", str(out), "serve", "--port", "{port}"]
    data = stage.database.parent
    with ServerProcess([*words, "--data", str(data)], data / "server.log", **stage.production()) as server:
        load.drive(stage, server)
        os.kill(server.pid, signal.SIGUSR1)
        rate = load.drive(stage, server)
        os.kill(server.pid, signal.SIGUSR2)
        _wait_for(out)
    _print(name, load.what, rate, msgspec.json.decode(out.read_bytes(), type=dict[str, Thread]))


def _wait_for(out: Path) -> None:
    until = time.monotonic() + WRITE_SECONDS
    while not out.exists():
        if time.monotonic() > until:
            raise TimeoutError("The sampler did not write what it saw")
        time.sleep(LOOK_SECONDS)


def _print(name: str, what: str, rate: float, threads: dict[str, Thread]) -> None:
    console = Console(width=WIDTH)
    each = MICROSECONDS / rate
    console.print(f"{name}: {rate:,.0f} {what}s/s, {each:.0f} µs each")
    for title, thread in threads.items():
        seconds = sum(place.seconds for place in thread.own)
        busy = sum(place.cpu_seconds for place in thread.own) / seconds
        console.print(f"\n{title}: {busy:.0%} of a core, {busy * each:.0f} µs a {what}")
        scale = each / seconds
        console.print(_table("file", _by_file(thread.own)[:FILES], scale))
        # What leads to everything else tells nothing.
        whole = [place for place in thread.whole if place.seconds < 0.99 * seconds]
        console.print(_table("function, with what it calls", _sorted(whole)[:FUNCTIONS], scale))


def _by_file(places: list[Place]) -> list[Place]:
    files: dict[str, Place] = {}
    for place in places:
        total = files.setdefault(place.file, Place(place.file, "", 0.0, 0.0))
        total.seconds += place.seconds
        total.cpu_seconds += place.cpu_seconds
    return _sorted(list(files.values()))


def _sorted(places: list[Place]) -> list[Place]:
    return sorted(places, key=lambda place: place.seconds, reverse=True)


def _table(title: str, places: list[Place], scale: float) -> Table:
    """`scale` turns seconds of the run into microseconds of one request."""
    table = Table("µs", "of them cpu", title)
    for column in table.columns[:2]:
        column.justify = "right"
    for place in places:
        where = f"{place.file}  {place.function}".strip()
        table.add_row(f"{place.seconds * scale:.1f}", f"{place.cpu_seconds * scale:.1f}", where)
    return table
