"""A draft: what has gathered, computed beside the state, and all that follows once it is committed."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from app.errors import AppError
from app.identity.ids import new_id
from app.identity.principal import Principal
from app.instances import entry, protocol
from app.instances.entry import CLOCK_KEYS, Entry, check_key
from app.instances.protocol import (
    CONFLICT,
    INSTANCE_BYTES,
    KEYS,
    NO_PERMISSION,
    TOO_LARGE,
    VALUE_BYTES,
    Clear,
    Delete,
    Set,
)
from app.instances.queries import Actor, Event, Record
from app.projects.access import Level

WRITE_REQUIRED, ADMIN_REQUIRED = "Write permission required", "Admin permission required"
AI = "ai"
SYSTEM = "system"

Change = Set | Delete | Clear


class Refusal(AppError):
    """A change that is not made; `key` names whose authoritative state the client is shown first."""

    def __init__(self, code: str, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.frame_code = code
        self.key = key


class Caller(NamedTuple):
    """Who changes: `public_id` is what frames show, `asked` whose access it is."""

    actor: Actor
    public_id: str
    asked: Principal
    level: Level

    @property
    def principal(self) -> str:
        """What operations are remembered under."""
        return self.asked.id


def caller_of(principal: Principal, level: Level) -> Caller:
    """A principal as history and frames name it."""
    account, key, delegate = principal.account, principal.key, principal.delegate
    if delegate is not None:
        return Caller(Actor("delegate", delegate.id, delegate.name), delegate.id, principal, level)
    public_id = account.public_id if account is not None else principal.kind.value
    if key is not None:
        return Caller(Actor("key", key.id), public_id, principal, level)
    return Caller(Actor("user", public_id), public_id, principal, level)


class State(NamedTuple):
    """What is committed."""

    entries: dict[str, Entry]
    seq: int
    bytes: int


class Told(NamedTuple):
    """A change that was made, as members hear of it. `sender` is the connection that made it."""

    record: Record
    frame: bytes
    sender: str | None


class Draft:
    """Reads through to the state, writes beside it. Each change takes the next seq."""

    def __init__(self, state: State, now: int, *, read_only: bool, tells: bool) -> None:
        self._state = state
        self._changed: dict[str, Entry | None] = {}
        self._cleared = False
        self._read_only = read_only
        self._tells = tells
        self._count = len(state.entries)
        self.now = now
        self.seq = state.seq
        self.bytes = state.bytes
        self.told: list[Told] = []
        self.events: list[Event] = []

    def get(self, key: str) -> Entry | None:
        if key in self._changed:
            return self._changed[key]
        return None if self._cleared else self._state.entries.get(key)

    def held(self) -> list[Entry]:
        base = {} if self._cleared else self._state.entries
        merged: dict[str, Entry | None] = {**base, **self._changed}
        return [found for found in merged.values() if found is not None]

    def state(self) -> State:
        """The state once this draft is committed; the old one is used up by it."""
        entries = {} if self._cleared else self._state.entries
        for key, made in self._changed.items():
            if made is None:
                entries.pop(key, None)
            else:
                entries[key] = made
        return State(entries, self.seq, self.bytes)

    def apply(
        self,
        changes: Sequence[Change],
        by: Caller,
        *,
        sender: str | None = None,
        op_id: str | None = None,
        turn_id: str | None = None,
    ) -> int:
        """Make all of them or none; how many changed something. Refusal, Invalid or TooLarge."""
        mark = (dict(self._changed), self._cleared, self._count, self.seq, self.bytes)
        told, owed = len(self.told), len(self.events)
        try:
            for change in changes:
                made = self._make(change, by)
                if made is not None:
                    self._tell(made._replace(op_id=op_id, turn_id=turn_id), sender)
        except AppError:
            self._changed, self._cleared, self._count, self.seq, self.bytes = mark
            del self.told[told:], self.events[owed:]
            raise
        return len(self.told) - told

    def _make(self, change: Change, by: Caller) -> Record | None:
        if isinstance(change, Set):
            return self._set(change, by)
        return self._delete(change, by) if isinstance(change, Delete) else self._clear(by)

    def _set(self, change: Set, by: Caller) -> Record | None:
        check_key(change.key)
        if change.key in CLOCK_KEYS:
            return None
        stored = self.get(change.key)
        self._check_seq(change.key, stored, change.if_seq)
        made = entry.change(
            stored,
            change.key,
            change.value,
            change.attributes,
            admin=by.level >= Level.ADMIN,
            now=self.now,
            expires_at_ms=change.expires_at,
        )
        if made is None:
            return None
        self._check_may_write(by, change.key)
        self.bytes = self._room_for(stored, made)
        self._count += stored is None
        self.seq += 1
        made = msgspec.structs.replace(made, seq=self.seq)
        self._changed[change.key] = made
        return Record(self.seq, self.now, "set", change.key, made, stored, by.actor, by.public_id)

    def _delete(self, change: Delete, by: Caller) -> Record | None:
        stored = self.get(change.key)
        self._check_seq(change.key, stored, change.if_seq)
        if stored is None:
            return None
        self._check_may_write(by, change.key)
        if not entry.may_delete(stored, admin=by.level >= Level.ADMIN):
            raise Refusal(NO_PERMISSION, ADMIN_REQUIRED, change.key)
        self.seq += 1
        self._count -= 1
        self.bytes -= entry.size(stored)
        self._changed[change.key] = None
        return Record(self.seq, self.now, "delete", change.key, None, stored, by.actor, by.public_id)

    def _clear(self, by: Caller) -> Record | None:
        if by.level < Level.ADMIN:
            raise Refusal(NO_PERMISSION, ADMIN_REQUIRED)
        removed = tuple(self.held())
        if not removed:
            return None
        self.seq += 1
        self._count = self.bytes = 0
        self._changed, self._cleared = {}, True
        return Record(self.seq, self.now, "clear", None, None, None, by.actor, by.public_id, removed=removed)

    def _check_may_write(self, by: Caller, key: str) -> None:
        if by.level < Level.WRITE:
            raise Refusal(NO_PERMISSION, WRITE_REQUIRED, key)
        if self._read_only and by.level < Level.ADMIN:
            raise Refusal(NO_PERMISSION, ADMIN_REQUIRED, key)

    def _check_seq(self, key: str, stored: Entry | None, wanted: int | None) -> None:
        if wanted is not None and wanted != (stored.seq if stored else 0):
            raise Refusal(CONFLICT, "The key has changed since", key)

    def _room_for(self, stored: Entry | None, made: Entry) -> int:
        """The instance's bytes with this entry in it."""
        value = memoryview(made.value).nbytes
        if value > VALUE_BYTES:
            raise Refusal(TOO_LARGE, f"Value too large: {value} bytes (max: {VALUE_BYTES})", made.key)
        if stored is None and self._count >= KEYS:
            raise Refusal(TOO_LARGE, f"Too many keys: {self._count + 1} (max: {KEYS})", made.key)
        total = self.bytes + entry.size(made) - (entry.size(stored) if stored else 0)
        if total > INSTANCE_BYTES:
            raise Refusal(TOO_LARGE, f"Instance too large: {total} bytes (max: {INSTANCE_BYTES})", made.key)
        return total

    def _tell(self, record: Record, sender: str | None) -> None:
        self.told.append(Told(record, frame_of(record), sender))
        if self._tells:
            self.events.append(_event_of(record))


def frame_of(record: Record) -> bytes:
    """A change as clients hear it; an AI's is the system's, and says on whose behalf."""
    actor = record.actor if record.actor.kind == AI else None
    by = SYSTEM if record.actor.kind in (AI, SYSTEM) else record.public_id
    if record.entry is not None:
        return protocol.key_updated(record.entry, by, actor)
    if record.key is not None:
        return protocol.key_deleted(record.key, by, record.at_ms, record.seq, actor)
    return protocol.cleared(by, record.at_ms, record.seq, actor)


def _event_of(record: Record) -> Event:
    kind = "instance.cleared"
    if record.key is not None:
        kind = "key.deleted" if record.entry is None else "key.updated" if record.previous else "key.created"
    payload: dict[str, object] = {"seq": record.seq, "key": record.key, "actor": record.actor._asdict()}
    if record.entry is not None:
        payload |= {"value": record.entry.value, "attributes": record.entry.attributes}
    return Event(new_id("evt"), kind, msgspec.json.encode(payload))
