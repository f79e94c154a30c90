"""Expiry: entries that end by themselves are deleted by the clock as they would be by anybody."""

from collections.abc import Iterable

from app.identity.principal import Kind, Principal
from app.instances import entry
from app.instances.draft import SYSTEM, Caller
from app.instances.entry import Entry
from app.instances.mailbox import Ask
from app.instances.protocol import Delete
from app.instances.queries import Actor
from app.projects.access import Level

# How soon an expiry is tried again whose commit failed.
RETRY_MS = 1_000
CLOCK = Caller(Actor(SYSTEM, "expiry"), SYSTEM, Principal(Kind.OPERATOR, None), Level.OWNER)


class Expiry:
    """When the next entry of an instance expires."""

    def __init__(self) -> None:
        # No entry expires before this; None while none does.
        self._at_ms: int | None = None

    def begin(self, entries: Iterable[Entry], least: int = 0) -> None:
        """Look at all of them; nothing is due before `least`."""
        self._at_ms = None
        self.add(entries)
        if self._at_ms is not None:
            self._at_ms = max(self._at_ms, least)

    def add(self, entries: Iterable[Entry | None]) -> None:
        ends = (held.expires_at_ms for held in entries if held is not None)
        self._at_ms = min((at for at in (*ends, self._at_ms) if at is not None), default=None)

    def is_due(self, now: int) -> bool:
        return self._at_ms is not None and self._at_ms <= now

    def seconds_from(self, now: int) -> float | None:
        """Until the next one; None while none expires."""
        return None if self._at_ms is None else max(0.0, (self._at_ms - now) / 1000)


def deletion_of_expired(entries: Iterable[Entry], now: int) -> Ask:
    return Ask([Delete(held.key) for held in entries if entry.is_expired(held, now)], CLOCK)
