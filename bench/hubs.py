"""The hubs: a live instance of litehouse, and beside it npm's ws and socket.io, which store nothing."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import dialects, world
from bench.dialects import Dialect
from bench.process import Refused, ServerProcess
from bench.stage import Stage

NODE_FOLDER = Path(__file__).parent / "node"
NPM_SECONDS = 300.0
SAID_CHARACTERS = 500


class Hub(NamedTuple):
    """A server, and how its clients talk to it."""

    server: ServerProcess
    dialect: Dialect


def litehouse(stage: Stage, server: ServerProcess, instance_id: str) -> Hub:
    return Hub(server, dialects.litehouse(instance_id, stage.reader))


def make(data: Path, instance_ids: list[str]) -> None:
    """A database for a server that has not started, with these instances."""
    world.make(data / "core.db")
    world.add_instances(data / "core.db", instance_ids)


@contextmanager
def peers(folder: Path) -> Iterator[dict[str, Hub]]:
    """npm's hubs by name, each in a process of its own. Refused where there is no npm."""
    _install()
    files = ((dialects.SOCKET_IO, "socketio_hub.mjs"), (dialects.WS, "ws_hub.mjs"))
    with ExitStack() as stack:
        yield {dialect.name: Hub(stack.enter_context(_node(folder, file)), dialect) for dialect, file in files}


def canned(folder: Path) -> ServerProcess:
    return ServerProcess([sys.executable, "-m", "bench.canned_hub", "{port}"], folder / "canned_hub.log")


def _node(folder: Path, file: str) -> ServerProcess:
    environ = {"NODE_ENV": "production"}
    return ServerProcess(["node", str(NODE_FOLDER / file), "{port}"], folder / f"{file}.log", **environ)


def _install() -> None:
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        raise Refused(f"{' and '.join(missing)} not found: npm's hubs cannot stand beside")
    lock, stamp = NODE_FOLDER / "package-lock.json", NODE_FOLDER / "node_modules" / ".package-lock.json"
    if stamp.exists() and stamp.stat().st_mtime >= lock.stat().st_mtime:
        return
    done = subprocess.run(["npm", "ci"], cwd=NODE_FOLDER, capture_output=True, text=True, timeout=NPM_SECONDS)
    if done.returncode:
        raise Refused(f"npm ci: {done.stderr[-SAID_CHARACTERS:]}")
