"""Resuming: what a client missed since the seq that it knows, or the reason why it gets everything."""

from typing import NamedTuple

from app.instances import queries
from app.instances.draft import frame_of
from app.instances.entry import Entry
from app.instances.member import Member
from app.instances.queries import Actor, Record, Told
from app.instances.store import Store

RESUMED_CHANGES = 10_000
RESUMED_BYTES = 8 << 20
EPOCH, RETENTION, AHEAD = "epoch", "retention", "ahead"


class Missed(NamedTuple):
    """`lines` are the changes after a client's seq up to `until`, None where it gets everything; `reason` then
    says why."""

    lines: list[Told] | None
    reason: str | None = None
    until: int = 0

    def with_rest(self, rest: "Missed") -> "Missed":
        """This, and what was found after `until`."""
        if self.lines is None or rest.lines is None:
            return rest
        return rest._replace(lines=self.lines + rest.lines)


class Since(NamedTuple):
    """Where a client stands: the last seq that it heard, and of which epoch."""

    seq: int
    epoch: str | None


def read_missed(store: Store, since: Since, seq: int, epoch: str, told_from: int) -> Missed:
    """On the store's thread. A client of an earlier epoch resumes only from before the next one began."""
    if since.epoch is not None and since.epoch != epoch and not _precedes(store, since):
        return Missed(None, EPOCH)
    if since.seq > seq:
        return Missed(None, AHEAD)
    if since.seq + 1 < told_from:
        return Missed(None, RETENTION)
    lines = store.read(queries.list_told_since, since.seq, RESUMED_CHANGES, RESUMED_BYTES)
    if len(lines) == RESUMED_CHANGES or (lines and lines[-1].seq < seq):
        return Missed(None, RETENTION)
    return Missed(lines, until=lines[-1].seq if lines else since.seq)


def _precedes(store: Store, since: Since) -> bool:
    epochs = store.read(queries.list_epochs)
    names = [name for name, _ in epochs]
    if since.epoch not in names:
        return False
    return all(since.seq < first_seq for _, first_seq in epochs[names.index(since.epoch) + 1 :])


def retell(line: Told, member: Member) -> bytes | None:
    """A change of the past as a member would have heard it; None where its filter leaves it out."""
    record = _record_of(line)
    if record.key is None or (record.entry is not None and member.wants(record.entry)):
        return frame_of(record)
    return frame_of(record._replace(entry=None)) if record.previous and member.wants(record.previous) else None


def _record_of(line: Told) -> Record:
    made = _entry_of(line, line.value, line.attributes)
    previous = _entry_of(line, line.previous_value, line.previous_attributes)
    actor = Actor(line.actor_kind, line.actor_id, line.actor_name)
    return Record(line.seq, line.at_ms, line.op, line.key, made, previous, actor, line.public_id)


def _entry_of(line: Told, value: str | None, attributes: str | None) -> Entry | None:
    if line.key is None or value is None or attributes is None:
        return None
    return queries.read_entry(line.key, value, attributes, line.at_ms, line.seq, None)
