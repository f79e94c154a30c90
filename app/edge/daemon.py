"""The daemon: a Litestream that is our child, and comes back when it ends.

It inherits a lock on the data: whoever starts after us finds one that was left behind by that lock, ends it, and
only then starts another, because two on one file would lose what either ships.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from app.edge import folder, litestream
from app.edge.control import Control
from app.edge.litestream import Source
from app.errors import Unavailable
from app.settings import Settings

LOCK_FILE = "litestream.lock"
CONFIG_FILE = "litestream.json"
POLL_SECONDS = 0.02
# What it may take to ship the rest; then it is killed, and the next one ships it.
END_SECONDS = litestream.SHUTDOWN_SECONDS + 3.0
RESTART_SECONDS = (0.2, 30.0)
# It ran for so long: what ended it now has nothing to do with how it began.
STEADY_SECONDS = 60.0

log = structlog.get_logger("litestream")


class Daemon:
    """Runs from `start` to `close`. `keep` is run beside each child: should it fail, that child is ended."""

    def __init__(
        self,
        settings: Settings,
        sources: Sequence[Source],
        control: Control,
        keep: Callable[[], Coroutine[None, None, None]],
    ) -> None:
        self._settings = settings
        self._sources = sources
        self._control = control
        self._keep = keep
        self._lock: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End it; it ships what it can by itself."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._process is not None:
            await _end(self._process)
        if self._lock is not None:
            os.close(self._lock)

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
        for source in self._sources:
            litestream.claim_notes(source.notes, source.url)
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
        """Until it ends, or does not do what it is for."""
        ended, kept = asyncio.create_task(process.wait()), asyncio.create_task(self._keep())
        try:
            await asyncio.wait((ended, kept), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            kept.cancel()
            await asyncio.wait((ended, kept))
        await _end(process)


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
