"""Leases on real machines: who sleeps or is cut off keeps what it has for one lease and acknowledges for no longer."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.edge import desk
from app.edge.homes import Machine as Owner
from app.edge.lease import HEARTBEAT_SECONDS
from app.edge.peers import Peers
from app.errors import Unavailable
from app.instances.moves import MOVE
from app.settings import read_place
from cluster import machines
from cluster.engines import ENGINES
from cluster.machines import REGIONS
from tests.cluster.cast import AMS, NRT, PRIMARY, Machine
from tests.homes.acknowledged import Writer
from tests.homes.conftest import Guest, Homes, owner_since, where
from tests.waiting import until

Guests = Callable[[str], Guest]

LEASE_SECONDS = 6.0
# What lies between the moment that is meant and the one that a busy machine comes to it.
LATE_SECONDS = 1.5


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homes]:
    """All find each other without a line between, but for ams: it is reached, and reaches the primary, over one."""
    folder = tmp_path_factory.mktemp("h")
    made = Homes(
        ENGINES["standin"](folder, list(REGIONS)),
        folder,
        direct=True,
        LITESTREAM_REPLICA_URL=f"file://{folder / 'replica'}",
        LEASE_SECONDS=str(LEASE_SECONDS),
    )
    made.replica = folder / "replica"
    fra, ams, nrt = made.machines
    ports = {PRIMARY: fra.peer_port, AMS: ams.line.port, NRT: nrt.peer_port}
    for machine in made.machines:
        machine.module = "tests.homes.hasty"
        machine.environ["PEERS"] = machines.peers(ports)
    ams.environ["PEERS"] = machines.peers(ports | {PRIMARY: fra.line.port})
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def short_homes(started: Homes) -> Iterator[Homes]:
    """Shared: what a test does to machines and lines is undone, and all are heard again."""
    yield started
    started.calm()
    for machine in started.machines:
        assert machine.process is not None
        machine.process.send_signal(signal.SIGCONT)
        if machine.process.poll() is not None:
            machine.start()
    for machine in started.machines:
        until(lambda machine=machine: where(machine, started.room(machine.region)).get("machine") == machine.name)


@contextmanager
def asleep(machine: Machine) -> Iterator[float]:
    """Inside the block a machine's process does not run; since when, on the clock of the rows."""
    assert machine.process is not None
    machine.process.send_signal(signal.SIGSTOP)
    try:
        yield time.time()
    finally:
        machine.process.send_signal(signal.SIGCONT)


@contextmanager
def writing(*writers: Writer) -> Iterator[None]:
    """Inside the block all of them write."""
    for writer in writers:
        writer.start()
    try:
        until(lambda: all(writer.heard for writer in writers))
        yield
    finally:
        for writer in writers:
            writer.leave()


def ask_until(machine: Machine, room: str, seconds: float) -> list[httpx.Response]:
    """Ask for a room until it is answered: all answers."""
    answers: list[httpx.Response] = []
    until(lambda: answers.append(machine.get(f"/api/instances/{room}/keys")) or answers[-1].status_code == 200, seconds)
    return answers


def move(primary: Machine, room: str, region: str) -> bool:
    """Whether the primary had a room handed over, asked as the command asks: that takes a second to start."""
    regions = read_place(primary.environ)

    async def ask() -> bool:
        peers = Peers(regions, "command")
        try:
            await desk.ask(peers, peers.primary, MOVE, Owner, room, region)
            return True
        except Unavailable:
            return False
        finally:
            await peers.close()

    return asyncio.run(ask())


def test_a_machine_that_sleeps_keeps_its_own_for_one_lease_and_wakes_to_nothing(
    short_homes: Homes, guests: Guests, tmp_path: Path
) -> None:
    _, ams, nrt = short_homes.machines
    room = short_homes.room("ams")
    guest = guests(room)
    guest.come_back([ams])
    guest.set("before", 1)
    until(lambda: short_homes.shipped_seq(room, tmp_path / "seen") == guest.seq)
    with asleep(ams) as since:
        # It waits in the socket of the machine that sleeps.
        guest.peer.say("set", key="lost", value=1, opId="in-vain", timestamp=0)
        *refused, answered = ask_until(nrt, room, 3 * LEASE_SECONDS)
        machine, given_at = owner_since(short_homes, room)
    assert refused and {(answer.status_code, "retry-after" in answer.headers) for answer in refused} == {(503, True)}
    assert list(answered.json()["keys"]) == ["before"]
    # Its last heartbeat was heard at most a little more than HEARTBEAT_SECONDS before it slept.
    assert machine == NRT
    assert LEASE_SECONDS - HEARTBEAT_SECONDS - LATE_SECONDS < given_at - since < LEASE_SECONDS + LATE_SECONDS
    assert not [frame for frame in guest.hear_out() if frame["type"] in ("ack", "key_updated")]
    until(lambda: where(ams, room).get("machine") == NRT)
    assert where(ams, room)["seq"] == guest.seq


def test_a_machine_that_is_cut_off_acknowledges_until_its_deadline_and_not_beside_the_next_owner(
    short_homes: Homes,
) -> None:
    fra, ams, nrt = short_homes.machines
    room = short_homes.room("ams")
    inside, outside = Writer(ams, room), Writer(nrt, room)
    with writing(inside, outside):
        for end in (fra.line, ams.line):
            end.pause()
        cut_at = time.monotonic()
        until(lambda: outside.of(2), 3 * LEASE_SECONDS)
        taken_at = outside.of(2)[0].at
        until(lambda: len(outside.of(2)) > 20)
        # Everything that it heard meanwhile it has heard by now.
        assert inside.of(1)[-1].at < taken_at
        assert LEASE_SECONDS - HEARTBEAT_SECONDS - LATE_SECONDS < inside.of(1)[-1].at - cut_at < LEASE_SECONDS
        assert taken_at - cut_at < LEASE_SECONDS + LATE_SECONDS + 2
        short_homes.calm()
        until(lambda: inside.of(2))
    assert [one.number for one in inside.heard] == sorted(one.number for one in inside.heard)


def test_a_primary_that_has_started_gives_nothing_away_for_one_lease_but_by_hand_over_and_refusing_port(
    short_homes: Homes, guests: Guests, tmp_path: Path
) -> None:
    fra, ams, nrt = short_homes.machines
    handed, refused, sleeping = (short_homes.room(region) for region in ("fra", "nrt", "ams"))
    for room in (handed, refused, sleeping):
        guest = guests(room)
        guest.come_back([nrt])
        guest.set("a", 1)
        until(lambda room=room: short_homes.shipped_seq(room, tmp_path / room) == 1)
    with asleep(ams):
        fra.kill()
        began = time.time()
        fra.start()
        ready = time.time()
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(ask_until, fra, sleeping, 3 * LEASE_SECONDS)
            until(lambda: move(fra, handed, nrt.region))
            nrt.kill()
            ask_until(fra, refused, 3 * LEASE_SECONDS)
            for room, owner in ((handed, NRT), (refused, PRIMARY)):
                machine, given_at = owner_since(short_homes, room)
                assert (machine, given_at - ready < LEASE_SECONDS) == (owner, True)
            assert asked.result()[0].status_code == 503
    machine, given_at = owner_since(short_homes, sleeping)
    assert machine == PRIMARY
    assert LEASE_SECONDS <= given_at - began < LEASE_SECONDS + ready - began + LATE_SECONDS
