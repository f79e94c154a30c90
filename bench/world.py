"""The world: a database with the users, the key and the ledger that a figure needs, made before a server starts."""

import asyncio
from pathlib import Path

from app.edge import migrate, sqlite
from app.edge.clock import now_ms
from app.edge.database import Database, Transaction
from app.edge.mount import Mount
from app.identity import api_keys, users
from app.identity.ids import Secret, new_ak_key, new_id
from bench import messages

RELAY = "user_benchrelay"
READER = "user_benchreader"
# Whoever asks must not be metered by the rate limits of a plan; whoever spends has a quota to be counted against.
ASKING_PLAN = "unlimited"
SPENDING_PLAN = "business"
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


def make(database: Path, mount: Mount = Mount.NONE) -> str:
    """A migrated database with everybody in it; the text of the relay's key."""
    migrate.migrate(database, "core")
    secret = new_ak_key()
    asyncio.run(_write(database, secret, mount))
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


def count_rows(database: Path) -> int:
    """How many rows the ledger holds, seen from beside the server."""
    raw = sqlite.connect(database, read_only=True)
    try:
        rows: int = raw.execute("SELECT count(*) FROM usage_logs").fetchone()[0]
        return rows
    finally:
        raw.close()


async def _write(database: Path, secret: Secret, mount: Mount) -> None:
    db = Database(database, mount=mount)
    try:
        db.open()
        await db.write(_populate, secret, now_ms())
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
