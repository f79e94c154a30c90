"""A server of the tests that runs in a thread of its own, whatever the loop of the test is doing."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress


class OwnLoop:
    """Listens on a port of loopback until it is closed; `serve` is called for each connection."""

    def __init__(self) -> None:
        self.port = 0
        self._serving: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            self._serving.discard(task)
            # One that was cancelled before it began has closed nothing.
            if not writer.is_closing():
                writer.transport.abort()

        # The loop alone would let a task be collected while it waits.
        task = self._loop.create_task(self._keep(reader, writer))
        self._serving.add(task)
        task.add_done_callback(ended)

    async def _keep(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whoever cancels it means this connection; the loop would log that as an error.
        with suppress(asyncio.CancelledError):
            await self.serve(reader, writer)

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
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._end(server))
        self._loop.close()

    async def _end(self, server: asyncio.Server) -> None:
        # What was accepted needs a server that is open still, or its socket is closed by nobody.
        for listening in server.sockets:
            self._loop.remove_reader(listening.fileno())
        await asyncio.sleep(0)
        server.close()
        # It becomes a task of its own once it has begun.
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # The transports that were aborted close in the next turn.
            await asyncio.sleep(0)
