"""Homes over real machines: each instance on one machine of its region, and on another when that is gone."""

import errno
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.cluster.cast import AMS, NRT, PRIMARY, Machine
from tests.conftest import rows_of
from tests.homes.conftest import OPEN_INSTANCES, REFUSED_SECONDS, Guest, Homes, home_of, kill_all, where
from tests.waiting import until

RESUMED_SECONDS = 5.0
Guests = Callable[[str], Guest]


def test_a_socket_that_is_opened_anywhere_reaches_the_home(homes: Homes, guests: Guests) -> None:
    fra, ams, nrt = homes.machines
    for region, machine in (("ams", AMS), ("nrt", NRT), ("fra", PRIMARY)):
        room = homes.room(region)
        guest, other = guests(room), guests(room)
        guest.come_back([fra])
        other.come_back([nrt])
        guest.set("a", 1)
        assert other.peer.until("key_updated")[-1]["value"] == 1
        assert {(where(one, room)["region"], where(one, room)["machine"]) for one in (fra, ams, nrt)} == {
            (region, machine)
        }
    assert ams.asking.put(f"/api/instances/{room}/keys/b", json={"value": 2}).status_code == 201
    assert nrt.get(f"/api/instances/{room}/keys/b").json()["value"] == 2


def test_when_its_owner_is_killed_sockets_resume_on_another_machine(
    durable_homes: Homes, guests: Guests, tmp_path: Path
) -> None:
    homes = durable_homes
    fra, ams, nrt = homes.machines
    room = homes.room("ams")
    guest = guests(room)
    guest.come_back([nrt])
    for number in range(20):
        guest.set(f"key-{number}", number)
    epoch = guest.epoch
    if ams.environ["DURABLE_ACK"] == "off":
        until(lambda: homes.shipped_seq(room, tmp_path / "seen") == guest.seq)
    assert where(nrt, room)["machine"] == AMS
    ams.kill()
    killed = time.monotonic()
    guest.come_back([nrt, fra])
    assert time.monotonic() - killed < RESUMED_SECONDS
    assert guest.epoch != epoch
    guest.set("after", True)
    # It was given nothing anew, and missed nothing: its own changes are all that there were.
    assert guest.syncs == 1
    assert guest.heard == list(range(1, guest.seq + 1)) and guest.seq == 21
    assert guest.values == guest.acknowledged
    assert where(fra, room)["machine"] in (NRT, PRIMARY)
    fresh = guests(room)
    fresh.come_back([fra])
    assert fresh.values == guest.acknowledged


def test_an_owner_that_is_back_within_two_seconds_keeps_what_it_has(homes: Homes, guests: Guests) -> None:
    _, ams, nrt = homes.machines
    room = homes.room("ams")
    guest = guests(room)
    guest.come_back([ams])
    for number in range(10):
        guest.set(f"key-{number}", number)
    epoch = guest.epoch
    ams.kill()
    ams.start()
    guest.come_back([ams])
    assert (guest.epoch, guest.syncs) == (epoch, 1)
    guest.set("after", True)
    assert guest.values == guest.acknowledged
    assert where(nrt, room)["machine"] == AMS


def test_a_paused_owner_that_wakes_acknowledges_nothing_and_its_leftover_is_named(
    homes: Homes, guests: Guests, tmp_path: Path
) -> None:
    _, ams, nrt = homes.machines
    room = homes.room("ams")
    guest = guests(room)
    guest.come_back([ams])
    guest.set("before", 1)
    until(lambda: homes.shipped_seq(room, tmp_path / "seen") == guest.seq)
    assert ams.process is not None
    ams.process.send_signal(signal.SIGSTOP)
    try:
        # It waits in the socket of the machine that sleeps.
        guest.peer.say("set", key="lost", value=1, opId="in-vain", timestamp=0)
        homes.command("instances", "move", "--lost", AMS)
        other = guests(room)
        other.come_back([nrt])
        other.set("after", 2)
    finally:
        ams.process.send_signal(signal.SIGCONT)
    heard = guest.hear_out()
    assert not [frame for frame in heard if frame["type"] in ("ack", "key_updated")], heard
    assert guest.peer.socket.close_code in (1006, 1012, 1013)
    until(lambda: where(ams, room).get("machine") == NRT)
    assert other.values == {"before": 1, "after": 2}
    done = ams.command("doctor")
    assert f"{room}.db" in done.stdout + done.stderr, done.stdout


def test_what_was_never_shipped_comes_from_the_machine_that_has_it(homes: Homes, guests: Guests) -> None:
    """Its owner was killed before anything of it was in the replica: there is no empty instance in its place."""
    _, ams, nrt = homes.machines
    room = homes.room("ams")
    guest = guests(room)
    guest.come_back([nrt])
    guest.set("only", "here")
    kill_all(ams)
    shutil.rmtree(homes.replica / "instances" / room, ignore_errors=True)
    until(lambda: _home_row(homes, room, nrt) == NRT)
    assert nrt.get(f"/api/instances/{room}/keys").status_code == 503
    ams.start()
    guest.come_back([nrt])
    assert (guest.values, guest.syncs) == ({"only": "here"}, 1)
    assert where(ams, room)["machine"] == NRT


def _home_row(homes: Homes, room: str, asked: Machine) -> str:
    """Who owns a room, once it was asked for."""
    asked.get(f"/api/instances/{room}/keys")
    machine: str = rows_of(homes.primary.database, f"SELECT machine FROM homes WHERE name = '{room}'")[0][0]
    return machine


def test_a_home_that_is_full_says_when_to_try_again_and_stays_the_home(hasty: Homes, guests: Guests) -> None:
    fra, ams, _ = hasty.machines
    *rooms, other = (hasty.room("nrt") for _ in range(OPEN_INSTANCES + 1))
    there = [guests(room) for room in rooms]
    for guest in there:
        guest.come_back([ams])
    answer = fra.get(f"/api/instances/{other}/keys")
    assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (503, True), answer.text
    with pytest.raises(InvalidStatus) as refused:
        guests(other).come(ams)
    response = refused.value.response
    assert (response.status_code, int(response.headers["retry-after"]) > 0) == (503, True)
    assert home_of(hasty, other)[0] == NRT
    for number, guest in enumerate(there):
        guest.set("still", number)
    there[0].leave()
    until(lambda: fra.get(f"/api/instances/{other}/keys").status_code == 200)
    assert where(fra, other)["machine"] == NRT


def test_an_owner_whose_port_refuses_for_a_moment_keeps_what_it_has_whoever_asks(hasty: Homes, guests: Guests) -> None:
    _, ams, nrt = hasty.machines
    room = hasty.room("ams")
    guest = guests(room)
    guest.come_back([ams])
    guest.set("a", 1)
    epoch = guest.epoch
    ams.kill()
    killed = time.monotonic()
    # Long enough that the primary has found nobody there, and would give it away.
    while time.monotonic() - killed < REFUSED_SECONDS / 5:
        answer = nrt.get(f"/api/instances/{room}/keys")
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True), answer.text
    ams.start()
    guest.come_back([nrt])
    assert (home_of(hasty, room)[0], guest.epoch, guest.syncs, guest.values) == (AMS, epoch, 1, {"a": 1})


class PortAndFiles(threading.Thread):
    """Watches whether a machine's peer port refuses while its process has files of instances open."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(daemon=True)
        self.machine = machine
        self.refused, self.held, self.exposed = 0, 0, list[str]()
        self._enough = threading.Event()

    def run(self) -> None:
        while not self._enough.wait(0.001):
            # Between two looks at the port, so that none that has changed meanwhile counts.
            before, files, after = self._refuses(), self._files(), self._refuses()
            self.refused += before
            self.held += bool(files)
            self.exposed += files if before and after else []

    def finish(self) -> None:
        self._enough.set()
        self.join()

    def _refuses(self) -> bool:
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", self.machine.peer_port)) == errno.ECONNREFUSED

    def _files(self) -> list[str]:
        assert self.machine.process is not None
        found = []
        with suppress(OSError):
            for descriptor in Path(f"/proc/{self.machine.process.pid}/fd").iterdir():
                with suppress(OSError):
                    found.append(os.readlink(descriptor))
        return [name for name in found if name.startswith(f"{self.machine.data_dir}/instances/")]


def test_the_peer_port_opens_before_the_first_instance_and_closes_after_the_last(hasty: Homes, guests: Guests) -> None:
    """Whoever refuses there is taken for gone: what it still had open would have two owners."""
    nrt = hasty.machines[2]
    for _ in range(OPEN_INSTANCES):
        guest = guests(hasty.room("nrt"))
        guest.come_back([nrt])
        guest.set("a", 1)
    watch = PortAndFiles(nrt)
    watch.start()
    try:
        until(lambda: watch.held)
        assert nrt.stop() == 0
        nrt.start()
        guest.come_back([nrt])
        guest.set("b", 2)
        nrt.kill()
        # What a killed process left open is opened at once.
        nrt.start()
        held = watch.held
        until(lambda: watch.held > held)
    finally:
        watch.finish()
    assert watch.refused
    assert not watch.exposed
