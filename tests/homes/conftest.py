"""The cast: three machines with a common replica, instances that live in their regions, and people who come back."""

import itertools
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, WebSocketException

from app.errors import AppError
from app.instances.restoration import fetch, read_position
from app.instances.store import path_of
from tests.cluster.cast import Cluster, Machine, running
from tests.conftest import ADMIN_TOKEN, CLI, rows_of
from tests.instances.conftest import Peer, dial
from tests.replication.conftest import ON_LITEFS
from tests.waiting import is_alive, until

_numbers = itertools.count(1)
BACK_SECONDS = 30.0
# Of each of the hasty machines: how many it has open, and how long its port may refuse before it is taken for gone.
OPEN_INSTANCES = 3
REFUSED_SECONDS = 10.0

Frame = dict[str, Any]


class Homes(Cluster):
    """A cluster whose machines ship to one folder."""

    replica: Path

    @property
    def url(self) -> str:
        return f"file://{self.replica}"

    def room(self, region: str) -> str:
        """A new instance that lives in a region."""
        project = self.primary.post("/api/projects", {"name": f"project-{next(_numbers)}"})
        assert project.status_code == 201, project.text
        made = self.primary.post(f"/api/projects/{project.json()['id']}/instances", {"name": "room", "region": region})
        assert made.status_code == 201, made.text
        name: str = made.json()["id"]
        return name

    def command(self, *words: str) -> str:
        """Of `litehouse`, run on the primary."""
        done = self.primary.command(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def shipped_seq(self, room: str, scratch: Path) -> int:
        """How far the replica has come."""
        try:
            fetch(self.url, room, scratch)
        except AppError:
            return -1
        return read_position(scratch)[1]


def where(machine: Machine, room: str) -> Frame:
    """What an operator sees of a room, asked for at any machine; {} while nobody can say."""
    answer = machine.get(f"/admin/do/{room}", **{"X-Admin-Token": ADMIN_TOKEN})
    assert answer.status_code in (200, 503), answer.text
    seen: Frame = answer.json() if answer.status_code == 200 else {}
    return seen


def home_of(homes: Homes, room: str) -> tuple[str, int, int | None]:
    """`(machine, number, opened)`."""
    found: tuple[str, int, int | None] = rows_of(
        homes.primary.database, f"SELECT machine, number, opened FROM homes WHERE name = '{room}'"
    )[0]
    return found


def owner_since(homes: Homes, room: str) -> tuple[str, float]:
    """Who owns a room, and since when, in seconds."""
    machine, at_ms = rows_of(homes.primary.database, f"SELECT machine, given_at_ms FROM homes WHERE name = '{room}'")[0]
    return machine, at_ms / 1000


def file_of(machine: Machine, room: str) -> Path:
    return path_of(machine.data_dir / "instances", room)


def kill_all(machine: Machine) -> None:
    """The app and what it runs, all without a word."""
    process = machine.process
    assert process is not None
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    machine.kill()
    for child in map(int, children):
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        until(lambda child=child: not is_alive(child))


class Guest:
    """A client as the SDKs are: it remembers how far it has heard, and comes back to whoever takes it."""

    def __init__(self, room: str) -> None:
        self.room = room
        self.seq, self.epoch = 0, ""
        self.values: dict[str, Any] = {}
        self.acknowledged: dict[str, Any] = {}
        # Seqs that it has heard of, and how often it was given everything anew.
        self.heard: list[int] = []
        self.syncs = 0
        self._stack = ExitStack()
        self.peer: Peer

    def come(self, machine: Machine) -> None:
        """Once; raises what turned it away."""
        self.leave()
        query = {"since": self.seq, "epoch": self.epoch} if self.epoch else {}
        self.peer = self._stack.enter_context(dial(machine, self.room, **query))
        greeting = self.peer.hear()
        assert greeting["type"] == "auth_success", greeting
        self.epoch = greeting["epoch"]
        told = greeting["seq"]
        while self.seq < told or not self.syncs:
            self._take(self.peer.hear())

    def come_back(self, machines: list[Machine]) -> None:
        """Try one machine after the other."""
        turns = itertools.cycle(machines)
        until(lambda: self._comes(next(turns)), BACK_SECONDS)

    def _comes(self, machine: Machine) -> bool:
        with suppress(WebSocketException, OSError, AssertionError):
            self.come(machine)
            return True
        return False

    def set(self, key: str, value: Any) -> None:
        """Until it is acknowledged."""
        mark = f"op-{next(_numbers)}"
        self.peer.say("set", key=key, value=value, opId=mark, timestamp=0)
        while True:
            frame = self.peer.hear()
            self._take(frame)
            if frame["type"] == "ack" and frame.get("opId") == mark:
                self.acknowledged[key] = value
                return
            assert frame["type"] != "error", frame

    def hear_out(self) -> list[Frame]:
        """All that it is told until its socket is closed."""
        heard: list[Frame] = []
        with suppress(ConnectionClosed):
            while True:
                heard.append(self.peer.hear())
        return heard

    def leave(self) -> None:
        self._stack.close()

    def _take(self, frame: Frame) -> None:
        if frame["type"] == "sync":
            self.values = {key: held["value"] for key, held in frame["data"].items()}
            self.seq = frame.get("seq", self.seq)
            self.syncs += 1
        elif frame["type"] == "key_updated":
            self.values[frame["key"]] = frame["value"]
            self.seq = frame["seq"]
            self.heard.append(frame["seq"])


@pytest.fixture
def guests() -> Iterator[Any]:
    made: list[Guest] = []

    def make(room: str) -> Guest:
        made.append(Guest(room))
        return made[-1]

    yield make
    for guest in made:
        guest.leave()


def open_homes(
    kind: str,
    factory: pytest.TempPathFactory,
    replay: str = "forward",
    *,
    direct: bool = True,
    backup: bool = True,
    module: str = CLI,
    **environ: str,
) -> Iterator[Homes]:
    """`module` is the release that they run."""
    folder = factory.mktemp("h")
    replica = folder / "replica"
    if backup:
        environ["LITESTREAM_REPLICA_URL"] = f"file://{replica}"
    with running(kind, folder, replay, direct=direct, module=module, **environ) as made:
        made.__class__ = Homes
        assert isinstance(made, Homes)
        made.replica = replica
        # Whom the primary has not heard of yet is given nothing, though an instance was made for its region.
        for machine in made.machines:
            until(lambda machine=machine: machine.get("/api/health").json()["leaseMs"])
        yield made


@pytest.fixture(params=["standin", ON_LITEFS])
def homes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homes]:
    yield from open_homes(request.param, tmp_path_factory)


@pytest.fixture(params=["off", "all"])
def durable_homes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homes]:
    yield from open_homes("standin", tmp_path_factory, DURABLE_ACK=request.param)


@pytest.fixture(scope="session")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homes]:
    """Machines that soon find out who does not answer and soon spool who was here, have few instances open,
    and time to start again.

    Shared: who takes one of them away brings it back.
    """
    bounds = {"OPEN_INSTANCES": str(OPEN_INSTANCES), "REFUSED_SECONDS": str(REFUSED_SECONDS)}
    yield from open_homes("standin", tmp_path_factory, module="tests.homes.hasty", **bounds)
