"""A link between two machines: bytes carried to a port of loopback, later, or not at all, or cut off."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any

CHUNK_BYTES = 65_536


class Link:
    """Carries TCP to `target`. `delay_seconds` is for each direction; while it is `held` nothing is carried.

    It runs on a thread of its own; the test sets it from outside. `refuse` is a machine that is not there.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay_seconds = 0.0
        self.held = False
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._run(asyncio.start_server(self._carry, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def drop(self) -> None:
        """Cut off what is connected; who comes again is let in."""
        self._run(self._drop())

    def refuse(self) -> None:
        self._run(self._close())

    def accept(self) -> None:
        self._server = self._run(asyncio.start_server(self._carry, "127.0.0.1", self.port))

    def close(self) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _drop(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()
        while self._writers:
            await asyncio.sleep(0.001)

    async def _close(self) -> None:
        self._server.close()
        await self._drop()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        there = None
        try:
            there_reader, there = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(there)
            await asyncio.gather(self._pump(reader, there), self._pump(there_reader, writer))
        except OSError:
            pass
        finally:
            for each in (writer, there):
                if each is not None:
                    self._writers.discard(each)
                    each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            while self.held:
                await asyncio.sleep(0.002)
            writer.write(chunk)
            await writer.drain()
        with contextlib.suppress(OSError):
            if writer.can_write_eof():
                writer.write_eof()
