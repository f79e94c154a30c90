"""The regions: three machines with one replica, each the home of what was made for its region; and one alone."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from app.edge.mount import Mount
from bench import world
from bench.process import STOP_SECONDS, Refused, ServerProcess
from bench.stage import Stage
from cluster import machines
from cluster.engines import StandIn
from cluster.machines import PRIMARY, REGIONS
from cluster.ports import free_port

SECRET = "bench-peer-secret-of-thirty-two-bytes"
READY_SECONDS = 30.0
READY = b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
SERVE = [sys.executable, "-m", "app.cli", "serve", "--port", "{port}"]


class Regions:
    """Who may be killed, stopped and started again; `names` are the instances that were made for one region."""

    def __init__(self, machines: dict[str, ServerProcess]) -> None:
        self._machines = machines

    def __getitem__(self, name: str) -> ServerProcess:
        return self._machines[name]

    def ports(self, first: str) -> list[int]:
        """Where a client that is near one of the machines tries, in turn."""
        others = [server.port for name, server in self._machines.items() if name != first]
        return [self._machines[first].port, *others]

    def command(self, *words: str) -> float:
        """Run a command of `litehouse` beside the primary; how long that took."""
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", *words],
            env=self._machines[PRIMARY].environ,
            capture_output=True,
            text=True,
            timeout=READY_SECONDS + STOP_SECONDS,
        )
        if done.returncode:
            raise Refused(f"litehouse {' '.join(words)}: {done.stderr.strip()}")
        return time.monotonic() - begun


@contextmanager
def regions(stage: Stage, names: list[str], region: str) -> Iterator[Regions]:
    """Three machines that ship everything before it is acknowledged."""
    folder = stage.folder / "regions"
    engine = StandIn(folder, list(REGIONS))
    ports = {name: free_port() for name in REGIONS}
    peers = machines.peers(ports)
    with ExitStack() as stack:
        stack.callback(engine.close)
        for name in REGIONS:
            engine.start(name)
        world.make(engine.database(PRIMARY), Mount.PRIMARY)
        world.add_instances(engine.database(PRIMARY), names, region, Mount.PRIMARY)
        made = {}
        for name, port in ports.items():
            data = folder / name / "data"
            environ = machines.settings(engine, name, data, port, peers, SECRET)
            made[name] = stack.enter_context(_serve(stage, folder / "replica", data, environ))
        for server in made.values():
            wait_until_ready(server)
        yield Regions(made)


@contextmanager
def alone(stage: Stage, names: list[str]) -> Iterator[ServerProcess]:
    """One machine without others, which ships everything as they do."""
    folder = stage.folder / "alone"
    database = folder / "core.db"
    world.make(database)
    world.add_instances(database, names)
    with _serve(stage, folder / "replica", folder, {"DATA_DIR": str(folder)}) as server:
        yield server


def wait_until_ready(server: ServerProcess) -> None:
    until = time.monotonic() + READY_SECONDS
    while server.ask(READY) != 200:
        if time.monotonic() > until:
            raise Refused("a machine does not become ready")
        time.sleep(0.02)


def _serve(stage: Stage, replica: Path, data: Path, environ: dict[str, str]) -> ServerProcess:
    data.mkdir(parents=True, exist_ok=True)
    shipped = {"LITESTREAM_REPLICA_URL": f"file://{replica}", "DURABLE_ACK": "all"}
    return ServerProcess(SERVE, data / "server.log", **stage.production() | environ | shipped)
