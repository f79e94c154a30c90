"""The ticker: `litehouse serve` in this process, whose loop is asked a thousand times a second how late it comes.

A tick that was missed while the loop was held up counts with what was left of that: it is what somebody who had come
at that moment would have waited. `python -m bench.ticker OUT litehouse's words`: SIGUSR1 begins, SIGUSR2 ends it and
writes OUT, in milliseconds.
"""

import asyncio
import json
import signal
import sys
import time
from array import array
from pathlib import Path
from typing import Any

TICK_SECONDS = 0.001


class Ticker:
    def __init__(self, out: Path) -> None:
        self._out = out
        self._late = array("d")
        self._due = 0.0
        self._running = False

    def install(self) -> None:
        signal.signal(signal.SIGUSR1, self._begin)
        signal.signal(signal.SIGUSR2, self._end)

    def _begin(self, *_: Any) -> None:
        self._late, self._due, self._running = array("d"), time.perf_counter() + TICK_SECONDS, True
        # The signal came between two steps of the loop, which need not be awake.
        asyncio.get_running_loop().call_soon_threadsafe(self._tick)

    def _tick(self) -> None:
        now = time.perf_counter()
        while self._due <= now:
            self._late.append(1000 * (now - self._due))
            self._due += TICK_SECONDS
        if self._running:
            # No sooner: uvloop knows whole milliseconds, and would come again and again within one.
            asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _end(self, *_: Any) -> None:
        self._running = False
        part = self._out.with_suffix(".part")
        part.write_text(json.dumps(list(self._late)))
        part.rename(self._out)


if __name__ == "__main__":
    Ticker(Path(sys.argv[1])).install()
    from app.cli import main

    main(sys.argv[2:])
