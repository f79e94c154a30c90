"""Failover: how long somebody who writes into an instance has to wait when its home is killed, stopped or moved.

Everything is shipped before it is acknowledged, so nothing at all may be missing afterwards: the client keeps count,
and without the right count there is no figure.
"""

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import NamedTuple

from bench.figure import Figure
from bench.guest import Guest
from bench.process import ServerProcess
from bench.regions import Regions, alone, regions, wait_until_ready
from bench.stage import Stage
from cluster.machines import AMS, NRT, REGIONS

BACK_SECONDS = 5.0
WRITES_BEFORE, WRITES_AFTER = 100, 100
ALONE = "a machine alone, restarted"
UNMOVED = "unmoved"
STARTED = "litehouse --help"
MOVED = "moved"


class Back(NamedTuple):
    """Seconds until the client was let in again, until its first acknowledged change, and the longest time without."""

    let_in: float
    written: float
    silent: float


Fault = Callable[[Guest, ServerProcess], Back]


def measure_failover(stage: Stage) -> Iterator[Figure]:
    """What a client feels of a home that is killed, restarted, stopped, and moved."""
    rounds = range(stage.extent.rounds)
    faults: dict[str, Fault] = {"killed": _kill, "killed and restarted": _restart, "stopped": _stop}
    names = [f"{fault}-{number}".replace(" ", "-") for fault in faults for number in rounds]
    baseline = _restart_alone(stage, [f"alone-{number}" for number in rounds])
    with regions(stage, [*names, MOVED], REGIONS[AMS]) as among:
        for fault, interrupt in faults.items():
            prefix = fault.replace(" ", "-")
            backs = [_interrupt(stage, among, f"{prefix}-{number}", interrupt) for number in rounds]
            yield _figure(f"a home's machine {fault}", backs, baseline)
        yield from _move(stage, among)


def _interrupt(stage: Stage, among: Regions, name: str, interrupt: Fault) -> Back:
    """One round, after which all machines are as they were."""
    guest = Guest(name, stage.reader, among.ports(AMS))
    guest.start()
    guest.wait_for(WRITES_BEFORE)
    back = interrupt(guest, among[AMS])
    guest.wait_for(WRITES_AFTER)
    guest.finish()
    among[AMS].end()
    among[AMS].start()
    wait_until_ready(among[AMS])
    return back


def _kill(guest: Guest, machine: ServerProcess) -> Back:
    return _back(guest, machine.kill, guest.epoch)


def _restart(guest: Guest, machine: ServerProcess) -> Back:
    def kill_and_start() -> None:
        machine.kill()
        machine.start()

    return _back(guest, kill_and_start, None)


def _stop(guest: Guest, machine: ServerProcess) -> Back:
    return _back(guest, machine.tell_to_end, guest.epoch)


def _back(guest: Guest, act: Callable[[], None], old_epoch: str | None) -> Back:
    begun = time.monotonic()
    act()
    let_in, written = guest.back(begun, old_epoch)
    return Back(let_in, written, guest.longest_gap(begun, begun + written))


def _restart_alone(stage: Stage, names: list[str]) -> list[Back]:
    backs = []
    with alone(stage, names) as server:
        for name in names:
            guest = Guest(name, stage.reader, [server.port])
            guest.start()
            guest.wait_for(WRITES_BEFORE)
            backs.append(_restart(guest, server))
            guest.wait_for(WRITES_AFTER)
            guest.finish()
    return backs


def _figure(name: str, backs: list[Back], baseline: list[Back]) -> Figure:
    """The worst round, because nobody waits for a median."""
    written = [back.written for back in backs]
    let_in = [back.let_in for back in backs]
    note = (
        f"p50 {median(written):.2f} s of {len(backs)}; let in p50 {median(let_in):.2f}, worst {max(let_in):.2f} s; "
        f"longest silence {max(back.silent for back in backs):.2f} s"
    )
    alone = max(back.written for back in baseline)
    return Figure(f"{name}, until a write, worst", max(written), "s", ALONE, alone, aim=BACK_SECONDS, note=note)


def _move(stage: Stage, among: Regions) -> Iterator[Figure]:
    """To and fro, under a client that does not stop writing."""
    guest = Guest(MOVED, stage.reader, among.ports(NRT))
    guest.start()
    gaps, unmoved, took, started = [], [], [], []
    for number in range(stage.extent.rounds):
        guest.wait_for(WRITES_BEFORE)
        still = time.monotonic()
        guest.wait_for(WRITES_BEFORE)
        begun = time.monotonic()
        unmoved.append(guest.longest_gap(still, begun))
        took.append(among.command("instances", "move", MOVED, "--to", REGIONS[(NRT, AMS)[number % 2]]))
        guest.wait_for(WRITES_AFTER)
        gaps.append(guest.longest_gap(begun, time.monotonic()))
        started.append(among.command("--help"))
    written = guest.finish()
    note = f"p50 {1000 * median(gaps):.0f} ms of {len(gaps)}; {written:,} writes"
    yield Figure(
        "a home moved, between two writes, worst", 1000 * max(gaps), "ms", UNMOVED, 1000 * max(unmoved), note=note
    )
    note = f"p50 {median(took):.2f} s, of them {median(started):.2f} to start"
    yield Figure("litehouse instances move, worst", max(took), "s", STARTED, max(started), note=note)
