"""Machines: an engine, and on each machine the app on the core that the engine brings."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.cluster.engines import ENGINES, Engine
from tests.conftest import Server, free_port

T = TypeVar("T")

REGIONS = {"m-fra": "fra", "m-ams": "ams", "m-nrt": "nrt"}
PRIMARY, AMS, NRT = REGIONS
SOON_SECONDS = 15.0
LOOK_SECONDS = 0.03
PEER_SECRET = "a-secret-of-the-machines-of-this-test-cluster"
JWT_SECRET = "a-secret-for-the-tokens-of-this-test-cluster"


def until(look: Callable[[], T], seconds: float = SOON_SECONDS) -> T:
    """What `look` gives once it is true: for what other processes do."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        # A machine lets a user in six hundred times a minute.
        time.sleep(LOOK_SECONDS)
    return found


class Machine:
    """One machine of the cluster. Its process may be ended and started again; its folder stays."""

    def __init__(self, name: str, engine: Engine, folder: Path, environ: dict[str, str]) -> None:
        self.name = name
        self.region = REGIONS[name]
        self.engine = engine
        self.server = Server(
            folder / name / "data",
            DATABASE_PATH=str(engine.database(name)),
            DATA_DIR=str(folder / name / "data"),
            FLY_REGION=self.region,
            FLY_MACHINE_ID=name,
            LITEFS_HTTP=engine.url(name),
            **environ,
        )

    @property
    def database(self) -> Path:
        return self.engine.database(self.name)

    @cached_property
    def client(self) -> httpx.Client:
        """Made once: a client takes longer to make than a transaction to arrive."""
        return self.server.client()

    def get(self, path: str, **headers: str) -> Any:
        return self.client.get(path, headers=headers)

    def post(self, path: str, body: Any, **headers: str) -> Any:
        return self.client.post(path, json=body, headers=headers)

    def delete(self, path: str, **headers: str) -> Any:
        return self.client.delete(path, headers=headers)

    def health(self) -> Any:
        return self.get("/api/health").json()

    def has(self, txid: str) -> bool:
        """Whether this machine's core has come to a position."""
        epoch, sequence = txid.split("-")
        here, there = (self.health()["position"] or "none-0").split("-")
        return bool(here == epoch and int(there) >= int(sequence))

    def start(self) -> None:
        self.server.start()
        # The port is open before the app is.
        assert self.get("/livez").status_code == 200

    def stop(self) -> None:
        if self.server.process is not None and self.server.process.poll() is None:
            self.server.stop()


class Cluster:
    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        ports = {name: free_port() for name in REGIONS}
        peers = ",".join(f"{region}/{name}=http://127.0.0.1:{ports[name]}" for name, region in REGIONS.items())
        common = {
            "REPLICATION": "litefs",
            "PRIMARY_REGION": REGIONS[PRIMARY],
            "PEER_SECRET": PEER_SECRET,
            "JWT_SECRET": JWT_SECRET,
            "REPLAY": "forward",
            "PEERS": peers,
        }
        self.machines = [Machine(name, engine, folder, common | {"PEER_PORT": str(ports[name])}) for name in REGIONS]

    @property
    def primary(self) -> Machine:
        return self.machines[0]

    @property
    def replicas(self) -> list[Machine]:
        return self.machines[1:]

    def start(self) -> None:
        with ThreadPoolExecutor() as pool:
            self.engine.start(self.primary.name)
            list(pool.map(self.engine.start, [replica.name for replica in self.replicas]))
            list(pool.map(Machine.start, self.machines))

    def close(self) -> None:
        for machine in self.machines:
            machine.client.close()
            with suppress(Exception):
                machine.stop()
        self.engine.close()
        for machine in self.machines:
            process = machine.server.process
            if process is not None and process.poll() is None:
                machine.server.kill()

    def make_key(self) -> tuple[str, str]:
        """`(id, text)` of a new key of dev-user's that may list its projects."""
        made = self.primary.post("/api/keys", {"name": "a key", "scopeType": "account", "permissions": ["read"]})
        assert made.status_code == 201, made.text
        body = made.json()
        return body["id"], body["key"]


@contextmanager
def running(kind: str, folder: Path) -> Iterator[Cluster]:
    engine = ENGINES[kind](folder, list(REGIONS))
    cluster = Cluster(engine, folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


__all__ = ["AMS", "NRT", "PRIMARY", "Cluster", "Machine", "running", "until"]
