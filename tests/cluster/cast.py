"""The cast of a cluster: an engine, on each machine the app on the core that it brings, and people who ask."""

import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.edge.mount import Mount
from cluster import machines
from cluster.delay_proxy import DelayProxy
from cluster.engines import ENGINES, Engine, StandIn, why_not_litefs
from cluster.fly_proxy import Backend, FlyProxy
from cluster.machines import AMS, NRT, PRIMARY, REGIONS
from cluster.ports import free_port
from tests.conftest import STOP_SECONDS, Server
from tests.fakes.clerk import SigningKey
from tests.projects.conftest import Cast, Key, Person

SECRET = "between-machines-between-machines"
UNKNOWN_LAG_MS = (1 << 31) - 1

missing = why_not_litefs()
ON_LITEFS = pytest.param(
    "litefs", marks=[pytest.mark.litefs, pytest.mark.skipif(missing is not None, reason=str(missing))]
)
ENGINE_NAMES = ["standin", ON_LITEFS]


class Machine(Server):
    """One machine. Its line to the others may be slow, stopped or cut; its folder outlives its process."""

    def __init__(self, engine: Engine, folder: Path, name: str) -> None:
        super().__init__(folder / name / "data", DATA_DIR=str(folder / name / "data"))
        self.name, self.region, self.engine = name, REGIONS[name], engine
        self.peer_port = free_port()
        self.line = DelayProxy(self.peer_port)

    def tell(self, peers: str, **environ: str) -> None:
        """Set what it is told when it starts."""
        self.environ |= machines.settings(self.engine, self.name, self.data_dir, self.peer_port, peers, SECRET)
        self.environ |= environ

    @property
    def database(self) -> Path:
        return self.engine.database(self.name)

    @cached_property
    def asking(self) -> httpx.Client:
        """Made once: a client takes longer to make than a transaction to arrive."""
        return self.client()

    def get(self, path: str, **headers: str) -> Any:
        return self.asking.get(path, headers=headers)

    def post(self, path: str, body: Any, **headers: str) -> Any:
        return self.asking.post(path, json=body, headers=headers)

    def delete(self, path: str, **headers: str) -> Any:
        return self.asking.delete(path, headers=headers)

    def health(self) -> Any:
        return self.get("/api/health").json()

    def has(self, txid: str) -> bool:
        """Whether this machine's core has come to a position."""
        epoch, sequence = txid.split("-")
        here, there = (self.health()["position"] or "none-0").split("-")
        return bool(here == epoch and int(there) >= int(sequence))

    def start(self) -> None:
        super().start()
        # The port is open before the app is.
        assert self.get("/livez").status_code == 200

    def control(self, *, paused: bool = False, delay: float = 0.0, lag_ms: int | None = 0) -> None:
        """How the copy of the core here follows the primary's; a lag other than 0 is what it says, None unknown."""
        (self.engine.hold if paused else self.engine.release)(self.name)
        self.engine.delay(self.name, delay)
        if isinstance(self.engine, StandIn):
            self.engine.say_lag(self.name, (UNKNOWN_LAG_MS if lag_ms is None else lag_ms) or None)
        else:
            assert lag_ms == 0, "LiteFS says what is true"

    def close(self) -> None:
        if "asking" in self.__dict__:
            self.asking.close()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.end_left_behind()
        self.line.close()


class Cluster(Cast):
    """A primary in fra and replicas in ams and nrt. What a Cast does goes through the primary.

    With `replay="fly"` people ask through a stand-in for Fly's proxy, each by the machine that is nearest.
    """

    mount = Mount.PRIMARY

    def __init__(
        self, engine: Engine, folder: Path, replay: str = "forward", *, direct: bool = False, **environ: str
    ) -> None:
        """`direct`: the machines ask each other without the line between, whose end never refuses a connection."""
        self.signing_key = SigningKey()
        self.engine = engine
        self.machines = [Machine(engine, folder, name) for name in REGIONS]
        # Each is found by the others at the end of its line.
        ends = {member.name: member.peer_port if direct else member.line.port for member in self.machines}
        peers = machines.peers(ends)
        for member in self.machines:
            member.tell(peers, REPLAY=replay, CLERK_JWT_KEY=self.signing_key.pem, **{"DEV_USER": "1"} | environ)
        self.server = self.machines[0]
        self.path = engine.database(PRIMARY)
        self.client = self.machines[0].asking
        backends = [Backend(member.region, member.name, member.port) for member in self.machines]
        self.proxy = FlyProxy(backends) if replay == "fly" else None
        self._through = httpx.Client(base_url=self.proxy.url, timeout=30, trust_env=False) if self.proxy else None

    @property
    def primary(self) -> Machine:
        return self.machines[0]

    @property
    def replicas(self) -> list[Machine]:
        return self.machines[1:]

    def start(self) -> None:
        with ThreadPoolExecutor() as pool:
            self.engine.start(PRIMARY)
            list(pool.map(self.engine.start, [replica.name for replica in self.replicas]))
            list(pool.map(Machine.start, self.machines))

    def calm(self) -> None:
        """All lines whole, all copies following."""
        for member in self.machines:
            member.line.mend()
            member.line.resume()
            member.line.delay = 0.0
        for replica in self.replicas:
            replica.control()

    def ask(
        self, member: int, who: Person | Key | None, method: str, path: str, body: Any = None, **headers: str
    ) -> httpx.Response:
        """A request of somebody's to one of the machines, or from near it where Fly's proxy stands before them."""
        given = {**({} if who is None else who.headers), **headers}
        if self._through is None:
            return self.machines[member].asking.request(method, path, json=body, headers=given)
        return self._through.request(method, path, json=body, headers={**given, "x-near": self.machines[member].region})

    def make_key(self) -> tuple[str, str]:
        """`(id, text)` of a new key of dev-user's that may list its projects."""
        made = self.primary.post("/api/keys", {"name": "a key", "scopeType": "account", "permissions": ["read"]})
        assert made.status_code == 201, made.text
        body = made.json()
        return body["id"], body["key"]

    def close(self) -> None:
        if self.proxy is not None and self._through is not None:
            self._through.close()
            self.proxy.close()
        # The replicas first: they ask the primary while they end.
        for member in reversed(self.machines):
            with suppress(Exception):
                member.close()
        self.engine.close()


@contextmanager
def running(
    kind: str,
    folder: Path,
    replay: str = "forward",
    *,
    direct: bool = False,
    module: str = "app.cli",
    **environ: str,
) -> Iterator[Cluster]:
    """`module` is the release that they run."""
    cluster = Cluster(ENGINES[kind](folder, list(REGIONS)), folder, replay, direct=direct, **environ)
    for member in cluster.machines:
        member.module = module
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


__all__ = ["AMS", "ENGINE_NAMES", "NRT", "ON_LITEFS", "PRIMARY", "Cluster", "Machine", "running"]
