"""The request log: one line an answer, gathered and written together off the hot path.

A path, never a query, a header or a body: those hold secrets.
"""

import asyncio
import sys
from typing import TextIO

import msgspec

from app.edge.clock import instant, now_ms

FLUSH_SECONDS = 0.1
GATHERED_LINES = 10_000

_encode_lines = msgspec.json.Encoder().encode_lines


class Line(msgspec.Struct):
    """One answer, in the order in which its fields are written."""

    timestamp: str
    method: str
    path: str
    status: int
    ms: float
    request_id: str
    event: str = "request"
    level: str = "info"


class RequestLog:
    """`note` appends; `flush` writes what has gathered in one call. More than GATHERED_LINES flush at once."""

    def __init__(self, enabled: bool, out: TextIO = sys.stderr) -> None:
        self._enabled = enabled
        self._out = out
        self._lines: list[Line] = []

    def note(self, method: str, path: str, status: int, seconds: float, request_id: str) -> None:
        if not self._enabled:
            return
        ms = round(seconds * 1000, 2)
        self._lines.append(Line(instant(now_ms()), method, path, status, ms, request_id))
        if len(self._lines) >= GATHERED_LINES:
            self.flush()

    def flush(self) -> None:
        self._write(self._take())

    def _take(self) -> list[Line]:
        lines, self._lines = self._lines, []
        return lines

    def _write(self, lines: list[Line]) -> None:
        if lines:
            self._out.write(_encode_lines(lines).decode())
            self._out.flush()

    async def run(self) -> None:
        """Flush every FLUSH_SECONDS until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(FLUSH_SECONDS)
                # Taken here, on the loop: a line that is noted meanwhile goes to the next flush.
                await asyncio.to_thread(self._write, self._take())
        finally:
            self.flush()
