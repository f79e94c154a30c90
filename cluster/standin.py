"""The stand-in for LiteFS: one process for each machine, started as `python -m cluster.standin`.

It speaks LiteFS's HTTP interface, `/info` and `/events`, and keeps the files `.lag`, `.primary` and `core.db-pos` in
the machine's folder. A replica's copies what the primary has committed into its own file, whole, in one transaction
of SQLite's backup interface: readers in other processes see the old state or the new one. It has no file system of
its own, so a write to a replica is not refused and an open read holds nothing up: that only the real one shows.
`POST /standin` sets `lagMs`, `held` and `saidLagMs`, `POST /standin/drop` ends the streams of events.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any

from aiohttp import web

import app  # noqa: F401 - before anything that could load another SQLite
from app.edge import sqlite

DATABASE = "core.db"
POLL_SECONDS = 0.003
LAG_FILE_SECONDS = 0.02
# As many as LiteFS keeps for a reader of its stream, before it drops it.
EVENTS_KEPT = 1_024
UNKNOWN_LAG = (1 << 31) - 1


class Machine:
    """`source` is the primary's folder, None on the primary itself."""

    def __init__(self, name: str, folder: Path, source: Path | None) -> None:
        self.name = name
        self.folder = folder
        self.source = source
        self.lag_seconds = 0.0
        self._released = asyncio.Event()
        self._released.set()
        self.said_lag_ms: int | None = None
        self.transactions = 0
        self.fresh_at: float | None = None
        self._target: Any = None
        self._streams: set[asyncio.Queue[bytes | None]] = set()

    @property
    def role(self) -> dict[str, Any]:
        return {"isPrimary": self.source is None} | ({} if self.source is None else {"hostname": "primary"})

    # -- HTTP ------------------------------------------------------------------------------------------

    async def info(self, _: web.Request) -> web.Response:
        return web.json_response(self.role | {"path": str(self.folder), "candidate": self.source is None})

    async def events(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(EVENTS_KEPT)
        queue.put_nowait(_line("init", self.role))
        self._streams.add(queue)
        try:
            while (line := await queue.get()) is not None:
                await answer.write(line)
        finally:
            self._streams.discard(queue)
        return answer

    async def control(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        self.lag_seconds = wanted.get("lagMs", self.lag_seconds * 1000) / 1000
        if "held" in wanted:
            (self._released.clear if wanted["held"] else self._released.set)()
        self.said_lag_ms = wanted.get("saidLagMs", self.said_lag_ms)
        return web.Response()

    async def drop(self, _: web.Request) -> web.Response:
        for queue in list(self._streams):
            self._end(queue)
        return web.Response()

    async def change_role(self, request: web.Request) -> web.Response:
        self._tell(_line("primaryChange", await request.json()))
        return web.Response()

    # -- replication -----------------------------------------------------------------------------------

    async def replicate(self) -> None:
        """Tell of every state that the primary reaches, and on a replica copy it first."""
        watched = (self.source or self.folder) / DATABASE
        while not watched.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(POLL_SECONDS)
        source = sqlite.connect(watched, read_only=True)
        seen = 0
        while True:
            looked_at = time.time()
            version = source.execute("PRAGMA data_version").fetchone()[0]
            if version != seen:
                if self.source is not None and not await self._copy(source):
                    continue
                seen = version
                self._commit()
            elif not self._released.is_set():
                await asyncio.sleep(POLL_SECONDS)
                continue
            self.fresh_at = looked_at
            await asyncio.sleep(POLL_SECONDS)

    async def _copy(self, source: Any) -> bool:
        """What is committed now arrives after the lag, and not while replication is held."""
        import sqlite3

        copied = sqlite3.connect(":memory:", check_same_thread=False)
        try:
            source.backup(copied)
            if not copied.execute("SELECT 1 FROM sqlite_schema").fetchone():
                return False
            await asyncio.sleep(self.lag_seconds)
            await self._released.wait()
            await asyncio.to_thread(self._apply, copied)
        finally:
            copied.close()
        return True

    def _apply(self, copied: Any) -> None:
        if self._target is None:
            self._target = sqlite.connect(self.folder / DATABASE, other_threads=True)
            sqlite.enter_wal(self._target)
        copied.backup(self._target)

    def _commit(self) -> None:
        self.transactions += 1
        position = f"{self.transactions:016x}"
        _replace(self.folder / f"{DATABASE}-pos", f"{position}/0000000000000000\n")
        self._tell(_line("tx", {"txID": position, "timestamp": time.time()}, db=DATABASE))

    async def keep_lag(self) -> None:
        while True:
            lag = 0.0 if self.source is None else UNKNOWN_LAG
            if self.source is not None and self.fresh_at is not None:
                lag = 1000 * (time.time() - self.fresh_at)
            if self.said_lag_ms is not None:
                lag = self.said_lag_ms
            _replace(self.folder / ".lag", f"{round(lag):+010d}\n")
            await asyncio.sleep(LAG_FILE_SECONDS)

    def _tell(self, line: bytes) -> None:
        for queue in list(self._streams):
            try:
                queue.put_nowait(line)
            except asyncio.QueueFull:
                self._end(queue)

    def _end(self, queue: "asyncio.Queue[bytes | None]") -> None:
        self._streams.discard(queue)
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)


def _line(kind: str, data: dict[str, Any], **more: str) -> bytes:
    return json.dumps({"type": kind, **more, "data": data}).encode() + b"\n"


def _replace(path: Path, text: str) -> None:
    """Whole, for whoever reads it meanwhile."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)


async def serve(machine: Machine, port: int) -> None:
    site = web.Application()
    site.add_routes(
        [
            web.get("/info", machine.info),
            web.get("/events", machine.events),
            web.post("/standin", machine.control),
            web.post("/standin/drop", machine.drop),
            web.post("/standin/role", machine.change_role),
        ]
    )
    runner = web.AppRunner(site, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.gather(machine.replicate(), machine.keep_lag())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--source", type=Path)
    given = parser.parse_args()
    machine = Machine(given.name, given.folder, given.source)
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.source is not None:
        _replace(given.folder / ".primary", "primary\n")
    asyncio.run(serve(machine, given.port))


if __name__ == "__main__":
    main()
