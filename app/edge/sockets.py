"""Sockets: what all open WebSockets of a server share, a limit for each and for all, and one timer that keeps
them alive."""

import asyncio
import itertools
from typing import NamedTuple, Protocol

from websockets.frames import CloseCode

from app.edge.framing import Violation

MESSAGE_BYTES = 10 << 20
HELD_BYTES = 256 << 20
PING_SECONDS = 20.0
# Pings go out in so many portions: those of a thousand sockets at once would hold up everything else.
PORTIONS = 20


class Limits(NamedTuple):
    """`message_bytes` of one message, `held_bytes` of all that have arrived in part, seconds between two pings."""

    message_bytes: int = MESSAGE_BYTES
    held_bytes: int = HELD_BYTES
    ping_seconds: float = PING_SECONDS


LIMITS = Limits()


class Pinged(Protocol):
    slot: int

    def ping(self) -> None: ...


class Sockets:
    """One for a server. Its timer runs only while a socket is open."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.held = 0
        self._portions: list[set[Pinged]] = [set() for _ in range(PORTIONS)]
        self._next_slot = itertools.cycle(range(PORTIONS))
        self._next_portion = itertools.cycle(self._portions)
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return sum(map(len, self._portions))

    def add(self, socket: Pinged) -> int:
        """The portion of which it is."""
        slot = next(self._next_slot)
        self._portions[slot].add(socket)
        if self._timer is None:
            self._set_timer()
        return slot

    def discard(self, socket: Pinged) -> None:
        self._portions[socket.slot].discard(socket)

    def hold(self, size: int) -> None:
        """Count what arrived of messages that are not whole yet. Violation above the limit for all together."""
        self.held += size
        if self.held > self.limits.held_bytes:
            raise Violation(CloseCode.TRY_AGAIN_LATER, "too many large messages at once")

    def release(self, size: int) -> None:
        self.held -= size

    def _set_timer(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self.limits.ping_seconds / PORTIONS, self._ping_portion)

    def _ping_portion(self) -> None:
        for socket in tuple(next(self._next_portion)):
            socket.ping()
        self._timer = None
        if any(self._portions):
            self._set_timer()
