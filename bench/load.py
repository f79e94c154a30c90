"""The load generator: each connection sends, is answered, sends again; in a process of its own.

Requests are bytes made beforehand, of an answer only the status and Content-Length are read, so that one
core of this drives more than any server here can answer.
"""

import asyncio
import time
from array import array
from collections import Counter
from typing import NamedTuple, cast

import uvloop

MOST_REQUESTS = 1_000_000
# What is under way when the time is over is waited for: every request that was sent is answered and counted.
GRACE_SECONDS = 15.0
LENGTH = b"content-length: "
STATUS = slice(9, 12)


class Plan(NamedTuple):
    """What is sent in turn, over how many connections, until which of `seconds` and `most` requests comes first.

    With `numbers`, a template holds that many `%d`, filled with numbers from `first` on that never repeat.
    With `every` (seconds), a connection sends at those times instead of as soon as it is answered; when an
    answer is late, the time that the next request had to wait for it counts as that request's.
    """

    port: int
    templates: tuple[bytes, ...]
    connections: int
    seconds: float
    numbers: int = 0
    first: int = 0
    most: int = MOST_REQUESTS
    every: float = 0.0


class Run(NamedTuple):
    """What came of a plan. `statuses` counts answers by status, `sample` is one that was not 200, if any."""

    answers: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    statuses: dict[int, int]
    sample: bytes

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds


def drive(plan: Plan) -> Run:
    """Carry out a plan on 127.0.0.1. ConnectionError when the server hangs up, TimeoutError when it is silent."""
    return uvloop.run(_drive(plan))


async def _drive(plan: Plan) -> Run:
    loop = asyncio.get_running_loop()
    load = _Load(plan, loop.create_future())
    for _ in range(plan.connections):
        await loop.create_connection(lambda: _Connection(load), "127.0.0.1", plan.port)
    try:
        async with asyncio.timeout(plan.seconds + GRACE_SECONDS):
            load.begin()
            await load.ended
    finally:
        for connection in load.connections:
            connection.close()
    return load.result()


class _Load:
    """What the connections of one run share."""

    def __init__(self, plan: Plan, ended: "asyncio.Future[None]") -> None:
        self._plan = plan
        self._sent = 0
        self._begun = self._until = self._last = 0.0
        self._latencies = array("d")
        self._statuses: Counter[int] = Counter()
        self._sample = b""
        self.connections: list[_Connection] = []
        self.busy = 0
        self.every = plan.every
        self.ended = ended

    def begin(self) -> None:
        self._begun = time.perf_counter()
        self._until = self._begun + self._plan.seconds
        self.busy = len(self.connections)
        for number, connection in enumerate(self.connections):
            connection.begin(number * self.every / self.busy)

    def next_request(self, now: float) -> bytes | None:
        plan, sent = self._plan, self._sent
        if now >= self._until or sent >= plan.most:
            return None
        self._sent = sent + 1
        template = plan.templates[sent % len(plan.templates)]
        if not plan.numbers:
            return template
        first = plan.first + sent * plan.numbers
        return template % tuple(range(first, first + plan.numbers))

    def answered(self, status: int, seconds: float, now: float, answer: bytes) -> None:
        self._latencies.append(seconds)
        self._statuses[status] += 1
        self._last = now
        if status != 200 and not self._sample:
            self._sample = answer[:500]

    def finish_one(self) -> None:
        self.busy -= 1
        if not self.busy and not self.ended.done():
            self.ended.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)

    def result(self) -> Run:
        ordered = sorted(self._latencies)
        last = len(ordered) - 1
        p50, p99, most = (1000 * ordered[round(last * part)] for part in (0.5, 0.99, 1))
        return Run(len(ordered), self._last - self._begun, p50, p99, most, dict(self._statuses), self._sample)


class _Connection(asyncio.Protocol):
    """Sends one request, reads its answer, sends the next."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._sent_at = self._due = 0.0
        self._held = b""
        load.connections.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def begin(self, wait: float) -> None:
        """Send the first request, `wait` seconds from now, so that connections do not ask all at once."""
        now = time.perf_counter()
        self._due = now + wait
        self._send_when_due(now)

    def send_next(self, now: float) -> None:
        request = self._load.next_request(now)
        if request is None:
            self._load.finish_one()
            return
        self._sent_at = now
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
        if not _is_whole(data):
            self._held = data
            return
        self._held = b""
        now = time.perf_counter()
        self._load.answered(int(data[STATUS]), now - self._sent_at, now, data)
        if self._load.every:
            self._due += self._load.every
            self._send_when_due(now)
        else:
            self.send_next(now)

    def _send_when_due(self, now: float) -> None:
        if self._due > now:
            asyncio.get_running_loop().call_later(self._due - now, lambda: self.send_next(time.perf_counter()))
        else:
            self.send_next(now)
            self._sent_at = self._due

    def connection_lost(self, error: Exception | None) -> None:
        self._load.fail(error or ConnectionError("The server closed a connection"))

    def close(self) -> None:
        self._transport.close()


def _is_whole(data: bytes) -> bool:
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    at = data.find(LENGTH, 0, end)
    if at < 0:
        return True
    at += len(LENGTH)
    return len(data) >= end + 4 + int(data[at : data.index(b"\r", at)])
