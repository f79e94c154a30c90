"""The cast: a real server in a process of its own, and a database in a folder of its own."""

import asyncio
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

import app  # noqa: F401 - before anything that could load another SQLite
from app.edge import migrate, sqlite
from app.edge.daemon import CONFIG_FILE
from app.edge.database import Database
from app.edge.mount import Mount
from cluster import ports
from cluster.ports import free_port
from tests.waiting import listens, until

ADMIN_TOKEN = "test-admin-token"
START_SECONDS = 20.0
STOP_SECONDS = 20.0
CLI = "app.cli"
NODE_FOLDER = Path(__file__).parent / "node"
NPM_SECONDS = 300.0

# Several workers run tests beside one another (pytest-xdist): each has ports of its own.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
ports.PORTS = ports.PORTS[WORKER % 8 :: 8]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Server:
    """`litehouse serve` on loopback. `kill` is -9; `start` again keeps the data."""

    def __init__(self, data_dir: Path, **environ: str) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self.environ = inherited | {"ADMIN_TOKEN": ADMIN_TOKEN, "LOG_LEVEL": "warning"} | environ
        # A folder on the command line goes before DATABASE_PATH.
        self._where = [] if "DATA_DIR" in environ else ["--data", str(data_dir)]
        self.process: subprocess.Popen[bytes] | None = None
        self.log_path = data_dir / "server.log"
        # What the command is run by, where that is not this process's own world.
        self.within: tuple[str, ...] = ()
        # The release that it runs, as a module to be started.
        self.module = CLI

    def start(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.within, sys.executable, "-m", self.module, "serve", "--port", str(self.port), *self._where],
                env=self.environ,
                stdout=log,
                stderr=log,
            )
        until(self._has_started, START_SECONDS, self.log)

    def _has_started(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"The server did not start:\n{self.log()}")
        return listens(self.port)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(STOP_SECONDS)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def close(self) -> None:
        """Stop it where it runs, and end what it left behind where it was killed."""
        if self.process is not None and self.process.poll() is None:
            self.stop()
        self.end_left_behind()

    def end_left_behind(self) -> None:
        """A Litestream outlives its server until the next one starts, and would go on after the tests."""
        config = os.fsencode(self.data_dir / CONFIG_FILE)
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if config in (process / "cmdline").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGKILL)

    def log(self) -> str:
        return self.log_path.read_text()

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `litehouse …` beside the server, on its data."""
        return subprocess.run(
            [sys.executable, "-m", "app.cli", *words, *self._where],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def client(self, **headers: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)


class Beside:
    """A server's core database, migrated, as another process sees it and writes to it."""

    mount = Mount.NONE

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "core.db"
        migrate.migrate(self.path, "core")

    def beside(self, job: Callable[..., Any], *args: Any) -> Any:
        """Run a write job in this process, with a writer of its own."""

        async def write() -> Any:
            async with open_database(self.path, mount=self.mount) as db:
                return await db.write(job, *args)

        return asyncio.run(write())

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """What another connection sees: what is committed."""
        return rows_of(self.path, sql, *values)


def rows_of(path: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """What another connection sees: what is committed."""
    raw = sqlite.connect(path, read_only=True)
    try:
        rows: list[tuple[Any, ...]] = raw.execute(sql, values).fetchall()
        return rows
    finally:
        raw.close()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Meanwhile nobody else commits to the file."""
    raw = sqlite.connect(path)
    raw.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        raw.execute("ROLLBACK")
        raw.close()


@contextmanager
def serving(data_dir: Path, **environ: str) -> Iterator[Server]:
    server = Server(data_dir, **environ)
    server.start()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A development server: `dev-user` answers for missing credentials."""
    with serving(tmp_path / "data") as running:
        yield running


@asynccontextmanager
async def open_database(path: Path, kind: str = "core", **how: Any) -> AsyncIterator[Database]:
    """Migrated, and open inside the block; `how` is what a Database takes beside its path."""
    migrate.migrate(path, kind)
    database = Database(path, **how)
    database.open()
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    """A migrated core database with its writer, and nobody else on it."""
    async with open_database(tmp_path / "core.db") as database:
        yield database


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """npm's own clients, as the lock file lists them; where there is no npm, what needs them is skipped."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        problem = f"{' and '.join(missing)} not found: npm's clients were not asked"
        pytest.fail(problem) if os.environ.get("CI") == "true" else pytest.skip(problem)
    lock, installed = NODE_FOLDER / "package-lock.json", NODE_FOLDER / "node_modules"
    stamp = installed / ".package-lock.json"
    with lock.open() as held:
        # Two runs side by side must not install over each other.
        fcntl.flock(held, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.stat().st_mtime < lock.stat().st_mtime:
            done = subprocess.run(["npm", "ci"], cwd=NODE_FOLDER, capture_output=True, text=True, timeout=NPM_SECONDS)
            assert done.returncode == 0, done.stderr
    return installed
