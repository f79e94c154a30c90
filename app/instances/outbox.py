"""The outbox: what waits for one connection, never without bound.

While the kernel takes what is written, frames go out as they come. Once too much waits, or a long text is being
written, they are kept: of each key and of each one's presence only the newest, all in order. Those of a change are
the same bytes for every connection. Whoever takes nothing for a while, or has too much kept for it, is closed.
"""

import itertools
from collections.abc import Iterable

from app.edge.socket import Socket

OUTBOX_BYTES = 1 << 20
COALESCED_BYTES = 16 << 20
SLOW_SECONDS = 20.0
SLOW_CODE, SLOW_REASON = 4408, "Too slow"
# What was kept leaves in portions, so that most of it is still the newest when it does.
PORTION_BYTES = 64 << 10

# The name of what is kept: a change's is its key; a presence's is told by Presence; all else has a number of its own.
Name = str | int | tuple[str, str]
CLEARED = ""

_numbers = itertools.count(1)


class Outbox:
    """`lags` says whether frames are kept. What is kept for a socket that is closing is dropped."""

    __slots__ = ("_kept", "_kept_bytes", "_socket")

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._kept: dict[Name, bytes] = {}
        self._kept_bytes = 0

    @property
    def lags(self) -> bool:
        return bool(self._kept) or self._socket.unfinished or self._socket.buffered > OUTBOX_BYTES

    def send(self, payload: bytes, name: Name | None = None) -> None:
        """A frame for this connection alone; of those of one name the newest will do."""
        if self.lags:
            self.keep(next(_numbers) if name is None else name, payload)
        else:
            self._socket.write(payload)

    def send_all(self, payloads: Iterable[bytes]) -> None:
        """Several frames, however many they are."""
        for payload in payloads:
            self.keep(next(_numbers), payload)
        self.write_on()

    def keep(self, name: Name, payload: bytes) -> None:
        if not self._socket.is_open:
            return
        self._kept_bytes += len(payload) - len(self._kept.pop(name, b""))
        self._kept[name] = payload
        if self._kept_bytes > COALESCED_BYTES:
            self.drop()

    def keep_cleared(self, payload: bytes) -> None:
        """Everything was removed: what is kept of keys is of no use any more."""
        for name in [name for name in self._kept if isinstance(name, str)]:
            self._kept_bytes -= len(self._kept.pop(name))
        self.keep(CLEARED, payload)

    def write_on(self) -> None:
        """Write what is kept, until too much waits again."""
        while self._kept and not (self._socket.unfinished or self._socket.congested):
            names, size = [], 0
            for name, payload in self._kept.items():
                names.append(name)
                size += len(payload)
                if size >= PORTION_BYTES:
                    break
            self._kept_bytes -= size
            self._socket.write_joined([self._kept.pop(name) for name in names])

    def overdue(self, now: float) -> bool:
        """Whether the connection has taken nothing for SLOW_SECONDS. `now` is of the monotonic clock."""
        return self._socket.congested and now - self._socket.congested_at > SLOW_SECONDS

    def drop(self) -> None:
        self._kept, self._kept_bytes = {}, 0
        self._socket.close(SLOW_CODE, SLOW_REASON)
