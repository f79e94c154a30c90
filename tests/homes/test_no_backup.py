"""Three machines without a backup: only the machine that has an instance's file can have it."""

import time
from collections.abc import Callable, Iterator

import pytest

from app.edge.liveness import REFUSED_SECONDS
from tests.cluster.cast import AMS, NRT
from tests.homes.conftest import Guest, Homes, file_of, home_of, open_homes, where
from tests.waiting import until

Guests = Callable[[str], Guest]


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homes]:
    hasty = {"module": "tests.homes.hasty", "LOOK_SECONDS": "0.2"}
    yield from open_homes("standin", tmp_path_factory, backup=False, **hasty)


def test_an_owner_that_is_killed_keeps_what_it_has(homes: Homes, guests: Guests) -> None:
    _, ams, nrt = homes.machines
    room = homes.room("ams")
    guest = guests(room)
    guest.come_back([nrt])
    for number in range(5):
        guest.set(f"key-{number}", number)
    epoch = guest.epoch
    ams.kill()
    # Twice as long as it takes to give away what is gone.
    until_then = time.monotonic() + 2 * REFUSED_SECONDS
    while time.monotonic() < until_then:
        answer = nrt.get(f"/api/instances/{room}/keys")
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True), answer.text
    assert home_of(homes, room) == (AMS, 1, 1)
    assert not file_of(nrt, room).exists()
    ams.start()
    guest.come_back([nrt])
    assert (guest.epoch, guest.syncs) == (epoch, 1)
    guest.set("after", True)
    assert guest.values == guest.acknowledged


def test_an_instance_moves_between_machines_that_are_alive(homes: Homes, guests: Guests) -> None:
    fra, ams, nrt = homes.machines
    room = homes.room("ams")
    guest = guests(room)
    guest.come_back([fra])
    guest.set("a", 1)
    homes.command("instances", "move", room, "--to", "nrt")
    guest.come_back([ams])
    guest.set("b", 2)
    assert (guest.values, guest.syncs) == ({"a": 1, "b": 2}, 1)
    assert where(fra, room)["machine"] == NRT
    until(lambda: not file_of(ams, room).exists())
    assert file_of(nrt, room).exists()


def test_what_nobody_has_opened_is_nobodys_loss(homes: Homes, guests: Guests) -> None:
    _, ams, nrt = homes.machines
    room = homes.room("ams")
    ams.kill()
    try:
        guest = guests(room)
        guest.come_back([nrt])
        guest.set("a", 1)
        assert home_of(homes, room)[1:] == (2, 2)
    finally:
        ams.start()
