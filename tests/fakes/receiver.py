"""A fake receiver of webhooks: it keeps what it was sent, and answers as it is told."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.fakes.serving import served

HOLD_SECONDS = 20.0


class Received(NamedTuple):
    """One request; header names are in lower case."""

    path: str
    headers: dict[str, str]
    body: str


class Receiver:
    """`statuses` are the next answers, `status` every later one; `held` keeps answers back until it is released."""

    def __init__(self) -> None:
        self.url = ""
        self.received: list[Received] = []
        self.statuses: list[int] = []
        self.status = 204
        self.location: str | None = None
        self.most_at_once = 0
        self._at_once = 0
        self._arrived = threading.Condition()
        self._released = threading.Event()
        self._released.set()
        self.app = Starlette(routes=[Route("/{path:path}", self._receive, methods=["GET", "POST"])])

    def hold(self) -> None:
        self._released.clear()

    def release(self) -> None:
        self._released.set()

    def wait(self, count: int, seconds: float = 10.0) -> list[Received]:
        """What was received, once there are so many."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.received) >= count, seconds), self.received
            return list(self.received)

    async def _receive(self, request: Request) -> Response:
        body = (await request.body()).decode()
        with self._arrived:
            self.received.append(Received(request.url.path, dict(request.headers), body))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self._arrived.notify_all()
        if not self._released.is_set():
            await anyio.to_thread.run_sync(self._released.wait, HOLD_SECONDS)
        self._at_once -= 1
        status = self.statuses.pop(0) if self.statuses else self.status
        return Response(status_code=status, headers={"Location": self.location} if self.location else None)


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    with served(receiver.app) as url:
        receiver.url = url
        try:
            yield receiver
        finally:
            receiver.release()
