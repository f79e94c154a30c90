"""The stage: the servers that stand beside each other during a run, and the generators that drive them."""

import itertools
import multiprocessing
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench import crowd as crowds
from bench import load, process, world
from bench.clerk import Clerk
from bench.crowd import Crowd, Heard
from bench.load import Plan, Run
from bench.process import Refused, ServerProcess

GENERATORS = 2
# A run never comes near as many events: each run has numbers of its own.
NUMBERS_OF_A_RUN = 100_000_000
MICROSECONDS = 1_000_000


class Extent(NamedTuple):
    """How much of everything."""

    rounds: int = 5
    seconds: float = 2.0
    starts: int = 5
    tokens: int = 1_500
    long_ledger: int = 1_000_000
    instances: int = 50
    archive: int = 10_000_000


QUICK = Extent(rounds=3, seconds=0.5, starts=3, tokens=300, long_ledger=200_000, instances=20, archive=1_000_000)


class Stage:
    """Servers start when a figure first needs them and end together. Made by `set_up`."""

    def __init__(self, folder: Path, extent: Extent, pool: ProcessPoolExecutor, stack: ExitStack) -> None:
        self.folder = folder
        self.extent = extent
        self.clerk = Clerk()
        self._pool = pool
        self._stack = stack
        self._costs: dict[ServerProcess, list[float]] = defaultdict(list)
        self._numbers = itertools.count(0, NUMBERS_OF_A_RUN)

    @cached_property
    def key(self) -> str:
        """The relay's key in the main server's database."""
        return world.make(self.database)

    @cached_property
    def reader(self) -> str:
        """The reader's token."""
        return self.clerk.token(world.READER)

    @property
    def database(self) -> Path:
        return self.folder / "main" / "core.db"

    @cached_property
    def litehouse(self) -> ServerProcess:
        assert self.key
        return self.serve(self.folder / "main")

    @cached_property
    def empty(self) -> ServerProcess:
        return self._stack.enter_context(process.starlette("bench.empty:app", self.folder / "empty.log"))

    @cached_property
    def one_at_a_time(self) -> ServerProcess:
        database = self.folder / "one_at_a_time.db"
        world.make_old(database)
        environ = {"DATABASE_PATH": str(database), "BENCH_KEY": self.key}
        log = self.folder / "one_at_a_time.log"
        return self._stack.enter_context(process.starlette("bench.one_at_a_time:app", log, **environ))

    def serve(self, data: Path) -> ServerProcess:
        """`litehouse serve` on `data`, as in production: with its request log, and with Clerk."""
        return self._stack.enter_context(process.litehouse(data, **self.production()))

    def production(self) -> dict[str, str]:
        return {
            "ENVIRONMENT": "production",
            "ADMIN_TOKEN": "bench-admin-token",
            "JWT_SECRET": "bench-jwt-secret-of-thirty-two-bytes",
            "CLERK_JWT_KEY": self.clerk.public_pem,
            "CLERK_WEBHOOK_SECRET": self.clerk.webhook_secret,
        }

    def require(self, server: ServerProcess, request: bytes) -> None:
        """Refused unless the server answers 200."""
        status = server.ask(request)
        if status != 200:
            raise Refused(f"{request.partition(b' HTTP')[0].decode()} answered {status}")

    def drive(self, server: ServerProcess, templates: tuple[bytes, ...], connections: int, **more: int) -> Run:
        """One run of the usual length. Refused when an answer was not 200."""
        before = server.cpu_seconds()
        run = self.result(self.begin(server, templates, connections, self.extent.seconds, **more))
        self._costs[server].append(MICROSECONDS * (server.cpu_seconds() - before) / run.answers)
        return run

    def cost(self, server: ServerProcess, rounds: int) -> float:
        """Microseconds of processor that a request of the last `rounds` runs cost: what a busy machine blurs least."""
        return median(self._costs[server][-rounds:])

    def begin(
        self,
        server: ServerProcess,
        templates: tuple[bytes, ...],
        connections: int,
        seconds: float,
        *,
        every: float = 0.0,
        **more: int,
    ) -> "Future[Run]":
        plan = Plan(server.port, templates, connections, seconds, first=next(self._numbers), every=every, **more)
        return self._pool.submit(load.drive, plan)

    def listen(self, crowd: Crowd) -> Heard:
        """One run of a crowd. Refused when not everybody heard everything once."""
        try:
            return self._pool.submit(crowds.drive, crowd._replace(first=next(self._numbers))).result()
        except (ConnectionError, TimeoutError) as failed:
            raise Refused(f"{crowd.dialect.name}: {str(failed) or type(failed).__name__}") from failed

    def result(self, running: "Future[Run]") -> Run:
        run = running.result()
        if set(run.statuses) != {200}:
            raise Refused(f"answers by status: {run.statuses}, such as {run.sample!r}")
        return run


@contextmanager
def set_up(extent: Extent) -> Iterator[Stage]:
    """A stage in a folder of its own, in TMPDIR: a disk there, not memory, or commits cost nothing."""
    with TemporaryDirectory(prefix="litehouse-bench-") as folder, ExitStack() as stack:
        pool = ProcessPoolExecutor(GENERATORS, multiprocessing.get_context("spawn"))
        stack.enter_context(pool)
        yield Stage(Path(folder), extent, pool, stack)
