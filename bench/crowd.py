"""The crowd: WebSocket clients of one hub, some of which write; in a process of its own.

A change is counted for a client once its frame is there whole with its whole value. What one client was told
is usually what the next one was told, byte for byte: then it is compared, and not taken apart again.
"""

import asyncio
import re
import resource
import time
from collections import Counter
from typing import NamedTuple, cast

import uvloop

from bench import frames
from bench.dialects import FILLER, NUMBER_DIGITS, Dialect
from bench.process import cpu_seconds

# A litehouse connection may send 10,000 changes at once: no writer comes near it, so none is slowed down.
MOST_OF_A_WRITER = 8_000
KEYS = 16
JOIN_SECONDS = 60.0
GRACE_SECONDS = 30.0
MORE_DESCRIPTORS = 500

UPDATED = re.compile(rb'"key_updated",.*"value":"(\d{%d})%s"' % (NUMBER_DIGITS, FILLER.encode()))
JOINED = b'"sync"'
UPGRADED = b"HTTP/1.1 101 "


class Crowd(NamedTuple):
    """So many clients of the server that is process `pid`; the last `writers` of them write for `seconds`.

    A writer keeps `in_flight` changes on their way: it sends the next when it has heard one of its own. Numbers from
    `first` on never repeat: to set what is there already would be no change, and told to nobody.
    """

    port: int
    pid: int
    dialect: Dialect
    clients: int
    seconds: float
    in_flight: int = 1
    writers: int = 1
    first: int = 0


class Heard(NamedTuple):
    """Every client heard each of `changes`, exactly once. `busy` is the share of a core that listening took,
    `cpu_seconds` what the server spent meanwhile."""

    changes: int
    deliveries: int
    seconds: float
    busy: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Deliveries a second."""
        return self.deliveries / self.seconds


class _Chunk(NamedTuple):
    """What some bytes from a server say: changes by number, which writers they are of, what is to be answered."""

    data: bytes
    changes: int
    total: int
    of_writers: Counter[int]
    replies: bytes
    joined: bool
    rest: bytes


def drive(crowd: Crowd) -> Heard:
    """Let them in, let them write. ConnectionError for what was not heard exactly once, TimeoutError for silence."""
    allow_descriptors(crowd.clients + MORE_DESCRIPTORS)
    return uvloop.run(_drive(crowd))


async def _drive(crowd: Crowd) -> Heard:
    room = _Room(crowd, asyncio.get_running_loop())
    try:
        async with asyncio.timeout(JOIN_SECONDS):
            # Writers come last: what they hear, everybody has been told.
            await room.let_in(crowd.clients - crowd.writers)
            await room.let_in(crowd.writers)
        async with asyncio.timeout(crowd.seconds + GRACE_SECONDS):
            return await room.run()
    finally:
        for client in room.clients:
            client.close()


class _Room:
    """What the clients of one run share."""

    def __init__(self, crowd: Crowd, loop: asyncio.AbstractEventLoop) -> None:
        self._crowd = crowd
        self._loop = loop
        self._replies = dict(crowd.dialect.replies)
        self._missing = 0
        self._sent = [0] * crowd.writers
        self._delivered = 0
        self._until = 0.0
        self._last = _Chunk(b"", 0, 0, Counter(), b"", False, b"")
        self._waited: asyncio.Future[None] = loop.create_future()
        self.clients: list[_Client] = []

    async def let_in(self, count: int) -> None:
        """Connect so many more clients and wait until all of them are in."""
        self._missing, self._waited = count, self._loop.create_future()
        for _ in range(count):
            await self._loop.create_connection(lambda: _Client(self), "127.0.0.1", self._crowd.port)
        if count:
            await self._waited

    async def run(self) -> Heard:
        self._waited = self._loop.create_future()
        writers = self.clients[-self._crowd.writers :]
        begun, spent, cpu = time.perf_counter(), time.process_time(), cpu_seconds(self._crowd.pid)
        self._until = begun + self._crowd.seconds
        for number, client in enumerate(writers):
            client.write_as(number, self._crowd.in_flight)
        await self._waited
        seconds, busy = time.perf_counter() - begun, time.process_time() - spent
        cpu = cpu_seconds(self._crowd.pid) - cpu
        self._check()
        changes = sum(self._sent)
        return Heard(changes, changes * len(self.clients), seconds, busy / seconds, cpu)

    def upgrade(self) -> bytes:
        return frames.upgrade(self._crowd.dialect.target)

    def read(self, data: bytes) -> _Chunk:
        if data != self._last.data:
            self._last = self._take_apart(data)
        return self._last

    def next_changes(self, writer: int, count: int) -> bytes:
        """As many changes as a writer may send now, which are none when the time is over."""
        if time.perf_counter() >= self._until:
            return b""
        sent = self._sent[writer]
        self._sent[writer] = until = min(sent + count, MOST_OF_A_WRITER)
        return b"".join([self._change(writer, number) for number in range(sent, until)])

    def joined(self) -> None:
        self._missing -= 1
        if not self._missing and not self._waited.done():
            self._waited.set_result(None)

    def delivered(self, count: int) -> None:
        self._delivered += count
        if self._delivered >= sum(self._sent) * len(self.clients) and not self._waited.done():
            self._waited.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self._waited.done():
            self._waited.set_exception(error)

    def _change(self, writer: int, number: int) -> bytes:
        text = self._crowd.dialect.change % (number % KEYS, self._number(writer, number))
        return frames.masked(text.encode())

    def _number(self, writer: int, change: int) -> int:
        return self._crowd.first + change * self._crowd.writers + writer

    def _take_apart(self, data: bytes) -> _Chunk:
        numbers, replies, joined, whole = [], b"", False, 0
        for opcode, payload, end in frames.read(data):
            whole = end
            if opcode == frames.PING:
                replies += frames.masked(payload, frames.PONG)
            elif (found := UPDATED.search(payload)) is not None:
                numbers.append(int(found[1]))
            elif (reply := self._replies.get(payload[:1])) is not None:
                replies += frames.masked(reply)
            joined = joined or JOINED in payload
        writers = Counter((number - self._crowd.first) % self._crowd.writers for number in numbers)
        return _Chunk(data, len(numbers), sum(numbers), writers, replies, joined, data[whole:])

    def _check(self) -> None:
        """Every client heard every change once: their number is right, and so is the sum of their numbers."""
        changes = sum(self._sent)
        total = sum(self._number(writer, change) for writer, sent in enumerate(self._sent) for change in range(sent))
        for client in self.clients:
            if (client.count, client.total) != (changes, total):
                raise ConnectionError(f"{changes} changes were made, a client heard {client.count}")


class _Client(asyncio.Protocol):
    """One connection; a writer once it was told to write."""

    def __init__(self, room: _Room) -> None:
        self._room = room
        self._open = self._in = False
        self._held = b""
        self._writer = -1
        self.count = self.total = 0
        room.clients.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._room.upgrade())

    def write_as(self, writer: int, in_flight: int) -> None:
        self._writer = writer
        self._transport.write(self._room.next_changes(writer, in_flight))

    def data_received(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
        if not self._open and not (data := self._read_head(data)):
            return
        chunk = self._room.read(data)
        self._held = chunk.rest
        if chunk.replies:
            self._transport.write(chunk.replies)
        if chunk.joined and not self._in:
            self._in = True
            self._room.joined()
        if chunk.changes:
            self._hear(chunk)

    def _hear(self, chunk: _Chunk) -> None:
        self.count += chunk.changes
        self.total += chunk.total
        own = chunk.of_writers.get(self._writer, 0)
        if own and (changes := self._room.next_changes(self._writer, own)):
            self._transport.write(changes)
        self._room.delivered(chunk.changes)

    def _read_head(self, data: bytes) -> bytes:
        """What follows the answer to the handshake, once that is here whole."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._held = data
            return b""
        if not data.startswith(UPGRADED):
            self._room.fail(ConnectionError(f"the handshake was answered with {data[:200]!r}"))
        self._open, self._held = True, b""
        return data[end + 4 :]

    def connection_lost(self, error: Exception | None) -> None:
        self._room.fail(error or ConnectionError("The server closed a connection"))

    def close(self) -> None:
        self._transport.abort()


def allow_descriptors(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (count if hard == resource.RLIM_INFINITY else min(count, hard), hard)
        )
