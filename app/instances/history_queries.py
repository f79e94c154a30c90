"""The SQL of an instance's history: pages of it, and what keys held before."""

from typing import Any, NamedTuple

from app.instances.queries import HISTORY, Told


class Before(NamedTuple):
    """What a key held before a change, None as the value where it was not there."""

    key: str
    value: str | None
    attributes: str | None
    expires_at_ms: int | None


def list_told(
    raw: Any, key: str | None, actor: str | None, since: int, below: int, limit: int, most_bytes: int
) -> list[Told]:
    """Changes newest first: of one key, of one actor, after `since`, below the cursor; no more once they are large."""
    found: list[Told] = []
    size = 0
    rows = raw.execute(
        f"""{HISTORY} WHERE seq < ?1 AND seq > ?2 AND (?3 IS NULL OR key = ?3) AND (?4 IS NULL OR actor_id = ?4)
            ORDER BY seq DESC LIMIT ?5""",
        (below, since, key, actor, limit),
    )
    for row in rows:
        found.append(Told(*row))
        size += len(found[-1].value or "") + len(found[-1].previous_value or "")
        if size >= most_bytes:
            break
    rows.close()
    return found


def list_before(raw: Any, seq: int) -> list[Before]:
    """What each key that was changed after `seq` held then."""
    clear = raw.execute("SELECT min(seq) FROM history WHERE seq > ? AND op = 'clear'", (seq,)).fetchone()[0]
    rows = raw.execute(
        """SELECT key, previous_value, previous_attributes, previous_expires_at_ms, min(seq) FROM history
           WHERE seq > ? AND key IS NOT NULL GROUP BY key""",
        (seq,),
    )
    found = {row[0]: Before(*row[:4]) for row in rows if clear is None or row[4] < clear}
    later = raw.execute("SELECT DISTINCT key FROM history WHERE seq > ? AND key IS NOT NULL", (clear or seq,))
    made = {row[0]: Before(row[0], None, None, None) for row in later} if clear is not None else {}
    return list((made | {held.key: held for held in list_cleared(raw, clear)} | found).values())


def list_cleared(raw: Any, seq: int | None) -> list[Before]:
    """What one clear removed."""
    rows = raw.execute("SELECT key, value, attributes, expires_at_ms FROM cleared WHERE seq = ?", (seq,))
    return [Before(*row) for row in rows]


def get_before(raw: Any, seq: int, key: str) -> Before:
    """What a key held before one change of it, or before one clear."""
    row = raw.execute(
        """SELECT ?2, previous_value, previous_attributes, previous_expires_at_ms
               FROM history WHERE seq = ?1 AND key = ?2
           UNION ALL SELECT key, value, attributes, expires_at_ms FROM cleared WHERE seq = ?1 AND key = ?2""",
        (seq, key),
    ).fetchone()
    return Before(*row)


def list_steps(
    raw: Any, actor: str | None, turn_id: str | None, op_id: str | None, since: int
) -> list[tuple[int, str | None, bool]]:
    """`(seq, key, whether it is one of those asked for)` of all changes after `since`, newest first."""
    rows = raw.execute(
        """SELECT seq, key, (?1 IS NULL OR actor_id = ?1) AND (?2 IS NULL OR turn_id IS ?2)
                  AND (?3 IS NULL OR op_id IS ?3) FROM history WHERE seq > ?4 ORDER BY seq DESC""",
        (actor, turn_id, op_id, since),
    )
    return [(row[0], row[1], bool(row[2])) for row in rows]
