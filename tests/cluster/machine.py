"""One machine of a test's cluster: the real app, on a node whose copy of the core lags as the test says.

`python -m tests.cluster.machine`: settings from the environment; REPLICATE_FROM names the primary's core, CONTROL a
file that says `{"paused": …, "delay": seconds, "lag_ms": …}`.
"""

import asyncio
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import app  # noqa: F401 - before anything that could load another SQLite
from app import cli
from app.edge import logs, sqlite
from app.edge.node import Node
from app.edge.transaction import Position
from app.settings import Settings, read_settings

LOOK_SECONDS = 0.005


class Copy(Node):
    """A replica: a thread copies the primary's whole core whenever it has changed."""

    def __init__(self, settings: Settings, source: Path, control: Path) -> None:
        super().__init__(settings.regions.region, settings.regions.machine or "", is_primary=False)
        self._source, self._target, self._control = source, settings.database_path, control
        self._loop: asyncio.AbstractEventLoop | None = None
        self._copy(sqlite.connect(source, read_only=True))
        threading.Thread(target=self._follow, daemon=True).start()

    async def wait_for(self, position: Position, seconds: float) -> bool:
        self._loop = asyncio.get_running_loop()
        return await super().wait_for(position, seconds)

    def _follow(self) -> None:
        source = sqlite.connect(self._source, read_only=True)
        seen = 0
        while True:
            time.sleep(LOOK_SECONDS)
            said = json.loads(self._control.read_text())
            self.lag_ms = said["lag_ms"]
            (version,) = source.execute("PRAGMA data_version").fetchone()
            if said["paused"] or version == seen:
                continue
            time.sleep(said["delay"])
            try:
                self._copy(source)
            except sqlite.Error:
                continue
            seen = version

    def _copy(self, source: Any) -> None:
        target = sqlite.connect(self._target)
        try:
            target.execute("PRAGMA synchronous = OFF")
            source.backup(target)
            position = Position(*target.execute("SELECT epoch, sequence FROM replication_token").fetchone())
        finally:
            target.close()
        if self._loop is None:
            self.advance(position)
        else:
            self._loop.call_soon_threadsafe(self.advance, position)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = read_settings()
    logs.configure("warning")
    listeners = cli.bind(settings)
    source = os.environ.get("REPLICATE_FROM")
    node = (
        Copy(settings, Path(source), Path(os.environ["CONTROL"]))
        if source
        else Node(settings.regions.region, settings.regions.machine or "")
    )
    cli.run(settings, listeners, None, True, node)


if __name__ == "__main__":
    main()
