"""The files of instances over three machines: where one comes from, who may take it, and when an old one goes."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.edge import restoration, sqlite
from tests.cluster.cast import AMS, NRT, PRIMARY, Machine
from tests.conftest import rows_of
from tests.homes.conftest import Guest, Homes, file_of, home_of, kill_all, open_homes
from tests.waiting import until

Guests = Callable[[str], Guest]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homes]:
    yield from open_homes("standin", tmp_path_factory, module="tests.homes.hasty", LOOK_SECONDS="0.2")


@pytest.fixture
def homes(shared: Homes) -> Iterator[Homes]:
    """One cluster for all; a test leaves its machines running."""
    yield shared
    for machine in shared.machines:
        if machine.process is None or machine.process.poll() is not None:
            machine.start()


def status(machine: Machine, room: str) -> int:
    code: int = machine.get(f"/api/instances/{room}/keys").status_code
    return code


def forget_shipped(homes: Homes, room: str) -> None:
    """As if nothing of it had come to the replica."""
    shutil.rmtree(homes.replica / "instances" / room, ignore_errors=True)


def live_in_ams(homes: Homes, guest: Guest) -> None:
    """What was made for nrt, and has come to another machine."""
    guest.come_back([homes.machines[2]])
    homes.command("instances", "move", guest.room, "--to", "ams")
    guest.come_back([homes.machines[1]])
    until(lambda: not file_of(homes.machines[2], guest.room).exists())


def until_given(homes: Homes, room: str, asked: Machine, to: str) -> None:
    def given() -> bool:
        status(asked, room)
        return home_of(homes, room)[0] == to

    until(given, 30)


def test_an_old_copy_goes_once_the_next_home_has_all_of_it(homes: Homes, guests: Guests) -> None:
    fra, ams, nrt = homes.machines
    room = homes.room("ams")
    guest = guests(room)
    guest.come_back([ams])
    guest.set("a", 1)
    for before, after in ((ams, nrt), (nrt, fra)):
        homes.command("instances", "move", room, "--to", after.region)
        assert file_of(before, room).exists(), "until somebody has opened it there"
        guest.come_back([fra])
        guest.set(after.region, 1)
        until(lambda before=before: not file_of(before, room).exists())
        assert file_of(after, room).exists()
    assert (guest.values, guest.syncs) == ({"a": 1, "nrt": 1, "fra": 1}, 1)


def test_of_a_machine_that_comes_back_only_what_nobody_else_has_stays(
    homes: Homes, guests: Guests, tmp_path: Path
) -> None:
    _, ams, nrt = homes.machines
    rooms = sorted(homes.room("ams") for _ in range(3))
    broken, whole, ahead = rooms
    for room in rooms:
        guest = guests(room)
        guest.come_back([ams])
        guest.set("a", 1)
        until(lambda room=room: homes.shipped_seq(room, tmp_path / "seen") == 1)
    kill_all(ams)
    # A commit that was neither shipped nor told to anybody.
    raw = sqlite.connect(file_of(ams, ahead))
    raw.execute("UPDATE instance SET seq = seq + 1")
    raw.close()
    restoration.remove(file_of(ams, broken))
    file_of(ams, broken).write_bytes(b"no database")
    for room in rooms:
        guest = guests(room)
        guest.come_back([nrt])
        guest.set("b", 2)
    ams.start()
    until(lambda: not file_of(ams, whole).exists())
    until(lambda: f"{ahead}.db" in ams.log())
    # What nobody can read ends no look, and who has said that it lacks something is not opened for it again and again.
    looks = ams.log().count(broken)
    until(lambda: ams.log().count(broken) > looks + 2)
    assert ams.log().count(f"{ahead}.db") == 1
    said = ams.command("doctor").stdout
    assert f"{ahead}.db" in said and f"{broken}.db" in said and whole not in said
    for room in (broken, ahead):
        assert file_of(ams, room).exists()
        file_of(ams, room).unlink()


def test_what_was_never_shipped_comes_from_the_machine_that_has_it_over_an_owner_that_never_opened_it(
    homes: Homes, guests: Guests
) -> None:
    fra, ams, nrt = homes.machines
    room = homes.room("nrt")
    guest = guests(room)
    live_in_ams(homes, guest)
    guest.set("only", "here")
    kill_all(ams)
    forget_shipped(homes, room)
    until_given(homes, room, nrt, NRT)
    assert status(nrt, room) == 503
    kill_all(nrt)
    until_given(homes, room, fra, PRIMARY)
    assert status(fra, room) == 503
    machine, number, opened = home_of(homes, room)
    assert (machine, opened) == (PRIMARY, 2)
    ams.start()
    guest.come_back([fra])
    assert (guest.values, guest.syncs) == ({"only": "here"}, 1)
    guest.set("more", 1)
    assert home_of(homes, room) == (PRIMARY, number, number)


def test_an_older_file_never_takes_the_place_of_one_that_was_opened_since(
    homes: Homes, guests: Guests, tmp_path: Path
) -> None:
    fra, ams, nrt = homes.machines
    room = homes.room("nrt")
    guest = guests(room)
    live_in_ams(homes, guest)
    guest.set("old", 1)
    until(lambda: homes.shipped_seq(room, tmp_path / "seen") == 1)
    kill_all(ams)
    guest.come_back([nrt])
    guest.set("acknowledged", 2)
    kill_all(nrt)
    forget_shipped(homes, room)
    ams.start()
    until_given(homes, room, fra, AMS)
    assert (status(fra, room), file_of(ams, room).exists()) == (503, True)
    assert home_of(homes, room) == (AMS, 4, 3)
    nrt.start()
    guest.come_back([fra])
    assert (guest.values, guest.syncs) == ({"old": 1, "acknowledged": 2}, 1)


def test_what_was_given_away_is_in_the_replica_when_its_last_owner_is_gone(homes: Homes, guests: Guests) -> None:
    """Nobody has opened it since, and who let it go comes back no more."""
    _, ams, nrt = homes.machines
    room = homes.room("ams")
    guest = guests(room)
    guest.come_back([ams])
    guest.set("a", 1)
    homes.command("instances", "move", room, "--to", "nrt")
    kill_all(ams)
    assert home_of(homes, room)[0] == NRT
    guest.come_back([nrt])
    guest.set("b", 2)
    assert (guest.values, guest.syncs) == ({"a": 1, "b": 2}, 1)


def test_a_machine_adopts_what_it_has_and_a_restored_core_does_not_know(homes: Homes, guests: Guests) -> None:
    """Made for nrt, it would begin there with nothing."""
    _, ams, nrt = homes.machines
    room = homes.room("nrt")
    guest = guests(room)
    guest.come_back([nrt])
    guest.set("a", 1)
    homes.command("instances", "move", room, "--to", "ams")
    guest.come_back([nrt])
    guest.set("b", 2)
    assert ams.stop() == 0
    forget_shipped(homes, room)
    raw = sqlite.connect(homes.primary.database)
    raw.execute("DELETE FROM homes WHERE name = ?", (room,))
    raw.close()
    ams.start()
    until(lambda: rows_of(homes.primary.database, f"SELECT 1 FROM homes WHERE name = '{room}'"))
    assert home_of(homes, room) == (AMS, 3, 2)
    guest.come_back([nrt])
    assert (guest.values, guest.syncs) == ({"a": 1, "b": 2}, 1)
    assert home_of(homes, room)[0] == AMS


def test_what_nobody_has_opened_begins_on_another_machine(homes: Homes, guests: Guests) -> None:
    """Its home was chosen while it was dying."""
    fra, ams, nrt = homes.machines
    room = homes.room("ams")
    ams.kill()
    guest = guests(room)
    guest.come_back([nrt, fra])
    guest.set("a", 1)
    machine, number, opened = home_of(homes, room)
    assert machine in (NRT, PRIMARY) and number == opened == 2
