-- What every file of this kind says of itself.
CREATE TABLE schema (
    version INTEGER NOT NULL,
    readable_from INTEGER NOT NULL
) STRICT;
INSERT INTO schema (version, readable_from) VALUES (0, 1);

-- Which archive this is, and how many commits have brought rows: the core compares both with what it relies on.
CREATE TABLE archive (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id TEXT NOT NULL,
    moves INTEGER NOT NULL
) STRICT;
INSERT INTO archive (one, id, moves) VALUES (1, lower(hex(randomblob(8))), 0);

-- Rows of the core's usage_logs, as they were there: the same columns, the same ids.
CREATE TABLE usage_logs (
    id INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    session_id TEXT,
    response_id TEXT,
    event_id TEXT NOT NULL,
    event_type TEXT,
    provider TEXT,
    model TEXT,
    total_tokens INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    input_token_details TEXT,
    output_token_details TEXT,
    metadata TEXT,
    created_at TEXT NOT NULL,
    source TEXT NOT NULL,
    occurred_at_ms INTEGER NOT NULL,
    received_at_ms INTEGER NOT NULL,
    cost_micros INTEGER,
    instance_id TEXT,
    api_key_id TEXT,
    endpoint TEXT,
    amends_id INTEGER,
    previous_id INTEGER,
    event_key BLOB NOT NULL CHECK (length(event_key) = 16),
    content_hash BLOB NOT NULL CHECK (length(content_hash) = 16)
) STRICT;
CREATE UNIQUE INDEX usage_logs_identity ON usage_logs (event_key);
CREATE INDEX usage_logs_amendments ON usage_logs (amends_id) WHERE amends_id IS NOT NULL;
