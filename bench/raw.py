"""Raw rows: `executemany` into a database of the same tables, indexes and triggers, and nothing around it."""

import os
import time
from pathlib import Path
from typing import Any

from app.edge import migrate, sqlite
from app.edge.clock import now_ms, sql_text
from app.edge.writer import CHECKPOINT_PAGES, MOUNT_CHECKPOINT_PAGES
from bench import messages

INSERT = """
    INSERT INTO usage_logs (
        user_id, session_id, response_id, event_id, event_type, provider, model, total_tokens, input_tokens,
        output_tokens, input_token_details, output_token_details, metadata, created_at, source, occurred_at_ms,
        received_at_ms, api_key_id, endpoint, amends_id, event_key, content_hash, previous_id, cost_micros)
    VALUES (?, ?, ?, ?, NULL, 'openai', ?, 1234, 1000, 234, ?, ?, NULL, ?, 'api', ?, ?, 'key_bench', NULL, NULL, ?, ?,
            NULL, NULL)
"""
INPUT_DETAILS = '{"audio_tokens":800,"cached_tokens":640,"text_tokens":200}'
OUTPUT_DETAILS = '{"audio_tokens":200,"text_tokens":34}'


class RawRows:
    """One file that rows are put into, a transaction for so many at a time."""

    def __init__(self, database: Path, *, mounted: bool = False) -> None:
        migrate.migrate(database, "core")
        self._raw = sqlite.connect(database, mapped=not mounted)
        self._raw.execute("PRAGMA synchronous = FULL")
        self._raw.execute(f"PRAGMA wal_autocheckpoint = {MOUNT_CHECKPOINT_PAGES if mounted else CHECKPOINT_PAGES}")
        self._written = 0

    def close(self) -> None:
        self._raw.close()

    def rate(self, seconds: float, rows: int = messages.BATCH_EVENTS) -> float:
        """Rows a second, `rows` to a commit; the time in which rows are made up is not counted."""
        written, spent = 0, 0.0
        while spent < seconds:
            made = [self._row() for _ in range(rows)]
            begun = time.perf_counter()
            self._raw.execute("BEGIN IMMEDIATE")
            self._raw.executemany(INSERT, made)
            self._raw.execute("COMMIT")
            spent += time.perf_counter() - begun
            written += rows
        return written / spent

    def _row(self) -> tuple[Any, ...]:
        number, now = self._written, now_ms()
        self._written += 1
        user = number % messages.USERS
        name, session, model = (
            messages.user_name(user),
            messages.session_name(user),
            messages.MODELS[user % len(messages.MODELS)],
        )
        event_id = messages.NUMBER % number
        hashes = (os.urandom(16), os.urandom(16))
        at = sql_text(now)
        return (name, session, event_id, event_id, model, INPUT_DETAILS, OUTPUT_DETAILS, at, now, now, *hashes)
