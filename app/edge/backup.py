"""Backup: a Litestream of our own, which holds the core while we serve and instances' files while they are open.

It is a child, with a lock on the data that it inherits: whoever starts after us finds one that was left behind
by that lock, ends it, and only then starts another, because two on one file would lose what either ships.
"""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import structlog

from app.edge import folder, litestream
from app.edge.clock import now_ms
from app.edge.control import Control, NotReady
from app.edge.database import Database
from app.edge.litestream import Source
from app.edge.shipping import Shipping
from app.errors import Unavailable
from app.regions import DURABLE_ALL, DURABLE_OFF
from app.settings import Settings

LOCK_FILE = "litestream.lock"
CONFIG_FILE = "litestream.json"
NOTES_FOLDER = "litestream"
PROBE_SECONDS = 5.0
START_SECONDS = 10.0
POLL_SECONDS = 0.02
# What it may take to ship the rest; then it is killed, and the next one ships it.
END_SECONDS = litestream.SHUTDOWN_SECONDS + 3.0
RESTART_SECONDS = (0.2, 30.0)
# It ran for so long: what ended it now has nothing to do with how it began.
STEADY_SECONDS = 60.0

log = structlog.get_logger("backup")


class Held:
    """A file that Litestream is to hold. Everything that was committed at `safe_ms` is in the replica."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.users = 0
        self.lock = asyncio.Lock()
        self.safe_ms = now_ms()


class Backup:
    """Runs Litestream from `start` to `close`; what it holds meanwhile is said with `hold` and `release`."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.url = url
        self.durable_core = settings.durable_ack != DURABLE_OFF
        self.durable_all = settings.durable_ack == DURABLE_ALL
        self._settings = settings
        self._sources = list_sources(settings, url)
        self._control = Control(settings.backup_socket)
        self._shipping = Shipping(self._sync, self._is_safe)
        self._held = {_key(source.path): Held(source.url) for source in self._sources}
        self._lock: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._checked = False

    def start(self) -> None:
        """Begin to run it. Serving does not wait for it: who must know that something is safe waits in `ship`."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Ship the rest and end it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._shipping.close()
        if self._process is not None:
            await _end(self._process)
        await self._control.close()
        if self._lock is not None:
            os.close(self._lock)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def files(self) -> int:
        return len(self._held)

    @property
    def age_ms(self) -> int | None:
        """How old the backup is: since when it is not known of some file that all of it is in the replica."""
        if not self._checked:
            return None
        return now_ms() - min((held.safe_ms for held in self._held.values()), default=now_ms())

    async def hold(self, path: Path, url: str) -> None:
        """Ship a file from now on, also when Litestream is away now: then as soon as it is back."""
        path = _key(path)
        held = self._held.setdefault(path, Held(url))
        held.users += 1
        async with held.lock:
            if held.users > 1 or not self.running:
                return
            await self._register(path, url)

    async def release(self, path: Path) -> None:
        """Ship the rest of a file and let go of it."""
        path = _key(path)
        held = self._held[path]
        held.users -= 1
        async with held.lock:
            if held.users or self._held.get(path) is not held:
                return
            try:
                await self._control.unregister(path)
            except Unavailable as error:
                log.warning("rest_not_shipped", file=path.name, error=error.message)
            if not held.users:
                del self._held[path]

    async def ship(self, path: Path) -> None:
        """Wait until what is committed in a file is in the replica. Unavailable."""
        await self._shipping.ship(_key(path))

    def guard(self, db: Database) -> None:
        """Before the core is opened: Litestream checkpoints it, and writes wait for the replica where they shall."""
        if self._sources:
            db.writer.checkpoint_pages = 0
            if self.durable_core:
                db.shipped = lambda: self.ship(db.path)

    async def _register(self, path: Path, url: str) -> None:
        try:
            await self._control.register(path, url)
        except Unavailable as error:
            log.warning("not_registered", file=path.name, error=error.message)

    async def _sync(self, path: Path) -> None:
        # One that was left behind would answer too, and may ship somewhere else.
        if not self.running:
            raise NotReady("Litestream is not running")
        await self._control.sync(path)

    def _is_safe(self, path: Path, at_ms: int) -> None:
        held = self._held.get(path)
        if held is not None:
            held.safe_ms = at_ms

    # -- its life ----------------------------------------------------------------------------------------

    async def _run(self) -> None:
        shortest, longest = RESTART_SECONDS
        pause = shortest
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._take_over()
                process = await self._spawn()
                await self._watch(process)
                log.error("litestream_ended", code=process.returncode)
            except (OSError, Unavailable) as error:
                log.error("litestream_not_started", error=str(error))
            steady = asyncio.get_running_loop().time() - began > STEADY_SECONDS
            pause = shortest if steady else min(pause * 2, longest)
            await asyncio.sleep(pause)

    async def _take_over(self) -> None:
        """Get the lock; who holds it is a Litestream that was left behind, and is ended first."""
        if self._lock is None:
            self._lock = await take_lock(self._settings.data_dir, self._control)

    async def _spawn(self) -> asyncio.subprocess.Process:
        assert self._lock is not None
        settings = self._settings
        if self._process is not None:
            await _end(self._process)
        config = settings.data_dir / CONFIG_FILE
        mounted = settings.regions.replicated
        config.write_bytes(litestream.encode_config(settings.backup_socket, self._sources, mounted=mounted))
        # A group of its own: what a terminal interrupts must finish before this does.
        self._process = await asyncio.create_subprocess_exec(
            *(litestream.find_program(), "replicate", "-config", str(config), "-no-expand-env"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            pass_fds=(self._lock,),
            start_new_session=True,
            env=litestream.environment(),
        )
        return self._process

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Have it hold what it is to hold, and ask now and then whether all is safe, until it ends."""
        ended = asyncio.create_task(process.wait())
        try:
            if await self._answers(ended):
                for path, held in list(self._held.items()):
                    await self._register(path, held.url)
            while not ended.done():
                await self._probe()
                await asyncio.wait([ended], timeout=PROBE_SECONDS)
        finally:
            ended.cancel()

    async def _answers(self, ended: "asyncio.Task[int]") -> bool:
        async with asyncio.timeout(START_SECONDS):
            while not ended.done():
                try:
                    await self._control.info()
                    return True
                except NotReady:
                    await asyncio.wait([ended], timeout=POLL_SECONDS)
        return False

    async def _probe(self) -> None:
        for path, held in list(self._held.items()):
            try:
                await self._shipping.ship(path)
            except Unavailable as error:
                log.warning("not_shipped", file=path.name, error=str(error.__cause__ or error))
                await self._register(path, held.url)
                return
        self._checked = True


def begin(settings: Settings) -> Backup | None:
    """The backup that the settings name, with its Litestream on its way; None where they name none."""
    if settings.backup_url is None:
        return None
    backup = Backup(settings, settings.backup_url)
    backup.start()
    return backup


def list_sources(settings: Settings, url: str) -> list[Source]:
    """What is held from the start: at the primary the core, and the ledger where there is one; nothing elsewhere."""
    if settings.regions.replicated and not settings.regions.in_primary_region:
        return []
    notes = settings.data_dir / NOTES_FOLDER
    core = Source(settings.database_path, litestream.replica_of(url, "core"), notes / "core")
    ledger = Source(settings.ledger_path, litestream.replica_of(url, "ledger"), notes / "ledger")
    return [core, ledger] if settings.ledger_path.exists() else [core]


async def take_lock(data_dir: Path, control: Control) -> int:
    """The lock on the data's replica. A Litestream without a server ships its rest and ends. Unavailable."""
    path = data_dir / LOCK_FILE
    lock = folder.try_lock(path)
    if lock is not None:
        return lock
    pid = (await control.info()).pid
    log.warning("litestream_left_behind", pid=pid)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(pid, sign)
        until = asyncio.get_running_loop().time() + END_SECONDS
        while asyncio.get_running_loop().time() < until:
            lock = folder.try_lock(path)
            if lock is not None:
                return lock
            await asyncio.sleep(POLL_SECONDS)
    raise Unavailable(f"The Litestream with process id {pid} holds the data and does not end")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(END_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _key(path: Path) -> Path:
    """As Litestream names it."""
    return path.absolute()
