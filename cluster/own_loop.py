"""A server of the tests that runs in a thread of its own, whatever the loop of the test is doing."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress


class OwnLoop:
    """Listens on a port of loopback until it is closed; `serve` is called for each connection."""

    def __init__(self) -> None:
        self.port = 0
        self._serving: set[asyncio.Task[None] | None] = set()
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    async def _keep(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The loop alone would let a task be collected while it waits.
        self._serving.add(asyncio.current_task())
        try:
            # Whoever cancels it means this connection; the loop would log that as an error.
            with suppress(asyncio.CancelledError):
                await self.serve(reader, writer)
        finally:
            self._serving.discard(asyncio.current_task())

    def call(self, what: Callable[[], object]) -> None:
        """Run `what` on the loop, and wait for that."""
        done = threading.Event()

        def run() -> None:
            what()
            done.set()

        self._loop.call_soon_threadsafe(run)
        done.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._keep, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # The transports that were aborted close in the next turn.
        await asyncio.sleep(0)
