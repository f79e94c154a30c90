"""A member: one connection of an instance as its hub sees it, with an outbox that is never without bound.

While the kernel takes what is written, frames go out joined, as they come. Once too much waits, only the newest
change of each key is kept, in order of seq, until the connection reads again; one that stays slow is closed.
"""

import itertools
import time
from collections.abc import Sequence

from app.edge.socket import Socket
from app.instances import entry, protocol
from app.instances.allowance import Allowance
from app.instances.draft import Caller, Refusal, Told, frame_of
from app.instances.entry import Entry
from app.projects.access import Level

OUTBOX_BYTES = 1 << 20
COALESCED_BYTES = 16 << 20
SLOW_SECONDS = 20.0
ERROR_SECONDS = 1.0
SLOW_CODE, SLOW_REASON = 4408, "Too slow"

_numbers = itertools.count(1)


class Member:
    """`plain` members hear everything; the others have a filter, or do not want their own changes back."""

    def __init__(
        self,
        socket: Socket,
        caller: Caller,
        cap: Level,
        allowance: Allowance,
        *,
        echo: bool = True,
        prefix: str | None = None,
        tag: str | None = None,
    ) -> None:
        self.id = f"c{next(_numbers)}"
        self.socket = socket
        self.caller = caller
        self.cap = cap
        self.allowance = allowance
        self.echo = echo
        self.prefix = prefix
        self.tag = tag
        self.plain = echo and prefix is None and tag is None
        self.present = False
        self._kept: dict[str, bytes] | None = None
        self._kept_bytes = 0
        self._slow_since = 0.0
        self._errors: dict[str, float] = {}

    @property
    def slow(self) -> bool:
        return self._kept is not None

    def wants(self, held: Entry) -> bool:
        if self.prefix is not None and not held.key.startswith(self.prefix):
            return False
        return self.tag is None or entry.has_tag(held, self.tag)

    def send(self, payload: bytes) -> None:
        """A frame for this member alone."""
        self.socket.write(payload)

    def hear(self, told: Sequence[Told], shared: bytes) -> None:
        """Changes that were committed; `shared` is all of them, framed and joined."""
        # Hardly anybody is congested, and to ask how much waits costs a tenth of telling a change.
        if self._kept is None and self.socket.congested and self.socket.buffered > OUTBOX_BYTES:
            self._kept, self._slow_since = {}, time.monotonic()
        if self._kept is not None:
            self._keep(told)
        elif self.plain:
            self.socket.write_framed(shared)
        else:
            self.socket.write_joined([payload for one in told if (payload := self._hears(one))])

    def drained(self) -> None:
        """The kernel has taken what waited: send what was kept meanwhile."""
        kept, self._kept, self._kept_bytes = self._kept, None, 0
        if kept:
            self.socket.write_joined(kept.values())

    def overdue(self, now: float) -> bool:
        return self._kept is not None and now - self._slow_since > SLOW_SECONDS

    def drop(self) -> None:
        self.socket.close(SLOW_CODE, SLOW_REASON)

    def refuse(self, refusal: Refusal, stored: Entry | None, now: int, seq: int, op_id: str | None) -> None:
        """First what the key really holds, so that the client has nothing left to push; then one error."""
        if refusal.key is not None and stored is not None:
            self.send(protocol.key_updated(stored, self.caller.public_id))
        elif refusal.key is not None:
            self.send(protocol.key_deleted(refusal.key, self.caller.public_id, now, seq))
        self.error(refusal.message, refusal.frame_code, op_id)

    def error(self, message: str, code: str, op_id: str | None = None) -> None:
        """An error frame, at most one of a kind in ERROR_SECONDS unless an operation waits for its answer."""
        at = time.monotonic()
        if op_id is None and at - self._errors.get(code, -ERROR_SECONDS) < ERROR_SECONDS:
            return
        self._errors[code] = at
        self.send(protocol.error(message, code, op_id))

    def _hears(self, told: Told) -> bytes | None:
        """The frame of a change as this member is to hear it; what leaves a filter is deleted for it."""
        record = told.record
        if told.sender == self.id and not self.echo:
            return None
        if record.key is None or (self.prefix is None and self.tag is None):
            return told.frame
        if record.entry is not None and self.wants(record.entry):
            return told.frame
        if record.previous is not None and self.wants(record.previous):
            return frame_of(record._replace(entry=None))
        return None

    def _keep(self, told: Sequence[Told]) -> None:
        kept = self._kept
        assert kept is not None
        for one in told:
            payload = self._hears(one)
            if payload is None:
                continue
            if one.record.key is None:
                kept.clear()
                self._kept_bytes = 0
            key = one.record.key or ""
            self._kept_bytes += len(payload) - len(kept.pop(key, b""))
            kept[key] = payload
        if self._kept_bytes > COALESCED_BYTES:
            self.drop()
