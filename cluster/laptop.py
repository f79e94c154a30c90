"""The laptop: three regions on loopback, each machine a process that is started again when it ends."""

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
from typing import NamedTuple

from cluster import machines
from cluster.delay_proxy import DelayProxy
from cluster.engines import Engine, Process
from cluster.machines import PRIMARY, REGIONS
from cluster.ports import free_port

READY_SECONDS = 60.0
LOOK_SECONDS = 0.1
AGAIN_SECONDS = 0.5
ASK_SECONDS = 2.0
# Of what a machine said before it ended, so much is shown.
SAID_CHARACTERS = 2_000
# What a machine takes over from whoever starts it.
INHERITED = ("PATH", "HOME", "TMPDIR")

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


class Laptop:
    """All machines of a cluster; `delay` lies between any two of them, in seconds for each direction."""

    def __init__(self, engine: Engine, folder: Path, delay: float) -> None:
        self._engine = engine
        self._delay = delay
        self._secret = secrets.token_hex(32)
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

    def pid(self, machine: Machine) -> int:
        return self._processes[machine.name].pid

    def watch(self) -> Iterator[Machine]:
        """Start again what ends, for ever; each machine that has come back. Broken when its engine ends."""
        while True:
            time.sleep(LOOK_SECONDS)
            for machine in self.machines:
                if not self._engine.runs(machine.name):
                    raise Broken(f"{self._engine.name} has ended on {machine.name}:\n{self._engine.log(machine.name)}")
                if not self._processes[machine.name].running:
                    time.sleep(AGAIN_SECONDS)
                    self._launch(machine)
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
        environ = {**inherited, **told, "PORT": str(port), "LOG_LEVEL": "info"}
        return Machine(name, REGIONS[name], f"http://127.0.0.1:{port}", folder / name / "server.log", environ)

    def _launch(self, machine: Machine) -> None:
        words = [sys.executable, "-m", "app.cli", "serve"]
        process = self._processes[machine.name] = Process(words, machine.log, machine.environ)
        until = time.monotonic() + READY_SECONDS
        while not _is_ready(machine):
            if not process.running or time.monotonic() > until:
                raise Broken(f"{machine.name} did not start:\n{machine.log.read_text()[-SAID_CHARACTERS:]}")
            time.sleep(LOOK_SECONDS)


def _is_ready(machine: Machine) -> bool:
    try:
        with _ask(f"{machine.url}/readyz", timeout=ASK_SECONDS):
            return True
    except (urllib.error.URLError, OSError):
        return False
