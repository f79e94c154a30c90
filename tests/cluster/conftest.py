"""The cast of a cluster: machines in processes of their own, and people who ask one or the other."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.edge import migrate
from tests.cluster.delay_proxy import DelayProxy
from tests.cluster.fly_proxy import Backend, FlyProxy
from tests.conftest import START_SECONDS, STOP_SECONDS, Server, free_port
from tests.fakes.clerk import SigningKey
from tests.projects.conftest import Cast, Key, Person

SECRET = "between-machines-between-machines"
REGIONS = ("fra", "ams", "ord")


class Member(Server):
    """One machine of the cluster. Its line to the others may be slow, stopped or cut."""

    def __init__(self, folder: Path, region: str, machine: str) -> None:
        super().__init__(folder, FLY_REGION=region, FLY_MACHINE_ID=machine, PEER_SECRET=SECRET, DATA_DIR=str(folder))
        self.region, self.machine = region, machine
        self.peer_port = free_port()
        self.line = DelayProxy(self.peer_port)
        self.environ |= {"PORT": str(self.port), "PEER_PORT": str(self.peer_port), "DEV_USER": "0"}
        self._control = folder / "control.json"

    def start(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.control()
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster.machine"],
                env=self.environ | {"CONTROL": str(self._control)},
                stdout=log,
                stderr=log,
            )

    def wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process is not None and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/livez", timeout=5, trust_env=False).status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.02)
        raise RuntimeError(f"{self.machine} did not start:\n{self.log()}")

    def control(self, *, paused: bool = False, delay: float = 0.0, lag_ms: int | None = 0) -> None:
        """How the copy of the core here follows the primary's."""
        said = self._control.with_suffix(".new")
        said.write_text(json.dumps({"paused": paused, "delay": delay, "lag_ms": lag_ms}))
        said.rename(self._control)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.line.close()


class Cluster(Cast):
    """A primary in fra and replicas in ams and ord. What a Cast does goes through the primary."""

    def __init__(self, folder: Path, replay: str = "forward") -> None:
        self.signing_key = SigningKey()
        self.members = [Member(folder / name, region, name) for name, region in zip("abc", REGIONS, strict=True)]
        self.server = self.members[0]
        self.path = self.members[0].data_dir / "core.db"
        self.members[0].data_dir.mkdir(parents=True)
        migrate.migrate(self.path, "core")
        # Each is found by the others at the end of its line.
        peers = ",".join(f"{m.region}/{m.machine}=http://127.0.0.1:{m.line.port}" for m in self.members)
        for member in self.members:
            member.environ |= {
                "PEERS": peers,
                "PRIMARY_REGION": "fra",
                "REPLAY": replay,
                "CLERK_JWT_KEY": self.signing_key.pem,
            }
            if member is not self.members[0]:
                member.environ["REPLICATE_FROM"] = str(self.path)
        self.clients = [member.client() for member in self.members]
        self.client = self.clients[0]

    def start(self) -> None:
        for member in self.members:
            member.start()
        for member in self.members:
            member.wait()

    def calm(self) -> None:
        """All lines whole, all copies following."""
        for member in self.members:
            member.line.mend()
            member.line.resume()
            member.line.delay = 0.0
            member.control()

    def ask(
        self, member: int, who: Person | Key | None, method: str, path: str, body: Any = None, **headers: str
    ) -> httpx.Response:
        """A request of somebody's to one of the machines."""
        known = {} if who is None else who.headers
        return self.clients[member].request(method, path, json=body, headers={**known, **headers})

    def close(self) -> None:
        with ExitStack() as stack:
            for member in self.members:
                stack.callback(member.close)
            for client in self.clients:
                stack.callback(client.close)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def cluster(running: Cluster) -> Iterator[Cluster]:
    yield running
    running.calm()


@pytest.fixture
def on_fly(tmp_path: Path) -> Iterator[tuple[Cluster, FlyProxy]]:
    """The same behind Fly's proxy."""
    made = Cluster(tmp_path, "fly")
    proxy = FlyProxy([Backend(member.region, member.machine, member.port) for member in made.members])
    try:
        made.start()
        yield made, proxy
    finally:
        proxy.close()
        made.close()


def refuses(port: int) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def stopped(process: "subprocess.Popen[bytes] | None") -> None:
    """Pause a process; it neither answers nor refuses."""
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
