"""Leaving: a machine that is told to stop hands over what it has, and nobody waits until it is missed."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.edge.desk import LEAVE_SECONDS
from app.edge.liveness import REFUSED_SECONDS
from tests.cluster.cast import AMS, NRT, PRIMARY
from tests.homes.conftest import Guest, Homes, home_of, owner_since, where
from tests.homes.test_moves import Writer
from tests.waiting import until

Guests = Callable[[str], Guest]
WRITES = 20
# What a machine takes to end that waits for nobody, and what this computer may do meanwhile.
ENDED_SECONDS = 4.0


def test_who_writes_goes_on_elsewhere_as_soon_as_the_owner_has_ended(durable_homes: Homes, guests: Guests) -> None:
    """Had the others waited for its port to refuse, nobody would have gone on within two seconds of its end."""
    homes = durable_homes
    fra, ams, nrt = homes.machines
    room, resting = homes.room("ams"), homes.room("ams")
    guest, visitor = guests(room), guests(resting)
    visitor.come_back([fra])
    visitor.set("a", 1)
    visitor.leave()
    writer = Writer(guest, "x", [nrt, fra])
    writer.start()
    until(lambda: len(guest.acknowledged) > WRITES)
    assert ams.stop() == 0, ams.log()
    ended_at, before = time.time(), len(guest.acknowledged)
    until(lambda: len(guest.acknowledged) > before + WRITES)
    machine, given_at = owner_since(homes, room)
    assert machine in (NRT, PRIMARY)
    assert given_at < ended_at + REFUSED_SECONDS / 2
    # It comes back as one that begins: what nobody has asked for meanwhile is its own, what was taken is not.
    ams.start()
    epoch = visitor.epoch
    visitor.come_back([ams])
    assert (visitor.epoch, visitor.values, visitor.syncs) == (epoch, {"a": 1}, 1)
    assert where(ams, room)["machine"] == machine
    before = len(guest.acknowledged)
    until(lambda: len(guest.acknowledged) > before + WRITES)
    writer.stop.set()
    writer.join(30)
    assert writer.failure is None
    assert guest.syncs == 1
    assert guest.heard == list(range(1, guest.seq + 1))
    fresh = guests(room)
    fresh.come_back([ams])
    assert fresh.values == guest.values == guest.acknowledged


@pytest.mark.parametrize("homes", ["standin"], indirect=True)
def test_what_could_not_be_shipped_is_not_given_away_for_that(homes: Homes, guests: Guests, tmp_path: Path) -> None:
    _, ams, nrt = homes.machines
    room = homes.room("ams")
    guest = guests(room)
    guest.come_back([ams])
    guest.set("a", 1)
    until(lambda: homes.shipped_seq(room, tmp_path / "seen") == guest.seq)
    homes.replica.rename(tmp_path / "away")
    homes.replica.write_text("no folder")
    guest.set("a", 2)
    assert ams.stop() == 0, ams.log()
    assert nrt.get(f"/api/instances/{room}/keys").status_code == 503
    assert home_of(homes, room)[0] == AMS
    homes.replica.unlink()
    (tmp_path / "away").rename(homes.replica)
    ams.start()
    guest.come_back([nrt])
    assert (guest.values, guest.syncs) == ({"a": 2}, 1)


@pytest.mark.parametrize("homes", ["standin"], indirect=True)
def test_a_primary_that_says_nothing_keeps_nobody_from_ending(homes: Homes, guests: Guests) -> None:
    fra, ams, nrt = homes.machines
    room = homes.room("ams")
    guest = guests(room)
    guest.come_back([nrt])
    guest.set("a", 1)
    assert fra.process is not None
    fra.process.send_signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        assert ams.stop() == 0, ams.log()
        assert time.monotonic() - begun < LEAVE_SECONDS + ENDED_SECONDS
    finally:
        fra.process.send_signal(signal.SIGCONT)
    guest.come_back([nrt])
    assert (guest.values, guest.syncs) == ({"a": 1}, 1)
