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


def soonest(entries: Iterable[Entry], least: int = 0) -> int | None:
    """When the next of them expires, and not before `least`; None while none does."""
    ends = (held.expires_at_ms for held in entries if held.expires_at_ms is not None)
    first = min(ends, default=None)
    return None if first is None else max(first, least)


def deletion_of_expired(entries: Iterable[Entry], now: int) -> Ask:
    return Ask([Delete(held.key) for held in entries if entry.is_expired(held, now)], CLOCK)
