"""Moves: an instance goes to another region with all that is in it, while people write."""

import itertools
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.edge.homes import number_of
from tests.cluster.cast import AMS, NRT, PRIMARY
from tests.conftest import rows_of
from tests.homes.conftest import Guest, Homes, where
from tests.waiting import until

Guests = Callable[[str], Guest]
WRITES_BEFORE, WRITES_AFTER = 30, 30


class Writer(threading.Thread):
    """Sets keys of its own one after the other, and comes back whenever it is sent away."""

    def __init__(self, guest: Guest, name: str, machines: list[Any]) -> None:
        super().__init__(daemon=True)
        self.guest, self.prefix, self.machines = guest, name, machines
        self.stop = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self.guest.come_back(self.machines)
            for number in itertools.count():
                if self.stop.is_set():
                    return
                self._set(f"{self.prefix}-{number}", number)
        except BaseException as error:
            self.failure = error
            raise

    def _set(self, key: str, value: int) -> None:
        while True:
            try:
                self.guest.set(key, value)
                return
            except Exception:  # noqa: BLE001 - whatever sent it away, it comes back and says it again
                self.guest.come_back(self.machines)


def test_a_move_loses_no_frame_while_people_write(homes: Homes, guests: Guests) -> None:
    fra, ams, nrt = homes.machines
    room = homes.room("ams")
    listener = guests(room)
    listener.come_back([fra])
    writers = [Writer(guests(room), name, [machine]) for name, machine in (("x", ams), ("y", nrt))]
    for writer in writers:
        writer.start()
    until(lambda: all(len(writer.guest.acknowledged) > WRITES_BEFORE for writer in writers))
    homes.command("instances", "move", room, "--to", "nrt")
    moved = [len(writer.guest.acknowledged) for writer in writers]
    until(lambda: all(len(w.guest.acknowledged) > m + WRITES_AFTER for w, m in zip(writers, moved, strict=True)))
    for writer in writers:
        writer.stop.set()
    for writer in writers:
        writer.join(30)
        assert writer.failure is None
    assert {where(machine, room)["machine"] for machine in homes.machines} == {NRT}
    listener.hear_out()
    for guest in (listener, *(writer.guest for writer in writers)):
        guest.come_back([fra])
        assert guest.syncs == 1, "it was given everything anew"
    seq = where(fra, room)["seq"]
    assert sorted(set(listener.heard)) == list(range(1, seq + 1))
    expected = {key: value for writer in writers for key, value in writer.guest.acknowledged.items()}
    assert listener.values == expected


def test_what_was_never_opened_can_be_moved_too_and_back(homes: Homes, guests: Guests) -> None:
    fra, ams, _ = homes.machines
    room = homes.room("ams")
    assert where(fra, room)["machine"] == AMS
    homes.command("instances", "move", room, "--to", "fra")
    assert where(ams, room)["machine"] == PRIMARY
    guest = guests(room)
    guest.come_back([ams])
    guest.set("a", 1)
    homes.command("instances", "move", room, "--to", "ams")
    guest.come_back([fra])
    assert (guest.values, guest.syncs) == ({"a": 1}, 1)
    assert where(fra, room)["machine"] == AMS


def test_moving_says_what_cannot_be(homes: Homes) -> None:
    room = homes.room("ams")
    for words, said in (
        ((room, "--to", "sin"), "No machine is alive in sin"),
        (("nowhere", "--to", "nrt"), "There is no such instance"),
        ((room,), "--lost"),
        (("--lost", AMS), "is alive"),
    ):
        done = homes.primary.command("instances", "move", *words)
        assert done.returncode != 0 and said in done.stderr, done.stderr
    homes.primary.stop()
    done = homes.machines[1].command("instances", "move", room, "--to", "nrt")
    assert done.returncode == 1 and "cannot be reached" in done.stderr, done.stderr


def test_a_clone_is_made_where_it_will_live(homes: Homes, guests: Guests) -> None:
    fra, ams, nrt = homes.machines
    source = homes.room("ams")
    guest = guests(source)
    guest.come_back([ams])
    for number in range(5):
        guest.set(f"key-{number}", number)
    project = fra.get(f"/api/instances/{source}").json()["project_id"]
    for region, machine in (("nrt", NRT), ("ams", AMS), ("fra", PRIMARY)):
        made = fra.post(f"/api/projects/{project}/instances", {"name": "copy", "region": region, "cloneFrom": source})
        assert made.status_code == 201, made.text
        copy = guests(made.json()["id"])
        copy.come_back([nrt])
        assert copy.values == guest.values
        copy.set("own", True)
        assert where(fra, copy.room)["machine"] == machine
    assert "own" not in guest.values


def test_deletion_reaches_a_home_that_was_away(homes: Homes, guests: Guests) -> None:
    fra, ams, nrt = homes.machines
    rooms = [homes.room("ams"), homes.room("nrt")]
    visitors = [guests(room) for room in rooms]
    for visitor in visitors:
        visitor.come_back([fra])
        visitor.set("a", 1)
    files = [
        next(machine.data_dir.glob(f"instances/*/{room}.db")) for machine, room in zip((ams, nrt), rooms, strict=True)
    ]
    ams.stop()
    for room in rooms:
        assert fra.delete(f"/api/instances/{room}").status_code == 200
    until(lambda: not files[1].exists())
    assert visitors[1].hear_out() is not None and visitors[1].peer.socket.close_code == 1000
    assert files[0].exists()
    ams.start()
    until(lambda: not files[0].exists())
    answer = ams.get(f"/api/instances/{rooms[0]}/keys")
    assert answer.status_code == 404, answer.text


def test_what_an_operator_restores_is_what_its_home_opens(homes: Homes, guests: Guests, tmp_path: Path) -> None:
    _, ams, _ = homes.machines
    room = homes.room("ams")
    guest = guests(room)
    guest.come_back([ams])
    guest.set("a", 1)
    for region in ("nrt", "ams"):
        homes.command("instances", "move", room, "--to", region)
    guest.come_back([ams])
    guest.set("a", 2)
    until(lambda: homes.shipped_seq(room, tmp_path / "seen") == guest.seq)
    assert number_of(guest.epoch) == 3
    ams.stop()
    done = ams.command("backup", "restore", "--instance", room, "--to", str(tmp_path / "restored"))
    assert done.returncode == 0, done.stderr
    file = next(ams.data_dir.glob(f"instances/*/{room}.db"))
    shutil.copy(next((tmp_path / "restored").rglob(f"{room}.db")), file)
    ams.start()
    guest.come_back([ams])
    assert (number_of(guest.epoch), guest.values, where(ams, room)["machine"]) == (4, {"a": 2}, AMS)
    told = rows_of(file, "SELECT epoch FROM epochs ORDER BY rowid")
    assert [number_of(row[0]) for row in told] == [1, 2, 3, 3, 4]
