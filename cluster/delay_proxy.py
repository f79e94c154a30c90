"""A TCP proxy between two regions: bytes arrive later, or not at all for a while, or the line is cut."""

import asyncio
from contextlib import suppress

from cluster.own_loop import OwnLoop

PIECE_BYTES = 16 << 10
PIECES = 64


class DelayProxy(OwnLoop):
    """`delay` is for each direction, in seconds."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay = 0.0
        self.connections = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self._cut = False
        self._running = asyncio.Event()
        self._running.set()
        super().__init__()

    def pause(self) -> None:
        """Hold back all bytes; connections stay open, and new ones are accepted."""
        self.call(self._running.clear)

    def resume(self) -> None:
        self.call(self._running.set)

    def drop(self) -> None:
        """End all connections; who comes again is let in."""
        self.call(self._end_all)

    def cut(self) -> None:
        """End all connections, and each new one at once, until `mend`."""
        self._cut = True
        self.drop()

    def mend(self) -> None:
        self._cut = False

    def _end_all(self) -> None:
        for task in self._serving:
            task.cancel()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        far: asyncio.StreamWriter | None = None
        try:
            if not self._cut:
                far_reader, far = await asyncio.open_connection("127.0.0.1", self.target)
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(reader, far, "bytes_up"))
                    group.create_task(self._pump(far_reader, writer, "bytes_down"))
        except (OSError, ExceptionGroup):
            pass
        finally:
            for end in (writer, far):
                if end is not None:
                    end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counter: str) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES)
        carrying = asyncio.create_task(self._carry(pieces, writer))
        try:
            while piece := await reader.read(PIECE_BYTES):
                setattr(self, counter, getattr(self, counter) + len(piece))
                await pieces.put((self._loop.time() + self.delay, piece))
            await pieces.put((0.0, b""))
            await carrying
        finally:
            carrying.cancel()

    async def _carry(self, pieces: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
        while True:
            due, piece = await pieces.get()
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            await self._running.wait()
            if not piece:
                with suppress(OSError):
                    writer.write_eof()
                return
            writer.write(piece)
            await writer.drain()
