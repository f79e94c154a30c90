"""A member: one connection of an instance as its hub sees it, what it may do and what it is to hear."""

import itertools
import time
from collections.abc import Sequence

from app.edge.socket import Socket
from app.instances import entry, protocol
from app.instances.allowance import Allowance
from app.instances.draft import Caller, Refusal, Told, frame_of
from app.instances.entry import Entry
from app.instances.outbox import Outbox
from app.projects.access import Level

ERROR_SECONDS = 1.0

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
        # When what it may do ends by itself; None for never.
        self.until_ms: int | None = None
        self.outbox = Outbox(socket)
        self._errors: dict[str, float] = {}

    def wants(self, held: Entry) -> bool:
        if self.prefix is not None and not held.key.startswith(self.prefix):
            return False
        return self.tag is None or entry.has_tag(held, self.tag)

    def send(self, payload: bytes) -> None:
        """A frame for this member alone."""
        self.outbox.send(payload)

    def hear(self, told: Sequence[Told], shared: bytes) -> None:
        """Changes that were committed; `shared` is all of them, framed and joined."""
        if self.outbox.lags:
            self._keep(told)
        elif self.plain:
            self.socket.write_framed(shared)
        else:
            self.socket.write_joined([payload for one in told if (payload := self._hears(one))])

    def show(self, key: str, stored: Entry | None, now: int, seq: int) -> None:
        """What the key really holds, so that the client has nothing left to push."""
        if stored is not None:
            self.send(protocol.key_updated(stored, self.caller.public_id))
        else:
            self.send(protocol.key_deleted(key, self.caller.public_id, now, seq))

    def refuse(self, refusal: Refusal, stored: Entry | None, now: int, seq: int, op_id: str | None) -> None:
        """First what the key holds, then one error."""
        if refusal.key is not None:
            self.show(refusal.key, stored, now, seq)
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
        for one in told:
            payload = self._hears(one)
            if payload is None:
                continue
            if one.record.key is None:
                self.outbox.keep_cleared(payload)
            else:
                self.outbox.keep(one.record.key, payload)
