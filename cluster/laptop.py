"""The laptop: three regions on loopback, each machine a process that is started again when it ends."""

import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from cluster import machines
from cluster.delay_proxy import DelayProxy
from cluster.engines import Engine, Process
from cluster.machines import PRIMARY, REGIONS
from cluster.ports import free_port
from cluster.watcher import MARK

READY_SECONDS = 60.0
LOOK_SECONDS = 0.1
AGAIN_SECONDS = 0.5
ASK_SECONDS = 2.0
ANSWER_SECONDS = 10.0
# Of what a machine said before it ended, so much is shown.
SAID_CHARACTERS = 2_000
# What a machine takes over from whoever starts it.
INHERITED = ("PATH", "HOME", "TMPDIR", MARK)

_ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class Broken(Exception):
    """What should run does not: the sentence says what, and what it said last."""


class Machine(NamedTuple):
    """One region's machine: where it is called, what it says, and what it is told."""

    name: str
    region: str
    url: str
    log: Path
    environ: dict[str, str]


class Room(NamedTuple):
    """An instance, and the machine on which it is open."""

    id: str
    home: Machine


class Laptop:
    """All machines of a cluster; `delay` lies between any two of them, in seconds for each direction."""

    def __init__(self, engine: Engine, folder: Path, delay: float) -> None:
        self._engine = engine
        self._delay = delay
        self._secret = secrets.token_hex(32)
        self.admin_token = secrets.token_hex(8)
        ports = {name: free_port() for name in REGIONS}
        self._lines = {name: DelayProxy(port) for name, port in ports.items()}
        peers = machines.peers({name: line.port for name, line in self._lines.items()})
        self.machines = [self._machine(name, folder, ports[name], peers) for name in REGIONS]
        self._processes: dict[str, Process] = {}

    def start(self) -> None:
        """Until all are ready. Broken when one does not become so."""
        self._engine.start(PRIMARY)
        for name in list(REGIONS)[1:]:
            self._engine.start(name)
            self._engine.delay(name, self._delay)
        for line in self._lines.values():
            line.delay = self._delay
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._launch, self.machines))

    def make_room(self, name: str) -> Room:
        """A new one, in the region of the machine that is named. Broken when it does not come to be."""
        (machine,) = (one for one in self.machines if one.name == name)
        project = _call(machine, "/api/projects", {"name": "rooms"})["id"]
        made = _call(machine, f"/api/projects/{project}/instances", {"name": "hello", "region": machine.region})["id"]
        _look_into(made, machine)
        return Room(made, next(one for one in self.machines if _call(one, "/api/health")["instances"]))

    def pid(self, machine: Machine) -> int:
        return self._processes[machine.name].pid

    def watch(self, room: Room) -> Iterator[Machine]:
        """Start again what ends, for ever; each machine that has come back, once the room can be reached by it.

        Broken when its engine ends.
        """
        while True:
            time.sleep(LOOK_SECONDS)
            for machine in self.machines:
                if not self._engine.runs(machine.name):
                    raise Broken(f"{self._engine.name} has ended on {machine.name}:\n{self._engine.log(machine.name)}")
                if not self._processes[machine.name].running:
                    time.sleep(AGAIN_SECONDS)
                    self._launch(machine)
                    _look_into(room.id, machine)
                    yield machine

    def close(self) -> None:
        """End all of it: the primary's app last of the apps, and then what brings the core."""
        for machine in reversed(self.machines):
            if machine.name in self._processes:
                with suppress(Exception):
                    self._processes[machine.name].end()
        self._engine.close()
        for line in self._lines.values():
            line.close()

    def _machine(self, name: str, folder: Path, peer_port: int, peers: str) -> Machine:
        port, data = free_port(), folder / name / "data"
        data.mkdir(parents=True)
        inherited = {known: os.environ[known] for known in INHERITED if known in os.environ}
        told = machines.settings(self._engine, name, data, peer_port, peers, self._secret)
        environ = {**inherited, **told, "PORT": str(port), "ADMIN_TOKEN": self.admin_token}
        return Machine(name, REGIONS[name], f"http://127.0.0.1:{port}", folder / name / "server.log", environ)

    def _launch(self, machine: Machine) -> None:
        words = [sys.executable, "-m", "app.cli", "serve"]
        process = self._processes[machine.name] = Process(words, machine.log, machine.environ)
        until = time.monotonic() + READY_SECONDS
        while not _is_ready(machine):
            if not process.running or time.monotonic() > until:
                raise Broken(f"{machine.name} did not start:\n{machine.log.read_text()[-SAID_CHARACTERS:]}")
            time.sleep(LOOK_SECONDS)


def _look_into(room: str, machine: Machine) -> None:
    """Have it open, by way of a machine: a home that has just started is none before it holds its lease."""
    _call(machine, f"/api/instances/{room}/keys")


def _call(machine: Machine, path: str, body: Any = None) -> Any:
    """What a machine answers, asked again for a while when it does not or cannot. Broken."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{machine.url}{path}", data, {"Content-Type": "application/json"})
    until = time.monotonic() + READY_SECONDS
    while True:
        try:
            with _ask(request, timeout=ANSWER_SECONDS) as answer:
                return json.load(answer)
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > until:
                raise Broken(f"{machine.name} does not answer {path}: {error}") from error
        time.sleep(LOOK_SECONDS)


def _is_ready(machine: Machine) -> bool:
    try:
        with _ask(f"{machine.url}/readyz", timeout=ASK_SECONDS):
            return True
    except (urllib.error.URLError, OSError):
        return False
