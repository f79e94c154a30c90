"""Leaving: a machine that is told to stop hands over what it has, and nobody waits until it is missed."""

import time
from collections.abc import Callable

from app.edge.machines import REFUSED_SECONDS
from tests.cluster.backing import rows
from tests.cluster.cast import AMS, NRT, PRIMARY, until
from tests.homes.conftest import Guest, Homes, where
from tests.homes.test_moves import Writer

Guests = Callable[[str], Guest]
WRITES = 20


def test_who_writes_goes_on_elsewhere_as_soon_as_the_owner_has_ended(durable_homes: Homes, guests: Guests) -> None:
    """Had the others waited for its port to refuse, nobody would have gone on within two seconds of its end."""
    homes = durable_homes
    fra, ams, nrt = homes.machines
    room = homes.room("ams")
    guest = guests(room)
    writer = Writer(guest, "x", [nrt, fra])
    writer.start()
    until(lambda: len(guest.acknowledged) > WRITES)
    assert where(fra, room)["machine"] == AMS
    assert ams.stop() == 0, ams.log()
    ended_ms = 1000 * time.time()
    before = len(guest.acknowledged)
    until(lambda: len(guest.acknowledged) > before + WRITES)
    ((machine, given_at_ms),) = rows(fra.database, f"SELECT machine, given_at_ms FROM homes WHERE name = '{room}'")
    assert machine in (NRT, PRIMARY)
    assert given_at_ms < ended_ms + 1000 * REFUSED_SECONDS / 2
    writer.stop.set()
    writer.join(30)
    assert writer.failure is None
    assert guest.syncs == 1
    assert guest.heard == list(range(1, guest.seq + 1))
    assert guest.values == guest.acknowledged
    fresh = guests(room)
    fresh.come_back([fra])
    assert fresh.values == guest.acknowledged
