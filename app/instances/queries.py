"""The SQL of an instance's own file. Its one connection is on one thread, so these take it as it is."""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import msgspec

from app.edge.http import encode_json
from app.edge.transaction import Row
from app.instances.entry import Entry


class Actor(NamedTuple):
    """Who made a change: `kind` is user, key, delegate, ai or system."""

    kind: str
    id: str
    name: str | None = None


class Record(NamedTuple):
    """One change: what is there now, what was there before, who made it and whom its frames name."""

    seq: int
    at_ms: int
    op: str
    key: str | None
    entry: Entry | None
    previous: Entry | None
    actor: Actor
    public_id: str
    turn_id: str | None = None
    op_id: str | None = None
    removed: tuple[Entry, ...] = ()


class Operation(NamedTuple):
    """An operation that was named, the seq that it led to, and what is kept of its answer."""

    principal: str
    op_id: str
    seq: int
    answer: bytes | None


class Event(NamedTuple):
    """What webhooks are told of a change."""

    event_id: str
    event_type: str
    payload: bytes


class Told(NamedTuple):
    """A line of history as it stands in the file; values and attributes are JSON texts."""

    seq: int
    at_ms: int
    op: str
    key: str | None
    value: str | None
    attributes: str | None
    expires_at_ms: int | None
    previous_value: str | None
    previous_attributes: str | None
    previous_seq: int | None
    actor_kind: str
    actor_id: str
    actor_name: str | None
    turn_id: str | None
    op_id: str | None
    public_id: str


def find_epoch(raw: Any) -> str | None:
    row = raw.execute("SELECT epoch FROM epochs ORDER BY first_seq DESC, rowid DESC LIMIT 1").fetchone()
    return row[0] if row else None


def list_epochs(raw: Any) -> list[tuple[str, int]]:
    """`(epoch, first_seq)`, oldest first."""
    return [(row[0], row[1]) for row in raw.execute("SELECT epoch, first_seq FROM epochs ORDER BY first_seq, rowid")]


def get_epoch_start(raw: Any, epoch: str) -> int:
    """When an epoch began; 0 for one that the file does not know."""
    row = raw.execute("SELECT started_at_ms FROM epochs WHERE epoch = ?", (epoch,)).fetchone()
    return row[0] if row else 0


def insert_epoch(raw: Any, epoch: str, first_seq: int, now: int) -> None:
    raw.execute("INSERT INTO epochs (epoch, first_seq, started_at_ms) VALUES (?, ?, ?)", (epoch, first_seq, now))


def get_position(raw: Any) -> tuple[int, int]:
    """`(seq, told_from)`."""
    seq, told_from = raw.execute("SELECT seq, told_from FROM instance").fetchone()
    return (seq, told_from)


def update_position(raw: Any, seq: int, told_from: int | None) -> int:
    """Set the last seq, and `told_from` where it is given; what it is then."""
    told: int = raw.execute(
        "UPDATE instance SET seq = ?, told_from = coalesce(?, told_from) RETURNING told_from", (seq, told_from)
    ).fetchall()[0][0]
    return told


def list_entries(raw: Any) -> dict[str, Entry]:
    """Most keys have the same few attributes: each text is decoded once, and what it says is shared."""
    read = cache(msgspec.json.decode)
    rows = raw.execute("SELECT key, CAST(value AS BLOB), attributes, updated_at_ms, seq, expires_at_ms FROM entries")
    return {
        key: Entry(key, msgspec.Raw(value), read(attributes), updated_at_ms, seq, expires_at_ms)
        for key, value, attributes, updated_at_ms, seq, expires_at_ms in rows.fetchall()
    }


def count_bytes(raw: Any) -> int:
    """The size of all entries, as `entry.size` counts it."""
    counted: int = raw.execute(
        "SELECT coalesce(sum(octet_length(key) + octet_length(value) + octet_length(attributes)), 0) FROM entries"
    ).fetchone()[0]
    return counted


def read_entry(key: str, value: str, attributes: str, updated_at_ms: int, seq: int, expires_at_ms: int | None) -> Entry:
    return Entry(key, msgspec.Raw(value.encode()), msgspec.json.decode(attributes), updated_at_ms, seq, expires_at_ms)


def write_record(raw: Any, record: Record) -> None:
    """The change itself and its line of history."""
    if record.entry is not None:
        _upsert_entry(raw, record.entry)
    elif record.op == "delete":
        raw.execute("DELETE FROM entries WHERE key = ?", (record.key,))
    else:
        raw.execute("DELETE FROM entries")
    _insert_history(raw, record)


def _upsert_entry(raw: Any, entry: Entry) -> None:
    raw.execute(
        """INSERT INTO entries (key, value, attributes, updated_at_ms, seq, expires_at_ms) VALUES (?, ?, ?, ?, ?, ?)
           ON CONFLICT (key) DO UPDATE SET value = excluded.value, attributes = excluded.attributes,
               updated_at_ms = excluded.updated_at_ms, seq = excluded.seq, expires_at_ms = excluded.expires_at_ms""",
        (entry.key, _value(entry), _attributes(entry), entry.updated_at_ms, entry.seq, entry.expires_at_ms),
    )


def _insert_history(raw: Any, record: Record) -> None:
    entry, previous, actor = record.entry, record.previous, record.actor
    raw.execute(
        """INSERT INTO history (
               seq, at_ms, op, key, value, attributes, expires_at_ms, previous_value, previous_attributes,
               previous_seq, previous_expires_at_ms, actor_kind, actor_id, actor_name, turn_id, op_id, public_id)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            record.seq,
            record.at_ms,
            record.op,
            record.key,
            _value(entry) if entry else None,
            _attributes(entry) if entry else None,
            entry.expires_at_ms if entry else None,
            _value(previous) if previous else None,
            _attributes(previous) if previous else None,
            previous.seq if previous else None,
            previous.expires_at_ms if previous else None,
            *actor,
            record.turn_id,
            record.op_id,
            record.public_id,
        ),
    )
    if record.removed:
        raw.executemany(
            "INSERT INTO cleared (seq, key, value, attributes, entry_seq, expires_at_ms) VALUES (?, ?, ?, ?, ?, ?)",
            [
                (record.seq, gone.key, _value(gone), _attributes(gone), gone.seq, gone.expires_at_ms)
                for gone in record.removed
            ],
        )


def _value(entry: Entry) -> str:
    return bytes(entry.value).decode()


def _attributes(entry: Entry) -> str:
    return encode_json(entry.attributes).decode()


def find_operations(raw: Any, named: Sequence[tuple[str, str]], since_ms: int) -> dict[tuple[str, str], int]:
    """The seq that each named operation led to, of those that were applied before."""
    found = {}
    for principal, op_id in named:
        row = raw.execute(
            "SELECT seq FROM operations WHERE principal = ? AND op_id = ? AND at_ms > ?", (principal, op_id, since_ms)
        ).fetchone()
        if row is not None:
            found[principal, op_id] = row[0]
    return found


def find_answer(raw: Any, principal: str, op_id: str, since_ms: int) -> bytes | None:
    """What was kept of the answer to an operation that came with an Idempotency-Key."""
    row = raw.execute(
        "SELECT answer FROM operations WHERE principal = ? AND op_id = ? AND at_ms > ?", (principal, op_id, since_ms)
    ).fetchone()
    return row[0] if row else None


def insert_operations(raw: Any, operations: Sequence[Operation], now: int) -> None:
    raw.executemany(
        """INSERT INTO operations (principal, op_id, seq, answer, at_ms) VALUES (?, ?, ?, ?, ?)
           ON CONFLICT (principal, op_id) DO UPDATE SET
               seq = excluded.seq, answer = excluded.answer, at_ms = excluded.at_ms""",
        [(*operation, now) for operation in operations],
    )


def delete_operations(raw: Any, before_ms: int) -> None:
    raw.execute("DELETE FROM operations WHERE at_ms <= ?", (before_ms,))


def delete_history(raw: Any, before_ms: int, until_seq: int) -> int:
    """Forget changes that are too old or too many; the first one that is still told."""
    raw.execute("DELETE FROM history WHERE seq <= ? OR at_ms < ?", (until_seq, before_ms))
    row = raw.execute("SELECT coalesce(min(seq), (SELECT seq + 1 FROM instance)) FROM history").fetchone()
    told_from: int = row[0]
    return told_from


def redeem(raw: Any, ticket_id: str, expires_at_ms: int, now: int) -> bool:
    """Use a ticket up. False when it was used before."""
    raw.execute("DELETE FROM redeemed WHERE expires_at_ms < ?", (now,))
    changed: int = raw.execute(
        "INSERT INTO redeemed (ticket_id, expires_at_ms) VALUES (?, ?) ON CONFLICT DO NOTHING",
        (ticket_id, expires_at_ms),
    ).rowcount
    return changed > 0


def insert_events(raw: Any, events: Sequence[Event], now: int) -> None:
    raw.executemany(
        "INSERT INTO outbox (event_id, event_type, at_ms, payload) VALUES (?, ?, ?, ?)",
        [(event.event_id, event.event_type, now, event.payload.decode()) for event in events],
    )


def list_events(raw: Any, limit: int) -> list[Row]:
    """`(id, event_id, event_type, at_ms, payload)` of what webhooks are owed, oldest first."""
    rows: list[Row] = raw.execute(
        "SELECT id, event_id, event_type, at_ms, payload FROM outbox ORDER BY id LIMIT ?", (limit,)
    ).fetchall()
    return rows


def delete_events(raw: Any, last_id: int) -> None:
    raw.execute("DELETE FROM outbox WHERE id <= ?", (last_id,))


HISTORY = """SELECT seq, at_ms, op, key, value, attributes, expires_at_ms, previous_value, previous_attributes,
                     previous_seq, actor_kind, actor_id, actor_name, turn_id, op_id, coalesce(public_id, actor_id)
              FROM history"""


def list_told_since(raw: Any, seq: int, limit: int, most_bytes: int) -> list[Told]:
    """Changes after `seq`, oldest first; no more once their values have more than `most_bytes`."""
    found: list[Told] = []
    size = 0
    rows = raw.execute(f"{HISTORY} WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit))
    while size <= most_bytes and (row := rows.fetchone()) is not None:
        found.append(Told(*row))
        size += len(found[-1].value or "") + len(found[-1].previous_value or "")
    rows.close()
    return found


def make_own(raw: Any, epoch: str, now: int) -> None:
    """Make a copied file an instance of its own: another epoch, nothing owed, no ticket used."""
    raw.execute("DELETE FROM epochs")
    insert_epoch(raw, epoch, 1, now)
    raw.execute("DELETE FROM redeemed")
    raw.execute("DELETE FROM outbox")
    raw.execute("DELETE FROM operations")
