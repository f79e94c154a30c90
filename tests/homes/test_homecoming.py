"""Homecoming: what went to another region with its machine comes back to its own, when nobody uses it."""

from collections.abc import Callable, Iterator

import pytest

from tests.cluster.cast import AMS, NRT, PRIMARY
from tests.homes.conftest import Guest, Homes, home_of, open_homes, where
from tests.waiting import until

Guests = Callable[[str], Guest]


@pytest.fixture
def hasty_homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homes]:
    times = {"IDLE_SECONDS": "0.5", "SWEEP_SECONDS": "0.2", "STEADY_SECONDS": "3", "LOOK_SECONDS": "0.2"}
    yield from open_homes("standin", tmp_path_factory, module="tests.homes.hasty", **times)


def test_what_nobody_uses_goes_home_and_needs_nobody_for_that(hasty_homes: Homes, guests: Guests) -> None:
    homes = hasty_homes
    fra, ams, nrt = homes.machines
    rooms = [homes.room("ams"), homes.room("ams")]
    left, used = guests(rooms[0]), guests(rooms[1])
    for guest in (left, used):
        guest.come_back([ams])
        guest.set("a", 1)
    ams.stop()
    for guest in (left, used):
        guest.come_back([nrt])
        guest.set("a", 2)
        assert home_of(homes, guest.room)[0] == NRT
    ams.start()
    left.leave()
    until(lambda: home_of(homes, left.room)[0] == AMS)
    # Nobody is sent away for it.
    used.set("a", 3)
    assert where(fra, used.room)["machine"] == NRT
    # Where it was meanwhile may be gone by now.
    nrt.kill()
    left.come_back([ams])
    left.set("a", 4)
    assert (left.values, left.syncs) == ({"a": 4}, 1)
    assert left.heard == [1, 2, 3]
    # Of its time before, and of its time abroad, nothing is left that would have to be looked at.
    nrt.start()
    until(lambda: not list(nrt.data_dir.glob(f"instances/*/{left.room}.db*")))
    assert [file.name for file in ams.data_dir.glob(f"instances/*/{left.room}.db*before*")] == []


def test_where_an_operator_has_put_it_is_where_it_comes_back_to(hasty_homes: Homes, guests: Guests) -> None:
    homes = hasty_homes
    fra, ams, nrt = homes.machines
    room, pinned = homes.room("ams"), homes.room("nrt")
    settler = guests(pinned)
    settler.come_back([nrt])
    guest = guests(room)
    guest.come_back([ams])
    homes.command("instances", "move", room, "--to", "nrt")
    assert fra.get(f"/api/instances/{room}").json()["region"] == "nrt"
    guest.come_back([fra])
    nrt.stop()
    settler.come_back([ams])
    guest.come_back([ams])
    # It shall stay where it went to, though it was opened there before anybody said so.
    settled = home_of(homes, pinned)[0]
    homes.command("instances", "move", pinned, "--to", {AMS: "ams", PRIMARY: "fra"}[settled])
    settler.leave()
    guest.leave()
    assert home_of(homes, room)[0] in (AMS, PRIMARY)
    nrt.start()
    until(lambda: home_of(homes, room)[0] == NRT)
    assert home_of(homes, pinned)[0] == settled
