"""The world: a database with the users, the key and the ledger that a figure needs, made before a server starts."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from app.edge import migrate, sqlite
from app.edge.clock import now_ms
from app.edge.database import Database, Transaction
from app.edge.mount import Mount
from app.identity import api_keys, users
from app.identity.ids import Secret, new_ak_key, new_id
from app.projects import instances
from app.usage import archive_queries
from bench import messages

RELAY = "user_benchrelay"
READER = "user_benchreader"
# Whoever asks must not be metered by the rate limits of a plan; whoever spends has a quota to be counted against.
ASKING_PLAN = "unlimited"
SPENDING_PLAN = "business"
REGION = "local"
SCOPES = ("write:usage", "read:usage")

FILL = """
    WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?1)
    INSERT INTO usage_logs (
        user_id, session_id, event_id, provider, model, total_tokens, input_tokens, output_tokens, created_at, source,
        occurred_at_ms, received_at_ms, event_key, content_hash)
    SELECT ?2, 'sess_' || n / 100, 'resp_' || n, 'openai', 'gpt-realtime', 10, 6, 4, datetime('now'), 'bench',
           ?3, ?3, randomblob(16), randomblob(16)
    FROM number
"""

# Rows of the archive as ingestion leaves them, so many a statement.
FILLED_ROWS = 1_000_000
OLD_MS = 100 * 86_400_000
FILL_ARCHIVE = """
    WITH RECURSIVE number (n) AS (SELECT ?1 + 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?1 + ?2)
    INSERT INTO usage_logs (
        id, user_id, session_id, response_id, event_id, provider, model, total_tokens, input_tokens, output_tokens,
        input_token_details, output_token_details, created_at, source, occurred_at_ms, received_at_ms, api_key_id,
        previous_id, event_key, content_hash)
    SELECT n, 'usr_00000000000000000000', 'sess_' || n / 100, 'resp_' || n, 'resp_' || n, 'openai', 'gpt-realtime',
           1234, 1000, 234, '{"audio_tokens":800,"cached_tokens":640,"text_tokens":200}',
           '{"audio_tokens":200,"text_tokens":34}', '2026-01-01 00:00:00', 'openai-realtime', ?3, ?3,
           'key_00000000000000000000', n - 100, randomblob(16), randomblob(16)
    FROM number
"""


def make(database: Path, mount: Mount = Mount.NONE) -> str:
    """A migrated database with everybody in it; the text of the relay's key."""
    migrate.migrate(database, "core")
    secret = new_ak_key()
    asyncio.run(_work(database, _populate, secret, mount))
    return secret.text


def make_old(database: Path) -> None:
    """The same tables and indexes with no trigger, for a server that counts by itself."""
    migrate.migrate(database, "core")
    raw = sqlite.connect(database)
    try:
        raw.execute("DROP TRIGGER usage_logs_counted")
    finally:
        raw.close()


def fill(database: Path, rows: int) -> None:
    """Give the reader a ledger of so many rows in this period. For a file that nobody has open."""
    raw = sqlite.connect(database)
    try:
        raw.execute("PRAGMA synchronous = OFF")
        (reader,) = raw.execute("SELECT user_id FROM identities WHERE subject = ?", (READER,)).fetchone()
        raw.execute(FILL, (rows, reader, now_ms()))
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        raw.close()


def add_instances(database: Path, names: Sequence[str], region: str = REGION, mount: Mount = Mount.NONE) -> None:
    """Give the reader an instance of each of these ids, whose file is made when it is first used."""
    asyncio.run(_work(database, _add_instances, (names, region), mount))


def age(database: Path, ledger: Path, rows: int) -> None:
    """Give a core an archive of so many rows. Its index is made afterwards: sorted, it takes a tenth of the time."""
    migrate.migrate(ledger, "ledger")
    raw = sqlite.connect(ledger)
    try:
        raw.execute("PRAGMA synchronous = OFF")
        (index,) = raw.execute("SELECT sql FROM sqlite_schema WHERE name = 'usage_logs_identity'").fetchone()
        raw.execute("DROP INDEX usage_logs_identity")
        for first in range(0, rows, FILLED_ROWS):
            raw.execute(FILL_ARCHIVE, (first, min(FILLED_ROWS, rows - first), now_ms() - OLD_MS))
        raw.execute(index)
        (archive_id, moves) = raw.execute("UPDATE archive SET moves = 1 RETURNING id, moves").fetchone()
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        raw.close()
    raw = sqlite.connect(database)
    try:
        raw.execute("INSERT INTO archived (one, id, moves) VALUES (1, ?, ?)", (archive_id, moves))
    finally:
        raw.close()


def old_row(log_id: int, event_key: bytes) -> tuple[object, ...]:
    """A row of the archive, in its order of columns."""
    received = now_ms() - OLD_MS
    given: dict[str, object] = {
        "id": log_id,
        "user_id": "usr_00000000000000000000",
        "session_id": f"sess_{log_id // 100}",
        "response_id": f"resp_{log_id}",
        "event_id": f"resp_{log_id}",
        "provider": "openai",
        "model": "gpt-realtime",
        "total_tokens": 1_234,
        "input_tokens": 1_000,
        "output_tokens": 234,
        "input_token_details": '{"audio_tokens":800,"cached_tokens":640,"text_tokens":200}',
        "output_token_details": '{"audio_tokens":200,"text_tokens":34}',
        "created_at": "2026-01-01 00:00:00",
        "source": "openai-realtime",
        "occurred_at_ms": received,
        "received_at_ms": received,
        "api_key_id": "key_00000000000000000000",
        "previous_id": log_id - 100,
        "event_key": event_key,
        "content_hash": bytes(16),
    }
    return tuple(given.get(name) for name in archive_queries.COLUMNS)


def count_rows(database: Path) -> int:
    """How many rows the ledger holds, seen from beside the server."""
    raw = sqlite.connect(database, read_only=True)
    try:
        rows: int = raw.execute("SELECT count(*) FROM usage_logs").fetchone()[0]
        return rows
    finally:
        raw.close()


async def _work(database: Path, job: Callable[..., None], given: object, mount: Mount = Mount.NONE) -> None:
    db = Database(database, mount=mount)
    try:
        db.open()
        await db.write(job, given, now_ms())
    finally:
        await db.close()


def _populate(tx: Transaction, secret: Secret, now: int) -> None:
    for user in range(messages.USERS):
        users.create(tx, messages.user_name(user), None, now)
        users.change_plan(tx, messages.user_name(user), SPENDING_PLAN, now)
    for name in (RELAY, READER):
        users.create(tx, name, f"{name}@example.com", now)
        users.change_plan(tx, name, ASKING_PLAN, now)
    relay = users.get(tx, RELAY).id
    api_keys.issue(tx, secret, api_keys.operator_key(new_id("key"), secret, relay, "bench", SCOPES, now))


def _add_instances(tx: Transaction, made: tuple[Sequence[str], str], now: int) -> None:
    names, region = made
    owner = users.get(tx, READER).id
    for name in names:
        instances.ensure(tx, name, owner, region, now)
